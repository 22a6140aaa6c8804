//! Panics become lines of the log: the engine survives them, so nobody reads them elsewhere.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::thread;

/// From now on. With `RUST_BACKTRACE=1` the line has a backtrace.
pub fn log_them() {
    std::panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("-");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        log::error!(place, thread, text, backtrace:%; "panic");
    } else {
        log::error!(place, thread, text; "panic");
    }
}

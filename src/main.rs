//! Entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(s3dedup::cli::run(std::env::args_os()))
}

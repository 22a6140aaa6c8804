//! Showing how far a run is: one line that changes on a terminal, else a line in the log now and then.

use std::rc::Rc;
use std::time::{Duration, Instant};

use s3dedup_actors::verify::{Phase, Progress, Snapshot};

use super::SHOW_EVERY;
use crate::terminal;

/// Shows the progress until it is dropped.
pub struct Shown {
    task: actix_rt::task::JoinHandle<()>,
    is_terminal: bool,
}

impl Shown {
    /// Begins to show; `by_bytes` when bytes say more about the time left than contents.
    pub fn start(progress: Rc<Progress>, by_bytes: bool) -> Self {
        let mut rate = Rate::default();
        Self::lines(move || rate.line(&progress.snapshot(), Instant::now(), by_bytes))
    }

    /// Begins to show what `line` says each time.
    pub fn lines(mut line: impl FnMut() -> String + 'static) -> Self {
        Self::fitted(move |_| line())
    }

    /// The same; `line` is told how many columns there are.
    pub fn fitted(mut line: impl FnMut(usize) -> String + 'static) -> Self {
        let is_terminal = terminal::is_watched();
        let every = SHOW_EVERY[usize::from(!is_terminal)];
        let task = actix_rt::spawn(async move {
            loop {
                actix_rt::time::sleep(every).await;
                if is_terminal {
                    terminal::draw(&line(terminal::columns()));
                } else {
                    log::info!("{}", line(usize::MAX));
                }
            }
        });
        Self { task, is_terminal }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
        if self.is_terminal {
            terminal::clear();
        }
    }
}

/// The speed since the contents were begun.
#[derive(Default)]
struct Rate {
    first: Option<(Instant, u64, u64)>,
}

impl Rate {
    fn line(&mut self, now: &Snapshot, at: Instant, by_bytes: bool) -> String {
        match now.phase {
            Phase::Metadata => return "phase=metadata".to_owned(),
            Phase::Orphans => return format!("phase=orphans objects={}", now.steps),
            Phase::Names => return "phase=names".to_owned(),
            Phase::Losses => return format!("phase=losses contents={}/{}", now.steps, now.steps_all),
            Phase::Repair => return format!("phase=repair actions={}/{}", now.steps, now.steps_all),
            Phase::Contents => {}
        }
        let (since, contents, bytes) = *self.first.get_or_insert((at, now.contents, now.stored_bytes));
        let seconds = at.duration_since(since).as_secs_f64().max(0.001);
        let bytes_rate = (now.stored_bytes - bytes) as f64 / seconds;
        let contents_rate = (now.contents - contents) as f64 / seconds;
        let (done, all, rate) = if by_bytes {
            (now.stored_bytes, now.stored_bytes_all, bytes_rate)
        } else {
            (now.contents, now.contents_all, contents_rate)
        };
        if all == 0 {
            // Nobody knows how much there is: a rebuild goes by a listing.
            let (contents, megabytes) = (now.contents, bytes_rate / 1e6);
            return format!("phase=contents contents={contents} rate={contents_rate:.0}/s {megabytes:.1} MB/s");
        }
        let percent = (done as f64 / all as f64 * 100.0).min(100.0);
        let eta = match all.saturating_sub(done) as f64 / rate {
            seconds if seconds.is_finite() => duration(Duration::from_secs(seconds as u64)),
            _ => "?".to_owned(),
        };
        let megabytes = bytes_rate / 1e6;
        let (done, all) = (now.contents, now.contents_all);
        format!(
            "phase=contents {percent:.1}% contents={done}/{all} rate={contents_rate:.0}/s {megabytes:.1} MB/s eta={eta}"
        )
    }
}

/// A time for people.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_line_tells_rate_and_time_left_of_this_run() {
        let snapshot = |contents, stored_bytes| Snapshot {
            phase: Phase::Contents,
            contents,
            contents_all: 1000,
            stored_bytes,
            stored_bytes_all: 1_000_000_000,
            steps: 0,
            steps_all: 0,
        };
        let (mut rate, begun) = (Rate::default(), Instant::now());
        // Half was done by a run before.
        assert!(rate.line(&snapshot(500, 500_000_000), begun, true).contains("eta=?"));
        let line = rate.line(&snapshot(600, 600_000_000), begun + Duration::from_secs(10), true);
        let unknown = Snapshot { contents_all: 0, stored_bytes_all: 0, ..snapshot(700, 700_000_000) };
        let told = rate.line(&unknown, begun + Duration::from_secs(20), true);
        assert_eq!(told, "phase=contents contents=700 rate=10/s 10.0 MB/s");
        assert_eq!(line, "phase=contents 60.0% contents=600/1000 rate=10/s 10.0 MB/s eta=40s");
    }
}

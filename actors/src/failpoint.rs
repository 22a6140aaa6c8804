//! Crash points: named places at which tests let the process die, fail or stall.
//!
//! Without the cargo feature `failpoints`, which no release has, a point compiles to nothing. With it the
//! environment says what happens where:
//!
//! ```text
//! S3DEDUP_FAILPOINTS="put-after-intent=abort#3,put-mid-upload=stall:6"
//! ```
//!
//! | action | |
//! |---|---|
//! | `abort` | the process ends at once, as by a kill |
//! | `error` | the step fails with [`Kind::Unavailable`](crate::model::Kind::Unavailable) |
//! | `stall:SECONDS` | the step waits; its thread does other work meanwhile, if it can |
//! | `block:SECONDS` | the step keeps its thread |
//! | `panic` | the step panics |
//!
//! `#n` at the end: only the n-th time, counted from 1; every time without it.

macro_rules! points {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// Every crash point.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Point {
            $(#[doc = $doc] $variant,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As the environment names it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

points! {
    PutInSpool "put-in-spool" "A piece of a body is in the spool; nothing was asked of any store.";
    PutAfterPlan "put-after-plan" "A PUT has heard whether its content is known; a known one is committed.";
    PutBeforeLock "put-before-lock" "A PUT of an unknown content is about to ask for its lock.";
    PutAtLocks "put-at-locks" "The actor of the locks looks for the lock; an error is one of the actor.";
    PutAfterLock "put-after-lock" "It has the lock.";
    PutAfterIntent "put-after-intent" "Its intent is committed, nothing is uploaded.";
    PutMidUpload "put-mid-upload" "The content store has some of the bytes.";
    PutAfterPart "put-after-part" "A part of an upload in parts is stored.";
    PutBeforeComplete "put-before-complete" "All parts are stored, and not put together.";
    PutAfterUpload "put-after-upload" "The object is durable; the uploader has not said so.";
    PutBeforeCommit "put-before-commit" "The request knows that the object is durable.";
    PutAfterCommit "put-after-commit" "The name holds the content; the client has not heard of it.";
    HealBeforeNote "heal-before-note" "An object was found missing or damaged, twice; nobody has noted it.";
    HealAfterNote "heal-after-note" "It is noted, so that the next upload replaces it; the reader has not heard of it.";
    DeleteBeforeCommit "delete-before-commit" "A DELETE is about to be committed.";
    DeleteAfterCommit "delete-after-commit" "The name is gone; the client has not heard of it.";
    CleanAtTick "clean-at-tick" "It is time for the cleaner's next run.";
    CleanBeforeCondemn "clean-before-condemn" "A batch is chosen; nothing of it is condemned.";
    CleanAfterCondemn "clean-after-condemn" "A batch is condemned; its objects are there.";
    CleanAfterDelete "clean-after-delete" "The objects of a batch are gone; their rows are condemned.";
    CleanAfterForget "clean-after-forget" "A batch is done; nobody has counted it.";
    CleanAfterCondemnUnknown "clean-after-condemn-unknown" "Orphans are condemned; they are there.";
    CleanBeforeAbort "clean-before-abort" "An abandoned upload in parts is about to be ended.";
    CleanAfterAbort "clean-after-abort" "It is ended; nobody has counted it.";
    CleanInScan "clean-in-scan" "A full scan has read a page of objects and not compared it.";
    VerifyBeforeContent "verify-before-content" "Some contents were looked at, which is saved nowhere; the next one was not.";
    RepairAfterPlan "repair-after-plan" "It is decided what is to be done, and nothing is done.";
    RepairAfterObject "repair-after-object" "A content is stored anew; it still has its former object.";
    RepairBeforeSwitch "repair-before-switch" "A content is about to get another object, which an intent may still name.";
    RepairAfterSwitch "repair-after-switch" "A content has another object, or is known again.";
    RepairBeforeQuarantine "repair-before-quarantine" "An object that cannot be replaced is about to be set aside.";
    RepairAfterQuarantine "repair-after-quarantine" "It is.";
    RepairAfterAwait "repair-after-await" "It is noted that a content has no object, so that an upload is stored.";
    RepairAfterClear "repair-after-clear" "An object that is whole after all is taken for good again.";
    RepairBeforeTotals "repair-before-totals" "References are counted anew, totals are not.";
    RebuildAfterTakeOver "rebuild-after-take-over" "Objects are a new database's, which knows none of them.";
    RebuildAfterContent "rebuild-after-content" "A content of a lost database is known again.";
    ImportInPage "import-in-page" "Some names of a page are restored.";
    StartAfterMigrate "start-after-migrate" "The schema of the database is up to date; it is not used yet.";
    StartAfterOpenMetadata "start-after-open-metadata" "The database is open, the content store is not.";
    StartAfterTie "start-after-tie" "Database and contents are known to belong together; nothing runs yet.";
    StartBeforeServe "start-before-serve" "The engine runs, no client is served.";
}

#[cfg(not(feature = "failpoints"))]
mod table {
    use super::Point;
    use crate::model::Result;

    /// Nothing.
    #[inline(always)]
    pub fn hit(_: Point) -> std::future::Ready<Result<()>> {
        std::future::ready(Ok(()))
    }

    /// Nothing.
    #[inline(always)]
    pub fn hit_blocking(_: Point) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
mod table {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Point;
    use crate::model::{Error, Kind, Result};

    const VARIABLE: &str = "S3DEDUP_FAILPOINTS";

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Action {
        Abort,
        Error,
        Panic,
        Stall(Duration),
        Block(Duration),
    }

    #[derive(Debug)]
    struct Armed {
        point: Point,
        action: Action,
        /// Which time, if not every time.
        only: Option<u64>,
        hits: AtomicU64,
    }

    /// Does at this point what the environment asks for.
    pub async fn hit(point: Point) -> Result<()> {
        match due(point) {
            Some(Action::Stall(time)) => {
                tokio::time::sleep(time).await;
                over(point);
            }
            Some(action) => act(point, action)?,
            None => {}
        }
        Ok(())
    }

    /// The same on a thread that may block.
    pub fn hit_blocking(point: Point) -> Result<()> {
        due(point).map_or(Ok(()), |action| act(point, action))
    }

    fn due(point: Point) -> Option<Action> {
        static TABLE: OnceLock<Vec<Armed>> = OnceLock::new();
        let table = TABLE.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            parse(&text).unwrap_or_else(|problem| {
                log::error!("{VARIABLE}: {problem}");
                std::process::abort();
            })
        });
        let armed = table.iter().find(|armed| armed.point == point)?;
        let hit = armed.hits.fetch_add(1, Ordering::SeqCst) + 1;
        if armed.only.is_some_and(|only| only != hit) {
            return None;
        }
        log::warn!("crash point point={} action={:?} hit={hit}", point.name(), armed.action);
        Some(armed.action)
    }

    fn over(point: Point) {
        log::warn!("crash point is over point={}", point.name());
    }

    fn act(point: Point, action: Action) -> Result<()> {
        match action {
            Action::Abort => std::process::abort(),
            Action::Error => Err(Error::new(Kind::Unavailable, format!("crash point {}", point.name()))),
            Action::Panic => panic!("crash point {}", point.name()),
            Action::Stall(time) | Action::Block(time) => {
                std::thread::sleep(time);
                over(point);
                Ok(())
            }
        }
    }

    fn parse(text: &str) -> std::result::Result<Vec<Armed>, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse_one).collect()
    }

    fn parse_one(item: &str) -> std::result::Result<Armed, String> {
        let problem = || format!("{item:?} is not POINT=ACTION or POINT=ACTION#N");
        let (name, action) = item.split_once('=').ok_or_else(problem)?;
        let point = Point::ALL.iter().copied().find(|point| point.name() == name).ok_or_else(problem)?;
        let (action, only) = match action.split_once('#') {
            Some((action, only)) => (action, Some(only.parse().map_err(|_| problem())?)),
            None => (action, None),
        };
        let (action, time) = match action.split_once(':') {
            Some((action, seconds)) => {
                let time = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                (action, Some(time.ok_or_else(problem)?))
            }
            None => (action, None),
        };
        let action = match (action, time) {
            ("abort", None) => Action::Abort,
            ("error", None) => Action::Error,
            ("panic", None) => Action::Panic,
            ("stall", Some(time)) => Action::Stall(time),
            ("block", Some(time)) => Action::Block(time),
            _ => return Err(problem()),
        };
        Ok(Armed { point, action, only, hits: AtomicU64::new(0) })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_the_environment_asks_for() {
            let table = parse("put-after-plan=abort, put-mid-upload=stall:0.5#3,").unwrap();
            assert_eq!((table[0].point, table[0].action, table[0].only), (Point::PutAfterPlan, Action::Abort, None));
            assert_eq!(table[1].point, Point::PutMidUpload);
            assert_eq!((table[1].action, table[1].only), (Action::Stall(Duration::from_millis(500)), Some(3)));
            for wrong in ["x=abort", "put-after-plan", "put-after-plan=stall", "put-after-plan=abort:1#x"] {
                assert!(parse(wrong).is_err(), "{wrong}");
            }
        }
    }
}

pub use table::{hit, hit_blocking};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Point;

    fn sources(folder: &Path, found: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("failpoint.rs") {
                found.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_point_is_somewhere_and_described() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut code = String::new();
        sources(&root.join("src"), &mut code);
        sources(&root.join("../src"), &mut code);
        let page = std::fs::read_to_string(root.join("../docs/architecture.md")).unwrap();
        for point in Point::ALL {
            assert!(code.contains(&format!("Point::{point:?}")), "{point:?} is nowhere");
            assert!(page.contains(&format!("`{}`", point.name())), "{} is not in architecture.md", point.name());
        }
    }
}

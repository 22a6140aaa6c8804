//! Which cases there are.

use s3dedup_actors::failpoint::Point;

/// How long a stall is: longer than any wait for metadata, and what `STUCK_SECONDS` calls stuck.
const STALL_SECONDS: u64 = 30;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Metadata {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Contents {
    Folder,
    S3,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Abort,
    Error,
    /// The step waits; its thread does other work, if it can.
    Stall,
    /// The step keeps its thread.
    Block,
}

pub type Pair = (Metadata, Contents);

const SQLITE_FOLDER: Pair = (Metadata::Sqlite, Contents::Folder);
const SQLITE_S3: Pair = (Metadata::Sqlite, Contents::S3);
const POSTGRES_FOLDER: Pair = (Metadata::Postgres, Contents::Folder);
const POSTGRES_S3: Pair = (Metadata::Postgres, Contents::S3);

pub const PAIRS: [Pair; 4] = [SQLITE_FOLDER, SQLITE_S3, POSTGRES_FOLDER, POSTGRES_S3];
/// Both metadata stores, where the content store makes no difference.
const BOTH: &[Pair] = &[SQLITE_FOLDER, POSTGRES_S3];
/// What is special about a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scene {
    Ordinary,
    /// The upload replaces an object that was found damaged.
    Healing,
    /// What the cleaner is at is the intent of an upload that was given up.
    Abandoned,
}

/// Where an upload that heals differs from others in what it leaves.
const HEALING: [Point; 5] =
    [Point::PutAfterIntent, Point::PutMidUpload, Point::PutAfterUpload, Point::PutBeforeCommit, Point::PutAfterCommit];
/// Steps of a batch of the cleaner.
const OF_BATCH: [Point; 4] =
    [Point::CleanBeforeCondemn, Point::CleanAfterCondemn, Point::CleanAfterDelete, Point::CleanAfterForget];

/// Only a bucket has parts.
const BUCKETS: &[Pair] = &[SQLITE_S3, POSTGRES_S3];

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub point: Point,
    /// Which hit of the point.
    pub hit: u32,
    pub action: Action,
    pub metadata: Metadata,
    pub contents: Contents,
    pub scene: Scene,
}

/// What the point is a step of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A request.
    Request,
    /// The cleaner of a server.
    Clean,
    /// Cleaning from the command line.
    Scan,
    /// The same, of uploads in parts.
    Parts,
    /// A content that is found damaged, and uploaded again.
    Heal,
    /// The start.
    Start,
    /// `verify`, `repair`, `import`.
    Care,
}

pub fn kind(point: Point) -> Kind {
    match point {
        Point::CleanInScan | Point::CleanAfterCondemnUnknown => Kind::Scan,
        Point::CleanBeforeAbort | Point::CleanAfterAbort => Kind::Parts,
        _ => match point.name().split('-').next() {
            Some("put" | "delete") => Kind::Request,
            Some("clean") => Kind::Clean,
            Some("heal") => Kind::Heal,
            Some("start") => Kind::Start,
            _ => Kind::Care,
        },
    }
}

/// Where it makes a difference which store it is.
fn pairs(point: Point) -> &'static [Pair] {
    match point {
        Point::PutAfterPart | Point::PutBeforeComplete | Point::CleanBeforeAbort | Point::CleanAfterAbort => BUCKETS,
        Point::PutInSpool
        | Point::PutAfterPlan
        | Point::PutBeforeLock
        | Point::PutAtLocks
        | Point::PutAfterLock
        | Point::DeleteBeforeCommit
        | Point::DeleteAfterCommit
        | Point::StartAfterMigrate
        | Point::VerifyBeforeContent
        | Point::RepairAfterPlan
        | Point::HealBeforeNote
        | Point::HealAfterNote
        | Point::RepairBeforeSwitch
        | Point::RepairAfterAwait
        | Point::RepairAfterClear
        | Point::RepairBeforeTotals
        | Point::RebuildAfterTakeOver
        | Point::ImportInPage => BOTH,
        _ => &PAIRS,
    }
}

/// At which hits: which contents are under way then is up to the clients.
fn hits(point: Point) -> &'static [u32] {
    match (kind(point), point) {
        (_, Point::PutMidUpload) => &[2, 6],
        (_, Point::PutBeforeComplete | Point::PutAfterPart) => &[1],
        (_, Point::DeleteBeforeCommit | Point::DeleteAfterCommit) => &[2],
        (_, Point::VerifyBeforeContent | Point::RebuildAfterContent | Point::ImportInPage) => &[3],
        (Kind::Request, _) => &[5],
        (Kind::Clean, _) => &[2],
        (Kind::Start | Kind::Scan | Kind::Parts | Kind::Heal | Kind::Care, _) => &[1],
    }
}

impl Case {
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        // Those that wait first: they take longest.
        for action in [Action::Stall, Action::Block, Action::Abort, Action::Error] {
            for point in Point::ALL.iter().copied() {
                // A command has one thread, which does nothing else: keeping it is the same as waiting.
                let has_threads = matches!(kind(point), Kind::Request | Kind::Clean | Kind::Heal);
                let pairs: &[Pair] = match (action, pairs(point)) {
                    (Action::Block, _) if !has_threads => &[],
                    (Action::Block, pairs) if pairs.len() > 2 => BOTH,
                    (_, pairs) => pairs,
                };
                for hit in hits(point).iter().copied() {
                    let case = |&(metadata, contents): &Pair| {
                        let scene = Scene::Ordinary;
                        Self { point, hit, action, metadata, contents, scene }
                    };
                    cases.extend(pairs.iter().map(case));
                }
            }
            // The first one: nothing else is under way.
            let healing = HEALING.map(|point| (point, Scene::Healing));
            let abandoned = OF_BATCH.map(|point| (point, Scene::Abandoned));
            for (point, scene) in healing.into_iter().chain(abandoned) {
                let case = |&(metadata, contents): &Pair| Self { point, hit: 1, action, metadata, contents, scene };
                cases.extend(BOTH.iter().map(case));
            }
        }
        cases
    }

    pub fn kind(&self) -> Kind {
        if self.scene == Scene::Healing { Kind::Heal } else { kind(self.point) }
    }

    /// Point and scene, as the table has them.
    pub fn label(&self) -> String {
        let told = match self.scene {
            Scene::Ordinary => "",
            Scene::Healing => " (healing)",
            Scene::Abandoned => " (abandoned)",
        };
        format!("{}{told}", self.point.name())
    }

    pub fn armed(&self) -> String {
        let seconds = std::env::var("S3DEDUP_TEST_STALL").map_or(STALL_SECONDS, |text| text.parse().unwrap());
        let action = match self.action {
            Action::Abort => "abort".to_owned(),
            Action::Error => "error".to_owned(),
            Action::Stall => format!("stall:{seconds}"),
            Action::Block => format!("block:{seconds}"),
        };
        format!("{}={action}#{}", self.point.name(), self.hit)
    }

    pub fn waits(&self) -> bool {
        matches!(self.action, Action::Stall | Action::Block)
    }
}

/// How many cases there were of each point, action and pair of stores, and how many violations.
pub fn table(cases: &[(Case, usize)]) -> String {
    let letter = |action| match action {
        Action::Abort => 'A',
        Action::Error => 'E',
        Action::Stall => 'S',
        Action::Block => 'B',
    };
    let mut lines = vec![format!(
        "{:<36}{:<15}{:<12}{:<17}{:<14}violations",
        "crash point", "sqlite+folder", "sqlite+s3", "postgres+folder", "postgres+s3"
    )];
    let scenes = [Scene::Ordinary, Scene::Healing, Scene::Abandoned];
    for (point, scene) in Point::ALL.iter().flat_map(|point| scenes.map(|scene| (*point, scene))) {
        let of_point: Vec<_> = cases.iter().filter(|(case, _)| (case.point, case.scene) == (point, scene)).collect();
        let Some((first, _)) = of_point.first() else { continue };
        let cell = |pair: Pair| -> String {
            let here = of_point.iter().filter(|(case, _)| (case.metadata, case.contents) == pair);
            let letters: String = here.map(|(case, _)| letter(case.action)).collect();
            if letters.is_empty() { "-".to_owned() } else { letters }
        };
        let [a, b, c, d] = PAIRS.map(cell);
        let violations: usize = of_point.iter().map(|(_, violations)| violations).sum();
        let name = first.label();
        lines.push(format!("{name:<36}{a:<15}{b:<12}{c:<17}{d:<14}{violations}"));
    }
    let count = |action| cases.iter().filter(|(case, _)| case.action == action).count();
    let [abort, error, stall, block] = [Action::Abort, Action::Error, Action::Stall, Action::Block].map(count);
    lines
        .push(format!("A abort {abort}, E error {error}, S stall (waits) {stall}, B stall (keeps its thread) {block}"));
    lines.join("\n")
}

#[test]
fn every_point_meets_every_action_and_both_metadata_stores() {
    let cases = Case::all();
    for point in Point::ALL {
        for action in [Action::Abort, Action::Error, Action::Stall] {
            for metadata in [Metadata::Sqlite, Metadata::Postgres] {
                let is_there = |case: &Case| (case.point, case.action, case.metadata) == (*point, action, metadata);
                assert!(cases.iter().any(is_there), "{point:?} {action:?} {metadata:?}");
            }
        }
    }
}

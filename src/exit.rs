//! Exit codes of the process.

/// All went well: help, a report, or a server that was stopped and drained.
pub const OK: u8 = 0;
/// The server cannot start: port in use, folder not writable, data used by another server, a database that
/// does not answer, stores that do not belong together.
pub const CANNOT_START: u8 = 1;
/// The command line or the configuration is wrong; starting again will not help.
pub const WRONG_USE: u8 = 2;
/// `verify` or `repair` found damage, or `repair` left some; `compare` found differences.
pub const DAMAGED: u8 = 9;
/// `import` could not restore all names, or a migration did not copy all files.
pub const PARTIAL: u8 = 10;
/// A running server cannot go on; start it afresh.
pub const FATAL: u8 = 70;
/// A second SIGINT ended the process at once.
pub const INTERRUPTED: u8 = 130;
/// A second SIGTERM ended the process at once.
pub const TERMINATED: u8 = 143;

/// The codes for `--help`.
pub const HELP: &str =
    "    0    stopped by SIGTERM or SIGINT after requests in flight were finished; or help, version, report
    1    cannot start: port in use, folder not writable, data in use by another server,
         PostgreSQL not reachable, database and contents that do not belong together;
         cannot clean, or not all of it; verify, repair, export, import, migrate, compare, abandon-migration: could not do
         it, which says nothing about the store; stats, healthcheck: the server does not answer, or is not well
    2    wrong command line or configuration
    9    verify: damaged; repair: damage is left, or --dry-run found some; compare: not the same files
    10   import: contents of some names are missing; migrate: some files were not copied, or it was stopped
    70   cannot go on: start it afresh
    130  a second SIGINT ended it at once
    143  a second SIGTERM ended it at once
";

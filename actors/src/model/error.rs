//! The one error of the engine.
//!
//! Rules: the *kind* decides what a front end answers; the *context* is one short line fit for a
//! client (no secrets, no paths of this machine); the *source* is for the log. An error keeps its
//! kind on the way up: it may gain context, never change its meaning. Absence is a value (`None`,
//! `Absent`), so an outage can never read as "not found".

use std::error::Error as StdError;
use std::fmt;

/// Shorthand for results of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as the caller's next step depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request itself is wrong.
    Invalid,
    /// The content is larger than the configured limit.
    TooLarge,
    /// A limit on concurrent work is reached.
    Overloaded,
    /// A backend or an actor does not answer; the outcome of a write is unknown.
    Unavailable,
    /// A disk or quota is full.
    NoSpace,
    /// Stored bytes are missing or are not what was stored.
    Corrupt,
    /// A defect of this program.
    Internal,
    /// A defect of this program that ended one step: the part it happened in goes on, or was rebuilt.
    Panicked,
}

/// Whether the same request can succeed later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Not without a change.
    Never,
    /// Yes, after a pause.
    Later,
}

/// An error with its kind, a line for the client and its source.
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a source.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// Adds what caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Wraps an input/output error; a full disk or quota becomes [`Kind::NoSpace`].
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let kind = match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Kind::NoSpace,
            _ => Kind::Unavailable,
        };
        Self::new(kind, context).with_source(source)
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What a caller is told whose step panicked.
    pub fn panicked() -> Self {
        Self::new(Kind::Panicked, "a part of the server failed and goes on, try again")
    }

    /// Whether the same request can succeed later.
    pub fn retry(&self) -> Retry {
        match self.kind {
            Kind::Overloaded | Kind::Unavailable | Kind::NoSpace => Retry::Later,
            // A client may try again; work of our own that panicked once is not insisted on.
            Kind::Invalid | Kind::TooLarge | Kind::Corrupt | Kind::Internal | Kind::Panicked => Retry::Never,
        }
    }

    /// One short line, fit for a client.
    pub fn context(&self) -> &str {
        &self.context
    }
}

/// The context followed by every source: for logs.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Error::io("spool", full).kind(), Kind::NoSpace);
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(Error::io("spool", other).kind(), Kind::Unavailable);
    }

    #[test]
    fn sources_are_logged_but_not_in_the_context() {
        let error = Error::new(Kind::Unavailable, "database is busy").with_source("SQLITE_BUSY");
        assert_eq!(error.context(), "database is busy");
        assert_eq!(error.to_string(), "database is busy: SQLITE_BUSY");
    }
}

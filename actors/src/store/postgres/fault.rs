//! What an error of PostgreSQL means to a caller.

use tokio_postgres::error::SqlState;

use crate::model::{Error, Kind};

/// Wraps an error of PostgreSQL by what a caller can do about it. The source tells SQLSTATE and message; what
/// was in the statement is not in it.
pub fn sql_error(doing: &str, error: tokio_postgres::Error) -> Error {
    Error::new(kind(&error), format!("can't {doing}")).with_source(describe(&error))
}

/// One line for the log: the server's message, or what happened to the connection.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => {
            let hint = refusal.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {}{hint}", refusal.code().code(), refusal.message())
        }
        None => {
            use std::error::Error as _;
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        }
    }
}

fn kind(error: &tokio_postgres::Error) -> Kind {
    let Some(code) = error.code() else {
        // Encoding and decoding of values; everything else without a code is about the connection.
        use std::error::Error as _;
        let is_of_values = error.source().is_some_and(|source| source.is::<tokio_postgres::types::WrongType>());
        return if is_of_values { Kind::Internal } else { Kind::Unavailable };
    };
    match code {
        &SqlState::DISK_FULL => Kind::NoSpace,
        &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED => Kind::Corrupt,
        &SqlState::READ_ONLY_SQL_TRANSACTION => Kind::Unavailable,
        &SqlState::LOCK_NOT_AVAILABLE | &SqlState::IN_FAILED_SQL_TRANSACTION => Kind::Unavailable,
        code => match &code.code()[..2] {
            // Connection, authorisation, no such database, rolled back, insufficient resources (but for the disk),
            // stopped by an operator, system error.
            "08" | "28" | "3D" | "40" | "53" | "57" | "58" => Kind::Unavailable,
            _ => Kind::Internal,
        },
    }
}

/// Whether transactions got into each other's way, so that nothing was done and trying again helps.
pub fn is_contention(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
}

/// Whether the connection is gone or going; what was asked for may have been done or not.
pub fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => {
            matches!(code, &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::CANNOT_CONNECT_NOW)
                || code.code().starts_with("08")
        }
        None => kind(error) == Kind::Unavailable,
    }
}

//! What an error of PostgreSQL means to a caller.

use tokio_postgres::error::{Severity, SqlState};

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
        &SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::IN_FAILED_SQL_TRANSACTION => Kind::Unavailable,
        // Somebody holds a row or a table for long: the database is well.
        &SqlState::LOCK_NOT_AVAILABLE | &SqlState::QUERY_CANCELED => Kind::Overloaded,
        code => match &code.code()[..2] {
            // Connection, authorisation, no such database, rolled back, insufficient resources (but for the disk),
            // stopped by an operator, system error.
            "08" | "28" | "3D" | "40" | "53" | "57" | "58" => Kind::Unavailable,
            _ => Kind::Internal,
        },
    }
}

/// Whether nothing was done and trying again helps: transactions got into each other's way, or the server is a standby and
/// another one writes now.
pub fn is_undone(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(
            &SqlState::T_R_SERIALIZATION_FAILURE
                | &SqlState::T_R_DEADLOCK_DETECTED
                | &SqlState::READ_ONLY_SQL_TRANSACTION
                // A statement that was prepared before another instance changed the schema.
                | &SqlState::FEATURE_NOT_SUPPORTED
        )
    )
}

/// Whether the connection is gone, going or of no use any more.
pub fn is_lost(error: &tokio_postgres::Error) -> bool {
    let Some(refusal) = error.as_db_error() else { return kind(error) == Kind::Unavailable };
    let is_last = matches!(refusal.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    let is_of_no_use =
        matches!(refusal.code(), &SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::FEATURE_NOT_SUPPORTED);
    is_last || is_of_no_use || refusal.code().code().starts_with("08")
}

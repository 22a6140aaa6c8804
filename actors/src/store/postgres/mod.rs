//! Connections to a PostgreSQL server: where it is, TLS, and what its errors mean. What is done over
//! them is with those who use them: the metadata store and the locks.

mod connect;
mod driver;
mod fault;
mod settings;
mod tls;

pub use connect::{Connector, Session};
pub use driver::Driver;
pub use fault::{describe, is_lost, is_undone, sql_error};
pub use settings::{PostgresSettings, TlsMode};

//! The protocol, route by route, on the wire.

mod bad_input;
mod delete;
mod get;
mod list;
mod paths;
mod put;
mod version;

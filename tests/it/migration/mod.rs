//! Migration from the real old server of version 2 and from a real tree of version 1, by the real program.

mod compare;
mod kills;
mod names;
pub mod old;
mod v1;
mod v2;

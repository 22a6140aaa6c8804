//! Where bytes and facts are kept: traits and implementations. Knows nothing of actors.

pub mod blob;
pub mod blocking;
pub mod instances;
pub mod meta;
pub mod postgres;
pub mod tie;

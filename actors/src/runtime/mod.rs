//! What every part of the engine runs on: limits, guards, back-off, supervision, and on whose behalf it works.

pub mod admission;
pub mod behalf;
pub mod breaker;
pub mod budget;
pub mod guard;
pub mod guardian;
pub mod meter;
pub mod pulse;
pub mod way;

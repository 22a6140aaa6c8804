//! What every part of the engine runs on: limits, guards, back-off, supervision.

pub mod admission;
pub mod breaker;
pub mod budget;
pub mod guard;
pub mod guardian;
pub mod meter;
pub mod pulse;
pub mod way;

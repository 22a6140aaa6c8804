//! What every part of the engine runs on: limits, guards, back-off.

pub mod admission;
pub mod budget;

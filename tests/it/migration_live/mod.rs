//! A server beside the real old one, while clients move.

mod abandon;
mod commands;
mod cut;
mod faults;
mod forgetting;
mod odd;
mod progress;
mod reader;
mod reads;
mod v1;
pub mod world;
mod writes;

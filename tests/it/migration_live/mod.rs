//! A server beside the real old one, while clients move.

mod abandon;
mod commands;
mod faults;
mod forgetting;
mod odd;
mod reader;
mod reads;
mod v1;
mod world;
mod writes;

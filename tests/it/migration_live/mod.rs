//! A server beside the real old one, while clients move.

mod faults;
mod forgetting;
mod odd;
mod reads;
mod v1;
mod world;
mod writes;

//! Connections: from a socket that was accepted to the HTTP library, which gets a stream of ours.
//!
//! That is where a connection is counted ([`seats`]), agrees on encryption ([`reception`]), is looked after until it ends
//! ([`lull`]), and where what the library says by itself is said in our way ([`refused`]).

pub mod heard;
pub mod lull;
pub mod reception;
pub mod refused;
pub mod seats;
pub mod spoken;
pub mod wire;

#[cfg(test)]
mod tests;

pub use lull::Answering;
pub use reception::{Reception, serve};
pub use seats::Crowd;
pub use wire::Line;

//! Which listener serves what.

use std::net::SocketAddr;

use actix_web::HttpRequest;

use super::connection::Line;

/// Where the pages for those who look after the server are served.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Doors {
    /// Where everything is.
    #[default]
    One,
    /// At a listener of their own, which has this address; the other one has the rest. Both tell about health.
    Two {
        /// The address it was bound to.
        admin: SocketAddr,
    },
}

/// What is served to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// The protocols of clients.
    pub clients: bool,
    /// The pages for those who look after the server.
    pub admin: bool,
}

impl Doors {
    /// What is served where this request came in.
    pub fn of(self, request: &HttpRequest) -> Served {
        match self {
            Self::One => Served { clients: true, admin: true },
            // The address that was listened on, not the one that the client sent it to or wrote in `Host`.
            Self::Two { admin } => {
                let is_admin = Line::of(request).is_some_and(|line| line.listener() == admin);
                Served { clients: !is_admin, admin: is_admin }
            }
        }
    }
}

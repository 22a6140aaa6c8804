//! The HTTP front end a configuration asks for.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::config::Config;
use crate::http::connection::lull::Patience;
use crate::http::connection::seats::Seats;
use crate::http::connection::{Crowd, Reception};
use crate::http::doors::Doors;
use crate::http::guard::Guard;
use crate::http::stopping::Stopping;
use crate::http::{self, Front, HttpSettings};
use crate::observe::Observer;
use actix_web::web::{Data, ServiceConfig};

/// How long nothing may be answered on a connection. More than the pause that is left between two requests, and a head
/// after it.
const LONGEST_LULL: Duration = Duration::from_secs(90);
/// How long a client may have hardly any room for more, though it takes some now and then, while it says that it is there.
const USER_TIMEOUT: Duration = Duration::from_secs(900);

/// What all HTTP workers share.
pub fn front(config: &Config, observer: Observer, stopping: Stopping, access: Access, doors: Doors) -> Data<Front> {
    let settings = HttpSettings {
        prefix: config.filetracker.prefix.clone(),
        body_idle: Duration::from_secs(config.limits.body_idle_seconds),
        body_min_rate: config.limits.body_min_rate,
        stalled_reader: Duration::from_secs(config.limits.stalled_reader_seconds),
        guard: Guard {
            access,
            public_read: config.access.public_read,
            metrics: config.access.metrics,
            proxies: config.access.trusted_proxies(),
        },
        doors,
        access_log: config.logging.access,
    };
    http::front(settings, observer, stopping)
}

/// The routes, for every HTTP worker.
pub fn routes(front: Data<Front>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    http::configure(front)
}

/// How connections are received; `front` hears of what is sent on them that is no request.
pub fn reception(config: &Config, front: Option<Data<Front>>) -> Reception {
    let crowd =
        Crowd { connections_max: config.limits.connections_per_address_max, proxies: config.access.trusted_proxies() };
    let gone = Duration::from_secs(config.limits.gone_client_seconds);
    Reception {
        seats: Seats::new(crowd),
        patience: Patience { lull: LONGEST_LULL, gone },
        user_timeout: USER_TIMEOUT,
        tell: match front {
            Some(front) => Arc::new(http::refusals(front)),
            None => Arc::new(|_| {}),
        },
    }
}

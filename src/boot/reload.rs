//! SIGHUP: files that can change while the server runs are read again. What is bad is refused, and what was there stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartError;
use crate::access::Access;
use crate::observe::Observer;
use crate::tls::Certificates;

/// How long the files may take. A disk that hangs must not keep a later signal from being heard.
const READING_MAX: Duration = Duration::from_secs(30);

/// Where the signal arrives. From the moment this exists it does not end the process any more.
pub struct Hangups(Signal);

impl Hangups {
    /// Takes the signal over.
    pub fn listen() -> Result<Self, StartError> {
        let taken = signal(SignalKind::hangup());
        taken.map(Self).map_err(|error| StartError::new(format!("cannot handle SIGHUP: {error}")))
    }
}

/// What is read again.
#[derive(Clone)]
pub struct Reloaded {
    /// The tokens.
    pub access: Access,
    /// The certificate.
    pub certificates: Option<Arc<Certificates>>,
}

impl Reloaded {
    /// Reads everything again, each time the signal comes.
    pub async fn at(self, mut hangups: Hangups, observer: Observer) {
        while hangups.0.recv().await.is_some() {
            let what = self.clone();
            // The files may lie on a slow disk.
            let reading = actix_web::rt::task::spawn_blocking(move || what.reload());
            match actix_web::rt::time::timeout(READING_MAX, reading).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("could not read files again error={error}"),
                Err(_) => log::error!("files are not read again yet: their disk does not answer"),
            }
            observer.set_certificate_expiry(self.certificates.as_deref().map(Certificates::expiry));
        }
    }

    fn reload(&self) {
        match self.access.reload() {
            Ok(()) => log::info!("read again tokens={}", self.access.tokens()),
            Err(reason) => log::error!("the old tokens stay: {reason}"),
        }
        let Some(certificates) = &self.certificates else { return };
        match certificates.reload() {
            Ok(()) => certificates.tell(),
            Err(reason) => log::error!("the old certificate stays: {reason}"),
        }
    }
}

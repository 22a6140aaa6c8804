//! The typed configuration of who may do what, and of TLS.

use std::path::PathBuf;

use serde::Deserialize;

use super::Secret;
use crate::access::networks::Networks;

/// Section `access`.
#[derive(Debug, Clone, Deserialize)]
pub struct Access {
    /// The file of tokens; without one everybody may do everything.
    pub tokens_file: Option<PathBuf>,
    /// Whether reads of the protocol need no token.
    pub public_read: bool,
    /// Who may see the metrics.
    pub metrics: MetricsFor,
    /// Wrong tokens of an address that are answered in a minute; 0 for all.
    pub failures_per_minute: u32,
    /// Proxies whose `X-Forwarded-For` is believed; [`Access::trusted_proxies`] has them.
    trusted_proxies: Option<String>,
    /// Where the pages for those who look after the server are served, if not where all is.
    pub admin_listen: Option<String>,
    /// The token that commands of this program show a running server.
    pub admin_token: Option<Secret>,
}

/// Who may see the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricsFor {
    /// Tokens of the role admin.
    Admin,
    /// Every token.
    ReadOnly,
    /// Everybody.
    Everybody,
}

impl Access {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub fn trusted_proxies(&self) -> Networks {
        // the loader has checked it
        self.trusted_proxies.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

/// Section `tls`. Both are there or none.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Tls {
    /// The certificate, and those it was signed by.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

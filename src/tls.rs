//! The certificate of this server: read from files, and again when asked to, without touching open connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::Tls;

/// From here on the log warns of a certificate's end.
const SOON_SECONDS: i64 = 14 * 24 * 3600;

/// The cryptography of all of it.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate with its key, as they are now. New connections get what was read last.
#[derive(Debug)]
pub struct Certificates {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    expiry: i64,
}

impl Certificates {
    /// Reads the files; `None` when the configuration names none.
    pub fn load(tls: &Tls) -> Result<Option<Arc<Self>>, String> {
        let (Some(cert_file), Some(key_file)) = (tls.cert_file.clone(), tls.key_file.clone()) else { return Ok(None) };
        let current = RwLock::new(read(&cert_file, &key_file)?);
        Ok(Some(Arc::new(Self { cert_file, key_file, current })))
    }

    /// Reads the files again. When they are bad nothing changes, and the reason is one line.
    pub fn reload(&self) -> Result<(), String> {
        let new = read(&self.cert_file, &self.key_file)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn expiry(&self) -> i64 {
        self.now().expiry
    }

    /// Says in the log which certificate it is, louder when it ends soon.
    pub fn tell(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let left = self.expiry() - i64::try_from(now).unwrap_or(i64::MAX);
        let (file, days) = (self.cert_file.display().to_string(), left.div_euclid(24 * 3600));
        match left {
            ..=0 => log::error!("the certificate has expired, clients will refuse it file={file:?} days={days}"),
            1..SOON_SECONDS => log::warn!("the certificate expires soon file={file:?} days={days}"),
            _ => log::info!("certificate file={file:?} expires_in_days={days}"),
        }
    }

    /// What the listeners need.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| format!("no version of TLS: {error}"))?;
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        // Clients that would rather have HTTP/2 are told in the handshake.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn now(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now().key)
    }
}

/// The certificates of a file, at least one.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let refuse = |reason: String| format!("{}: {reason}", path.display());
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| refuse(format!("cannot read certificates: {error}")))?;
    if chain.is_empty() { Err(refuse("there is no certificate in it".to_owned())) } else { Ok(chain) }
}

fn read(cert_file: &Path, key_file: &Path) -> Result<Current, String> {
    let chain = chain(cert_file)?;
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", cert_file.display());
    let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let parsed = Certificate::from_der(first).map_err(|error| wrong(&error))?;
    let end = parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    let refuse = |error: &dyn std::fmt::Display| format!("{}: cannot read a key: {error}", key_file.display());
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| refuse(&error))?;
    let key = CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| format!("{} and {}: {error}", cert_file.display(), key_file.display()))?;
    Ok(Current { key: Arc::new(key), expiry: i64::try_from(end).unwrap_or(i64::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(dir.join("cert.pem"), &cert).unwrap();
        std::fs::write(dir.join("key.pem"), &key).unwrap();
        (cert, key)
    }

    #[test]
    fn bad_new_files_keep_the_old_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls { cert_file: Some(dir.path().join("cert.pem")), key_file: Some(dir.path().join("key.pem")) };
        write(dir.path(), "a.example");
        let certificates = Certificates::load(&tls).unwrap().unwrap();
        let shown = || certificates.now().key.cert[0].clone();
        let before = shown();
        assert!(certificates.expiry() > 0);
        assert_eq!(certificates.server_config().unwrap().alpn_protocols, [b"http/1.1"]);

        let (_, other_key) = write(dir.path(), "b.example");
        write(dir.path(), "c.example");
        std::fs::write(dir.path().join("key.pem"), other_key).unwrap();
        let error = certificates.reload().unwrap_err();
        assert!(error.contains("cert.pem") && error.contains("key.pem"), "{error}");
        for (file, text) in [
            ("cert.pem", "nothing"),
            ("key.pem", "nothing"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            write(dir.path(), "d.example");
            std::fs::write(dir.path().join(file), text).unwrap();
            let error = certificates.reload().unwrap_err();
            assert!(error.contains(file) && !error.contains("BEGIN"), "{error}");
        }
        assert_eq!(shown(), before);

        write(dir.path(), "e.example");
        certificates.reload().unwrap();
        assert_ne!(shown(), before);
    }

    #[test]
    fn no_files_are_no_tls() {
        assert!(Certificates::load(&Tls { cert_file: None, key_file: None }).unwrap().is_none());
    }
}

//! Asking a running server on behalf of a command.

pub mod channel;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use channel::{Channel, Proof};
use rustls::pki_types::CertificateDer;

use crate::config::{Config, Secret, listen};
use crate::tls;

/// How long an answer may take in all. A server tells what it knows within this time, or that it does not.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A server to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    host: String,
    port: u16,
    trust: Trust,
}

/// How a server proves who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trust {
    /// Not at all, without encryption.
    Plain,
    /// By the certificate in this file, which is read where something secret is told.
    Own(PathBuf),
    /// By a certificate for its name, from an authority that is known everywhere or from one of these.
    Authorities(Vec<CertificateDer<'static>>),
}

/// What a server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Place {
    /// Where a server with this configuration is, seen from the same machine.
    pub fn of(config: &Config) -> Self {
        Self::at(config, &config.bucket.address, config.bucket.port)
    }

    /// Where the pages of such a server are for those who look after it.
    pub fn of_admin(config: &Config) -> Self {
        match config.access.admin_listen.as_deref().and_then(listen) {
            Some((host, port)) => Self::at(config, host, port),
            None => Self::of(config),
        }
    }

    fn at(config: &Config, host: &str, port: u16) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // "all addresses" is no address to connect to
        let host = match host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            _ => host.to_owned(),
        };
        Self { host, port, trust: config.tls.cert_file.clone().map_or(Trust::Plain, Trust::Own) }
    }

    /// Takes `http://host`, `https://host`, `http://host:8080`, `http://[::1]:8080`; a slash may follow.
    pub fn parse(url: &str) -> Result<Self, String> {
        // Not the text itself: there may be a password in it.
        let wrong = || "expected http://HOST:PORT or https://HOST:PORT".to_owned();
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (trust, usual_port) = match scheme {
            "http" => (Trust::Plain, 80),
            "https" => (Trust::Authorities(Vec::new()), 443),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, usual_port),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c));
        if is_name { Ok(Self { host: bare.to_owned(), port, trust }) } else { Err(wrong()) }
    }

    /// Believes the authorities of this file, too, who a server is.
    pub fn with_authorities(mut self, file: &Path) -> Result<Self, String> {
        if let Trust::Authorities(known) = &mut self.trust {
            known.extend(tls::chain(file)?);
        }
        Ok(self)
    }

    /// Gets `target`, showing this token; an error is one line for people.
    pub fn get(&self, target: &str, token: Option<&Secret>) -> Result<Answer, String> {
        let deadline = Instant::now() + ANSWER_MAX;
        self.ask(target, token, deadline).map_err(|error| format!("the server at {self} does not answer: {error}"))
    }

    fn ask(&self, target: &str, token: Option<&Secret>, deadline: Instant) -> std::io::Result<Answer> {
        let left = || match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
            left => Ok(left),
        };
        let mut stream = None;
        let mut last = std::io::Error::other("the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left()?) {
                Ok(connected) => stream = Some(connected),
                Err(error) => last = error,
            }
            if stream.is_some() {
                break;
            }
        }
        let Some(stream) = stream else { return Err(last) };
        stream.set_write_timeout(Some(left()?))?;
        stream.set_read_timeout(Some(left()?))?;
        let proof = match &self.trust {
            Trust::Plain => None,
            // Who hears no secret may be anybody: a file that was replaced and not read again yet, or that is bad, makes no
            // server sick.
            Trust::Own(_) if token.is_none() => Some(Proof::Own(None)),
            Trust::Own(file) => {
                let own = tls::chain(file).map_err(std::io::Error::other)?.into_iter().next();
                Some(Proof::Own(Some(own.ok_or_else(|| std::io::Error::other("our own file has no certificate"))?)))
            }
            Trust::Authorities(known) => Some(Proof::Authorities(known.clone())),
        };
        let mut stream = match proof {
            None => Channel::Plain(stream),
            Some(proof) => Channel::encrypted(stream, &self.host, &proof)?,
        };
        let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal())).unwrap_or_default();
        // The oldest version: its answers end with the connection, in one piece.
        let head = format!("GET {target} HTTP/1.0\r\nHost: {self}\r\n{token}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            stream.socket().set_read_timeout(Some(left()?))?;
            match stream.read(&mut piece)? {
                0 => break,
                count => bytes.extend_from_slice(&piece[..count]),
            }
            if bytes.len() as u64 > ANSWER_BYTES_MAX {
                return Err(std::io::Error::other("the answer is too long"));
            }
        }
        parse(&bytes).ok_or_else(|| std::io::Error::other("that is no answer of HTTP"))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers() {
        let shown = |url: &str| Place::parse(url).map(|place| place.to_string()).map_err(|_| ());
        assert_eq!(shown("http://10.0.0.1:8080/"), Ok("10.0.0.1:8080".to_owned()));
        assert_eq!(shown("http://files.example"), Ok("files.example:80".to_owned()));
        assert_eq!(shown("http://[::1]:99"), Ok("[::1]:99".to_owned()));
        assert_eq!(shown("http://[::1]"), Ok("[::1]:80".to_owned()));
        assert_eq!(shown("https://files.example"), Ok("files.example:443".to_owned()));
        for wrong in [
            "ftp://a:1",
            "http://user:secret@a:1",
            "a:1",
            "http://",
            "http://a:x",
            "http://a/b:1",
            "http://a\r\nX: y:1",
        ] {
            assert_eq!(shown(wrong), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn answers_are_taken_apart() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "no\r\n\r\n"));
        for junk in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n"] {
            assert_eq!(parse(junk), None);
        }
    }
}

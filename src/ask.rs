//! Asking a running server on behalf of a command.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::Config;

/// How long an answer may take in all. A server tells what it knows within this time, or that it does not.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A server to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    host: String,
    port: u16,
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
        let host = config.bucket.address.trim_start_matches('[').trim_end_matches(']');
        // "all addresses" is no address to connect to
        let host = match host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            _ => host.to_owned(),
        };
        Self { host, port: config.bucket.port }
    }

    /// Takes `http://host`, `http://host:8080`, `http://[::1]:8080`; a slash may follow.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("expected http://HOST:PORT, not {url:?}");
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, 80),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c));
        if is_name { Ok(Self { host: bare.to_owned(), port }) } else { Err(wrong()) }
    }

    /// Gets `target`; an error is one line for people.
    pub fn get(&self, target: &str) -> Result<Answer, String> {
        let deadline = Instant::now() + ANSWER_MAX;
        self.ask(target, deadline).map_err(|error| format!("the server at {self} does not answer: {error}"))
    }

    fn ask(&self, target: &str, deadline: Instant) -> std::io::Result<Answer> {
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
        let Some(mut stream) = stream else { return Err(last) };
        stream.set_write_timeout(Some(left()?))?;
        // The oldest version: its answers end with the connection, in one piece.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: {self}\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            stream.set_read_timeout(Some(left()?))?;
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
        for wrong in ["https://a:1", "a:1", "http://", "http://a:x", "http://a/b:1", "http://a\r\nX: y:1"] {
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

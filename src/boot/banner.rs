//! What a human sees first: where the server is, and a line to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use actix_web::http::header::HttpDate;

/// Where the server is.
pub struct Place<'a> {
    /// What clients connect to.
    pub address: SocketAddr,
    /// What those who look after the server connect to.
    pub admin: SocketAddr,
    /// What paths begin with.
    pub prefix: &'a str,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
    /// Whether clients must show a token.
    pub is_guarded: bool,
}

/// The lines: the URL, and one curl command that stores a file and reads it back.
pub fn lines(place: &Place<'_>) -> Vec<String> {
    let scheme = if place.is_encrypted { "https" } else { "http" };
    let url = url(scheme, place.address, place.prefix);
    let version = version_parameter(SystemTime::now());
    let file = format!("{url}/files/hello.txt");
    let curl = if place.is_guarded { "curl -u :$TOKEN" } else { "curl" };
    vec![
        format!("s3dedup {} is ready at {url}", env!("CARGO_PKG_VERSION")),
        format!("dashboard: {}", self::url(scheme, place.admin, "/ui")),
        format!(
            "try: {curl} -fsS -X PUT --data-binary hello '{file}?last_modified={version}' && \
             {curl} -fsS --compressed '{file}'"
        ),
    ]
}

/// The URL a client on this machine can use.
fn url(scheme: &str, address: SocketAddr, prefix: &str) -> String {
    // "all addresses" is no address to connect to
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}{prefix}", SocketAddr::new(ip, address.port()))
}

/// A version as Filetracker clients send it.
fn version_parameter(now: SystemTime) -> String {
    let date = HttpDate::from(now).to_string().replace("GMT", "-0000");
    date.replace(',', "%2C").replace(':', "%3A").replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn everywhere_is_shown_as_here() {
        let url_of = |address: &str, prefix| url("http", address.parse().unwrap(), prefix);
        assert_eq!(url_of("0.0.0.0:8080", "/ft"), "http://127.0.0.1:8080/ft");
        assert_eq!(url_of("[::]:80", ""), "http://[::1]:80");
        assert_eq!(url_of("10.1.2.3:9", "/a/b"), "http://10.1.2.3:9/a/b");
    }

    #[test]
    fn the_version_is_what_a_client_sends() {
        let date = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(version_parameter(date), "Tue%2C+14+Nov+2023+22%3A13%3A20+-0000");
    }
}

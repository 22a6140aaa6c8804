//! Lists of networks, and who sent a request that came through some of them.

use std::net::IpAddr;
use std::str::FromStr;

/// Networks, as in `10.0.0.0/8, 192.0.2.7, 2001:db8::/32`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Networks(Vec<(IpAddr, u8)>);

impl Networks {
    /// Whether the address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|(network, length)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(v4)) => {
                same_start(network.to_bits(), v4.to_bits(), 32 - u32::from(*length))
            }
            (IpAddr::V6(network), IpAddr::V6(v6)) => {
                let tail = 128 - u32::from(*length);
                (network.to_bits() ^ v6.to_bits()).checked_shr(tail).unwrap_or(0) == 0
            }
            _ => false,
        })
    }

    /// Who sent a request whose connection comes from `peer`, and which bears these lines of `X-Forwarded-For`, in their order.
    ///
    /// Each proxy adds the address it was asked by at the end; what stands before that may be made up. So it is read from its
    /// end for as long as those who wrote it are proxies of ours.
    pub fn sender<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut sender = peer;
        for text in forwarded.rev().flat_map(|line| line.rsplit(',')) {
            if !self.contain(sender) {
                break;
            }
            let Some(before) = address(text) else { break };
            sender = before;
        }
        sender
    }
}

fn same_start(one: u32, other: u32, tail: u32) -> bool {
    (one ^ other).checked_shr(tail).unwrap_or(0) == 0
}

/// An address as proxies write it: some add a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(bare, _)| bare);
    bare.parse().ok().or_else(|| bare.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

impl FromStr for Networks {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = |part: &str| {
            let (address, length) = part.trim().split_once('/').map_or((part.trim(), None), |(a, l)| (a, Some(l)));
            let address: IpAddr = address.parse().map_err(|_| "has something that is no IP address")?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let length = length.map_or(Ok(longest), str::parse).map_err(|_| "has a length that is no number")?;
            match (address.to_canonical(), length) {
                (_, length) if length > longest => Err("has a length that is too large"),
                // Addresses are compared as what they are, not as the new kind writes the old one.
                (v4 @ IpAddr::V4(_), 96..) if address.is_ipv6() => Ok((v4, length - 96)),
                _ => Ok((address, length)),
            }
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_and_single_addresses() {
        let known = networks("10.0.0.0/8, 192.0.2.7,2001:db8::/33, ::1");
        for inside in ["10.255.0.1", "192.0.2.7", "::ffff:10.1.1.1", "2001:db8:7fff::1", "::1"] {
            assert!(known.contain(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db8:8000::1", "::2", "127.0.0.1"] {
            assert!(!known.contain(ip(outside)), "{outside}");
        }
        let mapped = networks("::ffff:10.0.0.0/104, ::ffff:192.0.2.7");
        assert!(
            mapped.contain(ip("10.1.1.1")) && mapped.contain(ip("::ffff:192.0.2.7")) && !mapped.contain(ip("11.0.0.1"))
        );
        assert!(networks("0.0.0.0/0").contain(ip("8.8.8.8")) && networks("::/0").contain(ip("2001:db8::1")));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/x", "host", "10.0.0.1,", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Networks>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_strangers_wrote_into_the_header_is_not_believed() {
        let proxies = networks("10.0.0.0/8");
        let sender = |peer: &str, lines: &[&str]| proxies.sender(ip(peer), lines.iter().copied()).to_string();
        assert_eq!(sender("192.0.2.1", &["198.51.100.9"]), "192.0.2.1");
        assert_eq!(sender("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(sender("10.0.0.1", &["198.51.100.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(sender("10.0.0.1", &["198.51.100.9, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(sender("10.0.0.1", &["198.51.100.9", "192.0.2.1", "10.0.0.2"]), "192.0.2.1");
        assert_eq!(sender("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
        assert_eq!(sender("10.0.0.1", &["192.0.2.1, unknown"]), "10.0.0.1");
        assert_eq!(sender("10.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(sender("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(Networks::default().sender(ip("10.0.0.1"), ["192.0.2.1"].into_iter()).to_string(), "10.0.0.1");
    }
}

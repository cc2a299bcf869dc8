//! Proxies in front of the edge: whose word is taken for the client that they speak for, and how they give it.
//!
//! Their word changes a client's address and nothing else. Where a connection comes from is decided at accept: what
//! comes from a trusted proxy is `Wan`, or what the owner says of a listener that nobody else can reach.

use std::net::{IpAddr, SocketAddr};

use hyper::{HeaderMap, header::HeaderName};
use ipnet::IpNet;

use crate::origin::Origin;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The trusted proxies of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// Their addresses.
    pub from: Vec<IpNet>,
    /// How they say whom they speak for. There is one way, because a client may write what its proxy does not.
    pub word: Word,
    /// Nobody else may connect.
    pub alone: bool,
    /// Where what they bring comes from: `Wan`, or with `alone` a network of the house. Never the tunnel.
    pub origin: Origin,
}

/// How a proxy says whom it speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// By `X-Forwarded-For`.
    XForwardedFor,
    /// By `Forwarded` (RFC 7239).
    Forwarded,
    /// Before the first byte of a connection, by the PROXY protocol.
    ProxyProtocol,
}

impl Default for Proxies {
    fn default() -> Self {
        Self { from: Vec::new(), word: Word::XForwardedFor, alone: false, origin: Origin::Wan }
    }
}

/// A listener of its own beside those of `http` and `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Where.
    pub address: SocketAddr,
    /// What is spoken there.
    pub speaks: Speaks,
    /// Whose word is taken there.
    pub proxies: Proxies,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// TLS.
    Tls,
    /// Plain HTTP, which is sent on to https.
    Plain,
    /// Plain HTTP that was https up to the proxies, which are alone there.
    Unwrapped,
}

impl Proxies {
    /// Says whether an address is one of theirs.
    pub fn have(&self, address: IpAddr) -> bool {
        self.from.iter().any(|net| net.contains(&address))
    }

    /// Returns the client of a request by who is at the other end of its connection: the first address from the right
    /// that is none of the proxies'.
    pub(super) fn client_behind(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let (field, read): (_, fn(&str) -> Option<IpAddr>) = match self.word {
            Word::XForwardedFor => (FORWARDED_FOR, hop),
            Word::Forwarded => (hyper::header::FORWARDED, node),
            // It was said before.
            Word::ProxyProtocol => return peer,
        };
        let mut client = peer;
        let lines: Vec<&[u8]> = headers.get_all(field).iter().map(|value| value.as_bytes()).collect();
        // The commas of a quoted text are those of a client's own: what the proxy adds has none.
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
            if !self.have(client) {
                break;
            }
            // What the client itself wrote before may be anything; it must not hide what the proxy added.
            let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| read(hop.trim())) else { break };
            client = address.to_canonical();
        }
        client
    }
}

/// Reads an element of `X-Forwarded-For`: an address, as most write it, or one with a port, as Azure's and some other
/// gateways do.
fn hop(element: &str) -> Option<IpAddr> {
    let bracketed = || element.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || element.parse().ok().map(|address: SocketAddr| address.ip());
    element.parse().ok().or_else(with_port).or_else(bracketed)
}

/// Reads who is meant by an element of `Forwarded` (RFC 7239 §4 and §6); `None` if it says no address.
fn node(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let node = node.trim();
    let node = node.strip_prefix('"').map_or(Some(node), |rest| rest.strip_suffix('"'))?;
    match node.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6),
        None => node.split(':').next()?.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn behind(word: Word, fields: &[(&'static str, &[u8])], peer: &str) -> String {
        let from = ["192.0.2.0/24", "2001:db8:2::/64"].map(|net| net.parse().unwrap()).to_vec();
        let proxies = Proxies { from, word, ..Proxies::default() };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        proxies.client_behind(&headers, peer.parse().unwrap()).to_string()
    }

    #[test]
    fn the_client_behind_trusted_proxies_is_read_from_the_right() {
        let fields: [(_, &[u8]); 2] =
            [("x-forwarded-for", b"10.0.0.1, 203.0.113.9"), ("x-forwarded-for", b"192.0.2.7")];
        let odd: [(_, &[u8]); 1] = [("x-forwarded-for", b"\xff, 203.0.113.9")];

        assert_eq!(behind(Word::XForwardedFor, &fields, "192.0.2.1"), "203.0.113.9");
        assert_eq!(behind(Word::XForwardedFor, &fields, "198.51.100.1"), "198.51.100.1");
        assert_eq!(behind(Word::XForwardedFor, &odd, "192.0.2.1"), "203.0.113.9");
    }

    #[test]
    fn hops_may_have_ports() {
        for (said, client) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("10.0.0.1, 203.0.113.9:1, 192.0.2.7:65535", "203.0.113.9"),
            ("203.0.113.9:65536", "192.0.2.1"),
            ("203.0.113.9:", "192.0.2.1"),
            ("[203.0.113.9]", "192.0.2.1"),
            ("[2001:db8::9", "192.0.2.1"),
            ("unknown", "192.0.2.1"),
        ] {
            assert_eq!(
                behind(Word::XForwardedFor, &[("x-forwarded-for", said.as_bytes())], "192.0.2.1"),
                client,
                "{said}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_from_the_right_too() {
        let fields: [(_, &[u8]); 2] = [
            ("forwarded", b"for=10.0.0.1;by=\"a, FOR=203.0.113.9:4711;proto=https"),
            ("forwarded", b"proto=https ; For=\"[2001:db8:2::7]:1\""),
        ];

        assert_eq!(behind(Word::Forwarded, &fields, "192.0.2.1"), "203.0.113.9");
        assert_eq!(behind(Word::Forwarded, &fields, "198.51.100.1"), "198.51.100.1");
        for nobody in ["unknown", "_hidden", "\"[2001:db8::1\"", "\"203.0.113.9", "", "203.0.113.9x"] {
            let fields = [("forwarded", format!("for=10.0.0.1, for={nobody}"))];
            let fields = fields.each_ref().map(|(name, value)| (*name, value.as_bytes()));
            assert_eq!(behind(Word::Forwarded, &fields, "192.0.2.1"), "192.0.2.1", "{nobody}");
        }
    }

    #[test]
    fn only_the_way_that_the_owner_names_counts() {
        let fields: [(_, &[u8]); 2] = [("x-forwarded-for", b"10.0.0.1"), ("forwarded", b"for=10.0.0.2")];

        assert_eq!(behind(Word::XForwardedFor, &fields, "192.0.2.1"), "10.0.0.1");
        assert_eq!(behind(Word::Forwarded, &fields, "192.0.2.1"), "10.0.0.2");
        assert_eq!(behind(Word::ProxyProtocol, &fields, "192.0.2.1"), "192.0.2.1");
    }
}

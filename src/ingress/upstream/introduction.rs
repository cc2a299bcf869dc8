//! What a server is told of the client before the first byte of it: the PROXY protocol, as HAProxy writes it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::ingress::ProxyProtocol;

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) struct Ends {
    /// The client. A port that is not known is 0.
    pub(in crate::ingress) client: SocketAddr,
    /// What it has connected to.
    pub(in crate::ingress) local: SocketAddr,
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Writes the header; without ends the connection is our own.
pub(super) fn header(version: ProxyProtocol, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(|ends| (ends.client, ends.local));
    let families = ends.map(|(client, local)| match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(local)) => Family::Four(client.octets(), local.octets()),
        (client, local) => Family::Six(six(client).octets(), six(local).octets()),
    });
    match version {
        ProxyProtocol::V1 => match (ends, families) {
            (Some((client, local)), Some(Family::Four(..))) => {
                let (from, to) = (client.ip().to_canonical(), local.ip().to_canonical());
                format!("PROXY TCP4 {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
            }
            (Some((client, local)), Some(Family::Six(..))) => {
                let (from, to) = (six(client.ip()), six(local.ip()));
                format!("PROXY TCP6 {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
            }
            _ => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        ProxyProtocol::V2 => {
            let mut out = SIGNATURE.to_vec();
            let Some(((client, local), families)) = ends.zip(families) else {
                // Version 2, command LOCAL, nothing of an address.
                out.extend([0x20, 0, 0, 0]);
                return out;
            };
            match families {
                Family::Four(from, to) => {
                    out.extend([0x21, 0x11, 0, 12]);
                    out.extend(from.into_iter().chain(to));
                }
                Family::Six(from, to) => {
                    out.extend([0x21, 0x21, 0, 36]);
                    out.extend(from.into_iter().chain(to));
                }
            }
            out.extend(client.port().to_be_bytes());
            out.extend(local.port().to_be_bytes());
            out
        }
    }
}

enum Family {
    Four([u8; 4], [u8; 4]),
    Six([u8; 16], [u8; 16]),
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, local: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    #[test]
    fn each_version_says_who_is_at_the_other_end() {
        let v1 = |ends| String::from_utf8(header(ProxyProtocol::V1, ends)).unwrap();
        assert_eq!(v1(ends("192.0.2.1:5", "192.0.2.2:443")), "PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n");
        assert_eq!(v1(ends("[::ffff:192.0.2.1]:5", "192.0.2.2:443")), "PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n");
        assert_eq!(v1(ends("[2001:db8::1]:5", "[2001:db8::2]:443")), "PROXY TCP6 2001:db8::1 2001:db8::2 5 443\r\n");
        assert_eq!(v1(None), "PROXY UNKNOWN\r\n");
        let v2 = header(ProxyProtocol::V2, ends("192.0.2.1:5", "192.0.2.2:443"));
        assert_eq!(v2, [&SIGNATURE[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0, 5, 1, 187]].concat());
        let mixed = header(ProxyProtocol::V2, ends("[2001:db8::1]:5", "192.0.2.2:443"));
        assert_eq!((mixed[13], mixed.len()), (0x21, 16 + 36));
        assert_eq!(header(ProxyProtocol::V2, None), [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat());
    }
}

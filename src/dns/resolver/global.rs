//! Which addresses a public name server can have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Says whether an address can be a public server's: the blocks of the IANA special-purpose registries
/// that are not globally reachable are left out (RFC 6890).
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || a == 100 && (64..128).contains(&b)
        || address.is_loopback()
        || address.is_link_local()
        || a == 192 && b == 0 && (c == 0 || c == 2)
        || a == 198 && (b == 18 || b == 19)
        || a == 198 && b == 51 && c == 100
        || a == 203 && b == 0 && c == 113
        || a >= 224)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments[0] {
        // NAT64 (RFC 6052) leads to IPv4 addresses.
        0x0064 => segments[1] == 0xff9b && segments[2..6] == [0; 4],
        0x2000..=0x3fff => {
            !(segments[0] == 0x2001 && segments[1] == 0xdb8
                || segments[0] == 0x2002
                || segments[0] == 0x3fff && segments[1] < 0x1000)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_servers_can_have_are_global() {
        for text in ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "192.0.9.1"] {
            assert!(is_global(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "100.64.0.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
            "224.0.0.1",
            "0.0.0.0",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_global(text.parse().unwrap()), "{text}");
        }
    }
}

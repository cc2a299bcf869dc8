//! What may be opened to an address at all, whoever asks: the part of the policy that no peer can be exempt from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{origin::Networks, vpn::gate::policy::Policy};

/// Says whether anything may be opened to an address for a peer at all.
pub(in crate::vpn) fn may_connect(address: IpAddr, networks: &Networks, policy: &Policy) -> bool {
    let special = match address {
        IpAddr::V4(v4) => {
            // 0.0.0.0/8 is this host (RFC 1122 §3.2.1.3), 240.0.0.0/4 and broadcast nobody.
            v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
        }
        // ::/8 has ::, ::1 and the forms that hide an IPv4 address.
        IpAddr::V6(v6) => v6.octets()[0] == 0 || v6.is_unicast_link_local() || v6.is_multicast() || is_embedded(v6),
    };
    let is_this_box = networks.own.contains(&address) || networks.shared.contains(&address);
    !special && !is_this_box && !policy.is_inside(address)
}

/// Says whether an address is of the Internet: neither private nor special, nor of a network of the house.
pub(in crate::vpn) fn is_internet(address: IpAddr, networks: &Networks) -> bool {
    let public = match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        // RFC 4291 §2.4: 2000::/3 is what is routed; documentation (RFC 3849) is not.
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000 && v6.segments()[..2] != [0x2001, 0x0db8],
    };
    let of_the_house = networks.on_link.iter().any(|net| net.contains(&address))
        || networks.subnets.iter().any(|(net, _)| net.contains(&address))
        || networks.is_relay(address);
    public && !of_the_house
}

/// RFC 6890: what is not globally reachable.
fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [first, second, third, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_documentation()
        || matches!(
            (first, second, third),
            (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _)
        )
        || v4.is_loopback()
        || v4.is_link_local()
        || first >= 224;
    !special
}

/// Transition forms in which an IPv4 address would be reached past the rules for it: 6to4, Teredo.
fn is_embedded(v6: Ipv6Addr) -> bool {
    v6.segments()[0] == 0x2002 || v6.segments()[..2] == [0x2001, 0]
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::SocketAddr};

    use super::*;
    use crate::{
        origin::{NetworkId, PeerId},
        vpn::{
            Protocol, Reach,
            gate::tests::{config, peer},
        },
    };

    fn house() -> Networks {
        Networks {
            on_link: vec!["192.168.1.0/24".parse().unwrap(), "2a02:8:1::/64".parse().unwrap()],
            own: HashSet::from(["192.168.1.2".parse().unwrap(), "198.51.101.7".parse().unwrap()]),
            relays: HashSet::from(["192.168.1.1".parse().unwrap()]),
            relay_networks: Vec::new(),
            subnets: vec![("9.1.0.0/16".parse().unwrap(), NetworkId::MAIN)],
            ..Networks::default()
        }
    }

    #[test]
    fn this_box_and_the_tunnel_are_never_connected_to() {
        let policy = Policy::new(&config(vec![peer(0, "10.77.0.2/32"), peer(1, "172.20.0.0/16")])).unwrap();
        let may = |address: &str| may_connect(address.parse().unwrap(), &house(), &policy);

        for address in ["192.168.1.2", "198.51.101.7", "10.77.0.1", "10.77.0.2", "10.77.0.77", "172.20.1.1", "fd77::9"]
        {
            assert!(!may(address), "{address}");
        }
        for address in
            ["127.0.0.1", "127.1.2.3", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.251", "255.255.255.255"]
        {
            assert!(!may(address), "{address}");
        }
        for address in ["::", "::1", "::ffff:192.168.1.2", "::127.0.0.1", "fe80::1", "ff02::fb", "64:ff9b::7f00:1"] {
            assert!(!may(address), "{address}");
        }
        for address in ["2002:7f00:1::", "2001::1", "240.0.0.1"] {
            assert!(!may(address), "{address}");
        }
        for address in ["192.168.1.10", "10.1.2.3", "1.1.1.1", "fd00::10", "2a02:8:1::10"] {
            assert!(may(address), "{address}");
        }
    }

    #[test]
    fn the_internet_is_what_is_neither_private_nor_of_the_house() {
        let is = |address: &str| is_internet(address.parse().unwrap(), &house());

        for address in ["1.1.1.1", "2606:4700::1111", "100.63.255.255", "172.32.0.1"] {
            assert!(is(address), "{address}");
        }
        for address in ["10.1.2.3", "172.16.0.1", "192.168.9.9", "100.64.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1"] {
            assert!(!is(address), "{address}");
        }
        for address in ["fd00::1", "2a02:8:1::10", "9.1.2.3", "2001:db8::1", "fec0::1", "192.168.1.1"] {
            assert!(!is(address), "{address}");
        }
    }

    #[test]
    fn a_peer_reaches_what_it_is_allowed_by_protocol_prefix_and_port() {
        let mut ports = peer(0, "10.77.0.2/32");
        ports.may_reach =
            vec![Reach::Ports { protocol: Protocol::Tcp, net: "192.168.1.0/24".parse().unwrap(), ports: 22..=23 }];
        let mut net = peer(1, "10.77.0.3/32");
        net.may_reach = vec![Reach::Net("192.168.1.0/24".parse().unwrap())];
        let mut internet = peer(2, "10.77.0.4/32");
        internet.may_reach = vec![Reach::Internet];
        let policy = Policy::new(&config(vec![ports, net, internet, peer(3, "10.77.0.5/32")])).unwrap();
        let may = |id, protocol, target: &str| {
            let target: SocketAddr = target.parse().unwrap();
            policy.may_relay(PeerId(id), protocol, target, is_internet(target.ip(), &house()))
        };

        assert!(may(0, Protocol::Tcp, "192.168.1.9:22") && may(0, Protocol::Tcp, "192.168.1.9:23"));
        assert!(!may(0, Protocol::Tcp, "192.168.1.9:24") && !may(0, Protocol::Udp, "192.168.1.9:22"));
        assert!(!may(0, Protocol::Tcp, "192.168.2.9:22") && !may(0, Protocol::Tcp, "1.1.1.1:22"));
        assert!(may(1, Protocol::Udp, "192.168.1.9:9") && !may(1, Protocol::Udp, "1.1.1.1:9"));
        assert!(may(2, Protocol::Udp, "1.1.1.1:443") && !may(2, Protocol::Tcp, "192.168.1.9:80"));
        for target in ["192.168.1.9:80", "1.1.1.1:80"] {
            assert!(!may(3, Protocol::Tcp, target) && !may(9, Protocol::Tcp, target), "{target}");
        }
    }
}

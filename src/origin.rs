//! The threat model as types: where something came from, and what that may reach.
//!
//! An [`Origin`] is set once, when a connection or datagram is accepted, and carried from there. On a
//! kernel socket it comes from [`Networks::classify`]; `Origin::Vpn` is made by the gate alone, out of a
//! packet that was decrypted and whose inner source belongs to the peer. No header, PROXY line or source
//! address can produce it.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where a connection or datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The Internet, and everything that cannot be told from it.
    Wan,
    /// A network of the house.
    Lan(NetworkId),
    /// A peer of the VPN, known by its key.
    Vpn(PeerId),
}

/// One network of the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkId(u16);

impl NetworkId {
    /// This box itself: loopback and its own addresses.
    pub const HOST: Self = Self(0);
    /// The main LAN: what is on-link on a LAN interface, or in `lan.subnets`.
    pub const MAIN: Self = Self(1);

    /// Returns the id of the `index`th `[[lan.network]]`.
    pub const fn named(index: u16) -> Self {
        Self(2 + index)
    }

    /// Returns the place of this network in [`Directory::networks`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One peer of the VPN. Stable for a public key as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// Names for what an [`Origin`] holds, for logs and metrics; part of each policy.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// By [`NetworkId::index`]: "host", "lan", then the named networks.
    pub networks: Vec<String>,
    /// Peers by id with the name that the owner gave them.
    pub peers: Vec<(PeerId, String)>,
}

impl Directory {
    /// Returns what a log line calls this origin: `wan`, `lan`, `lan:iot`, `host`, `vpn:laptop`.
    pub fn describe(&self, origin: Origin) -> String {
        match origin {
            Origin::Wan => "wan".into(),
            Origin::Lan(NetworkId::HOST) => "host".into(),
            Origin::Lan(NetworkId::MAIN) => "lan".into(),
            Origin::Lan(network) => match self.networks.get(network.index()) {
                Some(name) => format!("lan:{name}"),
                None => "lan".into(),
            },
            Origin::Vpn(peer) => match self.peers.iter().find(|(id, _)| *id == peer) {
                Some((_, name)) => format!("vpn:{name}"),
                None => "vpn".into(),
            },
        }
    }
}

/// What a person may change. Peers without a person have no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Nothing: may look.
    Viewer,
    /// What passes by itself: pauses, timed rules, bans, maintenance.
    Operator,
    /// Everything.
    Owner,
}

impl Role {
    /// Every role by its word.
    pub const ALL: [(&'static str, Self); 3] =
        [("viewer", Self::Viewer), ("operator", Self::Operator), ("owner", Self::Owner)];
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = Self::ALL.iter().find(|(_, role)| role == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// Who may use a thing: a union, in which nothing is implied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// Everybody, wherever they come from.
    pub public: bool,
    /// Networks of the house. `lan` means [`NetworkId::MAIN`] and [`NetworkId::HOST`].
    pub networks: Vec<NetworkId>,
    /// Every peer of the VPN.
    pub vpn: bool,
    /// These peers of the VPN: named ones and the members of named groups.
    pub peers: Vec<PeerId>,
}

impl Access {
    /// Lets in besides whom another lets in.
    pub fn join(&mut self, other: &Self) {
        self.public |= other.public;
        self.vpn |= other.vpn;
        self.networks
            .extend(other.networks.iter().filter(|network| !self.networks.contains(network)).collect::<Vec<_>>());
        self.peers.extend(other.peers.iter().filter(|peer| !self.peers.contains(peer)).collect::<Vec<_>>());
    }

    /// Says whether something from this origin may use the thing.
    pub fn admits(&self, origin: Origin) -> bool {
        self.public
            || match origin {
                Origin::Wan => false,
                Origin::Lan(network) => self.networks.contains(&network),
                Origin::Vpn(peer) => self.vpn || self.peers.contains(&peer),
            }
    }
}

/// What a kernel socket says about a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The origin of everything that comes from there.
    pub origin: Origin,
    /// The address speaks for others (a default gateway, a trusted proxy). Its origin is `Wan`; the DNS
    /// plane alone answers it, as one client of the group `router`.
    pub relay: bool,
}

/// The networks of the house as they are at this moment; follows the kernel through [`crate::onlink`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Kernel indices of the LAN interfaces.
    pub interfaces: Vec<u32>,
    /// Interfaces with a default route which are not the LAN's: what comes in there is `Wan`, whatever
    /// address it claims. Empty where no LAN interface is named.
    pub outside: Vec<u32>,
    /// Prefixes that are on-link on a LAN interface now.
    pub on_link: Vec<IpNet>,
    /// Every address of this box, on whatever interface, and `lan.this_box`.
    pub own: HashSet<IpAddr>,
    /// Addresses of no one box that the kernel takes as its own besides: broadcast of IPv4, subnet-router anycast
    /// of IPv6 (RFC 4291 §2.6.1).
    pub shared: HashSet<IpAddr>,
    /// Default gateways in networks of the house, `lan.relays` and trusted proxies.
    pub relays: HashSet<IpAddr>,
    /// Networks in which every address is such a one, but for this box's own.
    pub relay_networks: Vec<IpNet>,
    /// `lan.subnets` as [`NetworkId::MAIN`], and the subnets of each `[[lan.network]]`.
    pub subnets: Vec<(IpNet, NetworkId)>,
}

impl Networks {
    /// Says where a source address belongs.
    ///
    /// `interface` is the index of the interface that the packet came in by, where the socket tells: an
    /// on-link source on another interface is spoofed, and so is each source of the house on an interface
    /// outside. (IPv6 kernels let a packet pass that claims to come from this box itself.) Link-local sources
    /// are known by it alone.
    pub fn classify(&self, source: IpAddr, interface: Option<u32>) -> Source {
        let source = source.to_canonical();
        let origin = |origin| Source { origin, relay: false };
        if source.is_loopback() {
            return origin(Origin::Lan(NetworkId::HOST));
        }
        if interface.is_some_and(|index| self.outside.contains(&index)) {
            return origin(Origin::Wan);
        }
        let on_lan_interface = interface.map(|index| self.interfaces.contains(&index));
        // fe80::/10 is on every link: another link's gateway may have the same address.
        if is_link_local(source) && source.is_ipv6() && on_lan_interface == Some(false) {
            return origin(Origin::Wan);
        }
        if self.is_relay(source) {
            return Source { origin: Origin::Wan, relay: true };
        }
        if self.own.contains(&source) {
            return origin(Origin::Lan(NetworkId::HOST));
        }
        let named = self.subnets.iter().filter(|(net, _)| net.contains(&source));
        if let Some((_, network)) = named.max_by_key(|(net, _)| net.prefix_len()) {
            return origin(Origin::Lan(*network));
        }
        if is_link_local(source) && source.is_ipv6() {
            // Without the interface nothing is known.
            return origin(match on_lan_interface {
                Some(true) => Origin::Lan(NetworkId::MAIN),
                _ => Origin::Wan,
            });
        }
        let on_link = self.on_link.iter().any(|net| net.contains(&source));
        origin(match (on_link, on_lan_interface) {
            (true, Some(true) | None) => Origin::Lan(NetworkId::MAIN),
            _ => Origin::Wan,
        })
    }

    /// Says whether an address speaks for others.
    pub fn is_relay(&self, address: IpAddr) -> bool {
        let within = || self.relay_networks.iter().any(|net| net.contains(&address));
        self.relays.contains(&address) || (within() && !self.own.contains(&address))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => is_link_local_v6(v6),
    }
}

fn is_link_local_v6(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house() -> Networks {
        Networks {
            interfaces: vec![2],
            outside: vec![3],
            on_link: vec!["192.168.1.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()],
            own: HashSet::from(["192.168.1.2".parse().unwrap()]),
            shared: HashSet::new(),
            relays: HashSet::from(["192.168.1.1", "fe80::1"].map(|relay| relay.parse().unwrap())),
            relay_networks: vec!["172.18.0.0/16".parse().unwrap()],
            subnets: vec![
                ("10.1.0.0/16".parse().unwrap(), NetworkId::MAIN),
                ("10.1.30.0/24".parse().unwrap(), NetworkId::named(0)),
            ],
        }
    }

    fn origin_of(source: &str, interface: Option<u32>) -> Origin {
        house().classify(source.parse().unwrap(), interface).origin
    }

    #[test]
    fn sources_on_the_wire_are_the_lan() {
        for source in ["192.168.1.77", "2001:db8:1::5", "::ffff:192.168.1.77"] {
            assert_eq!(origin_of(source, Some(2)), Origin::Lan(NetworkId::MAIN), "{source}");
        }
    }

    #[test]
    fn a_lan_source_on_another_interface_is_wan() {
        assert_eq!(origin_of("192.168.1.77", Some(3)), Origin::Wan);
        assert_eq!(origin_of("fe80::5", Some(3)), Origin::Wan);
        assert_eq!(origin_of("fe80::5", None), Origin::Wan);
    }

    #[test]
    fn nothing_of_the_house_comes_in_from_outside() {
        let sources = ["192.168.1.2", "192.168.1.1", "fe80::1", "10.1.2.3", "10.1.30.3", "192.168.1.77"];
        for source in sources {
            let seen = house().classify(source.parse().unwrap(), Some(3));

            assert_eq!(seen, Source { origin: Origin::Wan, relay: false }, "{source}");
        }
    }

    #[test]
    fn a_link_local_relay_is_known_on_the_lan_only() {
        let relay = |interface| house().classify("fe80::1".parse().unwrap(), Some(interface)).relay;

        assert!(relay(2));
        assert!(!relay(7));
    }

    #[test]
    fn the_gateway_is_wan_and_marked_as_a_relay() {
        let source = house().classify("192.168.1.1".parse().unwrap(), Some(2));

        assert_eq!(source, Source { origin: Origin::Wan, relay: true });
    }

    #[test]
    fn what_comes_from_a_network_of_proxies_is_wan_but_for_this_box() {
        let mut house = house();
        house.own.insert("172.18.0.1".parse().unwrap());

        let proxy = house.classify("172.18.0.7".parse().unwrap(), None);
        let own = house.classify("172.18.0.1".parse().unwrap(), None);

        assert_eq!(proxy, Source { origin: Origin::Wan, relay: true });
        assert_eq!(own.origin, Origin::Lan(NetworkId::HOST));
    }

    #[test]
    fn the_longest_listed_subnet_names_the_network() {
        assert_eq!(origin_of("10.1.2.3", Some(2)), Origin::Lan(NetworkId::MAIN));
        assert_eq!(origin_of("10.1.30.3", Some(2)), Origin::Lan(NetworkId::named(0)));
    }

    #[test]
    fn this_box_is_a_network_of_its_own() {
        assert_eq!(origin_of("127.0.0.1", None), Origin::Lan(NetworkId::HOST));
        assert_eq!(origin_of("192.168.1.2", Some(1)), Origin::Lan(NetworkId::HOST));
    }

    #[test]
    fn lan_access_holds_for_the_main_lan_and_the_box_and_nobody_else() {
        let lan = Access { networks: vec![NetworkId::MAIN, NetworkId::HOST], ..Access::default() };

        assert!(lan.admits(Origin::Lan(NetworkId::MAIN)));
        assert!(lan.admits(Origin::Lan(NetworkId::HOST)));
        assert!(!lan.admits(Origin::Lan(NetworkId::named(0))));
        assert!(!lan.admits(Origin::Vpn(PeerId(0))));
        assert!(!lan.admits(Origin::Wan));
    }
}

//! What is on the LAN at this moment, followed by netlink.
//!
//! The kernel is asked for its links, addresses and routes, all of them, and asked again whenever it says
//! that one of them changed: the tables of a box at the edge are small, and a state that is read whole
//! cannot drift.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    neighbour::NeighbourMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use socket2::SockRef;

use crate::{
    origin::{NetworkId, Networks},
    supervise::{Phase, Stop},
};

/// The meant form of `[lan]`, with the proxies that `[ingress]` trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Interfaces of the LAN, by name; one that is not there yet may come.
    pub interfaces: Vec<String>,
    /// `lan.subnets` and those of each `[[lan.network]]`.
    pub subnets: Vec<(IpNet, NetworkId)>,
    /// Addresses of this box that no interface has.
    pub this_box: Vec<IpAddr>,
    /// Addresses that speak for others, besides the default gateways.
    pub relays: Vec<IpAddr>,
    /// Networks of such addresses.
    pub relay_networks: Vec<IpNet>,
    /// Router advertisements tell IPv6 clients of this box's DNS.
    pub announce: bool,
}

/// Keeps [`Networks`] as the kernel has them.
#[derive(Debug)]
pub struct Follower {
    // Held while the kernel is read, so that an older reading never replaces a newer one.
    config: Mutex<Config>,
    networks: Arc<ArcSwap<Networks>>,
}

/// How long the kernel may take for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Changes come in swarms; this much later they are read at once.
const SETTLE: Duration = Duration::from_millis(50);
/// Everything is read again after this time, in case a message was lost.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

impl Follower {
    /// Reads the networks for the first time.
    pub fn new(config: Config) -> io::Result<Self> {
        let networks = Arc::new(ArcSwap::from_pointee(read(&config)?));
        Ok(Self { config: Mutex::new(config), networks })
    }

    /// Returns the networks, which stay up to date while somebody is in [`Self::run`].
    pub fn networks(&self) -> Arc<ArcSwap<Networks>> {
        self.networks.clone()
    }

    /// Follows another configuration from now on; if the kernel does not answer, with the next change.
    pub fn configure(&self, config: Config) {
        *self.config.lock().expect("nothing panics while it holds the lock") = config;
        if let Err(error) = self.refresh() {
            tracing::warn!(%error, "the kernel's addresses could not be read");
        }
    }

    /// Follows the kernel until told to stop, in a thread of its own.
    pub fn run(&self, stop: &Stop) -> Result<(), String> {
        let fail = |error: io::Error| error.to_string();
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail)?;
        // The message itself is not read: that one came is enough.
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        socket.bind(&SocketAddr::new(0, groups.unsigned_abs())).map_err(fail)?;
        SockRef::from(&socket).set_read_timeout(Some(AT_LEAST_EVERY)).map_err(fail)?;
        // What changed between the first reading and the subscription.
        self.refresh().map_err(fail)?;
        while stop.phase() == Phase::Run {
            match socket.recv_from_full() {
                Ok(_) => std::thread::sleep(SETTLE),
                Err(error) if is_timeout(&error) => {}
                // Messages were lost; everything is read anyway.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error.to_string()),
            }
            // The rest of the swarm.
            while socket.recv_from(&mut &mut [0_u8; 64][..], libc::MSG_DONTWAIT).is_ok() {}
            self.refresh().map_err(fail)?;
        }
        Ok(())
    }

    fn refresh(&self) -> io::Result<()> {
        let config = self.config.lock().expect("nothing panics while it holds the lock");
        let networks = read(&config)?;
        if networks != **self.networks.load() {
            tracing::info!(on_link = ?networks.on_link, gateways = ?networks.relays, "the LAN changed");
            self.networks.store(Arc::new(networks));
        }
        Ok(())
    }
}

/// Says whether nothing came in time.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Reads the networks as they are now.
pub fn read(config: &Config) -> io::Result<Networks> {
    Ok(networks(config, &kernel()?))
}

/// What the kernel has, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Interfaces by name.
    pub links: HashMap<String, u32>,
    /// Addresses with the interface they are on and the prefix they stand in.
    pub addresses: Vec<Address>,
    /// Prefixes that are reached without a gateway, by interface.
    pub on_link: Vec<(u32, IpNet)>,
    /// Default gateways and the interface they are behind.
    pub gateways: Vec<(Option<u32>, IpAddr)>,
    /// Interfaces that a default route without a gateway points out of.
    pub default_interfaces: Vec<u32>,
}

/// An address of this box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: u32,
    /// The address itself.
    pub address: IpAddr,
    /// The network around it; around the other end on a point-to-point link.
    pub net: IpNet,
}

impl Kernel {
    /// Returns the name of an interface.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|(_, other)| **other == index).map(|(name, _)| name.as_str())
    }
}

/// Works out what the kernel's tables mean under a configuration.
fn networks(config: &Config, kernel: &Kernel) -> Networks {
    let interfaces: Vec<u32> = config.interfaces.iter().filter_map(|name| kernel.links.get(name).copied()).collect();
    let addressed = kernel.addresses.iter().map(|address| (address.interface, address.net));
    let mut on_link: Vec<IpNet> = addressed
        .chain(kernel.on_link.iter().copied())
        .filter(|(interface, net)| interfaces.contains(interface) && is_a_network(*net))
        .map(|(_, net)| net)
        .collect();
    on_link.sort();
    on_link.dedup();
    let own = kernel.addresses.iter().map(|address| address.address).chain(config.this_box.iter().copied());
    let own: HashSet<IpAddr> = own.collect();
    let wide =
        kernel.addresses.iter().map(|address| address.net).filter(|net| net.prefix_len() + 1 < net.max_prefix_len());
    let shared = wide.flat_map(|net| [Some(net.network()), Some(net.broadcast()).filter(IpAddr::is_ipv4)]);
    let shared = shared.flatten().filter(|address| !own.contains(address)).collect();
    // The gateway of a network that is not the house's speaks for strangers.
    let of_the_house = |(interface, gateway): &&(Option<u32>, IpAddr)| {
        interface.is_some_and(|interface| interfaces.contains(&interface))
            || config.subnets.iter().any(|(net, _)| net.contains(gateway))
    };
    let gateways = kernel.gateways.iter().filter(of_the_house).map(|(_, gateway)| *gateway);
    let relays = gateways.chain(config.relays.iter().copied());
    // This box may be a gateway itself; it does not speak for others to itself.
    let relays = relays.filter(|relay| !own.contains(relay)).collect();
    let defaults = kernel.gateways.iter().filter_map(|(interface, _)| *interface);
    let mut outside: Vec<u32> = defaults.chain(kernel.default_interfaces.iter().copied()).collect();
    outside.retain(|index| !interfaces.is_empty() && !interfaces.contains(index));
    outside.sort_unstable();
    outside.dedup();
    let (relay_networks, subnets) = (config.relay_networks.clone(), config.subnets.clone());
    Networks { interfaces, outside, on_link, own, shared, relays, relay_networks, subnets }
}

/// A prefix that neighbours can be in: no single address, no default route, not what is on every link.
fn is_a_network(net: IpNet) -> bool {
    net.prefix_len() > 0
        && net.prefix_len() < net.max_prefix_len()
        && !net.addr().is_multicast()
        && !net.addr().is_loopback()
        && !matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

/// Asks the kernel for its links, addresses and routes.
pub fn kernel() -> io::Result<Kernel> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    SockRef::from(&socket).set_read_timeout(Some(DEADLINE))?;
    let mut kernel = Kernel::default();
    for message in dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        if let RouteNetlinkMessage::NewLink(link) = message {
            let name = link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            kernel.links.extend(name.map(|name| (name, link.header.index)));
        }
    }
    for message in dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            kernel.addresses.extend(address_of(&address));
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        for message in dump(&socket, RouteNetlinkMessage::GetRoute(question))? {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                add_route(&mut kernel, &route);
            }
        }
    }
    Ok(kernel)
}

/// Asks the kernel for its neighbours.
pub(crate) fn neighbours() -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    SockRef::from(&socket).set_read_timeout(Some(DEADLINE))?;
    dump(&socket, RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))
}

fn address_of(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    // IFA_LOCAL is this box's end; IPv6 without a peer has IFA_ADDRESS alone.
    let address = local.or(other)?;
    let net = IpNet::new(other.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    Some(Address { interface: message.header.index, address, net })
}

fn add_route(kernel: &mut Kernel, route: &RouteMessage) {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    if route.header.kind != RouteType::Unicast || table.unwrap_or(route.header.table.into()) != main {
        return;
    }
    let (mut gateways, mut interface, mut destination) = (Vec::new(), None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::MultiPath(hops) => gateways.extend(hops.iter().flat_map(|hop| {
                hop.attributes.iter().filter_map(gateway).map(|gateway| (Some(hop.interface_index), gateway))
            })),
            other => gateways.extend(gateway(other).map(|gateway| (None, gateway))),
        }
    }
    let length = route.header.destination_prefix_length;
    if length == 0 {
        if gateways.is_empty() {
            kernel.default_interfaces.extend(interface);
        }
        kernel.gateways.extend(gateways.into_iter().map(|(hop, gateway)| (hop.or(interface), gateway)));
    } else if gateways.is_empty()
        && let (Some(interface), Some(destination)) = (interface, destination)
        && let Ok(net) = IpNet::new(destination, length)
    {
        kernel.on_link.push((interface, net.trunc()));
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Asks for a whole table; again if it changed while it was read.
fn dump(socket: &Socket, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    const ATTEMPTS: u32 = 8;
    for sequence in 1..=ATTEMPTS {
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(question.clone()));
        packet.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
        packet.header.sequence_number = sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        if let Some(answer) = answer(socket, sequence)? {
            return Ok(answer);
        }
    }
    Err(io::Error::other("the kernel's tables change faster than they can be read"))
}

/// Collects the parts of one answer; `None` if the kernel says that they do not belong together.
fn answer(socket: &Socket, sequence: u32) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    let mut found = Vec::new();
    let mut torn = false;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Netlink aligns each message to four bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != sequence {
                continue;
            }
            torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                NetlinkPayload::Done(_) => return Ok((!torn).then_some(found)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn address(interface: u32, text: &str) -> Address {
        let net = net(text);
        Address { interface, address: net.addr(), net: net.trunc() }
    }

    #[test]
    fn prefixes_of_lan_interfaces_are_on_link_and_others_are_not() {
        let kernel = Kernel {
            links: HashMap::from([("eth0".into(), 2), ("wan0".into(), 3)]),
            addresses: vec![
                address(2, "192.168.1.2/24"),
                address(2, "2001:db8:1::2/64"),
                address(2, "2001:db8:2::2/128"),
                address(2, "fe80::2/64"),
                address(3, "203.0.113.9/24"),
            ],
            on_link: vec![(2, net("2001:db8:2::/64")), (2, net("fe80::/64")), (3, net("203.0.113.0/24"))],
            gateways: vec![(Some(3), "203.0.113.1".parse().unwrap()), (Some(2), "fe80::1".parse().unwrap())],
            ..Kernel::default()
        };
        let config = Config { interfaces: vec!["eth0".into(), "not-there".into()], ..Config::default() };

        let networks = networks(&config, &kernel);

        let shared = ["192.168.1.0", "192.168.1.255", "203.0.113.0", "203.0.113.255", "2001:db8:1::", "fe80::"];
        assert_eq!(networks.shared, shared.map(|address| address.parse().unwrap()).into());
        assert_eq!(networks.interfaces, [2]);
        let expected = [net("192.168.1.0/24"), net("2001:db8:1::/64"), net("2001:db8:2::/64")];
        assert_eq!(networks.on_link, expected);
        assert!(networks.own.contains(&"203.0.113.9".parse().unwrap()));
        // The provider's gateway speaks for strangers.
        assert_eq!(networks.relays, HashSet::from(["fe80::1".parse().unwrap()]));
        assert_eq!(networks.outside, [3]);
    }

    #[test]
    fn this_box_is_no_relay_of_its_own() {
        let kernel = Kernel { addresses: vec![address(2, "192.168.1.1/24")], ..Kernel::default() };
        let config = Config { relays: vec!["192.168.1.1".parse().unwrap()], ..Config::default() };

        assert!(networks(&config, &kernel).relays.is_empty());
    }

    #[test]
    fn the_kernel_tells_of_loopback() {
        let kernel = kernel().unwrap();

        assert_eq!(kernel.links.get("lo"), Some(&1));
        assert_eq!(kernel.name(1), Some("lo"));
        let follower = Follower::new(Config::default()).unwrap();
        assert!(follower.networks().load().on_link.is_empty());
    }
}

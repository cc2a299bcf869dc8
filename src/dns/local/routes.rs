//! The names of routes: who may use a route gets this box's address, as he reaches it; for everybody else
//! the name is what the public DNS says.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Local, wire, write_addresses};
use crate::{
    dns::{
        HouseRoutes, RouteName,
        encode::{Section, record},
        query::{ancestors, parent, qtype},
    },
    origin::{NetworkId, Networks, Origin},
};

/// Seconds; short, because the box's address may change.
const TTL: u32 = 60;

/// Where routes are served inside the tunnel, and where clients look by themselves.
const INNER_PORT: u16 = 443;

/// The names of routes, compiled.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    names: HashMap<Box<[u8]>, RouteName>,
    /// By what stands behind `*.`, which is one label.
    wildcards: HashMap<Box<[u8]>, RouteName>,
    /// Names that have names of routes below them.
    above: HashSet<Box<[u8]>>,
    listen: Vec<IpAddr>,
    https: Option<u16>,
    inner: Vec<IpAddr>,
    gate: Option<(Box<[u8]>, Vec<IpAddr>)>,
    below: Option<Box<[u8]>>,
}

impl Routes {
    /// Compiles what the configuration says of routes.
    pub(crate) fn new(routes: &HouseRoutes) -> Self {
        let (https, listen, inner) = (routes.https, routes.listen.clone(), routes.inner.clone());
        let gate = routes.gate.as_ref().map(|gate| (wire(&gate.host), gate.listen.clone()));
        let mut compiled =
            Self { https, listen, inner, gate, below: routes.below.as_ref().map(wire), ..Self::default() };
        for route in &routes.names {
            let name = wire(&route.host);
            compiled.above.extend(ancestors(&name).skip(1).map(Box::from));
            match name.strip_prefix(b"\x01*") {
                Some(below) => compiled.wildcards.insert(below.into(), route.clone()),
                None => compiled.names.insert(name, route.clone()),
            };
        }
        compiled
    }

    /// Says whether a name is that of a route, or above one, for this client.
    pub(crate) fn has(&self, name: &[u8], origin: Origin) -> bool {
        let is_gate = self.gate.as_ref().is_some_and(|(gate, _)| **gate == *name);
        is_gate || self.above.contains(name) || self.find(name, origin).is_some()
    }

    /// Writes how this client reaches the route that a name belongs to, behind `owner`. Of what else there is under
    /// the name, mail for one, nothing is known here.
    pub(crate) fn answer(
        &self,
        (name, owner, qtype): (&[u8], &[u8], u16),
        origin: Origin,
        client: IpAddr,
        networks: &Networks,
        out: &mut Vec<u8>,
    ) -> Local<'static> {
        if !matches!(qtype, qtype::A | qtype::AAAA | qtype::HTTPS) {
            return Local::Absent;
        }
        let route = self.find(name, origin);
        let gate = self.gate.as_ref().filter(|(gate, _)| **gate == *name && !self.names.contains_key(name));
        let addresses = match (route, gate, origin) {
            (Some(_), _, Origin::Vpn(_)) => self.inner.clone(),
            (Some(_), _, Origin::Lan(network)) => of_this_box(&self.listen, network, client, networks),
            (None, Some((_, listen)), Origin::Lan(network)) => of_this_box(listen, network, client, networks),
            _ => return Local::Absent,
        };
        let mut written = write_addresses(&addresses, owner, qtype, TTL, out);
        let port = if matches!(origin, Origin::Vpn(_)) { Some(INNER_PORT) } else { self.https };
        if let Some(port) = port.filter(|_| qtype == qtype::HTTPS && route.is_some() && !addresses.is_empty()) {
            record(out, Section::Answer, owner, qtype::HTTPS, TTL, &service(port, &addresses));
            written = true;
        }
        if written { Local::Answered } else { Local::NoData }
    }

    /// Returns the route of a name that this client may use: its own, else that of a wildcard.
    fn find(&self, name: &[u8], origin: Origin) -> Option<&RouteName> {
        let admits = |route: &&RouteName| match origin {
            Origin::Vpn(peer) => route.peers.contains(&peer),
            Origin::Lan(network) => route.networks.contains(&network),
            Origin::Wan => false,
        };
        let own = self.names.get(name).filter(admits);
        let above = || parent(name).filter(|above| self.below.as_deref() == Some(*above));
        let below = || self.names.get(above()?).filter(admits);
        own.or_else(below).or_else(|| self.wildcards.get(parent(name)?).filter(admits))
    }
}

/// The addresses that are listened on, those of the client's own network first; only these where there are some.
fn of_this_box(listen: &[IpAddr], network: NetworkId, client: IpAddr, networks: &Networks) -> Vec<IpAddr> {
    let serves = |address: &IpAddr| {
        listen
            .iter()
            .any(|listen| listen == address || listen.is_unspecified() && listen.is_ipv4() == address.is_ipv4())
    };
    if network == NetworkId::HOST {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let found: Vec<IpAddr> = loopback.into_iter().filter(serves).collect();
        if !found.is_empty() {
            return found;
        }
    }
    let mut own: Vec<IpAddr> = networks.own.iter().copied().filter(serves).filter(is_lasting).collect();
    own.sort();
    let near = |address: &IpAddr| {
        let nets = networks.on_link.iter().chain(networks.subnets.iter().map(|(net, _)| net));
        nets.into_iter().any(|net| net.contains(address) && net.contains(&client.to_canonical()))
    };
    // An IPv4 client also speaks IPv6: each family is chosen by itself.
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = own.into_iter().partition(IpAddr::is_ipv4);
    let on_link = |address: &IpAddr| networks.on_link.iter().any(|net| net.contains(address));
    [v4, v6]
        .into_iter()
        .flat_map(|family| {
            for choice in [&near as &dyn Fn(&IpAddr) -> bool, &on_link] {
                let chosen: Vec<IpAddr> = family.iter().copied().filter(|address| choice(address)).collect();
                if !chosen.is_empty() {
                    return chosen;
                }
            }
            Vec::new()
        })
        .collect()
}

/// Writes the data of a service at the name itself (RFC 9460 §2.2): HTTP/2 and HTTP/1.1 over TLS, at these addresses.
fn service(port: u16, addresses: &[IpAddr]) -> Vec<u8> {
    const ALPN: &[u8] = b"\x02h2\x08http/1.1";
    let v4: Vec<u8> = addresses.iter().filter_map(as_v4).flat_map(|v4| v4.octets()).collect();
    let v6: Vec<u8> = addresses.iter().filter_map(as_v6).flat_map(|v6| v6.octets()).collect();
    // Priority 1, the owner itself as the target.
    let mut data = vec![0, 1, 0];
    let mut parameter = |key: u16, value: &[u8]| {
        let Some(length) = u16::try_from(value.len()).ok().filter(|length| *length > 0) else { return };
        data.extend(key.to_be_bytes());
        data.extend(length.to_be_bytes());
        data.extend(value);
    };
    // In the order of their keys (RFC 9460 §2.2).
    parameter(1, ALPN);
    if port != INNER_PORT {
        parameter(3, &port.to_be_bytes());
    }
    parameter(4, &v4);
    parameter(6, &v6);
    data
}

fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    }
}

/// Loopback is nobody else's, and link-local addresses need an interface beside them.
fn is_lasting(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::*;
    use crate::{
        dns::{
            GateName,
            encode::{self, Head, QNAME},
            query::{Query, tests::query},
        },
        origin::PeerId,
    };

    fn ask(origin: Origin, client: &str, qtype: u16) -> Option<Vec<String>> {
        ask_for("nas.home.example", origin, client, qtype)
    }

    fn ask_for(name: &str, origin: Origin, client: &str, qtype: u16) -> Option<Vec<String>> {
        let route = |host: &str, networks: &[NetworkId]| RouteName {
            host: host.parse().unwrap(),
            networks: networks.to_vec(),
            peers: vec![PeerId(1)],
        };
        let routes = Routes::new(&HouseRoutes {
            names: vec![
                route("nas.home.example.", &[NetworkId::MAIN, NetworkId::HOST]),
                route("*.apps.home.example.", &[NetworkId::MAIN]),
                route("admin.apps.home.example.", &[]),
            ],
            https: Some(8443),
            gate: Some(GateName {
                host: "vpn.home.example.".parse().unwrap(),
                listen: vec!["0.0.0.0".parse().unwrap()],
            }),
            below: Some("nas.home.example.".parse().unwrap()),
            listen: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
            inner: vec!["10.77.0.1".parse().unwrap()],
        });
        let own = ["127.0.0.1", "192.168.1.2", "198.51.100.7", "2001:db8:1::2", "fe80::2"];
        let networks = Networks {
            on_link: ["192.168.1.0/24", "2001:db8:1::/64"].map(|net| net.parse().unwrap()).to_vec(),
            own: own.map(|address| address.parse().unwrap()).into(),
            ..Networks::default()
        };
        let bytes = query(name, qtype, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::local(0), &mut out);
        let question = (asked.name(), QNAME, qtype);
        match routes.answer(question, origin, client.parse().unwrap(), &networks, &mut out) {
            Local::Absent => None,
            _ => Some(Message::from_vec(&out).unwrap().answers.iter().map(|record| record.data.to_string()).collect()),
        }
    }

    #[test]
    fn each_client_gets_the_address_that_it_reaches() {
        let lan = Origin::Lan(NetworkId::MAIN);

        assert_eq!(ask(lan, "192.168.1.50", qtype::A).unwrap(), ["192.168.1.2"]);
        assert_eq!(ask(lan, "192.168.1.50", qtype::AAAA).unwrap(), ["2001:db8:1::2"]);
        assert_eq!(ask(Origin::Vpn(PeerId(1)), "10.77.0.2", qtype::A).unwrap(), ["10.77.0.1"]);
        assert_eq!(ask(Origin::Lan(NetworkId::HOST), "127.0.0.1", qtype::A).unwrap(), ["127.0.0.1"]);
    }

    #[test]
    fn the_gate_is_this_box_for_the_house_and_the_public_address_for_everybody_else() {
        let ask = |origin, client, qtype| ask_for("vpn.home.example", origin, client, qtype);

        assert_eq!(ask(Origin::Lan(NetworkId::MAIN), "192.168.1.50", qtype::A).unwrap(), ["192.168.1.2"]);
        assert_eq!(ask(Origin::Lan(NetworkId::MAIN), "192.168.1.50", qtype::AAAA).unwrap(), [""; 0]);
        assert_eq!(ask(Origin::Vpn(PeerId(1)), "10.77.0.2", qtype::A), None);
        assert_eq!(ask(Origin::Wan, "198.51.100.1", qtype::A), None);
    }

    #[test]
    fn the_label_of_a_device_leads_to_the_same_addresses() {
        assert_eq!(
            ask_for("tv.nas.home.example", Origin::Lan(NetworkId::MAIN), "192.168.1.50", qtype::A).unwrap(),
            ["192.168.1.2"]
        );
        assert_eq!(ask_for("a.tv.nas.home.example", Origin::Lan(NetworkId::MAIN), "192.168.1.50", qtype::A), None);
    }

    #[test]
    fn who_may_not_use_the_route_is_told_what_the_public_dns_says() {
        assert_eq!(ask(Origin::Vpn(PeerId(2)), "10.77.0.3", qtype::A), None);
        assert_eq!(ask(Origin::Lan(NetworkId::named(0)), "192.168.30.5", qtype::A), None);
        assert_eq!(ask(Origin::Wan, "192.168.1.1", qtype::A), None);
    }

    #[test]
    fn a_route_has_a_service_record_and_leaves_other_types_to_the_public_dns() {
        let lan = Origin::Lan(NetworkId::MAIN);

        let service = ask(lan, "192.168.1.50", qtype::HTTPS).unwrap();
        let inside = ask(Origin::Vpn(PeerId(1)), "10.77.0.2", qtype::HTTPS).unwrap();

        assert_eq!(service, ["1 . alpn=h2,http/1.1, port=8443 ipv4hint=192.168.1.2, ipv6hint=2001:db8:1::2,"]);
        assert_eq!(inside, ["1 . alpn=h2,http/1.1, ipv4hint=10.77.0.1,"]);
        for other in [15, 16, qtype::SOA] {
            assert_eq!(ask(lan, "192.168.1.50", other), None);
        }
    }

    #[test]
    fn a_wildcard_is_one_label_and_stands_in_for_a_host_that_is_not_there_for_this_client() {
        let lan = Origin::Lan(NetworkId::MAIN);

        assert_eq!(ask_for("x.apps.home.example", lan, "192.168.1.50", qtype::A).unwrap(), ["192.168.1.2"]);
        assert_eq!(ask_for("admin.apps.home.example", lan, "192.168.1.50", qtype::A).unwrap(), ["192.168.1.2"]);
        for name in ["a.b.apps.home.example", "apps.home.example"] {
            assert_eq!(ask_for(name, lan, "192.168.1.50", qtype::A), None, "{name}");
        }
    }
}

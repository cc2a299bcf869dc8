//! The names of routes: who may use a route gets this box's address, as he reaches it; for everybody else
//! the name is what the public DNS says.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Local, wire};
use crate::{
    dns::{
        HouseRoutes, RouteName,
        encode::{QNAME, Section, record},
        query::{Query, parent, qtype},
    },
    origin::{NetworkId, Networks, Origin},
};

/// Seconds; short, because the box's address may change.
const TTL: u32 = 60;

/// The names of routes, compiled.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    names: HashMap<Box<[u8]>, RouteName>,
    listen: Vec<IpAddr>,
    inner: Vec<IpAddr>,
    gate: Option<(Box<[u8]>, Vec<IpAddr>)>,
    below: Option<Box<[u8]>>,
}

impl Routes {
    /// Compiles what the configuration says of routes.
    pub(crate) fn new(routes: &HouseRoutes) -> Self {
        let names = routes.names.iter().map(|route| (wire(&route.host), route.clone())).collect();
        let gate = routes.gate.as_ref().map(|gate| (wire(&gate.host), gate.listen.clone()));
        let below = routes.below.as_ref().map(wire);
        Self { names, listen: routes.listen.clone(), inner: routes.inner.clone(), gate, below }
    }

    /// Writes the addresses that this client reaches the route by.
    pub(crate) fn answer(
        &self,
        query: &Query<'_>,
        origin: Origin,
        client: IpAddr,
        networks: &Networks,
        out: &mut Vec<u8>,
    ) -> Local<'static> {
        let gate = self.gate.as_ref().filter(|(name, _)| **name == *query.name());
        let above = || parent(query.name()).filter(|above| self.below.as_deref() == Some(*above));
        let found = self.names.get(query.name()).or_else(|| self.names.get(above()?));
        let addresses = match (found, gate, origin) {
            (Some(route), _, Origin::Vpn(peer)) if route.peers.contains(&peer) => self.inner.clone(),
            (Some(route), _, Origin::Lan(network)) if route.networks.contains(&network) => {
                of_this_box(&self.listen, network, client, networks)
            }
            (None, Some((_, listen)), Origin::Lan(network)) => of_this_box(listen, network, client, networks),
            _ => return Local::Absent,
        };
        let mut written = false;
        for address in addresses {
            match (address, query.qtype) {
                (IpAddr::V4(v4), qtype::A) => record(out, Section::Answer, QNAME, qtype::A, TTL, &v4.octets()),
                (IpAddr::V6(v6), qtype::AAAA) => record(out, Section::Answer, QNAME, qtype::AAAA, TTL, &v6.octets()),
                _ => continue,
            }
            written = true;
        }
        if written { Local::Answered } else { Local::NoData }
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
            encode::{self, Head},
            query::tests::query,
        },
        origin::PeerId,
    };

    fn ask(origin: Origin, client: &str, qtype: u16) -> Option<Vec<String>> {
        ask_for("nas.home.example", origin, client, qtype)
    }

    fn ask_for(name: &str, origin: Origin, client: &str, qtype: u16) -> Option<Vec<String>> {
        let routes = Routes::new(&HouseRoutes {
            names: vec![RouteName {
                host: "nas.home.example.".parse().unwrap(),
                networks: vec![NetworkId::MAIN, NetworkId::HOST],
                peers: vec![PeerId(1)],
            }],
            listen: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
            inner: vec!["10.77.0.1".parse().unwrap()],
            gate: Some(GateName {
                host: "vpn.home.example.".parse().unwrap(),
                listen: vec!["0.0.0.0".parse().unwrap()],
            }),
            below: Some("nas.home.example.".parse().unwrap()),
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
        match routes.answer(&asked, origin, client.parse().unwrap(), &networks, &mut out) {
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
}

//! The names of peers, `NAME.vpn.<domain>`: who may reach a peer gets its inner addresses, and their names; for
//! everybody else there is no such name here.

use std::{collections::HashMap, net::IpAddr};

use hickory_proto::rr::Name;

use super::{Local, encoded, wire, write_addresses};
use crate::{
    dns::{
        PeerName,
        encode::{Section, record},
        query::qtype,
    },
    origin::{NetworkId, Origin},
};

/// Seconds; short, because peers come and go.
const TTL: u32 = 60;

/// The names of peers, compiled.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    names: HashMap<Box<[u8]>, PeerName>,
    /// Names by the reverse names of inner addresses.
    reverse: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl Peers {
    /// Compiles what the configuration says of peers.
    pub(crate) fn new(peers: &[PeerName]) -> Self {
        let names: HashMap<Box<[u8]>, PeerName> = peers.iter().map(|peer| (wire(&peer.name), peer.clone())).collect();
        let addresses =
            names.iter().flat_map(|(name, peer)| peer.addresses.iter().map(move |address| (name, *address)));
        let reverse = addresses.map(|(name, address)| (wire(&Name::from(address)), name.clone())).collect();
        Self { names, reverse }
    }

    /// Writes what this client may know of a peer, behind `owner`.
    pub(crate) fn answer(
        &self,
        (name, owner, qtype): (&[u8], &[u8], u16),
        origin: Origin,
        client: IpAddr,
        out: &mut Vec<u8>,
    ) -> Local<'static> {
        let back = self.reverse.get(name);
        let Some(peer) = self.names.get(back.map_or(name, |name| &**name)) else { return Local::Absent };
        if !may_reach(peer, origin, client) {
            return Local::Absent;
        }
        let written = match back {
            None => write_addresses(&peer.addresses, owner, qtype, TTL, out),
            Some(_) if qtype == qtype::PTR => {
                let target = encoded(&peer.name).unwrap_or_default();
                record(out, Section::Answer, owner, qtype::PTR, TTL, &target);
                true
            }
            Some(_) => false,
        };
        if written { Local::Answered } else { Local::NoData }
    }
}

fn may_reach(peer: &PeerName, origin: Origin, client: IpAddr) -> bool {
    let client = client.to_canonical();
    match origin {
        Origin::Vpn(caller) => caller == peer.peer || peer.peers.contains(&caller),
        Origin::Lan(network) => {
            (peer.lan && network == NetworkId::MAIN) || peer.nets.iter().any(|net| net.contains(&client))
        }
        Origin::Wan => false,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::*;
    use crate::{
        dns::{
            encode::{self, Head, QNAME},
            query::{Query, tests::query},
        },
        origin::PeerId,
    };

    #[test]
    fn a_peer_has_a_name_for_those_who_may_reach_it() {
        let peers = Peers::new(&[PeerName {
            name: "nas.vpn.home.example.".parse().unwrap(),
            peer: PeerId(1),
            addresses: vec!["10.77.0.2".parse().unwrap(), "fd77::2".parse().unwrap()],
            lan: false,
            nets: vec!["192.168.1.64/26".parse().unwrap()],
            peers: vec![PeerId(2)],
        }]);
        let ask = |origin, client: &str, name: &str, rtype| {
            let bytes = query(name, rtype, None);
            let asked = Query::parse(&bytes).unwrap();
            let mut out = Vec::new();
            encode::start(&asked, Head::local(0), &mut out);
            match peers.answer((asked.name(), QNAME, rtype), origin, client.parse().unwrap(), &mut out) {
                Local::Absent => None,
                _ => Some(
                    Message::from_vec(&out).unwrap().answers.iter().map(|one| one.data.to_string()).collect::<Vec<_>>(),
                ),
            }
        };
        let lan = Origin::Lan(NetworkId::MAIN);
        let name = "nas.vpn.home.example";

        assert_eq!(ask(Origin::Vpn(PeerId(2)), "10.77.0.3", name, qtype::A).unwrap(), ["10.77.0.2"]);
        assert_eq!(ask(Origin::Vpn(PeerId(1)), "10.77.0.2", name, qtype::AAAA).unwrap(), ["fd77::2"]);
        assert_eq!(ask(lan, "192.168.1.70", name, qtype::A).unwrap(), ["10.77.0.2"]);
        assert_eq!(ask(lan, "192.168.1.70", "2.0.77.10.in-addr.arpa", qtype::PTR).unwrap(), ["nas.vpn.home.example."]);
        assert_eq!(ask(lan, "192.168.1.70", name, 16), Some(vec![]));
        for (origin, client) in
            [(lan, "192.168.1.5"), (Origin::Vpn(PeerId(3)), "10.77.0.4"), (Origin::Wan, "192.168.1.70")]
        {
            assert_eq!(ask(origin, client, name, qtype::A), None, "{client}");
            assert_eq!(ask(origin, client, "2.0.77.10.in-addr.arpa", qtype::PTR), None, "{client}");
        }
    }
}

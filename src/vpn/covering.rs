//! Prefixes of the tunnel that lie over a network of the house, which only the running box knows: whatever such a peer
//! sent would look as if it came from the LAN, and what is meant for the LAN would go to the peer.

use ipnet::IpNet;

use crate::{origin::Networks, vpn::Config};

/// A prefix of the tunnel, and the network of the house that it lies over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covering {
    /// `peer "NAME"`, or `vpn.addresses`.
    pub whose: String,
    /// The prefix of the tunnel.
    pub prefix: IpNet,
    /// The network of the house.
    pub network: IpNet,
}

impl std::fmt::Display for Covering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { whose, prefix, network } = self;
        write!(
            f,
            "{whose} has {prefix} inside the tunnel, and {network} is a network of this house: give it another one"
        )
    }
}

/// Returns every prefix of the tunnel that overlaps what is on the wire, or an address of this box, at this moment.
pub fn covering(config: &Config, networks: &Networks) -> Vec<Covering> {
    let gate = config.addresses.iter().map(|net| ("`vpn.addresses`".to_owned(), net.trunc()));
    let peers = config.peers.iter().flat_map(|peer| {
        let whose = format!("peer \"{}\"", peer.name);
        peer.addresses.iter().map(move |net| (whose.clone(), net.trunc()))
    });
    let own = networks.own.iter().filter(|address| !address.is_loopback()).map(|address| IpNet::from(*address));
    let house: Vec<IpNet> = networks.on_link.iter().copied().chain(own).collect();
    let over = |prefix: &IpNet| house.iter().copied().find(|net| net.contains(prefix) || prefix.contains(net));
    gate.chain(peers).filter_map(|(whose, prefix)| Some(Covering { network: over(&prefix)?, whose, prefix })).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::vpn::gate::tests::{config, peer};

    #[test]
    fn a_peer_that_has_the_lan_or_this_box_is_found() {
        let networks = Networks {
            on_link: vec!["192.168.1.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()],
            own: HashSet::from(["127.0.0.1", "172.16.0.1"].map(|own| own.parse().unwrap())),
            ..Networks::default()
        };
        let found = |prefix: &str| covering(&config(vec![peer(0, prefix)]), &networks);

        for prefix in
            ["192.168.0.0/16", "192.168.1.0/24", "192.168.1.9/32", "2001:db8::/32", "172.16.0.0/12", "0.0.0.0/0"]
        {
            assert_eq!(found(prefix).len(), 1, "{prefix}");
        }
        for prefix in ["10.77.0.2/32", "192.168.2.0/24", "fd77::2/128"] {
            assert_eq!(found(prefix), [], "{prefix}");
        }
        let said = found("192.168.0.0/16")[0].to_string();
        assert!(said.starts_with("peer \"peer0\" has 192.168.0.0/16") && said.contains("192.168.1.0/24"), "{said}");
    }
}

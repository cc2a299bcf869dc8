//! Which peer an inner address belongs to: one table for the whole gate, longest prefix first.
//!
//! A peer's own list of allowed addresses is not enough: a peer with a wide prefix could speak as another
//! peer whose address lies inside it. Here every address has exactly one owner.

use std::{collections::HashMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::origin::PeerId;

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    v4: Vec<(u8, HashMap<IpAddr, PeerId>)>,
    v6: Vec<(u8, HashMap<IpAddr, PeerId>)>,
}

impl Owners {
    /// Gives a prefix to a peer; says who has it if it is taken.
    pub fn insert(&mut self, prefix: IpNet, peer: PeerId) -> Result<(), PeerId> {
        let lengths = match prefix {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        let length = prefix.prefix_len();
        let place = lengths.binary_search_by(|(other, _)| length.cmp(other)).unwrap_or_else(|place| {
            lengths.insert(place, (length, HashMap::new()));
            place
        });
        match lengths[place].1.insert(prefix.network(), peer) {
            None => Ok(()),
            Some(owner) => {
                lengths[place].1.insert(prefix.network(), owner);
                Err(owner)
            }
        }
    }

    /// Returns the owner of an address.
    pub fn owner(&self, address: IpAddr) -> Option<PeerId> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        lengths.iter().find_map(|(length, owners)| owners.get(&network(address, *length)?)).copied()
    }
}

fn network(address: IpAddr, length: u8) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, length).ok()?.network().into(),
        IpAddr::V6(v6) => Ipv6Net::new(v6, length).ok()?.network().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wide_prefix_does_not_own_what_another_peer_has_inside_it() {
        let mut owners = Owners::default();
        owners.insert("10.77.0.0/24".parse().unwrap(), PeerId(1)).unwrap();
        owners.insert("10.77.0.2/32".parse().unwrap(), PeerId(2)).unwrap();

        assert_eq!(owners.owner("10.77.0.2".parse().unwrap()), Some(PeerId(2)));
        assert_eq!(owners.owner("10.77.0.3".parse().unwrap()), Some(PeerId(1)));
        assert_eq!(owners.owner("10.78.0.2".parse().unwrap()), None);
    }

    #[test]
    fn a_prefix_has_one_owner() {
        let mut owners = Owners::default();
        owners.insert("10.77.0.2/32".parse().unwrap(), PeerId(1)).unwrap();

        assert_eq!(owners.insert("10.77.0.2/32".parse().unwrap(), PeerId(2)), Err(PeerId(1)));
        assert_eq!(owners.owner("10.77.0.2".parse().unwrap()), Some(PeerId(1)));
    }

    /// Addresses close together, so that prefixes nest and meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..64_u32).prop_map(|low| IpAddr::V4(Ipv4Addr::from(0x0a4d_0000 | low))),
            (0..64_u128).prop_map(|low| IpAddr::V6(Ipv6Addr::from(0xfd77_u128 << 112 | low))),
        ]
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), 0..8_u8).prop_map(|(address, short)| {
            let length = if address.is_ipv4() { 32 } else { 128 } - short;
            IpNet::new(address, length).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn it_answers_as_a_walk_over_all_prefixes_does(
            prefixes in prop::collection::vec((prefix(), 0..5_u32), 0..20),
            asked in prop::collection::vec(address(), 1..20),
        ) {
            let mut owners = Owners::default();
            let mut naive: Vec<(IpNet, PeerId)> = Vec::new();
            for (prefix, peer) in prefixes {
                let taken = naive.iter().find(|(other, _)| *other == prefix).map(|(_, owner)| *owner);
                let said = owners.insert(prefix, PeerId(peer));
                prop_assert_eq!(said.err(), taken);
                if taken.is_none() {
                    naive.push((prefix, PeerId(peer)));
                }
            }

            for address in asked {
                let longest = naive.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
                prop_assert_eq!(owners.owner(address), longest.map(|(_, peer)| *peer));
            }
        }
    }
}

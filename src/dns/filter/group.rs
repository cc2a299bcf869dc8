//! Which group a client is in, and which lists apply to it.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    dns::{self, Device},
    origin::{Origin, PeerId},
};

/// A group of devices, by its place in the policy it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u16);

impl GroupId {
    /// Everybody who is in no other group.
    pub const DEFAULT: Self = Self(0);
    /// Who asks through a gateway that speaks for others.
    pub const ROUTER: Self = Self(1);

    /// Returns its place, to index what is kept per group.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The groups and who is in them.
pub(super) struct Groups {
    groups: Vec<Group>,
    nets: HashMap<IpNet, GroupId>,
    /// Lengths of the prefixes in `nets`, the longest first.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
    peers: HashMap<PeerId, GroupId>,
}

struct Group {
    name: String,
    /// A bit for each source whose rules apply.
    sources: Box<[u64]>,
}

impl Groups {
    /// Compiles the groups. `source_of` gives the source of a group's own rules.
    pub(super) fn build(config: &dns::Config, source_of: impl Fn(usize) -> usize) -> Option<Self> {
        let mut compiled = Self {
            groups: Vec::new(),
            nets: HashMap::new(),
            lengths_v4: Vec::new(),
            lengths_v6: Vec::new(),
            peers: HashMap::new(),
        };
        // Places 0 and 1 are always there.
        let place = |name: &str| config.groups.iter().position(|group| group.name == name);
        let default = place("default");
        let router = place("router").or(default);
        let others = (0..config.groups.len()).filter(|group| Some(*group) != default);
        let all = [("default", default), ("router", router)].into_iter().chain(
            others.filter(|group| Some(*group) != router).map(|group| (&*config.groups[group].name, Some(group))),
        );
        for (id, (name, group)) in all.enumerate() {
            let id = GroupId(u16::try_from(id).ok()?);
            let mut sources = vec![0; (source_of(config.groups.len()) + 1).div_ceil(64)];
            if let Some(group) = group {
                let enabled = |list: &&usize| config.lists.get(**list).is_some_and(|list| list.enabled);
                let lists = config.groups[group].lists.iter().filter(enabled).copied();
                for source in lists.chain([source_of(group)]) {
                    sources[source / 64] |= 1 << (source % 64);
                }
                if id != GroupId::ROUTER || router != default {
                    compiled.admit(&config.groups[group].devices, id);
                }
            }
            compiled.groups.push(Group { name: name.to_owned(), sources: sources.into() });
        }
        Some(compiled)
    }

    fn admit(&mut self, devices: &[Device], id: GroupId) {
        for device in devices {
            match device {
                Device::Net(net) => {
                    let net = canonical(*net);
                    self.nets.entry(net).or_insert(id);
                    let lengths = if net.addr().is_ipv4() { &mut self.lengths_v4 } else { &mut self.lengths_v6 };
                    lengths.push(net.prefix_len());
                    lengths.sort_unstable_by(|a, b| b.cmp(a));
                    lengths.dedup();
                }
                Device::Peer(peer) => {
                    self.peers.entry(*peer).or_insert(id);
                }
            }
        }
    }

    /// Says which group a client is in. What the same prefix stands for in two groups belongs to the first.
    pub(super) fn of(&self, origin: Origin, client: IpAddr, relay: bool) -> GroupId {
        if relay {
            return GroupId::ROUTER;
        }
        if let Origin::Vpn(peer) = origin
            && let Some(group) = self.peers.get(&peer)
        {
            return *group;
        }
        let client = client.to_canonical();
        let lengths = if client.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths
            .iter()
            .filter_map(|length| IpNet::new(client, *length).ok())
            .find_map(|net| self.nets.get(&net.trunc()).copied())
            .unwrap_or(GroupId::DEFAULT)
    }

    /// Says whether the rules of a source apply to a group.
    #[inline]
    pub(super) fn has(&self, group: GroupId, source: u16) -> bool {
        let Some(group) = self.groups.get(group.index()) else { return false };
        let word = group.sources.get(usize::from(source / 64)).copied().unwrap_or(0);
        word >> (source % 64) & 1 == 1
    }

    /// Returns the name of a group.
    pub(super) fn name(&self, group: GroupId) -> &str {
        self.groups.get(group.index()).map_or("default", |group| &group.name)
    }

    /// Returns the group of that name.
    pub(super) fn named(&self, name: &str) -> Option<GroupId> {
        self.groups.iter().position(|group| group.name == name).and_then(|id| u16::try_from(id).ok()).map(GroupId)
    }

    /// Returns how many groups there are.
    pub(super) const fn count(&self) -> usize {
        self.groups.len()
    }
}

/// Takes the host bits away, and an IPv4 prefix out of an IPv6 one.
fn canonical(net: IpNet) -> IpNet {
    let mapped = net.addr().to_canonical();
    match net.prefix_len().checked_sub(96).map(|length| IpNet::new(mapped, length)) {
        Some(Ok(v4)) if net.addr().is_ipv6() && mapped.is_ipv4() => v4.trunc(),
        _ => net.trunc(),
    }
}

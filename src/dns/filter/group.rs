//! Which group a client is in, and which lists apply to it at this moment.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::{
    data::{self, Safe},
    members::Members,
    own::{self, Own},
};
use crate::{
    dns::{self, Client, Device, Purpose, Rebind},
    neighbours::Mac,
    origin::{Origin, PeerId},
    week::Spans,
};

/// A group of devices, by its place in the policy it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u16);

impl GroupId {
    /// Everybody who is in no other group.
    pub const DEFAULT: Self = Self(0);
    /// Who asks through a gateway that speaks for others.
    pub const ROUTER: Self = Self(1);

    /// Returns the group at a place.
    pub(crate) fn at(place: usize) -> Option<Self> {
        u16::try_from(place).ok().map(Self)
    }

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
    /// By what a device calls itself over an encrypted transport.
    clients: HashMap<Box<str>, GroupId>,
    macs: HashMap<Mac, GroupId>,
    /// By the name that a DHCP server knows a device by, in lower case.
    names: HashMap<Box<str>, GroupId>,
    /// The group of devices that were not seen before.
    new: Option<GroupId>,
    /// Addresses whose device is known.
    members: ArcSwap<Members>,
    clock: Clock,
}

struct Group {
    name: String,
    /// A bit for each list whose rules apply at this moment.
    lists: Box<[AtomicU64]>,
    /// Lists whose rules apply always.
    always: Box<[u64]>,
    /// Lists whose rules apply in spans of time.
    timed: Vec<(usize, Spans)>,
    offline: Spans,
    is_offline: AtomicBool,
    /// A bit for each of the house's own sources whose rules apply.
    own: Box<[u64]>,
    /// What search engines are answered as.
    safe: Option<Safe>,
    rebind: Rebind,
}

/// When the groups are to be looked at again.
struct Clock {
    zone: TimeZone,
    /// Some group changes with time.
    runs: bool,
    /// Seconds since 1970 between which the groups are as they were set.
    since: AtomicU64,
    until: AtomicU64,
    setting: Mutex<()>,
}

/// Threads have slightly different clocks; a moment so little before the last one changes nothing.
const UNEVEN: u64 = 5;

impl Groups {
    /// Compiles the groups.
    pub(super) fn build(config: &dns::Config, own: &Own) -> Option<Self> {
        let mut compiled = Self {
            groups: Vec::new(),
            nets: HashMap::new(),
            lengths_v4: Vec::new(),
            lengths_v6: Vec::new(),
            peers: HashMap::new(),
            clients: HashMap::new(),
            macs: HashMap::new(),
            names: HashMap::new(),
            new: None,
            members: ArcSwap::default(),
            clock: Clock {
                zone: config.timezone.clone(),
                runs: config.groups.iter().any(|group| !group.timed.is_empty() || !group.offline.is_empty()),
                since: AtomicU64::new(0),
                until: AtomicU64::new(0),
                setting: Mutex::new(()),
            },
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
            let holds = |(place, source): (usize, &own::Source)| source.holds_for(config, group).then_some(place);
            let own = bits(own.sources.len(), own.sources.iter().enumerate().filter_map(holds));
            let mut always = bits(config.lists.len(), std::iter::empty());
            let (mut timed, mut offline) = (Vec::new(), Spans::default());
            let (mut safe, mut rebind) = (None, Rebind::Refused);
            let keeps = group.is_none_or(|group| config.groups[group].keep_clients) && config.keep_clients;
            let past = |(_, list): &(usize, &dns::List)| keeps && list.enabled && list.purpose == Purpose::KeepClients;
            let past: Vec<usize> = config.lists.iter().enumerate().filter(past).map(|(list, _)| list).collect();
            if group.is_none() {
                always = bits(config.lists.len(), past.iter().copied());
            }
            if let Some(group) = group {
                let written = &config.groups[group];
                let enabled = |list: usize| config.lists.get(list).is_some_and(|list| list.enabled);
                let lists = written.lists.iter().copied().filter(|list| enabled(*list)).chain(past);
                always = bits(config.lists.len(), lists);
                safe = (!written.safe_search.is_empty()).then(|| data::safe(&written.safe_search));
                rebind = written.rebind;
                timed.extend(written.timed.iter().filter(|(list, _)| enabled(*list)).cloned());
                offline = written.offline.clone();
                if id != GroupId::ROUTER || router != default {
                    compiled.admit(&written.devices, id);
                }
            }
            if name == "new" {
                compiled.new = Some(id);
            }
            let lists = always.iter().map(|word| AtomicU64::new(*word)).collect();
            let (name, is_offline) = (name.to_owned(), AtomicBool::new(false));
            compiled.groups.push(Group { name, lists, always, timed, offline, is_offline, own, safe, rebind });
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
                Device::Peer(peer) => _ = self.peers.entry(*peer).or_insert(id),
                Device::Mac(mac) => _ = self.macs.entry(*mac).or_insert(id),
                Device::Name(name) => _ = self.names.entry(name.to_ascii_lowercase().into()).or_insert(id),
                Device::Client(name) => _ = self.clients.entry(name.as_str().into()).or_insert(id),
            }
        }
    }

    /// Says which group a client is in. What the same prefix stands for in two groups belongs to the first.
    pub(super) fn of(&self, members: &Members, client: &Client) -> GroupId {
        if client.relay {
            return GroupId::ROUTER;
        }
        if let Origin::Vpn(peer) = client.origin
            && let Some(group) = self.peers.get(&peer)
        {
            return *group;
        }
        let address = client.address.to_canonical();
        if let Some(group) = members.ask(address) {
            return group;
        }
        // Anybody can call itself so: it does not get a known device out of its group.
        if let Some(name) = client.name.filter(|_| !self.clients.is_empty())
            && let Some(group) = self.clients.get(name.as_str())
        {
            return *group;
        }
        self.of_address(address).unwrap_or(GroupId::DEFAULT)
    }

    /// Says which group's prefixes hold an address.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<GroupId> {
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths
            .iter()
            .filter_map(|length| IpNet::new(address, *length).ok())
            .find_map(|net| self.nets.get(&net.trunc()).copied())
    }

    /// Says which group a device is put into by what it is, not by where it is.
    pub(super) fn of_device(&self, mac: Option<Mac>, name: Option<&str>, is_new: bool) -> Option<GroupId> {
        let by_mac = mac.and_then(|mac| self.macs.get(&mac).copied());
        let by_name = || name.and_then(|name| self.names.get(name).copied());
        by_mac.or_else(by_name).or(self.new.filter(|_| is_new))
    }

    /// Says whether groups tell devices apart by more than their addresses.
    pub(super) fn knows_devices(&self) -> bool {
        !self.macs.is_empty() || !self.names.is_empty() || self.new.is_some()
    }

    /// Returns the addresses whose device is known.
    pub(super) const fn members(&self) -> &ArcSwap<Members> {
        &self.members
    }

    /// Lets the groups be what their owner wants at this second since 1970.
    #[inline]
    pub(super) fn keep_time(&self, now: u64) {
        let clock = &self.clock;
        if clock.runs && !(clock.since.load(Relaxed).saturating_sub(UNEVEN)..clock.until.load(Relaxed)).contains(&now) {
            self.set_time(now);
        }
    }

    #[cold]
    fn set_time(&self, now: u64) {
        // Whoever comes second goes by what was before, for the moment that it takes.
        let Ok(_setting) = self.clock.setting.try_lock() else { return };
        let mut until = u64::MAX;
        for group in &self.groups {
            let offline = group.offline.at(now, &self.clock.zone);
            group.is_offline.store(offline.inside, Relaxed);
            until = until.min(offline.until);
            let mut words = group.always.clone();
            for (source, spans) in &group.timed {
                let state = spans.at(now, &self.clock.zone);
                words[source / 64] |= u64::from(state.inside) << (source % 64);
                until = until.min(state.until);
            }
            group.lists.iter().zip(&words).for_each(|(place, word)| place.store(*word, Relaxed));
        }
        self.clock.since.store(now, Relaxed);
        self.clock.until.store(until, Relaxed);
    }

    /// Says whether only names of the house are answered to a group at this moment.
    #[inline]
    pub(super) fn is_offline(&self, group: GroupId) -> bool {
        self.clock.runs && self.groups.get(group.index()).is_some_and(|group| group.is_offline.load(Relaxed))
    }

    /// Says whether the rules of a list apply to a group.
    #[inline]
    pub(super) fn has_list(&self, group: GroupId, list: u16) -> bool {
        let Some(group) = self.groups.get(group.index()) else { return false };
        let word = group.lists.get(usize::from(list / 64)).map_or(0, |word| word.load(Relaxed));
        word >> (list % 64) & 1 == 1
    }

    /// Says whether the rules of one of the house's own sources apply to a group.
    #[inline]
    pub(super) fn has_own(&self, group: GroupId, source: u16) -> bool {
        let Some(group) = self.groups.get(group.index()) else { return false };
        group.own.get(usize::from(source / 64)).copied().unwrap_or(0) >> (source % 64) & 1 == 1
    }

    /// Returns the name that a search engine's name is answered as, both in wire form.
    pub(super) fn safe(&self, group: GroupId, name: &[u8]) -> Option<&[u8]> {
        self.groups.get(group.index())?.safe.as_ref()?.get(name).map(|target| &**target)
    }

    /// Says what becomes of public names that lead into the house.
    pub(super) fn rebind(&self, group: GroupId) -> Rebind {
        self.groups.get(group.index()).map_or(Rebind::Refused, |group| group.rebind)
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
pub(super) fn canonical(net: IpNet) -> IpNet {
    let mapped = net.addr().to_canonical();
    match net.prefix_len().checked_sub(96).map(|length| IpNet::new(mapped, length)) {
        Some(Ok(v4)) if net.addr().is_ipv6() && mapped.is_ipv4() => v4.trunc(),
        _ => net.trunc(),
    }
}

fn bits(count: usize, places: impl Iterator<Item = usize>) -> Box<[u64]> {
    let mut words = vec![0; count.div_ceil(64)];
    for place in places {
        if let Some(word) = words.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }
    words.into()
}

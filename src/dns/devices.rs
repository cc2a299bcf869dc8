//! The devices of the house: what is remembered of each, and which group its addresses are in.
//!
//! The neighbour tables say which device has an address, lease files how it is called. From both follows a table
//! of addresses and groups ([`Members`]), made anew whenever one of them or the policy changes, which questions
//! are looked up in. What was seen of a device is kept in the state folder, so that one that was never seen before
//! is noticed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::{
    Core,
    answer::Asker,
    filter::{Activity, Member, Members, Policy},
    local::Lease,
};
use crate::{
    neighbours::{Mac, Table},
    origin::{NetworkId, Networks, Origin},
    store,
};

/// What is known of the devices.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    inner: Mutex<Inner>,
    /// What the kernel says of the wire; only known once it is followed.
    table: OnceLock<watch::Receiver<Arc<Table>>>,
    /// Told when members must be made anew.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where it is kept; `None` until it was read, and where there is no state folder.
    path: Option<PathBuf>,
    known: HashMap<Mac, Known>,
    /// By device as far as it is known, else by address.
    activities: HashMap<Mac, Arc<Activity>>,
    /// Groups of which it was said that a prefix does not hold all of a device.
    told: Vec<String>,
    dirty: bool,
}

/// What is kept of a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    /// Seconds since 1970.
    first_seen: u64,
    last_seen: u64,
    asked: Option<u64>,
    /// It was there before there was a group `new`, or its owner said that it is known.
    accepted: bool,
}

/// A device as `hearthgate devices` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its MAC address.
    pub mac: Mac,
    /// The device made the MAC address up.
    pub random: bool,
    /// What a DHCP server knows it by.
    pub name: Option<String>,
    /// Its addresses of this moment.
    pub addresses: Vec<IpAddr>,
    /// The groups that they are in: one, unless they are told by their prefix.
    pub groups: Vec<String>,
    /// It was not seen before, and nobody has said that it is known.
    pub new: bool,
    /// When it was first seen, in seconds since 1970.
    pub first_seen: u64,
    /// When it was last on the wire.
    pub last_seen: u64,
    /// When it last asked something.
    pub asked: Option<u64>,
    /// It has been on the wire for a while and asks nothing: it probably asks somebody else.
    pub passes_by: bool,
}

/// Devices that are remembered. Who makes up MAC addresses pushes out what was seen once and never asked.
const DEVICES: usize = 4096;

/// How often activity is noted, and what was seen written down.
const TICK: Duration = Duration::from_secs(30);

/// Seconds by which what is written down of a device is behind.
const NOTED: u64 = 3600;

/// Seconds without a question after which a device that is there probably passes us by.
const SILENT: u64 = 86_400;

impl Devices {
    /// Reads what was kept; the first time only.
    pub(crate) fn open(&self, state: &Path) {
        let mut inner = self.lock();
        if inner.path.is_some() || state.as_os_str().is_empty() {
            return;
        }
        let path = state.join("devices.json");
        match store::read(&path).map(store::Found::content) {
            Ok(Some(content)) => match serde_json::from_slice::<BTreeMap<Mac, Known>>(&content) {
                Ok(known) => inner.known = known.into_iter().take(DEVICES).collect(),
                Err(error) => tracing::warn!(%error, file = %path.display(), "every device is seen for the first time"),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, file = %path.display(), "devices will not be remembered"),
        }
        inner.path = Some(path);
    }

    /// Goes by this table of the wire from now on.
    pub(crate) fn follow(&self, table: watch::Receiver<Arc<Table>>) {
        _ = self.table.set(table);
        self.changed.notify_one();
    }

    /// Says whether the device behind an address of the LAN is still to be found out.
    pub(crate) fn is_stranger(&self, asker: &Asker, policy: &Policy, networks: &Networks) -> bool {
        let address = asker.client.to_canonical();
        policy.knows_devices()
            && self.table.get().is_some()
            && matches!(asker.source.origin, Origin::Lan(network) if network != NetworkId::HOST)
            && !policy.members().load().knows(address)
            && (is_link_local(address) || networks.on_link.iter().any(|net| net.contains(&address)))
    }

    /// Has members made anew soon.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits until members must be made anew.
    pub(crate) async fn to_be_made_anew(&self) {
        self.changed.notified().await;
    }

    /// Returns the MAC address that an address has now.
    pub(crate) fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        self.table.get()?.borrow().mac(address)
    }

    fn table(&self) -> Arc<Table> {
        self.table.get().map(|table| table.borrow().clone()).unwrap_or_default()
    }

    /// Says which group each address is in under a policy.
    pub(crate) fn apply(&self, policy: &Policy, leases: &[Lease], now: u64) {
        let table = self.table();
        let mut inner = self.lock();
        policy.members().store(Arc::new(inner.members(&table, policy, leases, now)));
    }

    /// Returns every device that is remembered, and what is odd about groups.
    pub(crate) fn list(&self, policy: &Policy, leases: &[Lease], now: u64) -> (Vec<Device>, Vec<String>) {
        let table = self.table();
        let inner = self.lock();
        let wire = Wire::new(&table, leases);
        let mut devices: Vec<Device> =
            inner.known.iter().map(|(mac, known)| wire.device(*mac, known, policy, now)).collect();
        devices.sort_by_key(|device| (std::cmp::Reverse(device.last_seen), device.mac));
        (devices, wire.split(policy).into_values().collect())
    }

    /// Notes that devices are known; all of them without a MAC address. Returns how many were new.
    pub(crate) fn accept(&self, mac: Option<Mac>) -> usize {
        let mut inner = self.lock();
        let chosen = inner.known.iter_mut().filter(|(known, _)| mac.is_none_or(|mac| mac == **known));
        let new: Vec<&mut Known> = chosen.map(|(_, known)| known).filter(|known| !known.accepted).collect();
        let count = new.len();
        new.into_iter().for_each(|known| known.accepted = true);
        inner.dirty |= count > 0;
        drop(inner);
        self.changed();
        count
    }

    /// Notes who asked, and returns what is to be written down and where, if that is due.
    fn note(&self, now: u64) -> Option<(PathBuf, Vec<u8>)> {
        let table = self.table();
        let mut inner = self.lock();
        let Inner { known, activities, dirty, .. } = &mut *inner;
        for (mac, _) in activities.iter().filter(|(_, activity)| activity.take()) {
            if let Some(known) = known.get_mut(mac) {
                (known.asked, known.last_seen) = (Some(now), now);
                *dirty = true;
            }
        }
        for (mac, known) in known.iter_mut() {
            let heard = table.heard(*mac).unwrap_or_default();
            // What is written down may be a little older.
            if heard.saturating_sub(known.last_seen) > NOTED {
                known.last_seen = heard;
                *dirty = true;
            }
        }
        let path = inner.path.clone().filter(|_| std::mem::take(&mut inner.dirty))?;
        let ordered: BTreeMap<_, _> = inner.known.iter().collect();
        Some((path, serde_json::to_vec(&ordered).ok()?))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // At worst a device is missing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn members(&mut self, table: &Table, policy: &Policy, leases: &[Lease], now: u64) -> Members {
        let wire = Wire::new(table, leases);
        for mac in wire.addresses.keys() {
            self.meet(*mac, &wire, policy, now);
        }
        for (group, sentence) in wire.split(policy) {
            if !self.told.contains(&group) {
                tracing::warn!(group, "{sentence}");
                self.told.push(group);
            }
        }
        self.activities.retain(|mac, _| wire.addresses.contains_key(mac));
        let mut members = Vec::new();
        for (mac, addresses) in &wire.addresses {
            let is_new = self.known.get(mac).is_some_and(|known| !known.accepted);
            let activity = self.activities.entry(*mac).or_default();
            for address in addresses {
                let name = wire.name(*mac, *address);
                let group = policy.group_of_device(Some(*mac), name, is_new);
                let (mac, name, activity) = (Some(*mac), name.map(Arc::from), activity.clone());
                members.push((*address, Member { group, mac, name, activity }));
            }
        }
        // Behind another router there are leases and no neighbours.
        for (address, name) in &wire.strangers {
            let group = policy.group_of_device(None, Some(name), false);
            let (mac, name, activity) = (None, Some(Arc::from(*name)), Arc::default());
            members.push((*address, Member { group, mac, name, activity }));
        }
        Members::new(members)
    }

    /// Remembers a device.
    fn meet(&mut self, mac: Mac, wire: &Wire<'_>, policy: &Policy, now: u64) {
        if self.known.contains_key(&mac) {
            return;
        }
        if self.known.len() >= DEVICES {
            let least = self.known.iter().min_by_key(|(_, known)| (known.asked.is_some(), known.last_seen));
            let Some(least) = least.map(|(mac, _)| *mac) else { return };
            self.known.remove(&least);
        }
        let accepted = policy.group_named("new").is_none();
        let addresses = wire.addresses.get(&mac).map_or(&[][..], Vec::as_slice);
        let name = addresses.first().and_then(|address| wire.name(mac, *address));
        tracing::info!(%mac, name, ?addresses, random = mac.is_random(), "a device that was not seen before");
        self.known.insert(mac, Known { first_seen: now, last_seen: now, asked: None, accepted });
        self.dirty = true;
    }
}

/// What the neighbour tables and the leases say together.
struct Wire<'a> {
    table: &'a Table,
    addresses: BTreeMap<Mac, Vec<IpAddr>>,
    /// Devices with a lease that has not ended.
    leased: HashSet<Mac>,
    names: HashMap<IpAddr, &'a str>,
    names_by_mac: HashMap<Mac, &'a str>,
    /// Addresses with a name and no device.
    strangers: Vec<(IpAddr, &'a str)>,
}

impl<'a> Wire<'a> {
    fn new(table: &'a Table, leases: &'a [Lease]) -> Self {
        let (addresses, leased, names, names_by_mac, strangers) = Default::default();
        let mut wire = Self { table, addresses, leased, names, names_by_mac, strangers };
        for (address, mac) in table.iter() {
            wire.addresses.entry(mac).or_default().push(address);
        }
        for lease in leases {
            wire.leased.extend(lease.mac);
            if let Some(name) = &lease.name {
                wire.names.insert(lease.address, name);
                lease.mac.and_then(|mac| wire.names_by_mac.insert(mac, name));
            }
            // What the wire says is true; a lease is what was meant.
            match (table.mac(lease.address), lease.mac, &lease.name) {
                (None, Some(mac), _) => wire.addresses.entry(mac).or_default().push(lease.address),
                (None, None, Some(name)) => wire.strangers.push((lease.address, name)),
                _ => {}
            }
        }
        wire.addresses.values_mut().for_each(|addresses| addresses.sort());
        wire
    }

    /// Returns the DHCP name of a device: its own, or that of any of its addresses (DHCPv6 leases name no MAC).
    fn name(&self, mac: Mac, address: IpAddr) -> Option<&'a str> {
        let by_mac = self.names_by_mac.get(&mac).or_else(|| self.names.get(&address));
        let others = || self.addresses.get(&mac).into_iter().flatten().find_map(|address| self.names.get(address));
        by_mac.or_else(others).copied()
    }

    fn device(&self, mac: Mac, known: &Known, policy: &Policy, now: u64) -> Device {
        let addresses = self.addresses.get(&mac).cloned().unwrap_or_default();
        let name =
            addresses.first().map_or_else(|| self.names_by_mac.get(&mac).copied(), |first| self.name(mac, *first));
        let by_device = policy.group_of_device(Some(mac), name, !known.accepted);
        let by_address = |address: &IpAddr| by_device.or_else(|| policy.group_of_address(*address)).unwrap_or(DEFAULT);
        let mut groups: Vec<String> =
            addresses.iter().map(|address| policy.group_name(by_address(address)).to_owned()).collect();
        groups.sort();
        groups.dedup();
        let since = known.asked.unwrap_or(known.first_seen);
        let last_seen = known.last_seen.max(self.table.heard(mac).unwrap_or_default());
        // Who left asks nothing either.
        let is_there = self.leased.contains(&mac) || now.saturating_sub(last_seen) <= SILENT;
        Device {
            mac,
            random: mac.is_random(),
            name: name.map(str::to_owned),
            new: !known.accepted,
            first_seen: known.first_seen,
            last_seen,
            asked: known.asked,
            passes_by: is_there && !addresses.is_empty() && now.saturating_sub(since) > SILENT,
            addresses,
            groups,
        }
    }

    /// Finds groups that hold a device by an IPv4 prefix but not by the IPv6 addresses that it has as well.
    fn split(&self, policy: &Policy) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (mac, addresses) in &self.addresses {
            let Some(v4) = addresses.iter().find(|address| address.is_ipv4()) else { continue };
            if policy.group_of_device(Some(*mac), self.name(*mac, *v4), false).is_some() {
                continue;
            }
            let Some(group) = policy.group_of_address(*v4).filter(|group| *group != DEFAULT) else { continue };
            let outside = addresses.iter().find(|one| one.is_ipv6() && policy.group_of_address(**one) != Some(group));
            if let Some(v6) = outside {
                let group = policy.group_name(group).to_owned();
                let sentence = format!(
                    "group \"{group}\" holds {mac} by {v4}, but not by {v6}: name the device by its MAC address or DHCP name"
                );
                found.entry(group).or_insert(sentence);
            }
        }
        found
    }
}

const DEFAULT: super::filter::GroupId = super::filter::GroupId::DEFAULT;

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// How long a connection waits for its device to be found out, at most and at a time.
const FINDING: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(5);

/// Waits until the device behind an address is known: whoever connected was found by the kernel a moment ago.
pub(crate) async fn find(core: &Core, asker: &Asker) {
    let until = tokio::time::Instant::now() + FINDING;
    while tokio::time::Instant::now() < until {
        let is_stranger = core
            .policy
            .load()
            .as_ref()
            .is_some_and(|policy| core.devices.is_stranger(asker, &policy.filter, &core.networks.load()));
        if !is_stranger {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps the members up to date until the plane stops.
pub(crate) async fn keep(core: &Arc<Core>) -> std::convert::Infallible {
    let devices = &core.devices;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut table = None;
    loop {
        if table.is_none() {
            table = devices.table.get().cloned();
        }
        let moved = async {
            let Some(table): &mut Option<watch::Receiver<_>> = &mut table else { return std::future::pending().await };
            if table.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = moved => {}
            () = devices.to_be_made_anew() => {}
            _ = tick.tick() => {
                if let Some((path, content)) = devices.note(core.clock.seconds()) {
                    let written = tokio::task::spawn_blocking(move || store::write(&path, &content)).await;
                    if let Ok(Err(error)) = written {
                        tracing::warn!(%error, "what was seen of devices could not be written down");
                    }
                }
                continue;
            }
        }
        if let Some(policy) = core.policy.load_full() {
            devices.apply(&policy.filter, &policy.files.load().leases, core.clock.seconds());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::dns::{
        Client, Device as Word, Group,
        answer::Step,
        counters::Outcome,
        fuzz::{self, House},
        query::tests::query,
    };

    const TABLET: Mac = Mac([0, 0x1b, 0x21, 0, 0, 7]);
    const PHONE: Mac = Mac([2, 0, 0, 0, 0, 8]);

    struct Wired {
        house: House,
        table: watch::Sender<Arc<Table>>,
        turn: AtomicU8,
    }

    fn wired(groups: Vec<Group>) -> Wired {
        let house = House::new(|config| config.groups = groups);
        let table = watch::Sender::new(Arc::default());
        house.core.devices.follow(table.subscribe());
        Wired { house, table, turn: AtomicU8::new(0) }
    }

    impl Wired {
        /// The kernel learns an address.
        fn learn(&self, address: &str, mac: Mac) {
            let mut table = Table::clone(&self.table.borrow());
            table.learn(address.parse().unwrap(), mac);
            self.table.send_replace(Arc::new(table));
            self.apply(&[]);
        }

        fn apply(&self, leases: &[Lease]) {
            let now = u64::from(self.turn.fetch_add(1, Ordering::Relaxed));
            self.house.core.devices.apply(&self.house.policy.filter, leases, now);
        }

        fn group_of(&self, address: &str) -> &str {
            let client = Client {
                origin: Origin::Lan(NetworkId::MAIN),
                address: address.parse().unwrap(),
                relay: false,
                name: None,
            };
            let filter = &self.house.policy.filter;
            filter.group_name(filter.group_of(&client))
        }

        fn list(&self, now: u64) -> (Vec<Device>, Vec<String>) {
            self.house.core.devices.list(&self.house.policy.filter, &[], now)
        }
    }

    fn group(name: &str, devices: Vec<Word>) -> Group {
        Group { name: name.into(), devices, ..Group::default() }
    }

    #[test]
    fn a_device_keeps_its_group_whatever_addresses_it_makes_up() {
        let wired = wired(vec![group("kids", vec![Word::Mac(TABLET)])]);

        for address in ["192.168.1.20", "fe80::7", "2001:db8:1::7", "2001:db8:1:0:1234::1", "2001:db8:2:0:5678::1"] {
            assert_eq!(wired.group_of(address), "default");
            wired.learn(address, TABLET);
            assert_eq!(wired.group_of(address), "kids", "{address}");
        }
        wired.learn("2001:db8:1:0:1234::1", PHONE);

        assert_eq!(wired.group_of("2001:db8:1:0:1234::1"), "default", "another device has the address now");
        assert_eq!(wired.group_of("192.168.1.20"), "kids");
    }

    #[test]
    fn a_device_is_known_by_its_dhcp_name_on_all_its_addresses() {
        let wired = wired(vec![group("kids", vec![Word::Name("kids-tablet".into())])]);
        wired.learn("192.168.1.20", TABLET);
        wired.learn("2001:db8:1::7", TABLET);

        wired.apply(&[Lease { address: "192.168.1.20".parse().unwrap(), mac: None, name: Some("kids-tablet".into()) }]);

        assert_eq!((wired.group_of("192.168.1.20"), wired.group_of("2001:db8:1::7")), ("kids", "kids"));
    }

    #[test]
    fn a_device_that_was_not_seen_before_is_new_until_its_owner_knows_it() {
        let wired = wired(vec![group("new", vec![]), group("kids", vec![Word::Mac(TABLET)])]);
        wired.learn("192.168.1.20", TABLET);
        wired.learn("192.168.1.21", PHONE);
        assert_eq!((wired.group_of("192.168.1.20"), wired.group_of("192.168.1.21")), ("kids", "new"));
        let phone = wired.list(0).0.into_iter().find(|device| device.mac == PHONE).unwrap();
        assert!(phone.new && phone.random && phone.groups == ["new"], "{phone:?}");

        assert_eq!(wired.house.core.devices.accept(Some(PHONE)), 1);
        wired.apply(&[]);

        assert_eq!(wired.group_of("192.168.1.21"), "default");
        assert_eq!(wired.house.core.devices.accept(None), 1, "the tablet");
    }

    #[test]
    fn what_was_seen_is_there_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let wired_up = || {
            let wired = wired(vec![group("new", vec![])]);
            wired.house.core.devices.open(state.path());
            wired
        };
        let first = wired_up();
        first.learn("192.168.1.20", TABLET);
        first.house.core.devices.accept(None);
        first.group_of("192.168.1.20");
        let (path, content) = first.house.core.devices.note(77).unwrap();
        store::write(&path, &content).unwrap();

        let second = wired_up();
        second.learn("192.168.1.20", TABLET);
        second.learn("192.168.1.21", PHONE);

        assert_eq!((second.group_of("192.168.1.20"), second.group_of("192.168.1.21")), ("default", "new"));
        let tablet = second.list(78).0.into_iter().find(|device| device.mac == TABLET).unwrap();
        assert_eq!((tablet.asked, tablet.passes_by), (Some(77), false));
    }

    #[test]
    fn a_device_that_is_there_and_asks_nothing_passes_by_and_one_that_left_does_not() {
        let wired = wired(vec![]);
        wired.learn("192.168.1.20", TABLET);
        let passes = |now: u64| wired.list(now).0[0].passes_by;
        let later = 10 * SILENT;
        assert!(!passes(SILENT) && !passes(later), "it is not there any more");

        wired.table.borrow().hear(TABLET, later - 60);
        assert!(passes(later));
        assert_eq!(wired.list(later).0[0].last_seen, later - 60);

        wired.group_of("192.168.1.20");
        wired.house.core.devices.note(later);
        assert!(!passes(later), "it asked");
        let lease = Lease { address: "192.168.1.20".parse().unwrap(), mac: Some(TABLET), name: None };
        let listed = wired.house.core.devices.list(&wired.house.policy.filter, &[lease], later + 2 * SILENT).0;
        assert!(listed[0].passes_by, "its lease has not ended");
    }

    #[test]
    fn a_group_by_an_ipv4_prefix_whose_devices_speak_ipv6_too_is_told_of() {
        let wired = wired(vec![group("kids", vec![Word::Net("192.168.1.0/26".parse().unwrap())])]);
        wired.learn("192.168.1.20", TABLET);
        assert_eq!(wired.list(0).1, Vec::<String>::new());

        wired.learn("2001:db8:1::7", TABLET);

        let wanted = "group \"kids\" holds 00:1b:21:00:00:07 by 192.168.1.20, but not by 2001:db8:1::7: \
                      name the device by its MAC address or DHCP name";
        assert_eq!(wired.list(0).1, [wanted]);
    }

    #[test]
    fn who_makes_up_macs_pushes_out_nobody_who_asks() {
        let wired = wired(vec![]);
        wired.learn("192.168.1.20", TABLET);
        wired.group_of("192.168.1.20");
        wired.house.core.devices.note(1);

        let mut table = Table::clone(&wired.table.borrow());
        for number in 0..5000_u16 {
            let [a, b] = number.to_be_bytes();
            table.learn([10, 0, a, b].into(), Mac([2, 0, 0, 0, a, b]));
        }
        wired.table.send_replace(Arc::new(table));
        wired.apply(&[]);

        let (devices, _) = wired.list(2);
        assert_eq!(devices.len(), DEVICES);
        assert!(devices.iter().any(|device| device.mac == TABLET));
    }

    #[test]
    fn the_first_question_from_an_address_that_nobody_has_yet_gets_no_answer_of_another_group() {
        let wired = wired(vec![Group {
            block: vec!["games.example.".parse().unwrap()],
            ..group("kids", vec![Word::Mac(TABLET)])
        }]);
        let networks = Networks { on_link: vec!["192.0.2.0/24".parse().unwrap()], ..Networks::default() };
        wired.house.core.networks.store(Arc::new(networks));
        let asker = fuzz::asker(Origin::Lan(NetworkId::MAIN));
        let bytes = query("www.games.example", 1, None);
        let mut out = Vec::new();

        let step = wired.house.answer(&asker, &bytes, 1000, &mut out);
        assert_eq!((step, out[2] & 2, &out[6..8]), (Step::Done(Outcome::Special), 2, &[0, 0][..]), "TC, and no record");
        wired.learn("192.0.2.77", TABLET);
        assert!(matches!(wired.house.answer(&asker, &bytes, 1000, &mut out), Step::Blocked(_)));
        let other = Asker { client: "192.0.2.78".parse().unwrap(), ..asker };
        wired.house.answer(&other, &bytes, 1000, &mut out);
        assert!(matches!(wired.house.answer(&other, &bytes, 1001, &mut out), Step::Ask(_)), "told once");
    }

    #[test]
    fn a_rule_for_a_client_knows_it_by_what_it_is_called() {
        let lines = [
            "||by-dhcp.example^$client=kids-tablet",
            "||by-mac.example^$client='00:1b:21:00:00:07'",
            "||by-itself.example^$client=phone",
            "||not-for.example^$client=~kids-tablet",
        ];
        let list = crate::dns::List {
            name: "own".into(),
            source: crate::dns::ListSource::Inline(lines.map(str::to_owned).to_vec()),
            action: crate::dns::Action::Block,
            purpose: crate::dns::Purpose::Filter,
            block_as: crate::dns::BlockAs::Null,
            refresh: Duration::from_secs(60),
            enabled: true,
        };
        let house = House::new(|config| {
            config.lists = vec![list];
            config.groups = vec![Group { lists: vec![0], ..group("default", vec![]) }];
        });
        let table = watch::Sender::new(Arc::default());
        house.core.devices.follow(table.subscribe());
        let wired = Wired { house, table, turn: AtomicU8::new(0) };
        wired.learn("192.168.1.20", TABLET);
        wired.learn("2001:db8:1::7", TABLET);
        wired.learn("192.168.1.21", PHONE);
        wired.apply(&[Lease { address: "192.168.1.20".parse().unwrap(), mac: None, name: Some("Kids-Tablet".into()) }]);
        let blocked = |address: &str, itself: Option<&str>, name: &str| {
            let name_of_its_own = itself.and_then(crate::dns::ClientName::new);
            let client = Client {
                origin: Origin::Lan(NetworkId::MAIN),
                address: address.parse().unwrap(),
                relay: false,
                name: name_of_its_own,
            };
            let filter = &wired.house.policy.filter;
            let wire = crate::dns::query::tests::wire(name);
            let verdict = filter.verdict(filter.asking(&client, 0), &wire, 1);
            let told = filter.explain(filter.asking(&client, 0), &wire, 1).unwrap();
            assert_eq!(told.is_empty(), verdict == crate::dns::filter::Verdict::Pass, "{name}: {told:?}");
            verdict != crate::dns::filter::Verdict::Pass
        };

        for address in ["192.168.1.20", "2001:db8:1::7"] {
            assert!(blocked(address, None, "by-dhcp.example") && blocked(address, None, "by-mac.example"), "{address}");
            assert!(!blocked(address, None, "not-for.example"), "{address}");
        }
        assert!(!blocked("192.168.1.21", None, "by-dhcp.example") && !blocked("192.168.1.21", None, "by-mac.example"));
        assert!(blocked("192.168.1.21", None, "not-for.example"));
        assert!(blocked("192.168.1.21", Some("phone"), "by-itself.example"));
        assert!(!blocked("192.168.1.21", None, "by-itself.example"));
    }

    #[test]
    fn a_pause_for_a_device_holds_on_all_its_addresses_and_for_nobody_else() {
        for device in [Word::Mac(TABLET), Word::Name("kids-tablet".into())] {
            let house = House::new(|config| {
                let block = vec!["games.example.".parse().unwrap()];
                config.groups = vec![Group { block, ..group("default", vec![]) }];
                let whom = crate::dns::Paused::Device(device.clone());
                config.pauses = vec![crate::dns::Pause { whom, until: 100 }];
            });
            let table = watch::Sender::new(Arc::default());
            house.core.devices.follow(table.subscribe());
            let wired = Wired { house, table, turn: AtomicU8::new(0) };
            wired.learn("192.168.1.20", TABLET);
            wired.learn("2001:db8:1::7", TABLET);
            wired.learn("192.168.1.21", PHONE);
            let name = Some("kids-tablet".into());
            wired.apply(&[Lease { address: "192.168.1.20".parse().unwrap(), mac: None, name }]);
            let passes = |address: &str, now: u64| {
                let origin = Origin::Lan(NetworkId::MAIN);
                let client = Client { origin, address: address.parse().unwrap(), relay: false, name: None };
                let filter = &wired.house.policy.filter;
                let wire = crate::dns::query::tests::wire("games.example");
                filter.verdict(filter.asking(&client, now), &wire, 1) == crate::dns::filter::Verdict::Pass
            };

            for address in ["192.168.1.20", "2001:db8:1::7"] {
                assert!(passes(address, 99) && !passes(address, 100), "{device:?} {address}");
            }
            assert!(!passes("192.168.1.21", 99), "{device:?}");
        }
    }
}

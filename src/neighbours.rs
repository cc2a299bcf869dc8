//! Which devices are on the wire: the kernel's neighbour tables, followed by netlink.
//!
//! A device is its MAC address; it has as many IPv4 and IPv6 addresses as it likes, and changes them. The kernel
//! tells of each address that it learns and forgets it when nothing came from there for a while; we remember it
//! until another device has it, because a device that comes back is told of again before it can be answered.

use std::{
    collections::HashMap,
    fmt, io,
    net::IpAddr,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::sync::watch;

use crate::{
    onlink,
    origin::{NetworkId, Networks, Origin},
    supervise::{Phase, Stop},
};

/// The address of a network card.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Says whether the device made it up, as phones do for each network (IEEE 802: the bit "locally administered").
    pub const fn is_random(self) -> bool {
        self.0[0] & 2 != 0
    }

    /// Reads what the kernel says; no group address and not all zeros.
    fn of_a_device(bytes: &[u8]) -> Option<Self> {
        let mac = Self(bytes.try_into().ok()?);
        (mac.0[0] & 1 == 0 && mac.0 != [0; 6]).then_some(mac)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `aa:bb:cc:dd:ee:ff` or `AA-BB-CC-DD-EE-FF`.
impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no MAC address");
        let mut bytes = [0; 6];
        let mut words = text.split([':', '-']);
        for byte in &mut bytes {
            let word = words.next().filter(|word| matches!(word.len(), 1 | 2)).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(word, 16).map_err(|_| wrong())?;
        }
        if words.next().is_some() {
            return Err(wrong());
        }
        Self::of_a_device(&bytes).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// Addresses that are remembered: of everybody, and of one device. A device has a few of each prefix; who claims
/// more forgets his own.
const ADDRESSES: usize = 16_384;
const ADDRESSES_EACH: usize = 64;

/// Addresses with the devices that have them.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: HashMap<IpAddr, Entry>,
    /// Grows with each that is learnt.
    turn: u64,
    /// When devices were last there; the same for each copy of the table, since it changes all the time.
    heard: Arc<Mutex<HashMap<Mac, u64>>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Mac,
    turn: u64,
}

impl Table {
    /// Says who has an address.
    pub fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.entries.get(&address).map(|entry| entry.mac)
    }

    /// Returns every address with its device.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Mac)> {
        self.entries.iter().map(|(address, entry)| (*address, entry.mac))
    }

    /// Says at which second since 1970 a device was last on the wire, as far as the kernel told. That it is in the table says
    /// nothing of it: it may have left long ago.
    pub fn heard(&self, mac: Mac) -> Option<u64> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&mac).copied()
    }

    /// Notes that a device is on the wire at a second since 1970.
    pub fn hear(&self, mac: Mac, now: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= ADDRESSES && !heard.contains_key(&mac) {
            // Who makes up addresses is not heard again.
            heard.retain(|_, at| now.saturating_sub(*at) < 60);
        }
        if heard.len() < ADDRESSES || heard.contains_key(&mac) {
            heard.insert(mac, now);
        }
    }

    /// Notes that a device has an address; says whether that is new.
    pub fn learn(&mut self, address: IpAddr, mac: Mac) -> bool {
        self.turn += 1;
        let entry = Entry { mac, turn: self.turn };
        let before = self.entries.insert(address, entry);
        if before.is_some_and(|before| before.mac == mac) {
            return false;
        }
        let own = self.entries.iter().filter(|(_, entry)| entry.mac == mac);
        if own.clone().count() > ADDRESSES_EACH {
            let oldest = own.min_by_key(|(_, entry)| entry.turn).map(|(address, _)| *address);
            oldest.and_then(|address| self.entries.remove(&address));
        }
        if self.entries.len() > ADDRESSES {
            // Many at once, so that a flood of them does not look at all of them each time.
            let mut turns: Vec<u64> = self.entries.values().map(|entry| entry.turn).collect();
            turns.sort_unstable();
            let from = turns[ADDRESSES / 8];
            self.entries.retain(|_, entry| entry.turn >= from);
        }
        true
    }
}

/// Follows the neighbour tables.
#[derive(Debug)]
pub struct Follower {
    networks: Arc<ArcSwap<Networks>>,
    table: watch::Sender<Arc<Table>>,
}

/// Changes come in swarms; a large table is copied no more often than this for each of its addresses.
const PAUSE_EACH: Duration = Duration::from_micros(20);

/// Everything is read again after this time: a message may be lost, and a network may be the LAN's by now.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

impl Follower {
    /// Makes a follower that knows nobody yet.
    pub fn new(networks: Arc<ArcSwap<Networks>>) -> Self {
        Self { networks, table: watch::Sender::new(Arc::default()) }
    }

    /// Returns the table, which is up to date while somebody is in [`Self::run`].
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.table.subscribe()
    }

    /// Follows the kernel until told to stop, in a thread of its own.
    pub fn run(&self, stop: &Stop) -> Result<(), String> {
        let fail = |error: io::Error| format!("neighbours: {error}");
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail)?;
        socket.bind(&SocketAddr::new(0, libc::RTMGRP_NEIGH.unsigned_abs())).map_err(fail)?;
        SockRef::from(&socket).set_read_timeout(Some(AT_LEAST_EVERY)).map_err(fail)?;
        let mut read_whole = Instant::now();
        self.take(onlink::neighbours().map_err(fail)?, Told::Everything);
        while stop.phase() == Phase::Run {
            let mut waits = true;
            let Swarm { heard, lost } = swarm(|| {
                // The first is waited for, and the rest is there already.
                match std::mem::replace(&mut waits, false) {
                    true => socket.recv_from_full().map(|(bytes, _)| bytes),
                    false => {
                        let mut bytes = Vec::with_capacity(1 << 15);
                        socket.recv_from(&mut bytes, libc::MSG_DONTWAIT).map(|_| bytes)
                    }
                }
            })
            .map_err(fail)?;
            self.take(heard, Told::Changes);
            if lost || read_whole.elapsed() >= AT_LEAST_EVERY {
                read_whole = Instant::now();
                self.take(onlink::neighbours().map_err(fail)?, Told::Everything);
            }
            let known = u32::try_from(self.table.borrow().entries.len()).unwrap_or(u32::MAX);
            std::thread::sleep(PAUSE_EACH.saturating_mul(known));
        }
        Ok(())
    }

    fn take(&self, heard: Vec<RouteNetlinkMessage>, told: Told) {
        let networks = self.networks.load();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut table = None;
        for (message, (address, interface, mac)) in heard.iter().filter_map(|one| Some((one, neighbour(one)?))) {
            // Gateways and strangers are no devices of the house.
            let source = networks.classify(address, Some(interface));
            if !matches!(source.origin, Origin::Lan(network) if network != NetworkId::HOST) {
                continue;
            }
            let known = {
                let table = self.table.borrow();
                if told == Told::Changes || is_answering(message) {
                    table.hear(mac, now);
                }
                table.mac(address) == Some(mac)
            };
            if !known {
                table.get_or_insert_with(|| Table::clone(&self.table.borrow())).learn(address, mac);
            }
        }
        if let Some(table) = table {
            self.table.send_replace(Arc::new(table));
        }
    }
}

/// Why the kernel told of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Something changed a moment ago.
    Changes,
    /// It was asked for all that it has, however old.
    Everything,
}

/// Says whether an entry of the kernel's is one of who answered a moment ago.
fn is_answering(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewNeighbour(NeighbourMessage { header, .. }) = message else { return false };
    matches!(header.state, NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe)
}

/// What the kernel told at once.
struct Swarm {
    heard: Vec<RouteNetlinkMessage>,
    /// It had more to tell than it could keep.
    lost: bool,
}

/// Messages of one swarm: who tells without end does not keep the table from being written.
const SWARM: usize = 4096;

/// Takes what there is to hear until there is no more.
fn swarm(mut next: impl FnMut() -> io::Result<Vec<u8>>) -> io::Result<Swarm> {
    let mut swarm = Swarm { heard: Vec::new(), lost: false };
    while swarm.heard.len() < SWARM {
        match next() {
            Ok(bytes) => swarm.heard.extend(messages(&bytes)),
            Err(error) if onlink::is_timeout(&error) => break,
            // The kernel says so once, and goes on with what it kept.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => swarm.lost = true,
            Err(error) => return Err(error),
        }
    }
    Ok(swarm)
}

/// Reads what the kernel tells unasked.
fn messages(mut bytes: &[u8]) -> Vec<RouteNetlinkMessage> {
    let mut found = Vec::new();
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
        // Netlink aligns each message to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        bytes = bytes.get(length..).unwrap_or_default();
        if let NetlinkPayload::InnerMessage(inner) = message.payload {
            found.push(inner);
        }
    }
    found
}

/// Returns the address, the interface and the device of an entry of the kernel's.
fn neighbour(message: &RouteNetlinkMessage) -> Option<(IpAddr, u32, Mac)> {
    let RouteNetlinkMessage::NewNeighbour(NeighbourMessage { header, attributes, .. }) = message else { return None };
    let of_a_device = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        && !matches!(header.state, NeighbourState::Noarp | NeighbourState::Incomplete | NeighbourState::Failed);
    if !of_a_device {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::of_a_device(bytes),
            _ => {}
        }
    }
    Some((address?, header.ifindex, mac?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(interface: u32, state: NeighbourState, address: &str, mac: &[u8]) -> RouteNetlinkMessage {
        let mut message = NeighbourMessage::default();
        let address: IpAddr = address.parse().unwrap();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = interface;
        message.header.state = state;
        let destination = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        RouteNetlinkMessage::NewNeighbour(message)
    }

    fn follower() -> Follower {
        let networks = Networks {
            interfaces: vec![2],
            outside: vec![3],
            on_link: vec!["192.168.1.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()],
            own: ["192.168.1.2".parse().unwrap()].into(),
            relays: ["192.168.1.1".parse().unwrap()].into(),
            ..Networks::default()
        };
        Follower::new(Arc::new(ArcSwap::from_pointee(networks)))
    }

    const TABLET: [u8; 6] = [0x02, 0, 0, 0, 0, 7];
    const LAPTOP: [u8; 6] = [0x00, 0x1b, 0x21, 0, 0, 8];

    #[test]
    fn a_device_has_all_its_addresses_and_keeps_them_when_the_kernel_forgets() {
        let follower = follower();
        let table = follower.table();
        let stale = NeighbourState::Stale;

        follower.take(
            vec![
                told(2, stale, "192.168.1.20", &TABLET),
                told(2, stale, "fe80::7", &TABLET),
                told(2, stale, "2001:db8:1::7", &TABLET),
            ],
            Told::Changes,
        );
        follower.take(vec![told(2, NeighbourState::Reachable, "2001:db8:1:0:aaaa::1", &TABLET)], Told::Changes);
        follower.take(vec![told(2, NeighbourState::Failed, "192.168.1.20", &TABLET)], Told::Changes);

        let of = |address: &str| table.borrow().mac(address.parse().unwrap());
        for address in ["192.168.1.20", "fe80::7", "2001:db8:1::7", "2001:db8:1:0:aaaa::1"] {
            assert_eq!(of(address), Some(Mac(TABLET)), "{address}");
        }
        follower.take(vec![told(2, stale, "192.168.1.20", &LAPTOP)], Told::Changes);
        assert_eq!(of("192.168.1.20"), Some(Mac(LAPTOP)), "another device has the address now");
    }

    #[test]
    fn strangers_gateways_and_what_is_no_device_are_left_out() {
        let follower = follower();
        let stale = NeighbourState::Stale;

        follower.take(
            vec![
                told(3, stale, "192.168.1.20", &TABLET),
                told(2, stale, "192.168.1.1", &TABLET),
                told(2, stale, "192.168.1.2", &TABLET),
                told(2, stale, "203.0.113.5", &TABLET),
                told(2, NeighbourState::Incomplete, "192.168.1.21", &TABLET),
                told(2, stale, "192.168.1.22", &[0x33, 0x33, 0, 0, 0, 1]),
                told(2, stale, "192.168.1.23", &[0; 6]),
                told(2, stale, "192.168.1.24", &[1, 2, 3]),
            ],
            Told::Changes,
        );

        assert_eq!(follower.table().borrow().iter().count(), 0);
    }

    #[test]
    fn who_claims_many_addresses_forgets_his_own() {
        let mut table = Table::default();
        table.learn("192.168.1.20".parse().unwrap(), Mac(LAPTOP));

        for number in 0..1000_u16 {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number);
            table.learn(address.into(), Mac(TABLET));
        }

        assert_eq!(table.iter().filter(|(_, mac)| *mac == Mac(TABLET)).count(), ADDRESSES_EACH);
        assert_eq!(table.mac("2001:db8:1::3e7".parse().unwrap()), Some(Mac(TABLET)), "the newest stays");
        assert_eq!(table.mac("192.168.1.20".parse().unwrap()), Some(Mac(LAPTOP)));
    }

    #[test]
    fn the_table_is_bounded_however_many_devices_are_made_up() {
        let mut table = Table::default();

        for number in 0..20_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            table.learn(std::net::Ipv4Addr::from(number).into(), Mac([2, 0, 0, a, b, c]));
        }

        assert!(table.iter().count() <= ADDRESSES);
        assert!(table.mac(std::net::Ipv4Addr::from(19_999).into()).is_some());
    }

    #[test]
    fn a_mac_is_read_as_people_write_it() {
        let mac: Mac = "AA-BB-CC-DD-EE-0F".parse().unwrap();

        assert_eq!(mac.to_string(), "aa:bb:cc:dd:ee:0f");
        assert!(mac.is_random() && !Mac(LAPTOP).is_random());
        for wrong in ["", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:ff:00", "01:00:5e:00:00:01", "g0:00:00:00:00:00", "nas"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    fn packed(message: &RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message.clone());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn what_the_kernel_lost_in_the_middle_of_a_swarm_is_noticed() {
        let told = |host: &str| Ok(packed(&told(2, NeighbourState::Stale, host, &TABLET)));
        let none = || Err(io::ErrorKind::WouldBlock.into());
        let hear = |said: Vec<io::Result<Vec<u8>>>| {
            let mut said = said.into_iter();
            swarm(|| said.next().expect("it ends when there is no more"))
        };

        let whole = hear(vec![told("192.168.1.20"), told("192.168.1.21"), none()]).unwrap();
        let torn = hear(vec![
            told("192.168.1.20"),
            Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
            told("192.168.1.21"),
            none(),
        ])
        .unwrap();

        assert_eq!((whole.heard.len(), whole.lost), (2, false));
        assert_eq!((torn.heard.len(), torn.lost), (2, true));
        assert!(hear(vec![Err(io::Error::from_raw_os_error(libc::EBADF))]).is_err());
    }

    #[test]
    fn a_device_that_only_stands_in_the_table_is_not_on_the_wire() {
        let follower = follower();
        let table = follower.table();
        let [stale, reachable] = [NeighbourState::Stale, NeighbourState::Reachable];

        follower.take(
            vec![told(2, stale, "192.168.1.20", &TABLET), told(2, reachable, "192.168.1.21", &LAPTOP)],
            Told::Everything,
        );
        let heard = |mac| table.borrow().heard(Mac(mac)).is_some();

        assert_eq!((heard(TABLET), heard(LAPTOP)), (false, true));
        follower.take(vec![told(2, stale, "192.168.1.20", &TABLET)], Told::Changes);
        assert!(heard(TABLET), "it changed a moment ago");
    }

    #[test]
    fn the_kernel_can_be_asked() {
        onlink::neighbours().unwrap();
    }
}

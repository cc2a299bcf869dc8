//! A random signed Internet: zones, the servers that serve them, what is broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
};

use hearthgate::dns::resolver::{name::Name, rrset::Security, wire::rtype};

pub use super::dice::Dice;
use super::{
    sign::{Flaw, KEYS, Key, UNKNOWN_DIGEST},
    zone::{Fault, Signing, Zone},
};

/// Who believes that this address serves anything was lied to.
pub const POISON: [u8; 4] = [6, 6, 6, 6];

const MOST_ZONES: usize = 14;
const DEEPEST: usize = 5;

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Good,
    Dead,
    /// The network says that there is no way to it.
    Unreachable,
    Slow,
    Refuses,
    Fails,
    /// Refers to the root whatever is asked.
    Upward,
    /// Answers over TCP only.
    Truncates,
    /// Does not give back the case of the question.
    Lowers,
    /// Sends what is no message.
    Garbage,
    /// Changes the addresses of hosts that are not servers.
    Lies,
    /// Answers FORMERR to EDNS.
    NoEdns,
    /// Leaves out signatures and proofs.
    Strips,
}

impl Manner {
    /// Where signatures are checked, another server must be asked.
    pub fn misleads(self) -> bool {
        matches!(self, Self::Lies | Self::NoEdns | Self::Strips)
    }
}

#[derive(Clone)]
pub struct Server {
    pub zones: Vec<Name>,
    pub manner: Manner,
    /// Adds records that it has no say in.
    pub poisons: bool,
    /// Milliseconds.
    pub delay: u64,
}

/// The DS at the parent, of a zone that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    None,
    Right,
    Sha384,
    /// Beside that of a key which is not there.
    Spare,
    /// Beside one of an unknown type.
    Newer,
    Wrong,
    /// Beside one of an unknown type.
    WrongAndNewer,
    UnknownDigest,
    /// SHA-1 does not count.
    Sha1,
}

/// What may go wrong in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Any,
    Calm,
}

pub struct World {
    pub seed: u64,
    weather: Weather,
    pub zones: BTreeMap<Name, Zone>,
    pub links: BTreeMap<Name, Link>,
    pub servers: BTreeMap<IpAddr, Server>,
    pub hints: Vec<(Name, Vec<IpAddr>)>,
    /// DS data.
    pub anchors: Vec<(Name, Vec<u8>)>,
    /// Zones under which nothing is checked, and when that ends.
    pub negative_anchors: Vec<(Name, Option<u64>)>,
    /// Zones all of whose servers are dead.
    pub dead: BTreeSet<Name>,
    /// Of a thousand packets, so many are lost.
    pub loss: usize,
    /// Somebody guesses.
    pub forged: bool,
    /// There are servers with IPv6 addresses.
    pub six: bool,
    /// Something may take long.
    pub is_slow: bool,
    /// How many look-ups of servers without glue stand between the root and the zone.
    levels: BTreeMap<Name, usize>,
}

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name of the test")
}

pub fn under(label: &str, zone: &Name) -> Name {
    if zone.is_root() { name(label) } else { name(&format!("{label}.{zone}")) }
}

impl World {
    pub fn new(seed: u64) -> Self {
        KEYS.with(|keys| {
            let mut world = Self::bare(seed, Weather::Any);
            world.make(&mut Dice(seed), keys);
            world
        })
    }

    /// A world in which nothing goes wrong: all is signed, by Ed25519 and NSEC, and keeps for an hour.
    pub fn calm() -> Self {
        KEYS.with(|keys| {
            let mut world = Self::bare(0, Weather::Calm);
            world.make(&mut Dice(0), &keys[..1]);
            world
        })
    }

    /// A world without anything.
    pub fn empty() -> Self {
        Self::bare(0, Weather::Calm)
    }

    fn bare(seed: u64, weather: Weather) -> Self {
        Self {
            seed,
            weather,
            zones: BTreeMap::new(),
            links: BTreeMap::new(),
            servers: BTreeMap::new(),
            hints: Vec::new(),
            anchors: Vec::new(),
            negative_anchors: Vec::new(),
            dead: BTreeSet::new(),
            loss: 0,
            forged: false,
            six: false,
            is_slow: false,
            levels: BTreeMap::new(),
        }
    }

    fn make(&mut self, dice: &mut Dice, keys: &[Rc<Key>]) {
        let root = Name::root();
        let hosting = name("hosting.t0");
        let mut zone = Zone::new(root.clone(), Signing::Nsec, keys[0].clone());
        if self.weather == Weather::Any {
            self.loss = if dice.percent(30) { dice.below(60) } else { 0 };
            self.forged = dice.percent(30);
            self.six = dice.percent(30);
            zone.key = dice.pick(&keys[..keys.len() - 1]).clone();
            if dice.percent(30) {
                zone.signing = Signing::Nsec3 { opt_out: dice.percent(50), iterations: 0 };
            }
            if dice.percent(2) {
                zone.fault = *dice.pick(&[Fault::Keys(Flaw::Expired), Fault::All(Flaw::Garbled), Fault::Keyless]);
            }
        }
        self.anchors.push((root.clone(), zone.key.ds(&root, 2)));
        self.zones.insert(root, zone);
        let names = if self.weather == Weather::Calm {
            [".", "t0", "hosting.t0", "t1", "t2", "d0.t1", "d0.d0.t1"].map(name).to_vec()
        } else {
            tree(dice)
        };
        for zone in &names[1..] {
            match self.weather {
                Weather::Any => self.add_zone(zone, dice, keys),
                Weather::Calm => {
                    self.links.insert(zone.clone(), Link::Right);
                    self.zones.insert(zone.clone(), Zone::new(zone.clone(), Signing::Nsec, keys[0].clone()));
                }
            }
        }
        // What is below a zone without TTL is looked for from above each time: that is slow, and nothing else.
        for zone in names.iter().filter(|zone| names.iter().any(|other| other.is_below(zone))) {
            let made = self.zone(zone);
            made.ttl = made.ttl.max(5);
        }
        for zone in &names {
            self.serve(zone, &hosting, dice);
        }
        for zone in &names {
            self.fill(zone, &names, dice);
        }
        for zone in &names[1..] {
            self.delegate(zone);
        }
        self.tame();
    }

    pub fn parent(&self, zone: &Name) -> Name {
        let mut at = zone.parent().expect("not the root");
        while !self.zones.contains_key(&at) {
            at = at.parent().expect("the root is a zone");
        }
        at
    }

    fn add_zone(&mut self, zone: &Name, dice: &mut Dice, keys: &[Rc<Key>]) {
        let iterations = if dice.percent(30) { u16::try_from(dice.below(61)).expect("small") } else { 0 };
        let signing = match dice.below(10) {
            0 | 1 => Signing::Unsigned,
            2..=5 => Signing::Nsec,
            6 | 7 => Signing::Nsec3 { opt_out: false, iterations },
            _ => Signing::Nsec3 { opt_out: true, iterations },
        };
        let mut made = Zone::new(zone.clone(), signing, dice.pick(&keys[..keys.len() - 1]).clone());
        if dice.percent(4) {
            made.key = keys[keys.len() - 1].clone();
        }
        made.follows = dice.percent(50);
        made.ttl = *dice.pick(&[0, 5, 300, 3600, 3600, 3600]);
        if dice.percent(11) {
            let flaw = *dice.pick(&[Flaw::Garbled, Flaw::Expired, Flaw::Early, Flaw::Absent, Flaw::Stranger]);
            made.fault = match dice.below(9) {
                0..3 => Fault::All(flaw),
                3 => Fault::Denials(flaw),
                4 => Fault::Keys(flaw),
                5 => Fault::Keyless,
                6 => Fault::NoDenial,
                7 if made.signing == Signing::Nsec => Fault::WrongDenial,
                _ => Fault::Replay,
            };
        }
        let link = match dice.below(100) {
            _ if !made.is_signed() => Link::None,
            0..70 => Link::Right,
            70..80 => Link::None,
            80..83 => Link::Sha384,
            83..86 => Link::Spare,
            86..89 => Link::Newer,
            89..91 => Link::Wrong,
            91..92 => Link::WrongAndNewer,
            92..96 => Link::UnknownDigest,
            _ => Link::Sha1,
        };
        if made.is_signed() && made.key.algorithm != super::sign::UNKNOWN_ALGORITHM && dice.percent(6) {
            let mut anchor = made.key.ds(zone, 2);
            if dice.percent(20) {
                anchor[8] ^= 1;
            }
            self.anchors.push((zone.clone(), anchor));
        }
        if dice.percent(4) {
            let now = u64::from(super::sign::EPOCH);
            self.negative_anchors.push((zone.clone(), *dice.pick(&[None, Some(now + 10_000_000), Some(now - 1)])));
        }
        self.links.insert(zone.clone(), link);
        self.zones.insert(zone.clone(), made);
    }

    /// Gives the zone its servers: names inside it with glue, of another zone that was made before, or both.
    fn serve(&mut self, zone: &Name, hosting: &Name, dice: &mut Dice) {
        let count = 2 + dice.below(3);
        let backbone = hosting.is_under(zone);
        let level = if zone.is_root() { 0 } else { self.levels[&self.parent(zone)] };
        let served: Vec<Name> = self.levels.keys().cloned().collect();
        let may_host = |home: &&Name| {
            !home.is_root() && self.levels[*home] <= 1 && !self.dead.iter().any(|dead| home.is_under(dead))
        };
        let hosts: Vec<&Name> = served.iter().filter(may_host).collect();
        let all_inside = backbone || hosts.is_empty() || dice.percent(50);
        let elsewhere = if dice.percent(50) && served.contains(hosting) { hosting } else { zone };
        let elsewhere =
            if elsewhere == zone && !hosts.is_empty() { (*dice.pick(&hosts)).clone() } else { elsewhere.clone() };
        let calm = self.weather == Weather::Calm;
        let dead = !calm && !backbone && level <= 2 && dice.percent(5);
        let shared = !calm && !zone.is_root() && !dead && dice.percent(12);
        let mut own = Vec::new();
        let mut good = 0;
        let mut misleading = 0;
        let mut farthest = level;
        for number in 0..count {
            let inside = all_inside || elsewhere == *zone || dice.percent(25);
            let home = if inside { zone.clone() } else { elsewhere.clone() };
            if !inside {
                farthest = farthest.max(self.levels[&home] + 1);
            }
            let server = if inside {
                under(&format!("ns{number}"), zone)
            } else {
                let tag: String = zone.to_string().replace('.', "-");
                under(&format!("zz-{tag}{number}"), &home)
            };
            let must_be_good = good == 0 && number + 1 == count || zone.is_root();
            let mut manner = match dice.below(100) {
                _ if dead => *dice.pick(&[Manner::Dead, Manner::Dead, Manner::Refuses, Manner::Unreachable]),
                _ if must_be_good || calm => Manner::Good,
                0..64 => Manner::Good,
                64..68 => Manner::Dead,
                68..70 => Manner::Unreachable,
                70..73 => Manner::Slow,
                73..77 => Manner::Refuses,
                77..80 => Manner::Fails,
                80..83 => Manner::Upward,
                83..86 => Manner::Truncates,
                86..89 => Manner::Lowers,
                89..91 => Manner::Garbage,
                91..94 => Manner::Lies,
                94..97 => Manner::NoEdns,
                _ => Manner::Strips,
            };
            if manner.misleads() {
                misleading += 1;
                if misleading > 1 {
                    manner = Manner::Good;
                }
            }
            good += usize::from(manner == Manner::Good);
            self.is_slow |= matches!(manner, Manner::Dead | Manner::Slow | Manner::Garbage) || self.loss > 0;
            let made = Server {
                zones: vec![zone.clone()],
                manner,
                poisons: !calm && dice.percent(15),
                delay: 5 + u64::try_from(dice.below(80)).expect("small"),
            };
            let serial = u8::try_from(self.servers.len()).expect("few") + 1;
            let four = Ipv4Addr::new(9, 9, 9, serial);
            own.push(IpAddr::V4(four));
            self.servers.insert(four.into(), made.clone());
            self.zone(zone).add(zone, rtype::NS, server.as_wire());
            self.zone(&home).add(&server, rtype::A, &four.octets());
            // One that misleads on two addresses would be two.
            if self.six && dice.percent(40) && !manner.misleads() {
                let six = Ipv6Addr::new(0x2a00, 9, 0, 0, 0, 0, 0, serial.into());
                own.push(IpAddr::V6(six));
                self.servers.insert(six.into(), made);
                self.zone(&home).add(&server, rtype::AAAA, &six.octets());
            }
            if zone.is_root() {
                self.hints.push((server.clone(), vec![four.into()]));
            }
        }
        self.levels.insert(zone.clone(), farthest);
        if dead {
            self.dead.insert(zone.clone());
        }
        // Sometimes the parent's servers have the child as well.
        if shared {
            let parent = self.parent(zone);
            for server in self.servers.values_mut().filter(|server| server.zones[0] == parent) {
                server.zones.push(zone.clone());
            }
        }
    }

    pub fn zone(&mut self, name: &Name) -> &mut Zone {
        self.zones.get_mut(name).expect("the zone is there")
    }

    fn fill(&mut self, zone: &Name, all: &[Name], dice: &mut Dice) {
        let key = self.zones[zone].key.clone();
        let mut other = |label: &str| under(label, dice.pick(all));
        let (to, via, gone, away) = (other("www"), other("alias"), other("nothing"), other("ent"));
        let (round, spin) = (other("round"), other("spin"));
        let circle = under("loop2", zone);
        let back = under("loop1", zone);
        let grown = under("a.grow", zone);
        let mail = [&[0, 10], under("www", zone).as_wire()].concat();
        let this = self.zone(zone);
        let mut soa = under("ns0", zone).as_wire().to_vec();
        soa.extend(under("root", zone).as_wire());
        for number in [1_u32, 3600, 600, 86400, 300] {
            soa.extend(number.to_be_bytes());
        }
        this.add(zone, rtype::SOA, &soa);
        if this.is_signed() && this.fault != Fault::Keyless {
            this.add(zone, rtype::DNSKEY, &key.dnskey);
        }
        this.add(zone, rtype::A, &[192, 0, 9, 1]);
        // Too much for a datagram.
        for number in 0..8 {
            this.add(&under("large", zone), rtype::TXT, &[&[200_u8][..], &[b'a' + number; 200]].concat());
        }
        let hosts: [(&str, u16, &[u8]); 12] = [
            ("www", rtype::A, &[192, 0, 9, 2]),
            ("www", rtype::A, &[192, 0, 9, 3]),
            ("v6", rtype::AAAA, &[32; 16]),
            ("www", rtype::TXT, b"\x05hello"),
            ("www", rtype::MX, &mail),
            ("a.b.ent", rtype::A, &[192, 0, 9, 4]),
            ("*.wild", rtype::A, &[192, 0, 9, 5]),
            ("*.wild", rtype::TXT, b"\x04wild"),
            ("*.wild", rtype::MX, &mail),
            ("host.wild", rtype::AAAA, &[33; 16]),
            ("x.y.wild", rtype::A, &[192, 0, 9, 6]),
            ("www.ent", rtype::A, &[192, 0, 9, 7]),
        ];
        for (label, kind, data) in hosts {
            this.add(&under(label, zone), kind, data);
        }
        for (label, kind, target) in [
            ("alias", rtype::CNAME, &to),
            ("alias2", rtype::CNAME, &via),
            ("nxalias", rtype::CNAME, &gone),
            ("*.wc", rtype::CNAME, &to),
            ("loop1", rtype::CNAME, &circle),
            ("loop2", rtype::CNAME, &back),
            ("round", rtype::CNAME, &round),
            ("moved", rtype::DNAME, &away),
            ("spin", rtype::DNAME, &spin),
            ("grow", rtype::DNAME, &grown),
        ] {
            this.add(&under(label, zone), kind, target.as_wire());
        }
    }

    pub fn delegate(&mut self, zone: &Name) {
        let parent = self.parent(zone);
        let child = &self.zones[zone];
        let key = child.key.clone();
        let servers = child.nodes[zone][&rtype::NS].clone();
        let mut glue = Vec::new();
        for server in servers.iter().filter_map(|data| Name::from_wire(data)) {
            for kind in [rtype::A, rtype::AAAA] {
                let known = child.nodes.get(&server).and_then(|node| node.get(&kind));
                glue.extend(known.into_iter().flatten().map(|address| (server.clone(), kind, address.clone())));
            }
        }
        let link = self.links[zone];
        let above = self.zone(&parent);
        for data in servers {
            above.add(zone, rtype::NS, &data);
        }
        for (server, kind, address) in glue {
            above.add(&server, kind, &address);
        }
        if !above.is_signed() {
            return;
        }
        let wrong = |mut ds: Vec<u8>| {
            ds[10] ^= 1;
            ds
        };
        let right = key.ds(zone, 2);
        let unknown = key.ds(zone, UNKNOWN_DIGEST);
        let set = match link {
            Link::None => Vec::new(),
            Link::Right => vec![right],
            Link::Sha384 => vec![key.ds(zone, 4)],
            Link::Spare => {
                let mut spare = wrong(right.clone());
                spare[0] ^= 0x11;
                vec![spare, right]
            }
            Link::Newer => vec![right, unknown],
            Link::Wrong => vec![wrong(right)],
            Link::WrongAndNewer => vec![wrong(right), unknown],
            Link::UnknownDigest => vec![unknown],
            Link::Sha1 => vec![key.ds(zone, 1)],
        };
        for ds in set {
            above.add(zone, rtype::DS, &ds);
        }
    }

    /// Lies are found out only where somebody vouches for the truth.
    fn tame(&mut self) {
        let names: Vec<Name> = self.zones.keys().cloned().collect();
        // RFC 9276 §3.2: of a zone that hashes too often nobody can tell what was taken away.
        let is_costly = |zone: &Zone| matches!(zone.signing, Signing::Nsec3 { iterations: 51.., .. });
        for zone in &names {
            let untold = self.keys(zone) != Security::Secure || is_costly(&self.zones[zone]);
            if self.zones[zone].fault == Fault::Replay && untold {
                self.zone(zone).fault = Fault::None;
            }
        }
        let unsigned: Vec<Name> = names.into_iter().filter(|zone| self.keys(zone) != Security::Secure).collect();
        let costly = |zone: &Name| is_costly(&self.zones[zone]);
        for server in self.servers.values_mut() {
            let untold = match server.manner {
                Manner::Lies => server.zones.iter().any(|zone| unsigned.contains(zone) || costly(zone)),
                Manner::NoEdns | Manner::Strips => server.zones.iter().any(costly),
                _ => false,
            };
            if untold {
                server.manner = Manner::Good;
            }
        }
    }
}

/// The zones' names, parents and the zone of other zones' servers first.
fn tree(dice: &mut Dice) -> Vec<Name> {
    let mut names = vec![Name::root(), name("t0"), name("hosting.t0")];
    let mut open = vec![name("t0")];
    for number in 1..1 + dice.below(4) {
        names.push(name(&format!("t{number}")));
        open.push(names[names.len() - 1].clone());
    }
    while let Some(zone) = open.pop() {
        for number in 0..dice.below(3) {
            let label = if dice.percent(20) { format!("d{number}.gap") } else { format!("d{number}") };
            if zone.label_count() < DEEPEST && names.len() < MOST_ZONES {
                names.push(under(&label, &zone));
                open.push(names[names.len() - 1].clone());
            }
        }
    }
    names
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World { seed, loss, forged, six, .. } = self;
        writeln!(f, "world {seed}: loss {loss}/1000, forged {forged}, IPv6 {six}")?;
        for (name, zone) in &self.zones {
            let link = self.links.get(name);
            let Zone { signing, fault, ttl, .. } = zone;
            writeln!(f, "  {name} {signing:?} algorithm {} DS {link:?} {fault:?} TTL {ttl}", zone.key.algorithm)?;
            for server in zone.nodes[name][&rtype::NS].iter().filter_map(|data| Name::from_wire(data)) {
                let home = self.home(&server, rtype::A);
                for address in home.nodes[&server].values().flatten() {
                    let address: IpAddr = match <[u8; 4]>::try_from(&**address) {
                        Ok(four) => four.into(),
                        Err(_) => <[u8; 16]>::try_from(&**address).expect("an address").into(),
                    };
                    let Server { zones, manner, poisons, delay } = &self.servers[&address];
                    writeln!(f, "    {server} {address} {manner:?} {zones:?} {delay} ms, poisons {poisons}")?;
                }
            }
            for label in ["alias", "alias2", "moved", "round"] {
                let node = &zone.nodes[&under(label, name)];
                let to = node.values().next().and_then(|data| Name::from_wire(&data[0]));
                write!(f, "    {label} -> {}", to.expect("a target"))?;
            }
            writeln!(f)?;
        }
        let anchors: Vec<&Name> = self.anchors.iter().map(|(zone, _)| zone).collect();
        writeln!(f, "  anchors {anchors:?} negative {:?} dead {:?}", self.negative_anchors, self.dead)
    }
}

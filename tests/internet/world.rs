//! A random signed Internet: zones, the servers that serve them, what is broken.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    rc::Rc,
};

use hearthgate::dns::resolver::{name::Name, rrset::Security, wire::rtype};

use super::{
    sign::{Flaw, Key},
    zone::{Signing, Zone},
};

/// Random numbers that are the same everywhere (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % limit.max(1)
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Good,
    Dead,
    Slow,
    Refuses,
    Fails,
    /// Refers to the root whatever is asked.
    Upward,
    /// Answers over TCP only.
    Truncates,
    /// Does not give back the case of the question.
    Lowers,
    /// Changes the addresses of hosts that are not servers.
    Lies,
}

pub struct Server {
    pub zones: Vec<Name>,
    pub manner: Manner,
    /// Milliseconds.
    pub delay: u64,
}

pub struct World {
    pub seed: u64,
    pub zones: BTreeMap<Name, Zone>,
    pub servers: HashMap<IpAddr, Server>,
    pub hints: Vec<(Name, Vec<IpAddr>)>,
    pub anchor: Vec<u8>,
    /// Of a thousand packets, so many are lost.
    pub loss: usize,
    /// Somebody guesses.
    pub forged: bool,
    /// Something may take long.
    pub is_slow: bool,
}

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name of the test")
}

pub fn under(label: &str, zone: &Name) -> Name {
    if zone.is_root() { name(label) } else { name(&format!("{label}.{zone}")) }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let keys: Vec<Rc<Key>> = (0..4).map(|number| Rc::new(Key::new(number))).collect();
        let mut world = Self {
            seed,
            zones: BTreeMap::new(),
            servers: HashMap::new(),
            hints: Vec::new(),
            anchor: keys[0].ds(&Name::root()),
            loss: if dice.percent(30) { dice.below(40) } else { 0 },
            forged: dice.percent(30),
            is_slow: false,
        };
        let root = Name::root();
        let mut zone = Zone::new(root.clone(), Signing::Nsec, keys[0].clone());
        if dice.percent(30) {
            zone.signing = Signing::Nsec3 { opt_out: dice.percent(50), iterations: 0 };
        }
        world.zones.insert(root.clone(), zone);
        let mut names = vec![root.clone()];
        for tld in 0..2 + dice.below(2) {
            let tld = name(&format!("t{tld}"));
            names.push(tld.clone());
            for child in 0..1 + dice.below(2) {
                let child = under(&format!("d{child}"), &tld);
                names.push(child.clone());
                if dice.percent(40) {
                    let label = if dice.percent(40) { "x.gap" } else { "sub" };
                    names.push(under(label, &child));
                    if dice.percent(40) {
                        names.push(under(&format!("y.{label}"), &child));
                    }
                }
            }
        }
        names.push(name("hosting.t0"));
        for zone in &names[1..] {
            world.add_zone(zone, &mut dice, &keys);
        }
        for zone in &names {
            world.serve(zone, &mut dice);
        }
        for zone in &names {
            world.fill(zone, &names, &mut dice);
        }
        for zone in names.iter().skip(1) {
            world.delegate(zone, &mut dice);
        }
        // Lies are found out only where somebody vouches for the truth.
        let unsigned: Vec<Name> = world
            .zones
            .values()
            .filter(|zone| world.data(zone) != Security::Secure)
            .map(|zone| zone.name.clone())
            .collect();
        for server in world.servers.values_mut().filter(|server| server.manner == Manner::Lies) {
            if server.zones.iter().any(|zone| unsigned.contains(zone)) {
                server.manner = Manner::Good;
            }
        }
        world
    }

    pub fn parent(&self, zone: &Name) -> Name {
        let mut at = zone.parent().expect("not the root");
        while !self.zones.contains_key(&at) {
            at = at.parent().expect("the root is a zone");
        }
        at
    }

    fn add_zone(&mut self, zone: &Name, dice: &mut Dice, keys: &[Rc<Key>]) {
        let signing = match dice.below(10) {
            0 | 1 => Signing::Unsigned,
            2..=5 => Signing::Nsec,
            6 | 7 => Signing::Nsec3 { opt_out: false, iterations: u16::try_from(dice.below(3)).expect("small") },
            8 => Signing::Nsec3 { opt_out: true, iterations: 0 },
            _ => Signing::Nsec3 { opt_out: dice.percent(20), iterations: if dice.percent(30) { 150 } else { 1 } },
        };
        let mut made = Zone::new(zone.clone(), signing, dice.pick(keys).clone());
        made.follows = dice.percent(50);
        if dice.percent(10) {
            made.flaw = *dice.pick(&[Flaw::Garbled, Flaw::Expired, Flaw::Early, Flaw::Absent]);
        }
        made.wrong_ds = dice.percent(4);
        self.zones.insert(zone.clone(), made);
    }

    /// Gives the zone its servers: names inside it with glue, of a hosting zone, or those of its parent.
    fn serve(&mut self, zone: &Name, dice: &mut Dice) {
        let hosting = name("hosting.t0");
        let count = 2 + dice.below(2);
        let inside = zone.is_root() || hosting.is_under(zone) || dice.percent(60);
        let home = if inside { zone.clone() } else { hosting.clone() };
        let mut good = 0;
        let mut lying = false;
        for number in 0..count {
            let server = if inside {
                under(&format!("ns{number}"), zone)
            } else {
                let tag: String = zone.to_string().replace('.', "-");
                under(&format!("{tag}{number}"), &hosting)
            };
            let serial = self.servers.len() + 1;
            let address: IpAddr =
                [9, 9, u8::try_from(serial / 250).expect("few"), u8::try_from(serial % 250 + 1).expect("few")].into();
            let must_be_good = good == 0 && number + 1 == count || zone.is_root() || *zone == hosting;
            let manner = match dice.below(100) {
                _ if must_be_good => Manner::Good,
                0..70 => Manner::Good,
                70..75 => Manner::Dead,
                75..78 => Manner::Slow,
                78..82 => Manner::Refuses,
                82..86 => Manner::Fails,
                86..90 => Manner::Upward,
                90..93 => Manner::Truncates,
                93..96 => Manner::Lowers,
                _ if inside && !lying => Manner::Lies,
                _ => Manner::Good,
            };
            lying |= manner == Manner::Lies;
            good += usize::from(manner == Manner::Good);
            self.is_slow |= matches!(manner, Manner::Dead | Manner::Slow) || self.loss > 0;
            let delay = 5 + u64::try_from(dice.below(80)).expect("small");
            self.servers.insert(address, Server { zones: vec![zone.clone()], manner, delay });
            let IpAddr::V4(v4) = address else { unreachable!("we made it") };
            if zone.is_root() {
                self.hints.push((server.clone(), vec![address]));
            }
            self.zone(zone).add(zone, rtype::NS, server.as_wire());
            self.zone(&home).add(&server, rtype::A, &v4.octets());
        }
        // Sometimes the parent's servers have the child as well.
        if !zone.is_root() && dice.percent(15) {
            let parent = self.parent(zone);
            let of_parent: Vec<IpAddr> = self.servers_of(&parent);
            for address in of_parent {
                self.servers.get_mut(&address).expect("listed").zones.push(zone.clone());
            }
        }
    }

    fn servers_of(&self, zone: &Name) -> Vec<IpAddr> {
        let mut found: Vec<IpAddr> = self
            .servers
            .iter()
            .filter(|(_, server)| server.zones.first() == Some(zone))
            .map(|(address, _)| *address)
            .collect();
        found.sort();
        found
    }

    pub fn zone(&mut self, name: &Name) -> &mut Zone {
        self.zones.get_mut(name).expect("the zone is there")
    }

    fn fill(&mut self, zone: &Name, all: &[Name], dice: &mut Dice) {
        let key = self.zones[zone].key.clone();
        let mut other = |label: &str| under(label, dice.pick(all));
        let (to, via, gone, away) = (other("www"), other("alias"), other("nothing"), other("ent"));
        let circle = under("loop2", zone);
        let back = under("loop1", zone);
        let this = self.zone(zone);
        let mut soa = under("ns0", zone).as_wire().to_vec();
        soa.extend(under("root", zone).as_wire());
        for number in [1_u32, 3600, 600, 86400, 300] {
            soa.extend(number.to_be_bytes());
        }
        this.add(zone, rtype::SOA, &soa);
        if this.is_signed() {
            this.add(zone, rtype::DNSKEY, &key.dnskey);
        }
        this.add(zone, rtype::A, &[192, 0, 9, 1]);
        let hosts: [(&str, u16, &[u8]); 10] = [
            ("www", rtype::A, &[192, 0, 9, 2]),
            ("www", rtype::A, &[192, 0, 9, 3]),
            ("v6", rtype::AAAA, &[32; 16]),
            ("www", rtype::TXT, b"\x05hello"),
            ("a.b.ent", rtype::A, &[192, 0, 9, 4]),
            ("*.wild", rtype::A, &[192, 0, 9, 5]),
            ("*.wild", rtype::TXT, b"\x04wild"),
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
            ("moved", rtype::DNAME, &away),
        ] {
            this.add(&under(label, zone), kind, target.as_wire());
        }
    }

    fn delegate(&mut self, zone: &Name, dice: &mut Dice) {
        let parent = self.parent(zone);
        let child = &self.zones[zone];
        let servers = child.nodes[zone][&rtype::NS].clone();
        let glue: Vec<_> = servers
            .iter()
            .filter_map(|data| Name::from_wire(data))
            .filter_map(|server| Some((server.clone(), child.nodes.get(&server)?.get(&rtype::A)?.clone())))
            .collect();
        let ds = if child.is_signed() && dice.percent(85) {
            let mut ds = child.key.ds(zone);
            if child.wrong_ds {
                ds[10] ^= 1;
            }
            // Sometimes of a digest type that nobody knows.
            if dice.percent(4) {
                ds[3] = 250;
            }
            Some(ds)
        } else {
            None
        };
        let above = self.zone(&parent);
        for data in servers {
            above.add(zone, rtype::NS, &data);
        }
        for (server, addresses) in glue {
            for address in addresses {
                above.add(&server, rtype::A, &address);
            }
        }
        if let Some(ds) = ds.filter(|_| above.is_signed()) {
            above.add(zone, rtype::DS, &ds);
        }
    }
}

//! What a client question may cost, beside what questions do cost: the names that are asked for most, shaped onto
//! made-up zones (signed and not, NSEC and opt-out, glue and none, hosted elsewhere, aliases of content networks).
//!
//! `TOP=10000 cargo test --release top_names -- --nocapture` prints the largest use of each kind; it is the same on
//! every machine.

use std::{collections::BTreeSet, net::Ipv4Addr, rc::Rc};

use hearthgate::dns::resolver::{budget::Limits, name::Name, wire::rtype};

use super::{
    play::{Play, config},
    sign::{KEYS, Key},
    world::{Dice, Link, Manner, Server, World, name, under},
    zone::{Signing, Zone},
};

/// Providers of name servers and of content, each a zone of its own.
const PROVIDERS: usize = 8;

/// The first names of the list that is there, in its order.
fn names(most: usize) -> Option<Vec<Name>> {
    let text = std::fs::read(crate::data().join("top/misp-tranco10k.json")).ok()?;
    let list: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let listed = list["list"].as_array()?.iter().filter_map(|entry| Name::parse(entry.as_str()?));
    Some(listed.filter(|name| name.label_count() >= 2).take(most).collect())
}

struct Maker {
    world: World,
    keys: Vec<Rc<Key>>,
    addresses: u32,
}

impl Maker {
    fn zone(&mut self, zone: &Name, signing: Signing, dice: &mut Dice) {
        let link = if signing == Signing::Unsigned { Link::None } else { Link::Right };
        let mut made = Zone::new(zone.clone(), signing, dice.pick(&self.keys).clone());
        let mut soa = [name("m").as_wire(), name("r").as_wire()].concat();
        soa.extend([0; 16]);
        soa.extend(300_u32.to_be_bytes());
        made.add(zone, rtype::SOA, &soa);
        if made.is_signed() {
            let key = made.key.dnskey.clone();
            made.add(zone, rtype::DNSKEY, &key);
        }
        self.world.links.insert(zone.clone(), link);
        self.world.zones.insert(zone.clone(), made);
    }

    /// Gives a zone a server under a name; where that is in the zone, its address stands there.
    fn serve(&mut self, zone: &Name, server: &Name, manner: Manner) {
        self.world.zone(zone).add(zone, rtype::NS, server.as_wire());
        let home = self.world.parent(server);
        let known = self.world.zones[&home].nodes.get(server).and_then(|node| node.get(&rtype::A)).cloned();
        let address = match known.as_deref() {
            Some([address, ..]) => Ipv4Addr::from(<[u8; 4]>::try_from(&address[..]).expect("an address")),
            _ => {
                self.addresses += 1;
                let address = Ipv4Addr::from(self.addresses);
                self.world.zone(&home).add(server, rtype::A, &address.octets());
                address
            }
        };
        let entry = || Server { zones: Vec::new(), manner, poisons: false, delay: 20 };
        self.world.servers.entry(address.into()).or_insert_with(entry).zones.push(zone.clone());
        if zone.is_root() {
            self.world.hints.push((server.clone(), vec![address.into()]));
        }
    }
}

/// The Internet that has these names, and the host that is asked for at each.
fn shape(names: &[Name]) -> (World, Vec<Name>) {
    let keys = KEYS.with(|keys| keys[..keys.len() - 1].to_vec());
    let mut maker = Maker { world: World::empty(), keys, addresses: u32::from(Ipv4Addr::new(11, 0, 0, 0)) };
    let mut dice = Dice(1);
    let root = Name::root();
    maker.zone(&root, Signing::Nsec, &mut dice);
    let anchor = maker.world.zones[&root].key.ds(&root, 2);
    maker.world.anchors.push((root.clone(), anchor));
    let provider = |number: usize| name(&format!("provider{number}.net"));
    let tops: BTreeSet<Name> = names.iter().map(|name| name.suffix(1)).chain([name("net")]).collect();
    for top in &tops {
        let signing = if dice.percent(70) { Signing::Nsec3 { opt_out: true, iterations: 0 } } else { Signing::Nsec };
        maker.zone(top, signing, &mut dice);
    }
    for number in 0..PROVIDERS {
        let signing = if dice.percent(50) { Signing::Nsec } else { Signing::Unsigned };
        maker.zone(&provider(number), signing, &mut dice);
    }
    for zone in [root.clone()].iter().chain(&tops).chain(&(0..PROVIDERS).map(provider).collect::<Vec<_>>()) {
        for number in 0..4 {
            maker.serve(zone, &under(&format!("ns{number}"), zone), Manner::Good);
        }
    }
    let mut hosts = Vec::new();
    for zone in names.iter().filter(|name| !tops.contains(name)) {
        if maker.world.zones.contains_key(zone) {
            continue;
        }
        let signing = match dice.below(20) {
            0 | 1 => Signing::Nsec,
            2 => Signing::Nsec3 { opt_out: false, iterations: 0 },
            _ => Signing::Unsigned,
        };
        maker.zone(zone, signing, &mut dice);
        let hosted = dice.percent(60).then(|| provider(dice.below(PROVIDERS)));
        for number in 0..2 + dice.below(3) {
            let home = hosted.clone().unwrap_or_else(|| zone.clone());
            let manner = match dice.below(50) {
                0 if hosted.is_none() && number > 0 => Manner::Dead,
                1 if hosted.is_none() && number > 0 => Manner::Refuses,
                _ => Manner::Good,
            };
            maker.serve(zone, &under(&format!("ns{number}"), &home), manner);
        }
        let host = under("www", zone);
        maker.world.zone(zone).add(zone, rtype::A, &[11, 200, 0, 1]);
        if dice.percent(50) {
            // A content network: an alias or two, and the address in its zone.
            let mut from = (zone.clone(), host.clone());
            for step in 0..1 + dice.below(3) {
                let network = provider(dice.below(PROVIDERS));
                let label = format!("c{}-", hosts.len());
                let to = under(&format!("{label}{step}"), &network);
                maker.world.zone(&from.0).add(&from.1, rtype::CNAME, to.as_wire());
                from = (network, to);
            }
            maker.world.zone(&from.0).add(&from.1, rtype::A, &[11, 200, 0, 2]);
        } else {
            maker.world.zone(zone).add(&host, rtype::A, &[11, 200, 0, 3]);
        }
        hosts.push(host);
    }
    let zones: Vec<Name> = maker.world.zones.keys().filter(|zone| !zone.is_root()).cloned().collect();
    zones.iter().for_each(|zone| maker.world.delegate(zone));
    (maker.world, hosts)
}

#[test]
fn top_names_use_a_small_part_of_the_budget() {
    let most = std::env::var("TOP").ok().and_then(|top| top.parse().ok()).unwrap_or(1000);
    let Some(names) = names(most) else {
        eprintln!("SKIPPED: no list of top names in {}", crate::data().join("top").display());
        return;
    };
    let (world, hosts) = shape(&names);
    let config = config(&world);
    let limits = config.limits;
    let mut play = Play::new(world, config);
    let (mut largest, mut whose) = (Limits::NONE, Vec::new());
    let mut total = 0_u64;
    for host in &hosts {
        let answer = play.answer(host, rtype::A);
        let cost = answer.cost;
        assert_eq!(answer.rcode, 0, "{host}: {:?}", answer.why);
        assert!(!answer.answer.is_empty(), "{host}");
        total += u64::from(cost.packets);
        if cost.packets > largest.packets {
            whose.push(format!("{host} {}", cost.packets));
        }
        largest = Limits {
            packets: largest.packets.max(cost.packets),
            bytes: largest.bytes.max(cost.bytes),
            aliases: largest.aliases.max(cost.aliases),
            referrals: largest.referrals.max(cost.referrals),
            signatures: largest.signatures.max(cost.signatures),
            hashes: largest.hashes.max(cost.hashes),
        };
    }
    println!("{} names, {total} packets; largest use of one question: {largest:?}", hosts.len());
    println!("of {limits:?}; packets rose at {}", whose.join(", "));
    assert!(largest.packets * 2 < limits.packets && largest.signatures * 3 < limits.signatures * 4, "{largest:?}");
    assert!(largest.hashes * 2 < limits.hashes && largest.bytes * 2 < limits.bytes, "{largest:?}");
}

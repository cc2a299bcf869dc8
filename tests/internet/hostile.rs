//! Attacks through what servers answer: each with the number that bounds it.

use std::{net::IpAddr, time::Duration};

use hearthgate::dns::resolver::{
    Why,
    name::Name,
    signature::key_tag,
    wire::{IN, Record, rtype},
};

use super::{
    NAMES,
    play::{Play, config},
    sign::EPOCH,
    world::{Dice, World, name, under},
    zone::Said,
};

fn record(owner: &Name, kind: u16, data: &[u8]) -> Record {
    Record { name: owner.clone(), rtype: kind, class: IN, ttl: 3600, rdata: data.into() }
}

fn answer(records: Vec<Record>) -> Said {
    Said { authoritative: true, answer: records, ..Said::default() }
}

/// A world in which nothing is broken, with the zone `attack.` at 6.6.6.6.
fn calm() -> Play {
    let mut world = World::calm();
    let attack = name("attack");
    let root = world.zone(&Name::root());
    root.add(&attack, rtype::NS, name("ns.attack").as_wire());
    root.add(&name("ns.attack"), rtype::A, &[6, 6, 6, 6]);
    let config = config(&world);
    Play::new(world, config)
}

const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(6, 6, 6, 6));

#[test]
fn garbled_answers_neither_break_nor_burden_the_resolver() {
    let worlds = if cfg!(debug_assertions) { 150 } else { 1000 };
    for seed in 0..worlds {
        let world = World::new(seed);
        let mut config = config(&world);
        config.cache_bytes = 64 * 1024;
        let limits = config.limits;
        let mut play = Play::new(world, config);
        let mut dice = Dice(seed ^ 0xbad);
        play.mutated = 20 + dice.below(80);
        for _ in 0..8 {
            let zones: Vec<Name> = play.world.zones.keys().cloned().collect();
            let asked = under(NAMES[dice.below(NAMES.len())], dice.pick(&zones));
            let before = play.now.since_start;

            let answer = play.answer(&asked, *dice.pick(&[rtype::A, rtype::TXT, rtype::DS, rtype::ANY, rtype::RRSIG]));

            assert!(play.now.since_start - before <= Duration::from_secs(6), "world {seed}: late");
            let cost = answer.cost;
            assert!(cost.packets <= limits.packets && cost.signatures <= limits.signatures, "world {seed}: {cost:?}");
            assert!(cost.hashes <= limits.hashes && cost.aliases <= limits.aliases, "world {seed}: {cost:?}");
            assert!(play.resolver.cache_fill().1 <= 64 * 1024, "world {seed}: cache");
        }
        play.pass(Duration::from_secs(30));
        assert_eq!(play.resolver.under_way(), (0, 0, 0), "world {seed}: something is left");
    }
}

#[test]
fn a_delegation_to_many_names_of_a_victim_is_not_an_amplifier() {
    // NXNSAttack (CVE-2020-12667): each name of a server costs its zone a question.
    let mut play = calm();
    play.attacker = Some(Box::new(|question, server| {
        if server != ATTACKER {
            return None;
        }
        let cut = under("cut", &name("attack"));
        if !question.name.is_under(&cut) {
            return Some(answer(Vec::new()));
        }
        let servers = (0..200).map(|number| record(&cut, rtype::NS, name(&format!("v{number}.hosting.t0")).as_wire()));
        Some(Said { authority: servers.collect(), ..Said::default() })
    }));

    let answer = play.answer(&name("www.cut.attack"), rtype::A);

    assert_eq!(answer.rcode, 2);
    assert!(play.packets <= 30, "{} packets: {:#?}", play.packets, play.log);
}

#[test]
fn servers_whose_names_lead_to_one_another_cost_little() {
    // Cyclic and ever deeper dependencies (TsuKing, iDNS): each name of a server is in a zone of the next.
    let mut play = calm();
    play.attacker = Some(Box::new(|question, server| {
        if server != ATTACKER {
            return None;
        }
        let attack = name("attack");
        let label = question.name.labels().nth(question.name.label_count().checked_sub(2)?)?;
        let number: u32 = std::str::from_utf8(label).ok()?.trim_start_matches('z').parse().unwrap_or(0);
        let cut = under(&format!("z{number}"), &attack);
        let next = |label: &str| under(&format!("{label}.z{}", number + 1), &attack);
        let servers = ["a", "b", "c", "d", "e", "f"].map(|label| record(&cut, rtype::NS, next(label).as_wire()));
        Some(Said { authority: servers.to_vec(), ..Said::default() })
    }));

    let answer = play.answer(&name("www.z1.attack"), rtype::A);

    assert_eq!(answer.rcode, 2);
    assert!(play.packets <= 120, "{} packets", play.packets);
}

#[test]
fn a_chain_of_aliases_ends() {
    let mut play = calm();
    let mut number = 0;
    play.attacker = Some(Box::new(move |question, server| {
        (server == ATTACKER).then(|| {
            number += 1;
            let next = under(&format!("n{number}"), &name("attack"));
            answer(vec![record(&question.name, rtype::CNAME, next.as_wire())])
        })
    }));

    let answer = play.answer(&name("www.attack"), rtype::A);

    assert_eq!((answer.rcode, answer.why), (2, Some(Why::BudgetSpent)));
    assert!(play.packets <= 20, "{} packets", play.packets);
}

#[test]
fn many_keys_of_one_tag_and_many_signatures_cost_at_most_the_budget() {
    // KeyTrap (CVE-2023-50387): every signature would have to be tried with every key. Swapping words of a
    // key leaves its tag as it is.
    let mut play = calm();
    let tld = name("t0");
    let (tag, keys): (u16, Vec<Vec<u8>>) = {
        let zone = play.world.zone(&tld);
        let genuine = zone.key.dnskey.clone();
        let swapped = (0..14).map(|place| {
            let mut key = genuine.clone();
            let at = 4 + 2 * place;
            let (a, b) = ([key[at], key[at + 1]], [key[at + 2], key[at + 3]]);
            key[at..at + 4].copy_from_slice(&[b[0], b[1], a[0], a[1]]);
            assert_eq!(key_tag(&key), key_tag(&genuine));
            key
        });
        (key_tag(&genuine), swapped.collect())
    };
    let mut signature = vec![0, 48, 15, 1, 0, 0, 14, 16];
    signature.extend((EPOCH + 86400).to_be_bytes());
    signature.extend((EPOCH - 86400).to_be_bytes());
    signature.extend(tag.to_be_bytes());
    signature.extend(tld.as_wire());
    let zone = tld.clone();
    play.attacker = Some(Box::new(move |question, _| {
        let of_zone = question.name == zone && question.rtype == rtype::DNSKEY;
        of_zone.then(|| {
            let keys = keys.iter().map(|key| record(&zone, rtype::DNSKEY, key));
            let signatures = (0..100_u8).map(|number| {
                let data = [&signature[..], &[number; 64]].concat();
                record(&zone, rtype::RRSIG, &data)
            });
            answer(keys.chain(signatures).collect())
        })
    }));

    let answer = play.answer(&name("www.t0"), rtype::A);

    assert!(answer.cost.signatures <= 32, "{:?}", answer.cost);
    let other = play.answer(&name("www.t1"), rtype::A);
    assert_eq!(other.rcode, play.world.expect(&name("www.t1"), rtype::A).rcode);
}

#[test]
fn silent_servers_are_given_up_soon() {
    let mut play = calm();
    play.attacker = None;

    let answer = play.answer(&name("www.attack"), rtype::A);
    play.pass(Duration::from_secs(20));

    assert_eq!((answer.rcode, answer.why), (2, Some(Why::NoReachableAuthority)));
    assert!(play.counts[&ATTACKER] <= 12, "{} packets", play.counts[&ATTACKER]);
}

#[test]
fn one_zone_cannot_push_the_others_out_of_the_cache() {
    let world = World::calm();
    let mut config = config(&world);
    config.cache_bytes = 200_000;
    let mut play = Play::new(world, config);
    {
        let root = play.world.zone(&Name::root());
        root.add(&name("attack"), rtype::NS, name("ns.attack").as_wire());
        root.add(&name("ns.attack"), rtype::A, &[6, 6, 6, 6]);
    }
    let victim = name("www.t1");
    play.answer(&victim, rtype::A);
    play.attacker = Some(Box::new(|question, server| {
        (server == ATTACKER).then(|| answer(vec![record(&question.name, rtype::TXT, &[200; 201])]))
    }));
    for number in 0..3000 {
        play.answer(&under(&format!("n{number}.cut"), &name("attack")), rtype::TXT);
    }
    play.packets = 0;

    play.answer(&victim, rtype::A);

    assert_eq!(play.packets, 0);
    assert!(play.resolver.cache_fill().1 <= 200_000);
}

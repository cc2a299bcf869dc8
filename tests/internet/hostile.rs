//! Attacks through what servers answer: each with the number that bounds it.

use std::{net::IpAddr, time::Duration};

use hearthgate::dns::resolver::{
    Why,
    name::Name,
    rrset::Security,
    signature::key_tag,
    wire::{IN, Message, Record, rtype},
};

use super::{
    NAMES,
    play::{Play, config},
    sign::EPOCH,
    world::{Dice, World, name, under},
    zone::{Said, Signing},
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

#[test]
fn nrdelegation_servers_that_never_answer_cost_a_bounded_number_of_packets() {
    // CVE-2022-3204: a referral to many names, each of which leads to somebody silent.
    let mut play = calm();
    let mute = name("mute.t0");
    play.attacker = Some(Box::new(move |question, server| {
        if server != ATTACKER {
            return None;
        }
        let cut = under("cut", &name("attack"));
        if question.name.is_under(&cut) {
            let names = (0..1500)
                .map(|number| record(&cut, rtype::NS, under(&format!("v{number}"), &name("x.attack")).as_wire()));
            return Some(Said { authority: names.collect(), ..Said::default() });
        }
        if question.name.is_under(&name("x.attack")) && question.name != name("x.attack") {
            // Each server of a server is nowhere.
            let here = record(&question.name, rtype::NS, under("ns", &mute).as_wire());
            let glue = record(&under("ns", &mute), rtype::A, &[6, 6, 6, 9]);
            return Some(Said { authority: vec![here], additional: vec![glue], ..Said::default() });
        }
        Some(answer(Vec::new()))
    }));
    let before = play.now.since_start;

    let answer = play.answer(&name("www.cut.attack"), rtype::A);
    let took = play.now.since_start - before;
    play.pass(Duration::from_secs(15));

    assert_eq!(answer.rcode, 2);
    assert!(took <= Duration::from_secs(5), "{took:?}");
    assert!(play.packets <= 60, "{} packets: {:#?}", play.packets, play.log);
    assert_eq!(play.resolver.under_way(), (0, 0, 0));
}

#[test]
fn camp_delegations_times_aliases_times_servers_stay_within_one_budget() {
    // CAMP: what each technique alone multiplies is multiplied again.
    let mut play = calm();
    let limits = config(&play.world).limits;
    play.attacker = Some(Box::new(|question, server| {
        if server != ATTACKER {
            return None;
        }
        let attack = name("attack");
        let labels = question.name.label_count() - attack.label_count();
        if labels == 0 {
            return Some(answer(Vec::new()));
        }
        let cut = question.name.suffix(attack.label_count() + 1);
        let number: u32 =
            cut.labels().next().and_then(|label| std::str::from_utf8(label).ok()?[1..].parse().ok()).unwrap_or(0);
        if labels > 1 {
            // Below the cut: an alias to the next one, from a server that is asked through many names.
            let next = under("www", &under(&format!("c{}", number + 1), &attack));
            return Some(answer(vec![record(&question.name, rtype::CNAME, next.as_wire())]));
        }
        let outside =
            (0..10).map(|place| record(&cut, rtype::NS, name(&format!("v{number}x{place}.hosting.t0")).as_wire()));
        let inside = record(&cut, rtype::NS, under("ns", &cut).as_wire());
        let glue = record(&under("ns", &cut), rtype::A, &[6, 6, 6, 6]);
        Some(Said { authority: outside.chain([inside]).collect(), additional: vec![glue], ..Said::default() })
    }));

    let answer = play.answer(&name("www.c0.attack"), rtype::A);
    play.pass(Duration::from_secs(15));

    assert_eq!(answer.rcode, 2);
    assert!(play.packets <= u64::from(limits.packets), "{} packets", play.packets);
    let at_victim: u32 = play.counts.iter().filter(|(server, _)| **server != ATTACKER).map(|(_, count)| count).sum();
    assert!(at_victim <= 100, "{at_victim} packets at others");
}

#[test]
fn cve_2023_50868_hashes_of_nsec3_are_bounded() {
    let deep = under(&vec!["a"; 100].join("."), &name("t0"));
    for (iterations, most) in [(0, 150), (50, 150), (51, 0), (2500, 0)] {
        let mut play = calm();
        let zone = play.world.zone(&name("t0"));
        zone.signing = Signing::Nsec3 { opt_out: false, iterations };

        let answer = play.answer(&deep, rtype::A);

        assert!(answer.cost.hashes <= most, "{iterations}: {:?}", answer.cost);
        // RFC 9276 §3.2: what would be too dear to check is not vouched for.
        if iterations > 50 {
            assert_eq!((answer.rcode, answer.security), (3, Security::Insecure), "{iterations}");
        }
    }
}

#[test]
fn dnsbomb_a_slow_server_collects_no_answers_for_one_moment() {
    // CVE-2024-33655: many questions of one client are held back and answered at once.
    let mut play = calm();
    play.outage = true;
    let host = name("www.t1");

    let asked: Vec<_> = (0..2000).map(|_| play.ask(&host, rtype::A)).collect();
    let sent = play.packets;
    play.pass(Duration::from_secs(6));

    assert!(sent <= 3, "{sent} packets at once");
    assert!(play.packets <= 60, "{} packets in all", play.packets);
    // Nobody waits longer than the clients' patience, and nothing is left.
    assert_eq!(play.answers.len(), asked.len());
    play.pass(Duration::from_secs(15));
    assert_eq!(play.resolver.under_way().0, 0);
}

#[test]
fn delegations_of_one_domain_do_not_push_out_those_of_others() {
    // CVE-2026-50251: glue by the thousands.
    let mut play = calm();
    play.answer(&name("www.t0"), rtype::A);
    play.attacker = Some(Box::new(|question, server| {
        if server != ATTACKER {
            return None;
        }
        let cut = question.name.suffix(2);
        let servers = (0..13).map(|number| record(&cut, rtype::NS, under(&format!("ns{number}"), &cut).as_wire()));
        let glue = (0..13).map(|number| record(&under(&format!("ns{number}"), &cut), rtype::A, &[203, 0, 113, number]));
        Some(Said { authority: servers.collect(), additional: glue.collect(), ..Said::default() })
    }));
    for number in 0..2000 {
        play.ask(&under(&format!("www.n{number}"), &name("attack")), rtype::A);
        play.pass(Duration::from_millis(20));
    }
    play.pass(Duration::from_secs(20));
    play.packets = 0;

    play.answer(&name("other.t0"), rtype::A);

    assert!(play.packets <= 3, "{} packets: the way to the zone is still known", play.packets);
}

#[test]
fn compression_and_options_of_a_message_cost_no_more_than_its_bytes() {
    // Names of 255 bytes in two bytes each (CVE-2026-44390), options by the thousands (CVE-2026-41292).
    let mut bytes = vec![0, 0, 0x84, 0, 0, 1, 0xff, 0xff, 0, 0, 0xff, 0xff];
    let start = bytes.len();
    for _ in 0..3 {
        bytes.push(63);
        bytes.extend([b'a'; 63]);
    }
    bytes.push(60);
    bytes.extend([b'b'; 60]);
    bytes.extend([0, 0, 1, 0, 1]);
    // Pointers that each lead to the one before.
    let mut before = u16::try_from(start).unwrap();
    while bytes.len() < 0x3f00 {
        let here = u16::try_from(bytes.len()).unwrap();
        bytes.extend((0xc000 | before).to_be_bytes());
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        before = here;
    }
    while bytes.len() < 50_000 {
        bytes.extend((0xc000 | before).to_be_bytes());
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    let options = 3000_u16;
    bytes.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0]);
    bytes.extend((options * 4).to_be_bytes());
    bytes.extend([0xff, 0xfe, 0, 0].repeat(options.into()));

    let message = Message::parse(&bytes).unwrap();

    let records = message.answer.len() + message.authority.len() + message.additional.len();
    let kept: usize = message.answer.iter().map(|record| record.name.as_wire().len() + record.rdata.len()).sum();
    assert!(records <= 2000 && kept <= 2000 * 260, "{records} records, {kept} bytes");
    assert!(message.edns.is_none_or(|edns| edns.options.len() <= 16));
}

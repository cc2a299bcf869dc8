//! Attacks on validation: what its work costs, and genuine signatures put to a use that they were not made for. Each
//! with the number that bounds it.

use std::time::Duration;

use hearthgate::dns::resolver::{
    Config, Why,
    budget::Means,
    name::Name,
    rrset::Security,
    wire::{IN, Question, Record, rcode, rtype},
};

use super::{
    play::{Play, config},
    world::{Manner, World, name, under},
    zone::{Fault, Said},
};

fn record(owner: &Name, kind: u16, data: &[u8]) -> Record {
    Record { name: owner.clone(), rtype: kind, class: IN, ttl: 3600, rdata: data.into() }
}

fn calm(change: impl FnOnce(&mut World), set: impl FnOnce(&mut Config)) -> Play {
    let mut world = World::calm();
    change(&mut world);
    let mut config = config(&world);
    set(&mut config);
    Play::new(world, config)
}

#[test]
fn cve_2026_50045_what_validation_starts_is_paid_out_of_the_same_budget() {
    // Data without signatures at a deep name: whether some zone on the way is unsigned is asked label by label.
    let deep = under(&["a"; 9].join("."), &name("t0"));
    let play = |most: Option<u32>| {
        let mut play = calm(
            |world| world.zone(&name("t0")).add(&deep, rtype::A, &[192, 0, 9, 77]),
            |config| {
                config.aggressive = false;
                config.limits.packets = most.unwrap_or(config.limits.packets);
                // That it is the packets which end it.
                (config.limits.signatures, config.limits.hashes) = (1000, 10_000);
            },
        );
        let stripped = deep.clone();
        play.attacker = Some(Box::new(move |question, _| {
            let answer = vec![record(&stripped, rtype::A, &[192, 0, 9, 77])];
            let is_it = question.name == stripped && question.rtype == rtype::A;
            is_it.then(|| Said { authoritative: true, answer, ..Said::default() })
        }));
        play
    };

    let mut free = play(None);
    let bogus = free.answer(&deep, rtype::A);
    assert_eq!(bogus.rcode, rcode::SERVFAIL);
    assert!((21..=200).contains(&free.packets), "{} packets", free.packets);
    assert_eq!(u64::from(bogus.cost.packets), free.packets);

    let mut poor = play(Some(20));
    let spent = poor.answer(&deep, rtype::A);
    assert_eq!((spent.rcode, spent.why), (rcode::SERVFAIL, Some(Why::BudgetSpent)));
    assert!(poor.packets <= 20, "{} packets", poor.packets);
    // It is remembered: who asks again at once costs nothing.
    poor.packets = 0;
    assert_eq!(poor.answer(&deep, rtype::A).rcode, rcode::SERVFAIL);
    assert_eq!(poor.packets, 0);
}

#[test]
fn where_a_deep_name_stops_being_signed_is_looked_for_at_a_bounded_number_of_places() {
    let deep = under(&["a"; 60].join("."), &name("t0"));
    let mut play = calm(
        |world| world.zone(&name("t0")).add(&deep, rtype::A, &[192, 0, 9, 77]),
        |config| (config.aggressive, config.minimise) = (false, false),
    );
    let stripped = deep.clone();
    play.attacker = Some(Box::new(move |question, _| {
        let answer = vec![record(&stripped, rtype::A, &[192, 0, 9, 77])];
        let is_it = question.name == stripped && question.rtype == rtype::A;
        is_it.then(|| Said { authoritative: true, answer, ..Said::default() })
    }));

    let bogus = play.answer(&deep, rtype::A);

    assert_eq!((bogus.rcode, bogus.why), (rcode::SERVFAIL, Some(Why::SignaturesMissing)));
    assert!(play.packets <= 35, "{} packets", play.packets);
}

#[test]
fn an_unsigned_zone_far_below_is_found_by_what_its_server_says_of_it() {
    let cut = under(&["b"; 12].join("."), &name("t0"));
    let host = under("a.a.a.a", &cut);
    let mut play = calm(
        |world| world.zone(&name("t0")).add(&cut, rtype::NS, name("ns.t1").as_wire()),
        |config| (config.aggressive, config.minimise) = (false, false),
    );
    // One server for both zones, so that nothing is ever referred.
    let (zone, asked) = (cut.clone(), host.clone());
    play.attacker = Some(Box::new(move |question, _| {
        if !question.name.is_under(&zone) || question.name == zone && question.rtype == 43 {
            return None;
        }
        let soa = [name("ns.t1").as_wire(), name("host.t1").as_wire(), &[0; 16], &300_u32.to_be_bytes()].concat();
        let (mut said, is_it) = (Said { authoritative: true, ..Said::default() }, question.name == asked);
        match is_it && question.rtype == rtype::A {
            true => said.answer.push(record(&asked, rtype::A, &[192, 0, 9, 77])),
            false => said.authority.push(record(&zone, rtype::SOA, &soa)),
        }
        Some(said)
    }));

    let answer = play.answer(&host, rtype::A);

    assert_eq!((answer.rcode, answer.security), (rcode::NOERROR, Security::Insecure), "{:#?}", play.log);
    assert!(play.packets <= 14, "{:#?}", play.log);
}

#[test]
fn a_client_with_reduced_means_spends_a_part_and_others_are_not_the_poorer() {
    let deep = under(&vec!["a"; 120].join("."), &name("t0"));
    let whole = config(&World::calm()).limits;
    let reduced = whole.within(Means::Reduced);
    assert!(reduced.packets * 4 <= whole.packets && reduced.signatures * 2 <= whole.signatures);
    let mut play = calm(|_| {}, |config| config.aggressive = false);
    let question = Question { name: deep, rtype: rtype::A };

    // A usual question is answered as for everybody else.
    let usual = Question { name: name("www.t1"), rtype: rtype::A };
    let answer = play.answer_within(&usual, reduced);
    assert_eq!((answer.rcode, answer.security), (rcode::NOERROR, Security::Secure));
    assert!(
        answer.cost.packets <= reduced.packets && answer.cost.signatures <= reduced.signatures,
        "{:?}",
        answer.cost
    );
    // One whose servers are all silent costs less.
    play.outage = true;
    play.packets = 0;
    play.answer_within(&question, reduced);
    play.pass(Duration::from_secs(1));
    assert!(play.packets <= u64::from(reduced.packets) + 6, "{} packets", play.packets);
}

#[test]
fn one_silent_server_and_one_zone_hold_a_bounded_number_of_exchanges_and_the_oldest_make_room() {
    let mut play = calm(|_| {}, |config| config.aggressive = false);
    play.answer(&name("www.t0"), rtype::A);
    let servers: Vec<_> = play.world.servers.iter().filter(|(_, server)| server.zones.contains(&name("t0"))).collect();
    let addresses: Vec<std::net::IpAddr> = servers.iter().map(|(address, _)| **address).collect();
    for address in &addresses {
        play.world.servers.get_mut(address).expect("just seen").manner = Manner::Dead;
    }

    let first = play.ask(&under("first", &name("t0")), rtype::A);
    let mut most = 0;
    for number in 0..1500 {
        play.ask(&under(&format!("n{number}"), &name("t0")), rtype::A);
        most = most.max(play.resolver.under_way().1);
    }

    assert!(most <= 128 * addresses.len() && (100..=512).contains(&most), "{most} exchanges");
    // Who came first was told, and others are served meanwhile.
    let early = play.answers.iter().find(|(ticket, _)| *ticket == first).expect("it made room");
    assert_eq!((early.1.rcode, early.1.why), (rcode::SERVFAIL, Some(Why::Crowded)));
    assert_eq!(play.answer(&name("www.t1"), rtype::A).rcode, rcode::NOERROR);
    play.pass(Duration::from_secs(30));
    assert_eq!(play.resolver.under_way(), (0, 0, 0));
}

#[test]
fn cve_2026_44690_a_wildcards_signature_does_not_stand_for_a_name_that_exists() {
    let mut play = calm(|world| world.zone(&name("t0")).fault = Fault::Replay, |_| {});
    // `host.wild` has an address of IPv6 only; the attacker gives what the wildcard beside it has, with its signature.
    let host = under("host.wild", &name("t0"));

    let replayed = play.answer(&host, rtype::A);

    assert_eq!((replayed.rcode, replayed.why), (rcode::SERVFAIL, Some(Why::DenialMissing)));
    assert!(play.packets <= 30, "{} packets", play.packets);
}

#[test]
fn cve_2026_46582_a_known_wildcard_answers_for_no_name_that_exists() {
    let mut play = calm(|_| {}, |_| {});
    let zone = name("t0");
    for label in ["q1.wild", "q2.wild", "zz.wild"] {
        assert_eq!(play.answer(&under(label, &zone), rtype::A).security, Security::Secure, "{label}");
    }
    play.packets = 0;

    for label in ["host.wild", "x.y.wild", "y.wild"] {
        for kind in [rtype::A, rtype::AAAA, rtype::MX] {
            let host = under(label, &zone);
            let answer = play.answer(&host, kind);
            let expected = play.world.expect(&host, kind);
            assert_eq!(answer.rcode, expected.rcode, "{label} {kind}");
            let made = answer.answer.iter().filter(|placed| placed.set.rtype == rtype::A);
            assert!(made.flat_map(|placed| &placed.set.data).all(|data| data[3] != 5), "{label} {kind}");
        }
    }
}

#[test]
fn a_set_as_large_as_a_message_neither_fills_the_cache_nor_the_budget_of_others() {
    // CVE-2024-1737: thousands of records under one name, and many types.
    let mut play = calm(
        |world| {
            let root = world.zone(&Name::root());
            root.add(&name("attack"), rtype::NS, name("ns.attack").as_wire());
            root.add(&name("ns.attack"), rtype::A, &[6, 6, 6, 6]);
        },
        |config| config.cache_bytes = 1 << 20,
    );
    let victim = name("www.t1");
    play.answer(&victim, rtype::A);
    play.attacker = Some(Box::new(|question, server| {
        let addresses = (0..3500_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            record(&question.name, question.rtype, &[11, 0, high, low])
        });
        let answer = addresses.collect();
        (server.to_string() == "6.6.6.6").then(|| Said { authoritative: true, answer, ..Said::default() })
    }));

    for kind in 0..300_u16 {
        let answer = play.answer(&under("www", &name("attack")), 1024 + kind);
        assert!(answer.cost.bytes <= 200_000 && answer.cost.packets <= 12, "{:?}", answer.cost);
    }

    let (_, bytes) = play.resolver.cache_fill();
    assert!(bytes <= 1 << 20, "{bytes} bytes");
    play.packets = 0;
    assert_eq!(play.answer(&victim, rtype::A).rcode, rcode::NOERROR);
    assert_eq!(play.packets, 0, "what others asked for is still known");
}

#[test]
fn one_question_has_no_more_signatures_tried_than_its_budget_however_many_zones_it_visits() {
    // Aliases through signed zones, each of whose answers has a hundred signatures that do not hold.
    let mut play = calm(|_| {}, |config| config.aggressive = false);
    let limits = config(&play.world).limits;
    let worlds: Vec<Name> = play.world.zones.keys().filter(|zone| !zone.is_root()).cloned().collect();
    let zones = worlds.clone();
    let genuine = play.world.zones[&name("t0")].answer(&name("www.t0"), rtype::A);
    let signature = genuine.answer.iter().find(|record| record.rtype == rtype::RRSIG).expect("it is signed").clone();
    play.attacker = Some(Box::new(move |question, _| {
        if question.rtype != rtype::A
            || question.name.label_count() < 2
            || !question.name.to_string().starts_with("www")
        {
            return None;
        }
        let zone = zones.iter().filter(|zone| question.name.is_under(zone)).max_by_key(|zone| zone.label_count())?;
        let place = zones.iter().position(|other| other == zone)?;
        let next = under("www", &zones[(place + 1) % zones.len()]);
        let mut answer = vec![record(&question.name, rtype::CNAME, next.as_wire())];
        for number in 0..100_u8 {
            let mut data = signature.rdata.to_vec();
            data[..2].copy_from_slice(&rtype::CNAME.to_be_bytes());
            data[3] = u8::try_from(question.name.label_count()).ok()?;
            let at = 18 + name("t0").as_wire().len();
            data.splice(18..at, zone.as_wire().iter().copied());
            let last = data.len() - 1;
            data[last] ^= number;
            answer.push(record(&question.name, rtype::RRSIG, &data));
        }
        Some(Said { authoritative: true, answer, ..Said::default() })
    }));

    let answer = play.answer(&name("www.t0"), rtype::A);

    assert_eq!(answer.rcode, rcode::SERVFAIL);
    assert!(answer.cost.signatures <= limits.signatures, "{:?}", answer.cost);
    assert!(play.packets <= u64::from(limits.packets), "{} packets", play.packets);
}

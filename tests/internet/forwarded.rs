//! Zones that others are asked for: what their servers say holds of these zones, and what is said elsewhere does not
//! hold of them.

use std::net::{IpAddr, SocketAddr};

use hearthgate::dns::resolver::{
    Answer, Contact, Fallback, Forward,
    anchor::Anchors,
    name::Name,
    wire::{IN, Record, rcode, rtype},
};

use super::{
    play::{Attacker, Play, config},
    world::{POISON, World, name},
    zone::Said,
};

/// Whom the house asks for `corp.t0.`, which the public DNS does not have.
const HOUSE: [u8; 4] = [10, 0, 0, 53];
const PRINTER: [u8; 4] = [10, 0, 0, 9];

fn record(owner: &str, kind: u16, data: &[u8]) -> Record {
    Record { name: name(owner), rtype: kind, class: IN, ttl: 3600, rdata: data.into() }
}

fn answer(records: Vec<Record>) -> Said {
    Said { authoritative: true, answer: records, ..Said::default() }
}

/// A house whose servers say this; nothing is checked, so that nothing but the house's rules protects it.
fn house(zone: &str, says: impl Fn(&str, u16, bool) -> Option<Said> + 'static) -> Play {
    let world = World::calm();
    let mut config = config(&world);
    config.anchors = Anchors::default();
    let servers = vec![Contact::Plain(SocketAddr::from((HOUSE, 53)))];
    config.forward = vec![Forward { zone: name(zone), servers, fallback: Fallback::Nothing }];
    let mut play = Play::new(world, config);
    let attacker: Attacker = Box::new(move |question, server| {
        says(&question.name.to_string(), question.rtype, server == IpAddr::from(HOUSE))
    });
    play.attacker = Some(attacker);
    play
}

fn addresses(answer: &Answer) -> Vec<&[u8]> {
    let sets = answer.answer.iter().filter(|placed| placed.set.rtype == rtype::A);
    sets.flat_map(|placed| placed.set.data.iter().map(|data| &data[..])).collect()
}

fn truth(play: &Play, host: &Name) -> Vec<Vec<u8>> {
    let said = play.world.home(host, rtype::A).answer(host, rtype::A).answer;
    said.into_iter().filter(|record| record.rtype == rtype::A).map(|record| record.rdata.to_vec()).collect()
}

#[test]
fn addresses_that_a_zones_own_servers_give_for_others_are_not_kept() {
    let mut play = house("corp.t0", |asked, _, own| {
        own.then(|| match asked {
            "www.corp.t0." => answer(vec![
                record("www.corp.t0", rtype::CNAME, name("www.t1").as_wire()),
                record("www.t1", rtype::A, &POISON),
            ]),
            _ => Said { rcode: rcode::NXDOMAIN, ..Said::default() },
        })
    });
    let victim = name("www.t1");

    let led = play.answer(&name("www.corp.t0"), rtype::A);
    let direct = play.answer(&victim, rtype::A);

    let truth = truth(&play, &victim);
    assert!(!truth.is_empty());
    assert_eq!(
        (addresses(&led), addresses(&direct)),
        (truth.iter().map(|data| &data[..]).collect(), truth.iter().map(|data| &data[..]).collect())
    );
}

#[test]
fn a_denial_that_a_zones_own_servers_add_for_others_is_not_kept() {
    let mut play = house("corp.t0", |_, _, own| {
        let mut soa = vec![0, 0];
        soa.extend([0, 0, 14, 16].repeat(5));
        own.then(|| Said {
            rcode: rcode::NXDOMAIN,
            authority: vec![record("t1", rtype::SOA, &soa)],
            ..answer(vec![record("www.corp.t0", rtype::CNAME, name("www.t1").as_wire())])
        })
    });

    play.answer(&name("www.corp.t0"), rtype::A);

    assert_eq!(play.answer(&name("www.t1"), rtype::A).rcode, rcode::NOERROR);
}

#[test]
fn what_stands_above_a_zone_is_not_rewritten_by_its_own_servers() {
    let mut play = house("corp.t0", |_, _, own| {
        own.then(|| {
            answer(vec![
                record("t0", rtype::DNAME, name("evil").as_wire()),
                record("www.corp.t0", rtype::CNAME, name("www.corp.evil").as_wire()),
            ])
        })
    });

    play.answer(&name("www.corp.t0"), rtype::A);
    let other = play.answer(&name("www.t0"), rtype::A);

    let truth = truth(&play, &name("www.t0"));
    assert_eq!(addresses(&other), truth.iter().map(|data| &data[..]).collect::<Vec<_>>());
}

#[test]
fn an_alias_of_an_authority_into_a_zone_of_the_house_is_looked_up_in_the_house() {
    let mut play = house("corp.t0", |asked, kind, own| match (asked, own) {
        ("printer.corp.t0.", true) if kind == rtype::A => {
            Some(answer(vec![record("printer.corp.t0", rtype::A, &PRINTER)]))
        }
        ("alias2.t0.", false) => Some(answer(vec![
            record("alias2.t0", rtype::CNAME, name("printer.corp.t0").as_wire()),
            record("printer.corp.t0", rtype::A, &POISON),
        ])),
        _ => None,
    });

    let led = play.answer(&name("alias2.t0"), rtype::A);
    let direct = play.answer(&name("printer.corp.t0"), rtype::A);

    assert_eq!((addresses(&led), addresses(&direct)), (vec![&PRINTER[..]], vec![&PRINTER[..]]));
}

#[test]
fn a_public_proof_that_a_name_is_not_there_does_not_hide_a_zone_of_the_house_below_it() {
    for above in ["nope", "nope.t0"] {
        let zone = format!("corp.{above}");
        let host = format!("printer.{zone}");
        let world = World::calm();
        let mut config = config(&world);
        let servers = vec![Contact::Plain(SocketAddr::from((HOUSE, 53)))];
        config.negative_anchors.push((name(&zone), None));
        config.forward = vec![Forward { zone: name(&zone), servers, fallback: Fallback::Nothing }];
        let mut play = Play::new(world, config);
        let said = answer(vec![record(&host, rtype::A, &PRINTER)]);
        play.attacker = Some(Box::new(move |_, server| (server == IpAddr::from(HOUSE)).then(|| said.clone())));

        assert_eq!(play.answer(&name(above), rtype::A).rcode, rcode::NXDOMAIN);

        assert_eq!(addresses(&play.answer(&name(&host), rtype::A)), [&PRINTER[..]], "{above}");
    }
}

//! No way out, or none to whoever recurses for us: who is left out, what clients are told, how soon it is over.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hearthgate::dns::resolver::{Config, Contact, Fallback, Forward, Why, name::Name, wire::rtype};

use super::{
    play::{Play, config, encrypted},
    world::{Manner, Server, World, name, under},
};

const RECURSORS: [[u8; 4]; 3] = [[9, 9, 9, 9], [9, 9, 9, 10], [9, 9, 9, 11]];

fn plain(place: usize) -> Contact {
    Contact::Plain(SocketAddr::from((RECURSORS[place], 53)))
}

/// A world in which nothing is broken, with servers that know all of it.
fn forwarding(servers: Vec<Contact>, fallback: Fallback, change: impl FnOnce(&mut Config)) -> Play {
    let mut world = World::calm();
    let zones: Vec<Name> = world.zones.keys().cloned().collect();
    let everything = Server { zones, manner: Manner::Good, poisons: false, delay: 20 };
    for (place, address) in RECURSORS.into_iter().enumerate() {
        world.servers.insert(address.into(), everything.clone());
        world.servers.insert(encrypted(u16::try_from(place).unwrap()), everything.clone());
    }
    let mut config = config(&world);
    config.stale = Duration::from_secs(86400);
    config.aggressive = false;
    config.forward = vec![Forward { zone: Name::root(), servers, fallback }];
    change(&mut config);
    Play::new(world, config)
}

fn turn(play: &mut Play, server: IpAddr, manner: Manner) {
    play.world.servers.get_mut(&server).unwrap().manner = manner;
}

fn host(number: usize) -> Name {
    under(&format!("n{number}"), &name("t0"))
}

#[test]
fn without_a_link_from_the_start_clients_are_told_soon_and_all_is_well_within_three_seconds_of_its_return() {
    let world = World::calm();
    let config = config(&world);
    let mut play = Play::new(world, config);
    play.outage = true;
    let began = play.now.since_start;

    assert_eq!(play.answer(&name("www.t0"), rtype::A).why, Some(Why::NoReachableAuthority));
    assert!(play.now.since_start - began <= Duration::from_secs(5));
    assert!(play.resolver.is_out());
    let before = play.now.since_start;
    for number in 0..20 {
        assert_eq!(play.answer(&host(number), rtype::A).why, Some(Why::NoReachableAuthority));
    }
    assert!(play.now.since_start - before < Duration::from_secs(1));

    // A minute later: the probes go on, and are few.
    play.packets = 0;
    play.pass(Duration::from_secs(60));
    assert!(play.packets <= 200, "{} packets in a minute", play.packets);
    play.outage = false;
    play.pass(Duration::from_secs(3));
    let before = play.now.since_start;
    assert_eq!(play.answer(&name("www.t0"), rtype::A).why, None);
    assert!(play.now.since_start - before < Duration::from_secs(1));
}

#[test]
fn an_outage_is_noticed_where_all_ways_begin_at_one_server() {
    let world = World::calm();
    let mut config = config(&world);
    config.hints.truncate(1);
    config.hints[0].1.truncate(1);
    config.priming = false;
    // No delegation is known for long.
    config.ttl = 0..=2;
    let mut play = Play::new(world, config);
    assert_eq!(play.answer(&name("www.t1"), rtype::A).rcode, 0);
    play.pass(Duration::from_secs(90_000));
    play.outage = true;
    play.ask(&host(0), rtype::A);
    play.pass(Duration::from_secs(6));

    assert!(play.resolver.is_out(), "{:#?}", play.log);
    play.outage = false;
    play.pass(Duration::from_secs(3));
    assert_eq!(play.answer(&name("www.t1"), rtype::A).why, None);
}

#[test]
fn what_another_thread_found_out_is_looked_at_before_a_client_has_to_wait() {
    for outage in [true, false] {
        let world = World::calm();
        let config = config(&world);
        let mut play = Play::new(world, config);
        play.outage = outage;
        play.resolver.suspect_outage(play.now);
        play.pass(Duration::ZERO);
        play.pass(Duration::from_secs(1));

        assert_eq!(play.resolver.is_out(), outage);
        let before = play.now.since_start;
        let answer = play.answer(&name("www.t0"), rtype::A);
        assert_eq!(answer.why, outage.then_some(Why::NoReachableAuthority));
        assert!(play.now.since_start - before < Duration::from_secs(1));
    }
}

#[test]
fn an_outage_is_noticed_with_one_server_that_recurses_and_with_several_encrypted_or_not() {
    for servers in [
        vec![plain(0)],
        vec![Contact::Encrypted(0)],
        vec![plain(0), Contact::Encrypted(1)],
        vec![Contact::Encrypted(0), Contact::Encrypted(1), Contact::Encrypted(2), plain(0)],
    ] {
        let mut play = forwarding(servers.clone(), Fallback::Nothing, |_| {});
        let known = name("www.t1");
        assert_eq!(play.answer(&known, rtype::A).rcode, 0, "{servers:?}");
        play.pass(Duration::from_secs(4000));
        play.outage = true;
        play.answer(&host(0), rtype::A);
        play.pass(Duration::from_secs(2));

        assert!(play.resolver.is_out(), "{servers:?} {:#?}", play.log);
        let before = play.now.since_start;
        assert_eq!(play.answer(&known, rtype::A).why, Some(Why::Stale), "{servers:?}");
        assert_eq!(play.answer(&host(1), rtype::A).why, Some(Why::NoReachableAuthority), "{servers:?}");
        assert!(play.now.since_start - before < Duration::from_secs(1), "{servers:?}");

        play.outage = false;
        play.pass(Duration::from_secs(3));
        let before = play.now.since_start;
        assert_eq!(play.answer(&known, rtype::A).why, None, "{servers:?}");
        assert!(play.now.since_start - before < Duration::from_secs(1), "{servers:?}");
    }
}

#[test]
fn a_name_that_one_server_takes_long_over_is_no_outage() {
    let mut play = forwarding(vec![plain(0)], Fallback::Nothing, |_| {});
    play.attacker = None;
    let slow = name("slow.t0");
    play.attacker = Some(Box::new(move |question, _| {
        // It says nothing of use to that name.
        (question.name == slow).then(|| super::zone::Said { rcode: 2, ..Default::default() })
    }));

    play.answer(&name("slow.t0"), rtype::A);

    assert!(!play.resolver.is_out());
    assert_eq!(play.answer(&name("www.t1"), rtype::A).rcode, 0);
}

#[test]
fn a_dead_server_is_left_out_looked_after_and_used_again() {
    for (servers, dead) in [
        (vec![plain(0), plain(1)], IpAddr::from(RECURSORS[0])),
        (vec![Contact::Encrypted(0), Contact::Encrypted(1)], encrypted(0)),
    ] {
        let mut play = forwarding(servers.clone(), Fallback::Nothing, |_| {});
        turn(&mut play, dead, Manner::Dead);
        for number in 0..20 {
            let before = play.now.since_start;
            assert_eq!(play.answer(&host(number), rtype::A).why, None, "{servers:?}");
            assert!(play.now.since_start - before < Duration::from_millis(1700), "{servers:?} {number}");
            play.pass(Duration::from_millis(500));
        }

        // Known to be dead: nobody waits for it, and it is asked only to see whether it is still so.
        play.counts.clear();
        for number in 100..140 {
            let before = play.now.since_start;
            play.answer(&host(number), rtype::A);
            assert!(play.now.since_start - before < Duration::from_millis(500), "{servers:?} {number}");
            play.pass(Duration::from_millis(500));
        }
        let asked = play.counts.get(&dead).copied().unwrap_or(0);
        assert!(asked <= 12, "{servers:?}: {asked} packets to a dead server in 20 s");

        turn(&mut play, dead, Manner::Good);
        let other = if dead == encrypted(0) { encrypted(1) } else { RECURSORS[1].into() };
        play.answer(&host(200), rtype::A);
        play.pass(Duration::from_secs(6));
        play.answer(&host(201), rtype::A);
        play.pass(Duration::from_secs(1));
        turn(&mut play, other, Manner::Dead);
        for number in 202..205 {
            assert_eq!(play.answer(&host(number), rtype::A).why, None, "{servers:?} {number}");
        }
    }
}

#[test]
fn the_faster_of_two_servers_is_asked_and_the_other_when_it_is_slow() {
    let mut play = forwarding(vec![plain(0), plain(1)], Fallback::Nothing, |_| {});
    play.world.servers.get_mut(&IpAddr::from(RECURSORS[0])).unwrap().delay = 120;
    for number in 0..40 {
        play.answer(&host(number), rtype::A);
    }
    play.counts.clear();
    for number in 100..200 {
        play.answer(&host(number), rtype::A);
    }
    let (slow, fast) =
        (play.counts.get(&IpAddr::from(RECURSORS[0])).copied().unwrap_or(0), play.counts[&RECURSORS[1].into()]);
    assert!(fast >= 80 && slow <= 25, "{fast} and {slow}");

    // It hangs: the other is asked after a moment, and the client hardly notices.
    turn(&mut play, RECURSORS[1].into(), Manner::Dead);
    let before = play.now.since_start;
    assert_eq!(play.answer(&host(300), rtype::A).why, None);
    assert!(play.now.since_start - before <= Duration::from_millis(300));
}

#[test]
fn with_fallback_the_authorities_are_asked_where_nobody_who_recurses_answers() {
    for (servers, manner) in [
        (vec![plain(0), plain(1)], Manner::Dead),
        (vec![Contact::Encrypted(0)], Manner::Dead),
        (vec![plain(0)], Manner::Unreachable),
        (vec![plain(0)], Manner::Fails),
        (vec![plain(0)], Manner::Refuses),
    ] {
        let mut play = forwarding(servers.clone(), Fallback::Recursion, |_| {});
        for address in [RECURSORS[0].into(), RECURSORS[1].into(), encrypted(0)] {
            turn(&mut play, address, manner);
        }

        for number in 0..12 {
            let before = play.now.since_start;
            let answer = play.answer(&host(number), rtype::A);
            assert_eq!(answer.rcode, play.world.expect(&host(number), rtype::A).rcode, "{servers:?} {manner:?}");
            let took = play.now.since_start - before;
            assert!(took <= Duration::from_secs(5), "{servers:?} {manner:?} {took:?}");
            assert!(number < 8 || took <= Duration::from_millis(500), "{servers:?} {manner:?} {number} {took:?}");
        }
        assert!(!play.resolver.is_out());
    }
}

#[test]
fn a_family_that_is_broken_alone_is_noticed_and_left_out() {
    let mut world = World::calm();
    let mut config = config(&world);
    config.ipv6 = true;
    config.aggressive = false;
    // Every server has an IPv6 address beside its own, to which nothing gets.
    let pairs: Vec<(IpAddr, IpAddr)> = (world.servers.keys().copied())
        .enumerate()
        .map(|(place, address)| {
            (address, std::net::Ipv6Addr::new(0x2001, 0x4860, 0, 0, 0, 0, 0, place as u16 + 1).into())
        })
        .collect();
    for (four, six) in &pairs {
        let mut server = world.servers[four].clone();
        server.manner = Manner::Dead;
        world.servers.insert(*six, server);
    }
    for (_, addresses) in &mut config.hints {
        let six: Vec<IpAddr> = pairs.iter().filter(|(four, _)| addresses.contains(four)).map(|(_, six)| *six).collect();
        addresses.extend(six);
    }
    let zones: Vec<Name> = world.zones.keys().cloned().collect();
    for zone in zones {
        let zone = world.zone(&zone);
        let hosts: Vec<(Name, IpAddr)> = zone
            .nodes
            .iter()
            .flat_map(|(name, node)| node.get(&rtype::A).into_iter().flatten().map(move |data| (name.clone(), data)))
            .filter_map(|(name, data)| Some((name, IpAddr::from(*data.first_chunk::<4>()?))))
            .collect();
        for (host, four) in hosts {
            if let Some((_, IpAddr::V6(six))) = pairs.iter().find(|(address, _)| *address == four) {
                zone.add(&host, rtype::AAAA, &six.octets());
            }
        }
    }
    let mut play = Play::new(world, config);
    for number in 500..700 {
        play.answer(&host(number), rtype::A);
        play.pass(Duration::from_millis(100));
    }
    play.counts.clear();

    for number in 100..150 {
        let before = play.now.since_start;
        assert_eq!(play.answer(&host(number), rtype::A).why, None);
        let took = play.now.since_start - before;
        assert!(took < Duration::from_millis(300), "{number} {took:?} {:#?}", &play.log[play.log.len() - 12..]);
        play.pass(Duration::from_millis(100));
    }

    let asked: u32 = play.counts.iter().filter(|(server, _)| server.is_ipv6()).map(|(_, count)| count).sum();
    assert!(asked <= 2, "{asked} packets over the family that is broken");
    assert!(!play.resolver.is_out());
}

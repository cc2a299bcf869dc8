//! What clients get while servers are silent (RFC 8767).

use std::time::Duration;

use hearthgate::dns::resolver::{Why, rrset::Security, wire::rtype};

use super::{
    play::{Play, config},
    world::{World, name},
};

fn calm(prefetch: bool) -> Play {
    let world = World::calm();
    let mut config = config(&world);
    config.stale = Duration::from_secs(3 * 86400);
    config.prefetch = prefetch;
    Play::new(world, config)
}

#[test]
fn rfc8767_what_has_expired_is_given_when_nobody_answers() {
    let mut play = calm(false);
    let (host, gone) = (name("www.t0"), name("nope.t0"));
    let fresh = play.answer(&host, rtype::A);
    play.answer(&gone, rtype::A);
    play.pass(Duration::from_secs(4000));
    play.outage = true;

    let before = play.now.since_start;
    let stale = play.answer(&host, rtype::A);
    let waited = play.now.since_start - before;

    assert_eq!((stale.rcode, stale.why, stale.ttl), (0, Some(Why::Stale), 30));
    assert_eq!(stale.answer[0].set.data, fresh.answer[0].set.data);
    assert_ne!(stale.security, Security::Secure);
    assert!(waited <= Duration::from_millis(1800), "{waited:?}");
    assert_eq!(play.answer(&gone, rtype::A).why, Some(Why::StaleNxDomain));

    // After the work has failed, stale answers go out at once.
    play.pass(Duration::from_secs(10));
    let before = play.now.since_start;
    assert_eq!(play.answer(&host, rtype::A).why, Some(Why::Stale));
    assert_eq!(play.now.since_start, before);
}

#[test]
fn a_client_without_a_stale_answer_waits_five_seconds_and_the_work_fills_the_cache() {
    let mut play = calm(false);
    let host = name("www.t0");
    play.outage = true;
    let before = play.now.since_start;
    let first = play.ask(&host, rtype::A);
    play.pass(Duration::from_millis(4900));
    play.outage = false;

    let answer = play.wait(first);

    assert!(play.now.since_start - before <= Duration::from_secs(5));
    if answer.rcode == 2 {
        assert_eq!(answer.why, Some(Why::NoReachableAuthority));
    }
    play.pass(Duration::from_secs(6));
    play.packets = 0;
    assert_eq!(play.answer(&host, rtype::A).rcode, 0);
}

#[test]
fn an_answer_that_is_nearly_over_is_asked_for_again() {
    let mut play = calm(true);
    let host = name("www.t0");
    play.answer(&host, rtype::A);
    play.pass(Duration::from_secs(3400));
    play.packets = 0;

    let early = play.answer(&host, rtype::A);
    assert!(early.ttl <= 200);
    play.pass(Duration::from_secs(1));

    assert!(play.packets > 0);
    assert!(play.answer(&host, rtype::A).ttl > 3000);
}

#[test]
fn an_outage_is_recognised_told_at_once_and_over_soon() {
    let mut play = calm(false);
    let (host, other) = (name("www.t0"), name("www.t1"));
    play.answer(&host, rtype::A);
    play.pass(Duration::from_secs(4000));
    play.outage = true;
    play.answer(&name("a.t0"), rtype::A);
    assert!(play.resolver.is_out());

    let before = play.now.since_start;
    assert_eq!(play.answer(&host, rtype::A).why, Some(Why::Stale));
    assert_eq!(play.answer(&other, rtype::A).why, Some(Why::NoReachableAuthority));
    assert_eq!(play.now.since_start, before);

    play.outage = false;
    play.pass(Duration::from_secs(3));
    assert!(!play.resolver.is_out());
    assert_eq!(play.answer(&other, rtype::A).why, None);
    play.pass(Duration::from_secs(20));
    assert_eq!(play.resolver.under_way(), (0, 0, 0));
}

#[test]
fn one_zone_whose_servers_are_silent_is_no_outage() {
    let mut play = calm(false);
    for server in play.world.servers.values_mut() {
        if server.zones[0] == name("t1") {
            server.manner = super::world::Manner::Dead;
        }
        server.zones.retain(|zone| *zone != name("t1"));
    }

    assert_eq!(play.answer(&name("www.t1"), rtype::A).why, Some(Why::NoReachableAuthority));

    assert!(!play.resolver.is_out());
    assert_eq!(play.answer(&name("www.t0"), rtype::A).rcode, 0);
}

#[test]
fn a_restart_is_not_cold() {
    let mut play = calm(false);
    let (host, gone) = (name("www.t0"), name("nope.t0"));
    let before = play.answer(&host, rtype::A);
    let denied = play.answer(&gone, rtype::A);
    let bytes = play.resolver.save(play.now);
    let mut again = calm(false);
    again.outage = true;
    again.now.wall += 100;

    assert!(again.resolver.load(&bytes, again.now) > 2);
    // Bytes that were torn or garbled are no harm.
    for end in 0..bytes.len().min(3000) {
        let mut torn = bytes[..end].to_vec();
        if let Some(byte) = torn.get_mut(end / 2) {
            *byte ^= 0xff;
        }
        calm_once().load(&torn, again.now);
    }

    let after = again.answer(&host, rtype::A);
    assert_eq!((after.rcode, after.security), (before.rcode, before.security));
    assert_eq!(after.answer[0].set, before.answer[0].set);
    assert!(after.ttl <= before.ttl - 100);
    assert_eq!(again.answer(&gone, rtype::A).rcode, denied.rcode);
}

fn calm_once() -> hearthgate::dns::resolver::Resolver {
    hearthgate::dns::resolver::Resolver::new(Default::default(), |bytes| bytes.fill(1))
}

#[test]
fn a_recorded_course_says_who_was_asked_and_what_was_proved() {
    use hearthgate::dns::resolver::{trace::Step, wire::Question};
    let world = World::calm();
    let mut config = config(&world);
    config.traces = 2;
    let mut play = Play::new(world, config);
    for host in ["www.t0", "v6.t0", "www.t1"] {
        play.answer(&name(host), rtype::A);
    }

    let question = |host| Question { name: name(host), rtype: rtype::A };
    let trace = play.resolver.trace(&question("www.t1")).expect("recorded");

    let asked = trace.steps.iter().filter(|step| matches!(step, Step::Asked { .. })).count();
    assert!(asked > 0 && asked <= usize::try_from(trace.cost.packets).expect("few"));
    assert!(trace.steps.iter().any(|step| matches!(step, Step::Checked { .. })));
    assert!(play.resolver.trace(&question("www.t0")).is_none());
}

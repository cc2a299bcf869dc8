//! A box that boots with a wrong clock: what it is answered until the clock is set, and after.

use std::time::Duration;

use hearthgate::{
    clock::Soundness,
    dns::resolver::{Why, clock::News, name::Name, rrset::Security, wire::rtype},
};

use super::{
    play::{Play, config},
    sign::EPOCH,
    world::{World, name},
};

/// The true time.
const TRUE: u64 = EPOCH as u64;
const YEAR_2040: u64 = 2_208_988_800;

/// A house whose time server is `www.t0.`, asked by its own name and by an alias, with a clock that shows this; what
/// is below the floor is given as the floor, as the driver does.
fn boot(shows: u64, floor: u64, synchronised: bool) -> Play {
    let world = World::calm();
    let mut config = config(&world);
    config.time_servers = vec![name("www.t0"), name("alias.t0")];
    let mut play = Play::new(world, config);
    play.now.wall = shows.max(floor);
    play.resolver.set_clock(floor, shows < floor, synchronised);
    play
}

fn set(play: &mut Play, to: u64) {
    play.now.wall = to;
    play.resolver.set_clock(TRUE - 3600, false, true);
    play.resolver.forget();
}

/// Asks and says how it went and how long it took.
fn asked(play: &mut Play, host: &str) -> (u16, Security, Option<Why>, Duration) {
    let before = play.now.since_start;
    let answer = play.answer(&name(host), rtype::A);
    (answer.rcode, answer.security, answer.why, play.now.since_start - before)
}

fn resolves_now_and_validates_after_the_step(mut play: Play) {
    for host in ["www.t0", "alias.t0"] {
        let (rcode, security, why, took) = asked(&mut play, host);
        assert_eq!((rcode, security, why), (0, Security::Insecure, Some(Why::ClockUnset)), "{host}");
        assert!(took <= Duration::from_secs(1), "{host}: {took:?}");
        // The same from the cache.
        assert_eq!(asked(&mut play, host).2, Some(Why::ClockUnset), "{host}");
    }

    set(&mut play, TRUE);

    for host in ["www.t0", "www.t1"] {
        let (rcode, security, why, took) = asked(&mut play, host);
        assert_eq!((rcode, security, why), (0, Security::Secure, None), "{host}");
        assert!(took <= Duration::from_secs(1), "{host}: {took:?}");
    }
    assert_eq!(play.resolver.clock(), Soundness::Sound);
}

#[test]
fn in_1970_time_servers_are_found_and_the_rest_is_checked_at_the_floor() {
    resolves_now_and_validates_after_the_step(boot(0, TRUE - 3600, false));

    // What is not a time server is validated as of the floor, which lies within its signatures' time.
    let mut play = boot(0, TRUE - 3600, false);
    assert_eq!(play.resolver.clock(), Soundness::Behind);
    assert_eq!(asked(&mut play, "www.t1").1, Security::Secure);
    // A proof at the floor proves the floor only.
    assert_eq!(play.resolver.clock_news(), Some(News::Proven(TRUE - 3600)));

    // With an old build's floor nothing else can be had, and nothing is vouched for.
    let mut play = boot(0, TRUE - 100 * 86400, false);
    assert_eq!(asked(&mut play, "www.t0").2, Some(Why::ClockUnset));
    let (rcode, _, why, _) = asked(&mut play, "www.t1");
    assert_eq!((rcode, why), (2, Some(Why::SignatureNotYetValid)));
}

#[test]
fn thirty_days_behind_is_as_far_behind_as_any() {
    resolves_now_and_validates_after_the_step(boot(TRUE - 30 * 86400, TRUE - 600, false));
}

#[test]
fn in_2040_everything_is_answered_unchecked_for_ten_minutes() {
    resolves_now_and_validates_after_the_step(boot(YEAR_2040, TRUE - 3600, false));

    let mut play = boot(YEAR_2040, TRUE - 3600, false);
    let (rcode, security, why, took) = asked(&mut play, "www.t1");
    assert_eq!((rcode, security, why), (0, Security::Insecure, Some(Why::ClockUnset)));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    assert_eq!(play.resolver.clock_news(), Some(News::Doubted(YEAR_2040)));
    assert_eq!(play.resolver.clock(), Soundness::Ahead);

    play.pass(Duration::from_secs(601));
    assert_eq!(asked(&mut play, "www.t2").0, 2);
    assert_eq!(asked(&mut play, "www.t0").2, Some(Why::ClockUnset), "time servers are found for ever");
}

#[test]
fn expired_signatures_alone_are_no_reason_to_doubt_the_clock() {
    // The kernel's clock is kept: then the signatures are wrong.
    let mut play = boot(YEAR_2040, TRUE - 3600, true);
    let (rcode, _, why, _) = asked(&mut play, "www.t1");
    assert_eq!((rcode, why), (2, Some(Why::SignatureExpired)));
    assert_eq!((play.resolver.clock(), play.resolver.clock_news()), (Soundness::Sound, None));

    // Under this clock they held an hour ago: somebody plays old records back.
    let mut play = boot(TRUE, TRUE - 3600, false);
    assert_eq!(asked(&mut play, "www.t1").1, Security::Secure);
    play.pass(Duration::from_secs(20 * 86400));
    assert_eq!(asked(&mut play, "www.t1").0, 2);
    assert_eq!(play.resolver.clock(), Soundness::Sound);
}

#[test]
fn signatures_that_nobody_made_do_not_put_the_clock_in_doubt() {
    // Somebody on the way changes when the signatures of the root's keys end, and nothing else.
    let mut play = boot(TRUE, TRUE - 3600, false);
    let root = Name::root();
    let keys = play.world.zones[&root].answer(&root, rtype::DNSKEY);
    play.attacker = Some(Box::new(move |question, _| {
        let mut said = keys.clone();
        for record in said.answer.iter_mut().filter(|record| record.rtype == rtype::RRSIG) {
            let mut rdata = record.rdata.to_vec();
            rdata[8..12].copy_from_slice(&(EPOCH - 7200 + 3600).to_be_bytes());
            rdata[12..16].copy_from_slice(&(EPOCH - 86400).to_be_bytes());
            record.rdata = rdata.into();
        }
        (question.name == root && question.rtype == rtype::DNSKEY).then_some(said)
    }));
    play.now.wall += 2 * 3600;

    let (rcode, _, why, _) = asked(&mut play, "www.t1");

    assert_eq!((rcode, why), (2, Some(Why::SignatureExpired)));
    assert_eq!((play.resolver.clock(), play.resolver.clock_news()), (Soundness::Sound, None));
}

#[test]
fn signatures_that_were_over_at_the_floor_are_old_ones_played_back() {
    let years = 10 * 365 * 86400;
    let mut play = boot(YEAR_2040, TRUE + years, false);

    let (rcode, _, why, _) = asked(&mut play, "www.t1");

    assert_eq!((rcode, why), (2, Some(Why::SignatureExpired)));
    assert_eq!((play.resolver.clock(), play.resolver.clock_news()), (Soundness::Sound, None));
}

#[test]
fn names_of_the_usual_pools_are_time_servers() {
    let pools: Vec<Name> = hearthgate::dns::resolver::clock::time_servers().collect();

    for host in ["2.debian.pool.ntp.org", "0.openwrt.pool.ntp.org", "ntp.ubuntu.com", "time2.google.com"] {
        assert!(pools.iter().any(|pool| name(host).is_under(pool)), "{host}");
    }
    assert!(!pools.iter().any(|pool| name("www.google.com").is_under(pool)));
}

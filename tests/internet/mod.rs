//! Random signed Internets in memory, and a model that says what the answers must be.
//!
//! `WORLDS=100000 cargo test --release internet` plays more of them, `WORLD=SEED` one.

mod hostile;
mod model;
mod play;
mod sign;
mod stale;
mod world;
mod zone;

use std::{collections::BTreeSet, time::Duration};

use hearthgate::dns::resolver::{Answer, Why, name::Name, wire::rtype};

use play::{Play, config};
use world::{Dice, World, under};

const NAMES: [&str; 27] = [
    "www",
    "v6",
    "ent",
    "b.ent",
    "a.b.ent",
    "q1.wild",
    "q2.wild",
    "a.q3.wild",
    "host.wild",
    "x.host.wild",
    "y.wild",
    "z.y.wild",
    "q.wc",
    "alias",
    "alias2",
    "nxalias",
    "nope",
    "x.www",
    "x.nope",
    "moved",
    "www.moved",
    "b.moved",
    "nope.moved",
    "*.wild",
    "loop1",
    "ns0",
    "wild",
];

fn question(world: &World, dice: &mut Dice) -> (Name, u16) {
    let zones: Vec<&Name> = world.zones.keys().collect();
    let zone = *dice.pick(&zones);
    match dice.below(10) {
        0 => (zone.clone(), *dice.pick(&[rtype::A, rtype::NS, rtype::SOA, rtype::DNSKEY, rtype::MX])),
        1 => (zone.clone(), rtype::DS),
        2 => (under(&format!("www.{}", dice.pick(&["d0", "d1", "t0", "sub", "gone"])), zone), rtype::A),
        _ => {
            let kind = *dice.pick(&[rtype::A, rtype::A, rtype::A, rtype::AAAA, rtype::TXT, rtype::DS]);
            (under(NAMES[dice.below(NAMES.len())], zone), kind)
        }
    }
}

fn records(answer: &Answer) -> BTreeSet<(Name, u16, Vec<u8>)> {
    let sets = answer.answer.iter().map(|placed| &placed.set);
    sets.flat_map(|set| set.data.iter().map(|data| (set.name.clone(), set.rtype, data.to_vec()))).collect()
}

/// Plays one world; says what went wrong, and how many answers came late.
fn play(seed: u64) -> Result<usize, String> {
    let world = World::new(seed);
    let mut config = config(&world);
    let mut dice = Dice(seed ^ 0xa5c);
    config.minimise = dice.percent(70);
    config.aggressive = dice.percent(70);
    let limits = config.limits;
    let cache_bytes = config.cache_bytes;
    let mut play = Play::new(world, config);
    let mut late = 0;
    for number in 0..10 {
        let (name, kind) = question(&play.world, &mut dice);
        let expected = play.world.expect(&name, kind);
        play.log.clear();
        let mut answer = play.answer(&name, kind);
        let hindered = Some(Why::NoReachableAuthority) == answer.why || Some(Why::CachedFailure) == answer.why;
        if answer.rcode == 2 && expected.rcode != 2 && hindered && play.world.is_slow {
            late += 1;
            play.pass(Duration::from_secs(20));
            answer = play.answer(&name, kind);
        }
        if answer.cost.packets > limits.packets {
            return Err(format!("world {seed}, question {number}: {} packets", answer.cost.packets));
        }
        let same = answer.rcode == expected.rcode
            && (expected.rcode == 2 || answer.security == expected.security && records(&answer) == expected.answer);
        if !same {
            return Err(format!(
                "world {seed}, question {number}: {name} {kind}\n  must be {expected:?}\n  was {} {:?} {:?} {:?}\n  {}",
                answer.rcode,
                answer.security,
                answer.why,
                records(&answer),
                play.log.join("\n  ")
            ));
        }
        if dice.percent(30) {
            play.pass(Duration::from_secs(u64::try_from(dice.below(5000)).expect("small")));
        }
    }
    assert!(play.resolver.cache_fill().1 <= cache_bytes);
    play.pass(Duration::from_secs(60));
    assert_eq!(play.resolver.under_way(), (0, 0, 0), "world {seed}: something is left");
    Ok(late)
}

#[test]
fn every_answer_of_a_random_internet_is_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("WORLD") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WORLDS").unwrap_or(1000),
    };
    let count = seeds.end - seeds.start;
    let mut wrong = Vec::new();
    let mut late = 0;
    for seed in seeds {
        match play(seed) {
            Ok(more) => late += more,
            Err(error) => wrong.push(error),
        }
    }

    for error in wrong.iter().take(5) {
        println!("{error}");
    }
    println!("{} of {count} worlds wrong, {late} answers late", wrong.len());
    assert!(wrong.is_empty());
    assert!(late <= usize::try_from(count).expect("small") / 5 + 1, "{late} late answers");
}

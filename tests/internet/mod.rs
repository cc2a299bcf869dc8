//! Random signed Internets in memory, and a model that says what the answers must be.
//!
//! A world is made from a seed: zones with every kind of signing and denial, their servers, what is broken,
//! who lies. The resolver is asked, over wires that lose packets and let others guess; what it answers must
//! be what the model reads off the world.
//!
//! `WORLDS=100000 cargo test --release internet` plays more of them, `SEED=N` begins with another one, and
//! `WORLDS=1 SEED=N` plays the one that a failure names.

mod clock;
mod dice;
pub mod encode;
mod forged;
mod forwarded;
mod hostile;
mod model;
mod outage;
mod play;
mod proofs;
mod rollover;
pub mod sign;
mod stale;
mod top;
pub mod world;
pub mod zone;

use std::{collections::BTreeSet, fmt::Write, sync::Arc, time::Duration};

use hearthgate::dns::resolver::{
    Answer, Why,
    name::Name,
    rrset::Security,
    wire::{rcode, rtype},
};

use dice::Dice;
use model::{Check, Expected};
use play::{Play, config};
use world::{POISON, World, under};

const QUESTIONS: usize = 5;
/// How often a question is asked again that found nobody to answer it.
const MOST_TRIES: usize = 6;

const NAMES: [&str; 41] = [
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
    "x.*.wild",
    "loop1",
    "ns0",
    "wild",
    "gap",
    "nope.gap",
    "d0",
    "d1",
    "d0.gap",
    "www.d0",
    "www.d9",
    "round",
    "x.spin",
    "x.grow",
    "large",
    "grow",
    "*.wc",
];

const KINDS: [u16; 12] = [
    rtype::A,
    rtype::A,
    rtype::A,
    rtype::A,
    rtype::AAAA,
    rtype::TXT,
    rtype::TXT,
    rtype::MX,
    rtype::DS,
    rtype::CNAME,
    rtype::DNAME,
    65280,
];

/// What is counted over all worlds.
#[derive(Default)]
struct Tally {
    questions: usize,
    /// Questions that were answered only when they were asked again.
    late: usize,
    /// Questions that nobody answered in time however often they were asked.
    unanswered: usize,
    /// Questions that used up their budget.
    spent: usize,
    packets: u64,
    most_packets: u32,
    most_signatures: u32,
    most_hashes: u32,
    failed: usize,
    transcripts: u64,
}

fn question(world: &World, dice: &mut Dice) -> (Name, u16) {
    let zones: Vec<&Name> = world.zones.keys().collect();
    let zone = *dice.pick(&zones);
    match dice.below(20) {
        0 | 1 => (zone.clone(), *dice.pick(&[rtype::A, rtype::NS, rtype::SOA, rtype::DNSKEY, rtype::MX])),
        2 | 3 => (zone.clone(), rtype::DS),
        // A name that may be too long once it is rewritten.
        4 => {
            let mut name = under("moved", zone);
            while name.as_wire().len() < 255 {
                let left = 255 - name.as_wire().len();
                let length = if left > 64 { (left - 2).min(63) } else { left - 1 };
                name = name.child(&vec![b'z'; length]).expect("it fits");
            }
            (name, rtype::A)
        }
        _ => (under(NAMES[dice.below(NAMES.len())], zone), *dice.pick(&KINDS)),
    }
}

fn records(answer: &Answer) -> BTreeSet<(Name, u16, Vec<u8>)> {
    let sets = answer.answer.iter().map(|placed| &placed.set);
    sets.flat_map(|set| set.data.iter().map(|data| (set.name.clone(), set.rtype, data.to_vec()))).collect()
}

/// One question under way with what is to come of it.
struct Open {
    name: Name,
    kind: u16,
    check: Check,
    expected: Expected,
}

/// Plays one world; says what went wrong.
fn play(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let world = World::new(seed);
    let mut config = config(&world);
    let mut dice = Dice(seed ^ 0xa5c);
    config.minimise = dice.percent(70);
    config.aggressive = dice.percent(70);
    config.prefetch = dice.percent(30);
    config.case_randomisation = dice.percent(90);
    config.cache_bytes = *dice.pick(&[8 << 20, 8 << 20, 1 << 16]);
    if !config.case_randomisation && world.forged {
        config.case_randomisation = true;
    }
    let limits = config.limits;
    let cache_bytes = config.cache_bytes;
    let told = format!("minimise {}, aggressive {}", config.minimise, config.aggressive);
    let mut play = Play::new(world, config);
    let mut asked = 0;
    while asked < QUESTIONS {
        // Sometimes several at once.
        let mut opened = Vec::new();
        play.log.clear();
        for _ in 0..if dice.percent(30) { 3 } else { 1 } {
            let (name, kind) = question(&play.world, &mut dice);
            let check = if dice.percent(10) { Check::There } else { Check::Here };
            let expected = play.world.expect_for(&name, kind, check);
            let ticket = play.ask_for(&name, kind, check);
            opened.push((ticket, Open { name, kind, check, expected }));
            asked += 1;
        }
        for (ticket, open) in opened {
            tally.questions += 1;
            let mut answer = play.wait(ticket);
            let mut tries = 1;
            while is_hindered(&play, &open, &answer) && tries < MOST_TRIES {
                tally.spent += usize::from(answer.why == Some(Why::BudgetSpent));
                tally.late += usize::from(tries == 1);
                tries += 1;
                play.pass(Duration::from_secs(70));
                let ticket = play.ask_for(&open.name, open.kind, open.check);
                answer = play.wait(ticket);
            }
            let mut wrong = Vec::new();
            if answer.cost.packets > limits.packets || answer.cost.signatures > limits.signatures {
                wrong.push("it cost more than its budget".to_owned());
            }
            if play.fooled {
                wrong.push("a server was asked that only liars name".to_owned());
            }
            if play.resolver.cache_fill().1 > cache_bytes {
                wrong.push("the cache is too large".to_owned());
            }
            // Whose waiting was over is not told what it cost.
            if answer.cost != limits {
                tally.most_packets = tally.most_packets.max(answer.cost.packets);
                tally.most_signatures = tally.most_signatures.max(answer.cost.signatures);
                tally.most_hashes = tally.most_hashes.max(answer.cost.hashes);
            }
            tally.failed += usize::from(answer.rcode == rcode::SERVFAIL);
            if is_hindered(&play, &open, &answer) {
                tally.unanswered += 1;
            } else {
                wrong.extend(compare(&play.world, &open, &answer));
            }
            if !wrong.is_empty() {
                let mut text = format!("{} {} {:?}: {}\n", open.name, open.kind, open.check, wrong.join("; "));
                let Answer { rcode, security, why, cost, .. } = &*answer;
                let _ = writeln!(text, "must be {:?}", open.expected);
                let _ = writeln!(text, "was {rcode} {security:?} {why:?} {:?}\n{cost:?}", records(&answer));
                let _ = writeln!(text, "{told}\n{}  {}", play.world, play.log.join("\n  "));
                return Err(text);
            }
        }
        if dice.percent(40) {
            play.pass(Duration::from_secs(u64::try_from(dice.below(5000)).expect("small")));
        }
    }
    play.pass(Duration::from_secs(60));
    // What was silent before may be a reason to look whether anybody is there.
    play.pass(Duration::from_secs(5));
    if play.resolver.under_way() != (0, 0, 0) {
        return Err(format!("something is left under way: {:?}\n{}", play.resolver.under_way(), play.world));
    }
    tally.packets += play.packets;
    tally.transcripts = tally.transcripts.rotate_left(1) ^ play.transcript;
    Ok(())
}

/// Nobody could answer who should have: packets were lost, or servers took too long.
fn is_hindered(play: &Play, open: &Open, answer: &Arc<Answer>) -> bool {
    if answer.rcode != rcode::SERVFAIL || open.expected.rcode == rcode::SERVFAIL {
        return false;
    }
    // One question may be too dear at once; what was learnt makes it cheaper.
    play.world.is_slow || answer.why == Some(Why::BudgetSpent)
}

fn compare(world: &World, open: &Open, answer: &Answer) -> Option<String> {
    let Open { kind, expected, check, .. } = open;
    let found = records(answer);
    let poisoned = found.iter().any(|(_, kind, data)| *kind == rtype::A && data[..] == POISON);
    let misled = world.servers.values().any(|server| server.manner.misleads());
    let replayed = world.zones.values().any(|zone| zone.fault == zone::Fault::Replay);
    if *check == Check::There && (misled || replayed) {
        // Who checks for himself gets what there is.
        return None;
    }
    if poisoned {
        return Some("a lie is believed".to_owned());
    }
    if answer.rcode == rcode::SERVFAIL && expected.may_fail {
        return None;
    }
    if answer.rcode != expected.rcode {
        return Some("another rcode".to_owned());
    }
    if answer.rcode == rcode::SERVFAIL {
        return None;
    }
    if found != expected.answer {
        return Some("other records".to_owned());
    }
    if *check == Check::Here && answer.security != expected.security && *kind != rtype::RRSIG {
        return Some("another security".to_owned());
    }
    (answer.security == Security::Bogus && *check == Check::Here).then(|| "bogus data".to_owned())
}

#[test]
fn every_answer_of_a_random_internet_is_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("SEED").unwrap_or(0);
    let count = number("WORLDS").unwrap_or(1000);
    let mut wrong = Vec::new();
    let mut tally = Tally::default();
    for seed in first..first + count {
        if let Err(error) = play(seed, &mut tally) {
            wrong.push((seed, error));
        }
    }

    for (seed, error) in wrong.iter().take(number("SHOW").map_or(3, |count| usize::try_from(count).expect("few"))) {
        println!("SEED={seed} WORLDS=1\n{error}");
    }
    let Tally {
        questions,
        late,
        spent,
        packets,
        most_packets,
        most_signatures,
        most_hashes,
        failed,
        transcripts,
        unanswered,
    } = tally;
    println!(
        "{} of {count} worlds wrong: {:?}\n{questions} questions, {failed} failed, {late} late, {unanswered} never, {spent} times \
         the budget was spent; {packets} packets; at most {most_packets} packets, {most_signatures} signatures, \
         {most_hashes} hashes for one; transcripts {transcripts:016x}",
        wrong.len(),
        wrong.iter().map(|(seed, _)| *seed).take(40).collect::<Vec<_>>(),
    );
    assert!(wrong.is_empty());
    assert!(late <= questions / 100 + 1, "{late} late answers");
    assert!(unanswered <= questions / 2000 + 1, "{unanswered} questions without answer");
}

#[test]
fn the_same_seed_gives_the_same_world_and_the_same_transcript() {
    for seed in 0..30 {
        let transcripts = [(); 2].map(|()| {
            let mut tally = Tally::default();
            let _ = play(seed, &mut tally);
            tally.transcripts
        });

        assert_eq!(transcripts[0], transcripts[1], "world {seed}");
    }
}

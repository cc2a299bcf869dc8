//! What must hold under attack, with the numbers of it.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use super::{
    Action, Dropped, Outcome,
    tests::{Bench, Client, HERE, path, peer, sent, udp},
};
use crate::origin::PeerId;

/// Packets of a flood.
const FLOOD: u32 = 100_000;
const HOME: &str = "198.51.100.77:9";

/// One of a hundred thousand sources.
fn source(number: u32) -> String {
    let [_, second, third, fourth] = (0x0b00_0000 + number).to_be_bytes();
    format!("11.{second}.{third}.{fourth}:{}", 1_024 + number % 60_000)
}

fn bench() -> Bench {
    Bench::new(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")])
}

#[test]
fn under_a_flood_of_valid_mac1_from_spoofed_sources_a_named_peer_gets_in() {
    let mut bench = bench();
    let flood = Client::new(9, HERE).initiation();
    let mut named = Client::new(0, HOME);
    let (mut answers, mut bytes, mut tries, mut is_in) = (HashMap::<u8, u32>::new(), 0, 0, false);

    // Ten seconds, ten packets a millisecond.
    for number in 0..FLOOD {
        bench.now += Duration::from_micros(100);
        for answer in sent(&bench.feed(&source(number), &flood)) {
            *answers.entry(answer[0]).or_default() += 1;
            bytes += answer.len();
        }
        // A client begins anew every 5 s, with the cookie that it was sent.
        if number % 50_000 == 777 && !is_in {
            tries += 1;
            let initiation = named.initiation_again();
            for answer in sent(&bench.feed(HOME, &initiation)) {
                is_in |= answer[0] == 2;
                named.take(&answer);
            }
        }
        if number == 1_000 {
            // The second one, with the cookie of the first.
            let initiation = named.initiation_again();
            let answer = sent(&bench.feed(HOME, &initiation));
            is_in |= answer.first().is_some_and(|answer| answer[0] == 2);
        }
    }

    assert!(is_in, "after {tries} tries");
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&3], "strangers get cookies and nothing else");
    assert!(answers[&3] <= 2_000 * 11, "{answers:?}");
    assert!(bytes < flood.len() * FLOOD as usize / 2, "it amplifies nothing");
    let dropped: HashMap<Dropped, u64> = bench.dropped().into_iter().collect();
    // Multiplications that were spent on strangers: those before it was noticed.
    assert!(dropped[&Dropped::UnknownPeer] <= 110, "{dropped:?}");
    assert!(bench.gate.by_remote.len() <= 1 && bench.gate.active.len() <= 1, "nothing grows");
}

#[test]
fn a_peer_at_its_old_place_gets_its_cookie_however_many_ask_for_one() {
    let mut bench = bench();
    bench.connect(0, HERE);
    let flood = Client::new(9, HERE).initiation();
    let mut cookies = 0;

    for number in 0..10_000 {
        bench.now += Duration::from_micros(10);
        cookies += bench.feed(&source(number), &flood).len();
    }
    let mut again = Client::new(0, HERE);
    let first = sent(&bench.feed(HERE, &again.initiation()));
    again.take(&first[0]);
    let initiation = again.initiation_again();
    let second = sent(&bench.feed(HERE, &initiation));

    assert!(cookies < 3_000, "{cookies}: the budget of strangers is spent");
    assert_eq!((first[0][0], second[0][0]), (3, 2));
}

#[test]
fn what_is_replayed_a_hundred_thousand_times_moves_nobody() {
    let mut bench = bench();
    let mut client = Client::new(0, HERE);
    let initiation = client.initiation();
    let answer = sent(&bench.feed(HERE, &initiation));
    let keepalive = client.take(&answer[0]).pop().unwrap();
    bench.feed(HERE, &keepalive);
    let data = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    bench.feed(HERE, &data);
    bench.gate.take_tally();

    let mut answers = 0;
    for number in 0..FLOOD / 2 {
        bench.now += Duration::from_millis(2);
        let (of_data, of_initiation) = (bench.feed(&source(number), &data), bench.feed(&source(number), &initiation));
        // So many of them put the gate under load: a cookie says nothing of anybody.
        answers += of_data.len() + sent(&of_initiation).iter().filter(|answer| answer[0] != 3).count();
    }

    assert_eq!(answers, 0);
    assert_eq!(bench.gate.standing(PeerId(0)).unwrap().endpoint, Some(HERE.parse().unwrap()));
    let dropped: HashMap<Dropped, u64> = bench.dropped().into_iter().collect();
    assert_eq!(dropped[&Dropped::Duplicate], u64::from(FLOOD / 2));
    assert!(dropped[&Dropped::ReplayedHandshake] > 0, "{dropped:?}");
    let fresh = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    assert!(matches!(bench.feed(HERE, &fresh)[..], [Action::Deliver(PeerId(0), _)]), "its session goes on");
}

#[test]
fn guessing_an_index_opens_nothing_and_is_answered_with_nothing() {
    let mut bench = bench();
    let mut client = bench.connect(0, HERE);
    let data = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    bench.gate.take_tally();

    let mut answers = 0;
    for number in 0..FLOOD {
        let mut guess = data.clone();
        // The right one is among them now and then, with something that does not decrypt behind it.
        let index = if number % 100 == 0 { u32::from_le_bytes(data[4..8].try_into().unwrap()) } else { number << 8 };
        guess[4..8].copy_from_slice(&index.to_le_bytes());
        guess[20] ^= 1;
        answers += bench.feed(&source(number), &guess).len();
        bench.now += Duration::from_micros(50);
    }
    bench.gate.handle_timeout(bench.now, &mut bench.actions);

    assert_eq!((answers, bench.actions.len()), (0, 0));
    assert_eq!(bench.dropped().iter().map(|(_, count)| count).sum::<u64>(), u64::from(FLOOD));
    assert!(matches!(bench.feed(HERE, &data)[..], [Action::Deliver(PeerId(0), _)]));
}

#[test]
fn nobody_inside_speaks_as_another_peer_the_gate_or_the_lan() {
    let mut bench = bench();
    let mut client = bench.connect(0, HERE);
    bench.gate.take_tally();
    let spoofed =
        [[10, 77, 0, 3], [10, 77, 0, 1], [192, 168, 1, 9], [127, 0, 0, 1], [0, 0, 0, 0], [255; 4], [224, 0, 0, 1]];

    for from in spoofed {
        let data = client.seal(&udp(from, [10, 77, 0, 1]));
        assert_eq!(bench.feed(HERE, &data), [], "{from:?}");
    }

    assert_eq!(bench.dropped(), [(Dropped::SpoofedSource, spoofed.len() as u64)]);
    assert_eq!(bench.gate.standing(PeerId(0)).unwrap().refused, spoofed.len() as u64);
}

#[test]
fn a_peer_that_roams_a_hundred_thousand_times_has_one_place() {
    let mut bench = bench();
    let mut client = bench.connect(0, HERE);

    for number in 0..FLOOD / 10 {
        let data = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
        let from = source(number);
        assert!(matches!(bench.feed(&from, &data)[..], [Action::Deliver(..)]));
        assert_eq!(bench.gate.peers[&PeerId(0)].path, Some(path(&from)));
    }

    let remotes: Vec<SocketAddr> = bench.gate.by_remote.keys().copied().collect();
    assert_eq!(remotes, [source(FLOOD / 10 - 1).parse().unwrap()]);
    assert!(bench.gate.take_tally().handshakes.keys().all(|outcome| *outcome != Outcome::Refused));
}

//! Attacks by somebody who sees no question but can send answers: each with the number that bounds it.

use std::{net::IpAddr, time::Duration};

use hearthgate::dns::resolver::wire::{IN, Record, rtype};

use super::{
    dice::Dice,
    encode::encode,
    play::{Play, config, cookie_at, cookie_of, with_cookie},
    world::{Manner, POISON, World, name, under},
    zone::Said,
};

fn calm() -> Play {
    let world = World::calm();
    let mut config = config(&world);
    // Each name is to be asked for.
    config.aggressive = false;
    Play::new(world, config)
}

/// An answer that would be believed, but for what `spoil` does to it.
fn forged(message: &[u8], spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let asked = hearthgate::dns::resolver::wire::Message::parse(message).unwrap();
    let question = asked.question.clone().unwrap();
    let record = Record { name: question.name, rtype: rtype::A, class: IN, ttl: 86400, rdata: POISON.into() };
    let said = Said { authoritative: true, answer: vec![record], ..Said::default() };
    let mut bytes = encode(&asked, &said, Manner::Good, false);
    spoil(&mut bytes);
    bytes
}

#[test]
fn kaminsky_guesses_of_the_id_are_not_believed_and_turn_the_question_to_tcp() {
    // RFC 5452 §9.2: after three wrong answers nothing that comes over UDP is needed any more. The forger knows the port,
    // as SADDNS (CVE-2020-25705) finds it out.
    let mut play = calm();
    let mut dice = Dice(7);
    play.forger = Some(Box::new(move |message| {
        let guess = |_| {
            forged(message, |bytes| {
                let id = u16::from_be_bytes([message[0], message[1]]) ^ (1 + u16::try_from(dice.below(65535)).unwrap());
                bytes[..2].copy_from_slice(&id.to_be_bytes());
            })
        };
        (0..50).map(guess).collect()
    }));

    for number in 0..50 {
        let host = under(&format!("n{number}"), &name("t0"));
        let expected = play.world.expect(&host, rtype::A).rcode;
        assert_eq!(play.answer(&host, rtype::A).rcode, expected, "{host}");
    }

    assert!(!play.fooled);
    let plain = play.packets - play.connected;
    // Each server gives itself away once; from then on it is asked over TCP.
    assert!(plain <= u64::try_from(play.world.servers.len()).unwrap() + 1, "{plain} of {}", play.packets);
    assert!(play.packets <= 50 * 3 + 20, "{} packets", play.packets);
}

#[test]
fn rfc7873_cookies_of_servers_are_given_back_and_no_two_servers_get_the_same_from_us() {
    let mut play = calm();
    play.cookies = true;
    for number in 0..20 {
        play.answer(&under(&format!("n{number}"), &name("t0")), rtype::A);
        play.answer(&under(&format!("n{number}"), &name("t1")), rtype::A);
    }

    let mut ours: std::collections::BTreeMap<IpAddr, Vec<u8>> = std::collections::BTreeMap::new();
    let mut given_back = 0;
    for (server, cookie) in &play.cookies_sent {
        match ours.get(server) {
            None => {
                assert_eq!(cookie.len(), 8, "nothing is known of the server yet");
                ours.insert(*server, cookie.clone());
            }
            Some(first) if cookie.len() == 8 => assert_eq!(first, cookie),
            Some(first) => {
                assert_eq!(cookie[..], [&first[..], &cookie_at(*server)].concat());
                given_back += 1;
            }
        }
    }
    let distinct: std::collections::BTreeSet<&Vec<u8>> = ours.values().collect();
    assert_eq!(distinct.len(), ours.len());
    assert!(ours.len() >= 2 && given_back >= 30, "{} servers, {given_back}", ours.len());
}

#[test]
fn rfc7873_an_answer_with_another_cookie_was_not_asked_for() {
    let mut play = calm();
    play.forger = Some(Box::new(|message| {
        let asked = hearthgate::dns::resolver::wire::Message::parse(message).unwrap();
        let Some(mut cookie) = cookie_of(&asked) else { return Vec::new() };
        cookie.resize(16, 7);
        cookie[3] ^= 1;
        vec![with_cookie(forged(message, |_| {}), &cookie)]
    }));

    for number in 0..10 {
        let host = under(&format!("n{number}"), &name("t0"));
        let expected = play.world.expect(&host, rtype::A).rcode;
        assert_eq!(play.answer(&host, rtype::A).rcode, expected, "{host}");
    }

    assert!(!play.fooled);
    // One wrong answer to a question is not yet an attack.
    assert_eq!(play.connected, 0);
}

#[test]
fn tudoor_what_does_not_belong_here_does_not_end_the_waiting() {
    let spoils: [fn(&mut Vec<u8>); 8] = [
        |bytes| bytes.truncate(2),
        |bytes| bytes.truncate(11),
        |bytes| bytes.truncate(15),
        // A question, not an answer.
        |bytes| bytes[2] &= 0x7f,
        // Another operation.
        |bytes| bytes[2] |= 0x28,
        // No question though it is no error.
        |bytes| bytes[5] = 0,
        // Two questions.
        |bytes| bytes[5] = 2,
        // A name that points at itself.
        |bytes| bytes[12..14].copy_from_slice(&[0xc0, 12]),
    ];
    for (place, spoil) in spoils.into_iter().enumerate() {
        let mut play = calm();
        play.forger = Some(Box::new(move |message| vec![forged(message, spoil), forged(message, spoil)]));
        let before = play.now.since_start;

        let answer = play.answer(&name("www.t0"), rtype::A);

        let expected = play.world.expect(&name("www.t0"), rtype::A);
        assert_eq!((answer.rcode, answer.why), (expected.rcode, None), "{place}");
        assert!(!play.fooled && play.connected == 0, "{place}: {} over TCP", play.connected);
        assert!(play.now.since_start - before < Duration::from_secs(1), "{place}");
    }
}

#[test]
fn rebirthday_a_server_never_has_the_same_question_twice() {
    // CVE-2025-5994: each further question that is the same doubles the chance of who guesses.
    let mut play = calm();
    let tickets: Vec<_> = (0..200)
        .flat_map(|number| {
            let host = under(&format!("n{}", number % 50), &name("t0"));
            [super::model::Check::Here, super::model::Check::There].map(|check| play.ask_for(&host, rtype::A, check))
        })
        .collect();

    for ticket in tickets {
        play.wait(ticket);
    }

    assert_eq!(play.most_twins, 1);
    // The way down is gone once, then each name is asked for once.
    assert!(play.packets <= 50 + 30, "{} packets", play.packets);
}

#[test]
fn ids_and_cases_of_questions_cannot_be_foreseen() {
    let mut play = calm();
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let sink = seen.clone();
    play.forger = Some(Box::new(move |message| {
        sink.borrow_mut().push(message.to_vec());
        Vec::new()
    }));
    for number in 0..400 {
        play.answer(&under(&format!("abcdefgh{number:04}"), &name("t0")), rtype::A);
    }

    let seen = seen.borrow();
    let ids: Vec<u16> = seen.iter().map(|message| u16::from_be_bytes([message[0], message[1]])).collect();
    let distinct: std::collections::BTreeSet<u16> = ids.iter().copied().collect();
    assert!(ids.len() >= 400 && distinct.len() * 100 >= ids.len() * 98, "{} of {}", distinct.len(), ids.len());
    // Neither bit of the ID, nor its difference to the one before, leans to one side.
    let share = |ones: usize, of: usize| ones * 100 / of;
    for bit in 0..16 {
        let ones = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
        assert!((40..=60).contains(&share(ones, ids.len())), "bit {bit}: {ones}");
    }
    let rising = ids.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!((40..=60).contains(&share(rising, ids.len())), "{rising} of {} rise", ids.len());
    let letters = |message: &[u8]| message[12..].iter().filter(|byte| byte.is_ascii_alphabetic()).count().min(8);
    let upper: usize = seen
        .iter()
        .map(|message| message[13..13 + letters(message)].iter().filter(|b| b.is_ascii_uppercase()).count())
        .sum();
    let all: usize = seen.iter().map(|message| letters(message)).sum();
    assert!((40..=60).contains(&share(upper, all)), "{upper} of {all} in upper case");
}

#[test]
fn promiscuous_records_of_a_server_go_nowhere() {
    // CVE-2025-11411, CVE-2025-40778: what the zone that was asked has no say in is dropped.
    let mut play = calm();
    let attacker: IpAddr = [6, 6, 6, 7].into();
    let root = play.world.zone(&hearthgate::dns::resolver::name::Name::root());
    root.add(&name("attack"), rtype::NS, name("ns.attack").as_wire());
    root.add(&name("ns.attack"), rtype::A, &[6, 6, 6, 7]);
    let record = |owner: &str, kind, data: &[u8]| Record {
        name: name(owner),
        rtype: kind,
        class: IN,
        ttl: 86400,
        rdata: data.into(),
    };
    play.attacker = Some(Box::new(move |question, server| {
        (server == attacker).then(|| Said {
            authoritative: true,
            answer: vec![
                Record {
                    name: question.name.clone(),
                    rtype: rtype::A,
                    class: IN,
                    ttl: 60,
                    rdata: [192, 0, 2, 6][..].into(),
                },
                record("www.t0", rtype::A, &POISON),
            ],
            authority: vec![
                record("t0", rtype::NS, name("ns.evil").as_wire()),
                record("attack", rtype::NS, name("www.t0").as_wire()),
                record("t1", rtype::DNAME, name("attack").as_wire()),
            ],
            additional: vec![record("ns.evil", rtype::A, &POISON), record("www.t0", rtype::A, &POISON)],
            ..Said::default()
        })
    }));

    for number in 0..20 {
        play.answer(&under(&format!("n{number}"), &name("attack")), rtype::A);
    }
    play.pass(Duration::from_secs(1));

    for host in ["www.t0", "www.t1", "mail.t0"] {
        let answer = play.answer(&name(host), rtype::A);
        assert_eq!(answer.rcode, play.world.expect(&name(host), rtype::A).rcode, "{host}");
        let data = answer.answer.iter().flat_map(|placed| placed.set.data.iter());
        assert!(data.into_iter().all(|data| **data != POISON), "{host}");
    }
    assert!(!play.fooled);
}

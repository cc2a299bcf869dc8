use std::collections::HashSet;

use proptest::prelude::*;

use hickory_proto::{op::Message, rr::rdata::opt::EdnsOption};

use super::*;
use crate::{
    dns::{
        Device, Group, List,
        fuzz::{self, House, asker},
        query::{
            option,
            tests::{query, query_with},
        },
    },
    origin::PeerId,
};

const HOST: Origin = Origin::Lan(NetworkId::HOST);
const LAN: Origin = Origin::Lan(NetworkId::MAIN);

fn message(out: &[u8]) -> Message {
    Message::from_vec(out).unwrap()
}

/// Keeps an answer in the house's cache: an address and, before it, an alias.
fn keep(house: &House, name: &str, alias: Option<&str>, ttl: u32, now: u64) {
    let bytes = query(name, qtype::A, None);
    let asked = Query::parse(&bytes).unwrap();
    let mut out = Vec::new();
    encode::start(&asked, Head::code(0), &mut out);
    record(&mut out, Section::Answer, QNAME, qtype::A, ttl, &[192, 0, 2, 1]);
    let aliases = alias.into_iter().map(|alias| crate::dns::query::tests::wire(alias).into()).collect();
    let question = asked.question();
    let stored = Stored::new(&question, &out, aliases, (0, true, None), now, ttl, 3600).unwrap();
    house.core.cache.keep(&question, Arc::new(stored));
}

fn group(name: &str, peer: Option<PeerId>, block: &[&str]) -> Group {
    Group {
        name: name.into(),
        devices: peer.map(Device::Peer).into_iter().collect(),
        block: block.iter().map(|name| name.parse().unwrap()).collect(),
        ..Group::default()
    }
}

#[test]
fn the_internet_gets_nothing_not_even_an_error() {
    let house = House::new(|_| {});
    keep(&house, "www.example", None, 300, 0);
    let mut out = Vec::new();

    for bytes in [query("www.example", qtype::A, None), query("localhost", qtype::A, None), vec![0; 12]] {
        let step = house.answer(&asker(Origin::Wan), &bytes, 0, &mut out);
        assert_eq!(step, Step::Silence(Dropped::Origin));
        assert!(out.is_empty());
    }
}

#[test]
fn a_router_of_the_house_is_answered_as_often_as_it_likes() {
    let house = House::new(|_| {});
    keep(&house, "www.example", None, 300, 0);
    let mut relay = asker(Origin::Wan);
    relay.source.relay = true;
    let bytes = query("www.example", qtype::A, None);
    let mut out = Vec::new();

    for _ in 0..10_000 {
        assert_eq!(house.answer(&relay, &bytes, 0, &mut out), Step::Done(Outcome::Cached));
    }
}

#[test]
fn a_flood_gets_nothing_that_is_longer_than_what_it_sent() {
    let house = House::new(|_| {});
    let mut bytes = query("localhost", qtype::A, Some(4096));
    let mut out = Vec::new();
    let mut ask = |id: u8| {
        bytes[1] = id;
        house.answer(&asker(LAN), &bytes, 0, &mut out)
    };
    for _ in 0..10_000 {
        ask(0);
    }

    let steps = [ask(1), ask(2)];

    assert_eq!(steps, [Step::Silence(Dropped::Limit), Step::Done(Outcome::Limited)]);
    assert!(message(&out).metadata.truncation && message(&out).answers.is_empty());
    assert!(out.len() <= bytes.len());
}

#[test]
fn a_client_whose_address_others_use_is_answered_over_tcp_and_with_its_cookie() {
    let house = House::new(|_| {});
    let mut out = Vec::new();
    let mut tcp = asker(LAN);
    tcp.transport = Transport::Tcp;
    let first = query_with("localhost", qtype::A, &[(option::COOKIE, &[7; 8])]);
    house.answer(&asker(LAN), &first, 1000, &mut out);
    let cookie = message(&out).edns.unwrap().option(10.into()).cloned().unwrap();
    let EdnsOption::Unknown(_, cookie) = cookie else { panic!("{cookie:?}") };
    let spoofed = query("localhost", qtype::A, None);
    for _ in 0..10_000 {
        house.answer(&asker(LAN), &spoofed, 1000, &mut out);
    }

    let with_cookie = query_with("localhost", qtype::A, &[(option::COOKIE, &cookie)]);

    assert_eq!(house.answer(&asker(LAN), &with_cookie, 1000, &mut out), Step::Done(Outcome::Special));
    assert_eq!(house.answer(&tcp, &spoofed, 1000, &mut out), Step::Done(Outcome::Special));
    assert_ne!(house.answer(&asker(LAN), &first, 1000, &mut out), Step::Done(Outcome::Special));
}

#[test]
fn of_ten_thousand_questions_at_once_one_client_has_five_thousand_answered_by_whatever_way() {
    let bytes = query("localhost", qtype::A, None);
    let mut out = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Quic, Transport::Https] {
        let house = House::new(|_| {});
        let mut answered = |house: &House, client: [u8; 4]| {
            let asker = Asker { transport, client: client.into(), ..asker(LAN) };
            (0..10_000).filter(|_| house.answer(&asker, &bytes, 0, &mut out) == Step::Done(Outcome::Special)).count()
        };

        assert_eq!(answered(&house, [192, 0, 2, 77]), 5000, "{transport:?}");
        assert_eq!(answered(&house, [192, 0, 2, 78]), 5000, "{transport:?}, another client");
    }
}

#[test]
fn without_rd_only_what_is_known_is_told() {
    let house = House::new(|_| {});
    keep(&house, "www.example", None, 300, 0);
    let mut out = Vec::new();
    let ask = |name: &str, out: &mut Vec<u8>| {
        let mut bytes = query(name, qtype::A, None);
        bytes[2] = 0;
        house.answer(&asker(HOST), &bytes, 0, out)
    };

    assert_eq!(ask("www.example", &mut out), Step::Done(Outcome::Cached));
    assert_eq!(out[2] & 1, 0);
    assert_eq!(ask("other.example", &mut out), Step::Done(Outcome::Refused));
    assert_eq!(out[3] & 0x0f, 5);
}

#[test]
fn a_cached_alias_is_judged_for_each_client_by_its_own_rules() {
    let tablet = PeerId(7);
    let house = House::new(|config| {
        config.groups = vec![group("default", None, &[]), group("kids", Some(tablet), &["cdn.example."])];
    });
    keep(&house, "cloaked.example", Some("x.cdn.example"), 300, 0);
    let bytes = query("cloaked.example", qtype::A, Some(1232));
    let mut out = Vec::new();

    assert_eq!(house.answer(&asker(HOST), &bytes, 0, &mut out), Step::Done(Outcome::Cached));
    assert!(matches!(house.answer(&asker(Origin::Vpn(tablet)), &bytes, 0, &mut out), Step::Blocked(_)));
    assert_eq!(message(&out).answers[0].data.to_string(), "0.0.0.0");
}

#[test]
fn an_answer_that_is_asked_for_at_its_end_is_asked_anew_once() {
    let house = House::new(|_| {});
    keep(&house, "www.example", None, 300, 0);
    let bytes = query("www.example", qtype::A, None);
    let mut out = Vec::new();

    let early = house.answer(&asker(HOST), &bytes, 100, &mut out);
    let late = house.answer(&asker(HOST), &bytes, 290, &mut out);
    let later = house.answer(&asker(HOST), &bytes, 291, &mut out);
    let over = house.answer(&asker(HOST), &bytes, 300, &mut out);

    assert_eq!((early, later), (Step::Done(Outcome::Cached), Step::Done(Outcome::Cached)));
    assert!(matches!(late, Step::Refresh(Outcome::Cached, _)), "{late:?}");
    assert!(matches!(over, Step::Ask(_)), "{over:?}");
}

#[test]
fn ad_is_told_to_those_who_ask_for_it() {
    let house = House::new(|_| {});
    keep(&house, "www.example", None, 300, 0);
    let mut bytes = query("www.example", qtype::A, None);
    let mut out = Vec::new();

    house.answer(&asker(HOST), &bytes, 0, &mut out);
    assert!(!message(&out).metadata.authentic_data);
    bytes[3] |= 0x20;
    house.answer(&asker(HOST), &bytes, 0, &mut out);
    assert!(message(&out).metadata.authentic_data);
}

#[test]
fn odd_questions_get_the_codes_that_are_meant_for_them() {
    let house = House::new(|_| {});
    let mut out = Vec::new();
    let mut code = |bytes: &[u8]| {
        house.answer(&asker(HOST), bytes, 0, &mut out);
        u16::from(message(&out).metadata.response_code)
    };
    let mut notify = query("a.example", qtype::SOA, None);
    notify[2] |= 0x20;
    let mut version = query("a.example", qtype::A, Some(1232));
    let at = version.len() - 5;
    version[at] = 1;
    let mut chaos = query("version.bind", 16, None);
    *chaos.last_mut().unwrap() = 3;
    let cut = &query("a.example", qtype::A, None)[..20];

    assert_eq!(code(&notify), rcode::NOTIMP);
    assert_eq!(code(&version), rcode::BADVERS);
    assert_eq!(code(&chaos), rcode::REFUSED);
    assert_eq!(code(cut), rcode::FORMERR);
    assert_eq!(code(&query("a.example", 252, None)), rcode::REFUSED);
    assert_eq!(code(&query("a.example", qtype::ANY, None)), rcode::NOERROR);
    assert_eq!(message(&out).answers[0].record_type(), hickory_proto::rr::RecordType::HINFO);
}

#[test]
fn the_rules_of_the_group_come_before_the_cache() {
    let house = House::new(|config| config.groups = vec![group("default", None, &["ads.example."])]);
    keep(&house, "www.ads.example", None, 300, 0);
    let mut out = Vec::new();

    let step = house.answer(&asker(HOST), &query("www.ads.example", qtype::A, None), 0, &mut out);

    assert!(matches!(step, Step::Blocked(_)));
    let networks: HashSet<_> = message(&out).answers.iter().map(|one| one.data.to_string()).collect();
    assert_eq!(networks, HashSet::from(["0.0.0.0".to_owned()]));
}

proptest! {
    #[test]
    fn any_bytes_meet_silence_or_a_sound_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz::message(&bytes);
    }

    #[test]
    fn a_query_with_broken_bytes_meets_silence_or_a_sound_answer(
        name in "[a-zA-Z0-9-]{1,20}(\\.[a-z]{1,10}){0,3}",
        kind in 0_u16..300,
        breaks in proptest::collection::vec((0_usize..60, any::<u8>()), 0..4),
    ) {
        let mut bytes = query(&name, kind, Some(1400));
        for (at, byte) in breaks {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        fuzz::message(&bytes);
    }
}

fn ask(house: &House, name: &str, qtype: u16, out: &mut Vec<u8>) -> Step {
    house.answer(&asker(HOST), &query(name, qtype, Some(1232)), 0, out)
}

fn extended(out: &[u8]) -> (u16, String) {
    let opt = out.windows(3).rposition(|head| head == [0, 0, 41]).unwrap();
    let rest = out[opt + 11..].strip_prefix(&[0, 15]).unwrap().get(2..).unwrap();
    (u16::from_be_bytes([rest[0], rest[1]]), String::from_utf8(rest[2..].to_vec()).unwrap())
}

#[test]
fn a_search_engine_is_answered_under_its_name_for_children() {
    let kids = Group { safe_search: vec!["google"], ..group("default", None, &[]) };
    let house = House::new(|config| config.groups = vec![kids]);
    let mut out = Vec::new();

    let Step::Ask(question) = ask(&house, "www.google.com", qtype::A, &mut out) else { panic!("not asked") };
    assert_eq!(*question.name, *crate::dns::query::tests::wire("forcesafesearch.google.com"));
    keep(&house, "forcesafesearch.google.com", None, 300, 0);
    assert_eq!(ask(&house, "www.google.com", qtype::A, &mut out), Step::Done(Outcome::Cached));

    let told: Vec<_> = message(&out).answers.iter().map(|record| record.to_string()).collect();
    assert_eq!(
        told,
        ["www.google.com. 60 IN CNAME forcesafesearch.google.com.", "forcesafesearch.google.com. 300 IN A 192.0.2.1"]
    );
}

#[test]
fn who_blocked_is_told_where_the_owner_wants_it() {
    let list = List {
        name: "ads".into(),
        source: crate::dns::ListSource::Inline(vec!["ads.example".into()]),
        action: crate::dns::Action::Block,
        purpose: crate::dns::Purpose::Filter,
        block_as: BlockAs::Refused,
        refresh: Duration::from_secs(60),
        enabled: true,
    };
    for (block_reason, ads, own) in [(false, "", ""), (true, "ads", "default")] {
        let house = House::new(|config| {
            config.block_reason = block_reason;
            config.lists = vec![list.clone()];
            config.groups = vec![Group { lists: vec![0], ..group("default", None, &["own.example."]) }];
        });
        let mut out = Vec::new();

        ask(&house, "ads.example", qtype::A, &mut out);
        assert_eq!((out[3] & 0x0f, extended(&out)), (5, (15, ads.to_owned())));
        ask(&house, "own.example", qtype::A, &mut out);
        assert_eq!((out[3] & 0x0f, extended(&out)), (0, (17, own.to_owned())));
    }
}

#[test]
fn a_public_name_leads_home_only_for_a_group_that_may() {
    let tablet = PeerId(7);
    let house = House::new(|config| {
        let trusting = Group { rebind: Rebind::Allowed, ..group("trusting", Some(tablet), &[]) };
        config.groups = vec![group("default", None, &[]), trusting];
        config.rebind_allow = vec!["plex.example.".parse().unwrap()];
    });
    for name in ["rebind.example", "a.plex.example"] {
        let bytes = query(name, qtype::A, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::code(0), &mut out);
        record(&mut out, Section::Answer, QNAME, qtype::A, 300, &[192, 168, 1, 1]);
        let question = asked.question();
        let mut stored = Stored::new(&question, &out, Box::default(), (0, false, None), 0, 300, 3600).unwrap();
        stored.leads_home = true;
        house.core.cache.keep(&question, Arc::new(stored));
    }
    let mut out = Vec::new();

    assert_eq!(ask(&house, "rebind.example", qtype::A, &mut out), Step::Done(Outcome::Blocked));
    assert_eq!((message(&out).answers.len(), extended(&out).0), (0, 17));
    assert_eq!(ask(&house, "a.plex.example", qtype::A, &mut out), Step::Done(Outcome::Cached));
    let bytes = query("rebind.example", qtype::A, None);
    assert_eq!(house.answer(&asker(Origin::Vpn(tablet)), &bytes, 0, &mut out), Step::Done(Outcome::Cached));
}

#[test]
fn an_alias_that_a_rule_gives_something_else_for_does_not_lead_past_it() {
    let list = List {
        name: "own".into(),
        source: crate::dns::ListSource::Inline(vec![
            "||cdn.example^$dnsrewrite=192.0.2.99".into(),
            "||moved.example^$dnsrewrite=other.example".into(),
        ]),
        action: crate::dns::Action::Block,
        purpose: crate::dns::Purpose::Filter,
        block_as: BlockAs::Null,
        refresh: Duration::from_secs(60),
        enabled: true,
    };
    let house = House::new(|config| {
        config.lists = vec![list];
        config.groups = vec![Group { lists: vec![0], ..group("default", None, &[]) }];
    });
    keep(&house, "cloaked.example", Some("x.cdn.example"), 300, 0);
    keep(&house, "away.example", Some("moved.example"), 300, 0);
    keep(&house, "other.example", None, 300, 0);
    let mut out = Vec::new();

    assert!(matches!(ask(&house, "cloaked.example", qtype::A, &mut out), Step::Blocked(_)));
    assert_eq!(message(&out).answers[0].data.to_string(), "192.0.2.99");
    assert!(matches!(ask(&house, "away.example", qtype::A, &mut out), Step::Blocked(_)));
    assert_eq!(message(&out).answers[0].data.to_string(), "0.0.0.0");
    assert_eq!(ask(&house, "moved.example", qtype::A, &mut out), Step::Done(Outcome::Cached));
}

/// A house with a zone, a route and a peer in it.
fn house_with_a_zone(folder: &std::path::Path) -> House {
    let zone = "@ 60 IN SOA ns admin 1 2 3 4 60\n@ 60 IN NS ns\nns 60 IN A 192.168.1.53\n\
                shop 60 IN CNAME nas.vpn.other.example.\nprinter 60 IN CNAME printer.local.\n\
                pictures 60 IN CNAME photos\nfiles 60 IN CNAME nas.vpn\nlost 60 IN CNAME nothing\n";
    let path = folder.join("home.example.zone");
    std::fs::write(&path, zone).unwrap();
    House::new(|config| {
        config.zones = vec![path];
        let peer = |name: &str| crate::dns::PeerName {
            name: name.parse().unwrap(),
            peer: PeerId(1),
            addresses: vec!["10.77.0.2".parse().unwrap()],
            lan: true,
            nets: Vec::new(),
            peers: Vec::new(),
        };
        config.peers = vec![peer("nas.vpn.home.example."), peer("nas.vpn.other.example.")];
        config.routes.inner = vec!["10.77.0.1".parse().unwrap()];
        config.routes.names = vec![crate::dns::RouteName {
            host: "photos.home.example.".parse().unwrap(),
            networks: Vec::new(),
            peers: vec![PeerId(7)],
        }];
    })
}

#[test]
fn a_zone_of_the_house_hides_no_route_or_peer_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let house = house_with_a_zone(folder.path());
    let mut out = Vec::new();
    let mut told = |origin, name: &str, rtype| {
        assert_eq!(house.answer(&asker(origin), &query(name, rtype, None), 0, &mut out), Step::Done(Outcome::Local));
        let said = message(&out);
        let answers: Vec<_> = said.answers.iter().map(|one| one.data.to_string()).collect();
        (u16::from(said.metadata.response_code), answers.join(" "), said.authorities.len())
    };

    assert_eq!(told(LAN, "nas.vpn.home.example", qtype::A), (0, "10.77.0.2".into(), 0));
    let peer = Origin::Vpn(PeerId(7));
    assert_eq!(told(peer, "photos.home.example", qtype::A), (0, "10.77.0.1".into(), 0));
    assert_eq!(told(peer, "photos.home.example", 16), (0, String::new(), 1), "it is there");
    assert_eq!(told(LAN, "nothing.home.example", qtype::A), (3, String::new(), 1));
    assert_eq!(told(peer, "pictures.home.example", qtype::A), (0, "photos.home.example. 10.77.0.1".into(), 0));
    assert_eq!(told(LAN, "files.home.example", qtype::A), (0, "nas.vpn.home.example. 10.77.0.2".into(), 0));
    assert_eq!(told(LAN, "lost.home.example", qtype::A), (3, "nothing.home.example.".into(), 1));
    assert_eq!(
        told(LAN, "pictures.home.example", qtype::A),
        (3, "photos.home.example.".into(), 1),
        "not for this client"
    );
}

#[test]
fn a_name_of_the_house_leads_to_a_peer_and_no_special_name_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let house = house_with_a_zone(folder.path());
    let mut out = Vec::new();
    let mut told = |name: &str| {
        let step = house.answer(&asker(LAN), &query(name, qtype::A, None), 0, &mut out);
        assert_eq!(step, Step::Done(Outcome::Local), "{name}");
        message(&out).answers.iter().map(|one| one.data.to_string()).collect::<Vec<_>>()
    };

    assert_eq!(told("printer.home.example"), ["printer.local."]);
    assert_eq!(told("shop.home.example"), ["nas.vpn.other.example.", "10.77.0.2"]);
}

#[test]
fn a_list_that_gives_a_name_of_the_house_instead_gives_what_the_house_knows_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("home.example.zone");
    let zone =
        "@ 60 IN SOA ns admin 1 2 3 4 60\n@ 60 IN NS ns\nns 60 IN A 192.168.1.53\nout 60 IN CNAME www.example.net.\n";
    std::fs::write(&path, zone).unwrap();
    let to = |from: &str, to: &str| format!("||{from}.example^$dnsrewrite={to}");
    let list = List {
        name: "own".into(),
        source: crate::dns::ListSource::Inline(vec![
            to("a", "ns.home.example"),
            to("b", "photos.home.example"),
            to("c", "nothing.home.example"),
            to("d", "out.home.example"),
            to("e", "printer.local"),
        ]),
        action: crate::dns::Action::Block,
        purpose: crate::dns::Purpose::Filter,
        block_as: BlockAs::Null,
        refresh: Duration::from_secs(60),
        enabled: true,
    };
    let house = House::new(|config| {
        config.zones = vec![path];
        config.lists = vec![list];
        config.groups = vec![Group { lists: vec![0], ..group("default", None, &[]) }];
        config.routes.inner = vec!["10.77.0.1".parse().unwrap()];
        config.routes.names = vec![crate::dns::RouteName {
            host: "photos.home.example.".parse().unwrap(),
            networks: Vec::new(),
            peers: vec![PeerId(7)],
        }];
    });
    keep(&house, "www.example.net", None, 300, 0);
    let mut out = Vec::new();
    let mut told = |name: &str| {
        let bytes = query(&format!("{name}.example"), qtype::A, None);
        let step = house.answer(&asker(Origin::Vpn(PeerId(7))), &bytes, 0, &mut out);
        assert!(matches!(step, Step::Done(_)), "{name}: {step:?}");
        let said = message(&out);
        let answers: Vec<_> = said.answers.iter().map(|one| one.data.to_string()).collect();
        (u16::from(said.metadata.response_code), answers.join(" "))
    };

    assert_eq!(told("a"), (0, "ns.home.example. 192.168.1.53".into()));
    assert_eq!(told("b"), (0, "photos.home.example. 10.77.0.1".into()));
    assert_eq!(told("c"), (3, "nothing.home.example.".into()));
    assert_eq!(told("d"), (0, "out.home.example. www.example.net. 192.0.2.1".into()));
    assert_eq!(told("e"), (0, "printer.local.".into()), "nobody outside is asked");
}

#[test]
fn devices_are_looked_at_again_once_a_policy_is_in_force() {
    let house = House::new(|_| {});
    let again = || {
        let waiting = std::pin::pin!(house.core.devices.to_be_made_anew());
        waiting.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    };

    house.core.put_in_force(house.policy.clone());
    assert!(again());
    assert!(!again());
    let after = Arc::new(Policy::build(house.policy.config.clone(), Some(&house.policy)).unwrap());
    assert!(house.core.replace(&house.policy, after));

    assert!(again());
}

#[test]
fn rfc6303_a_zone_without_names_has_a_soa_and_an_ns_record_and_nothing_below() {
    let house = House::new(|_| {});
    let mut out = Vec::new();
    let mut told = |name: &str, rtype| {
        assert_eq!(ask(&house, name, rtype, &mut out), Step::Done(Outcome::Special), "{name}");
        let said = message(&out);
        let records: Vec<_> = said.answers.iter().map(|one| format!("{} {}", one.name, one.data)).collect();
        (u16::from(said.metadata.response_code), records, said.authorities.len())
    };

    for zone in ["10.in-addr.arpa", "d.f.ip6.arpa", "onion", "home.arpa", "resolver.arpa", "64.100.in-addr.arpa"] {
        assert_eq!(told(zone, qtype::NS), (0, vec![format!("{zone}. localhost.")], 0), "{zone}");
        assert_eq!(told(zone, qtype::SOA).1.len(), 1, "{zone}");
        assert_eq!(told(zone, qtype::PTR), (0, vec![], 1), "{zone}");
    }
    assert_eq!(told("1.10.in-addr.arpa", qtype::NS), (3, vec![], 1));
    assert_eq!(told("_dns.resolver.arpa", qtype::NS), (0, vec![], 1));
}

#[test]
fn rules_of_the_hour_are_in_force_with_the_policy() {
    let always = "00:00-24:00".parse().unwrap();
    let kids = Group { offline: crate::dns::filter::Spans::new([always]), ..group("default", None, &[]) };
    let house = House::new(|config| config.groups = vec![kids]);

    house.core.put_in_force(house.policy.clone());

    assert!(house.policy.filter.is_offline(crate::dns::filter::GroupId::DEFAULT));
}

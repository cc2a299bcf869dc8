//! The order of the product: what happens to a query, in one function.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::op::Message;

use super::{
    BlockAs, Core,
    cache::{Age, Stored},
    counters::{Dropped, Outcome, Transport},
    encode::{self, Ede, Head, QNAME, Section, rcode, record},
    filter::Verdict,
    local::{self, Local, SpecialAnswer},
    policy::Policy,
    query::{IN, Query, Question, Unfit, qtype},
};
use crate::{
    limit::{Client, Rate},
    origin::{NetworkId, Networks, Origin, Source},
};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// Where from.
    pub(crate) source: Source,
    /// The address.
    pub(crate) client: IpAddr,
    /// By what way.
    pub(crate) transport: Transport,
}

impl Asker {
    /// This box and a router that speaks for the whole house are bounded as a whole only.
    pub(crate) fn is_limited(&self) -> bool {
        !self.source.relay && self.source.origin != Origin::Lan(NetworkId::HOST)
    }
}

/// What a query is answered by, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// What outlives reloads.
    pub(crate) core: &'a Core,
    /// The rules.
    pub(crate) policy: &'a Policy,
    /// The LAN.
    pub(crate) networks: &'a Networks,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// For limits.
    pub(crate) instant: Instant,
}

/// What came of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is said.
    Silence(Dropped),
    /// The answer is written.
    Done(Outcome),
    /// The answer is written, and should soon be asked anew.
    Refresh(Outcome, Question),
    /// Others must be asked this first; then call again with what they said.
    Ask(Question),
}

/// Generous: a page of many names after a pause, and every device of a busy household behind one /64.
const LAN_RATE: Rate = Rate::new(1000, 5000).unwrap();

/// Seconds that the answer to a blocked name may be cached by the client: short, so that it notices an allow.
const BLOCKED_TTL: u32 = 60;

/// Answers a query: refused origin, local records and special names, rules of the client's group, cache,
/// others, rules on CNAME targets, answer. `resolved` is what others said, the second time round.
pub(crate) fn answer(
    view: &View<'_>,
    asker: &Asker,
    bytes: &[u8],
    resolved: Option<&Arc<Stored>>,
    out: &mut Vec<u8>,
) -> Step {
    let policy = view.policy;
    out.clear();

    // Refused origin: never an open resolver. Only a router of the house is answered although it is Wan.
    if asker.source.origin == Origin::Wan && !asker.source.relay {
        return Step::Silence(Dropped::Origin);
    }
    if resolved.is_none() && asker.is_limited() {
        let limits = &view.core.limits;
        if limits.check(Client::of(asker.client), LAN_RATE, view.instant).is_err() {
            return Step::Silence(Dropped::Limit);
        }
    }

    // What is no question for us.
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(unfit) => {
            return match encode::unfit(bytes, unfit, out) {
                false => Step::Silence(Dropped::NoQuery),
                true if unfit == Unfit::Opcode => Step::Done(Outcome::Refused),
                true => Step::Done(Outcome::Malformed),
            };
        }
    };
    let limit = asker.transport.limit(query.edns);
    let code = |code, ede, out: &mut Vec<u8>| {
        encode::start(&query, Head::code(code), out);
        encode::finish(&query, code, ede, limit, out);
    };
    if query.edns.is_some_and(|edns| edns.version > 0) {
        code(rcode::BADVERS, None, out);
        return Step::Done(Outcome::Malformed);
    }
    match (query.qclass, query.qtype) {
        (IN, qtype::ANY) => {
            // RFC 8482 §4.2: a made-up record instead of all there are.
            encode::start(&query, Head::code(rcode::NOERROR), out);
            record(out, Section::Answer, QNAME, qtype::HINFO, 3600, b"\x07RFC8482\0");
            encode::finish(&query, rcode::NOERROR, None, limit, out);
            return Step::Done(Outcome::Special);
        }
        // Zone transfers, and types that are no types of records (RFC 6895 §3.1).
        (IN, 251 | 252) => {
            code(rcode::REFUSED, Some(Ede::Prohibited), out);
            return Step::Done(Outcome::Refused);
        }
        (IN, 0 | qtype::OPT | 128..=254) => {
            code(rcode::NOTIMP, None, out);
            return Step::Done(Outcome::Refused);
        }
        (IN, _) => {}
        _ => {
            code(rcode::REFUSED, None, out);
            return Step::Done(Outcome::Refused);
        }
    }

    // Local records.
    encode::start(&query, Head::local(rcode::NOERROR), out);
    let alias = match policy.records.answer(&query, view.networks, out) {
        Local::Absent => None,
        Local::Alias(target) => Some(target),
        found @ (Local::Answered | Local::NoData) => {
            if found == Local::NoData {
                local::no_data(&query, out);
            }
            encode::finish(&query, rcode::NOERROR, None, limit, out);
            return Step::Done(Outcome::Local);
        }
    };

    // Special-use names.
    if alias.is_none()
        && let Some((special, zone)) = policy.special.find(query.name(), query.qtype)
    {
        special_answer(policy, &query, special, zone, limit, out);
        return Step::Done(Outcome::Special);
    }

    // Rules of the client's group.
    let group = policy.filter.group_of(asker.source.origin, asker.client, asker.source.relay);
    // The other planes ask for what their own configuration names.
    let mut allowed = asker.transport == Transport::House;
    match policy.filter.verdict(group, query.name(), query.qtype) {
        _ if allowed => {}
        Verdict::Pass => {}
        Verdict::Allow(_) => allowed = true,
        Verdict::Block { answer, .. } => return blocked(&query, answer, limit, out),
    }

    // Cache, then others.
    let question = |name: &[u8]| {
        let mut question = query.question();
        question.name = name.to_ascii_lowercase().into();
        question
    };
    let cached;
    let (stored, outcome, ending) = match resolved {
        Some(stored) => (stored, resolved_outcome(stored), false),
        None => {
            let found = match alias {
                None => view.core.cache.find(&query),
                Some(target) => view.core.cache.find_question(&question(target)),
            };
            let age = found.as_ref().map_or(Age::Dead, |stored| stored.age(view.now));
            match found {
                Some(stored) if matches!(age, Age::Fresh | Age::Ending) => {
                    cached = stored;
                    let outcome = if cached.ede == Some(Ede::Stale) { Outcome::Stale } else { Outcome::Cached };
                    (&cached, outcome, age == Age::Ending)
                }
                // Without RD only what is known already is told.
                _ if !query.recursion_desired() => {
                    code(rcode::REFUSED, None, out);
                    return Step::Done(Outcome::Refused);
                }
                _ => return Step::Ask(alias.map_or_else(|| query.question(), question)),
            }
        }
    };

    // Rules on CNAME targets: cached answers are judged for this client, by the rules of this moment.
    if !allowed {
        let targets = alias.map(|target| target.to_ascii_lowercase());
        let targets = targets.as_deref().into_iter().chain(stored.aliases.iter().map(|alias| &**alias));
        for target in targets {
            match policy.filter.verdict(group, target, query.qtype) {
                Verdict::Pass => {}
                Verdict::Allow(_) => break,
                Verdict::Block { answer, .. } => return blocked(&query, answer, limit, out),
            }
        }
    }

    match alias {
        None => stored.write(&query, view.now, out),
        Some(_) => append(&query, stored, view.now, out),
    }
    encode::finish(&query, stored.rcode, stored.ede, limit, out);
    match ending && policy.config.prefetch && stored.claim_refresh() {
        true => Step::Refresh(outcome, alias.map_or_else(|| query.question(), question)),
        false => Step::Done(outcome),
    }
}

fn resolved_outcome(stored: &Stored) -> Outcome {
    match (stored.ede, stored.rcode) {
        (Some(Ede::Stale), _) => Outcome::Stale,
        (_, rcode::SERVFAIL) => Outcome::Failed,
        _ => Outcome::Resolved,
    }
}

fn special_answer(
    policy: &Policy,
    query: &Query<'_>,
    special: SpecialAnswer,
    zone: usize,
    limit: usize,
    out: &mut Vec<u8>,
) {
    let top = query.name().len() == zone;
    let code = match special {
        // RFC 8020: a name above others exists.
        SpecialAnswer::Nothing if !top && !policy.records.has_below(query.name()) => rcode::NXDOMAIN,
        _ => rcode::NOERROR,
    };
    encode::start(query, Head::local(code), out);
    match (special, query.qtype) {
        (SpecialAnswer::Loopback, qtype::A) => record(out, Section::Answer, QNAME, qtype::A, 3600, &[127, 0, 0, 1]),
        (SpecialAnswer::Loopback, qtype::AAAA) => {
            let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
            record(out, Section::Answer, QNAME, qtype::AAAA, 3600, &loopback);
        }
        _ => local::nothing(query, zone, out),
    }
    encode::finish(query, code, None, limit, out);
}

fn blocked(query: &Query<'_>, as_: BlockAs, limit: usize, out: &mut Vec<u8>) -> Step {
    let code = match as_ {
        BlockAs::NxDomain => rcode::NXDOMAIN,
        BlockAs::Refused => rcode::REFUSED,
        BlockAs::Null | BlockAs::NoData | BlockAs::Address(_) => rcode::NOERROR,
    };
    encode::start(query, Head::code(code), out);
    let mut address = |rtype, octets: &[u8]| record(out, Section::Answer, QNAME, rtype, BLOCKED_TTL, octets);
    match (as_, query.qtype) {
        (BlockAs::Null, qtype::A) => address(qtype::A, &[0; 4]),
        (BlockAs::Null, qtype::AAAA) => address(qtype::AAAA, &[0; 16]),
        (BlockAs::Address(IpAddr::V4(v4)), qtype::A) => address(qtype::A, &v4.octets()),
        (BlockAs::Address(IpAddr::V6(v6)), qtype::AAAA) => address(qtype::AAAA, &v6.octets()),
        (BlockAs::Refused, _) => {}
        _ => local::no_data(query, out),
    }
    encode::finish(query, code, Some(Ede::Blocked), limit, out);
    Step::Done(Outcome::Blocked)
}

/// Writes the records of an answer behind the CNAME records of the house that led to it.
fn append(query: &Query<'_>, stored: &Stored, now: u64, out: &mut Vec<u8>) {
    let Ok(message) = Message::from_vec(&stored.message) else { return };
    let head = Head { rcode: stored.rcode, authoritative: false, authentic: false };
    if let Some(flags) = out.get_mut(2..4) {
        flags.copy_from_slice(&encode::flags(query, head));
    }
    let sections = [(Section::Answer, &message.answers), (Section::Authority, &message.authorities)];
    for (section, records) in sections {
        for one in records {
            let (Some(owner), Some(rdata)) = (local::encoded(&one.name), local::encoded(&one.data)) else { continue };
            let ttl = one.ttl.saturating_sub(stored.seconds_old(now));
            record(out, section, &owner, one.record_type().into(), ttl, &rdata);
        }
    }
}

/// The client has waited long enough to be given an expired answer (RFC 8767 §5).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Asks others and answers. `None` says nothing is said.
pub(crate) async fn answer_later(
    core: &Arc<Core>,
    policy: &Arc<Policy>,
    asker: &Asker,
    bytes: &[u8],
    question: Question,
) -> Option<Vec<u8>> {
    let fetch = core.flights.fetch(core, policy, question.clone());
    tokio::pin!(fetch);
    let stored = match tokio::time::timeout(STALE_AFTER, &mut fetch).await {
        Ok(stored) => stored,
        Err(_) => {
            let now = core.clock.seconds();
            match core.cache.find_question(&question).filter(|known| known.age(now) == Age::Stale) {
                Some(known) => Some(Arc::new(known.gone_stale(now))),
                None => fetch.await,
            }
        }
    };
    let mut out = Vec::new();
    let networks = core.networks.load();
    let now = core.clock.seconds();
    let view = View { core, policy, networks: &networks, now, instant: Instant::now() };
    let step = match &stored {
        Some(stored) => answer(&view, asker, bytes, Some(stored), &mut out),
        // The task that asked fell over.
        None => give_up(bytes, asker, Ede::NetworkError, &mut out),
    };
    match step {
        Step::Done(outcome) | Step::Refresh(outcome, _) => core.series.answered(asker.transport, outcome),
        Step::Silence(reason) => core.series.dropped(reason),
        Step::Ask(_) => return None,
    }
    (!out.is_empty()).then_some(out)
}

/// Answers SERVFAIL without having asked.
pub(crate) fn give_up(bytes: &[u8], asker: &Asker, ede: Ede, out: &mut Vec<u8>) -> Step {
    let Ok(query) = Query::parse(bytes) else { return Step::Silence(Dropped::NoQuery) };
    let limit = asker.transport.limit(query.edns);
    encode::start(&query, Head::code(rcode::SERVFAIL), out);
    encode::finish(&query, rcode::SERVFAIL, Some(ede), limit, out);
    Step::Done(Outcome::Failed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        dns::{
            Device, Group,
            fuzz::{self, House, asker},
            query::tests::query,
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
        let stored = Stored::new(out.into(), aliases, (0, true, None), now, ttl, 3600).unwrap();
        house.core.cache.keep(&asked.question(), Arc::new(stored));
    }

    fn group(name: &str, peer: Option<PeerId>, block: &[&str]) -> Group {
        Group {
            name: name.into(),
            devices: peer.map(Device::Peer).into_iter().collect(),
            lists: Vec::new(),
            allow: Vec::new(),
            block: block.iter().map(|name| name.parse().unwrap()).collect(),
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
    fn a_client_that_asks_without_end_is_not_answered_any_more() {
        let house = House::new(|_| {});
        let bytes = query("localhost", qtype::A, None);
        let mut out = Vec::new();

        let last = (0..10_000).map(|_| house.answer(&asker(LAN), &bytes, 0, &mut out)).last();

        assert_eq!(last, Some(Step::Silence(Dropped::Limit)));
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
        assert_eq!(house.answer(&asker(Origin::Vpn(tablet)), &bytes, 0, &mut out), Step::Done(Outcome::Blocked));
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

        assert_eq!(step, Step::Done(Outcome::Blocked));
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
}

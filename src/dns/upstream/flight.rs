//! One question is asked once, however many wait for it; what comes of it is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

use super::{Resolved, Security, dns64, rebind};
use crate::{
    dns::{
        Core,
        cache::{Age, Stored},
        encode::{Ede, Section, Writer, rcode},
        policy::Policy,
        query::{Question, qtype},
        resolver::{
            budget::Means,
            driver::Wanted,
            name::Name,
            wire::{Record, target},
        },
        room::Place,
    },
    supervise,
};

type Landing = watch::Receiver<Option<Arc<Stored>>>;

/// The questions that are under way. Each holds a place in the [`crate::dns::room::Room`] until it is over.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Question, Landing>>);

/// Seconds that a failure is remembered (RFC 9520 §3.2: at least 1, and not above 300).
const FAILURE_LIFETIME: u32 = 5;

/// Seconds that a failure to reach anybody, and what stands in for it, is kept: when the way out is there again,
/// the house is to notice. The resolver knows by itself whom not to ask meanwhile.
const OUTAGE_LIFETIME: u32 = 1;

/// The longest that an answer is kept, by us and by the house, which was not checked because the clock is not right.
const UNCHECKED_LIFETIME: u32 = 30;

/// The longest that a negative answer is kept (RFC 2308 §5).
const LONGEST_NEGATIVE: u32 = 3 * 3600;

impl Flights {
    /// Asks others, or waits with those who asked already. `None`: whoever asked fell over.
    pub(crate) async fn fetch(
        &self,
        core: &Arc<Core>,
        policy: &Arc<Policy>,
        question: Question,
        place: &Arc<Place>,
    ) -> Option<Arc<Stored>> {
        let mut landing = self.join(core, policy, question, Wanted::Known, place.clone());
        landing.wait_for(Option::is_some).await.ok().and_then(|stored| stored.clone())
    }

    /// Asks others without waiting for what they say.
    pub(crate) fn refresh(&self, core: &Arc<Core>, policy: &Arc<Policy>, question: Question, place: Place) {
        let _ = self.join(core, policy, question, Wanted::Renewed, place.into());
    }

    fn join(
        &self,
        core: &Arc<Core>,
        policy: &Arc<Policy>,
        question: Question,
        wanted: Wanted,
        place: Arc<Place>,
    ) -> Landing {
        let mut flights = self.lock();
        if let Some(landing) = flights.get(&question) {
            return landing.clone();
        }
        let (tell, landing) = watch::channel(None);
        flights.insert(question.clone(), landing.clone());
        drop(flights);
        let flight = Flight { core: core.clone(), question, wanted, means: place.means };
        let policy = policy.clone();
        // A task of its own: it ends as it likes when the client who asked first goes away.
        supervise::task("dns question", async move {
            let stored = flight.ask(&policy).await;
            drop(flight);
            drop(place);
            tell.send_replace(Some(stored));
        });
        landing
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, Landing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question under way; when it is dropped, also by a panic, it is no more.
struct Flight {
    core: Arc<Core>,
    question: Question,
    wanted: Wanted,
    means: Means,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.core.flights.lock().remove(&self.question);
    }
}

impl Flight {
    /// Asks, and makes what DNS64 makes; of that it is said whether what it was made of leads into the house.
    async fn resolve(&self, policy: &Policy) -> (Resolved, Option<bool>) {
        let (upstream, question) = (policy.asks(self.question.way), &self.question);
        let ask = async |question| upstream.resolve(question, self.wanted, self.means).await;
        let Some(prefix) = policy.config.dns64 else { return (ask(question).await, None) };
        if let Some(own) = dns64::own(prefix, question) {
            return (own, Some(false));
        }
        if let Some(forward) = dns64::forward(prefix, question) {
            return (dns64::back(question, &forward, ask(&forward).await), None);
        }
        let first = ask(question).await;
        let leads_home = first.answers.iter().any(|record| rebind::is_home(record) || dns64::is_home(prefix, record));
        let Some(of_ipv4) = dns64::wants(question, &first) else { return (first, Some(leads_home)) };
        let second = ask(&of_ipv4).await;
        match dns64::synthesise(prefix, &first, &second) {
            Some(made) => (made, Some(second.answers.iter().any(rebind::is_home))),
            None => (first, Some(leads_home)),
        }
    }

    async fn ask(&self, policy: &Policy) -> Arc<Stored> {
        let (core, question) = (&self.core, &self.question);
        let started = Instant::now();
        let (resolved, leads_home) = self.resolve(policy).await;
        core.series.upstream_took(started.elapsed());
        let now = core.clock.seconds();
        // What is kept outlives the policy that the question began with.
        let in_force = core.policy.load_full();
        let judge = in_force.as_deref().unwrap_or(policy);
        if is_failure(resolved.rcode) {
            // RFC 8767 §5: an expired answer is better than none. A validation failure is no failure to ask.
            if resolved.security != Security::Bogus
                && let Some(known) = core.cache.find_question(question)
            {
                match known.age(now) {
                    Age::Fresh | Age::Ending => return known.shared(),
                    Age::Stale => {
                        let stale = Arc::new(known.gone_stale(now));
                        core.cache.keep(question, stale.clone());
                        return stale;
                    }
                    Age::Dead => {}
                }
            }
        }
        let (stored, lifetime) = store(policy, question, (resolved, leads_home), now);
        let stored = Arc::new(stored);
        if lifetime > 0 && judge.asks_as(policy) {
            core.cache.keep(question, stored.clone());
            let replaced = core.policy.load_full().as_ref().map(Arc::as_ptr) != in_force.as_ref().map(Arc::as_ptr);
            if replaced {
                // The cache may have been cleared before this came in.
                core.cache.forget(question);
            }
        }
        stored
    }
}

fn is_failure(code: u16) -> bool {
    !matches!(code, rcode::NOERROR | rcode::NXDOMAIN | rcode::YXDOMAIN)
}

/// Makes of what others said what clients are given, and says for how long.
fn store(
    policy: &Policy,
    question: &Question,
    (mut resolved, leads_home): (Resolved, Option<bool>),
    now: u64,
) -> (Stored, u32) {
    if is_failure(resolved.rcode) {
        // What others refuse is a failure for our client.
        resolved.rcode = rcode::SERVFAIL;
        resolved.ede = resolved.ede.or(Some(Ede::NetworkError));
        resolved.answers.clear();
        resolved.authorities.clear();
    }
    let bounds = &policy.config.ttl;
    let most = if resolved.ede == Some(Ede::ClockUnset) { UNCHECKED_LIFETIME } else { u32::MAX };
    let clamp = |ttl: u32| ttl.clamp(*bounds.start(), *bounds.end()).min(most);
    let keeps = |record: &Record| {
        let dnssec = matches!(record.rtype, qtype::RRSIG | qtype::NSEC | qtype::NSEC3);
        question.dnssec_ok || !dnssec || record.rtype == question.qtype
    };
    resolved.answers.retain(keeps);
    resolved.answers = in_order(question, resolved.answers);
    let positive = resolved.answers.iter().any(|record| record.rtype == question.qtype);
    // Who else is an authority is no answer, except where nothing else is (RFC 2308 §2.1); what proves something is.
    resolved.authorities.retain(|record| {
        let subject = covered(record).unwrap_or(record.rtype);
        let proof = matches!(subject, qtype::NSEC | qtype::NSEC3);
        keeps(record) && (proof || !positive && matches!(subject, qtype::SOA | qtype::NS))
    });
    for record in &mut resolved.answers {
        record.ttl = clamp(record.ttl);
    }
    let soa = resolved.authorities.iter().filter(|record| record.rtype == qtype::SOA).find_map(|record| {
        let minimum = record.rdata.last_chunk::<4>()?;
        Some(record.ttl.min(u32::from_be_bytes(*minimum)))
    });
    let negative = soa.map(|ttl| ttl.min(LONGEST_NEGATIVE).min(*bounds.end()).min(most));
    for record in &mut resolved.authorities {
        record.ttl = record.ttl.min(negative.unwrap_or(*bounds.end())).min(most);
    }
    let shortest = resolved.answers.iter().map(|record| record.ttl).min();
    let lifetime = match resolved.rcode {
        _ if matches!(resolved.ede, Some(Ede::NoReachableAuthority | Ede::Stale | Ede::StaleNxDomain)) => {
            OUTAGE_LIFETIME
        }
        rcode::SERVFAIL => FAILURE_LIFETIME,
        _ if positive => shortest.unwrap_or(0),
        // RFC 2308 §5: without SOA a negative answer is not kept.
        _ => negative.unwrap_or(0).min(shortest.unwrap_or(u32::MAX)),
    };
    let secure = resolved.security == Security::Secure;
    let ede = resolved.ede;
    let head = (resolved.rcode, secure, ede);
    let aliases = resolved.answers.iter().filter_map(|record| Some(leads_to(record)?.as_wire().into()));
    let aliases = aliases.collect();
    let leads_home = leads_home.unwrap_or_else(|| resolved.answers.iter().any(rebind::is_home));
    // What has expired already does not begin a second life, and what nobody checked does not outlive the reason.
    let checked = resolved.ede != Some(Ede::ClockUnset);
    let stale = if checked && lifetime > OUTAGE_LIFETIME { policy.config.stale.as_secs() } else { 0 };
    let written = message(question, &resolved);
    let stored = written.and_then(|bytes| Stored::new(question, &bytes, aliases, head, now, lifetime, stale));
    match stored {
        Some(mut stored) => {
            stored.leads_home = leads_home;
            (stored, lifetime)
        }
        // What does not fit into a message is a failure.
        None => {
            let failed = Resolved::failed(Ede::NetworkError);
            let bytes = message(question, &failed).expect("a question alone fits into a message");
            let head = (rcode::SERVFAIL, false, Some(Ede::NetworkError));
            let stored = Stored::new(question, &bytes, Box::default(), head, now, FAILURE_LIFETIME, 0);
            (stored.expect("a message of ours can be walked"), FAILURE_LIFETIME)
        }
    }
}

/// Returns the name that a record leads to, if it is another one.
fn leads_to(record: &Record) -> Option<Name> {
    match record.rtype {
        qtype::CNAME => target(&record.rdata),
        // RFC 9460 §2.5: the root is the owner itself.
        qtype::SVCB | qtype::HTTPS => {
            let (target, _) = Name::split_from(record.rdata.get(2..)?)?;
            (target.as_wire().len() > 1).then_some(target)
        }
        _ => None,
    }
}

/// Returns the type that a signature covers.
fn covered(record: &Record) -> Option<u16> {
    let covered = record.rdata.first_chunk::<2>().filter(|_| record.rtype == qtype::RRSIG)?;
    Some(u16::from_be_bytes(*covered))
}

/// Puts aliases before what they lead to: clients read an answer from its beginning (RFC 1034 §4.3.2).
fn in_order(question: &Question, mut answers: Vec<Record>) -> Vec<Record> {
    let Some(mut name) = Name::from_wire(&question.name) else { return answers };
    let mut ordered = Vec::with_capacity(answers.len());
    while !answers.is_empty() {
        let rewrites =
            |record: &Record| name.is_below(&record.name) && covered(record).unwrap_or(record.rtype) == qtype::DNAME;
        let (dnames, rest): (Vec<_>, Vec<_>) = answers.into_iter().partition(rewrites);
        let (here, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|record| record.name == name);
        answers = rest;
        let alias = here.iter().find(|record| record.rtype == qtype::CNAME);
        let next = alias.and_then(|record| target(&record.rdata));
        ordered.extend(dnames);
        ordered.extend(here);
        let Some(next) = next else { break };
        name = next;
    }
    ordered.extend(answers);
    ordered
}

fn message(question: &Question, resolved: &Resolved) -> Option<Box<[u8]>> {
    let mut writer = Writer::new(&question.name, question.qtype);
    for (section, records) in [(Section::Answer, &resolved.answers), (Section::Authority, &resolved.authorities)] {
        for record in records {
            writer.record(section, record);
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::dns::{
        Resolve, Upstream, WAITING_EACH,
        answer::{Asker, View},
        encode::{self, Head, QNAME, Section},
        fuzz::{self, House},
        query::{Query, qtype, tests::query},
        server,
    };
    use crate::origin::{Origin, PeerId};

    /// A house whose upstream server is not there.
    fn cut_off() -> House {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        House::new(|config| config.resolve = Resolve::Forward(vec![Upstream::plain(address)]))
    }

    fn known(age: u64, lifetime: u32, now: u64) -> (Question, Arc<Stored>) {
        known_as("www.example", age, lifetime, now)
    }

    fn known_as(name: &str, age: u64, lifetime: u32, now: u64) -> (Question, Arc<Stored>) {
        let bytes = query(name, qtype::A, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::code(0), &mut out);
        encode::record(&mut out, Section::Answer, QNAME, 1, lifetime, &[192, 0, 2, 1]);
        let question = asked.question();
        let (head, stored) = ((0, false, None), now - age);
        let stored = Stored::new(&question, &out, Box::default(), head, stored, lifetime, 3600).unwrap();
        (question, Arc::new(stored))
    }

    #[tokio::test]
    async fn rfc8767_an_expired_answer_stands_in_for_a_failure_and_for_a_while_only() {
        for (age, rcode, ede) in [
            (400, rcode::NOERROR, Some(Ede::Stale)),
            (300 + 3600, rcode::SERVFAIL, Some(Ede::NoReachableAuthority)),
            (100, rcode::NOERROR, None),
        ] {
            let house = cut_off();
            let now = house.core.clock.seconds();
            let (question, stored) = known(age, 300, now);
            house.core.cache.keep(&question, stored);
            let place = Arc::new(house.core.room.enter(None).unwrap());

            let given = house.core.flights.fetch(&house.core, &house.policy, question.clone(), &place).await.unwrap();

            assert_eq!((given.rcode, given.ede), (rcode, ede), "{age}");
            let kept = house.core.cache.find_question(&question).unwrap();
            assert_eq!(kept.ede, ede, "{age}");
            // The house notices when somebody can be reached again.
            assert_eq!(kept.age(now + 2) == Age::Fresh, ede.is_none(), "{age}");
            assert!(house.core.flights.lock().is_empty());
        }
    }

    #[tokio::test]
    async fn a_prefetch_holds_a_place_and_is_left_out_where_there_is_none() {
        // It never answers.
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let upstream = Upstream::plain(server.local_addr().unwrap());
        let house = House::new(|config| config.resolve = Resolve::Forward(vec![upstream]));
        let core = &house.core;
        let now = core.clock.seconds();
        let asker = fuzz::asker(Origin::Vpn(PeerId(1)));
        let view = View::new(core, &house.policy, core.clock.milliseconds(), Instant::now());
        let ask = |name: &str| {
            let bytes = query(name, qtype::A, None);
            let (question, stored) = known_as(name, 290, 300, now);
            core.cache.keep(&question, stored);
            server::handle(core, &view, &house.policy, &asker, &bytes, &mut Vec::new());
        };

        for number in 0..WAITING_EACH + 5 {
            ask(&format!("{number:03}.example"));
        }
        tokio::task::yield_now().await;

        assert_eq!(core.room.taken(), WAITING_EACH);
        assert_eq!(core.flights.lock().len(), WAITING_EACH);
    }

    #[tokio::test]
    async fn who_asks_for_much_that_nobody_knows_has_it_looked_up_for_less() {
        let house = cut_off();
        let core = &house.core;
        let view = View::new(core, &house.policy, core.clock.milliseconds(), Instant::now());
        let means = |address: &str| {
            let asker = Asker { client: address.parse().unwrap(), ..fuzz::asker(Origin::Vpn(PeerId(1))) };
            let bytes = query("www.example", qtype::A, None);
            match server::handle(core, &view, &house.policy, &asker, &bytes, &mut Vec::new()) {
                server::Handled::Later(waiting) => waiting.place.means,
                server::Handled::Now(_) => panic!("it is not known"),
            }
        };

        let all: Vec<Means> = (0..700).map(|_| means("10.77.0.2")).collect();

        assert_eq!(all.iter().position(|means| *means == Means::Reduced), Some(600));
        assert_eq!(all.last(), Some(&Means::Reduced));
        assert_eq!(means("10.77.0.3"), Means::Full, "another client has a share of its own");
    }

    #[test]
    fn negative_answers_are_kept_as_long_as_their_soa_says() {
        let house = cut_off();
        let (question, _) = known(0, 1, 10);
        let soa = |ttl, minimum: u32| {
            let mut rdata = vec![0; 2 + 16];
            rdata.extend(minimum.to_be_bytes());
            vec![Record { name: Name::root(), rtype: qtype::SOA, class: 1, ttl, rdata: rdata.into() }]
        };
        let lifetime = |authorities| {
            let negative = Resolved { rcode: rcode::NXDOMAIN, authorities, ..Resolved::failed(Ede::NetworkError) };
            let negative = Resolved { ede: None, ..negative };
            store(&house.policy, &question, (negative, None), 10).1
        };

        assert_eq!(lifetime(soa(900, 60)), 60);
        assert_eq!(lifetime(soa(30, 60)), 30);
        assert_eq!(lifetime(soa(999_999, 999_999)), LONGEST_NEGATIVE);
        assert_eq!(lifetime(Vec::new()), 0);
    }

    #[test]
    fn what_was_not_checked_for_want_of_a_clock_is_kept_for_half_a_minute() {
        let house = cut_off();
        let (question, _) = known(0, 1, 10);
        let unchecked = |ede| {
            let record = Record {
                name: Name::parse("www.example").unwrap(),
                rtype: qtype::A,
                class: 1,
                ttl: 86400,
                rdata: [192, 0, 2, 1][..].into(),
            };
            let answer = Resolved { rcode: rcode::NOERROR, ede, ..Resolved::failed(Ede::NetworkError) };
            let (stored, lifetime) =
                store(&house.policy, &question, (Resolved { answers: vec![record], ..answer }, None), 10);
            (lifetime, stored.age(10 + 31) == Age::Fresh, stored.age(10 + 31) == Age::Stale)
        };

        assert_eq!(unchecked(None), (86400, true, false));
        assert_eq!(unchecked(Some(Ede::ClockUnset)), (UNCHECKED_LIFETIME, false, false));
    }

    #[test]
    fn aliases_stand_before_what_they_lead_to() {
        let (question, _) = known(0, 1, 10);
        let name = |text| Name::parse(text).unwrap();
        let record =
            |owner, rtype, rdata: &[u8]| Record { name: name(owner), rtype, class: 1, ttl: 60, rdata: rdata.into() };
        let alias = |owner, to| record(owner, qtype::CNAME, name(to).as_wire());
        let shuffled = vec![
            record("d.new.example", qtype::A, &[192, 0, 2, 1]),
            alias("b.example", "d.old.example"),
            alias("d.old.example", "d.new.example"),
            record("old.example", qtype::DNAME, name("new.example").as_wire()),
            alias("www.example", "b.example"),
            alias("stray.example", "www.example"),
        ];

        let names: Vec<_> = in_order(&question, shuffled).iter().map(|one| one.name.to_string()).collect();

        let wanted =
            ["www.example.", "b.example.", "old.example.", "d.old.example.", "d.new.example.", "stray.example."];
        assert_eq!(names, wanted);
    }

    #[tokio::test]
    async fn an_answer_made_under_another_prefix_is_not_kept() {
        let house = cut_off();
        let mut config = house.policy.config.clone();
        config.dns64 = Some(crate::dns::config::Dns64("2001:db8:64::/96".parse().unwrap()));
        let after = Arc::new(Policy::build(config, Some(&house.policy)).unwrap());
        house.core.put_in_force(after);
        let (question, _) = known(0, 300, 0);
        let place = Arc::new(house.core.room.enter(None).unwrap());

        house.core.flights.fetch(&house.core, &house.policy, question.clone(), &place).await.unwrap();

        assert!(house.core.cache.find_question(&question).is_none());
    }
}

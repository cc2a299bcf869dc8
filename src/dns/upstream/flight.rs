//! One question is asked once, however many wait for it; what comes of it is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hickory_proto::{
    dnssec::rdata::DNSSECRData,
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::sync::watch;

use super::{Resolved, Security, hickory_query};
use crate::{
    dns::{
        Core,
        cache::{Age, Stored},
        encode::{Ede, rcode},
        local,
        policy::Policy,
        query::Question,
    },
    supervise,
};

type Landing = watch::Receiver<Option<Arc<Stored>>>;

/// The questions that are under way. They are bounded by [`crate::dns::room::Room`].
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Question, Landing>>);

/// Seconds that a failure is remembered (RFC 9520 §3.2: at least 1, and not above 300).
const FAILURE_LIFETIME: u32 = 5;

/// The longest that a negative answer is kept (RFC 2308 §5).
const LONGEST_NEGATIVE: u32 = 3 * 3600;

/// Seconds that a refused private address is remembered.
const FILTERED_LIFETIME: u32 = 60;

impl Flights {
    /// Asks others, or waits with those who asked already. `None`: whoever asked fell over.
    pub(crate) async fn fetch(
        &self,
        core: &Arc<Core>,
        policy: &Arc<Policy>,
        question: Question,
    ) -> Option<Arc<Stored>> {
        let mut landing = self.join(core, policy, question);
        landing.wait_for(Option::is_some).await.ok().and_then(|stored| stored.clone())
    }

    /// Asks others without waiting for what they say.
    pub(crate) fn refresh(&self, core: &Arc<Core>, policy: &Arc<Policy>, question: Question) {
        let _ = self.join(core, policy, question);
    }

    fn join(&self, core: &Arc<Core>, policy: &Arc<Policy>, question: Question) -> Landing {
        let mut flights = self.lock();
        if let Some(landing) = flights.get(&question) {
            return landing.clone();
        }
        let (tell, landing) = watch::channel(None);
        flights.insert(question.clone(), landing.clone());
        drop(flights);
        let flight = Flight { core: core.clone(), question };
        let policy = policy.clone();
        // A task of its own: it ends as it likes when the client who asked first goes away.
        supervise::task("dns question", async move {
            let stored = flight.ask(&policy).await;
            drop(flight);
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
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.core.flights.lock().remove(&self.question);
    }
}

impl Flight {
    async fn ask(&self, policy: &Policy) -> Arc<Stored> {
        let (core, question) = (&self.core, &self.question);
        let started = Instant::now();
        let mut resolved = policy.upstream.load_full().resolve(question).await;
        core.series.upstream_took(started.elapsed());
        let now = core.clock.seconds();
        if is_failure(resolved.rcode) {
            // RFC 8767 §5: an expired answer is better than none. A validation failure is no failure to ask.
            if resolved.security != Security::Bogus
                && let Some(known) = core.cache.find_question(question)
            {
                match known.age(now) {
                    Age::Fresh | Age::Ending => return known,
                    Age::Stale => {
                        let stale = Arc::new(known.gone_stale(now));
                        core.cache.keep(question, stale.clone());
                        return stale;
                    }
                    Age::Dead => {}
                }
            }
        } else if leads_home(policy, question, &resolved) {
            tracing::debug!("private address under a public name refused");
            resolved = Resolved::negative(ResponseCode::NoError, Vec::new(), Security::Insecure);
            resolved.ede = Some(Ede::Filtered);
        }
        let (stored, lifetime) = store(policy, question, resolved, now);
        let stored = Arc::new(stored);
        if lifetime > 0 {
            core.cache.keep(question, stored.clone());
        }
        stored
    }
}

fn is_failure(code: u16) -> bool {
    !matches!(code, rcode::NOERROR | rcode::NXDOMAIN)
}

/// Says whether an answer is a rebinding attack, or looks like one.
fn leads_home(policy: &Policy, question: &Question, resolved: &Resolved) -> bool {
    let allowed = |name: &[u8]| policy.rebind_allow.iter().any(|zone| local::covers(zone, name));
    let private = |record: &Record| match record.data {
        RData::A(a) => local::is_private(a.0.into()),
        RData::AAAA(aaaa) => local::is_private(aaaa.0.into()),
        _ => false,
    };
    resolved.answers.iter().any(private) && !allowed(&question.name)
}

/// Makes of what others said what clients are given, and says for how long.
fn store(policy: &Policy, question: &Question, mut resolved: Resolved, now: u64) -> (Stored, u32) {
    if is_failure(resolved.rcode) {
        // What others refuse is a failure for our client.
        resolved.rcode = rcode::SERVFAIL;
        resolved.ede = resolved.ede.or(Some(Ede::NetworkError));
        resolved.answers.clear();
        resolved.authorities.clear();
    }
    let bounds = &policy.config.ttl;
    let clamp = |ttl: u32| ttl.clamp(*bounds.start(), *bounds.end());
    let keeps = |record: &Record| {
        let rtype = record.record_type();
        let dnssec = matches!(rtype, RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3);
        question.dnssec_ok || !dnssec || u16::from(rtype) == question.qtype
    };
    resolved.answers.retain(keeps);
    resolved.answers = in_order(question, resolved.answers);
    let positive = resolved.answers.iter().any(|record| u16::from(record.record_type()) == question.qtype);
    // Who else is an authority is no answer; what proves something is.
    resolved.authorities.retain(|record| {
        let subject = match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => signature.input().type_covered,
            _ => record.record_type(),
        };
        let proof = matches!(subject, RecordType::NSEC | RecordType::NSEC3);
        keeps(record) && (proof || !positive && subject == RecordType::SOA)
    });
    for record in &mut resolved.answers {
        record.ttl = clamp(record.ttl);
    }
    let soa = resolved.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    let negative = soa.map(|ttl| ttl.min(LONGEST_NEGATIVE).min(*bounds.end()));
    for record in &mut resolved.authorities {
        record.ttl = record.ttl.min(negative.unwrap_or(*bounds.end()));
    }
    let shortest = resolved.answers.iter().map(|record| record.ttl).min();
    let lifetime = match resolved.rcode {
        rcode::SERVFAIL => FAILURE_LIFETIME,
        _ if resolved.ede == Some(Ede::Filtered) => FILTERED_LIFETIME,
        _ if positive => shortest.unwrap_or(0),
        // RFC 2308 §5: without SOA a negative answer is not kept.
        _ => negative.unwrap_or(0).min(shortest.unwrap_or(u32::MAX)),
    };
    let secure = resolved.security == Security::Secure;
    let ede = resolved.ede;
    let head = (resolved.rcode, secure, ede);
    let aliases = resolved.answers.iter().filter_map(|record| match &record.data {
        RData::CNAME(target) => local::encoded(&target.0.to_lowercase()),
        _ => None,
    });
    let aliases = aliases.collect();
    let stale = if lifetime > 0 { policy.config.stale.as_secs() } else { 0 };
    let stored = message(question, resolved).and_then(|bytes| Stored::new(bytes, aliases, head, now, lifetime, stale));
    match stored {
        Some(stored) => (stored, lifetime),
        // What does not fit into a message is a failure.
        None => {
            let failed = Resolved::failed(Ede::NetworkError);
            let bytes = message(question, failed).expect("a question alone fits into a message");
            let head = (rcode::SERVFAIL, false, Some(Ede::NetworkError));
            let stored = Stored::new(bytes, Box::default(), head, now, FAILURE_LIFETIME, 0);
            (stored.expect("a message of ours can be walked"), FAILURE_LIFETIME)
        }
    }
}

/// Puts aliases before what they lead to: clients read an answer from its beginning (RFC 1034 §4.3.2).
fn in_order(question: &Question, mut answers: Vec<Record>) -> Vec<Record> {
    let Some(mut name) = hickory_query(question).map(|query| query.name) else { return answers };
    let mut ordered = Vec::with_capacity(answers.len());
    while !answers.is_empty() {
        let (here, rest): (Vec<_>, Vec<_>) = answers.into_iter().partition(|record| record.name == name);
        answers = rest;
        let target = here.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        ordered.extend(here);
        let Some(target) = target else { break };
        name = target;
    }
    // DNAME records and their signatures stand elsewhere in the tree.
    ordered.extend(answers);
    ordered
}

fn message(question: &Question, resolved: Resolved) -> Option<Box<[u8]>> {
    let query = hickory_query(question)?;
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    let name = query.name().clone();
    message.add_query(query);
    for mut record in resolved.answers {
        // The name as it was asked for, so that a pointer to the question can stand for it.
        if record.name == name {
            record.name = name.clone();
        }
        message.add_answer(record);
    }
    for record in resolved.authorities {
        message.add_authority(record);
    }
    let bytes = message.to_vec().ok()?;
    // hickory cuts what is too long and says so.
    (bytes.get(2)? & 0x02 == 0).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::dns::{
        Resolve, Transport, Upstream,
        encode::{self, Head, QNAME, Section},
        fuzz::House,
        query::{Query, qtype, tests::query},
    };

    /// A house whose upstream server is not there.
    fn cut_off() -> House {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let upstream = Upstream { address, transport: Transport::Plain };
        House::new(|config| config.resolve = Resolve::Forward(vec![upstream]))
    }

    fn known(age: u64, lifetime: u32, now: u64) -> (Question, Arc<Stored>) {
        let bytes = query("www.example", qtype::A, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::code(0), &mut out);
        encode::record(&mut out, Section::Answer, QNAME, 1, lifetime, &[192, 0, 2, 1]);
        let stored = Stored::new(out.into(), Box::default(), (0, false, None), now - age, lifetime, 3600).unwrap();
        (asked.question(), Arc::new(stored))
    }

    #[tokio::test]
    async fn rfc8767_an_expired_answer_stands_in_for_a_failure_and_for_a_while_only() {
        let house = cut_off();
        let now = house.core.clock.seconds();
        for (age, rcode, ede) in [
            (400, rcode::NOERROR, Some(Ede::Stale)),
            (300 + 3600, rcode::SERVFAIL, Some(Ede::NoReachableAuthority)),
            (100, rcode::NOERROR, None),
        ] {
            let (question, stored) = known(age, 300, now);
            house.core.cache.keep(&question, stored);

            let given = house.core.flights.fetch(&house.core, &house.policy, question.clone()).await.unwrap();

            assert_eq!((given.rcode, given.ede), (rcode, ede), "{age}");
            let kept = house.core.cache.find_question(&question).unwrap();
            assert_eq!(kept.ede, ede, "{age}");
        }
        assert!(house.core.flights.lock().is_empty());
    }

    #[test]
    fn negative_answers_are_kept_as_long_as_their_soa_says() {
        let house = cut_off();
        let (question, _) = known(0, 1, 10);
        let soa = |ttl, minimum| {
            let root = hickory_proto::rr::Name::root();
            let soa = hickory_proto::rr::rdata::SOA::new(root.clone(), root.clone(), 1, 2, 3, 4, minimum);
            vec![Record::from_rdata(root, ttl, RData::SOA(soa))]
        };
        let lifetime = |authorities| {
            let negative = Resolved::negative(ResponseCode::NXDomain, authorities, Security::Insecure);
            store(&house.policy, &question, negative, 10).1
        };

        assert_eq!(lifetime(soa(900, 60)), 60);
        assert_eq!(lifetime(soa(30, 60)), 30);
        assert_eq!(lifetime(soa(999_999, 999_999)), LONGEST_NEGATIVE);
        assert_eq!(lifetime(Vec::new()), 0);
    }

    #[test]
    fn aliases_stand_before_what_they_lead_to() {
        let (question, _) = known(0, 1, 10);
        let record = |name: &str, data| Record::from_rdata(name.parse().unwrap(), 60, data);
        let address = RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
        let alias = |target: &str| RData::CNAME(hickory_proto::rr::rdata::CNAME(target.parse().unwrap()));
        let shuffled = vec![
            record("c.example.", address),
            record("b.example.", alias("c.example.")),
            record("www.example.", alias("b.example.")),
            record("stray.example.", alias("www.example.")),
        ];

        let names: Vec<_> = in_order(&question, shuffled).iter().map(|one| one.name.to_string()).collect();

        assert_eq!(names, ["www.example.", "b.example.", "c.example.", "stray.example."]);
    }
}

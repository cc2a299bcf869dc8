//! The order of the product: what happens to a query, in one function.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::Guard;

use super::{
    BlockAs, Client, ClientName, Core, Rebind,
    cache::{Age, Stored},
    counters::{Dropped, Outcome, Transport},
    encode::{self, Ede, Head, Limit, QNAME, Section, rcode, record},
    filter::{Members, Rewrite, RuleSource, Verdict},
    local::{self, Local, Records, SpecialAnswer},
    policy::Policy,
    query::{Edns, IN, Query, Question, Unfit, Way, qtype},
    resolver::wire::Message,
    room::Place,
};
use crate::{
    limit::{self, Rate},
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
    /// What it calls itself there.
    pub(crate) name: Option<ClientName>,
}

impl Asker {
    /// Returns what groups of devices are told by.
    pub(crate) fn client(&self) -> Client {
        let Source { origin, relay } = self.source;
        Client { origin, address: self.client, relay, name: self.name }
    }

    /// This box and a router that speaks for the whole house are bounded as a whole only.
    pub(crate) fn is_limited(&self) -> bool {
        !self.source.relay && self.source.origin != Origin::Lan(NetworkId::HOST) && self.transport != Transport::House
    }

    /// What an answer to this client may be and carries besides.
    fn limit(&self, query: &Query<'_>, core: &Core, now: u64) -> Limit {
        let cookie = query.edns.and_then(|edns| edns.cookie);
        let asks = |what: fn(&Edns) -> bool| query.edns.as_ref().is_some_and(what);
        Limit {
            bytes: self.transport.limit(query.edns),
            cookie: cookie.map(|cookie| core.cookies.both(cookie.client, self.client, now)),
            keepalive: (self.transport.keeps_alive() && asks(|edns| edns.keepalive)).then_some(KEEPALIVE),
            padded: self.transport.is_encrypted() && asks(|edns| edns.padded),
        }
    }

    /// Says whether the answer cannot go to somebody else.
    fn is_proven(&self, query: &Query<'_>, core: &Core, now: u64) -> bool {
        let cookie = query.edns.and_then(|edns| edns.cookie);
        self.transport.is_proven() || cookie.is_some_and(|cookie| core.cookies.is_ours(&cookie, self.client, now))
    }
}

/// What queries are answered by at one moment: looked up once for all that came together.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// What outlives reloads.
    pub(crate) core: &'a Core,
    /// The rules.
    pub(crate) policy: &'a Policy,
    /// The LAN.
    pub(crate) networks: Guard<Arc<Networks>>,
    /// Names of the house.
    records: Guard<Arc<Records>>,
    /// Addresses whose device is known.
    members: Guard<Arc<Members>>,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// For limits.
    pub(crate) instant: Instant,
}

impl<'a> View<'a> {
    /// Looks at what there is now.
    pub(crate) fn new(core: &'a Core, policy: &'a Policy, at: i64, instant: Instant) -> Self {
        let now = u64::try_from(at / 1000).unwrap_or_default();
        policy.filter.keep_time(now);
        let (networks, records, members) =
            (core.networks.load(), policy.records.load(), policy.filter.members().load());
        Self { core, policy, networks, records, members, at, now, instant }
    }
}

/// What came of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is said.
    Silence(Dropped),
    /// The answer is written.
    Done(Outcome),
    /// The answer that a rule wants is written.
    Blocked(RuleSource),
    /// The answer is written, and should soon be asked anew.
    Refresh(Outcome, Question),
    /// Others must be asked this first; then call again with what they said.
    Ask(Question),
}

impl Step {
    /// Returns what came of it, where an answer was written.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Done(outcome) | Self::Refresh(outcome, _) => Some(*outcome),
            Self::Blocked(_) => Some(Outcome::Blocked),
            Self::Silence(_) | Self::Ask(_) => None,
        }
    }
}

/// Questions of one client. Generous: a page of many names after a pause, and every device of a busy household
/// behind one /64.
const RATE: Rate = Rate::new(1000, 5000).unwrap();

/// What clients who ask are told of how long a connection may be idle: 20 s, in units of 100 ms.
const KEEPALIVE: u16 = 200;

/// Seconds that the answer to a blocked name may be cached by the client: short, so that it notices an allow.
const BLOCKED_TTL: u32 = 60;

/// Answers a query: refused origin, local records and special names, rules of the client's group, cache,
/// others, rules on CNAME targets, answer. `resolved` is what others said, the second time round.
pub(crate) fn answer(
    view: &View<'_>,
    asker: &Asker,
    bytes: &[u8],
    resolved: Option<&Stored>,
    out: &mut Vec<u8>,
) -> Step {
    let policy = view.policy;
    out.clear();

    // Refused origin: never an open resolver. A router of the house is answered although it is Wan, and who
    // comes by HTTPS was let in by the ingress's table.
    if asker.source.origin == Origin::Wan && !asker.source.relay && asker.transport != Transport::Https {
        return Step::Silence(Dropped::Origin);
    }
    // Who only claims an address does not spend what its owner has.
    let within = |proven: bool| {
        let limits = &view.core.limits;
        resolved.is_some()
            || !asker.is_limited()
            || limits.check_key((limit::Client::of(asker.client), proven), RATE, view.instant).is_ok()
    };

    // What is no question for us.
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(_) if !within(asker.transport.is_proven()) => return Step::Silence(Dropped::Limit),
        Err(unfit) => {
            return match encode::unfit(bytes, unfit, out) {
                false => Step::Silence(Dropped::NoQuery),
                true if unfit == Unfit::Opcode => Step::Done(Outcome::Refused),
                true => Step::Done(Outcome::Malformed),
            };
        }
    };
    let limit = asker.limit(&query, view.core, view.now);
    let proven = asker.is_proven(&query, view.core, view.now);
    if !within(proven) {
        // Half of what is too much is told to come by TCP: an answer no longer than the question, with which a
        // client whose address others use gets through.
        if proven || query.id()[1] & 1 == 1 {
            return Step::Silence(Dropped::Limit);
        }
        encode::start(&query, Head::code(rcode::NOERROR), out);
        encode::truncate(&query, out);
        encode::finish(&query, rcode::NOERROR, None, limit, out);
        return Step::Done(Outcome::Limited);
    }
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

    // Local records, and the names of routes.
    encode::start(&query, Head::local(rcode::NOERROR), out);
    let records = &view.records;
    let found = house(view, asker, records, (query.name(), QNAME, query.qtype), out);
    let alias = match found {
        Local::Absent => None,
        Local::Alias(target) => Some(target),
        Local::NoName => {
            encode::set_flags(&query, Head::local(rcode::NXDOMAIN), out);
            encode::finish(&query, rcode::NXDOMAIN, None, limit, out);
            return Step::Done(Outcome::Local);
        }
        found @ (Local::Answered | Local::NoData | Local::Denied) => {
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
        let exists = records.has_below(query.name()) || policy.routes.has(query.name(), asker.source.origin);
        special_answer(exists, &query, special, zone, limit, out);
        return Step::Done(Outcome::Special);
    }

    // Rules of the client's group.
    if resolved.is_none()
        && asker.transport == Transport::Udp
        && view.core.devices.is_stranger(asker, &policy.filter, &view.networks)
        && view.core.strangers.is_due(asker.client, view.now)
    {
        // Room for nothing but the question.
        encode::start(&query, Head::code(rcode::NOERROR), out);
        encode::finish(&query, rcode::NOERROR, None, 0, out);
        return Step::Done(Outcome::Special);
    }
    let asking = policy.filter.asking_among(&view.members, &asker.client(), view.now);
    // The other planes ask for what their own configuration names.
    let is_house = asker.transport == Transport::House;
    let mut allowed = is_house;
    if policy.filter.is_offline(asking.group()) && !is_house {
        return blocked(policy, &query, BlockAs::Null, RuleSource::Group(asking.group()), limit, out);
    }
    // Another name that is answered for this one.
    let mut instead: Option<&[u8]> = None;
    match policy.filter.verdict(asking, query.name(), query.qtype) {
        _ if allowed => {}
        Verdict::Pass => {}
        Verdict::Allow(_) => allowed = true,
        Verdict::Block { answer, source } => {
            if policy.filter.leads_past(source) {
                view.core.past.tell(asker, asking, source, &policy.filter, (query.name(), view.now));
            }
            return blocked(policy, &query, answer, source, limit, out);
        }
        Verdict::Silence(_) => return Step::Silence(Dropped::Rule),
        // A name of the house is what its owner wrote.
        Verdict::Rewrite { .. } if alias.is_some() => {}
        Verdict::Rewrite { rewrite, source } => match policy.filter.alias(rewrite) {
            Some(target) => instead = Some(target),
            None => return rewritten(policy, &query, rewrite, source, limit, out),
        },
    }

    // Search engines that answer for children.
    if instead.is_none() && alias.is_none() && !is_house {
        instead = policy.filter.safe_search(asking, query.name());
    }
    let mut alias = alias;
    if let Some(target) = instead {
        encode::start(&query, Head::code(rcode::NOERROR), out);
        record(out, Section::Answer, QNAME, qtype::CNAME, BLOCKED_TTL, target);
        // It may be a name of the house.
        let lower = target.to_ascii_lowercase();
        alias = match house(view, asker, records, (&lower, target, query.qtype), out) {
            Local::Absent if policy.special.find(&lower, query.qtype).is_none() => Some(target),
            Local::Alias(next) => Some(next),
            found => {
                let code = if found == Local::NoName { rcode::NXDOMAIN } else { rcode::NOERROR };
                if found == Local::NoData {
                    local::no_data(&query, out);
                }
                encode::set_flags(&query, Head::code(code), out);
                encode::finish(&query, code, None, limit, out);
                return Step::Done(Outcome::Local);
            }
        };
    }

    // Cache, then others.
    let way = if is_house { Way::HOUSE } else { policy.ways.of(asking.group()) };
    let own = || Question { way, ..query.question() };
    let question = |name: &[u8]| Question { name: name.to_ascii_lowercase().into(), ..own() };
    let cached;
    let (stored, outcome, ending) = match resolved {
        Some(stored) => (stored, resolved_outcome(stored), false),
        None => {
            let found = match alias {
                None => view.core.cache.find(&query, way),
                Some(target) => view.core.cache.find_question(&question(target)),
            };
            let age = found.as_ref().map_or(Age::Dead, |stored| stored.age(view.now));
            match found {
                Some(stored) if matches!(age, Age::Fresh | Age::Ending) => {
                    cached = stored;
                    let outcome = if cached.ede == Some(Ede::Stale) { Outcome::Stale } else { Outcome::Cached };
                    (&*cached, outcome, age == Age::Ending)
                }
                // Without RD only what is known already is told.
                _ if !query.recursion_desired() => {
                    code(rcode::REFUSED, None, out);
                    return Step::Done(Outcome::Refused);
                }
                _ => return Step::Ask(alias.map_or_else(own, question)),
            }
        }
    };

    // Rules on CNAME targets: cached answers are judged for this client, by the rules of this moment.
    if !allowed {
        let targets = alias.map(|target| target.to_ascii_lowercase());
        let targets = targets.as_deref().into_iter().chain(stored.aliases.iter().map(|alias| &**alias));
        for target in targets {
            match policy.filter.verdict(asking, target, query.qtype) {
                Verdict::Pass => {}
                Verdict::Allow(_) => break,
                Verdict::Block { answer, source } => return blocked(policy, &query, answer, source, limit, out),
                Verdict::Silence(_) => return Step::Silence(Dropped::Rule),
                Verdict::Rewrite { rewrite, source } => match policy.filter.alias(rewrite) {
                    // It is answered as the rule wants already.
                    Some(to) if to.eq_ignore_ascii_case(target) => {}
                    Some(to) if alias.is_some_and(|alias| to.eq_ignore_ascii_case(alias)) => {}
                    // One question is answered as one other name only.
                    Some(_) => return blocked(policy, &query, BlockAs::Null, source, limit, out),
                    None => return rewritten(policy, &query, rewrite, source, limit, out),
                },
            }
        }
        if policy.filter.judges_addresses() {
            for address in stored.addresses() {
                match policy.filter.verdict_on_address(asking, query.name(), query.qtype, address) {
                    Verdict::Pass => {}
                    Verdict::Allow(_) => break,
                    Verdict::Block { answer, source } => return blocked(policy, &query, answer, source, limit, out),
                    Verdict::Silence(_) => return Step::Silence(Dropped::Rule),
                    Verdict::Rewrite { rewrite, source } => {
                        return rewritten(policy, &query, rewrite, source, limit, out);
                    }
                }
            }
        }
    }

    // A public name that leads into the house.
    if stored.leads_home
        && policy.filter.rebind(asking) == Rebind::Refused
        && !policy.may_lead_home(alias.unwrap_or(query.name()))
    {
        code(rcode::NOERROR, Some(Ede::Filtered), out);
        return Step::Done(Outcome::Blocked);
    }

    match alias {
        None => stored.write(&query, view.now, out),
        Some(_) => append(&query, stored, view.now, out),
    }
    encode::finish(&query, stored.rcode, stored.ede, limit, out);
    match ending && policy.config.prefetch && stored.claim_refresh() {
        true => Step::Refresh(outcome, alias.map_or_else(own, question)),
        false => Step::Done(outcome),
    }
}

/// Answers for a name of the house, in wire form and lower case, behind `owner`.
fn house<'a>(
    view: &View<'_>,
    asker: &Asker,
    records: &'a Records,
    question: (&[u8], &[u8], u16),
    out: &mut Vec<u8>,
) -> Local<'a> {
    let (policy, origin) = (view.policy, asker.source.origin);
    let (name, _, qtype) = question;
    let begun = encode::Begun::of(out);
    match records.answer(question, &view.networks, out) {
        Local::Absent => known(view, asker, question, out),
        // A zone does not know the names of routes and peers in it.
        denied @ (Local::NoName | Local::Denied) if !records.has_data(name) => {
            begun.forget_what_follows(out);
            match known(view, asker, question, out) {
                Local::Absent => {
                    records.deny(name, out);
                    // RFC 8020: it has records of other types, or something below it has.
                    if policy.routes.has(name, origin) { Local::Denied } else { denied }
                }
                found => found,
            }
        }
        // A name of the house may lead to a route or a peer, also in a zone of the house.
        Local::Alias(target) => {
            let lower = target.to_ascii_lowercase();
            match known(view, asker, (&lower, target, qtype), out) {
                Local::Absent => match records.deny(&lower, out) {
                    // Strangers are not asked for what has no place in the public DNS.
                    Local::Absent if policy.special.find(&lower, qtype).is_some() => Local::Answered,
                    Local::Absent => Local::Alias(target),
                    Local::NoName if policy.routes.has(&lower, origin) => Local::Denied,
                    denied => denied,
                },
                found => found,
            }
        }
        found => found,
    }
}

/// Answers for a name of a route, a peer, or this server, behind `owner`.
fn known(view: &View<'_>, asker: &Asker, question: (&[u8], &[u8], u16), out: &mut Vec<u8>) -> Local<'static> {
    let (policy, origin) = (view.policy, asker.source.origin);
    match policy.routes.answer(question, origin, asker.client, &view.networks, out) {
        Local::Absent => match policy.peers.answer(question, origin, asker.client, out) {
            Local::Absent => {
                policy.discovery.as_ref().map_or(Local::Absent, |discovery| discovery.answer(question, origin, out))
            }
            found => found,
        },
        found => found,
    }
}

fn resolved_outcome(stored: &Stored) -> Outcome {
    match (stored.ede, stored.rcode) {
        (Some(Ede::Stale | Ede::StaleNxDomain), _) => Outcome::Stale,
        (_, rcode::SERVFAIL) => Outcome::Failed,
        _ => Outcome::Resolved,
    }
}

fn special_answer(
    exists: bool,
    query: &Query<'_>,
    special: SpecialAnswer,
    zone: usize,
    limit: Limit,
    out: &mut Vec<u8>,
) {
    let top = query.name().len() == zone;
    let code = match special {
        // RFC 8020: a name above others exists.
        SpecialAnswer::Nothing if !top && !exists => rcode::NXDOMAIN,
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

fn blocked(
    policy: &Policy,
    query: &Query<'_>,
    as_: BlockAs,
    source: RuleSource,
    limit: Limit,
    out: &mut Vec<u8>,
) -> Step {
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
    // RFC 8914 §4.16, §4.18: what the house does not give, and what was taken out for this client.
    let ede = match source {
        RuleSource::List(_) | RuleSource::Past(_) | RuleSource::Kept(_) => Ede::Blocked,
        RuleSource::Group(_) | RuleSource::Service(_) => Ede::Filtered,
    };
    let reason = if policy.config.block_reason { policy.filter.source_name(source) } else { "" };
    encode::finish_saying(query, code, Some((ede, reason)), limit, out);
    Step::Blocked(source)
}

/// Answers with the records that a list gives instead.
fn rewritten(
    policy: &Policy,
    query: &Query<'_>,
    rewrite: Rewrite,
    source: RuleSource,
    limit: Limit,
    out: &mut Vec<u8>,
) -> Step {
    encode::start(query, Head::code(rcode::NOERROR), out);
    let mut any = false;
    policy.filter.records(rewrite, query.qtype, |data| {
        any = true;
        record(out, Section::Answer, QNAME, query.qtype, BLOCKED_TTL, data);
    });
    if !any {
        local::no_data(query, out);
    }
    let reason = if policy.config.block_reason { policy.filter.source_name(source) } else { "" };
    // RFC 8914 §4.5: the answer is not what its authority says.
    encode::finish_saying(query, rcode::NOERROR, Some((Ede::Forged, reason)), limit, out);
    Step::Blocked(source)
}

/// Writes the records of an answer behind the CNAME records of the house that led to it.
fn append(query: &Query<'_>, stored: &Stored, now: u64, out: &mut Vec<u8>) {
    let Ok(message) = Message::parse(stored.message()) else { return };
    let head = Head { rcode: stored.rcode, authoritative: false, authentic: false };
    encode::set_flags(query, head, out);
    let sections = [(Section::Answer, &message.answer), (Section::Authority, &message.authority)];
    for (section, records) in sections {
        for one in records {
            let ttl = one.ttl.saturating_sub(stored.seconds_old(now));
            record(out, section, one.name.as_wire(), one.rtype, ttl, &one.rdata);
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
    place: &Arc<Place>,
) -> Option<Vec<u8>> {
    let begun = Instant::now();
    let fetch = core.flights.fetch(core, policy, question.clone(), place);
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
    let view = View::new(core, policy, core.clock.milliseconds(), Instant::now());
    let step = match &stored {
        Some(stored) => answer(&view, asker, bytes, Some(&**stored), &mut out),
        // The task that asked fell over.
        None => give_up(core, bytes, asker, Ede::NetworkError, &mut out),
    };
    view.report(asker, bytes, &step, begun.elapsed());
    match (step.outcome(), step) {
        (Some(outcome), _) => core.series.answered(asker.transport, outcome),
        (None, Step::Silence(reason)) => core.series.dropped(reason),
        (None, _) => return None,
    }
    (!out.is_empty()).then_some(out)
}

/// Answers SERVFAIL without having asked.
pub(crate) fn give_up(core: &Core, bytes: &[u8], asker: &Asker, ede: Ede, out: &mut Vec<u8>) -> Step {
    let Ok(query) = Query::parse(bytes) else { return Step::Silence(Dropped::NoQuery) };
    let limit = asker.limit(&query, core, core.clock.seconds());
    encode::start(&query, Head::code(rcode::SERVFAIL), out);
    encode::finish(&query, rcode::SERVFAIL, Some(ede), limit, out);
    Step::Done(Outcome::Failed)
}

#[cfg(test)]
mod tests;

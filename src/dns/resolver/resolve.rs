//! One question's course: aliases followed, each name looked up in the cache or with servers, checked and
//! kept.

use std::{collections::HashSet, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use super::{
    Answer, Asked, Placed, Shared,
    budget::Budget,
    cache::{ANY_TYPE, Denial, Entry, Kept},
    iterate::{Errand, Failure, Fetched},
    name::Name,
    reply::{Class, Reply, address, alias},
    rrset::{Rrset, Security},
    signature::Rrsig,
    validate::Verdict,
    why::Why,
    wire::{Question, rcode, rtype, target},
};

/// Work for one question ends after this, also that which only fills the cache.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a failure is kept (RFC 9520 §2.2: at least 1 s, at most 5 min).
const FAILED_FOR: Duration = Duration::from_secs(5);
/// How long a bogus answer is kept.
const BOGUS_FOR: Duration = Duration::from_secs(60);
/// A denial without SOA says nothing of how long it holds.
const BARE_DENIAL: u32 = 5;
/// RFC 2308 §5.
const LONGEST_DENIAL: u32 = 3 * 3600;

/// Data as it came.
pub(super) struct Raw {
    pub(super) kept: Kept,
    /// Who said it just now; `None` from the cache.
    pub(super) server: Option<IpAddr>,
    /// Seconds.
    pub(super) ttl: u32,
}

/// What is known of one name and type.
#[derive(Clone)]
struct Step {
    kept: Kept,
    security: Security,
    why: Option<Why>,
    ttl: u32,
    server: Option<IpAddr>,
}

impl Shared {
    /// Answers a client's question, whatever happens.
    pub(super) async fn answer(&self, asked: &Asked) -> Answer {
        let budget = Rc::new(Budget::new(self.config.limits));
        let errand = Errand { budget: budget.clone(), path: vec![asked.question.clone()] };
        let deadline = self.now() + LONGEST;
        let course = self.follow(&asked.question, !asked.checking_disabled, &errand);
        let result = self.courses.before(deadline, course).await.unwrap_or(Err(Failure::Unreachable));
        let mut answer = match result {
            Ok(answer) if answer.security == Security::Bogus && !asked.checking_disabled => {
                failed(answer.why.unwrap_or(Why::Bogus), answer.ttl)
            }
            Ok(answer) if !asked.checking_disabled && self.is_sentinel_failure(&asked.question, &answer) => {
                failed(Why::Bogus, answer.ttl)
            }
            Ok(answer) => answer,
            Err(failure) => {
                let why = match failure {
                    Failure::Unreachable => Why::NoReachableAuthority,
                    Failure::Useless => Why::NetworkError,
                    Failure::Spent => Why::BudgetSpent,
                    Failure::Cached => Why::CachedFailure,
                };
                if failure != Failure::Cached {
                    self.keep_failure(&asked.question);
                }
                failed(why, u32::try_from(FAILED_FOR.as_secs()).expect("a few seconds"))
            }
        };
        answer.cost = budget.used();
        answer
    }

    /// RFC 8509: a name asks whether a key is an anchor, and SERVFAIL is one of the answers.
    fn is_sentinel_failure(&self, question: &Question, answer: &Answer) -> bool {
        let asked = matches!(question.rtype, rtype::A | rtype::AAAA) && answer.security == Security::Secure;
        let Some(label) = question.name.labels().next().filter(|_| asked) else { return false };
        let number = |tag: &[u8]| std::str::from_utf8(tag).ok().filter(|tag| tag.len() == 5)?.parse::<u16>().ok();
        let is = label.strip_prefix(b"root-key-sentinel-is-ta-").and_then(number);
        let not = label.strip_prefix(b"root-key-sentinel-not-ta-").and_then(number);
        is.is_some_and(|tag| !self.config.anchors.root_has(tag))
            || not.is_some_and(|tag| self.config.anchors.root_has(tag))
    }

    async fn follow(&self, question: &Question, checked: bool, errand: &Errand) -> Result<Answer, Failure> {
        let mut answer = Answer {
            rcode: rcode::NOERROR,
            answer: Vec::new(),
            authority: Vec::new(),
            security: Security::Secure,
            why: None,
            ttl: *self.config.ttl.end(),
            cost: errand.budget.used(),
        };
        let mut question = question.clone();
        let mut seen = HashSet::from([question.name.clone()]);
        loop {
            let step = self.step(&question, checked, errand).await?;
            answer.security = answer.security.min(step.security);
            answer.why = answer.why.or(step.why);
            answer.ttl = answer.ttl.min(step.ttl);
            let place = |set: Arc<Rrset>| Placed { set, ttl: step.ttl };
            let next = match step.kept {
                Kept::Failure => return Err(Failure::Cached),
                Kept::Denial(denial) => {
                    answer.rcode = if denial.name_error { rcode::NXDOMAIN } else { rcode::NOERROR };
                    let servers = denial.servers.iter().filter(|_| step.security != Security::Secure);
                    answer.authority.extend(denial.soa.iter().chain(servers).chain(&denial.proof).cloned().map(place));
                    return Ok(answer);
                }
                Kept::Set(set, proof) => {
                    for set in proof {
                        if !answer.authority.iter().any(|placed| placed.set == set) {
                            answer.authority.push(place(set));
                        }
                    }
                    let data = set.data.first().and_then(|data| target(data));
                    let kind = set.rtype;
                    let owner = set.name.clone();
                    answer.answer.push(place(set));
                    if kind == question.rtype {
                        return Ok(answer);
                    }
                    let Some(to) = data else { return Err(Failure::Useless) };
                    if kind == rtype::DNAME {
                        let Some(to) = question.name.substitute(&owner, &to) else {
                            // RFC 6672 §2.2: the name would be too long.
                            answer.rcode = rcode::YXDOMAIN;
                            return Ok(answer);
                        };
                        answer.answer.push(place(Arc::new(alias(&question.name, &to, step.ttl))));
                        to
                    } else {
                        to
                    }
                }
            };
            if answer.security == Security::Bogus && checked {
                return Ok(answer);
            }
            if !errand.budget.spend_alias() {
                return Err(Failure::Spent);
            }
            if !seen.insert(next.clone()) {
                return Err(Failure::Useless);
            }
            question.name = next;
        }
    }

    /// Finds what is known of one name: the set, an alias, or that there is none.
    async fn step(&self, question: &Question, checked: bool, errand: &Errand) -> Result<Step, Failure> {
        // A referral's proof that there is no DS lacks the SOA that an answer has.
        let bare = |step: &Step| matches!(&step.kept, Kept::Denial(denial) if denial.soa.is_none() && question.rtype == rtype::DS);
        let mut step = match self.from_cache(question).filter(|step| !bare(step)) {
            Some(step) => step,
            None => match self.from_proofs(question, checked, errand) {
                Some(step) => return Ok(step),
                None => self.from_servers(question, errand, &[]).await?,
            },
        };
        if !checked || step.security != Security::Unchecked {
            return Ok(step);
        }
        let mut avoid = Vec::new();
        loop {
            let verdict = match &step.kept {
                Kept::Set(set, proof) => self.check_positive(set, proof, errand).await?,
                Kept::Denial(denial) => self.check_denial(question, denial, errand).await?,
                Kept::Failure => return Ok(step),
            };
            (step.security, step.why) = match verdict {
                Verdict::Secure { ttl, .. } => {
                    step.ttl = step.ttl.min(ttl);
                    (Security::Secure, None)
                }
                Verdict::Insecure(why) => (Security::Insecure, why),
                Verdict::Bogus(why) => (Security::Bogus, Some(why)),
            };
            if step.security == Security::Bogus && avoid.is_empty() {
                // One server may be wrong where another is right.
                avoid.extend(step.server);
                self.forget_step(question, &step.kept);
                match self.from_servers(question, errand, &avoid).await {
                    Ok(other) => {
                        avoid.extend(other.server);
                        if avoid.is_empty() {
                            return Ok(step);
                        }
                        step = other;
                        continue;
                    }
                    Err(Failure::Spent) => return Err(Failure::Spent),
                    Err(_) => {}
                }
            }
            self.keep_step(question, &step);
            return Ok(step);
        }
    }

    /// Looks into the cache: the set, an alias at the name or above it, a denial of the type, of the name, or
    /// of a name above (RFC 8020).
    fn from_cache(&self, question: &Question) -> Option<Step> {
        let now = self.now();
        let mut cache = self.cache.borrow_mut();
        let mut entry = cache.fresh(&question.name, question.rtype, now);
        if entry.is_none() && !matches!(question.rtype, rtype::CNAME | rtype::DS | rtype::RRSIG) {
            entry = cache.fresh(&question.name, rtype::CNAME, now).filter(|entry| matches!(entry.kept, Kept::Set(..)));
        }
        if entry.is_none() {
            entry = cache.fresh(&question.name, ANY_TYPE, now);
        }
        let mut above = question.name.parent();
        while let (None, Some(name)) = (&entry, &above) {
            if name.is_root() {
                break;
            }
            let denied = cache.fresh(name, ANY_TYPE, now).filter(|entry| entry.security == Security::Secure);
            let rewritten = if cache.has_dnames() { cache.fresh(name, rtype::DNAME, now) } else { None };
            entry = denied.or(rewritten.filter(|entry| matches!(entry.kept, Kept::Set(..))));
            above = name.parent();
        }
        entry.map(|entry| Step {
            ttl: entry.ttl(now),
            kept: entry.kept,
            security: entry.security,
            why: entry.why,
            server: None,
        })
    }

    fn from_proofs(&self, question: &Question, checked: bool, errand: &Errand) -> Option<Step> {
        if !self.config.aggressive || !checked || self.is_untrusted(&question.name) {
            return None;
        }
        let now = self.now();
        let (kept, until) = self.proofs.borrow().answer(question, now, &errand.budget)?;
        let ttl = u32::try_from((until - now).as_secs()).unwrap_or(u32::MAX);
        Some(Step { kept, security: Security::Secure, why: None, ttl, server: None })
    }

    async fn from_servers(&self, question: &Question, errand: &Errand, avoid: &[IpAddr]) -> Result<Step, Failure> {
        let fetched = Box::pin(self.fetch(question, errand, avoid)).await?;
        let server = Some(fetched.server);
        let (kept, ttl) = self.keep(question, fetched)?;
        Ok(Step { kept, security: Security::Unchecked, why: None, ttl, server })
    }

    /// Keeps what servers said, and returns what it says of the question's own name.
    fn keep(&self, question: &Question, fetched: Fetched) -> Result<(Kept, u32), Failure> {
        let Reply { class, answer, authority } = fetched.reply;
        let proof: Vec<Arc<Rrset>> = authority
            .iter()
            .filter(|set| matches!(set.rtype, rtype::NSEC | rtype::NSEC3))
            .cloned()
            .map(Arc::new)
            .collect();
        match class {
            Class::Answer | Class::Alias(_) => {
                let mut first = None;
                let mut rewritten = false;
                for set in answer {
                    let made = rewritten && set.rtype == rtype::CNAME;
                    rewritten = set.rtype == rtype::DNAME;
                    if made {
                        continue;
                    }
                    let ttl = self.clamp(set.ttl);
                    let proof = if is_expanded(&set) { proof.clone() } else { Vec::new() };
                    let (name, kind) = (set.name.clone(), set.rtype);
                    let kept = Kept::Set(Arc::new(set), proof);
                    self.insert(&name, kind, kept.clone(), Security::Unchecked, None, ttl);
                    first.get_or_insert((kept, ttl));
                }
                first.ok_or(Failure::Useless)
            }
            Class::NoData | Class::NameError => {
                let name_error = class == Class::NameError;
                let servers = authority.iter().find(|set| set.rtype == rtype::NS && proof.is_empty()).cloned();
                let soa =
                    authority.into_iter().find(|set| set.rtype == rtype::SOA && question.name.is_under(&set.name));
                let ttl = soa.as_ref().map_or(BARE_DENIAL, denial_ttl).min(LONGEST_DENIAL);
                let ttl = self.clamp(ttl);
                let servers = servers.filter(|set| soa.as_ref().is_some_and(|soa| soa.name == set.name)).map(Arc::new);
                let denial = Kept::Denial(Arc::new(Denial { name_error, soa: soa.map(Arc::new), servers, proof }));
                let kind = if name_error { ANY_TYPE } else { question.rtype };
                self.insert(&question.name, kind, denial.clone(), Security::Unchecked, None, ttl);
                Ok((denial, ttl))
            }
            _ => Err(Failure::Useless),
        }
    }

    /// Keeps what a referral says of the zone's DS, for whoever validates below it.
    pub(super) fn keep_delegation_proof(&self, zone: &Name, reply: &Reply, expires: Duration) {
        let now = self.now();
        if self.cache.borrow_mut().fresh(zone, rtype::DS, now).is_some() {
            return;
        }
        let ttl = u32::try_from(expires.saturating_sub(now).as_secs()).unwrap_or(u32::MAX);
        if let Some(set) = reply.authority.iter().find(|set| set.rtype == rtype::DS && set.name == *zone) {
            let ttl = self.clamp(set.ttl).min(ttl);
            self.insert(zone, rtype::DS, Kept::Set(Arc::new(set.clone()), Vec::new()), Security::Unchecked, None, ttl);
            return;
        }
        let proof: Vec<Arc<Rrset>> = reply
            .authority
            .iter()
            .filter(|set| matches!(set.rtype, rtype::NSEC | rtype::NSEC3) && !set.signatures.is_empty())
            .cloned()
            .map(Arc::new)
            .collect();
        if let Some(shortest) = proof.iter().map(|set| set.ttl).min() {
            let denial = Kept::Denial(Arc::new(Denial { name_error: false, soa: None, servers: None, proof }));
            self.insert(zone, rtype::DS, denial, Security::Unchecked, None, self.clamp(shortest).min(ttl));
        }
    }

    /// Finds data without checking it: for keys and DS, which are checked by who asks.
    pub(super) async fn find_raw(
        &self,
        question: &Question,
        errand: &Errand,
        avoid: &[IpAddr],
    ) -> Result<Raw, Failure> {
        if avoid.is_empty()
            && let Some(step) = self.from_cache(question)
            && step.security != Security::Bogus
            && !matches!(step.kept, Kept::Failure)
        {
            return Ok(Raw { kept: step.kept, server: None, ttl: step.ttl });
        }
        let step = self.from_servers(question, errand, avoid).await?;
        Ok(Raw { kept: step.kept, server: step.server, ttl: step.ttl })
    }

    /// Sets what is known of an entry's security.
    pub(super) fn promote(&self, question: &Question, security: Security, why: Option<Why>, ttl: u32) {
        let now = self.now();
        let mut cache = self.cache.borrow_mut();
        if let Some(mut entry) = cache.fresh(&question.name, question.rtype, now) {
            entry.security = security;
            entry.why = why;
            entry.expires = entry.expires.min(now + Duration::from_secs(u64::from(ttl)));
            cache.insert(&question.name, question.rtype, entry);
        }
    }

    fn keep_step(&self, question: &Question, step: &Step) {
        let (name, kind) = place_of(question, &step.kept);
        let ttl = if step.security == Security::Bogus {
            step.ttl.min(u32::try_from(BOGUS_FOR.as_secs()).expect("a minute"))
        } else {
            step.ttl
        };
        self.insert(&name, kind, step.kept.clone(), step.security, step.why, ttl);
    }

    fn forget_step(&self, question: &Question, kept: &Kept) {
        let (name, kind) = place_of(question, kept);
        self.cache.borrow_mut().remove(&name, kind);
    }

    fn keep_failure(&self, question: &Question) {
        let entry = Entry {
            kept: Kept::Failure,
            security: Security::Insecure,
            why: Some(Why::CachedFailure),
            expires: self.now() + FAILED_FOR,
        };
        let mut cache = self.cache.borrow_mut();
        let known = cache.get(&question.name, question.rtype).is_some_and(|entry| !matches!(entry.kept, Kept::Failure));
        if !known {
            cache.insert(&question.name, question.rtype, entry);
        }
    }

    fn insert(&self, name: &Name, kind: u16, kept: Kept, security: Security, why: Option<Why>, ttl: u32) {
        let expires = self.now() + Duration::from_secs(u64::from(ttl));
        self.cache.borrow_mut().insert(name, kind, Entry { kept, security, why, expires });
    }

    fn clamp(&self, ttl: u32) -> u32 {
        ttl.clamp(*self.config.ttl.start(), *self.config.ttl.end())
    }

    /// Returns the addresses of a server's name, unchecked.
    pub(super) async fn addresses_of(&self, question: &Question, errand: &Errand) -> Vec<IpAddr> {
        let answer = match Box::pin(self.follow(question, false, errand)).await {
            Ok(answer) => answer,
            Err(failure) => {
                if matches!(failure, Failure::Unreachable | Failure::Useless) {
                    self.keep_failure(question);
                }
                return Vec::new();
            }
        };
        let last = answer.answer.last().filter(|placed| placed.set.rtype == question.rtype);
        last.map_or_else(Vec::new, |placed| {
            placed.set.data.iter().filter_map(|data| address(question.rtype, data)).take(8).collect()
        })
    }

    /// Returns the addresses of a server's name that are in the cache.
    pub(super) fn kept_addresses(&self, name: &Name) -> Vec<IpAddr> {
        let now = self.now();
        let mut cache = self.cache.borrow_mut();
        let mut found = Vec::new();
        for kind in [rtype::A, rtype::AAAA] {
            if let Some(Entry { kept: Kept::Set(set, _), security, .. }) = cache.fresh(name, kind, now)
                && security != Security::Bogus
            {
                found.extend(set.data.iter().filter_map(|data| address(kind, data)).take(8));
            }
        }
        found
    }
}

/// Where in the cache a piece of knowledge about a question stands.
fn place_of(question: &Question, kept: &Kept) -> (Name, u16) {
    match kept {
        Kept::Set(set, _) => (set.name.clone(), set.rtype),
        Kept::Denial(denial) if denial.name_error => (question.name.clone(), ANY_TYPE),
        _ => (question.name.clone(), question.rtype),
    }
}

/// The set says of itself that it was made from a wildcard.
fn is_expanded(set: &Rrset) -> bool {
    let own = set.name.label_count() - usize::from(set.name.is_wildcard());
    set.signatures.iter().filter_map(|rdata| Rrsig::parse(rdata)).any(|rrsig| usize::from(rrsig.labels) < own)
}

/// RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM field.
fn denial_ttl(soa: &Rrset) -> u32 {
    let minimum = soa.data.first().and_then(|data| data.last_chunk::<4>()).map(|bytes| u32::from_be_bytes(*bytes));
    minimum.unwrap_or(BARE_DENIAL).min(soa.ttl)
}

fn failed(why: Why, ttl: u32) -> Answer {
    Answer {
        rcode: rcode::SERVFAIL,
        answer: Vec::new(),
        authority: Vec::new(),
        security: if why.code() == 22 || why.code() == 23 { Security::Insecure } else { Security::Bogus },
        why: Some(why),
        ttl,
        cost: super::budget::Limits::default(),
    }
}

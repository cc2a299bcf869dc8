//! What is learnt from messages, and where in the cache it goes.

use std::{sync::Arc, time::Duration};

use super::{
    Shared,
    cache::{ANY_TYPE, Denial, Entry, Kept},
    iterate::{Failure, Fetched},
    name::Name,
    reply::{Class, Reply},
    resolve::{FAILED_FOR, Step},
    rrset::{Rrset, Security},
    signature::Rrsig,
    why::Why,
    wire::{Question, rtype},
};

/// How long a bogus answer is kept.
const BOGUS_FOR: Duration = Duration::from_secs(60);
/// A denial without SOA says nothing of how long it holds.
const BARE_DENIAL: u32 = 5;
/// RFC 2308 §5.
const LONGEST_DENIAL: u32 = 3 * 3600;

impl Shared {
    /// Keeps what servers said, and returns what it says of the question's own name.
    pub(super) fn keep(&self, question: &Question, fetched: Fetched) -> Result<(Kept, u32), Failure> {
        let Reply { class, answer, denied, authority } = fetched.reply;
        let proof: Vec<Arc<Rrset>> = authority
            .iter()
            .filter(|set| matches!(set.rtype, rtype::NSEC | rtype::NSEC3))
            .cloned()
            .map(Arc::new)
            .collect();
        // A chain may lead to names that others are asked for: of those nobody else says anything.
        let asked = self.forward_zone(&question.place());
        let is_of_asked = |name: &Name, rtype| {
            let place = Question { name: name.clone(), rtype }.place();
            self.config.forward.is_empty() || self.forward_zone(&place) == asked
        };
        match class {
            Class::Answer | Class::Alias(_) => {
                let mut first = None;
                let (mut rewritten, mut has_left) = (false, false);
                for set in answer {
                    let made = std::mem::take(&mut rewritten) && set.rtype == rtype::CNAME;
                    if set.name != question.name && !is_of_asked(&set.name, set.rtype) {
                        if set.rtype == rtype::DNAME {
                            // Above what they may speak of: what it makes holds for the one name alone.
                            continue;
                        }
                        has_left = true;
                        break;
                    }
                    rewritten = set.rtype == rtype::DNAME;
                    if made {
                        continue;
                    }
                    let ttl = self.clamp(set.ttl);
                    let proof = if is_expanded(&set) { proof.clone() } else { Vec::new() };
                    let (name, kind) = (set.name.clone(), set.rtype);
                    let kept = Kept::Set(Arc::new(set), proof);
                    if first.is_none() || !self.is_known(&name, kind) {
                        self.insert(&name, kind, kept.clone(), Security::Unchecked, None, ttl);
                    }
                    first.get_or_insert((kept, ttl));
                }
                if let (Class::Alias(name), Some(name_error)) = (class, denied) {
                    let question = Question { name, rtype: question.rtype };
                    let is_of_asked = !has_left && is_of_asked(&question.name, question.rtype);
                    if is_of_asked && !self.is_known(&question.name, question.rtype) {
                        self.keep_denial(&question, name_error, authority, proof);
                    }
                }
                first.ok_or(Failure::Useless)
            }
            Class::NoData | Class::NameError => {
                Ok(self.keep_denial(question, class == Class::NameError, authority, proof))
            }
            _ => Err(Failure::Useless),
        }
    }

    /// Says whether something that was checked still holds: what comes along with another answer does not
    /// replace it (RFC 2181 §5.4.1).
    fn is_known(&self, name: &Name, kind: u16) -> bool {
        let now = self.now();
        let mut cache = self.cache.borrow_mut();
        cache.fresh(name, kind, now).is_some_and(|entry| entry.security >= Security::Insecure)
    }

    fn keep_denial(
        &self,
        question: &Question,
        name_error: bool,
        authority: Vec<Rrset>,
        proof: Vec<Arc<Rrset>>,
    ) -> (Kept, u32) {
        let servers = authority.iter().find(|set| set.rtype == rtype::NS && proof.is_empty()).cloned();
        let soa = authority.into_iter().find(|set| set.rtype == rtype::SOA && question.name.is_under(&set.name));
        let ttl = soa.as_ref().map_or(BARE_DENIAL, denial_ttl).min(LONGEST_DENIAL);
        let ttl = self.clamp(ttl);
        let servers = servers.filter(|set| soa.as_ref().is_some_and(|soa| soa.name == set.name)).map(Arc::new);
        let denial = Kept::Denial(Arc::new(Denial { name_error, soa: soa.map(Arc::new), servers, proof }));
        let kind = if name_error { ANY_TYPE } else { question.rtype };
        self.insert(&question.name, kind, denial.clone(), Security::Unchecked, None, ttl);
        (denial, ttl)
    }

    /// Keeps what a referral says of the zone's DS, for whoever validates below it.
    pub(super) fn keep_delegation_proof(&self, zone: &Name, reply: &Reply, expires: Duration) {
        let now = self.now();
        if self.cache.borrow_mut().fresh(zone, rtype::DS, now).is_some() {
            return;
        }
        let ttl = u32::try_from(expires.saturating_sub(now).as_secs()).unwrap_or(u32::MAX);
        let signed = |set: &&Rrset| set.rtype == rtype::DS && set.name == *zone && !set.signatures.is_empty();
        if let Some(set) = reply.authority.iter().find(signed) {
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

    pub(super) fn keep_step(&self, question: &Question, step: &Step) {
        let (name, kind) = place_of(question, &step.kept);
        let ttl = if step.security == Security::Bogus {
            step.ttl.min(u32::try_from(BOGUS_FOR.as_secs()).expect("a minute"))
        } else {
            step.ttl
        };
        self.insert(&name, kind, step.kept.clone(), step.security, step.why, ttl);
    }

    pub(super) fn forget_step(&self, question: &Question, kept: &Kept) {
        let (name, kind) = place_of(question, kept);
        self.cache.borrow_mut().remove(&name, kind);
    }

    pub(super) fn keep_failure(&self, question: &Question, why: Why) {
        let entry = Entry {
            kept: Kept::Failure,
            security: Security::Insecure,
            why: Some(why),
            since: self.now(),
            expires: self.now() + FAILED_FOR,
        };
        let mut cache = self.cache.borrow_mut();
        // What could not be checked would be tried again by the next who asks, at the same cost.
        let known = cache
            .get(&question.name, question.rtype)
            .is_some_and(|entry| !matches!(entry.kept, Kept::Failure) && entry.security != Security::Unchecked);
        if !known {
            cache.insert(&question.name, question.rtype, entry);
        }
    }

    fn insert(&self, name: &Name, kind: u16, kept: Kept, security: Security, why: Option<Why>, ttl: u32) {
        let since = self.now();
        let expires = since + Duration::from_secs(u64::from(ttl));
        self.cache.borrow_mut().insert(name, kind, Entry { kept, security, why, since, expires });
    }

    pub(super) fn clamp(&self, ttl: u32) -> u32 {
        ttl.clamp(*self.config.ttl.start(), *self.config.ttl.end())
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

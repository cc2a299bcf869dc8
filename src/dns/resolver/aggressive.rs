//! Aggressive use of proofs (RFC 8198): what a checked NSEC or NSEC3 record says of names that nobody asked
//! for yet.
//!
//! Only records whose signatures held get in, under the zone that signed them; what they prove about another
//! name is then decided by the same functions as for an answer that has just come. Opted-out gaps prove
//! nothing here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    budget::Budget,
    cache::{self, Denial},
    denial::{
        Proof, Records,
        nsec3::{self, Nsec3},
    },
    name::Name,
    rrset::Rrset,
    wire::{Question, rtype},
};

/// The part of the whole that one zone can take; a zone that is full is begun anew.
const SHARE: usize = 4;
/// A record that takes more bytes is not worth keeping.
const LARGEST: usize = 4096;

type Kept = (Arc<Rrset>, Duration);

#[derive(Default)]
struct Zone {
    soa: Option<Kept>,
    by_name: BTreeMap<Name, Kept>,
    by_hash: BTreeMap<Vec<u8>, Kept>,
    parameters: Option<(u16, Vec<u8>)>,
    /// Sets that answers were made from, under the wildcard's own name (RFC 8198 §5.3).
    wildcards: HashMap<(Name, u16), Kept>,
    bytes: usize,
}

/// All zones.
pub struct Proofs {
    zones: HashMap<Name, Zone>,
    bytes: usize,
    limit: usize,
}

impl Proofs {
    /// Makes an empty one that holds so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { zones: HashMap::new(), bytes: 0, limit }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Returns about how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Finds room for a set of a zone.
    fn room(&mut self, zone: &Name, set: &Rrset) -> Option<&mut Zone> {
        let bytes = set.bytes() + 128;
        if bytes > LARGEST {
            return None;
        }
        if self.bytes + bytes > self.limit {
            self.clear();
        }
        let kept = self.zones.entry(zone.clone()).or_default();
        if kept.bytes + bytes > self.limit / SHARE {
            self.bytes -= kept.bytes;
            *kept = Zone::default();
        }
        // What takes the place of an older one is counted again: the count is too high rather than too low.
        kept.bytes += bytes;
        self.bytes += bytes;
        Some(kept)
    }

    /// Takes a record whose signature held, until a moment.
    pub fn insert(&mut self, zone: &Name, set: &Arc<Rrset>, expires: Duration) {
        let record = match set.rtype {
            rtype::NSEC3 => match Nsec3::new(zone, set) {
                Some(record) if !record.opt_out() => Some(record),
                _ => return,
            },
            _ => None,
        };
        if self.zones.get(zone).is_some_and(|kept| kept.has(set, expires)) {
            return;
        }
        let Some(kept) = self.room(zone, set) else { return };
        let entry = (set.clone(), expires);
        match (set.rtype, record) {
            (rtype::SOA, _) => kept.soa = Some(entry),
            (rtype::NSEC, _) => {
                kept.by_name.insert(set.name.clone(), entry);
            }
            (_, Some(record)) => {
                let parameters = record.parameters();
                if kept.parameters.as_ref() != Some(&parameters) {
                    // The zone was hashed anew.
                    kept.by_hash.clear();
                    kept.parameters = Some(parameters);
                }
                kept.by_hash.insert(record.hash().to_vec(), entry);
            }
            _ => {}
        }
    }

    /// Takes a checked set that was made from the wildcard under `encloser` of a zone, until a moment.
    pub fn insert_wildcard(&mut self, zone: &Name, encloser: &Name, set: &Arc<Rrset>, expires: Duration) {
        let Some(wildcard) = encloser.wildcard() else { return };
        let Some(kept) = self.room(zone, set) else { return };
        kept.wildcards.insert((wildcard, set.rtype), (set.clone(), expires));
    }

    /// Answers a question from what is known, if that suffices; for how long, too.
    pub fn answer(&self, question: &Question, now: Duration, budget: &Budget) -> Option<(cache::Kept, Duration)> {
        // DS is the parent's to deny.
        let mut at = if question.rtype == rtype::DS { question.name.parent() } else { Some(question.name.clone()) };
        while let Some(name) = at {
            if let Some(zone) = self.zones.get(&name) {
                return zone.answer(&name, question, now, budget);
            }
            at = name.parent();
        }
        None
    }
}

impl Zone {
    /// Says whether the same is kept as long.
    fn has(&self, set: &Rrset, expires: Duration) -> bool {
        let kept = match set.rtype {
            rtype::SOA => self.soa.as_ref(),
            rtype::NSEC => self.by_name.get(&set.name),
            _ => None,
        };
        kept.is_some_and(|(kept, until)| *until >= expires && kept.data == set.data)
    }

    fn answer(
        &self,
        name: &Name,
        question: &Question,
        now: Duration,
        budget: &Budget,
    ) -> Option<(cache::Kept, Duration)> {
        let fresh_soa = self.soa.as_ref().filter(|(_, until)| *until > now);
        for sets in [self.near_names(&question.name, now), self.near_hashes(name, &question.name, now, budget)] {
            let Some(until) = sets.iter().map(|(_, until)| *until).min() else { continue };
            let records = Records::new(name, sets.iter().map(|(set, _)| &**set));
            let proof = || sets.iter().map(|(set, _)| set.clone()).collect();
            if let Some((set, set_until)) = self.expand(name, question, now, &records, budget) {
                return Some((cache::Kept::Set(Arc::new(set), proof()), until.min(set_until)));
            }
            let Some((soa, soa_until)) = fresh_soa else { continue };
            let name_error = match records.no_data(&question.name, question.rtype, budget) {
                Proof::Proven => false,
                _ if records.name_error(&question.name, budget) == Proof::Proven => true,
                _ => continue,
            };
            let denial = Denial { name_error, soa: Some(soa.clone()), servers: None, proof: proof() };
            return Some((cache::Kept::Denial(Arc::new(denial)), until.min(*soa_until)));
        }
        None
    }

    /// Makes the answer from a known wildcard, if nothing nearer exists (RFC 8198 §5.3).
    fn expand(
        &self,
        zone: &Name,
        question: &Question,
        now: Duration,
        records: &Records,
        budget: &Budget,
    ) -> Option<(Rrset, Duration)> {
        if self.wildcards.is_empty() || matches!(question.rtype, rtype::DS | rtype::RRSIG | rtype::ANY) {
            return None;
        }
        let mut encloser = question.name.parent()?;
        while encloser.is_under(zone) {
            let wildcard = encloser.wildcard()?;
            let found = [question.rtype, rtype::CNAME]
                .into_iter()
                .find_map(|kind| self.wildcards.get(&(wildcard.clone(), kind)).filter(|(_, until)| *until > now));
            if let Some((set, until)) = found
                && records.wildcard_answer(&question.name, &encloser, budget) == Proof::Proven
            {
                return Some((Rrset { name: question.name.clone(), ..(**set).clone() }, *until));
            }
            encloser = encloser.parent()?;
        }
        None
    }

    /// The records around the name and around the wildcards that could match it.
    fn near_names(&self, name: &Name, now: Duration) -> Vec<Kept> {
        let mut sets: Vec<Kept> = Vec::new();
        let floor = |name: &Name| {
            self.by_name
                .range(..=name.clone())
                .next_back()
                .filter(|(_, (_, until))| *until > now)
                .map(|(_, kept)| kept.clone())
        };
        let Some(first) = floor(name) else { return sets };
        let next = first.0.data.first().and_then(|data| Name::split_from(data)).map(|(next, _)| next);
        let before = name.common_ancestor(&first.0.name);
        let after = next.map_or_else(Name::root, |next| name.common_ancestor(&next));
        let encloser = if before.label_count() > after.label_count() { before } else { after };
        sets.push(first);
        if let Some(kept) = encloser.wildcard().and_then(|wildcard| floor(&wildcard))
            && kept.0 != sets[0].0
        {
            sets.push(kept);
        }
        sets
    }

    fn near_hashes(&self, zone: &Name, name: &Name, now: Duration, budget: &Budget) -> Vec<Kept> {
        let mut sets: Vec<Kept> = Vec::new();
        let Some((iterations, salt)) = self.parameters.as_ref().filter(|_| !self.by_hash.is_empty()) else {
            return sets;
        };
        let mut add = |name: &Name| {
            if !budget.spend_hash() {
                return false;
            }
            let hash = nsec3::hash(name, salt, *iterations);
            let found = self.by_hash.range(..=hash.clone()).next_back().or_else(|| self.by_hash.iter().next_back());
            if let Some((at, kept)) = found.filter(|(_, (_, until))| *until > now) {
                if !sets.iter().any(|(set, _)| *set == kept.0) {
                    sets.push(kept.clone());
                }
                return *at == hash;
            }
            false
        };
        let mut at = name.clone();
        while at.is_under(zone) {
            if add(&at) {
                break;
            }
            let Some(parent) = at.parent() else { break };
            at = parent;
        }
        if at != *name
            && let Some(wildcard) = at.wildcard()
        {
            add(&wildcard);
        }
        sets
    }
}

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
    cache::Denial,
    denial::{
        Proof, Records,
        nsec3::{self, Nsec3},
    },
    name::Name,
    rrset::Rrset,
    wire::{Question, rtype},
};

/// Records kept in all; a zone that is full is begun anew.
const MOST_RECORDS: usize = 20_000;
/// Records kept of one zone.
const MOST_OF_ZONE: usize = 4_000;

type Kept = (Arc<Rrset>, Duration);

#[derive(Default)]
struct Zone {
    soa: Option<Kept>,
    by_name: BTreeMap<Name, Kept>,
    by_hash: BTreeMap<Vec<u8>, Kept>,
    parameters: Option<(u16, Vec<u8>)>,
}

/// All zones.
#[derive(Default)]
pub struct Proofs {
    zones: HashMap<Name, Zone>,
    count: usize,
}

impl Proofs {
    /// Takes a record whose signature held, until a moment.
    pub fn insert(&mut self, zone: &Name, set: &Arc<Rrset>, expires: Duration) {
        if self.count >= MOST_RECORDS {
            *self = Self::default();
        }
        let kept = self.zones.entry(zone.clone()).or_default();
        if kept.by_name.len() + kept.by_hash.len() >= MOST_OF_ZONE {
            *kept = Zone::default();
        }
        let entry = (set.clone(), expires);
        let new = match set.rtype {
            rtype::SOA => kept.soa.replace(entry).is_none(),
            rtype::NSEC => kept.by_name.insert(set.name.clone(), entry).is_none(),
            rtype::NSEC3 => {
                let Some(record) = Nsec3::new(zone, set) else { return };
                if record.opt_out() {
                    return;
                }
                let parameters = record.parameters();
                if kept.parameters.as_ref() != Some(&parameters) {
                    // The zone was hashed anew.
                    kept.by_hash.clear();
                    kept.parameters = Some(parameters);
                }
                kept.by_hash.insert(record.hash().to_vec(), entry).is_none()
            }
            _ => false,
        };
        self.count += usize::from(new);
    }

    /// Answers a question from what is known, if that suffices; for how long, too.
    pub fn deny(&self, question: &Question, now: Duration, budget: &Budget) -> Option<(Denial, Duration)> {
        // DS is the parent's to deny.
        let mut at = if question.rtype == rtype::DS { question.name.parent() } else { Some(question.name.clone()) };
        while let Some(name) = at {
            if let Some(zone) = self.zones.get(&name) {
                return zone.deny(&name, question, now, budget);
            }
            at = name.parent();
        }
        None
    }
}

impl Zone {
    fn deny(&self, name: &Name, question: &Question, now: Duration, budget: &Budget) -> Option<(Denial, Duration)> {
        let (soa, soa_until) = self.soa.as_ref().filter(|(_, until)| *until > now)?;
        for sets in [self.near_names(&question.name, now), self.near_hashes(name, &question.name, now, budget)] {
            let records = Records::new(name, sets.iter().map(|(set, _)| &**set));
            let name_error = match records.no_data(&question.name, question.rtype, budget) {
                Proof::Proven => false,
                _ if records.name_error(&question.name, budget) == Proof::Proven => true,
                _ => continue,
            };
            let until = sets.iter().map(|(_, until)| *until).min()?.min(*soa_until);
            let proof = sets.into_iter().map(|(set, _)| set).collect();
            return Some((Denial { name_error, soa: Some(soa.clone()), proof }, until));
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

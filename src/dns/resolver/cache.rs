//! The RRset cache: sets, denials and failures, bounded in bytes.
//!
//! What is full forgets by CLOCK: a hand goes round, an entry that was used since it last came by is left
//! once. Expired entries stay until then, for answers when nobody can be reached (RFC 8767).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    name::Name,
    rrset::{Rrset, Security},
    why::Why,
};

/// What is kept under a name and type.
#[derive(Clone, Debug)]
pub enum Kept {
    /// The records, with the proof that nothing nearer than a wildcard matched.
    Set(Arc<Rrset>, Vec<Arc<Rrset>>),
    /// There are none of this type, or (under [`ANY_TYPE`]) there is no such name.
    Denial(Arc<Denial>),
    /// Nobody could say, a moment ago (RFC 9520).
    Failure,
}

/// A negative answer (RFC 2308).
#[derive(Clone, Debug)]
pub struct Denial {
    /// NXDOMAIN; otherwise the name exists.
    pub name_error: bool,
    /// The SOA that came along.
    pub soa: Option<Arc<Rrset>>,
    /// The zone's servers, where an unsigned zone told them: passed on, never used.
    pub servers: Option<Arc<Rrset>>,
    /// NSEC or NSEC3 sets with their signatures.
    pub proof: Vec<Arc<Rrset>>,
}

/// The type under which a denial of the whole name is kept.
pub const ANY_TYPE: u16 = 0;

/// An entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is kept.
    pub kept: Kept,
    /// How far it was checked.
    pub security: Security,
    /// What was wrong, for a bogus entry or a failure.
    pub why: Option<Why>,
    /// When it was learnt.
    pub since: Duration,
    /// Until when it holds.
    pub expires: Duration,
}

impl Entry {
    /// Seconds left; 0 for what has expired.
    pub fn ttl(&self, now: Duration) -> u32 {
        u32::try_from(self.expires.saturating_sub(now).as_secs()).unwrap_or(u32::MAX)
    }

    /// Says whether less than a tenth of its time is left.
    pub fn is_nearly_over(&self, now: Duration) -> bool {
        let whole = self.expires.saturating_sub(self.since);
        self.expires.saturating_sub(now) * 10 < whole
    }

    fn bytes(&self) -> usize {
        let inside = match &self.kept {
            Kept::Set(set, proof) => set.bytes() + proof.iter().map(|set| set.bytes()).sum::<usize>(),
            Kept::Denial(denial) => {
                let sets = denial.soa.iter().chain(&denial.servers).chain(&denial.proof);
                size_of::<Denial>() + sets.map(|set| set.bytes()).sum::<usize>()
            }
            Kept::Failure => 0,
        };
        inside + size_of::<Held>() + 64
    }
}

type Key = (Name, u16);

#[derive(Debug)]
struct Held {
    entry: Entry,
    bytes: usize,
    used: bool,
    place: usize,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<Key, Held>,
    ring: Vec<Option<Key>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    limit: usize,
    /// Owners of DNAME sets, so that names are taken apart only where there are some.
    dnames: BTreeMap<Name, ()>,
}

impl Cache {
    /// Makes an empty one that holds so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            ring: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            limit,
            dnames: BTreeMap::new(),
        }
    }

    /// Returns an entry, also an expired one.
    pub fn get(&mut self, name: &Name, rtype: u16) -> Option<&Entry> {
        // The key's name is cheap to clone: a count.
        let held = self.entries.get_mut(&(name.clone(), rtype))?;
        held.used = true;
        Some(&held.entry)
    }

    /// Returns an entry that holds, or held until `moment`.
    pub fn fresh(&mut self, name: &Name, rtype: u16, moment: Duration) -> Option<Entry> {
        self.get(name, rtype).filter(|entry| entry.expires > moment).cloned()
    }

    /// Says whether any DNAME is kept.
    pub fn has_dnames(&self) -> bool {
        !self.dnames.is_empty()
    }

    /// Puts an entry in the place of an older one.
    pub fn insert(&mut self, name: &Name, rtype: u16, entry: Entry) {
        let bytes = entry.bytes() + name.as_wire().len();
        // One entry never takes more than a part of the cache.
        if bytes > self.limit / 8 {
            return;
        }
        if rtype == super::wire::rtype::DNAME {
            self.dnames.insert(name.clone(), ());
        }
        let key = (name.clone(), rtype);
        match self.entries.get_mut(&key) {
            Some(held) => {
                self.bytes = self.bytes - held.bytes + bytes;
                held.entry = entry;
                held.bytes = bytes;
            }
            None => {
                let place = self.free.pop().unwrap_or_else(|| {
                    self.ring.push(None);
                    self.ring.len() - 1
                });
                self.ring[place] = Some(key.clone());
                self.bytes += bytes;
                self.entries.insert(key, Held { entry, bytes, used: false, place });
            }
        }
        self.shrink();
    }

    /// Forgets an entry.
    pub fn remove(&mut self, name: &Name, rtype: u16) {
        if let Some(held) = self.entries.remove(&(name.clone(), rtype)) {
            self.bytes -= held.bytes;
            self.ring[held.place] = None;
            self.free.push(held.place);
            if rtype == super::wire::rtype::DNAME {
                self.dnames.remove(name);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Returns the number of entries and their bytes.
    pub fn fill(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn shrink(&mut self) {
        while self.bytes > self.limit && !self.entries.is_empty() {
            self.hand = (self.hand + 1) % self.ring.len();
            let Some((name, rtype)) = self.ring[self.hand].clone() else { continue };
            match self.entries.get_mut(&(name.clone(), rtype)) {
                Some(held) if held.used => held.used = false,
                _ => self.remove(&name, rtype),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cache_forgets_what_was_not_used() {
        let mut cache = Cache::new(40_000);
        let entry = Entry {
            kept: Kept::Failure,
            security: Security::Insecure,
            why: None,
            since: Duration::ZERO,
            expires: Duration::MAX,
        };
        let kept = Name::parse("kept.example").unwrap();
        cache.insert(&kept, 1, entry.clone());

        for number in 0..10_000 {
            cache.insert(&Name::parse(&format!("n{number}.example")).unwrap(), 1, entry.clone());
            assert!(cache.get(&kept, 1).is_some());
        }

        assert!(cache.fill().1 <= 40_000);
        assert!(cache.ring.len() < 1000);
    }
}

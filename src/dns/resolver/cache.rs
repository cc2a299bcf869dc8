//! The RRset cache: sets, denials and failures, bounded in bytes.
//!
//! What is full forgets by CLOCK: a hand goes round, an entry that was used since it last came by is left
//! once. Expired entries stay until then, for answers when nobody can be reached (RFC 8767). No domain has
//! more than its share: whoever fills the cache with names of his own pushes out these.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
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
        inside + size_of::<Held>() + 3 * size_of::<Key>() + 64
    }
}

/// What an entry is kept under: a name and a type.
pub type Key = (Name, u16);

#[derive(Debug)]
struct Held {
    entry: Entry,
    bytes: usize,
    used: bool,
    place: usize,
    serial: u64,
}

/// What one domain takes.
#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    entries: usize,
    /// In the order in which they came; some may be gone.
    order: VecDeque<(Key, u64)>,
}

/// The part of the cache that one domain can take.
const SHARE: usize = 4;

/// The domain that an entry is counted for: two labels, which is what can be registered.
fn domain(name: &Name) -> Name {
    name.suffix(2)
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
    shares: HashMap<Name, Share>,
    serial: u64,
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
            shares: HashMap::new(),
            serial: 0,
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
        let domain = domain(name);
        let share = self.shares.entry(domain.clone()).or_default();
        match self.entries.get_mut(&key) {
            Some(held) => {
                self.bytes = self.bytes - held.bytes + bytes;
                share.bytes = share.bytes - held.bytes + bytes;
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
                share.bytes += bytes;
                share.entries += 1;
                self.serial += 1;
                share.order.push_back((key.clone(), self.serial));
                self.entries.insert(key, Held { entry, bytes, used: false, place, serial: self.serial });
            }
        }
        self.shrink_share(&domain);
        self.shrink();
    }

    /// Forgets an entry.
    pub fn remove(&mut self, name: &Name, rtype: u16) {
        if let Some(held) = self.entries.remove(&(name.clone(), rtype)) {
            self.bytes -= held.bytes;
            let domain = domain(name);
            if let Some(share) = self.shares.get_mut(&domain) {
                share.bytes -= held.bytes;
                share.entries -= 1;
                if share.entries == 0 {
                    self.shares.remove(&domain);
                }
            }
            self.ring[held.place] = None;
            self.free.push(held.place);
            if rtype == super::wire::rtype::DNAME {
                self.dnames.remove(name);
            }
        }
    }

    /// Forgets the failures.
    pub fn forget_failures(&mut self) {
        let failures = self.entries.iter().filter(|(_, held)| matches!(held.entry.kept, Kept::Failure));
        let keys: Vec<Key> = failures.map(|(key, _)| key.clone()).collect();
        for (name, rtype) in keys {
            self.remove(&name, rtype);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Returns all entries.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter().map(|(key, held)| (key, &held.entry))
    }

    /// Returns the number of entries and their bytes.
    pub fn fill(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn shrink_share(&mut self, domain: &Name) {
        while let Some(share) = self.shares.get_mut(domain)
            && share.bytes > self.limit / SHARE
            && let Some(((name, rtype), serial)) = share.order.pop_front()
        {
            if self.entries.get(&(name.clone(), rtype)).is_some_and(|held| held.serial == serial) {
                self.remove(&name, rtype);
            }
        }
        if let Some(share) = self.shares.get_mut(domain)
            && share.order.len() > 2 * share.entries + 16
        {
            let entries = &self.entries;
            share.order.retain(|(key, serial)| entries.get(key).is_some_and(|held| held.serial == *serial));
        }
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
        let kept = Name::parse("kept.test").unwrap();
        cache.insert(&kept, 1, entry.clone());

        for number in 0..10_000 {
            cache.insert(&Name::parse(&format!("n{number}.test")).unwrap(), 1, entry.clone());
            assert!(cache.get(&kept, 1).is_some());
        }

        assert!(cache.fill().1 <= 40_000);
        assert!(cache.ring.len() < 1000);
    }
}

//! Answers kept in wire form, ready to be patched and sent.
//!
//! The cache is bounded in bytes and split into shards. What is asked for again and again stands in the window of
//! its shard, which is read without a lock. The rest is behind the shard's lock, which is held for a look-up and the
//! clone of an `Arc`, never while an answer is written; the window changes under it only, so both say the same.
//! Eviction is CLOCK: a hand passes over the entries, spares those that were asked for since it last came by, and
//! forgets the others.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};

use super::{
    encode::{self, Ede, Head, rcode},
    query::{Query, Question, Way},
    resolver::wire::Message,
    upstream::rebind,
};

/// How long an expired answer may be given on when it is given at all (RFC 8767 §5).
const STALE_TTL: u32 = 30;

/// Seconds that one is kept as it is given, before it is asked for again: the way out may be there by then.
const STALE_LIFETIME: u32 = 1;

/// An answer as it was resolved, before any rule of a client's group.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The message, and behind it where its TTLs stand: two octets each, the low one first. One piece of memory,
    /// because what is asked for once in a while is far away from the processor, and each piece is waited for.
    bytes: Box<[u8]>,
    /// Octets of the message.
    length: usize,
    /// The names that CNAME, HTTPS and SVCB records lead to, in wire form and lower case.
    pub(crate) aliases: Box<[Box<[u8]>]>,
    /// What kind of client it is for.
    flags: u8,
    /// A private address is among the answers.
    pub(crate) leads_home: bool,
    /// The response code.
    pub(crate) rcode: u16,
    /// Validated.
    pub(crate) secure: bool,
    /// What is to be said of it.
    pub(crate) ede: Option<Ede>,
    /// Seconds since 1970 when it was resolved.
    stored: u64,
    /// Seconds that it is good for.
    lifetime: u32,
    /// Seconds since 1970 until which it may be given when it is stale.
    stale_until: u64,
    /// Somebody is asking anew already.
    refreshing: AtomicBool,
    /// Somebody asked for it since the hand came by.
    asked: AtomicBool,
}

/// How good a stored answer is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Good.
    Fresh,
    /// Good, with less than a tenth of its life left.
    Ending,
    /// Only to be given when nothing better can be had.
    Stale,
    /// Of no use.
    Dead,
}

impl Stored {
    /// Takes the answer to a question in wire form; `None` if it cannot be walked, or answers another one.
    pub(crate) fn new(
        question: &Question,
        message: &[u8],
        aliases: Box<[Box<[u8]>]>,
        head: (u16, bool, Option<Ede>),
        now: u64,
        lifetime: u32,
        stale: u64,
    ) -> Option<Self> {
        let (rcode, secure, ede) = head;
        let stale_until = match rcode {
            rcode::NOERROR | rcode::NXDOMAIN => now.saturating_add(u64::from(lifetime)).saturating_add(stale),
            _ => 0,
        };
        let (length, ttls) = (message.len(), encode::ttl_offsets(message)?);
        let stored = Self {
            bytes: message.iter().copied().chain(ttls.iter().flat_map(|at| at.to_le_bytes())).collect(),
            length,
            aliases,
            flags: flags(question.dnssec_ok, question.checking_disabled, question.way),
            leads_home: false,
            rcode,
            secure,
            ede,
            stored: now,
            lifetime,
            stale_until,
            refreshing: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        };
        stored.answers(&question.name, question.qtype, stored.flags).then_some(stored)
    }

    /// Returns header, question and records, without OPT; its question is in lower case.
    pub(crate) fn message(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Returns where the TTLs stand in the message.
    fn ttls(&self) -> impl Iterator<Item = usize> {
        let places = self.bytes.get(self.length..).unwrap_or_default().as_chunks().0;
        places.iter().map(|place| usize::from(u16::from_le_bytes(*place)))
    }

    /// Says whether this is the answer to a question.
    fn answers(&self, name: &[u8], qtype: u16, flags: u8) -> bool {
        let question = self.bytes.get(12..).unwrap_or_default();
        let [high, low] = qtype.to_be_bytes();
        let same = |(asked, rest): (&[u8], &[u8])| asked == name && rest.starts_with(&[high, low]);
        self.flags == flags && question.split_at_checked(name.len()).is_some_and(same)
    }

    /// Notes that it was asked for; what is noted already is not written, so that cores do not wait for one another.
    fn ask(&self) {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Returns this answer, expired, as it is given while no authority can be asked.
    pub(crate) fn gone_stale(&self, now: u64) -> Self {
        let mut bytes = self.bytes.clone();
        for at in self.ttls() {
            if let Some(ttl) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *ttl = STALE_TTL.to_be_bytes();
            }
        }
        Self {
            bytes,
            length: self.length,
            aliases: self.aliases.clone(),
            flags: self.flags,
            leads_home: self.leads_home,
            rcode: self.rcode,
            secure: self.secure,
            ede: Some(Ede::Stale),
            stored: now,
            lifetime: STALE_LIFETIME,
            stale_until: self.stale_until,
            refreshing: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        }
    }

    /// Says how good this is now. A clock that was set back makes everything dead.
    pub(crate) fn age(&self, now: u64) -> Age {
        let Some(age) = now.checked_sub(self.stored) else { return Age::Dead };
        match u64::from(self.lifetime).checked_sub(age) {
            Some(left) if left > 0 && left * 10 < u64::from(self.lifetime) => Age::Ending,
            Some(left) if left > 0 => Age::Fresh,
            _ if now < self.stale_until => Age::Stale,
            _ => Age::Dead,
        }
    }

    /// Returns true for the one caller who is to ask anew.
    pub(crate) fn claim_refresh(&self) -> bool {
        !self.refreshing.load(Ordering::Relaxed) && !self.refreshing.swap(true, Ordering::Relaxed)
    }

    /// Writes this as the answer to a query for the same question: ID, flags, the question's case and the
    /// TTLs are the client's own.
    pub(crate) fn write(&self, query: &Query<'_>, now: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.message());
        let head = Head { rcode: self.rcode, authoritative: false, authentic: self.secure };
        let question = query.question_bytes();
        if let Some(start) = out.first_chunk_mut::<4>() {
            let ([high, low], [first, second]) = (query.id(), encode::flags(query, head));
            *start = [high, low, first, second];
        }
        if let Some(asked) = out.get_mut(12..12 + question.len()) {
            asked.copy_from_slice(question);
        }
        let age = self.seconds_old(now);
        if age > 0 {
            for at in self.ttls() {
                if let Some(ttl) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                    *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
                }
            }
        }
    }

    /// Returns how long ago this was resolved.
    pub(crate) fn seconds_old(&self, now: u64) -> u32 {
        u32::try_from(now.saturating_sub(self.stored)).unwrap_or(u32::MAX)
    }

    /// Returns the addresses in the answer, those that service records hint at with them.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let Ok(message) = Message::parse(self.message()) else { return Vec::new() };
        message.answer.iter().flat_map(rebind::addresses).collect()
    }

    fn bytes(&self) -> usize {
        let aliases: usize = self.aliases.iter().map(|alias| alias.len() + size_of::<Box<[u8]>>()).sum();
        // The map's slot, its control byte and its share of free slots.
        const PLACE: usize = 32;
        // The pointers to it with the hash beside them, and what an `Arc` counts.
        const SHARED: usize = 40;
        size_of::<Self>() + SHARED + PLACE + self.bytes.len() + aliases
    }
}

/// The answers of the whole plane.
pub(crate) struct Cache {
    shards: Box<[Shared]>,
    key: RandomState,
}

/// A shard, and its window.
struct Shared {
    window: Window,
    shard: Mutex<Shard>,
}

/// What is read without a lock: an answer of the shard at the place that its hash says, or nothing.
type Window = Arc<[ArcSwapOption<Stored>]>;

/// An answer that was found; one that stands in the window is not even counted.
pub(crate) enum Found {
    /// In the window.
    Seen(Guard<Option<Arc<Stored>>>),
    /// Behind the lock.
    Kept(Arc<Stored>),
}

const SEEN: &str = "an empty place of the window is nothing found";

impl Found {
    /// Returns it to whoever keeps it for longer.
    pub(crate) fn shared(self) -> Arc<Stored> {
        match self {
            Self::Seen(seen) => Guard::into_inner(seen).expect(SEEN),
            Self::Kept(kept) => kept,
        }
    }
}

impl Deref for Found {
    type Target = Stored;

    fn deref(&self) -> &Stored {
        match self {
            Self::Seen(seen) => seen.as_ref().expect(SEEN),
            Self::Kept(kept) => kept,
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({:?})", self.fill())
    }
}

/// How full the cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Answers.
    pub(crate) entries: usize,
    /// What they take, with their keys and places.
    pub(crate) bytes: usize,
}

const SHARDS: usize = 16;

impl Cache {
    /// Makes a cache that holds at most `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let shard = || {
            // About one place for each answer of an ordinary size.
            let places = (bytes / SHARDS / 512).max(1).next_power_of_two();
            let window: Window = (0..places).map(|_| ArcSwapOption::empty()).collect();
            Shared { window: window.clone(), shard: Mutex::new(Shard::new(bytes / SHARDS, window)) }
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), key: RandomState::new() }
    }

    /// Finds the answer to a query that came this way.
    pub(crate) fn find(&self, query: &Query<'_>, way: Way) -> Option<Found> {
        let flags = flags(query.dnssec_ok(), query.checking_disabled(), way);
        self.find_key(query.name(), query.qtype, flags)
    }

    /// Finds the answer to a question.
    pub(crate) fn find_question(&self, question: &Question) -> Option<Found> {
        let flags = flags(question.dnssec_ok, question.checking_disabled, question.way);
        self.find_key(&question.name, question.qtype, flags)
    }

    fn find_key(&self, name: &[u8], qtype: u16, flags: u8) -> Option<Found> {
        let hash = self.hash(name, qtype, flags);
        let shared = self.shared(hash);
        let place = place(&shared.window, hash);
        let seen = place.load();
        if let Some(stored) = &*seen
            && stored.answers(name, qtype, flags)
        {
            stored.ask();
            return Some(Found::Seen(seen));
        }
        let shard = lock(&shared.shard);
        let (_, stored) = shard.entries.get(*shard.places.get(&hash)?)?.as_ref()?;
        if !stored.answers(name, qtype, flags) {
            return None;
        }
        stored.ask();
        // Who was there is not driven out as long as somebody asks for it.
        if place.load().as_ref().is_none_or(|other| !other.asked.load(Ordering::Relaxed)) {
            place.store(Some(stored.clone()));
        }
        Some(Found::Kept(stored.clone()))
    }

    /// Keeps an answer; what was known before for the same question goes.
    pub(crate) fn keep(&self, question: &Question, stored: Arc<Stored>) {
        let flags = flags(question.dnssec_ok, question.checking_disabled, question.way);
        let hash = self.hash(&question.name, question.qtype, flags);
        self.shard(hash).keep(hash, stored);
    }

    /// Forgets the answer to a question.
    pub(crate) fn forget(&self, question: &Question) {
        let flags = flags(question.dnssec_ok, question.checking_disabled, question.way);
        let hash = self.hash(&question.name, question.qtype, flags);
        let mut shard = self.shard(hash);
        if let Some(place) = shard.places.get(&hash).copied() {
            shard.forget(place);
        }
    }

    /// Returns how full the cache is.
    pub(crate) fn fill(&self) -> Fill {
        self.shards.iter().map(|shared| lock(&shared.shard)).fold(Fill::default(), |sum, shard| Fill {
            entries: sum.entries + shard.places.len(),
            bytes: sum.bytes + shard.bytes,
        })
    }

    /// Returns how many bytes the cache may hold.
    pub(crate) fn limit(&self) -> usize {
        self.shards.iter().map(|shared| lock(&shared.shard).limit).sum()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for shared in &self.shards {
            let mut shard = lock(&shared.shard);
            shared.window.iter().for_each(|place| place.store(None));
            *shard = Shard::new(shard.limit, shared.window.clone());
        }
    }

    fn hash(&self, name: &[u8], qtype: u16, flags: u8) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write(name);
        hasher.write_u32(u32::from(qtype) << 8 | u32::from(flags));
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shared(hash).shard)
    }

    fn shared(&self, hash: u64) -> &Shared {
        // The map uses the low bits.
        &self.shards[(hash >> 48) as usize % SHARDS]
    }
}

/// Returns the place of an answer in its shard's window, whose length is a power of two.
fn place(window: &Window, hash: u64) -> &ArcSwapOption<Stored> {
    &window[(hash >> 20) as usize & (window.len() - 1)]
}

/// A shard that was left in the middle of a change by a panic is still a shard: at worst an entry is missing.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flags(dnssec_ok: bool, checking_disabled: bool, way: Way) -> u8 {
    u8::from(dnssec_ok) | u8::from(checking_disabled) << 1 | way.0 << 2
}

/// Hashes are made with a secret key already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

struct Shard {
    places: HashMap<u64, usize, BuildHasherDefault<AsIs>>,
    /// Answers with the hashes of their questions.
    entries: Vec<Option<(u64, Arc<Stored>)>>,
    window: Window,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    limit: usize,
}

impl Shard {
    fn new(limit: usize, window: Window) -> Self {
        Self { places: HashMap::default(), entries: Vec::new(), window, free: Vec::new(), hand: 0, bytes: 0, limit }
    }

    fn keep(&mut self, hash: u64, stored: Arc<Stored>) {
        let size = stored.bytes();
        // One answer may not push everything else out.
        if size > self.limit / 4 {
            return;
        }
        if let Some(place) = self.places.get(&hash).copied() {
            self.forget(place);
        }
        let window = size_of_val(&*self.window);
        while self.bytes + size + window > self.limit && !self.places.is_empty() {
            self.evict();
        }
        self.bytes += size;
        let entry = (hash, stored);
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = Some(entry);
                place
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        self.places.insert(hash, place);
    }

    fn evict(&mut self) {
        loop {
            self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
            match &self.entries[self.hand] {
                Some((_, stored)) if stored.asked.load(Ordering::Relaxed) => {
                    stored.asked.store(false, Ordering::Relaxed)
                }
                Some(_) => return self.forget(self.hand),
                None => {}
            }
        }
    }

    fn forget(&mut self, index: usize) {
        if let Some((hash, stored)) = self.entries[index].take() {
            let seen = place(&self.window, hash);
            if seen.load().as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &stored)) {
                seen.store(None);
            }
            self.bytes -= stored.bytes();
            self.places.remove(&hash);
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::query::{
            qtype,
            tests::{query, wire},
        },
        *,
    };

    fn stored(name: &str, ttl: u32, now: u64) -> (Question, Arc<Stored>) {
        let bytes = query(name, qtype::A, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::code(0), &mut out);
        encode::record(&mut out, encode::Section::Answer, encode::QNAME, 1, ttl, &[192, 0, 2, 1]);
        let question = asked.question();
        let stored = Stored::new(&question, &out, Box::default(), (0, true, None), now, ttl, 100).unwrap();
        (question, Arc::new(stored))
    }

    #[test]
    fn a_hit_has_the_clients_id_case_and_the_time_that_is_left() {
        let cache = Cache::new(1 << 20);
        let (question, answer) = stored("photos.example", 300, 1000);
        cache.keep(&question, answer);
        let mut bytes = query("PHOTOS.example", qtype::A, None);
        bytes[0] = 0xab;
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();

        cache.find(&asked, Way::HOUSE).unwrap().write(&asked, 1100, &mut out);

        assert_eq!(out[..2], bytes[..2]);
        assert_eq!(out[12..28], wire("PHOTOS.example"));
        assert_eq!(out[out.len() - 10..out.len() - 6], 200_u32.to_be_bytes());
        assert_eq!(out[3] & 0x20, 0, "AD was not asked for");
    }

    #[test]
    fn answers_age_and_a_clock_set_back_trusts_nothing() {
        let (_, answer) = stored("a.example", 100, 1000);

        let ages = [1000, 1089, 1091, 1100, 1199, 1200, 999].map(|now| answer.age(now));

        use Age::*;
        assert_eq!(ages, [Fresh, Fresh, Ending, Stale, Stale, Dead, Dead]);
    }

    #[test]
    fn the_cache_never_holds_more_than_its_bytes_and_keeps_what_is_asked_for() {
        let cache = Cache::new(64 << 10);
        let (favourite, answer) = stored("favourite.example", 300, 0);
        cache.keep(&favourite, answer);

        for number in 0..5000 {
            let (question, answer) = stored(&format!("host{number}.example"), 300, 0);
            cache.keep(&question, answer);
            assert!(cache.find_question(&favourite).is_some());
        }

        let fill = cache.fill();
        assert!(fill.bytes <= 64 << 10, "{fill:?}");
        assert!(fill.entries > 100, "{fill:?}");
    }

    #[test]
    fn what_was_replaced_or_forgotten_is_not_seen_any_more() {
        let cache = Cache::new(1 << 20);
        let (question, old) = stored("a.example", 300, 0);
        let (_, new) = stored("a.example", 300, 7);
        cache.keep(&question, old);
        for _ in 0..3 {
            cache.find_question(&question).unwrap();
        }

        cache.keep(&question, new.clone());
        assert!(Arc::ptr_eq(&cache.find_question(&question).unwrap().shared(), &new));
        assert!(Arc::ptr_eq(&cache.find_question(&question).unwrap().shared(), &new));
        cache.forget(&question);
        assert!(cache.find_question(&question).is_none());
        cache.keep(&question, new);
        cache.find_question(&question).unwrap();
        cache.clear();
        assert!(cache.find_question(&question).is_none());
    }

    #[test]
    fn many_threads_never_see_an_answer_older_than_one_they_have_seen() {
        const ROUNDS: u64 = 2000;
        let cache = Cache::new(64 << 10);
        let names: Vec<String> = (0..40).map(|number| format!("host{number}.example")).collect();
        for name in &names {
            let (question, first) = stored(name, 300, 0);
            cache.keep(&question, first);
        }

        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut seen = vec![0; names.len()];
                    for round in 0..ROUNDS as usize {
                        let at = round * 7 % names.len();
                        let (question, _) = stored(&names[at], 300, 0);
                        let Some(found) = cache.find_question(&question) else { continue };
                        assert_eq!(found.message()[13..18], *names[at].as_bytes().first_chunk::<5>().unwrap());
                        assert!(found.stored >= seen[at]);
                        seen[at] = found.stored;
                    }
                });
            }
            scope.spawn(|| {
                for round in 1..ROUNDS {
                    let (question, next) = stored(&names[round as usize % names.len()], 300, round);
                    match round % 11 {
                        0 => cache.forget(&question),
                        _ => cache.keep(&question, next),
                    }
                }
            });
        });

        assert!(cache.fill().bytes <= 64 << 10);
    }

    #[test]
    fn dnssec_answers_are_kept_apart() {
        let cache = Cache::new(1 << 20);
        let (question, answer) = stored("a.example", 300, 0);
        cache.keep(&question, answer);

        assert!(cache.find_question(&Question { dnssec_ok: true, ..question }).is_none());
    }
}

//! What the planes report to whoever keeps it: one record for each question, in bounded buffers.
//!
//! Whoever answers never waits: a record is copied behind others under a lock that is held for a few instructions,
//! and dropped and counted where the buffers are full.

use std::{
    cell::Cell,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::origin::Origin;

/// Threads that report do not meet as long as there are fewer of them.
const SHARDS: usize = 8;
/// Records that may wait in each of them: 50 000 questions a second fill it in a third of a second.
const WAITING: usize = 16_384;
/// Bytes of names and rules that may wait in each of them.
const TEXTS: usize = WAITING * 32;

/// A question and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// When it was answered, in milliseconds since 1970.
    pub at: i64,
    /// Where it came from.
    pub origin: Origin,
    /// Whose it is.
    pub client: IpAddr,
    /// The name in wire form (RFC 1035 §3.1), in whatever case.
    pub name: &'a [u8],
    /// The type of records.
    pub qtype: u16,
    /// How it ended: `cached`, `blocked`.
    pub outcome: &'static str,
    /// How it came: `udp`, `tls`.
    pub transport: &'static str,
    /// The list or the group whose rule decided; empty where none did.
    pub rule: &'a str,
    /// Microseconds until there was an answer; 0 where it was there at once.
    pub took: u32,
}

/// The same without its name, which stands in the batch.
#[derive(Clone, Copy, Debug)]
struct Row {
    at: i64,
    origin: Origin,
    client: IpAddr,
    /// Of the name.
    length: u8,
    /// Of the rule, which follows it.
    rule: u8,
    qtype: u16,
    outcome: &'static str,
    transport: &'static str,
    took: u32,
}

/// Questions in the order in which one thread answered them.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    texts: Vec<u8>,
}

impl Batch {
    /// Takes a question, if there is room.
    fn push(&mut self, question: &Question<'_>) -> bool {
        // A name in wire form has at most 255 bytes; what an owner calls a list may be longer.
        let rule = &question.rule.as_bytes()[..question.rule.len().min(usize::from(u8::MAX))];
        let (Ok(length), Ok(rule_length)) = (u8::try_from(question.name.len()), u8::try_from(rule.len())) else {
            return false;
        };
        let has_room = self.rows.len() < WAITING && self.texts.len() + question.name.len() + rule.len() <= TEXTS;
        if has_room {
            self.rows.push(Row {
                at: question.at,
                origin: question.origin,
                client: question.client,
                length,
                rule: rule_length,
                qtype: question.qtype,
                outcome: question.outcome,
                transport: question.transport,
                took: question.took,
            });
            self.texts.extend_from_slice(question.name);
            self.texts.extend_from_slice(rule);
        }
        has_room
    }

    /// Returns the questions, in order.
    pub fn questions(&self) -> impl Iterator<Item = Question<'_>> {
        let mut texts = &self.texts[..];
        self.rows.iter().map(move |row| {
            let mut next = |length: u8| {
                let (text, rest) = texts.split_at(usize::from(length).min(texts.len()));
                texts = rest;
                text
            };
            let (name, rule) = (next(row.length), next(row.rule));
            Question {
                at: row.at,
                origin: row.origin,
                client: row.client,
                name,
                qtype: row.qtype,
                outcome: row.outcome,
                transport: row.transport,
                // It can have been cut within a letter.
                rule: std::str::from_utf8(rule).unwrap_or_default(),
                took: row.took,
            }
        })
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets the questions and keeps the room.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.texts.clear();
    }
}

/// Where questions are reported. Cheap to clone; reports nothing until somebody listens.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wanted: AtomicBool,
    shards: [Mutex<Batch>; SHARDS],
    dropped: AtomicU64,
}

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The shard of the next thread that reports for the first time.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Journal {
    /// Somebody reads from now on, or nobody does.
    pub fn listen(&self, wanted: bool) {
        self.0.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Says whether somebody reads.
    pub fn is_wanted(&self) -> bool {
        self.0.wanted.load(Ordering::Relaxed)
    }

    /// Reports a question, if somebody reads.
    pub fn report(&self, question: &Question<'_>) {
        if !self.is_wanted() {
            return;
        }
        let at = SHARD.with(|shard| match shard.get() {
            Some(at) => at,
            None => {
                let at = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
                shard.set(Some(at));
                at
            }
        });
        let Some(shard) = self.0.shards.get(at) else { return };
        if !shard.lock().unwrap_or_else(PoisonError::into_inner).push(question) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Moves what was reported to `read`, thread by thread; `spare` lends its room.
    pub fn drain(&self, spare: &mut Batch, mut read: impl FnMut(&Batch)) {
        for shard in &self.0.shards {
            spare.clear();
            std::mem::swap(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner), spare);
            if !spare.is_empty() {
                read(spare);
            }
        }
        spare.clear();
    }

    /// Returns how many questions found no room.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::origin::NetworkId;

    fn question(name: &[u8]) -> Question<'_> {
        Question {
            at: 1,
            origin: Origin::Lan(NetworkId::MAIN),
            client: Ipv4Addr::new(192, 0, 2, 1).into(),
            name,
            qtype: 1,
            outcome: "cached",
            transport: "udp",
            rule: "ads",
            took: 0,
        }
    }

    fn read(journal: &Journal) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        journal.drain(&mut Batch::default(), |batch| {
            names.extend(batch.questions().map(|question| {
                assert_eq!(question.rule, "ads");
                question.name.to_vec()
            }));
        });
        names
    }

    #[test]
    fn what_is_reported_is_read_once_and_in_order() {
        let journal = Journal::default();
        journal.listen(true);

        for name in [&b"\x01a\0"[..], b"\x02bc\0", b"\0"] {
            journal.report(&question(name));
        }

        assert_eq!(read(&journal), [&b"\x01a\0"[..], b"\x02bc\0", b"\0"]);
        assert!(read(&journal).is_empty());
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let journal = Journal::default();

        journal.report(&question(b"\0"));
        journal.listen(true);

        assert!(read(&journal).is_empty());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let journal = Journal::default();
        journal.listen(true);

        for _ in 0..WAITING + 5 {
            journal.report(&question(b"\x01a\0"));
        }

        assert_eq!(journal.dropped(), 5);
        assert_eq!(read(&journal).len(), WAITING);
    }

    #[test]
    fn every_thread_is_heard() {
        let journal = Journal::default();
        journal.listen(true);

        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..100).for_each(|_| journal.report(&question(b"\x01a\0"))));
            }
        });

        assert_eq!(read(&journal).len(), 2000);
    }
}

//! Questions under a clock that is not right: a box can only learn the time from servers that it finds by name,
//! and no signature can be checked before it knows the time.

use std::{cell::Cell, time::Duration};

use super::{Answer, Asked, Resolver, Shared, name::Name, rrset::Security, why::Why};
use crate::clock::Soundness;

/// So long is everything answered unchecked while the clock is ahead; then only where the time is to be had.
const EXCUSED_FOR: Duration = Duration::from_secs(600);

/// Where the distributions and the large makers have their time servers, with everything below.
const POOLS: [&str; 7] = [
    "pool.ntp.org",
    "ntp.ubuntu.com",
    "ntp-bootstrap.ubuntu.com",
    "time.cloudflare.com",
    "time.google.com",
    "time.windows.com",
    "time.apple.com",
];

/// The fall-back of systemd-timesyncd.
const NUMBERED: [&str; 4] = ["time1.google.com", "time2.google.com", "time3.google.com", "time4.google.com"];

/// Returns the names of time servers that everybody uses.
pub fn time_servers() -> impl Iterator<Item = Name> {
    POOLS.iter().chain(&NUMBERED).map(|text| Name::parse(text).expect("the table holds names"))
}

/// What a resolver found out about the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The root's signatures hold at this second since 1970.
    Proven(u64),
    /// They have all expired at it, and the kernel says that nobody keeps its clock.
    Doubted(u64),
}

/// What is thought of the clock that [`super::Now::wall`] comes from.
#[derive(Debug)]
pub(super) struct State {
    behind: Cell<bool>,
    synchronised: Cell<bool>,
    /// No clock that shows less is right.
    floor: Cell<u64>,
    proven: Cell<bool>,
    /// Since when it is known to be ahead, on the monotonic clock.
    ahead: Cell<Option<Duration>>,
    news: Cell<Option<News>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            behind: Cell::new(false),
            synchronised: Cell::new(true),
            floor: Cell::new(0),
            proven: Cell::new(false),
            ahead: Cell::new(None),
            news: Cell::new(None),
        }
    }
}

impl Resolver {
    /// Says below which second no clock is right, whether the system's is below it (then [`super::Now::wall`] is the
    /// floor), and whether the kernel's clock is kept right by somebody.
    pub fn set_clock(&mut self, floor: u64, behind: bool, synchronised: bool) {
        self.shared.clock.floor.set(floor);
        self.shared.clock.behind.set(behind);
        self.shared.clock.synchronised.set(synchronised);
    }

    /// Returns what was found out about the clock since the last call.
    pub fn clock_news(&mut self) -> Option<News> {
        self.shared.clock.news.take()
    }

    /// Returns what is thought of the clock.
    pub fn clock(&self) -> Soundness {
        self.shared.soundness()
    }
}

impl Shared {
    pub(super) fn soundness(&self) -> Soundness {
        match (self.clock.behind.get(), self.clock.ahead.get()) {
            (true, _) => Soundness::Behind,
            (false, Some(_)) => Soundness::Ahead,
            (false, None) => Soundness::Sound,
        }
    }

    pub(super) fn floor(&self) -> u64 {
        self.clock.floor.get()
    }

    /// The clock was set: what it was before says nothing of it now.
    pub(super) fn forget_clock(&self) {
        self.clock.ahead.set(None);
        self.clock.proven.set(false);
    }

    /// Says whether a question is answered unchecked because of the clock.
    pub(super) fn is_excused(&self, asked: &Asked) -> bool {
        let is_time_server = || self.config.time_servers.iter().any(|server| asked.question.name.is_under(server));
        match (self.soundness(), self.clock.ahead.get()) {
            (Soundness::Sound, _) => false,
            (Soundness::Ahead, Some(since)) if self.now() < since + EXCUSED_FOR => true,
            _ => is_time_server(),
        }
    }

    /// Makes of an answer that was not checked what the client is told.
    pub(super) fn excuse(&self, answer: Answer) -> Answer {
        Answer { security: Security::Insecure, why: Some(Why::ClockUnset), ..answer }
    }

    /// Signatures of the root's keys hold.
    pub(super) fn note_root(&self) {
        if !self.clock.proven.replace(true) {
            self.clock.news.set(Some(News::Proven(self.wall())));
        }
        self.clock.ahead.set(None);
    }

    /// Signatures of the root's keys that held at the floor have all expired, whoever was asked. Where they held once since the clock was
    /// last set, or where the kernel's clock is kept, somebody plays old records back to us.
    pub(super) fn note_expired_root(&self) {
        let clock = &self.clock;
        if clock.synchronised.get() || clock.proven.get() || clock.behind.get() || clock.ahead.get().is_some() {
            return;
        }
        clock.ahead.set(Some(self.now()));
        clock.news.set(Some(News::Doubted(self.wall())));
    }
}

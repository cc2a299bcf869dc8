//! What the resolver does, counted for whoever watches. The series outlive it: a reload may bring another one.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::{
    dns::resolver::{
        Answer,
        contact::Contact,
        rollover::{Followed, State},
        rrset::Security,
        why::Why,
        wire::rcode,
    },
    metrics::Metrics,
};

const TRANSPORTS: [&str; 3] = ["udp", "tcp", "encrypted"];
const STATES: [&str; 4] = ["secure", "insecure", "bogus", "failed"];
/// Seconds; servers of zones are between a few milliseconds and the other side of the world away.
const ROUND_TRIPS: [f64; 11] = [0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.4, 1.0];
const ANCHORS: [State; 5] = [State::AddPend, State::Valid, State::Missing, State::Revoked, State::Removed];
const WORK: [&str; 3] = ["bytes", "signatures", "hashes"];

/// The series of all resolvers of the process.
#[derive(Clone, Debug)]
pub struct Figures {
    sent: [IntCounter; TRANSPORTS.len()],
    heard: IntCounter,
    unheard: IntCounter,
    answers: [IntCounter; STATES.len()],
    known: IntCounter,
    work: [IntCounter; WORK.len()],
    spent: IntCounter,
    entries: IntGauge,
    bytes: IntGauge,
    took: [Histogram; TRANSPORTS.len()],
    anchors: [IntGauge; ANCHORS.len()],
}

impl Default for Figures {
    /// Series that nobody reads.
    fn default() -> Self {
        Self::new(&Metrics::new())
    }
}

impl Figures {
    /// Makes the series, all at zero.
    pub fn new(metrics: &Metrics) -> Self {
        let plane = metrics.plane("dns");
        let sent = plane.counters("upstream_messages_total", "Messages sent to other servers.", &["transport"]);
        let answers = plane.counters("validations_total", "Answers of the resolver by what was proven.", &["state"]);
        let work = plane.counters("resolver_work_total", "What questions took from their budgets.", &["kind"]);
        let (what, label) = ("Seconds until a server answered.", &["transport"]);
        let took = plane.histograms("upstream_round_trip_seconds", what, label, &ROUND_TRIPS);
        let (what, label) = ("Keys of trust anchors by their state (RFC 5011).", &["state"]);
        let anchors = plane.gauges("trust_anchor_keys", what, label);
        Self {
            took: TRANSPORTS.map(|transport| took.with_label_values(&[transport])),
            anchors: ANCHORS.map(|state| anchors.with_label_values(&[state.word()])),
            sent: TRANSPORTS.map(|transport| sent.with_label_values(&[transport])),
            heard: plane.counter("upstream_replies_total", "Messages that came from servers that were asked."),
            unheard: plane.counter("upstream_failures_total", "Servers that refused a message or hung up."),
            answers: STATES.map(|state| answers.with_label_values(&[state])),
            known: plane.counter("rrset_cache_answers_total", "Answers for which no server was asked."),
            work: WORK.map(|kind| work.with_label_values(&[kind])),
            spent: plane.counter("budget_spent_total", "Questions given up because their budget was spent."),
            entries: plane.gauge("rrset_cache_entries", "Sets, denials and failures that the resolver knows."),
            bytes: plane.gauge("rrset_cache_bytes", "Size of what the resolver knows."),
        }
    }

    pub(super) fn sent(&self, server: Contact, connected: bool) {
        self.sent[transport(server, connected)].inc();
    }

    /// Something came from a server that was asked so long ago.
    pub(super) fn heard(&self, server: Contact, connected: bool, took: Duration) {
        self.heard.inc();
        self.took[transport(server, connected)].observe(took.as_secs_f64());
    }

    /// What is thought of the keys of anchors.
    pub(super) fn anchors(&self, followed: &Followed) {
        for (series, state) in self.anchors.iter().zip(ANCHORS) {
            series.set(i64::try_from(followed.count(state)).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn unheard(&self) {
        self.unheard.inc();
    }

    pub(super) fn answered(&self, answer: &Answer) {
        let state = match (answer.why, answer.security) {
            // RFC 8914 §4.7 to §4.13: what a validator has against an answer.
            (Some(why), _) if matches!(why.code(), 6..=12) => 2,
            _ if answer.rcode == rcode::SERVFAIL => 3,
            (_, Security::Secure) => 0,
            (_, Security::Bogus) => 2,
            (_, Security::Insecure | Security::Unchecked) => 1,
        };
        self.answers[state].inc();
        if answer.cost.packets == 0 {
            self.known.inc();
        }
        for (series, spent) in self.work.iter().zip([answer.cost.bytes, answer.cost.signatures, answer.cost.hashes]) {
            series.inc_by(spent.into());
        }
        if answer.why == Some(Why::BudgetSpent) {
            self.spent.inc();
        }
    }
}

fn transport(server: Contact, connected: bool) -> usize {
    match server {
        Contact::Encrypted(_) => 2,
        Contact::Plain(_) => usize::from(connected),
    }
}

/// One thread's part of the fill, which goes with the thread.
#[derive(Debug)]
pub(super) struct Fill {
    figures: Figures,
    entries: i64,
    bytes: i64,
}

impl Fill {
    pub(super) fn new(figures: Figures) -> Self {
        Self { figures, entries: 0, bytes: 0 }
    }

    pub(super) fn set(&mut self, (entries, bytes): (usize, usize)) {
        let (entries, bytes) = (i64::try_from(entries).unwrap_or(0), i64::try_from(bytes).unwrap_or(0));
        self.figures.entries.add(entries - self.entries);
        self.figures.bytes.add(bytes - self.bytes);
        (self.entries, self.bytes) = (entries, bytes);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.set((0, 0));
    }
}

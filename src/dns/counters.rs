//! What the plane counts. The hot path counts in a [`Tally`] of plain integers and adds it up once a batch.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{encode, query::Edns, resolver::driver::figures::Figures};
use crate::metrics::Metrics;

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By a record of the house.
    Local,
    /// By the rule for a special name.
    Special,
    /// Blocked by a rule.
    Blocked,
    /// From the cache.
    Cached,
    /// By an expired answer.
    Stale,
    /// By asking others.
    Resolved,
    /// SERVFAIL.
    Failed,
    /// REFUSED or NOTIMP.
    Refused,
    /// FORMERR or BADVERS.
    Malformed,
    /// The client asks too much: told to come by TCP, which proves where it is.
    Limited,
}

const OUTCOMES: [&str; 10] =
    ["local", "special", "blocked", "cached", "stale", "resolved", "failed", "refused", "malformed", "limited"];

impl Outcome {
    /// Returns the word for it.
    pub(crate) fn word(self) -> &'static str {
        OUTCOMES[self as usize]
    }
}

/// Why nothing was said at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It did not come from the house.
    Origin,
    /// No query: an answer, or a scrap.
    NoQuery,
    /// The client asks too much.
    Limit,
    /// The client has too many connections.
    Connections,
    /// The way back is full or gone.
    Unsendable,
    /// We fell over it.
    Fault,
    /// A list wants it to be left without an answer.
    Rule,
}

const DROPS: [&str; 7] = ["origin", "no_query", "limit", "connections", "unsendable", "fault", "rule"];

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A datagram of the kernel's.
    Udp,
    /// A connection of the kernel's.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over QUIC (RFC 9250).
    Quic,
    /// DNS over HTTPS (RFC 8484): the ingress's table has let it in.
    Https,
    /// A datagram out of the tunnel.
    TunnelUdp,
    /// A connection out of the tunnel.
    TunnelTcp,
    /// From another plane of this process.
    House,
}

const TRANSPORTS: [&str; 8] = ["udp", "tcp", "tls", "quic", "https", "tunnel_udp", "tunnel_tcp", "house"];

impl Transport {
    /// Returns the word for it.
    pub(crate) fn word(self) -> &'static str {
        TRANSPORTS[self as usize]
    }

    /// Returns how long an answer may be.
    pub(crate) fn limit(self, edns: Option<Edns>) -> usize {
        match self {
            Self::Udp | Self::TunnelUdp => encode::udp_limit(edns),
            Self::Tcp | Self::Tls | Self::Quic | Self::Https | Self::TunnelTcp | Self::House => usize::from(u16::MAX),
        }
    }

    /// Says whether others can read along, so that sizes are worth hiding (RFC 8467).
    pub(crate) fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Quic | Self::Https)
    }

    /// Says whether whoever asks is known to get the answer: no source address is believed but a datagram's.
    pub(crate) fn is_proven(self) -> bool {
        self != Self::Udp
    }

    /// Says whether the client keeps a connection whose idle time is ours to tell (RFC 7828; RFC 9250 §5.5.2
    /// forbids it).
    pub(crate) fn keeps_alive(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::TunnelTcp)
    }
}

/// Counts of one thread that were not added up yet.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    outcomes: [u64; OUTCOMES.len()],
    drops: [u64; DROPS.len()],
}

impl Tally {
    /// Counts an answer.
    pub(crate) fn answered(&mut self, outcome: Outcome) {
        self.outcomes[outcome as usize] += 1;
    }

    /// Counts a silence.
    pub(crate) fn dropped(&mut self, reason: Dropped) {
        self.drops[reason as usize] += 1;
    }
}

/// The series of the plane.
#[derive(Debug)]
pub(crate) struct Series {
    questions: [[IntCounter; OUTCOMES.len()]; TRANSPORTS.len()],
    drops: [IntCounter; DROPS.len()],
    hits: IntCounter,
    misses: IntCounter,
    overload: IntCounterVec,
    reduced: IntCounter,
    retries: IntCounter,
    upstream: Histogram,
    pub(crate) waiting: IntGauge,
    pub(crate) cache_bytes: IntGauge,
    pub(crate) cache_entries: IntGauge,
    pub(crate) list_names: IntGaugeVec,
    pub(crate) list_fetches: IntCounterVec,
    pub(crate) figures: Figures,
}

impl Series {
    /// Makes the series, all at zero.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let plane = metrics.plane("dns");
        let questions = plane.counters("questions_total", "Questions answered, by outcome.", &["outcome", "transport"]);
        let drops = plane.counters("dropped_total", "Questions that nothing was said to.", &["reason"]);
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        Self {
            questions: TRANSPORTS
                .map(|transport| OUTCOMES.map(|outcome| questions.with_label_values(&[outcome, transport]))),
            drops: DROPS.map(|reason| drops.with_label_values(&[reason])),
            hits: plane.counter("cache_hits_total", "Questions answered from the cache."),
            misses: plane.counter("cache_misses_total", "Questions that others had to be asked for."),
            reduced: plane
                .counter("reduced_questions_total", "Questions looked up for less: their clients ask too much."),
            overload: plane.counters("overload_total", "Questions given up because a bound was reached.", &["bound"]),
            retries: plane.counter("quic_retries_total", "QUIC handshakes that had to prove their address first."),
            upstream: plane.histogram("upstream_seconds", "Time from asking others to their answer.", &buckets),
            waiting: plane.gauge("waiting_questions", "Questions that wait for others now."),
            cache_bytes: plane.gauge("cache_bytes", "Size of the answer cache."),
            cache_entries: plane.gauge("cache_entries", "Answers in the cache."),
            list_fetches: plane.counters("list_fetches_total", "Lists asked for, by outcome.", &["outcome"]),
            figures: Figures::new(metrics),
            list_names: plane.gauges("list_names", "Names on each list.", &["list"]),
        }
    }

    /// Adds up what a thread counted and clears it.
    pub(crate) fn add(&self, transport: Transport, tally: &mut Tally) {
        self.hits.inc_by(tally.outcomes[Outcome::Cached as usize]);
        for (series, count) in self.questions[transport as usize].iter().zip(&mut tally.outcomes) {
            if *count > 0 {
                series.inc_by(std::mem::take(count));
            }
        }
        for (series, count) in self.drops.iter().zip(&mut tally.drops) {
            if *count > 0 {
                series.inc_by(std::mem::take(count));
            }
        }
    }

    /// Counts one answer.
    pub(crate) fn answered(&self, transport: Transport, outcome: Outcome) {
        self.questions[transport as usize][outcome as usize].inc();
        if outcome == Outcome::Cached {
            self.hits.inc();
        }
    }

    /// Counts one silence.
    pub(crate) fn dropped(&self, reason: Dropped) {
        self.drops[reason as usize].inc();
    }

    /// Returns how many silences of a kind were counted.
    #[cfg(test)]
    pub(crate) fn drops(&self, reason: Dropped) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Counts a question that the cache did not know.
    pub(crate) fn missed(&self) {
        self.misses.inc();
    }

    /// Counts a question that was given up.
    pub(crate) fn overloaded(&self, bound: &str) {
        self.overload.with_label_values(&[bound]).inc();
    }

    /// Counts a question that may cost less than others.
    pub(crate) fn reduced(&self) {
        self.reduced.inc();
    }

    /// Counts a QUIC handshake that had to prove its address first.
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    /// Counts the time that others took.
    pub(crate) fn upstream_took(&self, time: Duration) {
        self.upstream.observe(time.as_secs_f64());
    }
}

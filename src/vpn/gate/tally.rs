//! What the gate counts, and what it knows of each peer.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::origin::PeerId;

/// A peer is online while its last handshake is younger: sessions end after 180 s.
const ONLINE_FOR: Duration = Duration::from_secs(180);

/// Why something was dropped: the label of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dropped {
    /// No WireGuard message, by type or length.
    NotWireguard,
    /// A handshake whose sender does not know the gate's key.
    Mac1,
    /// Too many handshakes: of one source, of all, or no cookie left to send.
    Limited,
    /// A handshake of a key that is no peer's.
    UnknownPeer,
    /// A handshake that came before.
    ReplayedHandshake,
    /// A message for no session, or one that does not decrypt.
    NoSession,
    /// A data message that came before.
    Duplicate,
    /// It was sealed and is not a whole IP packet.
    Malformed,
    /// A piece of an IP packet.
    Fragment,
    /// An inner source that is not the peer's.
    SpoofedSource,
    /// From outside the tunnel, for an inner address of the gate.
    GateFromOutside,
    /// From outside the tunnel, for nobody inside.
    NoPeer,
    /// A packet for a peer of whom nobody knows where it is.
    NoEndpoint,
    /// What the peer may not begin.
    Forbidden,
    /// More connections than one peer may have.
    TooManyConnections,
    /// Larger than the tunnel of whom it is for.
    TooBig,
    /// A queue inside was full.
    QueueFull,
    /// The kernel did not take it.
    Unsent,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::NotWireguard,
        Self::Mac1,
        Self::Limited,
        Self::UnknownPeer,
        Self::ReplayedHandshake,
        Self::NoSession,
        Self::Duplicate,
        Self::Malformed,
        Self::Fragment,
        Self::SpoofedSource,
        Self::GateFromOutside,
        Self::NoPeer,
        Self::NoEndpoint,
        Self::Forbidden,
        Self::TooManyConnections,
        Self::TooBig,
        Self::QueueFull,
        Self::Unsent,
    ];

    /// Returns the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotWireguard => "not_wireguard",
            Self::Mac1 => "mac1",
            Self::Limited => "limited",
            Self::UnknownPeer => "unknown_peer",
            Self::ReplayedHandshake => "replayed_handshake",
            Self::NoSession => "no_session",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::SpoofedSource => "spoofed_source",
            Self::GateFromOutside => "gate_from_outside",
            Self::NoPeer => "no_peer",
            Self::NoEndpoint => "no_endpoint",
            Self::Forbidden => "forbidden",
            Self::TooManyConnections => "too_many_connections",
            Self::TooBig => "too_big",
            Self::QueueFull => "queue_full",
            Self::Unsent => "unsent",
        }
    }
}

/// What came of a handshake: the label of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The peer began, and was answered.
    Answered,
    /// A session was proven from both sides.
    Completed,
    /// A cookie was sent instead of an answer.
    Cookie,
    /// It was dropped.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Completed, Self::Cookie, Self::Refused];

    /// Returns the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Completed => "completed",
            Self::Cookie => "cookie",
            Self::Refused => "refused",
        }
    }
}

/// What happened since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Drops by reason.
    pub drops: HashMap<Dropped, u64>,
    /// Handshakes by outcome.
    pub handshakes: HashMap<Outcome, u64>,
    /// Peers whose [`Standing`] changed.
    pub touched: BTreeSet<PeerId>,
}

/// What is known of a peer.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Where it was last heard.
    pub endpoint: Option<SocketAddr>,
    /// When a session was last proven.
    pub last_handshake: Option<Instant>,
    /// Bytes of accepted datagrams.
    pub received: u64,
    /// Bytes of datagrams sent.
    pub sent: u64,
    /// Packets of its that were refused or dropped inside.
    pub refused: u64,
    /// It was last proven by a key of the gate that is not the present one.
    pub knows_old_key: bool,
}

impl Standing {
    /// Says whether a session with it can still be used.
    pub fn is_online(&self, now: Instant) -> bool {
        self.last_handshake.is_some_and(|then| now.saturating_duration_since(then) < ONLINE_FOR)
    }
}

//! The gate itself: datagrams, inner packets and time in, actions out. No I/O and no clock of its own.

pub mod handshake;
pub mod owner;
pub mod packet;
pub mod policy;
pub mod sessions;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Packet as Message, Tunn, handshake::parse_handshake_anon},
    x25519,
};

use crate::{
    origin::PeerId,
    vpn::{
        gate::{
            handshake::{Admission, Porter, Refusal},
            packet::{Malformed, Packet},
            policy::Policy,
            sessions::{Buffer, Refused, Sessions},
        },
        keys::{PrivateKey, PublicKey},
    },
};

/// How often [`Gate::handle_timeout`] wants to be called while a peer is active.
pub const TICK: Duration = Duration::from_millis(250);
/// After the last word of a peer its sessions live for 180 s and a handshake is tried for 90 s.
const ACTIVE_FOR: Duration = Duration::from_secs(300);
/// A peer is online while its last handshake is younger: sessions end after 180 s.
const ONLINE_FOR: Duration = Duration::from_secs(180);

/// The way that a datagram came, and by which the answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Which of the gate's sockets.
    pub socket: usize,
    /// The address of ours that it was sent to, where the socket tells.
    pub local: Option<IpAddr>,
    /// The other end.
    pub remote: SocketAddr,
}

/// What the gate wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this datagram.
    Send(Path, Vec<u8>),
    /// This inner packet is the peer's own.
    Deliver(PeerId, Vec<u8>),
}

/// Why something was dropped: the label of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
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
    /// A packet for a peer of whom nobody knows where it is.
    NoEndpoint,
    /// What the peer may not begin.
    Forbidden,
    /// More connections than one peer may have.
    TooManyConnections,
    /// A queue inside was full.
    QueueFull,
    /// The kernel did not take it.
    Unsent,
}

impl Drop {
    /// Every reason.
    pub const ALL: [Self; 15] = [
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
        Self::NoEndpoint,
        Self::Forbidden,
        Self::TooManyConnections,
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
            Self::NoEndpoint => "no_endpoint",
            Self::Forbidden => "forbidden",
            Self::TooManyConnections => "too_many_connections",
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
    pub drops: HashMap<Drop, u64>,
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
}

impl Standing {
    /// Says whether a session with it can still be used.
    pub fn is_online(&self, now: Instant) -> bool {
        self.last_handshake.is_some_and(|then| now.saturating_duration_since(then) < ONLINE_FOR)
    }
}

#[derive(Debug)]
struct Peer {
    public_key: PublicKey,
    preshared_key: Option<[u8; 32]>,
    index: u32,
    sessions: Sessions,
    path: Option<Path>,
    /// The session that the gate answered last: proven by the first data on it.
    unproven: Option<u32>,
    heard: Option<Instant>,
    standing: Standing,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    private_key: PrivateKey,
    public_key: PublicKey,
    policy: Arc<Policy>,
    porter: Porter,
    peers: HashMap<PeerId, Peer>,
    by_key: HashMap<PublicKey, PeerId>,
    by_index: HashMap<u32, PeerId>,
    active: BTreeSet<PeerId>,
    buffer: Buffer,
    /// The library's answers on their way into actions; empty between calls.
    messages: Vec<Vec<u8>>,
    tally: Tally,
}

impl Gate {
    /// Makes a gate without sessions.
    pub fn new(policy: Arc<Policy>, now: Instant) -> Self {
        let private_key = policy.private_key.clone();
        let public_key = private_key.public_key();
        let mut gate = Self {
            porter: Porter::new(&public_key, now),
            private_key,
            public_key,
            policy: policy.clone(),
            peers: HashMap::new(),
            by_key: HashMap::new(),
            by_index: HashMap::new(),
            active: BTreeSet::new(),
            buffer: Buffer::default(),
            messages: Vec::new(),
            tally: Tally::default(),
        };
        gate.set_policy(policy, now);
        gate
    }

    /// Takes a new policy: peers that are not in it lose everything at once, peers whose keys are the same
    /// keep their sessions.
    pub fn set_policy(&mut self, policy: Arc<Policy>, now: Instant) {
        let public_key = policy.private_key.public_key();
        let same_gate = public_key == self.public_key;
        if !same_gate {
            self.private_key = policy.private_key.clone();
            self.public_key = public_key;
            self.porter = Porter::new(&public_key, now);
        }
        let gone: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(id, peer)| {
                !same_gate
                    || policy.peers.get(id).is_none_or(|wanted| {
                        wanted.public_key != peer.public_key
                            || wanted.preshared_key.as_ref().map(|key| key.to_bytes()) != peer.preshared_key
                    })
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.remove(id);
        }
        for (id, wanted) in &policy.peers {
            if self.peers.contains_key(id) {
                continue;
            }
            let index = self.free_index(random_index);
            let sessions = Sessions::new(&self.private_key, &wanted.public_key, wanted.preshared_key.as_ref(), index);
            self.by_index.insert(index, *id);
            self.by_key.insert(wanted.public_key, *id);
            let peer = Peer {
                public_key: wanted.public_key,
                preshared_key: wanted.preshared_key.as_ref().map(|key| key.to_bytes()),
                index,
                sessions,
                path: None,
                unproven: None,
                heard: None,
                standing: Standing::default(),
            };
            self.peers.insert(*id, peer);
        }
        self.policy = policy;
    }

    fn remove(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.remove(&id) {
            self.by_index.remove(&peer.index);
            self.by_key.remove(&peer.public_key);
            self.active.remove(&id);
        }
    }

    fn free_index(&self, mut random: impl FnMut() -> u32) -> u32 {
        loop {
            let index = random() & 0x00ff_ffff;
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    /// Takes a datagram from the network.
    pub fn handle_datagram(&mut self, path: Path, bytes: &[u8], now: Instant, actions: &mut Vec<Action>) {
        // Type, reserved bytes and length, without believing anything else.
        let Ok(message) = Tunn::parse_incoming_packet(bytes) else {
            return self.drop(Drop::NotWireguard);
        };
        match message {
            Message::HandshakeInit(initiation) => {
                if !self.admit(path, bytes, now, actions) {
                    return;
                }
                let private: x25519::StaticSecret = self.private_key.to_x25519();
                let Ok(half) = parse_handshake_anon(&private, &self.public_key.to_x25519(), &initiation) else {
                    return self.refuse(Drop::UnknownPeer);
                };
                let Some(id) = self.by_key.get(&PublicKey::from(half.peer_static_public)).copied() else {
                    return self.refuse(Drop::UnknownPeer);
                };
                self.handle_handshake(id, path, bytes, now, actions);
            }
            Message::HandshakeResponse(response) => {
                if !self.admit(path, bytes, now, actions) {
                    return;
                }
                let Some(id) = self.by_index.get(&(response.receiver_idx >> 8)).copied() else {
                    return self.refuse(Drop::NoSession);
                };
                self.handle_handshake(id, path, bytes, now, actions);
            }
            Message::PacketCookieReply(reply) => {
                let Some(id) = self.by_index.get(&(reply.receiver_idx >> 8)).copied() else {
                    return self.drop(Drop::NoSession);
                };
                let Some(peer) = self.peers.get_mut(&id) else { return };
                // Authenticated by our own last mac1, which says nothing about where the peer is.
                let _ = peer.sessions.handle(bytes, &mut self.buffer, &mut self.messages);
                self.messages.clear();
            }
            Message::PacketData(data) => {
                let Some(id) = self.by_index.get(&(data.receiver_idx >> 8)).copied() else {
                    return self.drop(Drop::NoSession);
                };
                self.handle_data(id, data.receiver_idx, path, bytes, now, actions);
            }
        }
    }

    fn admit(&mut self, path: Path, bytes: &[u8], now: Instant, actions: &mut Vec<Action>) -> bool {
        match self.porter.judge(path.remote, bytes, now) {
            Admission::Admitted => return true,
            Admission::Cookie(reply) => {
                *self.tally.handshakes.entry(Outcome::Cookie).or_default() += 1;
                actions.push(Action::Send(path, reply.into()));
            }
            Admission::Refused(Refusal::Mac1) => self.refuse(Drop::Mac1),
            Admission::Refused(Refusal::CookieBudget | Refusal::Source | Refusal::Budget) => self.refuse(Drop::Limited),
        }
        false
    }

    fn handle_handshake(&mut self, id: PeerId, path: Path, bytes: &[u8], now: Instant, actions: &mut Vec<Action>) {
        // First the clock inside: it stood still if the peer was silent.
        self.tick(id, actions);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_initiation = bytes.first() == Some(&1);
        match peer.sessions.handle(bytes, &mut self.buffer, &mut self.messages) {
            Ok(_) if is_initiation => {
                // Our own index in the answer. The endpoint stays what it was until the peer uses this
                // session: after a restart an old initiation could be replayed from anywhere.
                peer.unproven = self.messages.first().and_then(|answer| sender_index(answer));
                *self.tally.handshakes.entry(Outcome::Answered).or_default() += 1;
            }
            Ok(_) => {
                peer.path = Some(path);
                peer.standing.endpoint = Some(path.remote);
                peer.standing.last_handshake = Some(now);
                *self.tally.handshakes.entry(Outcome::Completed).or_default() += 1;
            }
            Err(Refused::Replay) => return self.refuse(Drop::ReplayedHandshake),
            Err(_) => return self.refuse(Drop::NoSession),
        }
        peer.standing.received += bytes.len() as u64;
        peer.heard = Some(now);
        self.active.insert(id);
        self.tally.touched.insert(id);
        Self::send(peer, path, &mut self.messages, actions);
    }

    fn handle_data(
        &mut self,
        id: PeerId,
        index: u32,
        path: Path,
        bytes: &[u8],
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let opened = match peer.sessions.handle(bytes, &mut self.buffer, &mut self.messages) {
            Err(Refused::Duplicate | Refused::Replay) => return self.drop(Drop::Duplicate),
            Err(Refused::NoSession | Refused::Invalid) => return self.drop(Drop::NoSession),
            Err(Refused::Packet) => Err(Drop::Malformed),
            Ok(opened) => Ok(opened),
        };
        // From here on it is the peer who speaks, whatever it says: this is where it is.
        if peer.unproven == Some(index) {
            peer.unproven = None;
            peer.standing.last_handshake = Some(now);
            *self.tally.handshakes.entry(Outcome::Completed).or_default() += 1;
        }
        if peer.path != Some(path) {
            peer.path = Some(path);
            peer.standing.endpoint = Some(path.remote);
        }
        peer.heard = Some(now);
        peer.standing.received += bytes.len() as u64;
        self.active.insert(id);
        self.tally.touched.insert(id);
        Self::send(peer, path, &mut self.messages, actions);
        let packet = match opened {
            Err(drop) => return self.drop(drop),
            Ok(None) => return,
            Ok(Some(packet)) => packet,
        };
        match Packet::parse(&packet) {
            Err(Malformed::Fragment) => self.drop(Drop::Fragment),
            Err(_) => self.drop(Drop::Malformed),
            Ok(inner) if self.policy.owner(inner.source) != Some(id) => self.drop(Drop::SpoofedSource),
            Ok(_) => actions.push(Action::Deliver(id, packet)),
        }
    }

    /// Takes an inner packet for a peer.
    pub fn handle_packet(&mut self, id: PeerId, packet: &[u8], now: Instant, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return self.drop(Drop::NoEndpoint);
        };
        let Some(path) = peer.path else {
            return self.drop(Drop::NoEndpoint);
        };
        if !self.active.contains(&id) {
            peer.heard = Some(now);
            self.active.insert(id);
            self.messages.extend(peer.sessions.tick(&mut self.buffer));
        }
        self.messages.extend(peer.sessions.seal(packet, &mut self.buffer));
        self.tally.touched.insert(id);
        Self::send(peer, path, &mut self.messages, actions);
    }

    /// Returns whether [`Gate::handle_timeout`] should be called every [`TICK`].
    pub fn wants_ticks(&self) -> bool {
        !self.active.is_empty()
    }

    /// Lets time pass for the peers that are active.
    pub fn handle_timeout(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for id in self.active.clone() {
            self.tick(id, actions);
            let silent = self.peers.get(&id).and_then(|peer| peer.heard);
            if silent.is_none_or(|heard| now.saturating_duration_since(heard) > ACTIVE_FOR) {
                self.active.remove(&id);
            }
        }
    }

    fn tick(&mut self, id: PeerId, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(message) = peer.sessions.tick(&mut self.buffer) else { return };
        if let Some(path) = peer.path {
            peer.standing.sent += message.len() as u64;
            self.tally.touched.insert(id);
            actions.push(Action::Send(path, message));
        }
    }

    fn send(peer: &mut Peer, path: Path, messages: &mut Vec<Vec<u8>>, actions: &mut Vec<Action>) {
        for message in messages.drain(..) {
            peer.standing.sent += message.len() as u64;
            actions.push(Action::Send(path, message));
        }
    }

    /// Counts a drop that somebody else saw.
    pub fn drop(&mut self, reason: Drop) {
        *self.tally.drops.entry(reason).or_default() += 1;
    }

    fn refuse(&mut self, reason: Drop) {
        *self.tally.handshakes.entry(Outcome::Refused).or_default() += 1;
        self.drop(reason);
    }

    /// Returns what happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Returns what is known of a peer.
    pub fn standing(&self, id: PeerId) -> Option<&Standing> {
        self.peers.get(&id).map(|peer| &peer.standing)
    }

    /// Returns how many peers have a session that can be used.
    pub fn online(&self, now: Instant) -> usize {
        self.peers.values().filter(|peer| peer.standing.is_online(now)).count()
    }
}

fn random_index() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    u32::from_le_bytes(bytes)
}

/// Returns the index by which the sender of a handshake message wants to be answered.
fn sender_index(message: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*message.get(4..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod tests;

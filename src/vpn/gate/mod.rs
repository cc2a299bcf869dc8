//! The gate itself: datagrams, inner packets and time in, actions out. No I/O and no clock of its own.

pub(super) mod flows;
pub(super) mod forward;
mod greeting;
pub mod handshake;
pub mod owner;
pub mod packet;
pub mod policy;
pub(super) mod reach;
pub mod sessions;
mod tally;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

pub use tally::{Dropped, Outcome, Standing, Tally};

use boringtun::{
    noise::{Packet as Message, Tunn, handshake::parse_handshake_anon},
    x25519,
};

use crate::{
    origin::PeerId,
    vpn::{
        gate::{
            greeting::Greeting,
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

#[derive(Debug)]
struct Peer {
    public_key: PublicKey,
    preshared_key: Option<[u8; 32]>,
    index: u32,
    sessions: Sessions,
    path: Option<Path>,
    /// When it was last heard there.
    heard: Option<Instant>,
    greeting: Greeting,
    /// The session that the gate answered last: proven by the first data on it.
    unproven: Option<u32>,
    /// When it last spoke, or was first spoken to after a silence.
    stirred: Option<Instant>,
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
    /// Where peers are, as far as it was proven.
    by_remote: HashMap<SocketAddr, PeerId>,
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
            by_remote: HashMap::new(),
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
                heard: None,
                greeting: Greeting::default(),
                unproven: None,
                stirred: None,
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
            if let Some(path) = peer.path
                && self.by_remote.get(&path.remote) == Some(&id)
            {
                self.by_remote.remove(&path.remote);
            }
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
            return self.drop(Dropped::NotWireguard);
        };
        match message {
            Message::HandshakeInit(initiation) => {
                if !self.admit(path, bytes, now, actions) {
                    return;
                }
                let private: x25519::StaticSecret = self.private_key.to_x25519();
                let Ok(half) = parse_handshake_anon(&private, &self.public_key.to_x25519(), &initiation) else {
                    return self.refuse(Dropped::UnknownPeer);
                };
                let Some(id) = self.by_key.get(&PublicKey::from(half.peer_static_public)).copied() else {
                    return self.refuse(Dropped::UnknownPeer);
                };
                self.handle_handshake(id, path, bytes, now, actions);
            }
            Message::HandshakeResponse(response) => {
                if !self.admit(path, bytes, now, actions) {
                    return;
                }
                let Some(id) = self.by_index.get(&(response.receiver_idx >> 8)).copied() else {
                    return self.refuse(Dropped::NoSession);
                };
                self.handle_handshake(id, path, bytes, now, actions);
            }
            Message::PacketCookieReply(reply) => {
                let Some(id) = self.by_index.get(&(reply.receiver_idx >> 8)).copied() else {
                    return self.drop(Dropped::NoSession);
                };
                let Some(peer) = self.peers.get_mut(&id) else { return };
                // Authenticated by our own last mac1, which says nothing about where the peer is.
                let _ = peer.sessions.handle(bytes, &mut self.buffer, &mut self.messages);
                self.messages.clear();
            }
            Message::PacketData(data) => {
                let Some(id) = self.by_index.get(&(data.receiver_idx >> 8)).copied() else {
                    return self.handle_lost(path.remote, now);
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
            Admission::Refused(Refusal::Mac1) => self.refuse(Dropped::Mac1),
            Admission::Refused(Refusal::CookieBudget | Refusal::Source | Refusal::Budget) => {
                self.refuse(Dropped::Limited)
            }
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
                Self::locate(id, peer, path, now, &mut self.by_remote);
                peer.standing.last_handshake = Some(now);
                *self.tally.handshakes.entry(Outcome::Completed).or_default() += 1;
            }
            Err(Refused::Replay) => return self.refuse(Dropped::ReplayedHandshake),
            Err(_) => return self.refuse(Dropped::NoSession),
        }
        peer.standing.received += bytes.len() as u64;
        peer.stirred = Some(now);
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
            Err(Refused::Duplicate | Refused::Replay) => return self.drop(Dropped::Duplicate),
            Err(Refused::NoSession) => return self.handle_lost(path.remote, now),
            Err(Refused::Invalid) => return self.drop(Dropped::NoSession),
            Err(Refused::Packet) => Err(Dropped::Malformed),
            Ok(opened) => Ok(opened),
        };
        // From here on it is the peer who speaks, whatever it says: this is where it is.
        if peer.unproven == Some(index) {
            peer.unproven = None;
            peer.standing.last_handshake = Some(now);
            *self.tally.handshakes.entry(Outcome::Completed).or_default() += 1;
        }
        Self::locate(id, peer, path, now, &mut self.by_remote);
        peer.stirred = Some(now);
        peer.standing.received += bytes.len() as u64;
        self.active.insert(id);
        self.tally.touched.insert(id);
        Self::send(peer, path, &mut self.messages, actions);
        let packet = match opened {
            Err(drop) => return self.drop(drop),
            Ok(None) => return,
            Ok(Some(packet)) => packet,
        };
        match Packet::parse_piece(&packet) {
            Err(Malformed::Fragment) => self.drop(Dropped::Fragment),
            Err(_) => self.drop(Dropped::Malformed),
            Ok(inner) if self.policy.owner(inner.source) != Some(id) => self.drop_of(id, Dropped::SpoofedSource),
            Ok(_) => actions.push(Action::Deliver(id, packet)),
        }
    }

    /// Notes that a peer has proven to be there.
    fn locate(id: PeerId, peer: &mut Peer, path: Path, now: Instant, by_remote: &mut HashMap<SocketAddr, PeerId>) {
        peer.heard = Some(now);
        peer.greeting.end();
        if peer.path == Some(path) {
            return;
        }
        if let Some(before) = peer.path.replace(path)
            && by_remote.get(&before.remote) == Some(&id)
        {
            by_remote.remove(&before.remote);
        }
        by_remote.insert(path.remote, id);
        peer.standing.endpoint = Some(path.remote);
    }

    /// Takes an inner packet for a peer.
    pub fn handle_packet(&mut self, id: PeerId, packet: &[u8], now: Instant, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return self.drop(Dropped::NoEndpoint);
        };
        let Some(path) = peer.path else {
            return self.drop(Dropped::NoEndpoint);
        };
        if !self.active.contains(&id) {
            peer.stirred = Some(now);
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
        let mut greetings = greeting::AT_ONCE;
        for id in self.active.clone() {
            self.tick(id, actions);
            if greetings > 0 && self.greet(id, now, actions) {
                greetings -= 1;
            }
            let stirred = self.peers.get(&id).and_then(|peer| peer.stirred);
            if stirred.is_none_or(|then| now.saturating_duration_since(then) > ACTIVE_FOR) {
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
    pub fn drop(&mut self, reason: Dropped) {
        *self.tally.drops.entry(reason).or_default() += 1;
    }

    /// Counts a drop of what a peer sent, whom somebody else refused.
    pub fn drop_of(&mut self, id: PeerId, reason: Dropped) {
        self.drop(reason);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.standing.refused += 1;
            self.tally.touched.insert(id);
        }
    }

    fn refuse(&mut self, reason: Dropped) {
        *self.tally.handshakes.entry(Outcome::Refused).or_default() += 1;
        self.drop(reason);
    }

    /// Returns what happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Says whether something happened since [`Gate::take_tally`].
    pub fn has_news(&self) -> bool {
        self.tally != Tally::default()
    }

    /// Returns what is known of a peer.
    pub fn standing(&self, id: PeerId) -> Option<&Standing> {
        self.peers.get(&id).map(|peer| &peer.standing)
    }

    /// Returns where the active peers were last heard, and when.
    pub fn whereabouts(&self) -> impl Iterator<Item = (PublicKey, Path, Instant)> + '_ {
        let peers = self.active.iter().filter_map(|id| self.peers.get(id));
        peers.filter_map(|peer| Some((peer.public_key, peer.path?, peer.heard?)))
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

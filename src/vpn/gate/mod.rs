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
mod ways;

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
            handshake::{Admission, Asker, Porter, Refusal},
            packet::{Malformed, Packet},
            policy::Policy,
            sessions::{Buffer, Refused},
            ways::{Indices, Ways},
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

/// What tells the sessions of a handshake message.
#[derive(Clone, Copy, Debug)]
enum Named {
    /// An initiation: the place of the gate's key that it was made for.
    Key(usize),
    /// A response: the index that it answers to.
    Index(u32),
}

#[derive(Debug)]
struct Peer {
    public_key: PublicKey,
    preshared_key: Option<[u8; 32]>,
    ways: Ways,
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
    /// The present one, and perhaps the one before.
    keys: Vec<PrivateKey>,
    policy: Arc<Policy>,
    porter: Porter,
    peers: HashMap<PeerId, Peer>,
    by_key: HashMap<PublicKey, PeerId>,
    by_index: Indices,
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
        let mut gate = Self {
            porter: Porter::new(&[], now),
            keys: Vec::new(),
            policy: policy.clone(),
            peers: HashMap::new(),
            by_key: HashMap::new(),
            by_index: Indices::new(),
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
    /// keep their sessions under the gate's keys that stay.
    pub fn set_policy(&mut self, policy: Arc<Policy>, now: Instant) {
        let public = |keys: &[PrivateKey]| keys.iter().map(PrivateKey::public_key).collect::<Vec<_>>();
        let keys = policy.keys();
        let same_gate = public(&keys) == public(&self.keys);
        if !same_gate {
            self.porter = Porter::new(&public(&keys), now);
            self.keys = keys;
        }
        let gone: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(id, peer)| {
                policy.peers.get(id).is_none_or(|wanted| {
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
            let is_known = self.peers.contains_key(id);
            if is_known && same_gate {
                continue;
            }
            let peer = self.peers.entry(*id).or_insert_with(|| Peer {
                public_key: wanted.public_key,
                preshared_key: wanted.preshared_key.as_ref().map(|key| key.to_bytes()),
                ways: Ways::default(),
                path: None,
                heard: None,
                greeting: Greeting::default(),
                unproven: None,
                stirred: None,
                standing: Standing::default(),
            });
            self.by_key.insert(wanted.public_key, *id);
            let whose = (*id, &wanted.public_key, wanted.preshared_key.as_ref());
            let goes_on = peer.ways.take_keys(&self.keys, whose, &mut self.by_index, random_index);
            if !goes_on {
                // It is the same peer, and knows nothing of the gate any more.
                peer.unproven = None;
                peer.standing.last_handshake = None;
            }
        }
        self.policy = policy;
    }

    fn remove(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.remove(&id) {
            peer.ways.leave(&mut self.by_index);
            self.by_key.remove(&peer.public_key);
            self.active.remove(&id);
            if let Some(path) = peer.path
                && self.by_remote.get(&path.remote) == Some(&id)
            {
                self.by_remote.remove(&path.remote);
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
                let Some(place) = self.admit(path, bytes, now, actions) else { return };
                let Some(key) = self.keys.get(place) else { return };
                let private: x25519::StaticSecret = key.to_x25519();
                let public = x25519::PublicKey::from(&private);
                let Ok(half) = parse_handshake_anon(&private, &public, &initiation) else {
                    return self.refuse(Dropped::UnknownPeer);
                };
                let Some(id) = self.by_key.get(&PublicKey::from(half.peer_static_public)).copied() else {
                    return self.refuse(Dropped::UnknownPeer);
                };
                self.handle_handshake(id, Named::Key(place), path, bytes, now, actions);
            }
            Message::HandshakeResponse(response) => {
                if self.admit(path, bytes, now, actions).is_none() {
                    return;
                }
                let Some(id) = self.by_index.get(&(response.receiver_idx >> 8)).copied() else {
                    return self.refuse(Dropped::NoSession);
                };
                self.handle_handshake(id, Named::Index(response.receiver_idx), path, bytes, now, actions);
            }
            Message::PacketCookieReply(reply) => {
                let Some(id) = self.by_index.get(&(reply.receiver_idx >> 8)).copied() else {
                    return self.drop(Dropped::NoSession);
                };
                let Some(peer) = self.peers.get_mut(&id) else { return };
                // Authenticated by our own last mac1, which says nothing about where the peer is.
                if let Some(sessions) = peer.ways.named(reply.receiver_idx) {
                    let _ = sessions.handle(bytes, &mut self.buffer, &mut self.messages);
                }
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

    /// Returns the place of the gate's key that a handshake message was made for.
    fn admit(&mut self, path: Path, bytes: &[u8], now: Instant, actions: &mut Vec<Action>) -> Option<usize> {
        let asker = match self.by_remote.contains_key(&path.remote) {
            true => Asker::Familiar,
            false => Asker::Stranger,
        };
        match self.porter.judge(path.remote, asker, bytes, now) {
            Admission::Admitted(place) => return Some(place),
            Admission::Cookie(reply) => {
                *self.tally.handshakes.entry(Outcome::Cookie).or_default() += 1;
                actions.push(Action::Send(path, reply.into()));
            }
            Admission::Refused(Refusal::Mac1) => self.refuse(Dropped::Mac1),
            Admission::Refused(Refusal::CookieBudget | Refusal::Source | Refusal::Budget) => {
                self.refuse(Dropped::Limited)
            }
        }
        None
    }

    fn handle_handshake(
        &mut self,
        id: PeerId,
        named: Named,
        path: Path,
        bytes: &[u8],
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        // First the clock inside: it stood still if the peer was silent.
        self.tick(id, actions);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let sessions = match named {
            Named::Key(place) => peer.ways.under(place),
            Named::Index(index) => peer.ways.named(index),
        };
        let Some(sessions) = sessions else { return };
        let handled = sessions.handle(bytes, &mut self.buffer, &mut self.messages);
        match (handled, named) {
            (Ok(_), Named::Key(_)) => {
                // Our own index in the answer. The endpoint stays what it was until the peer uses this
                // session: after a restart an old initiation could be replayed from anywhere.
                peer.unproven = self.messages.first().and_then(|answer| sender_index(answer));
                *self.tally.handshakes.entry(Outcome::Answered).or_default() += 1;
            }
            (Ok(_), Named::Index(index)) => {
                peer.ways.prove(index);
                peer.standing.knows_old_key = peer.ways.knows_old_key();
                Self::locate(id, peer, path, now, &mut self.by_remote);
                peer.standing.last_handshake = Some(now);
                *self.tally.handshakes.entry(Outcome::Completed).or_default() += 1;
            }
            (Err(Refused::Replay), _) => return self.refuse(Dropped::ReplayedHandshake),
            (Err(_), _) => return self.refuse(Dropped::NoSession),
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
        let Some(sessions) = peer.ways.named(index) else { return };
        let opened = match sessions.handle(bytes, &mut self.buffer, &mut self.messages) {
            Err(Refused::Duplicate | Refused::Replay) => return self.drop(Dropped::Duplicate),
            Err(Refused::NoSession) => return self.handle_lost(path.remote, now),
            Err(Refused::Invalid) => return self.drop(Dropped::NoSession),
            Err(Refused::Packet) => Err(Dropped::Malformed),
            Ok(opened) => Ok(opened),
        };
        // From here on it is the peer who speaks, whatever it says: this is where it is.
        peer.ways.prove(index);
        peer.standing.knows_old_key = peer.ways.knows_old_key();
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
            peer.ways.tick(&mut self.buffer, &mut self.messages);
        }
        self.messages.extend(peer.ways.spoken().and_then(|sessions| sessions.seal(packet, &mut self.buffer)));
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
        peer.ways.tick(&mut self.buffer, &mut self.messages);
        match peer.path {
            Some(path) if !self.messages.is_empty() => {
                self.tally.touched.insert(id);
                Self::send(peer, path, &mut self.messages, actions);
            }
            _ => self.messages.clear(),
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
mod attacks;
#[cfg(test)]
pub(crate) mod tests;

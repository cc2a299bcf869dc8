//! When the gate speaks first.
//!
//! A peer holds on to its session for up to three minutes; if the gate has lost it (a restart), or moved to
//! another address, the peer would speak to nobody until then. So the gate begins a handshake: with those
//! whose whereabouts it remembers, and with who speaks from there in a session that nobody knows. Nobody
//! else is ever spoken to first, and never fast: what comes unproven can cause no more than this.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    origin::PeerId,
    vpn::gate::{Action, Dropped, Gate, Path},
};

/// Greetings in one turn of [`super::TICK`], to all peers: 128 a second, so that 250 peers are back within two.
pub(super) const AT_ONCE: usize = 32;
/// One may be lost; after that the library tries on, every 5 s.
const TIMES: u8 = 2;
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A peer is greeted because of what cannot be proven so often at most.
const UNPROVEN_EVERY: Duration = Duration::from_secs(5);
/// Whitepaper §6.2, Reject-After-Time: after it neither end uses a session any more.
const SESSION_LIVES: Duration = Duration::from_secs(180);

/// What is left to say to a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Greeting {
    left: u8,
    last: Option<Instant>,
}

impl Greeting {
    fn begin(&mut self) {
        self.left = TIMES;
    }

    /// The peer has spoken, and proven that it is the one.
    pub(super) fn end(&mut self) {
        self.left = 0;
    }

    fn is_due(&self, now: Instant) -> bool {
        self.left > 0 && self.last.is_none_or(|last| now.saturating_duration_since(last) >= AGAIN_AFTER)
    }
}

impl Gate {
    /// Tells where a peer was before this gate began; it will be greeted there.
    pub fn recall(&mut self, id: PeerId, path: Path, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.path.is_none()) else { return };
        peer.path = Some(path);
        peer.greeting.begin();
        peer.stirred = Some(now);
        self.by_remote.insert(path.remote, id);
        self.active.insert(id);
    }

    /// Takes the news that this box has other addresses: peers that spoke to one which is gone are told the
    /// new one.
    pub fn handle_move(&mut self, is_own: impl Fn(IpAddr) -> bool) {
        for id in &self.active {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let Some(path) = &mut peer.path else { continue };
            if path.local.is_some_and(|local| !is_own(local)) {
                // The kernel chooses now.
                path.local = None;
                peer.greeting.begin();
            }
        }
    }

    /// Takes data in a session that nobody knows.
    pub(super) fn handle_lost(&mut self, remote: SocketAddr, now: Instant) {
        self.drop(Dropped::NoSession);
        let Some(id) = self.by_remote.get(&remote) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let age = peer.ways.spoken().and_then(|sessions| sessions.age());
        let has_session = age.is_some_and(|age| age < SESSION_LIVES);
        let was_greeted = peer.greeting.last.is_some_and(|last| now.saturating_duration_since(last) < UNPROVEN_EVERY);
        if !has_session && !was_greeted {
            peer.greeting.begin();
            peer.stirred = Some(now);
            self.active.insert(*id);
        }
    }

    /// Greets a peer if that is due. Returns whether it was.
    pub(super) fn greet(&mut self, id: PeerId, now: Instant, actions: &mut Vec<Action>) -> bool {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.greeting.is_due(now)) else { return false };
        let Some(path) = peer.path else { return false };
        peer.greeting.left -= 1;
        peer.greeting.last = Some(now);
        peer.ways.greet(&mut self.buffer, &mut self.messages);
        self.tally.touched.insert(id);
        Self::send(peer, path, &mut self.messages, actions);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::vpn::gate::{
        policy::Policy,
        tests::{Bench, HERE, config, path, peer, sent, udp},
    };

    const THERE: &str = "203.0.113.9:7";

    /// Another gate in the place of this one: nothing is left but the configuration.
    fn restart(bench: &mut Bench) {
        bench.gate = Gate::new(Arc::new(Policy::new(&config(vec![peer(0, "10.77.0.2/32")])).unwrap()), bench.now);
    }

    fn tick(bench: &mut Bench) -> Vec<Action> {
        bench.gate.handle_timeout(bench.now, &mut bench.actions);
        std::mem::take(&mut bench.actions)
    }

    #[test]
    fn after_a_restart_the_gate_speaks_first_and_the_peer_is_back() {
        let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
        let mut client = bench.connect(0, HERE);
        restart(&mut bench);

        bench.gate.recall(PeerId(0), path(HERE), bench.now);
        let greeting = sent(&tick(&mut bench)).remove(0);
        let response = client.take(&greeting).remove(0);
        let proof = sent(&bench.feed(HERE, &response)).remove(0);
        client.take(&proof);
        let data = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));

        assert!(matches!(bench.feed(HERE, &data)[..], [Action::Deliver(PeerId(0), _)]));
        bench.now += Duration::from_secs(2);
        assert_eq!(tick(&mut bench), [], "it is greeted no more");
    }

    #[test]
    fn a_greeting_that_was_lost_is_said_once_more() {
        let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
        bench.gate.recall(PeerId(0), path(HERE), bench.now);

        let mut said = Vec::new();
        for _ in 0..12 {
            said.push(tick(&mut bench).len());
            bench.now += super::super::TICK;
        }

        assert_eq!(said, [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn many_peers_are_greeted_one_after_another() {
        let peers = (0..40).map(|number| peer(number, &format!("10.77.0.{}/32", number + 2))).collect();
        let mut bench = Bench::new(peers);
        for number in 0..40 {
            bench.gate.recall(PeerId(number), path(&format!("192.0.2.1:{}", 1_000 + number)), bench.now);
        }

        assert_eq!(tick(&mut bench).len(), AT_ONCE);
        assert_eq!(tick(&mut bench).len(), 40 - AT_ONCE);
    }

    #[test]
    fn data_in_an_unknown_session_is_answered_with_a_handshake_only_where_the_peer_was() {
        let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
        let mut client = bench.connect(0, HERE);
        restart(&mut bench);
        bench.gate.recall(PeerId(0), path(HERE), bench.now);
        for _ in 0..8 {
            bench.now += Duration::from_secs(1);
            tick(&mut bench);
        }
        let data = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));

        assert_eq!(bench.feed(THERE, &data), []);
        assert_eq!(tick(&mut bench), [], "anybody can send this from anywhere");
        for _ in 0..1_000 {
            assert_eq!(bench.feed(HERE, &data), []);
        }
        let [Action::Send(way, _)] = &tick(&mut bench)[..] else { panic!("no greeting") };
        assert_eq!(*way, path(HERE));
        assert_eq!(bench.dropped(), [(Dropped::NoSession, 1_001)]);
    }

    #[test]
    fn a_peer_with_a_session_is_not_greeted_because_of_what_cannot_be_proven() {
        let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
        let mut client = bench.connect(0, HERE);
        let mut data = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
        data[4] ^= 1;

        bench.feed(HERE, &data);

        assert_eq!(tick(&mut bench), []);
    }

    #[test]
    fn a_box_that_moved_tells_those_who_spoke_to_the_address_that_is_gone() {
        let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
        let mut client = bench.connect(0, HERE);
        let ours = path(HERE).local.unwrap();

        bench.gate.handle_move(|address| address == ours);
        assert_eq!(tick(&mut bench), []);
        bench.gate.handle_move(|_| false);

        let [Action::Send(way, greeting)] = &tick(&mut bench)[..] else { panic!("no greeting") };
        assert_eq!(*way, Path { local: None, ..path(HERE) });
        assert_eq!(client.take(greeting).len(), 1, "the peer answers");
    }
}

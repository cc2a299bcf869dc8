//! One peer's sessions under each of the gate's keys: the present one, and the one before as long as there are peers who
//! know no other.
//!
//! Which key a peer knows is seen by what it proves. Until then it is spoken to first under both: what was made for the
//! other key means nothing to it.

use std::collections::HashMap;

use crate::{
    origin::PeerId,
    vpn::{
        gate::sessions::{Buffer, Sessions},
        keys::{PresharedKey, PrivateKey, PublicKey},
    },
};

/// The sessions under one key of the gate.
#[derive(Debug)]
struct Way {
    gate: PublicKey,
    /// 24 bits: what a message to the gate names it by, with the number of the session behind.
    index: u32,
    sessions: Sessions,
}

/// The sessions under all keys of the gate, of which there are one or two.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// In the order of the gate's keys.
    all: Vec<Way>,
    /// The place of the key by which the peer was last proven.
    spoken: Option<usize>,
}

/// Which peer has which index.
pub(super) type Indices = HashMap<u32, PeerId>;

impl Ways {
    /// Takes the gate's keys: sessions under one that stays are kept. Returns whether the peer can go on as it was.
    pub(super) fn take_keys(
        &mut self,
        keys: &[PrivateKey],
        (id, peer, preshared): (PeerId, &PublicKey, Option<&PresharedKey>),
        indices: &mut Indices,
        random: impl Fn() -> u32,
    ) -> bool {
        let spoken = self.spoken.take().and_then(|place| Some(self.all.get(place)?.gate));
        let mut before = std::mem::take(&mut self.all);
        for key in keys {
            let gate = key.public_key();
            let way = match before.iter().position(|way| way.gate == gate) {
                Some(place) => before.swap_remove(place),
                None => {
                    let index = free_index(indices, &random);
                    indices.insert(index, id);
                    Way { gate, index, sessions: Sessions::new(key, peer, preshared, index) }
                }
            };
            self.all.push(way);
        }
        for way in &before {
            indices.remove(&way.index);
        }
        self.spoken = spoken.and_then(|gate| self.all.iter().position(|way| way.gate == gate));
        spoken.is_none() || self.spoken.is_some()
    }

    /// Gives up all indices.
    pub(super) fn leave(&self, indices: &mut Indices) {
        for way in &self.all {
            indices.remove(&way.index);
        }
    }

    /// Returns the sessions that a message names by its index.
    pub(super) fn named(&mut self, index: u32) -> Option<&mut Sessions> {
        self.all.iter_mut().find(|way| way.index == index >> 8).map(|way| &mut way.sessions)
    }

    /// Returns the sessions under the key at a place.
    pub(super) fn under(&mut self, place: usize) -> Option<&mut Sessions> {
        self.all.get_mut(place).map(|way| &mut way.sessions)
    }

    /// Returns the sessions by which the peer is spoken to.
    pub(super) fn spoken(&mut self) -> Option<&mut Sessions> {
        self.under(self.spoken.unwrap_or(0))
    }

    /// Notes that the peer has proven itself in the sessions that an index names.
    pub(super) fn prove(&mut self, index: u32) {
        self.spoken = self.all.iter().position(|way| way.index == index >> 8).or(self.spoken);
    }

    /// Says whether the peer was last proven by a key that is not the present one.
    pub(super) fn knows_old_key(&self) -> bool {
        self.spoken.is_some_and(|place| place > 0)
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, buffer: &mut Buffer, messages: &mut Vec<Vec<u8>>) {
        messages.extend(self.all.iter_mut().filter_map(|way| way.sessions.tick(buffer)));
    }

    /// Begins a handshake by the key that the peer knows, as far as it is known.
    pub(super) fn greet(&mut self, buffer: &mut Buffer, messages: &mut Vec<Vec<u8>>) {
        let spoken = self.spoken;
        let ways = self.all.iter_mut().enumerate().filter(|(place, _)| spoken.is_none_or(|spoken| spoken == *place));
        messages.extend(ways.filter_map(|(_, way)| way.sessions.initiate_anew(buffer)));
    }
}

pub(super) fn free_index(indices: &Indices, mut random: impl FnMut() -> u32) -> u32 {
    loop {
        let index = random() & 0x00ff_ffff;
        if !indices.contains_key(&index) {
            return index;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::vpn::gate::{
        Action, Dropped, Gate, TICK,
        policy::Policy,
        tests::{Bench, Client, HERE, config, path, peer, private_key, sent, udp},
    };

    const THERE: &str = "203.0.113.9:7";
    const IN: [u8; 4] = [10, 77, 0, 1];

    fn policy(present: u32, previous: Option<u32>) -> Arc<Policy> {
        let mut config = config(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")]);
        config.private_key = private_key(present);
        config.previous_key = previous.map(private_key);
        Arc::new(Policy::new(&config).unwrap())
    }

    fn bench() -> Bench {
        Bench::new(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")])
    }

    fn delivers(bench: &mut Bench, id: u32, datagram: &[u8], from: &str) -> bool {
        matches!(bench.feed(from, datagram)[..], [Action::Deliver(peer, _)] if peer == PeerId(id))
    }

    #[test]
    fn the_gate_gets_another_key_and_loses_no_peer() {
        let mut bench = bench();
        let mut old = bench.connect(0, HERE);

        bench.gate.set_policy(policy(1_001, Some(1_000)), bench.now);
        let mut new = bench.connect_by(1, 1_001, THERE);

        let data = old.seal(&udp([10, 77, 0, 2], IN));
        assert!(delivers(&mut bench, 0, &data, HERE), "its session goes on");
        let data = new.seal(&udp([10, 77, 0, 3], IN));
        assert!(delivers(&mut bench, 1, &data, THERE));
        let knows_old = |bench: &Bench, id| bench.gate.standing(PeerId(id)).unwrap().knows_old_key;
        assert!(knows_old(&bench, 0) && !knows_old(&bench, 1));
        // And what is for it is sealed in it.
        let packet = udp(IN, [10, 77, 0, 2]);
        bench.gate.handle_packet(PeerId(0), &packet, bench.now, &mut bench.actions);
        let [Action::Send(way, message)] = &std::mem::take(&mut bench.actions)[..] else { panic!("nothing is sent") };
        assert_eq!((*way, old.take(message).len()), (path(HERE), 0));
        // A new handshake by the old key, then one by the new.
        bench.connect_by(0, 1_000, HERE);
        assert!(knows_old(&bench, 0));
        bench.connect_by(0, 1_001, HERE);
        assert!(!knows_old(&bench, 0));
    }

    #[test]
    fn once_the_old_key_is_given_up_it_opens_nothing() {
        let mut bench = bench();
        let mut old = bench.connect(0, HERE);
        bench.gate.set_policy(policy(1_001, Some(1_000)), bench.now);
        let mut new = bench.connect_by(1, 1_001, THERE);
        bench.dropped();

        bench.gate.set_policy(policy(1_001, None), bench.now);

        let data = old.seal(&udp([10, 77, 0, 2], IN));
        assert_eq!(bench.feed(HERE, &data), []);
        assert_eq!(bench.feed(HERE, &Client::of_gate(0, 1_000, HERE).initiation()), []);
        let dropped = bench.dropped();
        assert!(dropped.contains(&(Dropped::NoSession, 1)) && dropped.contains(&(Dropped::Mac1, 1)), "{dropped:?}");
        let data = new.seal(&udp([10, 77, 0, 3], IN));
        assert!(delivers(&mut bench, 1, &data, THERE), "the others do not notice");
        assert_eq!(bench.gate.by_index.len(), 2, "nothing is left of its index");
    }

    #[test]
    fn after_a_restart_a_peer_is_greeted_under_both_keys_and_then_by_the_one_it_knows() {
        let mut bench = bench();
        let mut client = bench.connect(0, HERE);
        bench.gate = Gate::new(policy(1_001, Some(1_000)), bench.now);

        bench.gate.recall(PeerId(0), path(HERE), bench.now);
        bench.gate.handle_timeout(bench.now, &mut bench.actions);
        let greetings = sent(&std::mem::take(&mut bench.actions));
        let answers: Vec<Vec<u8>> = greetings.iter().flat_map(|greeting| client.try_take(greeting)).collect();

        assert_eq!((greetings.len(), answers.len()), (2, 1), "the other one means nothing to it");
        let proof = sent(&bench.feed(HERE, &answers[0]));
        client.take(&proof[0]);
        let data = client.seal(&udp([10, 77, 0, 2], IN));
        assert!(delivers(&mut bench, 0, &data, HERE));
        bench.now += Duration::from_secs(1) + TICK;
        bench.gate.handle_move(|_| false);
        bench.gate.handle_timeout(bench.now, &mut bench.actions);
        assert_eq!(sent(&bench.actions).len(), 1);
    }
}

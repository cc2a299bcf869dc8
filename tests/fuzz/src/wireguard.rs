use std::{cell::RefCell, sync::Arc, time::Instant};

use hearthgate::{
    origin::{Directory, PeerId},
    vpn::{
        Config, Lan, Mode, Peer, Reach,
        gate::{
            Action, Gate, Path,
            packet::Packet,
            policy::Policy,
            sessions::{Buffer, Sessions},
        },
        keys::{PrivateKey, PublicKey},
    },
};

const HIM: PeerId = PeerId(1);
/// Sessions wear out; a new pair is made after so many inputs.
const INPUTS: u32 = 1000;

/// A gate with two peers, and the first of them with a session.
struct Pair {
    gate: Gate,
    policy: Arc<Policy>,
    client: Sessions,
    buffer: Buffer,
    path: Path,
    inputs: u32,
}

thread_local! {
    static PAIR: RefCell<Option<Pair>> = const { RefCell::new(None) };
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let keys = [
            key("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAUE="),
            key("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAkI="),
            key("AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA0M="),
        ];
        let [private_key, his, hers] = keys;
        let gate_key = private_key.public_key();
        let peer = |id, public_key: PublicKey, addresses: [&str; 2]| Peer {
            id,
            name: format!("peer{}", id.0),
            group: None,
            public_key,
            preshared_key: None,
            addresses: addresses.map(|address| address.parse().expect("an address")).into(),
            may_reach: vec![Reach::Services],
            reached_by: Vec::new(),
            enabled: true,
            expires: None,
            told_endpoint: None,
            keepalive: None,
            confirm: None,
            user: None,
        };
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            endpoint: None,
            addresses: ["10.77.0.1/24", "fd77::1/64"].map(|address| address.parse().expect("an address")).into(),
            private_key,
            previous_key: None,
            mode: Mode::Userspace,
            lan: Lan::Nat,
            lan_interfaces: Vec::new(),
            peers: vec![
                peer(HIM, his.public_key(), ["10.77.0.2/32", "fd77::2/128"]),
                peer(PeerId(2), hers.public_key(), ["10.77.0.3/32", "fd77::3/128"]),
            ],
            metrics_port: Some(9153),
            ports: Vec::new(),
            state: std::path::PathBuf::new(),
            directory: Directory::default(),
        };
        let policy = Arc::new(Policy::new(&config).expect("the configuration is good"));
        let mut pair = Self {
            gate: Gate::new(policy.clone(), now),
            policy,
            client: Sessions::new(&his, &gate_key, None, 7),
            buffer: Buffer::default(),
            path: Path { socket: 0, local: None, remote: "192.0.2.1:4711".parse().expect("an address") },
            inputs: 0,
        };
        let mut to_gate = vec![pair.client.initiate(&mut pair.buffer).expect("a first handshake begins at once")];
        while let Some(message) = to_gate.pop() {
            for action in pair.receive(&message) {
                let Action::Send(_, answer) = action else { continue };
                let mut back = Vec::new();
                pair.client.handle(&answer, &mut pair.buffer, &mut back).expect("the gate speaks WireGuard");
                to_gate.append(&mut back);
            }
        }
        pair
    }

    fn receive(&mut self, datagram: &[u8]) -> Vec<Action> {
        let mut actions = Vec::new();
        self.gate.handle_datagram(self.path, datagram, Instant::now(), &mut actions);
        for action in &actions {
            let Action::Deliver(peer, packet) = action else { continue };
            let packet = Packet::parse_piece(packet).expect("what is delivered is a packet, or a piece of one");
            assert_eq!((*peer, self.policy.owner(packet.source)), (HIM, Some(HIM)), "{}", packet.source);
        }
        actions
    }
}

fn key(text: &str) -> PrivateKey {
    text.parse().expect("32 bytes in base64")
}

fn with_pair(act: impl FnOnce(&mut Pair)) {
    PAIR.with_borrow_mut(|place| {
        let pair = place.get_or_insert_with(Pair::new);
        pair.inputs += 1;
        act(pair);
        if pair.inputs >= INPUTS {
            *place = None;
        }
    });
}

/// A datagram as it is, and one of a session that was damaged on its way.
pub fn wireguard_datagram(bytes: &[u8]) {
    with_pair(|pair| {
        pair.receive(bytes);
        let Some(mut sealed) = pair.client.seal(b"E\0\0\x14inner", &mut pair.buffer) else { return };
        for (byte, damage) in sealed.iter_mut().zip(bytes) {
            *byte ^= damage;
        }
        pair.receive(&sealed);
    });
}

/// A packet that a peer sealed: whatever it says, what is delivered is the peer's own.
pub fn inner_packet(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(1400)];
    if let Ok(packet) = Packet::parse_piece(bytes) {
        assert!(packet.whole.len() <= bytes.len() && packet.payload.len() < packet.whole.len());
        packet.ports();
        packet.is_syn();
    }
    with_pair(|pair| {
        if let Some(sealed) = pair.client.seal(bytes, &mut pair.buffer) {
            pair.receive(&sealed);
        }
    });
}

use super::*;
use crate::{
    origin::Directory,
    vpn::{self, Config, Lan, Mode, Reach, gate::sessions::Sessions},
};

/// A peer with a key that depends on its number only.
pub(crate) fn peer(number: u32, address: &str) -> vpn::Peer {
    vpn::Peer {
        id: PeerId(number),
        name: format!("peer{number}"),
        group: None,
        public_key: private_key(number).public_key(),
        preshared_key: None,
        addresses: vec![address.parse().unwrap()],
        may_reach: vec![Reach::Services],
        reached_by: Vec::new(),
        enabled: true,
        expires: None,
        told_endpoint: None,
        keepalive: None,
        confirm: None,
        user: None,
    }
}

pub(crate) fn private_key(number: u32) -> PrivateKey {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut bytes = [7; 32];
    // The lowest bits of a key do not count.
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    STANDARD.encode(bytes).parse().unwrap()
}

pub(crate) fn config(peers: Vec<vpn::Peer>) -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        endpoint: None,
        addresses: vec!["10.77.0.1/24".parse().unwrap(), "fd77::1/64".parse().unwrap()],
        private_key: private_key(1_000),
        previous_key: None,
        mode: Mode::Userspace,
        lan: Lan::Nat,
        lan_interfaces: Vec::new(),
        peers,
        metrics_port: Some(9153),
        ports: Vec::new(),
        state: std::path::PathBuf::new(),
        directory: Directory::default(),
    }
}

pub(super) const HERE: &str = "192.0.2.1:443";

pub(super) fn path(remote: &str) -> Path {
    Path { socket: 0, local: Some("198.51.100.1".parse().unwrap()), remote: remote.parse().unwrap() }
}

/// A gate, the time, and what it did last.
pub(super) struct Bench {
    pub(super) gate: Gate,
    pub(super) now: Instant,
    pub(super) actions: Vec<Action>,
}

/// The other end of a tunnel.
pub(super) struct Client {
    sessions: Sessions,
    buffer: Buffer,
    at: &'static str,
}

impl Bench {
    pub(super) fn new(peers: Vec<vpn::Peer>) -> Self {
        let now = Instant::now();
        let policy = Arc::new(Policy::new(&config(peers)).unwrap());
        Self { gate: Gate::new(policy, now), now, actions: Vec::new() }
    }

    pub(super) fn feed(&mut self, from: &str, bytes: &[u8]) -> Vec<Action> {
        self.gate.handle_datagram(path(from), bytes, self.now, &mut self.actions);
        std::mem::take(&mut self.actions)
    }

    pub(super) fn dropped(&mut self) -> Vec<(Dropped, u64)> {
        let mut drops: Vec<(Dropped, u64)> = self.gate.take_tally().drops.into_iter().collect();
        drops.sort();
        drops
    }

    /// Returns everything that could have changed.
    fn state(&self) -> String {
        let mut standings: Vec<_> = self.gate.peers.iter().map(|(id, peer)| (id, &peer.standing, peer.path)).collect();
        standings.sort_by_key(|(id, ..)| **id);
        format!("{standings:?} {:?}", self.gate.active)
    }

    pub(super) fn connect(&mut self, number: u32, at: &'static str) -> Client {
        self.connect_by(number, 1_000, at)
    }

    /// The same for a client that knows the gate by this key.
    pub(super) fn connect_by(&mut self, number: u32, gate: u32, at: &'static str) -> Client {
        let mut client = Client::of_gate(number, gate, at);
        let initiation = client.initiation();
        let answer = sent(&self.feed(at, &initiation));
        let keepalive = client.take(&answer[0]).pop().unwrap();
        assert_eq!(self.feed(at, &keepalive), []);
        client
    }
}

impl Client {
    pub(super) fn new(number: u32, at: &'static str) -> Self {
        Self::of_gate(number, 1_000, at)
    }

    /// One that knows the gate by this key.
    pub(super) fn of_gate(number: u32, gate: u32, at: &'static str) -> Self {
        let sessions = Sessions::new(&private_key(number), &private_key(gate).public_key(), None, 77);
        Self { sessions, buffer: Buffer::default(), at }
    }

    pub(super) fn initiation(&mut self) -> Vec<u8> {
        self.sessions.initiate(&mut self.buffer).unwrap()
    }

    /// A further initiation, as after a time-out.
    pub(super) fn initiation_again(&mut self) -> Vec<u8> {
        self.sessions.initiate_anew(&mut self.buffer).unwrap()
    }

    pub(super) fn take(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        self.sessions.handle(message, &mut self.buffer, &mut answers).unwrap();
        answers
    }

    /// The same for what may be for somebody else.
    pub(super) fn try_take(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let _ = self.sessions.handle(message, &mut self.buffer, &mut answers);
        answers
    }

    pub(super) fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.sessions.seal(packet, &mut self.buffer).unwrap()
    }
}

pub(super) fn sent(actions: &[Action]) -> Vec<Vec<u8>> {
    actions
        .iter()
        .map(|action| match action {
            Action::Send(_, bytes) => bytes.clone(),
            Action::Deliver(..) => panic!("{action:?}"),
        })
        .collect()
}

/// A UDP packet without a checksum.
pub(super) fn udp(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, packet::UDP, 0, 0];
    bytes.extend(from);
    bytes.extend(to);
    bytes.extend([0x30, 0x39, 0, 53, 0, 9, 0, 0, 42]);
    bytes
}

/// One peer, and so many handshakes just now that the gate is under load.
fn loaded() -> Bench {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let mut client = Client::new(9, HERE);
    let stranger = client.initiation();
    while bench.gate.porter.judge(HERE.parse().unwrap(), handshake::Asker::Stranger, &stranger, bench.now)
        == Admission::Admitted(0)
    {}
    bench.gate.take_tally();
    bench
}

#[test]
fn a_handshake_is_answered_and_data_is_delivered_without_its_padding() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let mut client = bench.connect(0, HERE);
    let packet = udp([10, 77, 0, 2], [10, 77, 0, 1]);

    let message = client.seal(&packet);
    let delivered = bench.feed(HERE, &message);

    assert_eq!(message.len(), 32 + 32, "29 bytes are padded to 32");
    assert_eq!(delivered, [Action::Deliver(PeerId(0), packet)]);
    assert_eq!(bench.gate.take_tally().handshakes, HashMap::from([(Outcome::Answered, 1), (Outcome::Completed, 1)]));
}

#[test]
fn packets_for_a_peer_go_where_it_was_last_heard_from_the_address_it_spoke_to() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let mut client = bench.connect(0, HERE);
    let roamed = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    bench.feed("203.0.113.9:7", &roamed);

    let packet = udp([10, 77, 0, 1], [10, 77, 0, 2]);
    bench.gate.handle_packet(PeerId(0), &packet, bench.now, &mut bench.actions);

    let [Action::Send(way, message)] = &bench.actions[..] else { panic!("{:?}", bench.actions) };
    assert_eq!(*way, path("203.0.113.9:7"));
    let mut answers = Vec::new();
    assert_eq!(client.sessions.handle(message, &mut client.buffer, &mut answers), Ok(Some(packet)));
}

#[test]
fn an_initiation_alone_does_not_move_a_peer() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let client = bench.connect(0, HERE);
    let mut again = Client::new(0, "203.0.113.9:7");

    let answer = bench.feed("203.0.113.9:7", &again.initiation());

    assert_eq!(sent(&answer).len(), 1);
    assert_eq!(bench.gate.standing(PeerId(0)).unwrap().endpoint, Some(client.at.parse().unwrap()));
}

#[test]
fn wrong_types_and_lengths_change_nothing() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    bench.connect(0, HERE);
    let before = bench.state();

    for kind in 0..=255 {
        for length in [0, 1, 3, 4, 8, 31, 63, 65, 91, 93, 147, 149] {
            let mut bytes = vec![0; length];
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let is_data = kind == 4 && length >= 32;
            if !is_data {
                assert_eq!(bench.feed(HERE, &bytes), []);
            }
        }
    }

    assert_eq!(bench.state(), before);
    assert!(bench.dropped().iter().all(|(reason, _)| *reason == Dropped::NotWireguard));
}

#[test]
fn a_wrong_mac1_gets_silence_and_leaves_nothing() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let before = bench.state();
    let mut initiation = Client::new(0, HERE).initiation();
    initiation[116] ^= 1;

    for _ in 0..1_000 {
        assert_eq!(bench.feed(HERE, &initiation), []);
    }

    assert_eq!(bench.state(), before);
    assert_eq!(bench.dropped(), [(Dropped::Mac1, 1_000)]);
    initiation[116] ^= 1;
    assert_eq!(bench.feed(HERE, &initiation).len(), 1, "and they put the gate under no load");
}

#[test]
fn a_stranger_who_knows_the_gates_key_gets_silence() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let before = bench.state();

    assert_eq!(bench.feed(HERE, &Client::new(5, HERE).initiation()), []);

    assert_eq!(bench.state(), before);
    assert_eq!(bench.dropped(), [(Dropped::UnknownPeer, 1)]);
}

#[test]
fn under_load_there_is_a_cookie_and_nothing_else_and_with_it_the_peer_gets_in() {
    let mut bench = loaded();
    let before = bench.state();
    let mut client = Client::new(0, HERE);

    let reply = sent(&bench.feed(HERE, &client.initiation()));
    assert_eq!(bench.state(), before);
    let [cookie] = &reply[..] else { panic!("{reply:?}") };
    assert_eq!((cookie.len(), cookie[0]), (64, 3));
    client.take(cookie);
    let second = client.initiation_again();
    let answer = sent(&bench.feed(HERE, &second));

    assert_eq!(answer[0][0], 2, "a response");
    assert_eq!(bench.gate.take_tally().handshakes, HashMap::from([(Outcome::Cookie, 1), (Outcome::Answered, 1)]));
}

#[test]
fn a_cookie_is_good_for_its_address_and_port_only_and_for_two_minutes() {
    let mut bench = loaded();
    let mut client = Client::new(0, HERE);
    let reply = sent(&bench.feed(HERE, &client.initiation()));
    client.take(&reply[0]);
    let second = client.initiation_again();

    for elsewhere in ["192.0.2.1:444", "192.0.2.2:443"] {
        assert_eq!(sent(&bench.feed(elsewhere, &second))[0][0], 3, "{elsewhere}");
    }
    bench.now += Duration::from_secs(121);
    let mut flood = Client::new(9, HERE);
    let stranger = flood.initiation();
    while bench.gate.porter.judge(HERE.parse().unwrap(), handshake::Asker::Stranger, &stranger, bench.now)
        == Admission::Admitted(0)
    {}
    assert_eq!(sent(&bench.feed(HERE, &second))[0][0], 3);
}

#[test]
fn a_proven_source_has_a_bucket_of_its_own() {
    let mut bench = loaded();
    let mut flood = Client::new(9, HERE);
    let reply = sent(&bench.feed(HERE, &flood.initiation()));
    flood.take(&reply[0]);
    bench.now += Duration::from_secs(1);
    let admitted = (0..100).filter(|_| {
        let message = flood.initiation_again();
        bench.gate.porter.judge(HERE.parse().unwrap(), handshake::Asker::Stranger, &message, bench.now)
            == Admission::Admitted(0)
    });
    assert_eq!(admitted.count(), 20);

    let mut client = Client::new(0, "192.0.2.7:1");
    let reply = sent(&bench.feed(client.at, &client.initiation()));
    client.take(&reply[0]);
    let second = client.initiation_again();

    assert_eq!(sent(&bench.feed(client.at, &second))[0][0], 2, "the peer still gets in");
}

#[test]
fn cookies_have_a_budget() {
    let mut bench = loaded();
    let initiation = Client::new(0, HERE).initiation();

    let answered = (0..5_000).filter(|_| !bench.feed(HERE, &initiation).is_empty()).count();

    assert!(answered <= 2_000, "{answered}");
}

#[test]
fn a_replayed_initiation_is_dropped() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let initiation = Client::new(0, HERE).initiation();
    assert_eq!(bench.feed(HERE, &initiation).len(), 1);

    assert_eq!(bench.feed("203.0.113.9:7", &initiation), []);

    assert_eq!(bench.dropped(), [(Dropped::ReplayedHandshake, 1)]);
}

#[test]
fn replayed_data_is_dropped() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let mut client = bench.connect(0, HERE);
    let message = client.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    assert_eq!(bench.feed(HERE, &message).len(), 1);
    let before = bench.state();

    assert_eq!(bench.feed("203.0.113.9:7", &message), []);

    assert_eq!(bench.dropped(), [(Dropped::Duplicate, 1)]);
    assert_eq!(bench.state(), before, "and the peer did not move");
}

#[test]
fn an_inner_source_must_be_the_peers_own() {
    // The first peer's prefix has the second peer's address in it, and the gate's.
    let mut bench = Bench::new(vec![peer(0, "10.77.0.0/24"), peer(1, "10.77.0.3/32")]);
    let mut wide = bench.connect(0, HERE);
    for source in [[10, 77, 0, 3], [10, 77, 0, 1], [192, 168, 1, 1], [127, 0, 0, 1]] {
        let message = wide.seal(&udp(source, [10, 77, 0, 1]));
        assert_eq!(bench.feed(HERE, &message), [], "{source:?}");
    }
    assert_eq!(bench.dropped(), [(Dropped::SpoofedSource, 4)]);

    let message = wide.seal(&udp([10, 77, 0, 9], [10, 77, 0, 1]));

    assert!(matches!(bench.feed(HERE, &message)[..], [Action::Deliver(PeerId(0), _)]));
}

#[test]
fn broken_inner_packets_are_told_apart() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    let mut client = bench.connect(0, HERE);
    let good = udp([10, 77, 0, 2], [10, 77, 0, 1]);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    for broken in [with(0, 0x55), with(0, 0x46), with(0, 0x44), with(2, 1), with(3, 10)] {
        let message = client.seal(&broken);
        assert_eq!(bench.feed(HERE, &message), [], "{broken:?}");
    }

    assert_eq!(bench.dropped(), [(Dropped::Malformed, 5)]);
}

#[test]
fn a_removed_peer_keeps_nothing_and_the_others_keep_their_sessions() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")]);
    let mut removed = bench.connect(0, HERE);
    let mut kept = bench.connect(1, "192.0.2.2:443");

    let policy = Arc::new(Policy::new(&config(vec![peer(1, "10.77.0.3/32")])).unwrap());
    bench.gate.set_policy(policy, bench.now);

    let message = removed.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    assert_eq!(bench.feed(HERE, &message), []);
    bench.gate.handle_packet(PeerId(0), &udp([10, 77, 0, 1], [10, 77, 0, 2]), bench.now, &mut bench.actions);
    assert_eq!(bench.actions, []);
    assert_eq!(bench.feed(HERE, &Client::new(0, HERE).initiation()), []);
    assert_eq!(bench.dropped(), [(Dropped::UnknownPeer, 1), (Dropped::NoSession, 1), (Dropped::NoEndpoint, 1)]);
    let message = kept.seal(&udp([10, 77, 0, 3], [10, 77, 0, 1]));
    assert!(matches!(bench.feed("192.0.2.2:443", &message)[..], [Action::Deliver(PeerId(1), _)]));
}

#[test]
fn a_changed_preshared_key_ends_that_peers_sessions_only() {
    let peers = vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")];
    let mut bench = Bench::new(peers.clone());
    let mut changed = bench.connect(0, HERE);
    let mut kept = bench.connect(1, "192.0.2.2:443");
    let mut config = config(peers);
    config.peers[0].preshared_key = Some(vpn::keys::PresharedKey::generate());

    bench.gate.set_policy(Arc::new(Policy::new(&config).unwrap()), bench.now);

    let message = changed.seal(&udp([10, 77, 0, 2], [10, 77, 0, 1]));
    assert_eq!(bench.feed(HERE, &message), []);
    let message = kept.seal(&udp([10, 77, 0, 3], [10, 77, 0, 1]));
    assert_eq!(bench.feed("192.0.2.2:443", &message).len(), 1);
}

#[test]
fn indices_never_meet() {
    let bench = Bench::new((0..20).map(|number| peer(number, &format!("10.77.0.{}/32", number + 2))).collect());
    let taken = *bench.gate.by_index.keys().next().unwrap();
    let mut drawn = [taken, taken | 0xff00_0000, 0x0012_3456].into_iter();

    let free = ways::free_index(&bench.gate.by_index, || drawn.next().unwrap());

    assert_eq!(bench.gate.by_index.len(), 20);
    assert_eq!(free, 0x0012_3456);
}

#[test]
fn silent_peers_cost_no_ticks() {
    let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
    assert!(!bench.gate.wants_ticks());
    bench.connect(0, HERE);
    assert!(bench.gate.wants_ticks());

    bench.now += ACTIVE_FOR + TICK;
    bench.gate.handle_timeout(bench.now, &mut bench.actions);

    assert!(!bench.gate.wants_ticks());
    assert_eq!(bench.gate.online(bench.now), 0);
}

proptest::proptest! {
    #[test]
    fn whatever_comes_does_no_harm(kind in 0..6_u8, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut bench = Bench::new(vec![peer(0, "10.77.0.2/32")]);
        let index = *bench.gate.by_index.keys().next().unwrap();
        let mut bytes = bytes;
        let start = [[kind, 0, 0, 0], (index << 8 | 1).to_le_bytes()].concat();
        for (place, byte) in bytes.iter_mut().zip(start) {
            *place = byte;
        }

        proptest::prop_assert_eq!(bench.feed(HERE, &bytes), []);
    }
}

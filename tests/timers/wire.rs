//! Two ends and what is between them.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use boringtun::noise::{Tunn, TunnResult};
use hearthgate_timers::vpn::{
    gate::sessions::{Buffer, Sessions},
    keys::{PresharedKey, PrivateKey},
};
use mock_instant::MockClock;

/// How often the gate lets time pass.
pub const TICK: Duration = Duration::from_millis(250);
/// Both ends let time pass before they notice that a session is too old.
const NEVER_OLDER: Duration = Duration::from_millis(180_000 + 250);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Gate,
    Client,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Gate => Self::Client,
            Self::Client => Self::Gate,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Initiation,
    Response,
    Data,
    Keepalive,
}

impl Kind {
    fn of(message: &[u8]) -> Self {
        match (message[0], message.len()) {
            (1, 148) => Self::Initiation,
            (2, 92) => Self::Response,
            (4, 32) => Self::Keepalive,
            (4, _) => Self::Data,
            (kind, length) => panic!("a message of type {kind} with {length} bytes"),
        }
    }
}

pub struct Wire {
    gate: Sessions,
    client: Tunn,
    buffer: Buffer,
    scratch: Vec<u8>,
    is_whole: bool,
    said: Vec<(Duration, Side, Kind)>,
    /// When a session began, by the side that receives under this index.
    born: HashMap<(Side, [u8; 4]), Duration>,
    /// Packets by number that have not arrived yet at this side; those that were sent over a cut wire are not waited for.
    awaited: HashSet<(Side, u32)>,
    arrived: HashMap<Side, usize>,
    next: u32,
}

impl Wire {
    /// No session yet, and the time is 0.
    pub fn new(persistent_keepalive: Option<u16>) -> Self {
        MockClock::set_time(Duration::ZERO);
        let [gate, client] = [(); 2].map(|()| PrivateKey::generate());
        let preshared = PresharedKey::generate();
        Self {
            client: Tunn::new(
                client.to_x25519(),
                gate.public_key().to_x25519(),
                Some(preshared.to_bytes()),
                persistent_keepalive,
                7,
                None,
            ),
            gate: Sessions::new(&gate, &client.public_key(), Some(&preshared), 9),
            buffer: Buffer::default(),
            scratch: vec![0; 65_536],
            is_whole: true,
            said: Vec::new(),
            born: HashMap::new(),
            awaited: HashSet::new(),
            arrived: HashMap::new(),
            next: 0,
        }
    }

    pub fn now(&self) -> Duration {
        MockClock::time()
    }

    pub fn cut(&mut self) {
        self.is_whole = false;
    }

    pub fn mend(&mut self) {
        self.is_whole = true;
    }

    /// One side begins a handshake.
    pub fn begin(&mut self, side: Side) {
        let message = match side {
            Side::Gate => self.gate.initiate(&mut self.buffer),
            Side::Client => sent(self.client.format_handshake_initiation(&mut self.scratch, false)),
        };
        self.deliver(side, message.expect("none is under way"));
        assert!(self.age_at_gate().is_some() || !self.is_whole);
    }

    /// One side has a packet for the other.
    pub fn send(&mut self, side: Side) {
        self.next += 1;
        if self.is_whole {
            self.awaited.insert((side.other(), self.next));
        }
        let packet = packet(self.next);
        let message = match side {
            Side::Gate => self.gate.seal(&packet, &mut self.buffer),
            Side::Client => sent(self.client.encapsulate(&packet, &mut self.scratch)),
        };
        if let Some(message) = message {
            self.deliver(side, message);
        }
    }

    /// Lets time pass at both ends.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            MockClock::advance(TICK);
            if let Some(message) = self.gate.tick(&mut self.buffer) {
                self.deliver(Side::Gate, message);
            }
            if let Some(message) = sent(self.client.update_timers(&mut self.scratch)) {
                self.deliver(Side::Client, message);
            }
        }
    }

    /// Lets time pass at the gate, whose messages nobody hears.
    pub fn pass_for_gate(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            MockClock::advance(TICK);
            self.gate.tick(&mut self.buffer);
        }
    }

    /// Returns a message that is still on its way.
    pub fn sealed_by_client(&mut self) -> Vec<u8> {
        sent(self.client.encapsulate(&packet(0), &mut self.scratch)).expect("there is a session")
    }

    /// Says what the gate makes of a packet.
    pub fn sealed_by_gate(&mut self) -> Kind {
        Kind::of(&self.gate.seal(&packet(0), &mut self.buffer).expect("there is something to say"))
    }

    pub fn is_opened_by_gate(&mut self, message: &[u8]) -> bool {
        matches!(self.gate.handle(message, &mut self.buffer, &mut Vec::new()), Ok(Some(_)))
    }

    pub fn age_at_gate(&self) -> Option<Duration> {
        self.gate.age()
    }

    /// Returns when one side said something of this kind.
    pub fn times(&self, side: Side, kind: Kind) -> Vec<Duration> {
        self.said.iter().filter(|(_, by, what)| (*by, *what) == (side, kind)).map(|(at, ..)| *at).collect()
    }

    /// Returns how many packets have arrived at one side.
    pub fn arrived(&self, side: Side) -> usize {
        self.arrived.get(&side).copied().unwrap_or_default()
    }

    /// Returns how many packets that were sent over the whole wire have not arrived.
    pub fn lost(&self) -> usize {
        self.awaited.len()
    }

    /// Leaves out what was sent until now.
    pub fn forgive(&mut self) {
        self.awaited.clear();
    }

    fn deliver(&mut self, by: Side, message: Vec<u8>) {
        let (now, kind) = (self.now(), Kind::of(&message));
        self.said.push((now, by, kind));
        let index = |at: usize| <[u8; 4]>::try_from(&message[at..at + 4]).expect("four bytes");
        match kind {
            Kind::Response => {
                self.born.insert((by, index(4)), now);
                self.born.insert((by.other(), index(8)), now);
            }
            Kind::Data | Kind::Keepalive => {
                let age = now - self.born[&(by.other(), index(4))];
                assert!(age <= NEVER_OLDER, "{by:?} used a session after {age:?}");
            }
            Kind::Initiation => {}
        }
        if !self.is_whole {
            return;
        }

        let mut answers = Vec::new();
        let packet = match by.other() {
            Side::Gate => self.gate.handle(&message, &mut self.buffer, &mut answers).unwrap_or_default(),
            Side::Client => self.handle_at_client(&message, &mut answers),
        };
        if let Some(packet) = packet {
            let number = u32::from_be_bytes(packet[20..24].try_into().expect("four bytes"));
            *self.arrived.entry(by.other()).or_default() += 1;
            self.awaited.remove(&(by.other(), number));
        }
        for answer in answers {
            self.deliver(by.other(), answer);
        }
    }

    fn handle_at_client(&mut self, message: &[u8], answers: &mut Vec<Vec<u8>>) -> Option<Vec<u8>> {
        match self.client.decapsulate(None, message, &mut self.scratch) {
            TunnResult::WriteToTunnelV4(packet, _) => return Some(packet.to_vec()),
            TunnResult::WriteToNetwork(message) => answers.push(message.to_vec()),
            _ => return None,
        }
        while let Some(message) = sent(self.client.decapsulate(None, &[], &mut self.scratch)) {
            answers.push(message);
        }
        None
    }
}

fn sent(result: TunnResult<'_>) -> Option<Vec<u8>> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.to_vec()),
        _ => None,
    }
}

/// An IPv4 packet with a number in it.
fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[0] = 0x45;
    packet[3] = 24;
    packet[20..].copy_from_slice(&number.to_be_bytes());
    packet
}

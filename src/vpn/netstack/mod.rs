//! The stack behind the gate's inner addresses, which no kernel interface has. It is fed only with packets
//! that were decrypted and whose source is the peer's own.

pub(super) mod answer;
pub(super) mod flow;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinSet},
};

use crate::{
    limit::{Limits, Rate},
    origin::{Networks, Origin, PeerId},
    stream::{Datagram, Outlet, Reply},
    supervise::panic_text,
    vpn::{
        Outlets, Protocol,
        gate::{
            Dropped,
            packet::{self, Malformed, Packet},
            policy::{Policy, Service},
            reach,
            sessions::MTU,
        },
        netstack::flow::{Flow, Opening, Outbound, Room},
        relay,
    },
};

/// What all connections of one peer may hold together.
const BYTES_PER_PEER: usize = 4 << 20;
/// How many one peer may have, flows of datagrams among them.
const FLOWS_PER_PEER: usize = 256;
/// What all peers together may have relayed: each is a descriptor of the process.
const RELAYED: usize = 2048;
/// One connection of a peer gets windows for 230 Mbit/s over 40 ms, the others a part of what is left.
const LARGEST: usize = 1152 << 10;
/// The largest that is relayed: whoever has the Internet by the gate has many at once.
const LARGEST_RELAYED: usize = 384 << 10;
const LEAST: usize = 12 << 10;
/// The pipe to a plane.
const PIPE: std::ops::RangeInclusive<usize> = 4 << 10..=64 << 10;
/// Refusals that one peer is answered with.
const REFUSALS: Rate = Rate::new(50, 50).expect("not zero");

/// Which connection a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    peer: PeerId,
    protocol: Protocol,
    local: SocketAddr,
    client: SocketAddr,
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Service(Service),
    Relay,
}

#[derive(Debug)]
struct Entry {
    packets: mpsc::Sender<Vec<u8>>,
    task: AbortHandle,
    aim: Aim,
    bytes: usize,
    is_largest: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    flows: usize,
    bytes: usize,
    /// It has its large connection.
    has_largest: bool,
}

impl Use {
    /// Returns what a further connection may hold; none if there is no room for one.
    fn room(self, aim: Aim) -> Option<Room> {
        let left = BYTES_PER_PEER.checked_sub(self.bytes)?;
        let (largest, part) = match aim {
            Aim::Service(_) => (LARGEST, 48),
            Aim::Relay => (LARGEST_RELAYED, 128),
        };
        let small = (left / part).clamp(LEAST, largest);
        let room = |send: usize, receive: usize| Room {
            receive,
            send,
            pipe: if aim == Aim::Relay { 0 } else { (send / 8).clamp(*PIPE.start(), *PIPE.end()) },
        };
        let fits = |room: &Room| self.has_room_for(room.bytes());
        let wanted = (!self.has_largest).then(|| room(largest, largest)).filter(fits);
        wanted.or_else(|| Some(room(small, small / 2)).filter(fits))
    }

    fn has_room_for(self, bytes: usize) -> bool {
        self.flows < FLOWS_PER_PEER && self.bytes + bytes <= BYTES_PER_PEER
    }
}

/// Says where something that a peer begins may go.
fn aim(policy: &Policy, networks: &Networks, peer: PeerId, protocol: Protocol, target: SocketAddr) -> Option<Aim> {
    if policy.is_gate(target.ip()) {
        let service = match protocol {
            Protocol::Tcp => policy.tcp_service(peer, target.port()),
            Protocol::Udp => policy.udp_service(peer, target.port()),
        };
        return service.filter(|service| policy.may_reach(peer, *service)).map(Aim::Service);
    }
    let may = target.port() != 0
        && reach::may_connect(target.ip(), networks, policy)
        && policy.may_relay(peer, protocol, target, reach::is_internet(target.ip(), networks));
    may.then_some(Aim::Relay)
}

/// What becomes of a packet that was delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It is on its way.
    Taken,
    /// This goes back to the peer.
    Answer(Vec<u8>),
    /// It was dropped, and perhaps this goes back.
    Dropped(Dropped, Option<Vec<u8>>),
}

/// The stack.
#[derive(Debug)]
pub(super) struct Netstack {
    outlets: Outlets,
    networks: Arc<ArcSwap<Networks>>,
    policy: Arc<Policy>,
    flows: HashMap<FlowKey, Entry>,
    keys: HashMap<Id, FlowKey>,
    used: HashMap<PeerId, Use>,
    tasks: JoinSet<()>,
    connections: usize,
    relayed: usize,
    outbound: mpsc::Sender<Outbound>,
    replies: mpsc::Sender<Reply>,
    refusals: Limits,
    accepts: bool,
}

impl Netstack {
    /// Makes a stack without connections, which sends its packets and the planes' answers this way.
    pub(super) fn new(
        outlets: Outlets,
        networks: Arc<ArcSwap<Networks>>,
        policy: Arc<Policy>,
        outbound: mpsc::Sender<Outbound>,
        replies: mpsc::Sender<Reply>,
        now: Instant,
    ) -> Self {
        Self {
            outlets,
            networks,
            policy,
            flows: HashMap::new(),
            keys: HashMap::new(),
            used: HashMap::new(),
            tasks: JoinSet::new(),
            connections: 0,
            relayed: 0,
            outbound,
            replies,
            refusals: Limits::new(256, now),
            accepts: true,
        }
    }

    /// Takes a new policy: connections which nobody may begin any more end at once.
    pub(super) fn set_policy(&mut self, policy: Arc<Policy>) {
        let networks = self.networks.load();
        let lost = |key: &FlowKey, entry: &Entry| {
            policy.owner(key.client.ip()) != Some(key.peer)
                // Who has just confirmed is told so: that page leads nowhere else.
                || entry.aim != Aim::Service(Service::Confirm)
                    && aim(&policy, &networks, key.peer, key.protocol, key.local) != Some(entry.aim)
        };
        let ended: Vec<FlowKey> =
            self.flows.iter().filter(|(key, entry)| lost(key, entry)).map(|(key, _)| *key).collect();
        for key in ended {
            self.forget(key);
        }
        self.policy = policy;
    }

    /// Accepts no connection from now on.
    pub(super) fn drain(&mut self) {
        self.accepts = false;
    }

    /// Returns how many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// Takes a packet that is the peer's own.
    pub(super) fn handle_packet(&mut self, peer: PeerId, bytes: Vec<u8>, now: Instant) -> Delivery {
        let packet = match Packet::parse(&bytes) {
            Ok(packet) => packet,
            // Nothing here puts pieces together.
            Err(Malformed::Fragment) => return Delivery::Dropped(Dropped::Fragment, None),
            Err(_) => return Delivery::Dropped(Dropped::Malformed, None),
        };
        match packet.protocol {
            packet::TCP => self.handle_tcp(peer, bytes, now),
            packet::UDP if self.policy.is_gate(packet.destination) => self.handle_udp(peer, &packet, now),
            packet::UDP => self.handle_relayed(peer, bytes, now),
            packet::ICMPV4 | packet::ICMPV6 if self.policy.is_gate(packet.destination) => match answer::echo(&packet) {
                Some(reply) => Delivery::Answer(reply),
                None => Delivery::Dropped(Dropped::Forbidden, None),
            },
            _ => self.refuse(Dropped::Forbidden, peer, &packet, now),
        }
    }

    fn handle_tcp(&mut self, peer: PeerId, bytes: Vec<u8>, now: Instant) -> Delivery {
        let Ok(packet) = Packet::parse(&bytes) else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let Some(ports) = packet.ports() else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let (local, client) = flow::ends(packet.source, packet.destination, ports);
        let key = FlowKey { peer, protocol: Protocol::Tcp, local, client };
        let bytes = match self.pass_on(key, bytes) {
            Ok(delivery) => return delivery,
            Err(bytes) => bytes,
        };
        let Ok(packet) = Packet::parse(&bytes) else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        if client.port() == 0 || !packet.is_syn() {
            // Of a connection that is gone.
            return match self.refuse(Dropped::Forbidden, peer, &packet, now) {
                Delivery::Dropped(_, Some(reset)) => Delivery::Answer(reset),
                other => other,
            };
        }
        let aim = aim(&self.policy, &self.networks.load(), peer, Protocol::Tcp, local);
        let plane = match aim {
            Some(Aim::Service(service)) => self.outlet(service).map(|outlet| Some(outlet.streams.clone())),
            Some(Aim::Relay) => Some(None),
            None => None,
        };
        let (Some(aim), Some(plane)) = (aim, plane) else {
            return self.refuse(Dropped::Forbidden, peer, &packet, now);
        };
        if !self.accepts {
            // Nobody is told no: who knocks again in a second finds whoever comes after this process.
            return Delivery::Dropped(Dropped::TooManyConnections, None);
        }
        let used = self.used.get(&peer).copied().unwrap_or_default();
        let relays_more = aim != Aim::Relay || self.relayed < RELAYED;
        let Some(room) = used.room(aim).filter(|_| relays_more) else {
            return self.refuse(Dropped::TooManyConnections, peer, &packet, now);
        };
        let (packets, inbound) = mpsc::channel(room.packets());
        let outbound = self.outbound.clone();
        let task = match plane {
            Some(plane) => {
                let mut flow = Flow::new(peer, local, client, Opening::Accept(plane), room, inbound, outbound);
                self.tasks.spawn(async move { flow.run().await })
            }
            None => {
                let syn = packet.whole.into();
                let relay = relay::Tcp { peer, target: local, client, room, syn, packets: inbound, outbound };
                self.tasks.spawn(relay.run(relay::connect(local)))
            }
        };
        packets.try_send(bytes).expect("the queue of a new connection is empty");
        let is_largest = room.receive == room.send;
        self.remember(key, Entry { packets, task, aim, bytes: room.bytes(), is_largest });
        Delivery::Taken
    }

    /// Gives a packet to the flow that it belongs to, or back.
    fn pass_on(&mut self, key: FlowKey, bytes: Vec<u8>) -> Result<Delivery, Vec<u8>> {
        let Some(entry) = self.flows.get(&key) else { return Err(bytes) };
        match entry.packets.try_send(bytes) {
            Ok(()) => Ok(Delivery::Taken),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Delivery::Dropped(Dropped::QueueFull, None)),
            // It has ended, and the table was not told yet.
            Err(mpsc::error::TrySendError::Closed(bytes)) => {
                self.forget(key);
                Err(bytes)
            }
        }
    }

    /// Takes a datagram for somebody outside.
    fn handle_relayed(&mut self, peer: PeerId, bytes: Vec<u8>, now: Instant) -> Delivery {
        let Ok(packet) = Packet::parse(&bytes) else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let Some(ports) = packet.ports() else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let (target, client) = flow::ends(packet.source, packet.destination, ports);
        let key = FlowKey { peer, protocol: Protocol::Udp, local: target, client };
        let bytes = match self.pass_on(key, bytes) {
            Ok(delivery) => return delivery,
            Err(bytes) => bytes,
        };
        let Ok(packet) = Packet::parse(&bytes) else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        if client.port() == 0
            || aim(&self.policy, &self.networks.load(), peer, Protocol::Udp, target) != Some(Aim::Relay)
        {
            return self.refuse(Dropped::Forbidden, peer, &packet, now);
        }
        let used = self.used.get(&peer).copied().unwrap_or_default();
        if !used.has_room_for(relay::UDP_BYTES) || self.relayed >= RELAYED || !self.accepts {
            return self.refuse(Dropped::TooManyConnections, peer, &packet, now);
        }
        let (packets, inbound) = mpsc::channel(relay::UDP_QUEUE);
        packets.try_send(bytes).expect("the queue of a new flow is empty");
        let relay = relay::Udp { peer, target, client, packets: inbound, outbound: self.outbound.clone() };
        let task = self.tasks.spawn(relay.run(relay::socket(target)));
        self.remember(key, Entry { packets, task, aim: Aim::Relay, bytes: relay::UDP_BYTES, is_largest: false });
        Delivery::Taken
    }

    fn remember(&mut self, key: FlowKey, entry: Entry) {
        self.keys.insert(entry.task.id(), key);
        let used = self.used.entry(key.peer).or_default();
        used.flows += 1;
        used.bytes += entry.bytes;
        used.has_largest |= entry.is_largest;
        self.connections += usize::from(key.protocol == Protocol::Tcp);
        self.relayed += usize::from(entry.aim == Aim::Relay);
        self.flows.insert(key, entry);
    }

    fn outlet(&self, service: Service) -> Option<&Outlet> {
        match service {
            Service::Dns => self.outlets.dns.as_ref(),
            Service::Ingress | Service::Port => self.outlets.ingress.as_ref(),
            Service::Metrics => self.outlets.metrics.as_ref(),
            Service::Confirm => self.outlets.confirm.as_ref(),
        }
    }

    fn handle_udp(&mut self, peer: PeerId, packet: &Packet<'_>, now: Instant) -> Delivery {
        let Some((from, to)) = packet.ports() else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let service = self.policy.udp_service(peer, to).filter(|service| self.policy.may_reach(peer, *service));
        let Some(outlet) = service.and_then(|service| self.outlet(service)) else {
            return self.refuse(Dropped::Forbidden, peer, packet, now);
        };
        let Some(payload) = answer::udp_payload(packet) else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let datagram = Datagram {
            origin: Origin::Vpn(peer),
            client: SocketAddr::new(packet.source, from),
            local: SocketAddr::new(packet.destination, to),
            payload: payload.into(),
            reply: self.replies.clone(),
        };
        match outlet.datagrams.try_send(datagram) {
            Ok(()) => Delivery::Taken,
            Err(_) => Delivery::Dropped(Dropped::QueueFull, None),
        }
    }

    pub(super) fn refuse(&self, reason: Dropped, peer: PeerId, packet: &Packet<'_>, now: Instant) -> Delivery {
        self.refuse_as(reason, peer, now, || answer::refusal(packet))
    }

    /// Refuses with another answer, as often as a peer is answered at all.
    pub(super) fn refuse_as(
        &self,
        reason: Dropped,
        peer: PeerId,
        now: Instant,
        answer: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Delivery {
        let answer = match self.refusals.check_key(peer, REFUSALS, now) {
            Ok(()) => answer(),
            Err(_) => None,
        };
        Delivery::Dropped(reason, answer)
    }

    /// Turns a plane's answer into a packet for the peer that asked.
    pub(super) fn handle_reply(&self, reply: &Reply) -> Option<Outbound> {
        // The address may have gone to somebody else meanwhile; then it is that peer's packet, which it did
        // not ask for, and its own stack drops it.
        let peer = self.policy.owner(reply.to.ip()).filter(|_| self.policy.is_gate(reply.from.ip()))?;
        let packet = answer::udp(reply.from, reply.to, &reply.payload, MTU)?;
        Some(Outbound { peer, packet })
    }

    /// Waits until a connection has ended; for ever if there is none.
    pub(super) async fn ended(&mut self) {
        let (id, panic) = match self.tasks.join_next_with_id().await {
            None => return std::future::pending().await,
            Some(Ok((id, ()))) => (id, None),
            Some(Err(end)) => (end.id(), end.try_into_panic().ok()),
        };
        if let Some(panic) = panic {
            tracing::error!(failure = panic_text(panic.as_ref()), "connection in the tunnel fell over");
        }
        let Some(key) = self.keys.remove(&id) else { return };
        if self.flows.get(&key).is_some_and(|entry| entry.task.id() == id) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: FlowKey) {
        let Some(entry) = self.flows.remove(&key) else { return };
        entry.task.abort();
        self.connections -= usize::from(key.protocol == Protocol::Tcp);
        self.relayed -= usize::from(entry.aim == Aim::Relay);
        if let Some(used) = self.used.get_mut(&key.peer) {
            used.flows -= 1;
            used.bytes -= entry.bytes;
            used.has_largest &= !entry.is_largest;
            if used.flows == 0 {
                self.used.remove(&key.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack() -> (Netstack, mpsc::Receiver<Outbound>, crate::stream::Inlet) {
        let config = crate::vpn::gate::tests::config(vec![crate::vpn::gate::tests::peer(0, "10.77.0.2/32")]);
        let (outlet, inlet) = crate::stream::inlet(8);
        let outlets =
            Outlets { dns: Some(outlet.clone()), ingress: Some(outlet), metrics: None, confirm: None, audit: None };
        let (outbound, packets) = mpsc::channel(64);
        let (replies, _) = mpsc::channel(1);
        let policy = Arc::new(Policy::new(&config).unwrap());
        (Netstack::new(outlets, Arc::default(), policy, outbound, replies, Instant::now()), packets, inlet)
    }

    /// A TCP segment of the peer to the gate, without a checksum.
    fn segment(flags: u8, port: u16, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(40 + rest.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, packet::TCP, 0, 0];
        bytes.extend([10, 77, 0, 2, 10, 77, 0, 1, 0x9c, 0x40]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(rest);
        bytes
    }

    #[tokio::test]
    async fn segments_of_no_connection_make_none() {
        let (mut stack, _packets, _inlet) = stack();
        const ACK: u8 = 0x10;

        let answer = stack.handle_packet(PeerId(0), segment(ACK, 80, b"x"), Instant::now());

        assert!(matches!(answer, Delivery::Answer(_)), "a reset");
        assert_eq!(stack.connections(), 0);
    }

    #[tokio::test]
    async fn refusals_have_a_budget_per_peer() {
        let (mut stack, _packets, _inlet) = stack();
        const SYN: u8 = 0x02;
        let now = Instant::now();

        let deliveries: Vec<Delivery> =
            (0..100).map(|_| stack.handle_packet(PeerId(0), segment(SYN, 22, b""), now)).collect();

        let answered = deliveries.iter().filter(|one| matches!(one, Delivery::Dropped(Dropped::Forbidden, Some(_))));
        let silent = deliveries.iter().filter(|one| matches!(one, Delivery::Dropped(Dropped::Forbidden, None)));
        assert_eq!((answered.count(), silent.count()), (50, 50));
    }

    #[tokio::test]
    async fn a_peer_that_opens_a_hundred_thousand_connections_has_its_share_and_no_more() {
        let (mut stack, _packets, _inlet) = stack();
        const SYN: u8 = 0x02;
        let now = Instant::now();

        let mut taken = 0;
        for number in 0..100_000_u32 {
            let mut bytes = segment(SYN, 80, b"");
            let port = u16::try_from(1 + number % 60_000).unwrap();
            bytes[20..22].copy_from_slice(&port.to_be_bytes());
            // A second round over the ports is of the connections that are there.
            if stack.handle_packet(PeerId(0), bytes, now) == Delivery::Taken {
                taken += 1;
            }
        }

        let used = stack.used[&PeerId(0)];
        assert!(used.bytes <= BYTES_PER_PEER && used.flows <= FLOWS_PER_PEER, "{used:?}");
        assert!(stack.connections() >= 30 && stack.connections() == used.flows, "{used:?}");
        assert!(taken < 1_000, "{taken}");
    }

    #[test]
    fn a_peer_holds_no_more_than_its_share_and_has_enough_connections() {
        for (aim, enough) in [(Aim::Service(Service::Ingress), 30), (Aim::Relay, 90)] {
            let mut used = Use::default();

            while let Some(room) = used.room(aim) {
                assert_eq!(room.receive == room.send, used.flows == 0, "the first one alone is large");
                used.flows += 1;
                used.bytes += room.bytes();
                used.has_largest = true;
            }

            assert!(used.bytes <= BYTES_PER_PEER, "{aim:?} {used:?}");
            assert!(used.flows >= enough, "{aim:?} {used:?}");
        }
    }
}

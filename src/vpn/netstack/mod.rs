//! The stack behind the gate's inner addresses, which no kernel interface has. It is fed only with packets
//! that were decrypted and whose source is the peer's own.

pub(super) mod answer;
pub(super) mod flow;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinSet},
};

use crate::{
    limit::{Limits, Rate},
    origin::{Origin, PeerId},
    stream::{Datagram, Outlet, Reply},
    supervise::panic_text,
    vpn::{
        Outlets,
        gate::{
            Dropped,
            packet::{self, Packet},
            policy::{Policy, Service},
            sessions::MTU,
        },
        netstack::flow::{Flow, Opening, Outbound, Room},
    },
};

/// What all connections of one peer may hold together.
const BYTES_PER_PEER: usize = 4 << 20;
/// How many one peer may have.
const FLOWS_PER_PEER: usize = 128;
/// The first connection of a peer gets a window for 200 Mbit/s over 40 ms, later ones a part of what is left.
const FIRST: usize = 1 << 20;
const LEAST: usize = 16 << 10;
/// Refusals that one peer is answered with.
const REFUSALS: Rate = Rate::new(50, 50).expect("not zero");

/// Which connection a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    peer: PeerId,
    local: SocketAddr,
    client: SocketAddr,
}

#[derive(Debug)]
struct Entry {
    packets: mpsc::Sender<Vec<u8>>,
    task: AbortHandle,
    service: Service,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    flows: usize,
    bytes: usize,
}

impl Use {
    /// Returns what a further connection may hold; none if there is no room for one.
    fn room(self) -> Option<Room> {
        let left = BYTES_PER_PEER.checked_sub(self.bytes)?;
        let send = if self.flows == 0 { FIRST } else { (left / 16).clamp(LEAST, FIRST) };
        let room = Room { receive: (send / 4).max(LEAST / 2), send, pipe: (send / 8).max(LEAST / 2) };
        (self.flows < FLOWS_PER_PEER && room.bytes() <= left).then_some(room)
    }
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
    policy: Arc<Policy>,
    flows: HashMap<FlowKey, Entry>,
    keys: HashMap<Id, FlowKey>,
    used: HashMap<PeerId, Use>,
    tasks: JoinSet<()>,
    outbound: mpsc::Sender<Outbound>,
    replies: mpsc::Sender<Reply>,
    refusals: Limits,
    accepts: bool,
}

impl Netstack {
    /// Makes a stack without connections, which sends its packets and the planes' answers this way.
    pub(super) fn new(
        outlets: Outlets,
        policy: Arc<Policy>,
        outbound: mpsc::Sender<Outbound>,
        replies: mpsc::Sender<Reply>,
        now: Instant,
    ) -> Self {
        Self {
            outlets,
            policy,
            flows: HashMap::new(),
            keys: HashMap::new(),
            used: HashMap::new(),
            tasks: JoinSet::new(),
            outbound,
            replies,
            refusals: Limits::new(256, now),
            accepts: true,
        }
    }

    /// Takes a new policy: connections which nobody may begin any more end at once.
    pub(super) fn set_policy(&mut self, policy: Arc<Policy>) {
        let lost = |key: &FlowKey, entry: &Entry| {
            policy.owner(key.client.ip()) != Some(key.peer)
                || !policy.is_gate(key.local.ip())
                || !policy.may_reach(key.peer, entry.service)
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
        self.flows.len()
    }

    /// Takes a packet that is the peer's own.
    pub(super) fn handle_packet(&mut self, peer: PeerId, bytes: Vec<u8>, now: Instant) -> Delivery {
        let Ok(packet) = Packet::parse(&bytes) else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        if !self.policy.is_gate(packet.destination) {
            return self.refuse(Dropped::Forbidden, peer, &packet, now);
        }
        match packet.protocol {
            packet::TCP => self.handle_tcp(peer, bytes, now),
            packet::UDP => self.handle_udp(peer, &packet, now),
            packet::ICMPV4 | packet::ICMPV6 => match answer::echo(&packet) {
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
        let key = FlowKey { peer, local, client };
        match self.flows.get(&key).map(|entry| entry.packets.clone()) {
            // It has ended, and the table was not told yet.
            Some(packets) if packets.is_closed() => self.forget(key),
            Some(packets) => {
                return match packets.try_send(bytes) {
                    Ok(()) => Delivery::Taken,
                    Err(_) => Delivery::Dropped(Dropped::QueueFull, None),
                };
            }
            None => {}
        }
        if client.port() == 0 || !packet.is_syn() {
            // Of a connection that is gone.
            return match self.refuse(Dropped::Forbidden, peer, &packet, now) {
                Delivery::Dropped(_, Some(reset)) => Delivery::Answer(reset),
                other => other,
            };
        }
        let service = self.policy.tcp_service(local.port()).filter(|service| self.policy.may_reach(peer, *service));
        let Some((service, plane)) = service.and_then(|service| Some((service, self.outlet(service)?.streams.clone())))
        else {
            return self.refuse(Dropped::Forbidden, peer, &packet, now);
        };
        let used = self.used.get(&peer).copied().unwrap_or_default();
        let Some(room) = used.room().filter(|_| self.accepts) else {
            return self.refuse(Dropped::TooManyConnections, peer, &packet, now);
        };
        let (packets, inbound) = mpsc::channel(room.packets());
        let flow = Flow::new(peer, local, client, Opening::Accept(plane), room, inbound, self.outbound.clone());
        packets.try_send(bytes).expect("the queue of a new connection is empty");
        let task = self.tasks.spawn(flow.run());
        self.keys.insert(task.id(), key);
        let used = self.used.entry(peer).or_default();
        used.flows += 1;
        used.bytes += room.bytes();
        self.flows.insert(key, Entry { packets, task, service, bytes: room.bytes() });
        Delivery::Taken
    }

    fn outlet(&self, service: Service) -> Option<&Outlet> {
        match service {
            Service::Dns => self.outlets.dns.as_ref(),
            Service::Ingress => self.outlets.ingress.as_ref(),
            Service::Metrics => self.outlets.metrics.as_ref(),
        }
    }

    fn handle_udp(&mut self, peer: PeerId, packet: &Packet<'_>, now: Instant) -> Delivery {
        let Some((from, to)) = packet.ports() else {
            return Delivery::Dropped(Dropped::Malformed, None);
        };
        let service = self.policy.udp_service(to).filter(|service| self.policy.may_reach(peer, *service));
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

    fn refuse(&self, reason: Dropped, peer: PeerId, packet: &Packet<'_>, now: Instant) -> Delivery {
        let answer = match self.refusals.check_key(peer, REFUSALS, now) {
            Ok(()) => answer::refusal(packet),
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
        if let Some(used) = self.used.get_mut(&key.peer) {
            used.flows -= 1;
            used.bytes -= entry.bytes;
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
        let outlets = Outlets { dns: Some(outlet.clone()), ingress: Some(outlet), metrics: None };
        let (outbound, packets) = mpsc::channel(64);
        let (replies, _) = mpsc::channel(1);
        let policy = Arc::new(Policy::new(&config).unwrap());
        (Netstack::new(outlets, policy, outbound, replies, Instant::now()), packets, inlet)
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

    #[test]
    fn a_peer_holds_no_more_than_its_share_and_has_enough_connections() {
        let mut used = Use::default();

        while let Some(room) = used.room() {
            used.flows += 1;
            used.bytes += room.bytes();
        }

        assert!(used.bytes <= BYTES_PER_PEER, "{used:?}");
        assert!(used.flows >= 20, "{used:?}");
    }
}

//! A small WireGuard client in this process: what `hearthgate tour` and the tests come in with.
//!
//! It shares the wall around the library and the connections with the gate, and nothing else: to the gate it
//! is a peer like any other.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::DuplexStream,
    net::UdpSocket,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    origin::PeerId,
    vpn::{
        gate::{
            TICK,
            packet::{self, Packet},
            sessions::{Buffer, MTU, Sessions},
        },
        keys::{PresharedKey, PrivateKey, PublicKey},
        netstack::{
            answer,
            flow::{self, Flow, Opening, Outbound, Room},
        },
    },
};

/// How long the gate may take to answer the handshake.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(6);
/// How long a connection may take to stand.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(6);
/// How long a datagram's answer may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

const ROOM: Room = Room { receive: 1 << 20, send: 1 << 20, pipe: 64 << 10 };
const FIRST_PORT: u16 = 49_152;

/// An open tunnel. Dropping it ends everything inside.
#[derive(Debug)]
pub struct Tunnel {
    wishes: mpsc::Sender<Wish>,
    own: IpAddr,
    /// Owns the task that does the work.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
enum Wish {
    Tcp(SocketAddr, oneshot::Sender<DuplexStream>),
    Udp(SocketAddr, Vec<u8>, oneshot::Sender<Vec<u8>>),
    Raw(Vec<u8>),
}

impl Tunnel {
    /// Opens a tunnel: the handshake is done when this returns.
    pub async fn connect(
        private_key: &PrivateKey,
        gate: &PublicKey,
        preshared: Option<&PresharedKey>,
        own: IpAddr,
        endpoint: SocketAddr,
    ) -> io::Result<Self> {
        if own.is_unspecified() || own.is_multicast() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let any: SocketAddr = if endpoint.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(endpoint).await?;
        let mut index = [0; 4];
        getrandom::fill(&mut index).expect("the system has a random source");
        let sessions = Sessions::new(private_key, gate, preshared, u32::from_le_bytes(index) >> 8);
        let (wishes, wished) = mpsc::channel(64);
        let (outbound, packets) = mpsc::channel(1024);
        let mut inside = Inside {
            socket,
            sessions,
            buffer: Buffer::default(),
            messages: Vec::new(),
            own,
            outbound,
            flows: HashMap::new(),
            asked: HashMap::new(),
            next_port: FIRST_PORT,
            tasks: JoinSet::new(),
        };
        match timeout(HANDSHAKE_WITHIN, inside.shake_hands()).await {
            Ok(result) => result?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the gate did not answer the handshake")),
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(inside.run(wished, packets));
        Ok(Self { wishes, own, _tasks: tasks })
    }

    /// Returns the inner address of this end.
    pub fn address(&self) -> IpAddr {
        self.own
    }

    /// Opens a connection through the tunnel.
    pub async fn tcp(&self, address: SocketAddr) -> io::Result<DuplexStream> {
        let (tell, told) = oneshot::channel();
        self.wish(Wish::Tcp(address, tell)).await?;
        match timeout(CONNECT_WITHIN, told).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(_)) => Err(io::ErrorKind::ConnectionRefused.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends a datagram through the tunnel and waits for one answer.
    pub async fn udp_exchange(&self, address: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
        let (tell, told) = oneshot::channel();
        self.wish(Wish::Udp(address, payload.into(), tell)).await?;
        match timeout(ANSWER_WITHIN, told).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(io::ErrorKind::ConnectionRefused.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends an inner packet as it is, whatever its source says: for tests of the gate.
    pub async fn send_raw(&self, packet: Vec<u8>) -> io::Result<()> {
        self.wish(Wish::Raw(packet)).await
    }

    async fn wish(&self, wish: Wish) -> io::Result<()> {
        self.wishes.send(wish).await.map_err(|_| io::ErrorKind::NotConnected.into())
    }
}

struct Inside {
    socket: UdpSocket,
    sessions: Sessions,
    buffer: Buffer,
    /// On their way to the gate; empty between turns.
    messages: Vec<Vec<u8>>,
    own: IpAddr,
    outbound: mpsc::Sender<Outbound>,
    flows: HashMap<(SocketAddr, SocketAddr), mpsc::Sender<Vec<u8>>>,
    asked: HashMap<(u16, SocketAddr), oneshot::Sender<Vec<u8>>>,
    next_port: u16,
    tasks: JoinSet<()>,
}

impl Inside {
    async fn shake_hands(&mut self) -> io::Result<()> {
        self.messages.extend(self.sessions.initiate(&mut self.buffer));
        self.send().await;
        let mut datagram = vec![0; 2048];
        let mut ticks = interval(TICK);
        while self.sessions.age().is_none() {
            tokio::select! {
                // A refused port may be one that is about to open.
                received = self.socket.recv(&mut datagram) => if let Ok(length) = received {
                    self.receive(datagram.get(..length).unwrap_or_default());
                },
                _ = ticks.tick() => self.messages.extend(self.sessions.tick(&mut self.buffer)),
            }
            self.send().await;
        }
        Ok(())
    }

    async fn run(mut self, mut wished: mpsc::Receiver<Wish>, mut packets: mpsc::Receiver<Outbound>) {
        let mut datagram = vec![0; 2048];
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wish = wished.recv() => match wish {
                    None => return,
                    Some(wish) => self.grant(wish),
                },
                Some(Outbound { packet, .. }) = packets.recv() => self.seal(&packet),
                received = self.socket.recv(&mut datagram) => {
                    let mut received = received;
                    for _ in 0..32 {
                        let Ok(length) = received else { break };
                        self.receive(datagram.get(..length).unwrap_or_default());
                        received = self.socket.try_recv(&mut datagram);
                    }
                    self.send().await;
                    tokio::task::yield_now().await;
                }
                _ = ticks.tick() => {
                    self.messages.extend(self.sessions.tick(&mut self.buffer));
                    self.flows.retain(|_, packets| !packets.is_closed());
                    self.asked.retain(|_, answer| !answer.is_closed());
                }
                Some(_) = self.tasks.join_next() => {}
            }
            self.send().await;
        }
    }

    async fn send(&mut self) {
        for message in self.messages.drain(..) {
            // What is not sent is lost, as on any network.
            let _ = self.socket.send(&message).await;
        }
    }

    fn seal(&mut self, packet: &[u8]) {
        self.messages.extend(self.sessions.seal(packet, &mut self.buffer));
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Raw(packet) => self.seal(&packet),
            Wish::Udp(to, payload, answer) => {
                let port = self.port();
                if let Some(packet) = answer::udp(SocketAddr::new(self.own, port), to, &payload, MTU) {
                    self.asked.insert((port, to), answer);
                    self.seal(&packet);
                }
            }
            Wish::Tcp(to, stream) => {
                // Dropping the wish refuses it.
                if to.is_ipv4() != self.own.is_ipv4() || to.port() == 0 || to.ip().is_unspecified() {
                    return;
                }
                let local = SocketAddr::new(self.own, self.port());
                let (packets, inbound) = mpsc::channel(1024);
                let flow =
                    Flow::new(PeerId(0), local, to, Opening::Connect(stream), ROOM, inbound, self.outbound.clone());
                self.flows.insert((local, to), packets);
                self.tasks.spawn(flow.run());
            }
        }
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }

    fn receive(&mut self, datagram: &[u8]) {
        let Ok(Some(bytes)) = self.sessions.handle(datagram, &mut self.buffer, &mut self.messages) else { return };
        let Ok(packet) = Packet::parse(&bytes) else { return };
        match (packet.protocol, packet.ports()) {
            (packet::TCP, Some(ports)) => {
                let (local, remote) = flow::ends(packet.source, packet.destination, ports);
                if let Some(packets) = self.flows.get(&(local, remote)) {
                    // A full queue loses it, as a network would.
                    let _ = packets.try_send(bytes);
                }
            }
            (packet::UDP, Some((from, to))) => {
                let from = SocketAddr::new(packet.source, from);
                if let (Some(payload), Some(asked)) = (answer::udp_payload(&packet), self.asked.remove(&(to, from))) {
                    let _ = asked.send(payload.into());
                }
            }
            (packet::ICMPV4 | packet::ICMPV6, _) => self.handle_refusal(&packet),
            _ => {}
        }
    }

    /// Takes an ICMP error about a datagram that was sent: nobody will answer it.
    fn handle_refusal(&mut self, error: &Packet<'_>) {
        let unreachable = if error.protocol == packet::ICMPV4 { 3 } else { 1 };
        if error.payload.first() != Some(&unreachable) {
            return;
        }
        let Some(ours) = error.payload.get(8..).and_then(|ours| Packet::parse(ours).ok()) else { return };
        if let Some((from, to)) = ours.ports() {
            self.asked.remove(&(from, SocketAddr::new(ours.destination, to)));
        }
    }
}

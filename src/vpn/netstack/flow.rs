//! One TCP connection inside the tunnel: a task that owns its socket, its interface and its end of a pipe.
//!
//! smoltcp looks for the socket of a packet by walking over all of them, and has no queue of connections
//! that wait to be accepted. With a stack of its own per connection both do not matter: the table in
//! [`super`] finds the connection, a connection is made when its SYN comes, and ends alone.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{self, CongestionControl, State},
    time::Instant,
    wire::{HardwareAddress, IpCidr, IpEndpoint},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant as Clock, Sleep, sleep_until},
};

use crate::{
    origin::{Origin, PeerId},
    stream::{Accepted, Stream},
    vpn::gate::sessions::MTU,
};

/// How long the three steps of the handshake may take together.
const ESTABLISH_WITHIN: Duration = Duration::from_secs(10);
/// How long a peer may leave sent data unacknowledged, or be silent altogether.
const SILENT_FOR: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(180);
/// How often a silent peer is asked whether it is still there.
const KEEPALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(75);
/// How long the peer may take to end a connection that this end has ended.
const LINGER: Duration = Duration::from_secs(30);
/// Packets that one turn lets out.
const TURN: usize = 64;
/// Packets that one turn takes in: more than one turn of the gate brings, so that the queue is empty again before the
/// next one. A lost packet costs more than a turn that is a little longer.
const TURN_IN: usize = 192;

/// Memory of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) struct Room {
    /// What the peer may send ahead.
    pub(in crate::vpn) receive: usize,
    /// What may be under way to the peer.
    pub(in crate::vpn) send: usize,
    /// The pipe to the plane, each way; a relayed connection needs none.
    pub(in crate::vpn) pipe: usize,
}

impl Room {
    /// Returns how many packets may wait to be taken in: a window of them, or what one turn of the gate brings.
    pub(in crate::vpn) fn packets(self) -> usize {
        (self.receive / MTU).min(TURN_IN) + 2
    }

    /// Returns all of it, with the packets that wait.
    pub(in crate::vpn) fn bytes(self) -> usize {
        self.receive + self.send + 2 * self.pipe + self.packets() * MTU
    }
}

/// An inner packet on its way into a tunnel.
#[derive(Debug)]
pub(in crate::vpn) struct Outbound {
    pub(in crate::vpn) peer: PeerId,
    pub(in crate::vpn) packet: Vec<u8>,
}

/// Who began, and who is told when the connection stands.
#[derive(Debug)]
pub(in crate::vpn) enum Opening {
    /// The peer; the plane gets the stream.
    Accept(mpsc::Sender<Accepted>),
    /// The peer; this is the target outside.
    Relay(TcpStream),
    /// This end.
    Connect(oneshot::Sender<DuplexStream>),
}

/// What a connection's bytes come from and go to.
#[derive(Debug)]
enum Pipe {
    Plane(DuplexStream),
    Target(TcpStream),
}

impl Pipe {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plane(plane) => Pin::new(plane).poll_read(cx, buffer),
            Self::Target(target) => Pin::new(target).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plane(plane) => Pin::new(plane).poll_write(cx, bytes),
            Self::Target(target) => Pin::new(target).poll_write(cx, bytes),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plane(plane) => Pin::new(plane).poll_shutdown(cx),
            Self::Target(target) => Pin::new(target).poll_shutdown(cx),
        }
    }

    /// A connection that broke on the other side must not look like one that ended.
    fn breaks(&self) -> bool {
        matches!(self, Self::Target(_))
    }
}

/// One connection.
pub(in crate::vpn) struct Flow {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: Wire,
    packets: mpsc::Receiver<Vec<u8>>,
    epoch: Clock,
    timer: Pin<Box<Sleep>>,
    /// Waits for room on the way out.
    way_out: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    opening: Option<Opening>,
    room: Room,
    local: SocketAddr,
    client: SocketAddr,
    /// This end of the pipe; none before the connection stands and after the plane has let go.
    pipe: Option<Pipe>,
    /// Nothing more comes from the plane.
    read_all: bool,
    /// The plane was told that nothing more comes from the peer.
    told_end: bool,
    deadline: Option<Clock>,
}

impl Flow {
    /// Makes a connection whose first packet is about to come or to be sent. `local` is this end.
    pub(in crate::vpn) fn new(
        peer: PeerId,
        local: SocketAddr,
        remote: SocketAddr,
        opening: Opening,
        room: Room,
        packets: mpsc::Receiver<Vec<u8>>,
        outbound: mpsc::Sender<Outbound>,
    ) -> Self {
        let epoch = Clock::now();
        let mut wire = Wire { peer, inbound: None, outbound, full: false };
        let mut config = Config::new(HardwareAddress::Ip);
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system has a random source");
        config.random_seed = u64::from_le_bytes(seed);
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        let length = if local.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // One address fits: the list is empty.
            let _ = addresses.push(IpCidr::new(local.ip().into(), length));
        });
        let receive = tcp::SocketBuffer::new(vec![0; room.receive]);
        let send = tcp::SocketBuffer::new(vec![0; room.send]);
        let mut socket = tcp::Socket::new(receive, send);
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(SILENT_FOR));
        socket.set_keep_alive(Some(KEEPALIVE));
        match opening {
            Opening::Accept(_) | Opening::Relay(_) => {
                socket.listen(IpEndpoint::from(local)).expect("a new socket may listen on any port")
            }
            Opening::Connect(_) => socket
                .connect(interface.context(), IpEndpoint::from(remote), IpEndpoint::from(local))
                .expect("both ends have addresses of one family and ports"),
        }
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let deadline = epoch + ESTABLISH_WITHIN;
        Self {
            interface,
            sockets,
            handle,
            wire,
            packets,
            epoch,
            timer: Box::pin(sleep_until(deadline)),
            way_out: None,
            opening: Some(opening),
            room,
            local,
            client: remote,
            pipe: None,
            read_all: false,
            told_end: false,
            deadline: Some(deadline),
        }
    }

    /// Carries bytes until the connection has ended.
    pub(in crate::vpn) async fn run(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        let mut turns = 0;
        while turns < TURN_IN {
            match self.packets.poll_recv(cx) {
                Poll::Ready(Some(packet)) => {
                    self.wire.inbound = Some(packet);
                    self.interface.poll_ingress_single(now, &mut self.wire, &mut self.sockets);
                    turns += 1;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.open();
        self.pump(cx);
        if self.deadline.is_some_and(|deadline| Clock::now() >= deadline) {
            self.socket().abort();
            self.pipe = None;
        }
        self.wire.full = false;
        let mut sent = 0;
        while sent < TURN {
            match self.interface.poll_egress(now, &mut self.wire, &mut self.sockets) {
                PollResult::None => break,
                PollResult::SocketStateChanged => sent += 1,
            }
        }
        if sent > 0 {
            // Sending never opens or closes, but acknowledged data may have left room since.
            self.pump(cx);
        }
        let state = self.socket().state();
        let next = self.interface.poll_at(now, &self.sockets);
        let idle = next.is_none_or(|next| next > now + smoltcp::time::Duration::from_secs(1));
        // TIME-WAIT protects a later connection with the same ports from old segments; here the tunnel's
        // counters do, so that the memory is given back once the last acknowledgement is out.
        let over = state == State::Closed && !self.wire.full || state == State::TimeWait && idle;
        // What came before the end is still the plane's to read.
        if over && (self.pipe.is_none() || self.told_end) {
            return Poll::Ready(());
        }
        if turns == TURN_IN || sent == TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.wire.full {
            self.wait_for_the_way_out(cx);
        }
        let wake = next.map(|next| {
            let next = self.epoch + Duration::from_micros(next.total_micros().try_into().unwrap_or(0));
            // What is due and was not sent waits for something else; do not spin on it.
            next.max(Clock::now() + Duration::from_millis(1))
        });
        if let Some(wake) = wake.into_iter().chain(self.deadline).min() {
            self.timer.as_mut().reset(wake);
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Hands the stream on once the connection stands.
    fn open(&mut self) {
        if self.opening.is_none()
            || matches!(self.socket().state(), State::Listen | State::SynSent | State::SynReceived | State::Closed)
        {
            return;
        }
        let Some(opening) = self.opening.take() else { return };
        let (ours, theirs) = match opening {
            Opening::Relay(target) => {
                self.pipe = Some(Pipe::Target(target));
                self.deadline = None;
                return;
            }
            Opening::Accept(_) | Opening::Connect(_) => tokio::io::duplex(self.room.pipe),
        };
        let handed = match opening {
            Opening::Accept(plane) => {
                let accepted = Accepted {
                    stream: Stream::Inner(theirs),
                    origin: Origin::Vpn(self.wire.peer),
                    client: self.client,
                    local: self.local,
                };
                plane.try_send(accepted).is_ok()
            }
            Opening::Connect(caller) => caller.send(theirs).is_ok(),
            Opening::Relay(_) => false,
        };
        if handed {
            self.pipe = Some(Pipe::Plane(ours));
            self.deadline = None;
        } else {
            // The plane is full or gone.
            self.socket().abort();
        }
    }

    /// Moves bytes between the socket and the pipe, each way as far as there is room.
    fn pump(&mut self, cx: &mut Context<'_>) {
        let Some(pipe) = &mut self.pipe else { return };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let (mut moved, mut broken) = (false, false);
        while socket.can_recv() {
            let taken = socket.recv(|bytes| match pipe.poll_write(cx, bytes) {
                Poll::Ready(Ok(taken)) => (taken, true),
                // Nobody reads it: taken all the same, so that the peer sees the end.
                Poll::Ready(Err(_)) => {
                    broken = true;
                    (bytes.len(), true)
                }
                Poll::Pending => (0, false),
            });
            if taken != Ok(true) {
                break;
            }
            moved = true;
        }
        let ended = !socket.may_recv() && !socket.can_recv();
        if ended && !self.told_end {
            self.told_end = true;
            let _: Poll<io::Result<()>> = pipe.poll_shutdown(cx);
        }
        while socket.can_send() && !self.read_all {
            let read = socket.send(|room| {
                let mut buffer = ReadBuf::new(room);
                match pipe.poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) => (buffer.filled().len(), Some(buffer.filled().is_empty())),
                    Poll::Ready(Err(_)) => {
                        broken = true;
                        (0, Some(true))
                    }
                    Poll::Pending => (0, None),
                }
            });
            match read {
                Ok(Some(false)) => {}
                Ok(Some(true)) => {
                    self.read_all = true;
                    self.deadline = Some(Clock::now() + LINGER);
                }
                _ => break,
            }
        }
        if broken && pipe.breaks() {
            socket.abort();
            self.pipe = None;
            return;
        }
        // Not before everything is acknowledged: in LAST-ACK smoltcp takes no notice of a window that opens, and
        // a slow reader would never see the rest.
        if self.read_all && socket.may_send() && socket.send_queue() == 0 {
            socket.close();
        }
        if self.read_all && (moved || socket.send_queue() > 0) {
            // Still moving one way: the silence limit watches over that.
            self.deadline = Some(Clock::now() + LINGER);
        }
    }

    fn wait_for_the_way_out(&mut self, cx: &mut Context<'_>) {
        let outbound = &self.wire.outbound;
        let way_out = self.way_out.get_or_insert_with(|| {
            let outbound = outbound.clone();
            Box::pin(async move {
                let _ = outbound.reserve().await;
            })
        });
        if way_out.as_mut().poll(cx).is_ready() {
            self.way_out = None;
            cx.waker().wake_by_ref();
        }
    }
}

/// smoltcp's idea of a network card: one packet in, a bounded queue out.
struct Wire {
    peer: PeerId,
    inbound: Option<Vec<u8>>,
    outbound: mpsc::Sender<Outbound>,
    full: bool,
}

struct Inward(Vec<u8>);

struct Outward<'a> {
    peer: PeerId,
    /// None: an answer that the queue has no room for is lost, as on any network.
    permit: Option<mpsc::Permit<'a, Outbound>>,
}

impl Device for Wire {
    type RxToken<'a> = Inward;
    type TxToken<'a> = Outward<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inward, Outward<'_>)> {
        let packet = self.inbound.take()?;
        Some((Inward(packet), Outward { peer: self.peer, permit: self.outbound.try_reserve().ok() }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outward<'_>> {
        let permit = self.outbound.try_reserve().ok();
        self.full = permit.is_none();
        permit.map(|permit| Outward { peer: self.peer, permit: Some(permit) })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

impl RxToken for Inward {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outward<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        if let Some(permit) = self.permit {
            permit.send(Outbound { peer: self.peer, packet });
        }
        result
    }
}

/// Returns the address to listen on and the one that speaks, of a TCP packet.
pub(in crate::vpn) fn ends(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(destination, ports.1), SocketAddr::new(source, ports.0))
}

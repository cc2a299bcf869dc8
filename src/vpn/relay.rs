//! How peers reach the LAN without privileges: what a peer begins is ended in the in-process stack, and begun
//! anew from a socket of the kernel. The LAN sees this box.
//!
//! Nothing is ever opened to this box itself: not to its addresses, not to loopback, link-local or multicast,
//! not to anything inside the tunnel. A peer that could reach those would have gone around its own rules.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    origin::PeerId,
    vpn::{
        gate::{packet::Packet, sessions::MTU},
        netstack::{
            answer::{self, Unreachable},
            flow::{Flow, Opening, Outbound, Room},
        },
    },
};

/// How long the target may take to accept. The peer's own stack asks again meanwhile.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A target that says nothing is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(75);
/// RFC 4787 REQ-5: not less than two minutes.
const UDP_QUIET_FOR: Duration = Duration::from_secs(120);
/// A question and its answer need no more, and resolvers take a new port for each.
const DNS_QUIET_FOR: Duration = Duration::from_secs(10);
/// Datagrams of a flow that wait to be sent.
pub(super) const UDP_QUEUE: usize = 8;

/// What one flow of datagrams holds: those that wait, the last one, and room for an answer.
pub(super) const UDP_BYTES: usize = (UDP_QUEUE + 3) * MTU;

/// Opens a connection to a target that the policy allows.
pub(super) async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = match timeout(CONNECT_WITHIN, TcpStream::connect(target)).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    is_elsewhere(stream.local_addr()?, target)?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    Ok(stream)
}

/// Makes a socket that sends to a target that the policy allows, and hears nobody else.
pub(super) async fn socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    is_elsewhere(socket.local_addr()?, target)?;
    Ok(socket)
}

/// Refuses a target that turned out to be this box: its addresses may have changed a moment ago, and the kernel
/// knows better. It speaks to its own addresses from the same address.
fn is_elsewhere(local: SocketAddr, target: SocketAddr) -> io::Result<()> {
    if local.ip() == target.ip() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
}

/// One connection of a peer, from its first packet on.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) peer: PeerId,
    pub(super) target: SocketAddr,
    pub(super) client: SocketAddr,
    pub(super) room: Room,
    /// The packet that began it.
    pub(super) syn: Arc<[u8]>,
    pub(super) packets: mpsc::Receiver<Vec<u8>>,
    pub(super) outbound: mpsc::Sender<Outbound>,
}

impl Tcp {
    /// Carries bytes both ways. The peer is answered only once the target has answered.
    pub(super) async fn run(self, target: impl Future<Output = io::Result<TcpStream>>) {
        let Self { peer, client, room, syn, packets, outbound, .. } = self;
        let stream = match target.await {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(packet) = Packet::parse(&syn).ok().and_then(|syn| refusal(&syn, &error)) {
                    // A full queue loses it; the peer asks again.
                    let _ = outbound.try_send(Outbound { peer, packet });
                }
                return;
            }
        };
        Flow::new(peer, self.target, client, Opening::Relay(stream), room, packets, outbound).run().await;
    }
}

/// The answer to a packet whose target could not be reached.
fn refusal(packet: &Packet<'_>, error: &io::Error) -> Option<Vec<u8>> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => answer::closed(packet),
        io::ErrorKind::PermissionDenied => answer::refusal(packet),
        _ => answer::unreachable(packet, Unreachable::Host),
    }
}

/// Datagrams between one port of a peer and one of a target.
#[derive(Debug)]
pub(super) struct Udp {
    pub(super) peer: PeerId,
    pub(super) target: SocketAddr,
    pub(super) client: SocketAddr,
    pub(super) packets: mpsc::Receiver<Vec<u8>>,
    pub(super) outbound: mpsc::Sender<Outbound>,
}

impl Udp {
    /// Carries datagrams both ways until there were none for a while.
    pub(super) async fn run(mut self, socket: impl Future<Output = io::Result<UdpSocket>>) {
        let Some(mut last) = self.packets.recv().await else { return };
        let error = match socket.await {
            Ok(socket) => self.carry(&socket, &mut last).await.err(),
            Err(error) => Some(error),
        };
        let Some(error) = error else { return };
        if let Some(packet) = Packet::parse(&last).ok().and_then(|last| refusal(&last, &error)) {
            let _ = self.outbound.try_send(Outbound { peer: self.peer, packet });
        }
    }

    async fn carry(&mut self, socket: &UdpSocket, last: &mut Vec<u8>) -> io::Result<()> {
        let quiet_for = if self.target.port() == 53 { DNS_QUIET_FOR } else { UDP_QUIET_FOR };
        let mut buffer = [0; MTU];
        send(socket, last).await?;
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                packet = self.packets.recv() => {
                    let Some(packet) = packet else { return Ok(()) };
                    *last = packet;
                    send(socket, last).await?;
                }
                length = socket.recv(&mut buffer) => {
                    let payload = buffer.get(..length?).unwrap_or_default();
                    // What is larger than the tunnel, or finds its queue full, is lost as on any network.
                    if let Some(packet) = answer::udp(self.target, self.client, payload, MTU) {
                        let _ = self.outbound.try_send(Outbound { peer: self.peer, packet });
                    }
                }
                () = sleep_until(heard + quiet_for) => return Ok(()),
            }
            heard = Instant::now();
        }
    }
}

async fn send(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    let payload = Packet::parse(packet).ok().and_then(|packet| answer::udp_payload(&packet));
    match payload {
        None => Ok(()),
        Some(payload) => match socket.send(payload).await {
            // Larger than a link outside: lost, and nothing is wrong with the target.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(()),
            sent => sent.map(|_| ()),
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        net::TcpListener,
        sync::oneshot,
        task::JoinSet,
    };

    use super::*;

    const ROOM: Room = Room { receive: 64 << 10, send: 64 << 10, pipe: 16 << 10 };
    const CLIENT: &str = "10.77.0.2:40000";
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A peer's end of a connection which is relayed to `port` on loopback, and who carries it.
    async fn relayed(port: u16) -> (Result<DuplexStream, oneshot::error::RecvError>, JoinSet<()>) {
        let (client, target) = (CLIENT.parse().unwrap(), "192.168.1.10:80".parse().unwrap());
        let ((to_relay, at_relay), (to_client, at_client)) = (mpsc::channel(64), mpsc::channel(64));
        let ((from_relay, mut relay_says), (from_client, mut client_says)) = (mpsc::channel(64), mpsc::channel(64));
        let (tell, told) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let mut flow = Flow::new(PeerId(0), client, target, Opening::Connect(tell), ROOM, at_client, from_client);
        tasks.spawn(async move { flow.run().await });
        let begin: Outbound = client_says.recv().await.unwrap();
        let relay = Tcp {
            peer: PeerId(0),
            target,
            client,
            room: ROOM,
            syn: begin.packet.as_slice().into(),
            packets: at_relay,
            outbound: from_relay,
        };
        to_relay.try_send(begin.packet).unwrap();
        tasks.spawn(relay.run(TcpStream::connect(("127.0.0.1", port))));
        tasks.spawn(async move {
            while let Some(one) = client_says.recv().await {
                let _ = to_relay.send(one.packet).await;
            }
            std::future::pending().await
        });
        tasks.spawn(async move {
            while let Some(Outbound { packet, .. }) = relay_says.recv().await {
                let _ = to_client.send(packet).await;
            }
            // A network does not end with one of its hosts.
            std::future::pending().await
        });
        (timeout(PATIENCE, told).await.unwrap(), tasks)
    }

    #[tokio::test]
    async fn bytes_and_ends_go_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, _tasks) = relayed(listener.local_addr().unwrap().port()).await;
        let mut client = client.unwrap();
        let (mut target, _) = listener.accept().await.unwrap();
        let target = tokio::spawn(async move {
            let mut question = Vec::new();
            target.read_to_end(&mut question).await.unwrap();
            target.write_all(&vec![9; 1 << 20]).await.unwrap();
            question.len()
        });

        client.write_all(&vec![7; 300_000]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap().unwrap();

        assert_eq!((answer.len(), target.await.unwrap()), (1 << 20, 300_000));
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_a_refusal_for_the_peer() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();

        let (client, _tasks) = relayed(closed).await;

        assert!(client.is_err(), "the handshake was not answered");
    }

    #[tokio::test]
    async fn a_connection_that_the_target_resets_does_not_end_quietly() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, mut tasks) = relayed(listener.local_addr().unwrap().port()).await;
        let mut client = client.unwrap();
        let (target, _) = listener.accept().await.unwrap();

        // Unread bytes make the kernel reset instead of end.
        client.write_all(b"unread").await.unwrap();
        target.peek(&mut [0; 6]).await.unwrap();
        drop(target);

        // Both ends of the connection in the tunnel are over at once, with nobody lingering.
        timeout(PATIENCE, async { (tasks.join_next().await, tasks.join_next().await) }).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(client.write_all(b"more").await.is_err());
    }

    #[tokio::test]
    async fn datagrams_go_both_ways_and_a_closed_port_is_told() {
        let (client, target): (SocketAddr, SocketAddr) = (CLIENT.parse().unwrap(), "192.168.1.10:9".parse().unwrap());
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let ((packets, at_relay), (outbound, mut answers)) = (mpsc::channel(8), mpsc::channel(8));
        let relay = Udp { peer: PeerId(0), target, client, packets: at_relay, outbound };
        let question = || answer::udp(client, target, b"question", MTU).unwrap();
        let task = tokio::spawn(relay.run(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(("127.0.0.1", port)).await?;
            Ok(socket)
        }));

        packets.send(question()).await.unwrap();
        let mut heard = [0; 64];
        let (length, from) = timeout(PATIENCE, server.recv_from(&mut heard)).await.unwrap().unwrap();
        server.send_to(b"answer", from).await.unwrap();
        let answer = timeout(PATIENCE, answers.recv()).await.unwrap().unwrap().packet;
        drop(server);
        packets.send(question()).await.unwrap();
        let closed = timeout(PATIENCE, answers.recv()).await.unwrap().unwrap().packet;

        assert_eq!(&heard[..length], b"question");
        let answer = Packet::parse(&answer).unwrap();
        assert_eq!((answer.source, answer.ports()), (target.ip(), Some((9, 40_000))));
        assert_eq!(answer::udp_payload(&answer), Some(&b"answer"[..]));
        // RFC 792: destination unreachable, port.
        assert_eq!(Packet::parse(&closed).unwrap().payload[..2], [3, 3]);
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }
}

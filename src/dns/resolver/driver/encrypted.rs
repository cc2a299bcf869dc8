//! Servers that are asked through encrypted connections, and how a connection comes up.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper::Uri;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Event, LONGEST_EXCHANGE,
    bootstrap::Bootstrap,
    https::Https,
    line::{Ask, CONNECT, CONNECT_FIRST, Command, Unanswered},
    quic::Quic,
    stream::talk,
};
use crate::dns::resolver::{Contact, ExchangeId};

/// A connection to an authoritative server is kept so long after its last question.
const IDLE_PLAIN: Duration = Duration::from_secs(10);
/// The same for an encrypted one, which was dearer.
const IDLE_ENCRYPTED: Duration = Duration::from_secs(60);

/// A server that is asked through an encrypted connection.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub host: Host,
    /// How it is asked.
    pub protocol: Protocol,
    /// The name that its certificate must have.
    pub name: ServerName<'static>,
    /// Whose certificates are believed.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Host {
    /// At an address.
    Address(SocketAddr),
    /// Where its name leads.
    Name {
        /// The name.
        name: crate::dns::resolver::name::Name,
        /// The port.
        port: u16,
        /// Who is asked for the name, over plain DNS: a lie does not get past the certificate.
        bootstrap: Vec<SocketAddr>,
    },
}

/// How a server is asked.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https(Uri),
    /// DNS over QUIC (RFC 9250).
    Quic,
}

/// Brings connections up and serves them.
#[derive(Clone)]
pub(super) struct Dialler {
    servers: Arc<[Server]>,
    bootstrap: Rc<RefCell<Bootstrap>>,
}

/// A connection on which answers find their questions by themselves.
enum Streams {
    Https(Https),
    Quic(Quic),
}

impl Dialler {
    pub(super) fn new(servers: Arc<[Server]>, families: (bool, bool)) -> Self {
        Self { servers, bootstrap: Rc::new(RefCell::new(Bootstrap::new(families))) }
    }

    /// Serves one connection to its end; returns what was not answered.
    pub(super) async fn run(
        &self,
        to: Contact,
        mut commands: mpsc::Receiver<Command>,
        events: &mpsc::Sender<Event>,
    ) -> Vec<Ask> {
        let mut unanswered = Unanswered::default();
        let mut asks = Vec::new();
        let ended = match to {
            Contact::Plain(address) => match timeout(CONNECT, tcp(address)).await {
                Ok(Ok(stream)) => talk(stream, &mut commands, &mut unanswered, events, IDLE_PLAIN).await,
                Ok(Err(error)) => Err(error),
                Err(late) => Err(late.into()),
            },
            Contact::Encrypted(place) => match self.servers.get(usize::from(place)) {
                Some(server) => self.serve(server, &mut commands, &mut unanswered, &mut asks, events).await,
                None => Err(io::ErrorKind::NotFound.into()),
            },
        };
        if let Err(error) = ended {
            tracing::debug!(server = %to, %error, "connection to a server ended");
        }
        asks.extend(unanswered.into_asks());
        commands.close();
        while let Ok(command) = commands.try_recv() {
            match command {
                Command::Ask(ask) => asks.push(ask),
                Command::Cancel(exchange) => asks.retain(|ask| ask.exchange != exchange),
            }
        }
        asks
    }

    async fn serve(
        &self,
        server: &Server,
        commands: &mut mpsc::Receiver<Command>,
        unanswered: &mut Unanswered,
        asks: &mut Vec<Ask>,
        events: &mpsc::Sender<Event>,
    ) -> io::Result<()> {
        let addresses = match &server.host {
            Host::Address(address) => vec![*address],
            Host::Name { name, port, bootstrap } => {
                let found = Bootstrap::addresses(&self.bootstrap, name, bootstrap).await?;
                found.into_iter().map(|address: IpAddr| SocketAddr::new(address, *port)).collect()
            }
        };
        match &server.protocol {
            Protocol::Tls => {
                let stream = self.found(server, first_of(&addresses, |address| tls(address, server)).await)?;
                talk(stream, commands, unanswered, events, IDLE_ENCRYPTED).await
            }
            Protocol::Https(uri) => {
                let stream = self.found(server, first_of(&addresses, |address| tls(address, server)).await)?;
                let https = timeout(CONNECT, Https::new(stream, uri.clone())).await??;
                exchange(Streams::Https(https), commands, asks, events).await
            }
            Protocol::Quic => {
                let connect = |address| Quic::connect(address, &server.name, server.tls.clone());
                let quic = self.found(server, first_of(&addresses, connect).await)?;
                exchange(Streams::Quic(quic), commands, asks, events).await
            }
        }
    }
}

impl Dialler {
    /// Where nobody with the server's certificate was found, its addresses may be somebody's lie.
    fn found<T>(&self, server: &Server, connected: io::Result<T>) -> io::Result<T> {
        if let (Err(_), Host::Name { name, .. }) = (&connected, &server.host) {
            self.bootstrap.borrow_mut().doubt(name);
        }
        connected
    }
}

/// Connects to the first address that can be connected to.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut last = Err(io::ErrorKind::NotFound.into());
    for (place, address) in addresses.iter().enumerate() {
        let patience = if place + 1 < addresses.len() { CONNECT_FIRST } else { CONNECT };
        last = match timeout(patience, connect(*address)).await {
            Ok(connected) => connected,
            Err(late) => Err(late.into()),
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn tls(address: SocketAddr, server: &Server) -> io::Result<TlsStream<TcpStream>> {
    let stream = tcp(address).await?;
    let stream = TlsConnector::from(server.tls.clone()).connect(server.name.clone(), stream).await?;
    let spoken = stream.get_ref().1.alpn_protocol();
    match server.protocol {
        // Without HTTP/2 nothing of what follows would be understood.
        Protocol::Https(_) if spoken != Some(b"h2") => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(stream),
    }
}

impl Streams {
    fn is_over(&self) -> bool {
        match self {
            Self::Https(https) => https.is_over(),
            Self::Quic(quic) => quic.is_over(),
        }
    }
}

/// Asks on streams of a connection until nothing was asked for a while or the server hangs up; what was not
/// answered is left in `asks`.
async fn exchange(
    streams: Streams,
    commands: &mut mpsc::Receiver<Command>,
    asks: &mut Vec<Ask>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut under_way: JoinSet<(ExchangeId, io::Result<Vec<u8>>)> = JoinSet::new();
    let mut handles: Vec<(ExchangeId, AbortHandle)> = Vec::new();
    let mut last = Instant::now();
    let mut retired = false;
    loop {
        if streams.is_over() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if retired && under_way.is_empty() {
            return Ok(());
        }
        let until = last + if under_way.is_empty() { IDLE_ENCRYPTED } else { LONGEST_EXCHANGE };
        tokio::select! {
            command = commands.recv(), if !retired => match command {
                Some(Command::Ask(ask)) => {
                    last = Instant::now();
                    let (id, message) = (ask.exchange, ask.message.clone());
                    let handle = match &streams {
                        Streams::Https(https) => {
                            let answer = https.ask(message);
                            under_way.spawn_local(async move { (id, answer.await) })
                        }
                        Streams::Quic(quic) => {
                            let answer = quic.ask(message);
                            under_way.spawn_local(async move { (id, answer.await) })
                        }
                    };
                    handles.push((id, handle));
                    asks.push(ask);
                }
                Some(Command::Cancel(exchange)) => {
                    asks.retain(|ask| ask.exchange != exchange);
                    for (_, handle) in handles.extract_if(.., |(id, _)| *id == exchange) {
                        handle.abort();
                    }
                }
                None => retired = true,
            },
            Some(done) = under_way.join_next() => {
                let Ok((id, answer)) = done else { continue };
                handles.retain(|(other, _)| *other != id);
                if answer.is_err() && streams.is_over() {
                    return answer.map(drop);
                }
                last = Instant::now();
                asks.retain(|ask| ask.exchange != id);
                let event = match answer {
                    Ok(bytes) => Event::Message(id, bytes),
                    Err(_) => Event::Failure(id),
                };
                events.send(event).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            () = tokio::time::sleep_until(until) => return Ok(()),
        }
    }
}

//! An ingress on loopback with a fake server behind it, and clients of every origin.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use hearthgate::{
    ingress::{
        AccessLog, Builtin, Config, HostPattern, Http, PeerReach, Plane, Proxies, Route, RoutesReach, Rules, Target,
        Timeouts, Upstream, UpstreamHost,
        canonical::{CanonicalHost, CanonicalPath},
    },
    lookup::Lookup,
    metrics::Metrics,
    origin::{Access, Directory, Networks, Origin, PeerId},
    provider::Reach,
    questions::Questions,
    stream::{Accepted, Datagram, Outlet, Stream, inlet},
    supervise::{Phase, Stopper, stop},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

/// Nothing here takes so long; a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const PEER: PeerId = PeerId(7);
pub(crate) const VPN: Origin = Origin::Vpn(PEER);

pub(crate) struct Edge {
    pub(crate) plane: Arc<Plane>,
    pub(crate) state: tempfile::TempDir,
    pub(crate) metrics: Metrics,
    outlet: Outlet,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Edge {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(Reach::new(everything_is_here()), change)
    }

    pub(crate) fn start_with(reach: Reach, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_whole(reach, Questions::unanswered(), change)
    }

    /// The same with somebody who answers DNS messages.
    pub(crate) fn start_asking(questions: Questions, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_whole(Reach::new(everything_is_here()), questions, change)
    }

    fn start_whole(reach: Reach, questions: Questions, change: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut config = config(state.path());
        change(&mut config);
        let (outlet, inlet) = inlet(64);
        let networks = Arc::new(ArcSwap::from_pointee(Networks::default()));
        let metrics = Metrics::new();
        let plane = Plane::bind(&config, networks, &metrics, Some(inlet), reach, questions).unwrap();
        plane.commit(plane.prepare(config).unwrap());
        let plane = Arc::new(plane);
        let (stopper, stop) = stop();
        let running = plane.clone();
        let thread = std::thread::spawn(move || running.run(stop));
        Self { plane, state, metrics, outlet, stopper, thread: Some(thread) }
    }

    pub(crate) fn reload(&self, change: impl FnOnce(&mut Config)) {
        self.try_reload(change).unwrap();
    }

    pub(crate) fn try_reload(&self, change: impl FnOnce(&mut Config)) -> Result<(), hearthgate::ingress::Error> {
        let mut config = config(self.state.path());
        change(&mut config);
        self.plane.commit(self.plane.prepare(config)?);
        Ok(())
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.plane.status().http[0]
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.plane.status().https[0]
    }

    /// Connects as somebody from this origin.
    pub(crate) async fn connect(&self, origin: Origin, port: u16) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let stream = Stream::Inner(theirs);
        let client = "203.0.113.9:40000".parse().unwrap();
        let local = SocketAddr::from(([10, 77, 0, 1], port));
        self.outlet.streams.send(Accepted { stream, origin, client, local }).await.unwrap();
        ours
    }

    /// Sends a datagram as somebody from this origin; returns what comes back, if anything does.
    pub(crate) async fn datagram(&self, origin: Origin, port: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let (reply, mut replies) = tokio::sync::mpsc::channel(4);
        let client = "10.77.0.2:40000".parse().unwrap();
        let local = SocketAddr::from(([10, 77, 0, 1], port));
        let datagram = Datagram { origin, client, local, payload: payload.to_vec(), reply };
        self.outlet.datagrams.send(datagram).await.unwrap();
        // Whoever drops it drops the way back.
        let reply = timeout(PATIENCE, replies.recv()).await.unwrap()?;
        assert_eq!((reply.from, reply.to), (local, client));
        Some(reply.payload)
    }

    pub(crate) async fn tls<S>(&self, stream: S, sni: &str, alpn: &str) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.tls_trusting(stream, sni, alpn, &self.state.path().join("ca.pem")).await
    }

    pub(crate) async fn tls_trusting<S>(
        &self,
        stream: S,
        sni: &str,
        alpn: &str,
        ca: &Path,
    ) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }

    /// Connects with TLS as somebody from this origin and sends this over HTTP/1.1; returns all that comes.
    pub(crate) async fn ask(&self, origin: Origin, sni: &str, request: &str) -> String {
        let stream = self.connect(origin, 443).await;
        let mut stream = self.tls(stream, sni, "http/1.1").await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// The same on plain HTTP.
    pub(crate) async fn ask_plain(&self, origin: Origin, request: &str) -> String {
        let mut stream = self.connect(origin, 80).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// Sends only a ClientHello; returns the bytes that come back.
    pub(crate) async fn hello(&self, origin: Origin, sni: Option<&str>) -> Vec<u8> {
        self.hello_bytes(origin, &client_hello(sni)).await
    }

    /// The same with something else where the name belongs.
    pub(crate) async fn hello_with(&self, origin: Origin, sni: &[u8]) -> Vec<u8> {
        // A name of the same length, made of labels that the library takes.
        let name: String =
            (0..sni.len()).map(|at| if at % 50 == 49 && at + 1 < sni.len() { '.' } else { 'a' }).collect();
        let mut hello = client_hello(Some(&name));
        let at = hello.windows(name.len()).position(|part| part == name.as_bytes()).unwrap();
        hello[at..at + sni.len()].copy_from_slice(sni);
        self.hello_bytes(origin, &hello).await
    }

    async fn hello_bytes(&self, origin: Origin, hello: &[u8]) -> Vec<u8> {
        let mut stream = self.connect(origin, 443).await;
        stream.write_all(hello).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

impl Edge {
    /// Stops in order; returns what `run` said.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        self.stopper.advance(Phase::Drain);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Runs again on the sockets that the plane still has.
    pub(crate) fn run_again(&mut self) {
        let (stopper, stop) = stop();
        let running = self.plane.clone();
        self.thread = Some(std::thread::spawn(move || running.run(stop)));
        self.stopper = stopper;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stopper.advance(Phase::Now);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

/// A place where nobody listens, nor can as long as the socket is held.
pub(crate) fn gone() -> (socket2::Socket, SocketAddr) {
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    (held, address)
}

pub(crate) async fn read_to_end<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut answer = Vec::new();
    // An abrupt end is an end: what came before it counts.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads one response with a Content-Length and leaves the connection as it is.
pub(crate) async fn read_one<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut answer = Vec::new();
    let whole = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        (body.len() >= length.unwrap_or(0)).then_some(())
    };
    while whole(&answer).is_none() {
        let mut byte = [0];
        let read = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap().unwrap();
        assert_eq!(read, 1, "ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend(byte);
    }
    String::from_utf8(answer).unwrap()
}

/// Every name has the address of loopback.
pub(crate) fn everything_is_here() -> Lookup {
    Lookup::new(async |_| Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()]))
}

fn client_hello(sni: Option<&str>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = sni.is_some();
    let name = ServerName::try_from(sni.unwrap_or("missing.example").to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn config(state: &Path) -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        http: vec![loopback],
        https: vec![loopback],
        wan_limit: None,
        wan_connections: None,
        wan_refusals: None,
        access_log: AccessLog::Fields,
        proxies: Proxies::default(),
        doors: Vec::new(),
        bans: Vec::new(),
        crowdsec: None,
        countries: None,
        timeouts: Timeouts::default(),
        max_header: 16 * 1024,
        max_fields: 100,
        max_connections: 8192,
        max_requests: 1024,
        certificates: Vec::new(),
        acme: Vec::new(),
        client_cas: Default::default(),
        state: state.to_owned(),
        domain: host("home.example"),
        dns_host: None,
        routes: vec![
            route("www.home.example", "/", public(), Target::Builtin(Builtin::Welcome)),
            route("admin.home.example", "/", vpn(), Target::Builtin(Builtin::Welcome)),
        ],
        ports: Vec::new(),
        networks: Vec::new(),
        peers: vec![PeerReach { peer: PEER, routes: RoutesReach::All }],
        directory: Directory { networks: Vec::new(), peers: vec![(PEER, "laptop".into())] },
    }
}

pub(crate) fn host(text: &str) -> CanonicalHost {
    CanonicalHost::parse(text).unwrap()
}

pub(crate) fn route(pattern: &str, path: &str, access: Access, to: Target) -> Route {
    Route {
        name: format!("{pattern}{path}"),
        host: match pattern.strip_prefix("*.") {
            Some(base) => HostPattern::Wildcard(host(base)),
            None => HostPattern::Exact(host(pattern)),
        },
        path: CanonicalPath::parse(path).unwrap(),
        access,
        to,
        log: true,
        rules: Rules::default(),
    }
}

pub(crate) fn public() -> Access {
    Access { public: true, ..Access::default() }
}

pub(crate) fn vpn() -> Access {
    Access { vpn: true, ..Access::default() }
}

pub(crate) fn upstream(address: SocketAddr) -> Upstream {
    Upstream { host: UpstreamHost::Address(address.ip()), port: address.port(), tls: None, http: Http::One }
}

pub(crate) fn to(address: SocketAddr) -> Target {
    Target::Upstreams(vec![upstream(address)])
}

/// A server behind the edge which does what the path says.
pub(crate) struct Behind {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Bytes of downloads that were taken off it.
    pub(crate) sent: Arc<AtomicUsize>,
}

pub(crate) const BIG: usize = 20 * 1024 * 1024;

impl Behind {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, took) = (connections.clone(), sent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, took.clone()));
            }
        });
        Self { address, connections, sent }
    }
}

async fn serve(mut stream: TcpStream, sent: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut input = Vec::with_capacity(64 * 1024);
    loop {
        let end = loop {
            if let Some(at) = input.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&input[..end]).to_lowercase();
        let original = String::from_utf8_lossy(&input[..end]).into_owned();
        input.drain(..end);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let answer = match path.as_str() {
            "/upload" => {
                let length: Option<usize> = field("content-length").map(|length| length.parse().unwrap());
                let mut count = 0;
                let mut tail = Vec::new();
                loop {
                    count += input.len();
                    tail.extend_from_slice(&input);
                    tail.drain(..tail.len().saturating_sub(5));
                    input.clear();
                    let done = length.map_or(tail == b"0\r\n\r\n", |length| count >= length);
                    if done || stream.read_buf(&mut input).await? == 0 {
                        break;
                    }
                }
                format!("{}", if length.is_some() { count } else { 1 })
            }
            "/download" => {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").as_bytes()).await?;
                let piece = [b'x'; 64 * 1024];
                for _ in 0..BIG / piece.len() {
                    stream.write_all(&piece).await?;
                    sent.fetch_add(piece.len(), Ordering::SeqCst);
                }
                continue;
            }
            "/chunked" => {
                let body = "5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: no\r\n\r\n";
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(format!("{head}{body}").as_bytes()).await?;
                continue;
            }
            "/too-short" => {
                return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
            }
            "/too-long" => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nthisHTTP/1.1 200 smuggled\r\n\r\n")
                    .await?;
                continue;
            }
            "/nothing" => {
                std::future::pending::<()>().await;
                String::new()
            }
            "/stall" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun").await?;
                std::future::pending::<()>().await;
                String::new()
            }
            "/once" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce").await?;
                return stream.shutdown().await;
            }
            "/ws" | "/not-really-ws" => {
                // The answer to the key of RFC 6455 §1.3.
                let accept =
                    if path == "/ws" { "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" } else { "AAAAAAAAAAAAAAAAAAAAAAAAAAA=" };
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await?;
                return Ok(());
            }
            _ => original,
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(answer.as_bytes()).await?;
    }
}

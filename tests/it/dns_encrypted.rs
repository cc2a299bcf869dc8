//! DNS over TLS, QUIC and HTTPS: a real DNS plane and a real ingress on loopback, handed to one another as the
//! edge does it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hearthgate::{
    dns::{Config, Encrypted, Group},
    identity::Identity,
    ingress::{Route, Target, canonical::CanonicalPath},
    listen::Place,
    origin::{Access, NetworkId, Networks, Origin},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

use crate::{
    dns::{FalseServer, Running, config, query, rr, texts},
    ingress::edge::{self, Edge, PATIENCE, route},
};

const HOST: &str = "dns.home.example";
const LAN: Origin = Origin::Lan(NetworkId::MAIN);

struct House {
    dns: Running,
    edge: Edge,
    _server: FalseServer,
}

impl House {
    fn start() -> Self {
        Self::start_with(|_| {}, |_| {})
    }

    fn start_with(dns: impl FnOnce(&mut Config), ingress: impl FnOnce(&mut hearthgate::ingress::Config)) -> Self {
        let server = FalseServer::start(vec![
            rr("www.example.", 300, "A 192.0.2.80"),
            rr("slow.example.", 300, "A 192.0.2.81"),
            rr("big.example.", 300, "TXT 20"),
        ]);
        let access = Access { networks: vec![NetworkId::MAIN, NetworkId::HOST], ..Access::default() };
        let mut config = config(server.address);
        config.encrypted = Some(Encrypted {
            listen: vec![Place::from(SocketAddr::from(([127, 0, 0, 1], 0)))],
            host: HOST.into(),
            https: Some(443),
            access: access.clone(),
        });
        dns(&mut config);
        let identity = Identity::default();
        let running = Running::start_as(config, Networks::default(), None, identity.clone());
        let edge = Edge::start_asking(running.plane.questions(), |config| {
            config.dns_host = Some(edge::host(HOST));
            for host in [HOST.to_owned(), format!("*.{HOST}")] {
                let route = route(&host, "/dns-query", access.clone(), Target::Dns);
                config.routes.push(Route { log: false, ..route });
            }
            ingress(config);
        });
        edge.plane.identify(&identity);
        Self { dns: running, edge, _server: server }
    }

    fn encrypted(&self) -> SocketAddr {
        self.dns.plane.encrypted_addresses()[0]
    }

    fn ca(&self) -> PathBuf {
        self.edge.state.path().join("ca.pem")
    }

    fn trust(&self, alpn: &str) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config
    }

    /// Connects over TLS and checks the certificate for this name or address, as clients do.
    async fn tls(&self, name: &str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.encrypted()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::new(self.trust("dot"))).connect(name, stream);
        timeout(PATIENCE, connecting).await.unwrap().unwrap()
    }

    async fn quic(&self, name: &str) -> quinn::Connection {
        let config = quinn::crypto::rustls::QuicClientConfig::try_from(self.trust("doq")).unwrap();
        let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        timeout(PATIENCE, endpoint.connect(self.encrypted(), name).unwrap()).await.unwrap().unwrap()
    }

    /// Sends one request over HTTP/2 as somebody from this origin.
    async fn h2(&self, origin: Origin, host: &str, request: Request<Full<Bytes>>) -> (Response<()>, Bytes) {
        let stream = self.edge.connect(origin, 443).await;
        let stream = self.edge.tls(stream, host, "h2").await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let (head, body) = response.into_parts();
        (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes())
    }
}

fn asked(id: u16, name: &str) -> Vec<u8> {
    query(id, name, RecordType::A).to_vec().unwrap()
}

/// The same, padded as RFC 8467 wants it from clients.
fn padded(name: &str) -> Vec<u8> {
    let mut message = query(0, name, RecordType::A);
    message.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(12, vec![0; 60]));
    message.to_vec().unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

async fn read_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut frame = vec![0; usize::from(timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap())];
    timeout(PATIENCE, stream.read_exact(&mut frame)).await.unwrap().unwrap();
    frame
}

fn message(bytes: &[u8]) -> Message {
    Message::from_vec(bytes).unwrap()
}

fn get(message: &[u8], below: &str) -> Request<Full<Bytes>> {
    let target = format!("https://{HOST}/dns-query{below}?dns={}", URL_SAFE_NO_PAD.encode(message));
    Request::get(target).body(Full::default()).unwrap()
}

fn post(body: impl Into<Bytes>, kind: &str) -> Request<Full<Bytes>> {
    let request = Request::post(format!("https://{HOST}/dns-query")).header("content-type", kind);
    request.body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn tls_answers_padded_questions_padded_and_others_as_they_are() {
    let house = House::start();
    let mut stream = house.tls(HOST).await;

    stream.write_all(&framed(&padded("www.example."))).await.unwrap();
    let long = read_frame(&mut stream).await;
    stream.write_all(&framed(&asked(7, "www.example."))).await.unwrap();
    let short = read_frame(&mut stream).await;

    assert_eq!(long.len(), 468);
    assert!(message(&long).edns.unwrap().option(EdnsCode::from(12)).is_some());
    assert_eq!(texts(&message(&long)), ["192.0.2.80"]);
    assert!(short.len() < 100);
    assert_eq!(message(&short).metadata.id, 7);
}

#[tokio::test]
async fn rfc9462_a_client_that_knows_only_the_address_finds_it_in_the_certificate() {
    let house = House::start();

    // An address is no server name, so none is sent.
    let mut stream = house.tls("127.0.0.1").await;
    stream.write_all(&framed(&asked(7, "nas.home.example."))).await.unwrap();

    assert_eq!(texts(&message(&read_frame(&mut stream).await)), ["192.168.1.10"]);
}

#[tokio::test]
async fn a_device_may_say_its_name_in_the_servers_name() {
    let house = House::start();

    let mut stream = house.tls("kids-tablet.dns.home.example").await;
    stream.write_all(&framed(&asked(7, "nas.home.example."))).await.unwrap();
    let over_tls = read_frame(&mut stream).await;
    let connection = house.quic("kids-tablet.dns.home.example").await;

    assert_eq!(texts(&message(&over_tls)), ["192.168.1.10"]);
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn tls_answers_as_they_are_ready() {
    let house = House::start();
    let mut stream = house.tls(HOST).await;

    stream
        .write_all(&[framed(&asked(1, "slow.example.")), framed(&asked(2, "nas.home.example."))].concat())
        .await
        .unwrap();
    let ids = [read_frame(&mut stream).await, read_frame(&mut stream).await].map(|frame| message(&frame).metadata.id);

    assert_eq!(ids, [2, 1]);
}

#[tokio::test]
async fn a_frame_longer_than_any_question_ends_the_connection() {
    let house = House::start();
    let mut stream = house.tls(HOST).await;

    stream.write_all(&[0xff; 600]).await.unwrap();
    let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.unwrap();

    assert!(!matches!(read, Ok(1..)), "{read:?}");
}

/// Asks one question on a stream of its own.
async fn over_quic(connection: &quinn::Connection, bytes: &[u8]) -> Result<Message, quinn::ReadToEndError> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(bytes)).await.unwrap();
    send.finish().unwrap();
    let read = timeout(PATIENCE, receive.read_to_end(70_000)).await.unwrap()?;
    assert_eq!(usize::from(u16::from_be_bytes([read[0], read[1]])), read.len() - 2);
    Ok(message(&read[2..]))
}

#[tokio::test]
async fn rfc9250_each_question_over_quic_has_a_stream_of_its_own() {
    let house = House::start();
    let connection = house.quic(HOST).await;

    let question = padded("slow.example.");
    let slow = over_quic(&connection, &question);
    let quick = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        over_quic(&connection, &asked(0, "nas.home.example.")).await
    };
    tokio::pin!(slow);
    let first = tokio::select! {
        _ = &mut slow => "slow",
        answer = quick => {
            assert_eq!(texts(&answer.unwrap()), ["192.168.1.10"]);
            "quick"
        }
    };

    assert_eq!(first, "quick");
    assert_eq!(texts(&slow.await.unwrap()), ["192.0.2.81"]);
    assert_eq!(house.dns.counted("hearthgate_dns_dropped_total"), 0);
}

#[tokio::test]
async fn what_was_asked_over_quic_is_answered_though_the_server_is_told_to_stop() {
    let house = House::start();
    let connection = house.quic(HOST).await;
    let question = asked(0, "slow.example.");

    let asking = over_quic(&connection, &question);
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.dns.drain();
    };
    let (answer, ()) = tokio::join!(asking, stopping);

    assert_eq!(texts(&answer.unwrap()), ["192.0.2.81"]);
    let reason = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = reason else { panic!("{reason}") };
    assert_eq!(closed.error_code, quinn::VarInt::from_u32(0));
}

#[tokio::test]
async fn rfc9250_an_id_is_a_protocol_error() {
    let house = House::start();
    let connection = house.quic(HOST).await;

    let answer = over_quic(&connection, &asked(7, "nas.home.example.")).await;

    assert!(answer.is_err());
    let reason = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = reason else { panic!("{reason}") };
    assert_eq!(closed.error_code, quinn::VarInt::from_u32(2));
}

#[tokio::test]
async fn a_quic_client_has_no_more_streams_than_it_may() {
    let house = House::start();
    let connection = house.quic(HOST).await;

    let mut open = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), connection.open_bi()).await {
        let (mut send, receive) = stream.unwrap();
        send.write_all(&[0]).await.unwrap();
        open.push((send, receive));
    }

    assert_eq!(open.len(), 32);
}

#[tokio::test]
async fn rfc8484_questions_over_https_are_answered_and_say_how_long_they_hold() {
    let house = House::start();

    for request in [get(&asked(0, "www.example."), ""), post(asked(0, "www.example."), "application/dns-message")] {
        let (head, body) = house.h2(LAN, HOST, request).await;

        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()["content-type"], "application/dns-message");
        let cache = head.headers()["cache-control"].to_str().unwrap();
        let age: u32 = cache.strip_prefix("private, max-age=").unwrap().parse().unwrap();
        assert!((290..=300).contains(&age), "{cache}");
        assert_eq!(texts(&message(&body)), ["192.0.2.80"]);
    }
    let (_, body) = house.h2(LAN, HOST, get(&padded("www.example."), "/kids-tablet")).await;
    assert_eq!(body.len(), 468);
}

#[tokio::test]
async fn https_over_http_1_1_keeps_the_connection() {
    let house = House::start();
    let stream = house.edge.connect(LAN, 443).await;
    let mut stream = house.edge.tls(stream, HOST, "http/1.1").await.unwrap();
    let question = asked(0, "nas.home.example.");

    let head = format!(
        "POST /dns-query HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
        question.len()
    );
    for _ in 0..2 {
        stream.write_all(&[head.as_bytes(), &question].concat()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(&[192, 168, 1, 10, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]) {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn what_is_no_question_over_https_is_told_so() {
    let house = House::start();
    let question = asked(0, "nas.home.example.");
    let kind = "application/dns-message";
    let other = |method: &str| {
        Request::builder().method(method).uri(format!("https://{HOST}/dns-query")).body(Full::default()).unwrap()
    };

    let cases = [
        (post(question.clone(), "text/plain"), 415),
        (post(vec![0; 5000], kind), 413),
        (post("scrap", kind), 400),
        (other("PUT"), 405),
        (other("GET"), 400),
        (get(&question, "/a/b"), 404),
    ];
    for (request, status) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let (head, body) = house.h2(LAN, HOST, request).await;
        assert_eq!(head.status().as_u16(), status, "{what}: {body:?}");
    }
    // A question that cannot be read is a message all the same.
    let mut two = question;
    two[5] = 2;
    let (head, body) = house.h2(LAN, HOST, post(two, kind)).await;
    assert_eq!((head.status().as_u16(), message(&body).metadata.response_code), (200, ResponseCode::FormErr));
}

#[tokio::test]
async fn a_body_without_end_over_https_is_read_no_further_than_a_question() {
    let house = House::start();
    let stream = house.edge.connect(LAN, 443).await;
    let mut stream = house.edge.tls(stream, HOST, "http/1.1").await.unwrap();
    let head = format!(
        "POST /dns-query HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/dns-message\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();

    let mut sent = 0;
    let mut answer = Vec::new();
    while answer.is_empty() && sent < 100 {
        stream.write_all(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes()).await.unwrap();
        sent += 1;
        let mut buffer = [0; 256];
        if let Ok(Ok(read)) = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
            answer.extend_from_slice(&buffer[..read]);
        }
    }

    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
    assert!(sent <= 6, "{sent} KiB were taken");
}

#[tokio::test]
async fn the_dns_server_does_not_exist_for_the_internet() {
    let house = House::start();

    assert_eq!(
        house.edge.hello(Origin::Wan, Some(HOST)).await,
        house.edge.hello(Origin::Wan, Some("never.home.example")).await
    );
    let never =
        house.edge.ask(Origin::Wan, "www.home.example", "GET / HTTP/1.1\r\nHost: never.home.example\r\n\r\n").await;
    let ours = house
        .edge
        .ask(Origin::Wan, "www.home.example", &format!("GET /dns-query HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(ours, never);
}

#[tokio::test]
async fn a_public_client_asks_from_the_internet_by_its_secret_and_is_known_by_it() {
    let blocked = |config: &mut Config| {
        let device = hearthgate::dns::Device::Client(hearthgate::dns::ClientName::new("phone").unwrap());
        let block = vec!["games.example.".parse().unwrap()];
        config.groups.push(Group { name: "phones".into(), devices: vec![device], block, ..Group::default() });
    };
    let secret = "/dns-query/0123456789abcdef0123456789abcdef";
    let house = House::start_with(blocked, |config| {
        let access = Access { public: true, ..Access::default() };
        let path = CanonicalPath::parse(secret).unwrap();
        config.routes.push(route(HOST, secret, access, Target::DnsOf { device: "phone".into(), path }));
    });
    let below = |rest: &str| format!("/0123456789abcdef0123456789abcdef{rest}");

    let (head, body) = house.h2(Origin::Wan, HOST, get(&asked(0, "www.example."), &below(""))).await;
    assert_eq!((head.status(), texts(&message(&body))), (StatusCode::OK, vec!["192.0.2.80".to_owned()]));
    let (_, body) = house.h2(Origin::Wan, HOST, get(&asked(0, "games.example."), &below(""))).await;
    assert_eq!(texts(&message(&body)), ["0.0.0.0"], "the group of this device");
    let (_, body) = house.h2(LAN, HOST, get(&asked(0, "games.example."), &below(""))).await;
    assert_eq!(texts(&message(&body)), ["0.0.0.0"], "at home as well");
    for path in ["", "/phone", "/0123456789abcdef0123456789abcdee", &below("/more"), &below("0")] {
        let (head, body) = house.h2(Origin::Wan, HOST, get(&asked(0, "www.example."), path)).await;
        assert_eq!(head.status(), StatusCode::NOT_FOUND, "{path}: {body:?}");
    }
}

/// The rules of a group by `doh:NAME` hold for whoever says so, by each encrypted transport.
#[tokio::test]
async fn a_group_knows_its_device_by_the_name_that_it_says_over_tls_quic_and_https() {
    let house = House::start_with(
        |config| {
            let device = hearthgate::dns::Device::Client(hearthgate::dns::ClientName::new("kids-tablet").unwrap());
            let block = vec!["www.example.".parse().unwrap()];
            config.groups.push(Group { name: "kids".into(), devices: vec![device], block, ..Group::default() });
        },
        |_| {},
    );

    for (name, wanted) in [(HOST.to_owned(), "192.0.2.80"), (format!("Kids-Tablet.{HOST}"), "0.0.0.0")] {
        let mut stream = house.tls(&name).await;
        stream.write_all(&framed(&asked(7, "www.example."))).await.unwrap();
        assert_eq!(texts(&message(&read_frame(&mut stream).await)), [wanted], "TLS, {name}");
        let connection = house.quic(&name).await;
        assert_eq!(texts(&over_quic(&connection, &asked(0, "www.example.")).await.unwrap()), [wanted], "QUIC, {name}");
    }
    for (path, wanted) in [("", "192.0.2.80"), ("/kids-tablet", "0.0.0.0"), ("/other", "192.0.2.80")] {
        let (_, body) = house.h2(LAN, HOST, get(&asked(0, "www.example."), path)).await;
        assert_eq!(texts(&message(&body)), [wanted], "HTTPS, {path}");
    }
    let below = format!("kids-tablet.{HOST}");
    let target = format!("https://{below}/dns-query?dns={}", URL_SAFE_NO_PAD.encode(asked(0, "www.example.")));
    let (_, body) = house.h2(LAN, &below, Request::get(target).body(Full::default()).unwrap()).await;
    assert_eq!(texts(&message(&body)), ["0.0.0.0"], "HTTPS, {below}");
}

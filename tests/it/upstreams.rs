//! A real DNS plane that asks servers which recurse for it: over TLS, HTTPS, QUIC and plain, all on loopback, with
//! a certificate of our own and a small signed Internet behind them.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use hearthgate::dns::{
    Action, Config, Fallback, Forward, ListSource, Resolve, Testing, Transport, Upstream, UpstreamHost,
    resolver::{
        name::Name,
        wire::{IN, Message as Wire, Record as WireRecord, rtype},
    },
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    dns::{Running, config, ede, query, texts},
    internet::{
        encode::encode,
        sign::EPOCH,
        world::{Manner, World, name},
        zone::Said,
    },
};

const NAME: &str = "dns.test";

/// What a server is seen to do, and told to do.
#[derive(Debug, Default)]
struct Watch {
    connections: AtomicUsize,
    questions: AtomicUsize,
    /// Signed addresses are changed.
    lies: AtomicBool,
    /// Connections are closed after one answer.
    hangs_up: AtomicBool,
    /// Nothing is answered.
    mute: AtomicBool,
    /// The server that others look for is said to be where nobody is.
    misleads: AtomicBool,
    /// Seconds that answers lay in a cache of the web.
    age: AtomicUsize,
    /// IDs and lengths of what came.
    ids: std::sync::Mutex<Vec<(u16, usize)>>,
}

/// A server that recurses, over a signed Internet in memory.
struct Recursor {
    address: SocketAddr,
    watch: Arc<Watch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
    Https,
    Quic,
}

struct Papers {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Papers {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.into()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        Self { folder, certificate: made.cert.der().clone(), key: made.signing_key.serialize_der() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn server(&self, alpn: &[u8]) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls
    }
}

impl Recursor {
    fn start(kind: Kind, papers: &Papers) -> Self {
        Self::start_at(kind, papers, ([127, 0, 0, 1], 0).into())
    }

    fn start_at(kind: Kind, papers: &Papers, address: SocketAddr) -> Self {
        let watch = Arc::new(Watch::default());
        let (tell, told) = mpsc::channel();
        let alpn: &[u8] = match kind {
            Kind::Plain | Kind::Tls => b"dot",
            Kind::Https => b"h2",
            Kind::Quic => b"doq",
        };
        let (tls, seen) = (papers.server(alpn), watch.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let world = std::rc::Rc::new(World::calm());
            let say = move |bytes: &[u8], udp: bool| said(&world, bytes, udp, &seen).map(|bytes| (bytes, seen.clone()));
            let say = std::rc::Rc::new(say);
            tokio::task::LocalSet::new().block_on(&runtime, serve(kind, address, tls, say, tell));
        });
        Self { address: told.recv().unwrap(), watch }
    }

    fn upstream(&self, kind: Kind) -> Upstream {
        let name = NAME.to_owned();
        let transport = match kind {
            Kind::Plain => Transport::Plain,
            Kind::Tls => Transport::Tls { name },
            Kind::Https => Transport::Https { name, path: "/dns-query".into() },
            Kind::Quic => Transport::Quic { name },
        };
        Upstream { host: UpstreamHost::Address(self.address), transport }
    }

    fn counted(&self) -> (usize, usize) {
        (self.watch.connections.load(Ordering::Relaxed), self.watch.questions.load(Ordering::Relaxed))
    }
}

type Say = std::rc::Rc<dyn Fn(&[u8], bool) -> Option<(Vec<u8>, Arc<Watch>)>>;

/// What the whole Internet says to a question, as a resolver would put it that checks nothing.
fn said(world: &World, bytes: &[u8], udp: bool, watch: &Watch) -> Option<Vec<u8>> {
    let asked = Wire::parse(bytes).unwrap();
    let question = asked.question.clone().unwrap();
    watch.questions.fetch_add(1, Ordering::Relaxed);
    watch.ids.lock().unwrap().push((asked.id, bytes.len()));
    if watch.mute.load(Ordering::Relaxed) {
        return None;
    }
    let mut said = match question.name == name(NAME) {
        // What a bootstrap server is for.
        true => Said {
            answer: (question.rtype == rtype::A)
                .then(|| WireRecord {
                    name: question.name.clone(),
                    rtype: rtype::A,
                    class: IN,
                    ttl: 60,
                    rdata: match watch.misleads.load(Ordering::Relaxed) {
                        true => [127, 0, 0, 2],
                        false => [127, 0, 0, 1],
                    }[..]
                        .into(),
                })
                .into_iter()
                .collect(),
            ..Said::default()
        },
        false => world.home(&question.name, question.rtype).answer(&question.name, question.rtype),
    };
    if watch.lies.load(Ordering::Relaxed) && question.name == name("www.t0") {
        for record in said.answer.iter_mut().filter(|record| record.rtype == rtype::A) {
            record.rdata = [198, 51, 100, 66][..].into();
        }
    }
    let mut answer = encode(&asked, &said, Manner::Good, !udp);
    // RA
    answer[3] |= 0x80;
    Some(answer)
}

async fn serve(kind: Kind, address: SocketAddr, tls: ServerConfig, say: Say, tell: mpsc::Sender<SocketAddr>) {
    if kind == Kind::Quic {
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, address).unwrap();
        tell.send(endpoint.local_addr().unwrap()).unwrap();
        while let Some(incoming) = endpoint.accept().await {
            let say = say.clone();
            tokio::task::spawn_local(async move {
                let Ok(connection) = incoming.await else { return };
                let mut first = true;
                while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                    let bytes = receive.read_to_end(65537).await.unwrap();
                    let Some((answer, watch)) = say(&bytes[2..], false) else { continue };
                    count(&watch, &mut first);
                    send.write_all(&frame(&answer)).await.unwrap();
                    send.finish().unwrap();
                }
            });
        }
        return;
    }
    let (listener, socket) = loop {
        let listener = TcpListener::bind(address).await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            break (listener, socket);
        }
    };
    tell.send(listener.local_addr().unwrap()).unwrap();
    if kind == Kind::Plain {
        let say = say.clone();
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 4096];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                if let Some((answer, _)) = say(&buffer[..length], true) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
    }
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, say) = (acceptor.clone(), say.clone());
        tokio::task::spawn_local(async move {
            match kind {
                Kind::Plain => talk(stream, &say).await,
                _ => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    match kind {
                        Kind::Https => http(stream, say).await,
                        _ => talk(stream, &say).await,
                    }
                }
            }
        });
    }
}

fn count(watch: &Watch, first: &mut bool) {
    watch.connections.fetch_add(usize::from(std::mem::take(first)), Ordering::Relaxed);
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(message);
    frame
}

async fn talk(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, say: &Say) {
    let mut first = true;
    while let Ok(length) = stream.read_u16().await {
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        let Some((answer, watch)) = say(&bytes, false) else { continue };
        count(&watch, &mut first);
        stream.write_all(&frame(&answer)).await.unwrap();
        if watch.hangs_up.load(Ordering::Relaxed) {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn http(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static, say: Say) {
    let first = std::rc::Rc::new(std::cell::Cell::new(true));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (say, first) = (say.clone(), first.clone());
        async move {
            assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/dns-query"));
            assert_eq!(request.uri().host(), Some(NAME));
            assert_eq!(request.headers()["content-type"], "application/dns-message");
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let Some((answer, watch)) = say(&bytes, false) else { std::future::pending().await };
            let mut new = first.replace(false);
            count(&watch, &mut new);
            let response = match watch.age.load(Ordering::Relaxed) {
                0 => Response::builder().header("content-type", "application/dns-message"),
                age => Response::builder().header("content-type", "Application/dns-message; v=1").header("age", age),
            };
            Ok::<_, std::convert::Infallible>(response.body(Full::new(bytes::Bytes::from(answer))).unwrap())
        }
    });
    let _ =
        hyper::server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A house that asks these, and checks what they say from the false Internet's root.
fn house(papers: &Papers, upstreams: Vec<Upstream>) -> Running {
    house_with(papers, upstreams, |_| {})
}

fn house_with(papers: &Papers, upstreams: Vec<Upstream>, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(([127, 0, 0, 1], 1).into());
    config.resolve = Resolve::Forward(upstreams);
    config.upstream_ca = Some(papers.file());
    config.testing = checked();
    change(&mut config);
    Running::start(config)
}

fn checked() -> Testing {
    let world = World::calm();
    let anchors = world.anchors.iter().map(|(zone, ds)| {
        let hex: String = ds[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{zone} IN DS {} {} {} {hex}", u16::from_be_bytes([ds[0], ds[1]]), ds[2], ds[3])
    });
    Testing {
        now: Some(u64::from(EPOCH)),
        anchors: Some(anchors.collect()),
        special_servers: true,
        ..Testing::default()
    }
}

fn ask(house: &Running, name: &str) -> Message {
    let mut query = query(7, name, RecordType::A);
    query.metadata.authentic_data = true;
    Message::from_vec(&house.ask_bytes(&query.to_vec().unwrap()).expect("an answer")).unwrap()
}

/// The addresses of `www.t0.` and `www.t1.` in the false Internet.
fn truth(host: &str) -> Vec<String> {
    let world = World::calm();
    let host: Name = name(host);
    let said = world.home(&host, rtype::A).answer(&host, rtype::A);
    let addresses = said.answer.iter().filter(|record| record.rtype == rtype::A);
    addresses.map(|record| std::net::Ipv4Addr::from(*record.rdata.first_chunk::<4>().unwrap()).to_string()).collect()
}

#[test]
fn what_an_upstream_says_is_checked_whatever_way_it_comes_and_one_connection_serves() {
    for kind in [Kind::Plain, Kind::Tls, Kind::Https, Kind::Quic] {
        let papers = Papers::new();
        let server = Recursor::start(kind, &papers);
        let house = house(&papers, vec![server.upstream(kind)]);

        let good = ask(&house, "www.t1.");
        let missing = ask(&house, "nowhere.t1.");
        server.watch.lies.store(true, Ordering::Relaxed);
        let lie = ask(&house, "www.t0.");

        assert_eq!((good.metadata.authentic_data, texts(&good)), (true, truth("www.t1")), "{kind:?}");
        let denied = (missing.metadata.response_code, missing.metadata.authentic_data);
        assert_eq!(denied, (ResponseCode::NXDomain, true), "{kind:?}");
        assert_eq!((lie.metadata.response_code, ede(&lie)), (ResponseCode::ServFail, Some(6)), "{kind:?}");
        let (connections, questions) = server.counted();
        // Two threads share the questions.
        assert!(questions >= 5 && connections <= 2, "{kind:?}: {connections} connections, {questions} questions");
        let ids = server.watch.ids.lock().unwrap();
        match kind {
            Kind::Plain => {}
            Kind::Tls => assert!(ids.iter().all(|(_, length)| length % 128 == 0), "{ids:?}"),
            // RFC 8484 §4.1, RFC 9250 §4.2.1
            Kind::Https | Kind::Quic => {
                assert!(ids.iter().all(|(id, length)| *id == 0 && length % 128 == 0), "{ids:?}");
            }
        }
    }
}

#[test]
fn a_server_that_hangs_up_after_each_answer_is_asked_over_a_new_connection() {
    let papers = Papers::new();
    let server = Recursor::start(Kind::Tls, &papers);
    server.watch.hangs_up.store(true, Ordering::Relaxed);
    let house = house(&papers, vec![server.upstream(Kind::Tls)]);

    for host in ["www.t1.", "mail.t1.", "www.t0."] {
        let answer = ask(&house, host);
        assert_ne!(answer.metadata.response_code, ResponseCode::ServFail, "{host}");
    }
    assert!(server.counted().0 > 2);
}

#[test]
fn a_server_with_the_certificate_of_another_is_not_believed() {
    let (papers, others) = (Papers::new(), Papers::new());
    for kind in [Kind::Tls, Kind::Https, Kind::Quic] {
        let server = Recursor::start(kind, &others);
        let stranger = house(&papers, vec![server.upstream(kind)]);
        let mut misnamed = server.upstream(kind);
        match &mut misnamed.transport {
            Transport::Tls { name } | Transport::Https { name, .. } | Transport::Quic { name } => {
                *name = "else.test".into()
            }
            Transport::Plain => unreachable!("encrypted"),
        }
        let misled = house(&others, vec![misnamed]);

        for house in [stranger, misled] {
            let answer = ask(&house, "www.t1.");
            assert_eq!((answer.metadata.response_code, ede(&answer)), (ResponseCode::ServFail, Some(22)), "{kind:?}");
        }
        assert_eq!(server.counted(), (0, 0), "{kind:?}");
    }
}

#[test]
fn a_server_that_is_known_by_name_is_found_through_the_bootstrap_servers() {
    let papers = Papers::new();
    let bootstrap = Recursor::start(Kind::Plain, &papers);
    for kind in [Kind::Tls, Kind::Https, Kind::Quic] {
        let server = Recursor::start(kind, &papers);
        let mut upstream = server.upstream(kind);
        upstream.host = UpstreamHost::Name { name: "dns.test.".parse().unwrap(), port: server.address.port() };
        // Nobody is at the first one.
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let servers = vec![gone, bootstrap.address];
        let house = house_with(&papers, vec![upstream], |config| config.bootstrap = servers);

        assert_eq!(texts(&ask(&house, "www.t1.")), truth("www.t1"), "{kind:?}");
    }
}

#[test]
fn cve_2026_50243_a_rule_that_lets_a_name_through_does_not_make_what_is_bogus_good() {
    let papers = Papers::new();
    let server = Recursor::start(Kind::Plain, &papers);
    server.watch.lies.store(true, Ordering::Relaxed);
    let house = house_with(&papers, vec![server.upstream(Kind::Plain)], |config| {
        config.lists[0].action = Action::Allow;
        config.lists[0].source = ListSource::Inline(vec!["www.t0".into(), "t1".into()]);
    });

    let lie = ask(&house, "www.t0.");

    assert_eq!((lie.metadata.response_code, ede(&lie)), (ResponseCode::ServFail, Some(6)));
    assert_eq!(texts(&ask(&house, "www.t1.")), truth("www.t1"));
}

#[test]
fn rfc5011_keys_of_anchors_are_written_down_where_the_next_process_finds_them() {
    let papers = Papers::new();
    let server = Recursor::start(Kind::Plain, &papers);
    let state = tempfile::tempdir().unwrap();
    let start = |follow| {
        house_with(&papers, vec![server.upstream(Kind::Plain)], |config| {
            config.state = state.path().into();
            config.testing.rfc5011 = follow;
        })
    };
    let written = || std::fs::read_to_string(state.path().join("trust-anchors")).unwrap_or_default();

    let house = start(None);
    assert_eq!(texts(&ask(&house, "www.t1.")), truth("www.t1"));
    drop(house);
    assert_eq!(written(), "", "anchors of a test stay as they are");

    let house = start(Some(true));
    // One thread follows for all: names of both are asked for until it has something to say.
    for number in 0..100 {
        ask(&house, &format!("n{number}.t{}.", number % 2));
        if written().contains("valid") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    let text = written();
    assert!(text.contains(" IN DNSKEY 257 3 ") && text.contains(";; valid since "), "{text}");
}

#[test]
fn a_bootstrap_server_that_misleads_does_not_cut_the_house_off() {
    let papers = Papers::new();
    let (liar, honest) = (Recursor::start(Kind::Plain, &papers), Recursor::start(Kind::Plain, &papers));
    liar.watch.misleads.store(true, Ordering::Relaxed);
    for kind in [Kind::Tls, Kind::Https, Kind::Quic] {
        let server = Recursor::start(kind, &papers);
        let mut upstream = server.upstream(kind);
        upstream.host = UpstreamHost::Name { name: "dns.test.".parse().unwrap(), port: server.address.port() };
        let servers = vec![liar.address, honest.address];
        let house = house_with(&papers, vec![upstream], |config| config.bootstrap = servers);

        // A handshake that nobody answers takes a while to be given up, and so does the outage that it looks like.
        let answered = (0..60).any(|number| {
            std::thread::sleep(std::time::Duration::from_millis(200 * u64::from(number > 0)));
            !texts(&ask(&house, &format!("www.t{}.", number % 2))).is_empty()
        });

        assert!(answered, "{kind:?}");
    }
}

#[test]
fn rfc8484_5_1_answers_that_lay_in_a_cache_hold_for_less_long() {
    let papers = Papers::new();
    let server = Recursor::start(Kind::Https, &papers);
    let house = house(&papers, vec![server.upstream(Kind::Https)]);
    let ttl = |host: &str| ask(&house, host).answers.iter().map(|record| record.ttl).min().unwrap();
    let fresh = ttl("www.t1.");
    let age = fresh / 2;

    server.watch.age.store(usize::try_from(age).unwrap(), Ordering::Relaxed);

    let aged = ttl("www.t0.");
    assert!(fresh > 10 && (fresh - age - 5..=fresh - age).contains(&aged), "{fresh} {aged}");
}

#[test]
fn a_dead_server_is_passed_over_and_the_other_answers() {
    let papers = Papers::new();
    let (mute, good) = (Recursor::start(Kind::Tls, &papers), Recursor::start(Kind::Https, &papers));
    mute.watch.mute.store(true, Ordering::Relaxed);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Upstream { host: UpstreamHost::Address(nobody), transport: Transport::Tls { name: NAME.into() } };
    let house = house(&papers, vec![gone, mute.upstream(Kind::Tls), good.upstream(Kind::Https)]);

    for host in ["www.t1.", "www.t0.", "mail.t1."] {
        assert_ne!(ask(&house, host).metadata.response_code, ResponseCode::ServFail, "{host}");
    }
}

#[test]
fn a_zone_of_its_own_goes_to_its_own_servers_encrypted_too_and_is_checked_where_the_owner_says_so() {
    let papers = Papers::new();
    for (validate, lies, wanted) in [
        (true, false, ResponseCode::NoError),
        (true, true, ResponseCode::ServFail),
        (false, true, ResponseCode::NoError),
    ] {
        let (all, own) = (Recursor::start(Kind::Quic, &papers), Recursor::start(Kind::Tls, &papers));
        own.watch.lies.store(lies, Ordering::Relaxed);
        let forward = Forward {
            zone: "t0.".parse().unwrap(),
            to: vec![own.upstream(Kind::Tls)],
            fallback: Fallback::Nothing,
            validate,
        };
        let house = house_with(&papers, vec![all.upstream(Kind::Quic)], |config| config.forward = vec![forward]);

        let answer = ask(&house, "www.t0.");

        assert_eq!(answer.metadata.response_code, wanted, "{validate} {lies}");
        assert_eq!(answer.metadata.authentic_data, validate && !lies);
        assert!(own.counted().1 > 0);
    }
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named_by_its_key() {
    let papers = Papers::new();
    std::fs::write(papers.file(), "nothing").unwrap();
    let mut config = config(([127, 0, 0, 1], 1).into());
    config.upstream_ca = Some(papers.file());
    config.resolve = Resolve::Forward(vec![Upstream {
        host: UpstreamHost::Address(([127, 0, 0, 1], 1).into()),
        transport: Transport::Tls { name: NAME.into() },
    }]);
    let metrics = hearthgate::metrics::Metrics::new();
    let plane = hearthgate::dns::Plane::bind(&config, Arc::default(), &metrics, None, Default::default()).unwrap();

    let wrong = plane.prepare(config).unwrap_err().to_string();

    assert!(wrong.starts_with("dns.upstream_ca: ") && wrong.contains("no certificate"), "{wrong}");
}

#[test]
fn many_questions_share_a_connection_and_answers_find_their_own() {
    for kind in [Kind::Tls, Kind::Https, Kind::Quic] {
        let papers = Papers::new();
        let server = Recursor::start(kind, &papers);
        let house = house(&papers, vec![server.upstream(kind)]);
        ask(&house, "www.t1.");

        std::thread::scope(|scope| {
            for number in 0..40 {
                let house = &house;
                scope.spawn(move || {
                    let host = format!("n{number}.t1.");
                    let answer = ask(house, &host);
                    assert_eq!(answer.queries[0].name().to_string(), host);
                    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{kind:?} {host}");
                });
            }
        });

        assert!(server.counted().0 <= 4, "{kind:?}: {:?}", server.counted());
    }
}

#[test]
fn two_houses_that_point_at_each_other_do_not_multiply_a_question() {
    let first = Running::start(config(([127, 0, 0, 1], 1).into()));
    let second = Running::start(config(first.address));
    let mut towards = config(second.address);
    towards.listen = vec![first.address.into()];
    first.reload(towards);

    let answer = ask(&first, "www.t1.");

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let asked = |house: &Running| house.counted("hearthgate_dns_questions_total");
    let (at_first, at_second) = (asked(&first), asked(&second));
    assert!(at_first + at_second <= 24, "{at_first} and {at_second}");
}

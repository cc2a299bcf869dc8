//! The watch against servers on loopback.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;

fn plane(folder: &Path, heard: Option<bool>) -> Plane {
    let lookup = Lookup::new(|name| async move {
        match name.as_str() {
            "nas.home.arpa" => Ok(vec![[127, 0, 0, 1].into()]),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    });
    let client = Client::new(None, lookup.clone()).unwrap();
    Plane::new(folder, client, lookup, Arc::new(move |_| heard), &Metrics::new())
}

fn check(name: &str, kind: Kind) -> Check {
    Check {
        name: name.into(),
        kind,
        every: Duration::from_secs(60),
        timeout: Duration::from_secs(10),
        rule: Rule { failures: 1, successes: 1 },
        parent: None,
        anchor: false,
        maintenance: crate::week::Spans::default(),
    }
}

fn config(checks: impl IntoIterator<Item = Check>) -> Config {
    Config { checks: checks.into_iter().collect(), timezone: jiff::tz::TimeZone::UTC }
}

fn tcp(port: u16) -> Kind {
    Kind::Tcp(Place::Tcp("nas.home.arpa".into(), port))
}

/// Says to a plane what a look found.
fn find(plane: &Plane, name: &str, problem: Option<&str>, second: i64) {
    let check = plane.shared().entries[name].check.clone();
    let look = Look { found: Found::default(), problem: problem.map(str::to_owned) };
    let stalls = plane.shared().stalls;
    plane.finish(Done { check, look, took: Duration::from_millis(7), stalls }, Instant::now(), second);
}

fn state(plane: &Plane, name: &str) -> State {
    plane.shared().entries[name].machine.state()
}

async fn problem(plane: &Plane, kind: &Kind) -> Option<String> {
    probe::look(kind, &plane.reach).await.problem
}

/// Answers every request so, as often as it is asked.
async fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

/// A port that nobody listens on.
async fn silent() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn an_answer_must_have_the_status_the_field_and_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    let port =
        answering("HTTP/1.1 302 Found\r\nlocation: /login\r\nx-app: git\r\ncontent-length: 5\r\n\r\nhello").await;
    let http = Http {
        url: format!("http://nas.home.arpa:{port}/health").parse().unwrap(),
        status: 200..=399,
        body: Some("ell".into()),
        header: Some((hyper::header::HeaderName::from_static("x-app"), "git".parse().unwrap())),
    };
    let asked = async |http: Http| problem(&plane, &Kind::Http(Box::new(http))).await;

    assert_eq!(asked(http.clone()).await, None);
    // A redirect is an answer, and is not followed.
    let strict = asked(Http { status: 200..=299, ..http.clone() }).await;
    assert_eq!(strict.unwrap(), "it answers 302 Found");
    let text = asked(Http { body: Some("bye".into()), ..http.clone() }).await;
    assert_eq!(text.unwrap(), "its answer has not the wanted text");
    let header = Some((hyper::header::HeaderName::from_static("x-app"), "other".parse().unwrap()));
    assert!(asked(Http { header, ..http }).await.unwrap().contains("x-app"));
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp_and_one_server_for_a_route() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    let (open, shut) = (answering("").await, silent().await);
    let place = |port| Place::Tcp("127.0.0.1".into(), port);

    assert_eq!(problem(&plane, &tcp(open)).await, None);
    assert!(problem(&plane, &tcp(shut)).await.is_some());
    assert_eq!(problem(&plane, &Kind::Route(vec![place(shut), place(open)])).await, None);
    let nobody = problem(&plane, &Kind::Route(vec![place(shut)])).await.unwrap();
    assert!(nobody.starts_with(&format!("127.0.0.1:{shut}: ")), "{nobody}");
}

#[tokio::test]
async fn a_server_is_asked_for_a_name_or_the_resolver_of_the_house() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap();
            // What is not meant for it is not taken.
            let _ = socket.send_to(b"noise", from).await;
            answer.metadata.message_type = hickory_proto::op::MessageType::Response;
            let name = answer.queries[0].name().clone();
            let address = hickory_proto::rr::rdata::A([192, 0, 2, 7].into());
            answer.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, hickory_proto::rr::RData::A(address)));
            let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
        }
    });
    let asked = |name: &str, server, expect: &[[u8; 4]]| Kind::Dns {
        name: name.parse().unwrap(),
        server,
        expect: expect.iter().map(|address| (*address).into()).collect(),
    };

    assert_eq!(problem(&plane, &asked("example.org.", Some(server), &[])).await, None);
    assert_eq!(problem(&plane, &asked("example.org.", Some(server), &[[192, 0, 2, 7]])).await, None);
    let wrong = problem(&plane, &asked("example.org.", Some(server), &[[192, 0, 2, 8]])).await;
    assert_eq!(wrong.unwrap(), "192.0.2.8 is not in the answer");
    assert_eq!(problem(&plane, &asked("nas.home.arpa.", None, &[[127, 0, 0, 1]])).await, None);
    assert!(problem(&plane, &asked("gone.home.arpa.", None, &[])).await.is_some());
}

#[tokio::test]
async fn a_certificate_is_read_until_when_it_holds_whoever_signed_it() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    let mut parameters = rcgen::CertificateParams::new(vec!["nas.home.arpa".into()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2200, 1, 1);
    let left =
        ("2200-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second() - Timestamp::now().as_second()) / 86_400;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let kind = |days| Kind::Tls { place: Place::Tcp("nas.home.arpa".into(), port), days };

    let fine = probe::look(&kind(left - 1), &plane.reach).await;
    let late = probe::look(&kind(left + 1), &plane.reach).await;

    assert_eq!(fine.problem, None);
    // It may have become midnight meanwhile.
    assert!(fine.found.days.is_some_and(|days| days == left || days == left - 1), "{fine:?}");
    assert!(late.problem.unwrap().starts_with("the certificate holds for "));
}

#[tokio::test]
async fn a_child_of_what_is_down_and_everything_without_a_link_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    let child = Check { parent: Some("host".into()), ..check("app", tcp(2)) };
    let anchor = Check { anchor: true, ..check("gateway", tcp(3)) };
    plane.commit(&config([check("host", tcp(1)), child, anchor, check("far", tcp(4))]));
    for name in ["host", "app", "gateway", "far"] {
        find(&plane, name, None, 0);
    }

    find(&plane, "host", Some("refused"), 60);
    find(&plane, "app", Some("refused"), 60);
    find(&plane, "far", Some("refused"), 60);
    assert_eq!(["host", "app", "far"].map(|name| state(&plane, name)), [State::Down, State::Unknown, State::Down]);
    find(&plane, "gateway", Some("unreachable"), 120);
    find(&plane, "far", Some("unreachable"), 120);
    find(&plane, "host", Some("unreachable"), 120);
    find(&plane, "app", None, 120);

    let states = ["gateway", "far", "host", "app"].map(|name| state(&plane, name));
    // What works is up, whatever is said of others.
    assert_eq!(states, [State::Down, State::Unknown, State::Unknown, State::Up]);
    let states = plane.states();
    let far = states.iter().find(|status| status.name == "far").unwrap();
    assert_eq!(far.problem.as_deref(), Some("no anchor answers: the link of this box is gone (unreachable)"));
    assert_eq!(plane.counts().names, ["gateway"]);
}

#[tokio::test]
async fn who_stood_still_and_a_window_of_maintenance_make_nothing_down() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    // The first of January 1970 was a Thursday.
    let spans = crate::week::Spans::new(["thu 03:00-05:00".parse().unwrap()]);
    plane.commit(&config([Check { maintenance: spans, ..check("nas", tcp(1)) }]));
    find(&plane, "nas", None, 0);
    let check = plane.shared().entries["nas"].check.clone();
    let begun = plane.shared().stalls;
    let look = Look { found: Found::default(), problem: Some("late".into()) };

    plane.stood_still();
    plane.finish(Done { check, look, took: Duration::ZERO, stalls: begun }, Instant::now(), 60);
    assert_eq!(state(&plane, "nas"), State::Up);
    find(&plane, "nas", Some("rebooting"), 4 * 3600);
    assert_eq!(state(&plane, "nas"), State::Unknown);
    find(&plane, "nas", Some("gone"), 5 * 3600);
    assert_eq!(state(&plane, "nas"), State::Down);
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_what_is_looked_at_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let plane = plane(folder.path(), None);
    plane.commit(&config([check("same", tcp(1)), check("other", tcp(2)), check("gone", tcp(3))]));
    for name in ["same", "other", "gone"] {
        find(&plane, name, Some("refused"), 0);
    }

    let slower = Check { every: Duration::from_secs(300), ..check("same", tcp(1)) };
    plane.commit(&config([slower, check("other", tcp(9))]));

    assert_eq!(state(&plane, "same"), State::Down);
    assert_eq!(state(&plane, "other"), State::Unknown);
    assert_eq!(plane.states().len(), 2);
}

/// The real loop: what is due is looked at, what real requests say counts, and the sums are there at the next start.
#[test]
fn it_looks_by_itself_and_its_sums_outlast_it() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let often = |check: Check| Check { every: Duration::from_millis(20), ..check };
    let route = Kind::Route(vec![Place::Tcp("127.0.0.1".into(), port)]);
    let config = config([often(check("nas", tcp(port))), often(check("photos.home.arpa", route))]);
    let plane = Arc::new(plane(folder.path(), Some(false)));
    plane.commit(&config);
    plane.shared().entries.values_mut().for_each(|entry| entry.due = Instant::now());
    let (stopper, stop) = crate::supervise::stop();
    let runner = plane.clone();
    let thread = std::thread::spawn(move || runner.run(stop));

    let until = std::time::Instant::now() + Duration::from_secs(30);
    let has_run = |plane: &Plane| {
        let hours = |entry: &Entry| ledger::total(&entry.ledger.hours(Timestamp::now().as_second()));
        let shared = plane.shared();
        shared.entries.values().all(|entry| hours(entry).permille().is_some())
    };
    while !has_run(&plane) && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    stopper.advance(Phase::Drain);
    thread.join().unwrap().unwrap();

    assert_eq!((state(&plane, "nas"), state(&plane, "photos.home.arpa")), (State::Up, State::Down));
    let later = super::tests::plane(folder.path(), None);
    later.commit(&config);
    later.recall();
    let of = |name: &str| later.states().into_iter().find(|status| status.name == name).unwrap();
    assert_eq!((of("nas").permille, of("nas").state), ([Some(1000); 3], State::Unknown));
    assert_eq!(of("photos.home.arpa").permille, [Some(0); 3]);
    assert_eq!((of("nas").hours.len(), of("nas").days.len()), (24, 90));
}

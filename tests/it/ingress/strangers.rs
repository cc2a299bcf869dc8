//! Clients from the Internet beyond single requests, and what the owner is told of requests.

use std::sync::atomic::{AtomicBool, Ordering};

use hearthgate::{
    ingress::{CertificateFiles, HostPattern, Page, Target, explain::Curious},
    origin::Origin,
};
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::edge::{Behind, Edge, public, route, to, vpn};

const HOST: &str = "app.home.example";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

/// Whether a connection is closed before anything is said.
async fn is_refused(edge: &Edge, origin: Origin) -> bool {
    let mut stream = edge.connect(origin, 443).await;
    let read = tokio::time::timeout(std::time::Duration::from_millis(300), stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn who_opens_too_many_connections_waits_and_the_house_does_not() {
    let edge = Edge::start(|config| config.wan_connections = Some("1/s burst 3".parse().unwrap()));

    let mut refused = 0;
    for _ in 0..8 {
        refused += usize::from(is_refused(&edge, Origin::Wan).await);
    }

    assert!(refused >= 2, "{refused}");
    assert!(!is_refused(&edge, super::LAN).await);
}

#[tokio::test]
async fn who_is_refused_again_and_again_is_refused_at_the_door() {
    let edge = Edge::start(|config| {
        config.wan_refusals = Some("1/s burst 3".parse().unwrap());
        let page = Page { status: StatusCode::UNAUTHORIZED, kind: "text/plain".parse().unwrap(), body: "no".into() };
        config.routes.push(route(HOST, "/", public(), Target::Page(page)));
    });

    for _ in 0..4 {
        assert!(!is_refused(&edge, Origin::Wan).await);
        assert!(edge.ask(Origin::Wan, HOST, &get("/", "")).await.starts_with("HTTP/1.1 401 "));
    }

    assert!(is_refused(&edge, Origin::Wan).await);
    assert!(edge.ask(super::LAN, HOST, &get("/", "")).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn a_request_has_a_name_on_its_whole_way() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let value = |answer: &str, name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name}: {answer}"))
    };

    let first = edge.ask(Origin::Wan, HOST, &get("/x", "X-Request-Id: theirs\r\n")).await;
    let second = edge.ask(Origin::Wan, HOST, &get("/x", "")).await;
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let traced = edge.ask(Origin::Wan, HOST, &get("/x", &format!("traceparent: {theirs}\r\n"))).await;

    let (one, two) = (value(&first, "x-request-id"), value(&second, "x-request-id"));
    assert!(one != two && one.len() == 32 && !first.contains("theirs"), "{first}");
    let made = value(&first, "traceparent");
    assert!(made.starts_with(&format!("00-{one}-")) && made.len() == theirs.len(), "{made}");
    assert_eq!(value(&traced, "traceparent"), theirs);
}

#[tokio::test]
async fn the_edge_explains_what_would_happen_to_a_request() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
        config.routes.push(route(HOST, "/admin", vpn(), to(behind.address)));
    });
    let explain = |url: &str, from: &str| {
        let curious = Curious { url: url.into(), from: from.into(), method: "GET".into() };
        let steps = edge.plane.explain(&curious).unwrap().steps;
        steps.iter().map(|(what, said)| format!("{what}: {said}\n")).collect::<String>()
    };

    let open = explain("https://app.home.example/album?x=y", "wan");
    let closed = explain("https://app.home.example/admin/x", "wan");
    let peer = explain("https://app.home.example/admin/x", "vpn:laptop");
    let never = explain("https://admin.home.example/", "wan");

    assert!(open.contains("route: app.home.example/\n") && open.contains("upstream: http://127.0.0.1:"), "{open}");
    assert!(closed.contains("tried: /admin, closed to this origin\n") && closed.contains("answer: 404"), "{closed}");
    assert!(peer.contains("route: app.home.example/admin\n"), "{peer}");
    assert!(never.contains("unrecognized_name"), "{never}");
    let unknown = Curious { url: "https://x.example/".into(), from: "moon".into(), method: "GET".into() };
    assert!(edge.plane.explain(&unknown).is_err());
}

/// A CA of the test's, and certificates for the host of its routes: another one each time.
struct Issuer {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    folder: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: rcgen::Issuer::new(params, key), folder }
    }

    fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, number: usize) -> CertificateFiles {
        let own = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![HOST.into()]).unwrap().signed_by(&own, &self.issuer).unwrap();
        let at = |kind: &str| self.folder.path().join(format!("{kind}-{number}.pem"));
        std::fs::write(at("cert"), leaf.pem()).unwrap();
        std::fs::write(at("key"), own.serialize_pem()).unwrap();
        let hosts = vec![HostPattern::Exact(super::edge::host(HOST))];
        CertificateFiles { hosts, certificate: at("cert"), key: at("key") }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_one_request_fails_across_twenty_reloads_of_routes_certificates_and_limits() {
    let behind = Behind::start().await;
    let issuer = Issuer::new();
    let change = |number: usize, config: &mut hearthgate::ingress::Config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.plain = true;
        app.rules.limits.concurrency = 1000 + u32::try_from(number).unwrap();
        config.routes.push(app);
        for more in 0..number % 3 {
            config.routes.push(route(HOST, &format!("/more{more}"), vpn(), to(behind.address)));
        }
        config.max_requests = 1000 - u32::try_from(number).unwrap();
        config.timeouts.idle = std::time::Duration::from_secs(60 + number as u64);
        config.certificates.push(issuer.issue(number));
    };
    let edge = std::sync::Arc::new(Edge::start(|config| change(0, config)));
    let (over, ca) = (std::sync::Arc::new(AtomicBool::new(false)), issuer.ca());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (edge, over, ca) = (edge.clone(), over.clone(), ca.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    let stream = tokio::net::TcpStream::connect(edge.https()).await.unwrap();
                    let mut stream = edge.tls_trusting(stream, HOST, "http/1.1", &ca).await.expect("a handshake");
                    for _ in 0..20 {
                        let request = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
                        stream.write_all(request.as_bytes()).await.unwrap();
                        let answer = super::edge::read_one(&mut stream).await;
                        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                        served += 1;
                    }
                }
                served
            })
        })
        .collect();
    let address = edge.http();
    let wrk = std::process::Command::new("wrk").arg("-v").output().is_ok().then(|| {
        tokio::task::spawn_blocking(move || {
            let url = format!("http://{address}/x");
            let host = format!("Host: {HOST}");
            std::process::Command::new("wrk").args(["-t1", "-c16", "-d4s", "-H", &host, &url]).output().unwrap()
        })
    });

    for number in 1..=20 {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        edge.reload(|config| change(number, config));
    }
    over.store(true, Ordering::Relaxed);

    for client in clients {
        assert!(client.await.expect("no request failed") > 20);
    }
    let Some(wrk) = wrk else { return eprintln!("SKIPPED: there is no wrk") };
    let said = String::from_utf8(wrk.await.unwrap().stdout).unwrap();
    assert!(said.contains("requests in"), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
}

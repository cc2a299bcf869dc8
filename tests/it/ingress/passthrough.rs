//! Hosts whose TLS ends at their own server.

use std::{path::Path, time::Duration};

use hearthgate::{
    ingress::{Config, HealthCheck, Http, Plane, Proxies, ProxyProtocol, Target, Upstream, Word, explain::Curious},
    origin::Origin,
};
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};

use super::{
    ALERT, LAN,
    edge::{Behind, Edge, PATIENCE, VPN, gone, host, public, read_one, route, to, upstream, vpn},
    get,
    manners::metrics,
};

const MAIL: &str = "mail.home.example";

fn opaque(address: std::net::SocketAddr) -> Upstream {
    Upstream { http: Http::Opaque, ..upstream(address) }
}

fn passed(address: std::net::SocketAddr) -> Target {
    Target::Passthrough(vec![opaque(address)])
}

/// A server with a certificate of its own.
async fn server(change: impl FnOnce(&mut Config)) -> (Edge, Behind) {
    let behind = Behind::start().await;
    let address = behind.address;
    let inner = Edge::start(|config| {
        config.routes = vec![route(MAIL, "/", public(), to(address))];
        change(config);
    });
    (inner, behind)
}

async fn ask(edge: &Edge, origin: Origin, ca: &Path) -> String {
    let stream = edge.connect(origin, 443).await;
    let mut stream = edge.tls_trusting(stream, MAIL, "http/1.1", &ca.join("ca.pem")).await.unwrap();
    stream.write_all(get(MAIL, "/inbox").as_bytes()).await.unwrap();
    super::edge::read_to_end(&mut stream).await
}

#[tokio::test]
async fn tls_ends_at_the_hosts_own_server() {
    let (inner, _behind) = server(|_| {}).await;
    let edge = Edge::start(|config| config.routes.push(route(MAIL, "/", public(), passed(inner.https()))));

    for origin in [Origin::Wan, LAN, VPN] {
        let answer = ask(&edge, origin, inner.state.path()).await;

        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("GET /inbox "), "{answer}");
    }
    let text = metrics(&edge);
    assert!(text.contains("hearthgate_ingress_handshakes_total{outcome=\"passed\"} 3"), "{text}");
    for direction in ["up", "down"] {
        let series = format!("hearthgate_ingress_relayed_bytes_total{{direction=\"{direction}\"");
        assert!(text.contains(&series), "{text}");
    }
    assert!(edge.plane.status().certificates.iter().all(|one| !one.hosts.contains(&MAIL.to_owned())));
    assert!(!text.contains(&format!("certificate_expiry_timestamp_seconds{{route=\"{MAIL}")), "{text}");
}

#[tokio::test]
async fn a_server_behind_is_told_the_client_by_the_proxy_protocol() {
    let (inner, _behind) = server(|config| {
        config.proxies = Proxies {
            from: vec!["127.0.0.1/32".parse::<IpNet>().unwrap()],
            word: Word::ProxyProtocol,
            ..Proxies::default()
        };
    })
    .await;
    let edge = Edge::start(|config| {
        let mut mail = route(MAIL, "/", public(), passed(inner.https()));
        mail.rules.proxy_protocol = Some(ProxyProtocol::V2);
        config.routes.push(mail);
    });

    let answer = ask(&edge, Origin::Wan, inner.state.path()).await;

    assert!(answer.to_lowercase().contains("x-forwarded-for: 203.0.113.9\r\n"), "{answer}");
}

#[tokio::test]
async fn who_may_not_come_in_gets_the_seven_bytes_of_a_name_that_never_existed() {
    let (inner, _behind) = server(|_| {}).await;
    let edge = Edge::start(|config| {
        config.routes.push(route(MAIL, "/", vpn(), passed(inner.https())));
        config.routes.push(route("*.home.example", "/", public(), passed(inner.https())));
    });

    for origin in [Origin::Wan, LAN] {
        assert_eq!(edge.hello(origin, Some(MAIL)).await, ALERT, "not even under a wildcard that is passed through");
        assert_eq!(edge.hello(origin, Some("admin.home.example")).await, ALERT);
        assert_eq!(edge.hello(origin, Some("a.b.home.example")).await, ALERT);
        assert_eq!(edge.hello(origin, None).await, ALERT);
        let (ours, never) = (get(MAIL, "/"), get("never.b.home.example", "/"));
        assert_eq!(edge.ask_plain(origin, &ours).await, edge.ask_plain(origin, &never).await);
    }
    let answer = ask(&edge, VPN, inner.state.path()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn requests_never_come_to_a_host_that_is_passed_through() {
    let (inner, _behind) = server(|_| {}).await;
    let edge = Edge::start(|config| config.routes.push(route(MAIL, "/", public(), passed(inner.https()))));

    let fronted = edge.ask(Origin::Wan, "www.home.example", &get(MAIL, "/")).await;
    let plain = edge.ask_plain(Origin::Wan, &get(MAIL, "/a?b")).await;

    assert!(fronted.starts_with("HTTP/1.1 421 "), "{fronted}");
    assert!(plain.starts_with("HTTP/1.1 308 ") && plain.contains("location: https://mail.home.example"), "{plain}");
}

#[tokio::test]
async fn plain_http_may_have_a_route_beside() {
    let (inner, behind) = server(|_| {}).await;
    let edge = Edge::start(|config| {
        config.routes.push(route(MAIL, "/", public(), passed(inner.https())));
        let mut plain = route(MAIL, "/", public(), to(behind.address));
        plain.rules.plain = true;
        config.routes.push(plain);
    });

    let plain = edge.ask_plain(Origin::Wan, &get(MAIL, "/.well-known/x")).await;

    assert!(plain.starts_with("HTTP/1.1 200 ") && plain.contains("GET /.well-known/x "), "{plain}");
    let tls = ask(&edge, Origin::Wan, inner.state.path()).await;
    assert!(tls.starts_with("HTTP/1.1 200 "), "{tls}");
    assert_eq!(edge.ask(Origin::Wan, "www.home.example", &get(MAIL, "/")).await.split(' ').nth(1), Some("421"));
}

#[tokio::test]
async fn limits_of_a_route_end_connections_before_a_byte_of_them_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start(|config| {
        let mut denied = route("denied.home.example", "/", public(), passed(address));
        denied.rules.limits.deny = vec!["203.0.113.0/24".parse().unwrap()];
        let mut one = route("one.home.example", "/", public(), passed(address));
        one.rules.limits.concurrency = 1;
        config.routes.extend([denied, one]);
    });

    assert_eq!(edge.hello(Origin::Wan, Some("denied.home.example")).await, b"");
    let mut first = edge.connect(Origin::Wan, 443).await;
    first.write_all(&hello("one.home.example")).await.unwrap();
    let (mut served, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let second = edge.hello(Origin::Wan, Some("one.home.example")).await;

    assert_eq!(second, b"");
    served.write_all(b"back").await.unwrap();
    let mut back = [0; 4];
    timeout(PATIENCE, first.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"back");
    let text = metrics(&edge);
    assert!(text.contains("reason=\"network\""), "{text}");
    assert!(text.contains("reason=\"concurrency\""), "{text}");
}

/// The bytes of a ClientHello, as the server behind must get them.
fn hello(name: &str) -> Vec<u8> {
    let list = [&[0][..], &u16::try_from(name.len()).unwrap().to_be_bytes(), name.as_bytes()].concat();
    let names = [&u16::try_from(list.len()).unwrap().to_be_bytes()[..], &list].concat();
    let extension = [&[0, 0][..], &u16::try_from(names.len()).unwrap().to_be_bytes(), &names].concat();
    let extensions = [&u16::try_from(extension.len()).unwrap().to_be_bytes()[..], &extension].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &u16::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

#[tokio::test]
async fn what_was_read_to_find_the_name_comes_to_the_server_unchanged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start(|config| config.routes.push(route(MAIL, "/", public(), passed(address))));
    let sent = [hello(MAIL), b"and more".to_vec()].concat();

    let mut client = edge.connect(Origin::Wan, 443).await;
    for piece in sent.chunks(7) {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    client.shutdown().await.unwrap();
    let (mut served, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut came = Vec::new();
    timeout(PATIENCE, served.read_to_end(&mut came)).await.unwrap().unwrap();

    assert_eq!(came, sent);
    // Only the client has ended its side.
    served.write_all(b"late").await.unwrap();
    drop(served);
    let mut back = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, b"late");
}

#[tokio::test]
async fn servers_that_are_gone_are_passed_over_and_a_silent_pair_is_ended() {
    let (_held, nobody) = gone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start(|config| {
        config.timeouts.tunnel = Duration::from_millis(300);
        config.routes.push(route("dead.home.example", "/", public(), passed(nobody)));
        let both = Target::Passthrough(vec![opaque(nobody), opaque(address)]);
        let mut checked = route(MAIL, "/", public(), both);
        let path = hearthgate::ingress::canonical::CanonicalPath::parse("/").unwrap();
        let every = Duration::from_millis(100);
        checked.rules.health = Some(HealthCheck { path, every, timeout: PATIENCE, status: None });
        config.routes.push(checked);
    });

    assert_eq!(edge.hello(Origin::Wan, Some("dead.home.example")).await, b"");
    // The check connects, too, and says nothing.
    let mut client = edge.connect(Origin::Wan, 443).await;
    client.write_all(&hello(MAIL)).await.unwrap();
    let mut kept = Vec::new();
    let mut first = [0];
    loop {
        let (mut served, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        if timeout(PATIENCE, served.read(&mut first)).await.unwrap().unwrap() == 1 {
            kept.push(served);
            break;
        }
    }
    let mut end = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut end)).await.unwrap().unwrap();

    let wanted = ["outcome=\"unreachable\"", "outcome=\"silent\""];
    let up = |place: usize, is: u8| format!("upstream_up{{route=\"{MAIL}/\",server=\"{place}\"}} {is}");
    until(|| {
        let text = metrics(&edge);
        wanted.iter().all(|one| text.contains(one)) && text.contains(&up(0, 0)) && text.contains(&up(1, 1))
    })
    .await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_reload_ends_what_is_no_longer_passed_through_and_nothing_else() {
    let (inner, _behind) = server(|_| {}).await;
    let address = inner.https();
    let edge = Edge::start(|config| config.routes.push(route(MAIL, "/", public(), passed(address))));
    let ca = inner.state.path().join("ca.pem");
    let mut open = edge.tls_trusting(edge.connect(Origin::Wan, 443).await, MAIL, "http/1.1", &ca).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {MAIL}\r\n\r\n");

    edge.reload(|config| config.routes.push(route(MAIL, "/", public(), passed(address))));
    open.write_all(request.as_bytes()).await.unwrap();
    assert!(read_one(&mut open).await.starts_with("HTTP/1.1 200 "));
    edge.reload(|config| config.routes.push(route(MAIL, "/", vpn(), passed(address))));
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, open.read_to_end(&mut rest)).await.unwrap();

    assert_eq!(rest, b"");
    assert_eq!(edge.hello(Origin::Wan, Some(MAIL)).await, ALERT);
}

fn said(plane: &Plane, url: &str, from: &str) -> String {
    let curious = Curious { url: url.into(), from: from.into(), method: "GET".into() };
    plane.explain(&curious).unwrap().steps.iter().map(|(what, how)| format!("{what}: {how}\n")).collect()
}

#[tokio::test]
async fn explain_says_who_ends_tls() {
    let (_held, nobody) = gone();
    let edge = Edge::start(|config| config.routes.push(route(MAIL, "/", vpn(), passed(nobody))));

    let inside = said(&edge.plane, &format!("https://{MAIL}/"), "vpn:laptop");
    let plain = said(&edge.plane, &format!("http://{MAIL}/"), "vpn:laptop");
    let outside = said(&edge.plane, &format!("https://{MAIL}/"), "wan");

    assert!(inside.contains("TLS is passed through") && inside.contains(&format!("upstream: tcp://{nobody}")));
    assert!(plain.contains("answer: 308 to https"), "{plain}");
    assert!(outside.contains("as for a host that never existed"), "{outside}");
    assert_eq!(host(MAIL).as_str(), MAIL);
}

//! The ingress as its clients see it.

mod edge;

use hearthgate::origin::{NetworkId, Origin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::edge::{Behind, Edge, VPN, host, public, read_one, route, to, vpn};

const ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];
const LAN: Origin = Origin::Lan(NetworkId::MAIN);

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_public_route_answers_on_a_kernel_socket() {
    let edge = Edge::start(|_| {});

    let stream = TcpStream::connect(edge.https()).await.unwrap();
    let mut stream = edge.tls(stream, "www.home.example", "http/1.1").await.unwrap();
    stream.write_all(get("www.home.example", "/").as_bytes()).await.unwrap();
    let answer = edge::read_to_end(&mut stream).await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("You came from: <strong>host</strong>"), "{answer}");
}

#[tokio::test]
async fn an_unknown_missing_or_address_sni_gets_seven_bytes() {
    let edge = Edge::start(|_| {});

    for origin in [Origin::Wan, LAN] {
        for sni in [Some("never.home.example"), Some("admin.home.example"), Some("127.0.0.1"), None] {
            assert_eq!(edge.hello(origin, sni).await, ALERT, "{sni:?}");
        }
    }
}

#[tokio::test]
async fn an_admin_host_is_byte_for_byte_a_host_that_never_existed() {
    let edge = Edge::start(|_| {});
    let forms: [fn(&str) -> String; 5] = [
        |host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        |host| format!("GET https://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        |host| {
            format!("GET / HTTP/1.1\r\nHost: {host}:443\r\nX-Forwarded-For: 10.77.0.2\r\nX-Real-IP: 10.77.0.2\r\n\r\n")
        },
        |host| {
            format!("GET / HTTP/1.1\r\nHost: www.home.example\r\nX-Forwarded-Host: {host}\r\nConnection: close\r\n\r\n")
        },
        |host| format!("GET https://{host}/ HTTP/1.1\r\nHost: www.home.example\r\n\r\n"),
    ];

    for origin in [Origin::Wan, LAN] {
        for form in forms {
            let admin = edge.ask(origin, "www.home.example", &form("admin.home.example")).await;
            let never = edge.ask(origin, "www.home.example", &form("never.home.example")).await;

            assert_eq!(admin, never);
        }
        let admin = edge.ask_plain(origin, &get("admin.home.example", "/")).await;
        let never = edge.ask_plain(origin, &get("never.home.example", "/")).await;
        assert_eq!(admin, never);
        assert!(admin.starts_with("HTTP/1.1 421 ") && !admin.to_lowercase().contains("date:"), "{admin}");
    }
    let answer = edge.ask(VPN, "admin.home.example", &get("admin.home.example", "/")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("vpn:laptop"), "{answer}");
}

#[tokio::test]
async fn plain_http_redirects_hosts_of_the_origins_table() {
    let edge = Edge::start(|_| {});

    let public = edge.ask_plain(Origin::Wan, &get("www.home.example", "/a?b=c")).await;
    let admin = edge.ask_plain(VPN, &get("admin.home.example", "/")).await;

    assert!(public.starts_with("HTTP/1.1 308 "), "{public}");
    assert!(public.contains("location: https://www.home.example/a?b=c\r\n"), "{public}");
    assert!(admin.contains("location: https://admin.home.example/\r\n"), "{admin}");
}

#[tokio::test]
async fn a_host_of_another_certificate_is_misdirected() {
    let edge = Edge::start(|config| {
        let other = route("two.home.example", "/", public(), config.routes[0].to.clone());
        config.routes.push(other);
    });

    let answer = edge.ask(Origin::Wan, "www.home.example", &get("two.home.example", "/")).await;

    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

#[tokio::test]
async fn a_wildcard_never_answers_what_another_table_has_exactly() {
    let edge = Edge::start(|config| {
        let any = route("*.home.example", "/", public(), config.routes[0].to.clone());
        config.routes.push(any);
    });

    assert_eq!(edge.hello(Origin::Wan, Some("admin.home.example")).await, ALERT);
    assert_eq!(edge.hello(Origin::Wan, Some("a.b.home.example")).await, ALERT);
    let answer = edge.ask(Origin::Wan, "any.home.example", &get("any.home.example", "/")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let admin = edge.ask(Origin::Wan, "any.home.example", &get("admin.home.example", "/")).await;
    assert!(admin.starts_with("HTTP/1.1 421 "), "{admin}");
}

#[tokio::test]
async fn a_path_of_another_table_is_not_answered_by_a_shorter_one() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.routes.push(route("app.home.example", "/", public(), to(behind.address)));
        config.routes.push(route("app.home.example", "/admin", vpn(), to(behind.address)));
    });

    let status = |answer: String| answer.split(' ').nth(1).unwrap().to_owned();
    for (path, expected) in [("/", "200"), ("/administer", "200"), ("/admin", "404"), ("/x/%2e%2e/admin/y", "400")] {
        let answer = edge.ask(Origin::Wan, "app.home.example", &get("app.home.example", path)).await;
        assert_eq!(status(answer), expected, "{path}");
    }
    assert_eq!(status(edge.ask(VPN, "app.home.example", &get("app.home.example", "/admin")).await), "200");
}

#[tokio::test]
async fn the_upstream_gets_the_canonical_form_and_our_forwarding_fields() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let request = "GET /a/%7Euser?q=%41 HTTP/1.1\r\nHost: APP.Home.Example.:443\r\nX-Forwarded-For: 10.0.0.1\r\n\
                   Connection: close, X-Secret\r\nX-Secret: s\r\nX_Forwarded_For: 10.0.0.1\r\nTE: trailers\r\n\r\n";

    let answer = edge.ask(Origin::Wan, "app.home.example", request).await;

    let (_, sent) = answer.split_once("\r\n\r\n").unwrap();
    assert!(sent.starts_with("GET /a/~user?q=%41 HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("host: app.home.example\r\n"), "{sent}");
    assert!(sent.contains("x-forwarded-for: 203.0.113.9\r\n"), "{sent}");
    assert!(sent.contains("x-forwarded-proto: https\r\n"), "{sent}");
    for gone in ["secret", "10.0.0.1", "trailers", "_", "connection"] {
        assert!(!sent.to_lowercase().contains(gone), "{gone}: {sent}");
    }
}

#[tokio::test]
async fn connections_on_both_sides_are_kept() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();

    for _ in 0..5 {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: app.home.example\r\n\r\n").await.unwrap();
        assert!(read_one(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }

    assert_eq!(behind.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_is_not_the_clients_trouble() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();

    for _ in 0..20 {
        stream.write_all(b"GET /once HTTP/1.1\r\nHost: app.home.example\r\n\r\n").await.unwrap();
        let answer = read_one(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_only_if_both_agreed() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let handshake = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: app.home.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };

    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();
    stream.write_all(handshake("/ws").as_bytes()).await.unwrap();
    let answer = read_one(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream.write_all(b"hello?").await.unwrap();
    let mut echo = [0; 6];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello?");

    let refused = edge.ask(Origin::Wan, "app.home.example", &handshake("/not-really-ws")).await;
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
    let _ = host("unused.example");
}

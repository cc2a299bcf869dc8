//! The ingress as its clients see it.

mod catch_all;
mod countries;
mod crowdsec;
mod disguises;
pub(crate) mod edge;
mod floods;
mod frames;
mod grpc;
mod manners;
mod passthrough;
mod ports;
mod probes;
mod proxies;
mod rules;
mod servers;
mod strangers;
mod upstream;

use hearthgate::{
    ingress::{CertificateFiles, HostPattern, Http, Target, Upstream, UpstreamHost, UpstreamTls},
    origin::{Access, NetworkId, Origin},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::rustls;

use self::edge::{Behind, Edge, VPN, public, read_one, route, to, vpn};

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
        for sni in [Some("never.home.example"), Some("admin.home.example"), None] {
            assert_eq!(edge.hello(origin, sni).await, ALERT, "{sni:?}");
        }
        let long = [b'a'; 253];
        for sni in [&b"127.0.0.1"[..], b"[::1]", b"www home example", b"-", b"\xff\xfe\0", b"www.home.example.", &long]
        {
            assert_eq!(edge.hello_with(origin, sni).await, ALERT, "{sni:?}");
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
    for (path, expected) in
        [("/", "200"), ("/administer", "200"), ("/admin", "404"), ("/ADMIN/x", "404"), ("/x/%2e%2e/admin/y", "400")]
    {
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
}

#[tokio::test]
async fn twenty_megabytes_stream_and_little_is_in_flight() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();

    stream.write_all(get("app.home.example", "/download").as_bytes()).await.unwrap();
    let mut first = [0; 1024];
    stream.read_exact(&mut first).await.unwrap();
    // The client reads no more: what the server behind got rid of stands in buffers on the way.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let in_flight = behind.sent.load(std::sync::atomic::Ordering::SeqCst);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();

    assert!(in_flight < edge::BIG / 2, "{in_flight}");
    assert!(first.len() + rest.len() > edge::BIG);
}

#[tokio::test]
async fn uploads_stream_with_a_length_and_in_chunks() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();

    let head = format!("POST /upload HTTP/1.1\r\nHost: app.home.example\r\nContent-Length: {}\r\n\r\n", edge::BIG);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'u'; edge::BIG]).await.unwrap();
    stream.flush().await.unwrap();
    let counted = read_one(&mut stream).await;
    let head = "POST /upload HTTP/1.1\r\nHost: app.home.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nA: b\r\n\r\n").as_bytes()).await.unwrap();
    let chunked = read_one(&mut stream).await;
    stream.write_all(get("app.home.example", "/chunked").as_bytes()).await.unwrap();
    let last = edge::read_to_end(&mut stream).await;

    assert!(counted.ends_with(&edge::BIG.to_string()), "{counted}");
    assert!(chunked.ends_with("\r\n\r\n1"), "{chunked}");
    assert!(last.ends_with("\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "{last}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();
    let head = "POST /upload HTTP/1.1\r\nHost: app.home.example\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";

    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = read_one(&mut stream).await;
    stream.write_all(b"abc").await.unwrap();
    let answer = read_one(&mut stream).await;

    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n3"), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_lies_about_its_length_is_cut_off() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));

    let short = edge.ask(Origin::Wan, "app.home.example", &get("app.home.example", "/too-short")).await;
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();
    stream.write_all(b"GET /too-long HTTP/1.1\r\nHost: app.home.example\r\n\r\n").await.unwrap();
    let long = read_one(&mut stream).await;
    stream.write_all(get("app.home.example", "/x").as_bytes()).await.unwrap();
    let next = edge::read_to_end(&mut stream).await;

    // It ends without the bytes that were announced, which no client takes for the whole.
    assert!(short.is_empty() || !short.contains("\r\n\r\n") || short.ends_with("only this"), "{short}");
    assert!(long.ends_with("this"), "{long}");
    assert!(next.contains("\r\n\r\nGET /x ") && !next.contains("smuggled"), "{next}");
}

#[tokio::test]
async fn what_could_be_smuggled_is_refused_and_the_connection_closed() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let probe =
        |fields: &str, rest: &str| format!("POST /upload HTTP/1.1\r\nHost: app.home.example\r\n{fields}\r\n{rest}");
    let smuggled = "GET /admin HTTP/1.1\r\nHost: app.home.example\r\n\r\n";
    let probes = [
        probe("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")),
        probe("Content-Length: 0\r\nContent-Length: 5\r\n", smuggled),
        probe("Content-Length: +1\r\n", smuggled),
        probe("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &format!("0\r\n\r\n{smuggled}")),
        probe("Transfer-Encoding: xchunked\r\n", &format!("0\r\n\r\n{smuggled}")),
        probe("Transfer-Encoding: chunked\r\n", &format!("0\n\r\n{smuggled}")),
        probe("Transfer-Encoding: chunked\r\n", &format!("1;\nx\r\n0\r\n\r\n{smuggled}")),
        format!("GET / HTTP/1.1\nHost: app.home.example\n\n{smuggled}"),
        format!("GET / HTTP/1.1\r\nHost: app.home.example\r\n folded\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\nHost: app.home.example\r\nHost: admin.home.example\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\nHost: app@admin.home.example\r\n\r\n{smuggled}"),
    ];

    for probe in probes {
        let answer = edge.ask(Origin::Wan, "app.home.example", &probe).await;

        assert!(answer.starts_with("HTTP/1.1 400 "), "{probe:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{probe:?}: {answer}");
    }
}

#[tokio::test]
async fn a_client_from_the_internet_is_limited_and_the_house_is_not() {
    let edge = Edge::start(|config| config.wan_limit = Some("1/s burst 3".parse().unwrap()));
    let ask = async |origin| edge.ask(origin, "www.home.example", &get("www.home.example", "/")).await;

    let mut from_wan = Vec::new();
    for _ in 0..6 {
        from_wan.push(ask(Origin::Wan).await);
    }

    let limited: Vec<_> = from_wan.iter().filter(|answer| answer.starts_with("HTTP/1.1 429 ")).collect();
    assert!(limited.len() >= 2 && limited.iter().all(|answer| answer.contains("retry-after: 1\r\n")), "{from_wan:?}");
    for _ in 0..6 {
        assert!(ask(LAN).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn every_wait_ends() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let short = std::time::Duration::from_millis(200);
        config.timeouts.handshake = short;
        config.timeouts.header = short;
        config.timeouts.idle = short;
        config.timeouts.body = short;
        config.timeouts.response = short;
        config.routes.push(route("app.home.example", "/", public(), to(behind.address)));
    });
    let app = async |request: &str| edge.ask(Origin::Wan, "app.home.example", request).await;

    let mut silent = edge.connect(Origin::Wan, 443).await;
    assert_eq!(edge::read_to_end(&mut silent).await, "");
    assert_eq!(app("").await, "");
    assert!(app("GET / HTTP/1.1\r\nHos").await.starts_with("HTTP/1.1 408 "));
    assert!(app(&get("app.home.example", "/nothing")).await.starts_with("HTTP/1.1 504 "));
    assert!(
        app("POST /upload HTTP/1.1\r\nHost: app.home.example\r\nContent-Length: 9\r\n\r\nabc")
            .await
            .starts_with("HTTP/1.1 408 ")
    );
    assert!(app(&get("app.home.example", "/stall")).await.ends_with("begun"));
    let kept = app("GET /x HTTP/1.1\r\nHost: app.home.example\r\n\r\n").await;
    assert!(kept.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_is_gone() {
    let behind = Behind::start().await;
    let (_held, gone) = edge::gone();
    let edge = Edge::start(|config| {
        let both = Target::Upstreams(vec![edge::upstream(gone), edge::upstream(behind.address)]);
        config.routes.push(route("app.home.example", "/", public(), both));
        config.routes.push(route("gone.home.example", "/", public(), to(gone)));
    });

    for _ in 0..4 {
        let answer = edge.ask(Origin::Wan, "app.home.example", &get("app.home.example", "/x")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let answer = edge.ask(Origin::Wan, "gone.home.example", &get("gone.home.example", "/x")).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_reload_keeps_connections_and_ends_what_lost_its_permission() {
    let behind = Behind::start().await;
    let app = |access: Access| route("app.home.example", "/", access, to(behind.address));
    let edge = Edge::start(|config| config.routes.push(app(public())));
    let connect = async || {
        let stream = edge.connect(Origin::Wan, 443).await;
        edge.tls(stream, "app.home.example", "http/1.1").await.unwrap()
    };
    let request = "GET /x HTTP/1.1\r\nHost: app.home.example\r\n\r\n";
    let (mut kept, mut streaming) = (connect().await, connect().await);
    kept.write_all(request.as_bytes()).await.unwrap();
    read_one(&mut kept).await;
    streaming.write_all(get("app.home.example", "/stall").as_bytes()).await.unwrap();
    let mut begun = [0; 64];
    streaming.read_exact(&mut begun).await.unwrap();

    edge.reload(|config| config.routes.push(app(public())));
    kept.write_all(request.as_bytes()).await.unwrap();
    assert!(read_one(&mut kept).await.starts_with("HTTP/1.1 200 OK\r\n"));

    edge.reload(|config| config.routes.push(app(vpn())));
    kept.write_all(request.as_bytes()).await.unwrap();
    assert!(edge::read_to_end(&mut kept).await.starts_with("HTTP/1.1 421 "));
    edge::read_to_end(&mut streaming).await;
    assert_eq!(edge.hello(Origin::Wan, Some("app.home.example")).await, ALERT);
}

#[tokio::test]
async fn a_host_that_the_ca_may_not_sign_for_is_an_error() {
    let edge = Edge::start(|_| {});

    let refused = edge.try_reload(|config| {
        let elsewhere = route("www.elsewhere.example", "/", public(), config.routes[0].to.clone());
        config.routes.push(elsewhere);
    });

    let message = refused.unwrap_err().to_string();
    assert!(message.contains("www.elsewhere.example") && message.contains("ingress.certificates"), "{message}");
}

#[tokio::test]
async fn what_is_counted_names_routes_and_never_what_a_client_said() {
    let edge = Edge::start(|_| {});
    edge.ask(Origin::Wan, "www.home.example", &get("www.home.example", "/")).await;
    edge.ask(Origin::Wan, "www.home.example", &get("never.home.example", "/")).await;
    edge.hello(Origin::Wan, Some("never.home.example")).await;

    // A refusal is counted after it was sent.
    let counted = async {
        loop {
            let text = format!("{:?}", edge.metrics.gather());
            if text.contains("unknown_name") {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let text = tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.expect("refusals are counted");

    assert!(text.contains("www.home.example/"), "{text}");
    assert!(!text.contains("never.home.example"), "{text}");
}

#[tokio::test]
async fn a_certificate_from_files_serves_all_its_hosts_on_one_connection() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["*.elsewhere.example".into()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let edge = Edge::start(|config| {
        let hosts = vec![HostPattern::Wildcard(edge::host("elsewhere.example"))];
        config.certificates.push(CertificateFiles { hosts, certificate: certificate.clone(), key });
        let page = config.routes[0].to.clone();
        config.routes.push(route("one.elsewhere.example", "/", public(), page.clone()));
        config.routes.push(route("two.elsewhere.example", "/", public(), page));
    });

    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls_trusting(stream, "one.elsewhere.example", "http/1.1", &certificate).await.unwrap();
    stream.write_all(get("two.elsewhere.example", "/").as_bytes()).await.unwrap();
    let answer = edge::read_to_end(&mut stream).await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let status = edge.plane.status();
    let hosts = ["one.elsewhere.example", "two.elsewhere.example"];
    assert!(status.certificates.iter().any(|one| one.hosts == hosts), "{status:?}");
}

#[tokio::test]
async fn files_that_change_are_read_again_and_broken_ones_are_not_used() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let make = || rcgen::generate_simple_self_signed(vec!["www.elsewhere.example".into()]).unwrap();
    let (first, second) = (make(), make());
    std::fs::write(&certificate, first.cert.pem()).unwrap();
    std::fs::write(&key, first.signing_key.serialize_pem()).unwrap();
    let edge = Edge::start(|config| {
        let hosts = vec![HostPattern::Exact(edge::host("www.elsewhere.example"))];
        let files = CertificateFiles { hosts, certificate: certificate.clone(), key: key.clone() };
        config.certificates.push(files);
        config.routes.push(route("www.elsewhere.example", "/", public(), config.routes[0].to.clone()));
    });
    let problem = || edge.plane.status().certificates.into_iter().find_map(|one| one.problem);
    let old = files.path().join("old.pem");
    std::fs::copy(&certificate, &old).unwrap();
    let trusting = async |ca: &std::path::Path| {
        let stream = edge.connect(Origin::Wan, 443).await;
        edge.tls_trusting(stream, "www.elsewhere.example", "http/1.1", ca).await.is_ok()
    };

    // Half of a change: the key is still the other's.
    std::fs::write(&certificate, second.cert.pem()).unwrap();
    while problem().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(trusting(&old).await);
    std::fs::write(&key, second.signing_key.serialize_pem()).unwrap();
    while problem().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    assert!(trusting(&certificate).await && !trusting(&old).await);
}

#[tokio::test]
async fn an_upstream_must_prove_who_it_is_as_the_route_says() {
    let inner = Edge::start(|_| {});
    let ca = inner.state.path().join("ca.pem");
    let ask = async |tls: UpstreamTls| {
        let port = inner.https().port();
        let upstream =
            Upstream { host: UpstreamHost::Name("www.home.example".into()), port, tls: Some(tls), http: Http::One };
        let outer = Edge::start(|config| config.routes[0].to = Target::Upstreams(vec![upstream]));
        let answer = outer.ask(Origin::Wan, "www.home.example", &get("www.home.example", "/")).await;
        answer.split(' ').nth(1).unwrap().to_owned()
    };

    assert_eq!(ask(UpstreamTls::Ca(ca)).await, "200");
    assert_eq!(ask(UpstreamTls::Insecure).await, "200");
    assert_eq!(ask(UpstreamTls::Public).await, "502");
    assert_eq!(ask(UpstreamTls::Fingerprint([0; 32])).await, "502");
}

#[tokio::test]
async fn a_websocket_ends_when_its_route_is_taken_away() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();
    let handshake = "GET /ws HTTP/1.1\r\nHost: app.home.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    assert!(read_one(&mut stream).await.starts_with("HTTP/1.1 101 "));

    edge.reload(|_| {});

    assert_eq!(edge::read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_drained_plane_ends_idle_connections_and_can_run_again() {
    let mut edge = Edge::start(|_| {});
    let connect = async |edge: &Edge| {
        let stream = TcpStream::connect(edge.https()).await.unwrap();
        edge.tls(stream, "www.home.example", "http/1.1").await.unwrap()
    };
    let request = b"GET / HTTP/1.1\r\nHost: www.home.example\r\n\r\n";
    let mut idle = connect(&edge).await;
    idle.write_all(request).await.unwrap();
    read_one(&mut idle).await;

    assert_eq!(edge.drain(), Ok(()));
    assert_eq!(edge::read_to_end(&mut idle).await, "");

    edge.run_again();
    let mut again = connect(&edge).await;
    again.write_all(request).await.unwrap();
    assert!(read_one(&mut again).await.starts_with("HTTP/1.1 200 "));
}

mod h2 {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http2::SendRequest};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

    async fn client(edge: &Edge, origin: Origin, sni: &str) -> SendRequest<Body> {
        let stream = edge.connect(origin, 443).await;
        let stream = edge.tls(stream, sni, "h2").await.unwrap();
        let (client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A client whose streams have no room for a body.
    async fn shut_client(edge: &Edge, origin: Origin, sni: &str) -> SendRequest<Body> {
        let stream = edge.tls(edge.connect(origin, 443).await, sni, "h2").await.unwrap();
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(0);
        let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Empty::new().boxed()).unwrap()
    }

    async fn whole(response: Response<Incoming>) -> (StatusCode, hyper::HeaderMap, Bytes) {
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_route_works_over_http2() {
        let behind = Behind::start().await;
        let edge =
            Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
        let mut client = client(&edge, Origin::Wan, "app.home.example").await;

        let mut request = get("https://app.home.example/x?y=z");
        request.headers_mut().append("cookie", "a=1".parse().unwrap());
        request.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (status, _, sent) = whole(client.send_request(request).await.unwrap()).await;

        let sent = String::from_utf8_lossy(&sent).into_owned();
        assert_eq!(status, StatusCode::OK);
        assert!(sent.starts_with("GET /x?y=z HTTP/1.1\r\n"), "{sent}");
        assert!(sent.contains("cookie: a=1; b=2\r\n") && sent.contains("host: app.home.example\r\n"), "{sent}");
    }

    #[tokio::test]
    async fn an_admin_authority_is_like_one_that_never_existed() {
        let edge = Edge::start(|_| {});
        let mut client = client(&edge, Origin::Wan, "www.home.example").await;

        let admin = whole(client.send_request(get("https://admin.home.example/")).await.unwrap()).await;
        let never = whole(client.send_request(get("https://never.home.example/")).await.unwrap()).await;
        let public = whole(client.send_request(get("https://www.home.example/")).await.unwrap()).await;

        assert_eq!(admin, never);
        assert_eq!(admin.0, StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(public.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn an_authority_that_is_not_the_host_is_refused() {
        let edge = Edge::start(|_| {});
        let mut client = client(&edge, Origin::Wan, "www.home.example").await;
        let mut request = get("https://www.home.example/");
        request.headers_mut().insert("host", "admin.home.example".parse().unwrap());

        let (status, _, _) = whole(client.send_request(request).await.unwrap()).await;

        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn bodies_stream_both_ways() {
        let behind = Behind::start().await;
        let edge =
            Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind.address))));
        let mut client = client(&edge, Origin::Wan, "app.home.example").await;

        let (_, _, down) = whole(client.send_request(get("https://app.home.example/download")).await.unwrap()).await;
        let body = Full::new(Bytes::from(vec![b'u'; edge::BIG])).boxed();
        let request = Request::post("https://app.home.example/upload").body(body).unwrap();
        let (_, _, up) = whole(client.send_request(request).await.unwrap()).await;

        assert_eq!(down.len(), edge::BIG);
        assert_eq!(up, edge::BIG.to_string());
    }

    #[tokio::test]
    async fn more_fields_than_allowed_are_refused() {
        let edge = Edge::start(|_| {});
        let mut client = client(&edge, Origin::Wan, "www.home.example").await;
        let mut request = get("https://www.home.example/");
        for crumb in 0..101 {
            request.headers_mut().append("cookie", format!("c={crumb}").parse().unwrap());
        }

        let (status, _, _) = whole(client.send_request(request).await.unwrap()).await;

        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_stream_whose_window_stays_shut_is_reset_and_its_connection_lives() {
        let behind = Behind::start().await;
        let edge = Edge::start(|config| {
            config.timeouts.body = std::time::Duration::from_millis(300);
            config.routes.push(route("app.home.example", "/", public(), to(behind.address)));
        });
        let mut client = client(&edge, Origin::Wan, "app.home.example").await;

        let response = client.send_request(get("https://app.home.example/download")).await.unwrap();
        let (_, body) = response.into_parts();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let stalled = body.collect().await;
        let (status, _, _) = whole(client.send_request(get("https://app.home.example/x")).await.unwrap()).await;

        assert!(stalled.is_err());
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn an_answer_of_ours_that_finds_no_room_is_not_held_for_ever() {
        let edge = Edge::start(|config| config.timeouts.body = std::time::Duration::from_millis(300));
        let mut client = shut_client(&edge, Origin::Wan, "www.home.example").await;

        for host in ["never", "www"] {
            let response = client.send_request(get(&format!("https://{host}.home.example/"))).await.unwrap();
            let held = tokio::time::timeout(edge::PATIENCE, response.into_body().collect()).await;

            assert!(held.expect("the stream ends").is_err(), "{host}");
        }
    }
}

/// A CA with a certificate for a client, and the configuration of a client that shows it.
struct Card {
    ca: std::path::PathBuf,
    client: std::sync::Arc<rustls::ClientConfig>,
    _folder: tempfile::TempDir,
}

impl Card {
    fn new(server: &std::path::Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, root.pem()).unwrap();
        let own = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["phone".into()]).unwrap();
        let leaf = leaf.signed_by(&own, &rcgen::Issuer::from_params(&params, &key)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(server).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf.into()], PrivateKeyDer::Pkcs8(own.serialize_der().into()))
            .unwrap();
        Self { ca, client: std::sync::Arc::new(config), _folder: folder }
    }

    /// Asks as who has it; says besides whether the session was resumed.
    async fn ask(&self, edge: &Edge, sni: &'static str, host: &str) -> std::io::Result<(String, bool)> {
        let stream = edge.connect(Origin::Wan, 443).await;
        let connector = tokio_rustls::TlsConnector::from(self.client.clone());
        let mut stream = connector.connect(sni.try_into().unwrap(), stream).await?;
        stream.write_all(get(host, "/").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Ok((String::from_utf8(answer).unwrap(), resumed))
    }
}

#[tokio::test]
async fn a_host_with_client_certificates_is_for_who_shows_one_and_its_connections_for_that_host() {
    let edge = Edge::start(|_| {});
    let certificate = edge.state.path().join("cert.pem");
    let made = rcgen::generate_simple_self_signed(vec!["*.home.example".into()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let key = edge.state.path().join("key.pem");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let card = Card::new(&certificate);
    let guarded = |config: &mut hearthgate::ingress::Config| {
        // One certificate for both hosts, so that nothing but what clients show tells them apart.
        let hosts = vec![HostPattern::Wildcard(edge::host("home.example"))];
        config.certificates.push(CertificateFiles { hosts, certificate: certificate.clone(), key: key.clone() });
        let page = config.routes[0].to.clone();
        config.routes.push(route("safe.home.example", "/", public(), page));
        let safe = HostPattern::Exact(edge::host("safe.home.example"));
        config.client_cas.insert(safe, card.ca.clone());
    };
    edge.reload(guarded);
    let stranger = async |sni: &str, host: &str| {
        let stream = edge.connect(Origin::Wan, 443).await;
        let mut stream = edge.tls_trusting(stream, sni, "http/1.1", &certificate).await.ok()?;
        stream.write_all(get(host, "/").as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8(answer).unwrap())
    };

    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(stranger("safe.home.example", "safe.home.example").await, None);
    assert_eq!(status(&stranger("www.home.example", "www.home.example").await.unwrap()), "200");
    assert_eq!(status(&stranger("www.home.example", "safe.home.example").await.unwrap()), "421");
    let (first, resumed) = card.ask(&edge, "safe.home.example", "safe.home.example").await.unwrap();
    assert_eq!((status(&first).as_str(), resumed), ("200", false));
    let (again, resumed) = card.ask(&edge, "safe.home.example", "safe.home.example").await.unwrap();
    assert_eq!((status(&again).as_str(), resumed), ("200", true));
    let (other, _) = card.ask(&edge, "safe.home.example", "www.home.example").await.unwrap();
    assert_eq!(status(&other), "421");
}

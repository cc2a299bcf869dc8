//! Requests that want to be taken for something else: by another path, another host, another client, another origin.

use std::sync::atomic::Ordering;

use hearthgate::origin::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls;

use super::{
    edge::{Behind, Edge, VPN, public, read_to_end, route, to, vpn},
    frames::{END_HEADERS, END_STREAM, Fate, HEADERS, Peer, fields, frame, request, with},
};

const HOST: &str = "app.home.example";

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_closed_path_is_not_reached_by_any_other_way_to_write_it() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
        config.routes.push(route(HOST, "/admin", vpn(), to(behind.address)));
    });

    for target in [
        "/admin",
        "//admin",
        "///admin",
        "/./admin",
        "/x/../admin",
        "/x/..;/admin",
        "/%2e/admin",
        "/%2e%2e/admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/%2561dmin",
        "/admin%2f",
        "/admin%2Fx",
        "/%2fadmin",
        "/%5cadmin",
        "/\\admin",
        "/x\\..\\admin",
        "/admin;x",
        "/admin;x=1/y",
        "/admin/;/",
        "/admin%00",
        "/admin%00.png",
        "/admin%20",
        "/admin.",
        "/admin/.",
        "/admin/..",
        "/admin%0a",
        "/admin%0d%0aX:y",
        "/admin?x",
        "/admin#x",
        "/ADMIN",
        "/Admin/x",
        "/%c0%afadmin",
        "/%e0%80%afadmin",
        "/%ef%bc%8fadmin",
        "/\u{ff0f}admin",
        "/admin/%2e%2e/x",
        "/x%2f..%2fadmin",
        "/.%2e/admin",
        "/x/%2e%2e%2fadmin",
        "https://app.home.example/admin",
        "https://app.home.example//admin",
    ] {
        let answer = edge.ask(Origin::Wan, HOST, &get(target, "")).await;

        // Refused, or something that no server could take for the closed path.
        let sent = answer.split_once("\r\n\r\n").map(|(_, sent)| sent).unwrap_or_default();
        let path = sent.split(' ').nth(1).unwrap_or_default().to_lowercase();
        let reached = path.trim_matches('/').split(['/', ';', '?', '.', '%']).next() == Some("admin");
        assert!(
            status(&answer) != 200 || !reached && !path.contains("..") && !path.contains('\\'),
            "{target}: {answer}"
        );
    }
    assert_eq!(status(&edge.ask(VPN, HOST, &get("/admin", "")).await), 200);
}

#[tokio::test]
async fn a_host_has_one_reading_on_the_wire_however_many_there_are() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
        // More than the number at which some proxies change how they look hosts up.
        for number in 0..150 {
            config.routes.push(route(&format!("h{number}.home.example"), "/", public(), to(behind.address)));
        }
    });
    let ask = async |host: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        edge.ask(Origin::Wan, HOST, &request).await
    };

    // A router may have made any port of ours; it is neither matched nor sent on.
    for host in [
        HOST,
        "APP.home.example",
        "App.Home.Example",
        "app.home.example.",
        "app.home.example:443",
        "app.home.example:8443",
    ] {
        let answer = ask(host).await;
        assert!(answer.contains("\r\nhost: app.home.example\r\n"), "{host}: {answer}");
    }
    for (host, expected) in [
        ("admin.home.example", 421),
        ("ADMIN.home.example", 421),
        ("admin.home.example.", 421),
        ("app.home.example, admin.home.example", 400),
        ("admin.home.example@app.home.example", 400),
        ("app.home.example..", 400),
        ("%61pp.home.example", 400),
        ("app_home.example", 400),
        ("app.home.example\tx", 400),
        ("app.home.example/", 400),
        ("app.home.example:", 400),
        ("[::1]", 421),
        ("", 400),
    ] {
        let got = status(&ask(host).await);
        // A host that cannot be is a bad request, one that is not here is misdirected; neither is served.
        assert!(got == expected || matches!((got, expected), (400, 421) | (421, 400)), "{host}: {got}");
    }
}

#[tokio::test]
async fn what_the_edge_says_of_the_client_can_be_neither_taken_off_nor_said_before() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let theirs = "Connection: X-Forwarded-For, X-Real-IP, X-Forwarded-Proto, X-Request-Id, Via, Host, Cookie-Not\r\n\
                  X-Forwarded-For: 10.77.0.2\r\nX-Real-IP: 10.77.0.2\r\nForwarded: for=10.77.0.2\r\n\
                  CF-Connecting-IP: 10.77.0.2\r\nTrue-Client-IP: 10.77.0.2\r\nX_Real_IP: 10.77.0.2\r\n\
                  X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Forwarded-Prefix: /admin\r\n\
                  X-Forwarded-Host: admin.home.example\r\nX-HTTP-Method-Override: DELETE\r\nTE: trailers\r\n\
                  Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTrailer: X-Forwarded-For\r\n";

    let answer = edge.ask(Origin::Wan, HOST, &get("/x", theirs)).await;

    let (_, sent) = answer.split_once("\r\n\r\n").unwrap();
    for said in
        ["x-forwarded-for: 203.0.113.9", "x-real-ip: 203.0.113.9", "x-forwarded-proto: https", "host: app.home.example"]
    {
        assert!(sent.contains(&format!("\r\n{said}\r\n")), "{said}: {sent}");
    }
    for gone in ["10.77.0.2", "admin", "DELETE", "trailer", "keep-alive", "connection"] {
        assert!(!sent.to_lowercase().contains(&gone.to_lowercase()), "{gone}: {sent}");
    }
}

#[tokio::test]
async fn chunks_that_others_read_differently_are_refused_with_what_stands_behind_them() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");

    for (name, body) in [
        ("TERM.EXT", format!("2;\nxx\r\n0\r\n\r\n{smuggled}")),
        ("EXT.TERM", format!("2;\rxx\r\n0\r\n\r\n{smuggled}")),
        ("TERM.SPILL", format!("5\r\nAAAAA\r2\r\n0\r\n\r\n{smuggled}")),
        ("SPILL.TERM", format!("5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n{smuggled}")),
        ("ONE.TWO", format!("5\r\nAAAAA\n\r\n0\r\n\r\n{smuggled}")),
        ("TRAIL.TERM", format!("0\r\nX: y\n\r\n{smuggled}")),
        ("NUL.EXT", format!("2;a=\0\r\nxx\r\n0\r\n\r\n{smuggled}")),
        ("SPACE", format!("2 \r\nxx\r\n0\r\n\r\n{smuggled}")),
        ("HEX", format!("0x2\r\nxx\r\n0\r\n\r\n{smuggled}")),
        ("LONG", format!("ffffffffffffffff2\r\nxx\r\n0\r\n\r\n{smuggled}")),
    ] {
        let request = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let answer = edge.ask(Origin::Wan, HOST, &request).await;

        assert_eq!(status(&answer), 400, "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
    }
}

#[tokio::test]
async fn what_http2_can_carry_and_http1_cannot_goes_no_further() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let pseudo = |method: &str, authority: &str, path: &str| {
        fields(&[(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)])
    };
    let before = behind.connections.load(Ordering::SeqCst);

    for (name, block) in [
        ("a line in the path", pseudo("GET", HOST, "/x HTTP/1.1\r\nHost: admin.home.example\r\nX: y")),
        ("a space in the path", pseudo("GET", HOST, "/x HTTP/1.1")),
        ("a path without its slash", pseudo("GET", HOST, "x")),
        ("an absolute path", pseudo("GET", HOST, "https://admin.home.example/")),
        ("a line in the method", pseudo("GET / HTTP/1.1\r\nX: y", HOST, "/x")),
        ("a space in the method", pseudo("GET /", HOST, "/x")),
        ("a line in the authority", pseudo("GET", "app.home.example\r\nX: y", "/x")),
        ("a user in the authority", pseudo("GET", "app.home.example@admin.home.example", "/x")),
        ("two authorities", pseudo("GET", "app.home.example,admin.home.example", "/x")),
        ("a line in a value", with(request("GET", "/x"), &[("x-a", "b\r\nx-c: d")])),
        ("a line feed in a value", with(request("GET", "/x"), &[("x-a", "b\nx-c: d")])),
        ("a line in a name", with(request("GET", "/x"), &[("x-a\r\nx-b", "c")])),
        ("a colon in a name", with(request("GET", "/x"), &[("x-a:x-b", "c")])),
        ("chunked", with(request("POST", "/x"), &[("transfer-encoding", "chunked")])),
        ("two lengths", with(request("POST", "/x"), &[("content-length", "1"), ("content-length", "2")])),
        ("no length", with(request("POST", "/x"), &[("content-length", "+1")])),
        ("an upgrade", with(request("GET", "/x"), &[("upgrade", "websocket"), ("connection", "upgrade")])),
        ("another host beside", with(request("GET", "/x"), &[("host", "admin.home.example")])),
        ("CONNECT", fields(&[(":method", "CONNECT"), (":authority", "app.home.example:443")])),
        (
            "an extended CONNECT",
            with(request("CONNECT", "/x"), &[]).into_iter().chain(fields(&[(":protocol", "connect-ip")])).collect(),
        ),
    ] {
        let mut peer = Peer::open(&edge, b"").await;
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;

        let fate = peer.fate(1).await;
        assert_ne!(fate, Fate::Answered(0x88), "{name}");
    }
    assert_eq!(behind.connections.load(Ordering::SeqCst), before, "nothing of it reached the server");
}

#[tokio::test]
async fn answers_with_lines_of_their_own_do_not_reach_the_client() {
    use tokio::net::TcpListener;
    for said in [
        "HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A\0: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(said.as_bytes()).await;
            }
        });
        let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind))));

        let answer = edge.ask(Origin::Wan, HOST, &get("/x", "")).await;

        assert_eq!(status(&answer), 502, "{said:?}: {answer}");
    }
}

#[tokio::test]
async fn connections_to_a_server_are_not_shared_between_origins() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut both = public();
        both.vpn = true;
        config.routes.push(route(HOST, "/", both, to(behind.address)));
    });

    for _ in 0..3 {
        for origin in [Origin::Wan, VPN] {
            assert_eq!(status(&edge.ask(origin, HOST, &get("/x", "")).await), 200);
        }
    }

    // Tests run on several cores, each of which has connections of its own; one for both would be fewer than two.
    assert!(behind.connections.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn a_ticket_of_one_table_is_worth_nothing_in_another_and_nothing_is_said_early() {
    let edge = Edge::start(|_| {});
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    roots.add(CertificateDer::from_pem_file(edge.state.path().join("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    let config = std::sync::Arc::new(config);
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    let resumes = async |origin| {
        let stream = edge.connect(origin, 443).await;
        let mut stream = connector.connect("www.home.example".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: www.home.example\r\nConnection: close\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };

    assert!(!resumes(Origin::Wan).await);
    assert!(resumes(Origin::Wan).await);
    assert!(!resumes(VPN).await);
    assert!(resumes(VPN).await);
    let mut next = rustls::ClientConnection::new(config, "www.home.example".try_into().unwrap()).unwrap();
    assert!(next.early_data().is_none(), "a ticket permits early data, which can be replayed");
}

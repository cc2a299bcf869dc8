//! What a route does with its servers and their answers besides: limits, introductions, compression.

use std::{io::Read, net::SocketAddr, time::Duration};

use hearthgate::{
    ingress::{Coding, ProxyProtocol, ServerLimit},
    origin::Origin,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::edge::{self, Edge, PATIENCE, public, route, to};

const HOST: &str = "app.home.example";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

/// A server whose every connection is handed to the test, with what came first.
async fn handed() -> (SocketAddr, mpsc::UnboundedReceiver<(TcpStream, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") || head.len() < 40 {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = told.send((stream, head));
            });
        }
    });
    (address, asked)
}

pub(super) fn metrics(edge: &Edge) -> String {
    prometheus::TextEncoder::new().encode_to_string(&edge.metrics.gather()).unwrap()
}

async fn says(stream: &mut TcpStream, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_server_gets_no_more_than_it_takes_and_the_line_for_it_has_an_end() {
    let (behind, mut asked) = handed().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind));
        app.rules.server_limit = Some(ServerLimit { connections: 1, queue: 1, wait: Duration::from_secs(25) });
        config.routes.push(app);
    });
    let (first, second) = (get("/first", ""), get("/second", ""));
    let first = edge.ask(Origin::Wan, HOST, &first);
    let second = edge.ask(Origin::Wan, HOST, &second);
    let rest = async {
        let (mut stream, head) = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
        // One of the two is at work, the other waits: for a third there is no place.
        let third = loop {
            let waits = metrics(&edge).contains("hearthgate_ingress_upstream_waiting{route=\"app.home.example/\"} 1");
            if waits {
                break edge.ask(Origin::Wan, HOST, &get("/third", "")).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(asked.try_recv().is_err());
        says(&mut stream, "one").await;
        let (mut stream, other) = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
        assert_ne!(head, other);
        says(&mut stream, "two").await;
        third
    };
    let (first, second, third) = tokio::join!(first, second, rest);

    assert!(first.starts_with("HTTP/1.1 200 ") && second.starts_with("HTTP/1.1 200 "), "{first}{second}");
    assert!(third.starts_with("HTTP/1.1 503 ") && third.contains("retry-after: 25\r\n"), "{third}");
    let text = metrics(&edge);
    assert!(text.contains("refused_total{reason=\"queue_full\",route=\"app.home.example/\"} 1"), "{text}");
}

#[tokio::test]
async fn who_waits_for_too_long_is_sent_away() {
    let (behind, mut asked) = handed().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind));
        app.rules.server_limit = Some(ServerLimit { connections: 1, queue: 9, wait: Duration::from_millis(100) });
        config.routes.push(app);
    });
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    stream.write_all(get("/", "").as_bytes()).await.unwrap();
    let _held = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();

    let answer = edge.ask(Origin::Wan, HOST, &get("/", "")).await;

    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
}

#[tokio::test]
async fn a_server_is_told_the_client_before_anything_else() {
    for (version, header) in [
        (ProxyProtocol::V1, &b"PROXY TCP4 203.0.113.9 10.77.0.1 40000 443\r\n"[..]),
        (ProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\x4d\0\x01\x9c\x40\x01\xbb"),
    ] {
        let (behind, mut asked) = handed().await;
        let edge = Edge::start(|config| {
            let mut app = route(HOST, "/", public(), to(behind));
            app.rules.proxy_protocol = Some(version);
            config.routes.push(app);
        });
        for _ in 0..2 {
            let request = get("/x", "");
            let ask = edge.ask(Origin::Wan, HOST, &request);
            let serve = async {
                let (mut stream, head) = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                (stream, head)
            };
            let (answer, (_stream, head)) = tokio::join!(ask, serve);

            assert!(answer.ends_with("ok"), "{answer}");
            assert!(head.starts_with(header), "{:?}", String::from_utf8_lossy(&head));
            assert!(head[header.len()..].starts_with(b"GET /x HTTP/1.1\r\n"));
        }
    }
}

/// A server that says a long page, with these fields besides.
async fn pages(fields: &'static str) -> SocketAddr {
    let (address, mut asked) = handed().await;
    tokio::spawn(async move {
        while let Some((mut stream, _)) = asked.recv().await {
            let page = "a page of the house. ".repeat(1000);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: text/html\r\n", page.len());
            let _ = stream.write_all(format!("{head}{fields}Connection: close\r\n\r\n{page}").as_bytes()).await;
        }
    });
    address
}

/// Asks for a page as something that takes everything; returns head and body.
async fn page(edge: &Edge, fields: &str) -> (String, Vec<u8>) {
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    // HTTP/1.0 has no chunks, so the body is as it came.
    let request = format!("GET /page HTTP/1.0\r\nHost: {HOST}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end..].to_vec())
}

#[tokio::test]
async fn text_is_compressed_where_nothing_personal_is_in_it() {
    let start = async |fields| {
        let behind = pages(fields).await;
        Edge::start(|config| {
            let mut app = route(HOST, "/", public(), to(behind));
            app.rules.compress = vec![Coding::Brotli, Coding::Gzip];
            config.routes.push(app);
        })
    };
    let whole = "a page of the house. ".repeat(1000);
    let edge = start("ETag: \"a\"\r\n").await;

    for coding in ["br", "gzip"] {
        let (head, body) = page(&edge, &format!("Accept-Encoding: {coding}\r\n")).await;
        let mut text = String::new();
        match coding {
            "br" => brotli::Decompressor::new(&body[..], 4096).read_to_string(&mut text).unwrap(),
            _ => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap(),
        };
        assert!(body.len() < 1000 && text == whole, "{head}");
        for field in [&format!("content-encoding: {coding}\r\n")[..], "vary: accept-encoding\r\n", "etag: W/\"a\"\r\n"]
        {
            assert!(head.contains(field), "{head}");
        }
        assert!(!head.contains("content-length"), "{head}");
    }
    for fields in ["", "Accept-Encoding: br\r\nCookie: a=b\r\n", "Accept-Encoding: br\r\nAuthorization: Basic x\r\n"] {
        let (head, body) = page(&edge, fields).await;
        assert!(body == whole.as_bytes() && head.contains("etag: \"a\"\r\n"), "{head}");
    }
    let signed_in = start("Set-Cookie: a=b\r\n").await;
    assert_eq!(page(&signed_in, "Accept-Encoding: br\r\n").await.1, whole.as_bytes());
    let mut off = public();
    off.vpn = true;
    let behind = pages("").await;
    let off = Edge::start(|config| config.routes.push(route(HOST, "/", off, to(behind))));
    assert_eq!(page(&off, "Accept-Encoding: br\r\n").await.1, whole.as_bytes(), "it is off by default");
}

#[tokio::test]
async fn what_is_known_of_a_compressed_body_is_sent_at_once() {
    let (behind, mut asked) = handed().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind));
        app.rules.compress = vec![Coding::Gzip];
        config.routes.push(app);
    });
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut client = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    client
        .write_all(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let (mut server, _) = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();

    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nbegun").await.unwrap();
    let mut got = Vec::new();
    let begun = loop {
        let read =
            timeout(PATIENCE, client.read_buf(&mut got)).await.expect("it comes without waiting for more").unwrap();
        assert!(read > 0);
        let Some(end) = got.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let mut text = [0; 5];
        if flate2::read::GzDecoder::new(&got[end + 4..]).read_exact(&mut text).is_ok() {
            break text;
        }
    };

    assert_eq!(&begun, b"begun");
}

#[tokio::test]
async fn events_may_be_silent_for_longer_than_a_body_may_stall() {
    let (behind, mut asked) = handed().await;
    let edge = Edge::start(|config| {
        config.timeouts.body = Duration::from_millis(200);
        config.routes.push(route(HOST, "/", public(), to(behind)));
    });
    let serve = async {
        let (mut stream, _) = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        stream.write_all(b"data: 2\n\n").await.unwrap();
    };
    let request = get("/events", "");

    let (answer, ()) = tokio::join!(edge.ask(Origin::Wan, HOST, &request), serve);

    assert!(answer.contains("data: 1\n\n") && answer.contains("data: 2\n\n"), "{answer}");
}

#[tokio::test]
async fn a_route_takes_no_longer_head_than_it_says() {
    let behind = edge::Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.limits.header = 200;
        config.routes.push(app);
    });

    let short = edge.ask(Origin::Wan, HOST, &get("/", "")).await;
    let long = edge.ask(Origin::Wan, HOST, &get("/", &format!("X-A: {}\r\n", "a".repeat(200)))).await;

    assert!(short.starts_with("HTTP/1.1 200 ") && long.starts_with("HTTP/1.1 431 "), "{short}{long}");
}

#[tokio::test]
async fn a_server_that_dies_in_the_midst_of_an_upload_is_a_502() {
    let (behind, mut asked) = handed().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut client = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000000\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client.flush().await.unwrap();

    drop(timeout(PATIENCE, asked.recv()).await.unwrap().unwrap());
    let _ = client.write_all(&[b'x'; 100_000]).await;
    let _ = client.flush().await;
    let answer = edge::read_to_end(&mut client).await;

    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    // What has begun is not sent a second time.
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_says_endless_rubbish_is_a_502() {
    for (begin, piece) in
        [("HTTP/1.1 200 OK\r\nX: ", "x"), ("HTTP/1.1 200 OK\r\n", "X: y\r\n"), ("", "HTTP/1.1 103 Early\r\n\r\n")]
    {
        let (behind, mut asked) = handed().await;
        let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind))));
        tokio::spawn(async move {
            let (mut stream, _) = asked.recv().await.unwrap();
            let _ = stream.write_all(begin.as_bytes()).await;
            while stream.write_all(piece.repeat(1000).as_bytes()).await.is_ok() {}
        });

        let answer = edge.ask(Origin::Wan, HOST, &get("/", "")).await;

        assert!(answer.starts_with("HTTP/1.1 502 "), "{piece}: {answer}");
    }
}

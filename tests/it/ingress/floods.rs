//! Who sends much, sends slowly, or takes nothing: it costs its own connection, and nobody else notices.

use std::{cell::Cell, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use hearthgate::{ingress::Config, origin::Origin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    edge::{self, Behind, Edge, PATIENCE, public, read_one, read_to_end, route, to},
    frames::{
        DATA, END_HEADERS, END_STREAM, Fate, HEADERS, PADDED, PING, PRIORITY, Peer, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, edge as h2_edge, flooded, frame, get as h2_get, request, setting, with,
    },
};

const HOST: &str = "app.home.example";
const OK: Fate = Fate::Answered(0x88);
/// How long an edge of these tests waits where it waits for hardly a moment.
const SHORT: Duration = Duration::from_millis(300);

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// An edge whose waits are short, before this server.
fn hasty(behind: SocketAddr) -> Edge {
    Edge::start(|config| {
        config.timeouts.header = SHORT;
        config.timeouts.idle = SHORT;
        hurry(config, behind);
    })
}

/// Nobody who has begun may stall.
fn hurry(config: &mut Config, behind: SocketAddr) {
    config.timeouts.body = SHORT;
    config.timeouts.response = SHORT;
    config.routes.push(route(HOST, "/", public(), to(behind)));
}

#[tokio::test]
async fn frames_that_carry_nothing_end_their_own_connection_and_no_other() {
    let (_behind, edge) = h2_edge().await;
    let mut bystander = Peer::open(&edge, b"").await;
    let open = || frame(HEADERS, END_HEADERS, 1, &request("POST", "/upload"));
    let after_open = |number: u32, piece: Vec<u8>| if number == 0 { [open(), piece].concat() } else { piece };

    // Each of them is a frame that costs the sender nothing; the connection ends, or is served no faster than it reads
    // what it is told: either way it can be asked for nothing else, and the others are answered.
    let empty_data = flooded(&edge, b"", |n| after_open(n, frame(DATA, 0, 1, b"").repeat(100)), 2_000).await;
    let padded = flooded(&edge, b"", |n| after_open(n, frame(DATA, PADDED, 1, &[255; 256]).repeat(10)), 2_000).await;

    for (name, fate) in [("empty data", empty_data), ("padded data", padded)] {
        assert!(matches!(fate, Fate::GoAway(_) | Fate::Closed), "{name}: {fate:?}");
    }
    bystander.send(&h2_get(1)).await;
    assert_eq!(bystander.fate(1).await, OK);
}

/// Sends a flood that must be answered frame by frame, and reads none of the answers; returns how much of it was taken.
async fn unread(edge: &Edge, piece: &[u8], pieces: usize) -> usize {
    let mut peer = Peer::open(edge, b"").await;
    for taken in 0..pieces {
        let write = async {
            peer.stream.write_all(piece).await?;
            peer.stream.flush().await
        };
        if !matches!(timeout(Duration::from_millis(500), write).await, Ok(Ok(()))) {
            return taken;
        }
    }
    pieces
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_piled_up() {
    let (_behind, edge) = h2_edge().await;
    let mut bystander = Peer::open(&edge, b"").await;

    // 1000 frames each; an answer has as many bytes as what it answers.
    let pings = unread(&edge, &frame(PING, 0, 0, &[7; 8]).repeat(1000), 1000).await;
    let settings = unread(&edge, &frame(SETTINGS, 0, 0, &setting(4, 70_000)).repeat(1000), 1000).await;

    assert!(pings < 300 && settings < 300, "{pings} thousand pings, {settings} thousand settings");
    bystander.send(&h2_get(1)).await;
    assert_eq!(bystander.fate(1).await, OK);
}

#[tokio::test]
async fn frames_that_ask_for_nothing_keep_nobody_from_being_served() {
    let (_behind, edge) = h2_edge().await;
    let mut noisy = Peer::open(&edge, b"").await;
    let mut bystander = Peer::open(&edge, b"").await;
    let noise = [frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])].concat();

    for _ in 0..200 {
        noisy.send(&noise.repeat(100)).await;
    }

    bystander.send(&h2_get(1)).await;
    assert_eq!(bystander.fate(1).await, OK);
}

#[tokio::test]
async fn each_stream_counts_for_its_clients_limit_also_one_that_is_taken_back() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.wan_limit = Some("1/s burst 5".parse().unwrap());
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
    });
    let mut peer = Peer::open(&edge, b"").await;
    for number in 0..8 {
        let stream = 2 * number + 1;
        peer.send(&h2_get(stream)).await;
        assert!(matches!(peer.fate(stream).await, Fate::Answered(_)));
        peer.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
    }

    let answer = edge.ask(Origin::Wan, HOST, &get("/x")).await;

    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
}

#[tokio::test]
async fn a_stream_that_its_client_takes_back_ends_what_its_server_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = listener.local_addr().unwrap();
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind))));
    let mut peer = Peer::open(&edge, b"").await;
    peer.send(&h2_get(1)).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let mut head = [0; 4096];
    assert!(server.read(&mut head).await.unwrap() > 0);

    peer.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).await;

    let ended = timeout(PATIENCE, server.read(&mut head)).await.expect("the server is told");
    assert_eq!(ended.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_head_that_trickles_is_given_up_however_often_something_comes() {
    let behind = Behind::start().await;
    let edge = hasty(behind.address);
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let trickle = async {
        loop {
            let wrote = async {
                write.write_all(b"X-A: b\r\n").await?;
                write.flush().await
            };
            if wrote.await.is_err() {
                return std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };

    let answer = tokio::select! {
        answer = read_to_end(&mut read) => answer,
        () = trickle => unreachable!(),
    };

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_given_up() {
    let behind = Behind::start().await;
    let edge = hasty(behind.address);
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    stream.write_all(get("/download").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    while edge.plane.status().under_way.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let ended = async {
        while !edge.plane.status().under_way.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("its request ends");

    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < edge::BIG, "{}", rest.len());
    assert!(behind.sent.load(Ordering::SeqCst) < edge::BIG);
}

#[tokio::test]
async fn an_upload_to_a_server_that_is_gone_is_answered_while_the_client_still_sends() {
    let (_held, gone) = edge::gone();
    let edge = Edge::start(|config| {
        let mut plain = route(HOST, "/", public(), to(gone));
        plain.rules.plain = true;
        config.routes.push(plain);
    });
    // A socket of the kernel's: an end without order would destroy the answer that is on its way.
    let mut stream = TcpStream::connect(edge.http()).await.unwrap();
    let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let body = vec![b'u'; 4_000_000];
    stream.write_all(&body).await.expect("it is listened to");

    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().expect("an end in order");

    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_not_held_here() {
    // It takes connections and reads nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    let _held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    // Who has not begun yet has time: a slow machine takes some for its handshake.
    let edge = Edge::start(|config| hurry(config, dead));
    let stream = edge.connect(Origin::Wan, 443).await;
    let stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let taken = Cell::new(0);
    let upload = async {
        let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000000\r\n\r\n");
        let mut sent = write.write_all(head.as_bytes()).await;
        let piece = vec![b'u'; 1 << 20];
        while sent.is_ok() && taken.get() < 1000 {
            sent = write.write_all(&piece).await;
            taken.set(taken.get() + 1);
        }
        // What is said to it decides.
        std::future::pending().await
    };

    // What comes after the answer is read and thrown away, so that the client sees it.
    let mut answer = [0; 13];
    tokio::select! {
        biased;
        read = timeout(PATIENCE, read.read_exact(&mut answer)) => { read.unwrap().unwrap(); }
        () = upload => {}
    }

    // What fits into the kernel's buffers on the way, and little more.
    assert!(taken.get() < 100, "{} MiB were taken", taken.get());
    assert_eq!(answer, *b"HTTP/1.1 504 ");

    let mut peer = Peer::open(&edge, b"").await;
    let head = with(request("POST", "/x"), &[("content-length", "1000000000")]);
    peer.send(&frame(HEADERS, END_HEADERS, 1, &head)).await;
    // Within the window that holds before anybody has said another one (RFC 9113 §6.9.2).
    for _ in 0..6 {
        peer.send(&frame(DATA, 0, 1, &[b'u'; 10_000])).await;
    }
    // 504 is one of the static table's.
    let fate = peer.fate(1).await;
    assert!(matches!(fate, Fate::Answered(_) | Fate::Reset(_)), "the stream ends, and not so: {fate:?}");
}

#[tokio::test]
async fn what_is_refused_before_its_body_came_is_answered_and_the_client_sees_it() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.plain = true;
        app.rules.limits.body = 1000;
        app.rules.limits.header = 500;
        config.routes.push(app);
    });
    let post = |fields: &str| format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\n{fields}Content-Length: 3000000\r\n\r\n");
    let body = vec![b'u'; 3_000_000];

    for (head, status) in [
        (post(""), 413),
        (post(&format!("X-Long: {}\r\n", "x".repeat(600))), 431),
        (post("Transfer-Encoding: chunked\r\n"), 400),
        (post("Expect: the-unexpected\r\n"), 417),
        (post("").replace("Host: app", "Host: other"), 421),
    ] {
        let mut stream = TcpStream::connect(edge.http()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap_or_else(|error| panic!("{status}: {error}"));
        let mut answer = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();

        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert!(read.is_ok(), "{status}: {read:?}");
    }
}

#[tokio::test]
async fn more_requests_from_the_internet_than_the_configuration_says_are_told_to_come_back() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.max_requests = 3;
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
    });
    let mut peer = Peer::open(&edge, b"").await;
    let waiting: Vec<u8> = (0..3)
        .flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &request("GET", "/nothing")))
        .collect();
    peer.send(&waiting).await;
    while edge.plane.status().under_way.values().sum::<u64>() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let stranger = edge.ask(Origin::Wan, HOST, &get("/x").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let house = edge.ask(super::LAN, HOST, &get("/x").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;

    assert!(stranger.starts_with("HTTP/1.1 503 ") && stranger.contains("retry-after: 1\r\n"), "{stranger}");
    assert!(house.starts_with("HTTP/1.1 200 "), "{house}");
}

#[tokio::test]
async fn as_many_idle_connections_as_there_may_be_keep_nobody_out() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.timeouts.header = Duration::from_secs(600);
        config.timeouts.idle = Duration::from_secs(600);
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.plain = true;
        config.routes.push(app);
    });
    // Both ends are in this process, and other tests open files meanwhile.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    let wanted = usize::try_from((limit / 3).min(10_000)).unwrap();
    let from_house = wanted.min(8_000);

    let mut idle = Vec::new();
    for number in 0..from_house {
        let mut stream = TcpStream::connect(edge.http()).await.unwrap();
        // Some have never said anything, some are between two requests.
        if number % 2 == 0 {
            stream.write_all(get("/x").as_bytes()).await.unwrap();
            assert!(read_one(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
        idle.push(stream);
    }
    let mut strangers = Vec::new();
    for _ in from_house..wanted {
        strangers.push(edge.connect(Origin::Wan, 80).await);
    }

    let all_are_in = async {
        while (edge.plane.status().connections as usize) < wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_are_in).await.expect("all of them are taken");
    let answer = edge.ask(super::LAN, HOST, &get("/x").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Each of them can still go on.
    for stream in idle.iter_mut().step_by(500) {
        stream.write_all(get("/x").as_bytes()).await.unwrap();
        assert!(read_one(stream).await.starts_with("HTTP/1.1 200 "));
    }
    eprintln!("{} idle connections, {} from the Internet", idle.len(), strangers.len());
}

#[tokio::test]
async fn a_length_that_was_a_lie_resets_the_stream_and_not_the_connection() {
    let (_behind, edge) = h2_edge().await;
    let mut peer = Peer::open(&edge, b"").await;

    peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/too-short"))).await;
    let fate = loop {
        match peer.fate(1).await {
            Fate::Answered(_) => {}
            fate => break fate,
        }
    };
    peer.send(&h2_get(3)).await;

    assert!(matches!(fate, Fate::Reset(_)), "{fate:?}");
    assert_eq!(peer.fate(3).await, OK);
}

//! What upstreams say, and what becomes of it.

use std::net::SocketAddr;

use hearthgate::origin::Origin;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::edge::{Edge, public, read_to_end, route, to};

/// How an upstream's answer reaches us.
#[derive(Clone, Copy)]
enum Pace {
    AtOnce,
    ByteByByte,
}

/// An upstream that says the same to everybody and closes.
async fn says(answer: &'static str, pace: Pace) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.set_nodelay(true);
                let step = match pace {
                    Pace::AtOnce => answer.len().max(1),
                    Pace::ByteByByte => 1,
                };
                for piece in answer.as_bytes().chunks(step) {
                    stream.write_all(piece).await?;
                    tokio::task::yield_now().await;
                }
                stream.shutdown().await
            });
        }
    });
    address
}

async fn ask(answer: &'static str, pace: Pace, request: &str) -> String {
    let behind = says(answer, pace).await;
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind))));
    edge.ask(Origin::Wan, "app.home.example", request).await
}

fn request(method: &str) -> String {
    format!("{method} /x HTTP/1.1\r\nHost: app.home.example\r\nConnection: close\r\n\r\n")
}

/// Puts the chunks of a body together; a size stands before each.
fn joined(body: &str) -> String {
    body.lines().skip(1).step_by(2).collect()
}

#[tokio::test]
async fn each_framing_is_understood_in_whatever_pieces_it_comes() {
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", "content-length: 5\r\n", "\r\n\r\nwhole"),
        ("HTTP/1.1 200 OK\r\n\r\nwhole", "transfer-encoding: chunked\r\n", "0\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nwho\r\n2\r\nle\r\n0\r\nX-Late: 1\r\n\r\n",
            "transfer-encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
            "content-length: 5\r\n",
            "\r\n\r\nwhole",
        ),
        ("HTTP/1.0 200\nContent-Length: 5\nContent-Type: text/plain\n\nwhole", "text/plain\r\n", "\r\n\r\nwhole"),
    ];

    for (answer, field, end) in answers {
        for pace in [Pace::AtOnce, Pace::ByteByByte] {
            let got = ask(answer, pace, &request("GET")).await;

            assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}: {got}");
            assert!(got.contains(field) && got.ends_with(end), "{answer}: {got}");
            let (head, body) = got.split_once("\r\n\r\n").unwrap();
            let text = if head.contains("chunked") { joined(body) } else { body.to_owned() };
            assert_eq!(text, "whole", "{answer}: {got}");
            assert!(!got.contains("x-late"), "{got}");
        }
    }
}

#[tokio::test]
async fn what_has_no_body_has_none_whatever_it_says() {
    let head = ask("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Pace::AtOnce, &request("HEAD")).await;
    let unchanged = ask("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Pace::AtOnce, &request("GET")).await;
    let nothing = ask("HTTP/1.1 204 No Content\r\n\r\n", Pace::AtOnce, &request("GET")).await;

    assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(unchanged.contains("content-length: 5\r\n") && unchanged.ends_with("\r\n\r\n"), "{unchanged}");
    assert!(nothing.starts_with("HTTP/1.1 204 ") && nothing.ends_with("\r\n\r\n"), "{nothing}");
}

#[tokio::test]
async fn an_answer_with_two_readings_is_none() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nwhole!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        "",
    ] {
        let got = ask(answer, Pace::AtOnce, &request("GET")).await;

        assert!(got.starts_with("HTTP/1.1 502 "), "{answer}: {got}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!").await;
        // It never reads the rest.
        std::future::pending::<()>().await;
    });
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, "app.home.example", "http/1.1").await.unwrap();

    let head = "POST /x HTTP/1.1\r\nHost: app.home.example\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'.'; 1000]).await.unwrap();
    stream.flush().await.unwrap();
    let got = read_to_end(&mut stream).await;

    assert!(got.starts_with("HTTP/1.1 413 ") && got.ends_with("no!"), "{got}");
}

#[tokio::test]
async fn an_empty_post_says_that_it_is_empty() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = listener.local_addr().unwrap();
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    let edge = Edge::start(|config| config.routes.push(route("app.home.example", "/", public(), to(behind))));

    edge.ask(Origin::Wan, "app.home.example", &request("POST")).await;

    let seen = seen.await.unwrap();
    assert!(seen.starts_with("POST /x HTTP/1.1\r\nhost: app.home.example\r\n"), "{seen}");
    assert!(seen.contains("\r\ncontent-length: 0\r\n") && seen.ends_with("\r\n\r\n"), "{seen}");
}

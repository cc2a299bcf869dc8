//! Requests that have two readings, over the wire: one answer, a close, and nothing behind them is served.

use hearthgate::origin::Origin;

use super::edge::{Behind, Edge, public, route, to};

const HOST: &str = "app.home.example";
/// Stands behind every probe. If it is answered, the probe was a smuggler's.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.home.example\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

fn refused() -> Vec<(&'static str, String, u16)> {
    vec![
        ("both framings", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("equal lengths", post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), 400),
        ("listed lengths", post("Content-Length: 1, 1\r\n", "a"), 400),
        ("signed length", post("Content-Length: +1\r\n", "a"), 400),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501),
        ("two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), 400),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400),
        ("space before colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        ("coding in 1.0", chunked("0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("line feed in an extension", chunked("1;x\na\r\n0\r\n\r\n"), 400),
        ("line feed after a size", chunked("1\r\na\r\n0\n\r\n"), 400),
        ("no line end after data", chunked("1\r\nab0\r\n\r\n"), 400),
        ("signed size", chunked("+1\r\na\r\n0\r\n\r\n"), 400),
        ("bad trailer", chunked("0\r\nX : y\r\n\r\n"), 400),
        ("line feeds", get("/", "X: y\r\n").replace("\r\n", "\n"), 400),
        ("one line feed", get("/", "X: y\nZ: z\r\n"), 400),
        ("two hosts", get("/", "Host: app.home.example\r\n"), 400),
        ("two different hosts", get("/", "Host: admin.home.example\r\n"), 400),
        ("another host in the target", get("https://admin.home.example/", ""), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("user in the host", "GET / HTTP/1.1\r\nHost: app.home.example@admin.home.example\r\n\r\n".to_owned(), 400),
        ("folded line", get("/", "X: y\r\n z\r\n"), 400),
        ("CONNECT", format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n"), 501),
        ("fragment", get("/a#b", ""), 400),
        ("dot segments", get("/public/../admin", ""), 400),
        ("escaped dot segments", get("/public/%2e%2E/admin", ""), 400),
        ("escaped slash", get("/public%2fadmin", ""), 400),
        ("backslash", get("/public\\admin", ""), 400),
        ("unknown expectation", get("/", "Expect: foo\r\n"), 417),
        ("other version", get("/", "").replace("HTTP/1.1", "HTTP/1.2"), 505),
        ("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("NUL", get("/", "X: a\0b\r\n"), 400),
        ("long line", get(&format!("/{}", "a".repeat(20_000)), ""), 414),
        ("long head", get("/", &format!("X: {}\r\n", "a".repeat(20_000))), 431),
        ("many fields", get("/", &"Cookie: a=b\r\n".repeat(200)), 431),
    ]
}

#[tokio::test]
async fn what_has_two_readings_is_answered_once_and_closed() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));

    for (name, probe, status) in refused() {
        let answer = edge.ask(Origin::Wan, HOST, &(probe + SMUGGLED)).await;

        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close\r\n"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn what_could_be_misread_goes_no_further() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let fields = "X_Forwarded_For: 10.0.0.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
                  Connection: Upgrade, HTTP2-Settings, close\r\n";

    let answer = edge.ask(Origin::Wan, HOST, &get("//a//b;x=1/%41", fields)).await;

    let (_, sent) = answer.split_once("\r\n\r\n").unwrap();
    assert!(sent.starts_with("GET /a/b;x=1/A HTTP/1.1\r\n"), "{sent}");
    for gone in ["10.0.0.1", "h2c", "upgrade", "http2-settings", "_"] {
        assert!(!sent.to_lowercase().contains(gone), "{gone}: {sent}");
    }
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_order() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let requests = [
        chunked("3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"),
        "\r\n".to_owned() + &post("Content-Length: 3\r\n", "abc"),
        get("/last", "Connection: close\r\n"),
    ];

    let answer = edge.ask(Origin::Wan, HOST, &(requests.concat() + SMUGGLED)).await;

    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answer}");
    assert!(answer.contains("GET /last HTTP/1.1\r\n") && !answer.contains("smuggled"), "{answer}");
}

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::ingress::canonical::tests::data;

const LIMITS: Limits = Limits { line: 8000, head: 16 * 1024, fields: 100 };

fn read(text: &str) -> Result<Parse, Reject> {
    parse(text.as_bytes(), &LIMITS)
}

/// A good head, whole.
fn good(text: &str) -> RequestHead {
    match read(text) {
        Ok(Parse::Complete { head, used }) => {
            assert_eq!(used, text.len());
            *head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

fn status(text: &str) -> u16 {
    match read(text) {
        Err(reject) => reject.status,
        Ok(parse) => panic!("{text:?}: {parse:?}"),
    }
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

#[test]
fn a_request_of_a_browser_is_understood() {
    let head = good(
        "GET /photos/%41.jpg?size=%20x&y HTTP/1.1\r\nHost: Photos.Home.Example:8443\r\nCookie: a=b\r\n\
         Accept: */*\r\nX-Empty:\r\nX-Tab:\t a\tb \t\r\n\r\n",
    );

    assert_eq!(head.method, Method::GET);
    assert_eq!(head.form, Form::Origin);
    assert_eq!(head.path.as_str(), "/photos/A.jpg");
    assert_eq!(head.query.as_deref(), Some("size=%20x&y"));
    assert_eq!(head.host.as_str(), "photos.home.example");
    assert_eq!(head.port, Some(8443));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, Framing::None);
    assert_eq!(head.headers["x-tab"], "a\tb");
    assert_eq!(head.headers["x-empty"], "");
    assert_eq!(head.headers.len(), 5);
    assert!(head.keep_alive);
    assert!(!head.expect_continue);
}

#[test]
fn transfer_encoding_and_content_length_together() {
    assert_eq!(status(&post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")), 400);
    assert_eq!(status(&post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")), 400);
}

#[test]
fn duplicate_content_length_even_if_equal() {
    assert_eq!(status(&post("Content-Length: 5\r\nContent-Length: 5\r\n")), 400);
    assert_eq!(status(&post("Content-Length: 5, 5\r\n")), 400);
}

#[test]
fn transfer_codings_besides_chunked() {
    assert_eq!(status(&post("Transfer-Encoding: gzip, chunked\r\n")), 501);
    assert_eq!(status(&post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")), 400);
    for coding in [
        "xchunked",
        "identity",
        "gzip",
        "chunked, gzip",
        "chunked, chunked",
        ", chunked",
        "\"chunked\"",
        "",
        "chunked;x=1",
        "chunked,",
        "\u{b}chunked",
        "chun ked",
        "gzip chunked",
    ] {
        assert_eq!(status(&post(&format!("Transfer-Encoding: {coding}\r\n"))), 400, "{coding:?}");
    }
    assert_eq!(good(&post("Transfer-Encoding: CHUNKED \r\n")).framing, Framing::Chunked);
}

#[test]
fn transfer_encoding_in_http_1_0() {
    assert_eq!(status("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn content_length_is_digits() {
    for length in ["+1", "-1", "", "0x5", "1 1", "1.0", "18446744073709551616", "99999999999999999999", "１"] {
        assert_eq!(status(&post(&format!("Content-Length: {length}\r\n"))), 400, "{length:?}");
    }
    assert_eq!(good(&post("Content-Length: 9223372036854775807\r\n")).framing, Framing::Length(i64::MAX as u64));
    assert_eq!(good(&post("Content-Length: 0\r\n")).framing, Framing::Length(0));
}

#[test]
fn lines_ended_by_line_feed_alone() {
    assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\n"), 400);
}

#[test]
fn bare_carriage_returns() {
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\rHost: a\r\r"), 400);
    assert_eq!(status("GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn two_hosts() {
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), 400);
}

#[test]
fn absolute_form_whose_host_is_not_that_of_host() {
    assert_eq!(status(&get("http://b.example/", "")), 400);
    assert_eq!(status(&get("http://a.example:8080/", "")), 400);
    assert_eq!(status(&get("http://x@a.example/", "")), 400);
    assert_eq!(status(&get("ftp://a.example/", "")), 400);
    assert_eq!(status(&get("http:a.example/", "")), 400);
    assert_eq!(status(&get("http:///", "")), 400);
    assert_eq!(status(&get("a.example:80", "")), 400);
}

#[test]
fn absolute_form_of_the_same_host_is_taken() {
    let head = good(&get("HTTP://A.example:80/x?y", ""));

    assert_eq!(head.form, Form::Absolute(Scheme::Http));
    assert_eq!((head.path.as_str(), head.query.as_deref()), ("/x", Some("y")));
    assert_eq!(good(&get("https://a.example", "")).path.as_str(), "/");
    assert_eq!(good(&get("https://a.example?q", "")).query.as_deref(), Some("q"));
}

#[test]
fn no_host() {
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 400);
    assert_eq!(status("GET http://a/ HTTP/1.1\r\n\r\n"), 400);
}

#[test]
fn host_with_user_information_and_other_oddities() {
    for host in ["public@admin", "a b", "%61", "a:80:80", "a:x", "a/b", "a\u{e9}", "[::1", "127.1", "a..b", "a,b"] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host:?}");
    }
}

#[test]
fn folded_lines() {
    assert_eq!(status(&get("/", "X: a\r\n b\r\n")), 400);
    assert_eq!(status(&get("/", "X: a\r\n\tb: c\r\n")), 400);
    assert_eq!(status("GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn underscored_fields_are_dropped() {
    let head = good(&get("/", "X_Forwarded_For: 1.2.3.4\r\nTransfer_Encoding: x\r\nX-Real: y\r\n"));

    assert_eq!(head.dropped, 2);
    assert_eq!(head.headers.len(), 2);
    assert_eq!(head.framing, Framing::None);
}

#[test]
fn connect_and_trace() {
    assert_eq!(status("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"), 501);
    assert_eq!(status("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
}

#[test]
fn fragments() {
    assert_eq!(status(&get("/a#b", "")), 400);
    assert_eq!(status(&get("/a?b#c", "")), 400);
    assert_eq!(status(&get("http://a.example#c", "")), 400);
}

#[test]
fn dot_segments() {
    for target in ["/public/../admin", "/public/%2e%2e/admin", "/public/..;/admin", "/public/..%2fadmin", "/a\\..\\b"] {
        assert_eq!(status(&get(target, "")), 400, "{target}");
    }
}

#[test]
fn upgrades_other_than_websocket_are_stripped() {
    let head = good(&get("/", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n"));

    assert!(!head.headers.contains_key("upgrade"));
    assert!(!head.headers.contains_key("http2-settings"));
    assert_eq!(head.websocket, None);
    assert!(head.keep_alive);
    assert_eq!(head.nominated, ["http2-settings"]);
}

#[test]
fn unknown_expectations() {
    assert_eq!(status(&get("/", "Expect: foo\r\n")), 417);
    assert_eq!(status(&get("/", "Expect: 100-continue, foo\r\n")), 417);
    assert_eq!(status(&get("/", "Expect: 100-continue\r\nExpect: foo\r\n")), 417);
    let head = good(&post("Expect: 100-Continue\r\nContent-Length: 1\r\n"));
    assert!(head.expect_continue);
    assert!(!head.headers.contains_key("expect"));
    assert!(!good("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").expect_continue);
}

/// RFC 6455 §1.3.
const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

#[test]
fn a_websocket_handshake_is_told() {
    let head = good(&get("/chat", HANDSHAKE));

    assert_eq!(head.websocket.unwrap(), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(head.headers["upgrade"], "websocket");
}

#[test]
fn half_a_websocket_handshake_is_an_ordinary_request() {
    for (from, to) in [
        ("Upgrade: websocket", "Upgrade: websockets"),
        (", Upgrade", ""),
        ("Key", "Kay"),
        ("==", "="),
        ("dGhl", "dG_l"),
        (": 13", ": 8"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Key"),
        ("Upgrade: w", "Content-Length: 5\r\nUpgrade: w"),
    ] {
        let head = good(&get("/chat", &HANDSHAKE.replacen(from, to, 1)));
        assert_eq!(head.websocket, None, "{to}");
        assert!(!head.headers.contains_key("upgrade"));
    }
}

#[test]
fn the_preface_of_http_2() {
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400);
}

#[test]
fn other_versions() {
    assert_eq!(status("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), 505);
    assert_eq!(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
    assert_eq!(status("GET / HTTP/0.9\r\nHost: a\r\n\r\n"), 505);
    for version in ["http/1.1", "HTTP/1.10", "HTTP/1", "HTTP/1.1 ", " HTTP/1.1", "HTTPS/1.1", ""] {
        assert_eq!(status(&format!("GET / {version}\r\nHost: a\r\n\r\n")), 400, "{version:?}");
    }
    assert_eq!(status("GET /\r\n\r\n"), 400);
}

#[test]
fn malformed_request_lines() {
    for line in [
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET  HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET x HTTP/1.1",
    ] {
        assert_eq!(status(&format!("{line}\r\nHost: a\r\n\r\n")), 400, "{line:?}");
    }
}

#[test]
fn asterisk_form_is_for_options() {
    let head = good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");

    assert_eq!(head.form, Form::Asterisk);
    assert_eq!(head.path.as_str(), "/");
}

#[test]
fn malformed_fields() {
    for field in
        ["X : y", ": y", "X", "X y: z", "X\u{e9}: y", "X: a\0b", "X: a\u{7f}", "X: \u{1b}", "(X): y", "\u{b}X: y"]
    {
        assert_eq!(status(&get("/", &format!("{field}\r\n"))), 400, "{field:?}");
    }
    assert_eq!(good(&get("/", "X: caf\u{e9}\r\n")).headers["x"].as_bytes(), "caf\u{e9}".as_bytes());
}

#[test]
fn lines_and_heads_have_limits() {
    let limits = Limits { line: 30, head: 80, fields: 3 };
    let status = |text: &str| parse(text.as_bytes(), &limits).unwrap_err().status;

    assert_eq!(status("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n"), 414);
    assert_eq!(status("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 414);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(80))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(80))), 431);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nCookie: b\r\nCookie: c\r\nCookie: d\r\n\r\n"), 431);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nX_b: b\r\nX_c: c\r\nX_d: d\r\n\r\n"), 431);
    assert_eq!(Limits::new(64 * 1024, 100).line, 32 * 1024);
    assert_eq!(Limits::new(4096, 100).line, 4096);
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    assert_eq!(good("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").path.as_str(), "/");
    assert_eq!(status("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn connections_are_kept_as_each_version_says() {
    let kept = |version: &str, connection: &str| {
        good(&format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n")).keep_alive
    };

    assert!(kept("1.1", ""));
    assert!(kept("1.1", "x"));
    assert!(!kept("1.1", "x, Close"));
    assert!(!kept("1.1", "close, keep-alive"));
    assert!(!kept("1.0", ""));
    assert!(kept("1.0", "Keep-Alive"));
    assert!(!kept("1.0", "keep-alive\r\nConnection: close"));
}

#[test]
fn what_is_no_http_is_refused_at_its_first_byte() {
    assert_eq!(parse(&[0x16, 3, 1, 2, 0], &LIMITS).unwrap_err().status, 400);
}

#[test]
fn a_second_request_behind_the_first_is_left_alone() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n";

    let Ok(Parse::Complete { used, .. }) = read(text) else { panic!() };
    assert!(text[used..].starts_with("GET /2"));
}

#[test]
fn raw_quotes_and_angles_of_a_query_are_escaped() {
    assert_eq!(good(&get("/?a=<b>\"[]{}|\\^`", "")).query.as_deref(), Some("a=%3Cb%3E%22[]{}|\\^`"));
    assert_eq!(good(&get("/?", "")).query.as_deref(), Some(""));
}

#[test]
fn fields_that_people_really_send_are_taken() {
    for file in [
        "http/seclists-request-headers-standard-examples.txt",
        "http/seclists-request-headers-non-standard-examples.txt",
    ] {
        let Some(text) = data::read(file) else { return };
        for line in text.lines().filter(|line| line.is_ascii() && line.contains(':')) {
            let request = get("/", &format!("{line}\r\n"));
            let name = line.split(':').next().unwrap().to_ascii_lowercase();
            let ours = ["host", "expect", "content-length", "transfer-encoding"].contains(&name.as_str());
            match read(&request) {
                Ok(Parse::Complete { head, .. }) => assert!(head.headers.len() + head.dropped >= 1),
                other => assert!(ours, "{line:?}: {other:?}"),
            }
        }
    }
    for file in ["http/seclists-user-agents-fuzz.txt", "http/seclists-user-agents-mid.txt"] {
        let Some(text) = data::read(file) else { return };
        for line in text.lines().filter(|line| line.bytes().all(|b| b >= b' ')) {
            assert_eq!(
                good(&get("/", &format!("User-Agent: {line}\r\n"))).headers["user-agent"].as_bytes(),
                line.trim().as_bytes()
            );
        }
    }
}

/// Heads that are nearly good.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST /a?b HTTP/1.1\r\n",
        b"GET http://a/ HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"X: y\r\n",
        b"X_y: z\r\n",
        b"\0",
        b":",
        b"Upgrade: websocket\r\n",
        b"Expect: x\r\n",
        b"\xe9",
    ]);
    (vec(part, 0..10), vec((any::<prop::sample::Index>(), any::<u8>()), 0..2)).prop_map(|(parts, flips)| {
        let mut text = parts.concat();
        for (at, byte) in flips {
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
        }
        text
    })
}

proptest! {
    #[test]
    fn splits_change_nothing(text in nearly()) {
        let whole = parse(&text, &LIMITS);

        for len in 0..text.len() {
            match (parse(&text[..len], &LIMITS), &whole) {
                (Ok(Parse::Partial), _) => {}
                (Err(_), Err(_)) => {}
                (Ok(Parse::Complete { head, used }), Ok(Parse::Complete { head: expected, used: end })) => {
                    prop_assert_eq!(used, *end);
                    prop_assert_eq!(format!("{head:?}"), format!("{expected:?}"));
                }
                (part, whole) => prop_assert!(false, "{:?} of {:?}", part, whole),
            }
        }
    }

    #[test]
    fn any_bytes_are_a_head_or_refused(text in vec(any::<u8>(), 0..200)) {
        let _ = parse(&text, &LIMITS);
        let mut request = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        request.extend(&text);
        request.extend(b"\r\n\r\n");
        if let Ok(Parse::Complete { used, .. }) = parse(&request, &LIMITS) {
            prop_assert!(used <= request.len());
        }
    }

    #[test]
    fn a_head_has_one_framing_and_one_host(text in nearly()) {
        let text = String::from_utf8_lossy(&text).into_owned();
        if let Ok(Parse::Complete { head, used }) = parse(text.as_bytes(), &LIMITS) {
            let lines: Vec<&str> = text[..used].split("\r\n").collect();
            let count = |name: &str| lines.iter().filter(|line| line.to_ascii_lowercase().starts_with(name)).count();
            prop_assert_eq!(count("host:"), 1);
            prop_assert_eq!(count("content-length:"), usize::from(matches!(head.framing, Framing::Length(_))));
            prop_assert_eq!(count("transfer-encoding:"), usize::from(head.framing == Framing::Chunked));
            prop_assert!(!text[..used].replace("\r\n", "").contains(['\r', '\n', '\0']));
        }
    }
}

#[test]
fn what_is_matched_can_be_sent_upstream_as_it_is() {
    let visible: String = (b'!'..=b'~').map(char::from).collect();
    let path = visible.replace(['#', '?', '%', '\\', ';'], "") + ";%20%E2%82%AC";
    let query = visible.replace('#', "");
    let head = good(&get(&format!("/{path}?{query}"), ""));
    let sent = format!("{}?{}", head.path, head.query.unwrap());

    let uri: hyper::http::uri::PathAndQuery = sent.parse().unwrap();

    assert_eq!(uri.as_str(), sent);
    assert_eq!(uri.path(), head.path.as_str());
}

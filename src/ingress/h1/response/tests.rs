use hyper::header::HeaderValue;

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn written(
    version: Version,
    status: u16,
    fields: &[(&'static str, &'static str)],
    framing: ResponseFraming,
    persistence: Persistence,
) -> String {
    let mut out = BytesMut::new();
    encode(&mut out, version, StatusCode::from_u16(status).unwrap(), &headers(fields), framing, persistence, None);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn framing_and_connection_are_said_by_us_alone() {
    let text = written(
        Version::Http11,
        200,
        &[
            ("content-type", "text/plain"),
            ("content-length", "7"),
            ("transfer-encoding", "gzip"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("upgrade", "h2"),
            ("trailer", "x"),
            ("set-cookie", "a=b"),
        ],
        ResponseFraming::Length(18_446_744_073_709_551_615),
        Persistence::KeepAlive,
    );

    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nset-cookie: a=b\r\n\
         content-length: 18446744073709551615\r\n\r\n"
    );
}

#[test]
fn each_framing_has_its_field() {
    let text = |version, framing, persistence| written(version, 404, &[], framing, persistence);

    assert_eq!(
        text(Version::Http11, ResponseFraming::Chunked, Persistence::Close),
        "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        text(Version::Http10, ResponseFraming::Close, Persistence::KeepAlive),
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        text(Version::Http10, ResponseFraming::Announced(0), Persistence::KeepAlive),
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
    );
}

#[test]
fn a_websocket_is_switched_to() {
    let text = written(
        Version::Http11,
        101,
        &[("sec-websocket-accept", "x"), ("upgrade", "websocket")],
        ResponseFraming::Empty,
        Persistence::WebSocket,
    );

    assert_eq!(
        text,
        "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    );
}

#[test]
fn framing_follows_method_status_and_version() {
    let choose = |method: &str, status: u16, version, length| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        ResponseFraming::choose(&method, StatusCode::from_u16(status).unwrap(), version, length)
    };

    assert_eq!(choose("GET", 200, Version::Http11, Some(5)), ResponseFraming::Length(5));
    assert_eq!(choose("GET", 200, Version::Http11, None), ResponseFraming::Chunked);
    assert_eq!(choose("GET", 200, Version::Http10, None), ResponseFraming::Close);
    assert_eq!(choose("HEAD", 200, Version::Http11, Some(5)), ResponseFraming::Announced(5));
    assert_eq!(choose("HEAD", 200, Version::Http10, None), ResponseFraming::Empty);
    assert_eq!(choose("GET", 304, Version::Http11, Some(5)), ResponseFraming::Announced(5));
    assert_eq!(choose("GET", 204, Version::Http11, Some(5)), ResponseFraming::Empty);
    assert_eq!(choose("GET", 101, Version::Http11, None), ResponseFraming::Empty);
}

#[test]
fn a_refusal_closes() {
    let mut out = BytesMut::new();

    encode_refusal(&mut out, 431);

    assert_eq!(out, "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

#[test]
fn a_date_is_made_anew_each_second() {
    let start = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
    let mut date = Date::new(start);

    assert_eq!(date.as_bytes(), b"Sun, 06 Nov 1994 08:49:37 GMT");
    date.update(start + Duration::from_millis(99));
    assert_eq!(date.as_bytes(), b"Sun, 06 Nov 1994 08:49:37 GMT");
    date.update(start + Duration::from_millis(100));
    assert_eq!(date.as_bytes(), b"Sun, 06 Nov 1994 08:49:38 GMT");
    date.update(start - Duration::from_secs(10));
    assert_eq!(date.as_bytes(), b"Sun, 06 Nov 1994 08:49:27 GMT");
    date.update(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4));
    assert_eq!(date.as_bytes(), b"Fri, 31 Dec 9999 23:59:59 GMT");
}

#[test]
fn the_date_of_an_upstream_is_replaced() {
    let mut out = BytesMut::new();
    let date = Date::new(UNIX_EPOCH);

    encode(
        &mut out,
        Version::Http11,
        StatusCode::NO_CONTENT,
        &headers(&[("date", "yesterday")]),
        ResponseFraming::Empty,
        Persistence::KeepAlive,
        Some(&date),
    );

    assert_eq!(out, "HTTP/1.1 204 No Content\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n");
}

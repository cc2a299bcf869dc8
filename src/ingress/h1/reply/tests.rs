use super::*;

fn read(text: &'static str) -> Result<Option<(ReplyHead, usize)>, Unreadable> {
    ReplyHead::read(&Bytes::from_static(text.as_bytes()))
}

fn framing(text: &'static str) -> (Option<Framing>, bool) {
    let (head, _) = read(text).unwrap().unwrap();
    (head.framing, head.keep_alive)
}

#[test]
fn a_head_is_read_to_its_empty_line() {
    let text = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok";

    let (head, used) = read(text).unwrap().unwrap();

    assert_eq!((head.status, head.framing, head.keep_alive), (StatusCode::OK, Some(Framing::Length(2)), true));
    assert_eq!(head.headers["server"], "x");
    assert_eq!(&text[used..], "ok");
    for end in 0..used {
        assert!(read(&text[..end]).unwrap().is_none(), "{end}");
    }
}

#[test]
fn old_servers_are_understood() {
    assert_eq!(framing("HTTP/1.0 200\nContent-Type: text/html\n\n"), (None, false));
    assert!(framing("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n").1);
    assert_eq!(framing("HTTP/1.1 200 OK\r\nConnection: x, close\r\n\r\n"), (None, false));
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n").0,
        Some(Framing::Length(5))
    );
}

#[test]
fn what_has_two_ends_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "\r\n\r\n",
    ] {
        assert!(read(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_head_has_an_end() {
    let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'b'; HEAD_MAX]].concat();
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));

    assert!(ReplyHead::read(&Bytes::from(endless)).is_err());
    assert!(ReplyHead::read(&Bytes::from(many)).is_err());
}

use proptest::{collection::vec, prelude::*};

use super::*;

/// What becomes of a body that arrives whole: its data and where it ends, or the reason for refusing it.
fn decode(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, Option<usize>), &'static str> {
    decode_pieces(framing, input, &[])
}

/// As [`decode`], for a body that arrives in pieces of these sizes, over and over.
fn decode_pieces(framing: Framing, input: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, Option<usize>), &'static str> {
    let mut decoder = Decoder::new(framing);
    let mut data = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    let mut have = 0;
    let mut at = 0;
    loop {
        match decoder.decode(&input[at..have]).map_err(|reject| reject.reason)? {
            Piece::Data(range) => {
                assert!(!range.is_empty());
                data.extend_from_slice(&input[at..have][range.clone()]);
                at += range.end;
            }
            Piece::More(used) => {
                at += used;
                assert_eq!(at, have);
                if have == input.len() {
                    return Ok((data, None));
                }
                have = (have + sizes.next().unwrap_or(input.len()).max(1)).min(input.len());
            }
            Piece::End(used) => {
                assert!(decoder.is_end());
                return Ok((data, Some(at + used)));
            }
        }
    }
}

fn chunked(input: &str) -> Result<(String, Option<usize>), &'static str> {
    decode(Framing::Chunked, input.as_bytes()).map(|(data, end)| (String::from_utf8(data).unwrap(), end))
}

#[test]
fn chunks_are_put_together() {
    let body = "4\r\nWiki\r\n0b;x=\"y\"\r\npedia in \r\n\r\n0\r\n\r\n";

    assert_eq!(chunked(body), Ok(("Wikipedia in \r\n".replace("\r\n", "") + "\r\n", Some(body.len()))));
}

#[test]
fn what_follows_the_last_chunk_is_left_alone() {
    assert_eq!(chunked("1\r\na\r\n000\r\n\r\nGET /"), Ok(("a".to_owned(), Some(13))));
}

#[test]
fn trailers_are_checked_and_dropped() {
    let body = "1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nEmpty:\r\n\r\n";

    assert_eq!(chunked(body), Ok(("a".to_owned(), Some(body.len()))));
    for trailer in
        ["X\r\n", " X: y\r\n", "X : y\r\n", ": y\r\n", "X: y\n", "X: y\rz\r\n", "X: \0\r\n", "X: y\r\n z\r\n", "\n"]
    {
        assert!(chunked(&format!("0\r\n{trailer}\r\n")).is_err(), "{trailer:?}");
    }
}

#[test]
fn chunk_sizes_are_hexadecimal_digits_alone() {
    for size in
        ["+1", "-1", " 1", "1 ", "1\t", "0x1", "", "g", ";x", "1_0", "10000000000000000", "00000000000000001", "１"]
    {
        assert!(chunked(&format!("{size}\r\na\r\n0\r\n\r\n")).is_err(), "{size:?}");
    }
    assert_eq!(chunked("ffffffffffffffff\r\nab"), Ok(("ab".to_owned(), None)));
}

#[test]
fn line_feed_alone_in_an_extension() {
    assert!(chunked("1;x\na\r\n0\r\n\r\n").is_err());
    assert!(chunked("1;x\ny\r\na\r\n0\r\n\r\n").is_err());
    assert!(chunked("1;x=\"\n\"\r\na\r\n0\r\n\r\n").is_err());
    assert!(chunked("1;x\ry\r\na\r\n0\r\n\r\n").is_err());
    assert!(chunked("1;\0\r\na\r\n0\r\n\r\n").is_err());
}

#[test]
fn line_feed_alone_after_a_size() {
    assert!(chunked("1\na\r\n0\r\n\r\n").is_err());
    assert!(chunked("1\r\na\r\n0\n\r\n").is_err());
    assert!(chunked("1\r\na\r\n0\n\n").is_err());
}

#[test]
fn data_is_followed_by_exactly_one_line_end() {
    assert!(chunked("1\r\na\n0\r\n\r\n").is_err());
    assert!(chunked("1\r\nab\r\n0\r\n\r\n").is_err());
    assert!(chunked("1\r\na0\r\n\r\n").is_err());
    assert!(chunked("1\r\na\r\n\r\n0\r\n\r\n").is_err());
    assert!(chunked("1\r\na\rx0\r\n\r\n").is_err());
}

#[test]
fn extensions_and_trailers_have_limits() {
    let body =
        |chunks: usize, len: usize| format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(len)).repeat(chunks));

    assert!(chunked(&body(64, 256)).is_ok());
    assert!(chunked(&body(65, 256)).is_err());
    assert!(chunked(&body(1, 257)).is_err());
    assert!(chunked(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(8000))).is_ok());
    assert!(chunked(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(8192))).is_err());
    assert!(chunked(&format!("0\r\n{}", "X: y\r\n".repeat(2000))).is_err());
}

#[test]
fn a_body_of_known_length_ends_there() {
    assert_eq!(decode(Framing::Length(3), b"abcGET"), Ok((b"abc".to_vec(), Some(3))));
    assert_eq!(decode(Framing::Length(3), b"ab"), Ok((b"ab".to_vec(), None)));
    assert_eq!(decode(Framing::Length(0), b"GET"), Ok((Vec::new(), Some(0))));
    assert_eq!(decode(Framing::None, b"GET"), Ok((Vec::new(), Some(0))));
    assert_eq!(Decoder::new(Framing::Length(3)).remaining(), Some(3));
    assert_eq!(Decoder::new(Framing::Chunked).remaining(), None);
}

#[test]
fn a_response_is_as_long_as_was_said() {
    let mut out = BytesMut::new();
    let mut encoder = Encoder::Length(3);

    encoder.put(b"ab", &mut out).unwrap();
    assert_eq!(encoder.put(b"cd", &mut out), Err(WrongLength));
    assert_eq!(encoder.finish(), Err(WrongLength));
    assert_eq!(Encoder::Empty.put(b"a", &mut out), Err(WrongLength));
    assert_eq!(Encoder::Close.finish(), Ok(&b""[..]));
    assert_eq!(out, "ab");
}

#[test]
fn sizes_of_chunks_are_written_in_hexadecimal() {
    for len in [1, 9, 10, 15, 16, 255, 256, 65536, usize::MAX] {
        assert_eq!(Frame::chunk(len).before(), format!("{len:x}\r\n").as_bytes());
    }
}

/// The naive twin: the grammar of RFC 9112 §7.1 on a whole body. `None` is anything but a whole good body.
fn naive(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| {
        let rest = &input[at..];
        let len = rest.iter().position(|&b| b == b'\r' || b == b'\n')?;
        (rest.get(len..len + 2)? == b"\r\n").then(|| (&rest[..len], at + len + 2))
    };
    let clean = |text: &[u8]| text.iter().all(|&b| b == b'\t' || (b >= 32 && b != 127));
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let (first, next) = line(at)?;
        at = next;
        let digits = first.split(|&b| b == b';').next()?;
        let well = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
        if !well || !clean(first) {
            return None;
        }
        let size = usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(input.get(at..at.checked_add(size)?)?);
        at += size;
        if input.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (field, next) = line(at)?;
        at = next;
        if field.is_empty() {
            return Some((data, at));
        }
        let colon = field.iter().position(|&b| b == b':')?;
        if colon == 0 || !field[..colon].iter().all(|&b| is_token_byte(b)) || !clean(field) {
            return None;
        }
    }
}

/// Bodies that are nearly good: pieces of the grammar in any order.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => vec(any::<u8>(), 0..20).prop_map(|data| {
            let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
            chunk.extend(data);
            chunk.extend(b"\r\n");
            chunk
        }),
        1 => prop::sample::select(vec![
            &b"0\r\n"[..], b"\r\n", b"\n", b"\r", b"3;ext=1\r\nabc\r\n", b"1\r\na", b"X: y\r\n", b"0\r\n\r\n", b"A", b":",
            b";", b"ffffffffffffffff\r\n", b"00", b" ",
        ]).prop_map(<[u8]>::to_vec),
    ];
    (vec(piece, 0..8), any::<bool>()).prop_map(|(pieces, ends)| {
        let mut body = pieces.concat();
        if ends {
            body.extend(b"0\r\n\r\n");
        }
        body
    })
}

proptest! {
    #[test]
    fn splits_change_nothing(body in nearly(), sizes in vec(1..9_usize, 1..5)) {
        prop_assert_eq!(decode_pieces(Framing::Chunked, &body, &sizes), decode(Framing::Chunked, &body));
    }

    #[test]
    fn the_naive_twin_agrees(body in nearly()) {
        let decoded = match decode(Framing::Chunked, &body) {
            Ok((data, Some(end))) => Some((data, end)),
            _ => None,
        };
        prop_assert_eq!(decoded, naive(&body));
    }

    #[test]
    fn any_bytes_are_a_body_or_refused(body in vec(any::<u8>(), 0..200), sizes in vec(1..9_usize, 1..5)) {
        prop_assert_eq!(decode_pieces(Framing::Chunked, &body, &sizes), decode(Framing::Chunked, &body));
    }

    #[test]
    fn what_is_encoded_is_decoded(pieces in vec(vec(any::<u8>(), 0..40), 0..6)) {
        let mut encoder = Encoder::Chunked;
        let mut out = BytesMut::new();
        for piece in &pieces {
            encoder.put(piece, &mut out).unwrap();
        }
        out.extend_from_slice(encoder.finish().unwrap());

        prop_assert_eq!(decode(Framing::Chunked, &out), Ok((pieces.concat(), Some(out.len()))));
    }
}

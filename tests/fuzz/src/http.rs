use bytes::BytesMut;
use hearthgate::ingress::h1::{
    body::{Decoder, Encoder, Piece},
    head::{Framing, Limits, Parse, parse},
};

/// A request head: what was understood does not depend on how it was cut into pieces.
pub fn http_head(bytes: &[u8]) {
    let limits = Limits::new(16 << 10, 100);
    let Ok(Parse::Complete { head, used }) = parse(bytes, &limits) else { return };
    assert!(used <= bytes.len());
    let Ok(Parse::Complete { head: again, used: as_much }) = parse(&bytes[..used], &limits) else {
        panic!("what follows a head changes it");
    };
    assert_eq!((used, head.host.as_str(), &head.headers), (as_much, again.host.as_str(), &again.headers));
    for cut in [1, used / 3, used / 2, used - 1] {
        assert!(matches!(parse(&bytes[..cut.min(used - 1)], &limits), Ok(Parse::Partial)), "the first {cut} bytes");
    }
}

/// A body: the first byte chooses the framing and the pieces, the rest arrives.
pub fn http_body(bytes: &[u8]) {
    let Some((&first, input)) = bytes.split_first() else { return };
    let framing = if first & 0x80 == 0 { Framing::Chunked } else { Framing::Length(u64::from(first & 0x7f)) };
    let whole = decode(framing, input, input.len().max(1));
    let pieces = decode(framing, input, usize::from(first & 0x0f) + 1);
    assert_eq!(whole, pieces, "the pieces in which a body arrives change it");

    let Ok((data, true)) = whole else { return };
    let mut sent = BytesMut::new();
    let mut encoder = Encoder::Chunked;
    for part in data.chunks(7) {
        encoder.put(part, &mut sent).expect("chunks have no promised length");
    }
    sent.extend_from_slice(encoder.finish().expect("chunks have no promised length"));
    assert_eq!(decode(Framing::Chunked, &sent, sent.len()), Ok((data, true)), "what is sent on is another body");
}

/// Returns the data and whether the body has ended, or the status of the refusal.
fn decode(framing: Framing, input: &[u8], piece: usize) -> Result<(Vec<u8>, bool), u16> {
    let mut decoder = Decoder::new(framing);
    let mut data = Vec::new();
    for arrived in input.chunks(piece) {
        let mut at = 0;
        while at < arrived.len() {
            match decoder.decode(&arrived[at..]).map_err(|reject| reject.status)? {
                Piece::Data(range) => {
                    assert!(!range.is_empty(), "no data is no piece");
                    data.extend_from_slice(&arrived[at..][range.clone()]);
                    at += range.end;
                }
                Piece::More(used) => {
                    assert_eq!(at + used, arrived.len());
                    at += used;
                }
                Piece::End(_) => return Ok((data, true)),
            }
        }
    }
    Ok((data, decoder.is_end()))
}

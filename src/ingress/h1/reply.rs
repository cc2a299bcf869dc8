//! The head of a response from an upstream: bytes in, [`ReplyHead`] or [`Unreadable`] out.
//!
//! An upstream is of the house and sometimes old, so a line may end in a bare line feed (RFC 9112 §2.2); but what
//! leaves open where the body ends is an error, because the next response would begin there.

use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use memchr::{memchr, memchr_iter};

use super::head::{Framing, Version, is_token_byte, options, read_length, trim_blanks};

/// Bytes of a head.
pub(in crate::ingress) const HEAD_MAX: usize = 64 * 1024;
/// Fields of a head.
pub(in crate::ingress) const FIELDS_MAX: usize = 128;

/// A response that cannot be read on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub &'static str);

/// The head of a response, understood.
#[derive(Debug)]
pub struct ReplyHead {
    /// The status.
    pub status: StatusCode,
    /// All fields, hop-by-hop fields among them.
    pub headers: HeaderMap,
    /// What the head says about the body; `None` is a body that ends with the connection. To HEAD, and with 1xx, 204
    /// and 304, there is none, whatever it says (RFC 9112 §6.3).
    pub framing: Option<Framing>,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
}

impl ReplyHead {
    /// Reads the head at the beginning of `bytes` and returns it with its length; `None` if it is not all there.
    pub fn read(bytes: &Bytes) -> Result<Option<(Self, usize)>, Unreadable> {
        let Some(end) = find_end(bytes) else {
            return if bytes.len() < HEAD_MAX { Ok(None) } else { Err(Unreadable("head too long")) };
        };
        if end > HEAD_MAX {
            return Err(Unreadable("head too long"));
        }
        let mut rest = bytes.get(..end).unwrap_or_default();
        let (version, status) = read_status_line(next_line(&mut rest)?)?;
        let mut headers = HeaderMap::with_capacity(16);
        let (mut length, mut chunked, mut close, mut keep_alive) = (None, false, false, false);
        let mut count = 0;
        loop {
            let line = next_line(&mut rest)?;
            if line.is_empty() {
                break;
            }
            count += 1;
            if count > FIELDS_MAX {
                return Err(Unreadable("too many fields"));
            }
            // A folded line and a space before the colon fail here: neither belongs to a token.
            let colon = memchr(b':', line).ok_or(Unreadable("field: no colon"))?;
            let (name, value) = line.split_at_checked(colon).unwrap_or_default();
            if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
                return Err(Unreadable("field: name is no token"));
            }
            let name = HeaderName::from_bytes(name).map_err(|_| Unreadable("field: name is no token"))?;
            let value = trim_blanks(value.get(1..).unwrap_or_default());
            if name == header::CONTENT_LENGTH {
                let said = read_length(value).map_err(|_| Unreadable("framing: bad Content-Length"))?;
                // Twice the same has one meaning only.
                if length.replace(said).is_some_and(|before| before != said) {
                    return Err(Unreadable("framing: two lengths"));
                }
            } else if name == header::TRANSFER_ENCODING {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Unreadable("framing: transfer coding besides chunked"));
                }
                chunked = true;
            } else if name == header::CONNECTION {
                for option in options(value) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // HeaderValue refuses control characters except HTAB, so also a bare carriage return.
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value))
                .map_err(|_| Unreadable("field: value has a character that is not allowed"))?;
            headers.try_append(name, value).map_err(|_| Unreadable("too many fields"))?;
        }
        let framing = match (chunked, length) {
            (true, Some(_)) => return Err(Unreadable("framing: Transfer-Encoding and Content-Length")),
            (true, None) if version == Version::Http10 => return Err(Unreadable("framing: chunked in HTTP/1.0")),
            (true, None) => Some(Framing::Chunked),
            (false, Some(length)) => Some(Framing::Length(length)),
            (false, None) => None,
        };
        let keep_alive = !close && (version == Version::Http11 || keep_alive);
        Ok(Some((Self { status, headers, framing, keep_alive }, end)))
    }
}

/// Finds the end of the empty line.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    for lf in memchr_iter(b'\n', bytes) {
        if matches!(bytes.get(start..lf), Some(b"" | b"\r")) && start > 0 {
            return Some(lf + 1);
        }
        start = lf + 1;
    }
    None
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let lf = memchr(b'\n', rest).ok_or(Unreadable("head: a line has no end"))?;
    let (line, tail) = rest.split_at_checked(lf).unwrap_or_default();
    *rest = tail.get(1..).unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line))
}

fn read_status_line(line: &[u8]) -> Result<(Version, StatusCode), Unreadable> {
    let bad = Unreadable("status line: malformed");
    let (version, rest) = line.split_at_checked(9).ok_or(bad)?;
    let version = match version {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return Err(Unreadable("status line: another version")),
    };
    // The reason says nothing that the status does not; some leave out the space before it.
    let (status, reason) = rest.split_at_checked(3).ok_or(bad)?;
    if reason.first().is_some_and(|&byte| byte != b' ') {
        return Err(bad);
    }
    match StatusCode::from_bytes(status) {
        Ok(status) if status.as_u16() < 600 => Ok((version, status)),
        _ => Err(bad),
    }
}

#[cfg(test)]
mod tests;

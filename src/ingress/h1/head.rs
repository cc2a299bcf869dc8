//! The head of a request: bytes in, [`RequestHead`] or [`Reject`] out.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};
use memchr::{memchr, memchr_iter};

use super::target::read_target;
pub use super::target::{Form, Scheme};
use crate::ingress::canonical::{CanonicalHost, CanonicalPath};

/// How much of a head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line; more is a 414.
    pub line: usize,
    /// Bytes of the whole head; more is a 431.
    pub head: usize,
    /// Fields, each line counted, those that are dropped too; more is a 431.
    pub fields: usize,
}

impl Limits {
    /// Bounds a head; its request line may have half of it, but at least the 8000 bytes that RFC 9112 §3 recommends.
    pub fn new(head: usize, fields: usize) -> Self {
        Self { line: (head / 2).max(8000).min(head), head, fields }
    }
}

/// What a buffer holds.
#[derive(Debug)]
pub enum Parse {
    /// The beginning of a head that may become a good one.
    Partial,
    /// A head.
    Complete {
        /// What it says.
        head: Box<RequestHead>,
        /// How many bytes of the buffer it took; the body follows.
        used: usize,
    },
}

/// A request that is not read on. The connection is closed after the answer, because nobody knows where the
/// next request would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The answer's status.
    pub status: u16,
    /// Why, for logs.
    pub reason: &'static str,
}

impl Reject {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    pub(super) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}

/// The head of a request, understood.
#[derive(Debug)]
pub struct RequestHead {
    /// Any method but CONNECT and TRACE.
    pub method: Method,
    /// How the target was written.
    pub form: Form,
    /// What is asked for; `/` in asterisk form.
    pub path: CanonicalPath,
    /// What stood after `?`, not decoded: visible ASCII without `#`, `"`, `<` and `>`.
    pub query: Option<String>,
    /// Whom the client means, by Host and, if there was one, by the authority of the target: both say the same.
    pub host: CanonicalHost,
    /// The port beside it.
    pub port: Option<u16>,
    /// Which HTTP the client speaks.
    pub version: Version,
    /// All fields whose names have no underscore, hop-by-hop fields among them. Upgrade stays only in a WebSocket
    /// handshake; Expect and HTTP2-Settings never do.
    pub headers: HeaderMap,
    /// What Connection names besides `close`, `keep-alive` and `upgrade`: belongs to this hop and goes no further.
    pub nominated: Vec<HeaderName>,
    /// How many fields were dropped because their names have an underscore, which many servers take for a hyphen.
    pub dropped: usize,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    /// The key of a WebSocket handshake (RFC 6455 §4.1), if this is a good one.
    pub websocket: Option<HeaderValue>,
    /// The client waits for a 100 (Continue) before it sends the body.
    pub expect_continue: bool,
}

/// The versions that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Where the body of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// Reads the head at the beginning of `buf`.
pub fn parse(buf: &[u8], limits: &Limits) -> Result<Parse, Reject> {
    // RFC 9112 §2.2: a server should ignore at least one empty line before the request line; this one ignores one.
    let skipped = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let buf = buf.get(skipped..).unwrap_or_default();
    match buf {
        [] | [b'\r'] if skipped == 0 => return Ok(Parse::Partial),
        [] => return Ok(Parse::Partial),
        [first, ..] if !is_token_byte(*first) => return Err(Reject::bad("request line: no method")),
        _ => {}
    }
    let Some((line_end, head_end)) = find_end(buf, limits)? else { return Ok(Parse::Partial) };
    // One copy that all values share.
    let bytes = Bytes::copy_from_slice(buf.get(..head_end).unwrap_or_default());
    let head = read(&bytes, line_end, limits)?;
    Ok(Parse::Complete { head: Box::new(head), used: skipped + head_end })
}

/// Finds where the request line and the head end, both with their CRLF.
fn find_end(buf: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, Reject> {
    let mut line_end = None;
    let mut start = 0;
    let window = buf.get(..limits.head).unwrap_or(buf);
    for lf in memchr_iter(b'\n', window) {
        let line = window.get(start..lf).unwrap_or_default();
        if line.last() != Some(&b'\r') {
            return Err(Reject::bad("bare line feed"));
        }
        match line_end {
            None if lf >= limits.line => return Err(Reject::new(414, "request line too long")),
            None => line_end = Some(lf + 1),
            Some(first) if line.len() == 1 => return Ok(Some((first, lf + 1))),
            Some(_) => {}
        }
        start = lf + 1;
    }
    if line_end.is_none() && buf.len() >= limits.line {
        return Err(Reject::new(414, "request line too long"));
    }
    if buf.len() >= limits.head {
        return Err(Reject::new(431, "head too long"));
    }
    // Whoever ends lines with a carriage return alone would otherwise wait for the deadline.
    match memchr_iter(b'\r', buf).find(|at| buf.get(at + 1).is_some_and(|&next| next != b'\n')) {
        Some(_) => Err(Reject::bad("bare carriage return")),
        None => Ok(None),
    }
}

/// Reads a whole head; `line_end` is where the request line and its CRLF end.
fn read(bytes: &Bytes, line_end: usize, limits: &Limits) -> Result<RequestHead, Reject> {
    let line = bytes.get(..line_end.saturating_sub(2)).unwrap_or_default();
    let (method, target, version) = read_request_line(line)?;
    let Fields { mut headers, host, length, coding, connection, expects, upgrades, dropped } =
        Fields::read(bytes, line_end, limits)?;

    let framing = read_framing(coding, length, version)?;
    let (host, port) = read_host(host)?;
    let (form, path, query) = read_target(target, &method, &host, port)?;
    let mut websocket = None;
    if upgrades {
        websocket = read_websocket(&method, version, framing, &connection, &headers);
        if websocket.is_none() {
            headers.remove(header::UPGRADE);
        }
    }
    Ok(RequestHead {
        keep_alive: match version {
            Version::Http11 => !connection.close,
            Version::Http10 => connection.keep_alive && !connection.close,
        },
        nominated: connection.nominated,
        method,
        form,
        path,
        query,
        host,
        port,
        version,
        headers,
        dropped,
        framing,
        websocket,
        // RFC 9110 §10.1.1: from an HTTP/1.0 client it means nothing.
        expect_continue: expects && version == Version::Http11,
    })
}

fn read_request_line(line: &[u8]) -> Result<(Method, &str, Version), Reject> {
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Reject::bad("request line: not three words"));
    };
    if !method.iter().all(|&b| is_token_byte(b)) {
        return Err(Reject::bad("request line: method is no token"));
    }
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Reject::bad("request line: target has a character that is not allowed"));
    }
    let target = str::from_utf8(target).map_err(|_| Reject::bad("request line: target is not ASCII"))?;
    // RFC 9113 §3.4: the preface of HTTP/2 looks like a request, so that servers like this one refuse it.
    if method == b"PRI" {
        return Err(Reject::bad("HTTP/2 preface"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Reject::new(505, "request line: other version"));
        }
        _ => return Err(Reject::bad("request line: no version")),
    };
    match method {
        // The edge is no tunnel, and a TRACE would read out the fields that the edge adds.
        b"CONNECT" | b"TRACE" => return Err(Reject::new(501, "request line: CONNECT or TRACE")),
        _ => {}
    }
    let method = Method::from_bytes(method).map_err(|_| Reject::bad("request line: no method"))?;
    Ok((method, target, version))
}

/// The fields, and what some of them say.
#[derive(Default)]
struct Fields<'a> {
    headers: HeaderMap,
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    connection: Connection,
    expects: bool,
    upgrades: bool,
    dropped: usize,
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a Bytes, mut start: usize, limits: &Limits) -> Result<Self, Reject> {
        let mut fields = Self { headers: HeaderMap::with_capacity(16), ..Self::default() };
        let mut count = 0;
        let block = bytes.len().saturating_sub(2);
        while start < block {
            let rest = bytes.get(start..).unwrap_or_default();
            let lf = memchr(b'\n', rest).ok_or(Reject::bad("field: no end"))?;
            let line = rest.get(..lf.saturating_sub(1)).unwrap_or_default();
            count += 1;
            if count > limits.fields {
                return Err(Reject::new(431, "too many fields"));
            }
            // A space before the colon and a folded line both fail here: neither belongs to a token.
            let colon = memchr(b':', line).ok_or(Reject::bad("field: no colon"))?;
            let (name, value) = line.split_at_checked(colon).unwrap_or_default();
            if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
                return Err(Reject::bad("field: name is no token"));
            }
            let value = trim_blanks(value.get(1..).unwrap_or_default());
            // HeaderValue refuses control characters except HTAB, so also a bare carriage return.
            let shared = HeaderValue::from_maybe_shared(bytes.slice_ref(value))
                .map_err(|_| Reject::bad("field: value has a character that is not allowed"))?;
            if memchr(b'_', name).is_some() {
                fields.dropped += 1;
            } else {
                let name = HeaderName::from_bytes(name).map_err(|_| Reject::bad("field: name is no token"))?;
                fields.add(name, value, shared)?;
            }
            start += lf + 1;
        }
        Ok(fields)
    }

    fn add(&mut self, name: HeaderName, value: &'a [u8], shared: HeaderValue) -> Result<(), Reject> {
        if name == header::HOST {
            once(&mut self.host, value, "Host: twice")?;
        } else if name == header::CONTENT_LENGTH {
            once(&mut self.length, value, "framing: Content-Length twice")?;
        } else if name == header::TRANSFER_ENCODING {
            once(&mut self.coding, value, "framing: Transfer-Encoding twice")?;
        } else if name == header::CONNECTION {
            self.connection.read(value);
        } else if name == header::UPGRADE {
            self.upgrades = true;
        } else if name == header::EXPECT {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::new(417, "Expect: unknown"));
            }
            self.expects = true;
            return Ok(());
        } else if name.as_str() == "http2-settings" {
            return Ok(());
        }
        match self.headers.try_append(name, shared) {
            Ok(_) => Ok(()),
            Err(_) => Err(Reject::new(431, "too many fields")),
        }
    }
}

/// Keeps the value of a field that may stand only once.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8], twice: &'static str) -> Result<(), Reject> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reject::bad(twice)),
    }
}

/// Takes off what RFC 9110 §5.6.3 calls OWS.
pub(super) fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9112 §6.3, without the leniencies it permits.
fn read_framing(coding: Option<&[u8]>, length: Option<&[u8]>, version: Version) -> Result<Framing, Reject> {
    match (coding, length) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(Reject::bad("framing: Transfer-Encoding and Content-Length")),
        (None, Some(length)) => Ok(Framing::Length(read_length(length)?)),
        (Some(_), None) if version == Version::Http10 => Err(Reject::bad("framing: Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(coding), None) => Err(refuse_coding(coding)),
    }
}

/// RFC 9112 §6.1: what ends in `chunked` could be read by who knows the codings, the rest by nobody.
fn refuse_coding(value: &[u8]) -> Reject {
    let mut codings = value.split(|&b| b == b',').map(trim_blanks);
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last = codings.next_back().unwrap_or_default();
    let mut others = codings.peekable();
    let known = others.peek().is_some()
        && chunked(last)
        && others.all(|coding| !coding.is_empty() && coding.iter().all(|&b| is_token_byte(b)) && !chunked(coding));
    if known {
        Reject::new(501, "framing: transfer coding besides chunked")
    } else {
        Reject::bad("framing: bad transfer coding")
    }
}

pub(super) fn read_length(value: &[u8]) -> Result<u64, Reject> {
    const BAD: Reject = Reject::bad("framing: bad Content-Length");
    // 19 digits always fit.
    if value.is_empty() || value.len() > 19 {
        return Err(BAD);
    }
    value.iter().try_fold(0_u64, |length, digit| {
        if digit.is_ascii_digit() { Ok(length * 10 + u64::from(digit - b'0')) } else { Err(BAD) }
    })
}

fn read_host(host: Option<&[u8]>) -> Result<(CanonicalHost, Option<u16>), Reject> {
    // RFC 9112 §3.2; that HTTP/1.0 knows no Host helps nobody here, where every route has one.
    let host = host.ok_or(Reject::bad("Host: missing"))?;
    let host = str::from_utf8(host).map_err(|_| Reject::bad("Host: not ASCII"))?;
    CanonicalHost::from_authority(host).map_err(|error| Reject::bad(error.0))
}

/// What the Connection fields say.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    nominated: Vec<HeaderName>,
}

impl Connection {
    fn read(&mut self, value: &[u8]) {
        for option in options(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if let Ok(name) = HeaderName::from_bytes(option) {
                self.nominated.push(name);
            }
        }
    }
}

/// RFC 6455 §4.2.1. What is no good handshake is an ordinary request, whose upstream is not asked to switch.
fn read_websocket(
    method: &Method,
    version: Version,
    framing: Framing,
    connection: &Connection,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    let mut upgrades = headers.get_all(header::UPGRADE).iter().flat_map(|value| options(value.as_bytes()));
    let asked = connection.upgrade
        && method == Method::GET
        && version == Version::Http11
        && matches!(framing, Framing::None | Framing::Length(0))
        && upgrades.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if !asked {
        return None;
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(version), None, Some(key), None) = (versions.next(), versions.next(), keys.next(), keys.next()) else {
        return None;
    };
    // 16 bytes in base64.
    let (body, padding) = key.as_bytes().split_at_checked(22)?;
    let good = version.as_bytes() == b"13"
        && padding == b"=="
        && body.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    good.then(|| key.clone())
}

/// The elements of a list.
pub(super) fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim_blanks).filter(|option| !option.is_empty())
}

/// RFC 9110 §5.6.2.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        table[i] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        i += 1;
    }
    table
};

pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests;

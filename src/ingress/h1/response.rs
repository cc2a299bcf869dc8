//! The head of a response, written anew from what is known of it.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut, BytesMut};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName},
};

use super::{body::Encoder, head::Version};

/// Tells a client that waits for it to send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How the end of a response's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body and no word about it: 1xx, 204, and 304 or HEAD of unknown length.
    Empty,
    /// No body, but how long it would be: 304 and HEAD.
    Announced(u64),
    /// Content-Length.
    Length(u64),
    /// Chunked.
    Chunked,
    /// The connection is closed, for clients that know no chunks.
    Close,
}

impl ResponseFraming {
    /// Chooses by RFC 9112 §6.3; `length` is how long the body is, if that is known.
    pub fn choose(method: &Method, status: StatusCode, version: Version, length: Option<u64>) -> Self {
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            return Self::Empty;
        }
        if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return length.map_or(Self::Empty, Self::Announced);
        }
        match (length, version) {
            (Some(length), _) => Self::Length(length),
            (None, Version::Http11) => Self::Chunked,
            (None, Version::Http10) => Self::Close,
        }
    }

    /// Returns what frames the body.
    pub fn encoder(self) -> Encoder {
        match self {
            Self::Empty | Self::Announced(_) => Encoder::Empty,
            Self::Length(length) => Encoder::Length(length),
            Self::Chunked => Encoder::Chunked,
            Self::Close => Encoder::Close,
        }
    }
}

/// What becomes of the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Another request may follow.
    KeepAlive,
    /// It is closed.
    Close,
    /// It becomes a WebSocket: status 101.
    WebSocket,
}

/// Writes the head of a response.
///
/// Whatever `headers` says about framing and the connection is left out: that is said by `framing` and
/// `persistence`. `date` replaces the Date of `headers`, if given.
pub fn encode(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    framing: ResponseFraming,
    persistence: Persistence,
    date: Option<&Date>,
) {
    out.reserve(128 + headers.len() * 48);
    put_status_line(out, status);
    for (name, value) in headers {
        if is_ours(name) || (date.is_some() && *name == header::DATE) {
            continue;
        }
        put_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if let Some(date) = date {
        put_field(out, b"date", date.as_bytes());
    }
    match framing {
        ResponseFraming::Announced(length) | ResponseFraming::Length(length) => {
            out.put_slice(b"content-length: ");
            put_decimal(out, length);
            out.put_slice(b"\r\n");
        }
        ResponseFraming::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        ResponseFraming::Empty | ResponseFraming::Close => {}
    }
    match persistence {
        _ if framing == ResponseFraming::Close => out.put_slice(b"connection: close\r\n"),
        Persistence::Close => out.put_slice(b"connection: close\r\n"),
        Persistence::KeepAlive if version == Version::Http10 => out.put_slice(b"connection: keep-alive\r\n"),
        Persistence::KeepAlive => {}
        Persistence::WebSocket => out.put_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n"),
    }
    out.put_slice(b"\r\n");
}

/// Writes a whole response without a body, after which the connection is closed.
pub fn encode_refusal(out: &mut BytesMut, status: u16) {
    put_status_line(out, StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
    out.put_slice(b"content-length: 0\r\nconnection: close\r\n\r\n");
}

/// What only we say: about framing and about the connection (RFC 9110 §7.6.1).
fn is_ours(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH
        || *name == header::TRANSFER_ENCODING
        || *name == header::CONNECTION
        || *name == header::UPGRADE
        || *name == header::TRAILER
        || *name == header::TE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn put_status_line(out: &mut BytesMut, status: StatusCode) {
    if status == StatusCode::OK {
        return out.put_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

pub(in crate::ingress) fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

pub(in crate::ingress) fn put_decimal(out: &mut BytesMut, number: u64) {
    let mut digits = [0_u8; 20];
    let mut left = number;
    let mut written = 0;
    for slot in digits.iter_mut().rev() {
        // The remainder is below 10.
        *slot = b'0' + (left % 10) as u8;
        left /= 10;
        written += 1;
        if left == 0 {
            break;
        }
    }
    out.put_slice(digits.get(digits.len() - written..).unwrap_or_default());
}

/// The value of a Date field, made anew once a second.
#[derive(Clone, Debug)]
pub struct Date {
    until: SystemTime,
    text: String,
}

impl Date {
    /// Makes the value of a time.
    pub fn new(now: SystemTime) -> Self {
        let mut date = Self { until: UNIX_EPOCH, text: String::with_capacity(29) };
        date.write(now);
        date
    }

    /// Brings the value up to date, if its second has passed.
    pub fn update(&mut self, now: SystemTime) {
        // A clock that was set back is noticed too.
        let fresh = now < self.until && self.until.duration_since(now).is_ok_and(|left| left <= SECOND);
        if !fresh {
            self.write(now);
        }
    }

    /// Returns the value.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    fn write(&mut self, now: SystemTime) {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // httpdate cannot write years beyond 9999.
        let whole = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
        self.until = whole + SECOND;
        self.text.clear();
        let _ = write!(self.text, "{}", httpdate::HttpDate::from(whole));
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

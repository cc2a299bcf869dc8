//! Canonical forms: what is matched is what is sent upstream (rule 5).
//!
//! A matcher that sees something else than the upstream does is how gates are walked around. So there is one
//! reading of a host and of a path; whatever allows a second reading (dot segments, `\`, `%2F`, overlong UTF-8,
//! numbers that some resolvers take for an address) is refused instead of repaired.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// RFC 1035 §2.3.4, without the length bytes of the wire form.
const HOST_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A host as it is matched and sent upstream: lower-case A-labels without the last dot, no port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalHost(String);

/// A path as it is matched and sent upstream.
///
/// It begins with `/` and has no empty segment except perhaps the last, no dot segment, no raw byte outside
/// RFC 3986's `pchar`, no escape of an unreserved character, and escapes in upper case. Dot segments are refused
/// rather than resolved: no browser sends them, and resolving them would serve only who tries gates.
/// Runs of `/` become one, because most servers read them so and the others have no use for them.
/// What was escaped twice stays so; nothing is decoded a second time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalPath(String);

/// What cannot be brought into canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCanonical(pub &'static str);

impl CanonicalHost {
    /// Reads a host name or IP literal (IPv6 in brackets), without a port.
    ///
    /// A label holds letters, digits, hyphens that are neither first nor last, and underscores, which are
    /// no letters of a host name but which browsers look up and send all the same.
    pub fn parse(text: &str) -> Result<Self, NotCanonical> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(NotCanonical("host: bracket is not closed"))?;
            let address: Ipv6Addr = inner.parse().map_err(|_| NotCanonical("host: not an IPv6 address"))?;
            return Ok(Self(format!("[{address}]")));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NotCanonical("host: empty"));
        }
        if text.len() > HOST_MAX {
            return Err(NotCanonical("host: longer than 253 characters"));
        }
        let mut last = "";
        let mut punycode = false;
        for label in text.split('.') {
            check_label(label)?;
            punycode |= label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
            last = label;
        }
        // A name that ends in a number is an address to some (127.1, 0x7f000001) and a name to others.
        if is_number(last) {
            let address: Ipv4Addr = text.parse().map_err(|_| NotCanonical("host: not an IPv4 address"))?;
            return Ok(Self(address.to_string()));
        }
        let host = text.to_ascii_lowercase();
        // UTS #46 §4.1: what is decoded may not look encoded.
        if host.split('.').any(|label| label.starts_with("xn--xn--")) {
            return Err(NotCanonical("host: not an A-label"));
        }
        if punycode && to_ascii(&host, AsciiDenyList::EMPTY).as_deref() != Ok(&*host) {
            return Err(NotCanonical("host: not an A-label"));
        }
        Ok(Self(host))
    }

    /// Reads a host as people write it, with U-labels (UTS #46, not transitional). For configuration only: what
    /// comes over the wire is ASCII.
    pub fn from_unicode(text: &str) -> Result<Self, NotCanonical> {
        if text.is_ascii() {
            return Self::parse(text);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        Self::parse(&to_ascii(text, AsciiDenyList::URL)?)
    }

    /// Reads the value of a Host field or the authority of a URI: a host and perhaps a port.
    pub fn from_authority(text: &str) -> Result<(Self, Option<u16>), NotCanonical> {
        let colon = match text.rfind(']') {
            Some(end) => text.get(end..).and_then(|rest| rest.find(':')).map(|at| end + at),
            None => text.find(':'),
        };
        match colon.and_then(|at| text.split_at_checked(at)) {
            None => Ok((Self::parse(text)?, None)),
            Some((host, port)) => Ok((Self::parse(host)?, Some(parse_port(port)?))),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address that this host is, if it is no name.
    pub fn address(&self) -> Option<IpAddr> {
        match self.0.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
            None => self.0.parse().ok().map(IpAddr::V4),
        }
    }

    /// Whether this is an address and not a name.
    pub fn is_address(&self) -> bool {
        self.address().is_some()
    }
}

fn check_label(label: &str) -> Result<(), NotCanonical> {
    let bytes = label.as_bytes();
    if bytes.is_empty() {
        return Err(NotCanonical("host: empty label"));
    }
    if bytes.len() > LABEL_MAX {
        return Err(NotCanonical("host: label longer than 63 characters"));
    }
    if !bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(NotCanonical("host: character not allowed"));
    }
    if bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-') {
        return Err(NotCanonical("host: label begins or ends with a hyphen"));
    }
    Ok(())
}

/// Whether the WHATWG's URL standard would read a name that ends in this label as an IPv4 address.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn to_ascii(text: &str, denied: AsciiDenyList) -> Result<Cow<'_, str>, NotCanonical> {
    Uts46::new()
        .to_ascii(text.as_bytes(), denied, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map_err(|_| NotCanonical("host: not an internationalised name"))
}

/// Reads `:443`.
fn parse_port(text: &str) -> Result<u16, NotCanonical> {
    const BAD: NotCanonical = NotCanonical("host: bad port");
    let digits = text.strip_prefix(':').ok_or(BAD)?;
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    digits.parse().map_err(|_| BAD)
}

/// What a raw byte of a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself.
    Plain,
    /// Browsers send it raw, RFC 3986 wants it escaped, so both forms become the escape.
    Escape,
    /// `%`.
    Percent,
    /// `/`.
    Slash,
    /// Has no place in a path.
    Refused,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Refused; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match i as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escape,
            b'%' => Class::Percent,
            b'/' => Class::Slash,
            _ => Class::Refused,
        };
        i += 1;
    }
    table
};

fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Refused)
}

impl CanonicalPath {
    /// Reads the path of a request, without its query.
    pub fn parse(text: &str) -> Result<Self, NotCanonical> {
        if !text.starts_with('/') {
            return Err(NotCanonical("path: does not begin with a slash"));
        }
        let mut out = String::with_capacity(text.len());
        // Most paths are canonical from the beginning to the end.
        let mut before = 0;
        let same = text.bytes().take_while(|&byte| match class(byte) {
            Class::Plain => {
                before = byte;
                true
            }
            Class::Slash => std::mem::replace(&mut before, b'/') != b'/',
            _ => false,
        });
        let (same, rest) = text.split_at_checked(same.count()).unwrap_or(("", text));
        out.push_str(same);
        let mut bytes = rest.bytes();
        while let Some(byte) = bytes.next() {
            match class(byte) {
                Class::Plain => out.push(char::from(byte)),
                Class::Escape => push_escape(&mut out, byte),
                Class::Slash => {
                    if !out.ends_with('/') {
                        out.push('/');
                    }
                }
                Class::Percent => {
                    let (Some(high), Some(low)) = (bytes.next().and_then(hex_value), bytes.next().and_then(hex_value))
                    else {
                        return Err(NotCanonical("path: bad escape"));
                    };
                    match (high << 4) | low {
                        b @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                            out.push(char::from(b));
                        }
                        b'/' | b'\\' => return Err(NotCanonical("path: escaped slash or backslash")),
                        0x00..=0x1f | 0x7f => return Err(NotCanonical("path: escaped control character")),
                        b => push_escape(&mut out, b),
                    }
                }
                Class::Refused => return Err(NotCanonical("path: character not allowed")),
            }
        }
        check_segments(&out)?;
        if !rest.is_empty() {
            check_overlong(&out)?;
        }
        Ok(Self(out))
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the first segments of this path are those of `prefix`, whose last slash does not count.
    ///
    /// Segments are compared by what they name: `a%21` is `a!`, and parameters (`;v=1`) name nothing, because
    /// there are servers that cut them off before they look.
    pub fn starts_with_prefix(&self, prefix: &Self) -> bool {
        let prefix = prefix.0.strip_suffix('/').unwrap_or(&prefix.0);
        if let Some(rest) = self.0.strip_prefix(prefix)
            && (rest.is_empty() || rest.starts_with(['/', ';']))
        {
            return true;
        }
        if !self.0.contains(['%', ';']) && !prefix.contains(['%', ';']) {
            return false;
        }
        let mut segments = self.0.split('/');
        prefix.split('/').all(|wanted| segments.next().is_some_and(|segment| name(segment).eq(name(wanted))))
    }
}

impl CanonicalPath {
    /// Whether some server might take this path for one with that prefix: one that decodes a few times, resolves what then are dot segments, ignores case, and dots and spaces at the end of names.
    ///
    /// A path that is closed to somebody is closed in all these forms; to open one takes [`Self::starts_with_prefix`].
    pub fn might_be_under(&self, prefix: &Self) -> bool {
        if self.starts_with_prefix(prefix) {
            return true;
        }
        let mut path = loose_segments(&self.0).into_iter();
        loose_segments(&prefix.0).into_iter().all(|wanted| path.next() == Some(wanted))
    }
}

/// The segments of a path to the most lenient of servers.
fn loose_segments(path: &str) -> Vec<String> {
    let mut bytes: Vec<u8> = path.bytes().collect();
    // Nobody decodes more often; and without an end a long row of `%25` would cost the square of its length.
    for _ in 0..4 {
        bytes = decode(&bytes);
    }
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split(['/', '\\']) {
        let name = segment.split([';', '?', '#', '\0']).next().unwrap_or_default();
        match name {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(name.trim_end_matches(['.', ' ']).to_owned()),
        }
    }
    segments
}

/// Decodes escapes once; what is none stays.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [high, low, after @ ..] if *first == b'%' => {
                hex_value(*high).zip(hex_value(*low)).map(|(high, low)| ((high << 4) | low, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        out.push(byte);
        rest = after;
    }
    out
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for nibble in [byte >> 4, byte & 15] {
        out.push(HEX.get(usize::from(nibble)).copied().map_or('0', char::from));
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The bytes that a segment names: decoded, without parameters.
fn name(segment: &str) -> impl Iterator<Item = u8> + '_ {
    let mut bytes = segment.bytes();
    std::iter::from_fn(move || {
        let byte = match bytes.next()? {
            b'%' => (bytes.next().and_then(hex_value)? << 4) | bytes.next().and_then(hex_value)?,
            byte => byte,
        };
        (byte != b';').then_some(byte)
    })
    .fuse()
}

/// Refuses what is a dot segment, or empty, to a server that cuts parameters off (`/..;/`).
fn check_segments(path: &str) -> Result<(), NotCanonical> {
    let bytes = path.as_bytes();
    // Only what begins with a dot, a `;` or its escape can be one.
    for (at, _) in bytes.iter().enumerate().filter(|&(_, &b)| b == b'/') {
        let segment = bytes.get(at + 1..).unwrap_or_default();
        let dots = segment.iter().take_while(|&&b| b == b'.').count();
        let rest = segment.get(dots..).unwrap_or_default();
        let parameter = rest.first() == Some(&b';') || rest.starts_with(b"%3B");
        let ends = parameter || rest.is_empty() || rest.first() == Some(&b'/');
        if (1..=2).contains(&dots) && ends {
            return Err(NotCanonical("path: dot segment"));
        }
        if dots == 0 && parameter {
            return Err(NotCanonical("path: parameter without a segment"));
        }
    }
    Ok(())
}

/// Refuses escapes that a lenient decoder of UTF-8 reads as a shorter character: `%C0%AF` is no slash.
fn check_overlong(path: &str) -> Result<(), NotCanonical> {
    for (at, _) in path.match_indices('%') {
        let overlong = matches!(
            path.as_bytes().get(at..),
            Some(
                [_, b'C', b'0' | b'1', b'%', b'8' | b'9' | b'A' | b'B', ..]
                    | [_, b'E', b'0', b'%', b'8' | b'9', ..]
                    | [_, b'F', b'0' | b'8' | b'C', b'%', b'8', ..]
            )
        );
        if overlong {
            return Err(NotCanonical("path: overlong UTF-8"));
        }
    }
    Ok(())
}

impl fmt::Display for CanonicalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
pub(super) mod tests;

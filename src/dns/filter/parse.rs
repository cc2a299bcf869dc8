//! Reads block and allow lists: each line says what it is, so that a list may mix formats.
//!
//! | line | covers |
//! |---|---|
//! | hosts (`0.0.0.0 name name…`; the address is null or loopback) | these names exactly |
//! | plain domain (`name`) | this name exactly |
//! | wildcard (`*.name`), dotted (`.name`) | the name and everything below it |
//! | AdBlock (`\|\|name^`, `@@\|\|name^` as exception) | the name and everything below it |
//! | AdBlock with `$important` | the same, and exceptions without it say nothing against it |
//! | AdBlock (`\|name^`) | this name exactly; `\|\|*.name^` everything below it |
//! | AdBlock with `$dnstype`, `$client`, `$denyallow`, `$dnsrewrite`, `$badfilter` | as AdGuard Home means them |
//! | AdBlock (`\|\|ads*.name^`, `/expression/`), Pi-hole (`expression;querytype=A`) | what it fits |
//! | dnsmasq (`address=/name/`, `local=/name/`, `server=/name/`) | the name and everything below it |
//! | unbound (`local-zone: "name" always_nxdomain`) | the name and everything below it |
//! | RPZ (`name CNAME .`; `*.name CNAME .`) | this name exactly; everything below it |
//! | RPZ (`24.0.2.0.192.rpz-ip CNAME .`), an address alone | answers with such an address |
//!
//! Exact for hosts and plain domains is what Pi-hole and AdGuard Home do: such lists name each host, and the
//! name of a shared host (a CDN, a blog platform) must not take its neighbours along.
//!
//! What is not taken has a [`Reason`]; blank lines and comments are not counted.

mod adblock;
mod rdata;
mod zone;

use std::{
    borrow::Cow,
    io::{self, BufRead},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use super::{
    name::{WireName, parse_address},
    patterns::Expression,
    reason::Reason,
    terms::Terms,
};
use crate::dns::Action;

/// Longer lines are ignored; the rest of such a line is skipped without being kept.
const MAX_LINE: usize = 4096;

/// Larger lists are refused.
const MAX_BYTES: u64 = 512 << 20;

/// How far an entry reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// The name itself.
    Exact,
    /// Everything below the name, but not itself.
    Below,
    /// The name and everything below it.
    Subtree,
}

/// Whether an entry does what its list does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sense {
    /// It is one of the list's names.
    Listed,
    /// It is let through (`@@` of AdBlock, PASSTHRU of RPZ).
    Exception,
    /// One of the list's names, whatever exceptions say (`$important` of AdBlock).
    Important,
    /// It is let through, whatever else lists say.
    ImportantException,
}

impl Sense {
    /// Returns what an entry does in a list of this action.
    pub(super) const fn action(self, of_list: Action) -> Action {
        match self {
            Self::Listed | Self::Important => of_list,
            Self::Exception | Self::ImportantException => Action::Allow,
        }
    }

    /// Says whether an entry beats those that are not important.
    pub(super) const fn is_important(self) -> bool {
        matches!(self, Self::Important | Self::ImportantException)
    }
}

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// A name, in wire form and lower case.
    Name { name: &'a [u8], reach: Reach, sense: Sense, terms: &'a Terms },
    /// Whatever fits an expression.
    Pattern { expression: &'a Expression, sense: Sense, terms: &'a Terms },
    /// Answers with such an address.
    Net { net: IpNet, sense: Sense, terms: &'a Terms },
    /// Something that is not taken.
    Ignored(Reason),
}

/// Why a whole list is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is larger than any list: 512 MiB.
    #[error("larger than 512 MiB")]
    TooLarge,
    /// It begins as a gzip or zstd file does.
    #[error("is compressed: unpack it first")]
    Compressed,
    /// It begins with a tag: an error page or a login page came instead of the list.
    #[error("looks like a web page, not a list")]
    WebPage,
}

/// Reads a list to its end, and calls `found` with the number and text of a line for each thing in it.
/// Returns the bytes read.
pub(super) fn read(source: impl BufRead, found: impl FnMut(u64, &[u8], Found<'_>)) -> Result<u64, ReadError> {
    read_within(MAX_BYTES, source, found)
}

fn read_within(
    limit: u64,
    source: impl BufRead,
    mut found: impl FnMut(u64, &[u8], Found<'_>),
) -> Result<u64, ReadError> {
    let mut source = source.take(limit + 1);
    let mut line = Vec::new();
    let mut reader = LineReader::default();
    let (mut bytes, mut number, mut blank) = (0, 0, true);
    loop {
        line.clear();
        let (length, whole) = next_line(&mut source, &mut line)?;
        if source.limit() == 0 {
            return Err(ReadError::TooLarge);
        }
        if length == 0 {
            return Ok(bytes);
        }
        bytes += length;
        number += 1;
        if number == 1 && (line.starts_with(b"\x1f\x8b") || line.starts_with(b"\x28\xb5\x2f\xfd")) {
            return Err(ReadError::Compressed);
        }
        let text = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if blank && text.trim_ascii_start().starts_with(b"<") {
            return Err(ReadError::WebPage);
        }
        blank &= text.trim_ascii().is_empty();
        if whole {
            reader.line(text, |thing| found(number, text, thing));
        } else {
            found(number, text, Found::Ignored(Reason::TooLong));
        }
    }
}

/// Reads a line without its end; of a line that is too long the beginning. Returns the octets consumed and
/// whether the line is whole.
fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<(u64, bool)> {
    let mut consumed = 0;
    let mut whole = true;
    loop {
        let available = match source.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = available.iter().position(|octet| *octet == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let fits = part.len().min(MAX_LINE - line.len());
        whole &= fits == part.len();
        line.extend_from_slice(&part[..fits]);
        let used = part.len() + usize::from(end.is_some());
        let ended = end.is_some() || used == 0;
        source.consume(used);
        consumed += used as u64;
        if ended {
            return Ok((consumed, whole));
        }
    }
}

/// What is remembered from line to line.
#[derive(Default)]
pub(super) struct LineReader {
    /// A line in AdBlock's syntax was seen: `##` is a cosmetic rule and not a comment.
    adblock: bool,
    /// The `$ORIGIN` of a zone, without dots around it.
    origin: Vec<u8>,
    name: WireName,
    plain: Terms,
}

impl LineReader {
    /// Calls `found` with each thing that a line holds.
    pub(super) fn line(&mut self, text: &[u8], mut found: impl FnMut(Found<'_>)) {
        let starts_with_space = text.first().is_some_and(u8::is_ascii_whitespace);
        let text = text.trim_ascii();
        let Some(&first) = text.first() else { return };
        match first {
            b'#' if self.adblock && is_cosmetic(text) => return found(Found::Ignored(Reason::Cosmetic)),
            b'#' | b';' => return,
            b'!' => {
                self.adblock = true;
                return;
            }
            b'[' => {
                self.adblock |= text.len() > 8 && text[1..8].eq_ignore_ascii_case(b"adblock");
                return;
            }
            b'/' => {
                let is_expression = text.len() > 2 && (text.ends_with(b"/") || text.windows(2).any(|two| two == b"/$"));
                return match is_expression {
                    true => adblock::rule(text, &mut self.name, found),
                    false => found(Found::Ignored(Reason::Url)),
                };
            }
            b'^' | b'(' | b'\\' => return expression(text, found),
            b'|' | b'@' if text.starts_with(b"|") || text.starts_with(b"@@") => {
                self.adblock = true;
                return adblock::rule(text, &mut self.name, found);
            }
            _ => {}
        }
        if is_cosmetic(text) {
            return found(Found::Ignored(Reason::Cosmetic));
        }
        let text = without_comment(text);
        if let Some((key, value)) = dnsmasq_option(text) {
            return self.dnsmasq(key, value, found);
        }
        let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(word) = words.next() else { return };
        if word.ends_with(b":") && word.len() > 1 && parse_address(word).is_none() {
            return self.unbound(word, text.get(word.len()..).unwrap_or_default(), found);
        }
        if word.starts_with(b"$") && !self.adblock || word == b"@" || starts_with_space && is_zone_word(word) {
            if word.eq_ignore_ascii_case(b"$origin") {
                self.origin = words.next().unwrap_or_default().trim_ascii().to_vec();
                self.origin = trim_dots(&self.origin).to_ascii_lowercase();
            }
            return found(Found::Ignored(Reason::Header));
        }
        if self.adblock && word.starts_with(b"$") {
            return found(Found::Ignored(Reason::Modifier));
        }
        let Some(second) = words.next() else {
            return self.plain(word, found);
        };
        // `0` is short for 0.0.0.0.
        let address = if word == b"0" { Some(Ipv4Addr::UNSPECIFIED.into()) } else { parse_address(word) };
        if let Some(address) = address {
            return self.hosts(address, std::iter::once(second).chain(words), found);
        }
        let owner = self.relative(word).into_owned();
        zone::record(&owner, std::iter::once(second).chain(words), &mut self.name, found);
    }

    fn plain(&mut self, word: &[u8], mut found: impl FnMut(Found<'_>)) {
        if let Some(address) = parse_address(word).filter(|address| !is_nobodys(*address)) {
            return found(Found::Net { net: address.into(), sense: Sense::Listed, terms: &self.plain });
        }
        if self.adblock && (word.starts_with(b".") || word.starts_with(b"-") || word.ends_with(b".")) {
            // In this syntax it is a part of a URL.
            return found(Found::Ignored(Reason::Pattern));
        }
        // A dollar sign ends an expression, or begins modifiers.
        if word.windows(2).any(|two| two[0] == b'$' && two[1].is_ascii_lowercase()) {
            return found(Found::Ignored(Reason::Modifier));
        }
        let (rest, reach) = match word.strip_prefix(b"*.").or_else(|| word.strip_prefix(b".")) {
            Some(rest) => (rest, Reach::Subtree),
            None => (word, Reach::Exact),
        };
        let adblock = self.adblock;
        match self.host(rest, reach) {
            Found::Ignored(Reason::Regex) if !adblock => expression(word, found),
            thing => found(thing),
        }
    }

    fn hosts<'a>(&mut self, address: IpAddr, names: impl Iterator<Item = &'a [u8]>, mut found: impl FnMut(Found<'_>)) {
        for name in names {
            found(match self.host(name, Reach::Exact) {
                Found::Name { .. } if !blocks(address) => Found::Ignored(Reason::Rewrite),
                thing => thing,
            });
        }
    }

    /// Takes a name of a format that lists hosts.
    fn host(&mut self, text: &[u8], reach: Reach) -> Found<'_> {
        if is_this_host(text) {
            return Found::Ignored(Reason::ThisHost);
        }
        match self.name.read(text) {
            Err(reason) => Found::Ignored(reason),
            Ok(1) if reach == Reach::Exact => Found::Ignored(Reason::OneLabel),
            Ok(_) => Found::Name { name: self.name.octets(), reach, sense: Sense::Listed, terms: &self.plain },
        }
    }

    fn dnsmasq(&mut self, key: &[u8], value: &[u8], mut found: impl FnMut(Found<'_>)) {
        let mut parts: Vec<&[u8]> = value.split(|octet| *octet == b'/').collect();
        let target = parts.pop().unwrap_or_default();
        let refuses = match parse_address(target) {
            Some(address) => key == b"address" && blocks(address),
            None => target.is_empty() || target == b"#" && key == b"address",
        };
        if parts.len() < 2 {
            return found(Found::Ignored(Reason::Header));
        }
        for name in &parts[1..] {
            found(if !refuses {
                Found::Ignored(Reason::Rewrite)
            } else if *name == b"#" || name.contains(&b'*') {
                Found::Ignored(Reason::Pattern)
            } else {
                self.subtree(name.strip_prefix(b".").unwrap_or(name))
            });
        }
    }

    fn unbound(&mut self, key: &[u8], value: &[u8], mut found: impl FnMut(Found<'_>)) {
        let unquoted: Vec<u8> = value.iter().copied().filter(|octet| !matches!(octet, b'"' | b'\'')).collect();
        let words: Vec<&[u8]> = unquoted.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        found(match (key, words.as_slice()) {
            (b"local-zone:", [name, kind]) if REFUSING_ZONES.contains(kind) => self.subtree(name),
            (b"local-zone:", _) => Found::Ignored(Reason::Modifier),
            (b"local-data:", [name, .., target]) if parse_address(target).is_some_and(blocks) => {
                self.host(name, Reach::Exact)
            }
            (b"local-data:", _) => Found::Ignored(Reason::Rewrite),
            (b"server:", []) => Found::Ignored(Reason::Header),
            _ if key.contains(&b'/') => Found::Ignored(Reason::Url),
            _ => Found::Ignored(Reason::NotAName),
        });
    }

    /// Takes the zone's name off an absolute owner name.
    fn relative<'a>(&self, owner: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(absolute) = owner.strip_suffix(b".") else { return Cow::Borrowed(owner) };
        let mut name = absolute.to_ascii_lowercase();
        if !self.origin.is_empty() && name.ends_with(&self.origin) {
            name.truncate(name.len() - self.origin.len());
            if name.pop() == Some(b'.') {
                return Cow::Owned(name);
            }
        }
        Cow::Borrowed(absolute)
    }

    fn subtree(&mut self, text: &[u8]) -> Found<'_> {
        match self.name.read(text) {
            Err(reason) => Found::Ignored(reason),
            Ok(_) => {
                let name = self.name.octets();
                Found::Name { name, reach: Reach::Subtree, sense: Sense::Listed, terms: &self.plain }
            }
        }
    }
}

/// Types of `local-zone` that refuse what is under the name.
const REFUSING_ZONES: [&[u8]; 10] = [
    b"always_nxdomain",
    b"always_null",
    b"always_refuse",
    b"always_nodata",
    b"always_deny",
    b"deny",
    b"refuse",
    b"static",
    b"redirect",
    b"inform_deny",
];

fn is_this_host(name: &[u8]) -> bool {
    const NAMES: [&str; 11] = [
        "localhost",
        "localhost.localdomain",
        "localhost4",
        "localhost6",
        "local",
        "broadcasthost",
        "ip6-localhost",
        "ip6-loopback",
        "ip6-localnet",
        "ip6-mcastprefix",
        "ip6-all",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"ip6-all"))
}

/// Takes a regular expression as Pi-hole writes them.
fn expression(text: &[u8], mut found: impl FnMut(Found<'_>)) {
    found(match &adblock::pihole(text) {
        Ok((expression, terms)) => Found::Pattern { expression, sense: Sense::Listed, terms },
        Err(reason) => Found::Ignored(*reason),
    });
}

/// Says whether an address is no host's: a list of addresses to block does not mean it.
fn is_nobodys(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    blocks(address) || address.is_multicast() || broadcast
}

/// Says whether an entry covers a name, both in wire form and lower case.
pub(super) fn covers(entry: &[u8], reach: Reach, name: &[u8]) -> bool {
    let mut suffix = name;
    loop {
        if suffix == entry {
            return match reach {
                Reach::Exact => suffix.len() == name.len(),
                Reach::Below => suffix.len() < name.len(),
                Reach::Subtree => true,
            };
        }
        let Some(rest) = suffix.first().and_then(|length| suffix.get(1 + usize::from(*length)..)) else { return false };
        if rest.is_empty() || suffix.len() < entry.len() {
            return false;
        }
        suffix = rest;
    }
}

/// Says whether a hosts line with this address blocks its names.
fn blocks(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback()
}

fn is_cosmetic(text: &[u8]) -> bool {
    let marks = [&b"##"[..], b"#@#", b"#?#", b"#$#", b"#%#"];
    let Some(at) = text.iter().position(|octet| *octet == b'#') else { return false };
    marks.iter().any(|mark| text[at..].starts_with(mark))
        // A row of signs is a comment with a frame, also in an AdBlock list.
        && !text[at..].iter().all(|octet| *octet == b'#')
        && (at == 0 || !text[at - 1].is_ascii_whitespace())
}

fn without_comment(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|octet| *octet == b'#');
    // dnsmasq's `address=/name/#` ends in one.
    match end {
        Some(at) if !text[..at].ends_with(b"/") => text[..at].trim_ascii_end(),
        _ => text,
    }
}

fn dnsmasq_option(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|octet| *octet == b'=')?;
    let key = &text[..at];
    matches!(key, b"address" | b"local" | b"server").then(|| (key, text[at + 1..].trim_ascii()))
}

fn is_zone_word(word: &[u8]) -> bool {
    ["ns", "soa", "in"].iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

fn trim_dots(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_suffix(b".") {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;

//! Rules in AdBlock's syntax, as AdGuard Home reads them for DNS: `||name^`, `|name^`, `@@`, stars, `/expression/`,
//! and the modifiers that say something to a DNS server.

use hickory_proto::rr::RecordType;

use super::{Found, Reach, Reason, Sense, rdata};
use crate::{
    dns::filter::{
        glob::{Glob, LONGEST},
        name::{WireName, parse_address},
        patterns::{Expression, Unfit},
        terms::{Client, Gives, Terms, Types, Who},
    },
    neighbours::Mac,
};

/// Reads a rule and calls `found` with what it is.
pub(super) fn rule(text: &[u8], name: &mut WireName, mut found: impl FnMut(Found<'_>)) {
    let (text, exception) = match text.strip_prefix(b"@@") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (pattern, modifiers) = split(text);
    let (terms, important) = match modifiers.map_or(Ok(Default::default()), |text| read_modifiers(text, exception)) {
        Ok(read) => read,
        Err(reason) => return found(Found::Ignored(reason)),
    };
    let sense = match (exception, important) {
        (false, false) => Sense::Listed,
        (false, true) => Sense::Important,
        (true, false) => Sense::Exception,
        (true, true) => Sense::ImportantException,
    };
    if pattern.len() > 2
        && let Some(inner) = pattern.strip_prefix(b"/").and_then(|rest| rest.strip_suffix(b"/"))
    {
        return found(match &expression(inner) {
            Ok(expression) if !terms.bad => Found::Pattern { expression, sense, terms: &terms },
            Ok(_) => Found::Ignored(Reason::Modifier),
            Err(reason) => Found::Ignored(*reason),
        });
    }
    pattern_rule(pattern, exception, sense, terms, name, found);
}

fn pattern_rule(
    pattern: &[u8],
    exception: bool,
    sense: Sense,
    mut terms: Terms,
    name: &mut WireName,
    mut found: impl FnMut(Found<'_>),
) {
    let (start, rest) = match (pattern.strip_prefix(b"||"), pattern.strip_prefix(b"|")) {
        (Some(rest), _) => (Start::Label, rest),
        (None, Some(rest)) => (Start::Name, rest),
        _ => (Start::Anywhere, pattern),
    };
    let unanchored = rest.strip_suffix(b"|").unwrap_or(rest);
    let body = unanchored.strip_suffix(b"^").unwrap_or(unanchored);
    let closed = body.len() < rest.len();
    if body.iter().any(|octet| matches!(octet, b'/' | b':' | b'?' | b'=')) && parse_address(body).is_none() {
        return found(Found::Ignored(Reason::Url));
    }
    if body.iter().any(|octet| matches!(octet, b'^' | b'|')) || body.len() > LONGEST {
        return found(Found::Ignored(Reason::Pattern));
    }
    if let Some(address) = parse_address(body) {
        return found(Found::Net { net: address.into(), sense, terms: &terms });
    }
    let body = body.to_ascii_lowercase();
    let below = body.strip_prefix(b"*.").filter(|rest| start == Start::Label && !rest.contains(&b'*'));
    let whole = below.unwrap_or(&body);
    if !whole.contains(&b'*') && !whole.ends_with(b".") && !whole.starts_with(b".") {
        let reach = match (start, below) {
            (_, Some(_)) => Reach::Below,
            (Start::Label, None) => Reach::Subtree,
            // An exception that begins anywhere is meant for a name.
            (Start::Anywhere, None) if exception && !whole.starts_with(b"-") => Reach::Subtree,
            _ => Reach::Exact,
        };
        // `|ads^` is a name, `|ads` any that begins so; so is `-ads.example^` any that ends so.
        let is_name = match start {
            Start::Label => true,
            Start::Name => closed,
            Start::Anywhere => exception && !whole.starts_with(b"-"),
        };
        if is_name {
            return found(match name.read(whole) {
                Ok(_) => Found::Name { name: name.octets(), reach, sense, terms: &terms },
                Err(reason) => Found::Ignored(reason),
            });
        }
    }
    // What follows the last star names a place in the table, if it is more than a top-level name.
    let tail = body.iter().rposition(|octet| *octet == b'*').map(|star| &body[star + 1..]);
    let suffix = tail.and_then(|tail| tail.iter().position(|octet| *octet == b'.').map(|dot| &tail[dot + 1..]));
    if closed
        && start != Start::Anywhere
        && let Some(suffix) = suffix
        && name.read(suffix).is_ok_and(|labels| labels > 1)
    {
        terms.glob = Some(Glob::new(&body, start == Start::Label));
        return found(Found::Name { name: name.octets(), reach: Reach::Below, sense, terms: &terms });
    }
    if terms.bad {
        return found(Found::Ignored(Reason::Modifier));
    }
    let mut text = match start {
        Start::Label => r"(?:^|\.)".to_owned(),
        Start::Name => "^".to_owned(),
        Start::Anywhere => String::new(),
    };
    for octet in body {
        match octet {
            b'*' => text.push_str(".*"),
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => text.push(octet.into()),
            b'.' => text.push_str(r"\."),
            _ => return found(Found::Ignored(Reason::Pattern)),
        }
    }
    text.push_str(if closed { "$" } else { "" });
    found(match &Expression::read(&text) {
        Ok(expression) => Found::Pattern { expression, sense, terms: &terms },
        Err(_) => Found::Ignored(Reason::RegexTooLarge),
    });
}

/// Where a pattern begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// At a label (`||`).
    Label,
    /// With the name (`|`).
    Name,
    Anywhere,
}

/// Reads a regular expression for names.
pub(super) fn expression(text: &[u8]) -> Result<Expression, Reason> {
    let text = std::str::from_utf8(text).map_err(|_| Reason::NotText)?;
    // No name has a slash or a colon: it is meant for a URL.
    if text.contains('/') || text.replace("(?:", "").replace("[:", "").replace(":]", "").contains(':') {
        return Err(Reason::Url);
    }
    Expression::read(text).map_err(|unfit| match unfit {
        Unfit::Syntax => Reason::Regex,
        Unfit::Size => Reason::RegexTooLarge,
    })
}

/// Reads `expression;querytype=A,AAAA;reply=nxdomain`, as Pi-hole has them.
pub(super) fn pihole(text: &[u8]) -> Result<(Expression, Terms), Reason> {
    let mut parts = text.split(|octet| *octet == b';');
    let expression = expression(parts.next().unwrap_or_default())?;
    let mut terms = Terms::default();
    for part in parts {
        let (key, value) = key_value(part);
        match key {
            b"querytype" => {
                let (negated, value) = match value.strip_prefix(b"!") {
                    Some(rest) => (true, rest),
                    None => (false, value),
                };
                let types = value.split(|octet| *octet == b',').map(record_type).collect::<Option<_>>();
                let types = types.ok_or(Reason::Modifier)?;
                terms.types = Some(if negated { Types::AllBut(types) } else { Types::Only(types) });
            }
            b"reply" => {
                terms.gives = Some(match value.to_ascii_lowercase().as_slice() {
                    b"nxdomain" => Gives::NxDomain,
                    b"nodata" => Gives::NoData,
                    b"refused" => Gives::Refused,
                    b"none" => Gives::Silence,
                    value => address(value).ok_or(Reason::Modifier)?,
                });
            }
            _ => return Err(Reason::Modifier),
        }
    }
    Ok((expression, terms))
}

/// Splits a rule from its modifiers.
fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    // A dollar sign in an expression is its own.
    if text.starts_with(b"/")
        && let Some(end) = text.iter().rposition(|octet| *octet == b'/').filter(|end| *end > 0)
    {
        match &text[end + 1..] {
            [] => return (text, None),
            [b'$', modifiers @ ..] => return (&text[..=end], Some(modifiers)),
            _ => {}
        }
    }
    match text.iter().rposition(|octet| *octet == b'$') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn read_modifiers(text: &[u8], exception: bool) -> Result<(Terms, bool), Reason> {
    let mut terms = Terms::default();
    let mut important = false;
    for modifier in unescaped(text, b',') {
        let (key, value) = key_value(&modifier);
        match key {
            b"important" if value.is_empty() => important = true,
            b"badfilter" if value.is_empty() => terms.bad = true,
            b"dnstype" => terms.types = Some(types(value)?),
            b"client" => terms.clients = clients(value)?,
            b"denyallow" => {
                let wire = |name: &[u8]| {
                    let mut wire = WireName::default();
                    wire.read(name).map(|_| wire.octets().into())
                };
                terms.except = value.split(|octet| *octet == b'|').map(wire).collect::<Result<_, _>>()?;
            }
            b"dnsrewrite" => terms.gives = Some(rewrite(value, exception)?),
            _ => return Err(Reason::Modifier),
        }
    }
    Ok((terms, important))
}

fn types(value: &[u8]) -> Result<Types, Reason> {
    let (mut only, mut but) = (Vec::new(), Vec::new());
    for word in value.split(|octet| *octet == b'|') {
        let (list, word) = match word.strip_prefix(b"~") {
            Some(rest) => (&mut but, rest),
            None => (&mut only, word),
        };
        list.push(record_type(word).ok_or(Reason::Modifier)?);
    }
    Ok(if only.is_empty() { Types::AllBut(but) } else { Types::Only(only) })
}

fn record_type(word: &[u8]) -> Option<u16> {
    let word = std::str::from_utf8(word).ok()?.to_ascii_uppercase();
    word.parse::<RecordType>().ok().filter(|rtype| !matches!(rtype, RecordType::Unknown(_))).map(u16::from)
}

fn clients(value: &[u8]) -> Result<Vec<Client>, Reason> {
    let client = |word: Vec<u8>| {
        let (word, excluded) = match word.strip_prefix(b"~") {
            Some(rest) => (rest, true),
            None => (&word[..], false),
        };
        let quoted = |quote: u8| word.len() > 1 && word.first() == Some(&quote) && word.last() == Some(&quote);
        let word = if quoted(b'\'') || quoted(b'"') { &word[1..word.len() - 1] } else { word };
        let text = std::str::from_utf8(word).ok().filter(|text| !text.is_empty()).ok_or(Reason::Modifier)?;
        let (address, net) = (text.parse::<std::net::IpAddr>(), text.parse::<ipnet::IpNet>());
        let who = match (address, net, text.parse::<Mac>()) {
            (Ok(address), ..) => Who::Net(address.into()),
            (_, Ok(net), _) => Who::Net(net),
            (.., Ok(mac)) => Who::Mac(mac),
            _ => Who::Name(text.to_ascii_lowercase()),
        };
        Ok(Client { who, excluded })
    };
    unescaped(value, b'|').into_iter().map(client).collect()
}

/// Reads the value of `$dnsrewrite`: a code, an address, a name, or `CODE;TYPE;DATA`.
fn rewrite(value: &[u8], exception: bool) -> Result<Gives, Reason> {
    let text = std::str::from_utf8(value).map_err(|_| Reason::NotText)?;
    let code = |code: &str| match code {
        "NXDOMAIN" => Some(Gives::NxDomain),
        "REFUSED" => Some(Gives::Refused),
        "NOERROR" => Some(Gives::NoData),
        _ => None,
    };
    let mut parts = text.splitn(3, ';');
    match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
        ("", None, _) if exception => Ok(Gives::AnyRewrite),
        (word, None, _) => code(word).or_else(|| address(value)).or_else(|| alias(value)).ok_or(Reason::Rewrite),
        (word, Some(""), _) => code(word).ok_or(Reason::Rewrite),
        ("NOERROR", Some("CNAME"), Some(target)) => alias(target.as_bytes()).ok_or(Reason::Rewrite),
        ("NOERROR", Some(kind), Some(data)) => record(kind, data).ok_or(Reason::Rewrite),
        _ => Err(Reason::Rewrite),
    }
}

fn address(text: &[u8]) -> Option<Gives> {
    Some(match parse_address(text)? {
        std::net::IpAddr::V4(v4) => Gives::Record(1, v4.octets().into()),
        std::net::IpAddr::V6(v6) => Gives::Record(28, v6.octets().into()),
    })
}

fn alias(text: &[u8]) -> Option<Gives> {
    let mut name = WireName::default();
    name.read(text).ok()?;
    Some(Gives::Alias(name.octets().into()))
}

fn record(kind: &str, data: &str) -> Option<Gives> {
    let (rtype, rdata) = rdata::read(kind, data)?;
    Some(Gives::Record(rtype, rdata))
}

fn key_value(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|octet| *octet == b'=') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// Splits at a mark that has no backslash before it, and takes those backslashes away.
fn unescaped(text: &[u8], mark: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut octets = text.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' if octets.peek() == Some(&mark) => {
                octets.next();
                parts.last_mut().expect("there is always a part").push(mark);
            }
            octet if octet == mark => parts.push(Vec::new()),
            octet => parts.last_mut().expect("there is always a part").push(octet),
        }
    }
    parts
}

//! `[[check]]`: something that is watched besides the routes.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};

use crate::{
    config::{
        file::Table,
        problems::{About, At, Wrong},
        value,
    },
    watch::{Http, Kind, Place, Rule},
    week::{Spans, WeekSpan},
};

/// `[[check]]` as written.
pub(crate) struct Check {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) kind: Kind,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) rule: Rule,
    pub(crate) parent: Option<At<String>>,
    pub(crate) anchor: bool,
    pub(crate) maintenance: Spans,
}

/// How a thing is watched that nothing is written of.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const RULE: Rule = Rule { failures: 3, successes: 2 };

/// What a kind's keys are, besides its own.
const KINDS: [(&str, &[&str]); 4] =
    [("http", &["status", "body", "header"]), ("tcp", &[]), ("tls", &["days"]), ("dns", &["server", "expect"])];

impl Check {
    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        let name = table.parsed("name", value::label);
        if !table.has("name") {
            table.missing("name", "say what it is called, as name = \"nas\"");
        }
        let kinds: Vec<_> = KINDS.iter().filter(|(kind, _)| table.has(kind)).collect();
        match kinds[..] {
            [] => {
                let hint = "write one of http = \"https://nas:5001/\", tcp = \"nas:22\", tls = \"nas:443\", dns = \"example.org\"";
                table.report.error(table.at, &table.about, "nothing says what is looked at", hint);
            }
            [(own, known)] => {
                let others = KINDS.iter().filter(|(kind, _)| kind != own).flat_map(|(_, keys)| *keys);
                for key in others.filter(|key| !known.contains(key) && table.has(key)) {
                    let what = format!("\"{key}\" says nothing of a check by \"{own}\"");
                    table.report.error(table.place(key), &table.about, what, "remove it");
                }
            }
            [_, (second, _), ..] => {
                let hint = "make two checks of it";
                table.report.error(table.place(second), &table.about, "a check looks at one thing", hint);
            }
        }
        let wait = |key, default| table.parsed(key, span).map_or(default, |wait: At<Duration>| wait.value);
        let times = |key, default| {
            let written = table.number(key, 1..=100).and_then(|times| u32::try_from(times.value).ok());
            written.unwrap_or(default)
        };
        let maintenance: Vec<At<WeekSpan>> = table.list("maintenance", week_span).unwrap_or_default();
        let read = Self {
            about: table.about.clone(),
            every: wait("every", EVERY),
            timeout: wait("timeout", TIMEOUT),
            rule: Rule { failures: times("failures", RULE.failures), successes: times("successes", RULE.successes) },
            parent: table.string("parent"),
            anchor: table.boolean("anchor").is_some_and(|anchor| anchor.value),
            maintenance: Spans::new(maintenance.into_iter().map(|span| span.value)),
            kind: kind(table)?,
            name: name?,
        };
        Some(read)
    }
}

fn kind(table: &Table<'_>) -> Option<Kind> {
    let http = table.parsed("http", url);
    let tcp = table.parsed("tcp", place);
    let tls = table.parsed("tls", place);
    let dns = table.parsed("dns", value::name);
    let status = table.parsed("status", status).map_or(200..=299, |status| status.value);
    let (body, header) = (table.string("body"), table.parsed("header", header));
    let days = table.number("days", 0..=1000).and_then(|days| i64::try_from(days.value).ok()).unwrap_or(14);
    let server = table.parsed("server", server);
    let expect = table.list("expect", value::address).unwrap_or_default();
    if let Some(url) = http {
        let (body, header) = (body.map(|body| body.value), header.map(|header| header.value));
        return Some(Kind::Http(Box::new(Http { url: url.value, status, body, header })));
    }
    if let Some(place) = tcp {
        return Some(Kind::Tcp(place.value));
    }
    if let Some(place) = tls {
        return Some(Kind::Tls { place: place.value, days });
    }
    let first = expect.first().map(|first| first.value.is_ipv6());
    if let Some(other) = expect.iter().find(|address| Some(address.value.is_ipv6()) != first) {
        let what = "one question asks for IPv4 or for IPv6 addresses";
        table.report.error(other.at, &table.about, what, "make two checks of it");
    }
    let expect = expect.into_iter().map(|address| address.value).collect();
    Some(Kind::Dns { name: dns?.value, server: server.map(|server| server.value), expect })
}

/// Reads a time span of at least a second and at most a day.
fn span(text: &str) -> Result<Duration, Wrong> {
    let span = value::wait(text)?;
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&span) {
        return Err(Wrong::new(format!("\"{text}\" is out of bounds"), "from \"1s\" to \"1d\""));
    }
    Ok(span)
}

fn week_span(text: &str) -> Result<WeekSpan, Wrong> {
    text.parse().map_err(|what: String| Wrong::new(what, "write days and times, as \"sun 03:00-05:00\""))
}

fn url(text: &str) -> Result<Uri, Wrong> {
    let wrong = || {
        Wrong::new(format!("\"{text}\" is no URL that can be asked"), "write it as \"https://nas.home.arpa/health\"")
    };
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let plain =
        url.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    if !matches!(url.scheme_str(), Some("http" | "https")) || !plain {
        return Err(wrong());
    }
    Ok(url)
}

fn place(text: &str) -> Result<Place, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" has no usable host and port"), "write it as \"nas:22\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare.unwrap_or(host).parse::<IpAddr>() {
        Ok(address) if address.is_ipv4() || bare.is_some() => address.to_string(),
        _ => value::host(host).map_err(|_| wrong())?.as_str().to_owned(),
    };
    Ok(Place::Tcp(host, port))
}

fn server(text: &str) -> Result<SocketAddr, Wrong> {
    let wrong =
        || Wrong::new(format!("\"{text}\" is no server"), "write its address, as \"192.168.1.1\" or \"9.9.9.9:53\"");
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address.or_else(|_| text.parse()).map_err(|_| wrong())
}

fn status(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no status"), "write \"204\" or \"200-399\"");
    let number = |text: &str| text.parse().ok().filter(|number| (100..=599).contains(number)).ok_or_else(wrong);
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let range = number(from)?..=number(to)?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no header field"), "write it as \"x-app: ready\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let (name, value) = (name.trim().parse(), value.trim().parse());
    name.ok().zip(value.ok()).ok_or_else(wrong)
}

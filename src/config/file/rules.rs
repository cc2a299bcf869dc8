//! What a `[[route]]` does with requests beside sending them on: conditions, redirects, rewrites, fields, limits.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{HeaderName, HeaderValue},
};
use ipnet::IpNet;

use crate::{
    config::{
        file::{Table, auth, route::path},
        problems::{At, Wrong},
        value,
    },
    ingress::{
        Change, Coding, Conditions, Country, Field, HealthCheck, Page, Part, ProxyProtocol, Redirect, Rewrite,
        RouteLimits, Rules, ServerLimit, canonical::CanonicalPath,
    },
    limit::Rate,
};

/// Reads the rules of a route.
pub(super) fn read(table: &Table<'_>) -> Rules {
    let mut rules = Rules { plain: table.boolean("plain").is_some_and(|plain| plain.value), ..Rules::default() };
    if let Some(asked) = table.table("match", "route.match") {
        rules.conditions = conditions(&asked);
    }
    if let Some(written) = table.table("headers", "route.headers") {
        rules.security = written.boolean("security").is_none_or(|security| security.value);
        let change = |key, section| written.table(key, section).map(|table| change(&table)).unwrap_or_default();
        rules.request = change("request", "route.headers.request");
        rules.response = change("response", "route.headers.response");
    }
    if let Some(written) = table.table("rewrite", "route.rewrite") {
        let part = |key| written.parsed(key, path).map(|path| path.value);
        rules.rewrite = Rewrite { strip: part("strip"), add: part("add") };
    }
    if let Some(written) = table.table("limits", "route.limits") {
        rules.limits = limits(&written);
    }
    rules.maintenance = match table.is_string("maintenance") {
        true => table.string("maintenance").map(|text| maintenance(text.value)),
        false => table
            .boolean("maintenance")
            .filter(|on| on.value)
            .map(|_| maintenance("This is being worked on. It will be back soon.".into())),
    };
    if let Some(written) = table.table("auth", "route.auth") {
        rules.auth = auth::read(&written);
    }
    rules.sticky = table.boolean("sticky").is_some_and(|sticky| sticky.value);
    rules.health = table.table("health", "route.health").map(|written| health(&written));
    rules.server_limit = table.table("server_limit", "route.server_limit").and_then(|written| server_limit(&written));
    let versions = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    rules.proxy_protocol = table.word("proxy_protocol", &versions).map(|version| version.value);
    rules.compress = compress(table);
    rules
}

/// Reads `compress`: whether at all, or with what.
fn compress(table: &Table<'_>) -> Vec<Coding> {
    if !table.has("compress") || table.is_boolean("compress") {
        let on = table.boolean("compress").is_some_and(|on| on.value);
        return if on { vec![Coding::Brotli, Coding::Gzip] } else { Vec::new() };
    }
    let coding = |text: &str| match text {
        "br" => Ok(Coding::Brotli),
        "gzip" => Ok(Coding::Gzip),
        _ => Err(Wrong::new(format!("\"{text}\" is no coding that we write"), "one of \"br\", \"gzip\"")),
    };
    let codings = table.list("compress", coding).unwrap_or_default();
    codings.into_iter().map(|coding| coding.value).collect()
}

fn server_limit(table: &Table<'_>) -> Option<ServerLimit> {
    if !table.has("connections") {
        table.missing("connections", "write how many requests a server has at once, as connections = 50");
    }
    let number = |key, least| table.number(key, least..=1_000_000).and_then(|number| u32::try_from(number.value).ok());
    let wait = table.parsed("wait", value::wait).map_or(Duration::from_secs(5), |wait| wait.value);
    Some(ServerLimit { connections: number("connections", 1)?, queue: number("queue", 0).unwrap_or(100), wait })
}

fn health(table: &Table<'_>) -> HealthCheck {
    let root = CanonicalPath::parse("/").expect("the root is canonical");
    let wait = |key, default| table.parsed(key, value::wait).map_or(default, |wait| wait.value);
    let status = table.number("status", 200..=599).and_then(|status| u16::try_from(status.value).ok());
    HealthCheck {
        path: table.parsed("path", path).map_or(root, |path| path.value),
        every: wait("every", Duration::from_secs(10)),
        timeout: wait("timeout", Duration::from_secs(5)),
        status: status.and_then(|status| StatusCode::from_u16(status).ok()),
    }
}

fn maintenance(text: String) -> Page {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Page { status: StatusCode::SERVICE_UNAVAILABLE, kind, body: Bytes::from(text + "\n") }
}

fn conditions(table: &Table<'_>) -> Conditions {
    let methods = table.list("methods", method).unwrap_or_default();
    let headers = table.named("headers").into_iter().filter_map(|(name, value)| {
        let name = table.within(&name, name.value, header_name)?;
        let value = table.within(&value, table.text_of(&value, "headers")?, |text| match text {
            "*" => Ok(Field::Present),
            _ => header_value(text).map(Field::Is),
        })?;
        Some((name, value))
    });
    Conditions { methods: methods.into_iter().map(|method| method.value).collect(), headers: headers.collect() }
}

fn change(table: &Table<'_>) -> Change {
    let pairs = |key: &'static str| {
        let pairs = table.named(key).into_iter().filter_map(|(name, value)| {
            let name = table.within(&name, name.value, ours)?;
            let value = table.within(&value, table.text_of(&value, key)?, header_value)?;
            Some((name, value))
        });
        pairs.collect()
    };
    let remove = table.list("remove", ours).unwrap_or_default();
    Change { remove: remove.into_iter().map(|name| name.value).collect(), set: pairs("set"), add: pairs("add") }
}

fn limits(table: &Table<'_>) -> RouteLimits {
    let all = RouteLimits::default();
    let nets = |key| {
        let nets = table.list(key, value::network).unwrap_or_default();
        nets.into_iter().map(|net| net.value).collect::<Vec<IpNet>>()
    };
    let countries = |key| {
        let countries = table.list(key, country).unwrap_or_default();
        countries.into_iter().map(|country| country.value).collect::<Vec<_>>()
    };
    RouteLimits {
        rate: table.parsed("rate", rate).map(|rate| rate.value),
        concurrency: table
            .number("concurrency", 1..=u64::from(u32::MAX))
            .and_then(|number| u32::try_from(number.value).ok())
            .unwrap_or(all.concurrency),
        per_client: table
            .number("per_client", 1..=1_000_000)
            .and_then(|number| u32::try_from(number.value).ok())
            .unwrap_or(all.per_client),
        body: table.parsed("body", value::size).map_or(all.body, |size| size.value as u64),
        header: table.parsed("header", value::size).map_or(all.header, |size| size.value),
        allow: nets("allow"),
        deny: nets("deny"),
        allow_country: countries("allow_country"),
        deny_country: countries("deny_country"),
    }
}

fn country(text: &str) -> Result<Country, Wrong> {
    let hint = "write its two letters of ISO 3166, as \"DE\"";
    Country::parse(text).ok_or_else(|| Wrong::new(format!("\"{text}\" is no country"), hint))
}

/// Reads `redirect`: a place, or a table with a place and a status.
pub(super) fn redirect(table: &Table<'_>) -> Option<At<Redirect>> {
    if table.is_string("redirect") {
        let to = table.parsed("redirect", place)?;
        return Some(to.map(|to| Redirect { status: StatusCode::PERMANENT_REDIRECT, to }));
    }
    let written = table.table("redirect", "route.redirect")?;
    if !written.has("to") {
        written.missing("to", "write where to, as to = \"https://www.example.org{uri}\"");
    }
    let status = written.number("status", 301..=308).map_or(308, |status| status.value);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let what = format!("status cannot be {status}");
        written.report.error(written.place("status"), &written.about, what, "one of 301, 302, 303, 307, 308");
    }
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::PERMANENT_REDIRECT);
    Some(written.parsed("to", place)?.map(|to| Redirect { status, to }))
}

/// Reads `respond`: what the answer says, or a table with status, type and body.
pub(super) fn respond(table: &Table<'_>) -> Option<At<Page>> {
    let page = |status, kind, body: String| Page { status, kind, body: body.into() };
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    if table.is_string("respond") {
        return Some(table.string("respond")?.map(|body| page(StatusCode::OK, text, body)));
    }
    let written = table.table("respond", "route.respond")?;
    let status = written.number("status", 200..=599).map_or(200, |status| status.value);
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let kind = written.parsed("type", header_value).map_or(text, |kind| kind.value);
    let body = written.string("body").map(|body| body.value).unwrap_or_default();
    Some(At { value: page(status.unwrap_or(StatusCode::OK), kind, body), at: written.at })
}

fn place(text: &str) -> Result<Vec<Part>, Wrong> {
    let wrong = |what: &str| {
        let hint = "write it as \"https://www.example.org{uri}\"; {host}, {path} and {uri} are those of the request";
        Wrong::new(format!("redirect \"{text}\" {what}"), hint)
    };
    if !text.starts_with("https://") && !text.starts_with("http://") && !text.starts_with('/') {
        return Err(wrong("is no place"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("has a character that no URL has"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('{') {
        let (word, after) = tail.split_once('}').ok_or_else(|| wrong("has a \"{\" that is not closed"))?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(match word {
            "host" => Part::Host,
            "path" => Part::Path,
            "uri" => Part::Uri,
            _ => return Err(wrong(&format!("has an unknown {{{word}}}"))),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn method(text: &str) -> Result<Method, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no method"), "write it in capitals, as \"POST\"");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err(wrong());
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| wrong())
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Wrong::new(format!("\"{text}\" is no header field"), "write its name, as \"x-frame-options\""))
}

/// The name of a field that the owner may change.
pub(super) fn ours(text: &str) -> Result<HeaderName, Wrong> {
    let name = header_name(text)?;
    match Change::permits(&name) {
        true => Ok(name),
        false => {
            let hint = "fields of framing and of the connection, and names with \"_\", are not passed on";
            Err(Wrong::new(format!("\"{text}\" cannot be changed"), hint))
        }
    }
}

fn header_value(text: &str) -> Result<HeaderValue, Wrong> {
    HeaderValue::from_str(text)
        .map_err(|_| Wrong::new(format!("\"{text}\" cannot stand in a header field"), "write it in visible ASCII"))
}

fn rate(text: &str) -> Result<Rate, Wrong> {
    text.parse().map_err(|what| Wrong::new(what, "write it as \"10/s burst 50\""))
}

//! `[[route]]`: a host, who may use it, and what stands behind it.

use std::path::PathBuf;

use crate::{
    config::{
        file::{Table, rules},
        problems::{About, At, Span, Wrong},
        value,
    },
    ingress::{
        Builtin, HostPattern, Http, Page, Redirect, Rules, UpstreamHost, UpstreamTls,
        canonical::{CanonicalHost, CanonicalPath},
    },
};

/// `[[route]]` as written.
pub(crate) struct Route {
    pub(crate) about: About,
    pub(crate) hosts: Vec<At<HostPattern>>,
    pub(crate) path: At<CanonicalPath>,
    pub(crate) access: Vec<At<AccessWord>>,
    pub(crate) to: Vec<At<Target>>,
    pub(crate) backup: Vec<At<Target>>,
    pub(crate) log: bool,
    pub(crate) upstream_tls: Option<At<UpstreamTls>>,
    pub(crate) client_ca: Option<At<PathBuf>>,
    /// An answer of the edge's own, in place of `to`.
    pub(crate) answer: Option<At<Answer>>,
    pub(crate) rules: Rules,
    /// TLS is passed through to the servers behind as it comes.
    pub(crate) passthrough: Option<At<()>>,
    /// It is looked whether the servers behind are up.
    pub(crate) watched: bool,
}

/// What the edge answers by itself.
pub(crate) enum Answer {
    /// `redirect`
    Redirect(Redirect),
    /// `respond`
    Page(Page),
}

/// A word of `access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessWord {
    /// `public`
    Public,
    /// `lan`
    Lan,
    /// `lan:iot`
    Network(String),
    /// `vpn`
    Vpn,
    /// `vpn:admins`: a peer or a group.
    Peer(String),
}

/// A word of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `http://nas:8080`, `https://192.168.1.5:8006`, `h2c://grpc:50051`
    Upstream { tls: bool, http: Http, host: UpstreamHost, port: u16 },
    /// `builtin:welcome`
    Builtin(Builtin),
}

impl Route {
    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        for (key, hint) in [
            ("host", "write the name that clients ask for, as host = \"photos.home.example\""),
            ("access", "nothing is open by default: write access = \"public\", \"lan\" or \"vpn\", or a list of them"),
            ("to", "write where requests go, as to = \"http://192.168.1.20:2342\""),
        ] {
            let answered = key == "to" && (table.has("redirect") || table.has("respond"));
            if !table.has(key) && !answered {
                table.missing(key, hint);
            }
        }
        let root = CanonicalPath::parse("/").expect("the root is canonical");
        let hosts = table.list("host", |text| if text == "*" { Ok(HostPattern::Any) } else { host_pattern(text) });
        let path = table.parsed("path", path);
        let access = table.list("access", access);
        let to = table.list("to", target);
        let backup = table.list("backup", target).unwrap_or_default();
        let log = table.boolean("log").is_some_and(|log| log.value);
        let passthrough = table.word("tls", &[("passthrough", ())]);
        if passthrough.is_some() {
            passed(table);
        } else if let Some(limits) = table.table("limits", "route.limits").filter(|limits| limits.has("per_client")) {
            let what = "\"per_client\" is for connections that are passed on without being understood";
            let hint = "write rate = \"10/s burst 50\", which is of one client";
            table.report.error(limits.place("per_client"), &limits.about, what, hint);
        }
        let any = hosts.iter().flatten().find(|host| host.value == HostPattern::Any);
        if let Some(any) = any {
            the_rest(table, any.at, passthrough.is_some());
            if hosts.as_ref().is_some_and(|hosts| hosts.len() > 1) {
                let hint = "write \"*\" alone, and the others in a route of their own";
                table.report.error(any.at, &table.about, "\"*\" is what no other host is", hint);
            }
        }
        let client_ca = table.string("client_ca").map(|path| path.map(PathBuf::from));
        let upstream_tls = table.table("upstream_tls", "route.upstream_tls").and_then(|tls| read_tls(&tls));
        let redirect = rules::redirect(table).map(|redirect| redirect.map(Answer::Redirect));
        let page = rules::respond(table).map(|page| page.map(Answer::Page));
        let ways: Vec<_> = ["to", "redirect", "respond"].into_iter().filter(|key| table.has(key)).collect();
        if let [_, second, ..] = ways[..] {
            let what = format!("\"{}\" and \"{second}\" are two answers to one request", ways[0]);
            table.report.error(table.place(second), &table.about, what, "write one of them");
        }
        for key in ["host", "access", "to"] {
            if table.list(key, |_| Ok(())).is_some_and(|list| list.is_empty()) {
                table.report.error(table.place(key), &table.about, format!("\"{key}\" is empty"), "write at least one");
            }
        }
        Some(Self {
            about: table.about.clone(),
            hosts: hosts?,
            path: table.or(path, root),
            access: access?,
            to: if table.has("to") { to? } else { Vec::new() },
            backup,
            log,
            upstream_tls,
            client_ca,
            answer: redirect.or(page),
            rules: rules::read(table),
            passthrough,
            watched: table.word("uptime", &[("auto", true), ("off", false)]).is_none_or(|uptime| uptime.value),
        })
    }

    /// Returns where the route begins, for problems of the whole of it.
    pub(crate) fn at(&self) -> Span {
        self.hosts.first().map_or(self.path.at, |host| host.at)
    }
}

/// What needs to be read to hold, where nothing is.
const NOT_UNDERSTOOD: [&str; 14] = [
    "path",
    "match",
    "headers",
    "rewrite",
    "maintenance",
    "auth",
    "sticky",
    "server_limit",
    "compress",
    "plain",
    "upstream_tls",
    "client_ca",
    "redirect",
    "respond",
];

/// Refuses what cannot hold where TLS ends at the server behind.
fn passed(table: &Table<'_>) {
    let hint = "remove it, or tls = \"passthrough\": then TLS ends here";
    let refuse = |table: &Table<'_>, key: &'static str| {
        let what = format!("\"{key}\" cannot hold for TLS that is passed through: nothing of it can be read here");
        table.report.error(table.place(key), &table.about, what, hint);
    };
    for key in NOT_UNDERSTOOD.into_iter().filter(|key| table.has(key)) {
        refuse(table, key);
    }
    for (key, section, within) in
        [("limits", "route.limits", ["body", "header"]), ("health", "route.health", ["path", "status"])]
    {
        if let Some(written) = table.table(key, section) {
            within.into_iter().filter(|key| written.has(key)).for_each(|key| refuse(&written, key));
        }
    }
}

/// Refuses what cannot hold for hosts that nobody has named: no certificate can be shown for them, and nothing is known
/// of what stands behind.
fn the_rest(table: &Table<'_>, at: Span, passed: bool) {
    if !passed && !table.boolean("plain").is_some_and(|plain| plain.value) {
        let hint = "add tls = \"passthrough\" for https, and another route with plain = true for http";
        table.report.error(at, &table.about, "no certificate can be shown for \"*\"", hint);
        return;
    }
    let keys = ["path", "match", "rewrite", "maintenance", "auth", "client_ca", "redirect", "respond"];
    for key in keys.into_iter().filter(|key| !passed && table.has(key)) {
        let what = format!("\"{key}\" cannot hold for \"*\"");
        table.report.error(
            table.place(key),
            &table.about,
            what,
            "name the hosts that it is for in a route of their own",
        );
    }
    if table.list("to", |text| Ok(text.starts_with("builtin:"))).is_some_and(|to| to.iter().any(|to| to.value)) {
        let hint = "write where the servers are that know these hosts, as to = \"http://192.168.1.3:80\"";
        table.report.error(table.place("to"), &table.about, "\"*\" leads to servers", hint);
    }
}

/// Reads `photos.home.example` or `*.home.example`.
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Wrong> {
    let (pattern, name): (fn(CanonicalHost) -> HostPattern, _) = match text.strip_prefix("*.") {
        Some(name) => (HostPattern::Wildcard, name),
        None => (HostPattern::Exact, text),
    };
    if name.contains('*') {
        let hint = "a \"*\" stands for one whole label, at the beginning: \"*.home.example\"";
        return Err(Wrong::new(format!("\"{text}\" is no host name"), hint));
    }
    if name.contains("://") || name.contains('/') || name.contains(':') {
        return Err(Wrong::new(
            format!("\"{text}\" is no host name"),
            "write the name alone, without scheme, port and path",
        ));
    }
    value::host(name).map(pattern)
}

pub(super) fn path(text: &str) -> Result<CanonicalPath, Wrong> {
    if !text.starts_with('/') {
        return Err(Wrong::new(format!("path \"{text}\" does not begin with \"/\""), format!("write \"/{text}\"")));
    }
    if text.contains(['?', '#']) {
        return Err(Wrong::new(format!("path \"{text}\" has a query or fragment"), "write the path alone"));
    }
    let wrong =
        |error| Wrong::new(format!("path \"{text}\" has no canonical form: {error}"), "write it as a browser sends it");
    CanonicalPath::parse(text).map_err(wrong)
}

pub(crate) fn access(text: &str) -> Result<AccessWord, Wrong> {
    match text.split_once(':') {
        None if text == "public" => Ok(AccessWord::Public),
        None if text == "lan" => Ok(AccessWord::Lan),
        None if text == "vpn" => Ok(AccessWord::Vpn),
        Some(("lan", name)) => Ok(AccessWord::Network(name.to_owned())),
        Some(("vpn", name)) => Ok(AccessWord::Peer(name.to_owned())),
        _ => {
            let hint =
                "one of \"public\", \"lan\", \"lan:NETWORK\", \"vpn\", \"vpn:PEER\", \"vpn:GROUP\", or a list of them";
            Err(Wrong::new(format!("\"{text}\" is no access"), hint))
        }
    }
}

pub(super) fn target(text: &str) -> Result<Target, Wrong> {
    if let Some(page) = text.strip_prefix("builtin:") {
        return match page {
            "welcome" => Ok(Target::Builtin(Builtin::Welcome)),
            _ => Err(Wrong::new(format!("there is no built-in page \"{page}\""), "write \"builtin:welcome\"")),
        };
    }
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err(Wrong::new(format!("upstream \"{text}\" has no whole path"), "write \"unix:/run/app.sock\""));
        }
        return Ok(Target::Upstream {
            tls: false,
            http: Http::One,
            host: UpstreamHost::Unix(PathBuf::from(path)),
            port: 0,
        });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Wrong::new(format!("upstream \"{text}\" has no scheme"), format!("write \"http://{text}\"")));
    };
    let (tls, http, default_port) = match scheme {
        "tcp" => (false, Http::Opaque, 0),
        "udp" => (false, Http::Datagrams, 0),
        "http" => (false, Http::One, 80),
        "https" => (true, Http::One, 443),
        "h2c" => (false, Http::Two, 80),
        "h2" => (true, Http::Two, 443),
        _ => {
            let what = format!("upstream \"{text}\" has the scheme \"{scheme}\"");
            return Err(Wrong::new(
                what,
                "write \"http://\" or \"https://\", or \"h2c://\" or \"h2://\" for HTTP/2, or \"tcp://\" or \"udp://\" for what is passed on as it comes",
            ));
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        let what = format!("upstream \"{text}\" has more than a host and a port");
        return Err(Wrong::new(what, "requests keep their own path: write scheme, host and port alone"));
    }
    let wrong =
        || Wrong::new(format!("upstream \"{text}\" has no usable host and port"), "write it as \"http://nas:8080\"");
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?)
        }
        _ if default_port == 0 => {
            return Err(Wrong::new(format!("upstream \"{text}\" has no port"), "write it as \"tcp://nas:443\""));
        }
        _ => (authority, default_port),
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').and_then(|address| address.parse::<std::net::Ipv6Addr>().ok());
            UpstreamHost::Address(address.ok_or_else(wrong)?.into())
        }
        None => match host.parse::<std::net::Ipv4Addr>() {
            Ok(address) => UpstreamHost::Address(address.into()),
            Err(_) => UpstreamHost::Name(value::host(host).map_err(|_| wrong())?.as_str().to_owned()),
        },
    };
    Ok(Target::Upstream { tls, http, host, port })
}

fn read_tls(table: &Table<'_>) -> Option<At<UpstreamTls>> {
    let fingerprint = table.parsed("fingerprint", fingerprint);
    let ca = table.string("ca");
    let insecure = table.boolean("insecure");
    let ways = [table.has("fingerprint"), table.has("ca"), table.has("insecure")];
    if ways.iter().filter(|written| **written).count() != 1 {
        let hint = "write one of fingerprint = \"sha256:…\", ca = \"ca.pem\", insecure = true";
        table.report.error(table.at, &table.about, "\"upstream_tls\" must say one thing", hint);
        return None;
    }
    if let Some(fingerprint) = fingerprint {
        return Some(fingerprint.map(UpstreamTls::Fingerprint));
    }
    if let Some(ca) = ca {
        return Some(ca.map(|ca| UpstreamTls::Ca(PathBuf::from(ca))));
    }
    let insecure = insecure?;
    let tls = if insecure.value { UpstreamTls::Insecure } else { UpstreamTls::Public };
    Some(At { value: tls, at: insecure.at })
}

fn fingerprint(text: &str) -> Result<[u8; 32], Wrong> {
    let wrong = || {
        let hint = "write \"sha256:\" and the 64 hexadecimal digits of the certificate's digest";
        Wrong::new(format!("\"{text}\" is no fingerprint"), hint)
    };
    let digits: Vec<u8> = text
        .strip_prefix("sha256:")
        .ok_or_else(wrong)?
        .chars()
        .filter(|letter| *letter != ':')
        .map(|letter| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() != 64 {
        return Err(wrong());
    }
    bytes.try_into().map_err(|_| wrong())
}

//! `[ingress]`: the door to the Internet.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    config::{
        file::{
            AccessWord, Table,
            route::{access, host_pattern},
        },
        problems::{About, At, Span, Wrong},
        value::{self, Listen, Secret},
    },
    ingress::{AccessLog, HostPattern, Timeouts, Word},
    limit::Rate,
};

/// `[ingress]` as written.
pub(crate) struct Ingress {
    pub(crate) about: About,
    pub(crate) http: Vec<At<Listen>>,
    pub(crate) https: Vec<At<Listen>>,
    pub(crate) wan_limit: Option<Rate>,
    pub(crate) wan_connections: Option<Rate>,
    pub(crate) wan_refusals: Option<Rate>,
    pub(crate) access_log: AccessLog,
    pub(crate) trusted_proxies: Vec<At<IpNet>>,
    pub(crate) client_from: Word,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) bans: Vec<At<PathBuf>>,
    pub(crate) crowdsec: Option<CrowdSec>,
    pub(crate) countries: Option<At<PathBuf>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_header: usize,
    pub(crate) max_fields: usize,
    pub(crate) max_connections: u32,
    pub(crate) max_requests: u32,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) acme: Vec<super::Acme>,
}

/// `[[ingress.listener]]` as written.
pub(crate) struct Listener {
    pub(crate) about: About,
    pub(crate) at: Span,
    pub(crate) listen: Vec<At<Listen>>,
    pub(crate) tls: bool,
    pub(crate) trusted_proxies: Vec<At<IpNet>>,
    pub(crate) client_from: Word,
    pub(crate) only_proxies: bool,
    pub(crate) origin: Option<At<AccessWord>>,
    pub(crate) scheme: Option<At<()>>,
}

/// `[ingress.crowdsec]` as written.
pub(crate) struct CrowdSec {
    pub(crate) about: About,
    pub(crate) url: String,
    pub(crate) key: At<Secret>,
    pub(crate) every: Duration,
    pub(crate) ca: Option<At<PathBuf>>,
}

/// An entry of `ingress.certificates` as written.
pub(crate) struct Certificate {
    pub(crate) hosts: Vec<At<HostPattern>>,
    pub(crate) cert: At<PathBuf>,
    pub(crate) key: At<PathBuf>,
}

impl Ingress {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        let listen = |key, port| {
            let everywhere =
                || value::everywhere(port).map(|address| At { value: Listen::Address(address), at: table.at });
            table.list(key, value::listen).unwrap_or_else(|| everywhere().to_vec())
        };
        let mut timeouts = Timeouts::default();
        if let Some(written) = table.table("timeouts", "ingress.timeouts") {
            let wait = |key, default| written.parsed(key, value::wait).map_or(default, |wait| wait.value);
            timeouts = Timeouts {
                handshake: wait("handshake", timeouts.handshake),
                header: wait("header", timeouts.header),
                idle: wait("idle", timeouts.idle),
                body: wait("body", timeouts.body),
                connect: wait("connect", timeouts.connect),
                response: wait("response", timeouts.response),
                tunnel: wait("tunnel", timeouts.tunnel),
                datagrams: wait("datagrams", timeouts.datagrams),
            };
        }
        let most = |key, bounds, default| {
            table.number(key, bounds).and_then(|number| u32::try_from(number.value).ok()).unwrap_or(default)
        };
        let rate = |key, default| table.parsed(key, wan_limit).map_or(default, |limit| limit.value);
        let logs = [("fields", AccessLog::Fields), ("clf", AccessLog::Clf), ("off", AccessLog::Off)];
        let certificates = table.tables("certificates", "ingress.certificates");
        Self {
            about: table.about.clone(),
            http: listen("http", 80),
            https: listen("https", 443),
            wan_limit: rate("wan_limit", Rate::new(200, 1000)),
            wan_connections: rate("wan_connections", Rate::new(20, 100)),
            wan_refusals: rate("wan_refusals", Rate::new(5, 50)),
            access_log: table.word("access_log", &logs).map_or(AccessLog::Fields, |log| log.value),
            trusted_proxies: table.list("trusted_proxies", trusted_proxy).unwrap_or_default(),
            client_from: client_from(table),
            crowdsec: table.table("crowdsec", "ingress.crowdsec").and_then(|table| CrowdSec::read(&table)),
            countries: table.string("countries").map(|path| path.map(PathBuf::from)),
            bans: table.list("bans", |text| Ok(PathBuf::from(text))).unwrap_or_default(),
            listeners: table.table_or_tables("listener", "ingress.listener").iter().map(Listener::read).collect(),
            timeouts,
            max_header: table.parsed("max_header", max_header).map_or(32 << 10, |size| size.value),
            max_fields: table.number("max_fields", 10..=1000).map_or(100, |number| number.value as usize),
            max_connections: most("max_connections", 16..=1_000_000, 8192),
            max_requests: most("max_requests", 16..=1_000_000, 1024),
            certificates: certificates.iter().filter_map(Certificate::read).collect(),
            acme: table.table_or_tables("acme", "ingress.acme").iter().map(super::Acme::read).collect(),
        }
    }
}

impl Listener {
    fn read(table: &Table<'_>) -> Self {
        if !table.has("listen") {
            table.missing("listen", "write an address and a port, as listen = [\"127.0.0.1:8443\"]");
        }
        Self {
            about: table.about.clone(),
            at: table.at,
            listen: table.list("listen", value::listen).unwrap_or_default(),
            tls: table.boolean("tls").is_none_or(|tls| tls.value),
            trusted_proxies: table.list("trusted_proxies", trusted_proxy).unwrap_or_default(),
            client_from: client_from(table),
            only_proxies: table.boolean("only_proxies").is_some_and(|only| only.value),
            origin: table.parsed("origin", origin),
            scheme: table.word("scheme", &[("https", ())]),
        }
    }
}

impl CrowdSec {
    fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("url") {
            table.missing("url", "write where the local API is, as url = \"http://127.0.0.1:8080\"");
        }
        if !table.has("key") {
            let hint =
                "write what `cscli bouncers add hearthgate` says, or key = \"file:/etc/hearthgate/crowdsec-key\"";
            table.missing("key", hint);
        }
        let (url, key) = (table.parsed("url", agent), table.parsed("key", value::secret));
        let every = table.parsed("every", value::wait).map_or(Duration::from_secs(10), |every| every.value);
        let ca = table.string("ca").map(|path| path.map(PathBuf::from));
        Some(Self { about: table.about.clone(), url: url?.value, key: key?, every, ca })
    }
}

/// Reads where an agent is. Its key is not sent in the clear to another box.
fn agent(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no URL"), "write it as \"http://127.0.0.1:8080\"");
    let url: hyper::Uri = text.parse().map_err(|_| wrong())?;
    let host = url.host().ok_or_else(wrong)?.trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme_str() {
        Some("https") => {}
        Some("http") if here => {}
        Some("http") => {
            let hint = "write \"https://\", with the agent's ca if need be, or an address of loopback";
            return Err(Wrong::new(format!("\"{text}\" sends the key in the clear"), hint));
        }
        _ => return Err(wrong()),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn client_from(table: &Table<'_>) -> Word {
    let words = [
        ("x-forwarded-for", Word::XForwardedFor),
        ("forwarded", Word::Forwarded),
        ("proxy-protocol", Word::ProxyProtocol),
    ];
    table.word("client_from", &words).map_or(Word::XForwardedFor, |word| word.value)
}

/// Reads where what comes through a listener comes from; the Internet is said by leaving it out or by `wan`.
fn origin(text: &str) -> Result<AccessWord, Wrong> {
    let wrong = || {
        let hint = "\"wan\", \"lan\" or \"lan:NETWORK\": the tunnel alone makes peers";
        Wrong::new(format!("\"{text}\" is no origin of a listener"), hint)
    };
    match text {
        "wan" => Ok(AccessWord::Public),
        _ => {
            access(text).ok().filter(|word| matches!(word, AccessWord::Lan | AccessWord::Network(_))).ok_or_else(wrong)
        }
    }
}

impl Certificate {
    fn read(table: &Table<'_>) -> Option<Self> {
        let hosts = table.list("hosts", host_pattern);
        let (cert, key) = (table.string("cert"), table.string("key"));
        for (key, written) in [("hosts", table.has("hosts")), ("cert", table.has("cert")), ("key", table.has("key"))] {
            if !written {
                table.missing(key, "write { hosts = [\"…\"], cert = \"chain.pem\", key = \"key.pem\" }");
            }
        }
        Some(Self { hosts: hosts?, cert: cert?.map(PathBuf::from), key: key?.map(PathBuf::from) })
    }
}

fn wan_limit(text: &str) -> Result<Option<Rate>, Wrong> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|what| Wrong::new(what, "write it as \"200/s burst 1000\", or \"none\""))
}

fn trusted_proxy(text: &str) -> Result<IpNet, Wrong> {
    let net = value::network(text)?;
    if net.prefix_len() == 0 {
        let hint = "write the addresses or networks of the proxies alone: what comes from there is the Internet";
        return Err(Wrong::new(format!("\"{text}\" is everybody"), hint));
    }
    Ok(net)
}

fn max_header(text: &str) -> Result<usize, Wrong> {
    let size = value::size(text)?;
    if !(4 << 10..=1 << 20).contains(&size) {
        return Err(Wrong::new(format!("\"{text}\" is out of bounds"), "write from \"4KiB\" to \"1MiB\""));
    }
    Ok(size)
}

//! `[[route]]` with `tcp` or `udp`: a port, who may use it, and what stands behind it.

use crate::{
    config::{
        file::{
            AccessWord, Table, Target,
            route::{access, host_pattern, target},
            rules,
        },
        problems::{About, At, Span, Wrong},
        value::{self, Listen},
    },
    ingress::{HostPattern, Rules, Transport},
};

/// `[[route]]` of a port as written.
pub(crate) struct Port {
    pub(crate) about: About,
    pub(crate) at: Span,
    pub(crate) host: Option<At<HostPattern>>,
    pub(crate) transport: Transport,
    pub(crate) listen: Vec<At<PortWord>>,
    pub(crate) access: Vec<At<AccessWord>>,
    pub(crate) to: Vec<At<Target>>,
    pub(crate) backup: Vec<At<Target>>,
    pub(crate) log: bool,
    pub(crate) rules: Rules,
}

/// A word of `tcp` or `udp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortWord {
    /// `2222`: wherever those come from who may use it.
    Port(u16),
    /// `lan:2222`, `192.168.1.2:2222`
    Place(Listen),
}

impl PortWord {
    /// Returns the number.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Port(port) | Self::Place(Listen::Lan(port) | Listen::Loopback(port)) => *port,
            Self::Place(Listen::Address(address)) => address.port(),
        }
    }
}

/// What needs to be read to hold, where nothing is.
const NOT_UNDERSTOOD: [&str; 15] = [
    "path",
    "match",
    "tls",
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

impl Port {
    /// Says whether a `[[route]]` is one of a port.
    pub(crate) fn is(table: &Table<'_>) -> bool {
        table.has("tcp") || table.has("udp")
    }

    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        let (key, transport) = match table.has("tcp") {
            true => ("tcp", Transport::Tcp),
            false => ("udp", Transport::Udp),
        };
        if table.has("tcp") && table.has("udp") {
            let hint = "write a route for each: they lead to \"tcp://\" and to \"udp://\"";
            table.report.error(table.place("udp"), &table.about, "a route has \"tcp\" or \"udp\"", hint);
        }
        for (key, hint) in [
            ("access", "nothing is open by default: write access = \"lan\", \"vpn\" or \"public\", or a list of them"),
            ("to", "write where it leads, as to = \"tcp://192.168.1.20:22\""),
        ] {
            if !table.has(key) {
                table.missing(key, hint);
            }
        }
        let refuse = |table: &Table<'_>, key: &'static str| {
            let what = format!("\"{key}\" cannot hold for a port: nothing of what is said there can be read");
            table.report.error(table.place(key), &table.about, what, "remove it");
        };
        let udp = transport == Transport::Udp;
        let datagrams = ["health", "proxy_protocol"].into_iter().filter(|_| udp);
        for key in NOT_UNDERSTOOD.into_iter().chain(datagrams).filter(|key| table.has(key)) {
            refuse(table, key);
        }
        for (key, section, within) in
            [("limits", "route.limits", ["body", "header"]), ("health", "route.health", ["path", "status"])]
        {
            if let Some(written) = table.table(key, section) {
                within.into_iter().filter(|key| written.has(key)).for_each(|key| refuse(&written, key));
            }
        }
        let hosts = table.list("host", host_pattern).unwrap_or_default();
        if let Some(host) = hosts.iter().find(|host| !matches!(host.value, HostPattern::Exact(_))).or(hosts.get(1)) {
            let hint = "write one name, or none: it is for the house's DNS alone";
            table.report.error(host.at, &table.about, "a port has one name", hint);
        }
        for key in [key, "access", "to"] {
            if table.list(key, |_| Ok(())).is_some_and(|list| list.is_empty()) {
                table.report.error(table.place(key), &table.about, format!("\"{key}\" is empty"), "write at least one");
            }
        }
        Some(Self {
            about: table.about.clone(),
            at: table.place(key),
            host: hosts.into_iter().next(),
            transport,
            listen: table.list(key, port)?,
            access: table.list("access", access)?,
            to: table.list("to", target)?,
            backup: table.list("backup", target).unwrap_or_default(),
            log: table.boolean("log").is_some_and(|log| log.value),
            rules: rules::read(table),
        })
    }
}

fn port(text: &str) -> Result<PortWord, Wrong> {
    let wrong = || {
        let hint = "write a port, as \"2222\", or a place, as \"lan:2222\" or \"192.168.1.2:2222\"";
        Wrong::new(format!("\"{text}\" is no port"), hint)
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|port| *port != 0).map(PortWord::Port).ok_or_else(wrong);
    }
    value::listen(text).map(PortWord::Place).map_err(|_| wrong())
}

//! `[node]`: what holds for the whole box.

use std::{path::PathBuf, time::Duration};

use hickory_proto::rr::Name;

use crate::{
    config::{
        file::Table,
        problems::{At, Span, Wrong},
        value,
    },
    ingress::canonical::CanonicalHost,
    sandbox::{self, Switch},
};

/// `[node]` as written.
pub(crate) struct Node {
    pub(crate) domain: At<CanonicalHost>,
    pub(crate) state: PathBuf,
    pub(crate) user: Option<String>,
    pub(crate) timezone: Option<At<String>>,
    pub(crate) grace: Duration,
    pub(crate) log: Log,
    pub(crate) ntp: Vec<Name>,
    pub(crate) sandbox: sandbox::Switches,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// The least important level that is shown.
    pub level: tracing::Level,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Node {
    pub(crate) fn read(table: Option<Table<'_>>, start: Span) -> Self {
        let home = CanonicalHost::parse("home.arpa").expect("the default domain is canonical");
        let mut node = Self {
            domain: At { value: home, at: start },
            state: PathBuf::from("/var/lib/hearthgate"),
            user: None,
            timezone: None,
            grace: Duration::from_secs(10),
            log: Log { format: LogFormat::Text, level: tracing::Level::INFO },
            ntp: Vec::new(),
            sandbox: sandbox::Switches { landlock: Switch::On, seccomp: Switch::On },
        };
        let Some(table) = table else { return node };
        if let Some(domain) = table.parsed("domain", domain) {
            node.domain = domain;
        }
        if let Some(state) = table.string("state") {
            node.state = state.value.into();
        }
        node.user = table.string("user").map(|user| user.value);
        node.timezone = table.string("timezone");
        if let Some(grace) = table.parsed("grace", value::duration) {
            node.grace = grace.value;
        }
        node.ntp = table.list("ntp", value::name).unwrap_or_default().into_iter().map(|name| name.value).collect();
        for (key, place) in [("landlock", &mut node.sandbox.landlock), ("seccomp", &mut node.sandbox.seccomp)] {
            if let Some(on) = table.boolean(key) {
                *place = if on.value { Switch::On } else { Switch::Off };
            }
        }
        if let Some(log) = table.table("log", "node.log") {
            let format = log.word("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
            let level = log.word(
                "level",
                &[
                    ("error", tracing::Level::ERROR),
                    ("warn", tracing::Level::WARN),
                    ("info", tracing::Level::INFO),
                    ("debug", tracing::Level::DEBUG),
                    ("trace", tracing::Level::TRACE),
                ],
            );
            node.log = Log {
                format: format.map_or(node.log.format, |format| format.value),
                level: level.map_or(node.log.level, |level| level.value),
            };
        }
        node
    }
}

fn domain(text: &str) -> Result<CanonicalHost, Wrong> {
    let domain = value::host(text)?;
    if domain.as_str() == "local" || domain.as_str().ends_with(".local") {
        // RFC 6762 §3: devices ask for names under it by multicast, and never us.
        let hint = "devices ask for .local names by multicast and not by DNS; write \"home.arpa\" (RFC 8375)";
        return Err(Wrong::new(format!("\"{text}\" cannot be served"), hint));
    }
    Ok(domain)
}

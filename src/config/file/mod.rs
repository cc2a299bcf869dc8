//! The configuration as it is written: one file per section, with the place of every value. Defaults stand
//! here and nowhere else.

mod acme;
mod auth;
mod backup;
mod check;
mod console;
mod dns;
mod history;
mod ingress;
pub mod keys;
mod lan;
mod metrics;
mod node;
mod port;
mod public_client;
mod reader;
mod route;
mod rules;
mod timed;
mod user;
mod vpn;
mod wan;

pub(crate) use acme::{Acme, eab_key};
pub(crate) use backup::Backup;
pub(crate) use check::{Check, EVERY, RULE, TIMEOUT};
pub(crate) use console::Console;
pub(crate) use dns::{DeviceWord, Dns, Forward, Group, List, ListWord, Record, RecordData, Resolver, Source};
pub(crate) use ingress::{CrowdSec, Ingress, Listener};
pub(crate) use lan::Lan;
pub(crate) use metrics::Metrics;
pub(crate) use node::Node;
pub use node::{Log, LogFormat};
pub(crate) use port::{Port, PortWord};
pub(crate) use public_client::{PublicClient, Shows};
pub(crate) use reader::Table;
pub(crate) use route::{AccessWord, Answer, Route, Target};
pub(crate) use timed::{Pause, Rule};
pub(crate) use user::User;
pub(crate) use vpn::{CallerWord, Expires, Peer, ReachWord, Vpn};
pub(crate) use wan::{Provider, Wan};

use crate::config::problems::{Report, Span, Text};

/// The whole file.
pub(crate) struct File {
    pub(crate) node: Node,
    pub(crate) lan: Lan,
    pub(crate) wan: Wan,
    pub(crate) dns: Option<Dns>,
    pub(crate) ingress: Option<Ingress>,
    pub(crate) routes: Vec<Route>,
    pub(crate) ports: Vec<Port>,
    pub(crate) vpn: Option<Vpn>,
    pub(crate) users: Vec<User>,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) backup: Option<Backup>,
    pub(crate) history: Option<crate::history::Config>,
    pub(crate) console: Option<Console>,
    pub(crate) checks: Vec<Check>,
}

/// Reads the owner's file, as far as it can be read.
pub(crate) fn read(report: &Report) -> File {
    let document = reader::parse(Text::File, report);
    let start = Span { text: Text::File, start: 0 };
    let top = Table::open("", start, document.get_ref(), report);
    let (ports, routes): (Vec<_>, Vec<_>) = top.tables("route", "route").into_iter().partition(Port::is);
    File {
        node: Node::read(top.table("node", "node"), start),
        lan: Lan::read(top.table("lan", "lan")),
        wan: top.table("wan", "wan").map(|table| Wan::read(&table)).unwrap_or_default(),
        dns: top.table("dns", "dns").map(|table| Dns::read(&table)),
        ingress: top.table("ingress", "ingress").map(|table| Ingress::read(&table)),
        routes: routes.iter().filter_map(Route::read).collect(),
        ports: ports.iter().filter_map(Port::read).collect(),
        vpn: top.table("vpn", "vpn").map(|table| Vpn::read(&table)),
        users: top.tables("user", "user").iter().filter_map(User::read).collect(),
        metrics: top.table("metrics", "metrics").map(|table| Metrics::read(&table)),
        backup: top.table("backup", "backup").map(|table| Backup::read(&table)),
        history: top.table("history", "history").map(|table| history::read(&table)),
        console: top.table("console", "console").map(|table| Console::read(&table)),
        checks: top.tables("check", "check").iter().filter_map(Check::read).collect(),
    }
}

/// What commands added.
pub(crate) struct Edits {
    pub(crate) peers: Vec<Peer>,
    pub(crate) users: Vec<User>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) pauses: Vec<Pause>,
}

/// Reads what commands added.
pub(crate) fn read_edits(report: &Report) -> Edits {
    let document = reader::parse(Text::Edits, report);
    let start = Span { text: Text::Edits, start: 0 };
    let top = Table::open("edits", start, document.get_ref(), report);
    let peers = top.table("vpn", "edits.vpn").map(|vpn| vpn.tables("peer", "vpn.peer")).unwrap_or_default();
    let dns = top.table("dns", "edits.dns");
    let tables = |key, section| dns.as_ref().map(|dns| dns.tables(key, section)).unwrap_or_default();
    Edits {
        peers: peers.iter().map(Peer::read).collect(),
        users: top.tables("user", "user").iter().filter_map(User::read).collect(),
        rules: tables("rule", "dns.rule").iter().filter_map(Rule::read).collect(),
        pauses: tables("pause", "dns.pause").iter().filter_map(Pause::read).collect(),
    }
}

//! Who reaches what: a row for each service and route, a column for each origin, and what came of trying it.
//!
//! From this box everything is tried that this box may and may not reach. With `--stranger` somebody else is made as
//! well: a network namespace on a wire of its own, whose address belongs to nobody in the house.

mod stranger;
mod tries;

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::Serialize;

use self::tries::{Port, Seen};
use super::Finding;
use crate::{
    app::status::Status,
    cli::check::reaches,
    config::Compiled,
    ingress::HostPattern,
    origin::{NetworkId, Origin},
    vpn::Reach,
};

/// A name below a wildcard that nobody has given away.
const BELOW: &str = "hearthgate-doctor";

/// From where it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    ThisBox,
    /// By a stranger that is made for it.
    OutsideToo,
}

#[derive(Debug, Serialize)]
pub(super) struct Table {
    origins: Vec<String>,
    rows: Vec<Row>,
    /// What the marks beside the words mean, and what was not tried.
    note: String,
}

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    cells: Vec<Cell>,
    #[serde(skip)]
    host: Option<String>,
}

/// What the configuration says, and what came of trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Cell {
    may: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    came: Option<bool>,
}

/// Makes the table and tries what can be tried; returns besides it what came out otherwise than the configuration says.
pub(super) fn table(config: &Compiled, status: &Status, from: From) -> anyhow::Result<(Table, Vec<Finding>)> {
    let origins = origins(config);
    let mut rows = rows(config, &origins);
    let at = |origin: Origin| origins.iter().position(|other| *other == origin);
    if let Some(column) = at(Origin::Lan(NetworkId::HOST)) {
        fill(&mut rows, column, &ports(status, [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
    }
    let tried = match (from, at(Origin::Wan)) {
        (From::OutsideToo, Some(column)) => match stranger::Wire::lay() {
            Ok(wire) => {
                let ports = ports(status, wire.addresses());
                wire.as_stranger(|| fill(&mut rows, column, &ports))?;
                "host and wan were tried, wan by a stranger on a wire of its own to this box".to_owned()
            }
            Err(why) => format!("host was tried; wan was not: {why}"),
        },
        _ => "host was tried (wan as well: sudo hearthgate doctor --stranger)".to_owned(),
    };
    let names: Vec<String> = origins.iter().map(|origin| config.directory.describe(*origin)).collect();
    let astray = rows.iter().flat_map(|row| astray(row, &names)).collect();
    let note =
        format!("✓ tried, and so it is; ✗ tried, and it is otherwise. {tried}; the others are what the tables say");
    Ok((Table { origins: names, rows, note }, astray))
}

fn origins(config: &Compiled) -> Vec<Origin> {
    let named = config.directory.networks.len().saturating_sub(2);
    let named = (0..u16::try_from(named).unwrap_or(u16::MAX)).map(|index| Origin::Lan(NetworkId::named(index)));
    let peers = config.directory.peers.iter().map(|(peer, _)| Origin::Vpn(*peer));
    let kernel = [Origin::Wan, Origin::Lan(NetworkId::HOST), Origin::Lan(NetworkId::MAIN)];
    kernel.into_iter().chain(named).chain(peers).collect()
}

fn rows(config: &Compiled, origins: &[Origin]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what: &str, host: Option<String>, may: &dyn Fn(Origin) -> bool| {
        let cells = origins.iter().map(|origin| Cell { may: may(*origin), came: None }).collect();
        rows.push(Row { what: what.to_owned(), cells, host });
    };
    if config.dns.is_some() {
        add("dns", None, &|origin| match origin {
            Origin::Wan => false,
            Origin::Lan(_) => true,
            Origin::Vpn(id) => config.vpn.iter().flat_map(|vpn| &vpn.peers).any(|peer| {
                peer.id == id && peer.may_reach.iter().any(|reach| matches!(reach, Reach::Dns | Reach::Services))
            }),
        });
    }
    if let Some(metrics) = &config.metrics {
        let allows = |address: IpAddr| metrics.allow.iter().any(|net| net.contains(&address));
        add("metrics", None, &|origin| match origin {
            Origin::Wan => false,
            Origin::Lan(NetworkId::HOST) => allows(Ipv4Addr::LOCALHOST.into()),
            // Single readers of the LAN are named in metrics.allow.
            Origin::Lan(_) => false,
            Origin::Vpn(id) => config
                .vpn
                .iter()
                .flat_map(|vpn| &vpn.peers)
                .any(|peer| peer.id == id && peer.addresses.iter().any(|net| allows(net.addr()))),
        });
    }
    let mut hosts: BTreeMap<String, Vec<&crate::ingress::Route>> = BTreeMap::new();
    for route in config.ingress.iter().flat_map(|ingress| &ingress.routes) {
        let host = match &route.host {
            HostPattern::Exact(host) => host.to_string(),
            HostPattern::Wildcard(host) => format!("{BELOW}.{host}"),
            // Whether the edge has a name cannot be told by one that it passes on.
            HostPattern::Any => continue,
        };
        hosts.entry(host).or_default().push(route);
    }
    if let Some(ingress) = &config.ingress {
        for (host, routes) in hosts {
            let shown = host.replace(BELOW, "*");
            add(&shown, Some(host), &|origin| routes.iter().any(|route| reaches(ingress, route, origin)));
        }
    }
    rows
}

/// Where each service is tried: what listens everywhere, at the first of these addresses of its family.
fn ports(status: &Status, here: [IpAddr; 2]) -> Vec<(Port, SocketAddr)> {
    let reachable = |address: &SocketAddr| match address.ip().is_unspecified() {
        false => *address,
        true => SocketAddr::new(here[usize::from(address.is_ipv6())], address.port()),
    };
    let mut ports = Vec::new();
    let dns = status.dns.iter().flat_map(|dns| &dns.listen);
    ports.extend(dns.map(|address| (Port::Dns, reachable(address))));
    let https = status.ingress.iter().flat_map(|ingress| &ingress.https);
    ports.extend(https.map(|address| (Port::Https, reachable(address))));
    ports.extend(status.metrics.iter().map(|address| (Port::Metrics, reachable(address))));
    ports.sort_by_key(|(_, address)| *address);
    ports.dedup();
    ports
}

/// Tries every row from where the calling thread is.
fn fill(rows: &mut [Row], column: usize, ports: &[(Port, SocketAddr)]) {
    for row in rows {
        let port = match (&row.host, row.what.as_str()) {
            (Some(_), _) => Port::Https,
            (None, "dns") => Port::Dns,
            (None, _) => Port::Metrics,
        };
        let places: Vec<SocketAddr> = ports.iter().filter(|(other, _)| *other == port).map(|(_, at)| *at).collect();
        if places.is_empty() {
            continue;
        }
        // One open way is enough for whoever looks for it.
        let open = places.iter().any(|place| tries::attempt(port, *place, row.host.as_deref()) == Seen::Open);
        row.cells[column].came = Some(open);
    }
}

fn astray(row: &Row, names: &[String]) -> Vec<Finding> {
    let wrong = row.cells.iter().zip(names).filter(|(cell, _)| cell.came.is_some_and(|came| came != cell.may));
    let told = |(cell, origin): (&Cell, &String)| match cell.may {
        false => Finding::bad("reach", format!("{} is reached from {origin}, and must not be", row.what))
            .because("what is not there for somebody must not answer him")
            .type_in("hearthgate reload, if the file was changed; else tell the authors"),
        true => Finding::bad("reach", format!("{} is not reached from {origin}", row.what))
            .because("the configuration lets it in; something stands between")
            .type_in("hearthgate reload, if the file was changed; sudo nft list ruleset; hearthgate firewall print"),
    };
    wrong.map(told).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["who reaches what".to_owned()].into_iter().chain(self.origins.iter().cloned());
        let mut lines: Vec<Vec<String>> = vec![head.collect()];
        for row in &self.rows {
            let cells = row.cells.iter().map(ToString::to_string);
            lines.push([row.what.clone()].into_iter().chain(cells).collect());
        }
        let columns = self.origins.len() + 1;
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &lines {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                write!(text, "{cell:<width$}  ")?;
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        writeln!(f, "{}", self.note)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.may { "yes" } else { "-" })?;
        match self.came {
            Some(came) if came == self.may => f.write_str(" ✓"),
            Some(_) => f.write_str(" ✗"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::tests::config;

    const FILE: &str = r#"
        [lan]
        interfaces = ["eth0"]
        [[lan.network]]
        name = "iot"
        subnets = ["192.168.30.0/24"]
        [dns]
        [ingress]
        [[route]]
        host = "photos.home.arpa"
        access = "public"
        to = "builtin:welcome"
        [[route]]
        host = "admin.home.arpa"
        access = "vpn:laptop"
        to = "builtin:welcome"
        [vpn]
        endpoint = "vpn.example:443"
        addresses = ["10.77.0.1/24"]
        [[vpn.peer]]
        name = "laptop"
        public_key = "6bkd+iwA2xU8SLZ2rrYKTjvFDuVTWHrAKX1rSG5RMHM="
        addresses = ["10.77.0.2/32"]
    "#;

    #[test]
    fn each_row_says_who_may() {
        let config = config(FILE);
        let origins = origins(&config);

        let rows = rows(&config, &origins);

        let names: Vec<String> = origins.iter().map(|origin| config.directory.describe(*origin)).collect();
        assert_eq!(names, ["wan", "host", "lan", "lan:iot", "vpn:laptop"]);
        let may = |what: &str| -> Vec<bool> {
            rows.iter().find(|row| row.what == what).unwrap().cells.iter().map(|cell| cell.may).collect()
        };
        assert_eq!(may("dns"), [false, true, true, true, true]);
        assert_eq!(may("photos.home.arpa"), [true, true, true, true, true]);
        assert_eq!(may("admin.home.arpa"), [false, false, false, false, true]);
    }

    #[test]
    fn what_comes_out_otherwise_is_a_finding() {
        let row = Row {
            what: "admin.home.arpa".into(),
            cells: vec![Cell { may: false, came: Some(true) }, Cell { may: true, came: Some(true) }],
            host: None,
        };

        let found = astray(&row, &["wan".into(), "vpn:laptop".into()]);

        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("reached from wan, and must not be"), "{}", found[0]);
    }
}

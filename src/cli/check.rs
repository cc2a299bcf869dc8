//! `hearthgate check`: what is wrong with a configuration, or what it means.

use std::{collections::BTreeSet, fmt::Write, path::PathBuf};

use anyhow::anyhow;
use clap::Args;

use crate::{
    app::{Options, Source},
    cli::Problem,
    config::{self, Compiled, PeerIds},
    ingress::{self, HostPattern, Means, RoutesReach, Target},
    origin::{NetworkId, Origin},
};

#[derive(Args, Debug)]
pub(super) struct Check {
    /// The configuration; without one, the quick start's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accept `[dns.testing]` in the configuration
    #[arg(long)]
    testing: bool,
}

impl Check {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let source = self.config.map_or(Source::QuickStart, Source::File);
        let options = Options { source, state, testing: self.testing, ..Options::default() };
        let loaded = config::check(options.source.to_config(), &options.to_config(), &mut PeerIds::default())
            .map_err(|problems| anyhow!(Problem(problems.to_string())))?;
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        print!("{}", meaning(&loaded.compiled));
        Ok(())
    }
}

/// What a configuration means, in a few lines.
fn meaning(config: &Compiled) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "the configuration is good");
    let mut plane = |name: &str, listen: Option<Vec<String>>| {
        let place = listen.map_or_else(|| "absent".to_owned(), |listen| listen.join(", "));
        let _ = writeln!(text, "  {name:<8} {place}");
    };
    let addresses = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let places = |list: &[crate::listen::Place]| list.iter().map(place).collect::<Vec<_>>();
    plane("dns", config.dns.as_ref().map(|dns| places(&dns.listen)));
    let both = |ingress: &ingress::Config| {
        let doors: Vec<_> = ingress.doors.iter().map(|door| door.address).collect();
        [addresses(&ingress.http), addresses(&ingress.https), addresses(&doors)].concat()
    };
    plane("ingress", config.ingress.as_ref().map(both));
    plane("vpn", config.vpn.as_ref().map(|vpn| addresses(&vpn.listen)));
    plane("metrics", config.metrics.as_ref().map(|metrics| places(&metrics.listen)));
    if let Some(ingress) = &config.ingress {
        text.push('\n');
        text.push_str(&table(ingress));
        text.push('\n');
        text.push_str(&certificates(ingress));
    }
    text
}

fn place(place: &crate::listen::Place) -> String {
    match &place.device {
        Some(device) => format!("{}%{device}", place.address),
        None => place.address.to_string(),
    }
}

/// Who may use which route: a row for each route, a column for each origin.
fn table(config: &ingress::Config) -> String {
    let mut origins = vec![Origin::Wan];
    origins.extend(config.networks.iter().map(|network| Origin::Lan(*network)));
    // The box itself comes with the LAN in every access.
    origins.retain(|origin| *origin != Origin::Lan(NetworkId::HOST));
    origins.extend(config.peers.iter().map(|peer| Origin::Vpn(peer.peer)));
    let names: Vec<String> = origins.iter().map(|origin| config.directory.describe(*origin)).collect();
    let mut rows = vec![["route".to_owned()].into_iter().chain(names).chain(["to".to_owned()]).collect::<Vec<_>>()];
    for route in &config.routes {
        let may = |origin: &Origin| if reaches(config, route, *origin) { "yes" } else { "-" }.to_owned();
        let to = match &route.to {
            Target::Builtin(_) => "built in".to_owned(),
            Target::Redirect(_) => "redirect".to_owned(),
            Target::Page(page) => format!("answer {}", page.status.as_u16()),
            Target::Dns | Target::DnsOf { .. } => "the DNS server".to_owned(),
            Target::Upstreams(upstreams) | Target::Passthrough(upstreams) => {
                upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
        };
        rows.push([route.name.clone()].into_iter().chain(origins.iter().map(may)).chain([to]).collect());
    }
    for port in &config.ports {
        let may = |origin: &Origin| {
            let may = match origin {
                Origin::Vpn(peer) => port.peers(config).contains(peer),
                _ => port.access.admits(*origin),
            };
            if may { "yes" } else { "-" }.to_owned()
        };
        let to = port.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        rows.push([port.name.clone()].into_iter().chain(origins.iter().map(may)).chain([to]).collect());
    }
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// Where the certificate of each host comes from, and what the world will read of it.
fn certificates(config: &ingress::Config) -> String {
    let plan = ingress::plan(config);
    let width = plan.keys().map(|host| host.to_string().chars().count()).max().unwrap_or_default().max(4);
    let mut text = format!("{:<width$}  certificate\n", "host");
    let mut published = BTreeSet::new();
    for (host, means) in &plan {
        let from = match means {
            Means::Files(entry) => match config.certificates.get(*entry) {
                Some(files) => files.certificate.display().to_string(),
                None => continue,
            },
            Means::Order(order) => {
                published.insert(order.name.to_string());
                let entry = config.acme.get(order.acme);
                let directory = entry.and_then(|entry| entry.directories.first());
                let directory = directory.map_or("", |directory| directory.url.as_str());
                let way = entry.map_or("", |entry| entry.challenge.name());
                format!("order of {order} by {way} at {directory}")
            }
            Means::HouseCa => "the house's own CA".to_owned(),
            Means::Nothing => "none".to_owned(),
        };
        let _ = writeln!(text, "{:<width$}  {from}", host.to_string());
    }
    let published = match published.is_empty() {
        true => "none".to_owned(),
        false => published.into_iter().collect::<Vec<_>>().join(", "),
    };
    let _ = writeln!(text, "names that certificate logs will publish: {published}");
    text
}

pub(super) fn reaches(config: &ingress::Config, route: &ingress::Route, origin: Origin) -> bool {
    let Origin::Vpn(peer) = origin else { return route.access.admits(origin) };
    let reach = config.peers.iter().find(|reach| reach.peer == peer).map(|reach| &reach.routes);
    route.access.admits(origin)
        && match (reach, &route.host) {
            (Some(RoutesReach::All), _) => true,
            (Some(RoutesReach::Hosts(hosts)), HostPattern::Exact(host)) => hosts.contains(host),
            _ => false,
        }
}

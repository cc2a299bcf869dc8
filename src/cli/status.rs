//! `hearthgate status`: the state of everything.

use std::{fmt::Write, net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::{
    app::status,
    cli::{Running, client, readable},
    clock::Soundness,
};

#[derive(Args, Debug)]
pub(super) struct Status {
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

impl Status {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        if self.json {
            // As it came: a newer process may say more than this program knows.
            let status: serde_json::Value = client::get(&state, "/api/v1/status")?;
            println!("{}", serde_json::to_string_pretty(&status)?);
            return Ok(());
        }
        let status: status::Status = client::get(&state, "/api/v1/status")?;
        print!("{}", show(&status));
        Ok(())
    }
}

/// Writes everything for people: a line for each thing, its name first.
fn show(status: &status::Status) -> String {
    let mut text = String::new();
    let mut line = |what: &str, said: String| {
        let _ = writeln!(text, "{what:<12} {said}");
    };
    let up = span(status.uptime);
    line("hearthgate", format!("{}, process {}, up {up}", status.version, status.process));
    let file = status.file.as_ref().map_or("quick start".to_owned(), |file| file.display().to_string());
    line("config", format!("{file}, generation {}, loaded {}", status.generation, readable(status.loaded)));
    if let Some(refused) = &status.refused {
        line("refused", format!("another one at {}, nothing was changed:", readable(refused.at)));
        for problem in refused.problems.iter().flat_map(|problem| problem.lines()) {
            line("", problem.to_owned());
        }
    }
    if let Some(waiting) = &status.waiting {
        let said = format!("{}: taken back in {} s, unless `hearthgate confirm`", waiting.risk, waiting.left);
        line("unconfirmed", said);
    }
    line("state", status.state.display().to_string());
    line("runs as", status.privileges.clone());
    for plane in &status.planes {
        let mut said = if plane.running { format!("running, up {}", span(plane.uptime)) } else { "down".to_owned() };
        if plane.restarts > 0 {
            let _ = write!(said, ", started again {} times", plane.restarts);
        }
        if let Some(failure) = &plane.last_failure {
            let _ = write!(said, ", last failure: {failure}");
        }
        line(&plane.name, said);
        match plane.name.as_str() {
            "dns" => status.dns.iter().for_each(|dns| dns_lines(dns, &mut line)),
            "ingress" => status.ingress.iter().for_each(|ingress| ingress_lines(ingress, &mut line)),
            "vpn" => status.vpn.iter().for_each(|vpn| vpn_lines(vpn, &mut line)),
            "wan" => status.wan.iter().for_each(|wan| wan_lines(wan, &mut line)),
            "announce" => {
                for one in &status.announced {
                    let servers = one.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    let said = one.problem.clone().unwrap_or(format!("{servers} on {}", one.interface));
                    line("  servers", said);
                }
            }
            "backup" => status.backup.iter().for_each(|backup| backup_lines(backup, &mut line)),
            "history" => status.history.iter().for_each(|history| history_lines(history, &mut line)),
            "watch" => status.watch.iter().for_each(|counts| watch_lines(counts, &mut line)),
            "metrics" => line("  listen", addresses(&status.metrics)),
            _ => {}
        }
    }
    text
}

fn backup_lines(backup: &crate::app::backup::Status, line: &mut impl FnMut(&str, String)) {
    let last = backup.last.map_or("none yet".to_owned(), |last| format!("the last of {}", readable(last)));
    line("  folder", format!("{}: {} kept, {last}", backup.folder.display(), backup.kept));
    if let Some(problem) = &backup.problem {
        line("  problem", problem.clone());
    }
}

fn dns_lines(dns: &crate::dns::Status, line: &mut impl FnMut(&str, String)) {
    line("  listen", addresses(&dns.listen));
    for list in &dns.lists {
        let problem = list.problem.as_ref().map_or(String::new(), |problem| format!("; {problem}"));
        line("  list", format!("{}: {} names{problem}", list.name, list.names));
    }
    let percent = (dns.cache_bytes * 100).checked_div(dns.cache_limit).unwrap_or_default();
    let (used, limit) = (bytes(dns.cache_bytes as u64), bytes(dns.cache_limit as u64));
    line("  cache", format!("{} answers, {used} of {limit} ({percent} %)", dns.cache_entries));
    match dns.clock {
        Soundness::Sound => {}
        Soundness::Behind => {
            line("  clock", "behind: signatures are checked as of the last time that was known".into());
        }
        Soundness::Ahead => {
            line("  clock", "ahead by years: answers are not checked for ten minutes, until it is set".into());
        }
    }
    let new = if dns.new_devices > 0 { format!(", {} of them new", dns.new_devices) } else { String::new() };
    let passing = match dns.passing_devices {
        0 => String::new(),
        count => format!(", {count} ask nothing and probably pass us by"),
    };
    line("  devices", format!("{}{new}{passing}", dns.devices));
    for problem in &dns.problems {
        line("  problem", problem.clone());
    }
    for timed in &dns.timed {
        let until = i64::try_from(timed.until).map_or_else(|_| String::new(), readable);
        line("  for now", format!("{}, until {until}", timed.what));
    }
    if !dns.relays.is_empty() {
        let relays = dns.relays.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        line("  relays", format!("{relays}: questions from there are one client, rules per device cannot work for it"));
    }
}

fn ingress_lines(ingress: &crate::ingress::Status, line: &mut impl FnMut(&str, String)) {
    line("  listen", addresses(&[&ingress.http[..], &ingress.https, &ingress.doors].concat()));
    for port in &ingress.ports {
        let tunnel = if port.inner.is_empty() { "" } else { ", inside the tunnel" };
        let listen = if port.listen.is_empty() { "nowhere else".to_owned() } else { addresses(&port.listen) };
        line("  port", format!("{}: {listen}{tunnel}, {} open", port.route, port.under_way));
    }
    line("  routes", format!("{}, {} connections", ingress.routes, ingress.connections));
    if ingress.masked {
        let why = "a gateway puts its own address in place of the clients': limits count by route, nobody is refused";
        line("  clients", why.to_owned());
    }
    for list in &ingress.bans {
        let problem = list
            .problem
            .as_ref()
            .map_or(String::new(), |problem| format!("; what is there now is not read: {problem}"));
        line("  bans", format!("{}: {} networks{problem}", list.file.display(), list.networks));
    }
    if let Some(countries) = &ingress.countries {
        let problem = countries.problem.as_ref();
        let problem = problem.map_or(String::new(), |problem| format!("; what is there now is not read: {problem}"));
        line("  countries", format!("{}{problem}", countries.file.display()));
    }
    for certificate in &ingress.certificates {
        line("  cert", format!("{}: {}", certificate.hosts.join(", "), certificate_state(certificate)));
        if let Some(problem) = &certificate.problem {
            line("", problem.clone());
        }
    }
}

fn wan_lines(wan: &crate::wan::Status, line: &mut impl FnMut(&str, String)) {
    let addresses = wan.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match &wan.problem {
        Some(problem) => line("  address", format!("not known: {problem}")),
        None => line("  address", addresses),
    }
    for (name, problem) in &wan.names {
        line("  name", format!("{name}: {}", problem.as_deref().unwrap_or("there")));
    }
}

fn history_lines(history: &crate::history::Status, line: &mut impl FnMut(&str, String)) {
    match &history.problem {
        Some(problem) => line("  kept", format!("nothing: {problem}")),
        None => {
            let since = history.since.map_or("nothing yet".to_owned(), |since| format!("since {}", readable(since)));
            line("  kept", format!("{since}, {} KiB", history.bytes / 1024));
        }
    }
    if history.dropped > 0 {
        line("  dropped", format!("{} questions found no room or no disk", history.dropped));
    }
}

fn watch_lines(counts: &crate::watch::Counts, line: &mut impl FnMut(&str, String)) {
    let crate::watch::Counts { up, suspect, down, unknown, names, problem } = counts;
    line("  watched", format!("{up} up, {suspect} suspect, {down} down, {unknown} unknown (`hearthgate uptime`)"));
    for name in names {
        line("  down", name.clone());
    }
    if let Some(problem) = problem {
        line("  problem", format!("sums are in memory alone: {problem}"));
    }
}

fn certificate_state(certificate: &crate::ingress::CertificateStatus) -> String {
    let now = jiff::Timestamp::now().as_second();
    let time = |second: u64| i64::try_from(second).unwrap_or(i64::MAX);
    let source = match certificate.stand_in {
        true => format!("the house's CA, until there is one from {}", certificate.source),
        false => certificate.source.clone(),
    };
    let state = match certificate.not_after.map(time) {
        Some(end) if end <= now => format!("EXPIRED {}, from {source}", readable(end)),
        Some(end) => format!("{} days left, until {}, from {source}", (end - now) / 86_400, readable(end)),
        None => format!("none yet, awaited from {source}"),
    };
    let next = certificate.next.map(|next| format!(", asked for again {}", readable(time(next)))).unwrap_or_default();
    state + &next
}

fn vpn_lines(vpn: &crate::vpn::Status, line: &mut impl FnMut(&str, String)) {
    line("  listen", addresses(&vpn.listen));
    let notes = if vpn.mode_notes.is_empty() { String::new() } else { format!(": {}", vpn.mode_notes.join("; ")) };
    line("  mode", format!("{}{notes}", vpn.mode));
    for peer in &vpn.peers {
        let group = peer.group.as_ref().map(|group| format!(" ({group})")).unwrap_or_default();
        let own = peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let seen = match peer.last_handshake.and_then(|at| i64::try_from(at).ok()) {
            Some(at) => format!("last handshake {}", readable(at)),
            None => "no handshake yet".to_owned(),
        };
        let from = peer.endpoint.map(|endpoint| format!(" from {endpoint}")).unwrap_or_default();
        let traffic = format!("received {}, sent {}", bytes(peer.received), bytes(peer.sent));
        let expires = peer.expires.and_then(|at| i64::try_from(at).ok());
        let expires = expires.map(|at| format!(", until {}", readable(at))).unwrap_or_default();
        let told = if peer.told_old_endpoint { ", was told the old address" } else { "" };
        let user = match (&peer.user, peer.role) {
            (Some(user), Some(role)) => format!(", {role} {user}"),
            _ => String::new(),
        };
        let confirmed = peer.confirmed_until.and_then(|at| i64::try_from(at).ok());
        let confirmed = match confirmed.map(readable) {
            Some(until) => format!(", confirmed until {until}"),
            None if peer.must_confirm => ", has to confirm".to_owned(),
            None => String::new(),
        };
        let old = if peer.knows_old_key { ", knows the gate's old key" } else { "" };
        let said = format!("{own}, {seen}{from}, {traffic}{old}{user}{confirmed}{expires}{told}");
        line("  peer", format!("{}{group}: {said}", peer.name));
    }
}

fn addresses(list: &[SocketAddr]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn bytes(number: u64) -> String {
    match number {
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{} KiB", number / 1024),
        _ => format!("{} MiB", number / 1_048_576),
    }
}

//! `hearthgate queries`: what the house asked, and what came of it.

use std::{fmt::Write, path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    app::queries::Span,
    cli::{Running, client, readable, rule::span},
    history::{Count, Entry, Filter, Found, Summary},
};

#[derive(Args, Debug)]
pub(super) struct Queries {
    /// Only names with this in them
    name: Option<String>,
    /// Only of this client: a device's name or MAC, an address, vpn:PEER
    #[arg(long)]
    client: Option<String>,
    /// Only those that ended so: blocked, cached, resolved, local, special, stale, failed, refused
    #[arg(long)]
    outcome: Option<String>,
    /// Only those that this list or group decided
    #[arg(long)]
    list: Option<String>,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Sums instead of questions
    #[arg(long)]
    summary: bool,
    /// For the sums: how far back
    #[arg(long, default_value = "24h", value_parser = span, requires = "summary")]
    last: Duration,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

impl Queries {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        if self.summary {
            let span = Span { seconds: u32::try_from(self.last.as_secs()).unwrap_or(u32::MAX) };
            let summary: Summary = client::post(&state, "/api/v1/dns/summary", &span)?;
            match self.json {
                true => println!("{}", serde_json::to_string_pretty(&summary)?),
                false => print!("{}", show_summary(&summary)),
            }
            return Ok(());
        }
        let filter = Filter {
            name: self.name,
            client: self.client,
            outcome: self.outcome,
            rule: self.list,
            limit: usize::try_from(self.limit).ok(),
            ..Filter::default()
        };
        let found: Found = client::post(&state, "/api/v1/dns/queries", &filter)?;
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&found)?),
            false => print!("{}", show(&found)),
        }
        Ok(())
    }
}

/// Writes questions, the newest last, as on a terminal.
fn show(found: &Found) -> String {
    let mut text = String::new();
    if found.cut {
        text.push_str("(the search took too long and is not whole)\n");
    }
    for Entry { at, name, qtype, client, outcome, transport, rule, took, .. } in found.entries.iter().rev() {
        let rtype = hickory_proto::rr::RecordType::from(*qtype);
        let name = if name.is_empty() { "." } else { name };
        let client = if client.is_empty() { "-" } else { client };
        let _ = write!(text, "{} {client} {name} {rtype} {outcome}", readable(at / 1000));
        if !rule.is_empty() {
            let _ = write!(text, " by \"{rule}\"");
        }
        if *took > 0 {
            let _ = write!(text, " in about {} ms", took.div_ceil(1000));
        }
        if transport != "udp" {
            let _ = write!(text, " over {transport}");
        }
        text.push('\n');
    }
    text
}

fn show_summary(summary: &Summary) -> String {
    let Summary { questions, blocked, .. } = summary;
    let share = (*blocked * 1000).checked_div(*questions).unwrap_or_default();
    let mut text = format!("{questions} questions, {blocked} blocked ({}.{} %)\n", share / 10, share % 10);
    let parts = [
        ("how they ended", &summary.outcomes),
        ("names that were asked for most", &summary.names),
        ("names that were blocked most", &summary.blocked_names),
        ("who asked most", &summary.clients),
    ];
    for (title, counts) in parts {
        if !counts.is_empty() {
            let _ = writeln!(text, "{title}:");
        }
        for Count { what, questions } in counts {
            let _ = writeln!(text, "{questions:>9}  {what}");
        }
    }
    text
}

//! `hearthgate uptime`: what is up and what is down.

use std::{fmt::Write, path::PathBuf};

use anyhow::bail;
use clap::Args;

use crate::{
    cli::{Running, client, readable},
    watch::{State, Status},
};

/// Days of the shorter of the two bars of days.
const MONTH: usize = 30;

#[derive(Args, Debug)]
pub(super) struct Uptime {
    /// Only this check, or this route by its host and path
    name: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: Running,
}

impl Uptime {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let mut states: Vec<Status> = client::get(&state, "/api/v1/uptime")?;
        if let Some(name) = &self.name {
            states.retain(|status| status.name == *name);
            if states.is_empty() {
                bail!("nothing of the name \"{name}\" is watched");
            }
        }
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&states)?),
            false => print!("{}", show(&states, self.name.is_some())),
        }
        Ok(())
    }
}

/// Writes a line for each thing, what is down first; all of its bars if it alone was asked for.
fn show(states: &[Status], bars: bool) -> String {
    let mut states: Vec<&Status> = states.iter().collect();
    states.sort_by_key(|status| match status.state {
        State::Down => 0,
        State::Recovering => 1,
        State::Suspect => 2,
        State::Unknown => 3,
        State::Up => 4,
    });
    let width = states.iter().map(|status| status.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for status in states {
        let word = word(status.state);
        let [day, month, quarter] = status.permille.map(percent);
        let _ = write!(text, "{:width$}  {word:<10}  {}  {day} {month} {quarter}", status.name, bar(&status.hours));
        if let Some(latency) = status.latency {
            let _ = write!(text, "  {latency} ms");
        }
        if let Some(days) = status.certificate_days {
            let _ = write!(text, "  certificate: {days} days");
        }
        if status.flapping {
            text.push_str("  flapping");
        }
        text.push('\n');
        if let (Some(since), true) = (status.since, bars || status.state != State::Up) {
            let _ = writeln!(text, "{:width$}  since {}", "", readable(since));
        }
        if let Some(problem) = &status.problem {
            let _ = writeln!(text, "{:width$}  {problem}", "");
        }
        if bars {
            let month = status.days.get(status.days.len().saturating_sub(MONTH)..).unwrap_or_default();
            for (what, sums) in [("24 hours", &status.hours[..]), ("30 days", month), ("90 days", &status.days)] {
                let _ = writeln!(text, "{what:>10}  {}", bar(sums));
            }
        }
    }
    text
}

fn word(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Up => "up",
        State::Suspect => "suspect",
        State::Down => "down",
        State::Recovering => "recovering",
    }
}

/// One sign for each span: `#` always up, `+` nearly, `-` not always, `x` hardly or never, `.` not known.
fn bar(sums: &[Option<u16>]) -> String {
    let sign = |sum: &Option<u16>| match sum {
        None => '.',
        Some(1000..) => '#',
        Some(990..) => '+',
        Some(500..) => '-',
        Some(_) => 'x',
    };
    sums.iter().map(sign).collect()
}

fn percent(permille: Option<u16>) -> String {
    match permille {
        Some(permille) => format!("{:>3}.{} %", permille / 10, permille % 10),
        None => "     - ".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_down_comes_first_and_one_alone_has_all_its_bars() {
        let up = Status {
            name: "nas".into(),
            kind: "tcp".into(),
            state: State::Up,
            since: Some(0),
            flapping: false,
            problem: None,
            latency: Some(3),
            certificate_days: None,
            hours: vec![None, Some(1000), Some(991), Some(600), Some(0)],
            days: vec![None; 90],
            permille: [Some(997), None, None],
        };
        let problem = Some("connection refused".to_owned());
        let down = Status { name: "photos.home.arpa".into(), state: State::Down, problem, ..up.clone() };

        let all = show(&[up.clone(), down], false);
        let one = show(&[up], true);

        let lines: Vec<&str> = all.lines().collect();
        assert!(lines[0].starts_with("photos.home.arpa  down        .#+-x   99.7 %"), "{all}");
        assert!(lines[1].trim().starts_with("since "), "{all}");
        assert_eq!(lines[2].trim(), "connection refused");
        assert!(lines[3].starts_with("nas               up          .#+-x   99.7 %"), "{all}");
        assert_eq!(lines.len(), 4, "{all}");
        assert_eq!(one.lines().last().unwrap().trim(), format!("90 days  {}", ".".repeat(90)));
    }
}

//! `hearthgate allow`, `block` and `pause`: what is let through and blocked, for good or for a time.

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;

use crate::{
    app::rules::{PauseFor, RuleEdit, RuleFor, Ruled},
    cli::{Running, client, readable},
    config,
};

#[derive(Args, Debug)]
pub(super) struct Rule {
    /// The name; everything below it is meant too
    name: String,
    /// For this group only
    #[arg(long)]
    group: Option<String>,
    /// For a time, as 30m, 2h or 1d; it ends by itself
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    time: Option<Duration>,
    /// Forget what a command said of the name before
    #[arg(long, conflicts_with = "time")]
    undo: bool,
    #[command(flatten)]
    running: Running,
}

#[derive(Args, Debug)]
pub(super) struct Pause {
    /// For how long, as 30m or 2h; it ends by itself
    #[arg(long = "for", value_name = "TIME", value_parser = span, required_unless_present = "end")]
    time: Option<Duration>,
    /// For this group only
    #[arg(long, conflicts_with = "device")]
    group: Option<String>,
    /// For one device only: its MAC address, DHCP name or address, or peer:NAME
    #[arg(long)]
    device: Option<String>,
    /// End it now
    #[arg(long, conflicts_with = "time")]
    end: bool,
    #[command(flatten)]
    running: Running,
}

impl Rule {
    pub(super) fn execute(self, state: Option<PathBuf>, edit: fn(RuleFor) -> RuleEdit) -> anyhow::Result<()> {
        let rule = RuleFor { name: self.name, group: self.group, seconds: self.time.map(|time| time.as_secs()) };
        tell(&self.running, state, if self.undo { RuleEdit::Undo(rule) } else { edit(rule) })
    }
}

impl Pause {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let seconds = self.time.map_or(0, |time| time.as_secs());
        let pause = PauseFor { group: self.group, device: self.device, seconds };
        tell(&self.running, state, if self.end { RuleEdit::Resume(pause) } else { RuleEdit::Pause(pause) })
    }
}

fn tell(running: &Running, state: Option<PathBuf>, edit: RuleEdit) -> anyhow::Result<()> {
    let folder = running.state(state)?;
    let ruled: Ruled = client::post(&folder, "/api/v1/rules", &edit)?;
    match ruled.until {
        Some(until) => eprintln!("{edit}: in force until {}", readable(until)),
        None => eprintln!("{edit}: in force"),
    }
    Ok(())
}

pub(super) fn span(text: &str) -> anyhow::Result<Duration> {
    config::span(text).map_err(|wrong| anyhow!(wrong))
}

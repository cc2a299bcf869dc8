//! `hearthgate audit`: what was changed, by whom and when.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;

use crate::{audit, cli::Running};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check that no line was altered or taken out
    Verify(Running),
    /// Print the entries, the newest last
    Show(Running),
}

impl Audit {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let (Self::Verify(running) | Self::Show(running)) = &self;
        let state = running.state(state)?;
        let shows = matches!(self, Self::Show(_));
        let verified = audit::verify(&state, |entry| {
            if shows {
                let at = entry.at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
                let at = super::readable(at);
                println!("{at}  {:<16} {}: {}", entry.by, entry.what, entry.outcome);
            }
        });
        let verified = verified.map_err(|error| anyhow!("the audit log was tampered with or is damaged: {error}"))?;
        if !shows {
            println!("{} entries, from number {} on, are as they were written", verified.entries, verified.first);
            println!("last: {}", verified.digest);
        }
        Ok(())
    }
}

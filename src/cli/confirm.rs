//! `hearthgate confirm`: a change that could lock its author out is kept, or taken back at once.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    app::{Reloaded, pending::Waiting},
    cli::{Running, client},
};

#[derive(Args, Debug)]
pub(super) struct Confirm {
    /// Take it back now
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    running: Running,
}

impl Confirm {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        if self.undo {
            let reloaded: Reloaded = client::post(&state, "/api/v1/config/undo", &())?;
            println!("taken back; generation {} is in force", reloaded.generation);
            return Ok(());
        }
        let () = client::post(&state, "/api/v1/config/confirm", &())?;
        println!("kept");
        Ok(())
    }
}

/// Says that what was just done waits to be confirmed, if it does.
pub(super) fn remind(state: &Path) -> anyhow::Result<()> {
    let waiting: Option<Waiting> = client::get(state, "/api/v1/config/waiting")?;
    if let Some(Waiting { risk, left, .. }) = waiting {
        eprintln!(
            "this could lock its author out ({risk}): it is taken back in {left} s unless you come in by the new way and say \
             `hearthgate confirm`"
        );
    }
    Ok(())
}

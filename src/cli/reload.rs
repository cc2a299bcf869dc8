//! `hearthgate reload`: loads the configuration again, in the running process.

use std::path::PathBuf;

use crate::{
    app::Reloaded,
    cli::{Running, client, confirm},
};

pub(super) fn execute(running: &Running, state: Option<PathBuf>) -> anyhow::Result<()> {
    let state = running.state(state)?;
    let reloaded: Reloaded = client::post(&state, "/api/v1/reload", &())?;
    for warning in &reloaded.warnings {
        eprintln!("{warning}");
    }
    let same = if reloaded.changed { "" } else { ", nothing was changed in it" };
    println!("generation {} is in force{same}", reloaded.generation);
    confirm::remind(&state)?;
    Ok(())
}

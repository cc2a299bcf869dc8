//! `hearthgate config`: the configurations that were accepted.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Subcommand;

use crate::{
    app::{
        Reloaded,
        history::{self, Entry, Text},
        offline,
    },
    cli::{Running, client, confirm, readable},
    config::generations,
    privilege,
};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// List them
    Log {
        #[command(flatten)]
        running: Running,
    },
    /// Print one: the file and the edits as they were, without secrets
    Show {
        /// Which; without it, the last
        generation: Option<u64>,
        #[command(flatten)]
        running: Running,
    },
    /// Show what changed since one, up to the last
    Diff {
        /// Since which; without it, since the one before the last
        generation: Option<u64>,
        #[command(flatten)]
        running: Running,
    },
    /// Make the edits what they were; the file is its owner's and stays
    Rollback {
        /// Which
        generation: u64,
        #[command(flatten)]
        running: Running,
    },
}

impl Config {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        match self {
            Self::Log { running } => {
                let state = running.state(state)?;
                for entry in asked(&state, "/api/v1/config/log", || history::log(&state))? {
                    println!("{}", line(&entry));
                }
            }
            Self::Show { generation, running } => {
                let state = running.state(state)?;
                let path = with_number("/api/v1/config/show", generation);
                let Text { number, file, edits } = asked(&state, &path, || history::show(&state, generation))?;
                print!("# generation {number}: the file\n{file}");
                if !edits.is_empty() {
                    print!("\n# generation {number}: edits.toml\n{edits}");
                }
            }
            Self::Diff { generation, running } => {
                let state = running.state(state)?;
                let path = with_number("/api/v1/config/diff", generation);
                print!("{}", asked(&state, &path, || history::diff(&state, generation))?);
            }
            Self::Rollback { generation, running } => {
                let state = running.state(state)?;
                rollback(&state, generation, &running)?;
            }
        }
        Ok(())
    }
}

fn rollback(state: &Path, generation: u64, running: &Running) -> anyhow::Result<()> {
    if client::is_running(state) {
        let path = with_number("/api/v1/config/rollback", Some(generation));
        let reloaded: Reloaded = client::post(state, &path, &())?;
        println!("edits are those of generation {generation}; generation {} is in force", reloaded.generation);
        confirm::remind(state)?;
        return Ok(());
    }
    if !state.exists() {
        bail!("there is no state in {} (see --state)", state.display());
    }
    let done = offline::change(state, &format!("config rollback {generation}"), || {
        offline::nothing_waits(state)?;
        let file = match &running.config {
            Some(path) => std::fs::read_to_string(path)?,
            None => generations::show(state, generation)?.file,
        };
        Ok(generations::rollback(state, generation, &file)?)
    })?;
    let changed = if done.edits_changed { "; they apply at the next start" } else { " already" };
    println!("edits are those of generation {generation}{changed}");
    if done.file_differs {
        println!("the file itself is another than in generation {generation} and was not touched");
    }
    Ok(())
}

fn with_number(path: &str, number: Option<u64>) -> String {
    number.map_or_else(|| path.to_owned(), |number| format!("{path}?generation={number}"))
}

/// Asks the running process, or looks into its state if there is none.
fn asked<T: serde::de::DeserializeOwned>(
    state: &Path,
    path: &str,
    otherwise: impl FnOnce() -> Result<T, crate::app::control::Refusal>,
) -> anyhow::Result<T> {
    if client::is_running(state) {
        return client::get(state, path);
    }
    if !state.exists() {
        bail!("there is no state in {} (see --state)", state.display());
    }
    privilege::act_as_owner(state)?;
    otherwise().map_err(|refusal| anyhow!(refusal.failure().error.clone()))
}

fn line(entry: &Entry) -> String {
    let time = readable(entry.time);
    let digest = entry.digest.get(..12).unwrap_or(&entry.digest);
    format!("{:>5}  {time}  {digest}  {}", entry.number, entry.author)
}

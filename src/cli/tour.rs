//! `hearthgate tour`: proves the promise from outside, as a client of the running edge.

use std::path::PathBuf;

use crate::cli::Running;

pub(super) fn execute(_running: &Running, _state: Option<PathBuf>) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}

//! `hearthgate init`: looks at this box and writes a first configuration.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(super) struct Init {}

impl Init {
    pub(super) fn execute(self, _state: Option<PathBuf>) -> anyhow::Result<()> {
        anyhow::bail!("not yet")
    }
}

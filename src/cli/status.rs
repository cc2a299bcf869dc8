//! `hearthgate status`: the state of everything.

use std::path::PathBuf;

use clap::Args;

use crate::{
    app::status,
    cli::{Running, client},
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
        println!("{status:#?}");
        Ok(())
    }
}

//! `hearthgate restore`: makes this box what another one was.

use std::{fs::File, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    app::backup::restore,
    backup::{self, Checked, restore::Place},
    cli::{
        passphrase::{Use, passphrase},
        readable,
    },
};

#[derive(Args, Debug)]
pub(super) struct Restore {
    /// What `hearthgate backup` wrote
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Where the configuration goes, instead of where it was
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the place of what is there, which is kept beside
    #[arg(long)]
    force: bool,
    /// Only say whether it is whole, and what is in it
    #[arg(long)]
    check: bool,
    /// Whose first line is the passphrase; without it HEARTHGATE_BACKUP_PASSPHRASE, the credential
    /// backup-passphrase of systemd, or a question
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Restore {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let at = || self.from.display().to_string();
        let file = File::open(&self.from).with_context(at)?;
        let passphrase = passphrase(self.passphrase_file.as_deref(), Use::Open)?;
        let checked = backup::check(file, &passphrase).with_context(at)?;
        if self.check {
            print!("{}", shown(&checked));
            return Ok(());
        }
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let manifest = &checked.manifest;
        if manifest.file.is_none() && self.config.is_some() {
            bail!("this backup is of the quick start, which has no configuration file: leave out --config");
        }
        let place = Place {
            file: self.config.map(absolute).or_else(|| manifest.file.clone()),
            state: state.map(absolute).unwrap_or_else(|| manifest.state.clone()),
        };
        let restored = restore(&checked, &place, self.force)?;
        println!("state:   {}", place.state.display());
        if let Some(file) = &place.file {
            println!("config:  {}", file.display());
        }
        if let Some(before) = restored.before {
            println!("before:  {} (what was there; remove it when all is well)", before.display());
        }
        println!("whole, as of {}", readable(manifest.made));
        if let Some(problems) = restored.problems {
            eprintln!("this version refuses the configuration as it is:\n{problems}");
        }
        Ok(())
    }
}

/// What is in a backup.
fn shown(checked: &Checked) -> String {
    let manifest = &checked.manifest;
    let mut text = format!("made {} by hearthgate {}\n", readable(manifest.made), manifest.version);
    if let Some(file) = &manifest.file {
        text.push_str(&format!("config of {}\n", file.display()));
    }
    text.push_str(&format!("state of {}\n", manifest.state.display()));
    for name in manifest.pieces.keys() {
        text.push_str(&format!("  {name}\n"));
    }
    text.push_str("whole\n");
    text
}

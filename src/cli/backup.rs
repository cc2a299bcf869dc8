//! `hearthgate backup`: one encrypted file with everything that makes this box what it is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;

use crate::{
    app::{
        Options,
        backup::{Snapshot, read_back, snapshot},
    },
    backup::{self, Content, HISTORY, Passphrase, Piece, age::Cost},
    cli::{
        Running, client,
        passphrase::{Use, passphrase},
    },
    history, privilege,
};

#[derive(Args, Debug)]
pub(super) struct Backup {
    /// Where it is written; "-" for standard output
    #[arg(value_name = "FILE")]
    to: PathBuf,
    /// The history too
    #[arg(long)]
    history: bool,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Whose first line is the passphrase; without it HEARTHGATE_BACKUP_PASSPHRASE, the credential
    /// backup-passphrase of systemd, or a question
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    running: Running,
}

impl Backup {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let is_stdout = self.to == Path::new("-");
        if is_stdout && io::stdout().is_terminal() {
            bail!("a backup is not shown on a terminal: name a file, or send it on");
        }
        if !is_stdout && self.to.exists() && !self.force {
            bail!("{} is there already: say --force to write over it", self.to.display());
        }
        let passphrase = passphrase(self.passphrase_file.as_deref(), Use::Make)?;
        let snapshot: Snapshot = match client::is_running(&state) {
            true => client::get(&state, "/api/v1/backup")?,
            false => {
                if !state.exists() {
                    bail!("there is no state in {} (see --state)", state.display());
                }
                let source = self.running.source();
                snapshot(&Options { source, state: Some(state.clone()), ..Options::default() }, &state)?
            }
        };
        let mut pieces = snapshot.pieces()?;
        let copy = state.join("history.copy");
        if self.history {
            match privilege::as_owner(&state, || history::copy(&state, &copy))? {
                Ok(true) => pieces.push(Piece { name: HISTORY.into(), content: Content::File(copy.clone()) }),
                Ok(false) => eprintln!("there is no history on the disk"),
                Err(error) => return Err(anyhow!(error).context("the history cannot be copied")),
            }
        }
        let written = match is_stdout {
            true => backup::write(io::stdout(), snapshot.manifest.clone(), &pieces, &passphrase, Cost::Command)
                .map_err(Into::into),
            false => self.write(&snapshot, &pieces, &passphrase),
        };
        let _ = fs::remove_file(copy);
        written?;
        for path in &snapshot.left_out {
            eprintln!("not in the backup: {} (outside of the configuration's folder, or large)", path.display());
        }
        Ok(())
    }

    /// Writes it beside, reads it back, and gives it its name.
    fn write(&self, snapshot: &Snapshot, pieces: &[Piece], passphrase: &Passphrase) -> anyhow::Result<()> {
        let mut new = self.to.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let at = || new.display().to_string();
        let written = self.write_beside(&new, snapshot, pieces, passphrase).and_then(|()| {
            let checked = read_back(&new, passphrase).context("it cannot be read back")?;
            fs::rename(&new, &self.to).with_context(at)?;
            let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(checked.manifest.pieces.len())
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        let count = written?;
        let bytes = fs::metadata(&self.to)?.len();
        let mut out = io::stdout();
        writeln!(out, "{}: {count} files, {bytes} bytes, read back", self.to.display())?;
        Ok(())
    }

    fn write_beside(
        &self,
        new: &Path,
        snapshot: &Snapshot,
        pieces: &[Piece],
        passphrase: &Passphrase,
    ) -> anyhow::Result<()> {
        let at = || new.display().to_string();
        let options =
            OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(new);
        let file = options.with_context(at)?;
        backup::write(&file, snapshot.manifest.clone(), pieces, passphrase, Cost::Command).with_context(at)?;
        file.sync_all().with_context(at)
    }
}

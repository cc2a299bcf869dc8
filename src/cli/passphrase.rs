//! Where a command has a passphrase from: a file, the environment, a credential of systemd, or the terminal. Never from
//! the command line, which everybody on the box can read.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::backup::{Passphrase, small};

/// The variable of the environment.
const VARIABLE: &str = "HEARTHGATE_BACKUP_PASSPHRASE";
/// The name of the credential.
const CREDENTIAL: &str = "backup-passphrase";
/// Bytes of a file with a passphrase.
const FILE: u64 = 4096;

/// What the passphrase is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A backup that will be written: it must be good, and is asked for twice.
    Make,
    /// A backup that is there.
    Open,
}

/// Returns the passphrase.
pub(super) fn passphrase(file: Option<&Path>, purpose: Use) -> anyhow::Result<Passphrase> {
    let credential = env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(CREDENTIAL));
    let found = match (file, env::var(VARIABLE)) {
        (Some(file), _) => read(file)?,
        (None, Ok(text)) => Zeroizing::new(text),
        (None, Err(_)) => match credential.filter(|path| path.exists()) {
            Some(path) => read(&path)?,
            None => ask(purpose)?,
        },
    };
    let passphrase = Passphrase::of(&found).ok_or_else(|| anyhow!("the passphrase is empty"))?;
    match passphrase.weakness().filter(|_| purpose == Use::Make) {
        Some(weakness) => bail!(weakness),
        None => Ok(passphrase),
    }
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let missing = || anyhow!("{} is no ordinary file", path.display());
    let real = std::fs::canonicalize(path).with_context(|| path.display().to_string())?;
    let bytes = small(&real, FILE)?.ok_or_else(missing)?;
    Ok(Zeroizing::new(String::from_utf8(bytes).map_err(|_| anyhow!("{} is not UTF-8 text", path.display()))?))
}

fn ask(purpose: Use) -> anyhow::Result<Zeroizing<String>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| {
        anyhow!("there is no terminal to ask for the passphrase: name a file with --passphrase-file, or set {VARIABLE}")
    })?;
    let first = hidden(&terminal, "passphrase: ")?;
    if purpose == Use::Make && *hidden(&terminal, "once more:  ")? != *first {
        bail!("these are two different passphrases");
    }
    Ok(first)
}

/// Reads a line that is not shown.
fn hidden(mut terminal: &File, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let before = tcgetattr(terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    write!(terminal, "{prompt}")?;
    tcsetattr(terminal, OptionalActions::Flush, &silent)?;
    let mut line = Zeroizing::new(String::new());
    let read = BufReader::new(terminal).read_line(&mut line);
    tcsetattr(terminal, OptionalActions::Flush, &before)?;
    writeln!(terminal)?;
    read?;
    Ok(line)
}

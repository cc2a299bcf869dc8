//! The state folder: made for the user that the process becomes, or found to be ours.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    app::lock,
    privilege::{self, User},
    store,
};

/// Everything that lies in a state folder, without the suffixes of the store.
const NAMES: [&str; 20] = [
    "lock",
    "control.sock",
    "edits.toml",
    "generations",
    "vpn.key",
    "vpn-addresses",
    "tour.key",
    "ca",
    "ca.pem",
    "confirmations",
    "unconfirmed",
    "acme",
    "audit.log",
    "backups",
    "before-restore",
    "clock",
    "devices.json",
    "endpoints",
    "history.db",
    "trust-anchors",
];
/// What the store keeps beside a file.
const SUFFIXES: [&str; 4] = [".new", ".old", ".link", ".torn"];

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is root's and something else's.
    #[error(
        "state folder {} belongs to root and holds something else: name an empty one, or one that is not there yet, with `node.state` or --state DIR",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The kernel refused.
    #[error("state folder {}: {error}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// Makes the folder if it is not there, and gives it to the user that the process becomes.
///
/// Root gives away only a folder that is new, empty or marked as ours by its lock file, and in it only what we
/// make, by name.
pub fn claim(state: &Path, user: Option<&User>) -> Result<(), Error> {
    match claim_here(state, user) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Foreign(state.to_owned())),
        Err(error) => Err(Error::Io { path: state.to_owned(), error }),
    }
}

/// Says whether it is ours now.
fn claim_here(state: &Path, user: Option<&User>) -> io::Result<bool> {
    let is_new = !state.try_exists()?;
    if is_new {
        store::folder(state)?;
    }
    let Some(user) = user else { return Ok(true) };
    let is_roots = fs::metadata(state)?.uid() == 0;
    if is_roots && !is_new && !is_empty(state)? && !lock::is_there(state) {
        return Ok(false);
    }
    if is_roots {
        privilege::give_folder(state, user)?;
    }
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_ours) {
            privilege::give(&entry.path(), user)?;
        }
    }
    Ok(true)
}

/// Marks a folder as ours, so that root gives it away at the first start.
pub fn mark(state: &Path) -> io::Result<()> {
    lock::take(state).map(drop).map_err(io::Error::other)
}

fn is_empty(state: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(state)?.next().is_none())
}

fn is_ours(name: &str) -> bool {
    let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    // Older files of the audit log have numbers.
    let is_older = |name: &str| name.strip_prefix("audit.log.").is_some_and(|number| number.parse::<u8>().is_ok());
    NAMES.contains(&base) || is_older(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(path: &Path) -> u32 {
        fs::metadata(path).unwrap().uid()
    }

    #[test]
    fn only_what_is_ours_is_given_away() {
        let Ok(Some(nobody)) = privilege::user(Some("nobody")) else {
            return eprintln!("\nSKIPPED: only root can give anything away");
        };
        let folder = tempfile::tempdir().unwrap();
        let [new, empty, foreign, ours] = ["new", "empty", "foreign", "ours"].map(|name| folder.path().join(name));
        for path in [&empty, &foreign, &ours] {
            fs::create_dir(path).unwrap();
        }
        fs::write(foreign.join("passwd"), "").unwrap();
        mark(&ours).unwrap();
        store::write(&ours.join("edits.toml"), b"# one\n").unwrap();
        store::write(&ours.join("edits.toml"), b"# two\n").unwrap();
        fs::write(ours.join("passwd"), "").unwrap();

        claim(&new, Some(&nobody)).unwrap();
        claim(&empty, Some(&nobody)).unwrap();
        let refused = claim(&foreign, Some(&nobody)).unwrap_err();
        claim(&ours, Some(&nobody)).unwrap();

        let given = [new, empty, ours.clone(), ours.join("lock"), ours.join("edits.toml"), ours.join("edits.toml.old")];
        for path in given {
            assert_ne!(owner(&path), 0, "{}", path.display());
        }
        for path in [&foreign, &foreign.join("passwd"), &ours.join("passwd")] {
            assert_eq!(owner(path), 0, "{}", path.display());
        }
        assert!(refused.to_string().contains("belongs to root and holds something else"), "{refused}");
    }

    #[test]
    fn a_lock_of_somebody_else_marks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock"), "serial line\n").unwrap();

        assert!(!lock::is_there(folder.path()));
    }
}

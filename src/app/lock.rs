//! One process for each state folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The lock of a state folder; held until it is dropped, and by the kernel no longer than the process lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another process has it.
    #[error("hearthgate is already running on the state in {state} (process {process})", state = state.display())]
    Held {
        /// The folder.
        state: PathBuf,
        /// Its number.
        process: String,
    },
    /// The file cannot be made.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

fn path(state: &Path) -> PathBuf {
    state.join("lock")
}

/// Takes the lock of a state folder.
pub(crate) fn take(state: &Path) -> Result<Lock, Error> {
    let path = path(state);
    let fail = |error| Error::Io { path: path.clone(), error };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let _ = file.take(16).read_to_string(&mut process);
            return Err(Error::Held { state: state.to_owned(), process: process.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(fail)?;
    writeln!(file, "{}", std::process::id()).map_err(fail)?;
    Ok(Lock(file))
}

/// Returns the number of the process that runs on a state folder, if one does.
pub fn holder(state: &Path) -> Option<String> {
    let mut file = File::open(path(state)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let _ = file.read_to_string(&mut process);
            Some(process.trim().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_of_the_first() {
        let state = tempfile::tempdir().unwrap();
        let lock = take(state.path()).unwrap();

        let second = take(state.path()).unwrap_err().to_string();

        assert!(second.contains("already running") && second.contains(&std::process::id().to_string()), "{second}");
        assert_eq!(holder(state.path()), Some(std::process::id().to_string()));
        drop(lock);
        assert_eq!(holder(state.path()), None);
        take(state.path()).unwrap();
    }
}

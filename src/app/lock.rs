//! One process for each state folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use crate::privilege;

/// Neither a link nor a named pipe may stand in its place.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// The lock of a state folder; held until it is dropped, and by the kernel no longer than the process lives.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Goes on with the lock of the process before: the kernel has it belong to the open file, and so to whoever
    /// has that open.
    pub(super) fn inherited(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Writes down whose it is.
    pub(super) fn sign(&mut self) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "{}", std::process::id())
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

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
    let taken = privilege::as_owner(state, || take_here(state));
    taken.unwrap_or_else(|error| Err(Error::Io { path: path(state), error }))
}

fn take_here(state: &Path) -> Result<Lock, Error> {
    let path = path(state);
    let fail = |error| Error::Io { path: path.clone(), error };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(FLAGS);
    let file = options.open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let _ = file.take(16).read_to_string(&mut process);
            return Err(Error::Held { state: state.to_owned(), process: process.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    let mut lock = Lock(file);
    lock.sign().map_err(fail)?;
    Ok(lock)
}

/// Says whether a process of ours had its lock here.
pub(super) fn is_there(state: &Path) -> bool {
    let open = || OpenOptions::new().read(true).custom_flags(FLAGS).open(path(state));
    let Ok(Ok(file)) = privilege::as_owner(state, open) else { return false };
    let mut process = String::new();
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    is_file && file.take(16).read_to_string(&mut process).is_ok() && process.trim().parse::<u32>().is_ok()
}

/// Returns the number of the process that runs on a state folder, if one does.
pub fn holder(state: &Path) -> Option<String> {
    let open = || OpenOptions::new().read(true).custom_flags(FLAGS).open(path(state));
    let file = privilege::as_owner(state, open).ok()?.ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let _ = file.take(16).read_to_string(&mut process);
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

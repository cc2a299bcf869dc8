//! The box as its files show it: `/proc`, `/sys`, `/etc`, below a folder, so that a test has a box of its own.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// No file that is looked at here is longer.
const LONGEST: u64 = 4 << 20;

pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns what a file says; nothing if it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.root.join(path)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Returns the number that a file holds.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Returns what a sysctl is set to, by its dotted name.
    pub(super) fn sysctl(&self, key: &str) -> Option<u64> {
        self.number(&format!("proc/sys/{}", key.replace('.', "/")))
    }

    /// Returns the names of what is in a folder, in order.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

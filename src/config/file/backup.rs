//! `[backup]`: encrypted copies of what makes this box what it is.

use std::{path::PathBuf, time::Duration};

use crate::config::{
    file::Table,
    problems::{About, At},
    value::{self, Secret},
};

/// `[backup]` as written.
pub(crate) struct Backup {
    pub(crate) about: About,
    /// Below the state folder by default.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) passphrase: Option<At<Secret>>,
    pub(crate) every: Duration,
    pub(crate) keep: usize,
    pub(crate) history: bool,
    pub(crate) program: Option<PathBuf>,
}

impl Backup {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        if !table.has("passphrase") {
            table.missing(
                "passphrase",
                "write passphrase = \"file:/etc/hearthgate/backup-passphrase\", and keep it elsewhere too",
            );
        }
        Self {
            about: table.about.clone(),
            folder: table.string("folder").map(|folder| folder.value.into()),
            passphrase: table.parsed("passphrase", value::secret),
            every: table.parsed("every", value::wait).map_or(Duration::from_secs(86_400), |every| every.value),
            keep: table.number("keep", 1..=1000).and_then(|keep| usize::try_from(keep.value).ok()).unwrap_or(14),
            history: table.boolean("history").is_some_and(|history| history.value),
            program: table.parsed("program", value::program).map(|program| program.value),
        }
    }
}

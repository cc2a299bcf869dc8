//! `[backup]` as it is meant.

use crate::{
    backup::{Config, Passphrase},
    config::{compile::Setting, file},
};

/// Compiles it; there is none where the file of the passphrase is not looked at.
pub(super) fn compile(written: &file::Backup, setting: &Setting<'_>) -> Option<Config> {
    let (report, about) = (setting.report, &written.about);
    let folder = match &written.folder {
        Some(folder) => setting.folder.join(folder),
        None => setting.state.join("backups"),
    };
    let secret = written.passphrase.as_ref()?;
    let passphrase = Passphrase::of(&setting.secret(secret, about)?)?;
    if let Some(weakness) = passphrase.weakness() {
        report.error(
            secret.at,
            about,
            weakness,
            "write a longer one: whoever has a backup may try as long as he likes",
        );
    }
    Some(Config {
        folder,
        passphrase,
        every: written.every,
        keep: written.keep,
        history: written.history,
        program: written.program.clone(),
    })
}

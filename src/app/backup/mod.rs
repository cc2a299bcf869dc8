//! Backups of this box: what goes into one, the schedule, and the way back.

mod restore;
mod schedule;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use restore::restore;
pub(super) use schedule::Keeper;
pub use schedule::Status;

use crate::{
    app::{Edge, Options, control::Refusal, lock},
    backup::{self, CONFIG, Checked, Content, Manifest, Passphrase, Piece},
    config::{self, Files, PeerIds},
    privilege,
};

/// A file that the configuration names is in the backup if it is not longer.
const NAMED: u64 = 4 << 20;

/// What a backup is made of, as the running process says it.
#[derive(Serialize, Deserialize)]
pub struct Snapshot {
    /// What the backup will say of itself.
    pub manifest: Manifest,
    /// Names and contents, in base64.
    pieces: BTreeMap<String, String>,
    /// Files that the configuration names and that are not in it.
    pub left_out: Vec<PathBuf>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

impl Snapshot {
    fn new(state: &Path, config: Option<(&Path, &str)>, named: &[PathBuf]) -> io::Result<Self> {
        let mut left_out = Vec::new();
        let mut pieces = backup::state(state)?;
        if let Some((path, text)) = config {
            let own = path.file_name().and_then(|name| name.to_str()).unwrap_or("hearthgate.toml");
            pieces.push(Piece { name: format!("{CONFIG}{own}"), content: Content::Bytes(text.into()) });
            let folder = path.parent().unwrap_or(Path::new("."));
            for file in named.iter().filter(|file| !file.starts_with(state)) {
                match below(folder, file).filter(|name| name != own).and_then(|name| Some((name, content(file)?))) {
                    Some((name, content)) => {
                        pieces.push(Piece { name: format!("{CONFIG}{name}"), content: Content::Bytes(content) });
                    }
                    None => left_out.push(file.clone()),
                }
            }
        }
        let file = config.map(|(path, _)| path.to_owned());
        let manifest = backup::manifest(Timestamp::now().as_second(), file, state.to_owned());
        let mut encoded = BTreeMap::new();
        for Piece { name, content } in pieces {
            if let Content::Bytes(bytes) = content {
                encoded.insert(name, BASE64_STANDARD.encode(bytes));
            }
        }
        Ok(Self { manifest, pieces: encoded, left_out })
    }

    /// Returns its files.
    pub fn pieces(&self) -> io::Result<Vec<Piece>> {
        let piece = |(name, content): (&String, &String)| {
            let bytes = BASE64_STANDARD.decode(content).map_err(io::Error::other)?;
            Ok(Piece { name: name.clone(), content: Content::Bytes(bytes) })
        };
        self.pieces.iter().map(piece).collect()
    }
}

/// Returns what a file is called within a folder, if it lies there.
fn below(folder: &Path, file: &Path) -> Option<String> {
    let below = file.strip_prefix(folder).ok()?;
    below.components().all(|part| matches!(part, Component::Normal(_))).then(|| below.to_str().map(str::to_owned))?
}

/// Reads a file that the configuration names, if it is an ordinary one and not long.
fn content(file: &Path) -> Option<Vec<u8>> {
    let found = fs::metadata(file).ok()?;
    if !found.is_file() || found.len() > NAMED {
        return None;
    }
    fs::read(file).ok()
}

impl Edge {
    /// As [`Self::snapshot`], for somebody who asks: keys leave the process.
    pub fn handed_out(&self, author: &str) -> Result<Snapshot, Refusal> {
        let snapshot = self.snapshot();
        let outcome = match &snapshot {
            Ok(_) => "done".to_owned(),
            Err(refusal) => format!("refused: {}", refusal.failure().error),
        };
        self.audit.record(author, "backup", &outcome);
        snapshot
    }

    /// Returns what a backup is made of; nothing is changed meanwhile. Blocks.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let force = self.force.load_full();
        let config = self.options.source.file().map(|path| (path.as_path(), force.file.as_str()));
        let mut snapshot = Snapshot::new(&self.state, config, &force.config.files).map_err(Refusal::ours)?;
        // A history is searched: what waits for the tables is in them then.
        if let Some(history) = &self.history {
            let _ = history.summary(Timestamp::now(), Timestamp::now());
        }
        snapshot.manifest.state.clone_from(&self.state);
        Ok(snapshot)
    }
}

/// Returns what a backup is made of where no process runs.
pub(crate) fn snapshot(options: &Options, state: &Path) -> anyhow::Result<Snapshot> {
    let work = || {
        let _lock = lock::take(state).map_err(|error| anyhow::anyhow!("{error}"))?;
        let wanted = config::Options { files: Files::Unchecked, ..options.to_config() };
        let loaded = config::check(options.source.to_config(), &wanted, &mut PeerIds::default())
            .map_err(|problems| anyhow::anyhow!(crate::cli::Problem(problems.to_string())))?;
        let config = options.source.file().map(|path| (path.as_path(), loaded.file.as_str()));
        Ok(Snapshot::new(state, config, &loaded.compiled.files)?)
    };
    privilege::as_owner(state, work)?
}

/// Unpacks a backup into a folder and sees whether its configuration can be read there.
fn trial(checked: &Checked, folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    let tried = checked.unpack(folder).map_err(|error| error.to_string()).and_then(|()| {
        let Some(name) = checked.manifest.file.as_deref().and_then(Path::file_name) else { return Ok(()) };
        readable(&folder.join(CONFIG).join(name), &folder.join(backup::STATE))
    });
    tried.and(fs::remove_dir_all(folder).map_err(|error| error.to_string()))
}

/// Says what is wrong with a configuration and edits that lie where nobody uses them.
fn readable(file: &Path, state: &Path) -> Result<(), String> {
    look(file, state).map(drop).map_err(|problems| problems.to_string())
}

fn look(file: &Path, state: &Path) -> Result<config::Loaded, config::Problems> {
    let options = config::Options { state: Some(state.to_owned()), files: Files::Unchecked, testing: true };
    config::check(config::Source::File(file), &options, &mut PeerIds::default())
}

/// Reads a file that was just written as it would be read one day.
pub(crate) fn read_back(path: &Path, passphrase: &Passphrase) -> Result<Checked, backup::Error> {
    backup::check(File::open(path)?, passphrase)
}

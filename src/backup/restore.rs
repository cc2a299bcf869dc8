//! Puts a backup that was checked in its place: everything is written beside first, and then moved.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{CONFIG, Checked, Error, STATE, is_left_out};

/// Where it is written first, within the state folder.
pub const STAGED: &str = "restoring";
/// Where lies what was there before.
pub const BEFORE: &str = "before-restore";

/// Where a backup goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The configuration file, if the backup has one.
    pub file: Option<PathBuf>,
    /// The state folder.
    pub state: PathBuf,
}

/// A backup whose files lie in the state folder, and are not in their places yet.
#[derive(Debug)]
pub struct Staged<'a> {
    place: &'a Place,
    folder: PathBuf,
    /// Names below [`STATE`], only the first part of each.
    state: Vec<String>,
    /// Where each file of the configuration lies, and where it goes.
    config: Vec<(PathBuf, PathBuf)>,
}

/// Returns where each file of the configuration goes. The file itself may have another name than it had.
fn config<'a>(checked: &'a Checked, place: &'a Place) -> impl Iterator<Item = (&'a str, PathBuf)> {
    let own = checked.manifest.file.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let place = place.file.as_deref().map(|file| (file, file.parent().unwrap_or(Path::new("."))));
    let names = checked.manifest.pieces.keys().filter_map(|name| Some((name.as_str(), name.strip_prefix(CONFIG)?)));
    names.filter_map(move |(name, below)| {
        let (file, folder) = place?;
        Some((name, if Some(below) == own { file.to_owned() } else { folder.join(below) }))
    })
}

/// Returns what is there already and would be replaced.
pub fn in_the_way(checked: &Checked, place: &Place) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = config(checked, place).map(|(_, path)| path).filter(|path| path.exists()).collect();
    match fs::read_dir(&place.state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.file_name().to_str().is_none_or(|name| !is_left_out(name)) {
                    found.push(entry.path());
                }
            }
        }
    }
    Ok(found)
}

/// Writes everything into a folder of its own within the state folder, which is there.
pub fn stage<'a>(checked: &Checked, place: &'a Place) -> Result<Staged<'a>, Error> {
    let folder = place.state.join(STAGED);
    remove(&folder)?;
    checked.unpack(&folder)?;
    let below = checked.manifest.pieces.keys().filter_map(|name| name.strip_prefix(STATE));
    let mut state: Vec<String> = below.filter_map(|name| name.split('/').next()).map(str::to_owned).collect();
    state.dedup();
    let config = config(checked, place).map(|(name, path)| (folder.join(name), path)).collect();
    Ok(Staged { place, folder, state, config })
}

impl Staged<'_> {
    /// Returns where the configuration file lies now.
    pub fn file(&self) -> Option<&Path> {
        let own = self.place.file.as_ref()?;
        self.config.iter().find(|(_, to)| to == own).map(|(from, _)| from.as_path())
    }

    /// Returns where the state lies now.
    pub fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }

    /// Moves everything to its place. What was there lies in [`BEFORE`] then, and beside the configuration's files with
    /// `.before-restore` after their names.
    pub fn commit(self, mut finish: impl FnMut(&File) -> io::Result<()>) -> Result<(), Error> {
        // What can fail for want of room or permission comes first.
        for (from, to) in &self.config {
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            let new = beside(to, ".restoring");
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&fs::read(from)?)?;
            finish(&file)?;
            file.sync_all()?;
        }
        let (state, before) = (&self.place.state, self.place.state.join(BEFORE));
        remove(&before)?;
        crate::store::folder(&before)?;
        for entry in fs::read_dir(state)? {
            let entry = entry?;
            let stays = entry.file_name().to_str().is_some_and(is_left_out);
            if !stays {
                fs::rename(entry.path(), before.join(entry.file_name()))?;
            }
        }
        for name in &self.state {
            fs::rename(self.state().join(name), state.join(name))?;
        }
        for (_, to) in &self.config {
            match fs::rename(to, beside(to, ".before-restore")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            fs::rename(beside(to, ".restoring"), to)?;
            File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        }
        remove(&self.folder)?;
        if fs::read_dir(&before)?.next().is_none() {
            fs::remove_dir(&before)?;
        }
        File::open(state)?.sync_all()?;
        Ok(())
    }

    /// Leaves everything as it was.
    pub fn discard(self) -> io::Result<()> {
        remove(&self.folder)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(path: &Path, after: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(after);
    name.into()
}

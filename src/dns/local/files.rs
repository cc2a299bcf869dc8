//! The files that names of the house come from besides the configuration, as they were last read whole.

use std::{
    fs::File as Handle,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    hosts::{self, Host},
    leases::{self, Lease},
    zone::{self, Zone},
};
use crate::dns::Config;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// `dns.zones`
    pub(crate) zones: Vec<ZoneFile>,
    /// `dns.hosts`
    pub(crate) hosts: Vec<Host>,
    /// `dns.leases`
    pub(crate) leases: Vec<Lease>,
    texts: Vec<Text>,
    /// Sentences about files that are not as they should be.
    pub(crate) problems: Vec<String>,
}

/// A zone and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ZoneFile {
    pub(crate) path: PathBuf,
    pub(crate) zone: Arc<Zone>,
}

/// A file's content.
#[derive(Clone, Debug, PartialEq)]
struct Text {
    path: PathBuf,
    content: Arc<str>,
}

/// The most that a file may hold.
const LARGEST: u64 = 16 << 20;

/// A file that was changed so lately may be in the middle of it.
const WET: Duration = Duration::from_secs(2);

impl Files {
    /// Reads every file of a configuration; what cannot be read, or is being written, stays as it was before. A zone
    /// that was never read whole is an error; a lease file may come later.
    pub(crate) fn read(config: &Config, before: Option<&Self>, now: u64) -> Result<Self, (&'static str, String)> {
        let files = Self::read_beside(config, before.unwrap_or(&Self::default()), now);
        let missing = config.zones.iter().find(|path| !files.zones.iter().any(|zone| zone.path == **path));
        match missing
            .and_then(|path| files.problems.iter().find(|problem| problem.starts_with(&*path.to_string_lossy())))
        {
            Some(problem) => Err(("dns.zones", problem.clone())),
            None => Ok(files),
        }
    }

    /// Reads every file again. `None`: nothing is other than before.
    pub(crate) fn read_again(&self, config: &Config, now: u64) -> Option<Self> {
        let files = Self::read_beside(config, self, now);
        let same = files.zones == self.zones
            && files.hosts == self.hosts
            && files.leases == self.leases
            && files.problems == self.problems;
        (!same).then_some(files)
    }

    fn read_beside(config: &Config, before: &Self, now: u64) -> Self {
        let mut files = Self::default();
        for path in &config.zones {
            let old = || before.zones.iter().find(|zone| zone.path == *path).cloned();
            let Some(text) = files.text(path, before) else {
                files.zones.extend(old());
                continue;
            };
            match zone::read(&text, path) {
                Ok(zone) if files.zones.iter().any(|other| other.zone.apex == zone.apex) => {
                    files.problems.push(format!("{}: zone {} is in another file already", path.display(), zone.apex));
                }
                Ok(zone) => files.zones.push(ZoneFile { path: path.clone(), zone: Arc::new(zone) }),
                Err(error) => {
                    files.problems.push(format!("{}: {error}", path.display()));
                    files.zones.extend(old());
                }
            }
        }
        for path in &config.hosts {
            let text = files.text(path, before);
            files.hosts.extend(text.iter().flat_map(|text| hosts::read(text)));
        }
        for path in &config.leases {
            let text = files.text(path, before);
            files.leases.extend(text.iter().flat_map(|text| leases::read(text, now)));
        }
        files
    }

    /// Reads a file, or goes by what it held before.
    fn text(&mut self, path: &Path, before: &Self) -> Option<Arc<str>> {
        let known = before.texts.iter().find(|text| text.path == path).map(|text| text.content.clone());
        let content = match read(path) {
            Ok(Reading { content, wet }) => match known {
                // Cut short by whoever is writing it: there will be another reading.
                Some(known) if wet && (content.is_empty() || !content.ends_with('\n')) => known,
                _ => content.into(),
            },
            Err(error) => {
                self.problems.push(format!("{}: {error}", path.display()));
                known?
            }
        };
        self.texts.push(Text { path: path.to_owned(), content: content.clone() });
        Some(content)
    }
}

struct Reading {
    content: String,
    /// It was changed a moment ago.
    wet: bool,
}

fn read(path: &Path) -> io::Result<Reading> {
    let file = Handle::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("is larger than 16 MiB"));
    }
    let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let wet = SystemTime::now().duration_since(changed).is_ok_and(|age| age < WET);
    Ok(Reading { content: String::from_utf8_lossy(&bytes).into_owned(), wet })
}

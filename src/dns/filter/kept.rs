//! Fetched lists as they are kept in the state folder: `lists/NAME.list`, with what is known of it in
//! `lists/NAME.json`.
//!
//! A list takes the place of the one before it whole or not at all, and only if it is a list. One that has lost
//! more than half of its names is held back: it may be broken, and what was blocked would be open.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::{
    fetch::{FetchError, Fetched, Fetcher, Validators, digest_of},
    parse::{self, Found, ReadError},
};
use crate::store;

/// Where a fetched list is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    name: String,
}

/// What is known of a kept list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    /// SHA-256 of the file, in hexadecimal digits.
    digest: String,
    /// Entries that were taken from it.
    names: u64,
    /// When the server was last heard, in seconds since 1970.
    pub(super) checked: u64,
    /// Entries of a newer one that is held back.
    held: Option<u64>,
}

/// What a fetch did to the kept list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Nothing.
    Unchanged,
    /// There is another one.
    Changed,
    /// It was held back, and why.
    Held(String),
}

/// Why the kept list stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// It was not fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What came is no list.
    #[error("what came {0}")]
    Read(#[from] ReadError),
    /// The state folder cannot be used.
    #[error("cannot be kept: {0}")]
    Write(#[from] io::Error),
}

impl Kept {
    pub(super) fn new(state: &Path, name: &str) -> Self {
        Self { folder: state.join("lists"), name: name.to_owned() }
    }

    /// Returns the path of the list.
    pub(super) fn list(&self) -> PathBuf {
        self.path("list")
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    /// Returns what is known of the list, if it came from this URL.
    pub(super) fn known(&self, url: &Uri) -> Option<Known> {
        let known: Known = serde_json::from_slice(&store::read(&self.path("json")).ok()?.content()?).ok()?;
        (known.url == url.to_string() && self.list().exists()).then_some(known)
    }

    /// Fetches the list if there is another one. `now` is in seconds since 1970.
    pub(super) async fn refresh(&self, fetcher: &Fetcher, url: &Uri, now: u64) -> Result<Fetch, KeepError> {
        let this = (self.clone(), url.clone());
        let known = tokio::task::spawn_blocking(move || this.0.whole(&this.1)).await.map_err(io::Error::other)??;
        let validators = known.as_ref().map_or_else(Validators::default, |known| Validators {
            etag: known.etag.clone(),
            last_modified: known.last_modified.clone(),
        });
        let fetched = fetcher.fetch(url, &validators, &self.path("new")).await?;
        let this = (self.clone(), url.clone());
        let keep = tokio::task::spawn_blocking(move || this.0.keep(fetched, known, &this.1, now));
        keep.await.map_err(io::Error::other)?
    }

    /// Returns what is known of the list if it is whole: a damaged one is fetched anew.
    fn whole(&self, url: &Uri) -> io::Result<Option<Known>> {
        store::folder(&self.folder)?;
        Ok(self.known(url).filter(|known| digest_of(&self.list()).is_ok_and(|digest| hex(&digest) == known.digest)))
    }

    fn keep(&self, fetched: Fetched, known: Option<Known>, url: &Uri, now: u64) -> Result<Fetch, KeepError> {
        let (validators, digest) = match (fetched, known.clone()) {
            (Fetched::Changed { validators, digest }, _) => (validators, hex(&digest)),
            (Fetched::Unchanged, Some(known)) => {
                self.write(&Known { checked: now, held: None, ..known })?;
                return Ok(Fetch::Unchanged);
            }
            // RFC 9110 §15.4.5: only where something was known.
            (Fetched::Unchanged, None) => return Err(FetchError::Status(hyper::StatusCode::NOT_MODIFIED).into()),
        };
        let new = self.path("new");
        let mut names = 0;
        let read = parse::read(BufReader::new(File::open(&new)?), |_, _, found| {
            names += u64::from(!matches!(found, Found::Ignored(_)));
        });
        if let Err(error) = read {
            fs::remove_file(&new)?;
            return Err(error.into());
        }
        let Validators { etag, last_modified } = validators;
        let next = Known { url: url.to_string(), etag, last_modified, digest, names, checked: now, held: None };
        match known {
            Some(known) if known.digest == next.digest => {
                fs::remove_file(&new)?;
                self.write(&next)?;
                Ok(Fetch::Unchanged)
            }
            Some(known) if names.saturating_mul(2) < known.names => {
                fs::rename(&new, self.path("held"))?;
                let known = Known { checked: now, held: Some(names), ..known };
                self.write(&known)?;
                Ok(Fetch::Held(self.held(&known).unwrap_or_default()))
            }
            _ => {
                fs::rename(&new, self.list())?;
                File::open(&self.folder)?.sync_all()?;
                let _ = fs::remove_file(self.path("held"));
                self.write(&next)?;
                Ok(Fetch::Changed)
            }
        }
    }

    fn write(&self, known: &Known) -> io::Result<()> {
        store::write(&self.path("json"), &serde_json::to_vec(known)?)
    }

    /// Says what is held back, if something is.
    pub(super) fn held(&self, known: &Known) -> Option<String> {
        let (was, names) = (known.names, known.held?);
        let file = self.list();
        Some(format!(
            "a new one of {names} instead of {was} names is held back; to take it, remove {} and reload",
            file.display()
        ))
    }
}

/// Makes or empties a file that only this user may read.
pub(super) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn changed(kept: &Kept, content: &str) -> Fetched {
        fs::write(kept.path("new"), content).unwrap();
        let digest = digest_of(&kept.path("new")).unwrap();
        Fetched::Changed { validators: Validators { etag: Some("\"1\"".into()), last_modified: None }, digest }
    }

    fn kept(folder: &Path) -> (Kept, Uri) {
        let kept = Kept::new(folder, "ads");
        store::folder(&kept.folder).unwrap();
        (kept, "https://lists.example/ads".parse().unwrap())
    }

    fn keep(kept: &Kept, url: &Uri, content: &str) -> Result<Fetch, KeepError> {
        kept.keep(changed(kept, content), kept.whole(url).unwrap(), url, NOW)
    }

    #[test]
    fn a_list_that_shrank_by_more_than_half_is_held_back_until_the_old_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, url) = kept(folder.path());
        assert_eq!(keep(&kept, &url, "a.example\nb.example\nc.example\nd.example\n").unwrap(), Fetch::Changed);
        assert_eq!(keep(&kept, &url, "a.example\nb.example\n").unwrap(), Fetch::Changed, "half is not more than half");
        assert_eq!(keep(&kept, &url, "a.example\nb.example\nc.example\nd.example\n").unwrap(), Fetch::Changed);

        let Fetch::Held(why) = keep(&kept, &url, "a.example\n").unwrap() else { panic!("taken") };

        assert!(why.contains("1 instead of 4 names"), "{why}");
        assert_eq!(kept.held(&kept.known(&url).unwrap()), Some(why));
        assert_eq!(fs::read_to_string(kept.list()).unwrap().lines().count(), 4);
        fs::remove_file(kept.list()).unwrap();
        assert_eq!(keep(&kept, &url, "a.example\n").unwrap(), Fetch::Changed);
        assert!(!kept.path("held").exists());
    }

    #[test]
    fn a_web_page_leaves_the_list_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, url) = kept(folder.path());
        keep(&kept, &url, "a.example\n").unwrap();

        let error = keep(&kept, &url, "\n<!doctype html>\nb.example\n").unwrap_err();

        assert_eq!(error.to_string(), "what came looks like a web page, not a list");
        assert_eq!(fs::read_to_string(kept.list()).unwrap(), "a.example\n");
    }

    #[test]
    fn a_damaged_list_or_one_from_elsewhere_is_asked_for_without_validators() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, url) = kept(folder.path());
        keep(&kept, &url, "a.example\n").unwrap();
        assert!(kept.whole(&url).unwrap().is_some());

        assert_eq!(kept.whole(&"https://other.example/".parse().unwrap()).unwrap(), None);
        fs::write(kept.list(), "a.exam").unwrap();

        assert_eq!(kept.whole(&url).unwrap(), None);
        let unchanged = kept.keep(Fetched::Unchanged, None, &url, NOW);
        assert!(unchanged.is_err(), "nothing was known that could be unchanged");
    }
}

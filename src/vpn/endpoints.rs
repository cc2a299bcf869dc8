//! Where each peer was last heard, kept over restarts: the gate can then speak first.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{store, vpn::keys::PublicKey};

/// A flash card is not written for less: a peer that stays where it is.
const REFRESH: Duration = Duration::from_secs(15 * 60);
/// Whoever was not heard for longer has no session that it still believes in, and will begin by itself; and
/// the address may be somebody else's by now.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// Where and when a peer was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Its address.
    pub(super) remote: SocketAddr,
    /// The socket of ours, by what it listens on.
    pub(super) listen: SocketAddr,
    /// In seconds since 1970.
    pub(super) at: u64,
}

impl Heard {
    /// Says whether the gate should speak first. A clock that was set back hides nobody.
    pub(super) fn is_recent(&self, now: u64) -> bool {
        now.saturating_sub(self.at) < RECENT.as_secs()
    }

    fn is_worth_writing(&self, written: Option<&Self>) -> bool {
        written.is_none_or(|written| {
            (written.remote, written.listen) != (self.remote, self.listen)
                || self.at.abs_diff(written.at) >= REFRESH.as_secs()
        })
    }
}

/// All peers' whereabouts, in memory and in a file.
#[derive(Debug)]
pub(super) struct Endpoints {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    heard: BTreeMap<PublicKey, Heard>,
    /// What the file says; none before it was read.
    written: Option<BTreeMap<PublicKey, Heard>>,
}

impl Endpoints {
    /// Names the file in the state folder; it is not touched yet.
    pub(super) fn new(state: &Path) -> Self {
        Self { path: state.join("endpoints"), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }

    /// Returns where peers were last heard: by the gate before this one, else as the file says.
    pub(super) fn recall(&self) -> BTreeMap<PublicKey, Heard> {
        let mut inner = self.inner();
        if inner.written.is_none() {
            let found = store::read(&self.path).map(|found| found.content().unwrap_or_default());
            let read = found.map(|content| parse(&content)).unwrap_or_else(|error| {
                tracing::warn!(file = %self.path.display(), %error, "where peers were last heard cannot be read");
                BTreeMap::new()
            });
            inner.heard.clone_from(&read);
            inner.written = Some(read);
        }
        inner.heard.clone()
    }

    /// Notes where a peer was heard.
    pub(super) fn note(&self, peer: PublicKey, heard: Heard) {
        self.inner().heard.insert(peer, heard);
    }

    /// Forgets everybody who is no peer any more.
    pub(super) fn keep(&self, is_peer: impl Fn(&PublicKey) -> bool) {
        self.inner().heard.retain(|peer, _| is_peer(peer));
    }

    /// Returns what is to be written, if anything changed that matters.
    pub(super) fn unwritten(&self) -> Option<Unwritten> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let written = inner.written.as_ref()?;
        let changed = inner.heard.iter().any(|(peer, heard)| heard.is_worth_writing(written.get(peer)))
            || written.keys().any(|peer| !inner.heard.contains_key(peer));
        if !changed {
            return None;
        }
        // Also if it fails: the next change tries again, and a full disk is not asked every second.
        inner.written = Some(inner.heard.clone());
        Some(Unwritten { path: self.path.clone(), content: format(&inner.heard) })
    }
}

/// A file's new content.
#[derive(Debug)]
pub(super) struct Unwritten {
    path: PathBuf,
    content: String,
}

impl Unwritten {
    /// Writes it; waits for the disk.
    pub(super) fn write(&self) {
        let result: io::Result<()> = store::write(&self.path, self.content.as_bytes());
        if let Err(error) = result {
            tracing::warn!(file = %self.path.display(), %error, "where peers were last heard cannot be kept");
        }
    }
}

/// Returns the time of day, in seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn format(heard: &BTreeMap<PublicKey, Heard>) -> String {
    heard.iter().map(|(peer, one)| format!("{peer} {} {} {}\n", one.remote, one.listen, one.at)).collect()
}

/// Reads the file; a line that makes no sense is somebody who begins by himself.
fn parse(content: &[u8]) -> BTreeMap<PublicKey, Heard> {
    let text = String::from_utf8_lossy(content);
    let line = |line: &str| {
        let mut words = line.split(' ');
        let peer = words.next()?.parse().ok()?;
        let (remote, listen) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((peer, Heard { remote, listen, at: words.next()?.parse().ok()? }))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(remote: &str, at: u64) -> Heard {
        Heard { remote: remote.parse().unwrap(), listen: "[::]:443".parse().unwrap(), at }
    }

    #[test]
    fn what_was_heard_is_recalled_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (PublicKey::from([1; 32]), PublicKey::from([2; 32]));
        let before = Endpoints::new(folder.path());
        assert!(before.recall().is_empty());
        before.note(one, heard("192.0.2.1:51820", 1_000));
        before.note(two, heard("[2001:db8::2]:40000", 1_000));
        before.keep(|peer| *peer == one);
        before.unwritten().unwrap().write();

        let after = Endpoints::new(folder.path());

        assert_eq!(after.recall(), BTreeMap::from([(one, heard("192.0.2.1:51820", 1_000))]));
    }

    #[test]
    fn a_peer_that_stays_where_it_is_costs_no_write() {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::new(folder.path());
        let peer = PublicKey::from([1; 32]);
        endpoints.recall();
        let changed = |remote: &str, at: u64| {
            endpoints.note(peer, heard(remote, at));
            endpoints.unwritten().is_some()
        };

        assert!(changed("192.0.2.1:1", 1_000));
        assert!(!changed("192.0.2.1:1", 1_010));
        assert!(changed("192.0.2.1:2", 1_020));
        assert!(changed("192.0.2.1:2", 1_020 + REFRESH.as_secs()));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        let good = format!("{} 192.0.2.1:1 0.0.0.0:443 7", PublicKey::from([1; 32]));
        let text = format!("\n\0\nx y z\n{good}\n{good} more\n{} 192.0.2.1 0.0.0.0:443 7\n", PublicKey::from([2; 32]));

        assert_eq!(parse(text.as_bytes()).len(), 1);
        assert!(parse(b"\xff\xfe").is_empty());
    }

    #[test]
    fn only_those_heard_lately_are_spoken_to() {
        let one = heard("192.0.2.1:1", 10_000);

        assert!(one.is_recent(10_000) && one.is_recent(0) && one.is_recent(13_599));
        assert!(!one.is_recent(13_600));
    }
}

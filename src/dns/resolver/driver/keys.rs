//! Keys of anchors that follow their zones: kept from one process to the next, and told to all threads by the one
//! that looks.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{super::Resolver, figures::Figures};
use crate::{
    dns::resolver::{
        anchor::Anchors,
        rollover::{Followed, State, Turn},
    },
    store,
};

/// Bytes of the file; sixty-four keys of 4096 bits take less.
const LONGEST_FILE: u64 = 256 << 10;

/// What could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// What each thread holds.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    file: Option<PathBuf>,
    /// What was learnt under other anchors is not for us.
    of: String,
    tell: watch::Sender<Followed>,
    told: watch::Receiver<Followed>,
    figures: Figures,
    /// When what is known is written once more, where the disk took it not.
    again: Option<Instant>,
}

impl Keys {
    pub(super) fn new(folder: Option<&Path>, anchors: &Anchors, figures: Figures) -> Self {
        let digest = Sha256::digest(format!("{anchors:?}"));
        let of: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = folder.map(|folder| folder.join("trust-anchors"));
        let followed = file.as_deref().and_then(|file| read(file, &of)).unwrap_or_default();
        figures.anchors(&followed);
        let (tell, told) = watch::channel(followed);
        Self { file, of, tell, told, figures, again: None }
    }

    /// Begins with what is known.
    pub(super) fn begin(&mut self, resolver: &mut Resolver) {
        resolver.set_followed(self.told.borrow_and_update().clone());
    }

    /// Writes down and tells the others what this thread's resolver found out, or tells it what another's did.
    pub(super) fn exchange(&mut self, resolver: &mut Resolver) {
        let turns = resolver.turns();
        if turns.is_empty() {
            if self.told.has_changed().unwrap_or(false) {
                resolver.set_followed(self.told.borrow_and_update().clone());
            }
            if self.again.is_some_and(|at| Instant::now() >= at) {
                let followed = resolver.followed().clone();
                self.write(&followed);
            }
            return;
        }
        turns.iter().for_each(log);
        let followed = resolver.followed().clone();
        self.write(&followed);
        self.figures.anchors(&followed);
        self.tell.send_replace(followed);
        self.told.mark_unchanged();
    }

    fn write(&mut self, followed: &Followed) {
        let Some(file) = &self.file else { return };
        let text = format!("; anchors {}\n{}", self.of, followed.write());
        let written = store::write(file, text.as_bytes());
        if let Err(error) = &written {
            tracing::warn!(file = %file.display(), %error, "what is known of the root's keys is not kept yet");
        }
        self.again = written.is_err().then(|| Instant::now() + AGAIN);
    }
}

fn read(file: &Path, of: &str) -> Option<Followed> {
    let found = store::read_within(file, LONGEST_FILE);
    let content = found.inspect_err(|error| {
        tracing::warn!(file = %file.display(), %error, "what was known of the root's keys is lost");
    });
    let text = String::from_utf8(content.ok()?.content()?).ok()?;
    let (head, keys) = text.split_once('\n')?;
    // Other anchors were configured since: they are where trust begins.
    (head.strip_prefix("; anchors ")? == of).then(|| Followed::read(keys)).flatten()
}

fn log(turn: &Turn) {
    let Turn { zone, tag, from, to } = turn;
    match (from, to) {
        (None, Some(State::Valid)) => tracing::debug!(%zone, tag, "a trust anchor's key is there"),
        (_, Some(State::AddPend)) => {
            tracing::info!(%zone, tag, "a new key is to be a trust anchor, if it stays for 30 days (RFC 5011)");
        }
        (Some(State::AddPend), Some(State::Valid)) => {
            tracing::info!(%zone, tag, "a new key has stayed for 30 days and is a trust anchor now (RFC 5011)");
        }
        (Some(State::AddPend), None) => tracing::info!(%zone, tag, "a new key went before it was a trust anchor"),
        (_, Some(State::Missing)) => tracing::warn!(%zone, tag, "a trust anchor's key is missing; it stays trusted"),
        (_, Some(State::Valid)) => tracing::info!(%zone, tag, "a trust anchor's key is there again"),
        (_, Some(State::Revoked)) => {
            tracing::warn!(%zone, tag, "a trust anchor's key was revoked and is not trusted any more (RFC 5011)");
        }
        (_, Some(State::Removed) | None) => tracing::debug!(%zone, tag, "a revoked key is forgotten"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::resolver::{Config, signature::Dnskey};

    fn followed() -> Followed {
        let rdata: std::sync::Arc<[u8]> = [&[1, 1, 3, 15][..], &[7; 32]].concat().into();
        assert!(Dnskey::parse(&rdata).is_some());
        let line = Followed::default();
        assert!(line.write().is_empty());
        Followed::read(". IN DNSKEY 257 3 15 BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc= ;; valid since 5 hold 6")
            .unwrap()
    }

    #[test]
    fn what_is_known_of_keys_is_read_under_the_same_anchors_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trust-anchors");
        let keys = |anchors: &Anchors| Keys::new(Some(folder.path()), anchors, Figures::default());
        let of = keys(&Anchors::root()).of;
        store::write(&file, format!("; anchors {of}\n{}", followed().write()).as_bytes()).unwrap();

        assert_eq!(*keys(&Anchors::root()).told.borrow(), followed());
        assert_eq!(*keys(&Anchors::default()).told.borrow(), Followed::default());
        store::write(&file, format!("; anchors {of}\nnonsense").as_bytes()).unwrap();
        assert_eq!(*keys(&Anchors::root()).told.borrow(), Followed::default());
    }

    #[test]
    fn what_the_disk_did_not_take_is_written_later_though_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("late");
        let mut keys = Keys::new(Some(&state), &Anchors::root(), Figures::default());
        let mut resolver = Resolver::new(Config::default(), |bytes| bytes.fill(0));
        resolver.set_followed(followed());
        keys.write(&followed());
        std::fs::create_dir(&state).unwrap();

        keys.exchange(&mut resolver);
        let too_early = state.join("trust-anchors").exists();
        keys.again = keys.again.map(|_| Instant::now());
        keys.exchange(&mut resolver);

        assert!(!too_early);
        assert_eq!(*Keys::new(Some(&state), &Anchors::root(), Figures::default()).told.borrow(), followed());
        assert_eq!(keys.again, None);
    }

    #[test]
    fn one_thread_tells_the_others() {
        let mut one = Keys::new(None, &Anchors::root(), Figures::default());
        let mut other = one.clone();
        let mut resolver = Resolver::new(Config::default(), |bytes| bytes.fill(0));
        other.begin(&mut resolver);

        one.tell.send_replace(followed());
        one.told.mark_unchanged();
        other.exchange(&mut resolver);

        assert_eq!(*resolver.followed(), followed());
    }
}

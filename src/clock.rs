//! The clock of this box, and whether it can be right.
//!
//! A box without a battery begins in 1970, or at the moment when it was switched off; one whose clock was set
//! wrongly may be years ahead. No true clock shows less than the floor: the day of this build, or the newest
//! time that was known to be true and kept in the state folder. Whether a clock is ahead, only signatures tell:
//! who checks those of the DNS's root says so. Whatever believes certificates or signatures asks here first.

pub(crate) mod kernel;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

pub use kernel::is_synchronised;

use crate::{
    store,
    supervise::{Phase, Stop},
};

/// How far beyond the floor time servers alone can bring it, in seconds.
const STEP_TOLD: u64 = 30 * 86_400;
/// Bytes of the file that the time is kept in: a line of the store's, and a number.
const LONGEST_FILE: u64 = 256;
/// How often the time is kept in the state folder.
const KEEP: Duration = Duration::from_secs(600);
/// How often a clock that is not sound is looked at again.
const LOOK: Duration = Duration::from_millis(250);

/// Seconds since 1970 at which this was built.
fn built() -> u64 {
    env!("HEARTHGATE_BUILT").parse().unwrap_or_default()
}

/// Whether the clock can be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Soundness {
    /// It can.
    Sound,
    /// It shows less than what has been already.
    Behind,
    /// It shows a time at which no signature of the root's holds, and nothing keeps it right.
    Ahead,
}

/// The clock, as everybody is handed it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    floor: AtomicU64,
    /// The newest time at which signatures were seen to hold.
    proven: AtomicU64,
    /// At what reading it was found to be ahead; 0 if it was not.
    ahead: AtomicU64,
    /// Where the time is kept, if anywhere.
    kept: Option<PathBuf>,
}

impl Clock {
    /// Makes the clock with the floor that is kept in the state folder, or is the day of this build.
    pub fn with_floor(state: &Path) -> Self {
        let path = state.join("clock");
        let kept = store::read_within(&path, LONGEST_FILE).ok().and_then(store::Found::content);
        let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
        Self::new(built().max(kept.unwrap_or(0)), Some(path))
    }

    /// Makes one that is believed whatever it shows.
    pub fn believed() -> Self {
        Self::new(0, None)
    }

    fn new(floor: u64, kept: Option<PathBuf>) -> Self {
        let (proven, ahead) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Shared { floor: floor.into(), proven, ahead, kept }))
    }

    /// Returns the time in seconds since 1970, which is never below the floor.
    pub fn seconds(&self) -> u64 {
        system().max(self.floor())
    }

    /// Returns the time below which no clock can be right.
    pub fn floor(&self) -> u64 {
        self.0.floor.load(Ordering::Relaxed)
    }

    /// Says whether it can be right.
    pub fn soundness(&self) -> Soundness {
        self.soundness_at(system())
    }

    fn soundness_at(&self, reading: u64) -> Soundness {
        let ahead = self.0.ahead.load(Ordering::Relaxed);
        match () {
            () if reading < self.floor() => Soundness::Behind,
            // Set back since then, it is another clock.
            () if ahead > 0 && reading >= ahead => Soundness::Ahead,
            () => Soundness::Sound,
        }
    }

    /// Says whether certificates and signatures can be believed by it.
    pub fn is_sound(&self) -> bool {
        self.soundness() == Soundness::Sound
    }

    /// Waits until it is.
    pub async fn sound(&self) {
        while !self.is_sound() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Signatures that a chain of trust leads to hold at this time: it is at least near the true one.
    pub fn prove(&self, reading: u64) {
        self.0.proven.fetch_max(reading, Ordering::Relaxed);
        self.0.ahead.store(0, Ordering::Relaxed);
    }

    /// No signature of the root's holds at this time any more.
    pub fn doubt(&self, reading: u64) {
        self.0.ahead.store(reading, Ordering::Relaxed);
    }

    /// Says whether signatures were seen to hold at a time near what it shows.
    fn is_proven(&self, reading: u64) -> bool {
        let proven = self.0.proven.load(Ordering::Relaxed);
        reading >= proven && reading - proven <= 2 * KEEP.as_secs() + 3600
    }

    /// Returns the floor, where what it shows may be far ahead: neither the kernel nor a signature vouches for it.
    pub fn floor_if_doubtful(&self) -> Option<u64> {
        (!is_synchronised() && !self.is_proven(system())).then(|| self.floor())
    }

    /// Keeps what it shows as the next floor, if that was proven or the kernel is told the time by others.
    pub fn keep(&self) {
        self.keep_at(system(), is_synchronised());
    }

    fn keep_at(&self, reading: u64, synchronised: bool) {
        let Some(path) = &self.0.kept else { return };
        // Time servers are believed for a step that is soon made good again: a floor never sinks.
        let told = synchronised && reading <= self.floor().saturating_add(STEP_TOLD);
        if self.soundness_at(reading) != Soundness::Sound || !(told || self.is_proven(reading)) {
            return;
        }
        match store::write(path, reading.to_string().as_bytes()) {
            Ok(()) => drop(self.0.floor.fetch_max(reading, Ordering::Relaxed)),
            Err(error) => tracing::warn!(file = %path.display(), %error, "the time is not kept"),
        }
    }

    /// Keeps the time every ten minutes, and tells of a clock that cannot be right.
    pub async fn run(&self, stop: Stop) {
        let mut before = Soundness::Sound;
        let mut next = tokio::time::Instant::now() + KEEP;
        loop {
            let now = self.soundness();
            if now != before {
                self.tell(now);
                before = now;
            }
            if tokio::time::Instant::now() >= next {
                self.keep();
                next += KEEP;
            }
            let look = if now == Soundness::Sound { Duration::from_secs(5) } else { LOOK };
            tokio::select! {
                () = tokio::time::sleep(look) => {}
                () = stop.reached(Phase::Drain) => return,
            }
        }
    }

    fn tell(&self, soundness: Soundness) {
        let (shows, floor) = (system(), self.floor());
        match soundness {
            Soundness::Sound => tracing::info!(shows, "the clock is right"),
            Soundness::Behind => {
                tracing::warn!(
                    shows,
                    floor,
                    "the clock is behind: signatures are checked as of the floor; time servers are found unchecked"
                );
            }
            Soundness::Ahead => {
                tracing::warn!(shows, "the clock is years ahead: nothing is vouched for until it is set");
            }
        }
    }
}

/// What the system's clock shows, in seconds since 1970.
fn system() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86400;
    /// A day in 2026.
    const TRUE: u64 = 1_790_000_000;
    /// A day in 2040.
    const FAR: u64 = 2_210_000_000;

    #[test]
    fn a_clock_below_the_floor_is_behind_until_it_is_set() {
        let clock = Clock::new(TRUE, None);

        assert_eq!(clock.soundness_at(0), Soundness::Behind);
        assert_eq!(clock.soundness_at(TRUE - 30 * DAY), Soundness::Behind);
        assert_eq!(clock.soundness_at(TRUE), Soundness::Sound);
        assert_eq!(Clock::believed().soundness_at(0), Soundness::Sound);
    }

    #[test]
    fn a_clock_that_is_ahead_is_so_until_it_is_set_back_or_proven() {
        let clock = Clock::new(TRUE, None);
        clock.doubt(FAR);

        assert_eq!(clock.soundness_at(FAR + 1), Soundness::Ahead);
        assert_eq!(clock.soundness_at(TRUE + 1), Soundness::Sound);
        clock.prove(FAR + 2);
        assert_eq!(clock.soundness_at(FAR + 3), Soundness::Sound);
    }

    #[test]
    fn a_leap_that_nothing_but_time_servers_tells_of_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::with_floor(folder.path());
        let floor = clock.floor();

        clock.keep_at(floor + STEP_TOLD + 1, true);
        assert_eq!(clock.floor(), floor);
        clock.prove(floor + STEP_TOLD + 1);
        clock.keep_at(floor + STEP_TOLD + 1, true);

        assert_eq!(clock.floor(), floor + STEP_TOLD + 1);
    }

    #[test]
    fn only_a_time_that_was_proven_or_told_by_others_becomes_the_floor() {
        let folder = tempfile::tempdir().unwrap();
        let floor = || Clock::with_floor(folder.path()).floor();
        assert_eq!(floor(), built());
        let later = built() + 5 * DAY;

        Clock::with_floor(folder.path()).keep_at(later, false);
        assert_eq!(floor(), built());
        let clock = Clock::with_floor(folder.path());
        clock.prove(later);
        // What was proven yesterday proves nothing of a clock that jumped since.
        clock.keep_at(FAR, false);
        assert_eq!(floor(), built());
        clock.keep_at(later + 700, false);
        assert_eq!((floor(), clock.floor()), (later + 700, later + 700));
        clock.keep_at(later + 9 * DAY, true);
        assert_eq!(floor(), later + 9 * DAY);
        // It never goes back, whatever the clock does.
        clock.keep_at(later, true);
        assert_eq!(floor(), later + 9 * DAY);
    }

    #[test]
    fn a_file_that_is_no_number_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{:>300}", 99_999_999_999_u64);
        store::write(&folder.path().join("clock"), text.as_bytes()).unwrap();

        assert_eq!(Clock::with_floor(folder.path()).floor(), built());
    }

    #[test]
    fn a_torn_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("clock"), "99999999999").unwrap();

        assert_eq!(Clock::with_floor(folder.path()).floor(), built());
        assert!(folder.path().join("clock.torn").exists());
    }
}

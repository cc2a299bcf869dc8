//! What happened: the questions of the house and what came of them, kept for as long as the owner wants.
//!
//! The life of a record: whoever answers a question copies it into the [`Journal`] and goes on. The thread of the
//! history empties the journal several times a second, gives each record its time as its number, and appends it to
//! a spool file, which survives the end of the process and costs the flash next to nothing. Every ten minutes, every
//! 5 000 records, and when somebody wants to read, the spool is folded into SQLite in one transaction, sums of ten
//! minutes and of hours with it. What is then too much is forgotten, and once an hour what is too old.
//!
//! A disk that is full, slow or broken costs records, which are counted, and nothing else. The file is the history's
//! own: deleting it is harmless, and a corrupt one is set aside.

mod copy;
mod figures;
mod keep;
mod retention;
mod row;
mod schema;
mod search;
mod spool;
mod store;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use prometheus::{IntCounter, IntGauge};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

pub use copy::copy;
pub use figures::{Count, Moment, Summary};
pub use search::{Entry, Filter, Found};

use crate::{
    clock::Clock,
    event::Journal,
    history::{keep::Keeper, store::Store},
    metrics::Metrics,
    origin::Origin,
    supervise::{Phase, Stop},
};

/// The file in the state folder.
const FILE: &str = "history.db";
/// How often the journal is emptied while little happens, and while much does.
const PACE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(50));
/// Records at a time from which on much happens.
const MUCH: usize = 500;
/// Whoever reads waits no longer for what was reported last.
const FRESH: Duration = Duration::from_millis(500);

/// `[history]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it is kept.
    pub storage: Storage,
    /// For how long.
    pub keep: Duration,
    /// In how many bytes.
    pub size: u64,
    /// What of it.
    pub privacy: Privacy,
}

/// Where the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In `history.db` in the state folder.
    Disk,
    /// In memory: gone with the process.
    Memory,
}

/// What is kept of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privacy {
    /// All of it.
    Everything,
    /// All but whose it was.
    NoClients,
    /// Only that there was one, and how it ended.
    Counts,
}

/// Says whose an address is: a device, a peer, or the address itself.
pub type Who = Arc<dyn Fn(Origin, IpAddr) -> String + Send + Sync>;

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite said so.
    #[error("history: {0}")]
    Store(#[from] rusqlite::Error),
    /// The file could not be opened yet, or not at all.
    #[error("history: nothing is open: {0}")]
    Closed(String),
}

/// The state of the history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Bytes of the file, or of what stands for it.
    pub bytes: u64,
    /// When the oldest record was made, in seconds since 1970.
    pub since: Option<i64>,
    /// Records that found no room or no disk.
    pub dropped: u64,
    /// What is wrong with the disk.
    pub problem: Option<String>,
}

/// The history of the house.
pub struct History {
    path: PathBuf,
    config: Mutex<Config>,
    journal: Journal,
    who: Who,
    clock: Clock,
    store: Mutex<Result<Store, String>>,
    /// Why nothing was written last, though it is open.
    problem: Mutex<Option<String>>,
    /// Counts how often somebody wanted what is new, and how often it was folded since.
    asked: Mutex<(u64, u64)>,
    told: Condvar,
    lost: AtomicU64,
    series: Series,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("path", &self.path).finish_non_exhaustive()
    }
}

struct Series {
    written: IntCounter,
    dropped: IntCounter,
    bytes: IntGauge,
}

impl History {
    /// Makes a history that is read from `journal`; nothing is opened yet.
    pub fn new(config: Config, state: &Path, journal: Journal, who: Who, clock: Clock, metrics: &Metrics) -> Self {
        let plane = metrics.plane("history");
        Self {
            path: state.join(FILE),
            config: Mutex::new(config),
            journal,
            who,
            clock,
            store: Mutex::new(Err("the process has only just begun".into())),
            problem: Mutex::default(),
            asked: Mutex::default(),
            told: Condvar::new(),
            lost: AtomicU64::new(0),
            series: Series {
                written: plane.counter("records_total", "Questions that were kept."),
                dropped: plane.counter("dropped_total", "Questions that found no room or no disk."),
                bytes: plane.gauge("size_bytes", "What the history takes on disk or in memory."),
            },
        }
    }

    /// Takes a new configuration; where it is kept changes by a restart only.
    pub fn configure(&self, config: Config) {
        *locked(&self.config) = config;
    }

    /// Keeps what is reported until told to stop.
    pub fn run(&self, stop: &Stop) -> Result<(), String> {
        self.journal.listen(true);
        let result = self.keep(stop);
        self.journal.listen(false);
        result
    }

    fn keep(&self, stop: &Stop) -> Result<(), String> {
        let mut keeper = Keeper::new(self);
        loop {
            let ending = stop.phase() != Phase::Run;
            let came = keeper.work(ending);
            if ending {
                return Ok(());
            }
            self.nap(if came >= MUCH { PACE.1 } else { PACE.0 });
        }
    }

    /// Counts records that were lost since.
    fn lose(&self, lost: usize) {
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        let now = self.journal.dropped() + self.lost.fetch_add(lost, Ordering::Relaxed) + lost;
        self.series.dropped.inc_by(now.saturating_sub(self.series.dropped.get()));
    }

    /// Lets those go on who wait for what was reported before their wish of this number.
    fn answer(&self, wanted: u64) {
        locked(&self.asked).1 = wanted;
        self.told.notify_all();
    }

    /// Sleeps until there is likely something to do, or somebody wants to read.
    fn nap(&self, pace: Duration) {
        let asked = locked(&self.asked);
        let _ = self.told.wait_timeout_while(asked, pace, |(asked, done)| asked == done);
    }

    /// Waits until what was reported before this can be read, though not for long.
    fn refresh(&self) {
        let mut asked = locked(&self.asked);
        asked.0 += 1;
        let wanted = asked.0;
        self.told.notify_all();
        let _ = self.told.wait_timeout_while(asked, FRESH, |(_, done)| *done < wanted);
    }

    /// Returns the questions that a filter lets through, the newest first; blocks.
    pub fn search(&self, filter: &Filter) -> Result<Found, Error> {
        self.refresh();
        self.read(|connection| search::search(connection, filter))
    }

    /// Returns the sums of a span of time; blocks.
    pub fn summary(&self, from: Timestamp, to: Timestamp) -> Result<Summary, Error> {
        self.refresh();
        self.read(|connection| figures::summary(connection, from, to))
    }

    fn read<T>(&self, read: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>) -> Result<T, Error> {
        let mut guard = locked(&self.store);
        let store = guard.as_mut().map_err(|problem| Error::Closed(problem.clone()))?;
        match store.reader()? {
            // Whoever writes does not wait for whoever reads.
            Some(mut reader) => {
                drop(guard);
                Ok(read(&mut reader)?)
            }
            None => Ok(read(store.connection_mut())?),
        }
    }

    /// Returns the state of the history.
    pub fn status(&self) -> Status {
        let dropped = self.journal.dropped() + self.lost.load(Ordering::Relaxed);
        match &*locked(&self.store) {
            Ok(store) => {
                Status { bytes: store.bytes(), since: store.since(), dropped, problem: locked(&self.problem).clone() }
            }
            Err(problem) => Status { dropped, problem: Some(problem.clone()), ..Status::default() },
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

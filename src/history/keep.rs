//! The thread that keeps: what came and is not in the tables yet, and when the disk is tried next.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    Config, History, locked,
    retention::Oldest,
    row::Row,
    schema::{Check, is_beyond_repair},
    store::{Store, is_full},
};
use crate::event::Batch;

/// Records that are folded at once.
const FOLD: usize = 5_000;
/// They are folded at the latest after this.
const FOLD_AFTER: Duration = Duration::from_secs(600);
/// Records that wait for a disk that takes none.
const WAITING: usize = 20_000;
/// After a failure the disk is left alone for so long.
const REST: Duration = Duration::from_secs(10);
/// How often what is too old is looked for.
const FORGET: Duration = Duration::from_secs(3600);
/// How often a full disk costs the oldest part of what is kept: what fills it may be somebody else's.
const RELIEVE: Duration = Duration::from_secs(3600);

/// What the thread of the history has in hand.
pub(super) struct Keeper<'a> {
    history: &'a History,
    spare: Batch,
    /// What is not in the tables yet, the oldest first.
    waiting: Vec<Row>,
    /// So many of them, from the front, are in the spool.
    spooled: usize,
    /// The last number that was given out.
    last: i64,
    folded: Instant,
    failed: Option<Instant>,
    forgot: Option<Instant>,
    relieved: Option<Instant>,
    /// Whether the file is read through when it is opened next.
    check: Check,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        Self {
            history,
            spare: Batch::default(),
            waiting: Vec::new(),
            spooled: 0,
            last: 0,
            folded: Instant::now(),
            failed: None,
            forgot: None,
            relieved: None,
            check: Check::Whole,
        }
    }

    /// Takes what was reported, and keeps it as well as the disk permits. Returns how many records came.
    pub(super) fn work(&mut self, ending: bool) -> usize {
        let wanted = locked(&self.history.asked).0;
        let came = self.take();
        if ending || self.failed.is_none_or(|at| at.elapsed() >= REST) {
            let is_due = self.waiting.len() >= FOLD || self.folded.elapsed() >= FOLD_AFTER || ending;
            let is_wanted = wanted != locked(&self.history.asked).1;
            match self.write(is_due || is_wanted) {
                Ok(()) => self.failed = None,
                Err(problem) => {
                    tracing::warn!(problem, waiting = self.waiting.len(), "the history cannot be written");
                    self.failed = Some(Instant::now());
                }
            }
            if is_wanted || self.failed.is_some() {
                self.history.answer(wanted);
            }
        } else {
            // Whoever wants to read has what is there: nothing will come while the disk rests.
            self.history.answer(wanted);
        }
        self.history.lose(self.bound());
        came
    }

    /// Tries the disk again at once.
    #[cfg(test)]
    pub(super) fn rested(&mut self) {
        self.failed = None;
    }

    fn take(&mut self) -> usize {
        let before = self.waiting.len();
        let privacy = locked(&self.history.config).privacy;
        let clock = &self.history.clock;
        let floor = (!clock.is_sound()).then(|| clock.floor());
        let Self { history, spare, waiting, last, .. } = self;
        history.journal.drain(spare, |batch| {
            for mut question in batch.questions() {
                if let Some(floor) = floor {
                    // Nobody knows when it was; not before this, and it is not to stand in another year.
                    question.at = i64::try_from(floor).unwrap_or_default() * 1000;
                }
                waiting.push(Row::new(&question, &history.who, privacy, last));
            }
        });
        self.waiting.len() - before
    }

    /// Drops what is more than may wait, the oldest first. Returns how much.
    fn bound(&mut self) -> usize {
        let lost = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..lost);
        self.spooled = self.spooled.saturating_sub(lost);
        lost
    }

    /// Spools what came, folds everything if it is time, and forgets what is then too old or too much.
    fn write(&mut self, fold: bool) -> Result<(), String> {
        let config = locked(&self.history.config).clone();
        let history = self.history;
        let mut guard = locked(&history.store);
        if guard.is_err() {
            let opened = Store::open(&history.path, config.storage, self.check);
            *guard = opened.map_err(|error| error.to_string()).map(|store| self.adopt(store));
        }
        let store = guard.as_mut().map_err(|problem| problem.clone())?;
        match self.write_to(store, &config, fold) {
            Ok(()) => {
                *locked(&history.problem) = None;
                history.series.bytes.set(i64::try_from(store.bytes()).unwrap_or(i64::MAX));
                Ok(())
            }
            Err(error) => {
                let problem = error.to_string();
                *locked(&history.problem) = Some(problem.clone());
                if is_full(&error) {
                    self.relieve(store);
                } else {
                    // It is opened anew, and set aside if it is beyond repair.
                    if is_beyond_repair(&error) {
                        self.check = Check::Whole;
                    }
                    *guard = Err(problem.clone());
                }
                Err(problem)
            }
        }
    }

    /// Takes over a store that was opened, with what was left in its spool.
    fn adopt(&mut self, mut store: Store) -> Store {
        self.check = Check::Head;
        let mut left = store.take_left();
        // What this process spooled itself is still in hand.
        let ours: std::collections::HashSet<i64> = self.waiting.iter().map(|row| row.id).collect();
        left.retain(|row| !ours.contains(&row.id));
        self.spooled += left.len();
        self.waiting.splice(..0, left);
        self.last = self.last.max(store.last(Timestamp::now()).unwrap_or_default());
        store
    }

    fn write_to(&mut self, store: &mut Store, config: &Config, fold: bool) -> Result<(), rusqlite::Error> {
        if !fold {
            store.spool(self.waiting.get(self.spooled..).unwrap_or_default())?;
            self.spooled = self.waiting.len();
        } else {
            store.fold(&self.waiting)?;
            self.history.series.written.inc_by(u64::try_from(self.waiting.len()).unwrap_or_default());
            self.waiting.clear();
            self.spooled = 0;
            self.folded = Instant::now();
        }
        let is_time = self.forgot.is_none_or(|at| at.elapsed() >= FORGET);
        if is_time || (fold && store.bytes() > config.size) {
            self.forgot = Some(Instant::now());
            // What is too old is so only by a clock that can be right.
            let now = self.history.clock.is_sound().then(Timestamp::now);
            store.forget(config, now)?;
        }
        Ok(())
    }

    /// Makes room on a full disk.
    fn relieve(&mut self, store: &mut Store) {
        let is_time = self.relieved.is_none_or(|at| at.elapsed() >= RELIEVE);
        let oldest = if is_time { Oldest::Goes } else { Oldest::Stays };
        if is_time {
            self.relieved = Some(Instant::now());
        }
        // It is in memory.
        self.spooled = 0;
        if let Err(error) = store.relieve(oldest) {
            tracing::warn!(%error, "the history makes no room on a full disk");
        }
    }
}

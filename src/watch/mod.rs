//! The watch: is what stands behind the routes up, and what else the owner named?
//!
//! The life of a look: its time comes, a little early or late so that not all come at once → within a deadline, with
//! few others at the same time, a `probe` connects or asks → a failure is excused if its parent or all anchors are
//! down or there is maintenance → the `machine` says what is believed after it: one failure makes a thing suspect and
//! is looked at again soon, several make it down → the time since the look before is added to the `ledger`'s sums of
//! the hour → once an hour, and at the end, these are added to a file.
//!
//! A look that was under way while this process or the whole box stood still says nothing.

mod config;
mod ledger;
mod machine;
mod probe;
mod series;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

pub use config::*;
pub use machine::State;

use self::{
    ledger::{DAYS, HOUR, Ledger, Sum},
    machine::{Circumstances, Machine, Seen},
    probe::{Found, Look, Reach},
    series::Series,
    store::Row,
};
use crate::{
    https::Client,
    lookup::Lookup,
    metrics::Metrics,
    supervise::{Phase, Stop},
};

/// Looks at the same time.
const LOOKS: usize = 8;
/// When something odd is looked at again.
const SOON: Duration = Duration::from_secs(10);
/// The first look at what the owner named, and at routes: what serves them may be starting too.
const FIRST: Duration = Duration::from_secs(5);
const FIRST_OF_ROUTES: Duration = Duration::from_secs(15);
/// Whoever wakes so much too late was not awake.
const LATE: Duration = Duration::from_secs(5);
/// The wall clock runs on while the box sleeps.
const SLEPT: Duration = Duration::from_secs(30);
/// How often the sums are written.
const SAVE: Duration = Duration::from_secs(3600);
/// Sums that wait to be written, of what is not watched any more or for a disk that does not take them.
const LEFT: usize = 4096;

/// What real requests say of a route's servers; nothing if nobody knows.
pub type Heard = Arc<dyn Fn(&str) -> Option<bool> + Send + Sync>;

/// The watch.
pub struct Plane {
    file: PathBuf,
    reach: Reach,
    heard: Heard,
    series: Series,
    shared: Mutex<Shared>,
    changed: Notify,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("file", &self.file).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    entries: BTreeMap<String, Entry>,
    /// What waits to be written: of what is not watched any more, and what the disk did not take.
    left: Vec<Row>,
    /// How often this process stood still.
    stalls: u64,
    /// Why the sums are not on disk.
    problem: Option<String>,
}

#[derive(Debug)]
struct Entry {
    check: Arc<Check>,
    machine: Machine,
    ledger: Ledger,
    /// Its ledger has what is on disk.
    recalled: bool,
    found: Found,
    problem: Option<String>,
    took: Option<Duration>,
    /// When it was last looked at.
    seen: Option<Instant>,
    due: Instant,
    busy: bool,
}

/// A look that has ended.
struct Done {
    check: Arc<Check>,
    look: Look,
    took: Duration,
    /// Of the beginning.
    stalls: u64,
}

/// How one thing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it is called.
    pub name: String,
    /// `http`, `tcp`, `tls`, `dns`, `route`.
    pub kind: String,
    /// How it is.
    pub state: State,
    /// Since when, in seconds since 1970.
    pub since: Option<i64>,
    /// It turns so often that each turn is no news.
    pub flapping: bool,
    /// What was wrong at the last look, or why nothing is known.
    pub problem: Option<String>,
    /// Milliseconds that the last good look took.
    pub latency: Option<u64>,
    /// Days that its certificate still holds.
    pub certificate_days: Option<i64>,
    /// Thousandths of the known time that it was up, for each of the last 24 hours, the oldest first.
    pub hours: Vec<Option<u16>>,
    /// The same for each of the last 90 days.
    pub days: Vec<Option<u16>>,
    /// The same for 24 hours, 30 days and 90 days as a whole.
    pub permille: [Option<u16>; 3],
}

/// How many things are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Things that are up.
    pub up: usize,
    /// Those that failed and are not believed to be down yet.
    pub suspect: usize,
    /// Those that are down or have just come back.
    pub down: usize,
    /// Those of which nothing is known.
    pub unknown: usize,
    /// The names of those that are down.
    pub names: Vec<String>,
    /// Why the sums are not on disk.
    pub problem: Option<String>,
}

impl Plane {
    /// Watches nothing yet. The sums are kept in the state folder.
    pub fn new(state: &Path, client: Client, lookup: Lookup, heard: Heard, metrics: &Metrics) -> Self {
        let config = Config { checks: Vec::new(), timezone: jiff::tz::TimeZone::UTC };
        let shared =
            Shared { config: Arc::new(config), entries: BTreeMap::new(), left: Vec::new(), stalls: 0, problem: None };
        Self {
            file: state.join("uptime.db"),
            reach: Reach { client, lookup },
            heard,
            series: Series::new(metrics),
            shared: Mutex::new(shared),
            changed: Notify::new(),
        }
    }

    /// Watches other things from now on. What is looked at as before keeps its state, and every name its sums.
    pub fn commit(&self, config: &Config) {
        let mut shared = self.shared();
        let mut old = std::mem::take(&mut shared.entries);
        for check in &config.checks {
            let check = Arc::new(check.clone());
            let entry = match old.remove(&check.name) {
                Some(entry) if entry.check.kind == check.kind => Entry { check: check.clone(), ..entry },
                Some(entry) => {
                    self.series.forget(&entry.check);
                    Entry { ledger: entry.ledger, recalled: entry.recalled, ..Entry::new(check.clone()) }
                }
                None => Entry::new(check.clone()),
            };
            shared.entries.insert(check.name.clone(), entry);
        }
        for mut entry in old.into_values() {
            self.series.forget(&entry.check);
            shared.left.extend(entry.unsaved());
        }
        shared.left.truncate(LEFT);
        shared.config = Arc::new(config.clone());
        drop(shared);
        self.changed.notify_one();
    }

    /// Looks at things until told to stop; may be called again after it fell over.
    pub fn run(&self, stop: Stop) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        self.shared().entries.values_mut().for_each(|entry| entry.busy = false);
        self.recall();
        runtime.block_on(self.work(&stop));
        self.save();
        Ok(())
    }

    async fn work(&self, stop: &Stop) {
        let mut under_way = JoinSet::new();
        let mut save = tokio::time::interval_at(Instant::now() + SAVE, SAVE);
        let mut planned = Instant::now();
        let mut last = (Instant::now(), SystemTime::now());
        loop {
            let now = (Instant::now(), SystemTime::now());
            let slept = now.1.duration_since(last.1).unwrap_or_default().saturating_sub(now.0 - last.0);
            if now.0.saturating_duration_since(planned) > LATE || slept > SLEPT {
                self.stood_still();
            }
            last = now;
            planned = self.begin(&mut under_way, now.0);
            tokio::select! {
                () = stop.reached(Phase::Drain) => return,
                Some(done) = under_way.join_next() => match done {
                    Ok(done) => self.finish(done, Instant::now(), Timestamp::now().as_second()),
                    Err(end) => if let Ok(panic) = end.try_into_panic() { std::panic::resume_unwind(panic) },
                },
                () = tokio::time::sleep_until(planned) => {}
                () = self.changed.notified() => self.recall(),
                _ = save.tick() => self.save(),
            }
        }
    }

    /// Begins the looks whose time has come, and returns when the next one's does.
    fn begin(&self, under_way: &mut JoinSet<Done>, now: Instant) -> Instant {
        let mut shared = self.shared();
        let stalls = shared.stalls;
        let mut next = now + SAVE;
        let mut waiting: Vec<&mut Entry> = shared.entries.values_mut().filter(|entry| !entry.busy).collect();
        waiting.sort_by_key(|entry| entry.due);
        for entry in waiting {
            if under_way.len() >= LOOKS {
                // The end of one of them is waited for.
                return now + SAVE;
            }
            if entry.due > now {
                next = next.min(entry.due);
                break;
            }
            entry.busy = true;
            let (check, reach, heard) = (entry.check.clone(), self.reach.clone(), self.heard.clone());
            under_way.spawn(async move {
                let begun = Instant::now();
                let look = match tokio::time::timeout(check.timeout, probe::look(&check.kind, &reach)).await {
                    Ok(look) => look,
                    Err(_) => Err(format!("no answer within {} s", check.timeout.as_secs_f32())).into(),
                };
                let took = begun.elapsed();
                let is_route = matches!(check.kind, Kind::Route(_));
                let look = match look.problem {
                    None if is_route && heard(&check.name) == Some(false) => {
                        Err("somebody listens, but requests or the route's health check fail".to_owned()).into()
                    }
                    _ => look,
                };
                Done { check, look, took, stalls }
            });
        }
        next
    }

    /// Takes in what a look found.
    fn finish(&self, done: Done, now: Instant, second: i64) {
        let mut shared = self.shared();
        let shared = &mut *shared;
        let state_of = |name: &String| shared.entries.get(name).map(|entry| entry.machine.state());
        let fails = |entry: &Entry| matches!(entry.machine.state(), State::Suspect | State::Down);
        let mut anchors = shared.entries.values().filter(|entry| entry.check.anchor).peekable();
        let circumstances = Circumstances {
            maintenance: u64::try_from(second)
                .is_ok_and(|second| done.check.maintenance.at(second, &shared.config.timezone).inside),
            parent: done.check.parent.as_ref().and_then(state_of),
            cut_off: !done.check.anchor && anchors.peek().is_some() && anchors.all(fails),
        };
        let stood_still = done.stalls != shared.stalls;
        let Some(entry) = shared.entries.get_mut(&done.check.name) else { return };
        if entry.check.kind != done.check.kind {
            // It was about something else of that name.
            return;
        }
        let seen = match (&done.look.problem, circumstances.excuse()) {
            _ if stood_still => Seen::NoData,
            (None, _) => Seen::Good,
            (Some(_), Some(_)) => Seen::Excused,
            (Some(_), None) => Seen::Bad,
        };
        let excuse = circumstances.excuse().filter(|_| seen == Seen::Excused);
        entry.take(&done, seen, excuse, now, second);
        self.series.set(entry);
        if matches!(seen, Seen::Bad | Seen::Excused) {
            let parent = entry.check.parent.clone();
            for other in shared.entries.values_mut() {
                let decides = other.check.anchor || parent.as_ref() == Some(&other.check.name);
                let is_fresh = other.seen.is_some_and(|seen| now.saturating_duration_since(seen) < SOON);
                if decides && other.check.name != done.check.name && !is_fresh {
                    other.due = other.due.min(now);
                }
            }
        }
    }

    /// What is under way says nothing, and of the time that is gone nothing is known.
    fn stood_still(&self) {
        let mut shared = self.shared();
        shared.stalls += 1;
        shared.entries.values_mut().for_each(|entry| entry.seen = None);
        tracing::info!("this box or process stood still: looks that were under way do not count");
    }

    /// Fetches the sums of what is new here from the file.
    fn recall(&self) {
        if self.shared().entries.values().all(|entry| entry.recalled) {
            return;
        }
        let rows = store::read(&self.file, oldest(Timestamp::now().as_second()));
        let mut shared = self.shared();
        shared.note(&self.file, rows.as_ref().err());
        for row in rows.unwrap_or_default() {
            if let Some(entry) = shared.entries.get_mut(&row.name).filter(|entry| !entry.recalled) {
                entry.ledger.recall(row.hour, &row.sum);
            }
        }
        shared.entries.values_mut().for_each(|entry| entry.recalled = true);
    }

    /// Adds to the file what is new.
    fn save(&self) {
        let mut shared = self.shared();
        let mut rows = std::mem::take(&mut shared.left);
        rows.extend(shared.entries.values_mut().flat_map(Entry::unsaved));
        drop(shared);
        if rows.is_empty() {
            return;
        }
        let written = store::write(&self.file, &rows, oldest(Timestamp::now().as_second()));
        let mut shared = self.shared();
        shared.note(&self.file, written.as_ref().err());
        if written.is_err() {
            // The next time.
            shared.left.extend(rows);
            shared.left.truncate(LEFT);
        }
    }

    /// Returns how everything is, by name.
    pub fn states(&self) -> Vec<Status> {
        let now = Timestamp::now().as_second();
        self.shared().entries.values().map(|entry| entry.status(now)).collect()
    }

    /// Returns how many things are in which state.
    pub fn counts(&self) -> Counts {
        let shared = self.shared();
        let mut counts = Counts { problem: shared.problem.clone(), ..Counts::default() };
        for (name, entry) in &shared.entries {
            match entry.machine.state() {
                State::Up => counts.up += 1,
                State::Suspect => counts.suspect += 1,
                State::Unknown => counts.unknown += 1,
                State::Down | State::Recovering => {
                    counts.down += 1;
                    counts.names.push(name.clone());
                }
            }
        }
        counts
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first hour that is kept.
fn oldest(now: i64) -> i64 {
    now.div_euclid(HOUR) - DAYS * 24
}

impl Shared {
    /// Notes how the file was found.
    fn note(&mut self, file: &Path, error: Option<&rusqlite::Error>) {
        self.problem = error.map(|error| {
            tracing::warn!(file = %file.display(), %error, "the sums of uptime are in memory alone");
            format!("{}: {error}", file.display())
        });
    }
}

impl Entry {
    fn new(check: Arc<Check>) -> Self {
        let first = match check.kind {
            Kind::Route(_) => FIRST_OF_ROUTES,
            _ => FIRST.min(check.every),
        };
        Self {
            due: Instant::now() + share(first),
            check,
            machine: Machine::default(),
            ledger: Ledger::default(),
            recalled: false,
            found: Found::default(),
            problem: None,
            took: None,
            seen: None,
            busy: false,
        }
    }

    fn take(&mut self, done: &Done, seen: Seen, excuse: Option<&str>, now: Instant, second: i64) {
        let mut sum = Sum::default();
        let longest = self.check.every * 2 + self.check.timeout;
        if let Some(passed) = self.seen.map(|seen| now.saturating_duration_since(seen)).filter(|span| *span <= longest)
        {
            sum.count(self.machine.state(), passed.as_millis().try_into().unwrap_or_default());
        }
        let (before, flapped) = (self.machine.state(), self.machine.is_flapping(second));
        self.machine.handle(seen, self.check.rule, second);
        self.seen = Some(now);
        if seen == Seen::Good {
            let millis = u64::try_from(done.took.as_millis()).unwrap_or(u64::MAX);
            sum.add(&Sum { looks: 1, millis, slowest: millis, ..Sum::default() });
            self.took = Some(done.took);
        }
        if seen != Seen::NoData {
            self.found = done.look.found;
            self.problem = done.look.problem.as_ref().map(|problem| match excuse {
                Some(excuse) => format!("{excuse} ({problem})"),
                None => problem.clone(),
            });
        }
        self.ledger.add(second.div_euclid(HOUR), &sum);
        let state = self.machine.state();
        let wait = match state {
            State::Suspect | State::Recovering => self.check.every.min(SOON),
            State::Unknown | State::Up | State::Down => self.check.every,
        };
        // A tenth of it is chance.
        self.due = now + wait.mul_f64(0.9) + share(wait / 5);
        self.busy = false;
        let check = &self.check.name;
        match (before, state) {
            (State::Down, State::Down) | (State::Up, State::Up) => {}
            _ if flapped => {}
            (_, _) if self.machine.is_flapping(second) => {
                tracing::warn!(check, "turns up and down again and again: no word more of it until it is calm");
            }
            (_, State::Down) => tracing::warn!(check, problem = self.problem, "down"),
            (State::Recovering, State::Up) => tracing::info!(check, "up again"),
            _ => {}
        }
    }

    /// Returns what no disk has yet, once.
    fn unsaved(&mut self) -> Vec<Row> {
        let rows = self.ledger.take_unsaved().into_iter();
        rows.map(|(hour, sum)| Row { name: self.check.name.clone(), hour, sum }).collect()
    }

    fn status(&self, now: i64) -> Status {
        let (hours, days) = (self.ledger.hours(now), self.ledger.days(now, DAYS));
        let month = days.get(days.len().saturating_sub(30)..).unwrap_or_default();
        let permille = [&hours[..], month, &days].map(|sums| ledger::total(sums).permille());
        let bars = |sums: &[Sum]| sums.iter().map(Sum::permille).collect();
        Status {
            name: self.check.name.clone(),
            kind: self.check.kind.word().to_owned(),
            state: self.machine.state(),
            since: self.machine.since(),
            flapping: self.machine.is_flapping(now),
            problem: self.problem.clone(),
            latency: self.took.and_then(|took| u64::try_from(took.as_millis()).ok()),
            certificate_days: self.found.days,
            hours: bars(&hours),
            days: bars(&days),
            permille,
        }
    }
}

/// Returns a part of a time span, by chance. Without a random source it is the half.
fn share(of: Duration) -> Duration {
    let chance = getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX));
    of.mul_f64(chance)
}

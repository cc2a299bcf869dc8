//! `[backup]`: one now and then, tried at once, and the old ones removed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use prometheus::{Gauge, IntCounter, IntGauge};
use serde::{Deserialize, Serialize};

use super::{read_back, trial};
use crate::{
    app::Edge,
    backup::{self, Config, Content, HISTORY, Piece, TRIAL, age::Cost, due, file_name, made_at, surplus},
    helper::Helper,
    history,
    metrics::Metrics,
    store,
    supervise::{Phase, Stop},
};

/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(30);

/// What `status` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where they are.
    pub folder: std::path::PathBuf,
    /// When the last good one was made, in seconds since 1970.
    pub last: Option<i64>,
    /// How many there are.
    pub kept: usize,
    /// Bytes of the last one that this process made.
    pub bytes: Option<u64>,
    /// Why the last attempt failed, if it did.
    pub problem: Option<String>,
}

/// What is known of them.
#[derive(Debug, Default)]
struct Known {
    succeeded: Option<Timestamp>,
    failed: Option<Timestamp>,
    kept: usize,
    bytes: Option<u64>,
    problem: Option<String>,
}

/// Makes them.
#[derive(Debug)]
pub(in crate::app) struct Keeper {
    helper: Option<Helper>,
    known: Mutex<Known>,
    last: Gauge,
    bytes: IntGauge,
    ok: IntGauge,
    failures: IntCounter,
}

impl Keeper {
    pub(in crate::app) fn new(helper: Option<Helper>, metrics: &Metrics) -> Self {
        let series = metrics.plane("backup");
        Self {
            helper,
            known: Mutex::default(),
            last: series.float_gauge(
                "last_success_timestamp_seconds",
                "When the last good backup was made, in seconds since 1970; 0 if there is none.",
            ),
            bytes: series.gauge("last_size_bytes", "Size of the last backup that this process made."),
            ok: series.gauge("last_attempt_successful", "1 if the last attempt to make a backup succeeded."),
            failures: series.counter("failures_total", "Attempts to make a backup that failed."),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::app) fn status(&self, config: &Config) -> Status {
        let known = self.known();
        Status {
            folder: config.folder.clone(),
            last: known.succeeded.map(Timestamp::as_second),
            kept: known.kept,
            bytes: known.bytes,
            problem: known.problem.clone(),
        }
    }

    /// Makes one whenever it is due, until the process ends.
    pub(in crate::app) async fn run(self: Arc<Self>, edge: Arc<Edge>, stop: Stop) -> Result<(), String> {
        loop {
            let config = edge.force.load().config.backup.clone();
            if let Some(config) = config {
                let (keeper, edge) = (self.clone(), edge.clone());
                let made = tokio::task::spawn_blocking(move || keeper.look(&edge, &config).map(|name| (name, config)));
                if let Some((name, config)) = made.await.map_err(|error| error.to_string())? {
                    self.hand_on(&config, &name).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.reached(Phase::Drain) => return Ok(()),
            }
        }
    }

    /// Makes one if it is due, and returns its name.
    fn look(&self, edge: &Edge, config: &Config) -> Option<String> {
        let now = Timestamp::now();
        let names = names(&config.folder).unwrap_or_default();
        let (succeeded, failed) = {
            let mut known = self.known();
            known.kept = names.len();
            known.succeeded = names.iter().filter_map(|name| made_at(name)).max();
            (known.succeeded, known.failed)
        };
        self.last.set(succeeded.map_or(0.0, |at| at.as_duration().as_secs_f64()));
        if !due(now, succeeded, failed, config.every) {
            return None;
        }
        match make(edge, config, now) {
            Ok((name, bytes)) => {
                let kept = clear(config).unwrap_or_else(|error| {
                    tracing::warn!(folder = %config.folder.display(), %error, "old backups cannot be removed");
                    0
                });
                tracing::info!(file = %config.folder.join(&name).display(), bytes, kept, "backup made, and tried");
                self.last.set(now.as_duration().as_secs_f64());
                self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                self.ok.set(1);
                let succeeded = made_at(&name);
                *self.known() = Known { succeeded, failed: None, kept, bytes: Some(bytes), problem: None };
                Some(name)
            }
            Err(problem) => {
                self.fail(now, config, problem);
                None
            }
        }
    }

    fn fail(&self, now: Timestamp, config: &Config, problem: String) {
        tracing::error!(folder = %config.folder.display(), problem, "backup failed");
        self.failures.inc();
        self.ok.set(0);
        let mut known = self.known();
        known.failed = Some(now);
        known.problem = Some(problem);
    }

    /// Has the owner's program carry it elsewhere.
    async fn hand_on(&self, config: &Config, name: &str) {
        let Some(program) = &config.program else { return };
        let said = match &self.helper {
            Some(helper) => helper.run(program, "backup", name, "made").await,
            None => Err("it was not named when the edge was started: this needs a restart".to_owned()),
        };
        if let Err(problem) = said {
            self.fail(Timestamp::now(), config, format!("it was made, but the program failed: {problem}"));
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(entries.filter(|name| made_at(name).is_some()).collect())
}

/// Writes one under another name, tries it, and gives it its own.
fn make(edge: &Edge, config: &Config, now: Timestamp) -> Result<(String, u64), String> {
    let fail = |error: io::Error| format!("{}: {error}", config.folder.display());
    store::folder(&config.folder).map_err(fail)?;
    let snapshot = edge.snapshot().map_err(|refusal| refusal.failure().error.clone())?;
    let mut pieces = snapshot.pieces().map_err(fail)?;
    let copy = edge.state.join("history.copy");
    if config.history && history::copy(&edge.state, &copy).map_err(|error| format!("history: {error}"))? {
        pieces.push(Piece { name: HISTORY.into(), content: Content::File(copy.clone()) });
    }
    let name = file_name(now);
    let (path, new) = (config.folder.join(&name), config.folder.join(format!("{name}.new")));
    let written = write(&new, &snapshot, &pieces, config).and_then(|bytes| {
        let checked =
            read_back(&new, &config.passphrase).map_err(|error| format!("it cannot be read back: {error}"))?;
        trial(&checked, &edge.state.join(TRIAL)).map_err(|problem| format!("it cannot be restored: {problem}"))?;
        fs::rename(&new, &path).and_then(|()| File::open(&config.folder)?.sync_all()).map_err(fail)?;
        Ok(bytes)
    });
    let _ = fs::remove_file(copy);
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    Ok((name, written?))
}

fn write(new: &Path, snapshot: &super::Snapshot, pieces: &[Piece], config: &Config) -> Result<u64, String> {
    let said = |error: io::Error| format!("{}: {error}", new.display());
    let _ = fs::remove_file(new);
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(new);
    let file = options.map_err(said)?;
    backup::write(&file, snapshot.manifest.clone(), pieces, &config.passphrase, Cost::Beside)
        .map_err(|error| error.to_string())?;
    file.sync_all().map_err(said)?;
    Ok(file.metadata().map_err(said)?.len())
}

/// Removes what is too much, and returns how many there are.
fn clear(config: &Config) -> io::Result<usize> {
    let all = names(&config.folder)?;
    let gone = surplus(all.iter().cloned(), config.keep);
    for name in &gone {
        fs::remove_file(config.folder.join(name))?;
    }
    Ok(all.len() - gone.len())
}

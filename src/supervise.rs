//! Named threads and tasks: who is running, who fell over, and how all are told to stop.
//!
//! A plane runs in a thread of its own until [`Stop`] says otherwise. A panic ends that plane's threads
//! and nothing else; the plane is started again on the sockets it had, later each time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Work.
    Run,
    /// Accept nothing new, finish what is under way.
    Drain,
    /// End at once.
    Now,
}

/// Where the process is, and who comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    phase: Phase,
    /// Another process has the listeners: clients that come back are served.
    succeeded: bool,
    /// Who is silent may still say something: he does not know that this process ends.
    patient: bool,
}

/// Told to everybody who works: how far the process is on its way out.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Stage>);

/// The other end of [`Stop`].
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<Stage>>);

/// Makes both ends, in [`Phase::Run`].
pub fn stop() -> (Stopper, Stop) {
    let (tell, told) = watch::channel(Stage { phase: Phase::Run, succeeded: false, patient: false });
    (Stopper(Arc::new(tell)), Stop(told))
}

impl Stopper {
    /// Moves on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > now.phase;
            if later {
                now.phase = phase;
            }
            later
        });
    }

    /// Drains because another process has the listeners now. Connections at rest stay open until
    /// [`Stopper::lose_patience`], so that nobody's next request meets a closed door.
    pub fn hand_over(&self) {
        self.0.send_if_modified(|now| {
            let is_first = now.phase == Phase::Run;
            if is_first {
                *now = Stage { phase: Phase::Drain, succeeded: true, patient: true };
            }
            is_first
        });
    }

    /// Ends connections at rest after [`Stopper::hand_over`].
    pub fn lose_patience(&self) {
        self.0.send_modify(|now| now.patient = false);
    }
}

impl Stop {
    /// Returns the phase now.
    pub fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    /// Whether another process goes on with the listeners.
    pub fn is_handed_over(&self) -> bool {
        self.0.borrow().succeeded
    }

    /// Waits until the phase is at least this one. A lost [`Stopper`] counts as [`Phase::Now`].
    pub async fn reached(&self, phase: Phase) {
        let mut told = self.0.clone();
        // An error says that the sender is gone: the process is ending.
        let _ = told.wait_for(|now| now.phase >= phase).await;
    }

    /// Waits until connections at rest are to end.
    pub async fn lost_patience(&self) {
        let mut told = self.0.clone();
        let _ = told.wait_for(|now| now.phase == Phase::Now || now.phase == Phase::Drain && !now.patient).await;
    }
}

/// What `status` says of a plane.
#[derive(Clone, Debug)]
pub struct Health {
    /// Since when it has been running as it is.
    pub since: Instant,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it last fell over.
    pub last_failure: Option<String>,
    /// It is working now.
    pub running: bool,
}

/// One plane's health, shared between its supervisor and `status`.
#[derive(Clone, Debug)]
pub struct Watched(Arc<Mutex<Health>>);

impl Watched {
    fn new() -> Self {
        let health = Health { since: Instant::now(), restarts: 0, last_failure: None, running: true };
        Self(Arc::new(Mutex::new(health)))
    }

    /// Returns the health as it is now.
    pub fn health(&self) -> Health {
        self.0.lock().expect("health is only ever assigned under its lock").clone()
    }

    /// Notes a fall, and returns how long to wait before the next start.
    fn fell(&self, name: &'static str, failure: String, started: Instant, delay: &mut Duration) -> Duration {
        if started.elapsed() >= SOUND_AFTER {
            *delay = FIRST_DELAY;
        }
        let wait = *delay;
        tracing::error!(plane = name, failure, retry_in = ?wait, "plane fell over");
        self.update(|health| {
            health.running = false;
            health.restarts += 1;
            health.last_failure = Some(failure);
        });
        *delay = (*delay * 2).min(LONGEST_DELAY);
        wait
    }

    fn update(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.0.lock().expect("health is only ever assigned under its lock"));
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A plane that ran this long begins again with the first delay.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// Runs `work` in a named thread, again and again until it returns `Ok` or the process stops.
///
/// `work` gets the same sockets each time because it borrows them from the plane it closes over.
pub fn plane(
    name: &'static str,
    stop: Stop,
    work: impl Fn() -> Result<(), String> + Send + 'static,
) -> std::io::Result<(Watched, std::thread::JoinHandle<()>)> {
    let watched = Watched::new();
    let seen = watched.clone();
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        let mut delay = FIRST_DELAY;
        loop {
            let started = Instant::now();
            seen.update(|health| {
                health.since = started;
                health.running = true;
            });
            let failure = match catch_unwind(AssertUnwindSafe(&work)) {
                Ok(Ok(())) => break,
                Ok(Err(failure)) => failure,
                Err(panic) => panic_text(panic.as_ref()),
            };
            if stop.phase() != Phase::Run {
                break;
            }
            let until = Instant::now() + seen.fell(name, failure, started, &mut delay);
            while Instant::now() < until && stop.phase() == Phase::Run {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        seen.update(|health| health.running = false);
    })?;
    Ok((watched, thread))
}

/// Runs a task, on the runtime that this is called on, as [`plane()`] runs a thread: again and again until it
/// returns `Ok` or the process stops.
pub fn service<F>(name: &'static str, stop: Stop, work: impl Fn() -> F + Send + 'static) -> Watched
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let watched = Watched::new();
    let seen = watched.clone();
    task(name, async move {
        let mut delay = FIRST_DELAY;
        loop {
            let started = Instant::now();
            seen.update(|health| {
                health.since = started;
                health.running = true;
            });
            let failure = match tokio::spawn(work()).await {
                Ok(Ok(())) => break,
                Ok(Err(failure)) => failure,
                Err(end) => match end.try_into_panic() {
                    Ok(panic) => panic_text(panic.as_ref()),
                    // The runtime ends.
                    Err(_) => break,
                },
            };
            if stop.phase() != Phase::Run {
                break;
            }
            let wait = seen.fell(name, failure, started, &mut delay);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.reached(Phase::Drain) => break,
            }
        }
        seen.update(|health| health.running = false);
    });
    watched
}

/// Returns the words of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "panic without a message".into(),
    }
}

/// Starts a task with a name that stands in the log if it panics.
pub fn task<F>(name: &'static str, work: F) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        // The inner task is what may panic; this one only tells of it.
        if let Err(end) = tokio::spawn(work).await
            && let Ok(panic) = end.try_into_panic()
        {
            tracing::error!(task = name, failure = panic_text(panic.as_ref()), "task fell over");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_plane_that_panics_is_started_again() {
        let (_stopper, stop) = stop();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = runs.clone();

        let (watched, thread) = plane("test", stop, move || {
            assert!(seen.fetch_add(1, Ordering::SeqCst) > 0, "first run falls over");
            Ok(())
        })
        .unwrap();
        thread.join().unwrap();

        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(watched.health().restarts, 1);
        assert_eq!(watched.health().last_failure.as_deref(), Some("first run falls over"));
    }

    #[tokio::test]
    async fn a_service_that_panics_is_started_again() {
        let (_stopper, stop) = stop();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = runs.clone();

        let watched = service("test", stop, move || {
            let run = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(run > 0, "first run falls over");
                Ok(())
            }
        });
        while runs.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        assert_eq!(watched.health().restarts, 1);
        assert_eq!(watched.health().last_failure.as_deref(), Some("first run falls over"));
    }

    #[test]
    fn the_phase_never_goes_back() {
        let (stopper, stop) = stop();

        stopper.advance(Phase::Now);
        stopper.advance(Phase::Drain);

        assert_eq!(stop.phase(), Phase::Now);
    }
}

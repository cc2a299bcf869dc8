//! One process after another on the same listeners: `run --take-over` asks the process that runs on the state, and
//! that one ends when the next is ready.
//!
//! What two can do at the same time, both do: questions and requests are answered by whoever reads them first. The gate
//! is different, since sessions live in one process: it is let go first, and the next one greets the peers anew.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream as StdStream,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::net::UnixListener;

use crate::{
    app::{Edge, Options, control, lock::Lock, notify::Manager, run::finished, wire::GATE},
    handover::{self, Inheritance, Predecessor, Promise, Successor, Testament},
    listen, privilege,
    supervise::{Phase, Stopper},
};

/// What requests inside the tunnel have to end. Whoever knocks meanwhile knocks again a second later.
const GATE_GRACE: Duration = Duration::from_secs(2);
/// What the gate has after [`Phase::Now`].
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// What is under way when another process has the listeners has this long, downloads and WebSockets too.
const UNHURRIED: Duration = Duration::from_secs(600);

/// The new process's side.
#[derive(Debug)]
pub(super) struct Succession {
    testament: Testament,
    predecessor: Predecessor,
    lock: Option<OwnedFd>,
}

impl Succession {
    /// Asks the process that runs on this state for what it has open, if that is wanted and there is one.
    pub(super) fn begin(options: &Options, state: &Path) -> io::Result<Option<Self>> {
        if !options.take_over {
            return Ok(None);
        }
        let Some(inheritance) = privilege::as_owner(state, || handover::take(state))?? else {
            tracing::info!("nobody runs on this state: there is nothing to take over");
            return Ok(None);
        };
        let Inheritance { testament, descriptors, predecessor } = inheritance;
        tracing::info!(version = testament.version, descriptors = descriptors.len(), "taking over");
        let mut descriptors = descriptors.into_iter();
        let lock = descriptors.next();
        listen::inherit(descriptors.collect());
        Ok(Some(Self { testament, predecessor, lock }))
    }

    /// Returns the lock of the state folder, once.
    pub(super) fn lock(&mut self) -> Option<Lock> {
        self.lock.take().map(Lock::inherited)
    }

    /// What the one before was told by the service manager.
    pub(super) fn testament(&self) -> &Testament {
        &self.testament
    }

    /// Says that everything is ready, and waits until the one before has let go. Blocks.
    pub(super) fn end(self, lock: &mut Lock) -> io::Result<Promise> {
        let promise = self.predecessor.release()?;
        lock.sign()?;
        Ok(promise)
    }
}

/// The next process and its number.
#[derive(Debug)]
pub(super) struct Next {
    successor: Successor,
    process: i32,
    lock: Arc<Lock>,
}

/// Waits for a process that wants to take over, and gives it all until one gets ready.
pub(super) async fn next(listener: &UnixListener, edge: &Arc<Edge>, lock: Arc<Lock>, testament: &Testament) -> Next {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "handover socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(caller) = stream.peer_cred() else { continue };
        if !control::is_let_in(caller.uid()) {
            tracing::warn!(uid = caller.uid(), "handover socket: refused another user");
            continue;
        }
        let process = caller.pid().unwrap_or_default();
        let Ok(stream) = stream.into_std() else { continue };
        tracing::info!(process, "another process wants to take over");
        let (edge, lent, testament) = (edge.clone(), lock.clone(), testament.clone());
        let given = tokio::task::spawn_blocking(move || edge.give(stream, testament, &lent));
        match given.await.map_err(io::Error::other).and_then(|given| given) {
            Ok(successor) => return Next { successor, process, lock },
            Err(error) => tracing::warn!(process, %error, "the next process did not get ready: this one goes on"),
        }
    }
}

impl Edge {
    /// Gives everything to the next process, and waits until that one is ready.
    fn give(&self, stream: StdStream, testament: Testament, lock: &Lock) -> io::Result<Successor> {
        let changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(waiting) = self.waiting() {
            // The next process would give it another minute, and whoever waits for its end would not know.
            let what = format!("a change waits to be confirmed ({}): hand over after that", waiting.risk);
            return Err(io::Error::other(what));
        }
        let mut descriptors = vec![lock.as_fd()];
        descriptors.extend(self.planes.descriptors());
        descriptors.extend(self.scrape.descriptors());
        let successor = handover::give(stream, testament, &descriptors)?;
        // For good: the next process would not know of what is changed from here on.
        std::mem::forget(changing);
        Ok(successor)
    }
}

/// Lets go, lets the next process begin, and ends what is under way here. The error is that the next one did not begin:
/// then nobody has the gate, and this process ends as one that failed, so that it is started again.
pub(super) async fn hand_over(
    next: Next,
    edge: &Arc<Edge>,
    manager: &Manager,
    grace: Duration,
    (stopper, gate): (&Stopper, &Stopper),
    threads: &[(&'static str, JoinHandle<()>)],
) -> io::Result<()> {
    let Next { successor, process, lock } = next;
    let begun = Instant::now();
    let gates = || threads.iter().filter(|(name, _)| *name == GATE);
    gate.advance(Phase::Drain);
    let _ = tokio::time::timeout(GATE_GRACE, finished(gates())).await;
    gate.advance(Phase::Now);
    let _ = tokio::time::timeout(LAST_MOMENT, finished(gates())).await;
    let version = successor.version.clone();
    let kept = edge.clone();
    manager.is_now(process);
    // It waits for the disk and for the next process; who asks meanwhile is still answered here.
    let given = tokio::task::spawn_blocking(move || {
        kept.note_trespasses();
        kept.clock.keep();
        successor.begin()
    });
    let given = given.await.map_err(io::Error::other).and_then(|given| given);
    if let Err(error) = given {
        manager.is_now(i32::try_from(std::process::id()).unwrap_or_default());
        tracing::error!(process, %error, "the next process did not begin: this one ends, to be started again");
        stopper.advance(Phase::Drain);
        let _ = tokio::time::timeout(grace, finished(threads.iter())).await;
        stopper.advance(Phase::Now);
        let _ = tokio::time::timeout(LAST_MOMENT, finished(threads.iter())).await;
        return Err(io::Error::new(error.kind(), format!("it did not begin: {error}")));
    }
    stopper.hand_over();
    // The kernel has it end with the last process that has it: from here on that is the next one.
    drop(lock);
    tracing::info!(process, version, after = ?begun.elapsed(), "handed over");
    if tokio::time::timeout(grace, finished(threads.iter())).await.is_err() {
        stopper.lose_patience();
        let _ = tokio::time::timeout(UNHURRIED, finished(threads.iter())).await;
    }
    stopper.advance(Phase::Now);
    let _ = tokio::time::timeout(LAST_MOMENT, finished(threads.iter())).await;
    let kept = edge.clone();
    // What was noted since: the log is the next process's as well.
    let _ = tokio::task::spawn_blocking(move || kept.note_trespasses()).await;
    tracing::info!(after = ?begun.elapsed(), "what was under way has ended");
    Ok(())
}

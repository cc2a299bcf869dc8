//! Runs the process until it is told to stop.

use std::{
    io::{self, Write},
    pin::{Pin, pin},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use crate::{
    app::{
        Edge, Failure, Options, Source,
        build::{self, Built},
        console::Console,
        control,
        notify::Manager,
        succession::{self, Next},
    },
    handover, image, neighbours,
    supervise::{self, Phase, Stop, Stopper, task},
};

/// How often lists and certificates are looked at again.
const RENEW: Duration = Duration::from_secs(3600);
/// How often the process's own figures are set.
const FIGURES: Duration = Duration::from_secs(5);
/// A session of WireGuard is used no longer than this, in seconds (REJECT_AFTER_TIME).
const SESSION: u64 = 180;
/// How often it is written down who asked for what is not for them.
const TRESPASSES: Duration = Duration::from_secs(60);
/// What a plane has after [`Phase::Now`].
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Starts, runs until told to stop, and drains.
///
/// `ready` is called once everything runs, with what the quick start tells its user.
pub fn run(options: Options, ready: impl FnOnce(&Edge)) -> Result<(), Failure> {
    let quick = options.source == Source::QuickStart;
    let manager = Manager::from_environment();
    let Built { edge, mut lock, succession } = build::build(options)?;
    let fail = |what: &str| {
        let what = what.to_owned();
        move |error| Failure::Io { what, error }
    };
    let manager = match &succession {
        Some(succession) => manager.or_inherited(succession.testament()),
        None => manager,
    };
    let promise = match succession {
        Some(succession) => Some(succession.end(&mut lock).map_err(fail("the process that runs"))?),
        None => None,
    };
    let lock = Arc::new(lock);
    let listener = control::bind(&edge.state).map_err(fail("control socket"))?;
    let heirs = handover::bind(&edge.state).map_err(fail("handover socket"))?;
    let edge = Arc::new(edge);
    let (stopper, stop) = supervise::stop();
    let (gate, told) = supervise::stop();
    let running = edge.planes.start(&stop, &told).map_err(fail("threads"))?;
    let mut threads = Vec::new();
    let mut watched = Vec::new();
    for (name, health, thread) in running {
        watched.push((name, health));
        threads.push((name, thread));
    }
    let (follower, following) = (edge.follower.clone(), stop.clone());
    // It waits for the kernel and is never joined: there is nothing to finish.
    let follow = move || follower.run(&following);
    let (health, _) = supervise::plane("onlink", stop.clone(), follow).map_err(fail("threads"))?;
    watched.push(("onlink", health));
    if let Some(dns) = &edge.planes.dns {
        let neighbours = neighbours::Follower::new(edge.follower.networks());
        dns.follow(neighbours.table());
        let following = stop.clone();
        // As the one above.
        let follow = move || neighbours.run(&following);
        let (health, _) = supervise::plane("neighbours", stop.clone(), follow).map_err(fail("threads"))?;
        watched.push(("neighbours", health));
    }
    if let Some(history) = &edge.history {
        let (history, told) = (history.clone(), stop.clone());
        let keep = move || history.run(&told);
        let (health, thread) = supervise::plane("history", stop.clone(), keep).map_err(fail("threads"))?;
        watched.push(("history", health));
        // What was told last is written at the end.
        threads.push(("history", thread));
    }
    if let Some(watch) = &edge.watch {
        let (watch, told) = (watch.clone(), stop.clone());
        let look = move || watch.run(told.clone());
        let (health, thread) = supervise::plane("watch", stop.clone(), look).map_err(fail("threads"))?;
        watched.push(("watch", health));
        // The sums of the last hour are written at the end.
        threads.push(("watch", thread));
    }
    if let Some(announcer) = &edge.announcer {
        let (announcer, told) = (announcer.clone(), stop.clone());
        let announce = move || announcer.run(&told);
        let (health, thread) = supervise::plane("announce", stop.clone(), announce).map_err(fail("threads"))?;
        watched.push(("announce", health));
        // What was announced is taken back at the end.
        threads.push(("announce", thread));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(fail("runtime"))?;
    runtime.block_on(async {
        // From here on a signal is ours.
        let mut signals = Signals::new()?;
        if edge.scrape.is_needed() {
            let (scrape, told) = (edge.scrape.clone(), stop.clone());
            watched.push(("metrics", supervise::service("metrics", stop.clone(), move || scrape.clone().run(told.clone()))));
        }
        if edge.planes.vpn.is_some() {
            let (confirm, told) = (edge.confirm.clone(), stop.clone());
            let serve = move || confirm.clone().run(told.clone());
            watched.push(("confirm", supervise::service("confirm", stop.clone(), serve)));
        }
        if let Some(names) = edge.planes.names.clone() {
            let told = stop.clone();
            watched.push(("wan", supervise::service("wan", stop.clone(), move || names.clone().run(told.clone()))));
        }
        let console = Console::open(&edge, tokio::runtime::Handle::current());
        let (listener, served, told) = (Arc::new(listener), edge.clone(), stop.clone());
        let serve = move || {
            let serving = control::serve(listener.clone(), served.clone(), console.clone(), told.clone());
            async move { serving.await.map_err(|error| error.to_string()) }
        };
        watched.push(("control", supervise::service("control", stop.clone(), serve)));
        let (keeper, kept, told) = (edge.keeper.clone(), edge.clone(), stop.clone());
        let keep = move || keeper.clone().run(kept.clone(), told.clone());
        let kept = supervise::service("backup", stop.clone(), keep);
        if edge.force.load().config.backup.is_some() {
            watched.push(("backup", kept));
        }
        let (clock, told) = (edge.clock.clone(), stop.clone());
        task("clock", async move { clock.run(told).await });
        let _ = edge.watched.set(watched);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), state = %edge.state.display(), quick_start = quick, "running");
        if let Some(promise) = promise
            && let Err(error) = promise.fulfil()
        {
            tracing::warn!(%error, "the process before this one is gone already");
        }
        manager.ready();
        ready(&edge);
        image::give_back();
        let heirs = UnixListener::from_std(heirs)?;
        let testament = manager.testament();
        let next = pin!(succession::next(&heirs, &edge, lock, &testament));
        let grace = || edge.force.load().config.node.grace;
        match signals.work(&edge, &stop, &manager, next).await {
            Some(next) => {
                let ended = succession::hand_over(next, &edge, &manager, grace(), (&stopper, &gate), &threads);
                tokio::select! {
                    ended = ended => ended?,
                    signal = signals.end() => tracing::warn!(signal, "ending at once"),
                }
            }
            None => {
                manager.stopping();
                drain(&edge, [&gate, &stopper], &mut signals, threads).await;
                edge.clock.keep();
                edge.note_trespasses();
                let _ = std::fs::remove_file(control::socket(&edge.state));
                let _ = std::fs::remove_file(handover::socket(&edge.state));
            }
        }
        io::stderr().flush()
    })
    .map_err(fail("runtime"))?;
    // A reload that is under way in a blocking thread is not waited for.
    runtime.shutdown_background();
    Ok(())
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Reloads on SIGHUP and renews what ages, until a signal says that it is over, or another process takes over.
    async fn work(
        &mut self,
        edge: &Arc<Edge>,
        stop: &Stop,
        manager: &Manager,
        mut next: Pin<&mut impl Future<Output = Next>>,
    ) -> Option<Next> {
        let told = |signal| {
            tracing::info!(signal, "stopping");
            None
        };
        let mut figures = tokio::time::interval(FIGURES);
        let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + RENEW, RENEW);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trespasses = tokio::time::interval(TRESPASSES);
        trespasses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = tokio::time::interval(manager.interval());
        loop {
            tokio::select! {
                _ = watchdog.tick() => manager.well(),
                _ = self.terminate.recv() => return told("SIGTERM"),
                _ = self.interrupt.recv() => return told("SIGINT"),
                next = &mut next => return Some(next),
                _ = self.hangup.recv() => {
                    let edge = edge.clone();
                    // What was wrong is in the log.
                    task("reload", async move {
                        _ = tokio::task::spawn_blocking(move || edge.reload("SIGHUP")).await;
                    });
                }
                _ = figures.tick() => edge.count_restarts(),
                _ = seconds.tick(), if edge.waiting().is_some() => {
                    let edge = edge.clone();
                    task("unconfirmed", async move {
                        _ = tokio::task::spawn_blocking(move || edge.take_back_if_due()).await;
                    });
                }
                _ = trespasses.tick() => {
                    let edge = edge.clone();
                    // It waits for the disk.
                    task("trespasses", async move {
                        _ = tokio::task::spawn_blocking(move || edge.note_trespasses()).await;
                    });
                }
                _ = renewal.tick() => {
                    let edge = edge.clone();
                    task("renewal", async move {
                        _ = tokio::task::spawn_blocking(move || edge.renew()).await;
                    });
                }
                () = stop.reached(Phase::Drain) => return None,
            }
        }
    }
}

/// Lets the planes finish within the grace period; a second signal ends it.
async fn drain(
    edge: &Edge,
    stoppers: [&Stopper; 2],
    signals: &mut Signals,
    threads: Vec<(&'static str, JoinHandle<()>)>,
) {
    let grace = edge.force.load().config.node.grace;
    let begun = Instant::now();
    stoppers.iter().for_each(|stopper| stopper.advance(Phase::Drain));
    tokio::select! {
        () = finished(threads.iter()) => {}
        () = tokio::time::sleep(grace) => {}
        signal = signals.end() => tracing::warn!(signal, "told twice: ending at once"),
    }
    let left: Vec<&str> = threads.iter().filter(|(_, thread)| !thread.is_finished()).map(|(name, _)| *name).collect();
    if left.is_empty() {
        tracing::info!(after = ?begun.elapsed(), "everything finished");
    } else {
        let unfinished = edge.unfinished();
        tracing::warn!(planes = left.join(" "), unfinished, after = ?begun.elapsed(), "did not finish in time");
    }
    stoppers.iter().for_each(|stopper| stopper.advance(Phase::Now));
    let _ = tokio::time::timeout(LAST_MOMENT, finished(threads.iter())).await;
}

impl Edge {
    fn count_restarts(&self) {
        for (name, watched) in self.watched.get().into_iter().flatten() {
            self.series.restarts.with_label_values(&[*name]).set(watched.health().restarts.into());
        }
    }

    /// Writes down who asked for hosts that are not for them.
    pub(super) fn note_trespasses(&self) {
        for trespass in self.planes.ingress.iter().flat_map(|plane| plane.take_trespasses()) {
            self.audit.record(&trespass.by, &trespass.what, &trespass.outcome);
        }
    }

    /// Says what is still under way.
    fn unfinished(&self) -> String {
        let status = self.status();
        let mut left = Vec::new();
        if let Some(dns) = &status.dns {
            left.push(format!("{} questions", dns.waiting));
        }
        if let Some(ingress) = &status.ingress {
            let requests: Vec<String> =
                ingress.under_way.iter().map(|(route, count)| format!("{route}: {count}")).collect();
            left.push(format!(
                "{} connections of the ingress (requests of routes: {})",
                ingress.connections,
                requests.join(", ")
            ));
        }
        if let Some(vpn) = &status.vpn {
            let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
            let is_here = |at: Option<u64>| at.is_some_and(|at| now.saturating_sub(at) < SESSION);
            let peers = vpn.peers.iter().filter(|peer| is_here(peer.last_handshake));
            let peers: Vec<&str> = peers.map(|peer| peer.name.as_str()).collect();
            left.push(format!("{} connections inside the tunnel (peers: {})", vpn.connections, peers.join(" ")));
        }
        left.join(", ")
    }
}

/// Waits until all of these threads are over.
pub(super) async fn finished<'a>(threads: impl Iterator<Item = &'a (&'static str, JoinHandle<()>)> + Clone) {
    while threads.clone().any(|(_, thread)| !thread.is_finished()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

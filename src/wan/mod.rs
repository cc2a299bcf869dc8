//! Keeps names of the owner's at the address that the Internet reaches this box by.
//!
//! 1. [`address`] finds it, again and again.
//! 2. Where a name is not at it, the provider is told.
//! 3. The zone's own servers are asked until they show it. If they do not within two minutes, somebody is told.

pub mod address;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use prometheus::{IntCounterVec, IntGauge};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use self::address::Found;
pub use self::address::Places;
use crate::{
    metrics::Metrics,
    provider::{Fault, Provider, Reach},
    public_dns::Zone,
    supervise::{Phase, Stop},
};

/// How often the address is looked at, and the names with it.
const LOOK: Duration = Duration::from_secs(60);
/// How often names are compared with what their servers show, if nothing changed.
const COMPARE: Duration = Duration::from_secs(15 * 60);
/// How long the zone's servers may take to show a change.
const SHOWN: Duration = Duration::from_secs(120);
/// For a provider.
const PROVIDER: Duration = Duration::from_secs(60);
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// The meant form of `[wan]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is kept at the address.
    pub names: Vec<Name>,
    /// Who holds their zone.
    pub provider: Provider,
    /// Where the address comes from.
    pub address: Source,
}

/// Where the address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The first of the following that knows one.
    Auto,
    /// This box's interfaces.
    Interface,
    /// The router.
    Router,
    /// Two outside services that agree.
    Services,
}

/// What `status` says of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The addresses that were found.
    pub addresses: Vec<IpAddr>,
    /// Each name, with what is wrong about it; nothing if it is where it should be.
    pub names: BTreeMap<String, Option<String>>,
    /// Why no address is known.
    pub problem: Option<String>,
}

/// The keeper of the names.
#[derive(Debug)]
pub struct Names {
    config: ArcSwapOption<Config>,
    changed: watch::Sender<()>,
    reach: Reach,
    places: Places,
    status: Mutex<Status>,
    updates: IntCounterVec,
    astray: IntGauge,
}

impl Names {
    /// Keeps nothing until a configuration comes.
    pub fn new(reach: Reach, places: Places, metrics: &Metrics) -> Self {
        let plane = metrics.plane("wan");
        Self {
            config: ArcSwapOption::empty(),
            changed: watch::Sender::new(()),
            reach,
            places,
            status: Mutex::default(),
            updates: plane.counters("updates_total", "Changes of addresses at the provider.", &["outcome"]),
            astray: plane.gauge("names_astray", "Names whose zone does not show the address of this box."),
        }
    }

    /// Takes another configuration; nothing is kept without one.
    pub fn configure(&self, config: Option<Config>) {
        if self.config.load().as_deref() != config.as_ref() {
            self.config.store(config.map(Arc::new));
            self.changed.send_replace(());
        }
    }

    /// Returns how the names are; nothing if none is kept.
    pub fn status(&self) -> Option<Status> {
        self.config.load().as_ref()?;
        Some(self.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Keeps the names until told to stop.
    pub async fn run(self: Arc<Self>, stop: Stop) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        let mut last: Option<(Found, Instant)> = None;
        let mut failures = 0_u32;
        loop {
            let config = self.config.load_full();
            let mut wait = LOOK;
            if let Some(config) = &config {
                let found = address::find(config.address, &self.places, &self.reach).await;
                let fresh = last.as_ref().is_some_and(|(before, at)| *before == found && at.elapsed() < COMPARE);
                if !fresh {
                    let good = self.keep(config, &found).await;
                    failures = if good { 0 } else { failures.saturating_add(1) };
                    last = good.then(|| (found, Instant::now()));
                    wait = LOOK.saturating_mul(1 << failures.min(6)).min(LONGEST_WAIT);
                }
            }
            drop(config);
            tokio::select! {
                () = sleep(wait) => {}
                _ = changed.changed() => (last, failures) = (None, 0),
                () = stop.reached(Phase::Drain) => return Ok(()),
            }
        }
    }

    /// Brings every name to the address; says whether all are there.
    async fn keep(&self, config: &Config, found: &Found) -> bool {
        let v4 = found.v4.map(IpAddr::V4);
        let addresses: Vec<IpAddr> = v4.into_iter().chain(found.v6.map(IpAddr::V6)).collect();
        if let Some(problem) = &found.problem {
            tracing::warn!(problem, "the address that the Internet reaches this box by is not known");
        }
        let mut names = BTreeMap::new();
        for name in &config.names {
            let mut problem = None;
            for address in &addresses {
                if let Err(fault) = self.bring(&config.provider, name, address).await {
                    tracing::warn!(%name, %address, problem = fault.0, "a name is not at the address of this box");
                    problem = Some(fault.0);
                }
            }
            names.insert(name.to_ascii().trim_end_matches('.').to_owned(), problem);
        }
        let astray = names.values().filter(|problem| problem.is_some()).count();
        self.astray.set(i64::try_from(astray).unwrap_or(i64::MAX));
        let good = astray == 0 && found.problem.is_none();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) =
            Status { addresses, names, problem: found.problem.clone() };
        good
    }

    /// Brings one name to one address, unless its servers show that it is there.
    async fn bring(&self, provider: &Provider, name: &Name, address: &IpAddr) -> Result<(), Fault> {
        let zone = self.reach.public.zone_of(name).await;
        let zone = zone.map_err(|error| Fault(format!("its zone is not found: {error}")))?;
        if let Ok(true) = shows(&zone, address).await {
            return Ok(());
        }
        let told = timeout(PROVIDER, provider.set(&self.reach, &zone, address)).await;
        let told = told.unwrap_or_else(|_| Err(Fault("the provider does not answer".into())));
        self.updates.with_label_values(&[if told.is_ok() { "done" } else { "failed" }]).inc();
        told?;
        tracing::info!(%name, %address, "told the provider where this box is");
        let begun = Instant::now();
        loop {
            match shows(&zone, address).await {
                Ok(true) => return Ok(()),
                shown if begun.elapsed() >= SHOWN => {
                    let why = shown.err().map_or("they show another".to_owned(), |error| error.to_string());
                    return Err(Fault(format!("the servers of {} do not show it after {SHOWN:?}: {why}", zone.origin)));
                }
                _ => sleep(Duration::from_secs(2)).await,
            }
        }
    }
}

/// Says whether the zone's servers show this address, and no other of its family.
async fn shows(zone: &Zone, address: &IpAddr) -> std::io::Result<bool> {
    let rtype = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let only = |records: &[Record]| {
        let mut own = records.iter().filter_map(|record| match record.data {
            RData::A(_) | RData::AAAA(_) => record.data.ip_addr(),
            _ => None,
        });
        own.next() == Some(*address) && own.next().is_none()
    };
    zone.shows(rtype, only).await
}

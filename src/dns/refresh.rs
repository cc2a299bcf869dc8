//! Keeps the fetched lists fresh while the plane runs: each is asked for when its time has come, and what
//! changed becomes a new policy, built beside the one in force.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Core, List, ListSource, Testing,
    filter::{self, Bounds, Fetch, Fetcher, ListStatus},
    policy::Policy,
    timed,
};
use crate::lookup::Lookup;

/// Lists fetched at once.
const AT_ONCE: usize = 4;

/// After a first failure; each further one doubles it, up to an hour.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_AT_MOST: Duration = Duration::from_secs(3600);

/// The clock may be set while nothing happens.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What fetching did since the start, by the name of the list.
#[derive(Debug, Default)]
pub(super) struct Fetches(Mutex<HashMap<String, LastFetch>>);

#[derive(Clone, Debug, Default)]
struct LastFetch {
    /// When the server was last heard, in seconds since 1970.
    checked: Option<u64>,
    problem: Option<String>,
}

impl Fetches {
    /// Puts what is known now into the status of a list.
    pub(super) fn tell(&self, status: &mut ListStatus) {
        let fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = fetches.get(&status.name) {
            status.checked = last.checked.or(status.checked);
            status.problem.clone_from(&last.problem);
        }
    }

    fn note(&self, name: &str, checked: Option<u64>, problem: Option<String>) {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = fetches.entry(name.to_owned()).or_default();
        last.checked = checked.or(last.checked);
        last.problem = problem;
    }

    /// Forgets lists that are no more.
    fn retain(&self, lists: &[List]) {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.retain(|name, _| lists.iter().any(|list| list.name == *name));
    }
}

/// When a list is asked for next.
struct Plan {
    source: ListSource,
    next: Instant,
    failures: u32,
    under_way: bool,
}

/// Fetches and rebuilds until it is dropped.
pub(super) async fn keep_fresh(core: &Arc<Core>, lookup: Lookup) -> Infallible {
    let mut plans: HashMap<String, Plan> = HashMap::new();
    let mut fetches = JoinSet::new();
    let mut told = core.clock.seconds();
    loop {
        let Some(policy) = core.policy.load_full() else {
            core.committed.notified().await;
            continue;
        };
        let config = &policy.config;
        if !config.clock.is_sound() {
            // No certificate can be believed yet.
            tokio::select! {
                () = config.clock.sound() => {}
                () = core.committed.notified() => rebuild(core).await,
            }
            continue;
        }
        core.fetches.retain(&config.lists);
        plans.retain(|name, plan| {
            plan.under_way || config.lists.iter().any(|list| list.name == *name && list.source == plan.source)
        });
        for list in config.lists.iter().filter(|list| list.enabled && matches!(list.source, ListSource::Url(_))) {
            let age = filter::last_heard(list, &config.state).map(|heard| core.clock.seconds().saturating_sub(heard));
            let first = || Instant::now() + age.map_or(Duration::ZERO, |age| left(list.refresh, age));
            let plan = plans.entry(list.name.clone()).or_insert_with(|| Plan {
                source: list.source.clone(),
                next: first(),
                failures: 0,
                under_way: false,
            });
            // What was removed from the state folder is wanted again.
            if age.is_none() && plan.failures == 0 {
                plan.next = Instant::now();
            }
            if !plan.under_way && plan.next <= Instant::now() && fetches.len() < AT_ONCE {
                plan.under_way = true;
                let fetcher = Fetcher::new(roots(&config.testing), lookup.clone(), Bounds::default());
                let (list, state, now) = (list.clone(), config.state.clone(), core.clock.seconds());
                fetches.spawn(async move {
                    let fetched = filter::fetch(&fetcher, &list, &state, now).await;
                    (list, fetched)
                });
            }
        }
        let now = core.clock.seconds();
        let ends = timed::tell_ended(config, told, now).map(|left| Instant::now() + left.min(LONGEST_SLEEP));
        told = now;
        let waiting = plans.values().filter(|plan| !plan.under_way && fetches.len() < AT_ONCE);
        let next = waiting.map(|plan| plan.next).chain(ends).min();
        drop(policy);
        tokio::select! {
            Some(ended) = fetches.join_next() => {
                let Ok((list, fetched)) = ended else { continue };
                if let Some(plan) = plans.get_mut(&list.name) {
                    plan.under_way = false;
                    plan.failures = if fetched.is_ok() { 0 } else { plan.failures.saturating_add(1) };
                    plan.next = Instant::now() + wait(list.refresh, plan.failures);
                }
                note(core, &list, fetched);
                rebuild(core).await;
            }
            () = core.committed.notified() => rebuild(core).await,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

fn note(core: &Core, list: &List, fetched: Result<Fetch, filter::KeepError>) {
    let name = &list.name;
    let now = Some(core.clock.seconds());
    let outcome = match fetched {
        Ok(Fetch::Unchanged) => {
            core.fetches.note(name, now, None);
            "unchanged"
        }
        Ok(Fetch::Changed) => {
            tracing::info!(list = name, "list fetched");
            core.fetches.note(name, now, None);
            "changed"
        }
        Ok(Fetch::Held(why)) => {
            tracing::warn!(list = name, why, "list held back, the last one stays in force");
            core.fetches.note(name, now, Some(why));
            "held"
        }
        Err(error) => {
            tracing::warn!(list = name, %error, "list not fetched, the last one stays in force");
            core.fetches.note(name, None, Some(format!("not fetched: {error}")));
            "failed"
        }
    };
    core.series.list_fetches.with_label_values(&[outcome]).inc();
}

/// Builds a new policy if fetched lists are others than those in force. A reload that comes in between is never
/// undone: what it brought is built again.
async fn rebuild(core: &Arc<Core>) {
    let work = |core: Arc<Core>| {
        loop {
            let Some(before) = core.policy.load_full() else { return };
            if before.filter.is_current() {
                return;
            }
            let after = match Policy::build(before.config.clone(), Some(&before)) {
                Ok(after) => Arc::new(after),
                Err(error) => return tracing::error!(%error, "the fetched lists are not in force"),
            };
            if core.replace(&before, after) {
                return;
            }
        }
    };
    let core = core.clone();
    if let Err(end) = tokio::task::spawn_blocking(move || work(core)).await {
        tracing::error!(%end, "the fetched lists are not in force");
    }
}

/// Time until a list that was asked for `age` seconds ago is asked for again.
fn left(refresh: Duration, age: u64) -> Duration {
    wait(refresh, 0).saturating_sub(Duration::from_secs(age))
}

/// Time until the next fetch after this many failures in a row; up to a tenth longer by chance, so that not
/// all houses ask at once.
fn wait(refresh: Duration, failures: u32) -> Duration {
    let time = match failures {
        0 => refresh,
        _ => (RETRY * (1 << (failures - 1).min(6))).min(RETRY_AT_MOST).min(refresh),
    };
    let chance = u32::try_from(getrandom::u64().unwrap_or_default() % 1000).unwrap_or_default();
    time + time / 10 * chance / 1000
}

fn roots(testing: &Testing) -> RootCertStore {
    let Some(file) = &testing.list_roots else { return Fetcher::public_roots() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).into_iter().flatten().flatten() {
        // Without it the server is not believed, which is told then.
        let _ = roots.add(certificate);
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_later_each_time_and_never_later_than_the_refresh() {
        let day = Duration::from_secs(86400);
        let within = |time: Duration, least: u64| {
            let least = Duration::from_secs(least);
            assert!((least..=least + least / 10).contains(&time), "{time:?} is not about {least:?}");
        };

        within(wait(day, 0), 86400);
        within(wait(day, 1), 60);
        within(wait(day, 3), 240);
        within(wait(day, 7), 3600);
        within(wait(day, u32::MAX), 3600);
        within(wait(Duration::from_secs(600), 9), 600);
        assert_eq!(left(day, 2 * 86400), Duration::ZERO);
    }
}

//! Reads zones, hosts and leases again when they change.

use std::{convert::Infallible, sync::Arc};

use super::{Core, local::Watch, policy::Policy};

/// Follows the files of the policy in force until it is dropped.
pub(super) async fn keep_files(core: &Arc<Core>) -> Infallible {
    loop {
        let Some(policy) = core.policy.load_full() else {
            core.replaced.notified().await;
            continue;
        };
        let config = &policy.config;
        let watch = Watch::new(config.zones.iter().chain(&config.hosts).chain(&config.leases));
        let follow = async {
            // What changed before it was watched.
            read(core, &policy).await;
            loop {
                watch.changed().await;
                // Twice: what was being written is whole by then.
                read(core, &policy).await;
                Watch::dry().await;
                read(core, &policy).await;
            }
        };
        tokio::select! {
            never = follow => match never {},
            () = core.replaced.notified() => {}
        }
    }
}

async fn read(core: &Arc<Core>, policy: &Arc<Policy>) {
    let config = &policy.config;
    if config.zones.is_empty() && config.hosts.is_empty() && config.leases.is_empty() {
        return;
    }
    let (policy, now) = (policy.clone(), core.clock.seconds());
    let read = tokio::task::spawn_blocking(move || policy.read_files(now)).await;
    if read.unwrap_or(false) {
        core.devices.changed();
    }
}

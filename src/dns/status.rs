//! What `status` says of the plane.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Plane, Timed, filter::ListStatus, timed};
use crate::clock::Soundness;

/// The state of the DNS plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The addresses that are listened on.
    pub listen: Vec<SocketAddr>,
    /// What the block and allow lists hold.
    pub lists: Vec<ListStatus>,
    /// Bytes that the rules take.
    pub rules_bytes: usize,
    /// Answers in the cache.
    pub cache_entries: usize,
    /// Bytes that they take.
    pub cache_bytes: usize,
    /// Bytes that they may take.
    pub cache_limit: usize,
    /// Questions that wait for others.
    pub waiting: usize,
    /// Open TCP connections, the tunnel's with them.
    pub connections: usize,
    /// Devices that are remembered.
    #[serde(default)]
    pub devices: usize,
    /// Those of them that are in the group `new`.
    #[serde(default)]
    pub new_devices: usize,
    /// Those that are there and ask nothing.
    #[serde(default)]
    pub passing_devices: usize,
    /// What is odd about groups and files, in sentences.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Rules and pauses that end by themselves, the first to end first.
    #[serde(default)]
    pub timed: Vec<Timed>,
    /// Whether the clock can be right.
    pub clock: Soundness,
    /// Gateways that speak for others: rules for devices behind them cannot work.
    pub relays: Vec<std::net::IpAddr>,
}

impl Plane {
    /// Returns the state as it is now.
    pub fn status(&self) -> Status {
        let core = &self.core;
        let policy = core.policy.load();
        let fill = core.cache.fill();
        let mut lists = policy.as_ref().map(|policy| policy.lists.clone()).unwrap_or_default();
        lists.iter_mut().for_each(|list| core.fetches.tell(list));
        let mut relays: Vec<_> = core.networks.load().relays.iter().copied().collect();
        relays.sort();
        let (devices, mut problems) = self.devices();
        problems.extend(policy.iter().flat_map(|policy| policy.files.load().problems.clone()));
        Status {
            listen: self.listen_addresses(),
            lists,
            rules_bytes: policy.as_ref().map_or(0, |policy| policy.filter.bytes()),
            cache_entries: fill.entries,
            cache_bytes: fill.bytes,
            cache_limit: core.cache.limit(),
            waiting: core.room.taken(),
            connections: core.connections.taken(),
            new_devices: devices.iter().filter(|device| device.new).count(),
            passing_devices: devices.iter().filter(|device| device.passes_by).count(),
            devices: devices.len(),
            problems,
            timed: policy
                .as_ref()
                .map(|policy| timed::in_force(&policy.config, core.clock.seconds()))
                .unwrap_or_default(),
            clock: core.trusted_clock().soundness(),
            relays,
        }
    }
}

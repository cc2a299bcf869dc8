//! What `status` says of the plane.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Plane, filter::ListStatus};

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
    /// Gateways that speak for others: rules for devices behind them cannot work.
    pub relays: Vec<std::net::IpAddr>,
}

impl Plane {
    /// Returns the state as it is now.
    pub fn status(&self) -> Status {
        let core = &self.core;
        let policy = core.policy.load();
        let fill = core.cache.fill();
        let mut relays: Vec<_> = core.networks.load().relays.iter().copied().collect();
        relays.sort();
        Status {
            listen: self.listen_addresses(),
            lists: policy.as_ref().map(|policy| policy.lists.clone()).unwrap_or_default(),
            rules_bytes: policy.as_ref().map_or(0, |policy| policy.filter.bytes()),
            cache_entries: fill.entries,
            cache_bytes: fill.bytes,
            cache_limit: core.cache.limit(),
            waiting: core.room.taken(),
            connections: core.connections.taken(),
            relays,
        }
    }
}

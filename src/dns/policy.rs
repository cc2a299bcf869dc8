//! What a configuration becomes: everything that a reload swaps.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Config,
    filter::{self, ListStatus},
    local::{self, Records, Routes, Special},
    upstream::Resolver,
};

/// What keeps a configuration from being prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules cannot be compiled.
    #[error(transparent)]
    Filter(#[from] filter::Error),
    /// Root hints, trust anchors or upstream servers cannot be used.
    #[error("{key}: {problem}")]
    Upstream {
        /// The key at fault.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// The rules of one configuration.
#[derive(Debug)]
pub(crate) struct Policy {
    /// As it was meant.
    pub(crate) config: Config,
    /// Groups and lists.
    pub(crate) filter: filter::Policy,
    /// What the lists hold.
    pub(crate) lists: Vec<ListStatus>,
    /// The owner's records.
    pub(crate) records: Records,
    /// The names of routes.
    pub(crate) routes: Routes,
    /// Names without a place in the public DNS.
    pub(crate) special: Special,
    /// Whoever is asked; made anew when the plane is started again, whose connections ended with it.
    pub(crate) upstream: ArcSwap<Resolver>,
    /// Names that may have private addresses, in wire form and lower case.
    pub(crate) rebind_allow: Vec<Box<[u8]>>,
}

impl Policy {
    /// Compiles a configuration. What asks others is kept from `before` if nothing about it changed: it knows
    /// servers and holds connections.
    pub(crate) fn build(config: Config, before: Option<&Self>) -> Result<Self, Error> {
        let (filter, lists) = filter::Policy::build(&config, before.map(|before| &before.filter))?;
        let upstream = match before {
            Some(before) if Resolver::same(&before.config, &config) => before.upstream.load_full(),
            _ => Arc::new(Resolver::new(&config)?),
        };
        let zones = config.forward.iter().map(|forward| local::wire(&forward.zone));
        let special = Special::new(zones.clone().collect(), config.testing.special_names);
        // The owner's own domain may lead home.
        let own = std::iter::once(local::wire(&config.domain));
        let rebind_allow = config.rebind_allow.iter().map(local::wire).chain(zones).chain(own).collect();
        let records = Records::new(&config.records);
        let routes = Routes::new(&config.routes);
        Ok(Self { config, filter, lists, records, routes, special, upstream: upstream.into(), rebind_allow })
    }
}

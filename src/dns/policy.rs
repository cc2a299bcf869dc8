//! What a configuration becomes: everything that a reload swaps.

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;

use super::{
    Clock, Config,
    filter::{self, ListStatus},
    local::{self, Discovery, Files, Peers, Records, Routes, Special},
    query::Way,
    upstream::Resolver,
    ways::Ways,
};

/// What keeps a configuration from being prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules cannot be compiled.
    #[error(transparent)]
    Filter(#[from] filter::Error),
    /// A file that names of the house come from cannot be read.
    #[error("{key}: {problem}")]
    File {
        /// The key at fault.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
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
    /// Which connectivity checks lists would break, in sentences.
    broken_checks: Vec<String>,
    /// What the lists hold.
    pub(crate) lists: Vec<ListStatus>,
    /// The owner's records, with those of files.
    pub(crate) records: ArcSwap<Records>,
    /// Zones, hosts and leases as they were last read.
    pub(crate) files: ArcSwap<Files>,
    /// The names of peers.
    pub(crate) peers: Peers,
    /// The names of routes.
    pub(crate) routes: Routes,
    /// The server's own encrypted transports.
    pub(crate) discovery: Option<Discovery>,
    /// Names without a place in the public DNS.
    pub(crate) special: Special,
    /// Whoever is asked; made anew when the plane is started again, whose connections ended with it.
    pub(crate) upstream: ArcSwap<Resolver>,
    /// Who is asked by groups that have servers of their own.
    pub(crate) ways: Ways,
    /// Names that may have private addresses, in wire form and lower case.
    pub(crate) rebind_allow: Vec<Box<[u8]>>,
}

impl Policy {
    /// Compiles a configuration. What asks others is kept from `before` if nothing about it changed: it knows
    /// servers and holds connections.
    pub(crate) fn build(config: Config, before: Option<&Self>) -> Result<Self, Error> {
        let (filter, lists) = filter::Policy::build(&config, before.map(|before| &before.filter))?;
        let upstream = match before {
            Some(before) if before.upstream.load().serves(&before.config, &config) => before.upstream.load_full(),
            _ => Arc::new(Resolver::new(&config)?),
        };
        let ways = Ways::build(&config, &filter, before.map(|before| (&before.ways, &before.config)))?;
        let zones = config.forward.iter().map(|forward| local::wire(&forward.zone));
        let special = Special::new(zones.clone().collect(), config.testing.special_names);
        // The owner's own domain may lead home.
        let own = std::iter::once(local::wire(&config.domain));
        let rebind_allow = config.rebind_allow.iter().map(local::wire).chain(zones).chain(own).collect();
        let last = before.map(|before| before.files.load_full());
        let files = Files::read(&config, last.as_deref(), Clock.seconds())
            .map_err(|(key, problem)| Error::File { key, problem })?;
        files.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        let broken = filter.broken_checks(&config);
        let told = before.map(|before| before.broken_checks.clone()).unwrap_or_default();
        broken.iter().filter(|check| !told.contains(check)).for_each(|check| tracing::info!("{check}"));
        let records = compile(&config, &files);
        let routes = Routes::new(&config.routes);
        let discovery = config.encrypted.as_ref().and_then(Discovery::new);
        let peers = Peers::new(&config.peers);
        Ok(Self {
            config,
            filter,
            broken_checks: broken,
            lists,
            records: ArcSwap::from_pointee(records),
            files: ArcSwap::from_pointee(files),
            peers,
            routes,
            discovery,
            special,
            upstream: upstream.into(),
            ways,
            rebind_allow,
        })
    }

    /// Reads the files again; blocks. Says whether something is other than before.
    pub(crate) fn read_files(&self, now: u64) -> bool {
        let before = self.files.load();
        let Some(files) = before.read_again(&self.config, now) else { return false };
        for problem in files.problems.iter().filter(|problem| !before.problems.contains(problem)) {
            tracing::warn!("{problem}: what was read before stays in force");
        }
        self.records.store(Arc::new(compile(&self.config, &files)));
        self.files.store(Arc::new(files));
        true
    }

    /// Says whether others are asked as another policy asks them, so that what they said is still what they say.
    pub(crate) fn asks_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.upstream.load(), &other.upstream.load())
            && self.ways.lead_as(&other.ways)
            && self.config.dns64 == other.config.dns64
    }

    /// Returns who is asked by a way.
    pub(crate) fn asks(&self, way: Way) -> Arc<Resolver> {
        self.ways.resolver(way).unwrap_or_else(|| self.upstream.load_full())
    }

    /// Says whether a public name may have private addresses.
    pub(crate) fn may_lead_home(&self, name: &[u8]) -> bool {
        self.rebind_allow.iter().any(|zone| local::covers(zone, name))
    }
}

fn compile(config: &Config, files: &Files) -> Records {
    Records::new(&config.records, &config.domain, files, &taken(config))
}

/// Names that devices cannot take: those of routes and of the gate.
fn taken(config: &Config) -> HashSet<Box<[u8]>> {
    let routes = &config.routes;
    let hosts = routes.names.iter().map(|route| &route.host).chain(routes.gate.iter().map(|gate| &gate.host));
    hosts.map(local::wire).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{GateName, fuzz::House};

    #[test]
    fn no_device_takes_the_name_of_the_gate() {
        let folder = tempfile::tempdir().unwrap();
        let leases = folder.path().join("dnsmasq.leases");
        let later = Clock.seconds() + 3600;
        let line = |address: &str, name: &str| format!("{later} 00:1b:21:aa:bb:cc {address} {name} *\n");
        std::fs::write(&leases, line("192.168.1.66", "vpn") + &line("192.168.1.67", "tv")).unwrap();

        let house = House::new(|config| {
            config.leases = vec![leases];
            let host = "vpn.home.example.".parse().unwrap();
            config.routes.gate = Some(GateName { host, listen: Vec::new() });
        });

        let records = house.policy.records.load();
        assert!(records.has_data(b"\x02tv\x04home\x07example\0"));
        assert!(!records.has_data(b"\x03vpn\x04home\x07example\0"));
    }
}

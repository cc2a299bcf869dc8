//! Another configuration comes into force, whole or not at all: load → refuse what needs a restart →
//! prepare every plane → only then commit each, and keep it as a generation.

use std::{
    path::Path,
    sync::{Arc, MutexGuard},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    app::{
        Edge, InForce,
        control::Refusal,
        history, lockout, log, peers,
        pending::{Pending, Waiting},
        rules,
        status::Refused,
        users,
    },
    config::{
        self, Compiled, Loaded,
        edits::Edits,
        generations::{self, GenerationError},
    },
    ingress, vpn,
};

/// What the caller of a reload is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// The number of the configuration in force.
    pub generation: u64,
    /// Something is different.
    pub changed: bool,
    /// What is odd in it.
    pub warnings: Vec<String>,
    /// It is taken back unless it is confirmed.
    #[serde(default)]
    pub waiting: Option<Waiting>,
}

/// Which text of the owner's file is meant.
#[derive(Clone, Copy)]
pub(super) enum Basis<'a> {
    /// What stands there now.
    Disk,
    /// What is in force: a change of the edits neither fails by a file that is half written nor takes it over.
    Force,
    /// This, which was in force before: a change is taken back.
    Text(&'a str),
}

impl Edge {
    /// Loads the configuration again. A bad one changes nothing.
    pub fn reload(&self, author: &str) -> Result<Reloaded, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.load_and_commit(author, Basis::Disk)
    }

    /// Builds every policy again from the configuration in force: lists may have changed, and certificates
    /// age.
    pub fn renew(&self) {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match self.planes.prepare(&self.force.load().config) {
            Ok(prepared) => self.planes.commit(prepared),
            Err(error) => tracing::warn!(error, "lists and certificates stay as they are"),
        }
    }

    /// Adds or removes a peer, in the edits and in force; both or neither.
    pub fn edit_peers(&self, edit: peers::PeerEdit, author: &str) -> Result<peers::Edited, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut edits = Edits::read(&self.state).map_err(Refusal::ours)?;
        let before = edits.text();
        let name = edit.name().to_owned();
        let author = format!("{author}: {edit}");
        peers::apply(&mut edits, edit, &self.force.load().config)?;
        if let Err(refusal) = self.load_and_commit(&author, Basis::Force) {
            edits.write(before).map_err(Refusal::ours)?;
            return Err(refusal);
        }
        Ok(peers::edited(&name, &self.force.load().config))
    }

    /// Changes rules or pauses, in the edits and in force; both or neither.
    pub fn edit_rules(&self, edit: &rules::RuleEdit, author: &str) -> Result<rules::Ruled, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut edits = Edits::read(&self.state).map_err(Refusal::ours)?;
        let before = edits.text();
        let ruled = rules::apply(&mut edits, edit, &self.force.load().config, Timestamp::now())?;
        if let Err(refusal) = self.load_and_commit(&format!("{author}: {edit}"), Basis::Force) {
            edits.write(before).map_err(Refusal::ours)?;
            return Err(refusal);
        }
        Ok(ruled)
    }

    /// Changes the users, in the edits and in force; both or neither.
    pub fn edit_users(&self, edit: &users::UserEdit, author: &str) -> Result<Vec<users::Listed>, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut edits = Edits::read(&self.state).map_err(Refusal::ours)?;
        let before = edits.text();
        users::apply(&mut edits, edit, &self.force.load().config)?;
        if let Err(refusal) = self.load_and_commit(&format!("{author}: {edit}"), Basis::Force) {
            edits.write(before).map_err(Refusal::ours)?;
            return Err(refusal);
        }
        Ok(users::list(&self.force.load().config))
    }

    /// Makes the edits what they were in an older generation.
    pub fn rollback(&self, generation: u64, author: &str) -> Result<Reloaded, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut edits = Edits::read(&self.state).map_err(Refusal::ours)?;
        let before = edits.text();
        let old = generations::show(&self.state, generation).map_err(history::refusal)?;
        edits.write(old.edits).map_err(Refusal::ours)?;
        let reloaded = self.load_and_commit(&format!("{author}: config rollback {generation}"), Basis::Force);
        if reloaded.is_err() {
            edits.write(before).map_err(Refusal::ours)?;
        }
        reloaded
    }

    /// Returns the change that waits to be confirmed.
    pub(super) fn pending(&self) -> MutexGuard<'_, Option<Pending>> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The caller holds `changing`.
    pub(super) fn load_and_commit(&self, author: &str, basis: Basis<'_>) -> Result<Reloaded, Refusal> {
        let attempt = self.try_load_and_commit(author, basis);
        let (by, what) = author.split_once(": ").unwrap_or(("hearthgate", author));
        match &attempt {
            Ok(reloaded) if reloaded.changed => {
                self.audit.record(by, what, &format!("generation {}", reloaded.generation))
            }
            Ok(_) => {}
            Err(refusal) => self.audit.record(by, what, &format!("refused: {}", refusal.failure().error)),
        }
        if let Err(refusal) = &attempt {
            let failure = refusal.failure();
            let problems =
                if failure.problems.is_empty() { vec![failure.error.clone()] } else { failure.problems.clone() };
            tracing::error!(author, problems = problems.join("\n"), "configuration refused; nothing was changed");
            self.series.refused();
            self.refused.store(Some(Arc::new(Refused { at: Timestamp::now().as_second(), problems })));
        }
        attempt
    }

    fn try_load_and_commit(&self, author: &str, basis: Basis<'_>) -> Result<Reloaded, Refusal> {
        let is_undone = matches!(basis, Basis::Text(_));
        if let (false, Some(pending)) = (is_undone, self.pending().as_ref()) {
            return Err(pending.refusal());
        }
        let force = self.force.load();
        let mut ids = self.peer_ids.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let source = match (basis, self.options.source.file()) {
            (Basis::Force, Some(path)) => config::Source::Text(path, &force.file),
            (Basis::Text(text), Some(path)) => config::Source::Text(path, text),
            _ => self.options.source.to_config(),
        };
        let loaded = config::check(source, &self.options.to_config(), &mut ids);
        let loaded = loaded.map_err(|problems| Refusal::config(&problems))?;
        drop(ids);
        let restart = needs_restart(&force.config, &loaded.compiled);
        if !restart.is_empty() {
            return Err(Refusal::unprepared(format!("a restart is needed to change {}", restart.join(", "))));
        }
        if let Some(covering) = self.new_covering(&force.config, &loaded.compiled) {
            return Err(Refusal::unprepared(covering));
        }
        let prepared = self.planes.prepare(&loaded.compiled).map_err(Refusal::unprepared)?;
        loaded.keep().map_err(Refusal::ours)?;
        let risk = if is_undone { None } else { lockout::risk(&force.config, &loaded.compiled, Timestamp::now()) };
        let pending = risk.map(|risk| Pending::begin(&self.state, force.generation, risk)).transpose();
        let pending = pending.map_err(Refusal::ours)?;
        // Nothing below can refuse any more.
        let changed = loaded.digest != force.digest;
        let generation = if changed {
            record(&self.state, &loaded, author).unwrap_or_else(|error| {
                tracing::error!(%error, "the configuration is in force but could not be kept in the history");
                force.generation
            })
        } else {
            force.generation
        };
        let config = Arc::new(loaded.compiled);
        // Who is at home is decided anew only where the planes know what that means now.
        self.planes.commit(prepared);
        self.follower.configure(config.lan.clone());
        self.scrape.commit(&config);
        self.confirm.commit(&config);
        if pending.is_none() {
            self.confirm.forget_others();
        }
        self.directory.store(Arc::new(config.directory.clone()));
        if let (Some(history), Some(config)) = (&self.history, &config.history) {
            history.configure(config.clone());
        }
        if let (Some(watch), Some(config)) = (&self.watch, &config.watch) {
            watch.commit(config);
        }
        log::set_level(config.node.log.level);
        let now = Timestamp::now();
        let force = InForce { config, file: loaded.file, digest: loaded.digest, generation, loaded: now };
        self.force.store(Arc::new(force));
        let waiting = pending.as_ref().map(Pending::waiting);
        if let Some(pending) = pending {
            *self.pending() = Some(pending);
        }
        self.refused.store(None);
        self.series.loaded(now);
        tracing::info!(author, generation, changed, "configuration in force");
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        Ok(Reloaded { generation, changed, warnings, waiting })
    }
}

impl Edge {
    /// Returns a prefix that the tunnel would newly have over a network of the house. One that it has already, because
    /// the house was renumbered, stands in the way of no other change.
    fn new_covering(&self, old: &Compiled, new: &Compiled) -> Option<vpn::Covering> {
        let networks = self.follower.networks().load_full();
        let of = |config: &Compiled| config.vpn.as_ref().map(|vpn| vpn::covering(vpn, &networks)).unwrap_or_default();
        let known = of(old);
        of(new).into_iter().find(|covering| !known.contains(covering))
    }
}

/// Keeps a configuration in the history; the same as the last one is not kept twice.
pub(super) fn record(state: &Path, loaded: &Loaded, author: &str) -> Result<u64, GenerationError> {
    generations::record(state, &loaded.file, &loaded.edits, author, Timestamp::now())
}

/// Names the keys that differ and take effect at a start only.
fn needs_restart(old: &Compiled, new: &Compiled) -> Vec<&'static str> {
    let dns = |config: &Compiled| config.dns.as_ref().map(|dns| dns.listen.clone());
    let encrypted = |config: &Compiled| {
        let encrypted = config.dns.as_ref().and_then(|dns| dns.encrypted.clone());
        encrypted.map_or_else(Vec::new, |encrypted| encrypted.listen)
    };
    let cache = |config: &Compiled| config.dns.as_ref().map(|dns| dns.cache_size);
    let http = |config: &Compiled| config.ingress.as_ref().map(|ingress| ingress.http.clone());
    let https = |config: &Compiled| config.ingress.as_ref().map(|ingress| ingress.https.clone());
    let doors = |config: &Compiled| {
        let doors = config.ingress.iter().flat_map(|ingress| &ingress.doors);
        doors.map(|door| (door.address, door.speaks)).collect::<Vec<_>>()
    };
    let ports = |config: &Compiled, transport| {
        let ports = config.ingress.iter().flat_map(|ingress| &ingress.ports);
        let ports = ports.filter(|port| port.transport == transport);
        ports.flat_map(|port| port.places.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    let ports_differ = |transport| ports(old, transport) != ports(new, transport);
    let vpn = |config: &Compiled| config.vpn.as_ref().map(|vpn| vpn.listen.clone());
    let mode = |config: &Compiled| config.vpn.as_ref().map(|vpn| vpn.mode);
    let lan = |config: &Compiled| config.vpn.as_ref().map(|vpn| vpn.lan);
    let metrics = |config: &Compiled| config.metrics.as_ref().map(|metrics| metrics.listen.clone());
    let kept = |config: &Compiled| config.history.as_ref().map(|history| history.storage);
    let announced =
        |config: &Compiled| config.lan.announce.then(|| (config.lan.interfaces.clone(), config.node.domain.clone()));
    let keys = [
        ("`node.state`", old.node.state != new.node.state),
        ("`node.user`", old.node.user != new.node.user),
        ("`node.log.format`", old.node.log.format != new.node.log.format),
        // The sockets need a privilege.
        ("`lan.announce`", announced(old) != announced(new)),
        ("`dns.listen`", dns(old) != dns(new)),
        ("`dns.encrypted`", encrypted(old) != encrypted(new)),
        ("`dns.cache_size`", cache(old) != cache(new)),
        ("`ingress.http`", http(old) != http(new)),
        ("`ingress.https`", https(old) != https(new)),
        ("`ingress.listener`", doors(old) != doors(new)),
        ("`tcp` of a route", ports_differ(ingress::Transport::Tcp)),
        ("`udp` of a route", ports_differ(ingress::Transport::Udp)),
        ("`vpn.listen`", vpn(old) != vpn(new)),
        ("`vpn.mode`", mode(old) != mode(new)),
        ("`vpn.lan`", lan(old) != lan(new)),
        ("`metrics.listen`", metrics(old) != metrics(new)),
        ("`history.storage`", kept(old) != kept(new)),
        ("`check`", old.watch.is_some() != new.watch.is_some()),
        ("`wan.names`", old.wan.is_some() != new.wan.is_some()),
        // The helper process knows only what it was started for.
        ("`provider.program`", new.programs().iter().any(|program| !old.programs().contains(program))),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

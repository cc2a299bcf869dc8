//! What `hearthgate status` shows: the state of everything at this moment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    announce,
    app::{Edge, backup, pending::Waiting},
    dns, history, ingress, vpn, wan, watch,
};

/// The state of everything at this moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The number of the process.
    pub process: u32,
    /// Since when it has been running, in seconds.
    pub uptime: u64,
    /// The user that it runs as and what it may.
    pub privileges: String,
    /// The configuration file; nothing for the quick start.
    pub file: Option<PathBuf>,
    /// The state folder.
    pub state: PathBuf,
    /// The number of the configuration in force.
    pub generation: u64,
    /// When it came into force, in seconds since 1970.
    pub loaded: i64,
    /// The last attempt to load another one, if that failed.
    pub refused: Option<Refused>,
    /// A change that is taken back unless it is confirmed.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// The planes that exist, and what works beside them.
    pub planes: Vec<Plane>,
    /// What router advertisements tell of us.
    #[serde(default)]
    pub announced: Vec<announce::Status>,
    /// The DNS plane.
    pub dns: Option<dns::Status>,
    /// The ingress.
    pub ingress: Option<ingress::Status>,
    /// The gate.
    pub vpn: Option<vpn::Status>,
    /// Names that are kept at the address of this box.
    #[serde(default)]
    pub wan: Option<wan::Status>,
    /// What is kept of what happened.
    #[serde(default)]
    pub history: Option<history::Status>,
    /// How many of the things that are watched are up.
    #[serde(default)]
    pub watch: Option<watch::Counts>,
    /// Where the console is inside the tunnel.
    #[serde(default)]
    pub console: Option<String>,
    /// Backups that are made by themselves.
    #[serde(default)]
    pub backup: Option<backup::Status>,
    /// Where metrics are read.
    pub metrics: Vec<std::net::SocketAddr>,
}

/// A configuration that did not come into force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What was wrong.
    pub problems: Vec<String>,
}

/// The health of one plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plane {
    /// `dns`, `ingress`, `vpn`; `onlink` follows who is at home, `neighbours` with which devices, `watch` whether everything is up, `metrics`,
    /// `confirm` and `control` answer.
    pub name: String,
    /// It works now.
    pub running: bool,
    /// Since when, in seconds.
    pub uptime: u64,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it last fell over.
    pub last_failure: Option<String>,
}

impl Edge {
    /// Returns the state of everything.
    pub fn status(&self) -> Status {
        let force = self.force.load();
        let planes = self.watched.get().into_iter().flatten().map(|(name, watched)| {
            let health = watched.health();
            Plane {
                name: (*name).into(),
                running: health.running,
                uptime: health.since.elapsed().as_secs(),
                restarts: health.restarts,
                last_failure: health.last_failure,
            }
        });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            process: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            privileges: self.privileges.clone(),
            file: self.options.source.file().cloned(),
            state: self.state.clone(),
            generation: force.generation,
            loaded: force.loaded.as_second(),
            refused: self.refused.load().as_deref().cloned(),
            waiting: self.waiting(),
            planes: planes.collect(),
            announced: self.announcer.as_ref().map(|announcer| announcer.status()).unwrap_or_default(),
            dns: self.planes.dns.as_ref().map(|plane| plane.status()),
            ingress: self.planes.ingress.as_ref().map(|plane| plane.status()),
            vpn: self.planes.vpn.as_ref().map(|plane| plane.status()),
            wan: self.planes.names.as_ref().and_then(|names| names.status()),
            history: self.history.as_ref().map(|history| history.status()),
            watch: self.watch.as_ref().map(|watch| watch.counts()),
            console: force.config.console.as_ref().and_then(|console| console.host.clone()),
            backup: force.config.backup.as_ref().map(|config| self.keeper.status(config)),
            metrics: self.scrape.addresses().to_vec(),
        }
    }
}

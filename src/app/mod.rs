//! The only room that knows all planes: builds them, reloads them, hands their handles to one another and
//! reports their state.
//!
//! The life of the process: load the configuration → bind every port → drop privileges → prepare and
//! commit each plane's policy → run each plane in a thread that is started again when it falls over → on
//! SIGTERM drain, and after the grace period end.

pub mod backup;
mod build;
pub mod confirm;
mod console;
pub mod control;
pub mod devices;
mod explain;
pub mod history;
mod lock;
mod lockout;
pub mod log;
mod notify;
pub(crate) mod offline;
pub mod peers;
pub mod pending;
pub mod queries;
mod reload;
pub mod rules;
mod run;
pub mod scrape;
pub mod state;
pub mod status;
mod succession;
pub mod uptime;
pub mod users;
mod wire;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;

pub use build::Failure;
pub use devices::{Accept, Accepted, Devices};
pub use lock::holder;
pub use reload::Reloaded;
pub use run::run;
pub use wire::Planes;

use crate::{
    announce::Announcer,
    audit::Audit,
    clock::Clock,
    config::{self, Compiled, PeerIds},
    history::History,
    onlink::Follower,
    origin::Directory,
    supervise::Watched,
    watch,
};

/// How the process is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the configuration comes from.
    pub source: Source,
    /// The state folder, if it is not the one that the configuration names.
    pub state: Option<PathBuf>,
    /// The user to become instead of `node.user`.
    pub user: Option<String>,
    /// The configuration may have sections that only tests need.
    pub testing: bool,
    /// Take the listeners of the process that runs on the same state, which then ends.
    pub take_over: bool,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// What is built in, to try everything on loopback.
    #[default]
    QuickStart,
    /// The owner's file.
    File(PathBuf),
}

impl Source {
    /// Returns the file, if there is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::QuickStart => None,
            Self::File(path) => Some(path),
        }
    }

    /// Returns the source as the configuration's own room names it.
    pub fn to_config(&self) -> config::Source<'_> {
        match self {
            Self::QuickStart => config::Source::QuickStart,
            Self::File(path) => config::Source::File(path),
        }
    }
}

impl Options {
    /// Returns what the command line adds to the configuration.
    pub fn to_config(&self) -> config::Options {
        config::Options { state: self.state.clone(), testing: self.testing, ..config::Options::default() }
    }
}

/// The running process.
#[derive(Debug)]
pub struct Edge {
    options: Options,
    state: PathBuf,
    privileges: String,
    started: Instant,
    planes: Planes,
    clock: Clock,
    scrape: Arc<scrape::Scrape>,
    confirm: Arc<confirm::Confirm>,
    follower: Arc<Follower>,
    announcer: Option<Arc<Announcer>>,
    history: Option<Arc<History>>,
    watch: Option<Arc<watch::Plane>>,
    directory: Arc<ArcSwap<Directory>>,
    watched: OnceLock<Vec<(&'static str, Watched)>>,
    audit: Arc<Audit>,
    keeper: Arc<backup::Keeper>,
    /// Held by whoever changes the configuration.
    changing: Mutex<()>,
    /// A change that is taken back unless it is confirmed.
    pending: Mutex<Option<pending::Pending>>,
    force: ArcSwap<InForce>,
    refused: ArcSwapOption<status::Refused>,
    series: build::Series,
    /// Keys keep their ids as long as the process lives.
    peer_ids: Mutex<PeerIds>,
}

/// The configuration in force.
#[derive(Debug)]
struct InForce {
    config: Arc<Compiled>,
    /// The owner's file as it was read: edits are made to this, whatever stands on disk meanwhile.
    file: String,
    digest: String,
    generation: u64,
    loaded: Timestamp,
}

//! From options to a process that is bound, without privileges, and has its first policy.

use std::{io, path::Path, sync::Arc, time::Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;

use crate::{
    announce::Announcer,
    app::{
        Edge, InForce, Options, Source, backup::Keeper, confirm::Confirm, lock, log, pending, pending::Pending,
        scrape::Scrape, succession::Succession, wire::Planes,
    },
    audit::Audit,
    clock::Clock,
    config::{self, Loaded, PeerIds, Problems},
    descriptors,
    helper::Helper,
    listen::{self, BindError},
    metrics::Metrics,
    onlink::Follower,
    privilege, sandbox, vpn,
};

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is bad.
    #[error("{0}")]
    Config(Problems),
    /// What the configuration names cannot be used.
    #[error("{0}")]
    Prepare(String),
    /// A port is not to be had.
    #[error("{error}{hint}")]
    Bind {
        /// Which, and by what key it is changed.
        error: BindError,
        /// What else is known.
        hint: String,
    },
    /// The state folder is not ours.
    #[error(transparent)]
    State(#[from] super::state::Error),
    /// Another process uses the state.
    #[error("{0}")]
    Running(String),
    /// Root without a user to become, or a kernel that refuses.
    #[error(transparent)]
    Privilege(#[from] privilege::Error),
    /// The rest.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Series of the process itself.
#[derive(Debug)]
pub(super) struct Series {
    reload_ok: prometheus::IntGauge,
    reload_time: prometheus::Gauge,
    reloads: prometheus::IntCounterVec,
    /// Planes that were started again.
    pub(super) restarts: prometheus::IntGaugeVec,
}

impl Series {
    fn new(metrics: &Metrics) -> Self {
        let process = metrics.plane("process");
        let build = process.gauges("build_info", "Always 1; the labels say which build this is.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let start = process.float_gauge("start_time_seconds", "When the process started, in seconds since 1970.");
        start.set(seconds(Timestamp::now()));
        Self {
            reload_ok: process.gauge("config_last_reload_successful", "1 if the last attempt to load came into force."),
            reload_time: process.float_gauge(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration last came into force, in seconds since 1970.",
            ),
            reloads: process.counters("config_reloads_total", "Attempts to load a configuration.", &["outcome"]),
            restarts: process.gauges("plane_restarts", "How often a plane was started again.", &["plane"]),
        }
    }

    pub(super) fn loaded(&self, at: Timestamp) {
        self.reload_ok.set(1);
        self.reload_time.set(seconds(at));
        self.reloads.with_label_values(&["ok"]).inc();
    }

    pub(super) fn refused(&self) {
        self.reload_ok.set(0);
        self.reloads.with_label_values(&["refused"]).inc();
    }
}

fn seconds(at: Timestamp) -> f64 {
    std::time::Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default().as_secs_f64()
}

/// Loads the configuration that the options name, and writes nothing.
///
/// A text of the owner's file that was taken back, because nobody confirmed it, does not come into force by a restart.
pub(super) fn load(options: &Options, ids: &mut PeerIds) -> Result<Loaded, Problems> {
    let loaded = config::check(options.source.to_config(), &options.to_config(), ids)?;
    let Some(path) = options.source.file() else { return Ok(loaded) };
    let Some(before) = pending::instead_of(&loaded.compiled.node.state, &loaded.file) else { return Ok(loaded) };
    let before = config::check(config::Source::Text(path, &before), &options.to_config(), ids)?;
    log::start(before.compiled.node.log);
    tracing::warn!(
        file = %path.display(),
        "what stands in the file was taken back because nobody confirmed it: what held before holds until the file is \
         another one, or `hearthgate reload` is said"
    );
    Ok(before)
}

/// What there is to run.
pub(super) struct Built {
    pub(super) edge: Edge,
    pub(super) lock: lock::Lock,
    /// The process before this one, which works until this one begins.
    pub(super) succession: Option<Succession>,
}

/// Builds everything. Everything that needs a privilege happens in here, and no thread is started.
///
/// Nothing is written before every port is bound, and in the state folder nothing by root.
pub(super) fn build(options: Options) -> Result<Built, Failure> {
    let io = |what: String| move |error| Failure::Io { what, error };
    let mut peer_ids = PeerIds::default();
    let mut loaded = load(&options, &mut peer_ids).map_err(Failure::Config)?;
    let config = &loaded.compiled;
    log::start(config.node.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let user = privilege::user(options.user.as_deref().or(config.node.user.as_deref()))?;
    let state = config.node.state.clone();
    let descriptors = descriptors::raise();
    let mut succession = Succession::begin(&options, &state).map_err(io("the process that runs".into()))?;
    if succession.is_some() {
        // It may have been in the middle of a change; from here on it makes none.
        loaded = load(&options, &mut peer_ids).map_err(Failure::Config)?;
    }
    let config = &loaded.compiled;
    let follower = Follower::new(config.lan.clone()).map_err(io("addresses of this box".into()))?;
    let metrics = Metrics::new();
    let series = Series::new(&metrics);
    let audit = Arc::new(Audit::new(&state));
    let helper = helper(config, user.as_ref()).map_err(io("helper process".into()))?;
    let keeper = Arc::new(Keeper::new(helper.clone(), &metrics));
    let bound = Planes::bind(config, &follower, &metrics, helper, &audit).and_then(|(planes, doors)| {
        let (networks, inlet) = (follower.networks(), doors.metrics);
        let scrape = Scrape::bind(config.metrics.as_ref(), networks, metrics.clone(), inlet)?;
        Ok((planes, scrape, doors.confirm))
    });
    let (planes, scrape, to_confirm) = bound.map_err(|error| Failure::Bind { error, hint: hint(&options, &state) })?;
    let unclaimed = listen::disinherit();
    if unclaimed > 0 {
        tracing::info!(unclaimed, "the process before this one listened where the configuration says nothing now");
    }
    let announcer = match config.lan.announce {
        true => {
            let bound = Announcer::bind(&config.lan.interfaces, config.node.domain.as_str());
            let what = "router advertisements (`lan.announce`) need CAP_NET_RAW, or a start as root".into();
            Some(Arc::new(bound.map_err(io(what))?))
        }
        false => None,
    };
    super::state::claim(&state, user.as_ref())?;
    let lock = match succession.as_mut().and_then(Succession::lock) {
        Some(lock) => lock,
        None => lock::take(&state).map_err(|error| Failure::Running(error.to_string()))?,
    };
    let in_force = privilege::drop(user.as_ref())?;
    tracing::info!(user = in_force.user, capabilities = in_force.capabilities, "privileges dropped: {in_force}");
    let open = folders(config, &options, &state);
    let shut = sandbox::enter(config.node.sandbox, &open);
    sandbox::remember(&shut, &open);
    tracing::info!("sandbox: {shut}");
    if let Err(error) = std::fs::read_dir(&state) {
        let what = format!("state folder {} as user {} (another one: --state DIR)", state.display(), in_force.user);
        return Err(Failure::Io { what, error });
    }
    if let Source::File(path) = &options.source
        && let Err(error) = std::fs::File::open(path)
    {
        tracing::warn!(file = %path.display(), user = in_force.user, %error, "reload will fail: the file cannot be read any more");
    }
    tracing::info!(descriptors, "files and sockets that may be open at once");
    loaded.keep().map_err(io(format!("state folder {}", state.display())))?;
    let clock = Clock::with_floor(&state);
    planes.set_clock(&clock);
    // At a start it is said and no more: the house may have been renumbered meanwhile, and needs its DNS all the same.
    for covering in config.vpn.iter().flat_map(|vpn| vpn::covering(vpn, &follower.networks().load())) {
        tracing::warn!("{covering}");
    }
    let prepared = planes.prepare(config).map_err(Failure::Prepare)?;
    let confirm = Confirm::open(&state, planes.vpn.clone(), to_confirm, audit.clone());
    planes.commit(prepared);
    let now = Timestamp::now();
    series.loaded(now);
    let generation = super::reload::record(&state, &loaded, "start")
        .map_err(|error| Failure::Io { what: "history of the configuration".into(), error: io::Error::other(error) })?;
    audit.record("hearthgate", "start", &format!("generation {generation}"));
    let pending = Pending::resume(&state);
    if let Some(waiting) = pending.as_ref().map(Pending::waiting) {
        tracing::warn!(risk = waiting.risk, "a change waits to be confirmed (`hearthgate confirm`)");
    }
    let config = Arc::new(loaded.compiled);
    let directory = Arc::new(ArcSwap::from_pointee(config.directory.clone()));
    let history = super::queries::history(&config, &planes, &directory, &clock, &metrics);
    let watch = super::uptime::watch(&config, &planes, &metrics).map_err(Failure::Prepare)?;
    scrape.commit(&config);
    confirm.commit(&config);
    let force = InForce { config, file: loaded.file, digest: loaded.digest, generation, loaded: now };
    let edge = Edge {
        options,
        state,
        privileges: format!("{in_force}, {shut}"),
        started: Instant::now(),
        planes,
        clock,
        scrape: Arc::new(scrape),
        confirm: Arc::new(confirm),
        follower: Arc::new(follower),
        announcer,
        history,
        watch,
        directory,
        watched: std::sync::OnceLock::new(),
        audit,
        keeper,
        changing: std::sync::Mutex::new(()),
        pending: std::sync::Mutex::new(pending),
        force: ArcSwap::from_pointee(force),
        refused: ArcSwapOption::empty(),
        series,
        peer_ids: std::sync::Mutex::new(peer_ids),
    };
    Ok(Built { edge, lock, succession })
}

/// What the sandbox leaves open.
fn folders(config: &config::Compiled, options: &Options, state: &Path) -> sandbox::Folders {
    let files = config.files.iter().chain(options.source.file());
    let resolver = if config.dns.is_some() { sandbox::Resolver::Ours } else { sandbox::Resolver::System };
    let written = config.backup.iter().map(|backup| backup.folder.clone()).collect();
    sandbox::Folders { state: state.to_owned(), files: files.cloned().collect(), written, resolver }
}

/// Starts what runs programs of the owner's, if any is named, while it still may.
fn helper(config: &config::Compiled, user: Option<&privilege::User>) -> io::Result<Option<Helper>> {
    let programs = config.programs();
    if programs.is_empty() {
        return Ok(None);
    }
    Helper::start(&std::env::current_exe()?, &programs, user).map(Some)
}

/// What helps somebody whose port is taken: who has it, and where the key is if there is no file yet.
fn hint(options: &Options, state: &Path) -> String {
    let mut hint = String::new();
    if let Some(process) = lock::holder(state) {
        hint.push_str(&format!("\n{}", lock::Error::Held { state: state.to_owned(), process }));
    }
    if options.source == Source::QuickStart {
        hint.push_str(
            "\nthe quick start is config/quickstart.toml: copy it without its [[vpn.peer]], change the key there, and start with --config COPY",
        );
    }
    hint
}

//! The edge: hearthgate as built, with a house's configuration.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
};

use super::{
    client,
    tunnel::Key,
    world::{Program, World, shell, within},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hearthgate");

/// Where the Internet reaches the house, by IPv4 through the router and by IPv6 directly.
pub(crate) const WAN_V4: &str = "11.0.9.1";
/// The edge's address on the LAN.
pub(crate) const LAN_V4: &str = "192.168.1.2";
/// The gate's address inside the tunnel.
pub(crate) const INNER_V4: &str = "10.77.0.1";
/// The same for IPv6.
pub(crate) const INNER_V6: &str = "fd77::1";

/// Starts an edge with these sections behind `[node]`, and waits until `server` answers for `nas.home.example`.
pub(crate) fn serve(world: &World, sections: &str, server: &str) -> Program {
    let (state, config) = (world.path("state"), world.path("hearthgate.toml"));
    let state = state.display().to_string();
    let node = format!("[node]\ndomain = \"home.example\"\nstate = \"{state}\"\nuser = \"nobody\"\n\n");
    std::fs::write(&config, node + sections).expect("it is ours");
    std::fs::create_dir(&state).expect("it is ours");
    shell(&format!("chown nobody {state}"));
    let path = config.display().to_string();
    let process = world.edge.spawn(&world.path("hearthgate.log"), PROGRAM, &["run", "--config", &path]);
    let ask = format!("dig @{server} nas.home.example +time=1 +tries=1");
    let up = || world.edge.output(&ask).status.success();
    assert!(within(30, up), "hearthgate does not serve:\n{}", process.printed());
    process
}

/// The running hearthgate and the keys of its gate and peers.
pub(crate) struct Edge {
    process: Program,
    config: PathBuf,
    state: PathBuf,
    /// Where its clock is set, if not by the kernel.
    clock: Option<PathBuf>,
    /// The gate's own.
    pub(crate) gate: Key,
    /// Of group `admins`, inner addresses 10.77.0.2 and fd77::2.
    pub(crate) laptop: Key,
    /// Of no group, inner addresses 10.77.0.3 and fd77::3.
    pub(crate) phone: Key,
}

impl Edge {
    /// Writes the house's configuration, starts the edge and waits until its planes answer.
    pub(crate) fn start(world: &World) -> Self {
        Self::start_with(world, "mode = \"userspace\"")
    }

    /// The same with other lines in `[vpn]`.
    pub(crate) fn start_with(world: &World, vpn: &str) -> Self {
        Self::start_by(world, vpn, None)
    }

    /// The same with a clock that a file sets, as `faketime` reads it.
    pub(crate) fn start_at_another_time(world: &World, file: &Path) -> Self {
        Self::start_by(world, "mode = \"userspace\"", Some(file.to_owned()))
    }

    fn start_by(world: &World, vpn: &str, clock: Option<PathBuf>) -> Self {
        let keys = [Key::new(), Key::new(), Key::new()];
        let [gate, laptop, phone] = keys;
        let state = world.path("state");
        let config = world.path("hearthgate.toml");
        std::fs::write(world.path("ads.hosts"), "0.0.0.0 blocked.good.tld\n0.0.0.0 ads.tld www.ads.tld\n")
            .expect("it is ours");
        std::fs::write(world.path("gate.key"), format!("{}\n", gate.private)).expect("it is ours");
        std::fs::write(&config, file(world, vpn, &laptop, &phone)).expect("it is ours");
        std::fs::create_dir(&state).expect("it is ours");
        for path in [&state, &world.path("gate.key")] {
            super::world::shell(&format!("chown nobody {}", path.display()));
        }
        super::world::shell(&format!("chmod 600 {}", world.path("gate.key").display()));

        let process = Self::process(world, &config, clock.as_deref());
        Self { process, config, state, clock, gate, laptop, phone }.up(world)
    }

    /// Stops the edge as a service manager does, and starts it again.
    pub(crate) fn restart(mut self, world: &World) -> Self {
        world.edge.run(&format!("kill {}", self.process.pid()));
        assert!(within(30, || !self.process.runs()), "it does not stop");
        self.process = Self::process(world, &self.config, self.clock.as_deref());
        self.up(world)
    }

    /// Starts the next process beside the one that runs, which then ends.
    pub(crate) fn taken_over(mut self, world: &World) -> Self {
        let path = self.config.display().to_string();
        let log = world.path("next.log");
        let next = world.edge.spawn(&log, PROGRAM, &["run", "--take-over", "--config", &path]);
        let mut before = std::mem::replace(&mut self.process, next);
        let handed = || before.printed().contains("handed over");
        assert!(within(30, || handed() || !self.process.runs()) && self.process.runs(), "{}", self.process.printed());
        assert!(within(60, || !before.runs()), "the one before does not end:\n{}", before.printed());
        self.up(world)
    }

    fn process(world: &World, config: &Path, clock: Option<&Path>) -> Program {
        let (path, log) = (config.display().to_string(), world.path("hearthgate.log"));
        let run = ["run", "--config", &path];
        let Some(file) = clock else { return world.edge.spawn(&log, PROGRAM, &run) };
        // The clock that only goes forward is left alone, as when a real one is set.
        let library = shell("find /usr/lib -name libfaketimeMT.so.1").trim().to_owned();
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", file.display());
        let preload = format!("LD_PRELOAD={library}");
        let set = [&preload, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", PROGRAM];
        world.edge.spawn(&log, "env", &[&set[..], &run].concat())
    }

    fn up(mut self, world: &World) -> Self {
        let up = within(30, || !self.process.runs() || self.answers(world));
        assert!(up && self.process.runs(), "hearthgate does not serve:\n{}", self.process.printed());
        self
    }

    fn answers(&self, world: &World) -> bool {
        let listeners = world.edge.run("ss -Hlntu");
        [":53 ", ":80 ", ":443 ", ":9153 "].iter().all(|port| listeners.contains(port))
            && world.edge.output("dig @127.0.0.1 nas.home.example +time=1 +tries=1").status.success()
    }

    /// Runs a command of hearthgate beside the running one.
    pub(crate) fn command(&self, world: &World, arguments: &[&str]) -> Output {
        let mut command = world.edge.command(PROGRAM);
        command.args(arguments).arg("--config").arg(&self.config).output().expect("timeout is there")
    }

    /// Returns the configuration's path.
    pub(crate) fn config(&self) -> &PathBuf {
        &self.config
    }

    /// Says whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the certificate of the house's own CA.
    pub(crate) fn ca(&self) -> PathBuf {
        let found = super::world::shell(&format!("find {} -name *ca*.pem -not -name *key*", self.state.display()));
        let first = found.lines().next().unwrap_or_else(|| panic!("no CA below {}", self.state.display()));
        first.into()
    }

    /// Reads the metrics as this box.
    pub(crate) fn metrics(&self, world: &World) -> Metrics {
        let text = client::curl(&world.edge, &["http://127.0.0.1:9153/metrics"]);
        let (_, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no metrics: {text}"));
        Metrics { text: body.to_owned() }
    }
}

/// What `/metrics` said at one moment.
pub(crate) struct Metrics {
    /// The text format.
    pub(crate) text: String,
}

impl Metrics {
    /// Returns the values of the series whose names begin so.
    pub(crate) fn series(&self, prefix: &str) -> BTreeMap<String, f64> {
        let lines = self.text.lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }
}

/// Every address at which a host on the Internet can try the edge's TLS.
pub(crate) fn from_wan(port: u16) -> Vec<SocketAddr> {
    let direct = format!("{}::2", super::world::BEFORE[0]);
    [WAN_V4, &direct].map(|address| SocketAddr::new(address.parse().expect("an address"), port)).into()
}

fn file(world: &World, vpn: &str, laptop: &Key, phone: &Key) -> String {
    let at = |name: &str| world.path(name).display().to_string();
    // Without authoritative servers the edge knows the house's own names only.
    let hints = match world.path("root.hints").exists() {
        true => format!("root_hints    = \"{}\"\ntrust_anchors = \"{}\"", at("root.hints"), at("root.key")),
        false => String::new(),
    };
    format!(
        r#"
[node]
domain = "home.example"
state  = "{state}"
user   = "nobody"

[lan]
interfaces = ["eth0"]

[dns]
listen        = ["lan:53", "lo:53"]
resolve       = "recursive"
{hints}

[dns.records]
nas = ["192.168.1.10", "::10"]

[[dns.list]]
name   = "ads"
source = "{list}"
action = "block"

[[dns.group]]
name  = "default"
lists = ["ads"]

[ingress]
http  = ["0.0.0.0:80", "[::]:80"]
https = ["0.0.0.0:443", "[::]:443"]

[[route]]
host   = "photos.home.example"
access = "public"
to     = ["http://192.168.1.20:8001"]

[[route]]
host   = "files.home.example"
access = ["lan", "vpn"]
to     = ["http://192.168.1.20:8001"]

[[route]]
host   = "admin.home.example"
access = "vpn:admins"
to     = ["http://192.168.1.20:8002"]

[vpn]
listen      = ["0.0.0.0:443", "[::]:443"]
endpoint    = "11.0.9.1:443"
addresses   = ["10.77.0.1/24", "fd77::1/64"]
{vpn}
private_key = "{key}"

[[vpn.peer]]
name       = "laptop"
group      = "admins"
public_key = "{laptop}"
addresses  = ["10.77.0.2/32", "fd77::2/128"]
may_reach  = ["services"]

[[vpn.peer]]
name       = "phone"
public_key = "{phone}"
addresses  = ["10.77.0.3/32", "fd77::3/128"]
may_reach  = ["services"]

[metrics]
listen = ["lan:9153", "lo:9153"]
"#,
        state = at("state"),
        list = at("ads.hosts"),
        key = at("gate.key"),
        laptop = laptop.public,
        phone = phone.public,
    )
}

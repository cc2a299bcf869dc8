//! The namespaces: an Internet wire and a LAN wire, and the hosts on them.
//!
//! ```text
//!   servers 11.0.{0,1,2}.53   wan 11.0.9.77   roamer 11.0.9.88
//!        └──────────────┬─────────┴──────────────┘         the Internet's wire
//!                     router 11.0.9.1, 2a0f:9::1            forwards 80, 443 and, wrongly, 53 and 9153
//!        ┌──────────────┴─────────┬──────────────┐         the LAN's wire, 192.168.1.0/24
//!   edge .2 (hearthgate)       lan .20 (a client and the upstreams)
//! ```

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Every command in a namespace ends within this time.
const COMMAND_SECONDS: &str = "30";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The LAN's IPv6 prefixes; two are handed out by the provider and change.
pub(crate) const ULA: &str = "fd12:3456:789a:1";
pub(crate) const BEFORE: [&str; 2] = ["2a01:a:1:1", "2a02:b:1:1"];
pub(crate) const AFTER: [&str; 2] = ["2a01:a:2:2", "2a02:b:2:2"];

/// Returns whether a test can run here; says loudly what is missing if not.
pub(crate) fn ready(test: &str, programs: &[&str]) -> bool {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    for program in ["ip", "timeout"].iter().chain(programs) {
        if !folders.split(':').any(|folder| Path::new(folder).join(program).exists()) {
            missing.push(format!("the program `{program}`"));
        }
    }
    if missing.is_empty() {
        sweep();
        return true;
    }
    let sentence = format!("SKIPPED: {test}: it needs {}", missing.join(", "));
    assert!(std::env::var("HEARTHGATE_NETNS").as_deref() != Ok("required"), "{sentence}");
    eprintln!("{sentence}");
    false
}

/// Says whether the caller's test should be left, because something that it needs is missing.
macro_rules! needs {
    ($($program:literal),* $(,)?) => {
        if !$crate::world::ready(module_path!(), &[$($program),*]) {
            return;
        }
    };
}
pub(crate) use needs;

/// Deletes the namespaces of earlier runs that were killed.
fn sweep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let listed = Command::new("ip").args(["netns", "list"]).output().expect("ip runs");
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let name = line.split(' ').next().unwrap_or_default();
            let Some((pid, _)) = name.strip_prefix("hg-").and_then(|rest| rest.split_once('-')) else { continue };
            if !Path::new("/proc").join(pid).exists() {
                delete(name);
            }
        }
    });
}

/// Ends everything that runs in a namespace, then deletes it.
fn delete(namespace: &str) {
    if let Ok(pids) = Command::new("ip").args(["netns", "pids", namespace]).output() {
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        }
    }
    let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
}

/// A host: one namespace.
pub(crate) struct Host {
    namespace: String,
}

impl Host {
    fn new(tag: &str, name: &str) -> Self {
        let host = Self { namespace: format!("{tag}-{name}") };
        shell(&format!("ip netns add {}", host.namespace));
        host.run("ip link set lo up");
        for key in ["all.accept_dad", "default.accept_dad", "all.accept_ra", "default.accept_ra"] {
            host.sysctl(&format!("net.ipv6.conf.{key}"), 0);
        }
        host
    }

    /// A host on no wire.
    pub(crate) fn alone() -> Self {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::new(&format!("hg-{}-{serial}", std::process::id()), "alone")
    }

    fn sysctl(&self, key: &str, value: u32) {
        self.run(&format!("sysctl -qw {key}={value}"));
    }

    /// Returns a command that runs in this namespace and ends within a bounded time.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", COMMAND_SECONDS, "ip", "netns", "exec", &self.namespace, program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a line of words and returns what it printed and its status.
    pub(crate) fn output(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command has a program");
        self.command(program).args(words).output().expect("timeout is there, as `ready` found out")
    }

    /// Runs a line of words, which must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program that runs until the returned value is dropped; its output goes to `log`.
    pub(crate) fn spawn(&self, log: &Path, program: &str, arguments: &[&str]) -> Program {
        let out = File::create(log).expect("the log can be made");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace, program])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("a file can be shared"))
            .stdout(out)
            .spawn()
            .expect("ip runs");
        Program { child, log: log.to_owned() }
    }

    /// Runs a closure on a thread inside this namespace: its sockets are this host's sockets.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.namespace)).expect("the namespace is there");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use std::os::fd::AsFd;
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("root may enter it");
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        delete(&self.namespace);
    }
}

/// A program that runs as long as this value lives.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Returns what it has printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns its process id (`ip netns exec` becomes the program).
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.printed());
        }
    }
}

/// The whole small Internet.
pub(crate) struct World {
    pub(crate) servers: Host,
    pub(crate) wan: Host,
    pub(crate) roamer: Host,
    pub(crate) router: Host,
    pub(crate) edge: Host,
    pub(crate) lan: Host,
    /// Short and unique on this machine, for interfaces whose names are files somewhere.
    pub(crate) tag: String,
    folder: TempDir,
    wires: Host,
}

impl World {
    /// Builds the wires and hosts; nothing serves yet.
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;

        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("hg-{}-{serial}", std::process::id());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // The edge reads its files as another user.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");

        let wires = Host::new(&tag, "wires");
        for wire in ["internet", "lan"] {
            wires.run(&format!("ip link add {wire} type bridge"));
            wires.run(&format!("ip link set {wire} up"));
        }
        let host = |name: &str, plugs: &[(&str, &str)]| {
            let host = Host::new(&tag, name);
            for (interface, wire) in plugs {
                let far = format!("{name}-{interface}");
                wires.run(&format!("ip link add {far} type veth peer name {interface} netns {}", host.namespace));
                wires.run(&format!("ip link set {far} master {wire} up"));
                host.run(&format!("ip link set {interface} up"));
            }
            host
        };
        let world = Self {
            servers: host("servers", &[("eth0", "internet")]),
            wan: host("wan", &[("eth0", "internet")]),
            roamer: host("roamer", &[("eth0", "internet")]),
            router: host("router", &[("eth0", "lan"), ("eth1", "internet")]),
            edge: host("edge", &[("eth0", "lan")]),
            lan: host("lan", &[("eth0", "lan")]),
            tag: format!("{}{serial}", std::process::id()),
            folder,
            wires,
        };
        world.number();
        world
    }

    fn number(&self) {
        for third in 0..3 {
            self.servers.run(&format!("ip addr add 11.0.{third}.53/8 dev eth0"));
        }
        for (host, last) in [(&self.wan, 77), (&self.roamer, 88)] {
            host.run(&format!("ip addr add 11.0.9.{last}/8 dev eth0"));
            host.run(&format!("ip addr add 2a0f:9::{last}/64 dev eth0 nodad"));
            host.run("ip route add default via 11.0.9.1");
            host.run("ip route add default via 2a0f:9::1");
        }

        let router = &self.router;
        router.sysctl("net.ipv4.ip_forward", 1);
        router.sysctl("net.ipv6.conf.all.forwarding", 1);
        router.run("ip addr add 11.0.9.1/8 dev eth1");
        router.run("ip addr add 2a0f:9::1/64 dev eth1 nodad");
        router.run("ip addr add 192.168.1.1/24 dev eth0");
        router.run("ip addr add fe80::1/64 dev eth0 nodad");
        // 53 and 9153 are forwarded too: the edge must hold without the router's help.
        let rules = "
            table ip nat {
                chain in {
                    type nat hook prerouting priority dstnat;
                    iifname eth1 ip daddr 11.0.9.1 tcp dport { 53, 80, 443, 9153 } dnat to 192.168.1.2
                    iifname eth1 ip daddr 11.0.9.1 udp dport { 53, 443 } dnat to 192.168.1.2
                }
                chain out {
                    type nat hook postrouting priority srcnat;
                    oifname eth1 ip saddr 192.168.1.0/24 masquerade
                }
            }";
        let file = self.path("router.nft");
        std::fs::write(&file, rules).expect("the folder is ours");
        router.run(&format!("nft -f {}", file.display()));

        for (host, last) in [(&self.edge, 2), (&self.lan, 20)] {
            host.run(&format!("ip addr add 192.168.1.{last}/24 dev eth0"));
            host.run(&format!("ip addr add fe80::{last}/64 dev eth0 nodad"));
            host.run("ip route add default via 192.168.1.1");
            host.run("ip route add default via fe80::1 dev eth0");
        }
        self.hand_out(ULA);
        for prefix in BEFORE {
            self.hand_out(prefix);
        }
    }

    fn hand_out(&self, prefix: &str) {
        self.router.run(&format!("ip addr add {prefix}::1/64 dev eth0 nodad"));
        self.edge.run(&format!("ip addr add {prefix}::2/64 dev eth0 nodad"));
        self.lan.run(&format!("ip addr add {prefix}::20/64 dev eth0 nodad"));
    }

    /// The provider takes both global prefixes away and hands out others.
    pub(crate) fn renumber(&self) {
        for prefix in AFTER {
            self.hand_out(prefix);
        }
        for prefix in BEFORE {
            self.router.run(&format!("ip addr del {prefix}::1/64 dev eth0"));
            self.edge.run(&format!("ip addr del {prefix}::2/64 dev eth0"));
            self.lan.run(&format!("ip addr del {prefix}::20/64 dev eth0"));
        }
    }

    /// Makes a host behind `wan`, which becomes a router that hides it behind 11.0.9.77, each of its ports behind one that
    /// is chosen at random.
    pub(crate) fn guest_behind_nat(&self) -> Host {
        let guest = Host::new(self.wan.namespace.trim_end_matches("-wan"), "guest");
        self.wan.run(&format!("ip link add guest type veth peer name eth0 netns {}", guest.namespace));
        self.wan.run("ip link set guest up");
        self.wan.run("ip addr add 10.9.9.1/24 dev guest");
        guest.run("ip link set eth0 up");
        guest.run("ip addr add 10.9.9.2/24 dev eth0");
        guest.run("ip route add default via 10.9.9.1");
        self.wan.sysctl("net.ipv4.ip_forward", 1);
        self.hide_guest_behind("11.0.9.77");
        guest
    }

    /// The router of the guest gets another address, and forgets what it knew of connections.
    pub(crate) fn hide_guest_behind(&self, address: &str) {
        let rules = format!(
            "table ip guests\ndelete table ip guests\ntable ip guests {{ chain out {{ type nat hook postrouting priority srcnat; \
             ip saddr 10.9.9.0/24 oifname eth0 snat to {address} random; }}\n}}\n"
        );
        let file = self.path("guests.nft");
        std::fs::write(&file, rules).expect("the folder is ours");
        let _ = self.wan.output(&format!("ip addr add {address}/8 dev eth0"));
        self.wan.run(&format!("nft -f {}", file.display()));
        // What is under way has its address for as long as it is known.
        self.wan.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1");
        self.wan.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream=1");
    }

    /// Gives the edge a second interface, on the Internet's wire: 11.0.9.2 on eth1.
    pub(crate) fn plug_edge_into_the_internet(&self) {
        let edge = &self.edge.namespace;
        self.wires.run(&format!("ip link add edge-eth1 type veth peer name eth1 netns {edge}"));
        self.wires.run("ip link set edge-eth1 master internet up");
        self.edge.run("ip link set eth1 up");
        self.edge.run("ip addr add 11.0.9.2/8 dev eth1");
    }

    /// Pulls the roamer's cable out and plugs it into the other wire, with addresses of that one.
    pub(crate) fn take_roamer(&self, home: bool) {
        let (wire, address, gateway) = match home {
            true => ("lan", "192.168.1.88/24", "192.168.1.1"),
            false => ("internet", "11.0.9.88/8", "11.0.9.1"),
        };
        self.roamer.run("ip -4 addr flush dev eth0");
        self.wires.run(&format!("ip link set roamer-eth0 master {wire}"));
        self.roamer.run(&format!("ip addr add {address} dev eth0"));
        self.roamer.run(&format!("ip route replace default via {gateway}"));
    }

    /// Returns a path in this world's own folder, which vanishes with it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The folder of all files of this world.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs a line of words outside the namespaces, which must succeed.
pub(crate) fn shell(line: &str) -> String {
    shell_in(Path::new("/"), line)
}

/// Runs a line of words in a folder, which must succeed.
pub(crate) fn shell_in(folder: &Path, line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", COMMAND_SECONDS]).args(&mut words).current_dir(folder);
    let output = command.stdin(Stdio::null()).output().expect("timeout is there, as `ready` found out");
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks again until the answer is yes or the time is over; returns whether it was.
pub(crate) fn within(seconds: u64, mut ask: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if ask() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

//! The four resolvers: hearthgate in the house, the others on the Internet's wire, each on an address of its
//! own, with the same hints and the same anchor.

use super::{
    super::{
        edge::PROGRAM,
        world::{Program, World, within},
    },
    tree::Tree,
};

/// Whom the questions go to.
pub(super) const ADDRESSES: [&str; 4] = ["192.168.1.2", "11.0.9.101", "11.0.9.102", "11.0.9.103"];
/// What they are called.
pub(super) const NAMES: [&str; 4] = ["hearthgate", "unbound", "knot", "powerdns"];

/// The running resolvers.
pub(super) struct Resolvers {
    _programs: [Program; 4],
}

impl Resolvers {
    pub(super) fn start(world: &World, tree: &Tree) -> Self {
        std::fs::write(world.path("root.hints"), &tree.hints).expect("the folder is ours");
        std::fs::write(world.path("root.key"), &tree.anchor).expect("the folder is ours");
        for address in &ADDRESSES[1..] {
            world.wan.run(&format!("ip addr add {address}/8 dev eth0"));
        }
        let programs = [hearthgate(world), unbound(world), knot(world), powerdns(world, tree)];
        for (address, name) in ADDRESSES.iter().zip(NAMES) {
            let question = format!("dig @{address} www.nsec.tld A +tries=1 +time=2");
            let up =
                within(20, || String::from_utf8_lossy(&world.lan.output(&question).stdout).contains("status: NOERROR"));
            let place = NAMES.iter().position(|other| *other == name).expect("it is one of them");
            assert!(up, "{name} does not answer: {}", programs[place].printed());
        }
        Self { _programs: programs }
    }
}

fn write(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    std::fs::write(&path, text).expect("the folder is ours");
    path.display().to_string()
}

fn at(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

fn folder(world: &World, name: &str) -> String {
    std::fs::create_dir(world.path(name)).expect("the folder is ours");
    at(world, name)
}

fn hearthgate(world: &World) -> Program {
    let state = folder(world, "state");
    super::super::world::shell(&format!("chown nobody {state}"));
    let config = format!(
        "[node]\nstate = \"{state}\"\nuser = \"nobody\"\n[lan]\ninterfaces = [\"eth0\"]\n[dns]\n\
         listen = [\"lan:53\"]\nroot_hints = \"{}\"\ntrust_anchors = \"{}\"\n",
        at(world, "root.hints"),
        at(world, "root.key"),
    );
    let config = write(world, "hearthgate.toml", &config);
    world.edge.spawn(&world.path("hearthgate.log"), PROGRAM, &["run", "--config", &config])
}

fn unbound(world: &World) -> Program {
    let config = format!(
        "server:\n interface: {}\n access-control: 0.0.0.0/0 allow\n do-ip6: no\n do-daemonize: no\n username: \"\"\n \
         chroot: \"\"\n directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n num-threads: 1\n \
         module-config: \"validator iterator\"\n root-hints: \"{}\"\n trust-anchor-file: \"{}\"\n \
         qname-minimisation: yes\nremote-control:\n control-enable: no\n",
        ADDRESSES[1],
        folder(world, "unbound"),
        at(world, "root.hints"),
        at(world, "root.key"),
    );
    let config = write(world, "unbound.conf", &config);
    world.wan.spawn(&world.path("unbound.log"), "unbound", &["-d", "-c", &config])
}

fn knot(world: &World) -> Program {
    let config = format!(
        "net.ipv6 = false\nnet.listen('{}', 53, {{ kind = 'dns' }})\nmodules.load('hints')\n\
         for _, name in ipairs({{ 'ta_update', 'ta_signal_query', 'priming', 'detect_time_skew', 'detect_time_jump' }}) \
         do modules.unload(name) end\n\
         hints.root_file('{}')\ntrust_anchors.add_file('{}', true)\ncache.open(20 * MB, 'lmdb://.')\n",
        ADDRESSES[2],
        at(world, "root.hints"),
        at(world, "root.key"),
    );
    let config = write(world, "kresd.conf", &config);
    world.wan.spawn(&world.path("kresd.log"), "kresd", &["-n", "-c", &config, &folder(world, "kresd")])
}

fn powerdns(world: &World, tree: &Tree) -> Program {
    let folder = folder(world, "powerdns");
    let ds: Vec<&str> = tree.ds.split_whitespace().collect();
    let [.., tag, algorithm, digest, hash] = ds[..] else { panic!("no DS: {}", tree.ds) };
    let anchors = format!("clearTA()\naddTA('.', \"{tag} {algorithm} {digest} {hash}\")\n");
    let anchors = write(world, "powerdns/anchors.lua", &anchors);
    let settings = [
        ("config-dir", folder.as_str()),
        ("socket-dir", &folder),
        ("local-address", ADDRESSES[3]),
        ("allow-from", "0.0.0.0/0"),
        ("hint-file", &at(world, "root.hints")),
        ("lua-config-file", &anchors),
        ("dnssec", "validate"),
        ("dont-query", ""),
        ("security-poll-suffix", ""),
        ("daemon", "no"),
        ("disable-syslog", "yes"),
        ("write-pid", "no"),
        ("threads", "1"),
    ]
    .map(|(key, value)| format!("--{key}={value}"));
    let settings = settings.each_ref().map(String::as_str);
    world.wan.spawn(&world.path("powerdns.log"), "pdns_recursor", &settings)
}

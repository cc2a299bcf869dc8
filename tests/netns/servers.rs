//! What stands on the Internet and behind the edge: authoritative servers (nsd, over zones that
//! ldns-signzone signed) and upstreams (nginx).

use std::{path::Path, sync::OnceLock};

use super::world::{Host, Program, World, shell_in, within};

/// The zones as they are served, by origin, and the anchor of the root.
#[derive(Clone)]
struct Zones {
    root: String,
    tld: String,
    leaves: Vec<(&'static str, String)>,
    anchor: Anchor,
}

/// The root's key, in both forms in which it can be trusted.
#[derive(Clone)]
struct Anchor {
    ds: String,
    dnskey: String,
}

/// How a leaf zone is made.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Good,
    GoodNsec3,
    Bogus,
    Expired,
    Unsigned,
}

const LEAVES: [(&str, Kind); 6] = [
    ("good.tld.", Kind::Good),
    ("hashed.tld.", Kind::GoodNsec3),
    ("bogus.tld.", Kind::Bogus),
    ("expired.tld.", Kind::Expired),
    ("unsigned.tld.", Kind::Unsigned),
    ("ads.tld.", Kind::Unsigned),
];

/// The servers of the root, the TLD and the leaves.
pub(crate) struct Authorities {
    _programs: Vec<Program>,
}

impl Authorities {
    /// Starts one nsd for each level on an address of its own, and writes `root.hints`, `root.ds` and
    /// `root.key`.
    pub(crate) fn start(world: &World) -> Self {
        static ZONES: OnceLock<Zones> = OnceLock::new();
        let zones = ZONES.get_or_init(make_zones);
        std::fs::write(world.path("root.hints"), ". 3600000 IN NS a.root.\na.root. 3600000 IN A 11.0.0.53\n")
            .expect("the folder is ours");
        std::fs::write(world.path("root.ds"), &zones.anchor.ds).expect("the folder is ours");
        std::fs::write(world.path("root.key"), &zones.anchor.dnskey).expect("the folder is ours");
        let levels = [
            ("root", "11.0.0.53", vec![(".", zones.root.clone())]),
            ("tld", "11.0.1.53", vec![("tld.", zones.tld.clone())]),
            ("leaf", "11.0.2.53", zones.leaves.clone()),
        ];
        let programs = levels.map(|(level, address, zones)| nsd(world, level, address, &zones));
        for (address, apex) in [("11.0.0.53", "."), ("11.0.1.53", "tld."), ("11.0.2.53", "good.tld.")] {
            let question = format!("dig @{address} {apex} SOA +norecurse +tries=1 +time=1");
            let up = within(10, || {
                String::from_utf8_lossy(&world.servers.output(&question).stdout).contains("flags: qr aa")
            });
            assert!(up, "nsd does not serve {apex} on {address}");
        }
        Self { _programs: programs.into() }
    }
}

fn nsd(world: &World, level: &str, address: &str, zones: &[(&'static str, String)]) -> Program {
    let folder = world.path(&format!("nsd-{level}"));
    std::fs::create_dir(&folder).expect("the folder is ours");
    let at = folder.display();
    let mut config = format!(
        "server:\n ip-address: {address}\n port: 53\n zonesdir: \"{at}\"\n pidfile: \"\"\n username: \"\"\n \
         database: \"\"\n zonelistfile: \"{at}/list\"\n xfrdfile: \"{at}/xfrd\"\n server-count: 1\n \
         rrl-ratelimit: 0\n hide-version: yes\nremote-control:\n control-enable: no\n"
    );
    for (origin, text) in zones {
        let file = format!("{origin}zone");
        std::fs::write(folder.join(&file), text).expect("the folder is ours");
        config += &format!("zone:\n name: \"{origin}\"\n zonefile: \"{file}\"\n");
    }
    let file = folder.join("nsd.conf");
    std::fs::write(&file, config).expect("the folder is ours");
    let file = file.display().to_string();
    world.servers.spawn(&world.path(&format!("nsd-{level}.log")), "nsd", &["-d", "-c", &file])
}

fn make_zones() -> Zones {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder.path();
    let mut tld = zone("tld.", "11.0.1.53", "");
    let mut leaves = Vec::new();
    for (origin, kind) in LEAVES {
        tld += &format!("{origin} NS ns.{origin}\nns.{origin} A 11.0.2.53\n");
        let records = format!(
            "www.{origin} A 11.0.3.1\nalias.{origin} CNAME www.{origin}\n*.wild.{origin} A 11.0.3.2\n\
             tracker.{origin} CNAME www.ads.tld.\n"
        );
        let plain = zone(origin, "11.0.2.53", &records);
        let text = match kind {
            Kind::Unsigned => plain,
            _ => {
                let (signed, ds) = sign(folder, origin, &plain, kind);
                tld += &ds;
                signed
            }
        };
        // The signature still stands over the old address.
        let damaged = text.replace("11.0.3.1", "11.0.3.9");
        leaves.push((origin, if kind == Kind::Bogus { damaged } else { text }));
    }
    let (tld, ds) = sign(folder, "tld.", &tld, Kind::Good);
    let root = zone(".", "11.0.0.53", &format!("tld. NS ns.tld.\nns.tld. A 11.0.1.53\n{ds}"));
    let (root, ds) = sign(folder, ".", &root, Kind::Good);
    let dnskey = root.lines().find(|line| line.contains("DNSKEY")).expect("a signed zone has its key");
    let anchor = Anchor { ds, dnskey: format!("{dnskey}\n") };
    Zones { root, tld, leaves, anchor }
}

fn zone(origin: &str, address: &str, records: &str) -> String {
    let server = if origin == "." { "a.root.".to_owned() } else { format!("ns.{origin}") };
    format!(
        "$ORIGIN {origin}\n$TTL 300\n{origin} SOA {server} hostmaster.{server} 1 3600 600 86400 60\n\
         {origin} NS {server}\n{server} A {address}\n{records}"
    )
}

/// Signs a zone and returns it with the DS records for its parent.
fn sign(folder: &Path, origin: &str, text: &str, kind: Kind) -> (String, String) {
    let key = shell_in(folder, &format!("ldns-keygen -a ECDSAP256SHA256 -k {origin}"));
    let key = key.trim();
    std::fs::write(folder.join("zone"), text).expect("the folder is ours");
    // Validity by itself: a day to each side, or a month of last year's January.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_secs();
    let (from, to) = match kind {
        Kind::Expired => (now - 60 * 86400, now - 30 * 86400),
        _ => (now - 86400, now + 86400),
    };
    let hashed = if kind == Kind::GoodNsec3 { "-n -t 0" } else { "" };
    shell_in(folder, &format!("ldns-signzone {hashed} -i {from} -e {to} -o {origin} -f signed zone {key}"));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("the program just wrote it");
    (read("signed"), read(&format!("{key}.ds")))
}

/// A web server in the house.
pub(crate) struct Site {
    _program: Program,
}

impl Site {
    /// Starts nginx: port 8001 is the public site, 8002 the administrators'. Both echo what they were told
    /// about the client.
    pub(crate) fn start(world: &World) -> Self {
        let folder = world.path("nginx");
        std::fs::create_dir(&folder).expect("the folder is ours");
        let big = vec![b'.'; 10 << 20];
        std::fs::write(folder.join("big"), big).expect("the folder is ours");
        let at = folder.display();
        let site = |port: u16, name: &str| {
            format!(
                "server {{ listen 192.168.1.20:{port}; location / {{ default_type text/plain; \
                 return 200 '{name} host=$host uri=$request_uri for=$http_x_forwarded_for \
                 proto=$http_x_forwarded_proto forwarded=$http_forwarded real=$http_x_real_ip\\n'; }} \
                 location = /big {{ root {at}; }} }}\n"
            )
        };
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; \
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f; \
             uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n{}{}}}\n",
            site(8001, "photos"),
            site(8002, "administrators")
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).expect("the folder is ours");
        let log = world.path("nginx.log");
        let file = file.display().to_string();
        let program = world.lan.spawn(&log, "nginx", &["-c", &file, "-e", "stderr"]);
        let up = within(10, || world.lan.output("curl -s http://192.168.1.20:8001/").status.success());
        assert!(up, "nginx does not serve: {}", program.printed());
        Self { _program: program }
    }
}

/// What a home router does with its clients' questions: it forwards them, from its own address.
pub(crate) struct Forwarder {
    _programs: Vec<Program>,
}

impl Forwarder {
    /// Starts one for UDP and one for TCP on the gateway's address.
    pub(crate) fn start(world: &World) -> Self {
        let start = |name: &str, from: &str, to: &str| {
            world.router.spawn(&world.path(&format!("forwarder-{name}.log")), "socat", &[from, to])
        };
        let programs = vec![
            start("udp", "UDP4-LISTEN:53,bind=192.168.1.1,fork,reuseaddr", "UDP4:192.168.1.2:53"),
            start("tcp", "TCP4-LISTEN:53,bind=192.168.1.1,fork,reuseaddr", "TCP4:192.168.1.2:53"),
        ];
        let up = within(10, || listens(&world.router, "192.168.1.1:53"));
        assert!(up, "socat does not listen");
        Self { _programs: programs }
    }
}

fn listens(host: &Host, place: &str) -> bool {
    let listeners = host.run("ss -Hlntu");
    listeners.lines().filter(|line| line.contains(place)).count() >= 2
}

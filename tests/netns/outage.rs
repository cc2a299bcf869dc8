//! No way out: what clients of the real process are told, and how soon all is well again.

use std::{fmt::Write as _, path::PathBuf};

use super::{
    client::{Answer, dig},
    edge::PROGRAM,
    servers::{Authorities, nsd},
    world::{Program, World, needs, shell, within},
};

/// A hearthgate that is the house's DNS and nothing else.
pub(crate) struct Resolver {
    pub(crate) process: Program,
}

impl Resolver {
    /// Starts it with these lines in `[dns]` and behind, as `program` with its first arguments says.
    pub(crate) fn start(world: &World, program: &str, first: &[&str], lines: &str) -> Self {
        let state = world.path("resolver-state");
        if !state.exists() {
            std::fs::create_dir(&state).expect("the folder is ours");
            shell(&format!("chown nobody {}", state.display()));
        }
        let file: PathBuf = world.path("resolver.toml");
        let mut text = format!(
            "[node]\ndomain = \"home.example\"\nuser = \"nobody\"\nstate = {state:?}\nntp = [\"www.good.tld\"]\n\
             [lan]\ninterfaces = [\"eth0\"]\n[dns]\nlisten = [\"lan:53\", \"lo:53\"]\nroot_hints = {:?}\n",
            world.path("root.hints"),
        );
        let _ = write!(text, "{lines}\n[dns.records]\nnas = [\"192.168.1.10\"]\n");
        std::fs::write(&file, text).expect("the folder is ours");
        let file = file.display().to_string();
        let arguments = [first, &["run", "--config", &file, "--testing"]].concat();
        let process = world.edge.spawn(&world.path("resolver.log"), program, &arguments);
        let mut own = Self { process };
        let up = within(30, || {
            !own.process.runs()
                || world.edge.output("dig @127.0.0.1 nas.home.example +time=1 +tries=1").status.success()
        });
        assert!(up && own.process.runs(), "it does not serve:\n{}", own.process.printed());
        own
    }
}

/// Waits for no longer than a second for an answer; without one, its status is empty.
fn soon(world: &World, question: &str) -> Answer {
    dig(&world.lan, &format!("@192.168.1.2 +dnssec +time=1 +tries=1 {question}"))
}

/// How the link is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The router has no way out, and says so.
    Unreachable,
    /// Nothing comes back.
    Silent,
}

fn cut(world: &World, loss: Loss) {
    match loss {
        Loss::Unreachable => drop(world.router.run("ip link set eth1 down")),
        Loss::Silent => {
            world.router.run("nft add table ip outage");
            world.router.run("nft add chain ip outage forward { type filter hook forward priority 0 ; }");
            world.router.run("nft add rule ip outage forward ip saddr 192.168.1.2 drop");
        }
    }
}

fn mend(world: &World, loss: Loss) {
    match loss {
        Loss::Unreachable => drop(world.router.run("ip link set eth1 up")),
        Loss::Silent => drop(world.router.run("nft delete table ip outage")),
    }
}

fn anchored(world: &World) -> String {
    format!("trust_anchors = {:?}\nttl_max = 2\n[dns.testing]\nlog_upstream = true\n", world.path("root.key"))
}

/// Asks for names that nobody knows until the outage is recognised.
fn is_recognised(world: &World) -> bool {
    let mut number = 0;
    within(15, || {
        number += 1;
        let answer = soon(world, &format!("n{number}.good.tld A"));
        answer.status == "SERVFAIL" && answer.has_extended_error(22)
    })
}

#[test]
fn names_that_were_known_are_answered_without_a_link_and_all_is_well_within_three_seconds_of_its_return() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig");
    for loss in [Loss::Unreachable, Loss::Silent] {
        let world = World::new();
        let _authorities = Authorities::start(&world);
        let _resolver = Resolver::start(&world, PROGRAM, &[], &anchored(&world));
        let known = "www.good.tld A";
        let good = soon(&world, known);
        assert_eq!((good.status.as_str(), good.authenticated), ("NOERROR", true), "{}", good.text);
        std::thread::sleep(std::time::Duration::from_secs(3));

        cut(&world, loss);
        assert!(is_recognised(&world), "{loss:?}");

        for number in 0..5 {
            let stale = soon(&world, known);
            assert_eq!((stale.status.as_str(), stale.authenticated), ("NOERROR", false), "{loss:?} {}", stale.text);
            assert!(stale.has_extended_error(3), "{loss:?} {}", stale.text);
            let other = soon(&world, &format!("m{number}.hashed.tld A"));
            assert!(other.status == "SERVFAIL" && other.has_extended_error(22), "{loss:?} {}", other.text);
            let own = soon(&world, "nas.home.example A");
            assert_eq!(own.status, "NOERROR", "{loss:?} {}", own.text);
        }

        mend(&world, loss);
        let mut last = String::new();
        let well = within(3, || {
            let answer = soon(&world, known);
            last = answer.text;
            answer.status == "NOERROR" && answer.authenticated
        });
        assert!(well, "{loss:?} {last}");
        let well = within(3, || {
            let answer = soon(&world, "www.hashed.tld A");
            last = answer.text;
            answer.status == "NOERROR" && answer.authenticated
        });
        assert!(well, "{loss:?} {last}");
    }
}

#[test]
fn a_house_that_starts_without_a_link_knows_its_own_names_and_is_well_within_three_seconds_of_its_coming() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig");
    for loss in [Loss::Unreachable, Loss::Silent] {
        let world = World::new();
        let _authorities = Authorities::start(&world);
        cut(&world, loss);
        let _resolver = Resolver::start(&world, PROGRAM, &[], &anchored(&world));
        assert!(is_recognised(&world), "{loss:?}");
        let own = soon(&world, "nas.home.example A");
        assert_eq!(own.status, "NOERROR", "{loss:?} {}", own.text);
        let other = soon(&world, "www.good.tld A");
        assert!(other.status == "SERVFAIL" && other.has_extended_error(22), "{loss:?} {}", other.text);

        mend(&world, loss);

        let mut last = String::new();
        let well = within(3, || {
            let answer = soon(&world, "www.good.tld A");
            last = answer.text;
            answer.status == "NOERROR" && answer.authenticated
        });
        assert!(well, "{loss:?} {last}");
    }
}

#[test]
fn a_family_that_is_broken_alone_is_left_out() {
    needs!("nsd", "nft", "dig");
    for broken in ["ipv4", "ipv6"] {
        let world = World::new();
        for place in 0..3 {
            world.servers.run(&format!("ip addr add 2a0f:9::{place}:53/64 dev eth0 nodad"));
        }
        world.servers.run("ip route add default via 2a0f:9::1");
        let zone = |origin: &str, place: u32, records: &str| {
            let server = if origin == "." { "a.root.".to_owned() } else { format!("ns.{origin}") };
            let text = format!(
                "$ORIGIN {origin}\n$TTL 300\n{origin} SOA {server} host.{server} 1 3600 600 86400 60\n\
                 {origin} NS {server}\n{server} A 11.0.{place}.53\n{server} AAAA 2a0f:9::{place}:53\n{records}"
            );
            vec![(origin.to_owned(), text)]
        };
        let below = |origin: &str, place: u32| {
            format!("{origin} NS ns.{origin}\nns.{origin} A 11.0.{place}.53\nns.{origin} AAAA 2a0f:9::{place}:53\n")
        };
        let levels = [
            ("root", zone(".", 0, &below("tld.", 1))),
            ("tld", zone("tld.", 1, &below("leaf.tld.", 2))),
            ("leaf", zone("leaf.tld.", 2, "*.leaf.tld. A 11.0.3.1\n")),
        ];
        let _servers: Vec<Program> = (0..)
            .zip(&levels)
            .flat_map(|(place, (level, zones))| {
                [("4", format!("11.0.{place}.53")), ("6", format!("2a0f:9::{place}:53"))]
                    .map(|(family, address)| nsd(&world, &format!("{level}{family}"), &address, zones))
            })
            .collect();
        let hints = ". 3600000 IN NS a.root.\na.root. 3600000 IN A 11.0.0.53\na.root. 3600000 IN AAAA 2a0f:9::0:53\n";
        std::fs::write(world.path("root.hints"), hints).expect("the folder is ours");
        for address in ["11.0.2.53", "2a0f:9::2:53"] {
            let up =
                within(10, || dig(&world.edge, &format!("@{address} leaf.tld SOA +norec +time=1")).status == "NOERROR");
            assert!(up, "{address}");
        }
        world.servers.run("nft add table inet broken");
        world.servers.run("nft add chain inet broken in { type filter hook input priority 0 ; }");
        for transport in ["udp", "tcp"] {
            world.servers.run(&format!("nft add rule inet broken in meta nfproto {broken} {transport} dport 53 drop"));
        }
        let resolver = Resolver::start(&world, PROGRAM, &[], "[dns.testing]\nanchors = []\nlog_upstream = true\n");
        let ask = |number: u32| soon(&world, &format!("n{number}.leaf.tld A")).status;
        let learnt = within(20, || (0..5).all(|number| ask(1000 + number) == "NOERROR"));
        assert!(learnt, "{broken}: {}", resolver.process.printed());
        for number in 0..20 {
            ask(number);
        }

        let before = resolver.process.printed().len();
        for number in 100..160 {
            assert_eq!(ask(number), "NOERROR", "{broken} {number}");
        }

        let printed = resolver.process.printed();
        let over = |line: &&str| match broken {
            "ipv4" => line.starts_with("upstream to 11."),
            _ => line.starts_with("upstream to [2a0f"),
        };
        let asked = printed[before..].lines().filter(over).count();
        assert!(asked <= 6, "{broken}: {asked} messages over the family that is broken");
    }
}

//! The LAN through the kernel: at full speed, under the same policy, and gone with the process.

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, INNER_V6, LAN_V4},
    relay::peer,
    servers::Site,
    world::{Program, World, needs, within},
};

const NAT: &str = "mode = \"tun\"\nlan = \"nat\"";
const ROUTE: &str = "mode = \"tun\"\nlan = \"route\"";

fn world() -> World {
    let world = World::new();
    world.edge.run("sysctl -qw net.ipv4.ip_forward=1");
    world.edge.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
    world
}

/// Tells who asks, on port 7000 of the LAN's host.
fn mirror(world: &World) -> Program {
    let arguments = ["TCP4-LISTEN:7000,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"];
    let program = world.lan.spawn(&world.path("mirror.log"), "socat", &arguments);
    assert!(within(10, || world.lan.run("ss -Hltn").contains(":7000 ")), "socat does not listen");
    program
}

fn who(world: &World) -> String {
    let seen = world.roamer.output("socat -T5 - TCP4:192.168.1.20:7000,connect-timeout=5");
    String::from_utf8_lossy(&seen.stdout).trim().to_owned()
}

fn dropped(world: &World, edge: &Edge, reason: &str) -> f64 {
    let series = edge.metrics(world).series("hearthgate_vpn_drops_total");
    series.iter().filter(|(name, _)| name.contains(&format!("\"{reason}\""))).map(|(_, value)| value).sum()
}

#[test]
fn a_peer_reaches_the_lan_by_the_kernel_and_the_lan_sees_this_box() {
    needs!("nft", "dig", "curl", "nginx", "socat", "ping", "wg", "wireguard-go");
    let world = world();
    let _site = Site::start(&world);
    let _mirror = mirror(&world);
    let edge = Edge::start_with(&world, NAT);
    let _tunnel = peer(&world, &edge, "tcp 192.168.1.0/24 1-8001,192.168.1.20/32");

    assert_eq!(who(&world), "192.168.1.2");
    let page = curl(
        &world.roamer,
        &["--max-time", "20", "-o", "/dev/null", "-w", "%{size_download}", "http://192.168.1.20:8001/big"],
    );
    assert!(page.contains("10485760"), "{page}");
    let pinged = world.roamer.output("ping -c 2 -W 3 192.168.1.20");
    assert!(pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));
    // Larger than the tunnel: in pieces.
    let pinged = world.roamer.output("ping -c 2 -W 3 -s 4000 192.168.1.20");
    assert!(pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));

    for (target, why) in [
        ("192.168.1.1:7999", "nobody listens"),
        (&format!("{LAN_V4}:80"), "the box itself"),
        (&format!("{LAN_V4}:9153"), "the box itself"),
        ("10.77.0.3:80", "a peer"),
        (&format!("{INNER_V4}:80"), "a service that it may not use"),
    ] {
        let page = curl(&world.roamer, &["--max-time", "8", &format!("http://{target}/")]);
        assert!(page.contains("curl: (7)"), "{target}, {why}: {page}");
    }
    let own = dig(&world.roamer, &format!("@{LAN_V4} +tries=1 +time=2 nas.home.example A"));
    assert_eq!(own.status, "", "{}", own.text);
    let refused = || -> f64 { edge.metrics(&world).series("hearthgate_vpn_peer_refused_total").values().sum() };
    assert!(within(5, || refused() >= 4.0), "{}", edge.metrics(&world).text);

    let interfaces = world.edge.run("ip -o addr show");
    assert!(!interfaces.contains(INNER_V4) && !interfaces.contains(INNER_V6), "{interfaces}");
    world.edge.run(&format!("kill {}", edge.pid()));
    let gone = || !world.edge.run("nft list ruleset").contains("masquerade");
    assert!(within(10, gone), "{}", world.edge.run("nft list ruleset"));
    assert!(!world.edge.run("ip -o link show").contains("hearthgate"), "the device stays");
}

#[test]
fn connections_through_the_kernel_outlive_the_process() {
    needs!("nft", "dig", "curl", "nginx", "socat", "wg", "wireguard-go");
    let world = world();
    let _site = Site::start(&world);
    let arguments = ["TCP4-LISTEN:7001,fork,reuseaddr", "EXEC:cat"];
    let _echo = world.lan.spawn(&world.path("echo.log"), "socat", &arguments);
    let edge = Edge::start_with(&world, NAT);
    let _tunnel = peer(&world, &edge, "services,tcp 192.168.1.0/24 1-8001");
    let talk = "(for n in $(seq 40); do echo $n; sleep 0.2; done) | socat -t20 - TCP4:192.168.1.20:7001";
    let talking = world.path("talk.txt");
    let script = format!("{talk} > {}", talking.display());
    let mut talker = world.roamer.spawn(&world.path("talk.log"), "sh", &["-c", &script]);
    let said = || std::fs::read_to_string(&talking).unwrap_or_default().lines().count();
    assert!(within(10, || said() > 3), "nothing comes back: {}", talker.printed());

    let edge = edge.taken_over(&world);

    assert!(within(60, || !talker.runs()), "{}", talker.printed());
    assert_eq!(said(), 40, "{}", talker.printed());
    let devices = world.edge.run("ip -o link show");
    assert_eq!(devices.matches("hearthgate").count(), 1, "{devices}");
    let page = curl(&world.roamer, &["--max-time", "10", &format!("http://{INNER_V4}:9153/metrics")]);
    assert!(page.contains("hearthgate_"), "{page}");
    world.edge.run(&format!("kill {}", edge.pid()));
    let gone = || !world.edge.run("nft list ruleset").contains("masquerade");
    assert!(within(10, gone), "{}", world.edge.run("nft list ruleset"));
}

#[test]
fn a_lan_with_a_route_back_sees_the_peer() {
    needs!("nft", "dig", "curl", "nginx", "socat", "wg", "wireguard-go");
    let world = world();
    let _site = Site::start(&world);
    let _mirror = mirror(&world);
    let edge = Edge::start_with(&world, ROUTE);
    world.lan.run("ip route add 10.77.0.0/24 via 192.168.1.2");
    let _tunnel = peer(&world, &edge, "tcp 192.168.1.20/32 7000");

    assert!(who(&world).starts_with("10.77.0."), "{}", who(&world));
    assert!(!world.edge.run("nft list ruleset").contains("masquerade"));
}

#[test]
fn nobody_outside_reaches_the_gate_or_a_peer_whatever_the_kernel_checks() {
    needs!("nft", "dig", "curl", "nginx", "ping", "wg", "wireguard-go");
    let world = world();
    let _site = Site::start(&world);
    let edge = Edge::start_with(&world, ROUTE);
    let _tunnel = super::tunnel::Tunnel::start(&world, &edge, &edge.laptop, 2);
    let metrics = format!("http://{INNER_V4}:9153/metrics");
    assert!(curl(&world.roamer, &["--max-time", "8", &metrics]).contains("hearthgate_"), "the tunnel works");
    world.lan.run("ip route add 10.77.0.0/24 via 192.168.1.2");
    world.lan.run(&format!("ip route add fd77::/64 via {}::2", super::world::ULA));

    for filter in [0, 1, 2] {
        for interface in ["all", "eth0", "hearthgate0"] {
            world.edge.run(&format!("sysctl -qw net.ipv4.conf.{interface}.rp_filter={filter}"));
        }
        let before = dropped(&world, &edge, "gate_from_outside");
        for address in [INNER_V4, "[fd77::1]"] {
            for port in [80, 443, 53, 9153] {
                let page = curl(&world.lan, &["--max-time", "1", &format!("http://{address}:{port}/")]);
                assert!(page.contains("curl: (28)"), "{address}:{port} under rp_filter {filter}: {page}");
            }
        }
        let after = || dropped(&world, &edge, "gate_from_outside");
        assert!(within(5, || after() >= before + 8.0), "{before} {}", after());
        // A peer's address, taken by a host of the LAN.
        world.lan.run("ip addr add 10.77.0.3/32 dev eth0");
        let page = curl(&world.lan, &["--max-time", "1", "--interface", "10.77.0.3", &metrics]);
        assert!(page.contains("curl: (28)"), "{page}");
        world.lan.run("ip addr del 10.77.0.3/32 dev eth0");
        // A peer that nothing reaches.
        let pinged = world.lan.output("ping -c 1 -W 1 10.77.0.2");
        assert!(!pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));
    }
    assert!(within(5, || dropped(&world, &edge, "forbidden") >= 1.0), "{}", edge.metrics(&world).text);
}

#[test]
fn an_address_of_the_lan_on_another_wire_reaches_no_peer() {
    needs!("nft", "dig", "curl", "nginx", "socat", "wg", "wireguard-go");
    let world = world();
    let _site = Site::start(&world);
    world.plug_edge_into_the_internet();
    for interface in ["all", "eth0", "eth1"] {
        world.edge.run(&format!("sysctl -qw net.ipv4.conf.{interface}.rp_filter=0"));
    }
    let edge = Edge::start_with(&world, ROUTE);
    let file = std::fs::read_to_string(edge.config()).expect("it was written");
    let (laptop, rest) = file.split_once("may_reach  = [\"services\"]").expect("the laptop has it");
    std::fs::write(edge.config(), format!("{laptop}reached_by = [\"lan\"]{rest}")).expect("it is ours");
    let reloaded = edge.command(&world, &["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let tunnel = super::tunnel::Tunnel::start(&world, &edge, &edge.laptop, 2);
    world.roamer.run(&format!("wg set {} peer {} allowed-ips 0.0.0.0/0", tunnel.interface, edge.gate.public));
    // Directly: what the edge says to the Internet leaves by its own wire there.
    tunnel.set_endpoint(&edge.gate.public, "11.0.9.2:443");
    let heard = world.roamer.spawn(&world.path("heard.log"), "socat", &["-u", "UDP4-RECV:7000", "STDOUT"]);
    assert!(
        curl(&world.roamer, &["--max-time", "8", &format!("http://{INNER_V4}:9153/metrics")]).contains("hearthgate_")
    );
    let say = |host: &super::world::Host, word: &str, from: &str| {
        let line = format!("echo {word} | socat -u STDIN UDP4-SENDTO:10.77.0.2:7000,bind={from}");
        let said = host.command("sh").args(["-c", &line]).output().expect("timeout is there");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    };
    world.lan.run("ip route add 10.77.0.0/24 via 192.168.1.2");
    world.wan.run("ip addr add 192.168.1.66/32 dev eth0");
    world.wan.run("ip route add 10.77.0.0/24 via 11.0.9.2");

    for _ in 0..5 {
        say(&world.wan, "spoofed", "192.168.1.66");
    }
    say(&world.lan, "honest", "192.168.1.20");

    assert!(within(10, || heard.printed().contains("honest")), "{}", edge.metrics(&world).text);
    assert!(!heard.printed().contains("spoofed"), "{}", world.edge.run("nft list ruleset"));
}

#[test]
fn auto_says_which_mode_and_why() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let forwarding = world();
    let edge = Edge::start_with(&forwarding, "mode = \"auto\"");
    let status = String::from_utf8_lossy(&edge.command(&forwarding, &["status"]).stdout).into_owned();
    assert!(status.contains("  mode       tun\n"), "{status}");
    drop(edge);

    let dropping = world();
    let rules = dropping.path("firewall.nft");
    std::fs::write(
        &rules,
        "table ip filter {\nchain FORWARD {\ntype filter hook forward priority 0; policy drop;\n}\n}\n",
    )
    .expect("the folder is ours");
    dropping.edge.run(&format!("nft -f {}", rules.display()));
    let edge = Edge::start_with(&dropping, "mode = \"auto\"");
    let status = String::from_utf8_lossy(&edge.command(&dropping, &["status"]).stdout).into_owned();
    assert!(
        status.contains("userspace: the firewall drops what is forwarded (table filter, chain FORWARD)"),
        "{status}"
    );
    drop(edge);

    let still = World::new();
    still.edge.run("sysctl -qw net.ipv4.ip_forward=0");
    let edge = Edge::start_with(&still, "mode = \"auto\"");
    let status = String::from_utf8_lossy(&edge.command(&still, &["status"]).stdout).into_owned();
    assert!(status.contains("userspace: the kernel forwards no IPv4: set net.ipv4.ip_forward = 1"), "{status}");
}

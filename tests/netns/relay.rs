//! The LAN through the tunnel without privileges, and a gate that comes back by itself.

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, LAN_V4},
    servers::{Authorities, Site},
    tunnel::Tunnel,
    world::{World, needs, within},
};

/// Adds a peer that may reach this, and starts its client with the LAN behind the tunnel.
pub(crate) fn peer<'a>(world: &'a World, edge: &Edge, may_reach: &str) -> Tunnel<'a> {
    let output = edge.command(world, &["peer", "add", "worker", "--no-preshared-key", "--may-reach", may_reach]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value = |key: &str| -> String {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().strip_prefix("= "));
        line.unwrap_or_else(|| panic!("no {key}: {printed}")).to_owned()
    };
    let last = value("Address").split(['.', '/']).nth(3).and_then(|last| last.parse().ok()).expect("an IPv4 address");
    let gate = value("PublicKey");
    let tunnel = Tunnel::of(world, &value("PrivateKey"), &gate, last);
    let (host, interface) = (&world.roamer, &tunnel.interface);
    host.run(&format!("wg set {interface} peer {gate} allowed-ips 10.77.0.0/24,fd77::/64,192.168.1.0/24"));
    host.run(&format!("ip route add 192.168.1.0/24 dev {interface} src 10.77.0.{last}"));
    tunnel
}

#[test]
fn a_peer_reaches_what_it_may_in_the_lan_and_never_this_box() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "curl", "nginx", "socat", "wg", "wireguard-go");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _site = Site::start(&world);
    let _dns =
        world.lan.spawn(&world.path("echo.log"), "socat", &["UDP4-RECVFROM:5300,bind=192.168.1.20,fork", "EXEC:cat"]);
    let edge = Edge::start(&world);
    let _tunnel = peer(&world, &edge, "tcp 192.168.1.0/24 1-8001,udp 192.168.1.0/24 5300-5301,192.168.1.2/32");
    let fetch = |target: &str| curl(&world.roamer, &["--max-time", "8", &format!("http://{target}/")]);

    let page = fetch("192.168.1.20:8001");
    assert!(page.contains("photos"), "{page}");
    let echo = dig(&world.roamer, "@192.168.1.20 -p 5300 +tries=1 +time=5 +noedns echo.example A");
    assert!(echo.text.contains("echo.example"), "{}", echo.text);

    for (target, why) in [
        ("192.168.1.20:8002", "it may not"),
        ("192.168.1.20:7999", "nobody listens"),
        (&format!("{LAN_V4}:80"), "the box itself"),
        (&format!("{LAN_V4}:9153"), "the box itself"),
        ("10.77.0.3:80", "a peer"),
        (&format!("{INNER_V4}:80"), "a service that it may not use"),
    ] {
        let page = fetch(target);
        assert!(page.contains("curl: (7)"), "{target}, {why}: {page}");
    }
    let own = dig(&world.roamer, &format!("@{LAN_V4} +tries=1 +time=2 nas.home.example A"));
    assert_eq!(own.status, "", "{}", own.text);
    let refused = || -> f64 { edge.metrics(&world).series("hearthgate_vpn_peer_refused_total").values().sum() };
    assert!(within(5, || refused() >= 5.0), "{}", edge.metrics(&world).text);
}

#[test]
fn a_client_goes_on_after_the_gate_was_started_again() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let _tunnel = Tunnel::start(&world, &edge, &edge.laptop, 2);
    let url = format!("http://{INNER_V4}:9153/metrics");
    assert!(curl(&world.roamer, &["--max-time", "8", &url]).contains("hearthgate_"));

    let _edge = edge.restart(&world);

    // By itself the client would notice after 15 s.
    let page = curl(&world.roamer, &["--max-time", "8", &url]);
    assert!(page.contains("hearthgate_"), "{page}");
}

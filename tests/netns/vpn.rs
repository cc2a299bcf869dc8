//! The one way in, with a WireGuard client that others wrote.

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, INNER_V6},
    servers::{Authorities, Site},
    tunnel::Tunnel,
    world::{World, needs, within},
};

fn fetch(world: &World, ca: &str, host: &str, address: &str, more: &[&str]) -> String {
    let resolve = format!("{host}:443:{address}");
    let url = format!("https://{host}/");
    curl(&world.roamer, &[&["--cacert", ca, "--resolve", &resolve, "--max-time", "8"][..], more, &[&url]].concat())
}

#[test]
fn an_administrator_is_answered_through_the_tunnel() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();
    let tunnel = Tunnel::start(&world, &edge, &edge.laptop, 2);

    for address in [INNER_V4, "[fd77::1]"] {
        for version in ["--http1.1", "--http2"] {
            let page = fetch(&world, &ca, "admin.home.example", address, &[version]);
            assert!(page.contains("administrators host=admin.home.example"), "{address} {version}: {page}");
        }
    }
    assert!(tunnel.is_up());
    for (server, transport) in [(INNER_V4, ""), (INNER_V6, ""), (INNER_V4, "+tcp")] {
        let answer = dig(&world.roamer, &format!("@{server} {transport} nas.home.example A"));
        assert!(answer.has("192.168.1.10"), "{server} {transport}: {}", answer.text);
        let answer = dig(&world.roamer, &format!("@{server} {transport} www.good.tld A"));
        assert!(answer.has("11.0.3.1") && answer.authenticated, "{server} {transport}: {}", answer.text);
    }
    // A reader sees what it may reach, and the rest as one.
    let own = curl(&world.roamer, &[&format!("http://{INNER_V4}:9153/metrics")]);
    assert!(own.contains("peer=\"laptop\"") && !own.contains("phone"), "{own}");
    let outside = edge.metrics(&world);
    assert!(!outside.text.contains("laptop") && !outside.text.contains("admin.home"), "{}", outside.text);
    let bytes: f64 = outside.series("hearthgate_vpn_peer_bytes_total").values().sum();
    assert!(bytes > 0.0, "{}", outside.text);
}

#[test]
fn a_peer_without_the_permission_sees_a_name_that_never_existed() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();
    let _tunnel = Tunnel::start(&world, &edge, &edge.phone, 3);

    let files = fetch(&world, &ca, "files.home.example", INNER_V4, &[]);
    assert!(files.contains("photos host=files.home.example"), "{files}");
    let hidden = fetch(&world, &ca, "admin.home.example", INNER_V4, &[]);
    let never = fetch(&world, &ca, "nimda.home.example", INNER_V4, &[]);
    assert_eq!(hidden, never);
    assert!(hidden.contains("curl: (35)"), "{hidden}");
}

#[test]
fn a_peer_with_anothers_inner_address_is_dropped_and_counted() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();
    let tunnel = Tunnel::start(&world, &edge, &edge.phone, 3);
    assert!(fetch(&world, &ca, "files.home.example", INNER_V4, &[]).contains("photos"), "the tunnel works");
    // The administrator's addresses.
    tunnel.add_address(2);
    let drops = || -> f64 {
        let series = edge.metrics(&world).series("hearthgate_vpn_");
        series.iter().filter(|(name, _)| name.contains("spoofed_source")).map(|(_, value)| value).sum()
    };
    let before = drops();

    for (source, target) in [("10.77.0.2", INNER_V4), ("fd77::2", "[fd77::1]")] {
        let page = fetch(&world, &ca, "admin.home.example", target, &["--interface", source]);
        assert!(page.contains("curl: (28)"), "from {source}: {page}");
        let server = target.trim_matches(['[', ']']);
        let answer = dig(&world.roamer, &format!("@{server} -b {source} +tries=1 +time=2 nas.home.example A"));
        assert_eq!(answer.status, "", "from {source}: {}", answer.text);
    }

    assert!(drops() > before, "{}", edge.metrics(&world).text);
    assert!(fetch(&world, &ca, "files.home.example", INNER_V4, &["--interface", "10.77.0.3"]).contains("photos"));
}

#[test]
fn a_peer_that_was_added_comes_in_and_one_that_was_removed_is_out() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();

    let output = edge.command(&world, &["peer", "add", "tablet", "--may-reach", "services"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value = |key: &str| {
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(key))
            .unwrap_or_else(|| panic!("no {key}: {printed}"));
        line.trim_start_matches([' ', '=']).trim().to_owned()
    };
    let address = value("Address");
    let last = address.split(['.', '/']).nth(3).and_then(|last| last.parse().ok());
    let last = last.unwrap_or_else(|| panic!("no inner IPv4 address: {address}"));
    let tunnel = Tunnel::of(&world, &value("PrivateKey"), &value("PublicKey"), last);
    let key = world.path("tablet.psk");
    std::fs::write(&key, value("PresharedKey")).expect("the folder is ours");
    let (interface, gate) = (&tunnel.interface, value("PublicKey"));
    world.roamer.run(&format!("wg set {interface} peer {gate} preshared-key {}", key.display()));
    let page = fetch(&world, &ca, "files.home.example", INNER_V4, &[]);
    assert!(page.contains("photos host=files.home.example"), "{page}");
    assert!(tunnel.is_up());

    let output = edge.command(&world, &["peer", "remove", "tablet"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = fetch(&world, &ca, "files.home.example", INNER_V4, &[]);
    assert!(page.contains("curl: (28)"), "{page}");
}

#[test]
fn what_a_removed_peer_has_open_ends_at_once() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();
    let _tunnel = Tunnel::start(&world, &edge, &edge.phone, 3);
    let resolve = format!("files.home.example:443:{INNER_V4}");
    let slowly = ["-s", "--limit-rate", "200k", "-o", "/dev/null", "--cacert", &ca, "--resolve", &resolve];
    let arguments = [&slowly[..], &["https://files.home.example/big"]].concat();
    let _download = world.roamer.spawn(&world.path("download.log"), "curl", &arguments);
    let open = || world.lan.run("ss -Htn state established sport = :8001").lines().count();
    assert!(within(10, || open() == 1), "the download did not begin");

    let file = std::fs::read_to_string(edge.config()).expect("it was written");
    let (before, after) = file.split_once("[[vpn.peer]]\nname       = \"phone\"").expect("the phone is in it");
    let (_, after) = after.split_once("\n[").expect("something follows");
    std::fs::write(edge.config(), format!("{before}[{after}")).expect("it is ours");
    let reloaded = edge.command(&world, &["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));

    assert!(within(5, || open() == 0), "the house still serves it");
    let connections = || edge.metrics(&world).series("hearthgate_vpn_connections").into_values().sum::<f64>();
    assert!(within(5, || connections() == 0.0), "the gate still counts a connection");
}

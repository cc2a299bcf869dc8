//! The house gets other addresses, and a client goes home and out again: with one configuration, and without a hand.

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, LAN_V4, WAN_V4},
    tunnel::Tunnel,
    world::{AFTER, BEFORE, Host, World, needs, within},
};

fn page(world: &World, patience: &str) -> String {
    curl(&world.roamer, &["--max-time", patience, &format!("http://{INNER_V4}:9153/metrics")])
}

#[test]
fn a_client_is_told_the_new_address_by_the_gate_itself() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let edge = Edge::start(&world);
    let tunnel = Tunnel::start(&world, &edge, &edge.laptop, 2);
    let endpoint = |address: &str| {
        let peer = &edge.gate.public;
        world.roamer.run(&format!("wg set {} peer {peer} endpoint [{address}]:443", tunnel.interface));
    };
    endpoint(&format!("{}::2", BEFORE[0]));
    assert!(page(&world, "8").contains("hearthgate_"), "the tunnel works");

    world.renumber();

    // By itself the client would notice after 15 s, and go on asking where nobody is any more.
    let shown = || world.roamer.run(&format!("wg show {} endpoints", tunnel.interface));
    let told = within(3, || AFTER.iter().any(|prefix| shown().contains(&format!("[{prefix}::2]:443"))));
    assert!(told, "{}", shown());
    assert!(page(&world, "4").contains("hearthgate_"), "{}", shown());
}

/// The gate is on the Internet itself. One client is there too, the other behind a router that keeps its port open for
/// everybody, as most in houses do; one that lets in nobody but whom the client spoke to hides the gate's word from it.
#[test]
fn every_active_peer_is_told_the_gates_new_ipv4_address_within_two_seconds() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let edge = Edge::start(&world);
    world.plug_edge_into_the_internet();
    let guest = world.guest_behind_nat();
    let open = "table ip open {
        chain in { type nat hook prerouting priority dstnat; iifname eth0 udp dport 5555 dnat to 10.9.9.2; }
        chain out { type nat hook postrouting priority srcnat - 1; ip saddr 10.9.9.2 udp sport 5555 snat to 11.0.9.77:5555; }
    }";
    let file = world.path("open.nft");
    std::fs::write(&file, open).expect("the folder is ours");
    world.wan.run(&format!("nft -f {}", file.display()));
    let laptop = Tunnel::start(&world, &edge, &edge.laptop, 2);
    let phone = Tunnel::on(&guest, &world, &edge.phone.private, &edge.gate.public, 3);
    guest.run(&format!("wg set {} listen-port 5555", phone.interface));
    let clients = [(&world.roamer, &laptop), (&guest, &phone)];
    let page = |host| curl(host, &["--max-time", "8", &format!("http://{INNER_V4}:9153/metrics")]);
    for (host, tunnel) in clients {
        let peer = &edge.gate.public;
        host.run(&format!("wg set {} peer {peer} endpoint 11.0.9.2:443", tunnel.interface));
        assert!(page(host).contains("hearthgate_"), "the tunnel works");
    }

    // Otherwise the second address of a network goes with the first.
    world.edge.run("sysctl -qw net.ipv4.conf.eth1.promote_secondaries=1");
    world.edge.run("ip addr add 11.0.9.3/8 dev eth1");
    world.edge.run("ip addr del 11.0.9.2/8 dev eth1");

    let shown = |host: &Host, tunnel: &Tunnel| host.run(&format!("wg show {} endpoints", tunnel.interface));
    let told = || clients.iter().all(|(host, tunnel)| shown(host, tunnel).contains("11.0.9.3:443"));
    assert!(within(2, told), "{:?}", clients.map(|(host, tunnel)| shown(host, tunnel)));
    for (host, _) in clients {
        assert!(page(host).contains("hearthgate_"), "through the new address");
    }
}

#[test]
fn one_configuration_is_good_at_home_and_away() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let edge = Edge::start(&world);
    let file = std::fs::read_to_string(edge.config()).expect("it was written");
    std::fs::write(
        edge.config(),
        file.replace("endpoint    = \"11.0.9.1:443\"", "endpoint = \"vpn.home.example:443\""),
    )
    .expect("it is ours");
    let reloaded = edge.command(&world, &["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let tunnel = Tunnel::start(&world, &edge, &edge.laptop, 2);
    let endpoint = |address: &str| {
        let peer = &edge.gate.public;
        world.roamer.run(&format!("wg set {} peer {peer} endpoint {address}:443", tunnel.interface));
    };

    for _ in 0..2 {
        world.take_roamer(true);
        // What a client does when its network changes: it asks for the name again.
        let answer = dig(&world.roamer, &format!("@{LAN_V4} vpn.home.example A"));
        assert!(answer.has(LAN_V4), "{}", answer.text);
        endpoint(LAN_V4);
        assert!(page(&world, "8").contains("hearthgate_"), "at home");

        world.take_roamer(false);
        endpoint(WAN_V4);
        assert!(page(&world, "8").contains("hearthgate_"), "away");
    }
}

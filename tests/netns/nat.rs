//! A client behind a router that hides it, as most are.

use super::{
    client::curl,
    edge::{Edge, INNER_V4, WAN_V4},
    tunnel::Tunnel,
    world::{Host, World, needs, within},
};

fn page(host: &Host, patience: &str) -> bool {
    curl(host, &["--max-time", patience, &format!("http://{INNER_V4}:9153/metrics")]).contains("hearthgate_")
}

#[test]
fn clients_behind_a_nat_are_back_within_two_seconds_after_the_gate_was_started_again() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let edge = Edge::start(&world);
    let guest = world.guest_behind_nat();
    // A client that keeps its way through the router open, as its configuration says.
    world.wan.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=120");
    world.wan.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream=120");
    let laptop = Tunnel::on(&guest, &world, &edge.laptop.private, &edge.gate.public, 2);
    let phone = Tunnel::start(&world, &edge, &edge.phone, 3);
    for tunnel in [&laptop, &phone] {
        tunnel.set_endpoint(&edge.gate.public, &format!("{WAN_V4}:443"));
    }
    assert!(page(&guest, "8") && page(&world.roamer, "8"), "the tunnels work");

    let edge = edge.restart(&world);

    // By themselves they would notice after 15 s.
    let online = || edge.metrics(&world).series("hearthgate_vpn_peers_online").into_values().sum::<f64>();
    assert!(within(2, || online() >= 2.0), "{}", edge.metrics(&world).text);
    assert!(page(&guest, "4") && page(&world.roamer, "4"), "{}", guest.run(&format!("wg show {}", laptop.interface)));
}

//! The house gets other addresses, and a client goes home and out again: with one configuration, and without a hand.

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, LAN_V4, WAN_V4},
    tunnel::Tunnel,
    world::{AFTER, BEFORE, World, needs, within},
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

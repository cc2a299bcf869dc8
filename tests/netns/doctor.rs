//! The doctor makes a stranger, and what the stranger reaches is what the Internet may reach.

use super::{
    edge::Edge,
    servers::Site,
    world::{World, needs},
};

#[test]
fn a_stranger_reaches_what_is_public_and_nothing_else_and_leaves_no_trace() {
    needs!("nft", "dig", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let before = world.edge.run("ip -o link");

    let output = edge.command(&world, &["doctor", "--stranger", "--state", &world.path("state").display().to_string()]);

    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let cell = |row: &str, column: usize| {
        let line = text.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{row}:\n{text}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(column).unwrap_or_default().to_owned()
    };
    for (row, wan, host) in [
        ("dns ", "- ✓", "yes ✓"),
        ("metrics ", "- ✓", "yes ✓"),
        ("photos.home.example", "yes ✓", "yes ✓"),
        ("files.home.example", "- ✓", "yes ✓"),
        ("admin.home.example", "- ✓", "- ✓"),
    ] {
        assert_eq!((cell(row, 1).as_str(), cell(row, 2).as_str()), (wan, host), "{row}:\n{text}");
    }
    assert_eq!(world.edge.run("ip -o link"), before, "the wire is still there");
}

#[test]
fn with_the_rules_that_are_printed_the_house_is_answered_and_a_stranger_is_not() {
    needs!("nft", "dig", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);

    let printed = edge.command(&world, &["firewall", "print", "--format", "nftables"]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let file = world.path("edge.nft");
    std::fs::write(&file, &printed.stdout).expect("the folder is ours");
    for _ in 0..2 {
        world.edge.run(&format!("nft -f {}", file.display()));
    }

    let answer = super::client::dig(&world.lan, "@192.168.1.2 nas.home.example A");
    assert!(answer.has("192.168.1.10"), "{}", answer.text);
    let answer = super::client::dig(&world.lan, "@fe80::2%eth0 +tcp nas.home.example A");
    assert!(answer.has("192.168.1.10"), "{}", answer.text);
    let stranger: std::net::SocketAddr = format!("[{}::2]:53", super::world::BEFORE[0]).parse().expect("an address");
    let seen = super::client::tcp(&world.wan, stranger, None, b"\0\0");
    assert_eq!(seen, super::client::Seen::NoConnection);
    let public = super::client::tcp(&world.wan, "11.0.9.1:80".parse().expect("an address"), None, b"\r\n\r\n");
    assert_ne!(public, super::client::Seen::NoConnection);
}

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

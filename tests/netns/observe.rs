//! What the owner sees of the running edge, and that it goes on through a reload.

use std::{io::Write, process::Stdio};

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4},
    servers::Site,
    tunnel::Tunnel,
    world::{World, needs, within},
};

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    needs!("nft", "dig", "curl", "nginx", "wg", "promtool");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    dig(&world.lan, "@192.168.1.2 nas.home.example A");
    let ca = edge.ca().display().to_string();
    curl(
        &world.wan,
        &["--cacert", &ca, "--resolve", "photos.home.example:443:11.0.9.1", "https://photos.home.example/"],
    );

    let metrics = edge.metrics(&world);

    let mut promtool = world.edge.command("promtool");
    let mut child = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("timeout is there");
    child.stdin.take().expect("it is piped").write_all(metrics.text.as_bytes()).expect("promtool reads it");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", metrics.text);
    for wanted in ["hearthgate_dns_", "hearthgate_ingress_", "hearthgate_vpn_", "build_info{version="] {
        assert!(metrics.text.contains(wanted), "no {wanted}:\n{}", metrics.text);
    }
}

#[test]
fn a_reload_keeps_the_tunnel_and_a_bad_file_changes_nothing() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _site = Site::start(&world);
    let mut edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();
    let _tunnel = Tunnel::start(&world, &edge, &edge.laptop, 2);
    let admin = || {
        let resolve = format!("admin.home.example:443:{INNER_V4}");
        curl(&world.roamer, &["--cacert", &ca, "--resolve", &resolve, "https://admin.home.example/"])
    };
    assert!(admin().contains("administrators"));
    let good = std::fs::read_to_string(edge.config()).expect("it was written");

    std::fs::write(edge.config(), format!("{good}\n[dns.recrods]\nx = 1\n")).expect("it is ours");
    let refused = edge.command(&world, &["reload"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(said.contains("recrods"), "{said}");
    assert!(dig(&world.lan, "@192.168.1.2 nas.home.example A").has("192.168.1.10"));
    assert!(admin().contains("administrators"));

    std::fs::write(edge.config(), good.replace("192.168.1.10", "192.168.1.11")).expect("it is ours");
    let accepted = edge.command(&world, &["reload"]);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    assert!(dig(&world.lan, "@192.168.1.2 nas.home.example A").has("192.168.1.11"));
    assert!(admin().contains("administrators"));

    // The same by signal.
    std::fs::write(edge.config(), &good).expect("it is ours");
    super::world::shell(&format!("kill -HUP {}", edge.pid()));
    assert!(within(10, || dig(&world.lan, "@192.168.1.2 nas.home.example A").has("192.168.1.10")));
    assert!(edge.runs());
}

#[test]
fn a_newcomer_sees_the_promise_kept() {
    needs!("setpriv", "dig", "curl");
    let world = World::new();
    let state = world.path("newcomer");
    std::fs::create_dir(&state).expect("the folder is ours");
    super::world::shell(&format!("chown nobody {}", state.display()));
    let state = state.display().to_string();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", super::edge::PROGRAM];
    let start = |name: &str| {
        let arguments = [&nobody[..], &["run", "--state", &state]].concat();
        world.edge.spawn(&world.path(name), "setpriv", &arguments)
    };

    let mut process = start("newcomer.log");
    let up = within(30, || {
        let listeners = world.edge.run("ss -Hlntu");
        !process.runs() || [":5300 ", ":8080 ", ":8443 ", ":9153 "].iter().all(|port| listeners.contains(port))
    });
    assert!(up && process.runs(), "{}", process.printed());

    let local = dig(&world.edge, "@127.0.0.1 -p 5300 nas.home.arpa A");
    assert_eq!(local.status, "NOERROR", "{}", local.text);
    assert!(dig(&world.edge, "@127.0.0.1 -p 5300 blocked.example A").has("0.0.0.0"));
    let tour = world.edge.command("setpriv").args(nobody).args(["tour", "--state", &state]).output().expect("it runs");
    let said = String::from_utf8_lossy(&[tour.stdout, tour.stderr].concat()).into_owned();
    assert!(tour.status.success() && said.contains('✓') && !said.contains('✗'), "{said}");

    // A second one says which port is taken, and by what key to change it.
    let other = world.path("second");
    std::fs::create_dir(&other).expect("the folder is ours");
    super::world::shell(&format!("chown nobody {}", other.display()));
    let mut second = world.edge.command("setpriv");
    let second = second.args(nobody).args(["run", "--state"]).arg(&other).output().expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("5300") && said.contains("dns.listen"), "{said}");
}

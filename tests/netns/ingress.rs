//! The public route, as browsers of the Internet and of the house see it.

use super::{
    client::curl,
    edge::{Edge, WAN_V4},
    servers::Site,
    world::{BEFORE, World, needs},
};

#[test]
fn the_public_route_is_served_to_the_internet_over_both_http_versions() {
    needs!("nft", "dig", "curl", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();

    for target in [WAN_V4.to_owned(), format!("[{}::2]", BEFORE[1])] {
        let resolve = format!("photos.home.example:443:{target}");
        for (version, line) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
            let page = curl(
                &world.wan,
                &[version, "--cacert", &ca, "--resolve", &resolve, "https://photos.home.example/a%20b?c=d"],
            );
            assert!(page.starts_with(line), "{target} {version}: {page}");
            assert!(page.contains("photos host=photos.home.example uri=/a%20b?c=d"), "{target} {version}: {page}");
            assert!(page.contains("proto=https"), "{target} {version}: {page}");
        }
        let size = ["--http2", "--cacert", &ca, "--resolve", &resolve, "-o", "/dev/null", "-w", "%{size_download}"];
        let big = curl(&world.wan, &[&size[..], &["https://photos.home.example/big"]].concat());
        assert_eq!(big, (10u32 << 20).to_string(), "{target}");
        let resolve = format!("photos.home.example:80:{target}");
        let moved = curl(&world.wan, &["--resolve", &resolve, "http://photos.home.example/a?b"]);
        assert!(moved.to_lowercase().contains("location: https://photos.home.example/a?b"), "{target}: {moved}");
    }
}

#[test]
fn a_client_cannot_choose_its_own_address() {
    needs!("nft", "dig", "curl", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();

    let page = curl(
        &world.wan,
        &[
            "--cacert",
            &ca,
            "--resolve",
            "photos.home.example:443:11.0.9.1",
            "-H",
            "X-Forwarded-For: 10.77.0.2",
            "-H",
            "Forwarded: for=10.77.0.2",
            "-H",
            "X-Real-IP: 10.77.0.2",
            "https://photos.home.example/",
        ],
    );

    assert!(page.contains(" for=11.0.9.77 "), "{page}");
    assert!(!page.contains("10.77.0.2"), "{page}");
}

#[test]
fn a_route_of_the_lan_is_for_the_lan() {
    needs!("nft", "dig", "curl", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let ca = edge.ca().display().to_string();
    let fetch = |host, address: &str| {
        let resolve = format!("files.home.example:443:{address}");
        curl(host, &["--cacert", &ca, "--resolve", &resolve, "https://files.home.example/"])
    };

    assert!(fetch(&world.lan, "192.168.1.2").contains("photos host=files.home.example"));
    assert!(fetch(&world.lan, &format!("[{}::2]", BEFORE[0])).contains("photos host=files.home.example"));
    let outside = fetch(&world.wan, WAN_V4);
    assert!(outside.contains("curl: (35)"), "{outside}");
}

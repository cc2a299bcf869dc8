//! Every way by which somebody outside could try for an administrators' route: each must look exactly like
//! the same attempt with a name that never existed.

use std::net::{IpAddr, SocketAddr};

use super::{
    client::{Seen, Tls, curl, tcp},
    edge::{Edge, INNER_V4, INNER_V6, LAN_V4, from_wan},
    servers::Site,
    world::{BEFORE, Host, World, needs},
};

/// As long as each other, so that an echo of the name would show too.
const HIDDEN: &str = "admin.home.example";
const NEVER: &str = "nimda.home.example";
const PUBLIC: &str = "photos.home.example";

/// Holds the same attempt with both names and demands the same bytes.
fn alike(what: &str, attempt: impl Fn(&str) -> Seen) -> Seen {
    let hidden = attempt(HIDDEN);
    let never = attempt(NEVER);
    assert_eq!(hidden, never, "{what}");
    if let Seen::Bytes(text, _) = &hidden {
        assert!(!text.contains("administrators"), "{what}: {text}");
        assert!(!text.starts_with("HTTP/1.1 2"), "{what}: {text}");
    }
    hidden
}

fn get(host: &str, fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")
}

/// The attempts that need no more than a connection to the edge's ports.
fn attempts(from: &Host, to: SocketAddr, source: Option<IpAddr>) {
    let tls =
        |first: &[u8], name: Option<&str>, request: &str| Tls { to, from: source, first, name, request }.talk(from);
    let plain = SocketAddr::new(to.ip(), 80);

    let by_sni = alike("by SNI", |name| tls(b"", Some(name), &get(name, "")));
    let unknown = b"\x15\x03\x03\x00\x02\x02\x70".to_vec();
    assert_eq!(by_sni, Seen::HandshakeRefused(unknown), "the seven bytes of unrecognized_name");
    alike("without SNI", |name| tls(b"", None, &get(name, "")));
    let by_host = alike("by Host under a public SNI", |name| tls(b"", Some(PUBLIC), &get(name, "")));
    let Seen::Bytes(text, true) = &by_host else { panic!("by Host: {by_host:?}") };
    assert!(text.starts_with("HTTP/1.1 421 "), "{text}");
    for spelled in ["ADMIN.home.example", "admin.home.example.", "admin.home.example:443"] {
        let seen = tls(b"", Some(PUBLIC), &get(spelled, ""));
        assert_eq!(seen, by_host, "Host: {spelled}");
    }
    alike("in absolute form", |name| {
        let request = format!("GET https://{name}/ HTTP/1.1\r\nHost: {PUBLIC}\r\nConnection: close\r\n\r\n");
        tls(b"", Some(PUBLIC), &request)
    });
    alike("in absolute form, both", |name| {
        let request = format!("GET https://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        tls(b"", Some(PUBLIC), &request)
    });
    for field in ["X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP"] {
        let fields = format!("{field}: 10.77.0.2\r\n");
        alike(field, |name| tls(b"", Some(PUBLIC), &get(name, &fields)));
    }
    for field in ["X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL", "X-Host"] {
        alike(field, |name| {
            let fields = format!("{field}: {name}\r\n");
            match tls(b"", Some(PUBLIC), &get(PUBLIC, &fields)) {
                // The public page, which says what the upstream was told: not this.
                Seen::Bytes(text, ended) => {
                    assert!(text.contains(&format!("host={PUBLIC}")), "{field}: {text}");
                    Seen::Bytes("the public page".into(), ended)
                }
                other => other,
            }
        });
    }
    let forwarded = "Forwarded: for=10.77.0.2;host=admin.home.example\r\n";
    alike("Forwarded", |name| tls(b"", Some(PUBLIC), &get(name, forwarded)));
    let v1 = b"PROXY TCP4 10.77.0.2 10.77.0.1 4711 443\r\n";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x0a\x4d\x00\x02\x0a\x4d\x00\x01\x12\x67\x01\xbb";
    alike("after a PROXY line", |name| tls(v1, Some(name), &get(name, "")));
    alike("after a PROXY header", |name| tls(v2, Some(name), &get(name, "")));
    alike("a PROXY line inside", |name| {
        tls(b"", Some(PUBLIC), &format!("PROXY TCP4 10.77.0.2 10.77.0.1 1 443\r\n{}", get(name, "")))
    });
    alike("on port 80", |name| tcp(from, plain, source, get(name, "").as_bytes()));
    alike("on port 80, absolute", |name| {
        tcp(from, plain, source, format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes())
    });
    alike("plain HTTP to the TLS port", |name| tcp(from, to, source, get(name, "").as_bytes()));
}

#[test]
fn from_the_internet_a_hidden_name_is_a_name_that_never_existed() {
    needs!("nft", "dig", "curl", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);

    for to in from_wan(443) {
        attempts(&world.wan, to, None);
    }

    // HTTP/2: a coalesced connection, where the authority differs from the certificate's name.
    let ca = edge.ca().display().to_string();
    let authority = |name: &str| {
        let host = format!("Host: {name}");
        let resolve = "photos.home.example:443:11.0.9.1";
        curl(
            &world.wan,
            &["--http2", "--cacert", &ca, "--resolve", resolve, "-H", &host, "https://photos.home.example/"],
        )
    };
    let hidden = authority(HIDDEN);
    assert_eq!(hidden, authority(NEVER));
    assert!(hidden.starts_with("HTTP/2 421"), "{hidden}");
}

#[test]
fn from_the_lan_a_hidden_name_is_a_name_that_never_existed() {
    needs!("nft", "dig", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let _edge = Edge::start(&world);

    attempts(&world.lan, SocketAddr::new(LAN_V4.parse().expect("an address"), 443), None);
}

#[test]
fn a_source_address_of_the_tunnel_is_worth_nothing_outside_it() {
    needs!("nft", "dig", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let _edge = Edge::start(&world);
    // The strongest form of it: the answers find their way back.
    for host in [&world.wan, &world.lan] {
        host.run("ip addr add 10.77.0.2/32 dev lo");
        host.run("ip addr add fd77::2/128 dev lo nodad");
    }
    world.router.run("ip route add 10.77.0.2/32 via 11.0.9.77");
    world.router.run("ip route add fd77::2/128 via 2a0f:9::77");
    let v4 = Some("10.77.0.2".parse().expect("an address"));
    let v6 = Some("fd77::2".parse().expect("an address"));

    for (to, source) in from_wan(443).into_iter().zip([v4, v6]) {
        attempts(&world.wan, to, source);
    }
    world.edge.run("ip route add 10.77.0.2/32 via 192.168.1.20");
    attempts(&world.lan, SocketAddr::new(LAN_V4.parse().expect("an address"), 443), v4);
}

#[test]
fn the_gates_inner_addresses_are_on_no_kernel_socket() {
    needs!("nft", "dig", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let _edge = Edge::start(&world);

    let listeners = world.edge.run("ss -Hlntu");
    assert!(!listeners.contains("10.77.") && !listeners.contains("fd77:"), "{listeners}");
    assert!(!world.edge.run("ip addr").contains("10.77."), "an interface has the inner address");

    // The weak-host trick: packets for the inner address are handed to the edge's LAN interface.
    let gateway = format!("{}::2", BEFORE[0]);
    for (host, via) in [(&world.lan, "192.168.1.2"), (&world.router, "192.168.1.2")] {
        host.run(&format!("ip route add {INNER_V4}/32 via {via}"));
        host.run(&format!("ip route add {INNER_V6}/128 via {gateway}"));
    }
    // The trick itself works: an address of another interface is reached.
    world.edge.run("ip addr add 10.99.0.1/32 dev lo");
    world.lan.run("ip route add 10.99.0.1/32 via 192.168.1.2");
    let other = SocketAddr::new("10.99.0.1".parse().expect("an address"), 443);
    assert_ne!(tcp(&world.lan, other, None, get(PUBLIC, "").as_bytes()), Seen::NoConnection);
    let attempts = [&world.lan, &world.wan].into_iter().flat_map(|host| {
        let places = [INNER_V4, INNER_V6].into_iter().flat_map(|inner| [80, 443, 53, 9153].map(|port| (inner, port)));
        places.map(move |(inner, port)| (host, SocketAddr::new(inner.parse().expect("an address"), port)))
    });
    std::thread::scope(|scope| {
        for (host, to) in attempts {
            scope.spawn(move || {
                let seen = alike("the weak-host trick", |name| tcp(host, to, None, get(name, "").as_bytes()));
                assert_eq!(seen, Seen::NoConnection, "{to}");
            });
        }
    });
}

#[test]
fn metrics_are_not_for_the_internet() {
    needs!("nft", "dig", "nginx", "wg");
    let world = World::new();
    let _site = Site::start(&world);
    let _edge = Edge::start(&world);
    let metrics = |host: &str| format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");

    for to in from_wan(9153) {
        let seen = alike("the metrics' own port", |name| tcp(&world.wan, to, None, metrics(name).as_bytes()));
        assert!(matches!(&seen, Seen::NoConnection) || seen == Seen::Bytes(String::new(), true), "{seen:?}");
    }
    // Nor for the LAN, unless somebody is named.
    let lan = SocketAddr::new(LAN_V4.parse().expect("an address"), 9153);
    let seen = alike("the metrics' port, from the LAN", |name| tcp(&world.lan, lan, None, metrics(name).as_bytes()));
    assert!(matches!(&seen, Seen::NoConnection | Seen::Bytes(..)), "{seen:?}");
    let Seen::Bytes(text, true) = seen else { return };
    assert!(!text.contains("hearthgate_"), "{text}");
}

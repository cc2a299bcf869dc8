//! Who is answered: the house, whatever addresses it has today, and nobody else.

use std::net::SocketAddr;

use super::{
    client::{self, Seen, dig},
    edge::{Edge, WAN_V4},
    servers::{Authorities, Forwarder},
    world::{AFTER, BEFORE, ULA, World, needs, within},
};

#[test]
fn the_house_is_answered_before_and_after_a_renumbering_and_the_internet_never() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "socat", "dig", "wg", "tcpdump");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _forwarder = Forwarder::start(&world);
    let mut edge = Edge::start(&world);

    the_house_is_answered(&world, BEFORE);
    the_internet_gets_nothing(&world, BEFORE);
    world.renumber();
    let followed = within(10, || dig(&world.lan, &format!("@{}::2 nas.home.example A", AFTER[1])).has("192.168.1.10"));
    assert!(followed, "the new prefixes were not noticed");
    the_house_is_answered(&world, AFTER);
    the_internet_gets_nothing(&world, AFTER);

    assert!(edge.runs());
}

fn the_house_is_answered(world: &World, prefixes: [&str; 2]) {
    let mut ways = vec![
        ("IPv4".to_owned(), "@192.168.1.2 -b 192.168.1.20".to_owned()),
        ("ULA".to_owned(), format!("@{ULA}::2 -b {ULA}::20")),
        ("link-local".to_owned(), "@fe80::2%eth0".to_owned()),
        ("the router".to_owned(), "@192.168.1.1".to_owned()),
    ];
    for prefix in prefixes {
        ways.push((prefix.to_owned(), format!("@{prefix}::2 -b {prefix}::20")));
    }
    for (way, arguments) in &ways {
        for transport in ["", "+tcp"] {
            let local = dig(&world.lan, &format!("{arguments} {transport} nas.home.example A"));
            assert!(local.has("192.168.1.10"), "{way} {transport}: {}", local.text);
            let public = dig(&world.lan, &format!("{arguments} {transport} www.good.tld A"));
            assert!(public.has("11.0.3.1"), "{way} {transport}: {}", public.text);
        }
    }
    // The gateway's IPv6 address on the link is a relay as well.
    let gateway = dig(&world.router, "@fe80::2%eth0 nas.home.example A");
    assert!(gateway.has("192.168.1.10"), "{}", gateway.text);

    let suffix = dig(&world.lan, "@192.168.1.2 nas.home.example AAAA");
    for prefix in prefixes {
        let wanted: std::net::Ipv6Addr = format!("{prefix}::10").parse().expect("an address");
        assert!(suffix.has(&wanted.to_string()), "{prefix}: {}", suffix.text);
    }
}

fn the_internet_gets_nothing(world: &World, prefixes: [&str; 2]) {
    let targets = [WAN_V4.to_owned(), format!("[{}::2]", prefixes[0]), format!("[{}::2]", prefixes[1])];
    let sniffed = world.path("wan.pcap");
    let _ = std::fs::remove_file(&sniffed);
    let file = sniffed.display().to_string();
    let arguments =
        ["-Z", "root", "--immediate-mode", "-U", "-n", "-i", "eth0", "-w", &file, "port 53 or icmp or icmp6"];
    let tcpdump = world.wan.spawn(&world.path("tcpdump.log"), "tcpdump", &arguments);
    assert!(within(10, || tcpdump.printed().contains("listening on")), "{}", tcpdump.printed());

    // nas.home.example A, recursion desired; then the same of the root.
    let local = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03nas\x04home\x07example\x00\x00\x01\x00\x01";
    let root = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
    let questions = [&local[..], &root[..], b"\x00", b""];
    let targets = targets.map(|target| -> SocketAddr { format!("{target}:53").parse().expect("an address") });
    assert_eq!(client::udp_answers(&world.wan, &targets, &questions), [], "answered over UDP");
    for to in targets {
        for question in questions {
            let length = u16::try_from(question.len()).expect("questions are short").to_be_bytes();
            let seen = client::tcp(&world.wan, to, None, &[&length[..], question].concat());
            let silent = matches!(&seen, Seen::NoConnection) || seen == Seen::Bytes(String::new(), true);
            assert!(silent, "{to} over TCP: {seen:?}");
        }
    }

    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(tcpdump);
    let heard = |filter: &str| {
        let mut command = world.wan.command("tcpdump");
        let output = command.args(["-n", "-r", &file, filter]).output().expect("timeout is there");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(heard("udp dst port 53").lines().count() >= 6, "tcpdump did not hear the questions either");
    // Nothing with content from port 53, and no ICMP error that would show that something is there.
    let pushed = "tcp src port 53 and tcp[tcpflags] & tcp-push != 0";
    let errors = "icmp[0] == 3 or (icmp6 and ip6[40] < 128)";
    for answer in ["udp src port 53", pushed, "ip6 and tcp src port 53 and ip6[53] & 8 != 0", errors] {
        assert_eq!(heard(answer), "", "the Internet heard something ({answer})");
    }
}

//! Devices that change their addresses, addresses of the edge that appear later, and router advertisements, with a
//! real kernel on both sides.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    client::dig,
    edge::{self, PROGRAM},
    world::{AFTER, BEFORE, Host, Program, ULA, World, needs, within},
};

/// Starts an edge that serves DNS alone.
fn start(world: &World, lan: &str, groups: &str) -> Program {
    let sections = format!(
        "[lan]\ninterfaces = [\"eth0\"]\n{lan}\n[dns]\nlisten = [\"lan:53\", \"lo:53\"]\n\n\
         [dns.records]\nnas = \"192.168.1.10\"\n\n{groups}"
    );
    edge::serve(world, &sections, "127.0.0.1")
}

fn command(world: &World, words: &[&str]) -> String {
    let mut command = world.edge.command(PROGRAM);
    let output =
        command.args(words).arg("--config").arg(world.path("hearthgate.toml")).output().expect("timeout is there");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn raw() -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root may");
    socket.set_multicast_hops_v6(255).expect("it is a socket");
    socket
}

/// Sends a router's advertisement to all nodes on `eth0`.
fn advertise(router: &Host, options: &[u8]) {
    router.inside(|| {
        let socket = raw();
        let index = rustix::net::netdevice::name_to_index(&socket, "eth0").expect("it has an interface");
        socket.set_multicast_if_v6(index).expect("it is there");
        // A router for half an hour, hop limit 64.
        let head = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let all_nodes = SocketAddrV6::new("ff02::1".parse().expect("an address"), 0, 0, index);
        socket.send_to(&[&head[..], options].concat(), &SockAddr::from(all_nodes)).expect("it can be sent");
    });
}

/// A prefix for stateless configuration (RFC 4861 §4.6.2).
fn prefix(prefix: &str) -> Vec<u8> {
    let address: Ipv6Addr = format!("{prefix}::").parse().expect("an address");
    let mut option = vec![3, 4, 64, 0xc0];
    option.extend(1800_u32.to_be_bytes());
    option.extend(1800_u32.to_be_bytes());
    option.extend([0; 4]);
    option.extend(address.octets());
    option
}

/// Returns the first advertisement from this box that fits, of those that a host hears in some seconds.
fn heard(host: &Host, seconds: u64, fits: impl Fn(&[u8]) -> bool + Send + Sync) -> Option<Vec<u8>> {
    host.inside(|| {
        let socket = raw();
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("it is a socket");
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut buffer = [0; 1500];
        while Instant::now() < end {
            use std::io::Read;
            let Ok(length) = (&socket).read(&mut buffer) else { continue };
            if buffer[0] == 134 && fits(&buffer[..length]) {
                return Some(buffer[..length].to_vec());
            }
        }
        None
    })
}

#[test]
fn a_device_that_configures_itself_keeps_its_group_through_every_change_of_its_addresses() {
    needs!("dig", "sysctl", "nft");
    let world = World::new();
    let lan = &world.lan;
    for key in ["accept_ra=2", "autoconf=1", "use_tempaddr=2", "accept_ra_defrtr=0"] {
        lan.run(&format!("sysctl -qw net.ipv6.conf.eth0.{key}"));
    }
    let mac = lan.run("cat /sys/class/net/eth0/address").trim().to_owned();
    // Without the addresses of the world's own making there are those that it makes itself.
    for prefix in BEFORE {
        lan.run(&format!("ip addr del {prefix}::20/64 dev eth0"));
    }
    let groups = format!("[[dns.group]]\nname = \"kids\"\ndevices = [\"{mac}\"]\nblock = [\"games.example\"]\n");
    let _edge = start(&world, "", &groups);
    let blocked = |arguments: &str| {
        let answer = dig(lan, &format!("{arguments} games.example A"));
        assert!(answer.has("0.0.0.0") && answer.has_extended_error(17), "{arguments}: {}", answer.text);
    };
    let temporary = |prefix: &str| lan.run("ip -6 -o addr show dev eth0 scope global temporary").contains(prefix);

    blocked("@192.168.1.2");
    blocked("@fe80::2%eth0");
    for (number, handed_out) in BEFORE.iter().chain(&AFTER).enumerate() {
        if number >= BEFORE.len() {
            world.edge.run(&format!("ip addr add {handed_out}::2/64 dev eth0 nodad"));
        }
        advertise(&world.router, &prefix(handed_out));
        assert!(within(10, || temporary(handed_out)), "{}", lan.run("ip addr show dev eth0"));
        blocked(&format!("@{handed_out}::2"));
    }
    // One that nobody has heard of, whose first question it is.
    for made_up in 0..3 {
        let address = format!("{}:1234::{made_up}", AFTER[0]);
        lan.run(&format!("ip addr add {address}/64 dev eth0 nodad"));
        blocked(&format!("@{}::2 -b {address}", AFTER[0]));
    }
    lan.run("ip addr add 192.168.1.177/24 dev eth0");
    blocked("@192.168.1.2 -b 192.168.1.177");

    let devices = command(&world, &["devices"]);
    let line = devices.lines().find(|line| line.starts_with(&mac)).unwrap_or_else(|| panic!("{devices}"));
    assert!(line.contains("group kids"), "{devices}");
    // Another device is not in the group though it has an address that this one had.
    lan.run("ip link set eth0 address 00:1b:21:00:00:99");
    let passed = || !dig(lan, "@192.168.1.2 games.example A +time=2").has("0.0.0.0");
    assert!(within(20, passed), "{}", command(&world, &["devices"]));
}

#[test]
fn an_address_that_appears_later_is_served_and_answers_come_from_it() {
    needs!("dig", "nft");
    let world = World::new();
    let _edge = start(&world, "", "");

    for (edge, client) in [("192.168.77.2", "192.168.77.20"), ("fd77:1:2:3::2", "fd77:1:2:3::20")] {
        let (length, nodad) = if edge.contains(':') { (64, "nodad") } else { (24, "") };
        world.edge.run(&format!("ip addr add {edge}/{length} dev eth0 {nodad}"));
        world.lan.run(&format!("ip addr add {client}/{length} dev eth0 {nodad}"));
        for transport in ["", "+tcp"] {
            // dig does not take an answer from another address than it asked.
            let served = || {
                dig(&world.lan, &format!("@{edge} -b {client} {transport} nas.home.example A +time=1"))
                    .has("192.168.1.10")
            };
            assert!(within(10, served), "{edge} {transport}");
        }
    }
    world.edge.run("ip addr del 192.168.1.2/24 dev eth0");
    world.edge.run("ip addr add 192.168.1.3/24 dev eth0");
    let served = || dig(&world.lan, "@192.168.1.3 nas.home.example A +time=1").has("192.168.1.10");
    assert!(within(10, served), "another address");
}

#[test]
fn ipv6_clients_hear_of_this_box_unless_another_announces_servers() {
    needs!("nft");
    let world = World::new();
    let server: Ipv6Addr = format!("{ULA}::2").parse().expect("an address");
    let lifetime =
        |bytes: &[u8]| bytes.get(20..24).map(|seconds| u32::from_be_bytes(seconds.try_into().expect("four")));
    let ours = move |bytes: &[u8]| bytes.get(24..40) == Some(&server.octets()[..]);
    let _edge = start(&world, "announce = true", "");

    let advertisement =
        heard(&world.lan, 20, move |bytes| ours(bytes) && lifetime(bytes) != Some(0)).expect("it is announced");
    assert_eq!(advertisement[4..16], [0; 12], "no hop limit, no router");
    assert_eq!(advertisement[16..18], [25, 3], "a DNS server");
    assert_eq!(advertisement[40..42], [31, 3], "a search domain, and no prefix");

    let withdrawn = std::thread::scope(|scope| {
        let hearing = scope.spawn(|| heard(&world.lan, 20, move |bytes| ours(bytes) && lifetime(bytes) == Some(0)));
        std::thread::sleep(Duration::from_millis(500));
        let mut option = vec![25, 3, 0, 0, 0, 0, 7, 8];
        option.extend("2620:fe::fe".parse::<Ipv6Addr>().expect("an address").octets());
        advertise(&world.router, &option);
        hearing.join().expect("it does not fall over")
    });
    assert!(withdrawn.is_some(), "it is not taken back");
    let status = || command(&world, &["status"]);
    let told = || status().contains("fe80::1 on eth0 announces DNS servers already (2620:fe::fe)");
    assert!(within(10, told), "{}", status());
}

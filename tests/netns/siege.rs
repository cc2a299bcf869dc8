//! A flood from many addresses of the Internet: who was there before and who comes by other ways goes on.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, WAN_V4},
    servers::Site,
    tunnel::Tunnel,
    world::{World, needs},
};

/// What the configuration says: so many connections of 32 KiB at rest, and so many requests of 256 KiB.
const CONNECTIONS: u64 = 3000;
const REQUESTS: u64 = 1024;
const BOUND_KIB: u64 = CONNECTIONS * 32 + REQUESTS * 256;
const ATTACKERS: u8 = 200;

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// Connects from an address of its own.
fn connect(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
    let to = SocketAddr::new(WAN_V4.parse().expect("an address"), port);
    socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

/// Opens connections from many addresses until it is over: some say nothing, some begin a head, some ask and do not
/// read.
fn flood(attacker: u8, over: &AtomicBool, opened: &AtomicUsize) {
    let from = Ipv4Addr::new(11, 0, 200, attacker);
    let mut held = std::collections::VecDeque::new();
    let mut turn = usize::from(attacker);
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        let port = if turn.is_multiple_of(2) { 80 } else { 443 };
        if let Ok(mut stream) = connect(from, port) {
            opened.fetch_add(1, Ordering::Relaxed);
            let _ = match turn % 3 {
                0 => Ok(()),
                1 => stream.write_all(b"GET /big HTTP/1.1\r\nHost: photos.home.example\r\nX-A: "),
                _ => stream.write_all(b"GET / HTTP/1.1\r\nHost: photos.home.example\r\n\r\n"),
            };
            held.push_back(stream);
        }
        if held.len() > 40 {
            held.pop_front();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Milliseconds that something took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, u128) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed().as_millis())
}

#[test]
fn a_flood_from_many_addresses_stops_neither_dns_nor_the_tunnel_nor_who_was_there_before() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go");
    let world = World::new();
    let _site = Site::start(&world);
    let edge = Edge::start(&world);
    let text = std::fs::read_to_string(edge.config()).expect("it was written");
    let limits = format!("[ingress]\nmax_connections = {CONNECTIONS}\nmax_requests = {REQUESTS}\n");
    let plain = text.replacen("[ingress]\n", &limits, 1).replacen(
        "access = \"public\"\nto     = [\"http://192.168.1.20:8001\"]",
        "access = \"public\"\nplain = true\nto     = [\"http://192.168.1.20:8001\"]",
        1,
    );
    assert!(plain.contains("plain = true"), "{plain}");
    std::fs::write(edge.config(), plain).expect("it is ours");
    let reloaded = edge.command(&world, &["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let tunnel = Tunnel::start(&world, &edge, &edge.laptop, 2);
    for attacker in 1..=ATTACKERS {
        world.wan.run(&format!("ip addr add 11.0.200.{attacker}/32 dev lo"));
    }
    let ask = || dig(&world.lan, "@192.168.1.2 nas.home.example A +tries=1 +time=3").text.contains("192.168.1.10");
    let page = || curl(&world.roamer, &["--max-time", "5", &format!("http://{INNER_V4}:9153/metrics")]);
    let mut before = world.wan.inside(|| TcpStream::connect((WAN_V4, 80)).expect("the edge listens"));
    let _ = before.set_read_timeout(Some(Duration::from_secs(5)));
    let mut go_on = || {
        before.write_all(b"GET /x HTTP/1.1\r\nHost: photos.home.example\r\n\r\n").expect("it is open");
        let mut part = [0; 4096];
        let read = before.read(&mut part).expect("it answers");
        String::from_utf8_lossy(&part[..read]).into_owned()
    };
    assert!(ask() && page().contains("hearthgate_") && go_on().starts_with("HTTP/1.1 200"));
    let at_rest = resident_kib(edge.pid());

    let (over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut most, mut slowest) = (0, [0; 3]);
    std::thread::scope(|scope| {
        for attacker in 1..=ATTACKERS {
            let (over, opened, wan) = (&over, &opened, &world.wan);
            scope.spawn(move || wan.inside(|| flood(attacker, over, opened)));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::sleep(Duration::from_secs(3));
            for round in 0..20 {
                let (answered, asking) = timed(ask);
                let (shown, showing) = timed(page);
                let (served, serving) = timed(&mut go_on);
                most = most.max(resident_kib(edge.pid()));
                slowest = [slowest[0].max(asking), slowest[1].max(showing), slowest[2].max(serving)];
                assert!(answered, "round {round}: no answer from the DNS");
                assert!(shown.contains("hearthgate_"), "round {round}: nothing through the tunnel: {shown}");
                assert!(served.starts_with("HTTP/1.1 200"), "round {round}: {served}");
            }
        }));
        over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    drop(tunnel);

    let opened = opened.load(Ordering::Relaxed);
    eprintln!(
        "{opened} connections from {ATTACKERS} addresses; at most {most} KiB of memory, {at_rest} before; slowest of 20: a \
         question {} ms, a page in the tunnel {} ms, a request on a connection from before {} ms",
        slowest[0], slowest[1], slowest[2]
    );
    assert!(opened > 2000, "{opened} connections are no flood");
    assert!(most - at_rest < BOUND_KIB, "{most} KiB, {at_rest} before, and the configuration says {BOUND_KIB}");
}

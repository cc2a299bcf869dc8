//! Traffic of a client that others wrote, for as long as it is asked for, while everything happens that happens in a
//! year: packets are lost and overtaken, the client roams, either end is started again, clocks are set.

use std::{
    collections::BinaryHeap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    client::{curl, dig},
    edge::{Edge, INNER_V4, WAN_V4},
    servers::Site,
    tunnel::Tunnel,
    world::{World, needs, within},
};

/// How long it lasts without `ENDURE_SECONDS`.
const SECONDS: u64 = 600;
/// The wire between client and gate loses one packet of so many, and lets one of so many be overtaken by what comes in the
/// next milliseconds.
const LOSES_ONE_OF: u64 = 100;
const DELAYS_ONE_OF: u64 = 50;
const DELAY: Duration = Duration::from_millis(4);
/// What passes between two events.
const CALM: Duration = Duration::from_secs(12);

/// A relay on the Internet that is a bad wire; the client speaks to it as to the gate.
struct Wire {
    address: SocketAddr,
    /// The client gets another address.
    roam: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    passed: Arc<AtomicU64>,
}

impl Wire {
    fn start(world: &World) -> Self {
        let address: SocketAddr = "11.0.9.77:4433".parse().expect("an address");
        let gate: SocketAddr = format!("{WAN_V4}:443").parse().expect("an address");
        let (roam, over, passed): (Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        // Sockets belong to the host in which they were made, whoever uses them.
        let outside = move || {
            let socket = UdpSocket::bind("11.0.9.77:0").expect("it is this host's address");
            socket.connect(gate).expect("there is a route");
            socket
        };
        let (inner, sockets) = world.wan.inside(|| {
            let inner = UdpSocket::bind(address).expect("the port is free");
            // As many as it can roam in an hour; each is another port to the gate.
            (inner, (0..400).map(|_| outside()).collect::<Vec<_>>())
        });
        let wire = Self { address, roam: roam.clone(), over: over.clone(), passed: passed.clone() };
        std::thread::spawn(move || relay(&inner, sockets, &roam, &over, &passed));
        wire
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn relay(inner: &UdpSocket, mut sockets: Vec<UdpSocket>, roam: &AtomicBool, over: &AtomicBool, passed: &AtomicU64) {
    inner.set_nonblocking(true).expect("a socket can be that");
    sockets.iter().for_each(|socket| socket.set_nonblocking(true).expect("a socket can be that"));
    let (mut client, mut number) = (None, 0x9e37_79b9_7f4a_7c15_u64);
    let mut random = move || {
        // xorshift: the wire need not be unguessable.
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    let mut late: BinaryHeap<(std::cmp::Reverse<Instant>, bool, Vec<u8>)> = BinaryHeap::new();
    let mut buffer = [0; 65_536];
    while !over.load(Ordering::Relaxed) {
        if roam.swap(false, Ordering::Relaxed) && sockets.len() > 1 {
            sockets.pop();
        }
        let outer = sockets.last().expect("the last one stays");
        let mut came = Vec::new();
        while let Ok((length, from)) = inner.recv_from(&mut buffer) {
            client = Some(from);
            came.push((true, buffer[..length].to_vec()));
        }
        while let Ok(length) = outer.recv(&mut buffer) {
            came.push((false, buffer[..length].to_vec()));
        }
        let now = Instant::now();
        let is_idle = came.is_empty();
        for (is_to_gate, bytes) in came {
            if random() % LOSES_ONE_OF == 0 {
                continue;
            }
            let delay = if random() % DELAYS_ONE_OF == 0 { DELAY } else { Duration::ZERO };
            late.push((std::cmp::Reverse(now + delay), is_to_gate, bytes));
        }
        while late.peek().is_some_and(|(due, ..)| due.0 <= now) {
            let Some((_, is_to_gate, bytes)) = late.pop() else { break };
            passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            // What a full queue or a host that is down does not take is lost, as on any wire.
            let _ = match (is_to_gate, client) {
                (true, _) => outer.send(&bytes),
                (false, Some(client)) => inner.send_to(&bytes, client),
                (false, None) => Ok(0),
            };
        }
        if is_idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn clock(world: &World, offset: &str) {
    std::fs::write(world.path("faketime"), format!("{offset}\n")).expect("the folder is ours");
}

#[test]
#[ignore = "takes ten minutes, or ENDURE_SECONDS: .ci/long runs it"]
fn traffic_goes_on_whatever_happens() {
    needs!("nft", "dig", "curl", "nginx", "wg", "wireguard-go", "faketime");
    let seconds = std::env::var("ENDURE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let world = World::new();
    let _site = Site::start(&world);
    clock(&world, "+0");
    let mut edge = Edge::start_at_another_time(&world, &world.path("faketime"));
    let ca = edge.ca().display().to_string();
    let wire = Wire::start(&world);
    let connect = |edge: &Edge| {
        let tunnel = Tunnel::start(&world, edge, &edge.laptop, 2);
        tunnel.set_endpoint(&edge.gate.public, &wire.address.to_string());
        tunnel
    };
    let resolve = format!("files.home.example:443:{INNER_V4}");
    let fetch = |patience: &str| {
        let arguments = ["--cacert", &ca, "--resolve", &resolve, "--max-time", patience, "-o", "/dev/null"];
        let all =
            [&arguments[..], &["-r", "0-1048575", "-w", "%{size_download}", "https://files.home.example/big"]].concat();
        curl(&world.roamer, &all)
    };
    let asks = || dig(&world.roamer, &format!("@{INNER_V4} nas.home.example A")).has("192.168.1.10");
    let mut tunnel = Some(connect(&edge));
    assert!(within(20, asks), "the tunnel works");

    let (begin, mut events, mut fetched) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let what = match events % 6 {
            0 | 3 => {
                wire.roam.store(true, Ordering::Relaxed);
                "the client roamed"
            }
            1 => {
                edge = edge.restart(&world);
                "the gate was started again"
            }
            2 => {
                clock(&world, "+7200");
                "the gate's clock went forward"
            }
            4 => {
                drop(tunnel.take());
                tunnel = Some(connect(&edge));
                "the client was started again"
            }
            _ => {
                clock(&world, "-7200");
                "the gate's clock went back"
            }
        };
        events += 1;
        // A handshake may be lost, and is tried again after 5 s.
        assert!(within(20, asks), "after {events} events: {what}\n{}", edge.metrics(&world).text);
        let calm = Instant::now();
        while calm.elapsed() < CALM {
            let page = fetch("25");
            assert!(page.contains("1048576"), "after {events} events: {what}: {page}\n{}", edge.metrics(&world).text);
            fetched += 1;
        }
        assert!(edge.runs(), "after {events} events: {what}");
    }

    let passed = wire.passed.load(Ordering::Relaxed) >> 20;
    eprintln!("{events} events, {fetched} files of 1 MiB, {passed} MiB over the wire, {:?}", begin.elapsed());
}

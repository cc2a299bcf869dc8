//! Clients that ask too much, by every transport: limits are per client, and another one notices nothing. Only real
//! addresses show that: a box does not limit itself.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{
    edge,
    world::{BEFORE, Host, Program, ULA, World, needs},
};

/// What one client may have: bursts of questions, questions a second, connections, questions that wait.
const BURST: usize = 5000;
const RATE: usize = 1000;
const CONNECTIONS: usize = 32;
const WAITING: usize = 100;

/// Connections of a flood.
const MANY: usize = 3000;

const EDGE: &str = "192.168.1.2";
const FLOOD: &str = "192.168.1.20";
const OTHER: &str = "192.168.1.21";

/// Starts an edge that serves DNS over UDP, TCP, TLS and QUIC, and asks a server that never answers.
fn start(world: &World, listen: &str) -> Program {
    world.lan.run(&format!("ip addr add {OTHER}/24 dev eth0"));
    let sections = format!(
        "[lan]\ninterfaces = [\"eth0\"]\n\n\
         [dns]\nlisten = {listen}\nencrypted = [\"lan:853\"]\ndoh = {{ host = \"dns.home.example\", access = [\"lan\"] }}\n\
         resolve = \"forward\"\nupstreams = [\"192.168.1.99\"]\n\n[dns.records]\nnas = \"192.168.1.10\"\n\n\
         [ingress]\nhttp = []\nhttps = []\n\n[metrics]\nlisten = [\"lo:9153\"]\n"
    );
    edge::serve(world, &sections, "192.168.1.2")
}

/// Returns the sum of the series of a metric whose labels hold some words.
fn counted(world: &World, name: &str, words: &str) -> usize {
    let text = super::client::curl(&world.edge, &["http://127.0.0.1:9153/metrics"]);
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(words));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as usize
}

/// A question for an address.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn udp(from: &str, to: &str) -> UdpSocket {
    let from: IpAddr = from.parse().expect("an address");
    let socket = UdpSocket::bind(SocketAddr::new(from, 0)).expect("it is this host's");
    // A connected socket takes answers from the address that it asked only.
    socket.connect(format!("{to}:53")).expect("there is a route");
    socket
}

/// Asks for a name of the house from another address until told to stop; returns how often, and how often in vain.
fn another(over: &AtomicBool) -> (usize, usize) {
    let socket = udp(OTHER, EDGE);
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("not zero");
    let (mut asked, mut in_vain) = (0, 0);
    while !over.load(Ordering::Relaxed) || asked < 100 {
        asked += 1;
        let bytes = question(u16::try_from(asked % 65536).expect("it fits"), "nas.home.example");
        // What the kernel drops on a busy machine is asked for again, as every client does.
        let answered = (0..4).any(|_| {
            socket.send(&bytes).expect("there is a route");
            let mut buffer = [0; 512];
            std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
                .any(|answer| answer.get(..2) == bytes.get(..2) && answer.ends_with(&[192, 168, 1, 10]))
        });
        in_vain += usize::from(!answered);
        std::thread::sleep(Duration::from_millis(2));
    }
    (asked, in_vain)
}

/// Floods from one address of the host while another one asks; returns what the flood came to.
fn beside<T: Send>(host: &Host, flood: impl FnOnce() -> T + Send) -> T {
    host.inside(|| {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let asking = std::thread::spawn(move || another(&told));
        let result = flood();
        over.store(true, Ordering::Relaxed);
        let (asked, in_vain) = asking.join().expect("it does not fall over");
        assert_eq!(in_vain, 0, "of {asked} questions of another client");
        result
    })
}

/// What came back to a flood.
#[derive(Debug, Default)]
struct Came {
    sent: usize,
    bytes_sent: usize,
    answers: usize,
    truncated: usize,
    failed: usize,
    bytes: usize,
    longest: usize,
    took: Duration,
}

impl Came {
    fn take(&mut self, answer: &[u8]) {
        self.bytes += answer.len();
        self.longest = self.longest.max(answer.len());
        match answer {
            [_, _, flags, ..] if flags & 2 != 0 => self.truncated += 1,
            [_, _, _, code, ..] if code & 15 == 2 => self.failed += 1,
            _ => self.answers += 1,
        }
    }
}

/// Sends many datagrams from one address as fast as they go out.
fn flood(count: usize, datagram: impl Fn(usize) -> Vec<u8>) -> Came {
    let socket = udp(FLOOD, EDGE);
    socket.set_nonblocking(true).expect("it is a socket");
    let (mut came, mut buffer, begun) = (Came::default(), [0; 65536], Instant::now());
    for number in 0..count {
        let bytes = datagram(number);
        if socket.send(&bytes).is_ok() {
            came.sent += 1;
            came.bytes_sent += bytes.len();
        }
        while let Ok(length) = socket.recv(&mut buffer) {
            came.take(&buffer[..length]);
        }
    }
    came.took = begun.elapsed();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        match socket.recv(&mut buffer) {
            Ok(length) => came.take(&buffer[..length]),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    came
}

#[test]
fn who_floods_with_datagrams_is_bounded_and_gets_no_more_than_it_sent() {
    needs!("dig", "curl", "nft");
    let world = World::new();
    let _edge = start(&world, "[\"lan:53\", \"lo:53\"]");

    let came = beside(&world.lan, || flood(60_000, |number| question(number as u16, "nas.home.example")));
    eprintln!("questions: {came:?}");
    let allowed = BURST + RATE * (came.took.as_secs() as usize + 3);
    assert!(came.answers <= allowed, "{came:?}");
    assert!(came.truncated > 0 || counted(&world, "hearthgate_dns_dropped_total", "limit") > 0, "{came:?}");

    // The bucket is empty: whatever comes now gets silence, or TC that is no longer than the question.
    let odd: [fn(usize) -> Vec<u8>; 3] = [
        // ANY with an enormous buffer.
        |number| {
            let mut bytes = question(number as u16, "nas.home.example");
            let at = bytes.len() - 3;
            bytes[at] = 255;
            bytes[11] = 1;
            bytes.extend([0, 0, 41, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
            bytes
        },
        // A thousand bytes of options.
        |number| {
            let mut bytes = question(number as u16, "nas.home.example");
            bytes[11] = 1;
            bytes.extend([0, 0, 41, 0xff, 0xff, 0, 0, 0, 0, 3, 232, 0xff, 0xf0, 3, 228]);
            bytes.extend([7; 996]);
            bytes
        },
        // Scraps.
        |number| {
            let mut bytes = question(number as u16, "nas.home.example");
            bytes.truncate(13 + number % 20);
            bytes
        },
    ];
    for (kind, datagram) in odd.into_iter().enumerate() {
        let came = beside(&world.lan, || flood(20_000, datagram));
        eprintln!("kind {kind}: {came:?}");
        assert!(came.bytes <= came.bytes_sent, "{came:?}");
        assert!(came.longest <= 512, "{came:?}");
    }
}

#[test]
fn who_floods_with_names_that_nobody_knows_waits_for_few_of_them_at_once() {
    needs!("dig", "curl", "nft");
    let world = World::new();
    let _edge = start(&world, "[\"lan:53\", \"lo:53\"]");

    let came =
        beside(&world.lan, || flood(4000, |number| question(number as u16, &format!("x{number}.random.example"))));
    eprintln!("random names: {came:?}");
    // Those beyond the bound are told at once, and nobody outside is asked for them.
    let refused = counted(&world, "hearthgate_dns_overload_total", "waiting_of_client");
    let asked = counted(&world, "hearthgate_dns_upstream_messages_total", "");
    eprintln!("refused {refused}, messages to servers {asked}");
    assert!(refused > 1000, "{refused} of {came:?}");
    assert!(counted(&world, "hearthgate_dns_waiting_questions", "") <= WAITING);
    assert!(asked <= 4 * (came.sent - refused), "{asked} messages for {} questions", came.sent - refused);
}

/// Opens connections from one address until they are refused or there are many; returns those that stay open.
fn connections(port: u16, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for number in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        socket.bind(&SocketAddr::new(FLOOD.parse().expect("an address"), 0).into()).expect("it is this host's");
        let to: SocketAddr = format!("{EDGE}:{port}").parse().expect("an address");
        if socket.connect_timeout(&to.into(), Duration::from_secs(2)).is_ok() {
            open.push(TcpStream::from(socket));
        }
        // Those that are shut in its face need no descriptor of ours.
        if number % 100 == 99 {
            std::thread::sleep(Duration::from_millis(20));
            open.retain(is_open);
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    open.retain(is_open);
    open
}

fn is_open(stream: &TcpStream) -> bool {
    let mut stream = stream;
    stream.set_nonblocking(true).expect("it is a socket");
    matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Asks over TCP from another address.
fn over_tcp(from: &str) -> Vec<u8> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    socket.bind(&SocketAddr::new(from.parse().expect("an address"), 0).into()).expect("it is this host's");
    let to: SocketAddr = format!("{EDGE}:53").parse().expect("an address");
    let mut answer = Vec::new();
    if socket.connect_timeout(&to.into(), Duration::from_secs(3)).is_ok() {
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("not zero");
        let bytes = question(7, "nas.home.example");
        let length = u16::try_from(bytes.len()).expect("it is short").to_be_bytes();
        let mut length_of_answer = [0; 2];
        if stream.write_all(&[&length[..], &bytes].concat()).is_ok() && stream.read_exact(&mut length_of_answer).is_ok()
        {
            answer = vec![0; usize::from(u16::from_be_bytes(length_of_answer))];
            let _ = stream.read_exact(&mut answer);
        }
    }
    answer
}

#[test]
fn who_opens_thousands_of_connections_keeps_few_and_another_client_gets_one() {
    needs!("dig", "curl", "nft");
    let world = World::new();
    let _edge = start(&world, "[\"lan:53\", \"lo:53\"]");

    for port in [53, 853] {
        beside(&world.lan, || {
            let held = connections(port, MANY);
            eprintln!("port {port}: {} of {MANY} connections stay open", held.len());
            assert!((1..=CONNECTIONS).contains(&held.len()), "{} connections to port {port}", held.len());
            assert!(over_tcp(OTHER).ends_with(&[192, 168, 1, 10]), "another client");
            // One byte at a time gets nobody a place for ever.
            let mut slow = held.into_iter().next().expect("there is one");
            let begun = Instant::now();
            while is_open(&slow) && begun.elapsed() < Duration::from_secs(40) {
                // 257 bytes are announced.
                let _ = slow.write_all(&[1]);
                std::thread::sleep(Duration::from_secs(1));
            }
            let took = begun.elapsed();
            eprintln!("port {port}: a slow connection was cut after {took:?}");
            assert!(!is_open(&slow), "it holds its place for ever");
        });
    }
    assert!(counted(&world, "hearthgate_dns_dropped_total", "connections") >= 2 * (MANY - CONNECTIONS));
}

#[test]
fn who_begins_thousands_of_quic_handshakes_finishes_few_and_another_client_finishes_its_own() {
    needs!("dig", "curl", "nft");
    let world = World::new();
    let _edge = start(&world, "[\"lan:53\", \"lo:53\"]");

    let (opened, other) = beside(&world.lan, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made");
        runtime.block_on(async {
            let flooding = super::client::quic(FLOOD);
            let to: SocketAddr = format!("{EDGE}:853").parse().expect("an address");
            let begun: Vec<_> =
                (0..MANY).filter_map(|_| flooding.connect(to, "dns.home.example").ok()).map(tokio::spawn).collect();
            // In the middle of it.
            let asking = super::client::quic(OTHER).connect(to, "dns.home.example").expect("a name");
            let other = tokio::time::timeout(Duration::from_secs(10), asking).await;
            let end = tokio::time::Instant::now() + Duration::from_secs(5);
            let mut opened = Vec::new();
            for connecting in begun {
                let finished = tokio::time::timeout_at(end, connecting).await;
                opened.extend(finished.ok().and_then(Result::ok).and_then(Result::ok));
            }
            (opened.len(), other.is_ok_and(|other| other.is_ok()))
        })
    });

    let retried = counted(&world, "hearthgate_dns_quic_retries_total", "");
    eprintln!("{opened} of {MANY} connections, {retried} had to prove their address");
    assert!((1..=CONNECTIONS).contains(&opened), "{opened}");
    assert!(other, "another client");
}

#[test]
fn answers_leave_from_the_address_that_was_asked_also_where_all_are_listened_on() {
    needs!("dig", "curl", "nft");
    let world = World::new();
    let _edge = start(&world, "[\"0.0.0.0:53\", \"[::]:53\"]");
    world.edge.run("ip addr add 192.168.1.3/24 dev eth0");
    world.edge.run(&format!("ip addr add {ULA}::3/64 dev eth0 nodad"));

    world.lan.inside(|| {
        let [first, second] = BEFORE;
        let of = |prefix: &str, last: &str| format!("[{prefix}::{last}]");
        for to in
            [EDGE.to_owned(), "192.168.1.3".to_owned(), of(ULA, "2"), of(ULA, "3"), of(first, "2"), of(second, "2")]
        {
            let any = if to.starts_with('[') { "::" } else { "0.0.0.0" };
            let socket = udp(any, &to);
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("not zero");
            let answered = (0..8).any(|_| {
                let _ = socket.send(&question(7, "nas.home.example"));
                let mut buffer = [0; 512];
                socket.recv(&mut buffer).is_ok_and(|length| buffer[..length].ends_with(&[192, 168, 1, 10]))
            });
            assert!(answered, "{to}");
        }
    });
}

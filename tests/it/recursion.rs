//! A real DNS plane that begins at the root, with a small Internet of false servers on loopback.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use hearthgate::dns::{Config, Fallback, Resolve, Testing, Upstream};
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};

use crate::dns::{Running, config, ede, query, read_frame, rr, texts, write_frame};

const ROOT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const TLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const LEAF: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// Hears and says nothing.
const MUTE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
/// Nobody is there.
const EMPTY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// In the log for a connection that was opened.
const CONNECTED: &str = "connected";

/// What was asked of whom.
type Log = Arc<Mutex<Vec<(Ipv4Addr, String, &'static str)>>>;

/// Port and ID of each datagram.
type Sources = Arc<Mutex<Vec<(u16, u16)>>>;

pub(crate) struct Internet {
    pub(crate) port: u16,
    log: Log,
    sources: Sources,
}

impl Internet {
    /// Starts the servers of `.`, `tld.` and `leaf.tld.`, all on one port.
    pub(crate) fn start() -> Self {
        let (port, sockets) = one_port([ROOT, TLD, LEAF, MUTE]);
        let (log, sources) = (Log::default(), Sources::default());
        for (address, udp, tcp) in sockets {
            let (seen, seen_tcp, from) = (log.clone(), log.clone(), sources.clone());
            std::thread::spawn(move || serve_udp(address, &udp, &seen, &from));
            std::thread::spawn(move || serve_tcp(address, &tcp, &seen_tcp));
        }
        Self { port, log, sources }
    }

    pub(crate) fn house(&self) -> Running {
        self.house_with(|_| {})
    }

    fn house_with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = config(SocketAddr::from((ROOT, self.port)));
        config.resolve = Resolve::Recursive;
        config.case_randomisation = true;
        config.testing = Testing {
            root_servers: vec![ROOT.into()],
            server_port: self.port,
            anchors: Some(Vec::new()),
            special_servers: true,
            ..Testing::default()
        };
        change(&mut config);
        Running::start(config)
    }

    /// Counts what was asked of anybody.
    pub(crate) fn total(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    pub(crate) fn asked(&self, name: &str) -> Vec<(Ipv4Addr, &'static str)> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|(_, asked, _)| asked == name).map(|(server, _, transport)| (*server, *transport)).collect()
    }
}

/// Sockets on the same port of several addresses.
fn one_port<const N: usize>(addresses: [Ipv4Addr; N]) -> (u16, Vec<(Ipv4Addr, UdpSocket, TcpListener)>) {
    loop {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bind = |address| {
            let place = SocketAddr::from((address, port));
            Some((address, UdpSocket::bind(place).ok()?, TcpListener::bind(place).ok()?))
        };
        if let Some(sockets) = addresses.into_iter().map(bind).collect() {
            return (port, sockets);
        }
    }
}

fn serve_udp(address: Ipv4Addr, socket: &UdpSocket, log: &Log, sources: &Sources) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // A client's port that was closed meanwhile.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(_) => return,
        };
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let (name, answer) = said(address, &request);
        sources.lock().unwrap().push((from.port(), request.metadata.id));
        log.lock().unwrap().push((address, name.clone(), "udp"));
        let Some(answer) = answer else { continue };
        let first = name.split('.').next().unwrap_or_default();
        let send = |message: &Message| drop(socket.send_to(&message.to_vec().unwrap(), from));
        match first {
            "forged" => {
                let mut forged = answer.clone();
                forged.metadata.id ^= 1;
                forged.answers = vec![rr(&name, 60, "A 198.51.100.66")];
                send(&forged);
                // From another address of ours: the socket hears its server alone.
                forged.metadata.id ^= 1;
                let other = UdpSocket::bind("127.0.0.7:0").unwrap();
                other.send_to(&forged.to_vec().unwrap(), from).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                send(&answer);
            }
            "slow" => {
                std::thread::sleep(Duration::from_millis(200));
                send(&answer);
            }
            "big" => send(&answer.truncate()),
            _ => send(&answer),
        }
    }
}

fn serve_tcp(address: Ipv4Addr, listener: &TcpListener, log: &Log) {
    while let Ok((mut stream, _)) = listener.accept() {
        log.lock().unwrap().push((address, CONNECTED.into(), "tcp"));
        while let Some(request) = read_frame(&mut stream) {
            let (name, answer) = said(address, &Message::from_vec(&request).unwrap());
            log.lock().unwrap().push((address, name, "tcp"));
            let Some(answer) = answer else { break };
            write_frame(&mut stream, &answer.to_vec().unwrap());
        }
    }
}

/// What the server at an address says.
fn said(address: Ipv4Addr, request: &Message) -> (String, Option<Message>) {
    let asked = &request.queries[0];
    let name = asked.name().to_lowercase();
    let mut answer = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    answer.add_query(asked.clone());
    let server = |zone: &str, name: &str| {
        Record::from_rdata(zone.parse().unwrap(), 3600, RData::NS(rdata::NS(name.parse().unwrap())))
    };
    let glue = |name: &str, address: Ipv4Addr| rr(name, 3600, &format!("A {address}"));
    let is_under = |zone: &str| zone.parse::<Name>().unwrap().zone_of(&name);
    let referral = match address {
        ROOT if is_under("tld.") => vec![server("tld.", "ns.tld."), glue("ns.tld.", TLD)],
        TLD if is_under("leaf.tld.") => vec![server("leaf.tld.", "ns.leaf.tld."), glue("ns.leaf.tld.", LEAF)],
        TLD if is_under("half.tld.") => vec![
            server("half.tld.", "a.half.tld."),
            server("half.tld.", "b.half.tld."),
            server("half.tld.", "c.half.tld."),
            glue("a.half.tld.", MUTE),
            glue("b.half.tld.", EMPTY),
            glue("c.half.tld.", LEAF),
        ],
        TLD if is_under("mute.tld.") => vec![server("mute.tld.", "ns.mute.tld."), glue("ns.mute.tld.", MUTE)],
        MUTE => return (name.to_string(), None),
        _ => Vec::new(),
    };
    if !referral.is_empty() {
        let (servers, addresses): (Vec<_>, Vec<_>) =
            referral.into_iter().partition(|record| record.record_type() == RecordType::NS);
        answer.add_authorities(servers);
        answer.add_additionals(addresses);
        return (name.to_string(), Some(answer));
    }
    answer.metadata.authoritative = true;
    let text = name.to_string();
    match (address, text.as_str(), asked.query_type()) {
        (ROOT, ".", RecordType::NS) => {
            answer.add_answer(server(".", "a.root-servers.net."));
            answer.add_additional(glue("a.root-servers.net.", ROOT));
        }
        (LEAF, "big.leaf.tld.", RecordType::TXT) => {
            answer.add_answer(rr(&text, 60, "TXT 12"));
        }
        (LEAF, "alias.leaf.tld.", _) => {
            answer.add_answer(rr(&text, 60, "CNAME www.half.tld."));
        }
        (LEAF, _, RecordType::A) if text.split('.').count() > 3 => {
            answer.add_answer(rr(&text, 60, "A 198.51.100.7"));
        }
        (_, zone, _) => {
            let code = if zone.starts_with("nothing.") { ResponseCode::NXDomain } else { ResponseCode::NoError };
            answer.metadata.response_code = code;
            let apex = match address {
                ROOT => ".",
                TLD => "tld.",
                _ if is_under("half.tld.") => "half.tld.",
                _ => "leaf.tld.",
            };
            let soa = rdata::SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 60);
            answer.add_authority(Record::from_rdata(apex.parse().unwrap(), 900, RData::SOA(soa)));
        }
    }
    (text, Some(answer))
}

#[test]
fn a_name_is_found_from_the_root_and_known_cuts_are_not_asked_for_again() {
    let internet = Internet::start();
    let house = internet.house();

    let first = house.ask("www.leaf.tld.", RecordType::A);
    let asked = internet.log.lock().unwrap().len();
    let second = house.ask("other.leaf.tld.", RecordType::A);

    assert_eq!(texts(&first), ["198.51.100.7"]);
    assert!(!first.metadata.authentic_data && !first.metadata.authoritative);
    assert_eq!(texts(&second), ["198.51.100.7"]);
    let answered = u64::try_from(asked + 1).unwrap();
    assert!((1..=answered).contains(&house.observed("hearthgate_dns_upstream_round_trip_seconds")));
    assert_eq!(internet.log.lock().unwrap().len(), asked + 1);
    assert_eq!(internet.asked("other.leaf.tld."), [(LEAF, "udp")]);
    assert!(internet.asked("www.leaf.tld.").iter().all(|(server, _)| *server == LEAF), "minimised");
}

#[test]
fn aliases_are_followed_into_other_zones_and_what_is_not_there_is_denied() {
    let internet = Internet::start();
    let house = internet.house();

    let alias = house.ask("alias.leaf.tld.", RecordType::A);
    let nothing = house.ask("nothing.leaf.tld.", RecordType::MX);

    assert_eq!(texts(&alias), ["www.half.tld.", "198.51.100.7"]);
    assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(nothing.authorities[0].name.to_string(), "leaf.tld.");
    assert_eq!(nothing.authorities[0].ttl, 60);
}

#[test]
fn what_is_too_long_for_a_datagram_is_fetched_over_tcp() {
    let internet = Internet::start();
    let house = internet.house();

    let cut = house.ask("big.leaf.tld.", RecordType::TXT);
    let whole = house.ask_tcp("big.leaf.tld.", RecordType::TXT);

    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(whole.answers.len(), 1);
    assert_eq!(internet.asked("big.leaf.tld."), [(LEAF, "udp"), (LEAF, "tcp")]);
}

#[test]
fn rfc7766_a_connection_to_a_server_serves_what_comes_next() {
    let internet = Internet::start();
    let house = internet.house();

    for number in 0..5 {
        let name = format!("big.n{number}.leaf.tld.");
        assert_eq!(texts(&house.ask(&name, RecordType::A)), ["198.51.100.7"]);
        assert_eq!(internet.asked(&name), [(LEAF, "udp"), (LEAF, "tcp")]);
    }
    assert_eq!(internet.asked(CONNECTED), [(LEAF, "tcp")]);
}

#[test]
fn servers_that_are_silent_or_not_there_are_passed_over() {
    let internet = Internet::start();
    let house = internet.house();

    for name in ["one.half.tld.", "two.half.tld.", "three.half.tld."] {
        assert_eq!(texts(&house.ask(name, RecordType::A)), ["198.51.100.7"], "{name}");
    }
}

#[test]
fn forged_datagrams_are_not_believed() {
    let internet = Internet::start();
    let house = internet.house();

    let answer = house.ask("forged.leaf.tld.", RecordType::A);

    assert_eq!(texts(&answer), ["198.51.100.7"]);
}

#[test]
fn ports_and_ids_of_questions_cannot_be_foreseen() {
    // Kaminsky, SADDNS: a new socket on a random port for each, with a random ID.
    let internet = Internet::start();
    let house = internet.house();
    for number in 0..300 {
        house.ask(&format!("n{number}.leaf.tld."), RecordType::A);
    }

    let sources = internet.sources.lock().unwrap();
    let distinct = |values: &mut dyn Iterator<Item = u16>| values.collect::<BTreeSet<_>>().len();
    assert!(sources.len() >= 300);
    assert!(distinct(&mut sources.iter().map(|(port, _)| *port)) >= 290, "{sources:?}");
    assert!(distinct(&mut sources.iter().map(|(_, id)| *id)) >= 290, "{sources:?}");
    let ports: Vec<u16> = sources.iter().map(|(port, _)| *port).collect();
    assert!(ports.iter().any(|port| *port < 16384) && ports.iter().any(|port| *port > 49152), "{ports:?}");
    let near = |pair: &&[u16]| pair[0].abs_diff(pair[1]) < 1000;
    assert!(ports.windows(2).filter(near).count() < 60, "{ports:?}");
}

#[test]
fn servers_that_recurse_are_backed_by_recursion_where_the_owner_wants_it() {
    let internet = Internet::start();
    // Hears and says nothing; nobody is there.
    for upstream in [MUTE, EMPTY] {
        let upstream = Upstream::plain(SocketAddr::from((upstream, internet.port)));
        let house = internet.house_with(|config| {
            config.resolve = Resolve::Forward(vec![upstream]);
            config.fallback = Fallback::Recursion;
        });

        for name in ["one.leaf.tld.", "two.leaf.tld."] {
            assert_eq!(texts(&house.ask(name, RecordType::A)), ["198.51.100.7"], "{name}");
        }
    }
}

#[test]
fn a_zone_that_nobody_serves_fails_and_says_why() {
    let internet = Internet::start();
    let house = internet.house();

    let answer = house.ask("www.mute.tld.", RecordType::A);

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ede(&answer), Some(22));
}

#[test]
fn a_root_that_is_not_there_is_told_at_once() {
    let (port, _held) = one_port([TLD]);
    let internet = Internet { port, log: Log::default(), sources: Sources::default() };
    let house = internet.house_with(|config| config.testing.root_servers = vec![EMPTY.into()]);

    let answer = house.ask("www.leaf.tld.", RecordType::A);

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ede(&answer), Some(22));
}

#[test]
fn many_clients_cost_one_question() {
    let internet = Internet::start();
    let house = internet.house();
    let bytes = query(7, "slow.leaf.tld.", RecordType::A).to_vec().unwrap();

    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| house.ask_bytes(&bytes))).collect();
        for client in clients {
            let answer = Message::from_vec(&client.join().unwrap().expect("an answer")).unwrap();
            assert_eq!(texts(&answer), ["198.51.100.7"]);
        }
    });

    assert_eq!(internet.asked("slow.leaf.tld."), [(LEAF, "udp")]);
}

#[test]
fn without_signatures_under_an_anchor_nothing_is_believed_unless_the_client_checks_itself() {
    let internet = Internet::start();
    let anchor = ". IN DS 12345 8 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let house = internet.house_with(|config| config.testing.anchors = Some(vec![anchor.into()]));
    let mut unchecked = query(7, "www.leaf.tld.", RecordType::A);
    unchecked.metadata.checking_disabled = true;

    let answer = house.ask("www.leaf.tld.", RecordType::A);
    let unchecked = house.ask_bytes(&unchecked.to_vec().unwrap()).unwrap();

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(matches!(ede(&answer), Some(6..=12)), "{:?}", ede(&answer));
    assert_eq!(texts(&Message::from_vec(&unchecked).unwrap()), ["198.51.100.7"]);
}

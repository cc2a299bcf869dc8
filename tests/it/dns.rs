//! A real DNS plane on loopback, with a false server behind it.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hearthgate::{
    dns::{
        Action, BlockAs, Config, Fallback, Forward, Group, List, ListSource, LocalRecord, Plane, Resolve, Testing,
        Upstream,
    },
    identity::Identity,
    listen::Place,
    metrics::Metrics,
    origin::{Networks, Origin, PeerId},
    stream::{self, Datagram},
    supervise::{self, Phase, Stopper},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};

/// What the false server says: records by name, SERVFAIL for `broken.`, silence for `silent.`, NXDOMAIN else.
pub(crate) struct FalseServer {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicU32>,
}

pub(crate) fn rr(name: &str, ttl: u32, data: &str) -> Record {
    let data = match data.split_once(' ') {
        Some(("A", ip)) => RData::A(rdata::A(Ipv4Addr::from_str(ip).unwrap())),
        Some(("CNAME", target)) => RData::CNAME(rdata::CNAME(target.parse().unwrap())),
        Some(("TXT", size)) => {
            let text = "x".repeat(200);
            RData::TXT(rdata::TXT::new(vec![text; size.parse().unwrap()]))
        }
        _ => panic!("no record: {data}"),
    };
    Record::from_rdata(name.parse().unwrap(), ttl, data)
}

fn reply(request: &Message, records: &HashMap<Name, Vec<Record>>) -> Option<Message> {
    let query = &request.queries[0];
    let mut answer = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let first = query.name().iter().next().map(<[u8]>::to_ascii_lowercase).unwrap_or_default();
    match first.as_slice() {
        b"silent" => return None,
        b"slow" => std::thread::sleep(Duration::from_millis(300)),
        _ => {}
    }
    match records.get(&query.name().to_lowercase()) {
        _ if first == b"broken" => answer.metadata.response_code = ResponseCode::ServFail,
        Some(found) => {
            let wanted = found
                .iter()
                .filter(|one| one.record_type() == query.query_type() || one.record_type() == RecordType::CNAME);
            answer.add_answers(wanted.cloned());
            if let Some(RData::CNAME(target)) = answer.answers.first().map(|one| one.data.clone()) {
                answer.add_answers(records.get(&target.0).into_iter().flatten().cloned());
            }
        }
        None => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            let soa = rdata::SOA::new("ns.example.".parse().unwrap(), "h.example.".parse().unwrap(), 1, 2, 3, 4, 60);
            answer.add_authority(Record::from_rdata("example.".parse().unwrap(), 900, RData::SOA(soa)));
        }
    }
    Some(answer)
}

impl FalseServer {
    pub(crate) fn start(records: Vec<Record>) -> Self {
        let mut by_name: HashMap<Name, Vec<Record>> = HashMap::new();
        for record in records {
            by_name.entry(record.name.clone()).or_default().push(record);
        }
        let by_name = Arc::new(by_name);
        let (udp, tcp) = both_ports();
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let (counter, known) = (asked.clone(), by_name.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
                counter.fetch_add(1, Ordering::SeqCst);
                let (udp, known) = (udp.try_clone().unwrap(), known.clone());
                std::thread::spawn(move || {
                    let Some(mut answer) = reply(&request, &known) else { return };
                    if answer.to_vec().unwrap().len() > 1200 {
                        answer = answer.truncate();
                    }
                    udp.send_to(&answer.to_vec().unwrap(), from).unwrap();
                });
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let known = by_name.clone();
                std::thread::spawn(move || {
                    while let Some(request) = read_frame(&mut stream) {
                        let Some(answer) = reply(&Message::from_vec(&request).unwrap(), &known) else { return };
                        write_frame(&mut stream, &answer.to_vec().unwrap());
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn times_asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A UDP and a TCP socket on one port.
fn both_ports() -> (UdpSocket, std::net::TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

pub(crate) fn write_frame(stream: &mut TcpStream, frame: &[u8]) {
    let mut bytes = u16::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(frame);
    stream.write_all(&bytes).unwrap();
}

pub(crate) fn config(upstream: SocketAddr) -> Config {
    Config {
        listen: vec![Place::from(SocketAddr::from(([127, 0, 0, 1], 0)))],
        domain: "home.example.".parse().unwrap(),
        case_randomisation: false,
        resolve: Resolve::Forward(vec![Upstream::plain(upstream)]),
        records: vec![
            LocalRecord::Fixed(rr("nas.home.example.", 60, "A 192.168.1.10")),
            LocalRecord::Fixed(rr("shop.home.example.", 60, "CNAME www.example.")),
        ],
        lists: vec![List {
            name: "ads".into(),
            source: ListSource::Inline(vec!["ads.example".into(), "tracker.example".into()]),
            action: Action::Block,
            purpose: hearthgate::dns::Purpose::Filter,
            block_as: BlockAs::Null,
            refresh: Duration::from_secs(86400),
            enabled: true,
        }],
        groups: vec![group(&[0])],
        testing: Testing { special_servers: true, anchors: Some(Vec::new()), ..Testing::default() },
        ..Config::default()
    }
}

fn group(lists: &[usize]) -> Group {
    Group { name: "default".into(), lists: lists.to_vec(), ..Group::default() }
}

pub(crate) struct Running {
    pub(crate) plane: Arc<Plane>,
    pub(crate) address: SocketAddr,
    stopper: Stopper,
    thread: Option<std::thread::JoinHandle<Result<(), String>>>,
    metrics: Metrics,
    /// What one house knows is not the next one's.
    state: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        Self::start_with(config, Networks::default(), None)
    }

    fn start_with(config: Config, networks: Networks, inlet: Option<stream::Inlet>) -> Self {
        Self::start_as(config, networks, inlet, Identity::default())
    }

    pub(crate) fn start_as(
        mut config: Config,
        networks: Networks,
        inlet: Option<stream::Inlet>,
        identity: Identity,
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        if config.state == PathBuf::new() {
            config.state = state.path().into();
        }
        let metrics = Metrics::new();
        let networks = Arc::new(ArcSwap::from_pointee(networks));
        let plane = Arc::new(Plane::bind(&config, networks, &metrics, inlet, identity).unwrap());
        plane.commit(plane.prepare(config).unwrap());
        let address = plane.status().listen[0];
        let (stopper, stop) = supervise::stop();
        let running = plane.clone();
        let thread = Some(std::thread::spawn(move || running.run(stop)));
        Self { plane, address, stopper, thread, metrics, state }
    }

    pub(crate) fn reload(&self, config: Config) {
        let config = Config { state: self.state.path().into(), ..config };
        self.plane.commit(self.plane.prepare(config).unwrap());
    }

    pub(crate) fn ask_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        client.send_to(bytes, self.address).unwrap();
        let mut buffer = [0; 4096];
        let (length, from) = client.recv_from(&mut buffer).ok()?;
        assert_eq!(from, self.address);
        Some(buffer[..length].to_vec())
    }

    pub(crate) fn ask(&self, name: &str, rtype: RecordType) -> Message {
        let answer = self.ask_bytes(&query(7, name, rtype).to_vec().unwrap()).expect("an answer");
        Message::from_vec(&answer).unwrap()
    }

    pub(crate) fn ask_tcp(&self, name: &str, rtype: RecordType) -> Message {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        write_frame(&mut stream, &query(7, name, rtype).to_vec().unwrap());
        Message::from_vec(&read_frame(&mut stream).unwrap()).unwrap()
    }

    /// Has it finish what it began.
    pub(crate) fn drain(&self) {
        self.stopper.advance(Phase::Drain);
    }

    pub(crate) fn counted(&self, name: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// How many values a histogram has seen.
    pub(crate) fn observed(&self, name: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_histogram().get_sample_count()).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.advance(Phase::Drain);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            assert_eq!(ended.unwrap(), Ok(()));
        }
    }
}

pub(crate) fn query(id: u16, name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse().unwrap(), rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

pub(crate) fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// Reads the extended error out of an answer's OPT.
pub(crate) fn ede(message: &Message) -> Option<u16> {
    let edns = message.edns.as_ref()?;
    let option = edns.option(hickory_proto::rr::rdata::opt::EdnsCode::from(15))?;
    let hickory_proto::rr::rdata::opt::EdnsOption::Unknown(_, bytes) = option else { return None };
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[test]
fn a_record_of_the_house_is_answered_without_asking_anybody() {
    let server = FalseServer::start(vec![]);
    let running = Running::start(config(server.address));

    let answer = running.ask("NAS.home.example.", RecordType::A);
    let back = running.ask("10.1.168.192.in-addr.arpa.", RecordType::PTR);
    let none = running.ask("nas.home.example.", RecordType::AAAA);

    assert_eq!(texts(&answer), ["192.168.1.10"]);
    assert!(answer.metadata.authoritative);
    assert_eq!(texts(&back), ["nas.home.example."]);
    assert_eq!((none.metadata.response_code, none.authorities.len()), (ResponseCode::NoError, 1));
    assert_eq!(server.times_asked(), 0);
}

#[test]
fn the_second_question_is_answered_from_the_cache_in_the_clients_own_words() {
    let server = FalseServer::start(vec![rr("www.example.", 300, "A 192.0.2.80")]);
    let running = Running::start(config(server.address));
    running.ask("www.example.", RecordType::A);

    let bytes = query(4711, "WwW.eXample.", RecordType::A).to_vec().unwrap();
    let raw = running.ask_bytes(&bytes).unwrap();

    let answer = Message::from_vec(&raw).unwrap();
    assert_eq!(answer.metadata.id, 4711);
    assert_eq!(raw[12..25], bytes[12..25], "the question stands as it was asked");
    assert_eq!(texts(&answer), ["192.0.2.80"]);
    assert!(answer.answers[0].ttl <= 300);
    assert_eq!(server.times_asked(), 1);
    assert_eq!(running.plane.status().cache_entries, 1);
}

#[test]
fn the_house_asks_others_for_names_under_its_domain_that_it_does_not_know() {
    let server = FalseServer::start(vec![rr("mail.home.example.", 300, "A 192.0.2.25")]);
    let running = Running::start(config(server.address));

    assert_eq!(texts(&running.ask("mail.home.example.", RecordType::A)), ["192.0.2.25"]);
    assert_eq!(running.ask("nowhere.home.example.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn an_alias_of_the_house_is_followed_outside() {
    let server = FalseServer::start(vec![rr("www.example.", 300, "A 192.0.2.80")]);
    let running = Running::start(config(server.address));

    for _ in 0..2 {
        let answer = running.ask("shop.home.example.", RecordType::A);
        assert_eq!(texts(&answer), ["www.example.", "192.0.2.80"]);
    }
    assert_eq!(server.times_asked(), 1);
}

#[test]
fn a_blocked_name_is_told_so() {
    let server = FalseServer::start(vec![rr("www.ads.example.", 300, "A 192.0.2.66")]);
    let running = Running::start(config(server.address));

    let answer = running.ask("ads.example.", RecordType::A);

    assert_eq!(texts(&answer), ["0.0.0.0"]);
    assert_eq!(ede(&answer), Some(15));
    assert_eq!(server.times_asked(), 0);
}

#[test]
fn what_does_not_fit_comes_over_tcp() {
    let server = FalseServer::start(vec![rr("long.example.", 300, "TXT 9")]);
    let running = Running::start(config(server.address));

    let short = running.ask("long.example.", RecordType::TXT);
    let whole = running.ask_tcp("long.example.", RecordType::TXT);

    assert!(short.metadata.truncation && short.answers.is_empty());
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 1);
}

#[test]
fn a_connection_is_answered_out_of_order() {
    let server =
        FalseServer::start(vec![rr("slow.example.", 300, "A 192.0.2.1"), rr("www.example.", 300, "A 192.0.2.2")]);
    let running = Running::start(config(server.address));
    let mut stream = TcpStream::connect(running.address).unwrap();
    write_frame(&mut stream, &query(1, "slow.example.", RecordType::A).to_vec().unwrap());
    write_frame(&mut stream, &query(2, "nas.home.example.", RecordType::A).to_vec().unwrap());
    write_frame(&mut stream, &query(3, "www.example.", RecordType::A).to_vec().unwrap());

    let ids: Vec<_> =
        (0..3).map(|_| Message::from_vec(&read_frame(&mut stream).unwrap()).unwrap().metadata.id).collect();

    assert_eq!(*ids.last().unwrap(), 1, "{ids:?}");
}

#[test]
fn one_question_is_asked_once_for_everybody() {
    let server = FalseServer::start(vec![rr("slow.example.", 300, "A 192.0.2.1")]);
    let running = Running::start(config(server.address));

    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(texts(&running.ask("slow.example.", RecordType::A)), ["192.0.2.1"]));
        }
    });

    assert_eq!(server.times_asked(), 1);
}

#[test]
fn failures_say_why_and_are_remembered() {
    let server = FalseServer::start(vec![]);
    let running = Running::start(config(server.address));

    let broken = running.ask("broken.example.", RecordType::A);
    let asked = server.times_asked();
    running.ask("broken.example.", RecordType::A);

    assert_eq!(broken.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ede(&broken), Some(23));
    assert_eq!(server.times_asked(), asked);
    let silent = running.ask("silent.example.", RecordType::A);
    assert_eq!((silent.metadata.response_code, ede(&silent)), (ResponseCode::ServFail, Some(22)));
}

#[test]
fn rules_reach_the_names_behind_cached_aliases_at_once() {
    let server = FalseServer::start(vec![
        rr("cloaked.example.", 300, "CNAME cdn.example."),
        rr("cdn.example.", 300, "A 192.0.2.9"),
    ]);
    let running = Running::start(config(server.address));
    assert_eq!(texts(&running.ask("cloaked.example.", RecordType::A)), ["cdn.example.", "192.0.2.9"]);

    let mut stricter = config(server.address);
    stricter.groups[0].block = vec!["cdn.example.".parse().unwrap()];
    running.reload(stricter);
    let blocked = running.ask("cloaked.example.", RecordType::A);

    assert_eq!((texts(&blocked), ede(&blocked)), (vec!["0.0.0.0".into()], Some(17)));
    running.reload(config(server.address));
    assert_eq!(texts(&running.ask("cloaked.example.", RecordType::A)).len(), 2);
    assert_eq!(server.times_asked(), 1, "the answer stayed in the cache");
}

#[test]
fn names_without_a_place_in_the_public_dns_never_leave_the_house() {
    let server = FalseServer::start(vec![]);
    let running = Running::start(config(server.address));

    for name in ["x.onion.", "printer.local.", "a.home.arpa.", "5.0.0.10.in-addr.arpa."] {
        let answer = running.ask(name, RecordType::PTR);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert_eq!(answer.authorities.len(), 1, "{name}");
    }
    assert_eq!(texts(&running.ask("LocalHost.", RecordType::A)), ["127.0.0.1"]);
    assert_eq!(running.ask("nas.", RecordType::A).metadata.response_code, ResponseCode::NoError);
    assert_eq!(server.times_asked(), 0);
}

#[test]
fn a_forwarded_zone_may_hold_private_addresses_and_a_public_name_may_not() {
    let public = FalseServer::start(vec![rr("rebind.example.", 300, "A 192.168.1.1")]);
    let house = FalseServer::start(vec![rr("pc.corp.internal.", 300, "A 10.0.0.7")]);
    let mut config = config(public.address);
    config.forward = vec![Forward {
        zone: "corp.internal.".parse().unwrap(),
        to: vec![Upstream::plain(house.address)],
        fallback: Fallback::Nothing,
        validate: false,
    }];
    let running = Running::start(config);

    assert_eq!(texts(&running.ask("pc.corp.internal.", RecordType::A)), ["10.0.0.7"]);
    let rebinding = running.ask("rebind.example.", RecordType::A);
    assert_eq!((rebinding.answers.len(), ede(&rebinding)), (0, Some(17)));
}

#[test]
fn the_tunnel_is_answered_and_what_is_not_of_the_house_is_not() {
    let server = FalseServer::start(vec![rr("www.example.", 300, "A 192.0.2.80")]);
    let (outlet, inlet) = stream::inlet(8);
    let running = Running::start_with(config(server.address), Networks::default(), Some(inlet));
    let (reply, mut replies) = tokio::sync::mpsc::channel(8);
    let (client, local) = (SocketAddr::from(([10, 77, 0, 2], 999)), SocketAddr::from(([10, 77, 0, 1], 53)));
    let send = |origin, id| {
        let payload = query(id, "www.example.", RecordType::A).to_vec().unwrap();
        let datagram = Datagram { origin, client, local, payload, reply: reply.clone() };
        outlet.datagrams.blocking_send(datagram).unwrap();
    };

    send(Origin::Wan, 1);
    send(Origin::Vpn(PeerId(3)), 2);

    let answer = replies.blocking_recv().unwrap();
    assert_eq!((answer.from, answer.to), (local, client));
    let message = Message::from_vec(&answer.payload).unwrap();
    assert_eq!((message.metadata.id, texts(&message)), (2, vec!["192.0.2.80".into()]));
    assert!(replies.try_recv().is_err());
    assert_eq!(running.counted("hearthgate_dns_dropped_total"), 1);
}

#[test]
fn a_plane_that_was_stopped_runs_again_on_its_sockets() {
    let server = FalseServer::start(vec![rr("www.example.", 0, "A 192.0.2.80")]);
    let (outlet, inlet) = stream::inlet(8);
    let mut running = Running::start_with(config(server.address), Networks::default(), Some(inlet));
    assert_eq!(running.ask("www.example.", RecordType::A).answers.len(), 1);
    running.stopper.advance(Phase::Drain);
    running.thread.take().unwrap().join().unwrap().unwrap();

    let (stopper, stop) = supervise::stop();
    let plane = running.plane.clone();
    running.stopper = stopper;
    running.thread = Some(std::thread::spawn(move || plane.run(stop)));

    assert_eq!(running.ask("www.example.", RecordType::A).answers.len(), 1);
    assert_eq!(running.ask_tcp("www.example.", RecordType::A).answers.len(), 1);
    assert!(!outlet.datagrams.is_closed());
}

#[test]
fn other_planes_look_names_up_here_and_no_rule_stands_in_their_way() {
    let server = FalseServer::start(vec![rr("ads.example.", 300, "A 192.0.2.66")]);
    let running = Running::start(config(server.address));
    let lookup = running.plane.lookup();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let found = runtime.block_on(async {
        // The plane's thread may not have begun yet.
        while lookup.addresses("nas.home.example").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        [lookup.addresses("nas.home.example").await, lookup.addresses("ads.example").await]
    });
    let none = runtime.block_on(lookup.addresses("nowhere.example"));

    let found: Vec<String> = found.into_iter().flat_map(|found| found.unwrap()).map(|ip| ip.to_string()).collect();
    assert_eq!(found, ["192.168.1.10", "192.0.2.66"]);
    assert!(none.is_err());
}

#[test]
fn questions_are_counted_by_outcome() {
    let server = FalseServer::start(vec![rr("www.example.", 300, "A 192.0.2.80")]);
    let running = Running::start(config(server.address));
    for _ in 0..3 {
        running.ask("www.example.", RecordType::A);
    }
    let metrics = running.metrics.clone();
    drop(running);

    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == "hearthgate_dns_questions_total").unwrap();
    let counted: HashMap<_, _> = family
        .get_metric()
        .iter()
        .filter(|metric| metric.get_counter().get_value() > 0.0)
        .map(|metric| (metric.get_label()[0].value().to_owned(), metric.get_counter().get_value()))
        .collect();
    assert_eq!(counted, HashMap::from([("resolved".into(), 1.0), ("cached".into(), 2.0)]));
}

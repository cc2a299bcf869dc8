//! The gate over real sockets: a client's tunnel on one side, the planes' inlets on the other.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use hearthgate::{
    metrics::Metrics,
    origin::{Directory, Networks, Origin, PeerId},
    stream::{Accepted, Inlet, Reply, inlet},
    supervise::{self, Phase, Stopper},
    vpn::{
        Config, Lan, Mode, Outlets, Peer, Plane, Reach,
        client::Tunnel,
        keys::{PresharedKey, PrivateKey},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::timeout,
};

const GATE_V4: &str = "10.77.0.1";
const GATE_V6: &str = "fd77::1";
/// Longer than anything here takes, shorter than a hung test is tolerated.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running gate with two peers, and what its planes would be handed.
struct House {
    plane: Arc<Plane>,
    config: Config,
    keys: Vec<PrivateKey>,
    metrics: Metrics,
    dns: Inlet,
    ingress: Inlet,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), String>>>,
    _state: tempfile::TempDir,
}

impl House {
    fn open() -> Self {
        let keys: Vec<PrivateKey> = (0..2).map(|_| PrivateKey::generate()).collect();
        let peers = keys.iter().enumerate().map(|(number, key)| Peer {
            id: PeerId(u32::try_from(number).unwrap()),
            name: format!("peer{number}"),
            group: None,
            public_key: key.public_key(),
            preshared_key: Some(PresharedKey::generate()),
            addresses: vec![
                format!("10.77.0.{}/32", number + 2).parse().unwrap(),
                format!("fd77::{}/128", number + 2).parse().unwrap(),
            ],
            may_reach: vec![Reach::Services],
            reached_by: Vec::new(),
            enabled: true,
            expires: None,
            told_endpoint: None,
            keepalive: None,
            confirm: None,
            user: None,
        });
        let state = tempfile::tempdir().unwrap();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
            endpoint: None,
            addresses: vec![format!("{GATE_V4}/24").parse().unwrap(), format!("{GATE_V6}/64").parse().unwrap()],
            private_key: PrivateKey::generate(),
            previous_key: None,
            mode: Mode::Userspace,
            lan: Lan::Nat,
            lan_interfaces: Vec::new(),
            peers: peers.collect(),
            metrics_port: None,
            ports: Vec::new(),
            state: state.path().to_owned(),
            directory: Directory::default(),
        };
        let metrics = Metrics::new();
        let (outlets, dns, ingress) = doors();
        let plane = Arc::new(Plane::bind(&config, networks(), &metrics, outlets).unwrap());
        plane.commit(plane.prepare(config.clone()).unwrap());
        let (stopper, thread) = start(&plane);
        Self { plane, config, keys, metrics, dns, ingress, stopper, thread: Some(thread), _state: state }
    }

    async fn stop(&mut self) {
        self.stopper.advance(Phase::Now);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap().unwrap();
    }

    fn start(&mut self) {
        let (stopper, thread) = start(&self.plane);
        self.stopper = stopper;
        self.thread = Some(thread);
    }

    fn endpoint(&self) -> SocketAddr {
        self.plane.status().listen[0]
    }

    async fn tunnel(&self, number: usize) -> Tunnel {
        self.tunnel_by(number, self.endpoint(), &format!("10.77.0.{}", number + 2)).await
    }

    async fn tunnel_by(&self, number: usize, endpoint: SocketAddr, own: &str) -> Tunnel {
        let gate = self.config.private_key.public_key();
        let preshared = self.config.peers[number].preshared_key.as_ref();
        Tunnel::connect(&self.keys[number], &gate, preshared, own.parse().unwrap(), endpoint).await.unwrap()
    }

    async fn accepted(&mut self) -> Accepted {
        timeout(PATIENCE, self.ingress.streams.recv()).await.unwrap().unwrap()
    }

    fn count(&self, family: &str, label: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|one| one.name() == family).unwrap();
        let series = family.get_metric().iter().filter(|one| one.get_label().iter().any(|pair| pair.value() == label));
        series.map(|one| one.get_counter().get_value() as u64).sum()
    }

    async fn until_dropped(&self, reason: &str) {
        let seen = async {
            while self.count("hearthgate_vpn_drops_total", reason) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, seen).await.is_ok(), "nothing was dropped as {reason}");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stopper.advance(Phase::Now);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn doors() -> (Outlets, Inlet, Inlet) {
    let (dns_outlet, dns) = inlet(64);
    let (ingress_outlet, ingress) = inlet(64);
    (
        Outlets { dns: Some(dns_outlet), ingress: Some(ingress_outlet), metrics: None, confirm: None, audit: None },
        dns,
        ingress,
    )
}

fn start(plane: &Arc<Plane>) -> (Stopper, JoinHandle<Result<(), String>>) {
    let (stopper, stop) = supervise::stop();
    let plane = plane.clone();
    (stopper, std::thread::spawn(move || plane.run(stop)))
}

fn networks() -> Arc<ArcSwap<Networks>> {
    Arc::new(ArcSwap::from_pointee(Networks::default()))
}

fn gate(port: u16) -> SocketAddr {
    SocketAddr::new(GATE_V4.parse().unwrap(), port)
}

#[tokio::test]
async fn a_stream_arrives_with_the_peer_that_sent_it() {
    let mut house = House::open();
    for number in [0, 1] {
        let tunnel = house.tunnel(number).await;

        let mut client = tunnel.tcp(gate(443)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut accepted = house.accepted().await;
        let mut heard = [0; 5];
        accepted.stream.read_exact(&mut heard).await.unwrap();

        assert_eq!(&heard, b"hello");
        assert_eq!(accepted.origin, Origin::Vpn(PeerId(number as u32)));
        assert_eq!(accepted.client.ip(), tunnel.address());
        assert_eq!(accepted.local, gate(443));
    }
}

#[tokio::test]
async fn five_megabytes_come_back_as_they_went() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let client = tunnel.tcp(gate(80)).await.unwrap();
    let accepted = house.accepted().await;
    let (mut from_client, mut to_client) = split(accepted.stream);
    let echo = async move {
        tokio::io::copy(&mut from_client, &mut to_client).await.unwrap();
        to_client.shutdown().await.unwrap();
    };
    let sent: Vec<u8> = (0..5_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut read, mut write) = split(client);
    let expected = sent.clone();
    let talk = async move {
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let reading = read.read_to_end(&mut received);
        let ((), read) = tokio::join!(writing, reading);
        read.unwrap();
        received
    };

    let ((), received) = timeout(PATIENCE, async { tokio::join!(echo, talk) }).await.unwrap();

    assert_eq!(received.len(), expected.len());
    assert!(received == expected, "bytes changed on the way");
}

#[tokio::test]
async fn a_question_over_udp_is_answered() {
    let mut house = House::open();
    let tunnel = house.tunnel(1).await;
    let plane = async {
        let asked = timeout(PATIENCE, house.dns.datagrams.recv()).await.unwrap().unwrap();
        let reply = Reply { from: asked.local, to: asked.client, payload: asked.payload.to_ascii_uppercase() };
        asked.reply.send(reply).await.unwrap();
        (asked.origin, asked.local)
    };

    let (answer, asked) = tokio::join!(tunnel.udp_exchange(gate(53), b"question"), plane);

    assert_eq!(answer.unwrap(), b"QUESTION");
    assert_eq!(asked, (Origin::Vpn(PeerId(1)), gate(53)));
}

#[tokio::test]
async fn both_families_work_inside_and_outside() {
    let mut house = House::open();
    let endpoint = house.plane.status().listen[1];
    assert!(endpoint.is_ipv6());
    let tunnel = house.tunnel_by(0, endpoint, "fd77::2").await;

    let _client = tunnel.tcp(SocketAddr::new(GATE_V6.parse().unwrap(), 443)).await.unwrap();
    let accepted = house.accepted().await;

    assert_eq!(accepted.origin, Origin::Vpn(PeerId(0)));
    assert_eq!(accepted.client.ip(), "fd77::2".parse::<IpAddr>().unwrap());
}

#[tokio::test]
async fn what_is_not_served_is_refused_at_once() {
    let house = House::open();
    let tunnel = house.tunnel(0).await;

    for address in ["10.77.0.1:22", "10.77.0.1:9153", "10.77.0.3:80", "192.168.1.1:80", "127.0.0.1:80"] {
        let error = tunnel.tcp(address.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
        let error = tunnel.udp_exchange(address.parse().unwrap(), b"?").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
    }
    // The answer may be here before it is counted there.
    let counted = async {
        while house.count("hearthgate_vpn_drops_total", "forbidden") < 10 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.expect("each refusal is counted");
    assert_eq!(house.count("hearthgate_vpn_drops_total", "forbidden"), 10);
}

#[tokio::test]
async fn a_removed_peer_loses_its_streams_and_its_tunnel_and_the_other_keeps_them() {
    let mut house = House::open();
    let (removed, kept) = (house.tunnel(0).await, house.tunnel(1).await);
    let _client = removed.tcp(gate(443)).await.unwrap();
    let mut lost = house.accepted().await;
    let mut client = kept.tcp(gate(443)).await.unwrap();
    let mut held = house.accepted().await;

    let mut config = house.config.clone();
    config.peers.remove(0);
    house.plane.commit(house.plane.prepare(config).unwrap());

    assert_eq!(timeout(PATIENCE, lost.stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    client.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    held.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
    assert!(timeout(Duration::from_millis(300), removed.tcp(gate(443))).await.is_err(), "no answer of any kind");
    assert_eq!(house.plane.status().peers.len(), 1);
}

#[tokio::test]
async fn a_thousand_short_connections_in_a_row_do_no_harm() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let mut streams = std::mem::replace(&mut house.ingress.streams, tokio::sync::mpsc::channel(1).1);
    let serving = tokio::spawn(async move {
        while let Some(mut accepted) = streams.recv().await {
            let mut question = [0; 4];
            accepted.stream.read_exact(&mut question).await.unwrap();
            accepted.stream.write_all(&question).await.unwrap();
        }
    });

    for number in 0..1000_u32 {
        let mut client = tunnel.tcp(gate(80)).await.unwrap();
        client.write_all(&number.to_be_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, number.to_be_bytes());
    }

    assert_eq!(house.count("hearthgate_vpn_drops_total", "too_many_connections"), 0);
    serving.abort();
}

#[tokio::test]
async fn a_peer_has_so_many_connections_and_the_other_does_not_notice() {
    let mut house = House::open();
    let (greedy, modest) = (house.tunnel(0).await, house.tunnel(1).await);
    let mut held = Vec::new();

    let refused = loop {
        match greedy.tcp(gate(80)).await {
            Ok(client) => held.push((client, house.accepted().await)),
            Err(error) => break error,
        }
        assert!(held.len() < 200, "no end to it");
    };

    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(held.len() >= 16, "a browser needs more than {}", held.len());
    assert!(modest.tcp(gate(80)).await.is_ok());
    // Room comes back with the connections that end.
    held.clear();
    let again = async {
        while greedy.tcp(gate(80)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, again).await.is_ok());
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    let mut house = House::open();
    let (slow, quick) = (house.tunnel(0).await, house.tunnel(1).await);
    let _never_read = slow.tcp(gate(80)).await.unwrap();
    let mut to_slow = house.accepted().await.stream;
    let filling = tokio::spawn(async move {
        let piece = vec![0; 64 << 10];
        while to_slow.write_all(&piece).await.is_ok() {}
    });
    let mut client = quick.tcp(gate(80)).await.unwrap();
    let mut to_quick = house.accepted().await.stream;

    let sent = tokio::spawn(async move {
        to_quick.write_all(&vec![1; 1 << 20]).await.unwrap();
    });
    let mut received = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut received)).await.unwrap().unwrap();

    assert_eq!(received.len(), 1 << 20);
    sent.await.unwrap();
    filling.abort();
}

#[tokio::test]
async fn an_inner_address_of_another_peer_is_dropped_and_counted() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let mut question = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 3, 10, 77, 0, 1];
    question.extend([0x30, 0x39, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);

    tunnel.send_raw(question.clone()).await.unwrap();
    house.until_dropped("spoofed_source").await;
    question[15] = 2;
    tunnel.send_raw(question).await.unwrap();
    let own = timeout(PATIENCE, house.dns.datagrams.recv()).await.unwrap().unwrap();

    assert_eq!(own.client, "10.77.0.2:12345".parse().unwrap());
    assert_eq!(house.count("hearthgate_vpn_drops_total", "spoofed_source"), 1);
}

#[tokio::test]
async fn hostile_datagrams_get_no_answer_and_do_not_disturb() {
    let mut house = House::open();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(house.endpoint()).unwrap();
    stranger.set_nonblocking(true).unwrap();
    for kind in 0..=5_u8 {
        for length in [0, 1, 3, 4, 31, 32, 33, 64, 91, 92, 93, 147, 148, 149, 1500, 9000, 60_000] {
            let mut bytes = vec![0xaa; length];
            for (place, byte) in bytes.iter_mut().zip([kind, 0, 0, 0]) {
                *place = byte;
            }
            stranger.send(&bytes).unwrap();
        }
    }

    let tunnel = house.tunnel(0).await;
    let _client = tunnel.tcp(gate(443)).await.unwrap();
    house.accepted().await;

    assert_eq!(stranger.recv(&mut [0; 2048]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    house.until_dropped("mac1").await;
    house.until_dropped("not_wireguard").await;
}

#[tokio::test]
async fn status_tells_who_is_there() {
    let house = House::open();
    let _tunnel = house.tunnel(1).await;
    let seen = async {
        while house.plane.status().peers[1].last_handshake.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap();

    let status = house.plane.status();

    let [absent, present] = &status.peers[..] else { panic!("{status:?}") };
    assert_eq!((absent.last_handshake, absent.endpoint), (None, None));
    assert_eq!(present.name, "peer1");
    assert!(present.received > 0 && present.sent > 0 && present.endpoint.unwrap().ip().is_loopback());
    assert_eq!(house.count("hearthgate_vpn_peer_bytes_total", "peer0"), 0);
    assert!(house.count("hearthgate_vpn_peer_bytes_total", "peer1") > 0);
    assert_eq!(status.public_key, house.config.private_key.public_key().to_string());
}

#[tokio::test]
async fn draining_lets_open_streams_finish_and_takes_no_more() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let mut client = tunnel.tcp(gate(80)).await.unwrap();
    let mut accepted = house.accepted().await;

    house.stopper.advance(Phase::Drain);
    while tunnel.tcp(gate(80)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accepted.stream.write_all(b"last words").await.unwrap();
    drop(accepted);
    let mut heard = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut heard)).await.unwrap().unwrap();
    drop(client);

    assert_eq!(heard, b"last words");
    let thread = house.thread.take().unwrap();
    assert_eq!(tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_peer_that_lost_a_permission_loses_the_streams_it_had_by_it() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let _client = tunnel.tcp(gate(443)).await.unwrap();
    let mut lost = house.accepted().await;

    let mut config = house.config.clone();
    config.peers[0].may_reach = vec![Reach::Dns];
    house.plane.commit(house.plane.prepare(config).unwrap());

    assert_eq!(timeout(PATIENCE, lost.stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert!(tunnel.tcp(gate(443)).await.is_err());
    let _dns = tunnel.tcp(gate(53)).await.unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_after_the_plane_has_said_its_last_word() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let mut client = tunnel.tcp(gate(80)).await.unwrap();
    let mut plane = house.accepted().await.stream;
    plane.write_all(b"done").await.unwrap();
    plane.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();

    let upload = tokio::spawn(async move {
        client.write_all(&vec![7; 1_000_000]).await.unwrap();
        client.shutdown().await.unwrap();
    });
    upload.await.unwrap();
    // All of it is on its way before anybody reads.
    let mut received = Vec::new();
    timeout(PATIENCE, plane.read_to_end(&mut received)).await.unwrap().unwrap();

    assert_eq!(answer, b"done");
    assert_eq!(received.len(), 1_000_000);
}

#[tokio::test]
async fn a_second_gate_on_the_same_port_is_told_which_key_to_change() {
    let house = House::open();
    let config = Config { listen: vec![house.endpoint()], ..house.config.clone() };

    let taken = Plane::bind(&config, networks(), &Metrics::new(), Outlets::default()).unwrap_err().to_string();

    assert!(taken.contains("is taken") && taken.contains("`vpn.listen`"), "{taken}");
}

#[tokio::test]
async fn a_gate_that_was_started_again_works_on_the_sockets_it_had() {
    let mut house = House::open();
    let endpoint = house.endpoint();
    drop(house.tunnel(0).await);
    house.stop().await;

    house.start();

    let tunnel = house.tunnel(0).await;
    let _client = tunnel.tcp(gate(443)).await.unwrap();
    assert_eq!(house.accepted().await.origin, Origin::Vpn(PeerId(0)));
    assert_eq!(house.endpoint(), endpoint);
}

// In both the client holds on to its session, and would begin anew by itself after 15 s only: longer than
// it waits for a connection.
#[tokio::test]
async fn a_peer_goes_on_after_the_gate_fell_over_and_was_started_again() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let _before = tunnel.tcp(gate(443)).await.unwrap();
    house.accepted().await;

    house.stop().await;
    house.start();

    let _after = tunnel.tcp(gate(443)).await.unwrap();
    assert_eq!(house.accepted().await.origin, Origin::Vpn(PeerId(0)));
}

#[tokio::test]
async fn a_peer_goes_on_after_another_process_took_the_ports_over() {
    let mut house = House::open();
    let tunnel = house.tunnel(0).await;
    let _before = tunnel.tcp(gate(443)).await.unwrap();
    house.accepted().await;

    house.stop().await;
    let config = Config { listen: house.plane.status().listen, ..house.config.clone() };
    let (outlets, dns, ingress) = doors();
    // The old sockets must be gone before the new ones come.
    house.plane = Arc::new(Plane::bind(&house.config, networks(), &Metrics::new(), Outlets::default()).unwrap());
    house.plane = Arc::new(Plane::bind(&config, networks(), &Metrics::new(), outlets).unwrap());
    (house.dns, house.ingress) = (dns, ingress);
    house.plane.commit(house.plane.prepare(config).unwrap());
    house.start();

    let _after = tunnel.tcp(gate(443)).await.unwrap();
    assert_eq!(house.accepted().await.origin, Origin::Vpn(PeerId(0)));
}

#[tokio::test]
async fn a_peer_whose_time_is_over_loses_its_streams_and_does_not_come_in_again() {
    let mut house = House::open();
    let (leaving, staying) = (house.tunnel(0).await, house.tunnel(1).await);
    let _client = leaving.tcp(gate(443)).await.unwrap();
    let mut lost = house.accepted().await;
    let _kept = staying.tcp(gate(443)).await.unwrap();
    house.accepted().await;

    let mut config = house.config.clone();
    config.peers[0].expires = Some(jiff::Timestamp::now() + Duration::from_secs(1));
    house.plane.commit(house.plane.prepare(config).unwrap());

    assert_eq!(timeout(PATIENCE, lost.stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert!(timeout(Duration::from_millis(300), leaving.tcp(gate(443))).await.is_err(), "no answer of any kind");
    let _again = staying.tcp(gate(443)).await.unwrap();
    let status = house.plane.status();
    assert!(status.peers[0].expires.is_some() && status.peers[1].expires.is_none(), "{status:?}");
}

#[tokio::test]
async fn a_peer_that_was_told_another_endpoint_is_named() {
    let house = House::open();
    let mut config = Config { endpoint: Some("new.home.example:443".into()), ..house.config.clone() };
    config.peers[0].told_endpoint = Some("old.home.example:443".into());
    config.peers[1].told_endpoint = Some("new.home.example:443".into());

    house.plane.commit(house.plane.prepare(config).unwrap());

    let told: Vec<bool> = house.plane.status().peers.iter().map(|peer| peer.told_old_endpoint).collect();
    assert_eq!(told, [true, false]);
}

//! Routes of plain TCP and UDP.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearthgate::{
    ingress::{Config, Http, Port, ProxyProtocol, Rules, Transport, Upstream, explain::Curious},
    origin::{Access, NetworkId, Origin},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{
    LAN,
    edge::{Edge, PATIENCE, VPN, public, upstream, vpn},
    manners::metrics,
};

/// From the kernel's sockets of these tests everybody is this box.
fn house() -> Access {
    Access { networks: vec![NetworkId::MAIN, NetworkId::HOST], ..Access::default() }
}

fn port(transport: Transport, access: Access, to: SocketAddr) -> Port {
    let http = if transport == Transport::Tcp { Http::Opaque } else { Http::Datagrams };
    Port {
        name: format!("{} 2222", transport.name()),
        host: None,
        transport,
        places: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        inner: vec![2222],
        access,
        to: vec![Upstream { http, ..upstream(to) }],
        log: true,
        rules: Rules::default(),
    }
}

fn listen(edge: &Edge) -> SocketAddr {
    edge.plane.status().ports[0].listen[0]
}

/// Says everything back; counts who came.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (address, came)
}

async fn echo_datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let said = [client.port().to_string().as_bytes(), b" ", &buffer[..length]].concat();
            let _ = socket.send_to(&said, client).await;
        }
    });
    address
}

async fn says<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, text: &str) -> bool {
    if stream.write_all(text.as_bytes()).await.is_err() {
        return false;
    }
    let mut back = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().is_ok_and(|_| back == text.as_bytes())
}

async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn a_port_leads_to_its_server_and_each_side_may_end_by_itself() {
    let (address, _) = echo().await;
    let edge = Edge::start(|config| config.ports = vec![port(Transport::Tcp, house(), address)]);

    let mut stream = TcpStream::connect(listen(&edge)).await.unwrap();
    assert!(says(&mut stream, "SSH-2.0-test\r\n").await);
    assert_eq!(edge.plane.status().ports[0].under_way, 1);
    stream.write_all(b"the last word").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();

    assert_eq!(rest, "the last word");
    let wanted = "relayed_connections_total{outcome=\"done\",route=\"tcp 2222\"} 1";
    until(|| metrics(&edge).contains(wanted)).await;
    let up = "relayed_bytes_total{direction=\"up\",route=\"tcp 2222\"} 27";
    assert!(metrics(&edge).contains(up), "{}", metrics(&edge));
}

#[tokio::test]
async fn who_may_not_use_it_is_gone_before_anybody_behind_hears_of_them() {
    let (address, came) = echo().await;
    let edge = Edge::start(|config| config.ports = vec![port(Transport::Tcp, vpn(), address)]);

    let mut stream = TcpStream::connect(listen(&edge)).await.unwrap();
    let _ = stream.write_all(b"hello").await;
    let ended = timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap();

    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    for origin in [Origin::Wan, LAN] {
        let mut inner = edge.connect(origin, 2222).await;
        let _ = inner.write_all(b"hello").await;
        assert!(!matches!(timeout(PATIENCE, inner.read(&mut [0; 8])).await.unwrap(), Ok(1..)));
    }
    let mut peer = edge.connect(VPN, 2222).await;
    assert!(says(&mut peer, "hello").await);
    assert_eq!(came.load(Ordering::SeqCst), 1, "only the peer has come through");
    assert!(metrics(&edge).contains("refused_total{reason=\"origin\",route=\"tcp 2222\"} 3"));
}

#[tokio::test]
async fn one_client_has_only_its_share_of_a_port() {
    let (address, _) = echo().await;
    let edge = Edge::start(|config| {
        let mut port = port(Transport::Tcp, public(), address);
        port.rules.limits.per_client = 2;
        config.ports = vec![port];
    });
    let place = listen(&edge);
    let mut first = TcpStream::connect(place).await.unwrap();
    let mut second = TcpStream::connect(place).await.unwrap();
    assert!(says(&mut first, "one").await && says(&mut second, "two").await);

    let mut third = TcpStream::connect(place).await.unwrap();
    assert!(!says(&mut third, "three").await);
    drop(first);
    until(|| edge.plane.status().ports[0].under_way == 1).await;
    let mut fourth = TcpStream::connect(place).await.unwrap();

    assert!(says(&mut fourth, "four").await && says(&mut second, "two").await);
    assert!(metrics(&edge).contains("reason=\"per_client\""));
}

#[tokio::test]
async fn a_server_is_told_the_client_and_another_one_stands_in_for_one_that_is_gone() {
    let (_held, nobody) = super::edge::gone();
    let (address, _) = echo().await;
    let edge = Edge::start(|config| {
        let mut port = port(Transport::Tcp, house(), nobody);
        port.rules.backup = vec![Upstream { http: Http::Opaque, ..upstream(address) }];
        port.rules.proxy_protocol = Some(ProxyProtocol::V1);
        config.ports = vec![port];
    });

    let mut stream = TcpStream::connect(listen(&edge)).await.unwrap();
    stream.write_all(b"!").await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"!") {
        timeout(PATIENCE, stream.read_buf(&mut said)).await.unwrap().unwrap();
    }

    let (client, local) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let wanted = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n!", client.port(), local.port());
    assert_eq!(String::from_utf8(said).unwrap(), wanted);
}

#[tokio::test]
async fn a_reload_leads_elsewhere_and_ends_what_is_no_longer_permitted() {
    let ((one, _), (two, came)) = (echo().await, echo().await);
    let edge = Edge::start(|config| config.ports = vec![port(Transport::Tcp, house(), one)]);
    let place = listen(&edge);
    let mut old = TcpStream::connect(place).await.unwrap();
    assert!(says(&mut old, "old").await);

    edge.reload(|config| config.ports = vec![port(Transport::Tcp, house(), two)]);
    let mut new = TcpStream::connect(place).await.unwrap();
    assert!(says(&mut new, "new").await && says(&mut old, "still here").await);
    assert_eq!(came.load(Ordering::SeqCst), 1);
    edge.reload(|config| config.ports = vec![port(Transport::Tcp, vpn(), two)]);

    for stream in [&mut old, &mut new] {
        let ended = timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap();
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }
}

/// A client of UDP.
struct Client(UdpSocket);

impl Client {
    async fn new(edge: &Edge) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(listen(edge)).await.unwrap();
        Self(socket)
    }

    /// Asks until an answer to this comes; returns the port that the server saw.
    async fn says(&self, text: &str) -> String {
        let ask = async {
            loop {
                self.0.send(text.as_bytes()).await.unwrap();
                let mut buffer = [0; 2048];
                if let Ok(Ok(length)) = timeout(Duration::from_millis(500), self.0.recv(&mut buffer)).await {
                    let answer = String::from_utf8(buffer[..length].to_vec()).unwrap();
                    let (port, said) = answer.split_once(' ').unwrap();
                    if said == text {
                        return port.to_owned();
                    }
                }
            }
        };
        timeout(PATIENCE, ask).await.unwrap()
    }

    async fn is_left_alone(&self, text: &str) -> bool {
        self.0.send(text.as_bytes()).await.unwrap();
        !matches!(timeout(Duration::from_millis(300), self.0.recv(&mut [0; 64])).await, Ok(Ok(_)))
    }
}

fn udp(config: &mut Config, access: Access, to: SocketAddr) {
    config.ports = vec![port(Transport::Udp, access, to)];
}

#[tokio::test]
async fn each_client_of_udp_has_a_flow_of_its_own_until_it_is_silent() {
    let address = echo_datagrams().await;
    let edge = Edge::start(|config| {
        udp(config, house(), address);
        config.timeouts.datagrams = Duration::from_secs(4);
    });
    let (one, two) = (Client::new(&edge).await, Client::new(&edge).await);

    let (first, second) = (one.says("a").await, two.says("b").await);

    assert_ne!(first, second, "the server tells them apart");
    assert_eq!(one.says("c").await, first, "and knows each again");
    until(|| metrics(&edge).contains("relayed_connections_total{outcome=\"done\",route=\"udp 2222\"} 2")).await;
    assert_eq!(edge.plane.status().ports[0].under_way, 0);
    one.says("d").await;
    assert_eq!(edge.plane.status().ports[0].under_way, 1);
}

#[tokio::test]
async fn flows_of_udp_are_for_whom_the_route_admits_and_bounded_for_each() {
    let address = echo_datagrams().await;
    let edge = Edge::start(|config| {
        udp(config, house(), address);
        config.ports[0].rules.limits.per_client = 3;
    });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Client::new(&edge).await;
        client.says("mine").await;
        clients.push(client);
    }

    let fourth = Client::new(&edge).await;
    assert!(fourth.is_left_alone("mine too").await);
    assert!(metrics(&edge).contains("refused_total{reason=\"per_client\",route=\"udp 2222\"}"));
    clients[0].says("still").await;
    edge.reload(|config| udp(config, vpn(), address));
    until(|| edge.plane.status().ports[0].under_way == 0).await;

    assert!(clients[0].is_left_alone("anybody?").await && fourth.is_left_alone("anybody?").await);
    assert!(metrics(&edge).contains("refused_total{reason=\"origin\",route=\"udp 2222\"}"));
}

#[tokio::test]
async fn datagrams_out_of_the_tunnel_have_the_same_routes() {
    let address = echo_datagrams().await;
    let edge = Edge::start(|config| udp(config, vpn(), address));

    let answer = edge.datagram(VPN, 2222, b"ping").await.unwrap();
    let again = edge.datagram(VPN, 2222, b"pong").await.unwrap();

    let said = |answer: &[u8]| String::from_utf8_lossy(answer).split_once(' ').unwrap().1.to_owned();
    assert_eq!((said(&answer).as_str(), said(&again).as_str()), ("ping", "pong"));
    assert_eq!(edge.datagram(Origin::Wan, 2222, b"ping").await, None);
    assert_eq!(edge.datagram(VPN, 2223, b"ping").await, None);
}

#[tokio::test]
async fn explain_says_where_a_port_leads_and_to_whom_it_is_closed() {
    let (_held, nobody) = super::edge::gone();
    let edge = Edge::start(|config| {
        config.ports = vec![port(Transport::Tcp, vpn(), nobody)];
        config.ports[0].places = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    });
    let said = |url: &str, from: &str| {
        let curious = Curious { url: url.into(), from: from.into(), method: "GET".into() };
        let steps = edge.plane.explain(&curious).unwrap().steps;
        steps.iter().map(|(what, how)| format!("{what}: {how}\n")).collect::<String>()
    };

    let inside = said("tcp://edge:2222", "vpn:laptop");
    assert!(inside.contains("route: tcp 2222") && inside.contains(&format!("upstream: tcp://{nobody}")), "{inside}");
    assert!(said("tcp://edge:0", "wan").contains("a reset"));
    assert!(said("udp://edge:2222", "vpn:laptop").contains("no route has udp 2222"));
}

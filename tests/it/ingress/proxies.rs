//! Proxies in front of the edge: whose word counts, on which listener, and for what.

use std::net::SocketAddr;

use hearthgate::{
    ingress::{Door, Proxies, Route, Speaks, Word},
    origin::{Access, NetworkId, Origin},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::edge::{Behind, Edge, public, read_to_end, route, to};

const HOST: &str = "app.home.example";
const HEADER: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 443\r\n";

fn get(fields: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

fn from(net: &str) -> Proxies {
    Proxies { from: vec![net.parse().unwrap()], ..Proxies::default() }
}

fn door(speaks: Speaks, proxies: Proxies) -> Door {
    Door { address: SocketAddr::from(([127, 0, 0, 1], 0)), speaks, proxies }
}

/// A route for the box itself alone: a proxy on it is somebody else.
fn house(behind: &Behind) -> Route {
    let access = Access { networks: vec![NetworkId::HOST], ..Access::default() };
    route("house.home.example", "/", access, to(behind.address))
}

/// Sends this before TLS begins, and then the request.
async fn ask(edge: &Edge, address: SocketAddr, before: &[u8], request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(before).await.unwrap();
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.ok()?;
    stream.write_all(request.as_bytes()).await.unwrap();
    Some(read_to_end(&mut stream).await)
}

async fn ask_plain(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn a_proxy_on_this_box_is_the_internet_and_is_believed_for_whom_it_speaks() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.proxies = from("127.0.0.0/8");
        config.routes.extend([route(HOST, "/", public(), to(behind.address)), house(&behind)]);
    });

    let sent = ask(&edge, edge.https(), b"", &get("X-Forwarded-For: 10.0.0.1, 198.51.100.7\r\n")).await.unwrap();
    let stream = TcpStream::connect(edge.https()).await.unwrap();
    let house = edge.tls(stream, "house.home.example", "http/1.1").await;

    assert!(sent.contains("x-forwarded-for: 198.51.100.7\r\n"), "{sent}");
    assert!(house.is_err(), "a name of the house is offered through a proxy");
}

#[tokio::test]
async fn who_is_no_proxy_is_not_believed() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.proxies = from("192.0.2.0/24");
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
        config.doors.push(door(Speaks::Tls, Proxies { word: Word::ProxyProtocol, ..from("192.0.2.0/24") }));
    });

    let sent = ask(&edge, edge.https(), b"", &get("X-Forwarded-For: 198.51.100.7\r\n")).await.unwrap();

    assert!(sent.contains("x-forwarded-for: 127.0.0.1\r\n"), "{sent}");
    assert_eq!(ask(&edge, edge.plane.status().doors[0], HEADER, &get("")).await, None);
}

#[tokio::test]
async fn a_tunnels_peer_is_never_a_proxy() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.proxies = from("203.0.113.0/24");
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
    });

    let sent = edge.ask(super::VPN, HOST, &get("X-Forwarded-For: 198.51.100.7\r\n")).await;

    assert!(sent.contains("x-forwarded-for: 203.0.113.9\r\n"), "{sent}");
}

#[tokio::test]
async fn a_proxy_header_names_the_client_and_makes_nobody_of_the_house() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        config.routes.extend([route(HOST, "/", public(), to(behind.address)), house(&behind)]);
        config.doors.push(door(Speaks::Tls, Proxies { word: Word::ProxyProtocol, ..from("127.0.0.1/32") }));
    });
    let address = edge.plane.status().doors[0];
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\xc0\0\x02\x01\x9c\x40\x01\xbb";

    for header in [HEADER, binary] {
        let sent = ask(&edge, address, header, &get("X-Forwarded-For: 10.0.0.1\r\n")).await.unwrap();
        assert!(sent.contains("x-forwarded-for: 198.51.100.7\r\n"), "{sent}");
    }
    assert_eq!(ask(&edge, address, b"", &get("")).await, None, "without the header that is awaited");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 443\r\n").await.unwrap();
    assert!(edge.tls(stream, "house.home.example", "http/1.1").await.is_err());
}

#[tokio::test]
async fn on_a_listener_that_only_proxies_reach_they_are_what_the_owner_says() {
    let behind = Behind::start().await;
    let lan = Origin::Lan(NetworkId::MAIN);
    let edge = Edge::start(|config| {
        let access = Access { networks: vec![NetworkId::MAIN], ..Access::default() };
        config.routes.push(route(HOST, "/", access, to(behind.address)));
        config.networks = vec![NetworkId::HOST, NetworkId::MAIN];
        let ours = Proxies { alone: true, origin: lan, ..from("127.0.0.1/32") };
        config.doors.push(door(Speaks::Unwrapped, ours));
        config.doors.push(door(Speaks::Unwrapped, Proxies { alone: true, ..from("127.0.0.1/32") }));
        config.doors.push(door(Speaks::Unwrapped, Proxies { alone: true, origin: lan, ..from("192.0.2.1/32") }));
    });
    let doors = edge.plane.status().doors;

    let within = ask_plain(doors[0], &get("X-Forwarded-For: 192.168.1.7\r\n")).await;
    let outside = ask_plain(doors[1], &get("")).await;
    let mut other = TcpStream::connect(doors[2]).await.unwrap();

    assert!(within.contains("x-forwarded-for: 192.168.1.7\r\n") && within.contains("x-forwarded-proto: https\r\n"));
    assert!(outside.starts_with("HTTP/1.1 421 "), "{outside}");
    assert!(matches!(other.read(&mut [0; 1]).await, Ok(0) | Err(_)), "a stranger gets in");
}

#[tokio::test]
async fn what_a_listener_gave_ends_with_the_reload_that_takes_it_back() {
    let behind = Behind::start().await;
    let main = Access { networks: vec![NetworkId::MAIN], ..Access::default() };
    let ours = |origin, address| {
        let door = door(Speaks::Unwrapped, Proxies { alone: true, origin, ..from("127.0.0.1/32") });
        Door { address, ..door }
    };
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let lan = Origin::Lan(NetworkId::MAIN);
    let edge = Edge::start(|config| {
        config.routes.push(route(HOST, "/", main.clone(), to(behind.address)));
        config.networks = vec![NetworkId::HOST, NetworkId::MAIN];
        config.doors = vec![ours(lan, free), ours(lan, free)];
    });
    let doors = edge.plane.status().doors;
    let request = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 192.168.1.7\r\n\r\n");
    let mut open = Vec::new();
    for address in &doors {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut byte = [0; 12];
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"HTTP/1.1 200");
        open.push(stream);
    }

    edge.reload(|config| {
        config.routes.push(route(HOST, "/", main.clone(), to(behind.address)));
        config.networks = vec![NetworkId::HOST, NetworkId::MAIN];
        config.doors = vec![ours(Origin::Wan, doors[0]), ours(lan, doors[1])];
    });

    // The first ends by itself; the other one goes on.
    let ended = tokio::time::timeout(super::edge::PATIENCE, read_to_end(&mut open[0])).await;
    ended.expect("the connection is not closed");
    open[1].write_all(request.replacen("GET", "HEAD", 1).as_bytes()).await.unwrap();
    open[1].write_all(get("").as_bytes()).await.unwrap();
    let rest = read_to_end(&mut open[1]).await;
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 2, "{rest}");
}

#[tokio::test]
async fn who_is_on_a_list_is_refused_also_behind_a_proxy_and_the_house_is_not() {
    let behind = Behind::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bans");
    std::fs::write(&file, "203.0.113.0/24\n198.51.100.7\n").unwrap();
    let edge = Edge::start(|config| {
        config.bans = vec![file.clone()];
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
        config.doors.push(door(Speaks::Unwrapped, Proxies { alone: true, ..from("127.0.0.1/32") }));
    });
    let address = edge.plane.status().doors[0];
    let through = async |client: &str| ask_plain(address, &get(&format!("X-Forwarded-For: {client}\r\n"))).await;

    let mut stranger = edge.connect(Origin::Wan, 443).await;
    assert!(matches!(stranger.read(&mut [0; 1]).await, Ok(0) | Err(_)), "a stranger on the list gets in");
    assert!(edge.ask(super::VPN, HOST, &get("")).await.starts_with("HTTP/1.1 200 "));
    let refused = through("198.51.100.7").await;
    let other = ask_plain(address, &get("X-Forwarded-For: 198.51.100.7\r\n").replace(HOST, "never.home.example")).await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused == other, "{refused}{other}");
    assert!(through("198.51.100.8").await.starts_with("HTTP/1.1 200 "));

    std::fs::write(&file, "198.51.100.8/31\n").unwrap();
    edge.reload(|config| {
        config.bans = vec![file.clone()];
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
        config.doors.push(Door { address, ..door(Speaks::Unwrapped, Proxies { alone: true, ..from("127.0.0.1/32") }) });
    });
    assert!(through("198.51.100.7").await.starts_with("HTTP/1.1 200 "));
    assert!(through("198.51.100.8").await.starts_with("HTTP/1.1 403 "));
}

//! Whatever no route names, on its way to a proxy of before.

use std::net::SocketAddr;

use hearthgate::{
    ingress::{Config, HostPattern, Http, Target, Upstream},
    origin::Origin,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use super::{
    ALERT, LAN,
    edge::{Behind, Edge, PATIENCE, VPN, public, read_to_end, route, to, upstream},
    get,
};

/// A proxy that says how many bytes came before the other side was silent, and hands them out.
async fn old() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (came, coming) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut input = vec![0; 4096];
            let read = stream.read(&mut input).await.unwrap_or(0);
            input.truncate(read);
            let _ = came.send(input);
            let _ = stream.write_all(b"the old one").await;
        }
    });
    (address, coming)
}

fn catch_all(config: &mut Config, tls: SocketAddr, plain: SocketAddr) {
    let any = |target| hearthgate::ingress::Route { host: HostPattern::Any, ..route("old", "/", public(), target) };
    config.routes.push(any(Target::Passthrough(vec![Upstream { http: Http::Opaque, ..upstream(tls) }])));
    let mut http = any(to(plain));
    http.rules.plain = true;
    config.routes.push(http);
}

#[tokio::test]
async fn what_no_route_names_goes_to_the_old_proxy_and_the_rest_is_served_here() {
    let behind = Behind::start().await;
    let (old, mut came) = old().await;
    let edge = Edge::start(|config| catch_all(config, old, behind.address));

    for origin in [Origin::Wan, LAN, VPN] {
        for sni in [Some("nextcloud.home.example"), Some("a.b.home.example"), Some("elsewhere.example"), None] {
            assert_eq!(edge.hello(origin, sni).await, b"the old one", "{sni:?}");
            let hello = timeout(PATIENCE, came.recv()).await.unwrap().unwrap();
            assert_eq!(hello.first(), Some(&22), "what was read is passed on");
        }
        let answer = edge.ask(origin, "www.home.example", &get("www.home.example", "/")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("You came from"), "{answer}");
        let plain = edge.ask_plain(origin, &get("nextcloud.home.example", "/.well-known/acme-challenge/x")).await;
        assert!(plain.starts_with("HTTP/1.1 200 ") && plain.contains("host: nextcloud.home.example"), "{plain}");
        let plain = edge.ask_plain(origin, &get("www.home.example", "/")).await;
        assert!(plain.starts_with("HTTP/1.1 308 "), "{plain}");
    }
}

#[tokio::test]
async fn an_admin_host_goes_where_a_host_goes_that_never_existed() {
    let behind = Behind::start().await;
    let (old, _came) = old().await;
    let edge = Edge::start(|config| catch_all(config, old, behind.address));

    for origin in [Origin::Wan, LAN] {
        assert_eq!(edge.hello(origin, Some("admin.home.example")).await, b"the old one");
        assert_eq!(edge.hello(origin, Some("never.home.example")).await, b"the old one");
        let ask = async |name: &str| {
            let answer = edge.ask_plain(origin, &get(name, "/")).await;
            let shown = answer.replace(name, "NAME");
            let personal =
                |line: &&str| !["traceparent", "x-request-id", "date"].iter().any(|own| line.starts_with(own));
            shown.to_lowercase().lines().filter(personal).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(ask("admin.home.example").await, ask("never.home.example").await);
    }
    let admin = edge.ask(VPN, "admin.home.example", &get("admin.home.example", "/")).await;
    assert!(admin.starts_with("HTTP/1.1 200 ") && admin.contains("vpn:laptop"), "{admin}");
}

#[tokio::test]
async fn over_tls_that_ended_here_nothing_goes_to_the_old_proxy() {
    let behind = Behind::start().await;
    let (old, _came) = old().await;
    let edge = Edge::start(|config| catch_all(config, old, behind.address));

    let never = edge.ask(Origin::Wan, "www.home.example", &get("never.home.example", "/")).await;
    let admin = edge.ask(Origin::Wan, "www.home.example", &get("admin.home.example", "/")).await;

    assert_eq!(never, admin);
    assert!(never.starts_with("HTTP/1.1 421 "), "{never}");
}

#[tokio::test]
async fn a_host_that_moves_is_served_by_the_old_proxy_until_it_is_here_and_the_old_one_can_go() {
    let behind = Behind::start().await;
    let (old, _came) = old().await;
    let edge = Edge::start(|config| catch_all(config, old, behind.address));
    assert_eq!(edge.hello(Origin::Wan, Some("moves.home.example")).await, b"the old one");

    edge.reload(|config| {
        catch_all(config, old, behind.address);
        config.routes.push(route("moves.home.example", "/", public(), to(behind.address)));
    });
    let moved = edge.ask(Origin::Wan, "moves.home.example", &get("moves.home.example", "/here")).await;
    edge.reload(|config| config.routes.push(route("moves.home.example", "/", public(), to(behind.address))));

    assert!(moved.contains("GET /here "), "{moved}");
    assert_eq!(edge.hello(Origin::Wan, Some("never.home.example")).await, ALERT);
    let mut plain = edge.connect(Origin::Wan, 80).await;
    plain.write_all(get("never.home.example", "/").as_bytes()).await.unwrap();
    assert!(read_to_end(&mut plain).await.starts_with("HTTP/1.1 421 "));
}

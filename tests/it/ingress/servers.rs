//! Several servers behind one route, and servers that say who somebody is.

use std::net::SocketAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use hearthgate::{
    ingress::{
        Auth, Basic, Forward, HealthCheck, Http, PasswordHash, Preset, Route, Target, Upstream, UpstreamHost,
        canonical::CanonicalPath,
    },
    origin::Origin,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::edge::{self, Behind, Edge, public, route, to, upstream};

const HOST: &str = "app.home.example";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

/// A server that answers each request with what a function makes of its head, and closes.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|part| part == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(answer(&String::from_utf8_lossy(&head)).as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

fn says(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

fn guarded(auth: Auth, behind: SocketAddr) -> Route {
    let mut route = route(HOST, "/", public(), to(behind));
    route.rules.auth = auth;
    route
}

fn forward(to: SocketAddr, preset: Preset) -> Auth {
    Auth::Forward(Forward {
        to: upstream(to),
        host: edge::host("auth.home.example"),
        path: CanonicalPath::parse(preset.path()).unwrap(),
        preset,
        copy: preset.copies().iter().map(|name| name.parse().unwrap()).collect(),
        timeout: std::time::Duration::from_secs(5),
    })
}

#[tokio::test]
async fn a_password_of_the_owners_list_opens_the_route() {
    let behind = Behind::start().await;
    let hash = PasswordHash::parse(&bcrypt::hash("secret", 4).unwrap()).unwrap();
    let auth = Auth::Basic(Basic { realm: "house".into(), users: vec![("alice".into(), hash)] });
    let edge = Edge::start(|config| config.routes.push(guarded(auth, behind.address)));
    let say = |pair: &str| {
        format!("Authorization: Basic {}\r\nRemote-User: root\r\nRemote-Groups: root\r\n", STANDARD.encode(pair))
    };

    let without = edge.ask(Origin::Wan, HOST, &get("/x", "Remote-User: root\r\n")).await;
    let wrong = edge.ask(Origin::Wan, HOST, &get("/x", &say("alice:wrong"))).await;
    let right = edge.ask(Origin::Wan, HOST, &get("/x", &say("alice:secret"))).await;

    for refused in [without, wrong] {
        assert!(
            refused.starts_with("HTTP/1.1 401 ") && refused.contains("www-authenticate: Basic realm=\"house\""),
            "{refused}"
        );
    }
    assert!(right.contains("remote-user: alice\r\n"), "{right}");
    assert!(!right.to_lowercase().contains("authorization") && !right.contains("root"), "{right}");
}

#[tokio::test]
async fn a_guarded_path_is_not_passed_by_another_way_to_write_it() {
    let behind = Behind::start().await;
    let hash = PasswordHash::parse(&bcrypt::hash("secret", 4).unwrap()).unwrap();
    let auth = || Auth::Basic(Basic { realm: "house".into(), users: vec![("alice".into(), hash.clone())] });
    let edge = Edge::start(|config| {
        let mut admin = guarded(auth(), behind.address);
        admin.path = CanonicalPath::parse("/admin").unwrap();
        let mut open = guarded(auth(), behind.address);
        open.name = "open".into();
        open.rules.auth = Auth::None;
        config.routes.extend([admin, open]);
    });

    for path in ["/Admin", "/admin.", "/admin%20", "/ADMIN/x"] {
        let answer = edge.ask(Origin::Wan, HOST, &get(path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    assert!(edge.ask(Origin::Wan, HOST, &get("/admin/x", "")).await.starts_with("HTTP/1.1 401 "));
    assert!(edge.ask(Origin::Wan, HOST, &get("/administrators", "")).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn who_was_let_in_by_an_old_policy_is_asked_again() {
    let behind = Behind::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let auth = forward(listener.local_addr().unwrap(), Preset::General);
    let edge = Edge::start(|config| config.routes.push(guarded(auth, behind.address)));
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await.unwrap();
        // So that the head was read, and with it the last that a reload ends by itself.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        edge.reload(|config| {
            let mut app = route(HOST, "/", public(), to(behind.address));
            app.rules.limits.deny = vec!["203.0.113.0/24".parse().unwrap()];
            config.routes.push(app);
        });
        stream.write_all(b"ok").await.unwrap();
        stream
    };

    let request = get("/x", "");
    let (said, _stream) = tokio::join!(edge.ask(Origin::Wan, HOST, &request), answer);

    assert_eq!(status(&said), 421, "{said}");
}

#[tokio::test]
async fn another_server_says_who_may_come_in() {
    let behind = Behind::start().await;
    let authelia = server(|head| {
        let good = ["GET /api/authz/forward-auth HTTP/1.1\r\n", "x-forwarded-method: GET\r\n", "x-forwarded-proto: https\r\n",
            "x-forwarded-host: app.home.example\r\n", "x-forwarded-uri: /x?y=z\r\n", "x-forwarded-for: 203.0.113.9\r\n"];
        if let Some(missing) = good.iter().find(|line| !head.contains(**line)) {
            return says(&format!("HTTP/1.1 500 No\r\n\r\n{missing}"));
        }
        match head.contains("cookie: session=alice\r\n") {
            true => "HTTP/1.1 200 OK\r\nRemote-User: alice\r\nRemote-Groups: admins,users\r\nSet-Cookie: session=alice; Path=/\r\nContent-Length: 0\r\n\r\n".into(),
            false => "HTTP/1.1 302 Found\r\nLocation: https://auth.home.example/?rd=x\r\nContent-Length: 4\r\n\r\nauth".into(),
        }
    })
    .await;
    let edge = Edge::start(|config| config.routes.push(guarded(forward(authelia, Preset::Authelia), behind.address)));
    let spoofed = "Remote-User: root\r\nRemote-Email: root@example\r\nX-Forwarded-Uri: /public\r\n";

    let out = edge.ask(Origin::Wan, HOST, &get("/x?y=z", spoofed)).await;
    let within = edge.ask(Origin::Wan, HOST, &get("/x?y=z", &format!("Cookie: session=alice\r\n{spoofed}"))).await;

    assert!(out.starts_with("HTTP/1.1 302 ") && out.contains("location: https://auth.home.example/?rd=x\r\n"), "{out}");
    assert!(out.ends_with("auth"), "{out}");
    let (head, sent) = within.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("set-cookie: session=alice; Path=/"), "{within}");
    assert!(sent.contains("remote-user: alice\r\n") && sent.contains("remote-groups: admins,users\r\n"), "{sent}");
    assert!(!sent.contains("root"), "{sent}");
}

#[tokio::test]
async fn a_server_that_cannot_say_who_somebody_is_closes_the_route() {
    let behind = Behind::start().await;
    let (_held, gone) = edge::gone();
    let rubbish = server(|_| "what?\r\n\r\n".into()).await;
    let endless =
        server(|_| format!("HTTP/1.1 403 No\r\nContent-Length: 9000000\r\n\r\n{}", "x".repeat(1 << 20))).await;

    for auth in [gone, rubbish, endless] {
        let edge = Edge::start(|config| config.routes.push(guarded(forward(auth, Preset::General), behind.address)));
        assert_eq!(status(&edge.ask(Origin::Wan, HOST, &get("/x", "")).await), 502);
    }
    assert_eq!(behind.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn oauth2_proxy_is_where_a_browser_signs_in_and_a_script_is_told_no() {
    let behind = Behind::start().await;
    let auth = server(|_| "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into()).await;
    let edge = Edge::start(|config| config.routes.push(guarded(forward(auth, Preset::Oauth2Proxy), behind.address)));

    let page = edge.ask(Origin::Wan, HOST, &get("/a?b=c", "Accept: text/html\r\n")).await;
    let script = edge.ask(Origin::Wan, HOST, &get("/a?b=c", "Accept: application/json\r\n")).await;

    let place = "location: /oauth2/start?rd=https%3A%2F%2Fapp.home.example%2Fa%3Fb%3Dc\r\n";
    assert!(page.starts_with("HTTP/1.1 302 ") && page.contains(place), "{page}");
    assert_eq!(status(&script), 401);
}

#[tokio::test]
async fn a_backup_stands_in_and_a_client_stays_with_its_server() {
    let (_held, gone) = edge::gone();
    let (one, two, third) =
        (server(|_| says("one")).await, server(|_| says("two")).await, server(|_| says("backup")).await);
    let edge = Edge::start(|config| {
        let mut sticky = route(HOST, "/", public(), Target::Upstreams(vec![upstream(one), upstream(two)]));
        sticky.rules.sticky = true;
        config.routes.push(sticky);
        let mut backed = route(HOST, "/backed", public(), to(gone));
        backed.rules.backup = vec![upstream(third)];
        config.routes.push(backed);
    });
    let ask = async |path: &str, fields: &str| edge.ask(Origin::Wan, HOST, &get(path, fields)).await;

    let first = ask("/", "").await;
    let cookie = first.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..4 {
        let again = ask("/", &format!("Cookie: a=b; {pair}\r\n")).await;
        assert_eq!(again.rsplit("\r\n").next(), first.rsplit("\r\n").next());
        assert!(!again.contains("set-cookie"), "{again}");
    }
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure"), "{cookie}");
    for _ in 0..5 {
        assert!(ask("/backed", "").await.ends_with("backup"));
    }
}

#[tokio::test]
async fn what_is_safe_is_sent_again_to_another_server_and_what_is_not_is_not() {
    let broken = server(|_| String::new()).await;
    let good = server(|_| says("good")).await;
    let edge = Edge::start(|config| {
        config.routes.push(route(HOST, "/", public(), Target::Upstreams(vec![upstream(broken), upstream(good)])));
    });

    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(status(&edge.ask(Origin::Wan, HOST, &get("/", "")).await));
    }
    assert_eq!(seen, [200; 4]);
    let mut posted = Vec::new();
    let fresh = Edge::start(|config| {
        config.routes.push(route(HOST, "/", public(), Target::Upstreams(vec![upstream(broken), upstream(good)])));
    });
    for _ in 0..2 {
        let post = get("/", "Content-Length: 1\r\n").replacen("GET", "POST", 1) + "x";
        posted.push(status(&fresh.ask(Origin::Wan, HOST, &post).await));
    }
    posted.sort_unstable();
    assert_eq!(posted, [200, 502]);
}

#[tokio::test]
async fn a_server_that_says_it_is_not_well_gets_nothing() {
    let ill = server(|head| match head.starts_with("GET /health ") {
        true => "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".into(),
        false => says("ill"),
    })
    .await;
    let well = server(|_| says("well")).await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), Target::Upstreams(vec![upstream(ill), upstream(well)]));
        app.rules.health = Some(HealthCheck {
            path: CanonicalPath::parse("/health").unwrap(),
            every: std::time::Duration::from_millis(100),
            timeout: std::time::Duration::from_secs(5),
            status: None,
        });
        config.routes.push(app);
    });

    let settled = async {
        loop {
            let mut answers = Vec::new();
            for _ in 0..4 {
                answers.push(edge.ask(Origin::Wan, HOST, &get("/", "")).await);
            }
            if answers.iter().all(|answer| answer.ends_with("well")) {
                return;
            }
        }
    };
    tokio::time::timeout(edge::PATIENCE, settled).await.expect("the check is done");
}

fn check(path: &str) -> Option<HealthCheck> {
    Some(HealthCheck {
        path: CanonicalPath::parse(path).unwrap(),
        every: std::time::Duration::from_millis(100),
        timeout: std::time::Duration::from_secs(5),
        status: None,
    })
}

#[tokio::test]
async fn what_a_check_found_ends_with_the_check() {
    let ill = server(|head| match head.starts_with("GET /health ") {
        true => "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".into(),
        false => says("ill"),
    })
    .await;
    let well = server(|_| says("well")).await;
    let app = || route(HOST, "/", public(), Target::Upstreams(vec![upstream(ill), upstream(well)]));
    let edge = Edge::start(|config| {
        let mut checked = app();
        checked.rules.health = check("/health");
        config.routes.push(checked);
    });
    let answers = async || {
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(edge.ask(Origin::Wan, HOST, &get("/", "")).await);
        }
        answers
    };
    let settled = async { while !answers().await.iter().all(|answer| answer.ends_with("well")) {} };
    tokio::time::timeout(edge::PATIENCE, settled).await.expect("the check is done");

    edge.reload(|config| config.routes.push(app()));

    assert_eq!(answers().await.iter().filter(|answer| answer.ends_with("ill")).count(), 2);
}

#[tokio::test]
async fn routes_that_ask_one_server_differently_hear_their_own_answers() {
    let behind = server(|head| match head.starts_with("GET /broken ") {
        true => "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".into(),
        false => says("itself"),
    })
    .await;
    let other = server(|_| says("backup")).await;
    let edge = Edge::start(|config| {
        for (path, asked) in [("/good", "/fine"), ("/bad", "/broken")] {
            let mut app = route(HOST, path, public(), to(behind));
            app.rules.health = check(asked);
            app.rules.backup = vec![upstream(other)];
            config.routes.push(app);
        }
    });

    let settled = async { while !edge.ask(Origin::Wan, HOST, &get("/bad", "")).await.ends_with("backup") {} };
    tokio::time::timeout(edge::PATIENCE, settled).await.expect("the check is done");

    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(edge.ask(Origin::Wan, HOST, &get("/good", "")).await.ends_with("itself"));
        assert!(edge.ask(Origin::Wan, HOST, &get("/bad", "")).await.ends_with("backup"));
    }
}

#[tokio::test]
async fn a_check_comes_by_the_scheme_that_clients_come_by() {
    for (tls, scheme) in [(true, "https"), (false, "http")] {
        let (seen, mut heads) = tokio::sync::mpsc::unbounded_channel();
        let behind = server(move |head| {
            let _ = seen.send(head.to_owned());
            says("")
        })
        .await;
        let _edge = Edge::start(|config| {
            if !tls {
                config.https.clear();
                config.peers.clear();
            }
            let mut app = route(HOST, "/", public(), to(behind));
            app.rules.health = check("/health");
            config.routes.push(app);
        });

        let head = tokio::time::timeout(edge::PATIENCE, heads.recv()).await.unwrap().unwrap();

        assert!(head.contains(&format!("x-forwarded-proto: {scheme}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_a_server_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(says("by socket").as_bytes()).await;
    });
    let edge = Edge::start(|config| {
        let socket = Upstream { host: UpstreamHost::Unix(path), port: 0, tls: None, http: Http::One };
        config.routes.push(route(HOST, "/", public(), Target::Upstreams(vec![socket])));
    });

    assert!(edge.ask(Origin::Wan, HOST, &get("/", "")).await.ends_with("by socket"));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_what_its_server_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(address))));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    stream.write_all(get("/long-poll", "").as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut head = [0; 4096];
    assert!(server.read(&mut head).await.unwrap() > 0);

    drop(stream);

    let ended = tokio::time::timeout(edge::PATIENCE, server.read(&mut head)).await.expect("the server is told");
    assert_eq!(ended.unwrap_or(0), 0);
}

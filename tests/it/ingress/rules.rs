//! What a route does with requests beside sending them on, over the wire.

use hearthgate::{
    ingress::{Change, Conditions, Field, Page, Part, Redirect, Rewrite, Route, Target},
    origin::Origin,
};
use hyper::StatusCode;
use tokio::io::AsyncWriteExt;

use super::edge::{self, Behind, Edge, VPN, public, read_one, route, to, vpn};

const HOST: &str = "app.home.example";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

/// A route that answers with this text, so that a test sees which one it was.
fn says(path: &str, text: &'static str, change: impl FnOnce(&mut Route)) -> Route {
    let page = Page { status: StatusCode::OK, kind: "text/plain".parse().unwrap(), body: text.into() };
    let mut route = route(HOST, path, public(), Target::Page(page));
    route.name = text.into();
    change(&mut route);
    route
}

fn asks(methods: &[&str], fields: &[(&'static str, Option<&'static str>)]) -> Conditions {
    let field = |value: &Option<&'static str>| value.map_or(Field::Present, |value| Field::Is(value.parse().unwrap()));
    Conditions {
        methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
        headers: fields.iter().map(|(name, value)| (name.parse().unwrap(), field(value))).collect(),
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn of_the_routes_of_one_path_that_which_asks_more_is_tried_first() {
    let edge = Edge::start(|config| {
        config.routes.push(says("/", "any", |_| {}));
        config.routes.push(says("/", "post", |route| route.rules.conditions = asks(&["POST"], &[])));
        config.routes.push(says("/", "v2", |route| route.rules.conditions = asks(&[], &[("x-version", Some("2"))])));
        config.routes.push(says("/", "post v2", |route| {
            route.rules.conditions = asks(&["POST"], &[("x-version", Some("2"))]);
        }));
        config.routes.push(says("/longer", "longer", |_| {}));
    });
    let ask = async |method: &str, path: &str, fields: &str| {
        let request = get(path, fields).replacen("GET", method, 1);
        edge.ask(Origin::Wan, HOST, &request).await.split_once("\r\n\r\n").unwrap().1.to_owned()
    };

    assert_eq!(ask("GET", "/", "").await, "any");
    assert_eq!(ask("POST", "/", "").await, "post");
    assert_eq!(ask("GET", "/", "X-Version: 2\r\n").await, "v2");
    assert_eq!(ask("POST", "/", "X-Version: 2\r\n").await, "post v2");
    assert_eq!(ask("POST", "/longer/x", "X-Version: 2\r\n").await, "longer");
}

#[tokio::test]
async fn a_method_that_is_closed_is_not_answered_by_the_route_beside_it() {
    let edge = Edge::start(|config| {
        config.routes.push(says("/", "read", |_| {}));
        config.routes.push(says("/", "write", |route| {
            route.access = vpn();
            route.rules.conditions = asks(&["POST"], &[]);
        }));
    });
    let post = get("/", "Content-Length: 0\r\n").replacen("GET", "POST", 1);

    assert!(edge.ask(Origin::Wan, HOST, &get("/", "")).await.ends_with("read"));
    assert_eq!(status(&edge.ask(Origin::Wan, HOST, &post).await), 404);
    assert!(edge.ask(VPN, HOST, &post).await.ends_with("write"));
}

#[tokio::test]
async fn a_redirect_and_a_page_are_answered_by_the_edge() {
    let redirect =
        Redirect { status: StatusCode::FOUND, to: vec![Part::Text("https://new.example".into()), Part::Uri] };
    let edge = Edge::start(|config| {
        config.routes.push(route(HOST, "/", public(), Target::Redirect(redirect)));
        config.routes.push(says("/robots.txt", "no robots", |_| {}));
    });

    let away = edge.ask(Origin::Wan, HOST, &get("/a/%7Eb?c=d", "")).await;
    let page = edge.ask(Origin::Wan, HOST, &get("/robots.txt", "")).await;
    let head = edge.ask(Origin::Wan, HOST, &get("/robots.txt", "").replacen("GET", "HEAD", 1)).await;

    assert!(away.starts_with("HTTP/1.1 302 ") && away.contains("location: https://new.example/a/~b?c=d\r\n"), "{away}");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("\r\n\r\nno robots"), "{page}");
    assert!(page.contains("\r\ndate: ") && page.contains("content-type: text/plain\r\n"), "{page}");
    assert!(head.contains("content-length: 9\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn the_upstream_sees_the_path_as_it_was_rewritten() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/app", public(), to(behind.address));
        let path = |text| Some(hearthgate::ingress::canonical::CanonicalPath::parse(text).unwrap());
        app.rules.rewrite = Rewrite { strip: path("/app"), add: path("/base") };
        config.routes.push(app);
    });

    let sent = edge.ask(Origin::Wan, HOST, &get("/app/x?y=z", "")).await;

    assert!(sent.contains("\r\n\r\nGET /base/x?y=z HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("x-forwarded-prefix: /app\r\n"), "{sent}");
}

#[tokio::test]
async fn fields_change_in_both_directions_and_browsers_are_told_to_be_careful() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.request = Change {
            remove: vec!["x-theirs".parse().unwrap()],
            set: vec![("x-ours".parse().unwrap(), "1".parse().unwrap())],
            add: Vec::new(),
        };
        app.rules.response.set = vec![("x-out".parse().unwrap(), "2".parse().unwrap())];
        config.routes.push(app);
        let mut bare = route(HOST, "/bare", public(), to(behind.address));
        bare.rules.security = false;
        config.routes.push(bare);
    });

    let answer = edge.ask(Origin::Wan, HOST, &get("/x", "X-Theirs: a\r\nX-Ours: b\r\n")).await;
    let bare = edge.ask(Origin::Wan, HOST, &get("/bare", "Via: 1.0 cache\r\n")).await;

    let (head, sent) = answer.split_once("\r\n\r\n").unwrap();
    assert!(sent.contains("x-ours: 1\r\n") && !sent.contains("x-theirs") && !sent.contains("x-ours: b"), "{sent}");
    // nginx would not compress for who says that there is a proxy.
    assert!(!sent.contains("via:") && bare.contains("via: 1.0 cache, 1.1 hearthgate\r\n"), "{sent}{bare}");
    for field in ["x-out: 2", "x-content-type-options: nosniff", "strict-transport-security: ", "x-frame-options: "] {
        assert!(head.contains(field), "{field}: {head}");
    }
    assert!(head.contains("\r\ndate: "), "{head}");
    assert!(!bare.contains("nosniff") && !bare.contains("strict-transport"), "{bare}");
}

#[tokio::test]
async fn a_route_takes_no_more_than_it_says() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.limits.body = 10;
        config.routes.push(app);
        let mut few = says("/few", "few", |_| {});
        few.rules.limits.rate = Some("1/s burst 2".parse().unwrap());
        config.routes.push(few);
        let mut house = says("/house", "house", |_| {});
        house.rules.limits.allow = vec!["192.168.0.0/16".parse().unwrap()];
        config.routes.push(house);
        let mut closed = says("/closed", "closed", |_| {});
        closed.rules.limits.deny = vec!["203.0.113.0/24".parse().unwrap()];
        config.routes.push(closed);
    });
    let ask = async |request: &str| edge.ask(Origin::Wan, HOST, request).await;
    let post = |fields: &str, body: &str| format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}");

    assert_eq!(status(&ask(&post("Connection: close\r\nContent-Length: 10\r\n", "0123456789")).await), 200);
    assert_eq!(status(&ask(&post("Content-Length: 11\r\n", "0123456789a")).await), 413);
    let chunked = post("Transfer-Encoding: chunked\r\n", "8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n");
    assert_eq!(status(&ask(&chunked).await), 413);
    let few = [ask(&get("/few", "")).await, ask(&get("/few", "")).await, ask(&get("/few", "")).await];
    assert_eq!(few.each_ref().map(|answer| status(answer)), [200, 200, 429]);
    assert!(few[2].contains("retry-after: 1\r\n"), "{}", few[2]);
    assert_eq!(status(&ask(&get("/house", "")).await), 403);
    assert_eq!(status(&ask(&get("/closed", "")).await), 403);
}

#[tokio::test]
async fn requests_over_the_concurrency_of_a_route_are_told_to_come_back() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        app.rules.limits.concurrency = 1;
        config.routes.push(app);
    });
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut first = edge.tls(stream, HOST, "http/1.1").await.unwrap();
    first.write_all(get("/stall", "").as_bytes()).await.unwrap();
    let mut begun = [0; 16];
    tokio::io::AsyncReadExt::read_exact(&mut first, &mut begun).await.unwrap();

    let second = edge.ask(Origin::Wan, HOST, &get("/x", "")).await;
    drop(first);
    let third = async {
        loop {
            let answer = edge.ask(Origin::Wan, HOST, &get("/x", "")).await;
            if status(&answer) == 200 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };

    assert_eq!(status(&second), 503);
    assert!(second.contains("retry-after: 1\r\n"), "{second}");
    tokio::time::timeout(edge::PATIENCE, third).await.expect("the place is free again");
}

#[tokio::test]
async fn maintenance_is_said_in_place_of_everything() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut app = route(HOST, "/", public(), to(behind.address));
        let page =
            Page { status: StatusCode::SERVICE_UNAVAILABLE, kind: "text/plain".parse().unwrap(), body: "soon".into() };
        app.rules.maintenance = Some(page);
        config.routes.push(app);
    });

    let answer = edge.ask(Origin::Wan, HOST, &get("/x", "")).await;

    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("soon"), "{answer}");
    assert!(answer.contains("retry-after: ") && behind.connections.load(std::sync::atomic::Ordering::SeqCst) == 0);
}

#[tokio::test]
async fn plain_http_is_answered_only_where_the_route_says_so() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| {
        let mut plain = route(HOST, "/plain", public(), to(behind.address));
        plain.rules.plain = true;
        config.routes.push(plain);
        config.routes.push(route(HOST, "/", public(), to(behind.address)));
    });

    let answered = edge.ask_plain(Origin::Wan, &get("/plain/x", "")).await;
    let sent_on = edge.ask_plain(Origin::Wan, &get("/x", "")).await;

    assert!(answered.starts_with("HTTP/1.1 200 ") && answered.contains("x-forwarded-proto: http\r\n"), "{answered}");
    assert!(!answered.contains("strict-transport-security"), "{answered}");
    assert_eq!(status(&sent_on), 308);
}

#[tokio::test]
async fn options_of_the_whole_server_and_of_the_last_hop_go_no_further() {
    let behind = Behind::start().await;
    let edge = Edge::start(|config| config.routes.push(route(HOST, "/", public(), to(behind.address))));
    let options = |target: &str, fields: &str| get(target, fields).replacen("GET", "OPTIONS", 1);

    let whole = edge.ask(Origin::Wan, HOST, &options("*", "")).await;
    let last = edge.ask(Origin::Wan, HOST, &options("/x", "Max-Forwards: 0\r\n")).await;
    let on = edge.ask(Origin::Wan, HOST, &options("/x", "Max-Forwards: 4\r\n")).await;

    for answer in [whole, last] {
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("allow: GET, HEAD"), "{answer}");
        assert!(!answer.contains("content-length"), "{answer}");
    }
    assert!(on.contains("OPTIONS /x HTTP/1.1\r\n") && on.contains("max-forwards: 3\r\n"), "{on}");
}

#[tokio::test]
async fn an_answer_of_the_edge_keeps_the_connection() {
    let edge = Edge::start(|config| config.routes.push(says("/", "here", |_| {})));
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();

    for _ in 0..3 {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
        assert!(read_one(&mut stream).await.ends_with("here"));
    }
}

//! HTTP/2 towards the servers behind: gRPC as its clients and servers speak it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use hearthgate::{
    ingress::{Http, Route, Target, Upstream, UpstreamTls},
    origin::Origin,
};
use hyper::{HeaderMap, Request, Response, StatusCode, header::HeaderValue};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::edge::{self, Edge, PATIENCE, public, route, upstream};

const HOST: &str = "grpc.home.example";

/// A server of gRPC which does what the method's name says.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    /// What was seen: heads, and how streams ended.
    seen: mpsc::UnboundedReceiver<String>,
}

#[derive(Clone)]
struct Seen {
    calls: Arc<AtomicUsize>,
    told: mpsc::UnboundedSender<String>,
}

impl Server {
    async fn start(tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (told, seen) = mpsc::unbounded_channel();
        let all = Seen { calls: Arc::default(), told };
        let calls = all.calls.clone();
        let counted = connections.clone();
        let acceptor = acceptor(&[b"h2"]);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (seen, acceptor) = (all.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match tls {
                        true => serve(acceptor.accept(stream).await.unwrap(), seen).await,
                        false => serve(stream, seen).await,
                    }
                });
            }
        });
        Self { address, connections, calls, seen }
    }

    async fn seen(&mut self) -> String {
        timeout(PATIENCE, self.seen.recv()).await.unwrap().unwrap()
    }
}

fn acceptor(alpn: &[&[u8]]) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["grpc.internal".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, seen: Seen) {
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, seen.clone()));
    }
}

fn grpc() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static("well"));
    // Nobody may say so late what a response is.
    trailers.insert("set-cookie", HeaderValue::from_static("late=1"));
    trailers
}

async fn answer(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>, seen: Seen) {
    let (head, mut body) = request.into_parts();
    let fields: Vec<String> =
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    let _ = seen.told.send(format!("{} {}\n{}", head.method, head.uri, fields.join("\n")));
    let before = seen.calls.fetch_add(1, Ordering::SeqCst);
    match head.uri.path() {
        "/Echo/Messages" => {
            let mut out: Option<SendStream<Bytes>> = None;
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                // As servers do: the head comes with the first message.
                out.get_or_insert_with(|| respond.send_response(grpc(), false).unwrap())
                    .send_data(data, false)
                    .unwrap();
            }
            out.unwrap().send_trailers(status("0")).unwrap();
        }
        "/Echo/Unimplemented" => {
            let mut response = grpc();
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
            respond.send_response(response, true).unwrap();
        }
        "/Echo/Reset" => {
            let mut out = respond.send_response(grpc(), false).unwrap();
            out.send_data("begun".into(), false).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            out.send_reset(match head.headers["reason"].to_str().unwrap() {
                "cancel" => Reason::CANCEL,
                "calm" => Reason::ENHANCE_YOUR_CALM,
                _ => Reason::PROTOCOL_ERROR,
            });
        }
        "/Echo/ResetAtOnce" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/Echo/Silent" => {
            let _out = respond.send_response(Response::new(()), false).unwrap();
            std::future::pending::<()>().await;
        }
        "/Echo/RefusedOnce" if before == 0 => respond.send_reset(Reason::REFUSED_STREAM),
        "/Echo/RefusedOnce" => respond.send_response(grpc(), false).unwrap().send_trailers(status("0")).unwrap(),
        "/Echo/Never" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
            let _ = seen.told.send(format!("reset: {reason:?}"));
        }
        "/page" => {
            let mut out = respond.send_response(Response::new(()), false).unwrap();
            let mut length = 0;
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                length += data.len();
            }
            out.send_data(format!("{length} bytes").into(), true).unwrap();
        }
        "/lies" => {
            let mut response = Response::new(());
            response.headers_mut().insert("content-length", HeaderValue::from_static("100"));
            respond.send_response(response, false).unwrap().send_data("only this".into(), true).unwrap();
        }
        other => panic!("{other}"),
    }
}

fn grpc_route(address: SocketAddr, tls: bool) -> Route {
    let tls = tls.then_some(UpstreamTls::Insecure);
    route(HOST, "/", public(), Target::Upstreams(vec![Upstream { tls, http: Http::Two, ..upstream(address) }]))
}

async fn client(edge: &Edge) -> client::SendRequest<Bytes> {
    let stream = edge.connect(Origin::Wan, 443).await;
    let stream = edge.tls(stream, HOST, "h2").await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn call(method: &str) -> Request<()> {
    let request = Request::post(format!("https://{HOST}/Echo/{method}")).version(hyper::Version::HTTP_2);
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// One message as it is framed: not compressed, its length, itself.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

#[tokio::test]
async fn grpc_messages_go_both_ways_and_its_trailers_arrive() {
    for tls in [false, true] {
        let mut server = Server::start(tls).await;
        let edge = Edge::start(|config| {
            config.routes.push(grpc_route(server.address, tls));
            // A conversation may be silent for longer than a body may stall.
            config.timeouts.body = std::time::Duration::from_millis(200);
            config.timeouts.response = std::time::Duration::from_millis(200);
        });
        let mut sender = client(&edge).await;

        let (response, mut up) = sender.send_request(call("Messages"), false).unwrap();
        up.send_data(message("one"), false).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        let (head, mut down) = response.into_parts();
        let first = timeout(PATIENCE, down.data()).await.unwrap().unwrap().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        up.send_data(message("two"), false).unwrap();
        let second = timeout(PATIENCE, down.data()).await.unwrap().unwrap().unwrap();
        up.send_data(Bytes::new(), true).unwrap();
        assert!(timeout(PATIENCE, down.data()).await.unwrap().is_none());
        let trailers = timeout(PATIENCE, down.trailers()).await.unwrap().unwrap().unwrap();

        assert_eq!((head.status, &first, &second), (StatusCode::OK, &message("one"), &message("two")));
        assert_eq!(head.headers["content-type"], "application/grpc");
        assert_eq!((&trailers["grpc-status"], trailers.get("set-cookie")), (&HeaderValue::from_static("0"), None));
        let seen = server.seen().await;
        let scheme = if tls { "https" } else { "http" };
        assert!(seen.starts_with(&format!("POST {scheme}://{HOST}/Echo/Messages\n")), "{seen}");
        for field in ["te: trailers", "x-forwarded-proto: https", "x-forwarded-for: 203.0.113.9", "x-request-id: "] {
            assert!(seen.contains(field), "{field}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_client_that_calls_its_request_grpc_has_no_more_time_for_that() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| {
        config.routes.push(grpc_route(server.address, false));
        config.timeouts.body = std::time::Duration::from_millis(200);
        config.timeouts.response = std::time::Duration::from_millis(200);
    });

    // Silent before the server says anything, and where it answers with something else.
    for kind in ["application/grpc", "application/grpc+proto", "application/grpcx"] {
        let mut sender = client(&edge).await;
        let mut request = call("Messages");
        request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        let (response, _up) = sender.send_request(request, false).unwrap();
        let response = timeout(PATIENCE, response).await.expect("it is cut off").unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT, "{kind}");
    }
    let mut sender = client(&edge).await;
    let (response, mut up) = sender.send_request(call("Silent"), false).unwrap();
    let mut down = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    up.send_data("a".into(), false).unwrap();
    assert!(timeout(PATIENCE, down.data()).await.expect("it is cut off").unwrap().is_err());
}

#[tokio::test]
async fn a_request_that_the_server_resets_says_nothing_of_the_server() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, false)));
    let mut sender = client(&edge).await;

    for _ in 0..6 {
        let (response, _) = sender.send_request(call("ResetAtOnce"), true).unwrap();
        assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().status(), StatusCode::BAD_GATEWAY);
    }
    let (response, _) = sender.send_request(call("Unimplemented"), true).unwrap();
    assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().headers()["grpc-status"], "12");

    // None of them was sent twice, and one connection bore them all.
    assert_eq!((server.calls.load(Ordering::SeqCst), server.connections.load(Ordering::SeqCst)), (7, 1));
}

#[tokio::test]
async fn what_the_owner_takes_away_does_not_come_as_a_trailer() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| {
        let mut route = grpc_route(server.address, false);
        route.rules.response.remove.push("grpc-message".parse().unwrap());
        config.routes.push(route);
    });
    let mut sender = client(&edge).await;

    let (response, mut up) = sender.send_request(call("Messages"), false).unwrap();
    up.send_data(message("one"), true).unwrap();
    let mut down = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    // They come after the last of the body.
    while timeout(PATIENCE, down.data()).await.unwrap().transpose().unwrap().is_some() {}
    let trailers = timeout(PATIENCE, down.trailers()).await.unwrap().unwrap().unwrap();

    assert_eq!((&trailers["grpc-status"], trailers.get("grpc-message")), (&HeaderValue::from_static("0"), None));
}

#[tokio::test]
async fn a_server_that_never_says_a_word_is_given_up_with_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let edge = Edge::start(|config| {
        config.routes.push(grpc_route(address, false));
        config.timeouts.connect = std::time::Duration::from_millis(200);
        config.timeouts.response = std::time::Duration::from_secs(3600);
        config.timeouts.body = std::time::Duration::from_secs(3600);
    });
    let mut sender = client(&edge).await;

    let (response, _) = sender.send_request(call("Messages"), true).unwrap();

    assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn grpc_answers_that_are_nothing_but_trailers_end_with_their_head() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, false)));
    let mut sender = client(&edge).await;

    let (response, _) = sender.send_request(call("Unimplemented"), true).unwrap();
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();

    assert_eq!(response.headers()["grpc-status"], "12");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn a_reset_behind_is_a_reset_before_for_the_reason_that_concerns_the_client() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, false)));

    let reasons =
        [("cancel", Reason::CANCEL), ("calm", Reason::ENHANCE_YOUR_CALM), ("protocol", Reason::INTERNAL_ERROR)];
    for (asked, reason) in reasons {
        let mut sender = client(&edge).await;
        let mut request = call("Reset");
        request.headers_mut().insert("reason", HeaderValue::from_static(asked));
        let (response, _) = sender.send_request(request, true).unwrap();
        let mut down = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();

        assert_eq!(timeout(PATIENCE, down.data()).await.unwrap().unwrap().unwrap(), "begun");
        let error = timeout(PATIENCE, down.data()).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(reason), "{asked}");
    }
}

#[tokio::test]
async fn a_call_that_its_client_cancels_is_cancelled_behind() {
    let mut server = Server::start(false).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, false)));
    let mut sender = client(&edge).await;
    let (_response, mut up) = sender.send_request(call("Never"), false).unwrap();
    assert!(server.seen().await.starts_with("POST "));

    up.send_reset(Reason::CANCEL);

    assert_eq!(server.seen().await, "reset: CANCEL");
}

#[tokio::test]
async fn a_call_that_was_refused_unprocessed_is_sent_again() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, false)));
    let mut sender = client(&edge).await;

    let (response, _) = sender.send_request(call("RefusedOnce"), true).unwrap();
    let mut down = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();

    let trailers = timeout(PATIENCE, down.trailers()).await.unwrap().unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn many_calls_at_once_share_few_connections() {
    let server = Server::start(false).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, false)));
    let sender = client(&edge).await;

    let calls = (0..90).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let (response, mut up) = sender.send_request(call("Messages"), false).unwrap();
            up.send_data(message("hello"), true).unwrap();
            let mut down = response.await.unwrap().into_body();
            let echoed = down.data().await.unwrap().unwrap();
            (echoed, down.trailers().await.unwrap().unwrap())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (echoed, trailers) = timeout(PATIENCE, call).await.unwrap().unwrap();
        assert_eq!((echoed, &trailers["grpc-status"]), (message("hello"), &HeaderValue::from_static("0")));
    }

    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_of_http_1_reaches_a_server_that_speaks_http_2_alone() {
    let server = Server::start(true).await;
    let edge = Edge::start(|config| config.routes.push(grpc_route(server.address, true)));
    let length = 3_000_000;
    let stream = edge.connect(Origin::Wan, 443).await;
    let mut stream = edge.tls(stream, HOST, "http/1.1").await.unwrap();

    let head = format!("POST /page HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    stream.flush().await.unwrap();
    let answer = edge::read_to_end(&mut stream).await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("3000000 bytes"), "{answer}");
    let upgrade = format!(
        "GET /page HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = edge.ask(Origin::Wan, HOST, &upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "an upgrade that HTTP/2 does not have is not made: {answer}");
    let answer = edge.ask(Origin::Wan, HOST, &head.replace("POST /page", "GET /lies").replace("3000000", "0")).await;
    // What is too short is not taken for the whole: it ends early, or never begins.
    assert!(answer.is_empty() || answer.contains("content-length: 100\r\n"), "{answer}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_2_is_none() {
    let plain = edge::Behind::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = listener.local_addr().unwrap();
    let acceptor = acceptor(&[b"http/1.1"]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });

    for (address, tls) in [(plain.address, false), (old, true)] {
        let edge = Edge::start(|config| config.routes.push(grpc_route(address, tls)));
        let get = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = edge.ask(Origin::Wan, HOST, &get).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

//! Lists that are fetched: from a false list server on loopback, by the fetcher alone and by a whole plane.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hearthgate::{
    dns::{
        Action, BlockAs, Config, List, ListSource, LocalRecord, Testing,
        filter::{Bounds, FetchError, Fetched, Fetcher, ListStatus, Validators},
    },
    lookup::Lookup,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use hyper::Uri;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::dns::{Running, config, rr};

/// What the server says next, and what it was asked.
struct Script {
    /// Head and body; the connection is closed behind them.
    answer: Vec<u8>,
    /// Given instead if the request has this in `If-None-Match`.
    etag: Option<String>,
    /// The body comes one octet at a time, without end.
    trickle: bool,
    asked: Vec<String>,
}

struct ListServer {
    address: SocketAddr,
    root: CertificateDer<'static>,
    pem: String,
    script: Arc<Mutex<Script>>,
}

impl ListServer {
    /// Serves over TLS with a certificate for `lists.home.example`.
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["lists.home.example".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let root = made.cert.der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![root.clone()], key)
            .unwrap();
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { answer: Vec::new(), etag: None, trickle: false, asked: Vec::new() };
        let script = Arc::new(Mutex::new(script));
        let shared = script.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, script) = (tls.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, tls, &script));
            }
        });
        Self { address, root, pem: made.cert.pem(), script }
    }

    fn says(&self, head: &str, body: &str) {
        let answer = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut script = self.script.lock().unwrap();
        (script.answer, script.etag, script.trickle) = (answer.into_bytes(), None, false);
    }

    fn gives(&self, names: &[&str], etag: &str) {
        self.says(&format!("200 OK\r\netag: {etag}"), &(names.join("\n") + "\n"));
        self.script.lock().unwrap().etag = Some(etag.into());
    }

    fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    fn url(&self, path: &str) -> Uri {
        format!("https://lists.home.example:{}{path}", self.address.port()).parse().unwrap()
    }

    fn fetcher(&self, bounds: Bounds) -> Fetcher {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Fetcher::new(roots, loopback(), bounds)
    }
}

fn serve(stream: TcpStream, tls: Arc<ServerConfig>, script: &Mutex<Script>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let stream = StreamOwned::new(ServerConnection::new(tls).ok()?, stream);
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        stream.read_line(&mut request).ok().filter(|length| *length > 0)?;
    }
    let (mut answer, trickle) = {
        let mut script = script.lock().unwrap();
        script.asked.push(request.clone());
        (script.answer.clone(), script.trickle)
    };
    let known = script.lock().unwrap().etag.clone();
    if known.is_some_and(|etag| request.contains(&format!("if-none-match: {etag}"))) {
        answer = b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".to_vec();
    }
    let stream = stream.get_mut();
    stream.write_all(&answer).ok()?;
    if trickle {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(b"1\r\na\r\n").ok()?;
            stream.flush().ok()?;
        }
    }
    stream.conn.send_close_notify();
    stream.flush().ok()?;
    let _ = stream.sock.shutdown(std::net::Shutdown::Write);
    let _ = stream.sock.read(&mut [0]);
    Some(())
}

fn loopback() -> Lookup {
    Lookup::new(|_| async { Ok(vec![[127, 0, 0, 1].into()]) })
}

fn fetch(fetcher: &Fetcher, url: &Uri, known: &Validators, file: &Path) -> Result<Fetched, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fetcher.fetch(url, known, file))
}

fn target() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list");
    (folder, file)
}

#[test]
fn a_list_is_fetched_once_and_then_only_if_it_changed() {
    let server = ListServer::start();
    let (_folder, file) = target();
    let fetcher = server.fetcher(Bounds::default());
    server.gives(&["ads.example"], "\"one\"");

    let fetched = fetch(&fetcher, &server.url("/ads?x=1"), &Validators::default(), &file).unwrap();
    let Fetched::Changed { validators, .. } = fetched else { panic!("{fetched:?}") };
    let again = fetch(&fetcher, &server.url("/ads?x=1"), &validators, &file).unwrap();

    assert_eq!(std::fs::read_to_string(&file).unwrap(), "ads.example\n");
    assert_eq!(validators.etag.as_deref(), Some("\"one\""));
    assert_eq!(again, Fetched::Unchanged);
    assert!(server.asked()[0].starts_with("GET /ads?x=1 HTTP/1.1\r\n"), "{}", server.asked()[0]);
}

#[test]
fn what_is_no_answer_to_the_question_is_refused() {
    let server = ListServer::start();
    let (_folder, file) = target();
    let small = Bounds { bytes: 100, time: Duration::from_secs(20), ..Bounds::default() };
    let fetcher = server.fetcher(small);
    let problem = |path: &str| {
        let fetched = fetch(&fetcher, &server.url(path), &Validators::default(), &file);
        fetched.unwrap_err().to_string()
    };

    server.says("404 Not Found", "a.example");
    assert_eq!(problem("/"), "the server answers 404 Not Found");
    server.says("200 OK\r\ncontent-type: text/html; charset=utf-8", "a.example");
    assert_eq!(problem("/"), "a web page, not a list");
    server.says("200 OK\r\ncontent-encoding: gzip", "a.example");
    assert!(problem("/").contains("packed as \"gzip\""));
    server.says("200 OK", &"a.example\n".repeat(11));
    assert_eq!(problem("/"), FetchError::TooLarge(100).to_string());
    server.says("302 Found\r\nlocation: http://lists.home.example/", "");
    assert!(problem("/").contains("no https URL"));
    server.says("302 Found\r\nlocation: /again", "");
    assert_eq!(problem("/"), "more than 5 redirects");
    server.says("200 OK\r\nconnection: close\r\ncontent-length: 99\r\nx: y", "a.example");
    assert!(!problem("/").is_empty(), "two lengths");
}

#[test]
fn a_server_that_trickles_is_left() {
    let server = ListServer::start();
    let (_folder, file) = target();
    server.says("200 OK", "");
    {
        let mut script = server.script.lock().unwrap();
        script.answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        script.trickle = true;
    }

    let time = Duration::from_millis(500);
    let fetcher = server.fetcher(Bounds { time, ..Bounds::default() });

    let error = fetch(&fetcher, &server.url("/"), &Validators::default(), &file).unwrap_err();
    assert!(matches!(error, FetchError::TooSlow(after) if after == time), "{error}");
}

#[test]
fn a_server_without_a_good_certificate_is_not_asked() {
    let server = ListServer::start();
    let (_folder, file) = target();
    server.gives(&["ads.example"], "\"one\"");
    let strangers = Fetcher::new(Fetcher::public_roots(), loopback(), Bounds::default());
    let other: Uri = format!("https://other.home.example:{}/", server.address.port()).parse().unwrap();

    for (fetcher, url) in [(strangers, server.url("/")), (server.fetcher(Bounds::default()), other)] {
        let error = fetch(&fetcher, &url, &Validators::default(), &file).unwrap_err();
        assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

/// A plane with one list, `ads`, from the server; its name is a record of the house.
fn house(server: &ListServer, state: &Path) -> Config {
    let roots = state.join("roots.pem");
    std::fs::write(&roots, &server.pem).unwrap();
    let mut config = config(SocketAddr::from(([127, 0, 0, 1], 9)));
    config.state = state.into();
    config.records = vec![LocalRecord::Fixed(rr("lists.home.example.", 60, "A 127.0.0.1"))];
    config.lists = vec![List {
        name: "ads".into(),
        source: ListSource::Url(server.url("/ads")),
        action: Action::Block,
        purpose: hearthgate::dns::Purpose::Filter,
        block_as: BlockAs::NxDomain,
        refresh: Duration::from_millis(200),
        enabled: true,
    }];
    config.testing = Testing { list_roots: Some(roots), ..config.testing };
    config
}

fn blocks(running: &Running, name: &str) -> bool {
    running.ask(name, RecordType::A).response_code == ResponseCode::NXDomain
}

fn status(running: &Running) -> ListStatus {
    running.plane.status().lists.remove(0)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "not within 30 seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_plane_fetches_its_lists_refreshes_them_and_keeps_them_over_a_restart() {
    let server = ListServer::start();
    let state = tempfile::tempdir().unwrap();
    server.says("503 Service Unavailable", "");
    let running = Running::start(house(&server, state.path()));
    until("the failure is told", || status(&running).problem.is_some_and(|why| why.contains("503")));
    assert!(!blocks(&running, "one.ads.example."));

    server.gives(&["one.ads.example", "two.ads.example"], "\"one\"");
    until("the list is in force", || blocks(&running, "one.ads.example."));
    assert_eq!(status(&running).names, 2);
    until("it is asked for again", || server.asked().iter().any(|asked| asked.contains("if-none-match: \"one\"")));
    server.gives(&["one.ads.example", "three.ads.example"], "\"two\"");
    until("the new list is in force", || blocks(&running, "three.ads.example."));
    assert!(!blocks(&running, "two.ads.example."));
    assert_eq!(status(&running).problem, None);
    assert!(status(&running).checked.is_some());
    assert!(running.counted("hearthgate_dns_list_fetches_total") >= 3);

    drop(running);
    server.says("503 Service Unavailable", "");
    let running = Running::start(house(&server, state.path()));
    assert!(blocks(&running, "three.ads.example."), "at once, from the kept list");
}

#[test]
fn a_refresh_stalls_no_answer() {
    const NAMES: usize = 150_000;
    let server = ListServer::start();
    let state = tempfile::tempdir().unwrap();
    server.gives(&["one.ads.example"], "\"one\"");
    let running = Running::start(house(&server, state.path()));
    until("the list is in force", || blocks(&running, "one.ads.example."));
    let names: Vec<String> = (0..NAMES).map(|number| format!("{number}.ads.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let kept = state.path().join("lists/ads.list");

    server.gives(&names, "\"two\"");
    until("it was fetched", || std::fs::metadata(&kept).is_ok_and(|file| file.len() > NAMES as u64));
    let mut meanwhile = 0;
    while !blocks(&running, "7.ads.example.") {
        // The old rules hold until the new ones do.
        assert!(blocks(&running, "one.ads.example.") || blocks(&running, "7.ads.example."));
        meanwhile += 1;
    }

    assert!(meanwhile > 10, "{meanwhile} answers while the table was made");
    assert!(!blocks(&running, "one.ads.example."));
}

#[test]
fn a_list_that_shrank_or_is_a_web_page_leaves_the_last_one_in_force_and_is_told() {
    let server = ListServer::start();
    let state = tempfile::tempdir().unwrap();
    server.gives(&["one.ads.example", "two.ads.example", "three.ads.example"], "\"one\"");
    let running = Running::start(house(&server, state.path()));
    until("the list is in force", || blocks(&running, "one.ads.example."));

    server.gives(&["four.ads.example"], "\"two\"");
    let told = |words: &str| status(&running).problem.is_some_and(|why| why.contains(words));
    until("it is held back", || told("1 instead of 3 names is held back"));
    assert!(blocks(&running, "one.ads.example."));
    server.gives(&["<html>", "five.ads.example"], "\"three\"");
    until("the page is refused", || told("looks like a web page"));
    assert!(blocks(&running, "one.ads.example."));
    std::fs::remove_file(state.path().join("lists/ads.list")).unwrap();
    server.gives(&["four.ads.example"], "\"four\"");

    until("the small one is taken", || blocks(&running, "four.ads.example."));
    assert_eq!(status(&running).problem, None);
}

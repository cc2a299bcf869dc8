//! The real program, started as its owner starts it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hearthgate::{store, vpn::keys::PrivateKey};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearthgate");
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A house of its own: a state folder and a configuration on ports that the kernel chooses.
struct House {
    folder: TempDir,
}

/// A running edge, which ends with the test.
struct Running<'a> {
    house: &'a House,
    child: Child,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl House {
    /// The quick start's house, with the tour's peer.
    fn new() -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap() };
        // Whoever the edge becomes must reach its state.
        fs::set_permissions(house.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let key = PrivateKey::generate();
        store::folder(&house.state()).unwrap();
        store::write(&house.state().join("tour.key"), key.reveal().as_bytes()).unwrap();
        house.write(&format!(
            r#"
            [node]
            domain = "home.arpa"
            grace = "2s"

            [dns]
            listen = ["127.0.0.1:0"]

            [dns.records]
            nas = ["192.168.1.10"]

            [[dns.list]]
            name = "demo"
            names = ["blocked.example"]

            [[dns.group]]
            name = "default"
            lists = ["demo"]

            [ingress]
            http = ["127.0.0.1:0"]
            https = ["127.0.0.1:0"]

            [[route]]
            host = "welcome.home.arpa"
            access = "public"
            to = "builtin:welcome"

            [[route]]
            host = "admin.home.arpa"
            access = "vpn"
            to = "builtin:welcome"

            [vpn]
            listen = ["127.0.0.1:0"]
            endpoint = "127.0.0.1:8443"
            addresses = ["10.77.0.1/24", "fd77::1/64"]

            [[vpn.peer]]
            name = "tour"
            public_key = "{}"
            addresses = ["10.77.0.2/32"]

            [metrics]
            listen = ["127.0.0.1:0"]
            "#,
            key.public_key(),
        ));
        house
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hearthgate.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--state").arg(self.state()).args(arguments).stdin(Stdio::null());
        command
    }

    fn run_command(&self) -> Command {
        let mut command = self.command(&["run"]);
        command.arg("--config").arg(self.file());
        if is_root() {
            command.args(["--user", "nobody"]);
        }
        command
    }

    /// Runs a command to its end.
    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self) -> Running<'_> {
        let mut child = self.run_command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("hearthgate::app::run: running") {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the edge did not start:\n{seen}");
            seen.push_str(&line);
        }
        // Whoever does not read the log must not stop the edge.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Running { house: self, child }
    }
}

impl Running<'_> {
    fn status(&self) -> Value {
        let output = self.house.call(&["status", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn address(&self, pointer: &str) -> SocketAddr {
        self.status().pointer(pointer).unwrap().as_str().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: i32) {
        let process = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Waits for the end and returns the exit code.
    fn end(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the edge does not end");
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn patient(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

type Secure = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Opens TLS for the public route, with the house's CA alone trusted.
fn secure(running: &Running<'_>) -> Secure {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(running.house.state().join("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = "welcome.home.arpa".try_into().unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(tls, patient(running.address("/ingress/https/0")))
}

/// Asks for the page and returns the answer's head; the connection stays.
fn page(stream: &mut Secure) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: welcome.home.arpa\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap()]).unwrap();
    head
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = patient(address);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: edge\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_tour_holds() {
    let house = House::new();
    let _running = house.start();

    let tour = house.call(&["tour"]);

    assert!(tour.status.success(), "{}{}", stdout(&tour), stderr(&tour));
    assert_eq!(stdout(&tour).matches('✓').count(), 7, "{}", stdout(&tour));
}

#[test]
fn the_tour_says_what_does_not_hold() {
    let house = House::new();
    house.write(&house.text().replace("192.168.1.10", "192.168.1.11").replace("access = \"vpn\"", "access = \"lan\""));
    let _running = house.start();

    let tour = house.call(&["tour"]);

    assert_eq!(tour.status.code(), Some(1), "{}", stdout(&tour));
    for step in ["✗ 1", "✓ 2", "✓ 3", "✗ 4", "✗ 7"] {
        assert!(stdout(&tour).contains(step), "{step}:\n{}", stdout(&tour));
    }
}

#[test]
fn status_tells_what_runs() {
    let house = House::new();
    let running = house.start();

    let status = running.status();
    let text = stdout(&house.call(&["status"]));

    let names: Vec<&str> = status["planes"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dns", "ingress", "vpn"]);
    assert!(status["planes"].as_array().unwrap().iter().all(|plane| plane["running"] == true));
    assert_eq!(status["generation"], 1);
    assert_eq!(status["vpn"]["peers"][0]["name"], "tour");
    for word in ["dns", "ingress", "vpn", "running", "generation 1", "cert", "welcome.home.arpa", "no handshake yet"] {
        assert!(text.contains(word), "{word}:\n{text}");
    }
}

#[test]
fn a_bad_reload_changes_nothing_and_says_why() {
    let house = House::new();
    let running = house.start();
    let good = house.text();

    house.write(&good.replace("[dns.records]", "[dns.records]\nbad = [\"nowhere\"]\n[dns.recrods]"));
    let reload = house.call(&["reload"]);

    assert_eq!(reload.status.code(), Some(78), "{}", stderr(&reload));
    let place = format!("{}:", house.file().display());
    assert!(stderr(&reload).contains(&place) && stderr(&reload).contains("hint:"), "{}", stderr(&reload));
    let status = running.status();
    assert_eq!(status["generation"], 1);
    assert!(status["refused"]["problems"][0].as_str().unwrap().contains("hearthgate.toml"));
    assert!(house.call(&["tour"]).status.success());

    house.write(&good.replace("nas =", "printer = [\"192.168.1.11\"]\nnas ="));
    let reload = house.call(&["reload"]);

    assert!(reload.status.success(), "{}", stderr(&reload));
    assert_eq!(running.status()["generation"], 2);
    assert!(running.status()["refused"].is_null());
    let text = scrape(running.address("/metrics/0"));
    assert!(text.contains("hearthgate_process_config_last_reload_successful 1"), "{text}");
    assert!(text.contains("hearthgate_process_config_reloads_total{outcome=\"refused\"} 1"), "{text}");
}

#[test]
fn a_reload_that_needs_a_restart_names_the_key() {
    let house = House::new();
    let running = house.start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    house.write(&house.text().replace("http = [\"127.0.0.1:0\"]", &format!("http = [\"{other}\"]")));
    let reload = house.call(&["reload"]);

    assert_eq!(reload.status.code(), Some(78));
    assert!(stderr(&reload).contains("`ingress.http`"), "{}", stderr(&reload));
    assert_eq!(running.status()["generation"], 1);
}

#[test]
fn a_reload_keeps_connections_and_sighup_reloads() {
    let house = House::new();
    let running = house.start();
    let mut stream = secure(&running);
    assert!(page(&mut stream).starts_with("HTTP/1.1 200"));

    house.write(&house.text().replace("nas =", "printer = [\"192.168.1.11\"]\nnas ="));
    running.signal(libc::SIGHUP);
    let until = Instant::now() + PATIENCE;
    while running.status()["generation"] != 2 {
        assert!(Instant::now() < until, "SIGHUP does not reload");
        std::thread::sleep(Duration::from_millis(20));
    }

    assert!(page(&mut stream).starts_with("HTTP/1.1 200"), "the same connection still works");
}

#[test]
fn sigterm_ends_well_and_a_second_one_at_once() {
    let house = House::new();
    let mut running = house.start();

    running.signal(libc::SIGTERM);

    assert_eq!(running.end(), Some(0));
    assert!(!house.state().join("control.sock").exists());

    house.write(&house.text().replace("grace = \"2s\"", "grace = \"1h\""));
    let mut running = house.start();
    // A request that never ends keeps the ingress busy.
    let mut stream = patient(running.address("/ingress/http/0"));
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    running.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    running.signal(libc::SIGTERM);

    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_second_edge_on_the_same_state_is_told_of_the_first() {
    let house = House::new();
    let running = house.start();

    let second = house.run_command().output().unwrap();

    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    let expected = format!("already running on the state in {}", house.state().display());
    assert!(stderr(&second).contains(&expected), "{}", stderr(&second));
    assert!(stderr(&second).contains(&running.child.id().to_string()), "{}", stderr(&second));
    assert_eq!(running.status()["generation"], 1);
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let house = House::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    house.write(&house.text().replace("https = [\"127.0.0.1:0\"]", &format!("https = [\"{taken}\"]")));

    let output = house.run_command().output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    let expected = format!("TCP port {} on 127.0.0.1 is taken", taken.port());
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(stderr(&output).contains("`ingress.https`"), "{}", stderr(&output));
}

#[test]
fn peers_come_and_go_while_it_runs() {
    let house = House::new();
    let running = house.start();

    let added = house.call(&[
        "peer",
        "add",
        "laptop",
        "--group",
        "admins",
        "--may-reach",
        "services,tcp 192.168.1.0/24 22",
        "--qr",
    ]);

    assert!(added.status.success(), "{}", stderr(&added));
    let text = stdout(&added);
    assert!(text.starts_with("[Interface]\nPrivateKey = "), "{text}");
    assert!(text.contains("Address = 10.77.0.3/32, fd77::2/128\n"), "{text}");
    assert!(text.contains("Endpoint = 127.0.0.1:8443\n") && text.contains("192.168.1.0/24"), "{text}");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('[') || line.contains(" = ")), "{text}");
    assert!(stderr(&added).contains('█'), "the QR code is beside it");
    let secret = text.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap();
    let kept = fs::read_dir(house.state()).unwrap().filter_map(|entry| fs::read(entry.unwrap().path()).ok());
    assert!(kept.into_iter().all(|content| !String::from_utf8_lossy(&content).contains(secret)));
    assert!(stdout(&house.call(&["peer", "list"])).contains("laptop"));
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 2);

    let twice = house.call(&["peer", "add", "laptop"]);
    let owners = house.call(&["peer", "remove", "tour"]);
    assert_eq!((twice.status.code(), owners.status.code()), (Some(1), Some(1)));
    assert!(stderr(&owners).contains("never rewritten"), "{}", stderr(&owners));
    let refused = house.call(&["peer", "add", "phone", "--may-reach", "everything"]);
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    assert_eq!(running.status()["generation"], 2);

    assert!(house.call(&["peer", "remove", "laptop"]).status.success());
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(house.call(&["peer", "remove", "laptop"]).status.code(), Some(1));
}

#[test]
fn every_change_can_be_seen_and_taken_back() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["peer", "add", "laptop"]).status.success());

    let log = stdout(&house.call(&["config", "log"]));
    let diff = stdout(&house.call(&["config", "diff"]));
    let show = stdout(&house.call(&["config", "show", "1"]));
    let rollback = house.call(&["config", "rollback", "1"]);

    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains("start") && log.contains("peer add laptop"), "{log}");
    assert!(diff.contains("+name = \"laptop\""), "{diff}");
    assert!(show.contains("[dns.records]") && !show.contains("laptop"), "{show}");
    assert!(rollback.status.success(), "{}", stderr(&rollback));
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(house.call(&["config", "rollback", "99"]).status.code(), Some(1));
}

#[test]
fn peers_are_kept_in_the_state_while_nothing_runs() {
    let house = House::new();
    let file = house.file();
    let file = file.to_str().unwrap();

    let added = house.call(&["peer", "add", "laptop", "--config", file]);
    let refused = house.call(&["peer", "add", "phone", "--may-reach", "everything", "--config", file]);

    assert!(added.status.success(), "{}", stderr(&added));
    assert!(stderr(&added).contains("next start"), "{}", stderr(&added));
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    let running = house.start();
    assert_eq!(running.status()["vpn"]["peers"][1]["name"], "laptop");
}

#[test]
fn metrics_answer_this_box_and_pass_the_linter() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["tour"]).status.success());

    let text = scrape(running.address("/metrics/0"));

    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.contains("hearthgate_process_build_info{version="), "{text}");
    assert!(!text.contains("admin.home.arpa"), "a route that this box may not reach is not named:\n{text}");
    assert!(!text.contains("peer=\"tour\""), "{text}");
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let Ok(mut promtool) =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    else {
        eprintln!("skipped: promtool is not here");
        return;
    };
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let verdict = promtool.wait_with_output().unwrap();
    assert!(verdict.status.success(), "{}\n{body}", stdout(&verdict));
}

#[test]
fn metrics_close_without_a_byte_to_others() {
    let house = House::new();
    house.write(&house.text().replace("[metrics]", "[metrics]\nallow = [\"192.0.2.1\"]"));
    let running = house.start();

    let mut stream = patient(running.address("/metrics/0"));
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: edge\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);

    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn check_says_what_is_wrong_and_what_is_meant() {
    let house = House::new();
    let good = house.text();
    let file = house.file();
    let check = || Command::new(PROGRAM).args(["check", "--config"]).arg(&file).output().unwrap();

    let meaning = check();
    house.write(&good.replace("domain = \"home.arpa\"", "domian = \"home.arpa\""));
    let wrong = check();

    assert!(meaning.status.success(), "{}", stderr(&meaning));
    let table = stdout(&meaning);
    let row =
        |host: &str| table.lines().find(|line| line.starts_with(host)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row("welcome.home.arpa")[1..4], ["yes", "yes", "yes"], "{table}");
    assert_eq!(row("admin.home.arpa")[1..4], ["-", "-", "yes"], "{table}");
    assert_eq!(wrong.status.code(), Some(78));
    let expected = format!("{}:3:13: node: unknown key \"domian\"\n  hint: did you mean \"domain\"?", file.display());
    assert!(stderr(&wrong).contains(&expected), "{}", stderr(&wrong));
}

#[test]
fn root_without_a_user_is_refused() {
    if !is_root() {
        eprintln!("skipped: this needs root");
        return;
    }
    let house = House::new();

    let output = house.command(&["run", "--config", house.file().to_str().unwrap()]).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("`node.user`"), "{}", stderr(&output));
}

#[test]
fn nothing_is_left_of_what_a_process_may() {
    let house = House::new();
    let running = house.start();

    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();

    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    if is_root() {
        assert_eq!(field("CapBnd:"), "0000000000000000");
        assert!(!field("Uid:").split_whitespace().any(|uid| uid == "0"), "{}", field("Uid:"));
    }
    assert!(running.status()["privileges"].as_str().unwrap().contains("capabilities: none"));
}

#[test]
fn arguments_that_cannot_be_understood_are_usage() {
    for arguments in [&["frobnicate"][..], &["run", "--confg", "x"], &["config", "rollback"]] {
        assert_eq!(Command::new(PROGRAM).args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    assert!(Command::new(PROGRAM).arg("--help").output().unwrap().status.success());
}

#[test]
fn commands_without_a_running_edge_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let state: &Path = folder.path();

    let output = Command::new(PROGRAM).arg("status").arg("--state").arg(state).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no hearthgate is running"), "{}", stderr(&output));
}

#[test]
fn init_writes_a_file_that_is_good() {
    let house = House::new();
    let file = house.folder.path().join("first.toml");
    let init = || {
        let mut command = house.command(&["init", "--yes", "--endpoint", "vpn.example.org:443", "--config"]);
        command.arg(&file).output().unwrap()
    };

    let first = init();
    if stderr(&first).contains("no interface has a private IPv4 address") {
        eprintln!("skipped: this box has no LAN");
        return;
    }
    let again = init();

    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stdout(&first).starts_with("[Interface]\nPrivateKey = "), "{}", stdout(&first));
    assert!(stdout(&first).contains("Endpoint = vpn.example.org:443\n"), "{}", stdout(&first));
    assert!(stderr(&first).contains("nothing is opened") && stderr(&first).contains('█'), "{}", stderr(&first));
    assert!(fs::read_to_string(&file).unwrap().lines().count() <= 40);
    let check = Command::new(PROGRAM).args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
    assert!(stdout(&check).contains("vpn:owner"), "{}", stdout(&check));
    assert_eq!(again.status.code(), Some(1), "{}", stderr(&again));
}

#[test]
fn init_asks_before_it_writes() {
    let house = House::new();
    let file = house.folder.path().join("first.toml");

    let output = house.command(&["init", "--config"]).arg(&file).output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!file.exists());
}

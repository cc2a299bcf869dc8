//! The real program, started as its owner starts it.

mod backup;
mod check;
mod command;
mod confirm;
mod confirm_change;
mod console;
mod doctor;
mod explain;
mod handover;
mod history;
mod init;
mod kept;
mod metrics;
mod peers;
mod process;
mod reload;
mod rules;
mod sandbox;
mod state;
mod tour;
mod uptime;
mod users;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread::JoinHandle,
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
    /// Reads on, so that whoever does not look at the log does not stop the edge.
    log: Option<JoinHandle<String>>,
}

/// What stands for systemd: it hears what the edge tells of itself.
struct ServiceManager {
    path: PathBuf,
    socket: std::os::unix::net::UnixDatagram,
}

impl ServiceManager {
    fn new(house: &House) -> Self {
        let path = house.folder.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        // Whoever the edge becomes may write to it.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { path, socket }
    }

    /// The command by which it starts a house's edge, with a watchdog.
    fn command(&self, house: &House) -> Command {
        let mut command = house.run_command();
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "100000");
        command
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 128];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
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
        // Root gives away only what is marked as the edge's.
        fs::write(house.state().join("lock"), "1\n").unwrap();
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
            mode = "userspace"

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
        self.start_by(self.run_command())
    }

    fn start_by(&self, mut command: Command) -> Running<'_> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("hearthgate::app::run: running") {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the edge did not start:\n{seen}");
            seen.push_str(&line);
        }
        let log = std::thread::spawn(move || {
            let _ = log.read_to_string(&mut seen);
            seen
        });
        Running { house: self, child, log: Some(log) }
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

    /// Returns the log, once the edge has ended.
    fn log(&mut self) -> String {
        self.log.take().unwrap().join().unwrap()
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
    secured(running.house, patient(running.address("/ingress/https/0")))
}

fn secured(house: &House, stream: TcpStream) -> Secure {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(house.state().join("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = "welcome.home.arpa".try_into().unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(tls, stream)
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

//! Let's Encrypt's own test server, with a name server that says what it is told.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hearthgate::{https::Client, ingress::AcmeDirectory, lookup::Lookup};
use hyper::{Method, Request};

use crate::ingress::edge::PATIENCE;

const PROGRAMS: [&str; 2] = ["pebble", "pebble-challtestsrv"];

/// The ports are found free before the programs take them: one test after the other.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct Pebble {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    /// Where the name server listens.
    pub(crate) dns: SocketAddr,
    /// Where it is told what to say.
    pub(crate) told: SocketAddr,
    management: SocketAddr,
    client: Client,
    programs: Vec<Child>,
    _alone: MutexGuard<'static, ()>,
}

impl Pebble {
    /// Starts it for a house whose ports are these; `None`, said loudly, where it is not installed.
    pub(crate) async fn start(http: SocketAddr, https: SocketAddr, environment: &[(&str, &str)]) -> Option<Self> {
        let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| !is_there(program)).collect();
        if !missing.is_empty() {
            assert!(std::env::var_os("HEARTHGATE_NETNS").is_none_or(|wish| wish != "required"), "no {missing:?}");
            eprintln!("\nSKIPPED: this needs {}", missing.join(" and "));
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let root = root(folder.path());
        let [address, management, names, dns] = free();
        let config = serde_json::json!({"pebble": {
            "listenAddress": address.to_string(), "managementListenAddress": management.to_string(),
            "certificate": "cert.pem", "privateKey": "key.pem", "ocspResponderURL": "",
            "httpPort": http.port(), "tlsPort": https.port(),
            "externalAccountBindingRequired": environment.iter().any(|(name, _)| *name == "EAB"),
            "externalAccountMACKeys": {"house": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
        }});
        std::fs::write(folder.path().join("pebble.json"), config.to_string()).unwrap();
        let says = |program: &str| {
            let log = std::fs::File::create(folder.path().join(format!("{program}.log"))).unwrap();
            let mut command = Command::new(program);
            command.current_dir(folder.path()).stdout(log.try_clone().unwrap()).stderr(Stdio::from(log));
            command
        };
        let dns_text = dns.to_string();
        let mut nameserver = says("pebble-challtestsrv");
        nameserver.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &dns_text]);
        nameserver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &names.to_string()]);
        let mut pebble = says("pebble");
        pebble.args(["-config", "pebble.json", "-dnsserver", &dns_text, "-strict"]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0").envs(environment.iter().copied());
        let programs = vec![nameserver.spawn().unwrap(), pebble.spawn().unwrap()];
        let client = Client::new(Some(&root), Lookup::system()).unwrap();
        let pebble = Self { folder, address, dns, told: names, management, client, programs, _alone: alone };
        for ready in [names, management, address] {
            listening(ready).await;
        }
        Some(pebble)
    }

    /// Starts it for a house that nobody has to connect to.
    pub(crate) async fn start_anywhere() -> Option<Self> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Self::start(nowhere, nowhere, &[]).await
    }

    pub(crate) fn directory(&self) -> AcmeDirectory {
        AcmeDirectory { url: format!("https://{}/dir", self.address), ca: Some(self.folder.path().join("root.pem")) }
    }

    /// Fetches what its certificates lead to: another one at each start.
    pub(crate) async fn root(&self) -> PathBuf {
        let mut pem = Vec::new();
        for what in ["roots", "intermediates"] {
            pem.extend(self.ask(Method::GET, &format!("https://{}/{what}/0", self.management), "").await);
        }
        let path = self.folder.path().join("issued.pem");
        std::fs::write(&path, pem).unwrap();
        path
    }

    /// Tells the name server something.
    pub(crate) async fn names(&self, what: &str, body: &str) {
        self.ask(Method::POST, &format!("http://{}/{what}", self.told), body).await;
    }

    async fn ask(&self, method: Method, url: &str, body: &str) -> Bytes {
        let request = Request::builder().method(method).uri(url).body(Bytes::copy_from_slice(body.as_bytes()));
        let answer = self.client.ask(request.unwrap()).await.unwrap();
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
        answer.into_body()
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pebble.log")).unwrap()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

async fn listening(address: SocketAddr) {
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "nobody listens on {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Addresses on loopback whose ports nobody has, for TCP and UDP.
fn free() -> [SocketAddr; 4] {
    let mut kept = Vec::new();
    while kept.len() < 4 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            kept.push((tcp, udp));
        }
    }
    std::array::from_fn(|index| kept[index].0.local_addr().unwrap())
}

/// Makes the certificate that pebble's own server shows.
fn root(folder: &std::path::Path) -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let own = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    let leaf = leaf.signed_by(&own, &issuer).unwrap();
    std::fs::write(folder.join("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), own.serialize_pem()).unwrap();
    let root = folder.join("root.pem");
    std::fs::write(&root, authority.pem()).unwrap();
    root
}

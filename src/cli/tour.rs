//! `hearthgate tour`: proves the promise from outside, as a client of the running edge.
//!
//! It knows no more than a client does: addresses from `status`, the CA's certificate, and for the tunnel the
//! key of the quick start's peer.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{
        RData, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    app::status::Status,
    cli::{Running, client},
    config,
    vpn::{client::Tunnel, keys::PublicKey},
};

const LOCAL: &str = "nas.home.arpa";
const LOCAL_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const BLOCKED: &str = "blocked.example";
const PUBLIC: &str = "welcome.home.arpa";
const ADMIN: &str = "admin.home.arpa";
/// As long as the admin host's name, and nobody's.
const NEVER: &str = "never.home.arpa";

/// One step, from outside.
const STEP: Duration = Duration::from_secs(10);
/// The first byte of a TLS record that holds an alert (RFC 8446 §5.1).
const ALERT: [u8; 1] = [21];
/// Closing a connection inside the tunnel.
const GOODBYE: Duration = Duration::from_millis(200);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

pub(super) fn execute(running: &Running, state: Option<PathBuf>) -> anyhow::Result<()> {
    let state = running.state(state)?;
    let status: Status = client::get(&state, "/api/v1/status")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let held = runtime.block_on(walk(&state, &status));
    if held {
        println!("everything that was promised holds");
        return Ok(());
    }
    bail!("not everything that was promised holds");
}

/// Takes every step, also after one that failed; says whether all hold.
async fn walk(state: &Path, status: &Status) -> bool {
    let mut all = true;
    let mut tell = |number: u8, what: &str, expected: &str, came: anyhow::Result<String>| {
        let (mark, came) = match came {
            Ok(came) => ("✓", came),
            Err(error) => {
                all = false;
                ("✗", format!("{error:#}"))
            }
        };
        println!("{mark} {number} {what}: expected {expected}; came {came}");
    };
    tell(1, &format!("DNS, {LOCAL}"), &LOCAL_ADDRESS.to_string(), within(local_name(status)).await);
    tell(2, &format!("DNS, {BLOCKED}"), "0.0.0.0 and extended error 15 (blocked)", within(blocked_name(status)).await);
    let public = format!("https://{PUBLIC}/ from this box");
    tell(3, &public, "200, from a certificate of the house's CA", within(public_route(state, status)).await);
    let alert = format!("TLS for {ADMIN} from this box");
    tell(4, &alert, &format!("byte for byte what {NEVER} gets"), within(admin_alert(status)).await);
    let host = format!("Host: {ADMIN} in the public route's connection");
    tell(5, &host, &format!("byte for byte what {NEVER} gets"), within(admin_host(state, status)).await);
    let tunnel = within(tunnel(state, status)).await;
    let (tunnel, came) = match tunnel {
        Ok((tunnel, came)) => (Ok(tunnel), Ok(came)),
        Err(error) => (Err(()), Err(error)),
    };
    tell(6, "WireGuard to the gate", "a handshake with the quick start's peer", came);
    let came = match tunnel {
        Ok(tunnel) => {
            let came = within(admin_route(state, status, &tunnel)).await;
            // The connection's last segments still need the tunnel; the gate would wait for them.
            tokio::time::sleep(GOODBYE).await;
            came
        }
        Err(()) => Err(anyhow::anyhow!("nothing, for there is no tunnel")),
    };
    tell(7, &format!("https://{ADMIN}/ through the tunnel"), "200, from a certificate of the house's CA", came);
    all
}

async fn within<T>(step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(STEP, step).await.context("nothing in time")?
}

async fn local_name(status: &Status) -> anyhow::Result<String> {
    let answer = ask(status, LOCAL).await?;
    let addresses = addresses(&answer);
    ensure!(addresses == [LOCAL_ADDRESS], "{}", describe(&answer));
    Ok(describe(&answer))
}

async fn blocked_name(status: &Status) -> anyhow::Result<String> {
    let answer = ask(status, BLOCKED).await?;
    let option = answer.edns.as_ref().and_then(|edns| edns.option(EdnsCode::from(15)));
    let code = match option {
        Some(EdnsOption::Unknown(_, bytes)) => bytes.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]])),
        _ => None,
    };
    ensure!(addresses(&answer) == [Ipv4Addr::UNSPECIFIED] && code == Some(15), "{}", describe(&answer));
    Ok(format!("{} and extended error 15", describe(&answer)))
}

/// Asks for the IPv4 address of a name.
async fn ask(status: &Status, name: &str) -> anyhow::Result<Message> {
    let server = first(status.dns.as_ref().map(|dns| &dns.listen[..])).context("there is no DNS plane")?;
    let mut id = [0; 2];
    getrandom::fill(&mut id)?;
    let mut question = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(format!("{name}.").parse()?, RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    question.set_edns(edns);
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut bytes = vec![0; 4096];
    loop {
        let length = socket.recv(&mut bytes).await?;
        let answer = Message::from_vec(&bytes[..length])?;
        if answer.metadata.id == question.metadata.id {
            return Ok(answer);
        }
    }
}

fn addresses(answer: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

fn describe(answer: &Message) -> String {
    match addresses(answer).as_slice() {
        [] => answer.metadata.response_code.to_string(),
        found => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

async fn public_route(state: &Path, status: &Status) -> anyhow::Result<String> {
    let stream = TcpStream::connect(https(status)?).await?;
    let answer = get(state, stream, PUBLIC, PUBLIC).await?;
    ensure!(is_ok(&answer), "{}", status_line(&answer));
    Ok(format!("{}, the certificate is good", status_line(&answer)))
}

async fn admin_alert(status: &Status) -> anyhow::Result<String> {
    let admin = hello(status, ADMIN).await?;
    let never = hello(status, NEVER).await?;
    ensure!(admin == never, "{} instead of {}", hex(&admin), hex(&never));
    Ok(format!("{} for both, and the end", hex(&admin)))
}

/// Begins TLS for a host and returns everything that the edge says until it closes.
async fn hello(status: &Status, host: &str) -> anyhow::Result<Vec<u8>> {
    let config = client_config(RootCertStore::empty())?;
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned())?)?;
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes)?;
    let mut stream = TcpStream::connect(https(status)?).await?;
    stream.write_all(&bytes).await?;
    let mut kind = [0];
    stream.read_exact(&mut kind).await.context("the end without a byte")?;
    // A host that is served goes on with the handshake and waits for an answer.
    ensure!(kind == ALERT, "a handshake for {host}");
    Ok([&kind[..], &read_all(&mut stream).await?].concat())
}

async fn admin_host(state: &Path, status: &Status) -> anyhow::Result<String> {
    let admin = get(state, TcpStream::connect(https(status)?).await?, PUBLIC, ADMIN).await?;
    let never = get(state, TcpStream::connect(https(status)?).await?, PUBLIC, NEVER).await?;
    let (one, two) = (status_line(&admin), status_line(&never));
    ensure!(admin == never, "\"{one}\" and \"{two}\" with {} and {} bytes that differ", admin.len(), never.len());
    ensure!(one.contains(" 421"), "{one}");
    Ok(format!("{one} for both, {} bytes", admin.len()))
}

async fn tunnel(state: &Path, status: &Status) -> anyhow::Result<(Tunnel, String)> {
    let vpn = status.vpn.as_ref().context("there is no gate")?;
    let key = config::tour_key(state).with_context(|| state.join("tour.key").display().to_string())?;
    let public_key = key.public_key().to_string();
    let peer = vpn.peers.iter().find(|peer| peer.public_key == public_key);
    let peer = peer.context("no peer has the key of the quick start's")?;
    let own = peer.addresses.iter().map(ipnet::IpNet::addr).find(IpAddr::is_ipv4).context("it has no address")?;
    let gate: PublicKey = vpn.public_key.parse()?;
    let endpoint = first(Some(&vpn.listen)).context("the gate does not listen")?;
    let tunnel = Tunnel::connect(&key, &gate, None, own, reachable(endpoint)).await?;
    Ok((tunnel, format!("one, as \"{}\" with the inner address {own}", peer.name)))
}

async fn admin_route(state: &Path, status: &Status, tunnel: &Tunnel) -> anyhow::Result<String> {
    let addresses = status.vpn.iter().flat_map(|vpn| &vpn.addresses);
    let gate = addresses.map(ipnet::IpNet::addr).find(IpAddr::is_ipv4).context("the gate has no inner address")?;
    let stream = tunnel.tcp(SocketAddr::new(gate, 443)).await?;
    let answer = get(state, stream, ADMIN, ADMIN).await?;
    ensure!(is_ok(&answer), "{}", status_line(&answer));
    Ok(format!("{}, the certificate is good", status_line(&answer)))
}

/// Fetches `/` over TLS as `sni`, with the house's CA alone trusted, and returns the whole answer.
async fn get<S>(state: &Path, stream: S, sni: &str, host: &str) -> anyhow::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let file = state.join("ca.pem");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).with_context(|| file.display().to_string())? {
        roots.add(certificate?)?;
    }
    let connector = TlsConnector::from(Arc::new(client_config(roots)?));
    let mut tls = connector.connect(ServerName::try_from(sni.to_owned())?, stream).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    tls.flush().await?;
    let answer = read_all(&mut tls).await?;
    // A client that goes without a word leaves a connection behind; it may be closed already.
    let _ = tls.shutdown().await;
    Ok(answer)
}

fn client_config(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while bytes.len() < ANSWER {
        match stream.read(&mut part).await {
            Ok(0) => break,
            Ok(length) => bytes.extend(&part[..length]),
            // A close that is not announced ends an answer as well.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

fn https(status: &Status) -> anyhow::Result<SocketAddr> {
    let address = first(status.ingress.as_ref().map(|ingress| &ingress.https[..]));
    Ok(reachable(address.context("there is no ingress")?))
}

fn first(addresses: Option<&[SocketAddr]>) -> Option<SocketAddr> {
    let addresses = addresses.unwrap_or_default();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

/// What listens everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

fn is_ok(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200")
}

fn status_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if line.is_empty() { "nothing".into() } else { String::from_utf8_lossy(line).into_owned() }
}

fn hex(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    if shown.is_empty() { "nothing".into() } else { shown }
}

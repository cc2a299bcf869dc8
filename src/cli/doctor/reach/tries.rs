//! Single attempts, as whoever stands where the calling thread is.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

const WITHIN: Duration = Duration::from_secs(1);
/// The first byte of a TLS record that belongs to a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Dns,
    Https,
    Metrics,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The service answered.
    Open,
    /// It did not: no connection, silence, a refusal.
    Closed,
}

pub(super) fn attempt(port: Port, to: SocketAddr, host: Option<&str>) -> Seen {
    let open = match port {
        Port::Dns => dns(to).is_some(),
        Port::Https => host.and_then(|host| https(to, host)).is_some(),
        Port::Metrics => metrics(to).is_some(),
    };
    if open { Seen::Open } else { Seen::Closed }
}

/// `localhost` is answered without asking anybody (RFC 6761 §6.3).
fn dns(to: SocketAddr) -> Option<()> {
    let mut question = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";
    getrandom::fill(&mut question[..2]).ok()?;
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(WITHIN)).ok()?;
    socket.send(&question).ok()?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).ok()?;
    (length > 12 && answer.get(..2) == question.get(..2)).then_some(())
}

/// A handshake that goes on: who may not reach the host gets an alert.
fn https(to: SocketAddr, host: &str) -> Option<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = versions.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned()).ok()?).ok()?;
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).ok()?;
    let mut stream = connect(to)?;
    stream.write_all(&hello).ok()?;
    let mut kind = [0];
    stream.read_exact(&mut kind).ok()?;
    (kind[0] == HANDSHAKE).then_some(())
}

fn metrics(to: SocketAddr) -> Option<()> {
    let mut stream = connect(to)?;
    stream.write_all(b"HEAD /metrics HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").ok()?;
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()
}

fn connect(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WITHIN).ok()?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    stream.set_write_timeout(Some(WITHIN)).ok()?;
    Some(stream)
}

//! Clients: `dig` and `curl` as people use them, and raw conversations whose bytes can be compared.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::world::Host;

/// How long a raw conversation may take before its silence counts.
const PATIENCE: Duration = Duration::from_secs(4);

/// What dig saw.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `NOERROR`, or an empty text when nothing came.
    pub(crate) status: String,
    /// The AD flag.
    pub(crate) authenticated: bool,
    /// Everything that dig printed.
    pub(crate) text: String,
}

impl Answer {
    /// Says whether a record of the answer section has this data.
    pub(crate) fn has(&self, data: &str) -> bool {
        self.text.lines().any(|line| !line.starts_with(';') && line.split_whitespace().last() == Some(data))
    }

    /// Says whether an extended error with this code came (RFC 8914).
    pub(crate) fn has_extended_error(&self, code: u16) -> bool {
        self.text.contains(&format!("EDE: {code}"))
    }
}

/// Asks with dig, and once more if nothing came (a busy machine drops).
pub(crate) fn dig(host: &Host, arguments: &str) -> Answer {
    let output = host.output(&format!("dig +tries=2 +time=8 +noidnout {arguments}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let between = |from: &str, to: char| {
        text.split_once(from).map(|(_, rest)| rest.split(to).next().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    let flags = between("flags: ", ';');
    Answer { status: between("status: ", ','), authenticated: flags.split(' ').any(|flag| flag == "ad"), text }
}

/// Fetches with curl; the text has head and body.
pub(crate) fn curl(host: &Host, arguments: &[&str]) -> String {
    let mut command = host.command("curl");
    command.args(["-sS", "-i", "--max-time", "15"]).args(arguments);
    let output = command.output().expect("timeout is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { text }
}

/// What a conversation showed to its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The connection was not accepted, or nothing answers there.
    NoConnection,
    /// These bytes, then the end (`true`) or silence (`false`).
    Bytes(String, bool),
    /// The TLS handshake was refused after exactly these raw bytes.
    HandshakeRefused(Vec<u8>),
}

/// Sends bytes over TCP and reads until the end or until patience is over.
pub(crate) fn tcp(host: &Host, to: SocketAddr, from: Option<IpAddr>, request: &[u8]) -> Seen {
    host.inside(|| {
        let Some(mut stream) = connect(to, from) else { return Seen::NoConnection };
        let _ = stream.write_all(request);
        let (bytes, ended) = read_all(&mut stream);
        Seen::Bytes(show(&bytes), ended)
    })
}

/// Sends each datagram to each target from a socket of its own; returns who answered with what.
pub(crate) fn udp_answers(host: &Host, targets: &[SocketAddr], datagrams: &[&[u8]]) -> Vec<(SocketAddr, Vec<u8>)> {
    host.inside(|| {
        let mut sockets = Vec::new();
        for to in targets {
            for datagram in datagrams {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).expect("port 0 is free");
                socket.set_nonblocking(true).expect("it is a socket");
                socket.send_to(datagram, to).expect("there is a route");
                sockets.push((*to, socket));
            }
        }
        std::thread::sleep(Duration::from_secs(3));
        let mut answers = Vec::new();
        for (to, socket) in sockets {
            let mut answer = vec![0; 65536];
            if let Ok((length, _)) = socket.recv_from(&mut answer) {
                answer.truncate(length);
                answers.push((to, answer));
            }
        }
        answers
    })
}

/// A TLS conversation of HTTP/1.1: `first` goes before the handshake (a PROXY line), `request` inside it.
pub(crate) struct Tls<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
    pub(crate) first: &'a [u8],
    pub(crate) name: Option<&'a str>,
    pub(crate) request: &'a str,
}

impl Tls<'_> {
    /// Holds the conversation; certificates are not checked, curl does that elsewhere.
    pub(crate) fn talk(&self, host: &Host) -> Seen {
        host.inside(|| {
            let Some(stream) = connect(self.to, self.from) else { return Seen::NoConnection };
            let mut stream = Recorder { stream, received: Vec::new() };
            let _ = stream.stream.write_all(self.first);
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider has TLS 1.2 and 1.3")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_no_client_auth();
            config.enable_sni = self.name.is_some();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let name = ServerName::try_from(self.name.unwrap_or("unused.example").to_owned()).expect("a name");
            let mut tls = ClientConnection::new(Arc::new(config), name).expect("the configuration is complete");
            while tls.is_handshaking() {
                if tls.complete_io(&mut stream).is_err() {
                    read_all(&mut stream);
                    return Seen::HandshakeRefused(stream.received);
                }
            }
            let mut tls = rustls::Stream::new(&mut tls, &mut stream);
            let _ = tls.write_all(self.request.as_bytes());
            let (bytes, ended) = read_all(&mut tls);
            Seen::Bytes(show(&bytes), ended)
        })
    }
}

/// Returns an end of QUIC with an address of the caller's host; certificates are not checked.
pub(crate) fn quic(from: &str) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"doq".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("it has TLS 1.3");
    let from = SocketAddr::new(from.parse().expect("an address"), 0);
    let mut endpoint = quinn::Endpoint::client(from).expect("it is this host's address");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    endpoint
}

fn connect(to: SocketAddr, from: Option<IpAddr>) -> Option<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket can be made");
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into()).expect("the source is an address of this host");
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(2)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    Some(stream)
}

/// Reads to the end (`true`) or until patience is over (`false`).
fn read_all(stream: &mut impl Read) -> (Vec<u8>, bool) {
    let end = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while Instant::now() < end {
        match stream.read(&mut part) {
            Ok(0) => return (bytes, true),
            Ok(length) => bytes.extend_from_slice(part.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            // A reset is an end too.
            Err(_) => return (bytes, true),
        }
    }
    (bytes, false)
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", "\r\n")
}

/// Keeps the raw bytes that came.
struct Recorder {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Read for Recorder {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stream.read(into)?;
        self.received.extend_from_slice(into.get(..length).unwrap_or_default());
        Ok(length)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ED25519]
    }
}

//! One look at one thing: connects, asks, and says what was wrong. The caller has the deadline.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio_rustls::TlsConnector;

use super::config::{Http, Kind, Place};
use crate::{https::Client, lookup::Lookup};

/// The longest answer over UDP that is read.
const DATAGRAM: usize = 4096;
const SECONDS_OF_A_DAY: i64 = 86_400;

/// How other places are reached. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) client: Client,
    pub(super) lookup: Lookup,
}

/// What was found besides that it is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Days that a certificate still holds.
    pub(super) days: Option<i64>,
}

/// What was found, also where it is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) found: Found,
    /// What is wrong, if anything is.
    pub(super) problem: Option<String>,
}

impl From<Result<(), String>> for Look {
    fn from(result: Result<(), String>) -> Self {
        Self { found: Found::default(), problem: result.err() }
    }
}

/// Looks.
pub(super) async fn look(kind: &Kind, reach: &Reach) -> Look {
    match kind {
        Kind::Http(http) => ask(http, reach).await.into(),
        Kind::Tcp(place) => connect(place, reach).await.map_err(|error| error.to_string()).into(),
        Kind::Route(places) => any(places, reach).await.into(),
        Kind::Dns { name, server: Some(server), expect } => question(name, *server, expect).await.into(),
        Kind::Dns { name, server: None, expect } => {
            let text = name.to_ascii();
            let found = reach.lookup.addresses(text.trim_end_matches('.')).await;
            found.map_err(|error| error.to_string()).and_then(|found| expected(&found, expect)).into()
        }
        Kind::Tls { place, days } => match certificate(place, reach).await {
            Ok(left) => {
                let problem = (left < *days).then(|| format!("the certificate holds for {left} days more"));
                Look { found: Found { days: Some(left) }, problem }
            }
            Err(error) => Err(error.to_string()).into(),
        },
    }
}

async fn ask(http: &Http, reach: &Reach) -> Result<(), String> {
    let request = Request::builder().method(Method::GET).uri(http.url.clone()).body(Bytes::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = reach.client.ask(request).await.map_err(|error| error.to_string())?;
    judged(http, &response)
}

fn judged(http: &Http, response: &Response<Bytes>) -> Result<(), String> {
    if !http.status.contains(&response.status().as_u16()) {
        return Err(format!("it answers {}", response.status()));
    }
    if let Some((name, value)) = &http.header
        && !response.headers().get_all(name).iter().any(|found| found == value)
    {
        return Err(format!("its answer has not the wanted \"{name}\""));
    }
    match &http.body {
        Some(text) if !contains(response.body(), text.as_bytes()) => Err("its answer has not the wanted text".into()),
        _ => Ok(()),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// One of several is enough.
async fn any(places: &[Place], reach: &Reach) -> Result<(), String> {
    let mut problems = Vec::new();
    for place in places {
        match connect(place, reach).await {
            Ok(()) => return Ok(()),
            Err(error) => problems.push(format!("{place}: {error}")),
        }
    }
    Err(problems.join("; "))
}

async fn connect(place: &Place, reach: &Reach) -> io::Result<()> {
    match place {
        Place::Unix(path) => UnixStream::connect(path).await.map(drop),
        Place::Tcp(host, port) => dial(host, *port, reach).await.map(drop),
    }
}

async fn dial(host: &str, port: u16, reach: &Reach) -> io::Result<TcpStream> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => reach.lookup.addresses(host).await?,
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks a server for the addresses of a name.
async fn question(name: &Name, server: SocketAddr, expect: &[IpAddr]) -> Result<(), String> {
    let rtype = if expect.first().is_some_and(IpAddr::is_ipv6) { RecordType::AAAA } else { RecordType::A };
    let id = u16::try_from(getrandom::u32().unwrap_or_default() & 0xffff).unwrap_or_default();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), rtype));
    let asked = async {
        let here: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((here, 0)).await?;
        // The kernel lets nothing in from anybody else.
        socket.connect(server).await?;
        socket.send(&message.to_vec().map_err(io::Error::other)?).await?;
        let mut buffer = [0; DATAGRAM];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let answer = buffer.get(..length).and_then(|bytes| Message::from_vec(bytes).ok());
            if let Some(answer) = answer.filter(|answer| {
                answer.id == id && answer.message_type == MessageType::Response && answer.queries == message.queries
            }) {
                return Ok::<_, io::Error>(answer);
            }
        }
    };
    let answer = asked.await.map_err(|error| error.to_string())?;
    let addresses: Vec<IpAddr> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.0.into()),
            RData::AAAA(address) => Some(address.0.into()),
            _ => None,
        })
        .collect();
    if addresses.is_empty() {
        return Err(format!("{server} answers {} without an address", answer.response_code));
    }
    expected(&addresses, expect)
}

fn expected(found: &[IpAddr], expect: &[IpAddr]) -> Result<(), String> {
    match expect.iter().find(|address| !found.contains(address)) {
        Some(missing) => Err(format!("{missing} is not in the answer")),
        None => Ok(()),
    }
}

/// Returns the days that the certificate shown at a place still holds.
async fn certificate(place: &Place, reach: &Reach) -> io::Result<i64> {
    let Place::Tcp(host, port) = place else { return Err(io::ErrorKind::Unsupported.into()) };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let shown = Arc::new(Shown { leaf: Mutex::default(), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(shown.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, dial(host, *port, reach).await?).await?;
    let leaf = shown.leaf.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    let (_, certificate) = x509_parser::parse_x509_certificate(&leaf).map_err(io::Error::other)?;
    let left = certificate.validity().not_after.timestamp() - Timestamp::now().as_second();
    Ok(left.div_euclid(SECONDS_OF_A_DAY))
}

/// Takes any certificate, to read when it ends: nothing is sent to whoever has it.
struct Shown {
    leaf: Mutex<Option<Vec<u8>>>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.leaf.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

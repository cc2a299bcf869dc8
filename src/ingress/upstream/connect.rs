//! One connection to an upstream: its address, TCP, TLS if the route says so.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Ends, Health, Lane, NO_POOL, Turnstile, UpstreamStream, Wire, h2::Connection, introduction};
use crate::{
    ingress::{Http, ProxyProtocol, Upstream, UpstreamHost, UpstreamTls},
    lookup::Lookup,
};

/// An upstream with all that a connection to it needs.
#[derive(Debug)]
pub(in crate::ingress) struct Dial {
    pub(in crate::ingress) upstream: Upstream,
    /// Which of a core's pools its connections are kept in: one per upstream and table.
    pub(in crate::ingress) pool: u32,
    /// What a client that stays with it is told, which says nothing of its address.
    pub(super) tag: u64,
    pub(in crate::ingress) health: Arc<Health>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// How it is told the client. Its connections are of one client each, so none is kept.
    pub(in crate::ingress) proxy_protocol: Option<ProxyProtocol>,
    /// What it is given at once, if that is limited.
    pub(in crate::ingress) door: Option<Arc<Turnstile>>,
}

/// An upstream's TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA's file.
    #[error("{path}: {why}", path = path.display())]
    Ca {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// The upstream's name cannot stand in TLS.
    #[error("upstream \"{0}\" is no name that a certificate could be for")]
    Name(String),
    /// The library refuses.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) enum DialError {
    /// Its name has no address.
    Name,
    /// Nobody answers there.
    Refused,
    /// TLS failed, or it is somebody else.
    Tls,
    /// It does not speak HTTP/2.
    Protocol,
    /// The deadline came first.
    TimedOut,
}

impl Dial {
    pub(in crate::ingress) fn new(
        upstream: &Upstream,
        pool: u32,
        health: Arc<Health>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let digest = Sha256::digest(format!("{:?} {}", upstream.host, upstream.port));
        let tag = digest.iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte));
        let tls = match &upstream.tls {
            None => None,
            Some(tls) => {
                let name = match &upstream.host {
                    UpstreamHost::Address(address) => ServerName::IpAddress((*address).into()),
                    UpstreamHost::Unix(path) => return Err(TlsError::Name(path.display().to_string())),
                    UpstreamHost::Name(name) => {
                        ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone()))?
                    }
                };
                Some((client_config(tls, upstream.http, provider)?, name))
            }
        };
        Ok(Self { upstream: upstream.clone(), pool, tag, health, tls, proxy_protocol: None, door: None })
    }

    /// Tells it each client by a header of the PROXY protocol.
    pub(in crate::ingress) fn introducing(self, version: Option<ProxyProtocol>) -> Self {
        let pool = if version.is_some() { NO_POOL } else { self.pool };
        Self { proxy_protocol: version, pool, ..self }
    }

    /// Gives it no more at once than comes through a door.
    pub(in crate::ingress) fn behind(self, door: Option<Arc<Turnstile>>) -> Self {
        Self { door, ..self }
    }

    /// Connects for one request alone, of this client.
    pub(in crate::ingress) async fn lane(
        &self,
        lookup: &Lookup,
        limit: Duration,
        ends: Option<Ends>,
    ) -> Result<Lane, DialError> {
        let begun = Instant::now();
        let stream = self.connect(lookup, limit, ends).await?;
        match self.upstream.http {
            Http::One => Ok(Lane::Wire(Wire::new(self.pool, stream))),
            Http::Two => {
                let left = limit.saturating_sub(begun.elapsed());
                Ok(Lane::Stream(self.begin(stream, left).await?.open(self.scheme())))
            }
            Http::Opaque | Http::Datagrams => Err(DialError::Protocol),
        }
    }

    /// Begins to speak HTTP/2, and has the other end speak it within a deadline.
    pub(super) async fn begin(&self, stream: UpstreamStream, limit: Duration) -> Result<Connection, DialError> {
        // RFC 9113 §3.3: in TLS both must have said so.
        if let UpstreamStream::Tls(tls) = &stream
            && tls.get_ref().1.alpn_protocol() != Some(b"h2")
        {
            return Err(DialError::Protocol);
        }
        timeout(limit, Connection::begin(stream)).await.unwrap_or(Err(DialError::TimedOut))
    }

    /// The scheme that requests of HTTP/2 have there.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Connects within a deadline for the whole.
    pub(in crate::ingress) async fn connect(
        &self,
        lookup: &Lookup,
        limit: Duration,
        ends: Option<Ends>,
    ) -> Result<UpstreamStream, DialError> {
        timeout(limit, self.connect_unbounded(lookup, ends)).await.unwrap_or(Err(DialError::TimedOut))
    }

    async fn connect_unbounded(&self, lookup: &Lookup, ends: Option<Ends>) -> Result<UpstreamStream, DialError> {
        let header = self.proxy_protocol.map(|version| introduction::header(version, ends)).unwrap_or_default();
        let tcp = match &self.upstream.host {
            UpstreamHost::Unix(path) => {
                let mut stream = UnixStream::connect(path).await.map_err(|_| DialError::Refused)?;
                stream.write_all(&header).await.map_err(|_| DialError::Refused)?;
                return Ok(UpstreamStream::Unix(stream));
            }
            UpstreamHost::Address(address) => tcp((*address, self.upstream.port).into()).await,
            UpstreamHost::Name(name) => {
                let addresses = lookup.addresses(name).await.map_err(|_| DialError::Name)?;
                let mut last = Err(io::ErrorKind::NotFound.into());
                for address in addresses {
                    last = tcp((address, self.upstream.port).into()).await;
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
        };
        let mut tcp = tcp.map_err(|_| DialError::Refused)?;
        tcp.write_all(&header).await.map_err(|_| DialError::Refused)?;
        match &self.tls {
            None => Ok(UpstreamStream::Plain(tcp)),
            Some((config, name)) => {
                let tls = TlsConnector::from(config.clone()).connect(name.clone(), tcp).await;
                Ok(UpstreamStream::Tls(Box::new(tls.map_err(|_| DialError::Tls)?)))
            }
        }
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // A server that vanished without a word is noticed also where nothing is sent, or nothing more is taken in. Pings of
    // HTTP/2 would tell no more, and servers of gRPC close a connection for some of them.
    let alive = TcpKeepalive::new().with_time(QUIET).with_interval(PROBE).with_retries(PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&alive)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(QUIET + PROBE * PROBES))?;
    Ok(stream)
}

/// How long an upstream is silent before its kernel is asked whether it is there, how often, and how many times.
const QUIET: Duration = Duration::from_secs(30);
const PROBE: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

fn client_config(tls: &UpstreamTls, http: Http, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let pinned = |pin| Pinned { pin, provider: provider.clone() };
    let mut config = match tls {
        UpstreamTls::Public => {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        UpstreamTls::Ca(path) => {
            let wrong = |why: String| TlsError::Ca { path: path.clone(), why };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("holds no certificate".into()));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        UpstreamTls::Fingerprint(digest) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned(Some(*digest)))).with_no_client_auth()
        }
        UpstreamTls::Insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned(None))).with_no_client_auth()
        }
    };
    config.alpn_protocols = match http {
        Http::One => vec![b"http/1.1".to_vec()],
        Http::Two => vec![b"h2".to_vec()],
        Http::Opaque | Http::Datagrams => Vec::new(),
    };
    Ok(Arc::new(config))
}

/// Believes one certificate, or any; the handshake's signature is checked in both cases.
struct Pinned {
    /// SHA-256 of the leaf's DER form; `None` only for `insecure`.
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.pin {
            Some(pin) if Sha256::digest(leaf).as_slice() != pin => {
                Err(rustls::CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_looks_after_a_server_that_is_silent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();

        let stream = tcp(listener.local_addr().unwrap()).await.unwrap();

        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!((socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap()), (QUIET, PROBES));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
    }
}

//! Asks servers over HTTP and HTTPS: one question, one answer, both bounded in size and time.
//!
//! Names are looked up through a handle (the house's own resolver), certificates are checked, redirects are
//! answers like any other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, Uri,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::lookup::Lookup;

/// For a question and its answer, connecting included.
const DEADLINE: Duration = Duration::from_secs(30);
/// For a connection to one address.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest answer.
const LONGEST: usize = 1 << 20;

const AGENT: &str = concat!("hearthgate/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The URL names no server.
    #[error("\"{0}\" names no server")]
    Address(String),
    /// Its name has no address.
    #[error("looking up {host}: {error}")]
    Lookup {
        /// The name.
        host: String,
        /// What went wrong.
        error: io::Error,
    },
    /// Nobody there can be talked to, or it is somebody else.
    #[error("connecting to {host}: {error}")]
    Connect {
        /// The server.
        host: String,
        /// What went wrong.
        error: io::Error,
    },
    /// The conversation broke off.
    #[error("talking to {host}: {why}")]
    Http {
        /// The server.
        host: String,
        /// Why.
        why: String,
    },
    /// It takes too long.
    #[error("{host} did not answer within {} seconds", DEADLINE.as_secs())]
    TooSlow {
        /// The server.
        host: String,
    },
}

/// A file of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = path.display())]
pub struct RootsError {
    path: PathBuf,
    why: String,
}

/// Asks questions. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    lookup: Lookup,
    longest: usize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Believes servers whose certificates lead to a public CA, or to the ones of a file.
    pub fn new(roots: Option<&Path>, lookup: Lookup) -> Result<Self, RootsError> {
        let roots = match roots {
            Some(path) => of_file(path)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("the provider knows both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(config).into(), lookup, longest: LONGEST })
    }

    /// Takes answers of so many bytes.
    pub fn up_to(self, longest: usize) -> Self {
        Self { longest, ..self }
    }

    /// Asks, and returns the answer whatever its status.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, AskError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        timeout(DEADLINE, self.ask_unbounded(request)).await.unwrap_or(Err(AskError::TooSlow { host }))
    }

    async fn ask_unbounded(&self, request: Request<Bytes>) -> Result<Response<Bytes>, AskError> {
        let (mut parts, body) = request.into_parts();
        let url = std::mem::take(&mut parts.uri);
        let (Some(authority), Some(host)) = (url.authority(), url.host()) else {
            return Err(AskError::Address(url.to_string()));
        };
        let place = HeaderValue::from_str(authority.as_str()).map_err(|_| AskError::Address(url.to_string()))?;
        parts.headers.insert(header::HOST, place);
        parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        parts.uri = url.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
        let request = Request::from_parts(parts, Full::new(body));
        let secure = url.scheme_str() == Some("https");
        let tcp = self.connect(host, url.port_u16().unwrap_or(if secure { 443 } else { 80 })).await?;
        if !secure {
            return exchange(tcp, request, (host, self.longest)).await;
        }
        let refused = |error| AskError::Connect { host: host.to_owned(), error };
        let name = ServerName::try_from(bare(host).to_owned()).map_err(|error| refused(io::Error::other(error)))?;
        let tls = self.tls.connect(name, tcp).await.map_err(refused)?;
        exchange(tls, request, (host, self.longest)).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, AskError> {
        let looked_up = |error| AskError::Lookup { host: host.to_owned(), error };
        let addresses = match bare(host).parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.lookup.addresses(host).await.map_err(looked_up)?,
        };
        let mut last = io::ErrorKind::NotFound.into();
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(AskError::Connect { host: host.to_owned(), error: last })
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    (host, longest): (&str, usize),
) -> Result<Response<Bytes>, AskError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |why: String| AskError::Http { host: host.to_owned(), why };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, longest).collect().await.map_err(|error| broken(error.to_string()))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(talk);
    tokio::select! {
        biased;
        end = &mut talk => end,
        // What the server said before it closed can still be read.
        _ = connection => talk.await,
    }
}

/// Takes the brackets off an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn of_file(path: &Path) -> Result<RootCertStore, RootsError> {
    let wrong = |why: String| RootsError { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".into()));
    }
    Ok(roots)
}

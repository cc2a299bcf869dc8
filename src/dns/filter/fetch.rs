//! Fetches a list over HTTPS into a file.
//!
//! The server's certificate is checked, its name is looked up through a handle (the house's own resolver), a
//! copy that is still good is not sent again, and a server that is slow, endless or no list's is left.

use std::{
    fs::File,
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderMap, HeaderName},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version};
use rustls_pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::kept::private;
use crate::lookup::Lookup;

/// Where another place is named more often than this, nothing is fetched.
const REDIRECTS: usize = 5;

/// For a connection to one address, and for its handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// Parts of a list that wait to be written.
const PARTS: usize = 16;

/// What a fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets of a list.
    pub bytes: u64,
    /// From beginning to end.
    pub time: Duration,
    /// Without anything from the server.
    pub silence: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 64 << 20, time: Duration::from_secs(300), silence: Duration::from_secs(30) }
    }
}

/// What the server said of the copy that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
}

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The copy that is kept is still good.
    Unchanged,
    /// The file holds another one.
    Changed {
        /// What the server says of it.
        validators: Validators,
        /// SHA-256 of what was written.
        digest: [u8; 32],
    },
}

/// Why a list was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL, or what it leads to, cannot be asked.
    #[error("{0}")]
    Address(String),
    /// The name has no address.
    #[error("looking up {host}: {error}")]
    Lookup {
        /// The name.
        host: String,
        /// What went wrong.
        error: io::Error,
    },
    /// Nobody there can be talked to.
    #[error("connecting to {host}: {error}")]
    Connect {
        /// The server.
        host: String,
        /// What went wrong.
        error: io::Error,
    },
    /// The conversation broke off.
    #[error("the server: {0}")]
    Http(#[from] hyper::Error),
    /// It does not give the list.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// A web page came.
    #[error("a web page, not a list")]
    WebPage,
    /// It came packed.
    #[error("the server sends it packed as \"{0}\", which was not asked for")]
    Packed(String),
    /// It is too large.
    #[error("larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// It takes too long.
    #[error("not there after {} seconds", .0.as_secs())]
    TooSlow(Duration),
    /// It cannot be written.
    #[error("cannot be kept: {0}")]
    Write(#[from] io::Error),
}

/// Fetches lists.
#[derive(Clone)]
pub struct Fetcher {
    tls: TlsConnector,
    lookup: Lookup,
    bounds: Bounds,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Believes servers whose certificates lead to one of these roots.
    pub fn new(roots: RootCertStore, lookup: Lookup, bounds: Bounds) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("the provider knows both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: Arc::new(config).into(), lookup, bounds }
    }

    /// The roots of the public certificate authorities.
    pub fn public_roots() -> RootCertStore {
        RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
    }

    /// Fetches a list into a file unless the copy with these validators is still good. On an error the file
    /// holds anything.
    pub async fn fetch(&self, url: &Uri, known: &Validators, file: &Path) -> Result<Fetched, FetchError> {
        let all = async {
            let mut url = url.clone();
            for _ in 0..=REDIRECTS {
                match self.ask(&url, known, file).await? {
                    Step::Done(fetched) => return Ok(fetched),
                    Step::Elsewhere(next) => url = next,
                }
            }
            Err(FetchError::Address(format!("more than {REDIRECTS} redirects")))
        };
        timeout(self.bounds.time, all).await.unwrap_or(Err(FetchError::TooSlow(self.bounds.time)))
    }

    async fn ask(&self, url: &Uri, known: &Validators, file: &Path) -> Result<Step, FetchError> {
        let (Some(authority), Some(host)) = (url.authority(), url.host()) else {
            return Err(FetchError::Address(format!("\"{url}\" names no server")));
        };
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(header::HOST, authority.as_str())
            .header(header::USER_AGENT, concat!("hearthgate/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(etag) = &known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(date) = &known.last_modified {
            request = request.header(header::IF_MODIFIED_SINCE, date);
        }
        let request = request.body(Empty::new()).map_err(|error| FetchError::Address(error.to_string()))?;
        let secure = url.scheme_str() == Some("https");
        let tcp = self.connect(host, url.port_u16().unwrap_or(if secure { 443 } else { 80 })).await?;
        if !secure {
            return self.exchange(tcp, request, url, file).await;
        }
        let refused = |error| FetchError::Connect { host: host.to_owned(), error };
        let name = ServerName::try_from(bare(host).to_owned()).map_err(|error| refused(io::Error::other(error)))?;
        let shaken = timeout(CONNECT, self.tls.connect(name, tcp)).await;
        let tls = shaken.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map_err(refused)?;
        self.exchange(tls, request, url, file).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let addresses = match bare(host).parse() {
            Ok(address) => vec![address],
            Err(_) => self
                .lookup
                .addresses(host)
                .await
                .map_err(|error| FetchError::Lookup { host: host.to_owned(), error })?,
        };
        let mut last = io::ErrorKind::NotFound.into();
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(FetchError::Connect { host: host.to_owned(), error: last })
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Empty<Bytes>>,
        url: &Uri,
        file: &Path,
    ) -> Result<Step, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let talk = async {
            let response = self.heard(sender.send_request(request)).await??;
            match response.status() {
                StatusCode::OK => self.take(response, file).await.map(Step::Done),
                StatusCode::NOT_MODIFIED => Ok(Step::Done(Fetched::Unchanged)),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => elsewhere(url, response.headers()).map(Step::Elsewhere),
                status => Err(FetchError::Status(status)),
            }
        };
        tokio::pin!(talk);
        tokio::select! {
            biased;
            end = &mut talk => end,
            // What the server said before it closed can still be read.
            _ = connection => talk.await,
        }
    }

    /// Writes the body to the file, on a thread that may wait for the disk.
    async fn take(&self, response: Response<Incoming>, file: &Path) -> Result<Fetched, FetchError> {
        let limit = self.bounds.bytes;
        let headers = response.headers();
        if text(headers, header::CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html")) {
            return Err(FetchError::WebPage);
        }
        if let Some(packing) = text(headers, header::CONTENT_ENCODING).filter(|packing| packing != "identity") {
            return Err(FetchError::Packed(packing.chars().take(40).collect()));
        }
        let validators =
            Validators { etag: text(headers, header::ETAG), last_modified: text(headers, header::LAST_MODIFIED) };
        let (parts, mut coming) = mpsc::channel::<Bytes>(PARTS);
        let mut file = private(file)?;
        let writer = tokio::task::spawn_blocking(move || {
            let mut digest = Sha256::new();
            while let Some(part) = coming.blocking_recv() {
                digest.update(&part);
                file.write_all(&part)?;
            }
            file.sync_all()?;
            Ok::<_, io::Error>(digest.finalize().into())
        });
        let mut body = response.into_body();
        let mut length = 0_u64;
        while let Some(frame) = self.heard(body.frame()).await? {
            let Ok(part) = frame?.into_data() else { continue };
            length += part.len() as u64;
            if length > limit {
                return Err(FetchError::TooLarge(limit));
            }
            // The writer ends early only with an error, which it tells below.
            if parts.send(part).await.is_err() {
                break;
            }
        }
        drop(parts);
        let digest = writer.await.map_err(io::Error::other)??;
        Ok(Fetched::Changed { validators, digest })
    }

    async fn heard<T>(&self, wait: impl Future<Output = T>) -> Result<T, FetchError> {
        timeout(self.bounds.silence, wait).await.map_err(|_| FetchError::TooSlow(self.bounds.silence))
    }
}

enum Step {
    Done(Fetched),
    Elsewhere(Uri),
}

/// Returns the place that a redirect names. From anywhere it leads to HTTPS only.
fn elsewhere(from: &Uri, headers: &HeaderMap) -> Result<Uri, FetchError> {
    let unfit = |to: &str| FetchError::Address(format!("redirected to \"{to}\", which is no https URL"));
    let to = text(headers, header::LOCATION).ok_or_else(|| unfit(""))?;
    let url = match to.as_bytes() {
        [b'/', b'/', ..] => format!("{}:{to}", from.scheme_str().unwrap_or_default()),
        [b'/', ..] => {
            let authority = from.authority().map_or("", |authority| authority.as_str());
            format!("{}://{authority}{to}", from.scheme_str().unwrap_or_default())
        }
        _ => to.clone(),
    };
    let url: Uri = url.split('#').next().unwrap_or_default().parse().map_err(|_| unfit(&to))?;
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => Ok(url),
        _ => Err(unfit(&to)),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() < 1024).then(|| value.to_owned())
}

/// Takes the brackets off an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Reads a file to its end for its digest; blocks.
pub(super) fn digest_of(file: &Path) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    io::copy(&mut File::open(file)?, &mut digest)?;
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_https_only() {
        let lead = |from: &str, to: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, to.parse().unwrap())]);
            elsewhere(&from.parse().unwrap(), &headers).ok().map(|url| url.to_string())
        };

        let from = "https://lists.example:444/a/b?c";
        assert_eq!(lead(from, "/d").as_deref(), Some("https://lists.example:444/d"));
        assert_eq!(lead(from, "//cdn.example/d#e").as_deref(), Some("https://cdn.example/d"));
        assert_eq!(lead(from, "https://cdn.example/d").as_deref(), Some("https://cdn.example/d"));
        assert_eq!(lead("http://lists.example/", "https://lists.example/").as_deref(), Some("https://lists.example/"));
        for to in ["http://lists.example/d", "ftp://lists.example/", "javascript:x", "d", "", "https:///x"] {
            assert_eq!(lead(from, to), None, "{to}");
        }
        assert_eq!(lead("http://lists.example/a", "/b"), None);
    }
}

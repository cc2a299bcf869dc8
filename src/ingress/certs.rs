//! Certificates: from files, or leaves of the house's own CA.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ingress::{
    CertificateFiles, Config, HostPattern,
    ca::{self, Authority, CaError, Pair},
    canonical::CanonicalHost,
};

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The house's CA may not sign for this host.
    #[error(
        "route \"{host}\": the house's own CA signs only for \"{domain}\" and below: name its files in `ingress.certificates`"
    )]
    OutsideDomain {
        /// As written.
        host: String,
        /// `node.domain`.
        domain: CanonicalHost,
    },
    /// The house's CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// A certificate as it stands in `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The hosts that it is used for.
    pub hosts: Vec<String>,
    /// A file, or the house's CA.
    pub source: String,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
}

/// One certificate in use. A renewal swaps it in place; its name stays.
#[derive(Debug)]
pub(super) struct Certificate {
    /// The same over reloads and renewals.
    pub(super) name: Arc<str>,
    hosts: Vec<HostPattern>,
    source: Source,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
enum Source {
    Files(CertificateFiles),
    HouseCa(HostPattern),
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    not_after: u64,
}

/// The certificate of each host that needs one.
pub(super) type Certificates = HashMap<HostPattern, Arc<Certificate>>;

/// Loads or makes what the routes need.
pub(super) fn load(
    config: &Config,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Certificates, CertificateError> {
    let mut found = Certificates::new();
    let mut files: Vec<Option<Arc<Certificate>>> = vec![None; config.certificates.len()];
    let mut authority = None;
    for route in &config.routes {
        if found.contains_key(&route.host) {
            continue;
        }
        let place = config.certificates.iter().position(|files| files.hosts.iter().any(|own| covers(own, &route.host)));
        let certificate = match place {
            Some(place) => {
                let written = &config.certificates[place];
                match &files[place] {
                    Some(loaded) => loaded.clone(),
                    None => files[place].insert(Arc::new(Certificate::from_files(written, provider)?)).clone(),
                }
            }
            None if ca::may_sign(&config.domain, &route.host) => {
                let authority = match &mut authority {
                    Some(authority) => authority,
                    none => none.insert(Authority::open(&config.state, &config.domain, now)?),
                };
                Arc::new(Certificate::from_ca(authority, &route.host, provider, now)?)
            }
            None => {
                let host = ca::host_name(&route.host);
                return Err(CertificateError::OutsideDomain { host, domain: config.domain.clone() });
            }
        };
        found.insert(route.host.clone(), certificate);
    }
    Ok(found)
}

/// Signs anew what the house's CA signed and what nears its end.
pub(super) fn renew<'a>(
    certificates: impl Iterator<Item = &'a Arc<Certificate>>,
    config: &Config,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(), CertificateError> {
    for certificate in certificates {
        if let Source::HouseCa(host) = &certificate.source
            && due(certificate.current.load().not_after, now)
        {
            let authority = Authority::open(&config.state, &config.domain, now)?;
            let signed = loaded(&authority.sign(host, now)?, &config.state, provider)?;
            tracing::info!(host = ca::host_name(host), "renewed a certificate of the house's CA");
            certificate.current.store(Arc::new(signed));
        }
    }
    Ok(())
}

impl Certificate {
    fn from_files(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let certificate = read(&files.certificate)?;
        let key = read(&files.key)?;
        let current = loaded(&Pair { certificate, key }, &files.certificate, provider)?;
        Ok(Self {
            name: format!("file:{}", files.certificate.display()).into(),
            hosts: files.hosts.clone(),
            source: Source::Files(files.clone()),
            current: ArcSwap::from_pointee(current),
        })
    }

    fn from_ca(
        authority: &Authority,
        host: &HostPattern,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let name = ca::host_name(host);
        let kept = authority.kept(host)?.map(|pair| loaded(&pair, Path::new(&name), provider)).transpose()?;
        let current = match kept {
            Some(kept) if !due(kept.not_after, now) => kept,
            _ => loaded(&authority.sign(host, now)?, Path::new(&name), provider)?,
        };
        Ok(Self {
            name: format!("ca:{name}").into(),
            hosts: vec![host.clone()],
            source: Source::HouseCa(host.clone()),
            current: ArcSwap::from_pointee(current),
        })
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        self.current.load().key.clone()
    }

    pub(super) fn status(&self) -> CertificateStatus {
        CertificateStatus {
            hosts: self.hosts.iter().map(ca::host_name).collect(),
            source: match &self.source {
                Source::Files(files) => files.certificate.display().to_string(),
                Source::HouseCa(_) => "the house's CA".into(),
            },
            not_after: self.current.load().not_after,
        }
    }
}

/// Says whether a pattern of `ingress.certificates` holds for the host of a route.
fn covers(pattern: &HostPattern, host: &HostPattern) -> bool {
    match (pattern, host) {
        (HostPattern::Wildcard(base), HostPattern::Exact(host)) => {
            host.as_str().split_once('.').is_some_and(|(_, above)| above == base.as_str())
        }
        _ => pattern == host,
    }
}

fn due(not_after: u64, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    not_after < now.saturating_add(ca::RENEW_DAYS * 24 * 60 * 60)
}

fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|error| CertificateError::File { path: path.to_owned(), why: error.to_string() })
}

fn loaded(pair: &Pair, path: &Path, provider: &CryptoProvider) -> Result<Loaded, CertificateError> {
    let wrong = |why: String| CertificateError::File { path: path.to_owned(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| wrong("holds no certificate".into()))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| wrong(error.to_string()))?;
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| wrong(error.to_string()))?;
    Ok(Loaded { key: Arc::new(key), not_after })
}

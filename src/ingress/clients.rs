//! Certificates that clients must show: for a whole host, because they are asked for before the path is known.
//!
//! A connection that was opened to such a host is for that host alone, and no other connection is for it: what a
//! client has shown to one CA, or has not shown at all, counts nowhere else. Tickets are sealed with keys of the
//! host's own, so a resumed session is one that showed its certificate once.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::ingress::{HostPattern, certs::CertificateError};

/// What the clients of a host must show.
#[derive(Debug)]
pub(super) struct ClientCa {
    /// The host with the CAs that are believed: another if either is another.
    pub(super) realm: Arc<str>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

/// Reads the CAs of every host that has some.
pub(super) fn load(
    written: &BTreeMap<HostPattern, PathBuf>,
    provider: &Arc<CryptoProvider>,
) -> Result<HashMap<HostPattern, Arc<ClientCa>>, CertificateError> {
    written.iter().map(|(host, path)| Ok((host.clone(), Arc::new(read(host, path, provider)?)))).collect()
}

fn read(host: &HostPattern, path: &PathBuf, provider: &Arc<CryptoProvider>) -> Result<ClientCa, CertificateError> {
    let wrong = |why: String| CertificateError::File { path: path.clone(), why };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".into()));
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = verifier.map_err(|error| wrong(error.to_string()))?;
    let digest: String = Sha256::digest(&pem).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ClientCa { realm: format!("{host} {digest}").into(), verifier })
}

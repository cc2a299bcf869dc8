//! The servers that recurse for us, in the form in which the resolver and its driver know them.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, time_provider::TimeProvider, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use crate::dns::{
    Config, Transport, Upstream, UpstreamHost,
    policy::Error,
    resolver::{
        Contact,
        driver::encrypted::{Host, Protocol, Server},
    },
};

/// Gathers servers: each that is encrypted gets a place in the driver's list.
pub(super) struct Servers<'a> {
    config: &'a Config,
    roots: Option<Arc<RootCertStore>>,
    encrypted: Vec<Server>,
}

impl<'a> Servers<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, roots: None, encrypted: Vec::new() }
    }

    /// Returns how the core knows these servers.
    pub(super) fn contacts(&mut self, upstreams: &[Upstream]) -> Result<Vec<Contact>, Error> {
        upstreams.iter().map(|upstream| self.contact(upstream)).collect()
    }

    /// Returns what the driver is to know.
    pub(super) fn into_encrypted(self) -> Vec<Server> {
        self.encrypted
    }

    fn contact(&mut self, upstream: &Upstream) -> Result<Contact, Error> {
        let wrong = |problem: String| Error::Upstream { key: "dns.upstreams", problem };
        let (alpn, name, path) = match &upstream.transport {
            Transport::Plain => match &upstream.host {
                UpstreamHost::Address(address) => return Ok(Contact::Plain(*address)),
                UpstreamHost::Name { name, .. } => return Err(wrong(format!("{name}: plain DNS needs an address"))),
            },
            Transport::Tls { name } => (&b"dot"[..], name, None),
            Transport::Https { name, path } => (&b"h2"[..], name, Some(path)),
            Transport::Quic { name } => (&b"doq"[..], name, None),
        };
        let server_name = ServerName::try_from(name.clone()).map_err(|error| wrong(format!("\"{name}\": {error}")))?;
        let protocol = match (&upstream.transport, path) {
            (Transport::Quic { .. }, _) => Protocol::Quic,
            (_, Some(path)) => {
                Protocol::Https(uri(name, path).map_err(|error| wrong(format!("{name}{path}: {error}")))?)
            }
            _ => Protocol::Tls,
        };
        let server = Server { host: self.host(&upstream.host)?, protocol, name: server_name, tls: self.tls(alpn)? };
        let known = u16::try_from(self.encrypted.len()).map_err(|_| wrong("too many servers".into()))?;
        self.encrypted.push(server);
        Ok(Contact::Encrypted(known))
    }

    fn host(&self, host: &UpstreamHost) -> Result<Host, Error> {
        let wrong = |problem: String| Error::Upstream { key: "dns.upstreams", problem };
        Ok(match host {
            UpstreamHost::Address(address) => Host::Address(*address),
            UpstreamHost::Name { name, port } => Host::Name {
                name: super::resolver::own_name(name).ok_or_else(|| wrong(format!("{name} is no name")))?,
                port: *port,
                bootstrap: self.config.bootstrap.clone(),
            },
        })
    }

    fn tls(&mut self, alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            None => self.roots.insert(Arc::new(roots(self.config.upstream_ca.as_deref())?)).clone(),
        };
        let clock = Floored(self.config.clock.clone());
        let mut tls = ClientConfig::builder_with_details(Arc::new(aws_lc_rs::default_provider()), Arc::new(clock))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("the provider speaks both")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(tls))
    }
}

fn uri(host: &str, path: &str) -> Result<hyper::Uri, hyper::http::Error> {
    let authority = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    hyper::Uri::builder().scheme("https").authority(authority).path_and_query(path).build()
}

/// The public CAs, and the owner's own.
fn roots(file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(file) = file else { return Ok(roots) };
    let wrong = |problem: &dyn std::fmt::Display| Error::Upstream {
        key: "dns.upstream_ca",
        problem: format!("{}: {problem}", file.display()),
    };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.len() == before {
        return Err(wrong(&"it holds no certificate"));
    }
    Ok(roots)
}

/// Certificates are checked by the floor while the clock is behind: those who know the time are found through them.
#[derive(Debug)]
struct Floored(crate::clock::Clock);

impl TimeProvider for Floored {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.seconds())))
    }
}

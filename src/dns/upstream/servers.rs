//! The servers that recurse for us, in the form in which the resolver and its driver know them.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    time_provider::TimeProvider,
    version,
};
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
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(roots, self.config.clock.clone())?))
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

/// Checks certificates as everybody does, and once more as of the floor where they have expired by a clock that may be
/// years ahead: then those who know the time can be found. What is older than the floor stays expired.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    clock: crate::clock::Clock,
}

impl Verifier {
    fn new(roots: Arc<RootCertStore>, clock: crate::clock::Clock) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Error::Upstream { key: "dns.upstream_ca", problem: error.to_string() })?;
        Ok(Self { inner, clock })
    }

    fn verify(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        name: &ServerName<'_>,
        now: UnixTime,
        floor: impl FnOnce() -> Option<u64>,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let at = |time| self.inner.verify_server_cert(chain.0, chain.1, name, &[], time);
        match at(now) {
            Err(rustls::Error::InvalidCertificate(
                expired @ (CertificateError::Expired | CertificateError::ExpiredContext { .. }),
            )) => match floor() {
                Some(floor) => at(UnixTime::since_unix_epoch(Duration::from_secs(floor))),
                None => Err(expired.into()),
            },
            verified => verified,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify((end_entity, intermediates), name, now, || self.clock.floor_if_doubtful())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Certificates are checked by the floor while the clock is behind: those who know the time are found through them.
#[derive(Debug)]
struct Floored(crate::clock::Clock);

impl TimeProvider for Floored {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.seconds())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_a_doubtful_clock_what_held_at_the_floor_is_believed_and_nothing_older() {
        let mut parameters = rcgen::CertificateParams::new(vec!["dns.test".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let verifier = Verifier::new(roots.into(), crate::clock::Clock::believed()).unwrap();
        let at = |year, month| u64::try_from(rcgen::date_time_ymd(year, month, 1).unix_timestamp()).unwrap();
        let holds = |name: &'static str, now, floor| {
            let (name, now) =
                (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(now)));
            verifier.verify((certificate.der(), &[]), &name, now, || floor).is_ok()
        };

        assert!(holds("dns.test", at(2026, 2), None));
        assert!(!holds("dns.test", at(2040, 1), None));
        assert!(holds("dns.test", at(2040, 1), Some(at(2026, 2))));
        assert!(!holds("dns.test", at(2040, 1), Some(at(2026, 5))));
        assert!(!holds("dns.test", at(2025, 1), Some(at(2026, 2))), "that is no clock ahead");
        assert!(!holds("else.test", at(2040, 1), Some(at(2026, 2))));
    }
}

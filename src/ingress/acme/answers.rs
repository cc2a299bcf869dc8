//! What is answered to a CA that checks: only while its order is in flight, and only for the host of that order.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// RFC 8555 §8.3.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";
/// RFC 8737 §4.
const ALPN: &[u8] = b"acme-tls/1";

/// The one answer that is given now, if any: orders come one after the other.
#[derive(Debug, Default)]
pub(in crate::ingress) struct Answers(ArcSwapOption<Answer>);

#[derive(Debug)]
enum Answer {
    Http { host: String, token: String, content: Bytes },
    Tls { host: String, config: Arc<ServerConfig> },
}

impl Answers {
    /// Returns what HTTP-01 wants to read at this place.
    pub(in crate::ingress) fn http(&self, host: &str, path: &str) -> Option<Bytes> {
        let answer = self.0.load();
        match answer.as_deref()? {
            Answer::Http { host: asked, token, content } if asked == host => {
                (path.strip_prefix(WELL_KNOWN)? == token).then(|| content.clone())
            }
            _ => None,
        }
    }

    /// Returns how TLS-ALPN-01 is answered, if that is what this client asks for and nothing else.
    pub(in crate::ingress) fn tls(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let answer = self.0.load();
        let Answer::Tls { host, config } = answer.as_deref()? else { return None };
        let asked = hello.server_name()?.eq_ignore_ascii_case(host);
        (asked && hello.alpn()?.eq([ALPN])).then(|| config.clone())
    }

    /// Says whether TLS-ALPN-01 is answered for this name now.
    pub(in crate::ingress) fn is_for(&self, name: &str) -> bool {
        matches!(self.0.load().as_deref(), Some(Answer::Tls { host, .. }) if host == name)
    }

    pub(super) fn give_http(&self, host: &str, token: &str, content: &str) -> Given<'_> {
        let content = Bytes::copy_from_slice(content.as_bytes());
        self.give(Answer::Http { host: host.to_owned(), token: token.to_owned(), content })
    }

    pub(super) fn give_tls(
        &self,
        host: &str,
        digest: &[u8],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Given<'_>, String> {
        let config = config(host, digest, provider)?;
        Ok(self.give(Answer::Tls { host: host.to_owned(), config }))
    }

    fn give(&self, answer: Answer) -> Given<'_> {
        self.0.store(Some(Arc::new(answer)));
        Given(self)
    }
}

/// An answer is given as long as this lives.
pub(super) struct Given<'a>(&'a Answers);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.0.0.store(None);
    }
}

/// RFC 8737 §3: a certificate of our own for exactly this name, with the digest as a critical extension.
fn config(host: &str, digest: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<ServerConfig>, String> {
    let text = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(text)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let certificate: CertificateDer<'static> = params.self_signed(&key).map_err(text)?.into();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // The extension is critical and nobody here knows it, so the library cannot be asked whether it belongs
    // to the key.
    let key = provider.key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    let key = Arc::new(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_one_host_and_token_and_ends_with_its_order() {
        let answers = Answers::default();
        let place = "/.well-known/acme-challenge/token";

        let given = answers.give_http("www.home.example", "token", "token.thumb");

        assert_eq!(answers.http("www.home.example", place).as_deref(), Some(&b"token.thumb"[..]));
        assert_eq!(answers.http("admin.home.example", place), None);
        assert_eq!(answers.http("www.home.example", "/.well-known/acme-challenge/other"), None);
        assert_eq!(answers.http("www.home.example", "/token"), None);
        drop(given);
        assert_eq!(answers.http("www.home.example", place), None);
    }
}

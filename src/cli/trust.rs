//! `hearthgate trust HOST:PORT`: shows the certificate of a server, to be written into `upstream_tls`.

use std::{
    fmt,
    net::{TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::cli::readable;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub(super) struct Trust {
    /// The server, as 192.168.1.5:8006
    server: String,
}

impl Trust {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let server = self.server.strip_prefix("https://").unwrap_or(&self.server).trim_end_matches('/');
        let (host, _) = server.rsplit_once(':').context("write the server with its port, as 192.168.1.5:8006")?;
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).with_context(|| format!("\"{host}\" is no host"))?;
        let address = server.to_socket_addrs().with_context(|| format!("\"{server}\" has no address"))?.next();
        let address = address.with_context(|| format!("\"{server}\" has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("{address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = Arc::new(Seen { leaf: Mutex::default(), provider: provider.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(seen.clone())
            .with_no_client_auth();
        let mut connection = ClientConnection::new(Arc::new(config), name)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).with_context(|| format!("{address} speaks no TLS"))?;
        }
        let leaf = seen.leaf.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(leaf) = leaf else { bail!("{address} showed no certificate") };
        print!("{}", told(&leaf));
        Ok(())
    }
}

fn told(leaf: &[u8]) -> String {
    let digest: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = String::new();
    if let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) {
        let end = readable(certificate.validity().not_after.timestamp());
        text += &format!(
            "subject      {}\nissuer       {}\nuntil        {end}\n",
            certificate.subject(),
            certificate.issuer()
        );
    }
    text + &format!(
        "fingerprint  sha256:{digest}\n\nCompare it with what the server itself shows. If it is the same, write into its route:\n\n\
         upstream_tls = {{ fingerprint = \"sha256:{digest}\" }}\n"
    )
}

/// Takes any certificate, to show it: nothing is sent to whoever has it.
struct Seen {
    leaf: Mutex<Option<Vec<u8>>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.leaf.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(leaf.to_vec());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_can_be_copied_into_a_route() {
        let made = rcgen::generate_simple_self_signed(vec!["pve.example".into()]).unwrap();

        let text = told(made.cert.der());

        let line = text.lines().find(|line| line.starts_with("upstream_tls = { fingerprint = \"sha256:")).unwrap();
        assert!(line.ends_with("\" }") && line.len() == 39 + 64 + 3, "{line}");
        assert!(text.contains("until  "), "{text}");
    }
}

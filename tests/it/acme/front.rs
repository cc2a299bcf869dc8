//! What pebble lacks: a directory of ours before it, which tells windows for renewals (RFC 9773) and has faults.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearthgate::ingress::AcmeDirectory;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::pebble::Pebble;

pub(crate) struct Front {
    address: SocketAddr,
    root: std::path::PathBuf,
    /// How often a window was asked for.
    pub(crate) windows: Arc<AtomicUsize>,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The first certificate is to be renewed at once, the others much later.
    Windows,
    /// It is down, and says for how long.
    Down,
}

impl Front {
    pub(crate) async fn start(pebble: &Pebble, manner: Manner) -> Self {
        let file = |name: &str| pebble.folder.path().join(name);
        let certificate = CertificateDer::from_pem_file(file("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let windows = Arc::new(AtomicUsize::new(0));
        let (asked, behind) = (windows.clone(), pebble.address);
        tokio::spawn(async move {
            let mut first = None;
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let mut stream = BufReader::new(stream);
                let mut request = String::new();
                stream.read_line(&mut request).await.unwrap();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let at = |what: &str| format!("https://{behind}/{what}");
                let (head, body) = match path.strip_prefix("/window/") {
                    _ if manner == Manner::Down => {
                        ("503 Service Unavailable\r\nretry-after: 7200", "<h1>soon</h1>".into())
                    }
                    None => {
                        let directory = serde_json::json!({
                            "newNonce": at("nonce-plz"), "newAccount": at("sign-me-up"), "newOrder": at("order-plz"),
                            "revokeCert": at("revoke-cert"), "keyChange": at("rollover-account-key"),
                            "renewalInfo": format!("https://{address}/window"),
                            "meta": {"profiles": {"shortlived": "six days"}},
                        });
                        ("200 OK", directory.to_string())
                    }
                    Some(certificate) => {
                        asked.fetch_add(1, Ordering::SeqCst);
                        let now = first.get_or_insert_with(|| certificate.to_owned()) == certificate;
                        let (start, end) = if now { (2000, 2001) } else { (2090, 2091) };
                        let window = serde_json::json!({"suggestedWindow": {
                            "start": format!("{start}-01-01T00:00:00Z"), "end": format!("{end}-01-01T00:00:00Z"),
                        }});
                        ("200 OK\r\nretry-after: 21600", window.to_string())
                    }
                };
                let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, root: file("root.pem"), windows }
    }

    pub(crate) fn directory(&self) -> AcmeDirectory {
        AcmeDirectory { url: format!("https://{}/dir", self.address), ca: Some(self.root.clone()) }
    }
}

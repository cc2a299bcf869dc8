//! What encrypted transports show and tell: certificates, and the device that a client says it is.

use std::{sync::Arc, time::Duration};

use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    dns::{ClientName, Core},
    identity::Identity,
    limit::{Client, Rate},
};

/// From the first byte to the end of the handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes of one client: a signature costs as much as a hundred cached answers.
const HANDSHAKES: Rate = Rate::new(20, 100).unwrap();

/// TLS for TCP and for QUIC.
pub(in crate::dns) struct Secure {
    pub(super) tcp: Arc<ServerConfig>,
    pub(super) quic: Arc<QuicServerConfig>,
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secure")
    }
}

impl Secure {
    /// Makes both; certificates are asked for at each handshake.
    pub(in crate::dns) fn new(identity: Identity) -> Result<Self, rustls::Error> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let shown: Arc<dyn ResolvesServerCert> = Arc::new(Shown(identity));
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let tcp = config(&versions, b"dot", shown.clone(), tickets.clone())?;
        // TLS 1.3 alone, and no early data: what is replayed would be answered again.
        let quic = config(&versions[..1], b"doq", shown, tickets)?;
        let quic = QuicServerConfig::try_from(quic).map_err(|_| rustls::Error::FailedToGetCurrentTime)?;
        Ok(Self { tcp: Arc::new(tcp), quic: Arc::new(quic) })
    }
}

fn config(
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[u8],
    shown: Arc<dyn ResolvesServerCert>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}

#[derive(Debug)]
struct Shown(Identity);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.0.find(name.as_deref())
    }
}

/// Says whether a client may begin another handshake.
pub(super) fn may_begin(core: &Core, client: Option<Client>) -> bool {
    let now = std::time::Instant::now();
    client.is_none_or(|client| core.limits.check_key((client, "handshake"), HANDSHAKES, now).is_ok())
}

/// Finishes a handshake in time; with the device that the client says it is.
pub(super) async fn accept<S>(stream: S, secure: &Secure, core: &Core) -> Option<(TlsStream<S>, Option<ClientName>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = timeout(HANDSHAKE, TlsAcceptor::from(secure.tcp.clone()).accept(stream)).await.ok()?.ok()?;
    let name = stream.get_ref().1.server_name().and_then(|shown| name(core, shown));
    Some((stream, name))
}

/// Returns the client that the label before the server's own name says.
pub(super) fn name(core: &Core, shown: &str) -> Option<ClientName> {
    let policy = core.policy.load();
    label(&policy.as_ref()?.config.encrypted.as_ref()?.host, &shown.to_ascii_lowercase())
}

fn label(own: &str, shown: &str) -> Option<ClientName> {
    ClientName::new(shown.strip_suffix(own)?.strip_suffix('.')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_one_label_before_the_servers_name() {
        let device = |name| label("dns.home.example", name);

        assert_eq!(device("kids-tablet.dns.home.example"), ClientName::new("kids-tablet"));
        for name in ["dns.home.example", ".dns.home.example", "a.b.dns.home.example", "xdns.home.example", "example"] {
            assert_eq!(device(name), None, "{name}");
        }
    }
}

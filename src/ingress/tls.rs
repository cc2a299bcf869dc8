//! TLS towards clients: the SNI chooses before anything is said.
//!
//! A name that is not in the origin's table gets a fatal `unrecognized_name` alert (RFC 6066 §3) and a
//! close, whether it exists for somebody else, never existed, is missing, is an address or no name at all. Configuration,
//! ticket keys and certificates belong to one table, so nothing of one table resumes in another.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{Acceptor, ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use crate::ingress::{
    acme::Answers,
    clients::ClientCa,
    hello::{self, Reading},
    routes::{Hosts, Route, Table},
    server::close_in_order,
};

/// Alert record: fatal (2), unrecognized_name (112).
pub(super) const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Alert record: fatal (2), decode_error (50).
const DECODE_ERROR: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x32];

/// Room for the ClientHello of any browser.
const FIRST_READ: usize = 4096;

/// How a handshake ended.
pub(super) enum Handshake<S> {
    /// Well; with the name of the certificate that was shown, and the realm of the one that the client showed.
    Done(Box<TlsStream<S>>, Arc<str>, Option<Arc<str>>),
    /// The SNI, if it is a name, is not in the table: [`refuse`] is next.
    UnknownName(S, Option<String>),
    /// The name is of a server behind that has the certificate: what has come so far is for it.
    Passed(S, BytesMut, Arc<Route>, Option<Box<str>>),
    /// A CA has checked that the name is ours.
    Checked(Box<TlsStream<S>>),
    /// Not TLS, or not with us.
    Failed,
    /// The deadline came first.
    TimedOut,
}

/// Makes the configuration of one table.
pub(super) fn config(
    hosts: Arc<Hosts>,
    provider: &Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    client_ca: Option<&ClientCa>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match client_ca {
        Some(client_ca) => builder.with_client_cert_verifier(client_ca.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni(hosts)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Reads the ClientHello, then goes on with the table's configuration, or with the alert.
pub(super) async fn accept<S>(mut stream: S, table: &Table, answers: &Answers, limit: Duration) -> Handshake<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + limit;
    let mut input = BytesMut::with_capacity(FIRST_READ);
    let name = loop {
        match hello::read(&input) {
            Reading::Hello(name) => break name,
            Reading::Partial => {}
            Reading::Other => {
                let _ = timeout_at(deadline, stream.write_all(&DECODE_ERROR)).await;
                return Handshake::Failed;
            }
        }
        match timeout_at(deadline, stream.read_buf(&mut input)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Handshake::Failed,
            Err(_) => return Handshake::TimedOut,
        }
    };
    let name = name.and_then(|name| Some(std::str::from_utf8(&name).ok()?.to_ascii_lowercase()));
    let is_checked = name.as_deref().is_some_and(|name| answers.is_for(name));
    let passed = match table.hosts.secure(name.as_deref()) {
        None if !is_checked => return Handshake::UnknownName(stream, name),
        None => None,
        Some(site) => site.passed.clone(),
    };
    let passed = match passed {
        // A CA may be about to check the name, which only its whole hello tells.
        Some(passed) if is_checked => Some(passed),
        Some(passed) => return Handshake::Passed(stream, input, passed, name.map(Into::into)),
        None => None,
    };
    let mut acceptor = Acceptor::default();
    let mut rest = &input[..];
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Handshake::Failed;
        }
    }
    let start = match acceptor.accept() {
        Ok(Some(accepted)) => StartHandshake::from_parts(accepted, stream),
        Ok(None) => return Handshake::Failed,
        Err((_, mut alert)) => {
            let mut bytes = Vec::new();
            if alert.write_all(&mut bytes).is_ok() {
                let _ = timeout_at(deadline, stream.write_all(&bytes)).await;
            }
            return Handshake::Failed;
        }
    };
    if let Some(config) = answers.tls(&start.client_hello()) {
        return match timeout_at(deadline, start.into_stream(config)).await {
            Ok(Ok(stream)) => Handshake::Checked(Box::new(stream)),
            Ok(Err(_)) => Handshake::Failed,
            Err(_) => Handshake::TimedOut,
        };
    }
    if let Some(passed) = passed {
        return Handshake::Passed(start.io, input, passed, name.map(Into::into));
    }
    drop(input);
    // What the library read is what it will show a certificate for.
    let chosen = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let site = chosen.as_deref().and_then(|name| table.hosts.own(name)).filter(|site| site.is_there());
    let chosen = site.and_then(|site| Some((site.certificate.as_ref()?.name.clone(), site.realm())));
    let Some((certificate, realm)) = chosen else { return Handshake::UnknownName(start.io, name) };
    let Some(config) = table.config(realm.as_ref()) else { return Handshake::UnknownName(start.io, name) };
    match timeout_at(deadline, start.into_stream(config.clone())).await {
        Ok(Ok(stream)) => Handshake::Done(Box::new(stream), certificate, realm),
        Ok(Err(_)) => Handshake::Failed,
        Err(_) => Handshake::TimedOut,
    }
}

/// Tells that the name is unknown, and nothing else.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, limit: Duration) {
    if let Ok(Ok(())) = timeout(limit, stream.write_all(&UNRECOGNIZED_NAME)).await {
        close_in_order(&mut stream).await;
    }
}

#[derive(Debug)]
struct BySni(Arc<Hosts>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.own(&name)?.key()
    }
}

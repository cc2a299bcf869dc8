//! DNS over QUIC (RFC 9250): one question on each stream, answered as they are ready.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime,
    TransportConfig, VarInt, crypto::rustls::HandshakeData,
};
use tokio::time::timeout;

use super::{
    tcp::{self, STUCK},
    tls::{self, HANDSHAKE, Secure},
};
use crate::{
    dns::{
        Core,
        answer::Asker,
        counters::{Dropped, Transport},
        devices,
    },
    limit::Client,
    origin::Origin,
    questions::LONGEST,
    supervise::{self, Phase, Stop},
};

/// Questions of one connection that are worked on at once.
const STREAMS: u32 = 32;

/// Handshakes under way from which on a client must show first that it is where it says: a Retry keeps nothing
/// here.
const UNPROVEN: usize = 16;

/// Connections whose first packet came and which nobody has looked at yet, and what they may keep each.
const INCOMING: usize = 256;
const INCOMING_BYTES: u64 = 16 * 1024;

/// How long the end of a connection may take to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// RFC 9250 §4.3.
const NO_ERROR: VarInt = VarInt::from_u32(0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

/// Accepts connections until told to stop.
pub(in crate::dns) async fn serve(
    socket: UdpSocket,
    core: Arc<Core>,
    secure: Arc<Secure>,
    stop: Stop,
) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("QUIC socket: {error}");
    let endpoint = Endpoint::new(endpoint_config(), Some(server_config(&secure)), socket, Arc::new(TokioRuntime));
    let endpoint = endpoint.map_err(fail)?;
    let shaking = Arc::new(AtomicUsize::new(0));
    loop {
        let incoming = tokio::select! {
            () = stop.reached(Phase::Drain) => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return Err("QUIC endpoint: closed".into()) };
        begin(incoming, &core, &shaking, &stop);
    }
    // Nobody comes in any more, and whoever is here gets what was asked.
    endpoint.set_server_config(None);
    tokio::select! {
        () = endpoint.wait_idle() => {}
        () = stop.reached(Phase::Now) => {}
    }
    endpoint.close(NO_ERROR, b"");
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    Ok(())
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // The port may be WireGuard's as well one day, which is told apart by this bit.
    config.grease_quic_bit(false);
    config
}

fn server_config(secure: &Secure) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window((LONGEST as u32 + 2).into())
        .receive_window((STREAMS * (LONGEST as u32 + 2)).into())
        .send_window(256 * 1024)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(tcp::IDLE.as_millis() as u32).into()));
    let mut config = ServerConfig::with_crypto(secure.quic.clone());
    config
        .transport_config(Arc::new(transport))
        // Who asks, and from where, is settled at the handshake: a connection that moved would keep an origin that it
        // does not have any more.
        .migration(false)
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING as u64 * INCOMING_BYTES);
    config
}

/// Decides about a connection before anything is said that costs a signature.
fn begin(incoming: Incoming, core: &Arc<Core>, shaking: &Arc<AtomicUsize>, stop: &Stop) {
    let Some(asker) = tcp::asker(core, incoming.remote_address(), Transport::Quic) else {
        core.series.dropped(Dropped::Origin);
        return incoming.ignore();
    };
    if !incoming.remote_address_validated() && shaking.load(Ordering::Relaxed) >= UNPROVEN {
        core.series.retried();
        let _ = incoming.retry();
        return;
    }
    let client = asker.is_limited().then(|| Client::of(asker.client));
    let place = core.connections.enter(client).ok().filter(|_| tls::may_begin(core, client));
    let Some(place) = place else {
        core.series.dropped(Dropped::Connections);
        return incoming.refuse();
    };
    let (core, shaking, stop) = (core.clone(), Shaking::begin(shaking), stop.clone());
    supervise::task("dns quic connection", async move {
        let handshake = async { incoming.accept().ok()?.await.ok() };
        let connected = timeout(HANDSHAKE, handshake).await;
        drop(shaking);
        if let Ok(Some(connection)) = connected {
            let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
            let name = data.and_then(|data| data.server_name).and_then(|shown| tls::name(&core, &shown));
            devices::find(&core, &asker).await;
            serve_streams(&connection, &Asker { name, ..asker }, &core, &stop).await;
        }
        drop(place);
    });
}

/// Counts a handshake until it ends, however it does.
struct Shaking(Arc<AtomicUsize>);

impl Shaking {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_streams(connection: &Connection, asker: &Asker, core: &Arc<Core>, stop: &Stop) {
    let mut questions = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.reached(Phase::Drain) => break,
            // Keep-alives keep a path open, not a place.
            accepted = timeout(tcp::idle(core), connection.accept_bi()) => accepted,
            Some(_) = questions.join_next(), if !questions.is_empty() => continue,
        };
        match accepted {
            Ok(Ok((send, receive))) => {
                let (core, asker, connection) = (core.clone(), *asker, connection.clone());
                questions.spawn(async move { question(send, receive, &connection, &asker, &core).await });
            }
            Ok(Err(_)) => return,
            Err(_) if questions.is_empty() => break,
            Err(_) => {}
        }
    }
    let _ = timeout(STUCK, async { while questions.join_next().await.is_some() {} }).await;
    connection.close(NO_ERROR, b"");
}

/// Answers the question of one stream.
async fn question(
    mut send: SendStream,
    mut receive: RecvStream,
    connection: &Connection,
    asker: &Asker,
    core: &Arc<Core>,
) {
    let read = match timeout(STUCK, receive.read_to_end(LONGEST + 2)).await {
        Ok(Ok(read)) => read,
        Ok(Err(quinn::ReadToEndError::TooLong)) => return connection.close(PROTOCOL_ERROR, b""),
        Ok(Err(_)) => return,
        Err(_) => {
            let _ = send.reset(EXCESSIVE_LOAD);
            return;
        }
    };
    let Some(message) = framed(&read) else { return connection.close(PROTOCOL_ERROR, b"") };
    let Ok(answer) = super::serve(core, asker, message).await else {
        let _ = send.reset(EXCESSIVE_LOAD);
        return;
    };
    if let Some(framed) = tcp::framed(&answer) {
        let written = async {
            send.write_all(&framed).await.ok()?;
            send.finish().ok()?;
            // Until the client has it all: what is closed before that is lost.
            send.stopped().await.ok()
        };
        let _ = timeout(STUCK, written).await;
    }
}

/// Takes a message out of its frame: one message, all of the stream, with the ID 0 (RFC 9250 §4.2.1).
fn framed(read: &[u8]) -> Option<&[u8]> {
    let (length, message) = read.split_first_chunk()?;
    let whole = usize::from(u16::from_be_bytes(*length)) == message.len();
    (whole && message.starts_with(&[0, 0])).then_some(message)
}

impl Asker {
    /// Says whether nothing is ever said to whoever asks.
    pub(super) fn is_refused(&self) -> bool {
        self.source.origin == Origin::Wan && !self.source.relay
    }
}

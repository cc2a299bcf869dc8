//! Connections: many questions each, answered as they are ready (RFC 7766).

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{
    dns::{
        Core,
        answer::Asker,
        counters::{Dropped, Transport},
        devices,
        room::Room,
    },
    limit::Client,
    origin::{Origin, Source},
    stream::Accepted,
    supervise::{self, Phase, Stop},
};

/// A connection without a question is closed after this (RFC 7766 §6.2.3 leaves it to us).
const IDLE: Duration = Duration::from_secs(20);

/// A client that does not take its answers for this long is gone.
const STUCK: Duration = Duration::from_secs(10);

/// Questions of one connection that are worked on at once; more are read when these are done.
const PIPELINE: usize = 32;

/// Connections of everybody, and of one client.
const CONNECTIONS: usize = 512;
const CONNECTIONS_EACH: usize = 32;

/// Makes the bound for connections.
pub(in crate::dns) fn bound() -> Arc<Room> {
    Room::new(CONNECTIONS, CONNECTIONS_EACH)
}

/// Accepts connections until told to stop, and ends when the last one has.
pub(in crate::dns) async fn serve(listener: TcpListener, core: Arc<Core>, stop: Stop) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("TCP listener: {error}");
    let listener = tokio::net::TcpListener::from_std(listener).map_err(fail)?;
    loop {
        let (stream, client) = tokio::select! {
            () = stop.reached(Phase::Drain) => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the client is gone again.
                    tracing::debug!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let interface = match client {
            SocketAddr::V6(v6) if v6.scope_id() > 0 => Some(v6.scope_id()),
            _ => None,
        };
        let source = core.networks.load().classify(client.ip(), interface);
        let asker = Asker { source, client: client.ip(), transport: Transport::Tcp, name: None };
        let _ = stream.set_nodelay(true);
        begin(stream, asker, &core, &stop);
    }
}

/// Serves a connection that came out of the tunnel.
pub(in crate::dns) fn accept(accepted: Accepted, core: &Arc<Core>, stop: &Stop) {
    let source = Source { origin: accepted.origin, relay: false };
    let asker = Asker { source, client: accepted.client.ip(), transport: Transport::TunnelTcp, name: None };
    begin(accepted.stream, asker, core, stop);
}

fn begin<S>(stream: S, asker: Asker, core: &Arc<Core>, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    // Before a byte is read.
    if asker.source.origin == Origin::Wan && !asker.source.relay {
        core.series.dropped(Dropped::Origin);
        return;
    }
    let client = asker.is_limited().then(|| Client::of(asker.client));
    let Ok(place) = core.connections.enter(client) else {
        core.series.dropped(Dropped::Connections);
        return;
    };
    let (core, stop) = (core.clone(), stop.clone());
    supervise::task("dns connection", async move {
        devices::find(&core, &asker).await;
        connection(stream, asker, &core, &stop).await;
        drop(place);
    });
}

async fn connection<S>(stream: S, asker: Asker, core: &Arc<Core>, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let (answers, mut ready) = mpsc::channel::<Vec<u8>>(PIPELINE);
    let pipeline = Arc::new(Semaphore::new(PIPELINE));
    let reading = async move {
        loop {
            let Ok(turn) = pipeline.clone().acquire_owned().await else { return };
            let frame = tokio::select! {
                () = stop.reached(Phase::Drain) => return,
                frame = timeout(IDLE, frame(&mut read)) => frame,
            };
            let Ok(Ok(bytes)) = frame else { return };
            let (core, answers) = (core.clone(), answers.clone());
            supervise::task("dns message", async move {
                if let Some(answer) = super::serve(&core, &asker, &bytes).await {
                    // The writer is gone only with the client.
                    let _ = answers.send(answer).await;
                }
                drop(turn);
            });
        }
    };
    let writing = async move {
        while let Some(answer) = ready.recv().await {
            let Ok(length) = u16::try_from(answer.len()) else { continue };
            let mut framed = Vec::with_capacity(answer.len() + 2);
            framed.extend(length.to_be_bytes());
            framed.extend(answer);
            if !matches!(timeout(STUCK, write.write_all(&framed)).await, Ok(Ok(()))) {
                return;
            }
        }
        let _ = timeout(STUCK, write.shutdown()).await;
    };
    tokio::pin!(reading, writing);
    // Whoever stops reading still gets what was asked; a client who takes no answers is read no further.
    tokio::select! {
        () = &mut writing => {}
        () = &mut reading => {
            tokio::select! {
                () = &mut writing => {}
                () = stop.reached(Phase::Now) => {}
            }
        }
    }
}

async fn frame(read: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = read.read_u16().await?;
    let mut bytes = Vec::new();
    // Grows with what arrives, not with what is announced.
    read.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if bytes.len() < usize::from(length) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

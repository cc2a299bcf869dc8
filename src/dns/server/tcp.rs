//! Connections: many questions each, answered as they are ready (RFC 7766), plain or inside TLS (RFC 7858).

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

use super::tls::{self, Secure};
use crate::{
    dns::{
        Core,
        answer::Asker,
        counters::{Dropped, Transport},
        devices,
        room::Room,
    },
    limit::Client,
    origin::Source,
    questions::LONGEST,
    stream::Accepted,
    supervise::{self, Phase, Stop},
};

/// A connection without a question is closed after this (RFC 7766 §6.2.3 leaves it to us).
pub(super) const IDLE: Duration = Duration::from_secs(20);

/// The same while more than half of the places are taken.
const IDLE_CROWDED: Duration = Duration::from_secs(3);

/// A client that does not take its answers for this long is gone, and so is one whose question takes as long.
pub(super) const STUCK: Duration = Duration::from_secs(10);

/// Questions of one connection that are worked on at once; more are read when these are done.
const PIPELINE: usize = 32;

/// Connections of everybody, and of one client.
const CONNECTIONS: usize = 512;
const CONNECTIONS_EACH: usize = 32;

/// Makes the bound for connections.
pub(in crate::dns) fn bound() -> Arc<Room> {
    Room::new(CONNECTIONS, CONNECTIONS_EACH)
}

/// Returns how long a connection may be without a question.
pub(super) fn idle(core: &Core) -> Duration {
    if core.connections.taken() > CONNECTIONS / 2 { IDLE_CROWDED } else { IDLE }
}

/// Says who connects; `None` if nothing is ever said to it.
pub(super) fn asker(core: &Core, client: SocketAddr, transport: Transport) -> Option<Asker> {
    let interface = match client {
        SocketAddr::V6(v6) if v6.scope_id() > 0 => Some(v6.scope_id()),
        _ => None,
    };
    let source = core.networks.load().classify(client.ip(), interface);
    let asker = Asker { source, client: client.ip(), transport, name: None };
    (!asker.is_refused()).then_some(asker)
}

/// Accepts connections until told to stop, and ends when the last one has. With `secure` they speak TLS.
pub(in crate::dns) async fn serve(
    listener: TcpListener,
    core: Arc<Core>,
    secure: Option<Arc<Secure>>,
    stop: Stop,
) -> Result<(), String> {
    let transport = if secure.is_some() { Transport::Tls } else { Transport::Tcp };
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
        // Before a byte is read.
        let Some(asker) = asker(&core, client, transport) else {
            core.series.dropped(Dropped::Origin);
            continue;
        };
        let _ = stream.set_nodelay(true);
        begin(stream, asker, &core, secure.as_ref(), &stop);
    }
}

/// Serves a connection that came out of the tunnel.
pub(in crate::dns) fn accept(accepted: Accepted, core: &Arc<Core>, stop: &Stop) {
    let source = Source { origin: accepted.origin, relay: false };
    let asker = Asker { source, client: accepted.client.ip(), transport: Transport::TunnelTcp, name: None };
    if asker.is_refused() {
        return core.series.dropped(Dropped::Origin);
    }
    begin(accepted.stream, asker, core, None, stop);
}

fn begin<S>(stream: S, asker: Asker, core: &Arc<Core>, secure: Option<&Arc<Secure>>, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = asker.is_limited().then(|| Client::of(asker.client));
    let place = core.connections.enter(client).ok();
    let Some(place) = place.filter(|_| secure.is_none() || tls::may_begin(core, client)) else {
        core.series.dropped(Dropped::Connections);
        return;
    };
    let (core, secure, stop) = (core.clone(), secure.cloned(), stop.clone());
    supervise::task("dns connection", async move {
        devices::find(&core, &asker).await;
        match secure {
            None => connection(stream, asker, &core, &stop).await,
            Some(secure) => {
                if let Some((stream, name)) = tls::accept(stream, &secure, &core).await {
                    connection(stream, Asker { name, ..asker }, &core, &stop).await;
                }
            }
        }
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
                () = stop.lost_patience() => return,
                frame = next(&mut read, idle(core)) => frame,
            };
            let Some(bytes) = frame else { return };
            let (core, answers) = (core.clone(), answers.clone());
            supervise::task("dns message", async move {
                if let Ok(answer) = super::serve(&core, &asker, &bytes).await {
                    // The writer is gone only with the client.
                    let _ = answers.send(answer).await;
                }
                drop(turn);
            });
        }
    };
    let writing = async move {
        while let Some(answer) = ready.recv().await {
            let Some(framed) = framed(&answer) else { continue };
            let written = async {
                write.write_all(&framed).await?;
                // TLS keeps what the socket does not take.
                write.flush().await
            };
            if !matches!(timeout(STUCK, written).await, Ok(Ok(()))) {
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

/// Puts an answer into its frame; `None` if it is too long for one.
pub(super) fn framed(answer: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(answer.len()).ok()?;
    let mut framed = Vec::with_capacity(answer.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(answer);
    Some(framed)
}

/// Waits for a question, and then for the rest of it; `None` ends the connection. Who sends one byte at a time
/// has as long as who sends none.
async fn next(read: &mut (impl AsyncRead + Unpin), idle: Duration) -> Option<Vec<u8>> {
    let first = timeout(idle, read.read_u8()).await.ok()?.ok()?;
    timeout(STUCK, rest(first, read)).await.ok()?.ok()
}

async fn rest(first: u8, read: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = u16::from_be_bytes([first, read.read_u8().await?]);
    if usize::from(length) > LONGEST {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    // Grows with what arrives, not with what is announced.
    read.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if bytes.len() < usize::from(length) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::io::BufStream;

    use super::*;
    use crate::dns::{
        fuzz::{self, House},
        query::{qtype, tests::query},
    };
    use crate::origin::{NetworkId, Origin};

    #[tokio::test]
    async fn an_answer_is_sent_though_the_stream_keeps_what_is_written() {
        let house = House::new(|_| {});
        house.core.put_in_force(house.policy.clone());
        let (client, server) = tokio::io::duplex(4096);
        let (_teller, stop) = supervise::stop();
        let core = house.core.clone();
        let mut asker = fuzz::asker(Origin::Lan(NetworkId::HOST));
        asker.transport = Transport::Tcp;
        tokio::spawn(async move { connection(BufStream::new(server), asker, &core, &stop).await });
        let (mut read, mut write) = tokio::io::split(client);

        write.write_all(&framed(&query("localhost", qtype::A, None)).unwrap()).await.unwrap();

        let length = timeout(Duration::from_secs(5), read.read_u16()).await.expect("it is not held back").unwrap();
        assert!(length > 12);
    }
}

//! Bytes in both directions, nothing understood: a WebSocket once both sides agreed to it, and what is passed through.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::ingress::{Timeouts, deadline::Deadline, permits::Permit, upstream::UpstreamStream};

const BUFFER: usize = 16 * 1024;

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Where somebody does not take what is there for them.
    pub(super) stall: Duration,
    /// Where nobody says anything. Pings are the business of the two ends; who sends none for so long is gone.
    pub(super) silence: Duration,
}

impl Patience {
    pub(super) fn of(timeouts: &Timeouts) -> Self {
        Self { stall: timeouts.body, silence: timeouts.tunnel }
    }
}

/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have ended.
    Ended,
    /// One side failed.
    Broken,
    /// Nothing moved for too long.
    Silent,
    /// The permission was lost.
    Revoked,
}

/// Counts bytes as they are passed on.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) up: Option<IntCounter>,
    pub(super) down: Option<IntCounter>,
}

/// Says whether a 101 is the answer to this handshake (RFC 6455 §4.2.2).
pub(super) fn is_agreed(headers: &HeaderMap, key: &HeaderValue) -> bool {
    let mut text = key.as_bytes().to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text));
    let upgrade = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
        && headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|said| said.as_bytes() == accept.as_bytes())
}

/// Copies until both sides have ended, one fails, nothing moves for too long or the permission is lost.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut S,
    from_client: BytesMut,
    mut upstream: UpstreamStream,
    from_upstream: Bytes,
    permit: &Permit,
    patience: Patience,
    tally: Tally,
) -> End {
    let mut up = Direction::new(from_client, tally.up);
    let mut down = Direction::new(from_upstream.into(), tally.down);
    let mut deadline = Deadline::after(patience.silence);
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            for step in [up.poll(client, &mut upstream, cx), down.poll(&mut upstream, client, cx)] {
                match step {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                    Poll::Pending => {}
                }
            }
            if up.ended && down.ended {
                return Poll::Ready(End::Ended);
            }
            if moved {
                let waits_to_write = !up.buffer.is_empty() || !down.buffer.is_empty();
                deadline.set(if waits_to_write { patience.stall } else { patience.silence });
                continue;
            }
            if permit.poll_revoked(cx).is_ready() {
                return Poll::Ready(End::Revoked);
            }
            return deadline.poll(cx).map(|()| End::Silent);
        }
    })
    .await
}

struct Direction {
    buffer: BytesMut,
    read_all: bool,
    unflushed: bool,
    ended: bool,
    counter: Option<IntCounter>,
}

impl Direction {
    fn new(buffer: BytesMut, counter: Option<IntCounter>) -> Self {
        Self { buffer, read_all: false, unflushed: false, ended: false, counter }
    }

    /// Moves something on, or waits.
    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.ended {
            return Poll::Pending;
        }
        if !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
            if let Some(counter) = &self.counter {
                counter.inc_by(written as u64);
            }
            self.unflushed = true;
            return Poll::Ready(Ok(()));
        }
        if self.unflushed {
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.read_all {
            ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        self.buffer.reserve(BUFFER);
        let read = ready!(pin!(from.read_buf(&mut self.buffer)).poll(cx))?;
        self.read_all = read == 0;
        Poll::Ready(Ok(()))
    }
}

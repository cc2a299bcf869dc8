//! Upstreams that speak HTTP/2: a connection that many requests share, and the stream of one request.
//!
//! A connection has a task of its own, because it must be read for whoever waits. A stream belongs to its exchange,
//! as a connection of HTTP/1.1 does, and ends with it: the upstream sees a reset.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Ping, Reason, RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use hyper::HeaderMap;
use tokio::{task::spawn_local, time::Instant};

use super::{DialError, Outgoing, UpstreamStream, body::BrokenOff, wire::Fault};
use crate::ingress::h1::reply::{FIELDS_MAX, HEAD_MAX, ReplyHead, Unreadable};

/// Requests at work on one connection.
const MOST_STREAMS: usize = 100;
/// What may come of one response before it is passed on. The connection's window has room for all streams: a client
/// that reads slowly holds up nobody else's response.
const WINDOW: u32 = 128 * 1024;
/// What of one request may wait for the upstream.
const SEND: usize = 64 * 1024;
/// Responses before the response (RFC 9110 §15.2).
const INTERIM_MAX: u32 = 16;

/// A connection to an upstream.
pub(in crate::ingress) struct Connection {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

struct State {
    active: Cell<usize>,
    /// It carries no further request.
    ended: Cell<bool>,
    used: Cell<bool>,
    idle_since: Cell<Instant>,
}

/// The stream of one request.
pub(in crate::ingress) struct Stream {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    scheme: &'static str,
    response: Option<ResponseFuture>,
    upload: Option<SendStream<Bytes>>,
    /// Of the request's body: what waits for room.
    held: Bytes,
    download: Option<RecvStream>,
    trailers: Option<HeaderMap>,
    failure: Option<h2::Error>,
    interim: u32,
    heard: bool,
    /// The connection has carried a request before.
    reused: bool,
}

impl Connection {
    /// Begins to speak, and is ready when the other end has answered: whoever does not speak HTTP/2 is found out before a
    /// request depends on it.
    pub(super) async fn begin(stream: UpstreamStream) -> Result<Self, DialError> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * MOST_STREAMS as u32)
            .max_header_list_size(HEAD_MAX as u32)
            .max_send_buffer_size(SEND)
            .header_table_size(4096)
            .enable_push(false);
        let (sender, mut connection) = builder.handshake(stream).await.map_err(|_| DialError::Protocol)?;
        let mut pings = connection.ping_pong().ok_or(DialError::Protocol)?;
        let state = Rc::new(State {
            active: Cell::new(0),
            ended: Cell::new(false),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
        });
        let driven = state.clone();
        // It ends when nobody holds a sender or a stream of it any more.
        spawn_local(async move {
            if let Err(fault) = connection.await {
                tracing::debug!(%fault, "a connection to an upstream ended");
            }
            driven.ended.set(true);
        });
        pings.ping(Ping::opaque()).await.map_err(|_| DialError::Protocol)?;
        Ok(Self { sender, state })
    }

    /// Whether one more request may be sent on it.
    pub(super) fn has_room(&self) -> bool {
        !self.state.ended.get() && self.state.active.get() < self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    /// Whether it is worth keeping.
    pub(super) fn is_wanted(&self, since: impl FnOnce(Instant) -> bool) -> bool {
        !self.state.ended.get() && (self.state.active.get() > 0 || since(self.state.idle_since.get()))
    }

    /// Makes room for one request.
    pub(super) fn open(&self, scheme: &'static str) -> Box<Stream> {
        self.state.active.set(self.state.active.get() + 1);
        Box::new(Stream {
            sender: self.sender.clone(),
            reused: self.state.used.replace(true),
            state: self.state.clone(),
            scheme,
            response: None,
            upload: None,
            held: Bytes::new(),
            download: None,
            trailers: None,
            failure: None,
            interim: 0,
            heard: false,
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.active.set(self.state.active.get() - 1);
        self.state.idle_since.set(Instant::now());
    }
}

impl Stream {
    /// Sends what can be sent of a request; says whether that was anything.
    pub(super) fn send(&mut self, outgoing: &mut Outgoing, cx: &mut Context<'_>) -> Result<bool, BrokenOff> {
        let mut moved = false;
        if self.response.is_none() && self.download.is_none() && self.failure.is_none() {
            match self.sender.poll_ready(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.failure = Some(error);
                    return Ok(true);
                }
            }
            let request = outgoing.request(self.scheme).ok_or(BrokenOff::Client)?;
            match self.sender.send_request(request, outgoing.is_complete()) {
                Ok((response, upload)) => {
                    self.response = Some(response);
                    self.upload = Some(upload);
                }
                Err(error) => self.failure = Some(error),
            }
            outgoing.begin();
            moved = true;
        }
        let Some(upload) = &mut self.upload else { return Ok(moved) };
        while !outgoing.is_refused() {
            if !self.held.is_empty() {
                upload.reserve_capacity(self.held.len());
                let room = match upload.capacity() {
                    0 => match upload.poll_capacity(cx) {
                        Poll::Pending => break,
                        Poll::Ready(Some(Ok(room))) => room,
                        // Its answer may have come before.
                        Poll::Ready(None | Some(Err(_))) => {
                            outgoing.refuse();
                            break;
                        }
                    },
                    room => room,
                };
                let piece = self.held.split_to(room.min(self.held.len()));
                if !piece.is_empty() && upload.send_data(piece, false).is_err() {
                    outgoing.refuse();
                }
                moved = true;
                continue;
            }
            if outgoing.is_complete() {
                break;
            }
            match outgoing.poll_body(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => self.held = data,
                Poll::Ready(None) => {
                    if upload.send_data(Bytes::new(), true).is_err() {
                        outgoing.refuse();
                    }
                }
                Poll::Ready(Some(Err(broken))) => {
                    upload.send_reset(Reason::CANCEL);
                    return Err(broken);
                }
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Whether nothing of the request's body waits here.
    pub(super) fn is_sent(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn was_stale(&self) -> bool {
        self.reused && !self.heard && !self.was_reset()
    }

    /// Whether the upstream wants to hear no more of this one request: it is there, and well as far as that tells.
    pub(super) fn was_reset(&self) -> bool {
        let reset =
            |error: &h2::Error| error.is_reset() && error.is_remote() && error.reason() != Some(Reason::REFUSED_STREAM);
        self.failure.as_ref().is_some_and(reset)
    }

    pub(super) fn was_silent(&self) -> bool {
        !self.heard
    }

    /// Whether the upstream says that it did nothing for this request (RFC 9113 §8.7).
    pub(super) fn was_unprocessed(&self) -> bool {
        self.failure.as_ref().is_some_and(|error| {
            error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote())
        })
    }

    /// Sends nothing more on this connection: it does not answer.
    pub(super) fn give_up(&self) {
        self.state.ended.set(true);
    }

    /// Waits for the head of the response.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReplyHead, Fault>> {
        if let Some(error) = &self.failure {
            return Poll::Ready(Err(Fault::Stream(error.reason())));
        }
        let Some(response) = &mut self.response else { return Poll::Pending };
        while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
            self.heard = true;
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Poll::Ready(Err(Unreadable("too many interim responses").into()));
            }
        }
        let (head, download) = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response.into_parts(),
            Err(error) => {
                let reason = error.reason();
                self.failure = Some(error);
                return Poll::Ready(Err(Fault::Stream(reason)));
            }
        };
        self.heard = true;
        self.response = None;
        self.download = Some(download);
        if head.status.as_u16() >= 600 {
            return Poll::Ready(Err(Unreadable("status: out of bounds").into()));
        }
        if head.headers.len() > FIELDS_MAX {
            return Poll::Ready(Err(Unreadable("too many fields").into()));
        }
        Poll::Ready(Ok(ReplyHead { status: head.status, headers: head.headers, framing: None, keep_alive: true }))
    }

    /// Returns the next bytes of the body; after the last the trailers are there.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        let Some(download) = &mut self.download else { return Poll::Ready(Ok(None)) };
        let failed = |error: h2::Error| Fault::Stream(error.reason());
        if let Some(data) = ready!(download.poll_data(cx)) {
            let data = data.map_err(failed)?;
            // It is passed on one by one: what is not wanted yet stays in the window.
            let _ = download.flow_control().release_capacity(data.len());
            return Poll::Ready(Ok(Some(data)));
        }
        self.trailers = ready!(download.poll_trailers(cx)).map_err(failed)?;
        self.download = None;
        Poll::Ready(Ok(None))
    }

    /// Whether nothing of a body is to come, nor trailers.
    pub(super) fn is_end(&self) -> bool {
        self.download.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}

//! One connection to an upstream that speaks HTTP/1.1, and the body that comes over it. It has no task of its
//! own: whoever waits for the response drives it.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::{HeaderMap, Method, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::Instant,
};

use super::{Lane, Outgoing, Pools, Slot, UpstreamStream, body::BrokenOff};
use crate::ingress::{
    h1::{
        body::{Decoder, Piece},
        head::Framing,
        reply::{ReplyHead, Unreadable},
    },
    serve::Compressor,
};

/// What is read at once of a large body.
const BULK: usize = 64 * 1024;
/// From here on a body is read into a buffer of its own.
const LARGE: usize = 16 * 1024;
/// Responses before the response (RFC 9110 §15.2).
const INTERIM_MAX: u32 = 16;

/// A connection to an upstream.
pub(in crate::ingress) struct Wire {
    pub(super) pool: u32,
    stream: UpstreamStream,
    /// What was read and not yet used.
    input: Bytes,
    bulk: BytesMut,
    /// The last read filled the shared buffer: more will come at once.
    full: bool,
    /// Something of the response has come.
    heard: bool,
    interim: u32,
    /// It has carried a request before.
    pub(super) reused: bool,
    pub(super) idle_since: Instant,
}

/// A response whose body is still to come.
pub(in crate::ingress) struct Arrival {
    pub(in crate::ingress) head: ReplyHead,
    pub(in crate::ingress) body: UpstreamBody,
}

/// The body of a response, with the connection that it comes over.
pub(in crate::ingress) struct UpstreamBody {
    /// `None` once all of it has come.
    lane: Option<Lane>,
    /// The request, some of which may still be on its way.
    outgoing: Outgoing,
    /// `None` if the body ends with the connection.
    decoder: Option<Decoder>,
    /// What was announced of a body that comes over HTTP/2.
    length: Option<u64>,
    keep_alive: bool,
    trailers: Option<HeaderMap>,
    compressor: Option<Box<Compressor>>,
    /// Held until all of it has come.
    slot: Option<Slot>,
    pools: Rc<Pools>,
}

/// Pieces of a body that are compressed before others have their turn.
const PIECES: u32 = 8;

/// A response that did not come, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::ingress) enum Fault {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no response.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The connection was closed too early.
    #[error("closed before the end")]
    Closed,
    /// The upstream ended the stream, or its connection failed.
    #[error("the stream was reset: {0:?}")]
    Stream(Option<h2::Reason>),
}

impl Wire {
    pub(in crate::ingress) fn new(pool: u32, stream: UpstreamStream) -> Box<Self> {
        let (input, bulk) = (Bytes::new(), BytesMut::new());
        let idle_since = Instant::now();
        Box::new(Self { pool, stream, input, bulk, full: false, heard: false, interim: 0, reused: false, idle_since })
    }

    /// Sends what can be sent of a request; says whether that was anything.
    pub(in crate::ingress) fn send(
        &mut self,
        outgoing: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Result<bool, BrokenOff> {
        outgoing.send(&mut self.stream, cx)
    }

    /// Whether the upstream may just have closed an idle connection at the moment we took it.
    pub(in crate::ingress) fn was_stale(&self) -> bool {
        self.reused && !self.heard
    }

    /// Whether nothing of an answer has come.
    pub(in crate::ingress) fn was_silent(&self) -> bool {
        !self.heard
    }

    /// Waits for the head of the response.
    pub(in crate::ingress) fn poll_head(
        &mut self,
        scratch: &RefCell<BytesMut>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ReplyHead, Fault>> {
        loop {
            if !self.input.is_empty()
                && let Some((head, used)) = ReplyHead::read(&self.input)?
            {
                self.input.advance(used);
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Poll::Ready(Err(Unreadable("too many interim responses").into()));
                }
                continue;
            }
            if ready!(self.poll_read(scratch, cx))? == 0 {
                return Poll::Ready(Err(Fault::Closed));
            }
            self.heard = true;
        }
    }

    /// Reads into the buffer that all share, and from there behind `input`.
    fn poll_read(&mut self, scratch: &RefCell<BytesMut>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = scratch.borrow_mut();
        scratch.clear();
        let read = ready!(pin!(self.stream.read_buf(&mut *scratch)).poll(cx))?;
        self.full = read >= LARGE;
        if self.input.is_empty() {
            self.input = Bytes::copy_from_slice(&scratch);
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.input));
            joined.extend_from_slice(&scratch);
            self.input = joined.freeze();
        }
        Poll::Ready(Ok(read))
    }

    /// Reads into a buffer of its own, which is handed on without a copy.
    fn poll_read_bulk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bulk.capacity() < LARGE {
            self.bulk.reserve(BULK);
        }
        let read = ready!(pin!(self.stream.read_buf(&mut self.bulk)).poll(cx))?;
        self.full = read >= LARGE;
        self.input = self.bulk.split().freeze();
        Poll::Ready(Ok(read))
    }

    /// Makes it ready for the next request; says whether that may come: nothing may be left of the last one.
    pub(super) fn rest(&mut self) -> bool {
        self.bulk = BytesMut::new();
        self.full = false;
        self.heard = false;
        self.interim = 0;
        self.reused = true;
        self.idle_since = Instant::now();
        std::mem::take(&mut self.input).is_empty()
    }

    /// Whether nothing has come: neither the end nor what nobody asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

impl UpstreamBody {
    pub(in crate::ingress) fn new(
        head: &ReplyHead,
        outgoing: Outgoing,
        lane: Lane,
        slot: Option<Slot>,
        pools: Rc<Pools>,
    ) -> Self {
        let bodiless = *outgoing.method() == Method::HEAD
            || head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = if bodiless { Some(Framing::None) } else { head.framing };
        let length = match bodiless {
            true => Some(0),
            false => head.headers.get(header::CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.parse().ok()),
        };
        let (decoder, keep_alive) = (framing.map(Decoder::new), head.keep_alive);
        Self { lane: Some(lane), outgoing, decoder, length, keep_alive, trailers: None, compressor: None, slot, pools }
    }

    /// Returns how many bytes are to come, if the head said so.
    pub(in crate::ingress) fn length(&self) -> Option<u64> {
        match self.lane {
            _ if self.compressor.is_some() => None,
            Some(Lane::Stream(_)) => self.length,
            _ => self.decoder.as_ref().and_then(Decoder::remaining),
        }
    }

    /// Whether it is known that nothing is to come, trailers among it.
    pub(in crate::ingress) fn is_end(&self) -> bool {
        self.compressor.is_none() && matches!(&self.lane, Some(Lane::Stream(stream)) if stream.is_end())
    }

    /// Compresses what is to come.
    pub(in crate::ingress) fn compress(&mut self, compressor: Compressor) {
        self.compressor = Some(Box::new(compressor));
    }

    /// Returns what came after the last byte; only HTTP/2 has use for it.
    pub(in crate::ingress) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Sends on what is left of the request; says whether that was anything.
    pub(in crate::ingress) fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, BrokenOff> {
        match &mut self.lane {
            Some(Lane::Wire(wire)) if !self.outgoing.is_sent() => wire.send(&mut self.outgoing, cx),
            Some(Lane::Stream(stream)) if !self.outgoing.is_complete() || !stream.is_sent() => {
                stream.send(&mut self.outgoing, cx)
            }
            _ => Ok(false),
        }
    }

    /// Returns the next bytes.
    pub(in crate::ingress) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        for _ in 0..PIECES {
            let step = self.poll_whole(cx);
            let Some(compressor) = &mut self.compressor else { return step };
            let out = match step {
                Poll::Ready(Some(Ok(data))) => compressor.write(&data),
                Poll::Ready(Some(Err(_))) => return step,
                Poll::Ready(None) => {
                    let last = compressor.finish();
                    return Poll::Ready((!last.is_empty()).then_some(Ok(last)));
                }
                // Nothing more is there for now: the client gets what is.
                Poll::Pending => {
                    let out = compressor.flush();
                    return if out.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(out))) };
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(out)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns the next bytes as they come. At the end the connection goes back to its pool; trailers of HTTP/1.1 are dropped.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        let step = match &mut self.lane {
            None => Ok(None),
            Some(Lane::Stream(stream)) => ready!(stream.poll_data(cx)),
            Some(Lane::Wire(wire)) => ready!(poll_piece(wire, &mut self.decoder, &self.pools, cx)),
        };
        if !matches!(step, Ok(Some(_))) {
            self.slot = None;
            match self.lane.take() {
                Some(Lane::Wire(wire))
                    if step.is_ok() && self.decoder.is_some() && self.keep_alive && self.outgoing.is_sent() =>
                {
                    self.pools.give(wire);
                }
                Some(Lane::Stream(mut stream)) => self.trailers = stream.take_trailers(),
                _ => {}
            }
        }
        Poll::Ready(step.transpose())
    }

    /// Takes the connection out after a 101, with what was read beyond the head.
    pub(in crate::ingress) fn into_stream(self) -> Option<(UpstreamStream, Bytes, Option<Slot>)> {
        match self.lane {
            Some(Lane::Wire(wire)) => Some((wire.stream, wire.input, self.slot)),
            _ => None,
        }
    }
}

fn poll_piece(
    wire: &mut Wire,
    decoder: &mut Option<Decoder>,
    pools: &Pools,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, Fault>> {
    loop {
        let mut large = wire.full;
        match decoder {
            None if wire.input.is_empty() => {}
            None => return Poll::Ready(Ok(Some(std::mem::take(&mut wire.input)))),
            Some(decoder) => {
                let malformed = |_| Fault::Unreadable(Unreadable("body: malformed"));
                match decoder.decode(&wire.input).map_err(malformed)? {
                    Piece::Data(range) => {
                        let mut data = wire.input.split_to(range.end);
                        data.advance(range.start);
                        return Poll::Ready(Ok(Some(data)));
                    }
                    Piece::End(used) => {
                        wire.input.advance(used);
                        return Poll::Ready(Ok(None));
                    }
                    Piece::More(used) => wire.input.advance(used),
                }
                large |= decoder.remaining().is_some_and(|left| left >= LARGE as u64);
            }
        }
        let read = if large { wire.poll_read_bulk(cx) } else { wire.poll_read(&pools.scratch, cx) };
        if ready!(read)? == 0 {
            return Poll::Ready(if decoder.is_none() { Ok(None) } else { Err(Fault::Closed) });
        }
    }
}

//! The body of a request on its way from the client's connection.

use std::{
    future::poll_fn,
    io::ErrorKind,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    body::{Decoder, Piece},
    response::CONTINUE,
};
use crate::ingress::{deadline::Deadline, proxy::Uplink, server::Core, upstream::Feed};

/// What is read at once of a body.
const BODY_READ: usize = 64 * 1024;

/// The body of a request, from the client's connection into the feed of the upstream's.
pub(super) struct Upload<'a, S> {
    pub(super) core: &'a Core,
    pub(super) stream: &'a mut S,
    pub(super) input: &'a mut BytesMut,
    pub(super) decoder: Decoder,
    pub(super) feed: Option<Rc<Feed>>,
    pub(super) ahead: &'static [u8],
    pub(super) expects: bool,
    /// How much of the body the route still takes.
    pub(super) left: u64,
    /// The client has ended its side. Some do so after their request and still read the answer.
    pub(super) ended: bool,
}

/// A body that is read whole before anything is done with it.
pub(super) struct Whole {
    pub(super) decoder: Decoder,
    pub(super) expects: bool,
    pub(super) longest: usize,
}

impl Whole {
    /// Reads it, or says which status it gets: too long, too slow, or broken.
    pub(super) async fn read<S: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        stream: &mut S,
        input: &mut BytesMut,
        deadline: &mut Deadline,
    ) -> Result<Vec<u8>, StatusCode> {
        let mut body = Vec::new();
        let is_long = |length: u64| usize::try_from(length).map_or(true, |length| length > self.longest);
        if self.decoder.remaining().is_some_and(is_long) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut ahead = if self.expects { CONTINUE } else { b"" };
        poll_fn(|cx| {
            loop {
                match self.decoder.decode(input) {
                    Ok(Piece::Data(range)) => {
                        body.extend_from_slice(input.get(range.clone()).unwrap_or_default());
                        input.advance(range.end);
                        if body.len() > self.longest {
                            return Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE));
                        }
                        continue;
                    }
                    Ok(Piece::End(used)) => {
                        input.advance(used);
                        return Poll::Ready(Ok(std::mem::take(&mut body)));
                    }
                    Ok(Piece::More(used)) => input.advance(used),
                    Err(reject) => {
                        let status = StatusCode::from_u16(reject.status).unwrap_or(StatusCode::BAD_REQUEST);
                        return Poll::Ready(Err(status));
                    }
                }
                let moved = match ahead.is_empty() {
                    false => Pin::new(&mut *stream)
                        .poll_write(cx, ahead)
                        .map(|written| written.map(|written| ahead = ahead.get(written..).unwrap_or_default())),
                    true => {
                        input.reserve(1024);
                        let read = pin!(stream.read_buf(input)).poll(cx);
                        read.map(
                            |read| if matches!(read, Ok(1..)) { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) },
                        )
                    }
                };
                match moved {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(StatusCode::BAD_REQUEST)),
                    Poll::Pending => return deadline.poll(cx).map(|()| Err(StatusCode::REQUEST_TIMEOUT)),
                }
            }
        })
        .await
    }
}

impl<S> Upload<'_, S> {
    /// Whether nothing more of the body is to come.
    pub(super) fn is_done(&self) -> bool {
        self.decoder.is_end()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Uplink for Upload<'_, S> {
    fn go_ahead(&mut self) {
        if std::mem::take(&mut self.expects) {
            self.ahead = CONTINUE;
        }
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        if !self.ahead.is_empty() {
            let written = ready!(Pin::new(&mut *self.stream).poll_write(cx, self.ahead));
            let written = written.map_err(|_| StatusCode::BAD_REQUEST)?;
            self.ahead = self.ahead.get(written..).unwrap_or_default();
            if self.ahead.is_empty() {
                let _ = Pin::new(&mut *self.stream).poll_flush(cx);
            }
            return Poll::Ready(Ok(()));
        }
        let Some(feed) = &self.feed else { return Poll::Pending };
        if !feed.wants() {
            return Poll::Pending;
        }
        loop {
            match self.decoder.decode(self.input) {
                Ok(Piece::Data(range)) => {
                    let mut data = self.input.split_to(range.end);
                    data.advance(range.start);
                    let Some(left) = self.left.checked_sub(data.len() as u64) else {
                        feed.break_off();
                        return Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE));
                    };
                    self.left = left;
                    feed.push(data.freeze());
                    return Poll::Ready(Ok(()));
                }
                Ok(Piece::End(used)) => {
                    self.input.advance(used);
                    feed.end();
                    return Poll::Ready(Ok(()));
                }
                Ok(Piece::More(used)) => self.input.advance(used),
                Err(reject) => {
                    feed.break_off();
                    return Poll::Ready(Err(StatusCode::from_u16(reject.status).unwrap_or(StatusCode::BAD_REQUEST)));
                }
            }
            let wanted = self.decoder.remaining().and_then(|left| usize::try_from(left).ok()).unwrap_or(BODY_READ);
            self.input.reserve(wanted.clamp(1024, BODY_READ));
            let read = ready!(pin!(self.stream.read_buf(self.input)).poll(cx));
            if !matches!(read, Ok(1..)) {
                feed.break_off();
                return Poll::Ready(Err(StatusCode::BAD_REQUEST));
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        // What comes early is the next request; one is enough to know that there is still somebody.
        if !self.ended && self.is_done() && self.input.is_empty() {
            let read = self.core.poll_read_shared(self.stream, self.input, cx);
            self.ended = matches!(read, Poll::Ready(Ok(0) | Err(_)));
        }
        self.ended
    }

    fn is_owed(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.wants()) && !self.decoder.is_end()
    }
}

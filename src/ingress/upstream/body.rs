//! The body of a request on its way to an upstream.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    body::{Body, Frame, Incoming},
};

/// A body that does not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::ingress) enum BrokenOff {
    /// The client went away, or its framing makes no sense.
    #[error("the client's body broke off")]
    Client,
    /// The route takes no more.
    #[error("the client's body is longer than the route takes")]
    TooLong,
}

impl BrokenOff {
    /// Returns the answer's status, if there is still somebody who can be answered.
    pub(in crate::ingress) fn status(self) -> StatusCode {
        match self {
            Self::Client => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// What is sent upstream after the head.
pub(in crate::ingress) enum RequestBody {
    /// Nothing.
    Empty,
    /// What an HTTP/1.1 connection feeds in.
    Fed(Rc<Feed>),
    /// What comes on an HTTP/2 stream.
    Stream {
        incoming: Incoming,
        /// How much of it the route still takes.
        left: u64,
    },
}

/// One chunk between a client's connection and an upstream's. Both are polled by the same task, the client
/// first, so nobody needs waking.
#[derive(Debug)]
pub(in crate::ingress) struct Feed {
    length: Option<u64>,
    state: RefCell<State>,
}

#[derive(Debug)]
enum State {
    Wanting,
    Holding(Bytes),
    Ended,
    Broken,
}

impl Feed {
    pub(in crate::ingress) fn new(length: Option<u64>) -> Rc<Self> {
        Rc::new(Self { length, state: RefCell::new(State::Wanting) })
    }

    /// Says whether the next chunk has room.
    pub(in crate::ingress) fn wants(&self) -> bool {
        matches!(*self.state.borrow(), State::Wanting)
    }

    pub(in crate::ingress) fn push(&self, chunk: Bytes) {
        debug_assert!(self.wants(), "a chunk is only pushed where the last was taken");
        *self.state.borrow_mut() = State::Holding(chunk);
    }

    pub(in crate::ingress) fn end(&self) {
        *self.state.borrow_mut() = State::Ended;
    }

    pub(in crate::ingress) fn break_off(&self) {
        *self.state.borrow_mut() = State::Broken;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Fed(feed) => {
                let mut state = feed.state.borrow_mut();
                match std::mem::replace(&mut *state, State::Wanting) {
                    State::Wanting => Poll::Pending,
                    State::Holding(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    State::Ended => {
                        *state = State::Ended;
                        Poll::Ready(None)
                    }
                    State::Broken => {
                        *state = State::Broken;
                        Poll::Ready(Some(Err(BrokenOff::Client)))
                    }
                }
            }
            Self::Stream { incoming, left } => loop {
                return match Pin::new(&mut *incoming).poll_frame(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(None) => Poll::Ready(None),
                    Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BrokenOff::Client))),
                    Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                        Poll::Ready(Some(match left.checked_sub(length) {
                            Some(rest) => {
                                *left = rest;
                                Ok(frame)
                            }
                            None => Err(BrokenOff::TooLong),
                        }))
                    }
                    // Trailers are not passed on: they could say again what the head said otherwise.
                    Poll::Ready(Some(Ok(_))) => continue,
                };
            },
        }
    }
}

impl RequestBody {
    /// Whether it comes from a client that may keep us waiting, and not from a connection that is pumped.
    pub(super) fn is_pulled(&self) -> bool {
        matches!(self, Self::Stream { .. })
    }

    /// Returns how long it is, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Fed(feed) => feed.length,
            Self::Stream { incoming, .. } => incoming.size_hint().exact(),
        }
    }
}

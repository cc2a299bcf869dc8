//! The way of one request to an upstream, whichever HTTP is spoken there.

use std::{
    cell::RefCell,
    task::{Context, Poll},
};

use bytes::BytesMut;

use super::{Outgoing, Wire, body::BrokenOff, h2::Stream, wire::Fault};
use crate::ingress::h1::reply::ReplyHead;

/// The way of one request.
pub(in crate::ingress) enum Lane {
    /// A connection of HTTP/1.1, for as long as the request takes.
    Wire(Box<Wire>),
    /// A stream of HTTP/2.
    Stream(Box<Stream>),
}

impl Lane {
    /// Sends what can be sent of a request; says whether that was anything.
    pub(in crate::ingress) fn send(
        &mut self,
        outgoing: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Result<bool, BrokenOff> {
        match self {
            Self::Wire(wire) => wire.send(outgoing, cx),
            Self::Stream(stream) => stream.send(outgoing, cx),
        }
    }

    /// Waits for the head of the response.
    pub(in crate::ingress) fn poll_head(
        &mut self,
        scratch: &RefCell<BytesMut>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ReplyHead, Fault>> {
        match self {
            Self::Wire(wire) => wire.poll_head(scratch, cx),
            Self::Stream(stream) => stream.poll_head(cx),
        }
    }

    /// Whether the upstream may just have closed an idle connection at the moment we took it.
    pub(in crate::ingress) fn was_stale(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.was_stale(),
            Self::Stream(stream) => stream.was_stale(),
        }
    }

    /// Whether nothing of an answer has come.
    pub(in crate::ingress) fn was_silent(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.was_silent(),
            Self::Stream(stream) => stream.was_silent(),
        }
    }

    /// Whether the upstream says that it did nothing for the request.
    pub(in crate::ingress) fn was_unprocessed(&self) -> bool {
        match self {
            Self::Wire(_) => false,
            Self::Stream(stream) => stream.was_unprocessed(),
        }
    }

    /// Whether the upstream gave up this request, and nothing else.
    pub(in crate::ingress) fn was_reset(&self) -> bool {
        match self {
            Self::Wire(_) => false,
            Self::Stream(stream) => stream.was_reset(),
        }
    }

    /// Lets nothing more be sent where no answer comes from.
    pub(in crate::ingress) fn give_up(&self) {
        if let Self::Stream(stream) = self {
            stream.give_up();
        }
    }
}

//! What waits to be written to a client, so that what is small leaves in one write.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::body::{Encoder, WrongLength};

/// Data below this is copied behind the head.
const COALESCE: usize = 16 * 1024;

/// What waits to be written: the head with small data, then large data, then what ends its frame.
pub(super) struct Outbound {
    pub(super) head: BytesMut,
    pub(super) data: Bytes,
    pub(super) after: &'static [u8],
}

impl Outbound {
    pub(super) fn has_room(&self) -> bool {
        self.data.is_empty() && self.after.is_empty() && self.head.len() < COALESCE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.data.is_empty() && self.after.is_empty()
    }

    pub(super) fn push(&mut self, encoder: &mut Encoder, data: Bytes) -> Result<(), WrongLength> {
        if self.head.len() + data.len() <= COALESCE {
            return encoder.put(&data, &mut self.head);
        }
        let frame = encoder.frame(data.len())?;
        self.head.extend_from_slice(frame.before());
        self.data = data;
        self.after = frame.after;
        Ok(())
    }

    pub(super) fn end(&mut self, last: &'static [u8]) {
        self.head.extend_from_slice(last);
    }

    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let written = if self.data.is_empty() && self.after.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, &self.head))?
        } else {
            let parts = [IoSlice::new(&self.head), IoSlice::new(&self.data), IoSlice::new(self.after)];
            let begin = usize::from(self.head.is_empty());
            ready!(Pin::new(stream).poll_write_vectored(cx, parts.get(begin..).unwrap_or_default()))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let from_head = written.min(self.head.len());
        self.head.advance(from_head);
        let from_data = (written - from_head).min(self.data.len());
        self.data.advance(from_data);
        self.after = self.after.get(written - from_head - from_data..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }
}

//! A request on its way to an upstream: the head, written once, and the body as it comes.

use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::{
    HeaderMap, Method, Request, Uri,
    body::{Body, Frame},
    header::{self, HeaderName},
};
use tokio::io::AsyncWrite;

use super::{Ends, RequestBody, body::BrokenOff};
use crate::ingress::{
    Http,
    canonical::CanonicalPath,
    h1::{
        body::Encoder,
        response::{put_decimal, put_field},
    },
    headers::{self, Told},
};

/// Data below this is copied behind the head.
const COALESCE: usize = 16 * 1024;

/// What a whole day's silence of a stream of messages may come to: as with a WebSocket, pings are the ends' business.
pub(in crate::ingress) const SILENCE: Duration = Duration::from_secs(60 * 60);

/// A request that is on its way upstream.
pub(in crate::ingress) struct Outgoing {
    method: Method,
    /// Whose it is, for servers that are told so.
    ends: Option<Ends>,
    /// Its head, for HTTP/2.
    packed: Option<Box<Packed>>,
    /// The head, and small data behind it.
    head: BytesMut,
    /// How much of `head` was written.
    written: usize,
    /// What comes after `head`, if it is too large to be copied.
    data: Bytes,
    after: &'static [u8],
    body: RequestBody,
    encoder: Encoder,
    /// All of the body has been taken.
    complete: bool,
    unflushed: bool,
    /// Something of it was written.
    begun: bool,
    /// Something of the body was taken.
    taken: bool,
    /// The upstream takes no more of it.
    refused: bool,
}

struct Packed {
    authority: Vec<u8>,
    target: String,
    headers: HeaderMap,
}

impl Outgoing {
    /// Makes the request as the upstream will see it: exactly what was matched.
    pub(in crate::ingress) fn new(
        http: Http,
        method: Method,
        (path, query): (&CanonicalPath, Option<&str>),
        (headers, nominated): (&HeaderMap, &[HeaderName]),
        told: &Told<'_>,
        body: RequestBody,
    ) -> Self {
        match http {
            Http::One | Http::Opaque | Http::Datagrams => {}
            Http::Two => return Self::packed(method, (path, query), (headers, nominated), told, body),
        }
        let mut head = BytesMut::with_capacity(1000 + headers.len() * 48);
        head.put_slice(method.as_str().as_bytes());
        head.put_u8(b' ');
        head.put_slice(path.as_str().as_bytes());
        if let Some(query) = query {
            head.put_u8(b'?');
            head.put_slice(query.as_bytes());
        }
        head.put_slice(b" HTTP/1.1\r\n");
        put_field(&mut head, b"host", told.host());
        headers::to_upstream(&mut head, headers, nominated, told);
        let encoder = match body.length() {
            Some(0) => Encoder::Empty,
            Some(length) => Encoder::Length(length),
            None => Encoder::Chunked,
        };
        match encoder {
            Encoder::Length(length) => {
                head.put_slice(b"content-length: ");
                put_decimal(&mut head, length);
                head.put_slice(b"\r\n");
            }
            Encoder::Chunked => head.put_slice(b"transfer-encoding: chunked\r\n"),
            // RFC 9110 §8.6: where a body would mean something, its absence is said.
            _ if matches!(method, Method::POST | Method::PUT | Method::PATCH) => {
                head.put_slice(b"content-length: 0\r\n");
            }
            _ => {}
        }
        head.put_slice(b"\r\n");
        Self::whole(method, told.ends, head, None, body, encoder)
    }

    /// The same for HTTP/2.
    fn packed(
        method: Method,
        (path, query): (&CanonicalPath, Option<&str>),
        (headers, nominated): (&HeaderMap, &[HeaderName]),
        told: &Told<'_>,
        body: RequestBody,
    ) -> Self {
        let mut fields = HeaderMap::with_capacity(headers.len() + 8);
        headers::to_upstream(&mut fields, headers, nominated, told);
        if let Some(length @ 1..) = body.length() {
            fields.insert(header::CONTENT_LENGTH, length.into());
        }
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_string(),
        };
        let packed = Packed { authority: told.host().to_vec(), target, headers: fields };
        Self::whole(method, told.ends, BytesMut::new(), Some(Box::new(packed)), body, Encoder::Empty)
    }

    fn whole(
        method: Method,
        ends: Option<Ends>,
        head: BytesMut,
        packed: Option<Box<Packed>>,
        body: RequestBody,
        encoder: Encoder,
    ) -> Self {
        Self {
            method,
            ends,
            packed,
            head,
            written: 0,
            data: Bytes::new(),
            after: b"",
            complete: matches!(body, RequestBody::Empty),
            body,
            encoder,
            unflushed: false,
            begun: false,
            taken: false,
            refused: false,
        }
    }

    /// Returns the head for HTTP/2; `None` if it cannot be said there.
    pub(super) fn request(&self, scheme: &'static str) -> Option<Request<()>> {
        let packed = self.packed.as_ref()?;
        let authority = packed.authority.as_slice();
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(packed.target.as_str());
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.build().ok()?;
        *request.version_mut() = hyper::Version::HTTP_2;
        request.headers_mut().clone_from(&packed.headers);
        Some(request)
    }

    /// Returns whose it is.
    pub(in crate::ingress) fn ends(&self) -> Option<Ends> {
        self.ends
    }

    /// Says that its head has left.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// Says that the upstream takes no more of it.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether nothing more of the body is to come.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns the next piece of the body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.complete = true;
                return Poll::Ready(None);
            };
            self.taken = true;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if data.is_empty() => {}
                Ok(Ok(data)) => return Poll::Ready(Some(Ok(data))),
                // Trailers are not passed on: they could say again what the head said otherwise.
                Ok(Err(_)) => {}
                Err(broken) => return Poll::Ready(Some(Err(broken))),
            }
        }
    }

    /// Makes it ready for another connection after the upstream said that it did nothing for it.
    pub(in crate::ingress) fn rewind_unprocessed(&mut self) -> bool {
        if !self.taken {
            self.begun = false;
        }
        self.rewind()
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Whether all of it has been written.
    pub(super) fn is_sent(&self) -> bool {
        self.complete && self.is_written() && !self.unflushed && !self.refused
    }

    /// Whether the next step is the client's, whose body is pulled.
    pub(in crate::ingress) fn is_owed(&self) -> bool {
        self.body.is_pulled() && !self.complete && !self.refused && self.is_written()
    }

    /// Makes it ready for another connection, if it may be sent again: RFC 9110 §9.2.2 lets what is idempotent be
    /// repeated, and what never left may be sent anyway.
    pub(in crate::ingress) fn rewind(&mut self) -> bool {
        let repeatable = matches!(self.body, RequestBody::Empty) && self.method.is_idempotent();
        if repeatable {
            self.written = 0;
        }
        self.refused = false;
        repeatable || !self.begun
    }

    /// Writes what can be written; says whether that was anything.
    pub(in crate::ingress) fn send<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Result<bool, BrokenOff> {
        let mut moved = false;
        while !self.refused {
            moved |= self.take(cx)?;
            if self.is_written() {
                if self.unflushed {
                    match Pin::new(&mut *stream).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.unflushed = false,
                        Poll::Ready(Err(_)) => self.refused = true,
                        Poll::Pending => {}
                    }
                }
                break;
            }
            let head = self.head.get(self.written..).unwrap_or_default();
            let step = if self.data.is_empty() && self.after.is_empty() {
                Pin::new(&mut *stream).poll_write(cx, head)
            } else {
                let parts = [IoSlice::new(head), IoSlice::new(&self.data), IoSlice::new(self.after)];
                let begin = usize::from(head.is_empty());
                Pin::new(&mut *stream).poll_write_vectored(cx, parts.get(begin..).unwrap_or_default())
            };
            match step {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.advance(written);
                    moved = true;
                }
                // Its answer may have come before it closed.
                Poll::Ready(_) => self.refused = true,
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    /// Takes what the body has, as far as there is room.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<bool, BrokenOff> {
        let mut moved = false;
        while !self.complete && self.data.is_empty() && self.after.is_empty() && self.waiting() < COALESCE {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { break };
            moved = true;
            match frame {
                Some(frame) => {
                    let data = frame?.into_data().unwrap_or_default();
                    if self.waiting() + data.len() <= COALESCE {
                        self.encoder.put(&data, &mut self.head).map_err(|_| BrokenOff::Client)?;
                    } else {
                        let frame = self.encoder.frame(data.len()).map_err(|_| BrokenOff::Client)?;
                        self.head.put_slice(frame.before());
                        self.data = data;
                        self.after = frame.after;
                    }
                }
                None => {
                    self.head.put_slice(self.encoder.finish().map_err(|_| BrokenOff::Client)?);
                    self.complete = true;
                }
            }
        }
        Ok(moved)
    }

    /// Bytes of `head` that wait.
    fn waiting(&self) -> usize {
        self.head.len() - self.written
    }

    fn is_written(&self) -> bool {
        self.waiting() == 0 && self.data.is_empty() && self.after.is_empty()
    }

    fn advance(&mut self, written: usize) {
        self.begun = true;
        self.unflushed = true;
        let from_head = written.min(self.waiting());
        self.written += from_head;
        let from_data = (written - from_head).min(self.data.len());
        self.data.advance(from_data);
        self.after = self.after.get(written - from_head - from_data..).unwrap_or_default();
        // A head without a body is kept, because it may have to be sent again.
        if self.waiting() == 0 && !matches!(self.body, RequestBody::Empty) {
            self.head.clear();
            self.written = 0;
        }
    }
}

//! Connections to upstreams: one at work belongs to its exchange and is driven by that exchange's task;
//! an idle one waits in its core's pool. No task of its own, no lock, no sharing between cores.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::{
        TrySendError,
        http1::{self, Connection, SendRequest},
    },
    http::response::Parts,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::RequestBody;

/// Idle connections of one pool.
const MOST_IDLE: usize = 32;
/// Servers often close after a minute; being first is cheaper than a retry.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// What is read at once from an upstream.
const READ_BUFFER: usize = 64 * 1024;

/// The two kinds of connection to an upstream.
pub(in crate::ingress) enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to an upstream that speaks HTTP/1.1.
pub(in crate::ingress) struct Wire {
    pool: u32,
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<UpstreamStream>, RequestBody>,
    /// The connection has ended, or it is no longer HTTP.
    over: bool,
    /// It has carried a request before.
    pub(in crate::ingress) reused: bool,
    idle_since: Instant,
}

/// The idle connections of one core.
#[derive(Default)]
pub(in crate::ingress) struct Pools {
    idle: RefCell<HashMap<u32, Vec<Wire>>>,
}

/// A response whose body is still to come.
pub(in crate::ingress) struct Arrival {
    pub(in crate::ingress) head: Parts,
    pub(in crate::ingress) body: UpstreamBody,
}

/// The body of a response, with the connection that it comes over.
pub(in crate::ingress) struct UpstreamBody {
    incoming: Incoming,
    wire: Option<Wire>,
    pools: Rc<Pools>,
}

impl Wire {
    pub(in crate::ingress) async fn new(pool: u32, stream: UpstreamStream) -> hyper::Result<Self> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(READ_BUFFER).max_headers(128).handshake(TokioIo::new(stream)).await?;
        Ok(Self { pool, sender, connection, over: false, reused: false, idle_since: Instant::now() })
    }

    /// Hands a request over; it is sent and answered only while the wire is driven.
    pub(in crate::ingress) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Lets the connection work. What goes wrong is told to who waits for the response or its body.
    pub(in crate::ingress) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.over {
            self.over = self.connection.poll_without_shutdown(cx).is_ready();
        }
    }

    /// Returns the stream after a 101, with what was read beyond the head.
    pub(in crate::ingress) fn into_stream(self) -> (UpstreamStream, Bytes) {
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        !self.over && self.sender.is_ready()
    }
}

impl Pools {
    /// Takes the connection that was used last, if it still lives.
    pub(in crate::ingress) fn take(&self, pool: u32) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        let wires = idle.get_mut(&pool)?;
        while let Some(mut wire) = wires.pop() {
            if wire.is_usable(&mut Context::from_waker(Waker::noop())) {
                return Some(wire);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless it is not at rest.
    fn give(&self, mut wire: Wire, cx: &mut Context<'_>) {
        if wire.is_usable(cx) {
            wire.reused = true;
            wire.idle_since = Instant::now();
            let mut idle = self.idle.borrow_mut();
            let wires = idle.entry(wire.pool).or_default();
            if wires.len() < MOST_IDLE {
                wires.push(wire);
            }
        }
    }

    /// Closes what was idle for too long or is closed at the other end.
    pub(in crate::ingress) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, wires| {
            wires.retain_mut(|wire| {
                now.duration_since(wire.idle_since) < LONGEST_IDLE
                    && wire.is_usable(&mut Context::from_waker(Waker::noop()))
            });
            !wires.is_empty()
        });
    }
}

impl UpstreamBody {
    pub(in crate::ingress) fn new(incoming: Incoming, wire: Wire, pools: Rc<Pools>) -> Self {
        Self { incoming, wire: Some(wire), pools }
    }

    /// Returns how many bytes are to come, if the head said so.
    pub(in crate::ingress) fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Lets the connection work without wanting data.
    pub(in crate::ingress) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(wire) = &mut self.wire {
            wire.drive(cx);
        }
    }

    /// Returns the next bytes. At the end the connection goes back to its pool; trailers are dropped.
    pub(in crate::ingress) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => {}
                },
                Poll::Ready(Some(Err(error))) => {
                    self.wire = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    if let Some(wire) = self.wire.take() {
                        self.pools.give(wire, cx);
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    driven = true;
                    self.drive(cx);
                }
            }
        }
    }

    /// Takes the connection out after a 101.
    pub(in crate::ingress) fn into_wire(self) -> Option<Wire> {
        self.wire
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

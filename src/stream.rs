//! What a plane is handed: a stream or a datagram with the origin that it was accepted with.

use std::net::SocketAddr;

use tokio::{io::DuplexStream, net::TcpStream, sync::mpsc};

use crate::origin::Origin;

/// Makes an enum of streams a stream itself.
macro_rules! streams {
    ($name:ident { $($variant:ident),+ }) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => std::pin::Pin::new(stream).poll_read(cx, buf),)+
                }
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => std::pin::Pin::new(stream).poll_write(cx, buf),)+
                }
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => std::pin::Pin::new(stream).poll_write_vectored(cx, bufs),)+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => std::pin::Pin::new(stream).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => std::pin::Pin::new(stream).poll_shutdown(cx),)+
                }
            }
        }
    };
}
pub(crate) use streams;

/// An accepted stream: from a kernel socket, or out of the tunnel.
#[derive(Debug)]
pub struct Accepted {
    /// The bytes.
    pub stream: Stream,
    /// Where it came from; never derived again.
    pub origin: Origin,
    /// The client's address. Inside the tunnel: the peer's inner address.
    pub client: SocketAddr,
    /// The address that was asked for.
    pub local: SocketAddr,
}

/// The two kinds of byte stream.
#[derive(Debug)]
pub enum Stream {
    /// A connection of the kernel's.
    Kernel(TcpStream),
    /// A connection of the in-process stack inside the tunnel. It ends when its peer is removed.
    Inner(DuplexStream),
}

streams!(Stream { Kernel, Inner });

/// A datagram out of the tunnel, with the way back.
#[derive(Debug)]
pub struct Datagram {
    /// Where it came from.
    pub origin: Origin,
    /// The peer's inner address.
    pub client: SocketAddr,
    /// The gate's inner address that was asked.
    pub local: SocketAddr,
    /// The payload.
    pub payload: Vec<u8>,
    /// Takes at most one answer; a full or closed queue drops it, as a network would.
    pub reply: mpsc::Sender<Reply>,
}

/// The answer to a [`Datagram`].
#[derive(Debug)]
pub struct Reply {
    /// From the address that was asked.
    pub from: SocketAddr,
    /// To the client.
    pub to: SocketAddr,
    /// The payload.
    pub payload: Vec<u8>,
}

/// What comes to one plane out of the tunnel. Both queues are bounded; what does not fit is refused there.
#[derive(Debug)]
pub struct Inlet {
    /// Connections.
    pub streams: mpsc::Receiver<Accepted>,
    /// Datagrams.
    pub datagrams: mpsc::Receiver<Datagram>,
}

/// The gate's end of an [`Inlet`].
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Connections.
    pub streams: mpsc::Sender<Accepted>,
    /// Datagrams.
    pub datagrams: mpsc::Sender<Datagram>,
}

/// Makes the two ends, each queue holding at most `bound` items.
pub fn inlet(bound: usize) -> (Outlet, Inlet) {
    let (streams, streams_end) = mpsc::channel(bound);
    let (datagrams, datagrams_end) = mpsc::channel(bound);
    (Outlet { streams, datagrams }, Inlet { streams: streams_end, datagrams: datagrams_end })
}

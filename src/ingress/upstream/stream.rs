//! The bytes between an upstream and us.

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// The kinds of connection to an upstream.
pub(in crate::ingress) enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

crate::stream::streams!(UpstreamStream { Plain, Tls, Unix });

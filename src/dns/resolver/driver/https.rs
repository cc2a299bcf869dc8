//! DNS over HTTPS (RFC 8484), by POST over HTTP/2.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    client::conn::http2::{self, SendRequest},
    header,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::AbortHandle};
use tokio_rustls::client::TlsStream;

use super::line::{id_of, set_id};

const MEDIA_TYPE: &str = "application/dns-message";
/// No message is longer.
const LONGEST_MESSAGE: usize = 65535;

/// A connection.
#[derive(Debug)]
pub(super) struct Https {
    send: SendRequest<Full<Bytes>>,
    uri: Uri,
    work: AbortHandle,
}

impl Drop for Https {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Https {
    pub(super) async fn new(stream: TlsStream<TcpStream>, uri: Uri) -> io::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // Answers are short, and nobody is to make us keep more.
        builder.timer(TokioTimer::new()).initial_stream_window_size(128 << 10).initial_connection_window_size(1 << 20);
        let (send, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let work = tokio::task::spawn_local(async move {
            // Whoever asks is told what went wrong.
            let _ = connection.await;
        });
        Ok(Self { send, uri, work: work.abort_handle() })
    }

    pub(super) fn is_over(&self) -> bool {
        self.send.is_closed()
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, mut message: Vec<u8>) -> impl Future<Output = io::Result<Vec<u8>>> + use<> {
        let mut send = self.send.clone();
        let uri = self.uri.clone();
        // RFC 8484 §4.1: so that answers look the same to caches.
        let id = id_of(&message);
        set_id(&mut message, 0);
        async move {
            let request = Request::builder()
                .method(Method::POST)
                .uri(uri)
                .header(header::CONTENT_TYPE, MEDIA_TYPE)
                .header(header::ACCEPT, MEDIA_TYPE)
                .body(Full::new(Bytes::from(message)))
                .map_err(io::Error::other)?;
            let response = send.send_request(request).await.map_err(io::Error::other)?;
            let media_type = response.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
            if response.status() != StatusCode::OK || media_type != Some(MEDIA_TYPE.as_bytes()) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let body = Limited::new(response.into_body(), LONGEST_MESSAGE).collect().await;
            let mut answer = body.map_err(io::Error::other)?.to_bytes().to_vec();
            set_id(&mut answer, id);
            Ok(answer)
        }
    }
}

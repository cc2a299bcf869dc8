//! DNS over HTTPS (RFC 8484), by POST over HTTP/2.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    client::conn::http2::{self, SendRequest},
    header,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::AbortHandle};
use tokio_rustls::client::TlsStream;

use super::line::{id_of, set_id};
use crate::dns::resolver::wire::Message;

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
            if response.status() != StatusCode::OK || !is_dns_message(response.headers()) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let age = age(response.headers());
            let body = Limited::new(response.into_body(), LONGEST_MESSAGE).collect().await;
            let mut answer = body.map_err(io::Error::other)?.to_bytes().to_vec();
            set_id(&mut answer, id);
            Message::age(&mut answer, age);
            Ok(answer)
        }
    }
}

/// RFC 9110 §8.3.1: types are compared without regard to case, and may have parameters.
fn is_dns_message(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

/// RFC 8484 §5.1: so many seconds an answer lay in a cache on the way.
fn age(headers: &HeaderMap) -> u32 {
    let value = headers.get(header::AGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // RFC 9111 §1.2.2: what is too large for a number is the largest.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty();
    if digits { value.parse().unwrap_or(u32::MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn media_types_are_compared_as_http_says() {
        for (value, wanted) in [
            ("application/dns-message", true),
            ("Application/DNS-Message; charset=utf-8", true),
            ("application/dns-message ;q=1", true),
            ("application/dns-messages", false),
            ("text/html; x=application/dns-message", false),
            ("", false),
        ] {
            assert_eq!(is_dns_message(&headers(header::CONTENT_TYPE, value)), wanted, "{value}");
        }
        assert!(!is_dns_message(&HeaderMap::new()));
    }

    #[test]
    fn an_age_is_a_number() {
        for (value, wanted) in [("0", 0), ("250", 250), ("99999999999", u32::MAX), ("-1", 0), ("", 0), ("1h", 0)] {
            assert_eq!(age(&headers(header::AGE, value)), wanted, "{value}");
        }
    }
}

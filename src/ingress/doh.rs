//! DNS over HTTPS (RFC 8484): what a request asks, and what its answer tells caches.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};

use crate::{
    ingress::{
        canonical::{CanonicalHost, CanonicalPath},
        serve::{Answer, Refusal},
    },
    origin::Origin,
    questions::{Answered, Asked, LONGEST, Questions, Unanswered},
};

/// The path of the service; what follows it is the name of a device.
pub const PATH: &str = "/dns-query";

const MESSAGE: &str = "application/dns-message";

/// A resolver that takes longer than this has given up already.
const DEADLINE: Duration = Duration::from_secs(30);

/// After so long another question will be answered.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the message of a request stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its target: here it is.
    Target(Vec<u8>),
    /// It is the body.
    Body,
}

/// Finds the message of a request.
pub(super) fn place(method: &Method, query: Option<&str>, headers: &HeaderMap) -> Result<Place, Refusal> {
    match *method {
        Method::GET => from_target(query.unwrap_or_default()).map(Place::Target).map_err(Refusal::Status),
        Method::POST if is_message(headers) => Ok(Place::Body),
        Method::POST => Err(Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
        _ => Err(Refusal::Status(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

/// Answers what is no question.
pub(super) fn refused(refusal: Refusal) -> Answer {
    let mut answer = Answer::from(refusal);
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    answer
}

fn from_target(query: &str) -> Result<Vec<u8>, StatusCode> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("dns="));
    let (Some(text), None) = (values.next(), values.next()) else { return Err(StatusCode::BAD_REQUEST) };
    // RFC 8484 §6: without padding.
    if text.len() > LONGEST * 4 / 3 + 1 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let message = URL_SAFE_NO_PAD.decode(text).map_err(|_| StatusCode::BAD_REQUEST)?;
    if message.len() > LONGEST { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(message) }
}

fn is_message(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MESSAGE))
}

/// Returns what the device calls itself: the end of the path, or the label before the server's own name. What is
/// neither the service nor a device below it does not exist.
pub(super) fn device(own: &str, host: &CanonicalHost, path: &CanonicalPath) -> Result<Option<Arc<str>>, Refusal> {
    let rest = path.as_str().strip_prefix(PATH).unwrap_or_default().trim_matches('/');
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if rest.len() > 63 || !rest.chars().all(fits) {
        return Err(Refusal::Status(StatusCode::NOT_FOUND));
    }
    let label = host.as_str().strip_suffix(own).and_then(|before| before.strip_suffix('.'));
    let name = if rest.is_empty() { label } else { Some(rest) };
    Ok(name.map(|name| name.to_ascii_lowercase().into()))
}

/// Asks, and says it in HTTP.
pub(super) async fn answer(
    questions: &Questions,
    origin: Origin,
    client: IpAddr,
    device: Option<Arc<str>>,
    message: Vec<u8>,
) -> Answer {
    if message.len() > LONGEST {
        return Answer::fixed(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let asking = questions.answer(Asked { origin, client, device, message });
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(Ok(answered)) => said(answered),
        Ok(Err(Unanswered::Unreadable)) => Answer::fixed(StatusCode::BAD_REQUEST),
        Ok(Err(Unanswered::Limited)) => Refusal::Limited(PAUSE).into(),
        Ok(Err(Unanswered::Away)) => Answer::fixed(StatusCode::SERVICE_UNAVAILABLE),
        Err(_) => Answer::fixed(StatusCode::GATEWAY_TIMEOUT),
    }
}

fn said(answered: Answered) -> Answer {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
    // Another client's rules may give another answer.
    if let Ok(control) = HeaderValue::try_from(format!("private, max-age={}", answered.ttl)) {
        headers.insert(header::CACHE_CONTROL, control);
    }
    Answer { status: StatusCode::OK, headers, body: answered.message.into() }
}

/// Reads a request's head as the routes of the DNS server do; for the fuzz target.
#[doc(hidden)]
pub fn read_request(method: &[u8], query: &str, kind: &[u8]) -> Option<Vec<u8>> {
    let method = Method::from_bytes(method).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(kind).ok()?);
    match place(&method, Some(query), &headers) {
        Ok(Place::Target(message)) => Some(message),
        Ok(Place::Body) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, query: Option<&str>, kind: &'static str) -> Result<Place, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        place(&method, query, &headers).map_err(|refusal| refused(refusal).status.as_u16())
    }

    #[test]
    fn rfc8484_messages_stand_in_the_target_or_in_the_body() {
        assert_eq!(status(Method::GET, Some("dns=AAABAAAB"), ""), Ok(Place::Target(vec![0, 0, 1, 0, 0, 1])));
        assert_eq!(status(Method::GET, Some("ct&dns=-_8"), ""), Ok(Place::Target(vec![0xfb, 0xff])));
        assert_eq!(status(Method::POST, None, "Application/DNS-Message; x=y"), Ok(Place::Body));
        assert_eq!(status(Method::POST, None, "application/dns-json"), Err(415));
        assert_eq!(status(Method::HEAD, Some("dns=AAAB"), ""), Err(405));
        assert_eq!(status(Method::PUT, None, MESSAGE), Err(405));
        for query in
            [None, Some(""), Some("name=x"), Some("dns=A"), Some("dns=AA=="), Some("dns=AA&dns=AA"), Some("dns=+/8")]
        {
            assert_eq!(status(Method::GET, query, ""), Err(400), "{query:?}");
        }
        let long = format!("dns={}", "A".repeat(LONGEST * 2));
        assert_eq!(status(Method::GET, Some(&long), ""), Err(413));
    }

    #[test]
    fn a_device_stands_in_the_path_or_before_the_host() {
        let device = |host: &str, path: &str| {
            let host = CanonicalHost::parse(host).unwrap();
            let path = CanonicalPath::parse(path).unwrap();
            device("dns.home.example", &host, &path).ok().map(|name| name.as_deref().unwrap_or("").to_owned())
        };

        assert_eq!(device("dns.home.example", "/dns-query").unwrap(), "");
        assert_eq!(device("dns.home.example", "/dns-query/").unwrap(), "");
        assert_eq!(device("dns.home.example", "/dns-query/Kids-Tablet").unwrap(), "kids-tablet");
        assert_eq!(device("tv.dns.home.example", "/dns-query").unwrap(), "tv");
        assert_eq!(device("tv.dns.home.example", "/dns-query/radio").unwrap(), "radio");
        assert_eq!(device("dns.home.example", "/dns-query/a/b"), None);
        assert_eq!(device("dns.home.example", "/dns-query/a.b"), None);
    }
}

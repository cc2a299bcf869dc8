//! Small fixed answers. They depend on nothing but what is stated here: no date, no name, no version.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};

use crate::ingress::Page;

/// Why a request gets an answer of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) enum Refusal {
    /// The status says it all.
    Status(StatusCode),
    /// Over the limit, for so long.
    Limited(Duration),
}

/// An answer of ours, whole.
#[derive(Debug)]
pub(in crate::ingress) struct Answer {
    pub(in crate::ingress) status: StatusCode,
    pub(in crate::ingress) headers: HeaderMap,
    pub(in crate::ingress) body: Bytes,
}

impl Answer {
    /// An answer that says its status and no more.
    pub(in crate::ingress) fn fixed(status: StatusCode) -> Self {
        let body = match status {
            StatusCode::FORBIDDEN => "not for you\n",
            StatusCode::NOT_FOUND => "nothing here\n",
            StatusCode::PAYLOAD_TOO_LARGE => "more than is taken here\n",
            StatusCode::MISDIRECTED_REQUEST => "this host is not served on this connection\n",
            StatusCode::TOO_MANY_REQUESTS => "too many requests\n",
            StatusCode::BAD_GATEWAY => "the server behind cannot be reached\n",
            StatusCode::SERVICE_UNAVAILABLE => "not available at the moment\n",
            StatusCode::GATEWAY_TIMEOUT => "the server behind takes too long\n",
            StatusCode::REQUEST_TIMEOUT => "the request takes too long\n",
            _ => "",
        };
        Self::text(status, "text/plain; charset=utf-8", body.into())
    }

    /// Elsewhere; `None` if that cannot stand in a field.
    pub(in crate::ingress) fn redirect(status: StatusCode, location: &str) -> Option<Self> {
        let mut answer = Self::text(status, "text/plain; charset=utf-8", "".into());
        answer.headers.insert(header::LOCATION, HeaderValue::from_str(location).ok()?);
        Some(answer)
    }

    /// What a CA wants to read (RFC 8555 §8.3).
    pub(in crate::ingress) fn proof(content: Bytes) -> Self {
        let mut answer = Self::text(StatusCode::OK, "application/octet-stream", "".into());
        answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        answer.body = content;
        answer
    }

    /// Which methods may be tried here (RFC 9110 §9.3.7); what each route takes is the server's behind it to say.
    pub(in crate::ingress) fn options() -> Self {
        let mut answer = Self::text(StatusCode::NO_CONTENT, "", "".into());
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        answer.headers.insert(header::ALLOW, methods);
        answer
    }

    /// A page of the owner's.
    pub(in crate::ingress) fn page(page: &Page) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        if !page.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, page.kind.clone());
        }
        Self { status: page.status, headers, body: page.body.clone() }
    }

    pub(in crate::ingress) fn html(page: String) -> Self {
        let mut answer = Self::text(StatusCode::OK, "text/html; charset=utf-8", page.into());
        answer.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
        answer.headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        answer.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    /// 429, with the time after which another request will pass.
    fn limited(wait: Duration) -> Self {
        let mut answer = Self::fixed(StatusCode::TOO_MANY_REQUESTS);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        answer
    }

    fn text(status: StatusCode, kind: &'static str, body: Cow<'static, str>) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let body = match body {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        Self { status, headers, body }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Status(status) => Self::fixed(status),
            Refusal::Limited(wait) => Self::limited(wait),
        }
    }
}

//! Pages that another room writes: what of a request is handed on, and what comes back.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Request, StatusCode, Uri};

use crate::{
    ingress::{
        Builtin,
        proxy::{Admitted, Asked, Visitor},
        routes::Target,
        serve::{Answer, Refusal},
    },
    pages::{self, Page, Pages},
};

/// Whoever waits longer for a page has given up.
const DEADLINE: Duration = Duration::from_secs(40);

/// The page that a route leads to, if it is one that another room writes.
pub(super) fn page(target: &Target) -> Option<Page> {
    match target {
        Target::Builtin(Builtin::Page(page)) => Some(*page),
        _ => None,
    }
}

/// Whether a request's body is read.
pub(super) fn takes_body(method: &Method) -> bool {
    *method == Method::POST
}

/// Asks for a page.
pub(super) async fn answer(
    pages: &Pages,
    page: Page,
    visitor: &Visitor,
    admitted: &Admitted,
    asked: &Asked<'_>,
    body: Result<Vec<u8>, StatusCode>,
) -> Answer {
    let body = match body {
        Ok(body) => Bytes::from(body),
        Err(status) => return Refusal::Status(status).into(),
    };
    let target = match asked.query {
        Some(query) => format!("{}?{query}", asked.path.as_str()),
        None => asked.path.as_str().to_owned(),
    };
    let Ok(target) = target.parse::<Uri>() else { return Answer::fixed(StatusCode::BAD_REQUEST) };
    let mut request = Request::new(body);
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = asked.headers.clone();
    // As it was read, whichever field it stood in.
    if let Ok(host) = asked.host.as_str().parse() {
        request.headers_mut().insert(hyper::header::HOST, host);
    }
    let asked = pages::Asked { page, origin: visitor.origin, client: admitted.client, request };
    match tokio::time::timeout(DEADLINE, pages.answer(asked)).await {
        Ok(Some(response)) => {
            let (head, body) = response.into_parts();
            Answer { status: head.status, headers: head.headers, body }
        }
        Ok(None) => Answer::fixed(StatusCode::SERVICE_UNAVAILABLE),
        Err(_) => Answer::fixed(StatusCode::GATEWAY_TIMEOUT),
    }
}

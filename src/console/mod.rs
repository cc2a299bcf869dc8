//! The console: what an owner opens to see, understand and steer the edge. Pages and the API under `/api/v1`.
//!
//! The life of a request: the ingress found the console's host in the table of a peer that has a person with a role, or
//! somebody came by the control socket. `who` refuses what another page makes a browser send. Then the path is looked up:
//! `api` is a table of endpoints that the OpenAPI document is written from as well; `pages` has a function for each page,
//! over the same views; `action` is what can be done, and whose role suffices. The answers come from a [`House`],
//! which whoever knows the planes implements; nothing in here knows them, waits, or keeps anything.

pub mod action;
mod api;
mod assets;
mod pages;
mod schema;
#[cfg(test)]
mod tests;
pub mod view;
mod who;
mod words;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use jiff::tz::TimeZone;

pub use who::{Door, Visitor};

use self::{action::Action, view::Problem, who::Foreign};
use crate::history;

/// `[console]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where its pages are inside the tunnel; nothing is the control socket alone.
    pub host: Option<String>,
    /// How far they may change things.
    pub edits: Edits,
}

/// How far the console may change things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edits {
    /// As far as the visitor's role goes.
    #[default]
    All,
    /// What passes by itself.
    Runtime,
    /// Not at all.
    None,
}

/// Why something is not shown or not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As in HTTP.
    pub status: StatusCode,
    /// One sentence.
    pub detail: String,
}

impl Refused {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    fn wrong(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }
}

/// The edge as the console sees it. Its functions may wait for a disk or for servers, within bounds of their own.
pub trait House: Send + Sync {
    /// Returns the zone in which people read times.
    fn zone(&self) -> TimeZone;
    /// Returns the state of everything.
    fn status(&self) -> view::Status;
    /// Returns the questions that a filter lets through.
    fn queries(&self, filter: &history::Filter) -> Result<view::Queries, Refused>;
    /// Returns the sums of so many seconds up to now.
    fn top(&self, seconds: u32) -> Result<view::Top, Refused>;
    /// Says what would happen to a question of a client: a device's name or MAC address, a peer, or an address.
    fn why(&self, name: &str, rtype: &str, client: Option<&str>) -> Result<view::Why, Refused>;
    /// Returns the block and allow lists.
    fn lists(&self) -> Vec<view::List>;
    /// Returns the devices of the house.
    fn devices(&self) -> Vec<view::Device>;
    /// Returns the routes.
    fn routes(&self) -> Vec<view::Route>;
    /// Returns the certificates in use.
    fn certificates(&self) -> Vec<view::Certificate>;
    /// Returns the peers.
    fn peers(&self) -> Vec<view::Peer>;
    /// Returns entries of the audit log that have a text in them, older than one; it is verified on the way.
    fn audit(&self, text: Option<&str>, before: Option<u64>, limit: usize) -> view::Audit;
    /// Returns the configurations that are kept, the newest first.
    fn generations(&self) -> Result<Vec<view::Generation>, Refused>;
    /// Returns the text of one; of the last without a number.
    fn text(&self, generation: Option<u64>) -> Result<view::ConfigText, Refused>;
    /// Returns the groups of the DNS.
    fn groups(&self) -> Vec<String>;
    /// Says how far the console may change things.
    fn edits(&self) -> Edits;
    /// Does something by the same way as commands, and writes down who did it.
    fn act(&self, action: Action, visitor: &Visitor) -> Result<view::Done, Refused>;
    /// Says what changed since one; since the one before the last without a number.
    fn diff(&self, generation: Option<u64>) -> Result<String, Refused>;
}

/// Answers a request whose body has been read.
pub fn answer(house: &dyn House, visitor: &Visitor, request: &Request<Bytes>) -> Response<Bytes> {
    let mut response = match who::guard(visitor.door, request.method(), request.headers()) {
        Err(Foreign::Host) => problem(&Refused::new(
            StatusCode::FORBIDDEN,
            "this is reached by the name of the console, or as localhost where the socket is forwarded to",
        )),
        Err(Foreign::Site) => problem(&Refused::new(StatusCode::FORBIDDEN, "another page sent this")),
        Ok(()) => dispatch(house, visitor, request),
    };
    secure(response.headers_mut());
    response
}

fn dispatch(house: &dyn House, visitor: &Visitor, request: &Request<Bytes>) -> Response<Bytes> {
    if let Some(answered) = api::answer(house, visitor, request) {
        return answered.unwrap_or_else(|refused| problem(&refused));
    }
    let path = request.uri().path();
    if path.starts_with("/api/") {
        return problem(&Refused::new(StatusCode::NOT_FOUND, "there is nothing here"));
    }
    assets::answer(path, request.headers())
        .or_else(|| pages::answer(house, visitor, request))
        .or_else(|| pages::act(house, visitor, request))
        .or_else(|| pages::choose_language(request))
        .unwrap_or_else(|| pages::missing(visitor, request.headers()))
}

/// Nothing of this is anybody else's: no page frames it, no other host is asked, nothing stays in a cache.
fn secure(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                          connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let fields = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    headers.extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn json(status: StatusCode, kind: &'static str, value: &impl serde::Serialize) -> Response<Bytes> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// RFC 9457.
fn problem(refused: &Refused) -> Response<Bytes> {
    let title = refused.status.canonical_reason().unwrap_or_default().to_owned();
    let problem = Problem { status: refused.status.as_u16(), title, detail: refused.detail.clone() };
    let mut response = json(refused.status, "application/problem+json", &problem);
    if refused.status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = if refused.detail == api::WRITE_ALONE { "POST" } else { READS };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

const READS: &str = "GET, HEAD";

/// Does something, if that is this visitor's to do.
fn act(house: &dyn House, visitor: &Visitor, action: Action) -> Result<view::Done, Refused> {
    action.permitted(visitor.role, house.edits())?;
    house.act(action, visitor)
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

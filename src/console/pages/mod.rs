//! The pages: written on the server, whole without a script.

mod audit;
mod config;
mod dns;
mod done;
mod forms;
mod frame;
mod ingress;
mod overview;
mod parts;
mod vpn;
mod why;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use jiff::tz::TimeZone;
use maud::Markup;

use super::{
    Edits, House, Refused, Visitor,
    action::DEEDS,
    api::{self, Parameter, Query},
    is_read,
    words::{self, Words},
};
use crate::origin::Role;

/// What a page is written from.
pub(super) struct Desk<'a> {
    house: &'a dyn House,
    words: &'static Words,
    visitor: &'a Visitor,
    edits: Edits,
    zone: TimeZone,
    query: Query,
}

impl Desk<'_> {
    /// Whether this visitor may do here what ends by itself.
    fn may_operate(&self) -> bool {
        self.visitor.role >= Role::Operator && self.edits != Edits::None
    }

    /// Whether this visitor may do everything here.
    fn may_own(&self) -> bool {
        self.visitor.role >= Role::Owner && self.edits == Edits::All
    }
}

/// A page.
struct Page {
    path: &'static str,
    title: fn(&Words) -> &'static str,
    /// It stands in the list of sections.
    listed: bool,
    parameters: &'static [Parameter],
    write: fn(&Desk<'_>) -> Result<Markup, Refused>,
}

const fn page(
    path: &'static str,
    title: fn(&Words) -> &'static str,
    parameters: &'static [Parameter],
    write: fn(&Desk<'_>) -> Result<Markup, Refused>,
) -> Page {
    Page { path, title, listed: true, parameters, write }
}

static PAGES: [Page; 7] = [
    page("/", |words| words.overview, &[], overview::page),
    page("/dns", |words| words.dns, super::api::SEARCH, dns::page),
    page("/ingress", |words| words.ingress, &[], ingress::page),
    page("/vpn", |words| words.vpn, &[], vpn::page),
    page("/config", |words| words.config, config::PARAMETERS, config::page),
    page("/audit", |words| words.audit, super::api::AUDIT, audit::page),
    Page { listed: false, ..page("/dns/why", |words| words.tester, super::api::WHY, why::page) },
];

/// Answers what is asked of the pages; `None` if there is no such page.
pub(super) fn answer(house: &dyn House, visitor: &Visitor, request: &Request<Bytes>) -> Option<Response<Bytes>> {
    let page = PAGES.iter().find(|page| page.path == request.uri().path())?;
    let words = words::of(request.headers());
    let query = match is_read(request.method()) {
        true => Query::read(request.uri().query().unwrap_or_default(), page.parameters),
        false => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "")),
    };
    Some(written(house, visitor, words, page, query))
}

fn written(
    house: &dyn House,
    visitor: &Visitor,
    words: &'static Words,
    page: &Page,
    query: Result<Query, Refused>,
) -> Response<Bytes> {
    let zone = house.zone();
    let done = query.and_then(|query| {
        let desk = Desk { house, words, visitor, edits: house.edits(), zone, query };
        (page.write)(&desk)
    });
    let title = (page.title)(words);
    let (status, content) = match done {
        Ok(content) => (StatusCode::OK, content),
        Err(refused) => (refused.status, frame::refused(words, &refused)),
    };
    html(status, frame::frame(words, visitor, page.path, title, &content))
}

/// Does what a form says, and shows what came of it; `None` if there is no such thing to do.
pub(super) fn act(house: &dyn House, visitor: &Visitor, request: &Request<Bytes>) -> Option<Response<Bytes>> {
    let path = request.uri().path().strip_prefix("/do/")?;
    let deed = DEEDS.iter().find(|deed| deed.path == path)?;
    let words = words::of(request.headers());
    let (back, title) = match path.split('/').next() {
        Some("dns") => ("/dns", words.dns),
        Some("peer") => ("/vpn", words.vpn),
        _ => ("/config", words.config),
    };
    let attempt = || {
        if *request.method() != Method::POST {
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, api::WRITE_ALONE));
        }
        if !api::has_type(request, "application/x-www-form-urlencoded") {
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is done by a form"));
        }
        let query = Query::from_form(request.body(), deed.fields)?;
        let done = super::act(house, visitor, (deed.read)(&query)?)?;
        let desk = Desk { house, words, visitor, edits: house.edits(), zone: house.zone(), query };
        Ok(done::page(&desk, &done, back))
    };
    let (status, content) = match attempt() {
        Ok(content) => (StatusCode::OK, content),
        Err(refused) => (refused.status, frame::not_done(words, &refused, back)),
    };
    Some(html(status, frame::frame(words, visitor, back, title, &content)))
}

/// Says that there is no such page.
pub(super) fn missing(visitor: &Visitor, headers: &HeaderMap) -> Response<Bytes> {
    let words = words::of(headers);
    let content = maud::html! { p { (words.nothing_here) } };
    html(StatusCode::NOT_FOUND, frame::frame(words, visitor, "", words.nothing_here, &content))
}

/// Remembers which language somebody reads, and shows the page again that they came from.
pub(super) fn choose_language(request: &Request<Bytes>) -> Option<Response<Bytes>> {
    let tag = request.uri().path().strip_prefix("/language/")?;
    let words = words::named(tag)?;
    let back = request.uri().query().and_then(|query| query.strip_prefix("back="));
    let back = back.and_then(|back| PAGES.iter().find(|page| page.path == back)).map_or("/", |page| page.path);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let fields = response.headers_mut();
    fields.insert(header::LOCATION, HeaderValue::from_static(back));
    let cookie = format!("hearthgate-language={}; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly", words.tag);
    fields.insert(header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
    Some(response)
}

/// Writes a page in the language that shows what comes from the catalogue.
#[cfg(test)]
pub(super) fn marked(house: &dyn House, visitor: &Visitor, request: &Request<Bytes>) -> String {
    let words = &words::MARKED;
    let response = match PAGES.iter().find(|page| page.path == request.uri().path()) {
        Some(page) => {
            let query = Query::read(request.uri().query().unwrap_or_default(), page.parameters);
            written(house, visitor, words, page, query)
        }
        None => html(StatusCode::OK, frame::frame(words, visitor, "", words.nothing_here, &maud::html! {})),
    };
    String::from_utf8_lossy(response.body()).into_owned()
}

fn html(status: StatusCode, page: Markup) -> Response<Bytes> {
    let mut response = Response::new(page.into_string().into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

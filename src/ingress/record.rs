//! The record of one request: counted, and logged if the route says so, when it ends.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};

use crate::{
    ingress::{
        AccessLog,
        proxy::{Admitted, Asked, Through, Visitor},
        routes::Route,
        server::Core,
    },
    limit::Client,
    origin::Origin,
};

/// Written when it is dropped, so that no end of a request is missed.
pub(super) struct Record {
    core: Rc<Core>,
    origin: Origin,
    through: Through,
    began: Instant,
    method: Method,
    route: Option<Arc<Route>>,
    /// The other end of the connection.
    peer: IpAddr,
    client: IpAddr,
    /// What the server behind is told that this request is called.
    pub(super) id: u128,
    line: Option<Box<Line>>,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
}

/// What is only needed for a line of the log.
struct Line {
    host: String,
    path: String,
    protocol: &'static str,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
}

impl Record {
    pub(super) fn new(core: &Rc<Core>, visitor: &Visitor, began: Instant, method: Method) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let (core, id) = (core.clone(), core.next_id());
        let &Visitor { origin, through, peer, .. } = visitor;
        Self { id, core, origin, through, began, method, route: None, peer, client: peer, line: None, status, bytes: 0 }
    }

    /// Says which route took the request.
    pub(super) fn taken_by(&mut self, admitted: &Admitted, asked: &Asked<'_>, protocol: &'static str) {
        let route = &admitted.route;
        route.series.under_way.inc();
        if self.origin == Origin::Wan {
            self.core.shared.census.begin_request(Client::of(admitted.client));
        }
        self.client = admitted.client;
        if route.log {
            let field = |name| asked.headers.get(name).cloned();
            self.line = Some(Box::new(Line {
                host: asked.host.to_string(),
                path: asked.path.to_string(),
                protocol,
                referer: field(header::REFERER),
                agent: field(header::USER_AGENT),
            }));
        }
        self.route = Some(route.clone());
    }

    /// Counts a response that did not come to its end.
    pub(super) fn upstream_broke_off(&self) {
        self.core.shared.series.upstream_failure("body");
    }
}

impl Record {
    /// A client from the Internet that is refused again and again is guessing.
    fn watch_refusals(&self) {
        if self.origin != Origin::Wan || !matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        let shared = &self.core.shared;
        let policy = shared.policy.load();
        let Some(rate) = policy.config.wan_refusals else { return };
        if self.is_unnamed() || shared.strangers.are_masked() {
            return;
        }
        let (client, now) = (Client::of(self.client), Instant::now());
        if shared.limits.check_key(("refusals", client), rate, now).is_err() {
            shared.strangers.ban(client, "refused log-ins", now);
        }
    }

    /// A proxy that does not say whom it speaks for is everybody.
    fn is_unnamed(&self) -> bool {
        matches!(self.through, Through::Proxy { speaks_first: false, .. }) && self.client == self.peer
    }

    fn log(&self, route: &Route, line: &Line, took: Duration) {
        let policy = self.core.shared.policy.load();
        let status = self.status.as_u16();
        match policy.config.access_log {
            AccessLog::Off => {}
            AccessLog::Fields => {
                let origin = policy.config.directory.describe(self.origin);
                tracing::info!(
                    target: "access",
                    client = %self.client,
                    method = %self.method,
                    host = line.host,
                    path = line.path,
                    protocol = line.protocol,
                    route = %route.name,
                    status,
                    bytes = self.bytes,
                    origin,
                    duration = ?took,
                    id = format_args!("{:032x}", self.id),
                );
            }
            AccessLog::Clf => {
                let now = jiff::Zoned::now().strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
                let said = |field: &Option<HeaderValue>| {
                    field
                        .as_ref()
                        .map_or("-".to_owned(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                };
                let (method, path, protocol) = (&self.method, &line.path, line.protocol);
                tracing::info!(
                    target: "access",
                    "{} - - [{now}] \"{method} {path} HTTP/{protocol}\" {status} {} {:?} {:?}",
                    self.client,
                    self.bytes,
                    said(&line.referer),
                    said(&line.agent),
                );
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let shared = &self.core.shared;
        let Some(route) = &self.route else {
            return shared.series.no_route.count(self.status.as_u16(), self.bytes, took);
        };
        route.series.under_way.dec();
        if self.origin == Origin::Wan {
            shared.census.end_request(Client::of(self.client));
        }
        route.series.count(self.status.as_u16(), self.bytes, took);
        self.watch_refusals();
        if let Some(line) = &self.line {
            self.log(route, line, took);
        }
    }
}

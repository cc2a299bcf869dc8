//! The record of one request: counted, and logged if the route says so, when it ends.

use std::{rc::Rc, sync::Arc, time::Instant};

use hyper::{Method, StatusCode};

use crate::{
    ingress::{proxy::Visitor, routes::Route, server::Core},
    origin::Origin,
};

/// Written when it is dropped, so that no end of a request is missed.
pub(super) struct Record {
    core: Rc<Core>,
    origin: Origin,
    began: Instant,
    method: Method,
    route: Option<Arc<Route>>,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
}

impl Record {
    pub(super) fn new(core: &Rc<Core>, visitor: &Visitor, began: Instant, method: Method) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { core: core.clone(), origin: visitor.origin, began, method, route: None, status, bytes: 0 }
    }

    /// Says which route took the request.
    pub(super) fn taken_by(&mut self, route: Arc<Route>) {
        route.series.under_way.inc();
        self.route = Some(route);
    }

    /// Counts a response that did not come to its end.
    pub(super) fn upstream_broke_off(&self) {
        self.core.shared.series.upstream_failure("body");
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
        route.series.count(self.status.as_u16(), self.bytes, took);
        if route.log {
            let origin = shared.policy.load().config.directory.describe(self.origin);
            tracing::info!(
                target: "access",
                method = %self.method,
                route = %route.name,
                status = self.status.as_u16(),
                bytes = self.bytes,
                origin,
                duration = ?took,
            );
        }
    }
}

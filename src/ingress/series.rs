//! What the ingress counts.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use crate::metrics::Metrics;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Counters of the plane.
#[derive(Debug)]
pub(super) struct Series {
    requests: IntCounterVec,
    durations: HistogramVec,
    handshakes: IntCounterVec,
    upstream_failures: IntCounterVec,
    pub(super) open: IntGauge,
    pub(super) limited: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) panics: IntCounter,
    /// Requests that no route of the client's table took.
    pub(super) no_route: RouteSeries,
}

/// Counters of one route, looked up once.
#[derive(Clone, Debug)]
pub(super) struct RouteSeries {
    classes: [IntCounter; 5],
    duration: Histogram,
}

impl Series {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let plane = metrics.plane("ingress");
        let requests =
            plane.counters("requests_total", "Requests by route and class of the status.", &["route", "class"]);
        let durations =
            plane.histograms("request_duration_seconds", "From head to end of the answer.", &["route"], &BUCKETS);
        let no_route = route(&requests, &durations, "");
        Self {
            requests,
            durations,
            handshakes: plane.counters("handshakes_total", "TLS handshakes by outcome.", &["outcome"]),
            upstream_failures: plane.counters("upstream_failures_total", "Failures of upstreams.", &["reason"]),
            open: plane.gauge("connections", "Open connections of clients."),
            limited: plane.counter("limited_total", "Requests over a client's limit."),
            refused: plane.counter("refused_connections_total", "Connections over the caps."),
            panics: plane.counter("panics_total", "Connections that ended in a panic."),
            no_route,
        }
    }

    pub(super) fn route(&self, name: &str) -> RouteSeries {
        route(&self.requests, &self.durations, name)
    }

    pub(super) fn handshake(&self, outcome: &'static str) {
        self.handshakes.with_label_values(&[outcome]).inc();
    }

    pub(super) fn upstream_failure(&self, reason: &'static str) {
        self.upstream_failures.with_label_values(&[reason]).inc();
    }
}

impl RouteSeries {
    pub(super) fn count(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        self.classes[class].inc();
        self.duration.observe(took.as_secs_f64());
    }
}

fn route(requests: &IntCounterVec, durations: &HistogramVec, name: &str) -> RouteSeries {
    RouteSeries {
        classes: CLASSES.map(|class| requests.with_label_values(&[name, class])),
        duration: durations.with_label_values(&[name]),
    }
}

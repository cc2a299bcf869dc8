//! What the ingress counts.

use std::{collections::BTreeMap, time::Duration};

use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, core::Collector,
};

use crate::metrics::Metrics;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Counters of the plane.
#[derive(Debug)]
pub(super) struct Series {
    requests: IntCounterVec,
    under_way: IntGaugeVec,
    durations: HistogramVec,
    sent: IntCounterVec,
    refusals: IntCounterVec,
    handshakes: IntCounterVec,
    relayed: IntCounterVec,
    relayed_bytes: IntCounterVec,
    datagrams_dropped: IntCounterVec,
    orders: IntCounterVec,
    expiry: GaugeVec,
    upstream_failures: IntCounterVec,
    waiting: IntGaugeVec,
    compressed: IntCounterVec,
    pub(super) retries: IntCounter,
    upstream_up: IntGaugeVec,
    pub(super) open: IntGauge,
    pub(super) limited: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) banned: IntCounter,
    pub(super) preambles: IntCounter,
    pub(super) outcasts: IntCounter,
    pub(super) banned_networks: IntGauge,
    pub(super) crowdsec_failures: IntCounter,
    pub(super) panics: IntCounter,
    /// Requests that no route of the client's table took.
    pub(super) no_route: RouteSeries,
}

/// Counters of one route, looked up once.
#[derive(Clone, Debug)]
pub(super) struct RouteSeries {
    classes: [IntCounter; 5],
    duration: Histogram,
    sent: IntCounter,
    pub(super) under_way: IntGauge,
}

impl Series {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let plane = metrics.plane("ingress");
        let requests =
            plane.counters("requests_total", "Requests by route and class of the status.", &["route", "class"]);
        let durations =
            plane.histograms("request_duration_seconds", "From head to end of the answer.", &["route"], &BUCKETS);
        let under_way =
            plane.gauges("requests_under_way", "Requests whose answer has not ended, by route.", &["route"]);
        let sent = plane.counters("response_bytes_total", "Bytes of bodies sent to clients, by route.", &["route"]);
        let refusals = plane.counters("refused_total", "Requests that a route's rules refused.", &["route", "reason"]);
        let no_route = route(&requests, &durations, &under_way, &sent, "");
        Self {
            requests,
            under_way,
            durations,
            sent,
            refusals,
            handshakes: plane.counters("handshakes_total", "TLS handshakes by outcome.", &["outcome"]),
            relayed: plane.counters(
                "relayed_connections_total",
                "Connections that were passed on without being understood, by route and how they ended.",
                &["route", "outcome"],
            ),
            relayed_bytes: plane.counters(
                "relayed_bytes_total",
                "Bytes that were passed on without being understood, by route and direction.",
                &["route", "direction"],
            ),
            datagrams_dropped: plane.counters(
                "dropped_datagrams_total",
                "Datagrams of UDP routes for which there was no room, by what was full.",
                &["reason"],
            ),
            orders: plane.counters("acme_orders_total", "Attempts to get a certificate of a public CA.", &["outcome"]),
            expiry: plane.float_gauges(
                "certificate_expiry_timestamp_seconds",
                "When the certificate of a route ends, in seconds since 1970; 0 if there is none.",
                &["route"],
            ),
            upstream_failures: plane.counters("upstream_failures_total", "Failures of upstreams.", &["reason"]),
            waiting: plane.gauges(
                "upstream_waiting",
                "Requests that wait until a server has room, by route.",
                &["route"],
            ),
            compressed: plane.counters("compressed_total", "Responses that were compressed.", &["coding"]),
            retries: plane.counter("retries_total", "Requests that were sent again, to another server."),
            upstream_up: plane.gauges(
                "upstream_up",
                "Whether a server is well, by route and place in `to` and `backup`.",
                &["route", "server"],
            ),
            open: plane.gauge("connections", "Open connections of clients."),
            limited: plane.counter("limited_total", "Requests over a client's limit."),
            banned: plane.counter("banned_connections_total", "Connections of clients that are refused for a while."),
            refused: plane.counter("refused_connections_total", "Connections over the caps."),
            outcasts: plane.counter(
                "outcasts_total",
                "Connections, and requests behind proxies, of clients that a list of `ingress.bans` keeps out.",
            ),
            banned_networks: plane.gauge(
                "banned_networks",
                "Networks that `ingress.bans` and a CrowdSec agent keep out, of which those that touch are one.",
            ),
            crowdsec_failures: plane
                .counter("crowdsec_failures_total", "Questions to the CrowdSec agent without an answer."),
            preambles: plane.counter(
                "broken_preambles_total",
                "Connections of trusted proxies without the PROXY header that was awaited.",
            ),
            panics: plane.counter("panics_total", "Connections that ended in a panic."),
            no_route,
        }
    }

    pub(super) fn route(&self, name: &str) -> RouteSeries {
        route(&self.requests, &self.durations, &self.under_way, &self.sent, name)
    }

    pub(super) fn upstream(&self, route: &str, place: usize, up: bool) {
        self.upstream_up.with_label_values(&[route, &place.to_string()]).set(i64::from(up));
    }

    /// Counts a request that waits for a server, until it is dropped.
    pub(super) fn waits(&self, route: &str) -> Waits {
        let gauge = self.waiting.with_label_values(&[route]);
        gauge.inc();
        Waits(gauge)
    }

    pub(super) fn compressed(&self, coding: &'static str) {
        self.compressed.with_label_values(&[coding]).inc();
    }

    pub(super) fn refusal(&self, route: &str, reason: &'static str) {
        self.refusals.with_label_values(&[route, reason]).inc();
    }

    /// Returns the requests whose answer has not ended by their route, also of routes that a reload took away.
    pub(super) fn under_way(&self) -> BTreeMap<String, u64> {
        let families = self.under_way.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let counts = series.filter_map(|one| {
            let route = one.get_label().first()?.value().to_owned();
            let count = one.get_gauge().get_value();
            (count >= 1.0 && !route.is_empty()).then_some((route, count as u64))
        });
        counts.collect()
    }

    pub(super) fn handshake(&self, outcome: &'static str) {
        self.handshakes.with_label_values(&[outcome]).inc();
    }

    pub(super) fn relayed(&self, route: &str, outcome: &'static str) {
        self.relayed.with_label_values(&[route, outcome]).inc();
    }

    pub(super) fn datagram_dropped(&self, reason: &'static str) {
        self.datagrams_dropped.with_label_values(&[reason]).inc();
    }

    /// Returns what counts bytes to the servers of a route, and from them.
    pub(super) fn relayed_bytes(&self, route: &str) -> (IntCounter, IntCounter) {
        let counter = |direction| self.relayed_bytes.with_label_values(&[route, direction]);
        (counter("up"), counter("down"))
    }

    pub(super) fn order(&self, outcome: &'static str) {
        self.orders.with_label_values(&[outcome]).inc();
    }

    /// Sets when the certificate of each route ends.
    pub(super) fn set_expiry<'a>(&self, routes: impl Iterator<Item = (&'a str, Option<u64>)>) {
        self.expiry.reset();
        for (route, not_after) in routes {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
            self.expiry.with_label_values(&[route]).set(not_after.unwrap_or(0) as f64);
        }
    }

    pub(super) fn upstream_failure(&self, reason: &'static str) {
        self.upstream_failures.with_label_values(&[reason]).inc();
    }
}

/// A request that waits.
pub(super) struct Waits(IntGauge);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl RouteSeries {
    pub(super) fn count(&self, status: u16, bytes: u64, took: Duration) {
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        self.classes[class].inc();
        self.duration.observe(took.as_secs_f64());
        self.sent.inc_by(bytes);
    }

    /// Returns how many answers there were, by class of the status.
    pub(super) fn classes(&self) -> [u64; 5] {
        self.classes.each_ref().map(IntCounter::get)
    }

    /// Returns the milliseconds that this part of the answers took at most, to the bounds that are counted by; nothing
    /// if there are none, or some took longer than all bounds.
    pub(super) fn quantile(&self, part: u64, of: u64) -> Option<u64> {
        let families = self.duration.collect();
        let metric = families.first()?.get_metric().first()?;
        let histogram = metric.get_histogram();
        let all = histogram.get_sample_count();
        let wanted = (all * part).div_ceil(of);
        let bucket = histogram.get_bucket().iter().find(|bucket| all > 0 && bucket.cumulative_count() >= wanted)?;
        // The largest bound is a minute.
        Some((bucket.upper_bound() * 1000.0) as u64)
    }
}

fn route(
    requests: &IntCounterVec,
    durations: &HistogramVec,
    under_way: &IntGaugeVec,
    sent: &IntCounterVec,
    name: &str,
) -> RouteSeries {
    RouteSeries {
        sent: sent.with_label_values(&[name]),
        classes: CLASSES.map(|class| requests.with_label_values(&[name, class])),
        duration: durations.with_label_values(&[name]),
        under_way: under_way.with_label_values(&[name]),
    }
}

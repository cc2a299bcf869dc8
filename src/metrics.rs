//! The metrics registry and its naming rule: `hearthgate_<plane>_<noun>_<unit|total>`, labels are enums of
//! ours or names that the owner gave, never a client's text.
//!
//! A plane makes its counters when it is built and keeps the handles. Hot paths count in plain per-thread
//! integers and add them here in batches.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

/// The registry of one process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

/// A set of series that belong to one plane.
#[derive(Clone, Debug)]
pub struct Namespace {
    registry: Registry,
    plane: &'static str,
}

impl Metrics {
    /// Makes an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns where a plane makes its series: `hearthgate_<plane>_…`.
    pub fn plane(&self, plane: &'static str) -> Namespace {
        Namespace { registry: self.registry.clone(), plane }
    }

    /// Returns all series as they are now, in the registry's own form.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

impl Namespace {
    /// Makes a counter; `name` ends in `_total`.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.register(IntCounter::with_opts(self.opts(name, help)))
    }

    /// Makes a family of counters; `name` ends in `_total`.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.register(IntCounterVec::new(self.opts(name, help), labels))
    }

    /// Makes a gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(name, help)))
    }

    /// Makes a family of gauges of whole numbers.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(name, help), labels))
    }

    /// Makes a gauge, for seconds.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(self.opts(name, help)))
    }

    /// Makes a family of gauges, for seconds.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(self.opts(name, help), labels))
    }

    /// Makes a histogram of seconds; `name` ends in `_seconds`.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        debug_assert!(name.ends_with("_seconds"), "{name}");
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    /// Makes a family of histograms of seconds; `name` ends in `_seconds`.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        debug_assert!(name.ends_with("_seconds"), "{name}");
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("hearthgate").subsystem(self.plane)
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let series = made.expect("series have valid names and labels");
        self.registry.register(Box::new(series.clone())).expect("each series is made once");
        series
    }
}

//! What is measured of each thing.

use prometheus::{GaugeVec, IntGaugeVec};

use super::{Check, Entry, Kind, machine::State};
use crate::metrics::Metrics;

/// The labels: a route's own name is a route's, so that no reader sees one that is not for him.
const LABELS: [&str; 2] = ["check", "route"];

#[derive(Debug)]
pub(super) struct Series {
    up: IntGaugeVec,
    latency: GaugeVec,
    days: IntGaugeVec,
}

impl Series {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let check = metrics.plane("check");
        let up = "1 if it is up, 0 if it is down; not there while nothing is known of it.";
        let days = "Days that its certificate still holds.";
        Self {
            up: check.gauges("up", up, &LABELS),
            latency: check.float_gauges("latency_seconds", "What the last good look took.", &LABELS),
            days: check.gauges("certificate_days", days, &LABELS),
        }
    }

    pub(super) fn set(&self, entry: &Entry) {
        let labels = labels(&entry.check);
        match entry.machine.state() {
            State::Up | State::Suspect => self.up.with_label_values(&labels).set(1),
            State::Down | State::Recovering => self.up.with_label_values(&labels).set(0),
            State::Unknown => _ = self.up.remove_label_values(&labels),
        }
        if let Some(took) = entry.took {
            self.latency.with_label_values(&labels).set(took.as_secs_f64());
        }
        if let Some(days) = entry.found.days {
            self.days.with_label_values(&labels).set(days);
        }
    }

    pub(super) fn forget(&self, check: &Check) {
        let labels = labels(check);
        // What was never set cannot be taken away.
        let _ = self.up.remove_label_values(&labels);
        let _ = self.latency.remove_label_values(&labels);
        let _ = self.days.remove_label_values(&labels);
    }
}

fn labels(check: &Check) -> [&str; 2] {
    match check.kind {
        Kind::Route(_) => ["", &check.name],
        _ => [&check.name, ""],
    }
}

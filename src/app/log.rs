//! Log lines: one for each event worth acting on, as text or JSON on standard error.

use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log. Only the first call in a process decides about the form.
pub fn start(log: Log) {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let begun = match log.format {
        LogFormat::Text => tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok()
        }
    };
    if begun {
        let _ = FILTER.set(handle);
    }
}

/// Changes the level from now on.
pub fn set_level(level: Level) {
    if let Some(handle) = FILTER.get() {
        // It fails only when the subscriber is gone.
        let _ = handle.reload(filter(level));
    }
}

/// Libraries below us say only what is wrong, and never a client's question.
fn filter(level: Level) -> EnvFilter {
    let level = level.as_str().to_lowercase();
    let others = if level == "error" { "error" } else { "warn" };
    EnvFilter::new(format!(
        "{others},boringtun=off,hickory_proto=error,quinn=error,quinn_proto=error,hearthgate={level}"
    ))
}

//! The watch, and what it is told of real requests.

use std::sync::Arc;

use crate::{
    app::{Edge, Planes, control::Refusal},
    config::Compiled,
    https::Client,
    lookup::Lookup,
    metrics::Metrics,
    watch::{self, Heard},
};

/// Builds what watches, if anything can be.
pub(super) fn watch(
    config: &Compiled,
    planes: &Planes,
    metrics: &Metrics,
) -> Result<Option<Arc<watch::Plane>>, String> {
    let Some(watched) = &config.watch else { return Ok(None) };
    let lookup = planes.dns.as_ref().map_or_else(Lookup::system, |dns| dns.lookup());
    let client = Client::new(None, lookup.clone()).map_err(|error| error.to_string())?;
    let ingress = planes.ingress.clone();
    let heard: Heard = Arc::new(move |route| ingress.as_ref()?.is_any_well(route));
    let plane = watch::Plane::new(&config.node.state, client, lookup, heard, metrics);
    plane.commit(watched);
    Ok(Some(Arc::new(plane)))
}

impl Edge {
    /// Returns how everything is that is watched.
    pub fn uptime(&self) -> Result<Vec<watch::Status>, Refusal> {
        let missing = || Refusal::missing("nothing is watched: add a [[check]], or an [ingress] with routes");
        self.watch.as_ref().map(|watch| watch.states()).ok_or_else(missing)
    }
}

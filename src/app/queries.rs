//! The questions of the house, as commands ask for them.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal, wire::Planes},
    clock::Clock,
    config::Compiled,
    event::Journal,
    history::{Filter, Found, History, Summary, Who},
    metrics::Metrics,
    origin::{Directory, Origin},
};

/// A span that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Seconds that it lasts.
    pub seconds: u32,
}

/// Makes the history that the configuration wants, if it wants one.
pub(super) fn history(
    config: &Compiled,
    planes: &Planes,
    directory: &Arc<ArcSwap<Directory>>,
    clock: &Clock,
    metrics: &Metrics,
) -> Option<Arc<History>> {
    let wanted = config.history.clone()?;
    let (dns, directory) = (planes.dns.clone(), directory.clone());
    let journal = dns.as_ref().map_or_else(Journal::default, |dns| dns.journal());
    let who: Who = Arc::new(move |origin: Origin, address: IpAddr| match origin {
        Origin::Vpn(_) => directory.load().describe(origin),
        Origin::Lan(_) | Origin::Wan => {
            let mac = dns.as_ref().and_then(|dns| dns.mac_of(address));
            mac.map_or_else(|| address.to_canonical().to_string(), |mac| mac.to_string())
        }
    });
    Some(Arc::new(History::new(wanted, &config.node.state, journal, who, clock.clone(), metrics)))
}

impl Edge {
    /// Returns the questions that a filter lets through, the newest first; blocks.
    pub fn queries(&self, filter: &Filter) -> Result<Found, Refusal> {
        let filter = Filter { client: filter.client.as_deref().map(|client| self.client(client)), ..filter.clone() };
        self.kept()?.search(&filter).map_err(Refusal::ours)
    }

    /// Returns the sums of a span; blocks.
    pub fn summary(&self, span: Span) -> Result<Summary, Refusal> {
        let now = Timestamp::now();
        let from = now.checked_sub(SignedDuration::from_secs(span.seconds.into())).map_err(Refusal::asked)?;
        self.kept()?.summary(from, now).map_err(Refusal::ours)
    }

    fn kept(&self) -> Result<&History, Refusal> {
        self.history.as_deref().ok_or_else(|| Refusal::missing("no history is kept: add a [history] section"))
    }

    /// Returns what the history calls a client that somebody names or whose address he gives.
    fn client(&self, text: &str) -> String {
        let Some(dns) = &self.planes.dns else { return text.into() };
        let by_address = text.parse().ok().and_then(|address| dns.mac_of(address));
        let by_name = || {
            let (devices, _) = dns.devices();
            let named = |name: &str| name.eq_ignore_ascii_case(text);
            devices.into_iter().find(|device| device.name.as_deref().is_some_and(named)).map(|device| device.mac)
        };
        by_address.or_else(by_name).map_or_else(|| text.into(), |mac| mac.to_string())
    }
}

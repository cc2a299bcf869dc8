//! What the console shows of routes.

use tokio::time::Instant;

use super::{Builtin, Plane, Route, Target, doctor::Question};
use crate::origin::{Access, Directory, NetworkId, Origin};

/// A route as it is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Its name.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its path.
    pub path: String,
    /// Who may use it, in the words of the configuration.
    pub access: Vec<String>,
    /// Where requests go, and whether that answers, if it is a server.
    pub to: Vec<(String, Option<bool>)>,
    /// Answers by class of the status.
    pub classes: [u64; 5],
    /// Requests whose answer has not ended.
    pub under_way: u64,
    /// Milliseconds that half of the answers, and all but one in twenty, took at most.
    pub quantiles: [Option<u64>; 2],
    /// When the certificate ends, in seconds since 1970.
    pub certificate_ends: Option<u64>,
}

impl Plane {
    /// Says whether any server of a route answers, as far as real requests and its own checks know; nothing if there
    /// is no such route with servers.
    pub fn is_any_well(&self, name: &str) -> Option<bool> {
        let shared = &self.shared;
        let policy = shared.policy.load();
        let route = policy.config.routes.iter().find(|route| route.name == name)?;
        let (Target::Upstreams(upstreams) | Target::Passthrough(upstreams)) = &route.to else { return None };
        let question = Question::of(route);
        let mut servers = upstreams.iter().chain(&route.rules.backup);
        Some(servers.any(|upstream| shared.health(upstream, question.as_ref()).is_up(Instant::now())))
    }

    /// Returns how each route is.
    pub fn overview(&self) -> Vec<Overview> {
        let shared = &self.shared;
        let policy = shared.policy.load();
        let of = |route: &Route| {
            let series = shared.series.route(&route.name);
            let certificate = policy.certificates.by_host.get(&route.host);
            let question = Question::of(route);
            let server = |upstream| {
                let up = shared.health(upstream, question.as_ref()).is_up(Instant::now());
                (upstream.to_string(), Some(up))
            };
            let to = match &route.to {
                Target::Upstreams(upstreams) | Target::Passthrough(upstreams) => {
                    upstreams.iter().chain(&route.rules.backup).map(server).collect()
                }
                Target::Builtin(Builtin::Welcome) => vec![("builtin:welcome".to_owned(), None)],
                Target::Builtin(Builtin::Page(page)) => vec![(format!("builtin:{page:?}").to_lowercase(), None)],
                Target::Redirect(redirect) => vec![(redirect.status.to_string(), None)],
                Target::Page(page) => vec![(page.status.to_string(), None)],
                Target::Dns | Target::DnsOf { .. } => vec![("dns".to_owned(), None)],
            };
            Overview {
                name: route.name.clone(),
                host: route.host.to_string(),
                path: route.path.to_string(),
                access: words(&route.access, &policy.config.directory),
                to,
                classes: series.classes(),
                under_way: u64::try_from(series.under_way.get()).unwrap_or(0),
                quantiles: [series.quantile(1, 2), series.quantile(19, 20)],
                certificate_ends: certificate.and_then(|certificate| certificate.not_after()),
            }
        };
        policy.config.routes.iter().map(of).collect()
    }
}

/// Who is let in, as it would be written.
fn words(access: &Access, directory: &Directory) -> Vec<String> {
    let mut words = Vec::new();
    if access.public {
        words.push("public".to_owned());
    }
    // The box itself comes with the LAN.
    let networks = access.networks.iter().filter(|network| **network != NetworkId::HOST);
    words.extend(networks.map(|network| directory.describe(Origin::Lan(*network))));
    if access.vpn {
        words.push("vpn".to_owned());
    }
    words.extend(access.peers.iter().map(|peer| directory.describe(Origin::Vpn(*peer))));
    words
}

//! What would happen to a request, and why, without sending it.

use hyper::{HeaderMap, Method, Uri};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Country, Plane, Policy,
    auth::Guard,
    canonical::{CanonicalHost, CanonicalPath},
    ports::{Entrance, Transport},
    routes::{Route, Target},
};
use crate::origin::{NetworkId, Origin};

/// A request that somebody is curious about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curious {
    /// As a browser shows it.
    pub url: String,
    /// `wan`, `lan`, `lan:NAME`, `vpn:PEER`.
    pub from: String,
    /// The method.
    pub method: String,
}

/// What would happen, step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What is decided, and how.
    pub steps: Vec<(String, String)>,
}

/// Why nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// No URL of a web page.
    #[error("\"{0}\" is no URL: write it as https://photos.home.example/album")]
    Url(String),
    /// Nobody comes from there.
    #[error("\"{0}\" is no origin: one of \"wan\", \"lan\", \"lan:NETWORK\", \"vpn:PEER\"")]
    From(String),
}

impl Plane {
    /// Says what would happen to a request.
    pub fn explain(&self, curious: &Curious) -> Result<Explained, Unexplained> {
        let policy = self.shared.policy.load_full();
        let config = &policy.config;
        let origin = config.origin(&curious.from).ok_or_else(|| Unexplained::From(curious.from.clone()))?;
        let wrong = || Unexplained::Url(curious.url.clone());
        let uri: Uri = curious.url.parse().map_err(|_| wrong())?;
        let transport = match uri.scheme_str() {
            Some("tcp") => Some(Transport::Tcp),
            Some("udp") => Some(Transport::Udp),
            _ => None,
        };
        if let Some(transport) = transport {
            let number = uri.port_u16().ok_or_else(wrong)?;
            return Ok(Explained { steps: port(&policy, origin, transport, number) });
        }
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let method: Method = curious.method.parse().map_err(|_| wrong())?;
        let mut steps = Vec::new();
        let mut step = |what: &str, said: String| steps.push((what.to_owned(), said));
        step("from", config.directory.describe(origin));
        let table = policy.tables.of(origin);
        let read = uri.authority().ok_or("no host").map(|authority| CanonicalHost::from_authority(authority.as_str()));
        let (host, path) = match (read, CanonicalPath::parse(uri.path())) {
            (Ok(Ok((host, _))), Ok(path)) => (host, path),
            (Ok(Err(error)), _) | (_, Err(error)) => {
                step("answer", format!("400: {error}"));
                return Ok(Explained { steps });
            }
            (Err(_), _) => return Err(wrong()),
        };
        step("host", host.to_string());
        step("path", path.to_string());
        let site = match secure {
            // One that has no certificate yet is shown all the same.
            true => table.hosts.own(host.as_str()).or_else(|| table.hosts.secure(None)),
            false => table.hosts.site(host.as_str()),
        };
        let Some(site) = site else {
            let answer = match secure {
                true => "none: TLS ends with the alert unrecognized_name",
                false => "421",
            };
            step("answer", format!("{answer}, as for a host that never existed: no route for this origin has it"));
            return Ok(Explained { steps });
        };
        if let (Some(route), true) = (&site.passed, secure) {
            step("route", route.name.to_string());
            rules(route, &mut step);
            step("answer", "of the server behind: TLS is passed through to it as it comes".into());
            servers(route, &mut step);
            return Ok(Explained { steps });
        }
        match (&site.certificate, secure) {
            (Some(certificate), true) => step("certificate", certificate.name.to_string()),
            (_, true) => step("certificate", "none: there is no TLS listener".into()),
            (_, false) => {}
        }
        for tried in site.tried(&path, &method) {
            step("tried", tried);
        }
        let Some(route) = site.route(&path, &method, &HeaderMap::new()) else {
            step(
                "answer",
                match &site.passed {
                    Some(route) => format!("308 to https, where {} is passed through to its own server", route.name),
                    None => "404: no route for this origin takes the path and the method".into(),
                },
            );
            return Ok(Explained { steps });
        };
        step("route", route.name.to_string());
        if !secure && !route.rules.plain {
            step("answer", "308 to https, because the route has no \"plain = true\"".into());
            return Ok(Explained { steps });
        }
        let wan = config.wan_limit.filter(|_| origin == Origin::Wan);
        if let Some(rate) = wan {
            step("limit", format!("{rate} for each client from the Internet (ingress.wan_limit)"));
        }
        if origin == Origin::Wan && policy.outcasts.networks() > 0 {
            step("bans", format!("clients of {} networks are refused (ingress.bans)", policy.outcasts.networks()));
        }
        rules(route, &mut step);
        match &route.to {
            _ if route.rules.maintenance.is_some() => step("answer", "503: maintenance".into()),
            Target::Builtin(page) => step("answer", format!("a page that is built in: {page:?}").to_lowercase()),
            Target::Redirect(redirect) => {
                let location = redirect.location(&host, &path, uri.query());
                step("answer", format!("{} to {location}", redirect.status.as_u16()));
            }
            Target::Page(page) => step("answer", format!("{}, written in the configuration", page.status.as_u16())),
            Target::Dns(_) | Target::DnsOf(..) => step("answer", "of the DNS server (RFC 8484)".into()),
            Target::Upstreams(_) | Target::Passthrough(_) => {
                if !route.rules.compress.is_empty() {
                    let codings: Vec<_> = route.rules.compress.iter().map(|coding| coding.name()).collect();
                    step("compressed", format!("with {}, where nothing personal is in it", codings.join(" or ")));
                }
                if let Ok(path) = route.rules.rewrite.apply(&path)
                    && !route.rules.rewrite.is_empty()
                {
                    step("rewritten", path.to_string());
                }
                servers(route, &mut step);
            }
        }
        Ok(Explained { steps })
    }
}

/// Says what would happen to what comes to a port.
fn port(policy: &Policy, origin: Origin, transport: Transport, number: u16) -> Vec<(String, String)> {
    let mut steps = Vec::new();
    let mut step = |what: &str, said: String| steps.push((what.to_owned(), said));
    step("from", policy.config.directory.describe(origin));
    let inside = matches!(origin, Origin::Vpn(_));
    let entrances =
        policy.config.ports.iter().filter(|port| port.transport == transport).filter_map(|port| match inside {
            true => port.inner.contains(&number).then_some(Entrance::Inner(number)),
            false => {
                let place = port.places.iter().find(|place| place.address.port() == number)?;
                Some(Entrance::Kernel(place.clone()))
            }
        });
    let found: Vec<_> = entrances.filter_map(|entrance| policy.ports.at(transport, &entrance)).collect();
    let Some(entry) = found.iter().find(|entry| entry.admits(origin)).or(found.first()) else {
        step("answer", format!("none: no route has {} {number} where this origin comes in", transport.name()));
        return steps;
    };
    step("route", entry.route.name.to_string());
    if !entry.admits(origin) {
        step(
            "answer",
            match transport {
                Transport::Tcp => "a reset: the route's access does not let this origin in".to_owned(),
                Transport::Udp => "none: the route's access does not let this origin in".to_owned(),
            },
        );
        return steps;
    }
    rules(&entry.route, &mut step);
    step("answer", "of the server behind: what comes is passed on as it is".into());
    servers(&entry.route, &mut step);
    steps
}

fn servers(route: &Route, step: &mut impl FnMut(&str, String)) {
    let (Target::Upstreams(group) | Target::Passthrough(group)) = &route.to else { return };
    if let Some(version) = route.rules.proxy_protocol {
        step("told", format!("the client, by the PROXY protocol ({version:?})").replace("(V", "(v"));
    }
    let now = Instant::now();
    for dial in group.order(None, now) {
        let health = if dial.health.is_up(now) { "well" } else { "not well" };
        let crowd = dial.door.as_ref().map_or(String::new(), |door| {
            let ((working, waiting), limit) = (door.count(), &door.limit);
            let (most, longest) = (limit.connections, limit.queue);
            format!(", {working} of {most} requests at work, {waiting} of {longest} wait")
        });
        step("upstream", format!("{}, {health}{crowd}", dial.upstream));
    }
}

fn rules(route: &Route, step: &mut impl FnMut(&str, String)) {
    let limits = &route.rules.limits;
    if let Some(rate) = limits.rate {
        step("limit", format!("{rate} for each client"));
    }
    if limits.concurrency != u32::MAX {
        step("limit", format!("{} requests at once, {} now", limits.concurrency, route.series.under_way.get()));
    }
    if limits.body != u64::MAX {
        step("limit", format!("bodies of {} bytes", limits.body));
    }
    if limits.header != usize::MAX {
        step("limit", format!("header fields of {} bytes", limits.header));
    }
    if !limits.allow.is_empty() || !limits.deny.is_empty() {
        let list = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        step("limit", format!("clients of [{}], not of [{}]", list(&limits.allow), list(&limits.deny)));
    }
    if !limits.allow_country.is_empty() || !limits.deny_country.is_empty() {
        let list = |countries: &[Country]| countries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (allow, deny) = (list(&limits.allow_country), list(&limits.deny_country));
        step("limit", format!("from the Internet clients in [{allow}], not in [{deny}]"));
    }
    match &route.guard {
        None => {}
        Some(Guard::Basic(basic)) => step("auth", format!("name and password, {} users", basic.users.len())),
        Some(Guard::Forward(warden)) => {
            step("auth", format!("{} is asked ({:?})", warden.forward.to, warden.forward.preset))
        }
    }
}

impl super::Config {
    /// Reads an origin as [`crate::origin::Directory::describe`] writes it.
    fn origin(&self, text: &str) -> Option<Origin> {
        match text.split_once(':') {
            None if text == "wan" => Some(Origin::Wan),
            None if text == "lan" => Some(Origin::Lan(NetworkId::MAIN)),
            None if text == "host" => Some(Origin::Lan(NetworkId::HOST)),
            Some(("lan", _)) => {
                let networks = self.networks.iter().map(|network| Origin::Lan(*network));
                networks.into_iter().find(|origin| self.directory.describe(*origin) == text)
            }
            Some(("vpn", name)) => {
                let mut peers = self.directory.peers.iter();
                peers.find(|(_, known)| known == name).map(|(peer, _)| Origin::Vpn(*peer))
            }
            _ => None,
        }
    }
}

//! One table of routes for each distinct set of permissions.
//!
//! A host or path that an origin may not use is not in its table, so there is no check to pass by. What is
//! in another table leaves two traces here, both of which only take away: a name that any table has exactly
//! is never answered by this table's wildcard, and a path that stands in a route of its own is never
//! answered by the shorter path of another route.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use hyper::{HeaderMap, Method};
use rustls::{ServerConfig, sign::CertifiedKey};

use crate::{
    ingress::{
        Builtin, Conditions, Config, HostPattern, Http, Page, PeerReach, Redirect, Route as Written, RoutesReach,
        Rules, Target as To, auth::Guard, canonical::CanonicalPath, certs::Certificate, clients::ClientCa,
        series::RouteSeries, upstream::Group,
    },
    origin::{NetworkId, Origin, PeerId},
};

/// What one set of origins may use.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) hosts: Arc<Hosts>,
    tls: Option<Arc<ServerConfig>>,
    /// For hosts whose clients show certificates, by realm.
    guarded: HashMap<Arc<str>, Arc<ServerConfig>>,
}

/// The hosts of a table.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Site>,
    wildcard: HashMap<Box<str>, Site>,
    /// Whatever is asked for besides. What stands in another table alone is one of these: it goes where a name goes that
    /// never existed.
    any: Option<Site>,
    /// Every exact name of every table.
    reserved: Arc<HashSet<Box<str>>>,
}

/// A host, or all hosts under a wildcard.
#[derive(Debug)]
pub(super) struct Site {
    /// `None` if there is no TLS listener.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// What its clients must show.
    client_ca: Option<Arc<ClientCa>>,
    /// Takes all TLS that is begun for it, as it comes.
    pub(super) passed: Option<Arc<Route>>,
    /// In the order in which they are tried.
    places: Vec<Place>,
}

/// A path, with what else is asked of a request to it.
#[derive(Debug)]
struct Place {
    path: CanonicalPath,
    conditions: Conditions,
    /// `None` is closed to the origins of this table.
    route: Option<Arc<Route>>,
}

impl Place {
    /// To open takes the path as it stands; closed is whatever a server behind might take for one that is closed.
    fn has(&self, path: &CanonicalPath) -> bool {
        match self.route {
            Some(_) => path.starts_with_prefix(&self.path),
            None => path.might_be_under(&self.path),
        }
    }

    /// Whether a server behind might take a path for one of this place, whose rules let in not everybody: then no
    /// other place may have it, nor this one.
    fn might_be_meant(&self, path: &CanonicalPath) -> bool {
        let guarded = self.route.as_ref().is_some_and(|route| route.guard.is_some() || route.rules.limits.are_choosy());
        guarded && path.might_be_under(&self.path)
    }

    fn is(&self, written: &Written) -> bool {
        self.path == written.path && self.conditions == written.rules.conditions
    }

    /// The longest path first; of the same path that which asks more.
    fn order(&self) -> impl Ord + use<> {
        std::cmp::Reverse((self.path.as_str().trim_end_matches('/').len(), self.conditions.weight()))
    }
}

/// A route with what it needs at work.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Arc<str>,
    pub(super) to: Target,
    pub(super) log: bool,
    pub(super) series: RouteSeries,
    pub(super) rules: Rules,
    pub(super) guard: Option<Guard>,
}

/// Where requests go.
#[derive(Debug)]
pub(super) enum Target {
    Upstreams(Group),
    Passthrough(Group),
    Builtin(Builtin),
    Redirect(Redirect),
    Page(Page),
    /// The DNS server, with its own name.
    Dns(Arc<str>),
    /// The DNS server for one device, at this path and nothing below it.
    DnsOf(Arc<str>, CanonicalPath),
}

impl Route {
    /// Returns what is spoken to the servers behind.
    pub(super) fn http(&self) -> Http {
        match &self.to {
            Target::Upstreams(group) => group.http(),
            _ => Http::One,
        }
    }

    /// Returns the server that a client had before.
    pub(super) fn wanted(&self, headers: &HeaderMap) -> Option<u64> {
        match &self.to {
            Target::Upstreams(group) => group.wanted(headers),
            _ => None,
        }
    }
}

impl Table {
    /// Returns how TLS is spoken to a host of this realm.
    pub(super) fn config(&self, realm: Option<&Arc<str>>) -> Option<&Arc<ServerConfig>> {
        match realm {
            Some(realm) => self.guarded.get(realm),
            None => self.tls.as_ref(),
        }
    }
}

impl Hosts {
    /// Finds what answers plain HTTP for a host, in its canonical form.
    pub(super) fn site(&self, host: &str) -> Option<&Site> {
        self.own(host).or(self.any.as_ref())
    }

    /// Finds what TLS can be begun for. Whoever names nobody may be passed through, too.
    pub(super) fn secure(&self, host: Option<&str>) -> Option<&Site> {
        let own = host.and_then(|host| self.own(host)).filter(|site| site.is_there());
        own.or(self.any.as_ref().filter(|site| site.passed.is_some()))
    }

    /// Finds a host that a route names.
    pub(super) fn own(&self, host: &str) -> Option<&Site> {
        if let Some(site) = self.exact.get(host) {
            return Some(site);
        }
        if self.wildcard.is_empty() || self.reserved.contains(host) {
            return None;
        }
        let (label, base) = host.split_once('.')?;
        if label.is_empty() { None } else { self.wildcard.get(base) }
    }
}

impl Hosts {
    /// Finds the route that takes all TLS that is begun for a name.
    pub(super) fn passed(&self, name: Option<&str>) -> Option<&Arc<Route>> {
        self.secure(name)?.passed.as_ref()
    }
}

impl Site {
    /// Whether TLS can be begun for it: a name that a CA has given no certificate for yet is not there yet.
    pub(super) fn is_there(&self) -> bool {
        self.passed.is_some() || self.key().is_some()
    }

    /// Returns what is shown to clients, if there is anything yet.
    pub(super) fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.certificate.as_ref()?.key()
    }

    /// Returns what tells its connections from those of other hosts, if its clients show certificates.
    pub(super) fn realm(&self) -> Option<Arc<str>> {
        self.client_ca.as_ref().map(|client_ca| client_ca.realm.clone())
    }

    /// Says whether a connection of this realm is for this host.
    pub(super) fn is_of(&self, realm: Option<&Arc<str>>) -> bool {
        self.client_ca.as_ref().map(|client_ca| &client_ca.realm) == realm
    }

    /// Finds the route of a request.
    pub(super) fn route(&self, path: &CanonicalPath, method: &Method, headers: &HeaderMap) -> Option<&Arc<Route>> {
        let place = self.places_of(path).find(|place| place.conditions.hold(method, headers))?;
        place.route.as_ref().filter(|_| place.has(path))
    }

    fn places_of(&self, path: &CanonicalPath) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.has(path) || place.might_be_meant(path))
    }

    /// Says of each place that a path leads to, in the order in which they are tried, what it asks.
    pub(super) fn tried(&self, path: &CanonicalPath, method: &Method) -> Vec<String> {
        let said = self.places_of(path).map(|place| {
            let asked = match (place.conditions.is_empty(), place.conditions.admit(method)) {
                (true, _) => String::new(),
                (false, true) => format!(", if {}", place.conditions),
                (false, false) => format!(", not for {method}: {}", place.conditions),
            };
            let closed = match (&place.route, place.has(path)) {
                (None, _) => ", closed to this origin",
                (Some(_), true) => "",
                (Some(_), false) => ", too like it to be let pass by its rules",
            };
            format!("{}{asked}{closed}", place.path)
        });
        said.collect()
    }

    /// Whether a request that this route took would be taken by it still. Of its fields nothing is known any more:
    /// what was asked of them held. Who was let in by rules that have changed must come in again.
    pub(super) fn still_has(&self, taken: &Route, path: &CanonicalPath, method: &Method) -> bool {
        let mut places = self.places_of(path).filter(|place| place.conditions.admit(method));
        let found = places.find(|place| {
            place.conditions.headers.is_empty() || place.route.as_ref().is_some_and(|route| *route.name == *taken.name)
        });
        found
            .filter(|place| place.has(path))
            .and_then(|place| place.route.as_deref())
            .is_some_and(|route| route.admits_as(taken))
    }
}

impl Route {
    /// Whether this is the same route and lets in whom another state of it let in.
    pub(super) fn admits_as(&self, other: &Self) -> bool {
        let (one, two) = (&self.rules, &other.rules);
        self.name == other.name && one.auth == two.auth && one.limits.admit_as(&two.limits)
    }
}

/// The certificate of each host, and what its clients must show.
type Shown<'a> = (&'a HashMap<HostPattern, Arc<Certificate>>, &'a HashMap<HostPattern, Arc<ClientCa>>);

/// The tables, and which origin has which.
pub(super) struct Tables {
    by_origin: HashMap<Origin, Arc<Table>>,
    /// For an origin that the configuration does not know.
    nothing: Arc<Table>,
}

impl Tables {
    /// No routes for anybody.
    pub(super) fn none() -> Self {
        let nothing = Arc::new(Table { hosts: Arc::default(), tls: None, guarded: HashMap::new() });
        Self { by_origin: HashMap::new(), nothing }
    }

    pub(super) fn of(&self, origin: Origin) -> &Arc<Table> {
        self.by_origin.get(&origin).unwrap_or(&self.nothing)
    }

    /// Builds the tables; `route` makes what a written route needs at work for the table of an origin.
    pub(super) fn build<E>(
        config: &Config,
        shown: Shown<'_>,
        mut route: impl FnMut(Origin, &Written) -> Result<Arc<Route>, E>,
        mut tls: impl FnMut(Origin, &Arc<Hosts>, Option<&ClientCa>) -> Result<Arc<ServerConfig>, E>,
    ) -> Result<Self, E> {
        let exact = config.routes.iter().filter_map(|route| match &route.host {
            HostPattern::Exact(host) => Some(host.as_str().into()),
            HostPattern::Wildcard(_) | HostPattern::Any => None,
        });
        let reserved: Arc<HashSet<Box<str>>> = Arc::new(exact.collect());
        // WAN is alone in its class, whatever the others may use.
        let mut classes: BTreeMap<(bool, Vec<bool>), Vec<Origin>> = BTreeMap::new();
        for origin in origins(config) {
            let admitted = config.routes.iter().map(|route| admits(config, route, origin)).collect();
            classes.entry((origin == Origin::Wan, admitted)).or_default().push(origin);
        }
        let mut by_origin = HashMap::new();
        for ((_, admitted), origins) in classes {
            // Names the table over reloads: its ticket keys and its upstream connections stay its own.
            let key = *origins.first().expect("a class has an origin");
            let hosts = Arc::new(hosts(config, shown, &reserved, &admitted, |written| route(key, written))?);
            let (mut plain, mut guarded) = (None, HashMap::new());
            if !config.https.is_empty() || matches!(key, Origin::Vpn(_)) {
                plain = Some(tls(key, &hosts, None)?);
                for client_ca in hosts.client_cas() {
                    guarded.insert(client_ca.realm.clone(), tls(key, &hosts, Some(client_ca))?);
                }
            }
            let table = Arc::new(Table { hosts, tls: plain, guarded });
            by_origin.extend(origins.into_iter().map(|origin| (origin, table.clone())));
        }
        Ok(Self { by_origin, ..Self::none() })
    }
}

pub(super) fn origins(config: &Config) -> impl Iterator<Item = Origin> {
    let house = [NetworkId::HOST, NetworkId::MAIN].into_iter().chain(config.networks.iter().copied());
    let lan: std::collections::BTreeSet<Origin> = house.map(Origin::Lan).collect();
    let peers: std::collections::BTreeSet<Origin> = config.peers.iter().map(|reach| Origin::Vpn(reach.peer)).collect();
    std::iter::once(Origin::Wan).chain(lan).chain(peers)
}

fn admits(config: &Config, route: &Written, origin: Origin) -> bool {
    route.access.admits(origin)
        && match origin {
            Origin::Vpn(peer) => reaches(&config.peers, peer, &route.host),
            _ => true,
        }
}

pub(super) fn reaches(peers: &[PeerReach], peer: PeerId, host: &HostPattern) -> bool {
    peers.iter().filter(|reach| reach.peer == peer).any(|reach| match (&reach.routes, host) {
        (RoutesReach::All, _) => true,
        (RoutesReach::Hosts(hosts), HostPattern::Exact(host)) => hosts.contains(host),
        // `route:HOST` names one host; a wildcard is more than that.
        (RoutesReach::Hosts(_), HostPattern::Wildcard(_) | HostPattern::Any) => false,
    })
}

fn hosts<E>(
    config: &Config,
    shown: Shown<'_>,
    reserved: &Arc<HashSet<Box<str>>>,
    admitted: &[bool],
    mut make: impl FnMut(&Written) -> Result<Arc<Route>, E>,
) -> Result<Hosts, E> {
    let mut hosts = Hosts { reserved: reserved.clone(), ..Hosts::default() };
    for (written, admitted) in config.routes.iter().zip(admitted) {
        if !admitted {
            continue;
        }
        let site = hosts.entry(&written.host, shown);
        if let To::Passthrough(_) = written.to {
            if site.passed.is_none() {
                site.passed = Some(make(written)?);
            }
            continue;
        }
        if !site.places.iter().any(|place| place.is(written)) {
            let route = Some(make(written)?);
            site.places.push(Place { path: written.path.clone(), conditions: written.rules.conditions.clone(), route });
        }
    }
    for written in config.routes.iter().filter(|written| !matches!(written.to, To::Passthrough(_))) {
        let site = match &written.host {
            HostPattern::Exact(name) => hosts.exact.get_mut(name.as_str()),
            HostPattern::Wildcard(base) => hosts.wildcard.get_mut(base.as_str()),
            HostPattern::Any => hosts.any.as_mut(),
        };
        if let Some(site) = site
            && !site.places.iter().any(|place| place.is(written))
        {
            let (path, conditions) = (written.path.clone(), written.rules.conditions.clone());
            site.places.push(Place { path, conditions, route: None });
        }
    }
    for site in hosts.exact.values_mut().chain(hosts.wildcard.values_mut()).chain(&mut hosts.any) {
        site.places.sort_by_key(Place::order);
    }
    Ok(hosts)
}

impl Hosts {
    fn client_cas(&self) -> impl Iterator<Item = &ClientCa> {
        self.exact.values().chain(self.wildcard.values()).filter_map(|site| site.client_ca.as_deref())
    }

    fn entry(&mut self, host: &HostPattern, (certificates, client_cas): Shown<'_>) -> &mut Site {
        let (certificate, client_ca) = (certificates.get(host).cloned(), client_cas.get(host).cloned());
        let site = || Site { certificate, client_ca, passed: None, places: Vec::new() };
        let (sites, name) = match host {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(base) => (&mut self.wildcard, base),
            HostPattern::Any => return self.any.get_or_insert_with(site),
        };
        sites.entry(name.as_str().into()).or_insert_with(site)
    }
}

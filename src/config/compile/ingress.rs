//! `[ingress]` and `[[route]]` as the ingress means them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::{
    config::{
        Files,
        compile::{Names, Setting, access, acme, addresses, ports, public_clients, streams},
        file::{self, AccessWord, File, ReachWord, Target as Written},
        problems::{At, Report},
    },
    dns,
    ingress::{
        self, Auth, CertificateFiles, Conditions, Config, CrowdSec, Door, HostPattern, Http, Means, PeerReach, Proxies,
        Route, RoutesReach, Rules, Speaks, Target, Upstream, UpstreamHost, UpstreamTls, canonical::CanonicalPath,
        doh::PATH as DNS_PATH,
    },
    onlink,
    origin::{NetworkId, Origin},
    provider::Token,
};

/// Compiles `[ingress]` and the routes.
pub(crate) fn compile(
    ingress: &file::Ingress,
    file: &File,
    encrypted: Option<&dns::Encrypted>,
    lan: &onlink::Config,
    names: &Names,
    setting: &Setting<'_>,
    taken: &mut ports::Taken,
) -> Config {
    let report = setting.report;
    let mut sockets = |written, key| {
        let places = addresses(written, report, &ingress.about);
        taken.take(&places, key, &[ports::Protocol::Tcp], &ingress.about, report);
        places.into_iter().map(|place| place.value.address).collect::<Vec<_>>()
    };
    let http = sockets(&ingress.http, "ingress.http");
    let https = sockets(&ingress.https, "ingress.https");
    let doors = ingress.listeners.iter().flat_map(|listener| door(listener, names, report, taken)).collect();
    let certificates = ingress.certificates.iter().map(|files| CertificateFiles {
        hosts: files.hosts.iter().map(|host| host.value.clone()).collect(),
        certificate: setting.file(&files.cert, &ingress.about),
        key: setting.file(&files.key, &ingress.about),
    });
    let certificates: Vec<_> = certificates.collect();
    let ports = streams::compile(file, lan, names, setting, taken);
    let mut routes: Vec<Route> = Vec::new();
    for written in &file.routes {
        let access = access::compile(&written.access, names, &written.about, report);
        let to = target(written, file, lan, setting, taken);
        for host in &written.hosts {
            shadowed(&routes, host, written, report);
            if let Some((to, backup)) = &to {
                routes.push(Route {
                    name: name_of(written, &host.value),
                    host: host.value.clone(),
                    path: written.path.value.clone(),
                    access: access.clone(),
                    to: to.clone(),
                    log: written.log,
                    rules: Rules { backup: backup.clone(), ..written.rules.clone() },
                });
            }
        }
    }
    own_paths(&mut routes, file, report);
    passed_through(file, report);
    the_rest(file, report);
    hidden_by_their_absence(file, report);
    nowhere(ingress, file, report);
    let doh = file.dns.as_ref().and_then(|dns| dns.doh.as_ref());
    if let Some((doh, encrypted)) = doh.zip(encrypted) {
        let host = &doh.host;
        for host in [HostPattern::Exact(host.value.clone()), HostPattern::Wildcard(host.value.clone())] {
            let path = CanonicalPath::parse(DNS_PATH).expect("the path is canonical");
            if let Some(other) = routes.iter().find(|route| route.host == host && route.path == path) {
                let what = format!("host and path are those of a route ({})", other.name);
                report.error(doh.host.at, &doh.about, what, "give the route another host or path");
            }
            let rules = Rules::default();
            let name = route_name(&host, DNS_PATH, &rules.conditions);
            let access = encrypted.access.clone();
            routes.push(Route { name, host, path, access, to: Target::Dns, log: false, rules });
        }
    }
    if let Some(dns) = &file.dns {
        public_clients::add_routes(dns, &mut routes, setting);
    }
    let named = (0..).take(names.networks.len()).map(NetworkId::named);
    let config = Config {
        http,
        https,
        wan_limit: ingress.wan_limit,
        wan_connections: ingress.wan_connections,
        wan_refusals: ingress.wan_refusals,
        access_log: ingress.access_log,
        proxies: Proxies {
            from: ingress.trusted_proxies.iter().map(|net| net.value).collect(),
            word: ingress.client_from,
            ..Proxies::default()
        },
        doors,
        bans: ingress.bans.iter().map(|file| setting.file(file, &ingress.about)).collect(),
        countries: ingress.countries.as_ref().map(|file| setting.file(file, &ingress.about)),
        crowdsec: ingress.crowdsec.as_ref().and_then(|agent| crowdsec(agent, setting)),
        timeouts: ingress.timeouts.clone(),
        max_header: ingress.max_header,
        max_fields: ingress.max_fields,
        max_connections: ingress.max_connections,
        max_requests: ingress.max_requests,
        certificates,
        client_cas: client_cas(file, setting),
        acme: ingress.acme.iter().map(|entry| acme::compile(entry, &file.wan, setting)).collect(),
        state: setting.state.clone(),
        domain: names.domain.clone(),
        dns_host: doh.map(|doh| doh.host.value.clone()),
        routes,
        ports,
        networks: [NetworkId::HOST, NetworkId::MAIN].into_iter().chain(named).collect(),
        peers: peers(file, names),
        directory: names.directory(),
    };
    signable(&config, file, report);
    config
}

fn crowdsec(agent: &file::CrowdSec, setting: &Setting<'_>) -> Option<CrowdSec> {
    let ca = agent.ca.as_ref().map(|path| setting.file(path, &agent.about));
    let key = match setting.options.files {
        Files::Checked => setting.secret(&agent.key, &agent.about)?,
        Files::Unchecked => setting.secret(&agent.key, &agent.about).unwrap_or_default(),
    };
    Some(CrowdSec { url: agent.url.clone(), key: Token(key), every: agent.every, ca })
}

/// A listener of its own. Only who is alone there may be something else than the Internet.
fn door(listener: &file::Listener, names: &Names, report: &Report, taken: &mut ports::Taken) -> Vec<Door> {
    let about = &listener.about;
    let places = addresses(&listener.listen, report, about);
    taken.take(&places, "ingress.listener", &[ports::Protocol::Tcp], about, report);
    let alone = listener.only_proxies;
    if alone && listener.trusted_proxies.is_empty() {
        let hint = "name them, as trusted_proxies = [\"192.168.1.3\"]";
        report.error(listener.at, about, "\"only_proxies\" lets nobody in without \"trusted_proxies\"", hint);
    }
    let origin = match &listener.origin {
        None | Some(At { value: AccessWord::Public, .. }) => Origin::Wan,
        Some(word) => {
            if !alone {
                let hint = "add only_proxies = true, and see that these proxies let in nobody else";
                let what = "only a listener that nobody but its proxies can reach has another \"origin\" than \"wan\"";
                report.error(word.at, about, what, hint);
            }
            // "lan" is this box as well, from where nobody comes through a proxy.
            let access = access::compile(std::slice::from_ref(word), names, about, report);
            access.networks.into_iter().max().map_or(Origin::Wan, Origin::Lan)
        }
    };
    let speaks = match (&listener.scheme, listener.tls) {
        (None, true) => Speaks::Tls,
        (None, false) => Speaks::Plain,
        (Some(_), false) if alone => Speaks::Unwrapped,
        (Some(scheme), _) => {
            let hint = "write tls = false and only_proxies = true as well, or remove it";
            let what = "\"scheme\" is for plain HTTP from proxies alone, which end TLS themselves";
            report.error(scheme.at, about, what, hint);
            Speaks::Tls
        }
    };
    let from = listener.trusted_proxies.iter().map(|net| net.value).collect();
    let proxies = Proxies { from, word: listener.client_from, alone, origin };
    places.into_iter().map(|place| Door { address: place.value.address, speaks, proxies: proxies.clone() }).collect()
}

/// What clients must show is asked before the path is known: all routes of a host say the same.
fn client_cas(file: &File, setting: &Setting<'_>) -> BTreeMap<HostPattern, PathBuf> {
    let mut found: BTreeMap<HostPattern, Option<PathBuf>> = BTreeMap::new();
    for route in &file.routes {
        let path = route.client_ca.as_ref().map(|written| setting.file(written, &route.about));
        if let (Some(written), true) = (&route.client_ca, route.rules.plain) {
            let hint = "remove plain = true: certificates are shown in TLS";
            setting.report.error(written.at, &route.about, "\"client_ca\" cannot hold on plain HTTP", hint);
        }
        for host in &route.hosts {
            let other = found.entry(host.value.clone()).or_insert_with(|| path.clone());
            if *other != path {
                let at = route.client_ca.as_ref().map_or(host.at, |written| written.at);
                let what = format!("other routes of \"{}\" have another \"client_ca\"", host.value);
                setting.report.error(at, &route.about, what, "write the same in all routes of a host");
            }
        }
    }
    let mut found: BTreeMap<_, _> = found.into_iter().filter_map(|(host, path)| Some((host, path?))).collect();
    for client in file.dns.iter().flat_map(|dns| &dns.public_clients) {
        if let file::Shows::Certificate { host, ca } = &client.shows {
            let path = setting.file(ca, &client.about);
            let other = found.insert(HostPattern::Exact(host.value.clone()), path.clone());
            if other.is_some_and(|other| other != path) {
                let what = format!("routes of \"{}\" have another \"client_ca\"", host.value);
                setting.report.error(host.at, &client.about, what, "give these clients a host of their own");
            }
        }
    }
    found
}

fn covers(pattern: &HostPattern, name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match pattern {
        HostPattern::Exact(host) => host.as_str() == name,
        HostPattern::Wildcard(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent.as_str()),
        HostPattern::Any => false,
    }
}

/// Returns what logs and metrics call a route for one of its hosts.
pub(crate) fn name_of(route: &file::Route, host: &HostPattern) -> String {
    match route.passthrough {
        Some(_) => format!("{host} [tls]"),
        None => route_name(host, route.path.value.as_str(), &route.rules.conditions),
    }
}

fn route_name(host: &HostPattern, path: &str, conditions: &Conditions) -> String {
    let path = if path == "/" { "" } else { path };
    let asked = if conditions.is_empty() { String::new() } else { format!(" [{conditions}]") };
    format!("{host}{path}{asked}")
}

/// A host is passed through as a whole: the name in the ClientHello is all that is read of it.
fn passed_through(file: &File, report: &Report) {
    let passes = |host: &HostPattern| {
        let mut routes = file.routes.iter().filter(|route| route.passthrough.is_some());
        routes.any(|route| route.hosts.iter().any(|other| other.value == *host))
    };
    for route in file.routes.iter().filter(|route| route.passthrough.is_none()) {
        for host in route.hosts.iter().filter(|host| host.value != HostPattern::Any && passes(&host.value)) {
            if !route.rules.plain {
                let what = format!("TLS of \"{}\" is passed through by another route", host.value);
                let hint = "no request comes here but by plain HTTP: add plain = true, or remove one of the two";
                report.error(host.at, &route.about, what, hint);
            }
        }
    }
}

/// What nobody else has goes elsewhere. Hosts that are there, but not for everybody whom that lets in, go there like any
/// unknown name: nothing shows, unless the servers there still have them.
fn the_rest(file: &File, report: &Report) {
    let public = |route: &file::Route| route.access.iter().any(|word| word.value == AccessWord::Public);
    let hosts = || file.routes.iter().flat_map(|route| route.hosts.iter().map(move |host| (route, &host.value)));
    let hidden: std::collections::BTreeSet<String> = hosts()
        .filter(|(_, host)| matches!(host, HostPattern::Exact(_)))
        .filter(|(_, host)| !hosts().any(|(other, same)| same == *host && public(other)))
        .map(|(_, host)| host.to_string())
        .collect();
    let mut said = false;
    for route in file.routes.iter().filter(|route| public(route)) {
        let Some(host) = route.hosts.iter().find(|host| host.value == HostPattern::Any) else { continue };
        if !hidden.is_empty() && !said {
            said = true;
            let names = hidden.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            let what = format!("what the Internet asks of {names} goes to \"*\", like any name that is not known");
            let hint = "take these hosts out of the servers behind \"*\": who may come to them is decided there";
            report.warning(host.at, &route.about, what, hint);
        }
    }
}

/// Countries that nobody can tell.
fn nowhere(ingress: &file::Ingress, file: &File, report: &Report) {
    if ingress.countries.is_some() {
        return;
    }
    let routes = file.routes.iter().map(|route| (route.at(), &route.about, &route.rules.limits));
    let ports = file.ports.iter().map(|port| (port.at, &port.about, &port.rules.limits));
    for (at, about, limits) in routes.chain(ports) {
        if !limits.allow_country.is_empty() || !limits.deny_country.is_empty() {
            let hint = "name an MMDB file, as countries = \"GeoLite2-Country.mmdb\" in [ingress]";
            report.error(at, about, "nothing says in which country a client is", hint);
        }
    }
}

/// Some servers that say who somebody is have paths of their own on each host that asks them: there one signs in. Who
/// may use one of the routes that ask may come there, within what these routes let through.
fn own_paths(routes: &mut Vec<Route>, file: &File, report: &Report) {
    let mut made: Vec<Route> = Vec::new();
    for route in &*routes {
        let Auth::Forward(forward) = &route.rules.auth else { continue };
        let Some(path) = forward.preset.own_paths() else { continue };
        let path = CanonicalPath::parse(path).expect("the paths of presets are canonical");
        if routes.iter().any(|other| other.host == route.host && other.path == path) {
            continue;
        }
        let to = Target::Upstreams(vec![forward.to.clone()]);
        let Rules { limits, plain, .. } = &route.rules;
        match made.iter_mut().find(|other| other.host == route.host && other.path == path) {
            Some(other) if other.to != to => {
                let asks = |written: &&file::Route| written.hosts.iter().any(|host| host.value == route.host);
                if let Some(written) = file.routes.iter().rfind(asks) {
                    let what = format!("routes of \"{}\" ask several servers, but \"{path}\" leads to one", route.host);
                    let hint = "ask the same server in all routes of a host, or write a route for that path";
                    report.error(written.at(), &written.about, what, hint);
                }
            }
            Some(other) => {
                other.access.join(&route.access);
                other.rules.limits.widen(limits);
                other.rules.plain |= plain;
                other.log |= route.log;
            }
            None => made.push(Route {
                name: route_name(&route.host, path.as_str(), &Conditions::default()),
                host: route.host.clone(),
                path,
                access: route.access.clone(),
                to,
                log: route.log,
                rules: Rules { security: false, limits: limits.clone(), plain: *plain, ..Rules::default() },
            }),
        }
    }
    routes.extend(made);
}

/// Hosts that strangers may not use, under a wildcard that they may: that this one name is not answered shows.
fn hidden_by_their_absence(file: &File, report: &Report) {
    let is_public = |route: &file::Route| route.access.iter().any(|word| word.value == AccessWord::Public);
    let hosts = |public: bool| {
        let routes = file.routes.iter().filter(move |route| is_public(route) == public);
        routes.flat_map(|route| route.hosts.iter().map(move |host| (host, &route.about)))
    };
    for (host, about) in hosts(false) {
        let open = hosts(true).any(|(other, _)| other.value == host.value);
        let exact = matches!(host.value, HostPattern::Exact(_));
        let above = hosts(true).find(|(other, _)| other.value != host.value && other.value.covers(&host.value));
        if let (true, false, Some((above, _))) = (exact, open, above) {
            let what = format!(
                "\"{}\" is not public but under \"{}\", which is: that this one name is not answered tells that it is there",
                host.value, above.value
            );
            let hint = "give it a name that no public wildcard covers, or write the public hosts one by one";
            report.warning(host.at, about, what, hint);
        }
    }
}

/// A route that another takes every request from. Of routes with the same host and path, that which asks more of a
/// request is tried first, then that which is written first.
fn shadowed(routes: &[Route], host: &At<HostPattern>, written: &file::Route, report: &Report) {
    let asked = &written.rules.conditions;
    // What is passed through in TLS takes nothing from plain HTTP.
    let passed = |route: &Route| matches!(route.to, Target::Passthrough(_));
    let same = routes.iter().filter(|route| route.host == host.value && route.path == written.path.value);
    let same = same.filter(|route| passed(route) == written.passthrough.is_some());
    for other in same {
        let theirs = &other.rules.conditions;
        if *theirs == *asked {
            let what = format!("host and path are those of another route ({})", other.name);
            report.error(host.at, &written.about, what, "give one of them another host or path, or another \"match\"");
        } else if theirs.weight() >= asked.weight() && theirs.cover(asked) {
            let what = format!("no request ever comes here: another route takes them all ({})", other.name);
            report.error(host.at, &written.about, what, "put this route before it, or ask more in its \"match\"");
        } else if asked.weight() > theirs.weight() && asked.cover(theirs) {
            let what = format!("this route takes every request from another ({})", other.name);
            report.error(host.at, &written.about, what, "ask more in the \"match\" of that one");
        }
    }
}

/// Says which hosts nobody can make a certificate for.
fn signable(config: &Config, file: &File, report: &Report) {
    let plan = ingress::plan(config);
    let doh = file.dns.iter().filter_map(|dns| dns.doh.as_ref());
    let doh = doh.map(|doh| (doh.host.clone().map(HostPattern::Exact), &doh.about));
    let routes = file.routes.iter().flat_map(|route| route.hosts.iter().map(|host| (host.clone(), &route.about)));
    for (host, about) in routes.chain(doh) {
        if plan.get(&host.value) == Some(&Means::Nothing) {
            let what = format!(
                "no certificate can be made for \"{}\": it is not under {}",
                route_name(&host.value, "/", &Conditions::default()),
                config.domain
            );
            let hint = match config.acme.is_empty() {
                true => {
                    "name its files in ingress.certificates, order one with [ingress.acme], or use a host under node.domain"
                }
                false => {
                    "name its files in ingress.certificates, or use a host under node.domain: a host that is not public, a wildcard and a name that no public CA signs are not ordered so"
                }
            };
            report.error(host.at, about, what, hint);
        }
    }
}

fn target(
    route: &file::Route,
    file: &File,
    lan: &onlink::Config,
    setting: &Setting<'_>,
    taken: &ports::Taken,
) -> Option<(Target, Vec<Upstream>)> {
    let report = setting.report;
    let hosts = || file.routes.iter().flat_map(|route| &route.hosts).map(|host| &host.value);
    let own = |address: SocketAddr| address.ip().is_loopback() || lan.this_box.contains(&address.ip());
    let mut upstreams = Vec::new();
    let mut page = None;
    for to in route.to.iter().chain(&route.backup) {
        match &to.value {
            Written::Builtin(builtin) => page = Some((to.at, *builtin)),
            Written::Upstream { tls, http, host, port } => {
                let address = match host {
                    UpstreamHost::Address(address) => Some(*address),
                    UpstreamHost::Name(name) if name == "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
                    UpstreamHost::Name(_) | UpstreamHost::Unix(_) => None,
                };
                // The name of a route leads to the edge, whatever addresses the box has.
                let routed = |name: &str| hosts().any(|host| covers(host, name)) && taken.has_tcp(*port);
                let is_ours = match (host, address) {
                    (_, Some(address)) => taken.is_ours((address, *port).into(), own),
                    (UpstreamHost::Name(name), None) => routed(name),
                    _ => false,
                };
                if is_ours {
                    let hint = "write where the service itself listens";
                    report.error(to.at, &route.about, "the upstream is a port of the edge itself", hint);
                }
                if *tls && route.upstream_tls.is_none() && address.is_some() {
                    let what = "an upstream with an address rarely has a certificate of a public CA";
                    let hint = "add upstream_tls = { fingerprint = \"sha256:…\" } or { ca = \"ca.pem\" }";
                    report.warning(to.at, &route.about, what, hint);
                }
                let trust = match &route.upstream_tls {
                    Some(At { value: UpstreamTls::Ca(path), at }) => {
                        UpstreamTls::Ca(setting.file(&At { value: path.clone(), at: *at }, &route.about))
                    }
                    Some(tls) => tls.value.clone(),
                    None => UpstreamTls::Public,
                };
                let http = if route.passthrough.is_some() { Http::Opaque } else { *http };
                upstreams.push(Upstream { host: host.clone(), port: *port, tls: tls.then_some(trust), http });
            }
        }
    }
    let mut spoken = route.to.iter().chain(&route.backup).filter_map(|to| match to.value {
        Written::Upstream { http, .. } => Some((to.at, http)),
        Written::Builtin(_) => None,
    });
    if let Some((_, first)) = spoken.next()
        && let Some((at, _)) = spoken.find(|(_, http)| *http != first)
    {
        let hint = "write all of them with \"http://\" and \"https://\", or all with \"h2c://\" and \"h2://\"";
        report.error(at, &route.about, "servers of a route speak the same HTTP", hint);
    }
    for to in route.to.iter().chain(&route.backup) {
        let opaque = matches!(&to.value, Written::Upstream { http: Http::Opaque, .. });
        let other = matches!(&to.value, Written::Upstream { http: Http::Datagrams, .. });
        let unix = matches!(&to.value, Written::Upstream { host: UpstreamHost::Unix(_), .. });
        if route.passthrough.is_some() && !opaque && !unix {
            let hint = "write \"tcp://\" with host and port: whatever the client says goes there";
            report.error(to.at, &route.about, "what is passed through is no HTTP to us", hint);
        } else if route.passthrough.is_none() && (opaque || other) {
            let hint = "write \"http://\" or \"https://\", or add tls = \"passthrough\"";
            report.error(to.at, &route.about, "requests need a server that speaks HTTP", hint);
        }
    }
    if let Some(tls) = &route.upstream_tls
        && !upstreams.iter().any(|upstream| upstream.tls.is_some())
    {
        let hint = "write \"https://\" in \"to\", or remove it";
        report.error(tls.at, &route.about, "\"upstream_tls\" has no upstream with TLS", hint);
    }
    match &route.answer {
        Some(At { value: file::Answer::Redirect(redirect), .. }) => {
            return Some((Target::Redirect(redirect.clone()), Vec::new()));
        }
        Some(At { value: file::Answer::Page(page), .. }) => return Some((Target::Page(page.clone()), Vec::new())),
        None => {}
    }
    match page {
        Some((at, _)) if route.to.len() + route.backup.len() > 1 => {
            report.error(at, &route.about, "a built-in page stands alone", "write it, or upstreams");
            None
        }
        Some((_, page)) => Some((Target::Builtin(page), Vec::new())),
        None if upstreams.len() <= route.backup.len() => None,
        None => {
            let backup = upstreams.split_off(upstreams.len() - route.backup.len());
            match route.passthrough {
                Some(_) => Some((Target::Passthrough(upstreams), backup)),
                None => Some((Target::Upstreams(upstreams), backup)),
            }
        }
    }
}

fn peers(file: &File, names: &Names) -> Vec<PeerReach> {
    let Some(vpn) = &file.vpn else { return Vec::new() };
    let reach = |peer: &super::NamedPeer| {
        let words = vpn.reach_of(&peer.name);
        let routes = match words.iter().any(|word| word.value == ReachWord::Services) {
            true => RoutesReach::All,
            false => RoutesReach::Hosts(
                words
                    .iter()
                    .filter_map(|word| match &word.value {
                        ReachWord::Route(host) => Some(host.clone()),
                        _ => None,
                    })
                    .collect(),
            ),
        };
        PeerReach { peer: peer.id, routes }
    };
    names.peers.iter().map(reach).collect()
}

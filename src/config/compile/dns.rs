//! `[dns]` as the DNS plane means it.

use std::net::SocketAddr;

use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{A, AAAA, CNAME, HTTPS, NS, PTR, TXT},
};
use jiff::tz::TimeZone;

use crate::{
    config::{
        compile::{
            Names, Setting,
            access::{self, suggestion},
            places, ports,
        },
        file::{self, RecordData, Resolver},
        problems::{About, At, Report},
        value::{self, Listen},
    },
    dns::{
        Config, Device, Encrypted, Forward, GateName, Group, HouseRoutes, List, ListSource, LocalRecord, MOST_WAYS,
        OwnRule, Pause, Paused, PeerName, Purpose, Resolve, RouteName, Testing, Transport, Upstream, UpstreamHost,
        filter::Spans,
    },
    ingress::{self, HostPattern, RoutesReach},
    listen::Place,
    onlink,
    origin::{NetworkId, Origin},
    vpn,
};

/// Compiles `[dns]`.
pub(crate) fn compile(
    dns: &file::Dns,
    lan: &onlink::Config,
    names: &Names,
    timezone: TimeZone,
    setting: &Setting<'_>,
    taken: &mut ports::Taken,
) -> Config {
    let report = setting.report;
    let default_listen = || {
        let on_the_lan = (!lan.interfaces.is_empty()).then_some(Listen::Lan(53));
        on_the_lan.into_iter().chain([Listen::Loopback(53)]).map(|value| At { value, at: dns.at }).collect()
    };
    let listen = dns.listen.clone().unwrap_or_else(default_listen);
    let listen = places(&listen, lan, report, &dns.about);
    taken.take(&listen, "dns.listen", &[ports::Protocol::Udp, ports::Protocol::Tcp], &dns.about, report);
    let encrypted = places(&dns.encrypted, lan, report, &dns.about);
    upstreams(dns, [&listen, &encrypted], lan, report);
    taken.take(&encrypted, "dns.encrypted", &[ports::Protocol::Udp, ports::Protocol::Tcp], &dns.about, report);
    if let (Some(first), None) = (dns.encrypted.first(), &dns.doh) {
        let hint = "write doh = { host = \"dns.home.example\", access = [\"lan\"] }: its host names the certificate";
        report.error(first.at, &dns.about, "\"encrypted\" has no name to show", hint);
    }
    let encrypted = dns.doh.as_ref().map(|doh| Encrypted {
        listen: encrypted.into_iter().map(|place| place.value).collect(),
        host: doh.host.value.as_str().to_owned(),
        https: None,
        access: access::compile(&doh.access, names, &doh.about, report),
    });
    let domain = value::name(names.domain.as_str()).unwrap_or_else(|_| Name::root());
    let testing = match &dns.testing {
        Some(testing) if !setting.options.testing => {
            let about = About { section: "dns.testing", name: None };
            report.error(
                testing.at,
                &about,
                "these switches are for tests",
                "start with --testing, or remove the section",
            );
            Testing::default()
        }
        Some(testing) => testing.value.clone(),
        None => Testing::default(),
    };
    Config {
        listen: listen.into_iter().map(|place| place.value).collect(),
        encrypted,
        records: records(&dns.records, &domain, report),
        dns64: dns.dns64,
        zones: dns.zones.iter().map(|path| setting.file(path, &dns.about)).collect(),
        hosts: dns.hosts.iter().map(|path| setting.file(path, &dns.about)).collect(),
        // A DHCP server may not have written any yet.
        leases: dns.leases.iter().map(|path| setting.path(&path.value)).collect(),
        peers: Vec::new(),
        routes: HouseRoutes::default(),
        domain,
        state: setting.state.clone(),
        cache_size: dns.cache_size,
        rrset_cache: dns.rrset_cache,
        ttl: dns.ttl.clone(),
        stale: dns.stale,
        prefetch: dns.prefetch,
        minimise: dns.minimise,
        case_randomisation: dns.case_randomisation,
        sha1: dns.sha1,
        negative_anchors: dns.negative_anchors.clone(),
        traces: dns.traces,
        time_servers: Vec::new(),
        clock: crate::clock::Clock::believed(),
        figures: crate::dns::Figures::default(),
        resolve: match &dns.resolve {
            Resolver::Recursive => Resolve::Recursive,
            Resolver::Forward(upstreams) => Resolve::Forward(values(upstreams)),
        },
        fallback: dns.fallback,
        bootstrap: bootstrap(dns, report),
        upstream_ca: dns.upstream_ca.as_ref().map(|path| setting.file(path, &dns.about)),
        root_hints: dns.root_hints.as_ref().map(|path| setting.file(path, &dns.about)),
        trust_anchors: dns.trust_anchors.as_ref().map(|path| setting.file(path, &dns.about)),
        forward: forward(&dns.forward, report),
        lists: lists(&dns.lists, setting),
        groups: groups(dns, names, report),
        timezone,
        rules: rules(dns, report),
        pauses: pauses(dns, names, report),
        keep_clients: dns.keep_clients,
        block_reason: dns.block_reason,
        rebind_allow: dns.rebind_allow.clone(),
        directory: names.directory(),
        testing,
    }
}

/// What the routes of the ingress say to the DNS plane.
pub(crate) fn routes(
    ingress: &ingress::Config,
    encrypted: Option<&Encrypted>,
    vpn: Option<&vpn::Config>,
) -> HouseRoutes {
    let mut names: Vec<RouteName> = Vec::new();
    // TLS and QUIC are for every network of the house, whoever may use HTTPS.
    let serves_dns = encrypted.is_some_and(|own| !own.listen.is_empty());
    let routes = ingress.routes.iter();
    let routes = routes.map(|route| (&route.host, &route.access, serves_dns && route.to == ingress::Target::Dns));
    let ports = ingress.ports.iter().filter_map(|port| Some((port.host.as_ref()?, &port.access, false)));
    for (pattern, access, is_dns) in routes.chain(ports) {
        let (host, written) = match pattern {
            HostPattern::Exact(host) => (Some(host), host.to_string()),
            HostPattern::Wildcard(host) => (None, format!("*.{host}")),
            // Names that are not known are asked of the public DNS.
            HostPattern::Any => continue,
        };
        let Ok(name) = Name::from_ascii(format!("{written}.")) else { continue };
        let admitted = |network: &&NetworkId| is_dns || access.admits(Origin::Lan(**network));
        let networks = ingress.networks.iter().filter(admitted);
        let peers = ingress.peers.iter().filter(|reach| {
            let begins = match &reach.routes {
                RoutesReach::All => true,
                RoutesReach::Hosts(hosts) => host.is_some_and(|host| hosts.contains(host)),
            };
            begins && access.admits(Origin::Vpn(reach.peer))
        });
        let place = names.iter().position(|known| known.host == name).unwrap_or_else(|| {
            names.push(RouteName { host: name, networks: Vec::new(), peers: Vec::new() });
            names.len() - 1
        });
        names[place].networks.extend(networks);
        names[place].peers.extend(peers.map(|reach| reach.peer));
    }
    let listen = if ingress.https.is_empty() { &ingress.http } else { &ingress.https };
    HouseRoutes {
        names,
        listen: match encrypted {
            Some(encrypted) if listen.is_empty() => encrypted.listen.iter().map(|place| place.address.ip()).collect(),
            _ => listen.iter().map(|address| address.ip()).collect(),
        },
        https: ingress.https.first().map(|address| address.port()),
        below: ingress.dns_host.as_ref().and_then(|host| value::name(host.as_str()).ok()),
        inner: vpn.map_or_else(Vec::new, |vpn| vpn.addresses.iter().map(|net| net.addr()).collect()),
        gate: None,
    }
}

/// The name that peers are told, if it is one.
pub(crate) fn gate(vpn: &vpn::Config) -> Option<GateName> {
    let (host, _) = vpn.endpoint.as_ref()?.rsplit_once(':')?;
    if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        return None;
    }
    let host = value::name(host).ok()?;
    Some(GateName { host, listen: vpn.listen.iter().map(|address| address.ip()).collect() })
}

/// What the peers of the gate say to the DNS plane.
pub(crate) fn peers(vpn: &vpn::Config, domain: &Name) -> Vec<PeerName> {
    let name = |peer: &vpn::Peer| {
        let label = peer.name.to_ascii_lowercase();
        let under = Name::from_ascii(format!("{label}.vpn")).ok()?.append_domain(domain).ok()?;
        let callers = || peer.reached_by.iter();
        Some(PeerName {
            name: under,
            peer: peer.id,
            addresses: peer
                .addresses
                .iter()
                .filter(|net| net.prefix_len() == net.max_prefix_len())
                .map(|net| net.addr())
                .collect(),
            lan: callers().any(|caller| *caller == vpn::Caller::Lan),
            nets: callers()
                .filter_map(|caller| match caller {
                    vpn::Caller::Net(net) | vpn::Caller::Ports { net, .. } => Some(*net),
                    _ => None,
                })
                .collect(),
            peers: callers()
                .filter_map(|caller| match caller {
                    vpn::Caller::Peer(peer) => Some(*peer),
                    _ => None,
                })
                .collect(),
        })
    };
    vpn.peers.iter().filter_map(name).collect()
}

fn records(written: &[file::Record], domain: &Name, report: &Report) -> Vec<LocalRecord> {
    let mut records = Vec::new();
    let mut seen: Vec<Name> = Vec::new();
    for entry in written {
        let Some(name) = absolute(&entry.name.value, domain) else {
            let hint = "write labels of at most 63 characters with dots between";
            report.error(entry.name.at, &entry.about, "this is no DNS name", hint);
            continue;
        };
        if seen.contains(&name) {
            let what = format!("{name} has records already");
            report.error(entry.name.at, &entry.about, what, "write all data of a name in one place");
        }
        seen.push(name.clone());
        let fixed = |data| LocalRecord::Fixed(Record::from_rdata(name.clone(), entry.ttl, data));
        for data in &entry.data {
            records.push(match &data.value {
                RecordData::Address(std::net::IpAddr::V4(v4)) => fixed(RData::A(A(*v4))),
                RecordData::Address(std::net::IpAddr::V6(v6)) => fixed(RData::AAAA(AAAA(*v6))),
                RecordData::Suffix(suffix) => {
                    LocalRecord::Suffix { name: name.clone(), suffix: *suffix, ttl: entry.ttl }
                }
                RecordData::Txt(text) => {
                    // RFC 1035 §3.3: strings of at most 255 bytes.
                    let strings = text.as_bytes().chunks(255).collect::<Vec<_>>();
                    fixed(RData::TXT(TXT::from_bytes(strings)))
                }
                RecordData::Data(data) => fixed(settled(data.clone(), domain)),
                RecordData::Cname(target_text) => match absolute(target_text, domain) {
                    Some(target) if target != name => fixed(RData::CNAME(CNAME(target))),
                    target => {
                        let what = match target {
                            Some(_) => "the cname points at itself".to_owned(),
                            None => format!("\"{target_text}\" is no DNS name"),
                        };
                        report.error(data.at, &entry.about, what, "write the name of something else");
                        continue;
                    }
                },
            });
        }
    }
    records
}

/// Puts relative names in the data of a record under the domain.
fn settled(data: RData, domain: &Name) -> RData {
    let settle = |name: Name| match name.is_fqdn() || name.is_root() {
        true => name,
        false => absolute(&name.to_ascii(), domain).unwrap_or(name),
    };
    match data {
        RData::MX(mut mx) => {
            mx.exchange = settle(mx.exchange);
            RData::MX(mx)
        }
        RData::SRV(mut srv) => {
            srv.target = settle(srv.target);
            RData::SRV(srv)
        }
        RData::NAPTR(mut naptr) => {
            naptr.replacement = settle(naptr.replacement);
            RData::NAPTR(naptr)
        }
        RData::PTR(PTR(name)) => RData::PTR(PTR(settle(name))),
        RData::NS(NS(name)) => RData::NS(NS(settle(name))),
        RData::SVCB(mut svcb) => {
            svcb.target_name = settle(svcb.target_name);
            RData::SVCB(svcb)
        }
        RData::HTTPS(HTTPS(mut svcb)) => {
            svcb.target_name = settle(svcb.target_name);
            RData::HTTPS(HTTPS(svcb))
        }
        data => data,
    }
}

/// Relative names are under the domain; those that end in it, or in a dot, are not relative.
fn absolute(text: &str, domain: &Name) -> Option<Name> {
    let name = value::name(text).ok()?;
    // Nobody means 10.1.168.192.in-addr.arpa.home.arpa.
    let is_reverse = [".in-addr.arpa", ".ip6.arpa"].iter().any(|zone| text.ends_with(zone));
    if text.ends_with('.') || is_reverse || domain.zone_of(&name) {
        return Some(name);
    }
    let mut relative = name;
    relative.set_fqdn(false);
    let mut name = relative.append_domain(domain).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn values(upstreams: &[At<Upstream>]) -> Vec<Upstream> {
    upstreams.iter().map(|upstream| upstream.value.clone()).collect()
}

/// Who is asked for the addresses of servers that are known by name: those that are written for it, else those
/// that are asked over plain DNS anyway.
fn bootstrap(dns: &file::Dns, report: &Report) -> Vec<SocketAddr> {
    let everybody: &[At<Upstream>] = match &dns.resolve {
        Resolver::Forward(upstreams) => upstreams,
        Resolver::Recursive => &[],
    };
    let mut servers = dns.bootstrap.clone();
    if servers.is_empty() {
        servers.extend(everybody.iter().filter_map(|upstream| match &upstream.value {
            Upstream { host: UpstreamHost::Address(address), transport: Transport::Plain } => Some(*address),
            _ => None,
        }));
    }
    let by_zone = dns.forward.iter().flat_map(|forward| forward.to.iter().map(|server| (server, &forward.about)));
    let of_groups = dns.groups.iter().flat_map(|group| group.upstreams.iter().map(|server| (server, &group.about)));
    let all = everybody.iter().map(|server| (server, &dns.about)).chain(by_zone).chain(of_groups);
    for (server, about) in all.filter(|_| servers.is_empty()) {
        if let UpstreamHost::Name { name, .. } = &server.value.host {
            let name = name.to_ascii();
            let what = format!("nobody can be asked for the address of \"{}\"", name.trim_end_matches('.'));
            let hint = "write its address, as \"tls://9.9.9.9#dns.quad9.net\", or dns.bootstrap = [\"9.9.9.9\"]";
            report.error(server.at, about, what, hint);
        }
    }
    servers
}

/// Reports servers to ask that are this one.
fn upstreams(dns: &file::Dns, listening: [&[At<Place>]; 2], lan: &onlink::Config, report: &Report) {
    let everybody: &[At<Upstream>] = match &dns.resolve {
        Resolver::Forward(upstreams) => upstreams,
        Resolver::Recursive => &[],
    };
    let by_zone = dns.forward.iter().flat_map(|forward| forward.to.iter().map(|server| (server, &forward.about)));
    for (server, about) in everybody.iter().map(|server| (server, &dns.about)).chain(by_zone) {
        let UpstreamHost::Address(address) = server.value.host else { continue };
        let plain = server.value.transport == Transport::Plain;
        let ours = listening[usize::from(!plain)].iter().any(|place| is_at(&place.value, address, lan));
        if ours {
            let hint = "write the address of another server: a question would go round in circles";
            report.error(server.at, about, format!("{address} is this box itself"), hint);
        }
    }
}

/// Says whether a server at this place is at that address, as far as the file tells.
fn is_at(place: &Place, address: SocketAddr, lan: &onlink::Config) -> bool {
    let here = address.ip().to_canonical();
    let any = place.address.ip().is_unspecified()
        && match &place.device {
            None => here.is_loopback() || lan.this_box.contains(&here),
            Some(_) => lan.this_box.contains(&here),
        };
    place.address.port() == address.port() && (any || place.address.ip().to_canonical() == here)
}

fn forward(written: &[file::Forward], report: &Report) -> Vec<Forward> {
    let mut zones: Vec<Forward> = Vec::new();
    for forward in written {
        if zones.iter().any(|other| other.zone == forward.zone.value) {
            report.error(
                forward.zone.at,
                &forward.about,
                "this zone is forwarded twice",
                "write all servers in one entry",
            );
        }
        zones.push(Forward {
            zone: forward.zone.value.clone(),
            to: values(&forward.to),
            fallback: forward.fallback,
            validate: forward.validate,
        });
    }
    zones
}

fn lists(written: &[file::List], setting: &Setting<'_>) -> Vec<List> {
    let mut lists: Vec<List> = Vec::new();
    for list in written {
        let name = &list.name;
        if lists.iter().any(|other| other.name == name.value) {
            setting.report.error(name.at, &list.about, "this name is given twice", "give each list a name of its own");
        }
        let source = match (&list.source, &list.names) {
            (Some(At { value: file::Source::Path(path), at }), _) if list.enabled => {
                let path = At { value: path.clone(), at: *at };
                ListSource::Path(setting.file(&path, &list.about))
            }
            (Some(At { value: file::Source::Path(path), .. }), _) => ListSource::Path(setting.path(path)),
            (Some(At { value: file::Source::Url(url), at }), _) => {
                if url.scheme_str() == Some("http") {
                    let what = "the list is fetched over http: whoever is on the way can change it";
                    setting.report.warning(*at, &list.about, what, "write https if the server has it");
                }
                ListSource::Url(url.clone())
            }
            (None, names) => {
                let names = names.iter().flatten().map(|name| name.to_ascii().trim_end_matches('.').to_owned());
                ListSource::Inline(names.collect())
            }
        };
        lists.push(List {
            name: name.value.clone(),
            source,
            action: list.action,
            purpose: list.purpose,
            block_as: list.block_as,
            refresh: list.refresh,
            enabled: list.enabled,
        });
    }
    lists
}

fn groups(dns: &file::Dns, names: &Names, report: &Report) -> Vec<Group> {
    let place = |word: &At<file::ListWord>, group: &file::Group| {
        let found = dns.lists.iter().position(|list| list.name.value == word.value.name);
        if let Some(list) =
            found.and_then(|list| dns.lists.get(list)).filter(|list| list.purpose == Purpose::KeepClients)
        {
            let what = format!("list \"{}\" belongs to keep_clients, not to groups", list.name.value);
            report.error(word.at, &group.about, what, "take it out: it holds for every group with keep_clients = true");
        }
        if found.is_none() {
            let known = dns.lists.iter().map(|list| list.name.value.as_str());
            let what = format!("there is no list \"{}\"", word.value.name);
            let hint = suggestion(&word.value.name, known, "declare it with [[dns.list]]");
            report.error(word.at, &group.about, what, hint);
        }
        found
    };
    let named = |group: &file::Group| -> Vec<(usize, Spans)> {
        let words = group.lists.iter().flatten();
        words.filter_map(|word| Some((place(word, group)?, Spans::new(word.value.spans.iter().copied())))).collect()
    };
    // Without a group "default" it has every list that no other group names: a list that was written is
    // meant for somebody.
    let default_lists: Vec<(usize, Spans)> = match dns.groups.iter().find(|group| group.name.value == "default") {
        Some(default) => named(default),
        None => {
            let claimed: Vec<usize> = dns.groups.iter().flat_map(named).map(|(list, _)| list).collect();
            let is_free = |list: &usize| !claimed.contains(list) && dns.lists[*list].purpose == Purpose::Filter;
            let free = (0..dns.lists.len()).filter(is_free);
            free.map(|list| (list, Spans::default())).collect()
        }
    };
    let mut groups: Vec<Group> = Vec::new();
    for group in &dns.groups {
        let name = &group.name;
        if groups.iter().any(|other| other.name == name.value) {
            report.error(name.at, &group.about, "this name is given twice", "give each group a name of its own");
        }
        let besides = group.lists.as_ref().is_none_or(|words| words.iter().any(|word| word.value.besides_default));
        let mut lists = named(group);
        if besides {
            lists.extend(default_lists.iter().cloned());
        }
        let (lists, timed) = by_time(lists);
        groups.push(Group {
            name: name.value.clone(),
            devices: devices(group, names, report),
            lists,
            timed,
            offline: Spans::new(group.offline.iter().copied()),
            allow: group.allow.clone(),
            block: group.block.clone(),
            upstreams: values(&group.upstreams),
            services: group.services.clone(),
            safe_search: group.safe_search.clone(),
            keep_clients: group.keep_clients,
            rebind: group.rebind,
        });
    }
    if !groups.iter().any(|group| group.name == "default") {
        let (lists, timed) = by_time(default_lists);
        groups.insert(0, Group { name: "default".into(), lists, timed, ..Group::default() });
    }
    repeated_devices(dns, report);
    many_ways(dns, report);
    groups
}

/// Each set of servers has a resolver of its own, with a thread and a cache.
fn many_ways(dns: &file::Dns, report: &Report) {
    let mut sets: Vec<Vec<Upstream>> = Vec::new();
    for group in &dns.groups {
        let Some(first) = group.upstreams.first() else { continue };
        let servers = values(&group.upstreams);
        if sets.contains(&servers) {
            continue;
        }
        sets.push(servers);
        if sets.len() == MOST_WAYS + 1 {
            let what = format!("groups have more than {MOST_WAYS} different sets of upstreams");
            report.error(first.at, &group.about, what, "let groups share their servers");
        }
    }
}

/// Takes the lists that always apply out of those that apply in spans of time.
fn by_time(lists: Vec<(usize, Spans)>) -> (Vec<usize>, Vec<(usize, Spans)>) {
    let (always, timed): (Vec<_>, Vec<_>) = lists.into_iter().partition(|(_, spans)| spans.is_empty());
    let mut always: Vec<usize> = always.into_iter().map(|(list, _)| list).collect();
    always.sort_unstable();
    always.dedup();
    (always, timed)
}

fn devices(group: &file::Group, names: &Names, report: &Report) -> Vec<Device> {
    group.devices.iter().filter_map(|word| device(word, &group.about, names, report)).collect()
}

fn device(word: &At<file::DeviceWord>, about: &About, names: &Names, report: &Report) -> Option<Device> {
    match &word.value {
        file::DeviceWord::Net(net) => Some(Device::Net(*net)),
        file::DeviceWord::Name(name) => Some(Device::Name(name.clone())),
        file::DeviceWord::Client(name) => Some(Device::Client(*name)),
        file::DeviceWord::Mac(mac) => {
            if mac.is_random() {
                let what = format!("\"{mac}\" was made up by the device, which may choose another one any time");
                report.warning(word.at, about, what, "switch private addresses off for this network on the device");
            }
            Some(Device::Mac(*mac))
        }
        file::DeviceWord::Peer(name) => {
            let peer = names.peers.iter().find(|peer| peer.name == *name);
            if peer.is_none() {
                let what = format!("there is no peer \"{name}\"");
                let known = names.peers.iter().map(|peer| peer.name.as_str());
                report.error(word.at, about, what, suggestion(name, known, "declare it with [[vpn.peer]]"));
            }
            peer.map(|peer| Device::Peer(peer.id))
        }
    }
}

/// Returns the group that is meant, if there is one of that name.
fn group_named(word: &At<String>, about: &About, dns: &file::Dns, report: &Report) -> Option<String> {
    let known = || ["default"].into_iter().chain(dns.groups.iter().map(|group| group.name.value.as_str()));
    if known().any(|name| name == word.value) {
        return Some(word.value.clone());
    }
    let what = format!("there is no group \"{}\"", word.value);
    report.error(word.at, about, what, suggestion(&word.value, known(), "declare it with [[dns.group]]"));
    None
}

fn rules(dns: &file::Dns, report: &Report) -> Vec<OwnRule> {
    let compile = |rule: &file::Rule| -> Vec<OwnRule> {
        let group = match &rule.group {
            Some(word) => match group_named(word, &rule.about, dns, report) {
                Some(name) => Some(name),
                None => return Vec::new(),
            },
            None => None,
        };
        let of =
            |name: &Name| OwnRule { name: name.clone(), action: rule.action, group: group.clone(), until: rule.until };
        rule.names.iter().map(of).collect()
    };
    dns.rules.iter().flat_map(compile).collect()
}

fn pauses(dns: &file::Dns, names: &Names, report: &Report) -> Vec<Pause> {
    let compile = |pause: &file::Pause| {
        let whom = match (&pause.group, &pause.device) {
            (Some(group), _) => Paused::Group(group_named(group, &pause.about, dns, report)?),
            (None, Some(word)) => Paused::Device(device(word, &pause.about, names, report)?),
            (None, None) => Paused::Everybody,
        };
        Some(Pause { whom, until: pause.until })
    };
    dns.pauses.iter().filter_map(compile).collect()
}

fn repeated_devices(dns: &file::Dns, report: &Report) {
    let words = dns.groups.iter().flat_map(|group| group.devices.iter().map(move |device| (group, device)));
    let words: Vec<_> = words.collect();
    for (index, (group, device)) in words.iter().enumerate() {
        if let Some((other, _)) = words[..index].iter().find(|(_, other)| other.value == device.value) {
            let what = format!("this device is in group \"{}\" already", other.name.value);
            report.error(device.at, &group.about, what, "a device is in one group");
        }
    }
}

//! `[vpn]` as the gate means it.

use std::{collections::HashSet, path::PathBuf};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    config::{
        PeerIds, User,
        compile::{NamedPeer, Names, Setting, access::suggestion, addresses, ports},
        file::{self, CallerWord, Expires, File, ReachWord},
        made,
        problems::{At, Report, Text},
    },
    ingress::HostPattern,
    origin::PeerId,
    vpn::{Caller, Config, Peer, Person, Reach, keys::PrivateKey},
};

impl file::Vpn {
    /// Returns what a peer may reach: its own words, its group's, or `services`.
    pub(crate) fn reach_of(&self, name: &str) -> Vec<At<ReachWord>> {
        let peer = self.peers.iter().find(|peer| peer.is(name));
        let group = peer.and_then(|peer| peer.group.as_ref());
        let group = self.groups.iter().find(|one| group.is_some_and(|group| group.value == one.name.value));
        let own = peer.and_then(|peer| peer.may_reach.as_ref());
        let words = own.or(group.and_then(|group| group.may_reach.as_ref())).cloned();
        words.unwrap_or_else(|| vec![At { value: ReachWord::Services, at: self.at }])
    }
}

impl file::Peer {
    fn is(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.value == name)
    }
}

/// Drops peers that are named twice: the file wins over an edit with a warning, within the file it is a problem.
pub(crate) fn drop_repeated(vpn: &mut file::Vpn, report: &Report) {
    let (mut names, mut keys) = (HashSet::new(), HashSet::new());
    vpn.peers.retain(|peer| {
        let name_is_new = peer.name.as_ref().is_none_or(|name| names.insert(name.value.clone()));
        let key_is_new = peer.public_key.as_ref().is_none_or(|key| keys.insert(key.value));
        let what = match (name_is_new, key_is_new) {
            (true, true) => return true,
            (false, _) => "this name is given twice",
            (true, false) => "another peer has this public key",
        };
        if peer.at.text == Text::Edits {
            let hint = "remove it from one of the two: `hearthgate peer remove`, or the file";
            report.warning(peer.at, &peer.about, format!("{what}; the file's entry is used"), hint);
        } else {
            let key_at = peer.public_key.as_ref().map_or(peer.at, |key| key.at);
            let at = if name_is_new { key_at } else { peer.name.as_ref().map_or(peer.at, |name| name.at) };
            report.error(at, &peer.about, what, "a peer is its key: give each its own, and a name");
        }
        false
    });
    let mut groups = HashSet::new();
    for group in vpn.groups.iter().filter(|group| !groups.insert(&group.name.value)) {
        report.error(group.name.at, &group.about, "this name is given twice", "give each group a name of its own");
    }
}

/// Returns the peers by which others can be named; what is wrong with the rest is reported when it is compiled.
pub(crate) fn named(vpn: Option<&file::Vpn>, ids: &mut PeerIds) -> Vec<NamedPeer> {
    let named = |peer: &file::Peer| {
        let (name, key) = (peer.name.as_ref()?, peer.public_key.as_ref()?);
        let group = peer.group.as_ref().map(|group| group.value.clone());
        Some(NamedPeer { id: ids.id(key.value), name: name.value.clone(), group })
    };
    vpn.map(|vpn| vpn.peers.iter().filter_map(named).collect()).unwrap_or_default()
}

/// Returns the groups that are declared or have a member.
pub(crate) fn groups(vpn: Option<&file::Vpn>) -> Vec<String> {
    let Some(vpn) = vpn else { return Vec::new() };
    let declared = vpn.groups.iter().map(|group| &group.name.value);
    let joined = vpn.peers.iter().filter_map(|peer| peer.group.as_ref()).map(|group| &group.value);
    let mut groups: Vec<String> = declared.chain(joined).cloned().collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Compiles `[vpn]`.
pub(crate) fn compile(
    vpn: &file::Vpn,
    file: &File,
    names: &Names,
    users: &[User],
    metrics_port: Option<u16>,
    setting: &Setting<'_>,
    taken: &mut ports::Taken,
) -> Config {
    let report = setting.report;
    let listen = addresses(&vpn.listen, report, &vpn.about);
    taken.take(&listen, "vpn.listen", &[ports::Protocol::Udp], &vpn.about, report);
    let mut config = Config {
        listen: listen.into_iter().map(|place| place.value.address).collect(),
        endpoint: vpn.endpoint.clone(),
        addresses: Vec::new(),
        private_key: private_key(vpn, setting),
        previous_key: None,
        mode: vpn.mode,
        lan: vpn.lan,
        lan_interfaces: file.lan.interfaces.iter().map(|name| name.value.clone()).collect(),
        peers: Vec::new(),
        metrics_port,
        ports: Vec::new(),
        state: setting.state.clone(),
        directory: names.directory(),
    };
    config.previous_key = previous_key(vpn, &config.private_key, setting);
    config.addresses = gate_addresses(vpn, file, setting);
    if vpn.addresses.as_ref().is_some_and(|written| written.len() < config.addresses.len()) {
        return config;
    }
    for peer in &vpn.peers {
        complete(peer, &config, report);
        let (Some(name), Some(public_key)) = (&peer.name, &peer.public_key) else { continue };
        let Some(id) = names.peers.iter().find(|named| named.name == name.value).map(|named| named.id) else {
            continue;
        };
        let words = vpn.reach_of(&name.value);
        config.peers.push(Peer {
            id,
            name: name.value.clone(),
            group: peer.group.as_ref().map(|group| group.value.clone()),
            public_key: public_key.value,
            preshared_key: peer.preshared_key.clone(),
            addresses: peer.addresses.iter().flatten().map(|net| net.value).collect(),
            may_reach: words.iter().filter_map(|word| reach(word, peer, vpn, file, names, report)).collect(),
            reached_by: peer.reached_by.iter().filter_map(|word| caller(word, peer, vpn, names, report)).collect(),
            enabled: peer.enabled,
            expires: peer.expires.and_then(|expires| moment(expires, file)),
            confirm: peer.confirm,
            user: users
                .iter()
                .find(|user| user.peers.contains(&id))
                .map(|user| Person { name: user.name.clone(), role: user.role }),
            keepalive: peer.keepalive,
            told_endpoint: peer.endpoint.clone(),
        });
    }
    config
}

/// Returns the moment from which on somebody is no peer; a day ends where the house is.
fn moment(expires: Expires, file: &File) -> Option<Timestamp> {
    match expires {
        Expires::At(moment) => Some(moment),
        Expires::Day(day) => {
            let named = file.node.timezone.as_ref().and_then(|name| TimeZone::get(&name.value).ok());
            // The last day of the calendar has no next one.
            Some(day.tomorrow().ok()?.to_zoned(named.unwrap_or_else(TimeZone::system)).ok()?.timestamp())
        }
    }
}

/// Reads a key from a file of the owner's: its last line, so that one of ours is good too.
fn key_of(written: &At<PathBuf>, vpn: &file::Vpn, setting: &Setting<'_>) -> PrivateKey {
    let text = std::fs::read_to_string(setting.path(&written.value)).map_err(|error| error.to_string());
    let key = text.and_then(|text| {
        let line = text.trim().lines().last().unwrap_or_default();
        line.trim().parse::<PrivateKey>().map_err(|error| error.to_string())
    });
    key.unwrap_or_else(|error| {
        let what = format!("private key \"{}\" cannot be used: {error}", written.value.display());
        let hint = "make one with `wg genkey`, or leave the key out: one is made and kept in the state folder";
        setting.report.error(written.at, &vpn.about, what, hint);
        PrivateKey::generate()
    })
}

/// The key before, if there is one and it is another.
fn previous_key(vpn: &file::Vpn, present: &PrivateKey, setting: &Setting<'_>) -> Option<PrivateKey> {
    let written = vpn.previous_key.as_ref()?;
    let key = key_of(written, vpn, setting);
    if key.public_key() == present.public_key() {
        let hint = "name the file of the new key in private_key, or leave previous_key out";
        setting.report.error(written.at, &vpn.about, "\"previous_key\" is the key that the gate has now", hint);
    }
    Some(key)
}

fn private_key(vpn: &file::Vpn, setting: &Setting<'_>) -> PrivateKey {
    let report = setting.report;
    match &vpn.private_key {
        Some(written) => key_of(written, vpn, setting),
        None => made::gate_key(&setting.state, setting.made).unwrap_or_else(|error| {
            let what = format!("the gate's key cannot be kept in \"{}\": {error}", setting.state.display());
            report.error(
                vpn.at,
                &vpn.about,
                what,
                "see that the state folder can be written, or choose another with node.state",
            );
            PrivateKey::generate()
        }),
    }
}

fn gate_addresses(vpn: &file::Vpn, file: &File, setting: &Setting<'_>) -> Vec<ipnet::IpNet> {
    if let Some(written) = &vpn.addresses {
        if written.is_empty() && !setting.report.has_errors() {
            let hint = "write the gate's inner address, as \"10.77.0.1/24\", or leave the key out";
            setting.report.error(vpn.at, &vpn.about, "\"addresses\" is empty", hint);
        }
        return written.iter().map(|net| net.value).collect();
    }
    let networks = file.lan.networks.iter().flat_map(|network| &network.subnets);
    let taken: Vec<_> = file.lan.subnets.iter().chain(networks).map(|net| net.value).collect();
    made::gate_addresses(&setting.state, setting.made, &taken).unwrap_or_else(|error| {
        let what = format!("the gate's addresses cannot be kept in \"{}\": {error}", setting.state.display());
        setting.report.error(
            vpn.at,
            &vpn.about,
            what,
            "see that the state folder can be written, or write vpn.addresses",
        );
        Vec::new()
    })
}

/// Reports what a peer lacks.
fn complete(peer: &file::Peer, config: &Config, report: &Report) {
    if !peer.public_key_written {
        let hint = "write what `wg pubkey` shows on the peer, or let `hearthgate peer add` make a key pair";
        report.error(peer.at, &peer.about, "the key \"public_key\" is missing", hint);
    }
    let Some(addresses) = &peer.addresses else {
        let example = config
            .addresses
            .first()
            .and_then(|net| net.hosts().nth(1))
            .map_or("10.77.0.2".into(), |host| host.to_string());
        let hint = format!("write an inner address, as addresses = [\"{example}\"]");
        report.error(peer.at, &peer.about, "the key \"addresses\" is missing", hint);
        return;
    };
    for net in addresses {
        let single = net.value.prefix_len() == net.value.max_prefix_len();
        let inside = config.addresses.iter().any(|gate| gate.contains(&net.value));
        if single && !inside && !config.addresses.is_empty() {
            let gates: Vec<_> = config.addresses.iter().map(|gate| gate.trunc().to_string()).collect();
            let what = format!("{} is outside the tunnel's networks", net.value.addr());
            report.error(net.at, &peer.about, what, format!("choose an address in {}", gates.join(" or ")));
        }
    }
}

/// The words of `reached_by` that name no peer.
fn is_by_address(caller: &At<CallerWord>) -> bool {
    matches!(caller.value, CallerWord::Net(_) | CallerWord::Ports(..))
}

fn named_peer<T>(name: &str, word: &At<T>, peer: &file::Peer, names: &Names, report: &Report) -> Option<PeerId> {
    let found = names.peers.iter().find(|other| other.name == name).map(|other| other.id);
    if found.is_none() {
        let known = names.peers.iter().map(|peer| peer.name.as_str());
        let what = format!("there is no peer \"{name}\"");
        report.error(word.at, &peer.about, what, suggestion(name, known, "declare it with [[vpn.peer]]"));
    }
    found
}

fn caller(word: &At<CallerWord>, peer: &file::Peer, vpn: &file::Vpn, names: &Names, report: &Report) -> Option<Caller> {
    Some(match &word.value {
        CallerWord::Lan => Caller::Lan,
        CallerWord::Net(net) => Caller::Net(*net),
        CallerWord::Ports(protocol, net, ports) => {
            Caller::Ports { protocol: *protocol, net: *net, ports: ports.clone() }
        }
        CallerWord::Peer(name) => {
            let id = named_peer(name, word, peer, names, report)?;
            let own = peer.name.as_ref().map_or("", |own| own.value.as_str());
            let reaches = |reach: &At<ReachWord>| matches!(&reach.value, ReachWord::Peer(to) if to == own);
            if !vpn.reach_of(name).iter().any(reaches) {
                let hint = format!("add \"peer:{own}\" to may_reach of peer \"{name}\"");
                report.warning(word.at, &peer.about, format!("peer \"{name}\" may not reach it"), hint);
            }
            Caller::Peer(id)
        }
    })
}

fn reach(
    word: &At<ReachWord>,
    peer: &file::Peer,
    vpn: &file::Vpn,
    file: &File,
    names: &Names,
    report: &Report,
) -> Option<Reach> {
    Some(match &word.value {
        ReachWord::Dns => Reach::Dns,
        ReachWord::Services => Reach::Services,
        ReachWord::Internet => Reach::Internet,
        ReachWord::Net(net) => Reach::Net(*net),
        ReachWord::Ports(protocol, net, ports) => Reach::Ports { protocol: *protocol, net: *net, ports: ports.clone() },
        ReachWord::Peer(name) => {
            let other = named_peer(name, word, peer, names, report)?;
            let names_back = |caller: &At<CallerWord>| matches!(&caller.value, CallerWord::Peer(by) if peer.is(by));
            if let Some(visited) = vpn.peers.iter().find(|one| one.is(name))
                && !visited.reached_by.iter().any(|caller| names_back(caller) || is_by_address(caller))
            {
                let own = peer.name.as_ref().map_or("", |own| own.value.as_str());
                let hint = format!("write reached_by = [\"peer:{own}\"] at peer \"{name}\"");
                report.warning(word.at, &peer.about, format!("peer \"{name}\" does not let it in"), hint);
            }
            Reach::Peer(other)
        }
        ReachWord::Route(host) => {
            let exact = HostPattern::Exact(host.clone());
            let ports = || file.ports.iter().filter_map(|port| port.host.as_ref());
            let hosts =
                || file.routes.iter().flat_map(|route| &route.hosts).chain(ports()).map(|pattern| &pattern.value);
            let wild = host.as_str().split_once('.').map(|(_, rest)| rest);
            let wild = |pattern: &HostPattern| matches!(pattern, HostPattern::Wildcard(parent) if Some(parent.as_str()) == wild);
            if !hosts().any(|pattern| *pattern == exact || wild(pattern)) {
                let known: Vec<&str> = hosts()
                    .filter_map(|pattern| match pattern {
                        HostPattern::Exact(host) | HostPattern::Wildcard(host) => Some(host.as_str()),
                        HostPattern::Any => None,
                    })
                    .collect();
                let what = format!("there is no route for \"{host}\"");
                report.error(word.at, &peer.about, what, suggestion(host.as_str(), known, "add it with [[route]]"));
            }
            Reach::Route(host.as_str().to_owned())
        }
    })
}

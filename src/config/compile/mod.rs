//! From what is written to what is meant: each plane's `Config`, checked against the other sections.

mod access;
mod acme;
mod backup;
mod console;
mod dns;
mod ingress;
mod overlap;
mod ports;
mod public_clients;
mod streams;
mod user;
mod vpn;
mod wan;
mod watch;

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::{
    config::{
        Compiled, Files, Node, Options, PeerIds, Scrape, edits,
        file::{self, File},
        made::{self, Made},
        problems::{About, At, Report},
        value::{self, Listen, Secret},
    },
    ingress::canonical::CanonicalHost,
    listen::Place,
    onlink,
    origin::{Directory, NetworkId, PeerId},
    sandbox,
};

/// The gate serves the first metrics port beside these, on its own inner addresses.
const INNER: [u16; 3] = [53, 80, 443];

/// What compiling needs besides the file.
pub(crate) struct Setting<'a> {
    /// Paths in the file are relative to this folder.
    pub(crate) folder: &'a Path,
    /// The state folder.
    pub(crate) state: PathBuf,
    pub(crate) options: &'a Options,
    /// What is made once, and was not there yet.
    pub(crate) made: &'a Made,
    pub(crate) report: &'a Report,
    /// Every file that the configuration names.
    pub(crate) named: &'a std::cell::RefCell<std::collections::BTreeSet<PathBuf>>,
}

/// What the planes' sections refer to by name.
pub(crate) struct Names {
    /// `node.domain`
    pub(crate) domain: CanonicalHost,
    /// Named networks, in the order of their ids.
    pub(crate) networks: Vec<String>,
    /// Peers and groups of the VPN.
    pub(crate) peers: Vec<NamedPeer>,
    /// Groups of the VPN, declared or named by a peer.
    pub(crate) groups: Vec<String>,
    /// There is a `[vpn]`.
    pub(crate) has_vpn: bool,
}

/// A peer as other sections refer to it.
pub(crate) struct NamedPeer {
    pub(crate) id: PeerId,
    pub(crate) name: String,
    pub(crate) group: Option<String>,
}

impl Names {
    fn directory(&self) -> Directory {
        let kernel = ["host", "lan"].into_iter().map(str::to_owned);
        Directory {
            networks: kernel.chain(self.networks.iter().cloned()).collect(),
            peers: self.peers.iter().map(|peer| (peer.id, peer.name.clone())).collect(),
        }
    }
}

impl Setting<'_> {
    /// Returns a path of the file as it is meant.
    fn path(&self, written: &Path) -> PathBuf {
        let path = self.folder.join(written);
        self.named.borrow_mut().insert(path.clone());
        path
    }

    /// Returns the path of a file that must be there.
    fn file(&self, written: &At<PathBuf>, about: &About) -> PathBuf {
        let path = self.path(&written.value);
        let opened = match self.options.files {
            Files::Checked => std::fs::metadata(&path).and_then(|found| match found.is_dir() {
                true => Err(std::io::ErrorKind::IsADirectory.into()),
                // Neither a pipe is waited for nor a device touched.
                false if !found.is_file() => Ok(()),
                false => std::fs::File::open(&path).map(drop),
            }),
            Files::Unchecked => Ok(()),
        };
        if opened.is_err() && !sandbox::admits(&path) {
            self.shut_out(&path, written.at, about);
        } else if let Err(error) = opened {
            let what = format!("\"{}\" cannot be read: {error}", written.value.display());
            self.report.error(written.at, about, what, format!("see that {} is there and may be read", path.display()));
        }
        path
    }

    /// The running edge may read only what was named when it began.
    fn shut_out(&self, path: &Path, at: crate::config::problems::Span, about: &About) {
        let what = format!("\"{}\" lies in a folder that nothing named when the edge was started", path.display());
        let hint = "this needs a restart: the sandbox (`node.landlock`) lets the running process read no other folder";
        self.report.error(at, about, what, hint);
    }

    /// Returns a secret of the owner's. The file of one is only looked for where files are.
    fn secret(&self, written: &At<Secret>, about: &About) -> Option<String> {
        let path = match &written.value {
            Secret::Here(text) => return Some(text.clone()),
            Secret::File(path) => self.path(path),
        };
        let text = match self.options.files {
            Files::Checked => std::fs::read_to_string(&path),
            Files::Unchecked => return None,
        };
        let line = match &text {
            Ok(text) => text.lines().next().map(str::trim).filter(|line| !line.is_empty()),
            Err(_) => None,
        };
        if line.is_none() && !sandbox::admits(&path) {
            self.shut_out(&path, written.at, about);
        } else if line.is_none() {
            let why = text.as_ref().err().map_or("its first line is empty".to_owned(), ToString::to_string);
            let what = format!("\"{}\" holds no secret: {why}", path.display());
            self.report.error(
                written.at,
                about,
                what,
                "see that it is there, may be read, and that its first line is the secret",
            );
        }
        line.map(str::to_owned)
    }
}

/// Compiles the file; what is wrong stands in the report.
pub(crate) fn compile(mut file: File, setting: &Setting<'_>, ids: &mut PeerIds) -> Compiled {
    let report = setting.report;
    let networks = named_networks(&file.lan, report);
    let lan = lan(&file, report);
    if let Some(vpn) = &mut file.vpn {
        vpn::drop_repeated(vpn, report);
    }
    let names = Names {
        domain: file.node.domain.value.clone(),
        networks,
        peers: vpn::named(file.vpn.as_ref(), ids),
        groups: vpn::groups(file.vpn.as_ref()),
        has_vpn: file.vpn.is_some(),
    };
    let mut taken = ports::Taken::default();
    let metrics_listen = file.metrics.as_ref().map(|metrics| {
        let places = places(&metrics.listen, &lan, report, &metrics.about);
        taken.take(&places, "metrics.listen", &[ports::Protocol::Tcp], &metrics.about, report);
        if let Some(first) =
            places.first().filter(|first| file.vpn.is_some() && INNER.contains(&first.value.address.port()))
        {
            let what = format!("port {} belongs to another service inside the tunnel", first.value.address.port());
            report.error(first.at, &metrics.about, what, "choose another port, as 9153");
        }
        places.into_iter().map(|place| place.value).collect::<Vec<_>>()
    });
    let node = node(&file.node, setting);
    let timezone = || node.timezone.clone();
    let mut dns = file.dns.as_ref().map(|dns| dns::compile(dns, &lan, &names, timezone(), setting, &mut taken));
    if let Some(dns) = &mut dns {
        dns.time_servers.clone_from(&file.node.ntp);
    }
    if file.ingress.is_none() {
        let routes = file.routes.iter().map(|route| (route.at(), &route.about));
        for (at, about) in routes.chain(file.ports.iter().map(|port| (port.at, &port.about))) {
            report.error(at, about, "there is no [ingress] to serve it", "add an [ingress] section");
        }
    }
    let encrypted = dns.as_ref().and_then(|dns| dns.encrypted.as_ref());
    let mut ingress = file
        .ingress
        .as_ref()
        .map(|ingress| ingress::compile(ingress, &file, encrypted, &lan, &names, setting, &mut taken));
    let ports = ingress.as_ref().map_or_else(Vec::new, served);
    let metrics_port = metrics_listen.as_ref().and_then(|places| places.first()).map(|place| place.address.port());
    let users = user::compile(&file, &names, report);
    let mut vpn =
        file.vpn.as_ref().map(|vpn| vpn::compile(vpn, &file, &names, &users, metrics_port, setting, &mut taken));
    if let Some(vpn) = &mut vpn {
        vpn.ports = ports;
    }
    let console =
        file.console.as_ref().map(|console| console::compile(console, ingress.as_mut(), &file, &users, report));
    if let (Some(dns), Some(ingress)) = (&mut dns, &ingress) {
        dns.routes = dns::routes(ingress, dns.encrypted.as_ref(), vpn.as_ref());
        if let Some(encrypted) = &mut dns.encrypted {
            encrypted.https = ingress.https.first().map(|address| address.port());
        }
    }
    if let (Some(doh), None) = (file.dns.as_ref().and_then(|dns| dns.doh.as_ref()), &file.ingress) {
        let hint = "add an [ingress] section, if only with https = []";
        report.error(doh.host.at, &doh.about, "there is no [ingress], which keeps its certificate", hint);
    }
    if let (Some(dns), Some(vpn)) = (&mut dns, &vpn) {
        dns.routes.gate = dns::gate(vpn);
        dns.peers = dns::peers(vpn, &dns.domain);
    }
    overlap::check(&file, vpn.as_ref().map_or(&[][..], |vpn| &vpn.addresses), report);
    if dns.is_none() && ingress.is_none() && vpn.is_none() && !report.has_errors() {
        let hint = "add at least one of [dns], [ingress] and [vpn]";
        report.error(file.node.domain.at, &About::default(), "nothing is to be run", hint);
    }
    let metrics = file.metrics.as_ref().zip(metrics_listen).map(|(metrics, listen)| Scrape {
        listen,
        allow: match &metrics.allow {
            Some(allow) => allow.iter().map(|net| net.value).collect(),
            None => {
                let own = lan.this_box.iter().map(|address| (*address).into());
                let tunnel = vpn.iter().flat_map(|vpn| vpn.addresses.iter().map(|net| net.trunc()));
                let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("loopback is a network"));
                loopback.into_iter().chain(own).chain(tunnel).collect()
            }
        },
    });
    let wan = wan::compile(&file.wan, setting);
    let watch = watch::compile(&file, ingress.as_ref(), timezone(), report);
    let backup = file.backup.as_ref().and_then(|written| backup::compile(written, setting));
    let history = file.history;
    let files = setting.named.borrow().iter().cloned().collect();
    let directory = names.directory();
    Compiled { node, lan, wan, dns, ingress, vpn, users, metrics, backup, history, console, watch, directory, files }
}

/// Ports of the gate that lead to routes of the ingress.
fn served(ingress: &crate::ingress::Config) -> Vec<crate::vpn::ServedPort> {
    let of_one = |port: &crate::ingress::Port| {
        let (peers, protocol) = (
            port.peers(ingress),
            match port.transport {
                crate::ingress::Transport::Tcp => crate::vpn::Protocol::Tcp,
                crate::ingress::Transport::Udp => crate::vpn::Protocol::Udp,
            },
        );
        let served =
            port.inner.iter().map(|number| crate::vpn::ServedPort { protocol, port: *number, peers: peers.clone() });
        served.collect::<Vec<_>>()
    };
    ingress.ports.iter().flat_map(of_one).collect()
}

fn node(node: &file::Node, setting: &Setting<'_>) -> Node {
    let timezone = node.timezone.as_ref().map(|written| {
        jiff::tz::TimeZone::get(&written.value).unwrap_or_else(|_| {
            let about = About { section: "node", name: None };
            let what = format!("time zone \"{}\" is not known to this box; UTC is used", written.value);
            let hint = "write a name of the time zone database, as \"Europe/Berlin\", and see that tzdata is installed";
            setting.report.warning(written.at, &about, what, hint);
            jiff::tz::TimeZone::UTC
        })
    });
    Node {
        domain: node.domain.value.clone(),
        state: setting.state.clone(),
        user: node.user.clone(),
        timezone: timezone.unwrap_or_else(jiff::tz::TimeZone::system),
        grace: node.grace,
        log: node.log,
        sandbox: node.sandbox,
    }
}

fn named_networks(lan: &file::Lan, report: &Report) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for network in &lan.networks {
        let name = &network.name;
        if names.contains(&name.value) {
            report.error(name.at, &network.about, "this name is given twice", "give each network a name of its own");
        }
        names.push(name.value.clone());
    }
    names
}

fn lan(file: &File, report: &Report) -> onlink::Config {
    let lan = &file.lan;
    let main = lan.subnets.iter().map(|net| (net.value, NetworkId::MAIN));
    let named = lan
        .networks
        .iter()
        .zip(0..)
        .flat_map(|(network, index)| network.subnets.iter().map(move |net| (net.value, NetworkId::named(index))));
    let announce = lan.announce.as_ref().filter(|announce| announce.value);
    if let Some(announce) = announce {
        let about = About { section: "lan", name: None };
        if lan.interfaces.is_empty() {
            let hint = "name the interfaces to announce on, as interfaces = [\"eth0\"]";
            report.error(announce.at, &about, "nothing can be announced without interfaces", hint);
        } else if file.dns.is_none() {
            report.error(
                announce.at,
                &about,
                "there is no [dns] to announce",
                "add a [dns] section, or remove the key",
            );
        }
    }
    let proxies = file.ingress.iter().flat_map(|ingress| {
        let doors = ingress.listeners.iter().flat_map(|listener| &listener.trusted_proxies);
        ingress.trusted_proxies.iter().chain(doors).map(|net| net.value)
    });
    let (single, relay_networks): (Vec<IpNet>, Vec<IpNet>) =
        proxies.partition(|net| net.prefix_len() == net.max_prefix_len());
    onlink::Config {
        interfaces: lan.interfaces.iter().map(|name| name.value.clone()).collect(),
        subnets: main.chain(named).collect(),
        this_box: lan.this_box.iter().map(|address| address.value).collect(),
        relays: lan.relays.iter().map(|address| address.value).chain(single.iter().map(IpNet::addr)).collect(),
        relay_networks,
        announce: announce.is_some(),
    }
}

/// Turns what is written into places; `lan` is one place for each interface and family.
fn places(written: &[At<Listen>], lan: &onlink::Config, report: &Report, about: &About) -> Vec<At<Place>> {
    let mut places = Vec::new();
    for one in written {
        let here = |place| At { value: place, at: one.at };
        match one.value {
            Listen::Address(address) => places.push(here(address.into())),
            Listen::Loopback(port) => places.extend(value::loopback(port).map(|address| here(address.into()))),
            Listen::Lan(_) if lan.interfaces.is_empty() => {
                let hint = "name its interfaces, as interfaces = [\"eth0\"] in [lan]";
                report.error(one.at, about, "\"lan\" is not known", hint);
            }
            Listen::Lan(port) => {
                for interface in &lan.interfaces {
                    let device = |address| here(Place { address, device: Some(interface.clone()) });
                    places.extend(value::everywhere(port).map(device));
                }
            }
        }
    }
    // The kernel lets loopback stand beside "every address of eth0" only if it is bound to its own interface.
    let devices = places.iter().filter(|place| place.value.device.is_some());
    let ports: Vec<u16> = devices.map(|place| place.value.address.port()).collect();
    for place in &mut places {
        let Place { address, device } = &mut place.value;
        if address.ip().is_loopback() && device.is_none() && ports.contains(&address.port()) {
            *device = Some("lo".into());
        }
    }
    places
}

/// Turns what is written into addresses; the LAN's interfaces have none that are known beforehand.
fn addresses(written: &[At<Listen>], report: &Report, about: &About) -> Vec<At<Place>> {
    let known = written.iter().filter(|one| match one.value {
        Listen::Lan(port) => {
            let hint =
                format!("write an address, as \"0.0.0.0:{port}\": access is decided by where a client comes from");
            report.error(one.at, about, "\"lan\" cannot be used here", hint);
            false
        }
        _ => true,
    });
    let known: Vec<_> = known.cloned().collect();
    places(&known, &onlink::Config::default(), report, about)
}

/// Gives the quick start's peers the keys and addresses that are made at the first start.
pub(crate) fn complete_quick_start(file: &mut File, setting: &Setting<'_>) {
    let Some(vpn) = &mut file.vpn else { return };
    let made = made::make_tour_key(&setting.state, setting.made)
        .and_then(|key| Ok((key, made::gate_addresses(&setting.state, setting.made, &[])?)));
    let (key, gate) = match made {
        Ok(made) => made,
        Err(error) => {
            let what = format!("the keys cannot be kept in \"{}\": {error}", setting.state.display());
            setting.report.error(vpn.at, &vpn.about, what, "choose another folder with --state DIR");
            return;
        }
    };
    vpn.addresses = Some(gate.iter().map(|net| At { value: *net, at: vpn.at }).collect());
    for peer in &mut vpn.peers {
        peer.public_key_written = true;
        peer.public_key = Some(At { value: key.public_key(), at: peer.at });
        let free = edits::free_addresses(&gate, &[]);
        peer.addresses = Some(free.into_iter().map(|net| At { value: net, at: peer.at }).collect());
    }
}

//! Routes of plain TCP and UDP as the ingress means them.

use std::net::{IpAddr, SocketAddr};

use crate::{
    config::{
        compile::{Names, Setting, access, places, ports},
        file::{File, Port as Written, PortWord, Target},
        problems::{At, Report},
        value::{self, Listen},
    },
    ingress::{HostPattern, Http, Port, Rules, Transport, Upstream, UpstreamHost},
    onlink,
    origin::Access,
};

/// What the tunnel has for itself.
const OF_THE_GATE: [(Transport, u16); 4] =
    [(Transport::Tcp, 53), (Transport::Udp, 53), (Transport::Tcp, 80), (Transport::Tcp, 443)];

/// Compiles the routes that have a port.
pub(crate) fn compile(
    file: &File,
    lan: &onlink::Config,
    names: &Names,
    setting: &Setting<'_>,
    taken: &mut ports::Taken,
) -> Vec<Port> {
    let report = setting.report;
    // First all that is ours, so that no upstream is.
    let compiled: Vec<_> =
        file.ports.iter().map(|written| (written, port(written, lan, names, report, taken))).collect();
    inside(&compiled, report);
    let complete = |(written, mut port): (&Written, Port)| {
        let count = written.to.len();
        let all = written.to.iter().chain(&written.backup);
        let mut all: Vec<_> = all.filter_map(|to| upstream(to, written, lan, report, taken)).collect();
        if all.len() < count + written.backup.len() {
            return None;
        }
        port.rules.backup = all.split_off(count);
        port.to = all;
        Some(port)
    };
    compiled.into_iter().filter_map(complete).collect()
}

fn port(written: &Written, lan: &onlink::Config, names: &Names, report: &Report, taken: &mut ports::Taken) -> Port {
    let about = &written.about;
    let access = access::compile(&written.access, names, about, report);
    let listen: Vec<At<Listen>> = written.listen.iter().flat_map(|word| spread(word, &access, lan)).collect();
    let places = places(&listen, lan, report, about);
    let (protocol, key) = match written.transport {
        Transport::Tcp => (ports::Protocol::Tcp, "route.tcp"),
        Transport::Udp => (ports::Protocol::Udp, "route.udp"),
    };
    taken.take(&places, key, &[protocol], about, report);
    let in_the_tunnel = access.vpn || !access.peers.is_empty();
    let mut inner: Vec<u16> = written.listen.iter().map(|word| word.value.port()).filter(|_| in_the_tunnel).collect();
    inner.sort_unstable();
    inner.dedup();
    let numbers = written.listen.iter().map(|word| word.value.port().to_string()).collect::<Vec<_>>().join(", ");
    let host = written.host.as_ref().map(|host| host.value.clone());
    let name = match &host {
        Some(HostPattern::Exact(host)) => format!("{host} {} {numbers}", written.transport.name()),
        _ => format!("{} {numbers}", written.transport.name()),
    };
    Port {
        name,
        host,
        transport: written.transport,
        places: places.into_iter().map(|place| place.value).collect(),
        inner,
        access,
        to: Vec::new(),
        log: written.log,
        rules: Rules { backup: Vec::new(), ..written.rules.clone() },
    }
}

/// A port alone is where those come from who may use it: for peers there is none but the one inside the tunnel, and the
/// Internet finds nothing on its side of the box where the LAN has interfaces of its own.
fn spread(word: &At<PortWord>, access: &Access, lan: &onlink::Config) -> Vec<At<Listen>> {
    let here = |value| At { value, at: word.at };
    let port = match word.value {
        PortWord::Place(listen) => return vec![here(listen)],
        PortWord::Port(port) => port,
    };
    if access.public || (!access.networks.is_empty() && lan.interfaces.is_empty()) {
        return value::everywhere(port).map(|address| here(Listen::Address(address))).to_vec();
    }
    if access.networks.is_empty() {
        return Vec::new();
    }
    vec![here(Listen::Lan(port)), here(Listen::Loopback(port))]
}

fn upstream(
    to: &At<Target>,
    written: &Written,
    lan: &onlink::Config,
    report: &Report,
    taken: &ports::Taken,
) -> Option<Upstream> {
    let about = &written.about;
    let own = |address: SocketAddr| address.ip().is_loopback() || lan.this_box.contains(&address.ip());
    let (wanted, protocol, hint) = match written.transport {
        Transport::Tcp => (Http::Opaque, ports::Protocol::Tcp, "write it as \"tcp://192.168.1.20:22\""),
        Transport::Udp => (Http::Datagrams, ports::Protocol::Udp, "write it as \"udp://192.168.1.20:51413\""),
    };
    let (host, port) = match &to.value {
        Target::Upstream { http, host, port, .. } if *http == wanted => (host, *port),
        Target::Upstream { host: host @ UpstreamHost::Unix(_), .. } if written.transport == Transport::Tcp => (host, 0),
        _ => {
            report.error(to.at, about, format!("a \"{}\" route leads to its like", written.transport.name()), hint);
            return None;
        }
    };
    let address = match host {
        UpstreamHost::Address(address) => Some(*address),
        UpstreamHost::Name(name) if name == "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        UpstreamHost::Name(_) | UpstreamHost::Unix(_) => None,
    };
    if address.is_some_and(|address| taken.has(protocol, (address, port).into(), own)) {
        let hint = "write where the service itself listens";
        report.error(to.at, about, "the upstream is a port of the edge itself", hint);
    }
    Some(Upstream { host: host.clone(), port, tls: None, http: wanted })
}

/// Inside the tunnel there is one address, so each port is somebody's.
fn inside(compiled: &[(&Written, Port)], report: &Report) {
    let mut taken = Vec::new();
    for (written, port) in compiled {
        for number in &port.inner {
            let key = (port.transport, *number);
            if OF_THE_GATE.contains(&key) || taken.contains(&key) {
                let what = format!("{} {number} belongs to another service inside the tunnel", port.transport.name());
                report.error(
                    written.at,
                    &written.about,
                    what,
                    "choose another port, or take \"vpn\" out of its access",
                );
            }
            taken.push(key);
        }
    }
}

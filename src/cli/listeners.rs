//! Everything that a configuration listens on, for whom, and by which key.

use std::{fmt, net::SocketAddr};

use ipnet::IpNet;

use crate::{config::Compiled, ingress::Transport, listen::Place};

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Audience {
    /// Everybody: routes and keys decide.
    Everybody,
    /// The networks of the house.
    House,
    /// Those whom `metrics.allow` names.
    Readers,
    /// The proxies of a listener that nobody else may reach.
    Proxies,
}

/// A port that is taken at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) protocol: Protocol,
    pub(super) place: Place,
    pub(super) audience: Audience,
    /// The key that names it.
    pub(super) key: &'static str,
    /// Those proxies.
    pub(super) proxies: Vec<IpNet>,
}

/// Returns every listener, in the order of the planes.
pub(super) fn of(config: &Compiled) -> Vec<Listener> {
    let mut all = Vec::new();
    let mut add = |protocols: &[Protocol], places: Vec<Place>, audience, key| {
        for place in places {
            let listener = |protocol: &Protocol| Listener {
                protocol: *protocol,
                place: place.clone(),
                audience,
                key,
                proxies: Vec::new(),
            };
            all.extend(protocols.iter().map(listener));
        }
    };
    let places = |addresses: &[SocketAddr]| addresses.iter().map(|address| Place::from(*address)).collect();
    if let Some(dns) = &config.dns {
        add(&[Protocol::Udp, Protocol::Tcp], dns.listen.clone(), Audience::House, "dns.listen");
        if let Some(encrypted) = &dns.encrypted {
            add(&[Protocol::Udp, Protocol::Tcp], encrypted.listen.clone(), Audience::House, "dns.encrypted");
        }
    }
    if let Some(ingress) = &config.ingress {
        add(&[Protocol::Tcp], places(&ingress.http), Audience::Everybody, "ingress.http");
        add(&[Protocol::Tcp], places(&ingress.https), Audience::Everybody, "ingress.https");
    }
    for port in config.ingress.iter().flat_map(|ingress| &ingress.ports) {
        let audience = if port.access.public { Audience::Everybody } else { Audience::House };
        match port.transport {
            Transport::Tcp => add(&[Protocol::Tcp], port.places.clone(), audience, "route.tcp"),
            Transport::Udp => add(&[Protocol::Udp], port.places.clone(), audience, "route.udp"),
        }
    }
    if let Some(vpn) = &config.vpn {
        add(&[Protocol::Udp], places(&vpn.listen), Audience::Everybody, "vpn.listen");
    }
    if let Some(metrics) = &config.metrics {
        add(&[Protocol::Tcp], metrics.listen.clone(), Audience::Readers, "metrics.listen");
    }
    for door in config.ingress.iter().flat_map(|ingress| &ingress.doors) {
        let audience = if door.proxies.alone { Audience::Proxies } else { Audience::Everybody };
        all.push(Listener {
            protocol: Protocol::Tcp,
            place: door.address.into(),
            audience,
            key: "ingress.listener",
            proxies: door.proxies.from.clone(),
        });
    }
    all
}

//! Networks that may not overlap: the LAN's, the tunnel's, and what peers bring with them.

use ipnet::IpNet;

use crate::config::{
    file::File,
    problems::{About, Report, Span},
};

struct Claim<'a> {
    net: IpNet,
    /// Without it nobody wrote it: it was made once.
    place: Option<(Span, &'a About)>,
    /// As it stands in a message.
    whose: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lan,
    Tunnel,
    /// The gate's own address: whatever else it overlaps, its network does as well.
    Gate,
    Peer,
}

/// Reports every overlap at the later of the two.
pub(crate) fn check(file: &File, gate: &[IpNet], report: &Report) {
    let claims = claims(file, gate);
    for (index, claim) in claims.iter().enumerate() {
        for earlier in &claims[..index] {
            let overlap = earlier.net.contains(&claim.net) || claim.net.contains(&earlier.net);
            // A named network may be a part of the LAN: the longest prefix names it.
            let part_of_the_lan = claim.kind == Kind::Lan && earlier.kind == Kind::Lan && claim.net != earlier.net;
            // Peers have addresses within the tunnel's network.
            let within = claim.kind == Kind::Peer && earlier.kind == Kind::Tunnel && earlier.net.contains(&claim.net);
            let within = within || claim.kind == Kind::Gate;
            if overlap && !part_of_the_lan && !within {
                let Some((at, about)) = claim.place.or(earlier.place) else { continue };
                let what = format!("{} overlaps {} of {}", claim.net, earlier.net, earlier.whose);
                let what = if claim.place.is_some() {
                    what
                } else {
                    format!("{} overlaps {} of {}", earlier.net, claim.net, claim.whose)
                };
                report.error(at, about, what, "choose a network or address that nobody else has");
                break;
            }
        }
    }
}

fn claims<'a>(file: &'a File, gate: &[IpNet]) -> Vec<Claim<'a>> {
    static LAN: About = About { section: "lan", name: None };
    let mut claims = Vec::new();
    for net in &file.lan.subnets {
        claims.push(Claim {
            net: net.value,
            place: Some((net.at, &LAN)),
            whose: "lan.subnets".into(),
            kind: Kind::Lan,
        });
    }
    for network in &file.lan.networks {
        for net in &network.subnets {
            let whose = network.about.to_string();
            claims.push(Claim { net: net.value, place: Some((net.at, &network.about)), whose, kind: Kind::Lan });
        }
    }
    let Some(vpn) = &file.vpn else { return claims };
    for net in gate {
        let written = vpn.addresses.iter().flatten().find(|written| written.value == *net);
        let place = written.map(|written| (written.at, &vpn.about));
        claims.push(Claim { net: net.trunc(), place, whose: "vpn.addresses".into(), kind: Kind::Tunnel });
    }
    for net in gate {
        let whose = "the gate itself".into();
        claims.push(Claim { net: net.addr().into(), place: None, whose, kind: Kind::Gate });
    }
    for peer in &vpn.peers {
        for net in peer.addresses.iter().flatten() {
            let whose = peer.about.to_string();
            claims.push(Claim { net: net.value, place: Some((net.at, &peer.about)), whose, kind: Kind::Peer });
        }
    }
    claims
}

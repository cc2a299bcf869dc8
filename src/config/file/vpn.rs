//! `[vpn]`, `[[vpn.group]]` and `[[vpn.peer]]`: the one trusted way in.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    config::{
        file::Table,
        problems::{About, At, Span, Wrong},
        value::{self, Listen},
    },
    ingress::canonical::CanonicalHost,
    vpn::{
        Lan, Mode, Protocol,
        keys::{PresharedKey, PublicKey},
    },
};

/// `[vpn]` as written.
pub(crate) struct Vpn {
    pub(crate) about: About,
    pub(crate) at: Span,
    pub(crate) listen: Vec<At<Listen>>,
    pub(crate) endpoint: Option<String>,
    /// `None`: random private prefixes, made once.
    pub(crate) addresses: Option<Vec<At<IpNet>>>,
    pub(crate) mode: Mode,
    pub(crate) lan: Lan,
    /// `None`: made once, kept in the state folder.
    pub(crate) private_key: Option<At<PathBuf>>,
    /// The one before.
    pub(crate) previous_key: Option<At<PathBuf>>,
    pub(crate) groups: Vec<Group>,
    pub(crate) peers: Vec<Peer>,
}

/// `[[vpn.group]]` as written.
pub(crate) struct Group {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) may_reach: Option<Vec<At<ReachWord>>>,
}

/// `[[vpn.peer]]` as written. What is mandatory is missed when it is compiled: the quick start fills it in.
pub(crate) struct Peer {
    pub(crate) about: About,
    pub(crate) at: Span,
    pub(crate) name: Option<At<String>>,
    pub(crate) group: Option<At<String>>,
    pub(crate) public_key: Option<At<PublicKey>>,
    pub(crate) public_key_written: bool,
    pub(crate) preshared_key: Option<PresharedKey>,
    pub(crate) addresses: Option<Vec<At<IpNet>>>,
    /// `None`: what its group may reach, else `services`.
    pub(crate) may_reach: Option<Vec<At<ReachWord>>>,
    pub(crate) reached_by: Vec<At<CallerWord>>,
    pub(crate) enabled: bool,
    pub(crate) expires: Option<Expires>,
    pub(crate) confirm: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    /// What it was told, where that is not `vpn.endpoint`.
    pub(crate) endpoint: Option<String>,
}

/// When a peer is one no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expires {
    /// With the end of this day.
    Day(jiff::civil::Date),
    /// At this moment.
    At(jiff::Timestamp),
}

/// A word of `may_reach`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReachWord {
    /// `dns`
    Dns,
    /// `services`
    Services,
    /// `route:HOST`
    Route(CanonicalHost),
    /// `PREFIX`
    Net(IpNet),
    /// `tcp PREFIX PORT[-PORT]`
    Ports(Protocol, IpNet, RangeInclusive<u16>),
    /// `peer:NAME`
    Peer(String),
    /// `internet`
    Internet,
}

/// A word of `reached_by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallerWord {
    /// `lan`
    Lan,
    /// `PREFIX`
    Net(IpNet),
    /// `tcp PREFIX PORT[-PORT]`
    Ports(Protocol, IpNet, RangeInclusive<u16>),
    /// `peer:NAME`
    Peer(String),
}

impl Vpn {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        let everywhere = || value::everywhere(443).map(|address| At { value: Listen::Address(address), at: table.at });
        Self {
            about: table.about.clone(),
            at: table.at,
            listen: table.list("listen", value::listen).unwrap_or_else(|| everywhere().to_vec()),
            endpoint: table.parsed("endpoint", endpoint).map(|endpoint| endpoint.value),
            addresses: table.list("addresses", value::address_in_network),
            mode: table.parsed("mode", mode).map_or(Mode::Auto, |mode| mode.value),
            lan: table.parsed("lan", lan).map_or(Lan::Nat, |lan| lan.value),
            private_key: table.string("private_key").map(|path| path.map(PathBuf::from)),
            previous_key: table.string("previous_key").map(|path| path.map(PathBuf::from)),
            groups: table.tables("group", "vpn.group").iter().filter_map(Group::read).collect(),
            peers: table.tables("peer", "vpn.peer").iter().map(Peer::read).collect(),
        }
    }
}

impl Group {
    fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("name") {
            table.missing("name", "name the group, as name = \"admins\"");
        }
        let may_reach = table.list("may_reach", reach);
        Some(Self { about: table.about.clone(), name: table.parsed("name", value::label)?, may_reach })
    }
}

impl Peer {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        if !table.has("name") {
            table.missing("name", "name the peer, as name = \"laptop\"");
        }
        Self {
            about: table.about.clone(),
            at: table.at,
            name: table.parsed("name", value::label),
            group: table.parsed("group", value::label),
            public_key: table.parsed("public_key", public_key),
            public_key_written: table.has("public_key"),
            preshared_key: table.parsed("preshared_key", preshared_key).map(|key| key.value),
            addresses: table.list("addresses", value::network),
            may_reach: table.list("may_reach", reach),
            reached_by: table.list("reached_by", caller).unwrap_or_default(),
            enabled: table.boolean("enabled").is_none_or(|enabled| enabled.value),
            expires: table.parsed("expires", expires).map(|expires| expires.value),
            confirm: table.parsed("confirm", confirm).map(|confirm| confirm.value),
            keepalive: table.parsed("keepalive", keepalive).map(|keepalive| keepalive.value),
            endpoint: table.parsed("endpoint", endpoint).map(|endpoint| endpoint.value),
        }
    }
}

fn mode(text: &str) -> Result<Mode, Wrong> {
    match text {
        "auto" => Ok(Mode::Auto),
        "userspace" => Ok(Mode::Userspace),
        "tun" => Ok(Mode::Tun),
        _ => Err(Wrong::new(format!("mode cannot be \"{text}\""), "write \"auto\", \"tun\" or \"userspace\"")),
    }
}

fn lan(text: &str) -> Result<Lan, Wrong> {
    match text {
        "route" => Ok(Lan::Route),
        "nat" => Ok(Lan::Nat),
        _ => {
            let hint = "write \"nat\" (the LAN sees this box) or \"route\" (it sees the peer, and has a route back)";
            Err(Wrong::new(format!("lan cannot be \"{text}\""), hint))
        }
    }
}

fn endpoint(text: &str) -> Result<String, Wrong> {
    let wrong =
        || Wrong::new(format!("endpoint \"{text}\" is no host with a port"), "write it as \"vpn.home.example:443\"");
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = value::host(host).map_err(|_| wrong())?;
    Ok(format!("{host}:{port}"))
}

fn public_key(text: &str) -> Result<PublicKey, Wrong> {
    text.parse().map_err(|error| Wrong::new(format!("public key \"{text}\" cannot be read"), format!("{error}")))
}

// The text of a secret stands in no message.
fn preshared_key(text: &str) -> Result<PresharedKey, Wrong> {
    text.parse().map_err(|error| Wrong::new("the preshared key cannot be read", format!("{error}")))
}

fn expires(text: &str) -> Result<Expires, Wrong> {
    let moment = || text.parse().map(Expires::At);
    // A date alone first: a moment may be written with a blank or a T between.
    let day = (text.len() == "2027-01-31".len()).then(|| text.parse().map(Expires::Day));
    day.unwrap_or_else(moment).map_err(|_| {
        let hint = "write the last day, as \"2027-01-31\", or a moment, as \"2027-01-31T18:00:00+01:00\"";
        Wrong::new(format!("\"{text}\" is no date"), hint)
    })
}

fn confirm(text: &str) -> Result<Duration, Wrong> {
    let span = value::wait(text)?;
    if span < Duration::from_secs(60) || span > Duration::from_secs(366 * 86_400) {
        let what = format!("confirm \"{text}\" is out of bounds");
        return Err(Wrong::new(what, "say how long a confirmation holds, as \"12h\": from \"1m\" to \"366d\""));
    }
    Ok(span)
}

fn keepalive(text: &str) -> Result<Duration, Wrong> {
    let span = value::wait(text)?;
    if span.subsec_nanos() != 0 || span.as_secs() > u64::from(u16::MAX) {
        return Err(Wrong::new(
            format!("keepalive \"{text}\" is out of bounds"),
            "write whole seconds, up to \"65535s\"",
        ));
    }
    Ok(span)
}

/// Reads a word of `may_reach`.
pub(crate) fn reach(text: &str) -> Result<ReachWord, Wrong> {
    let wrong = || {
        let hint = "one of \"dns\", \"services\", \"route:HOST\", \"PREFIX\", \"tcp PREFIX PORT\", \"udp PREFIX PORT-PORT\", \
                    \"peer:NAME\", \"internet\"";
        Wrong::new(format!("\"{text}\" is nothing that a peer may reach"), hint)
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["dns"] => Ok(ReachWord::Dns),
        ["services"] => Ok(ReachWord::Services),
        ["internet"] => Ok(ReachWord::Internet),
        [protocol @ ("tcp" | "udp"), net, ports] => {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let (first, last): (u16, u16) = first.parse().ok().zip(last.parse().ok()).ok_or_else(wrong)?;
            if first == 0 || first > last {
                return Err(wrong());
            }
            let protocol = if *protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp };
            Ok(ReachWord::Ports(protocol, value::network(net)?, first..=last))
        }
        [word] => match word.split_once(':') {
            Some(("route", host)) => value::host(host).map(ReachWord::Route),
            Some(("peer", name)) => value::label(name).map(ReachWord::Peer),
            _ if word.starts_with(|letter: char| letter.is_ascii_digit())
                || word.contains("::")
                || word.contains('/') =>
            {
                value::network(word).map(ReachWord::Net)
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// Reads a word of `reached_by`: those of `may_reach` that name somebody.
fn caller(text: &str) -> Result<CallerWord, Wrong> {
    if text.trim() == "lan" {
        return Ok(CallerWord::Lan);
    }
    match reach(text) {
        Ok(ReachWord::Net(net)) => Ok(CallerWord::Net(net)),
        Ok(ReachWord::Ports(protocol, net, ports)) => Ok(CallerWord::Ports(protocol, net, ports)),
        Ok(ReachWord::Peer(name)) => Ok(CallerWord::Peer(name)),
        _ => {
            let hint = "one of \"lan\", \"PREFIX\", \"tcp PREFIX PORT\", \"udp PREFIX PORT-PORT\", \"peer:NAME\"";
            Err(Wrong::new(format!("\"{text}\" is nobody that a peer is reached by"), hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_expires_with_a_day_or_at_a_moment() {
        let moment = Expires::At("2027-01-31T17:00:00Z".parse().unwrap());

        assert_eq!(expires("2027-01-31").ok(), Some(Expires::Day(jiff::civil::date(2027, 1, 31))));
        assert_eq!(expires("2027-01-31T18:00:00+01:00").ok(), Some(moment));
        for text in ["", "never", "2027-02-30", "31.01.2027", "2027-01-31T18:00", "1798761600"] {
            assert!(expires(text).is_err(), "{text}");
        }
    }
}

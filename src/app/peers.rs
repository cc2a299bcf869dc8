//! Peers as commands see them: added and removed through the edits, and the configuration that a new one
//! is given.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal},
    config::{
        Compiled,
        edits::{self, EditError, Edits},
    },
    vpn::{Config, Peer, Reach},
};

/// A peer to be added. Its private key never leaves the command that made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewPeer {
    /// What it is called.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// Its public key, in base64.
    pub public_key: String,
    /// Its inner addresses; nothing is the next free ones.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// What it may reach; nothing is the default.
    pub may_reach: Option<Vec<String>>,
}

/// A change of the peers.
#[derive(Clone, Debug)]
pub enum PeerEdit {
    /// One more.
    Add(NewPeer),
    /// One less.
    Remove(String),
}

impl PeerEdit {
    /// Returns whom it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Add(peer) => &peer.name,
            Self::Remove(name) => name,
        }
    }
}

/// What came of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Edited {
    /// What the peer needs to come in; nothing if it is gone.
    pub invitation: Option<Invitation>,
}

/// What a peer must know to come in, besides its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
    /// Who answers its questions inside the tunnel.
    pub dns: Vec<IpAddr>,
    /// The domain of the house.
    pub domain: String,
    /// The gate's key.
    pub gate: String,
    /// Where the gate is reached.
    pub endpoint: Option<String>,
    /// What it should send into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds between signs of life, if it sends any.
    pub keepalive: Option<u64>,
}

/// A peer as `peer list` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// Its key.
    pub public_key: String,
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
}

impl Edge {
    /// Returns the peers of the configuration in force.
    pub fn peers(&self) -> Vec<Listed> {
        list(&self.force.load().config)
    }
}

/// Returns the peers of a configuration.
pub fn list(config: &Compiled) -> Vec<Listed> {
    let peers = config.vpn.iter().flat_map(|vpn| &vpn.peers);
    peers
        .map(|peer| Listed {
            name: peer.name.clone(),
            group: peer.group.clone(),
            public_key: peer.public_key.to_string(),
            addresses: peer.addresses.clone(),
        })
        .collect()
}

/// Writes a change into the edits; `config` is what it changes.
pub fn apply(edits: &mut Edits, edit: PeerEdit, config: &Compiled) -> Result<(), Refusal> {
    let Some(vpn) = &config.vpn else {
        return Err(Refusal::asked("the configuration has no [vpn]: there is nothing that a peer could come in by"));
    };
    let added = edits.peers().map_err(refusal)?;
    let in_file = vpn.peers.iter().map(|peer| peer.name.as_str()).filter(|name| !added.iter().any(|a| a == name));
    match edit {
        PeerEdit::Add(new) => {
            let taken: Vec<IpNet> = vpn.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
            let addresses = match new.addresses {
                wanted if !wanted.is_empty() => wanted,
                _ => edits::free_addresses(&vpn.addresses, &taken),
            };
            if addresses.is_empty() {
                return Err(Refusal::asked("no address of `vpn.addresses` is free: remove a peer or widen the prefix"));
            }
            let NewPeer { name, group, public_key, may_reach, .. } = new;
            let new = edits::NewPeer { name, group, public_key, addresses, may_reach };
            edits.add_peer(&new, in_file).map_err(refusal)
        }
        PeerEdit::Remove(name) => edits.remove_peer(&name, in_file).map_err(refusal),
    }
}

fn refusal(error: EditError) -> Refusal {
    match error {
        EditError::Unknown(_) => Refusal::missing(error),
        EditError::Known(_) | EditError::InFile(_) => Refusal::asked(error),
        EditError::Syntax(_) | EditError::Io(_) => Refusal::ours(error),
    }
}

/// Tells what came of a change, from the configuration that it led to.
pub fn edited(name: &str, config: &Compiled) -> Edited {
    let invitation = config.vpn.as_ref().and_then(|vpn| {
        let peer = vpn.peers.iter().find(|peer| peer.name == name)?;
        Some(invitation(peer, vpn, config))
    });
    Edited { invitation }
}

fn invitation(peer: &Peer, vpn: &Config, config: &Compiled) -> Invitation {
    let gate = vpn.addresses.iter().map(IpNet::addr);
    let asks = |reach: &Reach| matches!(reach, Reach::Dns | Reach::Services);
    let dns = config.dns.is_some() && peer.may_reach.iter().any(asks);
    Invitation {
        addresses: peer.addresses.clone(),
        dns: if dns { gate.collect() } else { Vec::new() },
        domain: config.node.domain.to_string(),
        gate: vpn.private_key.public_key().to_string(),
        endpoint: vpn.endpoint.clone(),
        allowed_ips: allowed_ips(peer, vpn),
        keepalive: peer.keepalive.map(|keepalive| keepalive.as_secs()),
    }
}

/// The gate itself, and every network that the peer may reach.
fn allowed_ips(peer: &Peer, vpn: &Config) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = vpn.addresses.iter().map(|net| net.addr().into()).collect();
    for reach in &peer.may_reach {
        match reach {
            Reach::Dns | Reach::Services | Reach::Route(_) => {}
            Reach::Net(net) | Reach::Ports { net, .. } => nets.push(net.trunc()),
            Reach::Peer(id) => {
                nets.extend(vpn.peers.iter().filter(|other| other.id == *id).flat_map(|other| other.addresses.clone()));
            }
            Reach::Internet => nets.extend([IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())]),
        }
    }
    let mut seen = Vec::new();
    nets.retain(|net: &IpNet| {
        let new = !seen.contains(net);
        seen.push(*net);
        new
    });
    nets
}

impl Invitation {
    /// Writes the file that `wg-quick` and the WireGuard apps read.
    ///
    /// Without a private key (somebody else holds it) its line is left for them to fill in.
    pub fn wg_quick(&self, private_key: Option<&str>) -> String {
        let mut text = String::from("[Interface]\n");
        match private_key {
            Some(key) => text.push_str(&format!("PrivateKey = {key}\n")),
            None => text.push_str("# PrivateKey = (the one whose public key was given)\n"),
        }
        text.push_str(&format!("Address = {}\n", list_of(&self.addresses)));
        if !self.dns.is_empty() {
            text.push_str(&format!("DNS = {}, {}\n", list_of(&self.dns), self.domain));
        }
        text.push_str(&format!("\n[Peer]\nPublicKey = {}\n", self.gate));
        text.push_str(&format!("AllowedIPs = {}\n", list_of(&self.allowed_ips)));
        match &self.endpoint {
            Some(endpoint) => text.push_str(&format!("Endpoint = {endpoint}\n")),
            None => text.push_str("# Endpoint = (set `vpn.endpoint`, or write HOST:PORT here)\n"),
        }
        if let Some(keepalive) = self.keepalive {
            text.push_str(&format!("PersistentKeepalive = {keepalive}\n"));
        }
        text
    }
}

fn list_of(things: &[impl ToString]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_for_wg_quick_has_what_it_needs() {
        let invitation = Invitation {
            addresses: vec!["10.77.0.3/32".parse().unwrap(), "fd77::3/128".parse().unwrap()],
            dns: vec!["10.77.0.1".parse().unwrap()],
            domain: "home.example".into(),
            gate: "GATE=".into(),
            endpoint: Some("vpn.home.example:443".into()),
            allowed_ips: vec!["10.77.0.1/32".parse().unwrap()],
            keepalive: Some(25),
        };

        let text = invitation.wg_quick(Some("KEY="));

        let expected = "[Interface]\nPrivateKey = KEY=\nAddress = 10.77.0.3/32, fd77::3/128\n\
                        DNS = 10.77.0.1, home.example\n\n[Peer]\nPublicKey = GATE=\nAllowedIPs = 10.77.0.1/32\n\
                        Endpoint = vpn.home.example:443\nPersistentKeepalive = 25\n";
        assert_eq!(text, expected);
    }
}

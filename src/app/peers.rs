//! Peers as commands see them: added and removed through the edits, and the configuration that a new one
//! is given.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal},
    config::{
        Compiled,
        edits::{self, EditError, Edits},
    },
    vpn::{self, Config, GateSide, Peer, keys::PrivateKey},
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

/// As the command that asks for it.
impl fmt::Display for PeerEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(peer) => write!(f, "peer add {}", peer.name),
            Self::Remove(name) => write!(f, "peer remove {name}"),
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
    /// The configuration for its device; comments stand where the private key goes.
    pub configuration: String,
    /// `vpn.endpoint` is not set, and the configuration has a guess.
    pub endpoint_is_guessed: bool,
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
    let guess = || {
        let port = vpn.listen.first().map_or(443, |address| address.port());
        format!("vpn.{}:{port}", config.node.domain)
    };
    let gate = GateSide {
        public_key: vpn.private_key.public_key(),
        endpoint: vpn.endpoint.clone().unwrap_or_else(guess),
        addresses: vpn.addresses.clone(),
        dns: config.dns.is_some(),
        domain: Some(config.node.domain.to_string()),
    };
    Invitation {
        configuration: vpn::client_configuration(None, &gate, peer),
        endpoint_is_guessed: vpn.endpoint.is_none(),
    }
}

impl Invitation {
    /// Returns the configuration with a private key, which only the command that made it has.
    pub fn with_private_key(&self, key: &PrivateKey) -> String {
        let mut text = String::new();
        for line in self.configuration.lines().filter(|line| !line.starts_with('#')) {
            text.push_str(&format!("{line}\n"));
            if line == "[Interface]" {
                text.push_str(&format!("PrivateKey = {}\n", key.reveal()));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_key_takes_the_place_that_is_left_for_it() {
        let invitation = Invitation {
            configuration: "[Interface]\n# PrivateKey = …\n# PublicKey = …\nAddress = 10.77.0.3/32\n\n[Peer]\n".into(),
            endpoint_is_guessed: false,
        };
        let key = PrivateKey::generate();

        let text = invitation.with_private_key(&key);

        assert_eq!(text, format!("[Interface]\nPrivateKey = {}\nAddress = 10.77.0.3/32\n\n[Peer]\n", key.reveal()));
    }
}

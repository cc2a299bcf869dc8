//! Peers as commands see them: added and removed through the edits, and the configuration that a new one
//! is given.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal},
    config::{
        Compiled,
        edits::{self, EditError, Edits, Switch},
    },
    origin::Role,
    vpn::{
        self, Config, GateSide, Peer,
        keys::{PresharedKey, PrivateKey},
    },
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
    /// Who may begin something with it.
    #[serde(default)]
    pub reached_by: Vec<String>,
    /// Mixed into the handshake, in base64.
    #[serde(default)]
    pub preshared_key: Option<Secret>,
    /// How long a confirmation of its person holds, as in the configuration; nothing is to be confirmed without it.
    #[serde(default)]
    pub confirm: Option<String>,
    /// When it is a peer no more, as in the configuration.
    #[serde(default)]
    pub expires: Option<String>,
    /// The persistent keepalive of its own configuration, as in the configuration.
    #[serde(default)]
    pub keepalive: Option<String>,
}

/// Text that is shown to nobody but the file that it is for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a key.
    pub fn of(key: &PresharedKey) -> Self {
        Self(key.reveal())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Other keys for a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewKeys {
    /// Its public key, in base64.
    pub public_key: String,
    /// Mixed into the handshake, in base64.
    pub preshared_key: Option<Secret>,
}

/// A change of the peers.
#[derive(Clone, Debug)]
pub enum PeerEdit {
    /// One more.
    Add(NewPeer),
    /// Several more, all or none.
    Import(Vec<NewPeer>),
    /// Other keys: what it has open ends, what belongs to it stays.
    Rotate(String, NewKeys),
    /// It may come in, or not.
    Switch(String, Switch),
    /// One less.
    Remove(String),
}

impl PeerEdit {
    /// Returns whom it is about, the first one if there are several.
    pub fn name(&self) -> &str {
        match self {
            Self::Add(peer) => &peer.name,
            Self::Import(peers) => peers.first().map_or("", |peer| &peer.name),
            Self::Rotate(name, _) | Self::Switch(name, _) | Self::Remove(name) => name,
        }
    }
}

/// As the command that asks for it.
impl fmt::Display for PeerEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(peer) => write!(f, "peer add {}", peer.name),
            Self::Import(peers) => {
                let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
                write!(f, "peer import {}", names.join(" "))
            }
            Self::Rotate(name, _) => write!(f, "peer rotate {name}"),
            Self::Switch(name, Switch::On) => write!(f, "peer enable {name}"),
            Self::Switch(name, Switch::Off) => write!(f, "peer disable {name}"),
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
    /// Whose it is.
    #[serde(default)]
    pub user: Option<String>,
    /// What that person may change.
    #[serde(default)]
    pub role: Option<Role>,
    /// It reaches nothing before its person has confirmed.
    #[serde(default)]
    pub must_confirm: bool,
    /// Until then it is confirmed, in seconds since 1970.
    #[serde(default)]
    pub confirmed_until: Option<u64>,
    /// It may come in.
    pub enabled: bool,
    /// From then on it is no peer, in seconds since 1970.
    pub expires: Option<i64>,
    /// It was told another endpoint than peers are told today.
    pub told_old_endpoint: bool,
    /// It knows the gate by the key before the present one.
    #[serde(default)]
    pub knows_old_key: bool,
    /// When a session was last proven, in seconds since 1970.
    pub last_handshake: Option<u64>,
    /// Where it was last heard.
    pub endpoint: Option<std::net::SocketAddr>,
    /// Bytes received from it since the process began.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
}

impl Edge {
    /// Returns the peers of the configuration in force.
    pub fn peers(&self) -> Vec<Listed> {
        let seen = self.planes.vpn.as_ref().map(|plane| plane.status().peers).unwrap_or_default();
        let mut listed = list(&self.force.load().config);
        for peer in &mut listed {
            if let Some(seen) = seen.iter().find(|seen| seen.public_key == peer.public_key) {
                peer.last_handshake = seen.last_handshake;
                peer.endpoint = seen.endpoint;
                (peer.received, peer.sent) = (seen.received, seen.sent);
                peer.knows_old_key = seen.knows_old_key;
                (peer.must_confirm, peer.confirmed_until) = (seen.must_confirm, seen.confirmed_until);
            }
        }
        listed
    }
}

/// Returns the peers of a configuration.
pub fn list(config: &Compiled) -> Vec<Listed> {
    let peers = config.vpn.iter().flat_map(|vpn| vpn.peers.iter().map(move |peer| (vpn, peer)));
    peers
        .map(|(vpn, peer)| Listed {
            name: peer.name.clone(),
            group: peer.group.clone(),
            public_key: peer.public_key.to_string(),
            addresses: peer.addresses.clone(),
            user: peer.user.as_ref().map(|user| user.name.clone()),
            role: peer.user.as_ref().map(|user| user.role),
            must_confirm: peer.confirm.is_some(),
            confirmed_until: None,
            enabled: peer.enabled,
            expires: peer.expires.map(|expires| expires.as_second()),
            told_old_endpoint: peer.told_endpoint.is_some() && peer.told_endpoint != vpn.endpoint,
            knows_old_key: false,
            last_handshake: None,
            endpoint: None,
            received: 0,
            sent: 0,
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
    let told = vpn.endpoint.iter().map(|endpoint| ("endpoint", endpoint.clone()));
    match edit {
        PeerEdit::Add(new) => edits.add_peers(&place(vec![new], vpn)?, in_file).map_err(refusal),
        PeerEdit::Import(new) => edits.add_peers(&place(new, vpn)?, in_file).map_err(refusal),
        PeerEdit::Rotate(name, keys) => {
            let preshared = keys.preshared_key.map(|key| ("preshared_key", key.0));
            let more: Vec<_> = preshared.into_iter().chain(told).collect();
            edits.rotate_peer(&name, &keys.public_key, &more, in_file).map_err(refusal)
        }
        PeerEdit::Switch(name, switch) => edits.switch_peer(&name, switch, in_file).map_err(refusal),
        PeerEdit::Remove(name) => edits.remove_peer(&name, in_file).map_err(refusal),
    }
}

/// Gives addresses to those who named none, and notes what they are told of the gate.
fn place(new: Vec<NewPeer>, vpn: &Config) -> Result<Vec<edits::NewPeer>, Refusal> {
    let mut taken: Vec<IpNet> = vpn.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
    taken.extend(new.iter().flat_map(|peer| peer.addresses.iter().copied()));
    let mut placed = Vec::new();
    for new in new {
        let addresses = match new.addresses {
            wanted if !wanted.is_empty() => wanted,
            _ => edits::free_addresses(&vpn.addresses, &taken),
        };
        if addresses.is_empty() {
            return Err(Refusal::asked("no address of `vpn.addresses` is free: remove a peer or widen the prefix"));
        }
        taken.extend(&addresses);
        let more = [
            ("preshared_key", new.preshared_key.map(|key| key.0)),
            ("expires", new.expires),
            ("confirm", new.confirm),
            ("keepalive", new.keepalive),
            ("endpoint", vpn.endpoint.clone()),
        ];
        placed.push(edits::NewPeer {
            name: new.name,
            group: new.group,
            public_key: new.public_key,
            addresses,
            may_reach: new.may_reach,
            reached_by: new.reached_by,
            more: more.into_iter().filter_map(|(key, text)| Some((key, text?))).collect(),
        });
    }
    Ok(placed)
}

pub(super) fn refusal(error: EditError) -> Refusal {
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

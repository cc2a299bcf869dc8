//! Users as commands see them: people, what they may change, and their peers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal, peers::refusal},
    config::{
        Compiled,
        edits::{self, Edits},
    },
    origin::Role,
};

/// A user as `user list` shows them, and as `user add` asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What the owner calls them.
    pub name: String,
    /// What they may change.
    pub role: Role,
    /// Their peers.
    pub peers: Vec<String>,
}

/// A change of the users.
#[derive(Clone, Debug)]
pub enum UserEdit {
    /// One more.
    Add(Listed),
    /// One less; their peers stay, without a role.
    Remove(String),
}

/// As the command that asks for it.
impl fmt::Display for UserEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(user) => {
                write!(f, "user add {} --role {}", user.name, user.role)?;
                user.peers.iter().try_for_each(|peer| write!(f, " --peer {peer}"))
            }
            Self::Remove(name) => write!(f, "user remove {name}"),
        }
    }
}

impl Edge {
    /// Returns the users of the configuration in force.
    pub fn users(&self) -> Vec<Listed> {
        list(&self.force.load().config)
    }
}

/// Returns the users of a configuration.
pub fn list(config: &Compiled) -> Vec<Listed> {
    let name = |id| config.directory.peers.iter().find(|(peer, _)| *peer == id).map(|(_, name)| name.clone());
    let users = config.users.iter().map(|user| Listed {
        name: user.name.clone(),
        role: user.role,
        peers: user.peers.iter().copied().filter_map(name).collect(),
    });
    users.collect()
}

/// Writes a change into the edits; `config` is what it changes.
pub fn apply(edits: &mut Edits, edit: &UserEdit, config: &Compiled) -> Result<(), Refusal> {
    let added = edits.users().map_err(refusal)?;
    let in_file = config.users.iter().map(|user| user.name.as_str()).filter(|name| !added.iter().any(|a| a == name));
    match edit {
        UserEdit::Add(user) => {
            let known = |peer: &&String| config.directory.peers.iter().any(|(_, name)| name == *peer);
            if let Some(peer) = user.peers.iter().find(|peer| !known(peer)) {
                return Err(Refusal::missing(format!(
                    "there is no peer \"{peer}\": `hearthgate peer list` shows them"
                )));
            }
            let new =
                edits::NewUser { name: user.name.clone(), role: user.role.to_string(), peers: user.peers.clone() };
            edits.add_user(&new, in_file).map_err(refusal)
        }
        UserEdit::Remove(name) => edits.remove_user(name, in_file).map_err(refusal),
    }
}

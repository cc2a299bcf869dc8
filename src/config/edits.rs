//! What commands add to the owner's file: `edits.toml` in the state folder, in the same syntax, read after it.

mod dns;
mod user;

pub use dns::{NewRule, Whom};
pub use user::NewUser;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::store::{self, Found};

/// Its name in the state folder.
pub const FILE: &str = "edits.toml";

/// The edits of a state folder.
#[derive(Clone, Debug)]
pub struct Edits {
    path: PathBuf,
    text: String,
}

/// A peer to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPeer {
    /// What it is called.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// Its public key, in base64.
    pub public_key: String,
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
    /// What it may reach, as in `may_reach`; `None` is the default.
    pub may_reach: Option<Vec<String>>,
    /// Who may begin something with it, as in `reached_by`.
    pub reached_by: Vec<String>,
    /// Everything else that is set, each with its key, as text: `preshared_key`, `expires`, `confirm`, `keepalive`,
    /// `endpoint`.
    pub more: Vec<(&'static str, String)>,
}

/// Whether a peer may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It may.
    On,
    /// It keeps its place and may not.
    Off,
}

/// Why an edit was refused.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The name is in use.
    #[error("{0} was added already: choose another name, or remove it first")]
    Known(String),
    /// The owner's file has it.
    #[error("{0} is named by the configuration file, which is never rewritten: change it there")]
    InFile(String),
    /// There is no such peer.
    #[error("there is no {0}")]
    Unknown(String),
    /// The file was changed by something else.
    #[error("edits.toml cannot be read: {0}")]
    Syntax(String),
    /// The state folder.
    #[error("edits.toml: {0}")]
    Io(#[from] io::Error),
}

impl Edits {
    /// Reads the edits; none is the same as an empty file.
    pub fn read(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        let found = store::read(&path)?;
        Self::found(path, found)
    }

    /// Reads the edits, if there are any that this user may see, and changes nothing.
    pub(crate) fn look(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        let found = store::glance(&path)?;
        Self::found(path, found)
    }

    fn found(path: PathBuf, found: Found) -> io::Result<Self> {
        let text = String::from_utf8(found.content().unwrap_or_default())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))?;
        Ok(Self { path, text })
    }

    /// Returns the text.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// Returns the names of the peers that were added.
    pub fn peers(&self) -> Result<Vec<String>, EditError> {
        let mut document = self.document()?;
        let name = |peer: &Table| peer.get("name").and_then(Item::as_str).map(str::to_owned);
        Ok(peers(&mut document)?.iter().filter_map(name).collect())
    }

    /// Adds peers and writes the file: all or none. `in_file` are the names that the owner's file has.
    pub fn add_peers<'a>(
        &mut self,
        new: &[NewPeer],
        in_file: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), EditError> {
        let in_file: Vec<&str> = in_file.into_iter().collect();
        let mut known = self.peers()?;
        let mut document = self.document()?;
        let list = peers(&mut document)?;
        for new in new {
            if known.contains(&new.name) {
                return Err(EditError::Known(peer(&new.name)));
            }
            if in_file.contains(&new.name.as_str()) {
                return Err(EditError::InFile(peer(&new.name)));
            }
            known.push(new.name.clone());
            list.push(table(new));
        }
        self.write(document.to_string())
    }

    /// Adds one peer.
    pub fn add_peer<'a>(&mut self, new: &NewPeer, in_file: impl IntoIterator<Item = &'a str>) -> Result<(), EditError> {
        self.add_peers(std::slice::from_ref(new), in_file)
    }

    /// Gives a peer other keys and writes the file. `more` is what else is set.
    pub fn rotate_peer<'a>(
        &mut self,
        name: &str,
        public_key: &str,
        more: &[(&'static str, String)],
        in_file: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), EditError> {
        self.change_peer(name, in_file, |peer| {
            peer["public_key"] = value(public_key);
            peer.remove("preshared_key");
            for (key, text) in more {
                peer[key] = value(text);
            }
        })
    }

    /// Lets a peer in, or keeps it out, and writes the file.
    pub fn switch_peer<'a>(
        &mut self,
        name: &str,
        switch: Switch,
        in_file: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), EditError> {
        self.change_peer(name, in_file, |peer| match switch {
            Switch::On => {
                peer.remove("enabled");
            }
            Switch::Off => peer["enabled"] = value(false),
        })
    }

    fn change_peer<'a>(
        &mut self,
        name: &str,
        in_file: impl IntoIterator<Item = &'a str>,
        change: impl FnOnce(&mut Table),
    ) -> Result<(), EditError> {
        let mut document = self.document()?;
        let peers = peers(&mut document)?;
        let is_named = |peer: &&mut Table| peer.get("name").and_then(Item::as_str) == Some(name);
        match peers.iter_mut().find(is_named) {
            Some(peer) => change(peer),
            None => return Err(absent("peer", name, in_file)),
        }
        self.write(document.to_string())
    }

    /// Removes a peer and writes the file.
    pub fn remove_peer<'a>(&mut self, name: &str, in_file: impl IntoIterator<Item = &'a str>) -> Result<(), EditError> {
        let mut document = self.document()?;
        let peers = peers(&mut document)?;
        let before = peers.len();
        peers.retain(|peer| peer.get("name").and_then(Item::as_str) != Some(name));
        if peers.len() == before {
            return Err(absent("peer", name, in_file));
        }
        user::forget_peer(&mut document, name)?;
        self.write(document.to_string())
    }

    /// Replaces everything: the way back to an older generation.
    pub fn write(&mut self, text: String) -> Result<(), EditError> {
        if let Some(folder) = self.path.parent() {
            store::folder(folder)?;
        }
        store::write(&self.path, text.as_bytes())?;
        self.text = text;
        Ok(())
    }

    fn document(&self) -> Result<DocumentMut, EditError> {
        self.text.parse().map_err(|error: toml_edit::TomlError| EditError::Syntax(error.message().to_owned()))
    }
}

fn absent<'a>(kind: &str, name: &str, in_file: impl IntoIterator<Item = &'a str>) -> EditError {
    let owners = in_file.into_iter().any(|known| known == name);
    let named = format!("{kind} \"{name}\"");
    if owners { EditError::InFile(named) } else { EditError::Unknown(named) }
}

fn peer(name: &str) -> String {
    format!("peer \"{name}\"")
}

fn table(new: &NewPeer) -> Table {
    let mut peer = Table::new();
    peer["name"] = value(&new.name);
    if let Some(group) = &new.group {
        peer["group"] = value(group);
    }
    peer["public_key"] = value(&new.public_key);
    peer["addresses"] = value(new.addresses.iter().map(IpNet::to_string).collect::<toml_edit::Array>());
    if let Some(reach) = &new.may_reach {
        peer["may_reach"] = value(reach.iter().collect::<toml_edit::Array>());
    }
    if !new.reached_by.is_empty() {
        peer["reached_by"] = value(new.reached_by.iter().collect::<toml_edit::Array>());
    }
    for (key, text) in &new.more {
        peer[key] = value(text);
    }
    peer
}

fn peers(document: &mut DocumentMut) -> Result<&mut ArrayOfTables, EditError> {
    let vpn = document.entry("vpn").or_insert_with(|| {
        let mut vpn = Table::new();
        vpn.set_implicit(true);
        Item::Table(vpn)
    });
    let vpn = vpn.as_table_mut().ok_or_else(|| EditError::Syntax("\"vpn\" is no table".into()))?;
    let peers = vpn.entry("peer").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    peers.as_array_of_tables_mut().ok_or_else(|| EditError::Syntax("\"peer\" is no list of entries".into()))
}

/// Returns the lowest address of each of the gate's networks that nobody has, for a new peer.
pub fn free_addresses(gate: &[IpNet], taken: &[IpNet]) -> Vec<IpNet> {
    let free = |net: &IpNet| {
        // The lowest address of an IPv6 network is every router's (RFC 4291 §2.6.1).
        let reserved = |host: &IpAddr| *host == net.addr() || *host == net.network();
        let is_free = |host: &IpAddr| !reserved(host) && !taken.iter().any(|other| other.contains(host));
        // Among more than `taken` candidates one is free, unless somebody owns whole networks.
        net.hosts().take(1 << 16).find(is_free).map(IpNet::from)
    };
    gate.iter().filter_map(free).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laptop() -> NewPeer {
        NewPeer {
            name: "laptop".into(),
            group: Some("admins".into()),
            public_key: "6bkd+iwA2xU8SLZ2rrYKTjvFDuVTWHrAKX1rSG5RMHM=".into(),
            addresses: vec!["10.77.0.2/32".parse().unwrap()],
            may_reach: Some(vec!["services".into()]),
            reached_by: Vec::new(),
            more: Vec::new(),
        }
    }

    #[test]
    fn a_peer_gets_other_keys_and_is_switched_off_and_on() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();
        let with_psk = NewPeer { more: vec![("preshared_key", "old".into())], ..laptop() };
        edits.add_peers(&[with_psk, NewPeer { name: "phone".into(), ..laptop() }], []).unwrap();

        edits.rotate_peer("laptop", "new", &[("preshared_key", "psk".into())], []).unwrap();
        edits.switch_peer("laptop", Switch::Off, []).unwrap();
        let text = edits.text();
        edits.switch_peer("laptop", Switch::On, []).unwrap();

        assert!(text.contains("public_key = \"new\"") && text.contains("preshared_key = \"psk\""), "{text}");
        assert!(text.contains("enabled = false") && !text.contains("old"), "{text}");
        assert!(!edits.text().contains("enabled"), "{}", edits.text());
        assert!(matches!(edits.switch_peer("desk", Switch::Off, ["desk"]), Err(EditError::InFile(_))));
        assert!(matches!(edits.rotate_peer("desk", "x", &[], []), Err(EditError::Unknown(_))));
    }

    #[test]
    fn several_peers_are_added_all_or_none() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();

        let twice = edits.add_peers(&[laptop(), laptop()], []);

        assert!(matches!(twice, Err(EditError::Known(_))));
        assert_eq!(edits.text(), "");
    }

    #[test]
    fn a_peer_is_added_and_removed_and_the_rest_keeps_its_shape() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();
        edits.write("# mine\n[[vpn.peer]]   # the phone\nname = \"phone\"\n".into()).unwrap();

        edits.add_peer(&laptop(), []).unwrap();
        let with_laptop = Edits::read(state.path()).unwrap();
        edits.remove_peer("laptop", []).unwrap();

        assert_eq!(with_laptop.peers().unwrap(), ["phone", "laptop"]);
        assert_eq!(
            with_laptop.text(),
            "# mine\n[[vpn.peer]]   # the phone\nname = \"phone\"\n\n[[vpn.peer]]\nname = \"laptop\"\ngroup = \"admins\"\n\
             public_key = \"6bkd+iwA2xU8SLZ2rrYKTjvFDuVTWHrAKX1rSG5RMHM=\"\naddresses = [\"10.77.0.2/32\"]\n\
             may_reach = [\"services\"]\n"
        );
        assert_eq!(edits.text(), "# mine\n[[vpn.peer]]   # the phone\nname = \"phone\"\n");
    }

    #[test]
    fn what_the_file_names_is_refused_with_a_sentence() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();

        let add = edits.add_peer(&laptop(), ["laptop"]).unwrap_err();
        let remove = edits.remove_peer("laptop", ["laptop"]).unwrap_err();

        for error in [add, remove] {
            assert!(error.to_string().contains("which is never rewritten"), "{error}");
        }
        assert!(matches!(edits.remove_peer("tablet", ["laptop"]), Err(EditError::Unknown(_))));
    }

    #[test]
    fn a_new_peer_gets_the_lowest_addresses_that_are_free() {
        let gate = ["10.77.0.1/24".parse().unwrap(), "fd77::1/64".parse().unwrap()];
        let taken = ["10.77.0.2/31".parse().unwrap(), "fd77::2/128".parse().unwrap()];

        let free = free_addresses(&gate, &taken);

        assert_eq!(free, ["10.77.0.4/32".parse::<IpNet>().unwrap(), "fd77::3/128".parse().unwrap()]);
    }
}

//! Users in the edits.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::{EditError, Edits, absent};

/// A user to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// What the owner calls them.
    pub name: String,
    /// `viewer`, `operator` or `owner`.
    pub role: String,
    /// Their peers.
    pub peers: Vec<String>,
}

impl Edits {
    /// Returns the names of the users that were added.
    pub fn users(&self) -> Result<Vec<String>, EditError> {
        let mut document = self.document()?;
        Ok(users(&mut document)?.iter().filter_map(|user| name_of(user).map(str::to_owned)).collect())
    }

    /// Adds a user and writes the file. `in_file` are the names that the owner's file has.
    pub fn add_user<'a>(&mut self, new: &NewUser, in_file: impl IntoIterator<Item = &'a str>) -> Result<(), EditError> {
        let named = || format!("user \"{}\"", new.name);
        if in_file.into_iter().any(|name| name == new.name) {
            return Err(EditError::InFile(named()));
        }
        let mut document = self.document()?;
        let users = users(&mut document)?;
        if users.iter().any(|user| name_of(user) == Some(&new.name)) {
            return Err(EditError::Known(named()));
        }
        let mut user = Table::new();
        user["name"] = value(&new.name);
        user["role"] = value(&new.role);
        user["peers"] = value(new.peers.iter().collect::<toml_edit::Array>());
        users.push(user);
        self.write(document.to_string())
    }

    /// Removes a user and writes the file.
    pub fn remove_user<'a>(&mut self, name: &str, in_file: impl IntoIterator<Item = &'a str>) -> Result<(), EditError> {
        let mut document = self.document()?;
        let users = users(&mut document)?;
        let before = users.len();
        users.retain(|user| name_of(user) != Some(name));
        if users.len() == before {
            return Err(absent("user", name, in_file));
        }
        self.write(document.to_string())
    }
}

/// Takes a peer that goes away from whose it is.
pub(super) fn forget_peer(document: &mut DocumentMut, name: &str) -> Result<(), EditError> {
    if !document.contains_key("user") {
        return Ok(());
    }
    for user in users(document)?.iter_mut() {
        if let Some(peers) = user.get_mut("peers").and_then(Item::as_array_mut) {
            peers.retain(|peer| peer.as_str() != Some(name));
        }
    }
    Ok(())
}

fn name_of(user: &Table) -> Option<&str> {
    user.get("name").and_then(Item::as_value).and_then(Value::as_str)
}

fn users(document: &mut DocumentMut) -> Result<&mut ArrayOfTables, EditError> {
    let users = document.entry("user").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    users.as_array_of_tables_mut().ok_or_else(|| EditError::Syntax("\"user\" is no list of entries".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_comes_and_goes_and_loses_a_peer_that_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let mut edits = Edits::read(state.path()).unwrap();
        edits.write("[[vpn.peer]]\nname = \"phone\"\n".into()).unwrap();
        let alice =
            NewUser { name: "alice".into(), role: "owner".into(), peers: vec!["laptop".into(), "phone".into()] };

        edits.add_user(&alice, []).unwrap();
        let (twice, owners) = (edits.add_user(&alice, []), edits.add_user(&alice, ["alice"]));
        edits.remove_peer("phone", []).unwrap();
        let text = edits.text();
        edits.remove_user("alice", []).unwrap();

        assert!(matches!(twice, Err(EditError::Known(_))) && matches!(owners, Err(EditError::InFile(_))));
        assert_eq!(text.trim(), "[[user]]\nname = \"alice\"\nrole = \"owner\"\npeers = [\"laptop\"]");
        let gone = edits.remove_user("alice", []).unwrap_err().to_string();
        assert_eq!(gone, "there is no user \"alice\"");
    }
}

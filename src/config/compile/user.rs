//! `[[user]]`: who of the peers is whose.

use std::collections::HashSet;

use crate::{
    config::{
        User,
        compile::{Names, access::suggestion},
        file::File,
        problems::{Report, Text},
    },
    origin::PeerId,
};

/// Compiles the users. A peer has one user at most: what it does is that person's.
pub(crate) fn compile(file: &File, names: &Names, report: &Report) -> Vec<User> {
    let (mut known, mut taken): (HashSet<&str>, HashSet<PeerId>) = Default::default();
    let mut users = Vec::new();
    for user in &file.users {
        let (about, name) = (&user.about, user.name.value.as_str());
        let is_edit = user.name.at.text == Text::Edits;
        if !known.insert(name) {
            let hint = "give each user a name of its own";
            match is_edit {
                true => report.warning(user.name.at, about, "this name is given twice; the file's entry is used", hint),
                false => report.error(user.name.at, about, "this name is given twice", hint),
            }
            continue;
        }
        let mut peers = Vec::new();
        for peer in &user.peers {
            match names.peers.iter().find(|one| one.name == peer.value) {
                Some(found) if taken.insert(found.id) => peers.push(found.id),
                Some(_) => {
                    let what = format!("peer \"{}\" has another user already", peer.value);
                    report.error(peer.at, about, what, "a peer is one person's: name it once");
                }
                None => {
                    let what = format!("there is no peer \"{}\"", peer.value);
                    let known = names.peers.iter().map(|peer| peer.name.as_str());
                    let hint = suggestion(&peer.value, known, "declare it with [[vpn.peer]]");
                    match is_edit {
                        // The file's peers come and go without the edits.
                        true => report.warning(peer.at, about, what, hint),
                        false => report.error(peer.at, about, what, hint),
                    }
                }
            }
        }
        users.push(User { name: name.to_owned(), role: user.role, peers });
    }
    users
}

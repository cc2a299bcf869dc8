//! Who may use a route: words become networks and peers.

use crate::{
    config::{
        compile::Names,
        file::AccessWord,
        problems::{About, At, Report, nearest},
    },
    origin::{Access, NetworkId},
};

/// Compiles a union of words.
pub(crate) fn compile(words: &[At<AccessWord>], names: &Names, about: &About, report: &Report) -> Access {
    let mut access = Access::default();
    for word in words {
        let at = word.at;
        if matches!(word.value, AccessWord::Vpn | AccessWord::Peer(_)) && !names.has_vpn {
            report.error(
                at,
                about,
                "there is no [vpn], so nobody comes through it",
                "add a [vpn] section with its peers",
            );
            continue;
        }
        match &word.value {
            AccessWord::Public => access.public = true,
            AccessWord::Vpn => access.vpn = true,
            AccessWord::Lan => access.networks.extend([NetworkId::MAIN, NetworkId::HOST]),
            AccessWord::Network(name) => match names.networks.iter().zip(0..).find(|(network, _)| *network == name) {
                Some((_, index)) => access.networks.push(NetworkId::named(index)),
                None => {
                    let known = names.networks.iter().map(String::as_str);
                    let what = format!("there is no network \"{name}\"");
                    report.error(at, about, what, suggestion(name, known, "declare it with [[lan.network]]"));
                }
            },
            AccessWord::Peer(name) => {
                let peer = names.peers.iter().find(|peer| peer.name == *name);
                let group = names.groups.contains(name);
                let members = names.peers.iter().filter(|peer| peer.group.as_ref() == Some(name));
                match (peer, group) {
                    (Some(_), true) => {
                        let what = format!("\"vpn:{name}\" is both a peer and a group");
                        report.error(at, about, what, "rename one of them");
                    }
                    (Some(peer), false) => access.peers.push(peer.id),
                    (None, true) => access.peers.extend(members.map(|peer| peer.id)),
                    (None, false) => {
                        let known = names.peers.iter().map(|peer| &peer.name).chain(&names.groups).map(String::as_str);
                        let what = format!("there is no peer or group \"{name}\"");
                        let hint = "declare it with [[vpn.peer]] or [[vpn.group]]";
                        report.error(at, about, what, suggestion(name, known, hint));
                    }
                }
            }
        }
    }
    access.networks.sort_unstable();
    access.networks.dedup();
    access.peers.sort_unstable();
    access.peers.dedup();
    access
}

/// Returns the nearest known name as a hint, or another hint.
pub(crate) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    nearest(name, known).map_or_else(|| otherwise.to_owned(), |known| format!("did you mean \"{known}\"?"))
}

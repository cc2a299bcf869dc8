//! Which changes could lock their author out: after them an owner's peer is not let in as it was.
//!
//! Whoever takes a peer away or switches it off means just that; it is such a change only if no owner is left who could
//! take it back by the tunnel.

use jiff::Timestamp;

use crate::{
    config::Compiled,
    origin::{PeerId, Role},
    vpn::{Config, Peer, keys::PrivateKey},
};

/// Says what a change could cost its author; nothing if it could not.
pub(super) fn risk(old: &Compiled, new: &Compiled, now: Timestamp) -> Option<String> {
    let (before, after) = (old.vpn.as_ref()?, new.vpn.as_ref());
    let Some(after) = after else {
        return (!before.peers.is_empty()).then(|| "there is no gate any more".to_owned());
    };
    let answers = |config: &Config| {
        let keys = [Some(&config.private_key), config.previous_key.as_ref()];
        keys.into_iter().flatten().map(PrivateKey::public_key).collect::<Vec<_>>()
    };
    let (answered, answers) = (answers(before), answers(after));
    if !answers.contains(&before.private_key.public_key()) {
        return Some("the gate has another key".to_owned());
    }
    // A peer that was not told of the new key yet knows this one alone.
    if answered.iter().any(|key| !answers.contains(key)) {
        return Some("the gate gives up its previous key, which peers may still know it by".to_owned());
    }
    if before.addresses != after.addresses {
        return Some("the gate has other addresses".to_owned());
    }
    let owned_before: Vec<&Peer> = owned(old, before, now).collect();
    let owned_after: Vec<&Peer> = owned(new, after, now).collect();
    if !owned_before.is_empty() && owned_after.is_empty() {
        return Some("no owner has a peer that may come in".to_owned());
    }
    owned_before.iter().find_map(|was| {
        let is = after.peers.iter().find(|peer| peer.name == was.name && peer.enabled)?;
        let what = lost(was, is)?;
        Some(format!("peer \"{}\" of an owner {what}", was.name))
    })
}

/// Peers by which an owner comes in now: one that has expired is no way in.
fn owned<'a>(config: &'a Compiled, vpn: &'a Config, now: Timestamp) -> impl Iterator<Item = &'a Peer> {
    let owners: Vec<PeerId> =
        config.users.iter().filter(|user| user.role == Role::Owner).flat_map(|user| user.peers.clone()).collect();
    let comes_in = move |peer: &&Peer| peer.enabled && peer.expires.is_none_or(|end| end > now);
    vpn.peers.iter().filter(comes_in).filter(move |peer| owners.contains(&peer.id))
}

/// Says what a peer has lost that it had.
fn lost(was: &Peer, is: &Peer) -> Option<&'static str> {
    let tells = [
        (was.public_key != is.public_key || was.preshared_key != is.preshared_key, "has other keys"),
        (was.addresses.iter().any(|net| !is.addresses.contains(net)), "has other addresses"),
        (was.may_reach.iter().any(|reach| !is.may_reach.contains(reach)), "may reach less"),
        (is.expires.is_some_and(|is| was.expires.is_none_or(|was| is < was)), "ends sooner"),
        (is.confirm.is_some() && was.confirm.is_none(), "has to confirm"),
    ];
    tells.into_iter().find(|(is_so, _)| *is_so).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, PeerIds, Source, check};

    /// A gate by its keys.
    fn gate(present: u8, previous: Option<u8>) -> Compiled {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { state: Some(folder.path().into()), ..Options::default() };
        let file = folder.path().join("hearthgate.toml");
        let text = "[vpn]\nlisten = [\"127.0.0.1:51820\"]\nendpoint = \"vpn.example:51820\"\n";
        let mut compiled = check(Source::Text(&file, text), &options, &mut PeerIds::default()).unwrap().compiled;
        // Base64 of 32 bytes, all but the first the same.
        let key = |number: u8| -> PrivateKey {
            format!("{}AAA{}=", ["A", "B", "C", "D"][usize::from(number)], "A".repeat(39)).parse().unwrap()
        };
        if let Some(vpn) = &mut compiled.vpn {
            vpn.addresses = ["10.77.0.1/24".parse().unwrap()].into();
            (vpn.private_key, vpn.previous_key) = (key(present), previous.map(key));
        }
        compiled
    }

    #[test]
    fn a_key_that_peers_may_know_the_gate_by_is_not_given_up_without_a_word() {
        let risk = |before: (u8, Option<u8>), after: (u8, Option<u8>)| {
            risk(&gate(before.0, before.1), &gate(after.0, after.1), Timestamp::UNIX_EPOCH).is_some()
        };

        assert!(!risk((1, None), (2, Some(1))), "peers still find it");
        assert!(!risk((2, Some(1)), (2, Some(1))));
        assert!(risk((2, Some(1)), (2, None)), "peers that know the first key alone do not");
        assert!(risk((2, Some(1)), (3, Some(2))));
        assert!(risk((1, None), (2, None)));
    }

    #[test]
    fn a_peer_that_has_expired_is_no_owners_way_in() {
        let gate = |phone_ends: i64, others: &str| {
            let folder = tempfile::tempdir().unwrap();
            let options = Options { state: Some(folder.path().into()), ..Options::default() };
            let file = folder.path().join("hearthgate.toml");
            let key = |letter: &str| format!("{letter}{}=", "A".repeat(42));
            let expires = Timestamp::from_second(phone_ends).unwrap();
            let text = format!(
                "[vpn]\nlisten = [\"127.0.0.1:51820\"]\nendpoint = \"vpn.example:51820\"\naddresses = [\"10.77.0.1/24\"]\n\
                 [[vpn.peer]]\nname = \"phone\"\npublic_key = \"{}\"\naddresses = [\"10.77.0.2/32\"]\n{others}\
                 [[user]]\nname = \"ann\"\nrole = \"owner\"\npeers = [\"phone\"]\n",
                key("B")
            );
            let mut compiled = check(Source::Text(&file, &text), &options, &mut PeerIds::default()).unwrap().compiled;
            if let Some(vpn) = &mut compiled.vpn {
                vpn.private_key = format!("A{}=", "A".repeat(42)).parse().unwrap();
                vpn.peers[0].expires = Some(expires);
            }
            compiled
        };
        let now = Timestamp::from_second(1000).unwrap();

        let lost = risk(&gate(2000, ""), &gate(900, ""), now);

        assert_eq!(lost.as_deref(), Some("no owner has a peer that may come in"));
        assert_eq!(risk(&gate(2000, ""), &gate(2000, ""), now), None);
        assert_eq!(risk(&gate(900, ""), &gate(800, ""), now), None, "there was no way in");
    }
}

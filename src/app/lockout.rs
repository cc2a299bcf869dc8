//! Which changes could lock their author out: after them an owner's peer is not let in as it was.
//!
//! Whoever takes a peer away or switches it off means just that; it is such a change only if no owner is left who could
//! take it back by the tunnel.

use crate::{
    config::Compiled,
    origin::{PeerId, Role},
    vpn::{Config, Peer},
};

/// Says what a change could cost its author; nothing if it could not.
pub(super) fn risk(old: &Compiled, new: &Compiled) -> Option<String> {
    let (before, after) = (old.vpn.as_ref()?, new.vpn.as_ref());
    let Some(after) = after else {
        return (!before.peers.is_empty()).then(|| "there is no gate any more".to_owned());
    };
    if before.private_key.public_key() != after.private_key.public_key() && knows_only(before, after) {
        return Some("the gate has another key".to_owned());
    }
    if before.addresses != after.addresses {
        return Some("the gate has other addresses".to_owned());
    }
    let owned_before: Vec<&Peer> = owned(old, before).collect();
    let owned_after: Vec<&Peer> = owned(new, after).collect();
    if !owned_before.is_empty() && owned_after.is_empty() {
        return Some("no owner has a peer that may come in".to_owned());
    }
    owned_before.iter().find_map(|was| {
        let is = after.peers.iter().find(|peer| peer.name == was.name && peer.enabled)?;
        let what = lost(was, is)?;
        Some(format!("peer \"{}\" of an owner {what}", was.name))
    })
}

/// Peers know the old key alone, and the gate does not have it any more.
fn knows_only(before: &Config, after: &Config) -> bool {
    let old = before.private_key.public_key();
    after.previous_key.as_ref().is_none_or(|key| key.public_key() != old)
}

fn owned<'a>(config: &'a Compiled, vpn: &'a Config) -> impl Iterator<Item = &'a Peer> {
    let owners: Vec<PeerId> =
        config.users.iter().filter(|user| user.role == Role::Owner).flat_map(|user| user.peers.clone()).collect();
    vpn.peers.iter().filter(move |peer| peer.enabled && owners.contains(&peer.id))
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

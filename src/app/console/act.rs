//! What the console does to the edge: the same changes as commands make, with the visitor as their author.

use crate::{
    app::{
        Edge,
        control::Refusal,
        peers::{Edited, NewKeys, NewPeer, PeerEdit, Secret},
        rules::{PauseFor, RuleEdit, RuleFor},
    },
    config::edits::Switch,
    console::{
        Visitor,
        action::{Action, Rule, Whom},
        view::{Done, Waiting},
    },
    origin::Role,
    vpn::keys::{PresharedKey, PrivateKey},
};

/// Does it.
pub(super) fn act(edge: &Edge, action: Action, visitor: &Visitor) -> Result<Done, Refusal> {
    let by = &visitor.name;
    let mut done = Done::default();
    match action {
        Action::Allow(rule) => done.until = rule_edit(edge, rule, visitor, RuleEdit::Allow)?,
        Action::Block(rule) => done.until = rule_edit(edge, rule, visitor, RuleEdit::Block)?,
        Action::Forget(rule) => done.until = rule_edit(edge, rule, visitor, RuleEdit::Undo)?,
        Action::Pause(whom, seconds) => {
            done.until = edge.edit_rules(&RuleEdit::Pause(pause(whom, seconds)), by)?.until;
        }
        Action::Resume(whom) => _ = edge.edit_rules(&RuleEdit::Resume(pause(whom, 0)), by)?,
        Action::AddPeer { name, group, expires } => {
            let key = PrivateKey::generate();
            let new = NewPeer {
                name,
                group,
                public_key: key.public_key().to_string(),
                addresses: Vec::new(),
                may_reach: None,
                reached_by: Vec::new(),
                preshared_key: Some(Secret::of(&PresharedKey::generate())),
                confirm: None,
                expires,
                keepalive: None,
            };
            hand_out(&mut done, edge.edit_peers(PeerEdit::Add(new), by)?, &key);
        }
        Action::RotatePeer(name) => {
            let key = PrivateKey::generate();
            let preshared_key = Some(Secret::of(&PresharedKey::generate()));
            let keys = NewKeys { public_key: key.public_key().to_string(), preshared_key };
            hand_out(&mut done, edge.edit_peers(PeerEdit::Rotate(name, keys), by)?, &key);
        }
        Action::EnablePeer(name) => _ = edge.edit_peers(PeerEdit::Switch(name, Switch::On), by)?,
        Action::DisablePeer(name) => _ = edge.edit_peers(PeerEdit::Switch(name, Switch::Off), by)?,
        Action::RemovePeer(name) => _ = edge.edit_peers(PeerEdit::Remove(name), by)?,
        Action::Rollback(generation) => _ = edge.rollback(generation, by)?,
        Action::Confirm => edge.confirm_change(by)?,
        Action::TakeBack => _ = edge.take_back(by)?,
    }
    done.generation = edge.force.load().generation;
    done.waiting =
        edge.waiting().map(|waiting| Waiting { risk: waiting.risk, left: waiting.left, before: waiting.before });
    Ok(done)
}

fn rule_edit(
    edge: &Edge,
    rule: Rule,
    visitor: &Visitor,
    edit: fn(RuleFor) -> RuleEdit,
) -> Result<Option<i64>, Refusal> {
    let Rule { name, group, seconds } = rule;
    // A rule takes the place of the one before, which would not come back when this one ends.
    let force = edge.force.load();
    let wanted = name.trim_end_matches('.');
    let lasts = force.config.dns.iter().flat_map(|dns| &dns.rules).any(|own| {
        own.until.is_none()
            && own.group == group
            && own.name.to_string().trim_end_matches('.').eq_ignore_ascii_case(wanted)
    });
    if lasts && visitor.role < Role::Owner {
        return Err(Refusal::asked(format!("an owner has said for good what becomes of \"{wanted}\"")));
    }
    Ok(edge.edit_rules(&edit(RuleFor { name, group, seconds }), &visitor.name)?.until)
}

fn pause(whom: Whom, seconds: u64) -> PauseFor {
    PauseFor { group: whom.group, device: whom.device, seconds }
}

fn hand_out(done: &mut Done, edited: Edited, key: &PrivateKey) {
    if let Some(invitation) = edited.invitation {
        done.configuration = Some(invitation.with_private_key(key));
        done.endpoint_is_guessed = invitation.endpoint_is_guessed;
    }
}

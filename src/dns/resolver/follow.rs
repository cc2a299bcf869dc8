//! Looks at the keys of zones that anchors stand at, as often as RFC 5011 §2.3 wants it.

use std::{
    cell::{Ref, RefCell},
    collections::BTreeSet,
    rc::Rc,
    time::Duration,
};

use super::{
    Resolver, Shared,
    anchor::Anchor,
    budget::Budget,
    cache::Kept,
    chain::Trusts,
    flight::LONGEST,
    iterate::{Errand, Failure},
    name::Name,
    rollover::{Followed, Seen, State, Turn},
    rrset::{Rrset, Security},
    signature::{Dnskey, Ds},
    wire::{Question, rtype},
};
use crate::clock::Soundness;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// By a clock that is not right nobody can tell how long a key has been there.
const CLOCK: Duration = Duration::from_secs(600);

/// Which zones are looked at, and what is known of their keys.
#[derive(Default)]
pub(super) struct Following {
    followed: RefCell<Followed>,
    zones: RefCell<BTreeSet<Name>>,
    wished: RefCell<Vec<Name>>,
    turns: RefCell<Vec<Turn>>,
}

impl Resolver {
    /// Takes what is known of the keys of anchors, from an earlier process or another thread.
    pub fn set_followed(&mut self, followed: Followed) {
        self.shared.following.followed.replace(followed);
        self.shared.trusts.replace(Trusts::default());
    }

    /// Returns what is known of the keys of anchors.
    pub fn followed(&self) -> Ref<'_, Followed> {
        self.shared.following.followed.borrow()
    }

    /// Returns what changed since the last call.
    pub fn turns(&mut self) -> Vec<Turn> {
        self.shared.following.turns.take()
    }
}

impl Shared {
    /// An anchor has held: its zone is looked at from now on.
    pub(super) fn note_anchor(&self, zone: &Name) {
        let following = &self.following;
        if self.config.follow && following.zones.borrow_mut().insert(zone.clone()) {
            following.wished.borrow_mut().push(zone.clone());
        }
    }

    /// Begins to look.
    pub(super) fn fly_looks_at_keys(self: &Rc<Self>) {
        for zone in self.following.wished.take() {
            let shared = self.clone();
            self.courses.spawn(async move {
                let mut lifetime = Duration::ZERO;
                loop {
                    let wait = shared.look_at_keys(&zone, &mut lifetime).await;
                    shared.courses.until(shared.now() + wait).await;
                }
            });
        }
    }

    /// Looks once, and says how long to wait; `lifetime` is how long the last set of keys held.
    async fn look_at_keys(&self, zone: &Name, lifetime: &mut Duration) -> Duration {
        if self.soundness() != Soundness::Sound {
            return CLOCK;
        }
        let question = Question { name: zone.clone(), rtype: rtype::DNSKEY };
        let errand = Errand { budget: Rc::new(Budget::new(self.config.limits)), path: vec![question.clone()] };
        let deadline = self.now() + LONGEST;
        let look = std::pin::pin!(self.look_at(zone, &question, &errand));
        match self.courses.before(deadline, look).await {
            Some(Ok(Some(ttl))) => {
                *lifetime = Duration::from_secs(ttl.into());
                (*lifetime / 2).clamp(HOUR, 15 * DAY)
            }
            _ => (*lifetime / 10).clamp(HOUR, DAY),
        }
    }

    /// Returns for how long the zone's keys hold, if they do.
    async fn look_at(&self, zone: &Name, question: &Question, errand: &Errand) -> Result<Option<u32>, Failure> {
        let Some(anchor) = self.config.anchors.at(zone) else { return Ok(None) };
        let step = self.asked_of_servers(question, errand, &[]).await?;
        let Kept::Set(set, _) = &step.kept else { return Ok(None) };
        if set.rtype != rtype::DNSKEY || set.name != *zone {
            return Ok(None);
        }
        let (digests, keys) = self.anchored(zone, anchor);
        let (digests, _) = self.usable(&digests);
        let held = self.check_keys(zone, set, &digests, &keys, errand)?;
        let seen = self.seen(zone, set, errand)?;
        let wall = self.wall();
        let turns = match &held {
            Ok((_, ttl)) => {
                self.promote(question, Security::Secure, None, *ttl);
                self.following.followed.borrow_mut().see(zone, anchor, &seen, set.ttl, wall)
            }
            Err(_) => self.following.followed.borrow_mut().revoke(zone, anchor, &seen, wall),
        };
        if !turns.is_empty() {
            self.trusts.replace(Trusts::default());
            self.following.turns.borrow_mut().extend(turns);
        }
        Ok(held.ok().map(|(_, ttl)| ttl))
    }

    /// Reads a set of keys; those that are to be revoked must have signed that themselves.
    fn seen(&self, zone: &Name, set: &Rrset, errand: &Errand) -> Result<Vec<Seen>, Failure> {
        let mut seen = Vec::new();
        for rdata in &set.data {
            if let Some(key) = Dnskey::parse(rdata).filter(Dnskey::is_entry) {
                seen.push(Seen::There(key.rdata));
            } else if let Some(key) = Dnskey::parse_revoked(rdata)
                && self.config.support.algorithm(key.algorithm)
                && self.verify(set, zone, std::slice::from_ref(&key), errand)?.is_ok()
            {
                seen.push(Seen::Revoked(key.unrevoked()));
            }
        }
        Ok(seen)
    }

    /// Returns what is trusted at an anchor: what was configured, and what its zone made of it.
    pub(super) fn anchored(&self, zone: &Name, anchor: &Anchor) -> (Vec<Ds>, Vec<Dnskey>) {
        let followed = self.following.followed.borrow();
        let mut keys = anchor.keys.clone();
        keys.extend(followed.trusted(zone).filter_map(|key| Dnskey::parse(&key.rdata)));
        (anchor.ds.clone(), keys)
    }

    /// Says whether a key was revoked.
    pub(super) fn is_revoked(&self, zone: &Name, key: &Dnskey) -> bool {
        self.following.followed.borrow().is_revoked(zone, &key.rdata)
    }

    /// Says whether nothing that an anchor trusted is left.
    pub(super) fn is_deleted(&self, zone: &Name, anchor: &Anchor) -> bool {
        self.following.followed.borrow().is_deleted(zone, anchor)
    }

    /// Says whether a key of this tag is trusted at the root (RFC 8509).
    pub(super) fn is_root_anchor(&self, tag: u16) -> bool {
        let followed = self.following.followed.borrow();
        let tagged = |key: &&super::rollover::Key| super::signature::key_tag(&key.rdata) == tag;
        let known = followed.keys(&Name::root()).iter().find(tagged);
        match known.map(|key| key.state) {
            Some(state) => matches!(state, State::Valid | State::Missing),
            None => self.config.anchors.root_has(tag),
        }
    }
}

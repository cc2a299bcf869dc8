//! Keys of anchors that follow their zone (RFC 5011): a zone that is trusted says itself which keys come and go.
//!
//! A new key waits 30 days, during which whoever stole the old one would be found out, and is trusted if it was in
//! every set of keys until then. A key that was trusted and is gone is trusted on, for it may come back; one that
//! signed its own revocation never again. Times are seconds of the wall clock, for they outlive the process.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    anchor::Anchor,
    master,
    name::Name,
    signature::{Dnskey, key_tag},
};

/// RFC 5011 §2.4.1: the add hold-down time, in seconds.
pub const ADD_HOLD_DOWN: u64 = 30 * 86_400;
/// RFC 5011 §2.4.2: the remove hold-down time.
pub const REMOVE_HOLD_DOWN: u64 = 30 * 86_400;
/// Keys of one zone that wait; RFC 5011 §2.4 demands five in all.
const MOST_PENDING: usize = 16;
/// Keys of one zone in all.
const MOST_KEYS: usize = 64;

/// RFC 5011 §4.1. A key that is not known is in the state Start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for the hold-down time to be over.
    AddPend,
    /// It is trusted.
    Valid,
    /// It is trusted, but was not there when it was looked for last.
    Missing,
    /// It signed that it is not to be trusted any more.
    Revoked,
    /// So it did, long ago.
    Removed,
}

const STATES: [(State, &str); 5] = [
    (State::AddPend, "addpend"),
    (State::Valid, "valid"),
    (State::Missing, "missing"),
    (State::Revoked, "revoked"),
    (State::Removed, "removed"),
];

impl State {
    /// Returns its name in lower case.
    pub fn word(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).expect("the table has all").1
    }
}

/// A key, and what is thought of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its data, with the bit REVOKE clear.
    pub rdata: Arc<[u8]>,
    /// Its state.
    pub state: State,
    /// Since when it is in it.
    pub since: u64,
    /// How long it waits before it is trusted.
    pub hold: u64,
}

/// What stands in a set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A key that signs keys.
    There(Arc<[u8]>),
    /// One that signed its own revocation; its data with the bit REVOKE clear.
    Revoked(Arc<[u8]>),
}

/// A change of one key's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The zone.
    pub zone: Name,
    /// The key's tag.
    pub tag: u16,
    /// What it was; `None` for a new key.
    pub from: Option<State>,
    /// What it is; `None` for one that is forgotten.
    pub to: Option<State>,
}

/// What is known of the keys of all zones whose anchors are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed(BTreeMap<Name, Vec<Key>>);

impl Followed {
    /// Returns the keys of a zone.
    pub fn keys(&self, zone: &Name) -> &[Key] {
        self.0.get(zone).map_or(&[], Vec::as_slice)
    }

    /// Counts the keys of all zones in a state.
    pub fn count(&self, state: State) -> usize {
        self.0.values().flatten().filter(|key| key.state == state).count()
    }

    /// Returns the keys of a zone that are trusted.
    pub fn trusted(&self, zone: &Name) -> impl Iterator<Item = &Key> {
        self.keys(zone).iter().filter(|key| matches!(key.state, State::Valid | State::Missing))
    }

    /// Says whether a key was revoked, whatever an anchor says of it.
    pub fn is_revoked(&self, zone: &Name, rdata: &[u8]) -> bool {
        let revoked = |key: &&Key| matches!(key.state, State::Revoked | State::Removed);
        self.keys(zone).iter().filter(revoked).any(|key| key.rdata[..] == *rdata)
    }

    /// Says whether all that was trusted at a zone was revoked (RFC 5011 §5).
    pub fn is_deleted(&self, zone: &Name, anchor: &Anchor) -> bool {
        let revoked: Vec<Dnskey> = self
            .keys(zone)
            .iter()
            .filter(|key| matches!(key.state, State::Revoked | State::Removed))
            .filter_map(|key| Dnskey::parse(&key.rdata))
            .collect();
        !revoked.is_empty()
            && self.trusted(zone).next().is_none()
            && anchor.ds.iter().all(|ds| revoked.iter().any(|key| ds.covers(zone, key)))
            && anchor.keys.iter().all(|own| revoked.iter().any(|key| key.rdata == own.rdata))
    }

    /// Takes a set of keys that a trusted key signed; says what changed.
    pub fn see(&mut self, zone: &Name, anchor: &Anchor, seen: &[Seen], ttl: u32, now: u64) -> Vec<Turn> {
        let mut turns = self.revoke(zone, anchor, seen, now);
        let keys = self.0.entry(zone.clone()).or_default();
        let is_there = |rdata: &Arc<[u8]>| seen.contains(&Seen::There(rdata.clone()));
        keys.retain_mut(|key| {
            let next = match key.state {
                State::AddPend if !is_there(&key.rdata) => None,
                State::AddPend if now >= key.since.saturating_add(key.hold) => Some(State::Valid),
                State::Valid if !is_there(&key.rdata) => Some(State::Missing),
                State::Missing if is_there(&key.rdata) => Some(State::Valid),
                State::Revoked if now >= key.since.saturating_add(REMOVE_HOLD_DOWN) => Some(State::Removed),
                state => Some(state),
            };
            if next != Some(key.state) {
                turns.push(turn(zone, &key.rdata, Some(key.state), next));
                (key.state, key.since) = (next.unwrap_or(key.state), now);
            }
            next.is_some()
        });
        for there in seen {
            let Seen::There(rdata) = there else { continue };
            if keys.iter().any(|key| key.rdata == *rdata) {
                continue;
            }
            let pending = keys.iter().filter(|key| key.state == State::AddPend).count();
            let state = if is_configured(zone, anchor, rdata) { State::Valid } else { State::AddPend };
            if state == State::AddPend && pending >= MOST_PENDING || keys.len() >= MOST_KEYS {
                continue;
            }
            turns.push(turn(zone, rdata, None, Some(state)));
            // RFC 5011 §2.4.1: longer than any cache may still hold a set without it.
            keys.push(Key { rdata: rdata.clone(), state, since: now, hold: ADD_HOLD_DOWN.max(ttl.into()) });
        }
        turns
    }

    /// Takes what keys said of themselves, which counts whoever signed the set (RFC 5011 §2.1).
    pub fn revoke(&mut self, zone: &Name, anchor: &Anchor, seen: &[Seen], now: u64) -> Vec<Turn> {
        let mut turns = Vec::new();
        for revoked in seen {
            let Seen::Revoked(rdata) = revoked else { continue };
            let keys = self.0.entry(zone.clone()).or_default();
            match keys.iter().position(|key| key.rdata == *rdata) {
                // It was never trusted, and is not to be.
                Some(place) if keys[place].state == State::AddPend => {
                    turns.push(turn(zone, rdata, Some(State::AddPend), None));
                    keys.remove(place);
                }
                Some(place) if matches!(keys[place].state, State::Valid | State::Missing) => {
                    turns.push(turn(zone, rdata, Some(keys[place].state), Some(State::Revoked)));
                    (keys[place].state, keys[place].since) = (State::Revoked, now);
                }
                None if is_configured(zone, anchor, rdata) && keys.len() < MOST_KEYS => {
                    turns.push(turn(zone, rdata, None, Some(State::Revoked)));
                    keys.push(Key { rdata: rdata.clone(), state: State::Revoked, since: now, hold: ADD_HOLD_DOWN });
                }
                _ => {}
            }
        }
        turns
    }

    /// Writes it in a form that [`Followed::read`] and people can read.
    pub fn write(&self) -> String {
        let mut text = String::new();
        for (zone, keys) in &self.0 {
            for Key { rdata, state, since, hold } in keys {
                let [f0, f1, protocol, algorithm, key @ ..] = &rdata[..] else { continue };
                let flags = u16::from_be_bytes([*f0, *f1]);
                let (key, state, tag) = (STANDARD.encode(key), state.word(), key_tag(rdata));
                writeln!(
                    text,
                    "{zone} IN DNSKEY {flags} {protocol} {algorithm} {key} ;; {state} since {since} hold {hold} tag {tag}"
                )
                .expect("a string takes all");
            }
        }
        text
    }

    /// Reads what [`Followed::write`] wrote; `None` if anything of it cannot be read.
    pub fn read(text: &str) -> Option<Self> {
        let mut followed = Self::default();
        for line in text.lines() {
            let (record, words) = line.split_once(";;")?;
            let [record] = &master::records(record).ok()?[..] else { return None };
            let words: Vec<&str> = words.split_whitespace().collect();
            let [state, "since", since, "hold", hold, ..] = words[..] else { return None };
            let state = STATES.iter().find(|(_, word)| *word == state)?.0;
            let (rdata, since, hold) = (record.rdata.clone(), since.parse().ok()?, hold.parse().ok()?);
            Dnskey::parse(&rdata)?;
            followed.0.entry(record.name.clone()).or_default().push(Key { rdata, state, since, hold });
        }
        Some(followed)
    }
}

fn turn(zone: &Name, rdata: &[u8], from: Option<State>, to: Option<State>) -> Turn {
    Turn { zone: zone.clone(), tag: key_tag(rdata), from, to }
}

fn is_configured(zone: &Name, anchor: &Anchor, rdata: &Arc<[u8]>) -> bool {
    let Some(key) = Dnskey::parse(rdata) else { return false };
    anchor.keys.iter().any(|own| own.rdata == *rdata) || anchor.ds.iter().any(|ds| ds.covers(zone, &key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const BEGAN: u64 = 1_790_000_000;

    fn key(number: u8) -> Arc<[u8]> {
        [&[1, 1, 3, 15][..], &[number; 32]].concat().into()
    }

    fn there(numbers: &[u8]) -> Vec<Seen> {
        numbers.iter().map(|number| Seen::There(key(*number))).collect()
    }

    /// The root with the key 1 as its anchor.
    struct Root {
        followed: Followed,
        anchor: Anchor,
    }

    impl Root {
        fn new() -> Self {
            let keys = vec![Dnskey::parse(&key(1)).unwrap()];
            Self { followed: Followed::default(), anchor: Anchor { ds: Vec::new(), keys } }
        }

        /// Returns what is thought of the key after a look at a moment.
        fn see(&mut self, seen: &[Seen], at: u64) -> Vec<(u8, State)> {
            self.followed.see(&Name::root(), &self.anchor, seen, 3600, BEGAN + at);
            self.states()
        }

        fn states(&self) -> Vec<(u8, State)> {
            self.followed.keys(&Name::root()).iter().map(|key| (key.rdata[4], key.state)).collect()
        }
    }

    #[test]
    fn a_new_key_is_trusted_after_thirty_days_and_not_a_second_earlier() {
        let mut root = Root::new();
        assert_eq!(root.see(&there(&[1]), 0), [(1, State::Valid)]);

        assert_eq!(root.see(&there(&[1, 2]), DAY), [(1, State::Valid), (2, State::AddPend)]);
        assert_eq!(root.see(&there(&[1, 2]), 31 * DAY - 1)[1], (2, State::AddPend));
        assert_eq!(root.see(&there(&[1, 2]), 31 * DAY)[1], (2, State::Valid));
    }

    #[test]
    fn a_new_key_that_is_missing_once_begins_anew() {
        let mut root = Root::new();
        root.see(&there(&[1, 2]), 0);

        assert_eq!(root.see(&there(&[1]), 29 * DAY), [(1, State::Valid)]);
        root.see(&there(&[1, 2]), 29 * DAY + 3600);
        assert_eq!(root.see(&there(&[1, 2]), 31 * DAY)[1], (2, State::AddPend));
        assert_eq!(root.see(&there(&[1, 2]), 60 * DAY)[1], (2, State::Valid));
    }

    #[test]
    fn a_set_that_is_kept_for_longer_than_the_hold_down_makes_it_longer() {
        let mut root = Root::new();
        let weeks = u32::try_from(40 * DAY).unwrap();
        root.followed.see(&Name::root(), &root.anchor, &there(&[1, 2]), weeks, BEGAN);

        assert_eq!(root.see(&there(&[1, 2]), 35 * DAY)[1], (2, State::AddPend));
        assert_eq!(root.see(&there(&[1, 2]), 40 * DAY)[1], (2, State::Valid));
    }

    #[test]
    fn a_trusted_key_that_is_missing_stays_trusted_and_comes_back() {
        let mut root = Root::new();
        root.see(&there(&[1]), 0);

        assert_eq!(root.see(&there(&[9]), DAY)[0], (1, State::Missing));
        assert_eq!(root.followed.trusted(&Name::root()).count(), 1);
        assert_eq!(root.see(&there(&[1]), 400 * DAY)[0], (1, State::Valid));
    }

    #[test]
    fn a_revoked_key_is_never_trusted_again_even_where_an_anchor_names_it() {
        let mut root = Root::new();
        root.see(&there(&[1]), 0);

        let mut seen = there(&[2]);
        seen.push(Seen::Revoked(key(1)));
        assert_eq!(root.see(&seen, DAY)[0], (1, State::Revoked));
        assert_eq!(root.see(&seen, 31 * DAY - 1)[0], (1, State::Revoked));
        assert_eq!(root.see(&there(&[1, 2]), 31 * DAY)[0], (1, State::Removed));
        assert_eq!(root.see(&there(&[1, 2]), 90 * DAY)[0], (1, State::Removed));

        assert!(root.followed.is_revoked(&Name::root(), &key(1)));
        assert!(root.followed.trusted(&Name::root()).all(|key| key.rdata[4] == 2));
    }

    #[test]
    fn one_that_waits_and_revokes_itself_is_forgotten() {
        let mut root = Root::new();
        root.see(&there(&[1, 2]), 0);

        assert_eq!(root.see(&[Seen::There(key(1)), Seen::Revoked(key(2))], DAY), [(1, State::Valid)]);
        // Nor does a stranger's revocation take any room.
        assert_eq!(root.see(&[Seen::There(key(1)), Seen::Revoked(key(7))], DAY), [(1, State::Valid)]);
    }

    #[test]
    fn rfc5011_5_an_anchor_is_deleted_with_the_last_of_its_keys_only() {
        let mut root = Root::new();
        root.see(&there(&[1, 2]), 0);
        root.see(&there(&[1, 2]), 30 * DAY);

        root.followed.revoke(&Name::root(), &root.anchor, &[Seen::Revoked(key(1))], BEGAN);
        assert!(!root.followed.is_deleted(&Name::root(), &root.anchor));
        root.followed.revoke(&Name::root(), &root.anchor, &[Seen::Revoked(key(2))], BEGAN);
        assert!(root.followed.is_deleted(&Name::root(), &root.anchor));
        assert!(!Followed::default().is_deleted(&Name::root(), &root.anchor));
    }

    #[test]
    fn a_zone_full_of_keys_takes_no_more_room_than_is_given() {
        let mut root = Root::new();
        let many: Vec<u8> = (1..=200).collect();

        assert_eq!(root.see(&there(&many), 0).len(), 1 + MOST_PENDING);
        for round in 1..20 {
            root.see(&there(&many), round * 31 * DAY);
        }
        assert!(root.states().len() <= MOST_KEYS);
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_key_trusted() {
        let mut root = Root::new();
        root.see(&there(&[1, 2]), 0);

        root.followed.see(&Name::root(), &root.anchor, &there(&[1, 2]), 3600, 0);

        assert_eq!(root.states()[1], (2, State::AddPend));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut root = Root::new();
        root.see(&there(&[1, 2]), 0);
        root.see(&[Seen::Revoked(key(1)), Seen::There(key(3))], DAY);
        let text = root.followed.write();

        assert_eq!(Followed::read(&text), Some(root.followed));
        assert_eq!(Followed::read(""), Some(Followed::default()));
        for wrong in ["nonsense", &text.replace("since", "hence"), &text.replace("revoked", "loved"), &text[..40]] {
            assert_eq!(Followed::read(wrong), None, "{wrong}");
        }
    }
}

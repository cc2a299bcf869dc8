//! The root's keys change while the resolver watches, over months (RFC 5011).

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use hearthgate::dns::resolver::{
    name::Name,
    rollover::{Followed, State},
    signature::key_tag,
    wire::{IN, Record, rtype},
};

use super::{
    play::{Play, config},
    sign::{EPOCH, KEYS, Key},
    world::{World, name},
    zone::Said,
};

/// What the root publishes: keys with whether they are revoked, and which of them sign.
type Published = Rc<RefCell<(Vec<(Rc<Key>, bool)>, Vec<usize>)>>;

struct Root {
    play: Play,
    published: Published,
    /// The key that is the anchor, and two more.
    keys: [Rc<Key>; 3],
}

impl Root {
    fn new(follow: bool) -> Self {
        let mut world = World::calm();
        let root = Name::root();
        let own = world.zone(&root).key.clone();
        let others: Vec<Rc<Key>> = KEYS.with(|keys| {
            keys.iter().filter(|key| key.tag != own.tag && matches!(key.algorithm, 13 | 15)).cloned().collect()
        });
        let keys = [own.clone(), others[0].clone(), others[1].clone()];
        let mut config = config(&world);
        config.follow = follow;
        let mut play = Play::new(world, config);
        let published: Published = Rc::new(RefCell::new((vec![(own, false)], vec![0])));
        let said = published.clone();
        play.attacker = Some(Box::new(move |question, _| {
            (question.name.is_root() && question.rtype == rtype::DNSKEY).then(|| keys_of(&said.borrow()))
        }));
        Self { play, published, keys }
    }

    /// Publishes some of the keys, revoked or not; of these, some sign.
    fn publish(&self, keys: &[(usize, bool)], signers: &[usize]) {
        let place = |signer: &usize| keys.iter().position(|(key, _)| key == signer).expect("it is published");
        let signers = signers.iter().map(place).collect();
        let keys = keys.iter().map(|(place, revoked)| (self.keys[*place].clone(), *revoked)).collect();
        *self.published.borrow_mut() = (keys, signers);
    }

    fn state(&self, place: usize) -> Option<State> {
        let followed = self.play.resolver.followed();
        let found = followed.keys(&Name::root()).iter().find(|key| key.rdata[..] == self.keys[place].dnskey[..]);
        found.map(|key| key.state)
    }

    /// Lets days pass, in which the resolver looks by itself.
    fn days(&mut self, days: u32) {
        for _ in 0..24 * days {
            self.play.pass(Duration::from_secs(3600));
        }
    }

    /// Says whether a question of a client is answered with what the root vouches for.
    fn is_believed(&mut self) -> bool {
        let root = Name::root();
        self.play.answer(&root, rtype::DNSKEY).rcode == 0
    }
}

/// The set of keys, with signatures that hold for two years.
fn keys_of((keys, signers): &(Vec<(Rc<Key>, bool)>, Vec<usize>)) -> Said {
    let root = Name::root();
    let data = |(key, revoked): &(Rc<Key>, bool)| if *revoked { key.revoked() } else { key.dnskey.clone() };
    let mut set: Vec<Arc<[u8]>> = keys.iter().map(|key| data(key).into()).collect();
    set.sort();
    let record = |rtype, rdata: Arc<[u8]>| Record { name: root.clone(), rtype, class: IN, ttl: 3600, rdata };
    let signatures = signers.iter().map(|place| {
        let signer = &keys[*place];
        let time = (EPOCH - 86_400, EPOCH + 2 * 365 * 86_400);
        signer.0.sign_for(time, key_tag(&data(signer)), &root, &root, (rtype::DNSKEY, 3600), &set)
    });
    let signatures: Vec<Record> = signatures.map(|data| record(rtype::RRSIG, data.into())).collect();
    let answer = set.iter().map(|data| record(rtype::DNSKEY, data.clone())).chain(signatures).collect();
    Said { authoritative: true, answer, ..Said::default() }
}

#[test]
fn a_root_that_changes_its_key_as_rfc5011_says_is_followed() {
    let mut root = Root::new(true);
    assert!(root.is_believed());
    root.days(1);
    assert_eq!(root.state(0), Some(State::Valid));

    root.publish(&[(0, false), (1, false)], &[0]);
    root.days(29);
    assert_eq!((root.state(0), root.state(1)), (Some(State::Valid), Some(State::AddPend)));
    root.days(2);
    assert_eq!(root.state(1), Some(State::Valid));

    // The new one signs, the old one revokes itself and goes.
    root.publish(&[(0, true), (1, false)], &[0, 1]);
    root.days(1);
    assert_eq!((root.state(0), root.state(1)), (Some(State::Revoked), Some(State::Valid)));
    assert!(root.is_believed());
    root.days(31);
    assert_eq!(root.state(0), Some(State::Removed));

    // The anchor that was configured is of no use to whoever has the old key.
    root.publish(&[(0, false)], &[0]);
    root.days(1);
    assert!(!root.is_believed());
    root.publish(&[(1, false)], &[1]);
    root.days(1);
    assert!(root.is_believed());
}

#[test]
fn who_does_not_follow_is_lost_when_the_key_changes() {
    let mut root = Root::new(false);
    assert!(root.is_believed());
    root.publish(&[(0, false), (1, false)], &[0]);
    root.days(40);

    root.publish(&[(1, false)], &[1]);
    root.days(1);

    assert!(!root.is_believed());
    assert_eq!(root.state(1), None);
}

#[test]
fn a_key_that_only_it_itself_vouches_for_is_not_trusted() {
    let mut root = Root::new(true);
    assert!(root.is_believed());
    root.days(1);

    // Not signed by what is trusted: neither is the new key noted, nor does the old one count as missing.
    root.publish(&[(1, false)], &[1]);
    root.days(40);

    assert_eq!((root.state(0), root.state(1)), (Some(State::Valid), None));
    assert!(!root.is_believed());
}

#[test]
fn nobody_revokes_the_key_of_another() {
    let mut root = Root::new(true);
    assert!(root.is_believed());
    root.publish(&[(0, false), (1, false)], &[0]);
    root.days(32);

    // The bit is set, but it was not the key itself that signed.
    root.publish(&[(0, true), (1, false)], &[1]);
    root.days(1);
    assert_eq!(root.state(0), Some(State::Missing));
    root.publish(&[(0, false), (1, false)], &[0]);
    root.days(1);
    assert_eq!(root.state(0), Some(State::Valid));
}

#[test]
fn a_root_that_revokes_all_its_keys_is_not_believed_unchecked() {
    let mut root = Root::new(true);
    assert!(root.is_believed());
    root.days(1);

    root.publish(&[(0, true)], &[0]);
    root.days(1);

    assert_eq!(root.state(0), Some(State::Revoked));
    assert_eq!(root.play.answer(&name("www.t1"), rtype::A).rcode, 2);
}

#[test]
fn what_one_process_learnt_the_next_one_knows() {
    let mut root = Root::new(true);
    assert!(root.is_believed());
    root.publish(&[(0, false), (1, false)], &[0]);
    root.days(20);
    let written = root.play.resolver.followed().write();
    let turns = root.play.resolver.turns();
    assert_eq!(turns.len(), 2, "{turns:?}");

    let mut next = Root::new(true);
    next.play.now = root.play.now;
    next.play.resolver.set_followed(Followed::read(&written).unwrap());
    next.publish(&[(0, false), (1, false)], &[0]);
    assert!(next.is_believed());
    next.days(9);
    assert_eq!(next.state(1), Some(State::AddPend));
    next.days(2);
    assert_eq!(next.state(1), Some(State::Valid));
}

#[test]
fn a_zone_is_looked_at_as_often_as_its_lifetime_wants_and_no_more() {
    let mut root = Root::new(true);
    assert!(root.is_believed());
    root.play.packets = 0;

    root.days(10);

    // RFC 5011 §2.3: half of an hour's lifetime is below the least, an hour.
    assert!((200..=10 * 24 + 20).contains(&root.play.packets), "{} packets", root.play.packets);
}

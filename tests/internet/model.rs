//! What the answer must be, read off the world itself.

use std::collections::BTreeSet;

use hearthgate::dns::resolver::{name::Name, rrset::Security, wire::rtype};

use super::{
    sign::{EPOCH, UNKNOWN_ALGORITHM},
    world::{Link, World},
    zone::{Fault, Signing, Zone},
};

/// RFC 9276 §3.2 leaves the number to the resolver.
const MOST_ITERATIONS: u16 = 50;
/// More aliases than these are not followed.
const MOST_ALIASES: usize = 12;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub rcode: u16,
    pub security: Security,
    pub answer: BTreeSet<(Name, u16, Vec<u8>)>,
    /// The truth may be found out, or that it is hidden.
    pub may_fail: bool,
}

/// Whether the client checks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Here,
    There,
}

impl World {
    /// Is nothing checked in the zone?
    fn is_untrusted(&self, zone: &Name) -> bool {
        let anchors = self.anchors.iter().filter(|(anchor, _)| zone.is_under(anchor));
        let nearest = anchors.map(|(anchor, _)| anchor.label_count()).max().expect("the root has one");
        self.negative_anchors.iter().any(|(name, until)| {
            zone.is_under(name) && name.label_count() >= nearest && until.is_none_or(|until| until > u64::from(EPOCH))
        })
    }

    /// Can the zone's keys be trusted?
    pub fn keys(&self, name: &Name) -> Security {
        if self.is_untrusted(name) {
            return Security::Insecure;
        }
        let zone = &self.zones[name];
        let from_above = match self.anchors.iter().find(|(anchor, _)| anchor == name) {
            Some((_, ds)) if *ds == zone.key.ds(name, 2) => Security::Secure,
            Some(_) => Security::Bogus,
            None => self.link(name),
        };
        match (from_above, zone.fault) {
            (Security::Secure, Fault::Keys(_) | Fault::Keyless) => Security::Bogus,
            _ => from_above,
        }
    }

    /// What does the parent say of the zone's keys?
    fn link(&self, name: &Name) -> Security {
        let parent = &self.zones[&self.parent(name)];
        if !parent.nodes[name].contains_key(&rtype::DS) {
            return self.denial(parent).min(Security::Insecure);
        }
        match self.data(parent) {
            Security::Secure => {}
            other => return other,
        }
        match self.links[name] {
            _ if self.zones[name].key.algorithm == UNKNOWN_ALGORITHM => Security::Insecure,
            Link::Right | Link::Sha384 | Link::Spare | Link::Newer => Security::Secure,
            Link::Wrong | Link::WrongAndNewer => Security::Bogus,
            Link::None | Link::UnknownDigest | Link::Sha1 => Security::Insecure,
        }
    }

    /// Does what the zone has hold?
    fn data(&self, zone: &Zone) -> Security {
        match (self.keys(&zone.name), zone.fault) {
            (Security::Secure, Fault::All(_)) => Security::Bogus,
            (other, _) => other,
        }
    }

    /// Does what the zone says of what it has not hold?
    fn denial(&self, zone: &Zone) -> Security {
        match (self.data(zone), zone.fault) {
            (Security::Secure, Fault::Denials(_) | Fault::NoDenial | Fault::WrongDenial) => Security::Bogus,
            (other, _) => other,
        }
    }

    pub fn home(&self, name: &Name, kind: u16) -> &Zone {
        let mut at = name.clone();
        if kind == rtype::DS
            && let Some(parent) = name.parent()
        {
            at = parent;
        }
        loop {
            if let Some(zone) = self.zones.get(&at) {
                return zone;
            }
            at = at.parent().expect("the root is a zone");
        }
    }

    pub fn expect(&self, name: &Name, kind: u16) -> Expected {
        self.expect_for(name, kind, Check::Here)
    }

    pub fn expect_for(&self, name: &Name, kind: u16, check: Check) -> Expected {
        let answer = BTreeSet::new();
        let mut expected = Expected { rcode: 0, security: Security::Secure, answer, may_fail: false };
        let mut name = name.clone();
        let mut seen = BTreeSet::new();
        loop {
            if !seen.insert(name.clone()) || seen.len() > MOST_ALIASES + 1 {
                return failed(Security::Insecure);
            }
            let zone = self.home(&name, kind);
            if self.dead.iter().any(|dead| zone.name.is_under(dead)) {
                return failed(Security::Insecure);
            }
            let data = match kind {
                rtype::DNSKEY if name == zone.name && zone.fault != Fault::Keyless => self.keys(&zone.name),
                _ => self.data(zone),
            };
            let denial = match zone.fault {
                Fault::WrongDenial if name == zone.name => data,
                _ => self.denial(zone),
            };
            let (opt_out, costly) = match zone.signing {
                Signing::Nsec3 { opt_out, iterations } => (opt_out, iterations > MOST_ITERATIONS),
                _ => (false, false),
            };
            // With opt-out, an unsigned delegation may hide where nothing is.
            let unproven = costly || opt_out && !zone.exists(&name) || zone.is_hidden(&name);
            let denial = if unproven { denial.min(Security::Insecure) } else { denial };
            let mut rests_on = |security: Security| {
                expected.security = expected.security.min(security);
                security == Security::Bogus && check == Check::Here
            };
            if let Some((owner, to)) = zone.dname(&name) {
                if rests_on(data) {
                    return failed(Security::Bogus);
                }
                expected.answer.insert((owner.clone(), rtype::DNAME, to.as_wire().to_vec()));
                let Some(next) = name.substitute(&owner, &to) else {
                    expected.rcode = 6;
                    return expected;
                };
                expected.answer.insert((name.clone(), rtype::CNAME, next.as_wire().to_vec()));
                if kind == rtype::CNAME {
                    return expected;
                }
                name = next;
                continue;
            }
            let exists = zone.exists(&name);
            let owner = if exists { name.clone() } else { zone.encloser(&name).wildcard().expect("names are short") };
            let node = zone.nodes.get(&owner);
            let found = node.and_then(|node| [kind, rtype::CNAME].into_iter().find(|kind| node.contains_key(kind)));
            let (Some(node), Some(found)) = (node, found) else {
                if rests_on(denial) {
                    return failed(Security::Bogus);
                }
                expected.rcode = if exists || node.is_some() { 0 } else { 3 };
                expected.may_fail |= zone.replays(&name, kind);
                return expected;
            };
            if rests_on(if exists { data } else { denial }) {
                return failed(Security::Bogus);
            }
            for data in &node[&found] {
                expected.answer.insert((name.clone(), found, data.to_vec()));
            }
            if found == kind {
                return expected;
            }
            name = Name::from_wire(&node[&found][0]).expect("we made it");
        }
    }
}

fn failed(security: Security) -> Expected {
    Expected { rcode: 2, security, answer: BTreeSet::new(), may_fail: false }
}

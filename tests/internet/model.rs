//! What the answer must be, read off the world itself.

use std::collections::BTreeSet;

use hearthgate::dns::resolver::{name::Name, rrset::Security, wire::rtype};

use super::{
    sign::Flaw,
    world::World,
    zone::{Signing, Zone},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub rcode: u16,
    pub security: Security,
    pub answer: BTreeSet<(Name, u16, Vec<u8>)>,
}

impl World {
    /// Can the zone's keys be trusted?
    fn keys(&self, zone: &Name) -> Security {
        if zone.is_root() {
            return Security::Secure;
        }
        let parent = &self.zones[&self.parent(zone)];
        match self.data(parent) {
            Security::Secure => {}
            other => return other,
        }
        match parent.nodes[zone].get(&rtype::DS) {
            None => Security::Insecure,
            Some(ds) if ds[0][3] == 250 => Security::Insecure,
            Some(_) if self.zones[zone].wrong_ds => Security::Bogus,
            Some(_) => Security::Secure,
        }
    }

    /// Does what the zone says hold?
    pub fn data(&self, zone: &Zone) -> Security {
        match self.keys(&zone.name) {
            Security::Secure if zone.flaw != Flaw::None => Security::Bogus,
            other => other,
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
        let mut expected = Expected { rcode: 0, security: Security::Secure, answer: BTreeSet::new() };
        let mut name = name.clone();
        let mut seen = BTreeSet::new();
        loop {
            if !seen.insert(name.clone()) {
                return failed(Security::Insecure);
            }
            let zone = self.home(&name, kind);
            let mut base = self.data(zone);
            if kind == rtype::DNSKEY && name == zone.name && zone.is_signed() {
                // The flaws are elsewhere.
                base = self.keys(&zone.name);
            }
            expected.security = expected.security.min(base);
            if base == Security::Bogus {
                return failed(Security::Bogus);
            }
            let (opt_out, costly) = match zone.signing {
                Signing::Nsec3 { opt_out, iterations } => (opt_out, iterations > 50),
                _ => (false, false),
            };
            let mut weaken = |weak: bool| {
                if weak {
                    expected.security = expected.security.min(Security::Insecure);
                }
            };
            if let Some((owner, to)) = zone.dname(&name) {
                expected.answer.insert((owner.clone(), rtype::DNAME, to.as_wire().to_vec()));
                let Some(next) = name.substitute(&owner, &to) else {
                    expected.rcode = 6;
                    return expected;
                };
                expected.answer.insert((name.clone(), rtype::CNAME, next.as_wire().to_vec()));
                name = next;
                continue;
            }
            let exists = zone.exists(&name);
            let owner = if exists { name.clone() } else { zone.encloser(&name).wildcard().expect("names are short") };
            let Some(node) = zone.nodes.get(&owner) else {
                weaken(costly || opt_out && !(exists && zone.is_in_chain(&name)));
                expected.rcode = if exists { 0 } else { 3 };
                return expected;
            };
            let Some(found) = [kind, rtype::CNAME].into_iter().find(|kind| node.contains_key(kind)) else {
                // An unsigned delegation is not in the chain of a zone with opt-out.
                let hidden = opt_out && exists && !zone.is_in_chain(&name);
                weaken(costly || hidden || opt_out && !exists);
                return expected;
            };
            weaken(!exists && (opt_out || costly));
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
    Expected { rcode: 2, security, answer: BTreeSet::new() }
}

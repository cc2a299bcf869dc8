//! Proofs that something does not exist, out of NSEC or NSEC3 records whose signatures were checked before.

pub mod nsec;
pub mod nsec3;

use super::{budget::Budget, name::Name, rrset::Rrset, wire::rtype};

/// What a set of records proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is so.
    Proven,
    /// It is so unless there is an unsigned delegation there (opt-out, RFC 5155 §6): no AD.
    OptOut,
    /// The zone hashes more often than is worth checking (RFC 9276 §3.2): taken as unsigned.
    TooCostly,
    /// The records do not prove it.
    Missing,
    /// The question's budget of hashes is spent.
    Exhausted,
}

/// What the parent's side says of a name as a delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delegation {
    /// There is one, without DS: what is below is unsigned.
    Insecure,
    /// There is none; the name belongs to the zone that says so, or does not exist.
    None,
    /// Not proven.
    Missing,
    /// The question's budget of hashes is spent.
    Exhausted,
}

/// The records of one signed answer's authority section, sorted out.
#[derive(Debug, Default)]
pub struct Records {
    zone: Option<Name>,
    nsec: Vec<nsec::Nsec>,
    nsec3: Vec<nsec3::Nsec3>,
}

impl Records {
    /// Takes the RRsets of one zone whose signatures hold. The signer is the zone's name.
    pub fn new<'a>(zone: &Name, sets: impl Iterator<Item = &'a Rrset>) -> Self {
        let mut records = Self { zone: Some(zone.clone()), ..Self::default() };
        for set in sets {
            match set.rtype {
                rtype::NSEC => records.nsec.extend(nsec::Nsec::new(zone, set)),
                rtype::NSEC3 => records.nsec3.extend(nsec3::Nsec3::new(zone, set)),
                _ => {}
            }
        }
        // RFC 5155 §8.2: records of different parameters are no proof together.
        if let Some(first) = records.nsec3.first().cloned() {
            records.nsec3.retain(|record| record.same_chain(&first));
        }
        records
    }

    /// Says whether this zone signed them.
    pub fn are_of(&self, zone: &Name) -> bool {
        self.zone.as_ref() == Some(zone)
    }

    /// Says whether there is nothing to prove anything with.
    pub fn is_empty(&self) -> bool {
        self.nsec.is_empty() && self.nsec3.is_empty()
    }

    /// Is it proven that the name does not exist, nor a wildcard for it?
    pub fn name_error(&self, name: &Name, budget: &Budget) -> Proof {
        if nsec::name_error(&self.nsec, name) {
            return Proof::Proven;
        }
        nsec3::Chain::new(&self.nsec3, budget).map_or(Proof::Missing, |chain| chain.name_error(name))
    }

    /// Is it proven that the name has no such type?
    pub fn no_data(&self, name: &Name, rtype: u16, budget: &Budget) -> Proof {
        if nsec::no_data(&self.nsec, name, rtype) {
            return Proof::Proven;
        }
        nsec3::Chain::new(&self.nsec3, budget).map_or(Proof::Missing, |chain| chain.no_data(name, rtype))
    }

    /// Is it proven that nothing nearer than the wildcard under `encloser` matches the name?
    pub fn wildcard_answer(&self, name: &Name, encloser: &Name, budget: &Budget) -> Proof {
        if nsec::wildcard_answer(&self.nsec, name, encloser) {
            return Proof::Proven;
        }
        nsec3::Chain::new(&self.nsec3, budget).map_or(Proof::Missing, |chain| chain.wildcard_answer(name, encloser))
    }

    /// What do the records, as the answer to a question for DS, say of the name?
    pub fn delegation(&self, name: &Name, budget: &Budget) -> Delegation {
        match nsec::delegation(&self.nsec, name) {
            Delegation::Missing => {}
            found => return found,
        }
        nsec3::Chain::new(&self.nsec3, budget).map_or(Delegation::Missing, |chain| chain.delegation(name))
    }
}

/// The types that a name has (RFC 4034 §4.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Types(Vec<u8>);

impl Types {
    /// Takes the bitmap from the end of NSEC or NSEC3 data.
    pub fn new(bitmap: &[u8]) -> Self {
        Self(bitmap.to_vec())
    }

    /// Says whether the type is there.
    pub fn contains(&self, kind: u16) -> bool {
        let [window, low] = kind.to_be_bytes();
        let mut rest = &self.0[..];
        while let [number, length, tail @ ..] = rest {
            let length = usize::from(*length);
            let Some(bits) = tail.get(..length) else { return false };
            if *number == window {
                return bits.get(usize::from(low / 8)).is_some_and(|byte| byte & 0x80 >> (low % 8) != 0);
            }
            rest = &tail[length..];
        }
        false
    }

    /// A delegation's parent side: NS without SOA.
    pub fn is_delegation(&self) -> bool {
        self.contains(rtype::NS) && !self.contains(rtype::SOA)
    }

    /// The name has neither the type nor an alias, and the record is from the side of a zone cut that may
    /// say so (RFC 4035 §5.4, RFC 6840 §4.4).
    fn deny(&self, name: &Name, kind: u16) -> bool {
        if kind == rtype::ANY {
            return self.0.is_empty();
        }
        if self.contains(kind) || self.contains(rtype::CNAME) {
            return false;
        }
        if kind == rtype::DS { name.is_root() || !self.contains(rtype::SOA) } else { !self.is_delegation() }
    }
}

//! Denial by NSEC3 (RFC 5155 §8, RFC 6840 §4).

use std::{cell::RefCell, collections::HashMap};

use hickory_proto::dnssec::{DigestType, crypto::Digest};

use super::{Delegation, Proof, Types};
use crate::dns::resolver::{budget::Budget, name::Name, rrset::Rrset, wire::rtype};

/// Zones that hash more often are taken as unsigned (RFC 9276 §3.2).
const MOST_ITERATIONS: u16 = 50;
/// Longer salts serve nobody and are hashed at every step.
const LONGEST_SALT: usize = 64;

/// An NSEC3 record of a zone.
#[derive(Clone, Debug)]
pub struct Nsec3 {
    zone: Name,
    hash: Vec<u8>,
    next: Vec<u8>,
    opt_out: bool,
    iterations: u16,
    salt: Vec<u8>,
    types: Types,
}

impl Nsec3 {
    /// Reads an RRset of type NSEC3; `None` for what RFC 5155 §8.1 and §8.2 say to leave out.
    pub fn new(zone: &Name, set: &Rrset) -> Option<Self> {
        let rdata = set.data.first()?;
        let [algorithm, flags, i0, i1, salt_length, rest @ ..] = &rdata[..] else { return None };
        let (salt, rest) = rest.split_at_checked(usize::from(*salt_length))?;
        let (next_length, rest) = rest.split_first()?;
        let (next, bitmap) = rest.split_at_checked(usize::from(*next_length))?;
        let hash = base32hex(set.name.labels().next()?)?;
        let sound = *algorithm == 1
            && *flags <= 1
            && hash.len() == 20
            && next.len() == 20
            && set.name.parent().as_ref() == Some(zone);
        sound.then(|| Self {
            zone: zone.clone(),
            hash,
            next: next.to_vec(),
            opt_out: *flags == 1,
            iterations: u16::from_be_bytes([*i0, *i1]),
            salt: salt.to_vec(),
            types: Types::new(bitmap),
        })
    }

    /// Says whether two records were made with the same parameters.
    pub fn same_chain(&self, other: &Self) -> bool {
        self.iterations == other.iterations && self.salt == other.salt && self.zone == other.zone
    }

    /// Says whether an unsigned delegation may hide in the gap after this record.
    pub fn opt_out(&self) -> bool {
        self.opt_out
    }

    /// Returns the iterations and the salt.
    pub fn parameters(&self) -> (u16, Vec<u8>) {
        (self.iterations, self.salt.clone())
    }

    /// Returns the hash of the owner.
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }

    fn covers(&self, hash: &[u8]) -> bool {
        if self.hash < self.next {
            self.hash[..] < *hash && *hash < self.next[..]
        } else {
            // The last record of the chain, around its end.
            self.hash[..] < *hash || *hash < self.next[..]
        }
    }
}

/// Reads a label in base 32 with extended hex alphabet (RFC 4648 §7), without padding.
fn base32hex(label: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(label.len() * 5 / 8);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in label {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'v' => byte - b'a' + 10,
            b'A'..=b'V' => byte - b'A' + 10,
            _ => return None,
        };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).expect("eight bits"));
        }
    }
    Some(out)
}

/// Returns the hash of a name (RFC 5155 §5).
pub fn hash(name: &Name, salt: &[u8], iterations: u16) -> Vec<u8> {
    Digest::iterated(salt, name.as_wire(), DigestType::SHA1, iterations)
        .map_or_else(|_| Vec::new(), |digest| digest.as_ref().to_vec())
}

/// The records of one chain, with the hashes that were already made.
pub struct Chain<'a> {
    records: &'a [Nsec3],
    first: &'a Nsec3,
    budget: &'a Budget,
    hashes: RefCell<HashMap<Name, Vec<u8>>>,
}

/// The name that exists, and the record over the name below it that does not.
struct Encloser<'a> {
    name: Name,
    cover: &'a Nsec3,
}

/// A step of a proof that ended early.
struct Spent;

impl<'a> Chain<'a> {
    /// Takes the records; `None` if there are none.
    pub fn new(records: &'a [Nsec3], budget: &'a Budget) -> Option<Self> {
        let first = records.first()?;
        Some(Self { records, first, budget, hashes: RefCell::default() })
    }

    fn too_costly(&self) -> bool {
        self.first.iterations > MOST_ITERATIONS || self.first.salt.len() > LONGEST_SALT
    }

    fn hash(&self, name: &Name) -> Result<Vec<u8>, Spent> {
        if let Some(hash) = self.hashes.borrow().get(name) {
            return Ok(hash.clone());
        }
        if !self.budget.spend_hash() {
            return Err(Spent);
        }
        let hash = hash(name, &self.first.salt, self.first.iterations);
        self.hashes.borrow_mut().insert(name.clone(), hash.clone());
        Ok(hash)
    }

    fn matching(&self, name: &Name) -> Result<Option<&'a Nsec3>, Spent> {
        let hash = self.hash(name)?;
        Ok(self.records.iter().find(|record| record.hash == hash))
    }

    fn covering(&self, name: &Name) -> Result<Option<&'a Nsec3>, Spent> {
        let hash = self.hash(name)?;
        Ok(self.records.iter().find(|record| record.covers(&hash)))
    }

    /// RFC 5155 §8.3.
    fn closest_encloser(&self, name: &Name) -> Result<Option<Encloser<'a>>, Spent> {
        if !name.is_below(&self.first.zone) {
            return Ok(None);
        }
        let mut below = name.clone();
        while let Some(candidate) = below.parent().filter(|parent| parent.is_under(&self.first.zone)) {
            if let Some(record) = self.matching(&candidate)? {
                // What a delegation or a DNAME says ends at its owner.
                if record.types.is_delegation() || record.types.contains(rtype::DNAME) {
                    return Ok(None);
                }
                let cover = self.covering(&below)?;
                return Ok(cover.map(|cover| Encloser { name: candidate, cover }));
            }
            below = candidate;
        }
        Ok(None)
    }

    /// RFC 5155 §8.4.
    pub fn name_error(&self, name: &Name) -> Proof {
        self.proof(|| {
            if self.matching(name)?.is_some() {
                return Ok(Proof::Missing);
            }
            let Some(encloser) = self.closest_encloser(name)? else { return Ok(Proof::Missing) };
            let Some(wildcard) = encloser.name.wildcard() else { return Ok(Proof::Missing) };
            Ok(match self.covering(&wildcard)? {
                None => Proof::Missing,
                Some(_) if encloser.cover.opt_out => Proof::OptOut,
                Some(_) => Proof::Proven,
            })
        })
    }

    /// RFC 5155 §8.5, §8.6, §8.7.
    pub fn no_data(&self, name: &Name, kind: u16) -> Proof {
        self.proof(|| {
            if let Some(record) = self.matching(name)? {
                return Ok(if record.types.deny(name, kind) { Proof::Proven } else { Proof::Missing });
            }
            let Some(encloser) = self.closest_encloser(name)? else { return Ok(Proof::Missing) };
            if let Some(wildcard) = encloser.name.wildcard()
                && let Some(record) = self.matching(&wildcard)?
            {
                return Ok(match record.types.deny(&wildcard, kind) {
                    true if encloser.cover.opt_out => Proof::OptOut,
                    true => Proof::Proven,
                    false => Proof::Missing,
                });
            }
            // An unsigned delegation, or an empty name above one, in an opted-out gap.
            Ok(if encloser.cover.opt_out { Proof::OptOut } else { Proof::Missing })
        })
    }

    /// RFC 5155 §8.8.
    pub fn wildcard_answer(&self, name: &Name, encloser: &Name) -> Proof {
        self.proof(|| {
            let next_closer = name.suffix(encloser.label_count() + 1);
            Ok(match self.covering(&next_closer)? {
                None => Proof::Missing,
                Some(record) if record.opt_out => Proof::OptOut,
                Some(_) => Proof::Proven,
            })
        })
    }

    /// RFC 5155 §8.6, §8.9.
    pub fn delegation(&self, name: &Name) -> Delegation {
        if self.too_costly() {
            return Delegation::Insecure;
        }
        let found = || -> Result<Delegation, Spent> {
            if let Some(record) = self.matching(name)? {
                let types = &record.types;
                return Ok(if types.contains(rtype::DS) || types.contains(rtype::SOA) {
                    Delegation::Missing
                } else if types.contains(rtype::NS) {
                    Delegation::Insecure
                } else {
                    Delegation::None
                });
            }
            Ok(match self.closest_encloser(name)? {
                None => Delegation::Missing,
                Some(encloser) if encloser.cover.opt_out => Delegation::Insecure,
                Some(_) => Delegation::None,
            })
        };
        found().unwrap_or(Delegation::Exhausted)
    }

    fn proof(&self, find: impl FnOnce() -> Result<Proof, Spent>) -> Proof {
        if self.too_costly() {
            return Proof::TooCostly;
        }
        find().unwrap_or(Proof::Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5155_appendix_a_hashes() {
        let salt = [0xaa, 0xbb, 0xcc, 0xdd];
        let of = |text: &str| hash(&Name::parse(text).unwrap(), &salt, 12);

        assert_eq!(of("example"), base32hex(b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom").unwrap());
        assert_eq!(of("*.w.example"), base32hex(b"r53bq7cc2uvmubfu5ocmm6pers9tk9en").unwrap());
    }
}

//! Denial by NSEC (RFC 4035 §5.4, RFC 6840 §4).

use super::{Delegation, Types};
use crate::dns::resolver::{name::Name, rrset::Rrset, signature::Rrsig, wire::rtype};

/// An NSEC record of a zone.
#[derive(Clone, Debug)]
pub struct Nsec {
    owner: Name,
    next: Name,
    types: Types,
    zone: Name,
}

impl Nsec {
    /// Reads an RRset of type NSEC; `None` if it is no proof: outside the zone, or made from a wildcard.
    pub fn new(zone: &Name, set: &Rrset) -> Option<Self> {
        let rdata = set.data.first()?;
        let (next, bitmap) = Name::split_from(rdata)?;
        let genuine = set.signatures.iter().filter_map(|rdata| Rrsig::parse(rdata)).any(|rrsig| {
            // A record with fewer labels signed than it has was expanded from a wildcard: it says nothing
            // of the place that it stands at.
            let own = set.name.label_count() - usize::from(set.name.is_wildcard());
            rrsig.signer == *zone && usize::from(rrsig.labels) == own
        });
        (genuine && set.name.is_under(zone) && next.is_under(zone)).then(|| Self {
            owner: set.name.clone(),
            next,
            types: Types::new(bitmap),
            zone: zone.clone(),
        })
    }

    /// Returns the owner.
    pub fn owner(&self) -> &Name {
        &self.owner
    }

    /// Returns the next name of the zone.
    pub fn next(&self) -> &Name {
        &self.next
    }

    /// Returns the types at the owner.
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// The name lies in the gap after the owner, and the record may speak for it.
    pub fn covers(&self, name: &Name) -> bool {
        let last = self.next == self.zone;
        let inside = name.is_under(&self.zone) && self.owner < *name && (last || *name < self.next);
        // RFC 6840 §4.1: a delegation, or a DNAME, says nothing of what is below it.
        let below = name.is_below(&self.owner);
        inside && !(below && (self.types.is_delegation() || self.types.contains(rtype::DNAME)))
    }

    /// The name exists for something below it only.
    fn is_empty_non_terminal(&self, name: &Name) -> bool {
        self.covers(name) && self.next.is_below(name)
    }

    /// The nearest name above that exists, by a record that covers the name.
    fn closest_encloser(&self, name: &Name) -> Name {
        let before = name.common_ancestor(&self.owner);
        let after = name.common_ancestor(&self.next);
        if before.label_count() > after.label_count() { before } else { after }
    }
}

/// Neither the name nor a wildcard that would match it exists.
pub(super) fn name_error(records: &[Nsec], name: &Name) -> bool {
    records.iter().filter(|record| record.covers(name) && !record.next.is_below(name)).any(|record| {
        let wildcard = record.closest_encloser(name).wildcard();
        wildcard.is_some_and(|wildcard| *name == wildcard || records.iter().any(|record| record.covers(&wildcard)))
    })
}

/// The name, or the wildcard that matches it, has no such type.
pub(super) fn no_data(records: &[Nsec], name: &Name, kind: u16) -> bool {
    let direct = records
        .iter()
        .any(|record| record.owner == *name && record.types.deny(name, kind) || record.is_empty_non_terminal(name));
    direct
        || records.iter().filter(|record| record.covers(name)).any(|record| {
            record.closest_encloser(name).wildcard().is_some_and(|wildcard| {
                records.iter().any(|record| record.owner == wildcard && record.types.deny(&wildcard, kind))
            })
        })
}

/// Nothing nearer than the wildcard under `encloser` matches the name.
pub(super) fn wildcard_answer(records: &[Nsec], name: &Name, encloser: &Name) -> bool {
    records
        .iter()
        .any(|record| record.covers(name) && !record.next.is_below(name) && record.closest_encloser(name) == *encloser)
}

/// What the parent says of the name as a delegation.
pub(super) fn delegation(records: &[Nsec], name: &Name) -> Delegation {
    for record in records {
        if record.owner == *name {
            let types = &record.types;
            if types.contains(rtype::DS)
                || types.contains(rtype::SOA)
                || types.contains(rtype::CNAME) && types.contains(rtype::NS)
            {
                continue;
            }
            return if types.contains(rtype::NS) { Delegation::Insecure } else { Delegation::None };
        }
        if record.covers(name) {
            return Delegation::None;
        }
    }
    Delegation::Missing
}

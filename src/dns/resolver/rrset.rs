//! RRsets: the records of one owner and type with the signatures over them, the unit of caching and
//! validation.

use std::{collections::HashMap, sync::Arc};

use super::{
    name::Name,
    wire::{IN, Record, rtype},
};

/// What is known of the data's authenticity (RFC 4035 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// Provably false, or not provable where it must be.
    Bogus,
    /// Not looked at yet.
    Unchecked,
    /// Provably without signatures, or outside every anchor.
    Insecure,
    /// Signed by a chain from an anchor.
    Secure,
}

/// The records of one owner and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrset {
    /// The owner.
    pub name: Name,
    /// The type.
    pub rtype: u16,
    /// The shortest TTL of its records, in seconds.
    pub ttl: u32,
    /// The data of each record, each once.
    pub data: Vec<Arc<[u8]>>,
    /// The data of the RRSIGs that cover the type.
    pub signatures: Vec<Arc<[u8]>>,
}

/// An RRset takes no more records than this, and no more signatures than [`MOST_SIGNATURES`].
const MOST_RECORDS: usize = 512;
const MOST_SIGNATURES: usize = 16;

impl Rrset {
    /// Returns about how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        let data: usize = self.data.iter().chain(&self.signatures).map(|data| data.len() + 32).sum();
        size_of::<Self>() + self.name.as_wire().len() + 16 + data
    }
}

/// The RRsets of one section, in the order in which they came.
pub fn group(records: &[Record]) -> Vec<Rrset> {
    let mut sets: Vec<Rrset> = Vec::new();
    let mut places: HashMap<(&Name, u16), usize> = HashMap::new();
    for record in records.iter().filter(|record| record.class == IN) {
        let signature = record.rtype == rtype::RRSIG;
        let covered = match (signature, record.rdata.first_chunk::<2>()) {
            (true, Some(covered)) => u16::from_be_bytes(*covered),
            (true, None) => continue,
            (false, _) => record.rtype,
        };
        let place = *places.entry((&record.name, covered)).or_insert_with(|| {
            sets.push(Rrset {
                name: record.name.clone(),
                rtype: covered,
                ttl: record.ttl,
                data: Vec::new(),
                signatures: Vec::new(),
            });
            sets.len() - 1
        });
        let set = &mut sets[place];
        let (list, most) =
            if signature { (&mut set.signatures, MOST_SIGNATURES) } else { (&mut set.data, MOST_RECORDS) };
        if list.len() < most && !list.contains(&record.rdata) {
            list.push(record.rdata.clone());
            set.ttl = set.ttl.min(record.ttl);
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_grouped_with_their_signatures_and_duplicates_dropped() {
        let name = Name::parse("a.example").unwrap();
        let record =
            |rtype, ttl, rdata: &[u8]| Record { name: name.clone(), rtype, class: IN, ttl, rdata: rdata.into() };
        let records = [
            record(1, 60, &[1, 2, 3, 4]),
            record(46, 30, &[0, 1, 8]),
            record(1, 60, &[1, 2, 3, 4]),
            record(28, 5, &[0]),
        ];

        let sets = group(&records);

        assert_eq!(sets.len(), 2);
        assert_eq!((sets[0].rtype, sets[0].ttl, sets[0].data.len(), sets[0].signatures.len()), (1, 30, 1, 1));
    }
}

//! The compact table: which rules stand at a name, without the names.
//!
//! A name is its 64-bit key ([`super::key`]). The key's first bits choose a shard of about a hundred
//! thousand names, the next ones a bucket of 8 to 16 names in it, the next 40 are the fingerprint that
//! stands there, with the 16-bit number of a rule set. In front of the buckets stands a binary-fuse filter,
//! which lets through all names of the shard and one of 256 others, so that a name without rules costs three
//! reads.
//!
//! A name takes 7 bytes for fingerprint and rule set, 1.13 to 1.2 for the filter and at most 0.5 for the
//! start of its bucket.
//!
//! A name that is in no list is taken for one that is if the filter lets it through (2^-8) and one of at
//! most about 16 fingerprints of its bucket is its own (16 × 2^-40): 6 × 10^-14 for a suffix, whatever the number
//! of names, and 1.5 × 10^-11 without the filter's help. Nobody can look for such a name without the seed.

use xorf::{BinaryFuse8, Filter};

/// A record of a shard: 40 bits of the key and the number of the rule set.
type Record = [u8; 7];

/// Names in a bucket, at the most and on average, before it is halved.
const BUCKET: usize = 16;

/// Bits of a key that choose shard and bucket, at the most: the fingerprint needs the other 40.
const PLACE_BITS: u32 = 24;

/// The finished table.
#[derive(Default)]
pub(super) struct Table {
    shards: Box<[Shard]>,
    names: usize,
}

impl Table {
    /// Puts the shards together; their number must be a power of two.
    pub(super) fn new(shards: Vec<Shard>) -> Self {
        debug_assert!(shards.len().is_power_of_two());
        let names = shards.iter().map(|shard| shard.records.len()).sum();
        Self { shards: shards.into(), names }
    }

    /// Calls `found` with each rule set that stands at a key.
    #[inline]
    pub(super) fn find(&self, key: u64, found: impl FnMut(u16)) {
        if let Some(shard) = self.shards.get(shard_of(key, self.shards.len())) {
            shard.find(key, found);
        }
    }

    /// Returns how many names are in the table.
    pub(super) const fn names(&self) -> usize {
        self.names
    }

    /// Returns the bytes that the table takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.shards) + self.shards.iter().map(Shard::bytes).sum::<usize>()
    }
}

/// Returns the place of a key's shard among `shards`, a power of two; keys in order have places in order.
pub(super) fn shard_of(key: u64, shards: usize) -> usize {
    usize::try_from(key.rotate_left(shards.trailing_zeros())).map_or(0, |key| key & shards.wrapping_sub(1))
}

/// The names whose keys begin with the same bits.
pub(super) struct Shard {
    /// `None`: the shard is empty, or no filter was found and every key goes on to the buckets.
    filter: Option<BinaryFuse8>,
    /// Where each bucket starts in `records`, and the end of the last one.
    starts: Box<[u32]>,
    records: Box<[Record]>,
    /// How far a key is turned to the left to have shard and bucket in its low bits.
    bits: u32,
}

impl Shard {
    /// Makes the `1 / shards`th part of a table from keys in order, each with its rule set.
    pub(super) fn new(keys: &[u64], sets: &[u16], shards: usize) -> Self {
        let shard_bits = shards.trailing_zeros();
        let buckets = (keys.len() / BUCKET + 1).next_power_of_two().min(1 << (PLACE_BITS - shard_bits));
        let mut shard = Self {
            filter: if keys.is_empty() { None } else { BinaryFuse8::try_from(keys).ok() },
            starts: Box::default(),
            records: keys.iter().zip(sets).map(|(key, set)| record(fingerprint_of(*key), *set)).collect(),
            bits: shard_bits + buckets.trailing_zeros(),
        };
        let mut starts = vec![0_u32; buckets + 1];
        for key in keys {
            let bucket = shard.bucket_of(*key, buckets);
            starts[bucket + 1] += 1;
        }
        for bucket in 0..buckets {
            starts[bucket + 1] += starts[bucket];
        }
        shard.starts = starts.into();
        shard
    }

    #[inline]
    fn find(&self, key: u64, mut found: impl FnMut(u16)) {
        if self.filter.as_ref().is_some_and(|filter| !filter.contains(&key)) {
            return;
        }
        let bucket = self.bucket_of(key, self.starts.len() - 1);
        let (Some(&start), Some(&end)) = (self.starts.get(bucket), self.starts.get(bucket + 1)) else { return };
        let fingerprint = fingerprint_of(key);
        // Two names of a list may share a fingerprint: all are looked at.
        for record in self.records.get(start as usize..end as usize).unwrap_or_default() {
            let [a, b, c, d, e, low, high] = *record;
            if [a, b, c, d, e] == fingerprint {
                found(u16::from_le_bytes([low, high]));
            }
        }
    }

    fn bucket_of(&self, key: u64, buckets: usize) -> usize {
        usize::try_from(key.rotate_left(self.bits)).map_or(0, |key| key & (buckets - 1))
    }

    fn bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, |filter| filter.fingerprints.len());
        filter + size_of_val(&*self.starts) + size_of_val(&*self.records)
    }
}

/// Takes the 40 bits after those that choose shard and bucket.
#[inline]
fn fingerprint_of(key: u64) -> [u8; 5] {
    let [_, _, _, a, b, c, d, e] = key.to_be_bytes();
    [a, b, c, d, e]
}

fn record([a, b, c, d, e]: [u8; 5], set: u16) -> Record {
    let [low, high] = set.to_le_bytes();
    [a, b, c, d, e, low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u64) -> Vec<u64> {
        let mut keys: Vec<u64> = (1..=count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        keys.sort_unstable();
        keys
    }

    fn table(keys: &[u64], shards: usize) -> Table {
        let of = |shard| keys.iter().copied().filter(|key| shard_of(*key, shards) == shard).collect::<Vec<_>>();
        Table::new(
            (0..shards)
                .map(of)
                .map(|keys| {
                    let sets: Vec<u16> = keys.iter().map(|key| *key as u16).collect();
                    Shard::new(&keys, &sets, shards)
                })
                .collect(),
        )
    }

    #[test]
    fn every_key_is_found_with_its_rule_set_and_no_other_key() {
        for (count, shards) in [(0, 1), (1, 1), (2, 2), (3, 1), (17, 4), (1000, 1), (5000, 8)] {
            let keys = keys(count);
            let table = table(&keys, shards);

            for key in &keys {
                let mut sets = Vec::new();
                table.find(*key, |set| sets.push(set));
                assert_eq!(sets, [*key as u16], "{count} keys in {shards} shards");
                table.find(key ^ 1 << 20, |_| panic!("a key that was not put in"));
            }
            assert_eq!(table.names(), keys.len());
        }
    }

    #[test]
    fn a_name_takes_nine_bytes() {
        let keys = keys(200_000);

        let table = table(&keys, 2);

        assert!(table.bytes() < 9 * keys.len(), "{} bytes", table.bytes());
    }

    #[test]
    fn shards_keep_the_order_of_the_keys() {
        assert_eq!(shard_of(u64::MAX, 1), 0);
        assert_eq!(shard_of(0x7fff_ffff_ffff_ffff, 2), 0);
        assert_eq!(shard_of(0x8000_0000_0000_0000, 2), 1);
        assert_eq!(shard_of(0xdfff_ffff_ffff_ffff, 8), 6);
    }
}

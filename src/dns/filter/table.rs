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

use std::{io, ops::Range};

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

use super::disk::{In, Octets, Out, damaged};

/// A record of a shard: 40 bits of the key and the number of the rule set.
type Record = [u8; 7];

/// What the fingerprints of a filter are read by.
type Descriptor = [u8; BinaryFuse8::DESCRIPTOR_LEN];

/// Names in a bucket, at the most and on average, before it is halved.
const BUCKET: usize = 16;

/// Bits of a key that choose shard and bucket, at the most: the fingerprint needs the other 40.
const PLACE_BITS: u32 = 24;

/// The finished table.
#[derive(Default)]
pub(super) struct Table {
    octets: Octets,
    shards: Box<[Shard]>,
    names: usize,
}

impl Table {
    /// Puts a table together: its octets, and where its shards are in them; `None` if they are not there, or their
    /// number is no power of two.
    pub(super) fn new(octets: Octets, shards: Vec<Shard>) -> Option<Self> {
        let fits = shards.len().is_power_of_two() && shards.iter().all(|shard| shard.fits(octets.len()));
        let names = shards.iter().map(|shard| shard.names).sum();
        fits.then_some(Self { octets, shards: shards.into(), names })
    }

    /// Calls `found` with each rule set that stands at a key.
    #[inline]
    pub(super) fn find(&self, key: u64, found: impl FnMut(u16)) {
        if let Some(shard) = self.shards.get(shard_of(key, self.shards.len())) {
            shard.find(&self.octets, key, found);
        }
    }

    /// Writes where the shards are so that [`Table::places`] finds them.
    pub(super) fn write_places(shards: &[Shard], out: &mut Out) -> io::Result<()> {
        out.length(shards.len())?;
        shards.iter().try_for_each(|shard| shard.write_place(out))
    }

    /// Reads what [`Table::write_places`] wrote.
    pub(super) fn places(from: &mut In<'_>) -> io::Result<Vec<Shard>> {
        (0..from.length(1)?).map(|_| Shard::read_place(from)).collect()
    }

    /// Returns its octets.
    #[cfg(test)]
    pub(super) const fn octets(&self) -> &Octets {
        &self.octets
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

/// Where the names whose keys begin with the same bits are.
pub(super) struct Shard {
    filter: Descriptor,
    /// The fingerprints; nothing if the shard is empty, or no filter was found and every key goes on to the buckets.
    fingerprints: Range<usize>,
    /// Where each bucket starts among the records, four octets each, the low one first; behind them the end of the
    /// last one.
    starts: usize,
    /// A power of two.
    buckets: usize,
    records: usize,
    names: usize,
    /// How far a key is turned to the left to have shard and bucket in its low bits.
    bits: u32,
}

impl Shard {
    /// Writes the `1 / shards`th part of a table from keys in order, each with its rule set.
    pub(super) fn write(keys: &[u64], sets: &[u16], shards: usize, out: &mut Out) -> io::Result<Self> {
        let shard_bits = shards.trailing_zeros();
        let buckets = (keys.len() / BUCKET + 1).next_power_of_two().min(1 << (PLACE_BITS - shard_bits));
        let mut shard = Self {
            filter: [0; BinaryFuse8::DESCRIPTOR_LEN],
            fingerprints: out.at()..out.at(),
            starts: 0,
            buckets,
            records: 0,
            names: keys.len(),
            bits: shard_bits + buckets.trailing_zeros(),
        };
        if !keys.is_empty()
            && let Ok(filter) = BinaryFuse8::try_from(keys)
        {
            filter.dma_copy_descriptor_to(&mut shard.filter);
            out.bytes(filter.dma_fingerprints())?;
            shard.fingerprints.end = out.at();
        }
        let mut starts = vec![0_u32; buckets + 1];
        for key in keys {
            starts[shard.bucket_of(*key) + 1] += 1;
        }
        for bucket in 0..buckets {
            starts[bucket + 1] += starts[bucket];
        }
        shard.starts = out.at();
        out.bytes(&starts.iter().flat_map(|start| start.to_le_bytes()).collect::<Vec<_>>())?;
        shard.records = out.at();
        let records: Vec<Record> = keys.iter().zip(sets).map(|(key, set)| record(fingerprint_of(*key), *set)).collect();
        out.bytes(records.as_flattened())?;
        Ok(shard)
    }

    #[inline]
    fn find(&self, octets: &[u8], key: u64, mut found: impl FnMut(u16)) {
        if !self.fingerprints.is_empty() {
            let Some(fingerprints) = octets.get(self.fingerprints.clone()) else { return };
            if !BinaryFuse8Ref::from_dma(&self.filter, fingerprints).contains(&key) {
                return;
            }
        }
        let at = self.starts + 4 * self.bucket_of(key);
        let Some([[a, b, c, d], [e, f, g, h]]) = octets.get(at..at + 8).map(|starts| starts.as_chunks().0) else {
            return;
        };
        let (start, end) = (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]));
        let place = |record: u32| self.records + size_of::<Record>() * record as usize;
        let fingerprint = fingerprint_of(key);
        // Two names of a list may share a fingerprint: all are looked at.
        for record in octets.get(place(start)..place(end)).unwrap_or_default().as_chunks().0 {
            let [a, b, c, d, e, low, high] = *record;
            if [a, b, c, d, e] == fingerprint {
                found(u16::from_le_bytes([low, high]));
            }
        }
    }

    fn write_place(&self, out: &mut Out) -> io::Result<()> {
        out.bytes(&self.filter)?;
        let Range { start, end } = self.fingerprints;
        let places = [start, end, self.starts, self.buckets, self.records, self.names];
        places.into_iter().try_for_each(|place| out.length(place))?;
        out.number(self.bits.into())
    }

    fn read_place(from: &mut In<'_>) -> io::Result<Self> {
        let filter = from.array()?;
        let mut place = || usize::try_from(from.number()?).map_err(|_| damaged());
        let (fingerprints, starts) = (place()?..place()?, place()?);
        let (buckets, records, names) = (place()?, place()?, place()?);
        let bits = u32::try_from(from.number()?).map_err(|_| damaged())?;
        Ok(Self { filter, fingerprints, starts, buckets, records, names, bits })
    }

    /// Says whether all of it lies within so many octets, and a look-up stays within it.
    fn fits(&self, octets: usize) -> bool {
        let ends = |start: usize, width: usize, count: usize| {
            width.checked_mul(count).and_then(|length| start.checked_add(length)).is_some_and(|end| end <= octets)
        };
        let Range { start, end } = self.fingerprints;
        start <= end
            && end <= octets
            && (start == end || filter_fits(&self.filter, end - start))
            && self.buckets.is_power_of_two()
            && self.bits <= PLACE_BITS
            && ends(self.starts, 4, self.buckets.saturating_add(1))
            && ends(self.records, size_of::<Record>(), self.names)
    }

    fn bucket_of(&self, key: u64) -> usize {
        usize::try_from(key.rotate_left(self.bits)).map_or(0, |key| key & (self.buckets - 1))
    }

    fn bytes(&self) -> usize {
        self.fingerprints.len() + 4 * (self.buckets + 1) + size_of::<Record>() * self.names
    }
}

/// Says whether a filter looks at nothing behind so many fingerprints: what it looks at lies in three segments in a
/// row.
fn filter_fits(filter: &Descriptor, fingerprints: usize) -> bool {
    let number = |at: usize| filter.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_le_bytes(*four));
    // The seed, the length of a segment, its mask, and the length of all but two segments.
    let (length, mask, starts) = (number(8), number(12), number(16));
    let end = u64::from(starts) + 2 * u64::from(length);
    length.is_power_of_two() && mask == length - 1 && end <= fingerprints as u64
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
    use super::{super::disk::Whole, *};

    fn keys(count: u64) -> Vec<u64> {
        let mut keys: Vec<u64> = (1..=count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        keys.sort_unstable();
        keys
    }

    fn table(keys: &[u64], shards: usize) -> Table {
        let of = |shard| keys.iter().copied().filter(|key| shard_of(*key, shards) == shard).collect::<Vec<_>>();
        let mut out = Out::memory();
        let places = (0..shards)
            .map(of)
            .map(|keys| {
                let sets: Vec<u16> = keys.iter().map(|key| *key as u16).collect();
                Shard::write(&keys, &sets, shards, &mut out).unwrap()
            })
            .collect();
        Table::new(out.finish(Whole::No, |_| Ok(())).unwrap(), places).unwrap()
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

//! Builds the table without holding the lists: records of a key and a rule are sorted in chunks, and the
//! chunks are merged into one shard after the other.

use std::{collections::HashMap, io, path::Path};

use super::{
    key::Seed,
    parse::Reach,
    runs::{Record, Runs},
    table::{Shard, Table, shard_of},
};
use crate::dns::Action;

/// What a list or group says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    /// The list, or the group after the last list.
    pub(super) source: u16,
    pub(super) action: Action,
    pub(super) reach: Reach,
}

/// Records sorted at a time: 2 MiB.
const CHUNK: usize = 1 << 17;

/// Records of a shard.
const SHARD: usize = 1 << 17;

/// Collects names and their rules.
pub(super) struct Builder {
    seed: Seed,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u16>,
    chunk: Vec<Record>,
    runs: Runs,
    records: usize,
}

impl Builder {
    /// Begins a table; what does not fit into memory is kept in a file in this folder.
    pub(super) fn new(seed: Seed, folder: &Path) -> Self {
        let (rules, numbers, chunk) = (Vec::new(), HashMap::new(), Vec::new());
        Self { seed, rules, numbers, chunk, runs: Runs::new(folder), records: 0 }
    }

    /// Puts a rule at a name in wire form; what is no name has no rules. `None`: there are too many rules.
    pub(super) fn add(&mut self, name: &[u8], rule: Rule) -> Option<()> {
        let Some(key) = self.seed.key(name) else { return Some(()) };
        let number = match self.numbers.get(&rule) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(self.rules.len()).ok()?;
                self.rules.push(rule);
                self.numbers.insert(rule, number);
                number
            }
        };
        self.chunk.push((key, number));
        self.records += 1;
        if self.chunk.len() == CHUNK {
            self.runs.push(&mut self.chunk);
        }
        Some(())
    }

    /// Makes the table. `counts` gets the distinct names of each source.
    pub(super) fn finish(mut self, counts: &mut [u64]) -> io::Result<(Table, RuleSets)> {
        self.runs.push(&mut self.chunk);
        drop(self.chunk);
        let shards = (self.records / SHARD + 1).next_power_of_two();
        let mut merge = self.runs.merge()?;
        let mut sets = RuleSets::new(self.rules);
        let mut finished = Vec::with_capacity(shards);
        let (mut keys, mut numbers) = (Vec::new(), Vec::new());
        let mut here: Vec<u16> = Vec::new();
        let mut record = merge.next()?;
        while let Some((key, rule)) = record {
            here.clear();
            here.push(rule);
            record = merge.next()?;
            while let Some((_, rule)) = record.filter(|(next, _)| *next == key) {
                // Records come in the order of their rules.
                if here.last() != Some(&rule) {
                    here.push(rule);
                }
                record = merge.next()?;
            }
            while finished.len() < shard_of(key, shards) {
                finished.push(Shard::new(&keys, &numbers, shards));
                keys.clear();
                numbers.clear();
            }
            keys.push(key);
            numbers.push(sets.intern(key, &here));
            sets.count(&here, counts);
        }
        while finished.len() < shards {
            finished.push(Shard::new(&keys, &numbers, shards));
            keys.clear();
            numbers.clear();
        }
        Ok((Table::new(finished), sets.finished()))
    }
}

/// The sets of rules that stand together at some name.
pub(super) struct RuleSets {
    rules: Box<[Rule]>,
    /// The rules of all sets, one set after another.
    members: Vec<u16>,
    /// Where each set ends.
    ends: Vec<u32>,
    /// Sets beyond those that 16 bits can number, by their name's key.
    wide: Vec<(u64, u32)>,
    numbers: HashMap<Box<[u16]>, u32>,
}

impl RuleSets {
    /// The number that sends the reader to `wide`.
    const WIDE: u16 = u16::MAX;

    fn new(rules: Vec<Rule>) -> Self {
        let (members, ends, wide) = (Vec::new(), Vec::new(), Vec::new());
        Self { rules: rules.into(), members, ends, wide, numbers: HashMap::new() }
    }

    fn intern(&mut self, key: u64, set: &[u16]) -> u16 {
        let number = match self.numbers.get(set) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.ends.len()).expect("there are fewer sets than keys");
                self.members.extend_from_slice(set);
                self.ends.push(u32::try_from(self.members.len()).unwrap_or(u32::MAX));
                self.numbers.insert(set.into(), number);
                number
            }
        };
        match u16::try_from(number) {
            Ok(number) if number != Self::WIDE => number,
            _ => {
                self.wide.push((key, number));
                Self::WIDE
            }
        }
    }

    /// Counts a name for each source that has it.
    fn count(&self, set: &[u16], counts: &mut [u64]) {
        let mut last = None;
        for rule in set.iter().filter_map(|rule| self.rules.get(usize::from(*rule))) {
            // A source is read to its end before the next: its rules stand side by side.
            if last != Some(rule.source) {
                last = Some(rule.source);
                if let Some(count) = counts.get_mut(usize::from(rule.source)) {
                    *count += 1;
                }
            }
        }
    }

    fn finished(mut self) -> Self {
        self.numbers = HashMap::new();
        self.members.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.wide.shrink_to_fit();
        self
    }

    /// Returns the rules of a set that was found at a key.
    #[inline]
    pub(super) fn rules(&self, key: u64, set: u16) -> impl Iterator<Item = Rule> {
        let number = if set == Self::WIDE {
            let place = self.wide.binary_search_by_key(&key, |(key, _)| *key);
            place.ok().and_then(|place| self.wide.get(place)).and_then(|(_, set)| usize::try_from(*set).ok())
        } else {
            Some(usize::from(set))
        };
        let members = number.and_then(|number| {
            let start = if number == 0 { 0 } else { *self.ends.get(number - 1)? as usize };
            self.members.get(start..*self.ends.get(number)? as usize)
        });
        members.unwrap_or_default().iter().filter_map(|rule| self.rules.get(usize::from(*rule)).copied())
    }

    /// Returns the bytes that the sets take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.rules) + size_of_val(&*self.members) + size_of_val(&*self.ends) + size_of_val(&*self.wide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_beyond_sixteen_bits_are_found_too() {
        let rule = |source| Rule { source, action: Action::Block, reach: Reach::Exact };
        let rules: Vec<Rule> = (0..17).map(rule).collect();
        let set_of = |key: u64| (0..17).filter(move |rule| key >> rule & 1 == 1).collect::<Vec<u16>>();
        let mut sets = RuleSets::new(rules);

        let numbers: Vec<u16> = (0..1 << 17).map(|key| sets.intern(key, &set_of(key))).collect();
        let sets = sets.finished();

        for (key, number) in (0..).zip(numbers) {
            let found: Vec<u16> = sets.rules(key, number).map(|rule| rule.source).collect();
            assert_eq!(found, set_of(key));
        }
    }
}

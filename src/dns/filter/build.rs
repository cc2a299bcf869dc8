//! Builds the table without holding the lists: records of a key and a rule are sorted in chunks, and the
//! chunks are merged into one shard after the other.

use std::{collections::HashMap, io, path::Path};

use ipnet::IpNet;

use super::{
    disk::{In, Out, damaged},
    group::canonical,
    key::Seed,
    parse::Reach,
    patterns::{Collector, Expression},
    runs::{Record, Runs},
    special::{Lengths, Special, net_name},
    table::{Shard, shard_of},
    terms::Terms,
};
use crate::dns::Action;

/// What a list or group says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    /// The list, or the group after the last list.
    pub(super) source: u16,
    pub(super) action: Action,
    pub(super) reach: Reach,
    /// It beats the rules of lists that are not.
    pub(super) important: bool,
    /// The number of its terms, 0 if there are none.
    pub(super) terms: u16,
}

/// Records sorted at a time: 2 MiB.
const CHUNK: usize = 1 << 17;

/// Records of a shard.
const SHARD: usize = 1 << 17;

/// Rules are numbered below this; the others are kept for lists and groups.
const SPECIAL: usize = 0xf000;

/// Bytes of terms.
const TERMS: usize = 4 << 20;

/// A rule has no place: there are too many special ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Of those with terms or patterns.
    Special,
    /// Of lists and groups.
    Plain,
}

/// Collects names and their rules.
pub(super) struct Builder {
    seed: Seed,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u16>,
    terms: Vec<Terms>,
    terms_numbers: HashMap<Terms, u16>,
    terms_bytes: usize,
    patterns: Collector,
    nets: Lengths,
    chunk: Vec<Record>,
    runs: Runs,
    records: usize,
}

impl Builder {
    /// Begins a table; what does not fit into memory is kept in a file in this folder.
    pub(super) fn new(seed: Seed, folder: &Path) -> Self {
        Self {
            seed,
            rules: Vec::new(),
            numbers: HashMap::new(),
            terms: Vec::new(),
            terms_numbers: HashMap::new(),
            terms_bytes: 0,
            patterns: Collector::default(),
            nets: Lengths::default(),
            chunk: Vec::new(),
            runs: Runs::new(folder),
            records: 0,
        }
    }

    /// Puts a rule at a name in wire form; what is no name has no rules.
    pub(super) fn add(&mut self, name: &[u8], rule: Rule, terms: &Terms) -> Result<(), Full> {
        let Some(key) = self.seed.key(name) else { return Ok(()) };
        let number = self.number(rule, terms)?;
        self.put(key, number);
        Ok(())
    }

    /// Puts a rule at the addresses of a network.
    pub(super) fn add_net(&mut self, net: IpNet, rule: Rule, terms: &Terms) -> Result<(), Full> {
        let number = self.number(rule, terms)?;
        let net = canonical(net);
        self.nets.add(net);
        if let Some(key) = self.seed.key(&net_name(net)) {
            self.put(key, number);
        }
        Ok(())
    }

    /// Puts a rule at whatever fits an expression.
    pub(super) fn add_pattern(&mut self, expression: &Expression, rule: Rule, terms: &Terms) -> Result<(), Full> {
        let number = self.number(rule, terms)?;
        self.patterns.add(expression, number).ok_or(Full::Special)
    }

    fn number(&mut self, rule: Rule, terms: &Terms) -> Result<u16, Full> {
        let terms = if *terms == Terms::default() { 0 } else { self.terms_number(terms)? };
        let rule = Rule { terms, ..rule };
        if let Some(number) = self.numbers.get(&rule) {
            return Ok(*number);
        }
        if terms != 0 && self.rules.len() >= SPECIAL {
            return Err(Full::Special);
        }
        let number = u16::try_from(self.rules.len()).map_err(|_| Full::Plain)?;
        self.rules.push(rule);
        self.numbers.insert(rule, number);
        Ok(number)
    }

    fn terms_number(&mut self, terms: &Terms) -> Result<u16, Full> {
        if let Some(number) = self.terms_numbers.get(terms) {
            return Ok(*number);
        }
        let bytes = self.terms_bytes + terms.bytes();
        if bytes > TERMS || self.terms.len() >= SPECIAL {
            return Err(Full::Special);
        }
        self.terms_bytes = bytes;
        self.terms.push(terms.clone());
        let number = u16::try_from(self.terms.len()).map_err(|_| Full::Special)?;
        self.terms_numbers.insert(terms.clone(), number);
        Ok(number)
    }

    fn put(&mut self, key: u64, number: u16) {
        self.chunk.push((key, number));
        self.records += 1;
        if self.chunk.len() == CHUNK {
            self.runs.push(&mut self.chunk);
        }
    }

    /// Writes the table, and returns where its parts are. `counts` gets the distinct names of each source.
    pub(super) fn finish(mut self, counts: &mut [u64], out: &mut Out) -> io::Result<(Vec<Shard>, RuleSets)> {
        self.runs.push(&mut self.chunk);
        drop(self.chunk);
        let shards = (self.records / SHARD + 1).next_power_of_two();
        let mut merge = self.runs.merge()?;
        let special = Special::new(self.terms, self.nets, self.patterns.finish()?);
        let mut sets = RuleSets::new(self.rules, special);
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
                finished.push(Shard::write(&keys, &numbers, shards, out)?);
                keys.clear();
                numbers.clear();
            }
            keys.push(key);
            numbers.push(sets.intern(key, &here));
            sets.count(&here, counts);
        }
        while finished.len() < shards {
            finished.push(Shard::write(&keys, &numbers, shards, out)?);
            keys.clear();
            numbers.clear();
        }
        Ok((finished, sets.finished()))
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
    pub(super) special: Special,
}

impl RuleSets {
    /// The number that sends the reader to `wide`.
    const WIDE: u16 = u16::MAX;

    fn new(rules: Vec<Rule>, special: Special) -> Self {
        let (members, ends, wide) = (Vec::new(), Vec::new(), Vec::new());
        Self { rules: rules.into(), members, ends, wide, numbers: HashMap::new(), special }
    }

    /// Returns a rule by its number.
    pub(super) fn rule(&self, number: u16) -> Option<Rule> {
        self.rules.get(usize::from(number)).copied()
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
    pub(super) fn rules(&self, key: u64, set: u16) -> impl Iterator<Item = Rule> + Clone {
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

    /// Writes the sets so that [`RuleSets::read`] finds them.
    pub(super) fn write(&self, out: &mut Out) -> io::Result<()> {
        out.length(self.rules.len())?;
        for rule in &self.rules {
            let [low, high] = rule.source.to_le_bytes();
            let reach = match rule.reach {
                Reach::Exact => 0,
                Reach::Below => 1,
                Reach::Subtree => 2,
            };
            let allows = u8::from(rule.action == Action::Allow);
            let [terms_low, terms_high] = rule.terms.to_le_bytes();
            out.bytes(&[low, high, allows, reach, u8::from(rule.important), terms_low, terms_high])?;
        }
        self.special.write(out)?;
        let members: Vec<u32> = self.members.iter().copied().map(u32::from).collect();
        out.numbers(&members)?;
        out.numbers(&self.ends)?;
        out.length(self.wide.len())?;
        for (key, set) in &self.wide {
            out.number(*key)?;
            out.number((*set).into())?;
        }
        Ok(())
    }

    /// Reads what [`RuleSets::write`] wrote.
    pub(super) fn read(from: &mut In<'_>) -> io::Result<Self> {
        let mut rules = Vec::new();
        for _ in 0..from.length(7)? {
            let [low, high, allows, reach, important, terms_low, terms_high] = from.array()?;
            let action = if allows == 1 { Action::Allow } else { Action::Block };
            let reach = match reach {
                0 => Reach::Exact,
                1 => Reach::Below,
                2 => Reach::Subtree,
                _ => return Err(damaged()),
            };
            let source = u16::from_le_bytes([low, high]);
            let terms = u16::from_le_bytes([terms_low, terms_high]);
            rules.push(Rule { source, action, reach, important: important == 1, terms });
        }
        let special = Special::read(from)?;
        let members = from.numbers()?.into_iter().map(u16::try_from).collect::<Result<_, _>>();
        let members = members.map_err(|_| damaged())?;
        let ends = from.numbers()?;
        let mut wide = Vec::new();
        for _ in 0..from.length(16)? {
            let (key, set) = (from.number()?, from.number()?);
            wide.push((key, u32::try_from(set).map_err(|_| damaged())?));
        }
        Ok(Self { members, ends, wide, ..Self::new(rules, special) })
    }

    /// Returns the bytes that the sets take.
    pub(super) fn bytes(&self) -> usize {
        let sets = size_of_val(&*self.members) + size_of_val(&*self.ends) + size_of_val(&*self.wide);
        size_of_val(&*self.rules) + sets + self.special.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_beyond_sixteen_bits_are_found_too() {
        let rule = |source| Rule { source, action: Action::Block, reach: Reach::Exact, important: false, terms: 0 };
        let rules: Vec<Rule> = (0..17).map(rule).collect();
        let set_of = |key: u64| (0..17).filter(move |rule| key >> rule & 1 == 1).collect::<Vec<u16>>();
        let mut sets = RuleSets::new(rules, Special::default());

        let numbers: Vec<u16> = (0..1 << 17).map(|key| sets.intern(key, &set_of(key))).collect();
        let sets = sets.finished();

        for (key, number) in (0..).zip(numbers) {
            let found: Vec<u16> = sets.rules(key, number).map(|rule| rule.source).collect();
            assert_eq!(found, set_of(key));
        }
    }
}

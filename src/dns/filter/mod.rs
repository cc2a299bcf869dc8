//! What is blocked for whom.
//!
//! A question arrives with its client: [`Policy::group_of`] says which group the client is in, and
//! [`Policy::verdict`] what that group's rules say about the name. It looks up every suffix of the name,
//! from the top-level domain down, in one table for all lists and groups (`table.rs`); a rule set that is
//! found there says which lists and groups put the name in, and whether what is below is meant too. Of the
//! rules that apply to the group the strongest wins:
//!
//! 1. the group's own `allow`,
//! 2. the group's own `block`,
//! 3. an allow list, or an exception in a block list,
//! 4. a block list.
//!
//! Among equals the longest name is the one that is told, then the list that stands first. Names that an owner
//! writes into a group cover everything below them; those of lists do as their format says (`parse.rs`).

mod build;
mod explain;
mod group;
mod key;
mod name;
mod parse;
mod reason;
mod runs;
mod table;

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::IpAddr,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

pub use explain::{Effect, Match};
pub use group::GroupId;
pub use parse::{Reach, ReadError};
pub use reason::Reason;

use self::{
    build::{Builder, Rule, RuleSets},
    explain::Sources,
    group::Groups,
    key::Seed,
    parse::Found,
    table::Table,
};
use super::{Action, BlockAs, Config, List, ListSource};
use crate::origin::Origin;

/// The rules of all groups, ready to be asked.
pub struct Policy {
    seed: Seed,
    table: Table,
    sets: RuleSets,
    groups: Groups,
    lists: Vec<ListRules>,
    sources: Sources,
}

/// What a verdict needs to know of a list.
struct ListRules {
    name: String,
    block_as: BlockAs,
}

/// What the rules say about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Pass,
    /// It is let through though a weaker rule may say otherwise.
    Allow(RuleSource),
    /// It is blocked.
    Block {
        /// What the client gets.
        answer: BlockAs,
        /// Who says so.
        source: RuleSource,
    },
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleSource {
    /// The list at this place of [`Config::lists`].
    List(u16),
    /// The `allow` or `block` of the client's group.
    Group(GroupId),
}

/// What became of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    /// What the owner calls it.
    pub name: String,
    /// Distinct names with a rule.
    pub names: u64,
    /// Further entries for a name that has one.
    pub duplicates: u64,
    /// Things that were not taken.
    pub ignored: u64,
    /// Why, with how many.
    pub reasons: Vec<(String, u64)>,
    /// Bytes read.
    pub bytes: u64,
}

/// Why no policy could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A list cannot be read.
    #[error("list \"{list}\": {}{error}", path.as_ref().map_or(String::new(), |path| format!("{}: ", path.display())))]
    List {
        /// Its name.
        list: String,
        /// The file, if it comes from one.
        path: Option<PathBuf>,
        /// What went wrong.
        error: ReadError,
    },
    /// There are more lists and groups than 16-bit numbers.
    #[error("too many lists and groups")]
    TooMany,
    /// What was written to the state folder while sorting cannot be read.
    #[error("cannot sort the lists in the state folder: {0}")]
    Sort(io::Error),
    /// The system has no randomness to give.
    #[error("no random seed: {0}")]
    Random(#[from] getrandom::Error),
}

impl Policy {
    /// Reads the lists and builds the policy; blocks. Tells what became of each enabled list.
    pub fn build(config: &Config) -> Result<(Self, Vec<ListStatus>), Error> {
        let seed = Seed::random()?;
        let mut builder = Builder::new(seed, &config.state);
        let mut statuses = Vec::new();
        let mut taken = Vec::new();
        for (place, list) in config.lists.iter().enumerate().filter(|(_, list)| list.enabled) {
            let source = u16::try_from(place).map_err(|_| Error::TooMany)?;
            let (status, entries) = read_list(list, source, &mut builder)?;
            statuses.push(status);
            taken.push((place, entries));
        }
        for (place, group) in config.groups.iter().enumerate() {
            let source = u16::try_from(config.lists.len() + place).map_err(|_| Error::TooMany)?;
            for (action, names) in [(Action::Allow, &group.allow), (Action::Block, &group.block)] {
                for name in names {
                    let rule = Rule { source, action, reach: Reach::Subtree };
                    builder.add(&wire_form(name), rule).ok_or(Error::TooMany)?;
                }
            }
        }
        let mut counts = vec![0; config.lists.len()];
        let (table, sets) = builder.finish(&mut counts).map_err(Error::Sort)?;
        for (status, (place, entries)) in statuses.iter_mut().zip(taken) {
            status.names = counts[place];
            status.duplicates = entries - status.names;
        }
        let lists = config.lists.iter().map(|list| ListRules { name: list.name.clone(), block_as: list.block_as });
        let groups = Groups::build(config, |group| config.lists.len() + group).ok_or(Error::TooMany)?;
        let (lists, sources) = (lists.collect(), Sources::new(config));
        Ok((Self { seed, table, sets, groups, lists, sources }, statuses))
    }

    /// Says which group a client is in: a peer's by its key, else that of the longest prefix around its
    /// address, else `default`. What comes through a gateway that speaks for others is in the group
    /// `router`, which has the rules of `default` unless the owner wrote one of that name.
    pub fn group_of(&self, origin: Origin, client: IpAddr, relay: bool) -> GroupId {
        self.groups.of(origin, client, relay)
    }

    /// Says what the rules of a group are for a name in wire form, in whatever case. What is no name passes.
    ///
    /// Allocates nothing and takes no lock. No rule depends on the type of the question yet.
    pub fn verdict(&self, group: GroupId, name: &[u8], _qtype: u16) -> Verdict {
        let Some(suffixes) = self.seed.suffixes(name) else { return Verdict::Pass };
        let mut best: Option<(Strength, Rule)> = None;
        for suffix in suffixes {
            self.table.find(suffix.key, |set| {
                let mut here = best.map(|(strength, _)| (strength, false));
                for rule in self.sets.rules(suffix.key, set) {
                    let reaches = match rule.reach {
                        Reach::Exact => suffix.whole,
                        Reach::Below => !suffix.whole,
                        Reach::Subtree => true,
                    };
                    if !reaches || !self.groups.has(group, rule.source) {
                        continue;
                    }
                    let strength = self.strength(rule);
                    // A rule found before at this very name stands in a list before this one.
                    if here.is_none_or(|(best, found_here)| strength > best || strength == best && !found_here) {
                        here = Some((strength, true));
                        best = Some((strength, rule));
                    }
                }
            });
        }
        match best {
            None => Verdict::Pass,
            Some((_, rule)) => self.verdict_of(group, rule),
        }
    }

    fn strength(&self, rule: Rule) -> Strength {
        match (usize::from(rule.source) < self.lists.len(), rule.action) {
            (true, Action::Block) => Strength::ListBlock,
            (true, Action::Allow) => Strength::ListAllow,
            (false, Action::Block) => Strength::GroupBlock,
            (false, Action::Allow) => Strength::GroupAllow,
        }
    }

    fn verdict_of(&self, group: GroupId, rule: Rule) -> Verdict {
        let list = self.lists.get(usize::from(rule.source));
        let source = list.map_or(RuleSource::Group(group), |_| RuleSource::List(rule.source));
        match rule.action {
            Action::Allow => Verdict::Allow(source),
            Action::Block => Verdict::Block { answer: list.map_or(BlockAs::Null, |list| list.block_as), source },
        }
    }

    /// Returns what the owner calls the list or group that a rule comes from.
    pub fn source_name(&self, source: RuleSource) -> &str {
        match source {
            RuleSource::List(list) => self.lists.get(usize::from(list)).map_or("", |list| &list.name),
            RuleSource::Group(group) => self.groups.name(group),
        }
    }

    /// Returns the name of a group.
    pub fn group_name(&self, group: GroupId) -> &str {
        self.groups.name(group)
    }

    /// Returns the group of that name.
    pub fn group_named(&self, name: &str) -> Option<GroupId> {
        self.groups.named(name)
    }

    /// Returns how many groups there are; [`GroupId::index`] is below it.
    pub const fn group_count(&self) -> usize {
        self.groups.count()
    }

    /// Returns how many distinct names have rules.
    pub const fn names(&self) -> usize {
        self.table.names()
    }

    /// Returns the bytes that the names and their rules take.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.sets.bytes()
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policy({} names, {} bytes)", self.names(), self.bytes())
    }
}

/// How strong a rule is, the weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    ListBlock,
    ListAllow,
    GroupBlock,
    GroupAllow,
}

/// Puts the names of a list into the table. Returns its status without the number of distinct names, and
/// how many entries were taken.
fn read_list(list: &List, source: u16, builder: &mut Builder) -> Result<(ListStatus, u64), Error> {
    let mut status = ListStatus { name: list.name.clone(), ..ListStatus::default() };
    let mut reasons = std::collections::BTreeMap::new();
    let mut entries = 0;
    let mut fits = Some(());
    let reader = open(&list.source).map_err(|error| list_error(list, error.into()))?;
    status.bytes = parse::read(reader, |_, _, found| match found {
        Found::Name { name, reach, sense } => {
            let action = sense.action(list.action);
            entries += 1;
            fits = fits.and_then(|()| builder.add(name, Rule { source, action, reach }));
        }
        Found::Ignored(reason) => *reasons.entry(reason).or_insert(0) += 1,
    })
    .map_err(|error| list_error(list, error))?;
    fits.ok_or(Error::TooMany)?;
    status.ignored = reasons.values().sum();
    status.reasons = reasons.into_iter().map(|(reason, count)| (reason.text().to_owned(), count)).collect();
    Ok((status, entries))
}

fn list_error(list: &List, error: ReadError) -> Error {
    let path = match &list.source {
        ListSource::Path(path) => Some(path.clone()),
        ListSource::Inline(_) => None,
    };
    Error::List { list: list.name.clone(), path, error }
}

fn open(source: &ListSource) -> io::Result<Box<dyn BufRead>> {
    Ok(match source {
        ListSource::Path(path) => {
            // A pipe or a device might never end, or never begin.
            if !fs::metadata(path)?.is_file() {
                return Err(io::Error::other("not a file"));
            }
            Box::new(BufReader::with_capacity(1 << 16, File::open(path)?))
        }
        ListSource::Inline(lines) => Box::new(io::Cursor::new(lines.join("\n"))),
    })
}

fn wire_form(name: &hickory_proto::rr::Name) -> Vec<u8> {
    let mut wire = Vec::with_capacity(256);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests;

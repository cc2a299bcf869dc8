//! Which line of which list it was. The table holds neither: the lists are read again when somebody asks.

use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};

use super::{
    Config, Error, GroupId, Policy,
    build::Rule,
    list_error, open,
    parse::{self, Found, Reach},
    wire_form,
};
use crate::dns::{Action, List};

/// Longer lines are cut.
const MAX_TEXT: usize = 200;

/// A rule that applies to a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The list, or the group whose own rule it is.
    pub list: String,
    /// The line of the list; a group's own rule has none.
    pub line: Option<u64>,
    /// The rule as it is written there.
    pub text: String,
    /// What it does.
    pub effect: Effect,
}

/// What a rule does to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Blocks it.
    Block,
    /// Lets it through.
    Allow,
}

/// What is kept of the configuration to find rules again.
pub(super) struct Sources {
    lists: Vec<List>,
    groups: Vec<OwnRules>,
}

struct OwnRules {
    name: String,
    rules: Vec<(Action, Name)>,
}

impl Sources {
    pub(super) fn new(config: &Config) -> Self {
        let groups = config.groups.iter().map(|group| {
            let allow = group.allow.iter().map(|name| (Action::Allow, name.clone()));
            let block = group.block.iter().map(|name| (Action::Block, name.clone()));
            OwnRules { name: group.name.clone(), rules: allow.chain(block).collect() }
        });
        Self { lists: config.lists.clone(), groups: groups.collect() }
    }
}

impl Policy {
    /// Finds every rule that applies to a name in wire form for a group, the one that decides first; blocks.
    ///
    /// The lists are read as they stand now: what changed since the policy was built may be missing.
    pub fn explain(&self, group: GroupId, name: &[u8]) -> Result<Vec<Match>, Error> {
        let name = name.to_ascii_lowercase();
        let mut matches = Vec::new();
        let mut take = |rule: Rule, entry: &[u8], list: &str, line, text: &[u8]| {
            if covers(entry, rule.reach, &name) {
                let text = text.trim_ascii();
                let text = String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]).into_owned();
                let effect = match rule.action {
                    Action::Block => Effect::Block,
                    Action::Allow => Effect::Allow,
                };
                let order = (std::cmp::Reverse((self.strength(rule), entry.len())), rule.source);
                matches.push((order, Match { list: list.to_owned(), line, text, effect }));
            }
        };
        for (source, own) in (self.sources.lists.len()..).zip(&self.sources.groups) {
            let Some(source) = u16::try_from(source).ok().filter(|source| self.groups.has(group, *source)) else {
                continue;
            };
            for (action, entry) in &own.rules {
                let rule = Rule { source, action: *action, reach: Reach::Subtree };
                let key = if *action == Action::Allow { "allow" } else { "block" };
                let text = format!("{key} = \"{}\"", entry.to_ascii().trim_end_matches('.'));
                take(rule, &wire_form(entry).to_ascii_lowercase(), &own.name, None, text.as_bytes());
            }
        }
        for (source, list) in self.sources.lists.iter().enumerate() {
            let Some(source) = u16::try_from(source).ok().filter(|source| self.groups.has(group, *source)) else {
                continue;
            };
            let reader = open(&list.source).map_err(|error| list_error(list, error.into()))?;
            parse::read(reader, |line, text, found| {
                if let Found::Name { name: entry, reach, sense } = found {
                    take(
                        Rule { source, action: sense.action(list.action), reach },
                        entry,
                        &list.name,
                        Some(line),
                        text,
                    );
                }
            })
            .map_err(|error| list_error(list, error))?;
        }
        matches.sort_by_key(|(order, _)| *order);
        Ok(matches.into_iter().map(|(_, found)| found).collect())
    }
}

/// Says whether an entry covers a name, both in wire form and lower case.
fn covers(entry: &[u8], reach: Reach, name: &[u8]) -> bool {
    let mut suffix = name;
    loop {
        if suffix == entry {
            return match reach {
                Reach::Exact => suffix.len() == name.len(),
                Reach::Below => suffix.len() < name.len(),
                Reach::Subtree => true,
            };
        }
        let Some(rest) = suffix.first().and_then(|length| suffix.get(1 + usize::from(*length)..)) else { return false };
        if rest.is_empty() || suffix.len() < entry.len() {
            return false;
        }
        suffix = rest;
    }
}

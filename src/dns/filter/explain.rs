//! Which line of which list it was. The table holds neither: the lists are read again when somebody asks.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Asking, Config, Error, Policy,
    build::Rule,
    own::{self, Kind},
    parse::{self, Found, Reach, covers},
    source::{list_error, open},
    terms::Asked,
    verdict::{Lower, Strength},
};
use crate::dns::{Action, List, resolver::name::Name};

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
    /// Something else is answered.
    Rewrite,
}

/// What is kept of the configuration to find rules again.
pub(super) struct Sources {
    state: PathBuf,
    lists: Vec<List>,
}

impl Sources {
    pub(super) fn new(config: &Config) -> Self {
        Self { state: config.state.clone(), lists: config.lists.clone() }
    }

    pub(super) fn lists(&self) -> &[List] {
        &self.lists
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }
}

impl Policy {
    /// Finds every rule that applies to a name in wire form for a client, the one that decides first; blocks.
    ///
    /// The lists are read as they stand now: what changed since the policy was built may be missing.
    pub fn explain(&self, asking: impl Into<Asking>, name: &[u8], qtype: u16) -> Result<Vec<Match>, Error> {
        let asking = asking.into();
        self.asked(asking, &Lower::of(name), qtype, |asked| self.explain_asked(asking, asked))
    }

    fn explain_asked(&self, asking: Asking, asked: &Asked<'_>) -> Result<Vec<Match>, Error> {
        let mut matches = Vec::new();
        let mut take = |strength: Strength, rule: Rule, length: usize, list: &str, line, text: &[u8]| {
            if !(asking.paused && strength.is_paused()) {
                let text = text.trim_ascii();
                let text = String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]).into_owned();
                let effect = match rule.action {
                    _ if strength == Strength::Rewrite => Effect::Rewrite,
                    Action::Block => Effect::Block,
                    Action::Allow => Effect::Allow,
                };
                let order = (std::cmp::Reverse((strength, length)), rule.source);
                matches.push((order, Match { list: list.to_owned(), line, text, effect }));
            }
        };
        for (number, source) in (0..).zip(&self.own.sources) {
            if !self.groups.has_own(asking.group, number) {
                continue;
            }
            for entry in &source.entries {
                let (action, reach) = (entry.action, entry.reach);
                let rule = Rule { source: number, action, reach, important: false, terms: 0 };
                let Some(strength) = self.own_strength(rule, asking.now) else { continue };
                if covers(&entry.name, reach, asked.name) {
                    take(strength, rule, entry.name.len(), &source.name, None, own_text(source, entry).as_bytes());
                }
            }
        }
        for (source, list) in self.sources.lists.iter().enumerate() {
            let Some(source) = u16::try_from(source).ok().filter(|list| self.groups.has_list(asking.group, *list))
            else {
                continue;
            };
            let state = &self.sources.state;
            let opened = open(list, state).map_err(|error| list_error(list, state, error.into()))?;
            parse::read(opened.reader, |line, text, found| {
                let (sense, terms, length) = match found {
                    Found::Name { name: entry, reach, sense, terms } if covers(entry, reach, asked.name) => {
                        (sense, terms, entry.len())
                    }
                    Found::Pattern { expression, sense, terms } if expression.fits(asked.text) => (sense, terms, 0),
                    _ => return,
                };
                if terms.hold(asked) && !terms.bad {
                    let (action, important) = (sense.action(list.action), sense.is_important());
                    let rule = Rule { source, action, reach: Reach::Exact, important, terms: 0 };
                    take(
                        Strength::of_list(list.purpose, rule, Some(terms)),
                        rule,
                        length,
                        &list.name,
                        Some(line),
                        text,
                    );
                }
            })
            .map_err(|error| list_error(list, state, error))?;
        }
        matches.sort_by_key(|(order, _)| *order);
        Ok(matches.into_iter().map(|(_, found)| found).collect())
    }
}

/// Writes one of the house's own rules as its owner would.
fn own_text(source: &own::Source, entry: &own::Entry) -> String {
    let name = Name::from_wire(&entry.name).map_or_else(String::new, |name| name.to_string());
    let name = name.trim_end_matches('.');
    let key = match (source.kind, entry.action) {
        (Kind::Service, _) => return format!("services = \"{}\" ({name})", source.name),
        (Kind::Kept | Kind::Past, _) => return name.to_owned(),
        (Kind::Written, Action::Allow) => "allow",
        (Kind::Written, Action::Block) => "block",
    };
    match i64::try_from(source.until).map(jiff::Timestamp::from_second) {
        Ok(Ok(until)) => format!("{key} = \"{name}\" until {until}"),
        _ => format!("{key} = \"{name}\""),
    }
}

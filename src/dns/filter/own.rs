//! The rules that come from no list: what the owner wrote into groups, what commands added, services that are
//! blocked, and what keeps clients with the house. They have a small table of their own, made in a moment, so
//! that a change of one applies at once, however long the lists are.

use std::path::Path;

use super::{
    Error,
    build::{Builder, Rule, RuleSets},
    data,
    disk::{Out, Whole, damaged},
    key::Seed,
    parse::Reach,
    table::Table,
    terms::Terms,
    wire_form,
};
use crate::dns::{Action, Config, ListSource};

/// The table, and where its rules come from.
pub(super) struct Own {
    pub(super) table: Table,
    pub(super) sets: RuleSets,
    pub(super) sources: Vec<Source>,
}

/// Where rules come from.
pub(super) struct Source {
    pub(super) kind: Kind,
    /// What it is called, for people.
    pub(super) name: String,
    /// Seconds since 1970 at which it ends.
    pub(super) until: u64,
    /// Whose it is.
    members: Members,
    /// Its names, as they were written.
    pub(super) entries: Vec<Entry>,
}

/// A name and what is said of it.
pub(super) struct Entry {
    pub(super) name: Box<[u8]>,
    pub(super) action: Action,
    pub(super) reach: Reach,
}

/// What kind of rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Names that no list can break.
    Kept,
    /// What leads past the house.
    Past,
    /// A service that a group does without.
    Service,
    /// The owner's words.
    Written,
}

/// For whom rules hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Members {
    All,
    /// The groups whose clients are kept with the house.
    Kept,
    /// The group at this place of the configuration.
    Group(usize),
    /// The groups that do without this service.
    Without(&'static str),
}

impl Source {
    fn new(kind: Kind, name: impl Into<String>, members: Members) -> Self {
        Self { kind, name: name.into(), until: u64::MAX, members, entries: Vec::new() }
    }

    fn add(&mut self, action: Action, reach: Reach, names: impl IntoIterator<Item = Box<[u8]>>) {
        self.entries.extend(names.into_iter().map(|mut name| {
            name.make_ascii_lowercase();
            Entry { name, action, reach }
        }));
    }

    /// Says whether it holds for the group at this place of the configuration; `None` is for everybody who is in
    /// none while there is no group at all.
    pub(super) fn holds_for(&self, config: &Config, group: Option<usize>) -> bool {
        let group = group.and_then(|place| Some((place, config.groups.get(place)?)));
        match self.members {
            Members::All => true,
            Members::Kept => config.keep_clients && group.is_none_or(|(_, group)| group.keep_clients),
            Members::Group(wanted) => group.is_some_and(|(place, _)| place == wanted),
            Members::Without(service) => group.is_some_and(|(_, group)| group.services.contains(&service)),
        }
    }
}

impl Own {
    /// Compiles the rules with the seed that the lists' table has.
    pub(super) fn build(config: &Config, seed: Seed) -> Result<Self, Error> {
        let sources = sources(config);
        let mut builder = Builder::new(seed, Path::new(""));
        for (place, source) in sources.iter().enumerate() {
            let number = u16::try_from(place).map_err(|_| Error::TooMany)?;
            for entry in &source.entries {
                let (action, reach) = (entry.action, entry.reach);
                let rule = Rule { source: number, action, reach, important: false, terms: 0 };
                builder.add(&entry.name, rule, &Terms::default()).map_err(|_| Error::TooMany)?;
            }
        }
        let mut out = Out::memory();
        let (shards, sets) = builder.finish(&mut [], &mut out).map_err(Error::Sort)?;
        let octets = out.finish(Whole::No, |_| Ok(())).map_err(Error::Sort)?;
        let table = Table::new(octets, shards).ok_or_else(|| Error::Sort(damaged()))?;
        Ok(Self { table, sets, sources })
    }
}

fn sources(config: &Config) -> Vec<Source> {
    let wires = |names: &mut dyn Iterator<Item = &'static str>| names.filter_map(data::wire).collect::<Vec<_>>();
    let mut sources = Vec::new();

    // A list of everything must not shut the owner out, nor keep the lists from being mended.
    let mut house = Source::new(Kind::Kept, "the house", Members::All);
    if !config.domain.is_root() {
        house.add(Action::Allow, Reach::Subtree, [wire_form(&config.domain).into()]);
    }
    house.add(Action::Allow, Reach::Exact, config.routes.names.iter().map(|route| wire_form(&route.host).into()));
    house.add(
        Action::Allow,
        Reach::Exact,
        config.lists.iter().filter_map(|list| match &list.source {
            ListSource::Url(url) => data::wire(url.host()?),
            ListSource::Path(_) | ListSource::Inline(_) => None,
        }),
    );
    sources.push(house);

    if config.keep_clients {
        let mut online = Source::new(Kind::Kept, "keep_clients: a connectivity check", Members::Kept);
        online.add(Action::Allow, Reach::Exact, wires(&mut data::connectivity()));
        sources.push(online);
        let mut canaries = Source::new(Kind::Past, "keep_clients: a canary", Members::Kept);
        canaries.add(Action::Block, Reach::Exact, data::canaries());
        sources.push(canaries);
        let mut past = Source::new(Kind::Past, "keep_clients: a public encrypted server", Members::Kept);
        past.add(Action::Block, Reach::Subtree, wires(&mut data::encrypted_servers()));
        sources.push(past);
    }

    for service in data::services() {
        if config.groups.iter().any(|group| group.services.contains(&service)) {
            let mut source = Source::new(Kind::Service, service, Members::Without(service));
            source.add(Action::Block, Reach::Subtree, wires(&mut data::domains_of(service)));
            sources.push(source);
        }
    }

    for (place, group) in config.groups.iter().enumerate() {
        let mut source = Source::new(Kind::Written, &group.name, Members::Group(place));
        for (action, names) in [(Action::Allow, &group.allow), (Action::Block, &group.block)] {
            source.add(action, Reach::Subtree, names.iter().map(|name| wire_form(name).into()));
        }
        sources.push(source);
    }

    for rule in &config.rules {
        let members = match &rule.group {
            None => Members::All,
            Some(name) => match config.groups.iter().position(|group| group.name == *name) {
                Some(place) => Members::Group(place),
                None => continue,
            },
        };
        let mut source = Source::new(Kind::Written, rule.group.as_deref().unwrap_or("every group"), members);
        source.until = rule.until.unwrap_or(u64::MAX);
        source.add(rule.action, Reach::Subtree, [wire_form(&rule.name).into()]);
        sources.push(source);
    }
    sources
}

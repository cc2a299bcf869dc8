//! What is blocked for whom.
//!
//! A question arrives with its client: [`Policy::group_of`] says which group the client is in, and
//! [`Policy::verdict`] what that group's rules say about the name. It looks up every suffix of the name,
//! from the top-level domain down, in one table for all lists (`table.rs`) and a small one for everything else
//! (`own.rs`); a rule set that is found there says which lists and groups put the name in, and whether what is
//! below is meant too. Of the rules that apply to the group the strongest wins:
//!
//! 1. the group's own `allow`, and what `hearthgate allow` added,
//! 2. the group's own `block`, and what `hearthgate block` added,
//! 3. a service that the group does without,
//! 4. `keep_clients`: what leads past the house, also by lists for that,
//! 5. names that no list can break: the house's own, its lists' servers, connectivity checks,
//! 6. another answer that a list gives (`$dnsrewrite`, local data of a policy zone),
//! 7. what a list calls `$important`: an exception, then a block,
//! 8. an allow list, or an exception in a block list,
//! 9. a block list.
//!
//! Among equals the longest name is the one that is told, then the list that stands first. Names that an owner
//! writes into a group cover everything below them; those of lists do as their format says (`parse.rs`).

mod asking;
mod build;
mod check;
mod compile;
mod data;
mod disk;
mod explain;
mod fetch;
mod glob;
mod group;
mod kept;
mod key;
mod mapping;
mod members;
mod name;
mod needs;
mod own;
mod parse;
mod patterns;
mod reason;
mod runs;
mod source;
mod special;
mod table;
mod terms;
mod verdict;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

pub use asking::Asking;
pub use check::{Contents, Ignored, contents};
pub use data::{all_engines, engines, services};
pub use explain::{Effect, Match};
pub use fetch::{Bounds, FetchError, Fetched, Fetcher, Validators};
pub use group::GroupId;
pub(crate) use kept::{Fetch, KeepError};
pub(crate) use members::{Activity, Member, Members};
pub use parse::{Reach, ReadError};
pub use reason::Reason;
pub use verdict::Rewrite;

pub use crate::week::{Spans, WeekSpan};

use self::{
    asking::Pauses,
    build::RuleSets,
    compile::{compile, key_of, table_file},
    explain::Sources,
    group::Groups,
    kept::Kept,
    key::Seed,
    own::Own,
    source::Stamp,
    table::Table,
    terms::Asked,
    verdict::Lower,
};
use super::{BlockAs, Client, ClientName, Config, List, ListSource, Purpose, Rebind};
use crate::{
    neighbours::Mac,
    origin::{Origin, PeerId},
};

/// The rules of all groups, ready to be asked.
pub struct Policy {
    compiled: Arc<Compiled>,
    own: Own,
    groups: Groups,
    pauses: Pauses,
    /// What peers are called.
    peers: Vec<(PeerId, String)>,
    lists: Vec<ListRules>,
    sources: Sources,
    /// What each list was when it was read; `None` for those that are off.
    stamps: Vec<Option<Stamp>>,
}

/// What the lists say about names. It is made anew only if they are others than before.
struct Compiled {
    key: disk::Key,
    seed: Seed,
    table: Table,
    sets: RuleSets,
    statuses: Vec<ListStatus>,
}

/// What a verdict needs to know of a list.
struct ListRules {
    name: String,
    purpose: Purpose,
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
    /// Something else is answered.
    Rewrite {
        /// What.
        rewrite: Rewrite,
        /// Who says so.
        source: RuleSource,
    },
    /// Nothing is answered at all.
    Silence(RuleSource),
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleSource {
    /// The list at this place of [`Config::lists`].
    List(u16),
    /// The `allow` or `block` of the client's group.
    Group(GroupId),
    /// A service that the client's group does without.
    Service(u16),
    /// What keeps clients with the house.
    Past(u16),
    /// Names that no list can break.
    Kept(u16),
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
    /// Patterns and regular expressions.
    #[serde(default)]
    pub patterns: u64,
    /// Things that were not taken.
    pub ignored: u64,
    /// Why, with how many.
    pub reasons: Vec<(String, u64)>,
    /// Bytes read.
    pub bytes: u64,
    /// When the server of a list that is fetched was last heard, in seconds since 1970.
    pub checked: Option<u64>,
    /// What keeps it from being as its owner wants it.
    pub problem: Option<String>,
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
    /// Builds the policy from the lists, or from what was made of them before if they are still the same: in the
    /// policy in force, or in the state folder. Blocks. Tells what became of each enabled list.
    pub fn build(config: &Config, before: Option<&Self>) -> Result<(Self, Vec<ListStatus>), Error> {
        let stamp = |list: &List| list.enabled.then(|| Stamp::now(list, &config.state));
        let mut stamps: Vec<_> = config.lists.iter().map(stamp).collect();
        let key = key_of(config, &stamps);
        let kept = table_file(config);
        let compiled = match before.filter(|before| before.compiled.key == key) {
            Some(before) => before.compiled.clone(),
            None => match kept.as_ref().and_then(|kept| disk::read(kept, key).ok()) {
                Some(compiled) => Arc::new(compiled),
                None => Arc::new(compile(config, &mut stamps, kept.as_deref())?),
            },
        };
        let mut statuses = compiled.statuses.clone();
        for (status, list) in statuses.iter_mut().zip(config.lists.iter().filter(|list| list.enabled)) {
            tell_kept(status, list, &config.state);
        }
        let rules = |list: &List| ListRules { name: list.name.clone(), purpose: list.purpose, block_as: list.block_as };
        let lists = config.lists.iter().map(rules);
        let own = Own::build(config, compiled.seed)?;
        let groups = Groups::build(config, &own).ok_or(Error::TooMany)?;
        let pauses = Pauses::new(config, &groups);
        let (lists, sources, peers) = (lists.collect(), Sources::new(config), config.directory.peers.clone());
        Ok((Self { compiled, own, groups, pauses, peers, lists, sources, stamps }, statuses))
    }

    /// Says which group a client is in: a peer by its key, a device by its MAC address, then by its DHCP name,
    /// whatever addresses it has; else by what it calls itself over an encrypted transport, which nobody proves,
    /// else by the longest prefix around its address, else `default`. What comes through a gateway that speaks for others is in the group
    /// `router`, which has the rules of `default` unless the owner wrote one of that name.
    pub fn group_of(&self, client: &Client) -> GroupId {
        self.groups.of(&self.groups.members().load(), client)
    }

    /// Says which group's prefixes hold an address.
    pub(crate) fn group_of_address(&self, address: IpAddr) -> Option<GroupId> {
        self.groups.of_address(address)
    }

    /// Says which group a device is put into by its MAC address or DHCP name, or because it is new.
    pub(crate) fn group_of_device(&self, mac: Option<Mac>, name: Option<&str>, is_new: bool) -> Option<GroupId> {
        self.groups.of_device(mac, name, is_new)
    }

    /// Says whether devices are told apart by more than their addresses.
    pub(crate) fn knows_devices(&self) -> bool {
        self.groups.knows_devices()
    }

    /// Returns the addresses whose device is known.
    pub(crate) const fn members(&self) -> &ArcSwap<Members> {
        self.groups.members()
    }

    /// Lets schedules be what they are at this second since 1970.
    #[inline]
    pub fn keep_time(&self, now: u64) {
        self.groups.keep_time(now);
    }

    /// Says whether only names of the house are answered to a group at this moment.
    #[inline]
    pub fn is_offline(&self, group: GroupId) -> bool {
        self.groups.is_offline(group)
    }

    /// Says who a client is to the rules at a moment, in seconds since 1970.
    pub fn asking(&self, client: &Client, now: u64) -> Asking {
        self.asking_among(&self.groups.members().load(), client, now)
    }

    /// The same, for who looked up the known addresses before.
    pub(crate) fn asking_among(&self, members: &Members, client: &Client, now: u64) -> Asking {
        let group = self.groups.of(members, client);
        let address = client.address.to_canonical();
        let paused = !self.pauses.is_empty() && self.pauses.cover(client, group, now, members);
        Asking { group, address, origin: client.origin, name: client.name, now, paused }
    }

    /// Returns the name that a search engine's name is answered as for a client, both in wire form.
    pub fn safe_search(&self, asking: Asking, name: &[u8]) -> Option<&[u8]> {
        self.groups.safe(asking.group, name).filter(|_| !asking.paused)
    }

    /// Says what becomes of public names that lead a client into the house.
    pub fn rebind(&self, asking: Asking) -> Rebind {
        self.groups.rebind(asking.group)
    }

    /// Returns what the owner calls the list or group that a rule comes from.
    pub fn source_name(&self, source: RuleSource) -> &str {
        match source {
            RuleSource::List(list) => self.lists.get(usize::from(list)).map_or("", |list| &list.name),
            RuleSource::Group(group) => self.groups.name(group),
            RuleSource::Service(source) | RuleSource::Past(source) | RuleSource::Kept(source) => {
                self.own.sources.get(usize::from(source)).map_or("", |source| &source.name)
            }
        }
    }

    /// Puts a question together with what is known of its client.
    fn asked<R>(&self, asking: Asking, lower: &Lower, qtype: u16, then: impl FnOnce(&Asked<'_>) -> R) -> R {
        let members = self.groups.members().load();
        let member = members.find(asking.address);
        let peer = match asking.origin {
            Origin::Vpn(peer) => self.peers.iter().find(|(id, _)| *id == peer).map(|(_, name)| name.as_str()),
            Origin::Wan | Origin::Lan(_) => None,
        };
        let dhcp = member.and_then(|member| member.name.as_deref());
        then(&Asked {
            name: lower.wire(),
            text: lower.text(),
            qtype,
            client: asking.address,
            group: self.groups.name(asking.group),
            called: [dhcp, asking.name.as_ref().map(ClientName::as_str), peer],
            mac: member.and_then(|member| member.mac),
        })
    }

    /// Says whether a rule keeps clients with the house.
    pub(crate) fn leads_past(&self, source: RuleSource) -> bool {
        match source {
            RuleSource::Past(_) => true,
            RuleSource::List(list) => {
                self.lists.get(usize::from(list)).is_some_and(|list| list.purpose == Purpose::KeepClients)
            }
            _ => false,
        }
    }

    /// Returns the name, as text, by which one of the house's own rules covers another one in wire form.
    pub(crate) fn own_entry(&self, source: RuleSource, name: &[u8]) -> Option<String> {
        let (RuleSource::Service(source) | RuleSource::Past(source) | RuleSource::Kept(source)) = source else {
            return None;
        };
        let lower = name.to_ascii_lowercase();
        let entries = &self.own.sources.get(usize::from(source))?.entries;
        let entry = entries.iter().find(|entry| parse::covers(&entry.name, entry.reach, &lower))?;
        let text = crate::dns::resolver::name::Name::from_wire(&entry.name)?.to_string();
        Some(text.trim_end_matches('.').to_owned())
    }

    /// Says which connectivity checks lists would break for a group if they could.
    pub(crate) fn broken_checks(&self, config: &Config) -> Vec<String> {
        let mut found = Vec::new();
        for group in (0..self.group_count()).filter_map(GroupId::at) {
            for name in data::connectivity() {
                let Some(wire) = data::wire(name) else { continue };
                let kept = matches!(self.verdict(group, &wire, 1), Verdict::Allow(RuleSource::Kept(_)));
                if let Some(list) = self.list_that_blocks(group, &wire).filter(|_| kept && config.keep_clients) {
                    found.push(format!(
                        "list \"{list}\" blocks \"{name}\", by which devices find out that they are online: it is let \
                         through for the group \"{group}\" while keep_clients is on there",
                        group = self.group_name(group)
                    ));
                }
            }
        }
        found
    }

    /// Says whether the lists that are fetched are still those that it was built from; reads the folder they are
    /// kept in.
    pub(crate) fn is_current(&self) -> bool {
        self.sources.lists().iter().zip(&self.stamps).all(|(list, stamp)| {
            let fetched = matches!(list.source, ListSource::Url(_));
            stamp.as_ref().is_none_or(|stamp| !fetched || *stamp == Stamp::now(list, self.sources.state()))
        })
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
    pub fn names(&self) -> usize {
        self.compiled.table.names() + self.own.table.names()
    }

    /// Returns the bytes that the names and their rules take.
    pub fn bytes(&self) -> usize {
        [(&self.compiled.table, &self.compiled.sets), (&self.own.table, &self.own.sets)]
            .iter()
            .map(|(table, sets)| table.bytes() + sets.bytes())
            .sum()
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policy({} names, {} bytes)", self.names(), self.bytes())
    }
}

/// Puts what is known of a fetched list into its status.
fn tell_kept(status: &mut ListStatus, list: &List, state: &Path) {
    let ListSource::Url(url) = &list.source else { return };
    let kept = Kept::new(state, &list.name);
    if let Some(known) = kept.known(url) {
        status.checked = Some(known.checked);
        status.problem = kept.held(&known).or(status.problem.take());
    }
}

/// Returns when the server of a list was last heard, in seconds since 1970, if what it gave is kept.
pub(crate) fn last_heard(list: &List, state: &Path) -> Option<u64> {
    match &list.source {
        ListSource::Url(url) => Kept::new(state, &list.name).known(url).map(|known| known.checked),
        ListSource::Path(_) | ListSource::Inline(_) => None,
    }
}

/// Fetches a list into the state folder if its server has another one.
pub(crate) async fn fetch(fetcher: &Fetcher, list: &List, state: &Path, now: u64) -> Result<Fetch, KeepError> {
    match &list.source {
        ListSource::Url(url) => Kept::new(state, &list.name).refresh(fetcher, url, now).await,
        ListSource::Path(_) | ListSource::Inline(_) => Ok(Fetch::Unchanged),
    }
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

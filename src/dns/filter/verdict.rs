//! What the rules say: every rule that applies to a question is heard, and the strongest wins.

use std::net::IpAddr;

use super::{
    Asking, Compiled, GroupId, Policy, RuleSource, Verdict,
    build::Rule,
    own::Kind,
    parse::Reach,
    special::net_name,
    terms::{Gives, Terms},
};
use crate::dns::{Action, BlockAs, Purpose, query::MAX_NAME};

/// How strong a rule is, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    ListBlock,
    ListAllow,
    ImportantBlock,
    ImportantAllow,
    Rewrite,
    Kept,
    /// A list's, of what leads past the house.
    PastList,
    Past,
    Service,
    GroupBlock,
    GroupAllow,
}

impl Strength {
    /// Says whether a pause puts it out of force. What leads past the house stays: a browser that found it once
    /// would not come back when the pause is over.
    pub(super) const fn is_paused(self) -> bool {
        matches!(self, Self::ListBlock | Self::ImportantBlock | Self::Rewrite | Self::Service | Self::GroupBlock)
    }

    /// Returns the strength of a rule of a list for this purpose.
    pub(super) fn of_list(purpose: Purpose, rule: Rule, terms: Option<&Terms>) -> Self {
        match rule.action {
            Action::Block if purpose == Purpose::KeepClients => Self::PastList,
            Action::Block if terms.is_some_and(Terms::rewrites) => Self::Rewrite,
            Action::Block if rule.important => Self::ImportantBlock,
            Action::Allow if rule.important => Self::ImportantAllow,
            Action::Block => Self::ListBlock,
            Action::Allow => Self::ListAllow,
        }
    }
}

/// Another answer that a list gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    terms: u16,
    source: u16,
    /// The name's key and the set of rules there; a pattern has none.
    at: Option<(u64, u16)>,
}

impl Policy {
    /// Says what the rules are for a client and a name in wire form, in whatever case. What is no name passes.
    ///
    /// Takes no lock, and allocates nothing unless a name has what some pattern needs.
    pub fn verdict(&self, asking: impl Into<Asking>, name: &[u8], qtype: u16) -> Verdict {
        let Compiled { seed, table, .. } = &*self.compiled;
        let Some(suffixes) = seed.suffixes(name) else { return Verdict::Pass };
        let mut hearing = Hearing::new(self, asking.into(), name, qtype);
        for suffix in suffixes {
            hearing.here = false;
            table.find(suffix.key, |set| hearing.set(suffix.key, set, suffix.whole));
            self.own.table.find(suffix.key, |set| {
                for rule in self.own.sets.rules(suffix.key, set) {
                    hearing.own_rule(rule, suffix.whole);
                }
            });
        }
        self.hear_patterns(&mut hearing, name);
        hearing.verdict()
    }

    /// Returns the list by which a name would be blocked for a group if there were lists only.
    pub(super) fn list_that_blocks(&self, group: GroupId, name: &[u8]) -> Option<&str> {
        let Compiled { seed, table, .. } = &*self.compiled;
        let mut hearing = Hearing::new(self, group.into(), name, 1);
        for suffix in seed.suffixes(name)? {
            hearing.here = false;
            table.find(suffix.key, |set| hearing.set(suffix.key, set, suffix.whole));
        }
        self.hear_patterns(&mut hearing, name);
        match hearing.verdict() {
            Verdict::Block { source, .. } | Verdict::Rewrite { source, .. } | Verdict::Silence(source) => {
                Some(self.source_name(source))
            }
            Verdict::Pass | Verdict::Allow(_) => None,
        }
    }

    fn hear_patterns(&self, hearing: &mut Hearing<'_>, name: &[u8]) {
        let sets = &self.compiled.sets;
        let patterns = &sets.special.patterns;
        if !patterns.is_empty() {
            hearing.here = true;
            let lower = Lower::of(name);
            patterns.find(lower.text(), |number| {
                if let Some(rule) = sets.rule(number).filter(|rule| hearing.has(*rule)) {
                    hearing.list_rule(rule, None);
                }
            });
        }
    }

    /// Says what the rules are for an address that a name leads to.
    pub fn verdict_on_address(&self, asking: Asking, name: &[u8], qtype: u16, address: IpAddr) -> Verdict {
        let Compiled { seed, table, sets, .. } = &*self.compiled;
        let mut hearing = Hearing::new(self, asking, name, qtype);
        for net in sets.special.nets.around(address) {
            if let Some(key) = seed.key(&net_name(net)) {
                table.find(key, |set| hearing.set(key, set, true));
            }
        }
        hearing.verdict()
    }

    /// Says whether some rule is about addresses.
    pub fn judges_addresses(&self) -> bool {
        !self.compiled.sets.special.nets.is_empty()
    }

    /// Returns the name in wire form that is answered instead, if it is one.
    pub fn alias(&self, rewrite: Rewrite) -> Option<&[u8]> {
        match self.compiled.sets.special.terms(rewrite.terms)?.gives.as_ref()? {
            Gives::Alias(name) => Some(name),
            _ => None,
        }
    }

    /// Calls `found` with the data of each record of a type that is answered instead.
    pub fn records(&self, rewrite: Rewrite, qtype: u16, mut found: impl FnMut(&[u8])) {
        let special = &self.compiled.sets.special;
        let mut give = |terms| match special.terms(terms).and_then(|terms| terms.gives.as_ref()) {
            Some(Gives::Record(rtype, data)) if *rtype == qtype => found(data),
            _ => {}
        };
        match rewrite.at {
            None => give(rewrite.terms),
            Some((key, set)) => {
                let rules = self.compiled.sets.rules(key, set);
                let same = rules.filter(|rule| rule.source == rewrite.source && rule.action == Action::Block);
                same.for_each(|rule| give(rule.terms));
            }
        }
    }

    fn purpose(&self, rule: Rule) -> Purpose {
        self.lists.get(usize::from(rule.source)).map_or(Purpose::Filter, |list| list.purpose)
    }

    /// Returns how strong one of the house's own rules is; `None` if its time is over.
    pub(super) fn own_strength(&self, rule: Rule, now: u64) -> Option<Strength> {
        let source = self.own.sources.get(usize::from(rule.source)).filter(|source| source.until > now)?;
        Some(match (source.kind, rule.action) {
            (Kind::Kept, _) => Strength::Kept,
            (Kind::Past, _) => Strength::Past,
            (Kind::Service, _) => Strength::Service,
            (Kind::Written, Action::Block) => Strength::GroupBlock,
            (Kind::Written, Action::Allow) => Strength::GroupAllow,
        })
    }

    fn verdict_of(&self, group: GroupId, strength: Strength, rule: Rule) -> Verdict {
        let (source, answer) = match strength {
            Strength::GroupAllow | Strength::GroupBlock => (RuleSource::Group(group), BlockAs::Null),
            Strength::Service => (RuleSource::Service(rule.source), BlockAs::Null),
            // To a canary a null address says the opposite.
            Strength::Past => (RuleSource::Past(rule.source), BlockAs::NxDomain),
            Strength::Kept => (RuleSource::Kept(rule.source), BlockAs::Null),
            _ => {
                let source = RuleSource::List(rule.source);
                let block_as = self.lists.get(usize::from(rule.source)).map_or(BlockAs::Null, |list| list.block_as);
                let gives = self.compiled.sets.special.terms(rule.terms).and_then(|terms| terms.gives.as_ref());
                // What the owner wrote for the list wins over what the list wants.
                let answer = match (block_as, gives) {
                    (_, Some(Gives::Silence)) if rule.action == Action::Block => return Verdict::Silence(source),
                    (BlockAs::Null, Some(Gives::NxDomain)) => BlockAs::NxDomain,
                    (BlockAs::Null, Some(Gives::NoData)) => BlockAs::NoData,
                    (BlockAs::Null, Some(Gives::Refused)) => BlockAs::Refused,
                    _ => block_as,
                };
                (source, answer)
            }
        };
        match rule.action {
            Action::Allow => Verdict::Allow(source),
            Action::Block => Verdict::Block { answer, source },
        }
    }
}

/// A question while its rules are heard.
struct Hearing<'a> {
    policy: &'a Policy,
    asking: Asking,
    name: &'a [u8],
    qtype: u16,
    best: Option<(Strength, Rule)>,
    /// The best was found at the name that is looked at now.
    here: bool,
    rewrite: Option<(bool, Rewrite)>,
    /// No other answer is given, or not this one.
    no_rewrite: bool,
    not_this: Option<u16>,
}

impl<'a> Hearing<'a> {
    fn new(policy: &'a Policy, asking: Asking, name: &'a [u8], qtype: u16) -> Self {
        let (best, rewrite, not_this) = (None, None, None);
        Self { policy, asking, name, qtype, best, here: false, rewrite, no_rewrite: false, not_this }
    }

    fn has(&self, rule: Rule) -> bool {
        self.policy.groups.has_list(self.asking.group, rule.source)
    }

    /// Hears the rules of lists that stand together.
    #[inline]
    fn set(&mut self, key: u64, set: u16, whole: bool) {
        let sets = &self.policy.compiled.sets;
        for rule in sets.rules(key, set) {
            if !reaches(rule.reach, whole) || !self.has(rule) {
                continue;
            }
            let cancels = |bad: Rule| {
                sets.special.cancels(bad.terms, rule.terms)
                    && (bad.action, bad.reach, bad.important) == (rule.action, rule.reach, rule.important)
                    && self.has(bad)
            };
            if sets.special.any_bad() && sets.rules(key, set).any(cancels) {
                continue;
            }
            self.list_rule(rule, Some((key, set)));
        }
    }

    fn list_rule(&mut self, rule: Rule, at: Option<(u64, u16)>) {
        if rule.terms == 0 {
            return self.judge(Strength::of_list(self.policy.purpose(rule), rule, None), rule);
        }
        let Some(terms) = self.policy.compiled.sets.special.terms(rule.terms) else { return };
        if terms.bad || !self.hold(terms) {
            return;
        }
        match (&terms.gives, rule.action) {
            (Some(Gives::AnyRewrite), Action::Allow) => self.no_rewrite = true,
            (Some(gives), Action::Allow) if gives.is_rewrite() => self.not_this = Some(rule.terms),
            (Some(gives), Action::Block) if gives.is_rewrite() => {
                // A record of the type that was asked for, or a name for any, before one of another type.
                let fits = !matches!(gives, Gives::Record(rtype, _) if *rtype != self.qtype);
                if self.rewrite.is_none_or(|(fitting, _)| fits >= fitting) {
                    self.rewrite = Some((fits, Rewrite { terms: rule.terms, source: rule.source, at }));
                }
            }
            _ => self.judge(Strength::of_list(self.policy.purpose(rule), rule, Some(terms)), rule),
        }
    }

    fn own_rule(&mut self, rule: Rule, whole: bool) {
        if reaches(rule.reach, whole)
            && self.policy.groups.has_own(self.asking.group, rule.source)
            && let Some(strength) = self.policy.own_strength(rule, self.asking.now)
        {
            self.judge(strength, rule);
        }
    }

    #[inline]
    fn judge(&mut self, strength: Strength, rule: Rule) {
        if self.asking.paused && strength.is_paused() {
            return;
        }
        // A rule found before at this very name stands in a list before this one.
        if self.best.is_none_or(|(best, _)| strength > best || strength == best && !self.here) {
            self.here = true;
            self.best = Some((strength, rule));
        }
    }

    #[cold]
    fn hold(&self, terms: &Terms) -> bool {
        self.policy.asked(self.asking, &Lower::of(self.name), self.qtype, |asked| terms.hold(asked))
    }

    fn verdict(self) -> Verdict {
        let strongest = self.best.map(|(strength, _)| strength);
        if let Some((_, rewrite)) = self.rewrite
            && !self.no_rewrite
            && !self.asking.paused
            && self.not_this != Some(rewrite.terms)
            && strongest.is_none_or(|strength| strength < Strength::Rewrite)
        {
            return Verdict::Rewrite { rewrite, source: RuleSource::List(rewrite.source) };
        }
        let group = self.asking.group;
        self.best.map_or(Verdict::Pass, |(strength, rule)| self.policy.verdict_of(group, strength, rule))
    }
}

fn reaches(reach: Reach, whole: bool) -> bool {
    match reach {
        Reach::Exact => whole,
        Reach::Below => !whole,
        Reach::Subtree => true,
    }
}

/// A name in lower case, as it goes over the wire and as text.
pub(super) struct Lower {
    wire: [u8; MAX_NAME],
    text: [u8; MAX_NAME],
    length: usize,
}

impl Lower {
    /// Takes a name in wire form.
    pub(super) fn of(name: &[u8]) -> Self {
        let (mut wire, mut text) = ([0; MAX_NAME], [0; MAX_NAME]);
        let length = name.len().min(MAX_NAME);
        for (to, octet) in wire.iter_mut().zip(name) {
            *to = octet.to_ascii_lowercase();
        }
        let mut at = 0;
        while let Some(label @ 1..) = wire.get(at).map(|label| usize::from(*label)) {
            let (from, to) = (at + 1, at + 1 + label);
            let (Some(octets), Some(place)) = (wire.get(from..to), text.get_mut(at..to)) else { break };
            // The dot stands where the length of the next label does.
            let (letters, dot) = place.split_at_mut(label);
            letters.copy_from_slice(octets);
            dot.fill(b'.');
            at = to;
        }
        Self { wire, text, length }
    }

    pub(super) fn wire(&self) -> &[u8] {
        self.wire.get(..self.length).unwrap_or_default()
    }

    /// Returns the name without the last dot.
    pub(super) fn text(&self) -> &[u8] {
        self.text.get(..self.length.saturating_sub(2)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_text() {
        let lower = Lower::of(b"\x03Ads\x07EXAMPLE\x00");

        assert_eq!(lower.text(), b"ads.example");
        assert_eq!(lower.wire(), b"\x03ads\x07example\x00");
        assert_eq!(Lower::of(b"\x00").text(), b"");
    }
}

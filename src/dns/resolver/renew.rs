//! Renewal: an answer that is asked for again before it expires is fetched anew meanwhile.

use std::time::Duration;

use super::{
    Resolver,
    cache::{ANY_TYPE, Kept},
    course::Now,
    name::Name,
    wire::{Question, rtype, target},
};

/// A chain of aliases is looked at no further.
const LONGEST_CHAIN: usize = 12;

impl Resolver {
    /// Forgets what makes the answer to a question expire, so that the next one to ask gets it renewed.
    pub fn forget_ending(&mut self, question: &Question, now: Now) {
        let chain = self.chain(question, now);
        let Some(least) = chain.iter().map(|(_, _, left)| *left).min() else { return };
        let mut cache = self.shared.cache.borrow_mut();
        // What would be next to expire is renewed along with it.
        for (name, kind, _) in chain.iter().filter(|(_, _, left)| *left <= least * 2) {
            cache.remove(name, *kind);
        }
    }

    /// Forgets all that the answer to a question is made of.
    pub(super) fn forget_answer(&mut self, question: &Question, now: Now) {
        let chain = self.chain(question, now);
        let mut cache = self.shared.cache.borrow_mut();
        for (name, kind, _) in &chain {
            cache.remove(name, *kind);
        }
    }

    /// Finds what is cached of a question, alias by alias, with the time that each holds.
    fn chain(&self, question: &Question, now: Now) -> Vec<(Name, u16, Duration)> {
        let now = now.since_start;
        let mut cache = self.shared.cache.borrow_mut();
        let mut chain: Vec<(Name, u16, Duration)> = Vec::new();
        let mut name = question.name.clone();
        while chain.len() < LONGEST_CHAIN {
            let known = [question.rtype, rtype::CNAME, ANY_TYPE]
                .into_iter()
                .find_map(|kind| Some((kind, cache.fresh(&name, kind, now)?)));
            let Some((kind, entry)) = known else { break };
            chain.push((name, kind, entry.expires.saturating_sub(now)));
            let next = match &entry.kept {
                Kept::Set(set, _) if kind != question.rtype => set.data.first().and_then(|data| target(data)),
                _ => None,
            };
            let Some(next) = next else { break };
            name = next;
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dns::resolver::{
        Config,
        cache::Entry,
        rrset::{Rrset, Security},
    };

    #[test]
    fn only_the_links_of_a_chain_that_end_are_forgotten() {
        let mut resolver = Resolver::new(Config::default(), |bytes| bytes.fill(0));
        let name = |text: &str| Name::parse(text).unwrap();
        let keep = |owner: &str, rtype, data: &[u8], left: u64| {
            let set = Rrset { name: name(owner), rtype, ttl: 300, data: vec![data.into()], signatures: Vec::new() };
            let kept = Kept::Set(Arc::new(set), Vec::new());
            let expires = Duration::from_secs(100 + left);
            let entry = Entry { kept, security: Security::Insecure, why: None, since: Duration::ZERO, expires };
            resolver.shared.cache.borrow_mut().insert(&name(owner), rtype, entry);
        };
        keep("www.example", rtype::CNAME, name("b.example").as_wire(), 200);
        keep("b.example", rtype::A, &[192, 0, 2, 1], 10);
        let now = Now { since_start: Duration::from_secs(100), wall: 0 };

        resolver.forget_ending(&Question { name: name("www.example"), rtype: rtype::A }, now);

        let mut cache = resolver.shared.cache.borrow_mut();
        assert!(cache.get(&name("www.example"), rtype::CNAME).is_some());
        assert!(cache.get(&name("b.example"), rtype::A).is_none());
    }
}

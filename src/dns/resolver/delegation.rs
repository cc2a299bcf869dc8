//! Delegations: which servers a zone has, as its parent says.
//!
//! They come from referrals alone and live no longer than the parent gave them: what the child says of
//! its own servers neither replaces nor prolongs them, so a domain that was taken away is gone when the
//! parent's TTL ends.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use super::{Fallback, contact::Contact, name::Name};

/// How many zone cuts are remembered; the oldest goes first.
const MOST_CUTS: usize = 8192;
/// How many of them are of one domain: who has a domain can make up any number below it.
const MOST_OF_DOMAIN: usize = 256;
/// How many bytes they take at most.
const MOST_BYTES: usize = 2 << 20;
/// The part of them that one domain can take.
const SHARE: usize = 8;
/// How many servers of one zone are looked at.
pub const MOST_SERVERS: usize = 26;

/// A zone and its servers.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The zone.
    pub zone: Name,
    /// Its servers by name, with the addresses that came along (glue).
    pub servers: BTreeMap<Name, Vec<IpAddr>>,
    /// What the referral said of servers outside the parent's zone: used for this zone, when nothing else
    /// leads anywhere, and never kept elsewhere. Who delegates could have named any server.
    pub hearsay: Vec<IpAddr>,
    /// It stands for a server that recurses: the whole question is sent there, and nothing is referred.
    pub forward: Option<Vec<Contact>>,
    /// What happens where none of those answers.
    pub fallback: Fallback,
    /// Until when the parent's word holds.
    pub expires: Duration,
}

impl Cut {
    fn bytes(&self) -> usize {
        let servers = self.servers.iter().map(|(name, glue)| name.as_wire().len() + glue.len() * 17 + 96);
        size_of::<Self>() + 2 * self.zone.as_wire().len() + 96 + servers.sum::<usize>() + self.hearsay.len() * 17
    }
}

/// Those of one domain.
#[derive(Debug, Default)]
struct Domain {
    names: VecDeque<Name>,
    bytes: usize,
}

/// All zone cuts that are known.
#[derive(Debug, Default)]
pub struct Cuts {
    known: HashMap<Name, Rc<Cut>>,
    /// In the order in which they came; some may be gone.
    order: VecDeque<Name>,
    /// The same by domain.
    domains: HashMap<Name, Domain>,
    bytes: usize,
}

impl Cuts {
    /// Returns the deepest known cut at or above a name.
    pub fn deepest(&self, name: &Name, now: Duration) -> Option<Rc<Cut>> {
        let mut at = Some(name.clone());
        while let Some(name) = at {
            if let Some(cut) = self.known.get(&name)
                && cut.expires > now
            {
                return Some(cut.clone());
            }
            at = name.parent();
        }
        None
    }

    /// Returns the glue that some zone above a server's name has for it.
    pub fn glue(&self, server: &Name, now: Duration) -> Vec<IpAddr> {
        let mut at = Some(server.clone());
        while let Some(name) = at {
            if let Some(cut) = self.known.get(&name).filter(|cut| cut.expires > now)
                && let Some(glue) = cut.servers.get(server).filter(|glue| !glue.is_empty())
            {
                return glue.clone();
            }
            at = name.parent();
        }
        Vec::new()
    }

    /// Says whether the name is known as a zone's apex.
    pub fn is_cut(&self, name: &Name, now: Duration) -> bool {
        self.known.get(name).is_some_and(|cut| cut.expires > now)
    }

    /// Returns all cuts, also those that have expired, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Cut>> {
        self.order.iter().filter_map(|zone| self.known.get(zone))
    }

    /// Remembers a cut.
    pub fn insert(&mut self, cut: Rc<Cut>) {
        self.bytes += cut.bytes();
        let share = self.domains.entry(domain(&cut.zone)).or_default();
        share.bytes += cut.bytes();
        match self.known.insert(cut.zone.clone(), cut.clone()) {
            None => {
                self.order.push_back(cut.zone.clone());
                share.names.push_back(cut.zone.clone());
            }
            Some(older) => {
                self.bytes -= older.bytes();
                share.bytes -= older.bytes();
            }
        }
        while let Some(share) = self.domains.get_mut(&domain(&cut.zone))
            && (share.names.len() > MOST_OF_DOMAIN || share.bytes > MOST_BYTES / SHARE)
            && let Some(oldest) = share.names.front().cloned()
        {
            self.remove(&oldest);
        }
        while self.known.len() > MOST_CUTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.remove(&oldest);
        }
        if self.order.len() > 2 * self.known.len() + 64 {
            // A name that went and came again stands there twice.
            let mut seen = HashSet::new();
            self.order.retain(|name| self.known.contains_key(name) && seen.insert(name.clone()));
        }
    }

    /// Forgets a cut whose servers do not serve it any more.
    pub fn remove(&mut self, zone: &Name) {
        if let Some(cut) = self.known.remove(zone) {
            self.bytes -= cut.bytes();
            let domain = domain(zone);
            if let Some(share) = self.domains.get_mut(&domain) {
                share.names.retain(|name| name != zone);
                share.bytes -= cut.bytes();
                if share.names.is_empty() {
                    self.domains.remove(&domain);
                }
            }
        }
    }
}

/// Whose doing a zone is, roughly.
fn domain(zone: &Name) -> Name {
    zone.suffix(zone.label_count().min(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::resolver::Fallback;

    #[test]
    fn cve_2026_50251_delegations_of_one_domain_do_not_push_out_those_of_others() {
        let mut cuts = Cuts::default();
        let cut = |zone: &str, glue: usize| {
            let server = |number| (Name::parse(&format!("ns{number}.{zone}")).unwrap(), vec![[192, 0, 2, 1].into(); 8]);
            Rc::new(Cut {
                zone: Name::parse(zone).unwrap(),
                servers: (0..glue).map(server).collect(),
                hearsay: Vec::new(),
                forward: None,
                fallback: Fallback::Nothing,
                expires: Duration::MAX,
            })
        };
        cuts.insert(cut("org", 6));
        cuts.insert(cut("victim.org", 2));

        for number in 0..20_000 {
            cuts.insert(cut(&format!("n{number}.attack.net"), MOST_SERVERS));
        }
        // Again and again under the same name: nothing grows.
        for _ in 0..1000 {
            cuts.insert(cut("one.attack.net", 2));
            cuts.remove(&Name::parse("one.attack.net").unwrap());
        }

        let victim = Name::parse("www.victim.org").unwrap();
        assert_eq!(cuts.deepest(&victim, Duration::ZERO).unwrap().zone, Name::parse("victim.org").unwrap());
        assert!(cuts.known.len() <= MOST_OF_DOMAIN + 2 && cuts.bytes <= MOST_BYTES, "{}", cuts.known.len());
        let (order, known) = (cuts.order.len(), cuts.known.len());
        assert!(order <= 2 * known + 70, "{order} names in order, {known} known");
        assert_eq!(cuts.domains.len(), 3);
    }
}

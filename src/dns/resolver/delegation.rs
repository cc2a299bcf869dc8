//! Delegations: which servers a zone has, as its parent says.
//!
//! They come from referrals alone and live no longer than the parent gave them: what the child says of
//! its own servers neither replaces nor prolongs them, so a domain that was taken away is gone when the
//! parent's TTL ends.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use super::{Fallback, contact::Contact, name::Name};

/// How many zone cuts are remembered; the oldest goes first.
const MOST_CUTS: usize = 8192;
/// How many bytes they take at most.
const MOST_BYTES: usize = 2 << 20;
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

/// All zone cuts that are known.
#[derive(Debug, Default)]
pub struct Cuts {
    known: HashMap<Name, Rc<Cut>>,
    order: VecDeque<Name>,
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

    /// Remembers a cut.
    pub fn insert(&mut self, cut: Rc<Cut>) {
        self.bytes += cut.bytes();
        match self.known.insert(cut.zone.clone(), cut.clone()) {
            None => self.order.push_back(cut.zone.clone()),
            Some(older) => self.bytes -= older.bytes(),
        }
        while self.order.len() > MOST_CUTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(oldest) = self.known.remove(&oldest) {
                self.bytes -= oldest.bytes();
            }
        }
    }

    /// Forgets a cut whose servers do not serve it any more.
    pub fn remove(&mut self, zone: &Name) {
        if let Some(cut) = self.known.remove(zone) {
            self.bytes -= cut.bytes();
            self.order.retain(|name| name != zone);
        }
    }
}

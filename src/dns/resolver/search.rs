//! The search for an answer among the servers of one zone: who was asked how often, whose address is still
//! missing.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    Fallback, Shared,
    contact::Contact,
    delegation::Cut,
    iterate::{Aim, Errand},
    name::Name,
};

/// How many servers without glue are looked up for one zone (NXNSAttack): for the client's own question,
/// for a server's address, for that of its servers, and so on.
const MOST_LOOKED_UP: [usize; 4] = [5, 3, 2, 1];
/// How often one address is asked for one question.
const MOST_TRIES: u32 = 3;
/// The same where others stand behind those who are asked.
const MOST_TRIES_BEFORE_OTHERS: u32 = 1;
/// How many addresses are asked for one question of one zone.
const MOST_ADDRESSES: usize = 12;

/// The servers of one zone for one question: who was asked how often, whose address is still missing.
pub(super) struct Search {
    addresses: Vec<IpAddr>,
    /// Those who recurse for us.
    fixed: Vec<Contact>,
    most_tries: u32,
    /// Servers without an address.
    nameless: Vec<Name>,
    /// Servers whose addresses are only glue, which may be wrong.
    unproven: Vec<Name>,
    hearsay: Vec<IpAddr>,
    looked_up: usize,
    most_looked_up: usize,
    tries: HashMap<Contact, u32>,
    done: HashSet<Contact>,
    /// Asked, and not yet back: nobody is asked the same twice at a time.
    under_way: Vec<(Contact, Duration)>,
    stumbled: bool,
}

impl Search {
    pub(super) fn new(shared: &Shared, cut: &Cut, aim: Aim, depth: usize, avoid: &[Contact]) -> Self {
        let mut search = Self {
            addresses: Vec::new(),
            fixed: cut.forward.clone().unwrap_or_default(),
            most_tries: match cut.fallback {
                Fallback::Nothing => MOST_TRIES,
                Fallback::Recursion => MOST_TRIES_BEFORE_OTHERS,
            },
            nameless: Vec::new(),
            unproven: Vec::new(),
            hearsay: Vec::new(),
            looked_up: 0,
            most_looked_up: MOST_LOOKED_UP.get(depth).copied().unwrap_or(1),
            tries: HashMap::new(),
            done: avoid.iter().copied().collect(),
            under_way: Vec::new(),
            stumbled: false,
        };
        for (name, glue) in &cut.servers {
            let known = shared.kept_addresses(name);
            let above = if glue.is_empty() { shared.cuts.borrow().glue(name, shared.now()) } else { Vec::new() };
            let before = search.addresses.len();
            search.add(shared, glue.iter().chain(&known).chain(&above).copied());
            if search.addresses.len() == before {
                search.nameless.push(name.clone());
            } else if known.is_empty()
                && depth == 0
                && aim == Aim::Whole
                && avoid.is_empty()
                && !name.is_under(&cut.zone)
            {
                // Only for the client's own question: what is looked up for a look-up multiplies.
                search.unproven.push(name.clone());
            }
        }
        search.hearsay.clone_from(&cut.hearsay);
        let servers = shared.servers.borrow();
        let contacts = search.addresses.iter().map(|address| shared.contact(*address));
        search.done.extend(contacts.filter(|server| servers.is_lame(*server, &cut.zone, shared.now())));
        drop(servers);
        shared.wish_probes(&search.fixed);
        search
    }

    fn add(&mut self, shared: &Shared, found: impl Iterator<Item = IpAddr>) {
        for address in found {
            if shared.may_ask(address)
                && !self.addresses.contains(&address)
                && self.addresses.len() < MOST_ADDRESSES * 2
            {
                self.addresses.push(address);
            }
        }
    }

    /// Returns whom to ask next: those who were asked least, of these the one that is likely the fastest.
    pub(super) fn next(&mut self, shared: &Shared) -> Option<Contact> {
        if !self.fixed.is_empty() {
            let tries = |server: &Contact| self.tries.get(server).copied().unwrap_or(0);
            let mut open: Vec<Contact> = self.fixed.iter().copied().filter(|server| self.is_open(server)).collect();
            let least = open.iter().map(tries).min().filter(|least| *least < self.most_tries)?;
            open.retain(|server| tries(server) == least);
            return self.choose(shared, open);
        }
        if self.tries.len() >= MOST_ADDRESSES {
            return None;
        }
        let left = |tries: u32, search: &Self| -> Vec<Contact> {
            let contacts = search.addresses.iter().map(|address| shared.contact(*address));
            let open = contacts.filter(|server| search.is_open(server));
            open.filter(|server| search.tries.get(server).copied().unwrap_or(0) == tries).collect()
        };
        let mut round = left(0, self);
        let dead = |server: &Contact| shared.servers.borrow().is_dead(*server, shared.now());
        if self.stumbled {
            round.retain(|server| !dead(server));
            if round.is_empty() {
                return None;
            }
        } else if round.iter().all(dead) {
            // Asking again, or whom nobody reaches, comes after looking for others.
            let to_look_up = !self.nameless.is_empty() || !self.unproven.is_empty();
            if to_look_up && self.looked_up < self.most_looked_up {
                return None;
            }
        }
        if round.is_empty() {
            round = (1..MOST_TRIES).map(|tries| left(tries, self)).find(|left| !left.is_empty())?;
        }
        self.choose(shared, round)
    }

    fn choose(&mut self, shared: &Shared, mut among: Vec<Contact>) -> Option<Contact> {
        shared.servers.borrow().rank(&mut among, shared.now(), shared.dice());
        let next = *among.first()?;
        *self.tries.entry(next).or_default() += 1;
        self.under_way.push((next, shared.now()));
        Some(next)
    }

    fn is_open(&self, server: &Contact) -> bool {
        !self.done.contains(server) && self.under_way.iter().all(|(other, _)| other != server)
    }

    /// The server answered, or did not.
    pub(super) fn came_back(&mut self, server: Contact) {
        self.under_way.retain(|(other, _)| *other != server);
    }

    /// Somebody answered; whoever was asked before and has not is slower, or dead.
    pub(super) fn ends(&self, shared: &Shared) {
        for (server, asked) in &self.under_way {
            shared.servers.borrow_mut().overtaken(*server, shared.now(), shared.now() - *asked);
        }
    }

    /// Looks up one more server's address; `false` if there is none left.
    pub(super) async fn more(&mut self, shared: &Shared, cut: &Cut, errand: &Errand) -> bool {
        if self.stumbled {
            return false;
        }
        while self.looked_up < self.most_looked_up {
            let from = if self.nameless.is_empty() { &mut self.unproven } else { &mut self.nameless };
            if from.is_empty() {
                break;
            }
            let place = shared.dice() as usize % from.len();
            let name = from.swap_remove(place);
            // Without glue, a server inside the zone that it serves is found only by asking another.
            let inside = name.is_under(&cut.zone) && !cut.zone.is_root();
            if inside && self.addresses.is_empty() {
                continue;
            }
            self.looked_up += 1;
            let mut found = Box::pin(shared.server_addresses(&name, errand)).await;
            if found.is_empty() {
                // The way to the server may have brought glue for it.
                found = shared.cuts.borrow().glue(&name, shared.now());
            }
            let before = self.addresses.len();
            self.add(shared, found.into_iter());
            if self.addresses.len() > before {
                return true;
            }
        }
        self.nameless.clear();
        self.unproven.clear();
        let before = self.addresses.len();
        let hearsay = std::mem::take(&mut self.hearsay);
        self.add(shared, hearsay.into_iter());
        let open = |address: &IpAddr| {
            let server = shared.contact(*address);
            !self.done.contains(&server) && self.tries.get(&server).copied().unwrap_or(0) < MOST_TRIES
        };
        // With nothing left to look up, those who were silent are asked again.
        self.addresses.len() > before || self.addresses.iter().any(open) && self.tries.len() < MOST_ADDRESSES
    }

    /// A server stumbled over a minimised question: the others are asked once, if they are there. Who is
    /// silent, or has still to be looked up, is for the whole question.
    pub(super) fn stumble(&mut self) {
        self.stumbled = true;
    }

    pub(super) fn give_up(&mut self, server: Contact) {
        self.done.insert(server);
    }
}

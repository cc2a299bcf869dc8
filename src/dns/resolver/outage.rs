//! An outage: nobody out there can be reached, as far as this box can tell.
//!
//! Three servers in a row that are silent (or all that recurse for us, or all of the root's, where there are fewer)
//! are only a reason to look: then servers of the root, or those that recurse for us, are asked. If they are silent too, clients are told at once instead of after seconds, with
//! what has expired where there is such, and the probing goes on until somebody answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use super::{
    Fallback, Shared,
    budget::Budget,
    contact::Contact,
    course::first,
    iterate::Errand,
    name::Name,
    wire::{Question, rtype},
};

/// So many silent servers are suspicious, and so many silences.
const SUSPICIOUS: usize = 3;
/// So many servers are probed at once.
const PROBED: usize = 3;
/// A probe waits so long.
const PROBE_FOR: Duration = Duration::from_millis(800);
/// From one probe to the next.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// A server that recurses for us and was silent is looked after so often, while there are questions for it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the way out.
#[derive(Debug, Default)]
pub(super) struct Outage {
    silent: BTreeSet<Contact>,
    silences: usize,
    is_out: bool,
    probing: bool,
    /// Somebody else found out that nobody can be reached.
    suspected: bool,
    probed: Option<Duration>,
    /// When somebody answered last.
    heard: Option<Duration>,
    /// When silent servers were looked after.
    looked: BTreeMap<Contact, Duration>,
    wished: Vec<Contact>,
}

impl Shared {
    pub(super) fn suspect_outage(&self) {
        self.outage.borrow_mut().suspected = true;
    }

    /// Says whether nobody can be reached.
    pub(super) fn is_out(&self) -> bool {
        self.outage.borrow().is_out
    }

    /// Somebody answered.
    pub(super) fn note_answer(&self) {
        let mut outage = self.outage.borrow_mut();
        outage.heard = Some(self.now());
        outage.silent.clear();
        outage.silences = 0;
        if std::mem::take(&mut outage.is_out) {
            drop(outage);
            // Nobody was to blame.
            self.servers.borrow_mut().forgive();
            self.cache.borrow_mut().forget_failures();
            self.forget_failed_flights();
        }
    }

    /// A server was silent.
    pub(super) fn note_silence(&self, server: Contact) {
        let mut outage = self.outage.borrow_mut();
        outage.silences = outage.silences.saturating_add(1);
        if outage.silent.len() < SUSPICIOUS {
            outage.silent.insert(server);
        }
    }

    /// Starts probing where there is reason to.
    pub(super) fn fly_probe(self: &Rc<Self>) {
        let now = self.now();
        let mut outage = self.outage.borrow_mut();
        let lately = outage.probed.is_some_and(|at| at + PROBE_EVERY > now);
        // With one or two servers at the beginning of all ways, no third may ever be silent.
        let recursing = self.recursing().len();
        let first = if recursing > 0 { recursing } else { self.roots().count() };
        let enough = first.clamp(1, SUSPICIOUS);
        let suspected = std::mem::take(&mut outage.suspected);
        let suspicious = outage.silent.len() >= enough && outage.silences >= SUSPICIOUS && !lately;
        if outage.probing || !(suspicious || suspected) {
            return;
        }
        outage.probing = true;
        drop(outage);
        let shared = self.clone();
        self.courses.spawn(async move {
            loop {
                let began = shared.now();
                let answered = shared.probe().await;
                // An answer that came meanwhile is newer than what the probe found.
                let reached = answered || shared.outage.borrow().heard.is_some_and(|at| at >= began);
                shared.outage.borrow_mut().probed = Some(shared.now());
                if reached {
                    break;
                }
                if !std::mem::replace(&mut shared.outage.borrow_mut().is_out, true) {
                    shared.tell_all();
                }
                shared.courses.until(began + PROBE_EVERY).await;
            }
            shared.outage.borrow_mut().probing = false;
        });
    }

    /// The servers that recurse for us for all names.
    fn recursing(&self) -> &[Contact] {
        let everything = self.config.forward.iter().find(|forward| forward.zone.is_root());
        everything.map_or(&[], |forward| &forward.servers)
    }

    /// The root's servers, as hinted, of the families that are asked.
    fn roots(&self) -> impl Iterator<Item = Contact> {
        let hinted = self.config.hints.iter().flat_map(|(_, addresses)| addresses);
        hinted.filter(|address| self.may_ask(**address)).map(|address| self.contact(*address))
    }

    /// Asks some servers that should be there; says whether one answered, whatever it said. With nobody to
    /// ask, nothing is known.
    async fn probe(&self) -> bool {
        let mut recursing = self.recursing().to_vec();
        let apart = self.config.forward.iter().any(|forward| {
            forward.zone.is_root() && (forward.fallback == Fallback::Nothing && !forward.servers.is_empty())
        });
        let mut roots = Vec::new();
        if !apart {
            roots.extend(self.roots());
        }
        if recursing.is_empty() && roots.is_empty() {
            return true;
        }
        let errand = self.probe_errand();
        let mut probes: Vec<Pin<Box<dyn Future<Output = bool> + '_>>> = Vec::new();
        for (servers, forwarded) in [(&mut recursing, true), (&mut roots, false)] {
            let most = probes.len() + PROBED;
            while probes.len() < most && !servers.is_empty() {
                let server = servers.swap_remove(self.dice() as usize % servers.len());
                let errand = &errand;
                probes.push(Box::pin(self.look(server, forwarded, errand)));
            }
        }
        let deadline = self.now() + PROBE_FOR;
        while let Some(answered) = self.courses.before(deadline, first(&mut probes)).await {
            match answered {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    fn probe_errand(&self) -> Errand {
        let question = Question { name: Name::root(), rtype: rtype::NS };
        Errand { budget: Rc::new(Budget::new(self.config.limits)), path: vec![question] }
    }

    /// Asks a server for the root's servers; says whether it answered.
    async fn look(&self, server: Contact, forwarded: bool, errand: &Errand) -> bool {
        let question = Question { name: Name::root(), rtype: rtype::NS };
        self.ask_server(server, &Name::root(), &question, forwarded, errand).await.is_ok()
    }

    /// There are questions for these servers, who recurse for us: those that were silent are looked after.
    pub(super) fn wish_probes(&self, servers: &[Contact]) {
        let now = self.now();
        let known = self.servers.borrow();
        for server in servers.iter().filter(|server| known.is_failing(**server)) {
            let mut outage = self.outage.borrow_mut();
            if outage.looked.get(server).is_none_or(|at| *at + LOOK_EVERY <= now) {
                outage.looked.insert(*server, now);
                outage.wished.push(*server);
            }
        }
    }

    /// Looks after silent servers, so that no client has to wait for one that is still silent.
    pub(super) fn fly_looks(self: &Rc<Self>) {
        for server in std::mem::take(&mut self.outage.borrow_mut().wished) {
            let shared = self.clone();
            self.courses.spawn(async move {
                let errand = shared.probe_errand();
                // An answer makes it alive again.
                shared.look(server, true, &errand).await;
            });
        }
    }
}

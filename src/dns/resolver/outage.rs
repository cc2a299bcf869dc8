//! An outage: nobody out there can be reached, as far as this box can tell.
//!
//! Three servers in a row that are silent are only a reason to look: then servers of the root (or those that
//! recurse for us) are asked. If they are silent too, clients are told at once instead of after seconds, with
//! what has expired where there is such, and the probing goes on until somebody answers.

use std::{collections::BTreeSet, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use super::{
    Shared,
    budget::Budget,
    course::first,
    iterate::Errand,
    name::Name,
    wire::{Question, rtype},
};

/// So many silent servers are suspicious.
const SUSPICIOUS: usize = 3;
/// So many servers are probed at once.
const PROBED: usize = 3;
/// A probe waits so long.
const PROBE_FOR: Duration = Duration::from_millis(800);
/// Until the next probe.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What is known of the way out.
#[derive(Debug, Default)]
pub(super) struct Outage {
    silent: BTreeSet<SocketAddr>,
    is_out: bool,
    probing: bool,
    probed: Option<Duration>,
}

impl Shared {
    /// Says whether nobody can be reached.
    pub(super) fn is_out(&self) -> bool {
        self.outage.borrow().is_out
    }

    /// Somebody answered.
    pub(super) fn note_answer(&self) {
        let mut outage = self.outage.borrow_mut();
        outage.silent.clear();
        if std::mem::take(&mut outage.is_out) {
            drop(outage);
            // Nobody was to blame.
            self.servers.borrow_mut().forgive();
            self.cache.borrow_mut().forget_failures();
            self.forget_failed_flights();
        }
    }

    /// A server was silent.
    pub(super) fn note_silence(&self, server: SocketAddr) {
        let mut outage = self.outage.borrow_mut();
        if outage.silent.len() < SUSPICIOUS {
            outage.silent.insert(server);
        }
    }

    /// Starts probing where there is reason to.
    pub(super) fn fly_probe(self: &Rc<Self>) {
        let now = self.now();
        let mut outage = self.outage.borrow_mut();
        let lately = outage.probed.is_some_and(|at| at + PROBE_EVERY > now);
        if outage.silent.len() < SUSPICIOUS || outage.probing || lately {
            return;
        }
        outage.probing = true;
        drop(outage);
        let shared = self.clone();
        self.courses.spawn(async move {
            loop {
                let reached = shared.probe().await;
                shared.outage.borrow_mut().probed = Some(shared.now());
                if reached {
                    break;
                }
                if !std::mem::replace(&mut shared.outage.borrow_mut().is_out, true) {
                    shared.tell_all();
                }
                shared.courses.until(shared.now() + PROBE_EVERY).await;
            }
            shared.outage.borrow_mut().probing = false;
        });
    }

    /// Asks some servers that should be there; says whether one answered, whatever it said. With nobody to
    /// ask, nothing is known.
    async fn probe(&self) -> bool {
        let mut servers: Vec<SocketAddr> = self
            .config
            .forward
            .iter()
            .filter(|(zone, _)| zone.is_root())
            .flat_map(|(_, servers)| servers.iter().copied())
            .collect();
        let forwarded = !servers.is_empty();
        if !forwarded {
            let hinted = self.config.hints.iter().flat_map(|(_, addresses)| addresses);
            servers.extend(
                hinted
                    .filter(|address| self.may_ask(**address))
                    .map(|address| SocketAddr::new(*address, self.config.port)),
            );
        }
        if servers.is_empty() {
            return true;
        }
        let question = Question { name: Name::root(), rtype: rtype::NS };
        let errand = Errand { budget: Rc::new(Budget::new(self.config.limits)), path: vec![question.clone()] };
        let mut probes: Vec<Pin<Box<dyn Future<Output = bool> + '_>>> = Vec::new();
        while probes.len() < PROBED && !servers.is_empty() {
            let server = servers.swap_remove(self.dice() as usize % servers.len());
            let (question, errand) = (&question, &errand);
            probes.push(Box::pin(async move {
                self.ask_server(server, &Name::root(), question, forwarded, errand).await.is_ok()
            }));
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
}

//! Flights: one course for all clients that ask the same thing at the same time, and how long each waits.
//!
//! A client waits shorter than the work may take: after a while it gets what has expired, if there is such
//! (RFC 8767 §5), and later it is told that nothing was found, while the work goes on to fill the cache.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    Answer, Asked, Output, Placed, Shared, Ticket,
    budget::Limits,
    course::Slot,
    name::Name,
    resolve::failed,
    rrset::{Rrset, Security},
    why::Why,
    wire::{Question, rcode, rtype},
};

/// RFC 8767 §5: the client response timer.
const STALE_AFTER: Duration = Duration::from_millis(1800);
/// No client waits longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// The work ends after this, also that which only fills the cache.
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// RFC 8767 §5: the failure recheck timer.
const RECHECK_AFTER: Duration = Duration::from_secs(30);
/// How many flights there are at once; the oldest makes room.
const MOST_FLIGHTS: usize = 4096;
/// How many clients wait for one.
const MOST_WAITING: usize = 512;
/// How many answers are asked for again at once before they are over.
const MOST_REFRESHES: usize = 64;
/// Bytes of the failures that are remembered, for which stale answers are given at once.
const MOST_FAILED: usize = 1 << 20;

struct Flight {
    waiting: Vec<Ticket>,
    started: Duration,
    stop: Rc<Slot<()>>,
    number: u64,
}

/// All that are under way.
#[derive(Default)]
pub(super) struct Flights {
    under_way: HashMap<Asked, Flight>,
    /// In the order in which they began; some may be over.
    order: VecDeque<(Asked, u64)>,
    started: u64,
    /// Questions that could not be answered anew, and until when stale answers go out at once.
    failed: HashMap<Asked, Duration>,
    failed_bytes: usize,
    refreshing: HashSet<Question>,
    wished: VecDeque<Question>,
}

impl Flights {
    /// Counts those under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Remembers a failure; when there is no room for it all others are forgotten.
    fn note_failed(&mut self, asked: &Asked, until: Duration) {
        // A table has up to twice the places that it fills.
        let bytes = 2 * size_of::<(Asked, Duration)>() + asked.question.name.as_wire().len();
        if self.failed_bytes + bytes > MOST_FAILED {
            self.forget_failed();
        }
        if self.failed.insert(asked.clone(), until).is_none() {
            self.failed_bytes += bytes;
        }
    }

    fn forget_failed(&mut self) {
        self.failed = HashMap::new();
        self.failed_bytes = 0;
    }
}

impl Shared {
    /// Takes a client's question: answers it at once, lets it join others, or starts a course.
    pub(super) fn board(self: &Rc<Self>, ticket: Ticket, asked: Asked, limits: Limits) {
        if asked.question.rtype == rtype::ANY {
            return self.say(&[ticket], any(&asked.question.name));
        }
        if let Some(answer) = self.answer_from_cache(&asked) {
            return self.say(&[ticket], answer);
        }
        let now = self.now();
        let waited = {
            let mut flights = self.flights.borrow_mut();
            match flights.under_way.get_mut(&asked) {
                Some(flight) if now < flight.started + STALE_AFTER && flight.waiting.len() < MOST_WAITING => {
                    flight.waiting.push(ticket);
                    return;
                }
                Some(flight) => Some(now - flight.started),
                None => None,
            }
        };
        if self.is_out() && !self.is_forwarded_apart(&asked.question.name) {
            // The probes will tell when it is worth trying again.
            let answer = self.stale_answer(&asked).unwrap_or_else(|| failed(Why::NoReachableAuthority));
            return self.say(&[ticket], answer);
        }
        let failed_lately = self.flights.borrow().failed.get(&asked).is_some_and(|until| *until > now);
        if (waited.is_some() || failed_lately)
            && let Some(answer) = self.stale_answer(&asked)
        {
            return self.say(&[ticket], answer);
        }
        if let Some(waited) = waited {
            let mut flights = self.flights.borrow_mut();
            let waiting = flights.under_way.get_mut(&asked).map(|flight| &mut flight.waiting);
            match waiting.filter(|waiting| waited < GIVE_UP_AFTER && waiting.len() < MOST_WAITING) {
                Some(waiting) => waiting.push(ticket),
                None => {
                    drop(flights);
                    self.say(&[ticket], failed(Why::NoReachableAuthority));
                }
            }
            return;
        }
        self.depart(ticket, asked, limits);
    }

    fn depart(self: &Rc<Self>, ticket: Ticket, asked: Asked, limits: Limits) {
        let stop = Slot::new();
        {
            let mut flights = self.flights.borrow_mut();
            while flights.under_way.len() >= MOST_FLIGHTS || flights.order.len() >= 2 * MOST_FLIGHTS {
                let Some((oldest, number)) = flights.order.pop_front() else { break };
                if flights.under_way.get(&oldest).is_some_and(|flight| flight.number == number)
                    && let Some(flight) = flights.under_way.remove(&oldest)
                {
                    self.courses.fill(&flight.stop, ());
                    self.say(&flight.waiting, failed(Why::Crowded));
                }
            }
            flights.started += 1;
            let number = flights.started;
            flights.order.push_back((asked.clone(), number));
            let flight = Flight { waiting: vec![ticket], started: self.now(), stop: stop.clone(), number };
            flights.under_way.insert(asked.clone(), flight);
        }
        let shared = self.clone();
        self.courses.spawn(async move { shared.fly(asked, limits, &stop).await });
    }

    async fn fly(&self, asked: Asked, limits: Limits, stop: &Slot<()>) {
        let started = self.now();
        let mut work = pin!(self.courses.either(self.answer(&asked, limits), self.courses.filled(stop)));
        for patience in [STALE_AFTER, GIVE_UP_AFTER] {
            match self.courses.before(started + patience, work.as_mut()).await {
                Some(Some(answer)) => return self.land(&asked, answer),
                // Another flight needed the place; who waited was told.
                Some(None) => return,
                None => {}
            }
            let meanwhile = match self.stale_answer(&asked) {
                Some(answer) => Some(answer),
                None if patience == GIVE_UP_AFTER => Some(failed(Why::NoReachableAuthority)),
                None => None,
            };
            if let Some(answer) = meanwhile {
                let mut flights = self.flights.borrow_mut();
                let waiting = flights.under_way.get_mut(&asked).map(|flight| std::mem::take(&mut flight.waiting));
                drop(flights);
                self.say(&waiting.unwrap_or_default(), answer);
            }
        }
        match self.courses.before(started + LONGEST, work).await {
            Some(Some(answer)) => self.land(&asked, answer),
            Some(None) => {}
            None => {
                self.keep_failure(&asked.question, Why::NoReachableAuthority);
                self.land(&asked, failed(Why::NoReachableAuthority));
            }
        }
    }

    /// Ends a flight: who still waits gets the answer, or in the place of a failure what has expired.
    fn land(&self, asked: &Asked, mut answer: Answer) {
        let again = matches!(
            answer.why,
            Some(Why::NoReachableAuthority | Why::NetworkError | Why::BudgetSpent | Why::CachedFailure | Why::Crowded)
        );
        if answer.rcode == rcode::SERVFAIL
            && again
            && let Some(stale) = self.stale_answer(asked)
        {
            self.flights.borrow_mut().note_failed(asked, self.now() + RECHECK_AFTER);
            answer = Answer { cost: answer.cost, ..stale };
        }
        let flight = self.flights.borrow_mut().under_way.remove(asked);
        self.say(&flight.map(|flight| flight.waiting).unwrap_or_default(), answer);
    }

    /// Tells all who wait for what cannot be reached.
    pub(super) fn tell_all(&self) {
        let mut waiting = Vec::new();
        for (asked, flight) in &mut self.flights.borrow_mut().under_way {
            if !self.is_forwarded_apart(&asked.question.name) {
                waiting.push((asked.clone(), std::mem::take(&mut flight.waiting)));
            }
        }
        for (asked, tickets) in waiting {
            let answer = self.stale_answer(&asked).unwrap_or_else(|| failed(Why::NoReachableAuthority));
            self.say(&tickets, answer);
        }
    }

    /// Forgets which questions failed.
    pub(super) fn forget_failed_flights(&self) {
        self.flights.borrow_mut().forget_failed();
    }

    /// The name is in a zone that is forwarded by itself, perhaps to somebody in the house.
    fn is_forwarded_apart(&self, name: &Name) -> bool {
        self.config.forward.iter().any(|forward| !forward.zone.is_root() && name.is_under(&forward.zone))
    }

    fn say(&self, tickets: &[Ticket], answer: Answer) {
        let answer = Arc::new(answer);
        let mut outputs = self.outputs.borrow_mut();
        outputs.extend(tickets.iter().map(|ticket| Output::Answer(*ticket, answer.clone())));
    }

    /// Notes that an answer is nearly over though somebody asks for it.
    pub(super) fn wish_refresh(&self, question: &Question) {
        let mut flights = self.flights.borrow_mut();
        if flights.refreshing.len() < MOST_REFRESHES && flights.refreshing.insert(question.clone()) {
            flights.wished.push_back(question.clone());
        }
    }

    /// Starts what was wished for.
    pub(super) fn fly_refreshes(self: &Rc<Self>) {
        loop {
            let Some(question) = self.flights.borrow_mut().wished.pop_front() else { return };
            let shared = self.clone();
            self.courses.spawn(async move {
                let deadline = shared.now() + LONGEST;
                let _ = shared.courses.before(deadline, shared.refresh(&question)).await;
                shared.flights.borrow_mut().refreshing.remove(&question);
            });
        }
    }
}

/// RFC 8482 §4.2: all types at once are not given.
fn any(name: &Name) -> Answer {
    let ttl = 3600;
    let data = vec![b"\x07RFC8482\x00"[..].into()];
    let set = Rrset { name: name.clone(), rtype: rtype::HINFO, ttl, data, signatures: Vec::new() };
    Answer {
        rcode: rcode::NOERROR,
        answer: vec![Placed { set: Arc::new(set), ttl }],
        authority: Vec::new(),
        security: Security::Insecure,
        why: None,
        ttl,
        cost: Limits::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::resolver::name::Name;

    #[test]
    fn failures_take_no_more_room_than_they_may_and_the_last_one_is_remembered() {
        let mut flights = Flights::default();
        let long = "a.".repeat(100);
        let asked = |number: u32| Asked {
            question: Question { name: Name::parse(&format!("{number}.{long}example")).unwrap(), rtype: rtype::A },
            checking_disabled: false,
        };

        for number in 0..50_000 {
            flights.note_failed(&asked(number), Duration::from_secs(1));
            flights.note_failed(&asked(number), Duration::from_secs(2));
            assert!(flights.failed_bytes <= MOST_FAILED);
            let real = flights.failed.capacity() * size_of::<(Asked, Duration)>() + flights.failed.len() * 200;
            assert!(real < 2 * MOST_FAILED, "{real}");
        }

        assert_eq!(flights.failed.get(&asked(49_999)), Some(&Duration::from_secs(2)));
        flights.forget_failed();
        assert_eq!((flights.failed.len(), flights.failed_bytes), (0, 0));
    }
}

//! The record of one question's course: what was asked of whom, what came, what was proved. Kept only where
//! somebody wants it, in a bounded ring.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use super::{
    Answer, Asked, Output, Shared, Ticket,
    budget::{Budget, Limits},
    contact::Contact,
    flight::LONGEST as LONGEST_COURSE,
    name::Name,
    reply::Class,
    resolve::failed,
    rrset::Security,
    why::Why,
    wire::Question,
};

/// No course is longer.
const LONGEST: usize = 400;
/// No ring holds more steps, whatever the number of its courses.
const MOST_STEPS: usize = 20_000;
/// So many questions are explained at once.
const MOST_EXPLAINED: usize = 8;

/// A question's course.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What was asked.
    pub asked: Asked,
    /// When it was over, in seconds since 1970.
    pub wall: u64,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// The answer's RCODE.
    pub rcode: u16,
    /// The answer's authenticity.
    pub security: Security,
    /// What its extended error says.
    pub why: Option<Why>,
    /// What it cost.
    pub cost: Limits,
    /// What it might have cost.
    pub limits: Limits,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Step {
    /// It was in the cache.
    Known {
        /// What.
        question: Question,
        /// What is kept there.
        what: Known,
        /// What was known of its authenticity.
        security: Security,
        /// Seconds left.
        ttl: u32,
    },
    /// A server of a zone was asked.
    Asked {
        /// When, since the question came.
        at: Duration,
        /// How long it took, with what had to be tried again.
        took: Duration,
        /// The zone.
        zone: Name,
        /// The server.
        server: Contact,
        /// What it was asked.
        question: Question,
        /// What came.
        came: Came,
    },
    /// A zone's keys were looked for, from the anchor downwards.
    Trusted {
        /// The zone.
        zone: Name,
        /// Whether its keys are vouched for.
        security: Security,
        /// The tags of these.
        keys: Vec<u16>,
        /// What was wrong.
        why: Option<Why>,
    },
    /// Something was checked.
    Checked {
        /// What.
        question: Question,
        /// The verdict.
        security: Security,
        /// What was wrong.
        why: Option<Why>,
    },
}

/// What the cache knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Records of the type, or an alias.
    Records,
    /// That there are none of the type.
    NoData,
    /// That there is no such name.
    NameError,
    /// That it failed.
    Failure,
    /// Proofs from which it follows that there is nothing (RFC 8198), or what a wildcard gives.
    Proof,
}

/// What came of asking a server.
#[derive(Clone, Debug)]
pub enum Came {
    /// A message, as it was understood.
    Message(Class),
    /// Nothing in time.
    Silence,
    /// There is no way to it.
    Unreachable,
    /// The budget was spent, or others needed the place.
    Nothing,
}

/// Where steps are written; nowhere, if nobody wants them.
#[derive(Debug, Default)]
pub struct Recorder(Option<Recording>);

#[derive(Debug)]
struct Recording {
    began: Duration,
    steps: RefCell<Vec<Step>>,
}

impl Recorder {
    /// Makes one that writes, from this moment on.
    pub fn on(began: Duration) -> Self {
        Self(Some(Recording { began, steps: RefCell::default() }))
    }

    /// Writes a step; it is made only if somebody wants it, and is told when the question came.
    pub fn write(&self, step: impl FnOnce(Duration) -> Step) {
        if let Some(recording) = &self.0
            && recording.steps.borrow().len() < LONGEST
        {
            let step = step(recording.began);
            recording.steps.borrow_mut().push(step);
        }
    }

    /// Returns what was written; `None` if nobody wanted it.
    pub fn take(&self) -> Option<Vec<Step>> {
        self.0.as_ref().map(|recording| recording.steps.take())
    }
}

/// The courses that are remembered.
#[derive(Debug, Default)]
pub(super) struct Traces {
    ring: VecDeque<Trace>,
    steps: usize,
    explained: usize,
}

impl Traces {
    /// Remembers one, and forgets the oldest where there are too many.
    fn push(&mut self, trace: Trace, most: usize) {
        self.steps += trace.steps.len();
        self.ring.push_back(trace);
        while self.ring.len() > most || self.steps > MOST_STEPS {
            let Some(oldest) = self.ring.pop_front() else { return };
            self.steps -= oldest.steps.len();
        }
    }

    /// Returns the latest of a question.
    pub(super) fn latest(&self, question: &Question) -> Option<&Trace> {
        self.ring.iter().rev().find(|trace| trace.asked.question == *question)
    }
}

impl Shared {
    /// Remembers a course that was recorded.
    pub(super) fn remember(&self, asked: &Asked, answer: &Answer, budget: &Budget) {
        if let Some(trace) = self.traced(asked, answer, budget) {
            self.traces.borrow_mut().push(trace, self.config.traces);
        }
    }

    fn traced(&self, asked: &Asked, answer: &Answer, budget: &Budget) -> Option<Trace> {
        let steps = budget.recorder.take()?;
        Some(Trace {
            asked: asked.clone(),
            wall: self.wall(),
            steps,
            rcode: answer.rcode,
            security: answer.security,
            why: answer.why,
            cost: answer.cost,
            limits: budget.limits(),
        })
    }

    /// Looks a question up with every step recorded, for somebody who wants to know why.
    pub(super) fn fly_explained(self: &Rc<Self>, ticket: Ticket, asked: Asked) {
        let began = self.now();
        let budget = Rc::new(Budget::recorded(self.config.limits, began));
        if self.traces.borrow().explained >= MOST_EXPLAINED {
            return self.tell_explained(ticket, &asked, failed(Why::Crowded), &budget);
        }
        self.traces.borrow_mut().explained += 1;
        let shared = self.clone();
        self.courses.spawn(async move {
            let work = shared.answer_within(&asked, &budget);
            let answer = shared.courses.before(began + LONGEST_COURSE, work).await;
            let mut answer = answer.unwrap_or_else(|| failed(Why::NoReachableAuthority));
            answer.cost = budget.used();
            shared.traces.borrow_mut().explained -= 1;
            shared.tell_explained(ticket, &asked, answer, &budget);
        });
    }

    fn tell_explained(&self, ticket: Ticket, asked: &Asked, answer: Answer, budget: &Budget) {
        if let Some(trace) = self.traced(asked, &answer, budget) {
            self.outputs.borrow_mut().push_back(Output::Explained(ticket, Arc::new(answer), Box::new(trace)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(name: &str, steps: usize) -> Trace {
        let question = Question { name: Name::parse(name).unwrap(), rtype: 1 };
        let step = Step::Checked { question: question.clone(), security: Security::Secure, why: None };
        Trace {
            asked: Asked { question, checking_disabled: false },
            wall: 0,
            steps: vec![step; steps],
            rcode: 0,
            security: Security::Secure,
            why: None,
            cost: Limits::NONE,
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_ring_is_bounded_in_courses_and_in_steps() {
        let mut traces = Traces::default();
        for number in 0..1000 {
            traces.push(trace(&format!("n{number}.example"), 100), 300);
        }
        assert_eq!((traces.ring.len(), traces.steps), (200, MOST_STEPS));

        for number in 0..1000 {
            traces.push(trace(&format!("n{number}.example"), 1), 300);
        }
        assert_eq!((traces.ring.len(), traces.steps), (300, 300));
        let question = Question { name: Name::parse("n999.example").unwrap(), rtype: 1 };
        assert!(traces.latest(&question).is_some());
    }

    #[test]
    fn a_recorder_that_nobody_wants_makes_no_step() {
        let recorder = Recorder::default();

        recorder.write(|_| panic!("a step was made"));

        assert!(recorder.take().is_none());
    }
}

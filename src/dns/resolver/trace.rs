//! The record of one question's course: what was asked of whom, what came, what was proved. Kept only where
//! the owner wants it, in a bounded ring.

use std::{cell::RefCell, net::SocketAddr, time::Duration};

use super::{Asked, budget::Limits, name::Name, reply::Class, rrset::Security, why::Why, wire::Question};

/// No course is longer.
const LONGEST: usize = 400;

/// A question's course.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What was asked.
    pub asked: Asked,
    /// When, in seconds since 1970.
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
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Step {
    /// A server of a zone was asked.
    Asked {
        /// When it was over, on the clock of [`super::Now::since_start`].
        at: Duration,
        /// The zone.
        zone: Name,
        /// The server.
        server: SocketAddr,
        /// What it was asked.
        question: Question,
        /// What came.
        came: Came,
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
pub struct Recorder(Option<RefCell<Vec<Step>>>);

impl Recorder {
    /// Makes one that writes.
    pub fn on() -> Self {
        Self(Some(RefCell::default()))
    }

    /// Writes a step; it is made only if somebody wants it.
    pub fn write(&self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &self.0
            && steps.borrow().len() < LONGEST
        {
            let step = step();
            steps.borrow_mut().push(step);
        }
    }

    /// Returns what was written; `None` if nobody wanted it.
    pub fn take(&self) -> Option<Vec<Step>> {
        self.0.as_ref().map(RefCell::take)
    }
}

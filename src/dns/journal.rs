//! What is told of each question to whoever keeps it.

use std::time::Duration;

use super::{
    answer::{Asker, Step, View},
    counters::{Outcome, Transport},
    query,
};
use crate::event::Question;

impl View<'_> {
    /// Reports what came of a question, if somebody reads.
    pub(super) fn report(&self, asker: &Asker, bytes: &[u8], step: &Step, took: Duration) {
        if !self.core.journal.is_wanted() || asker.transport == Transport::House {
            return;
        }
        let Some(outcome) = step.outcome() else { return };
        if outcome == Outcome::Limited {
            // Who asks too much fills no disk either.
            return;
        }
        let rule = match step {
            Step::Blocked(source) => self.policy.filter.source_name(*source),
            _ => "",
        };
        let Some((name, qtype)) = query::question(bytes) else { return };
        self.core.journal.report(&Question {
            at: self.at,
            origin: asker.source.origin,
            client: asker.client,
            name,
            qtype,
            outcome: outcome.word(),
            transport: asker.transport.word(),
            rule,
            took: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
        });
    }
}

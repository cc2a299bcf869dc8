//! What is told of each question to whoever keeps it.

use std::time::Duration;

use super::{
    Core,
    answer::{Asker, Step},
    counters::Transport,
    policy::Policy,
    query,
};
use crate::event::Question;

impl Core {
    /// Reports what came of a question, if somebody reads; `at` is the time in milliseconds since 1970.
    pub(super) fn report(&self, policy: &Policy, asker: &Asker, bytes: &[u8], step: &Step, at: i64, took: Duration) {
        if !self.journal.is_wanted() || asker.transport == Transport::House {
            return;
        }
        let Some(outcome) = step.outcome() else { return };
        let rule = match step {
            Step::Blocked(source) => policy.filter.source_name(*source),
            _ => "",
        };
        let Some((name, qtype)) = query::question(bytes) else { return };
        self.journal.report(&Question {
            at,
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

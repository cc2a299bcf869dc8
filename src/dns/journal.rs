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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        dns::{
            fuzz::{self, House},
            query::tests::query,
        },
        event::Batch,
        origin::{NetworkId, Origin},
    };

    #[test]
    fn who_asks_too_much_is_counted_and_not_kept() {
        let house = House::new(|_| {});
        house.core.journal.listen(true);
        let view = View::new(&house.core, &house.policy, 0, Instant::now());
        let asker = fuzz::asker(Origin::Lan(NetworkId::MAIN));

        for outcome in [Outcome::Limited, Outcome::Cached, Outcome::Limited] {
            view.report(&asker, &query("www.example", 1, None), &Step::Done(outcome), Duration::ZERO);
        }

        let mut kept = Vec::new();
        house.core.journal.drain(&mut Batch::default(), |batch| kept.extend(batch.questions().map(|one| one.outcome)));
        assert_eq!(kept, ["cached"]);
    }
}

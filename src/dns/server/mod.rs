//! How questions come in and answers go out.

mod mmsg;
pub(super) mod tcp;
pub(super) mod tunnel;
pub(super) mod udp;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use super::{
    Core,
    answer::{self, Asker, Step, View},
    counters::Transport,
    encode::Ede,
    policy::Policy,
    query::Question,
    room::Place,
};
use crate::{
    limit::Client,
    origin::{NetworkId, Origin, Source},
};

/// What a question that must wait takes along.
pub(super) struct Waiting {
    question: Question,
    policy: Arc<Policy>,
    place: Arc<Place>,
}

/// What is done with one message.
pub(super) enum Handled {
    /// The answer is written, or nothing is said if it is empty.
    Now(Step),
    /// Others must be asked.
    Later(Waiting),
}

/// Answers what can be answered at once, and takes a place for what cannot. A refresh that an answer asks for
/// is begun here; so this is called inside the plane's runtime.
pub(super) fn handle(
    core: &Arc<Core>,
    view: &View<'_>,
    policy: &Arc<Policy>,
    asker: &Asker,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Handled {
    let client = || asker.is_limited().then(|| Client::of(asker.client));
    match answer::answer(view, asker, bytes, None, out) {
        Step::Ask(question) => {
            core.series.missed();
            match core.room.enter(client()) {
                Ok(place) => Handled::Later(Waiting { question, policy: policy.clone(), place: place.into() }),
                Err(full) => {
                    core.series.overloaded(full.word());
                    Handled::Now(answer::give_up(bytes, asker, Ede::NotReady, out))
                }
            }
        }
        Step::Refresh(outcome, question) => {
            match core.room.enter(client()) {
                Ok(place) => core.flights.refresh(core, policy, question, place),
                // It can be asked for when it has expired.
                Err(full) => core.series.overloaded(full.word()),
            }
            Handled::Now(Step::Done(outcome))
        }
        step => Handled::Now(step),
    }
}

/// Answers one message that does not come in a batch; `None` says nothing is said.
pub(super) async fn serve(core: &Arc<Core>, asker: &Asker, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let handled = {
        let policy = core.policy.load_full()?;
        let networks = core.networks.load();
        let now = core.clock.seconds();
        let view = View { core, policy: &policy, networks: &networks, now, instant: Instant::now() };
        handle(core, &view, &policy, asker, bytes, &mut out)
    };
    match handled {
        Handled::Now(Step::Silence(reason)) => {
            core.series.dropped(reason);
            None
        }
        Handled::Now(Step::Done(outcome) | Step::Refresh(outcome, _)) => {
            core.series.answered(asker.transport, outcome);
            Some(out)
        }
        Handled::Now(Step::Ask(_)) => None,
        Handled::Later(waiting) => later(core, asker, bytes, waiting).await,
    }
}

/// Asks others and answers; the place is given back when whoever is asked is done, too.
pub(super) async fn later(core: &Arc<Core>, asker: &Asker, bytes: &[u8], waiting: Waiting) -> Option<Vec<u8>> {
    let Waiting { question, policy, place } = waiting;
    answer::answer_later(core, &policy, asker, bytes, question, &place).await
}

/// Answers a question of the process itself: as this box, over a way that cuts nothing.
pub(super) async fn serve_house(core: &Arc<Core>, bytes: &[u8]) -> Option<Vec<u8>> {
    let source = Source { origin: Origin::Lan(NetworkId::HOST), relay: false };
    let client = IpAddr::V6(Ipv6Addr::LOCALHOST);
    serve(core, &Asker { source, client, transport: Transport::House, name: None }, bytes).await
}

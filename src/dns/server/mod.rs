//! How questions come in and answers go out.

mod mmsg;
pub(super) mod quic;
pub(super) mod tcp;
pub(super) mod tls;
pub(super) mod tunnel;
pub(super) mod udp;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{
    ClientName, Core,
    answer::{self, Asker, Step, View},
    counters::{Dropped, Transport},
    devices,
    encode::{self, Ede},
    policy::Policy,
    query::Question,
    room::Place,
};
use crate::{
    limit::Client,
    origin::{NetworkId, Origin, Source},
    questions::{Answered, Asked, Unanswered},
};

/// What a question that must wait takes along.
pub(super) struct Waiting {
    question: Question,
    policy: Arc<Policy>,
    pub(super) place: Arc<Place>,
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
                Ok(mut place) => {
                    place.means = core.means(client(), view.instant);
                    Handled::Later(Waiting { question, policy: policy.clone(), place: place.into() })
                }
                Err(full) => {
                    core.series.overloaded(full.word());
                    Handled::Now(answer::give_up(core, bytes, asker, Ede::NotReady, out))
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

/// Answers one message that does not come in a batch, or says why nothing is said.
pub(super) async fn serve(core: &Arc<Core>, asker: &Asker, bytes: &[u8]) -> Result<Vec<u8>, Dropped> {
    match begin(core, asker, bytes)? {
        Begun::Done(answer) => Ok(answer),
        Begun::Later(waiting) => later(core, asker, bytes, waiting).await.ok_or(Dropped::Unsendable),
    }
}

/// What one message came to at once.
enum Begun {
    /// The answer.
    Done(Vec<u8>),
    /// Others must be asked.
    Later(Waiting),
}

fn begin(core: &Arc<Core>, asker: &Asker, bytes: &[u8]) -> Result<Begun, Dropped> {
    let mut out = Vec::new();
    let policy = core.policy.load_full().ok_or(Dropped::Unsendable)?;
    let view = View::new(core, &policy, core.clock.milliseconds(), Instant::now());
    let step = match handle(core, &view, &policy, asker, bytes, &mut out) {
        Handled::Now(step) => step,
        Handled::Later(waiting) => return Ok(Begun::Later(waiting)),
    };
    view.report(asker, bytes, &step, Duration::ZERO);
    match (step.outcome(), step) {
        (Some(outcome), _) => {
            core.series.answered(asker.transport, outcome);
            Ok(Begun::Done(out))
        }
        (None, Step::Silence(reason)) => {
            core.series.dropped(reason);
            Err(reason)
        }
        (None, _) => Err(Dropped::Unsendable),
    }
}

/// Answers a message that another plane read, inside `runtime`: what is known is answered where it was read.
pub(super) async fn serve_elsewhere(core: &Arc<Core>, runtime: &Handle, asked: Asked) -> Result<Answered, Unanswered> {
    let source = Source { origin: asked.origin, relay: false };
    let name = asked.device.as_deref().and_then(ClientName::new);
    let asker = Asker { source, client: asked.client, transport: Transport::Https, name };
    devices::find(core, &asker).await;
    let begun = {
        let _inside = runtime.enter();
        begin(core, &asker, &asked.message)
    };
    let message = match begun {
        Ok(Begun::Done(answer)) => answer,
        Ok(Begun::Later(waiting)) => {
            let core = core.clone();
            let asking = runtime.spawn(async move { later(&core, &asker, &asked.message, waiting).await });
            asking.await.ok().flatten().ok_or(Unanswered::Away)?
        }
        Err(Dropped::NoQuery) => return Err(Unanswered::Unreadable),
        Err(Dropped::Limit) => return Err(Unanswered::Limited),
        Err(_) => return Err(Unanswered::Away),
    };
    let ttl = encode::least_ttl(&message);
    Ok(Answered { message, ttl })
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
    serve(core, &Asker { source, client, transport: Transport::House, name: None }, bytes).await.ok()
}

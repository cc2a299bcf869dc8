//! A connection of which nothing is understood: its origin and its route are known before a byte of it is passed on.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    ingress::{
        AccessLog, Policy, Upstream,
        crowd::Held,
        permits::Subject,
        routes::{Route, Target},
        server::Core,
        tunnel::{self, End, Patience, Tally},
        upstream::{Dial, Ends, Group, UpstreamStream},
    },
    limit::Client,
    origin::Origin,
};

/// Who comes, and what they ask for.
pub(super) struct Caller {
    pub(super) origin: Origin,
    /// The client, as far as it is known.
    pub(super) client: IpAddr,
    pub(super) ends: Ends,
    pub(super) subject: Subject,
}

/// Passes on what a client says to a server of the route and what that one says to the client; `said` comes first.
pub(super) async fn serve<S>(
    core: &Rc<Core>,
    policy: Arc<Policy>,
    mut stream: S,
    said: BytesMut,
    route: Arc<Route>,
    caller: Caller,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Target::Passthrough(group) = &route.to else { return };
    let _held = match admit(core, &policy, &route, (caller.origin, caller.client)) {
        Ok(held) => held,
        Err(reason) => return core.shared.series.refusal(&route.name, reason),
    };
    let mut record = Record::new(core, &route, &caller);
    let permit = core.permits.issue_relayed((caller.origin, caller.client), caller.subject, route.clone());
    let ends = Ends { client: ends_with(&caller.ends, caller.client), ..caller.ends };
    let limit = policy.config.timeouts.connect;
    let Some((upstream, dial)) = connect(core, group, limit, ends).await else {
        record.outcome = "unreachable";
        return;
    };
    record.is_to(&dial.upstream);
    let patience = Patience::of(&policy.config.timeouts);
    // The policy is not held for as long as the connection is.
    drop(policy);
    let counters = core.shared.series.relayed_bytes(&route.name);
    let tally = Tally { up: Some(counters.0), down: Some(counters.1) };
    record.outcome = match tunnel::run(&mut stream, said, upstream, Bytes::new(), &permit, patience, tally).await {
        End::Ended => "done",
        End::Broken => "broken",
        End::Silent => "silent",
        End::Revoked => "revoked",
    };
}

/// Connects to the first server that answers.
async fn connect<'a>(
    core: &Core,
    group: &'a Group,
    limit: Duration,
    ends: Ends,
) -> Option<(UpstreamStream, &'a Arc<Dial>)> {
    for dial in group.order(None, Instant::now()) {
        match dial.connect(&core.shared.lookup, limit, Some(ends)).await {
            Ok(stream) => {
                dial.health.worked();
                return Some((stream, dial));
            }
            Err(error) => {
                dial.health.failed(Instant::now());
                core.dial_failed(dial, error);
            }
        }
    }
    None
}

/// Lets a client in as far as the route's limits do, or says why not.
pub(super) fn admit(
    core: &Core,
    policy: &Policy,
    route: &Route,
    (origin, client): (Origin, IpAddr),
) -> Result<Held, &'static str> {
    let limits = &route.rules.limits;
    if !limits.admit(client) {
        return Err("network");
    }
    if origin == Origin::Wan && !limits.admit_from(|| policy.countries.as_ref()?.of(client)) {
        return Err("country");
    }
    let over = |rate| {
        let key = (&*route.name, Client::of(client));
        core.shared.limits.check_key(key, rate, std::time::Instant::now()).is_err()
    };
    if limits.rate.is_some_and(over) {
        return Err("rate");
    }
    if route.series.under_way.get() >= i64::from(limits.concurrency) {
        return Err("concurrency");
    }
    core.shared.crowd.admit(&route.name, Client::of(client), limits.per_client).ok_or("per_client")
}

/// Behind a trusted proxy, of the client no port is known.
fn ends_with(ends: &Ends, client: IpAddr) -> std::net::SocketAddr {
    if client == ends.client.ip().to_canonical() { ends.client } else { (client, 0).into() }
}

/// Written when it is dropped, so that no end of a connection is missed.
pub(super) struct Record {
    core: Rc<Core>,
    route: Arc<Route>,
    origin: Origin,
    client: IpAddr,
    asked: String,
    upstream: Option<String>,
    began: Instant,
    pub(super) outcome: &'static str,
}

impl Record {
    pub(super) fn new(core: &Rc<Core>, route: &Arc<Route>, caller: &Caller) -> Self {
        route.series.under_way.inc();
        let asked = if route.log { caller.subject.to_string() } else { String::new() };
        let (core, route, began) = (core.clone(), route.clone(), Instant::now());
        // Whoever stops us stops it in the middle.
        let outcome = "broken";
        Self { core, route, origin: caller.origin, client: caller.client, asked, upstream: None, began, outcome }
    }

    /// Says which server it is passed on to.
    pub(super) fn is_to(&mut self, upstream: &Upstream) {
        if self.route.log {
            self.upstream = Some(upstream.to_string());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.route.series.under_way.dec();
        let shared = &self.core.shared;
        shared.series.relayed(&self.route.name, self.outcome);
        let policy = shared.policy.load();
        if self.route.log && policy.config.access_log != AccessLog::Off {
            tracing::info!(
                target: "access",
                client = %self.client,
                asked = self.asked,
                route = %self.route.name,
                upstream = self.upstream,
                outcome = self.outcome,
                origin = policy.config.directory.describe(self.origin),
                duration = ?self.began.elapsed(),
            );
        }
    }
}

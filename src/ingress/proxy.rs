//! What is done with a request, whichever HTTP it came by: admitted or answered, then sent upstream.

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use hyper::{HeaderMap, StatusCode};

use crate::{
    ingress::{
        Policy,
        canonical::{CanonicalHost, CanonicalPath},
        deadline::Deadline,
        h1::reply::ReplyHead,
        headers,
        permits::Permit,
        routes::{Route, Target},
        serve::{Answer, Refusal},
        server::Core,
        upstream::{Arrival, Dial, DialError, Outgoing, UpstreamBody, Wire},
    },
    limit::Client,
    origin::Origin,
};

/// The same for a host that does not exist, that another origin has, or that another certificate serves.
pub(super) const MISDIRECTED: Refusal = Refusal::Status(StatusCode::MISDIRECTED_REQUEST);

/// Whose requests come over a connection, and how.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) origin: Origin,
    /// The other end.
    pub(super) peer: IpAddr,
    pub(super) scheme: &'static str,
    /// The certificate that was shown, on TLS.
    pub(super) certificate: Option<Arc<str>>,
}

/// A request that a route of the visitor's table takes.
pub(super) struct Admitted {
    pub(super) route: Arc<Route>,
    /// The client, also behind a trusted proxy.
    pub(super) client: IpAddr,
}

/// Finds the route of a request, or the answer that it gets instead.
pub(super) fn admit(
    core: &Core,
    policy: &Policy,
    visitor: &Visitor,
    (host, path): (&CanonicalHost, &CanonicalPath),
    headers: &HeaderMap,
) -> Result<Admitted, Refusal> {
    let config = &policy.config;
    let trusted = |address: IpAddr| config.trusted_proxies.iter().any(|net| net.contains(&address));
    let client = match config.trusted_proxies.is_empty() {
        true => visitor.peer,
        false => headers::client_behind(headers, visitor.peer, trusted),
    };
    if let (Origin::Wan, Some(rate)) = (visitor.origin, config.wan_limit) {
        let checked = core.shared.limits.check(Client::of(client), rate, Instant::now());
        checked.map_err(|wait| {
            core.shared.series.limited.inc();
            Refusal::Limited(wait)
        })?;
    }
    let site = policy.tables.of(visitor.origin).hosts.site(host.as_str()).ok_or(MISDIRECTED)?;
    // A host that is served under another certificate was not meant by who asked for this one.
    let same = match (&site.certificate, &visitor.certificate) {
        (Some(served), Some(shown)) => served.name == *shown,
        (_, None) => true,
        (None, Some(_)) => false,
    };
    if !same {
        return Err(MISDIRECTED);
    }
    let route = site.route(path).ok_or(Refusal::Status(StatusCode::NOT_FOUND))?;
    Ok(Admitted { route: route.clone(), client })
}

/// The client's side of a body that goes upstream.
pub(super) trait Uplink {
    /// Tells a client that waits for it to send the body.
    fn go_ahead(&mut self);
    /// Moves the body on; ready when something moved, with an answer's status when it broke off.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>>;
    /// Whether the next step is the client's.
    fn is_owed(&self) -> bool;
}

/// For a body that the upstream's connection pulls by itself.
pub(super) struct NoUplink;

impl Uplink for NoUplink {
    fn go_ahead(&mut self) {}

    fn poll_pump(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        Poll::Pending
    }

    fn is_owed(&self) -> bool {
        false
    }
}

/// Why no response came.
pub(super) enum Failure {
    /// The client gets this status.
    Status(StatusCode),
    /// The client's permission ended meanwhile.
    Revoked,
}

/// Sends a request to the upstreams of a route in turn and waits for the head of a response.
pub(super) async fn forward(
    core: &Core,
    policy: &Policy,
    permit: &Permit,
    mut outgoing: Outgoing,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
) -> Result<Arrival, Failure> {
    let Target::Upstreams { dials, next } = &permit.route().to else {
        return Err(Failure::Status(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let first = if dials.len() > 1 { next.fetch_add(1, Ordering::Relaxed) % dials.len() } else { 0 };
    let mut failure = StatusCode::BAD_GATEWAY;
    let mut fresh_only = false;
    for dial in dials.iter().cycle().skip(first).take(dials.len()) {
        loop {
            let mut wire = match obtain(core, policy, dial, fresh_only).await {
                Ok(wire) => wire,
                Err(error) => {
                    failure = core.dial_failed(dial, error);
                    break;
                }
            };
            uplink.go_ahead();
            match exchange(core, policy, permit, &mut wire, &mut outgoing, uplink, deadline).await {
                Ok(head) => {
                    let body = UpstreamBody::new(&head, outgoing, wire, core.pools.clone());
                    return Ok(Arrival { head, body });
                }
                Err(Broken::Client(failure)) => return Err(failure),
                Err(Broken::TimedOut) => {
                    core.shared.series.upstream_failure("response_timeout");
                    return Err(Failure::Status(StatusCode::GATEWAY_TIMEOUT));
                }
                Err(Broken::Upstream) if wire.was_stale() && outgoing.rewind() => fresh_only = true,
                Err(Broken::Upstream) => {
                    core.shared.series.upstream_failure("broken");
                    return Err(Failure::Status(StatusCode::BAD_GATEWAY));
                }
            }
        }
    }
    Err(Failure::Status(failure))
}

async fn obtain(core: &Core, policy: &Policy, dial: &Arc<Dial>, fresh_only: bool) -> Result<Box<Wire>, DialError> {
    if !fresh_only && let Some(wire) = core.pools.take(dial.pool) {
        return Ok(wire);
    }
    let stream = dial.connect(&core.shared.lookup, policy.config.timeouts.connect).await?;
    Ok(Wire::new(dial.pool, stream))
}

enum Broken {
    Client(Failure),
    TimedOut,
    Upstream,
}

async fn exchange(
    core: &Core,
    policy: &Policy,
    permit: &Permit,
    wire: &mut Wire,
    outgoing: &mut Outgoing,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
) -> Result<ReplyHead, Broken> {
    let timeouts = &policy.config.timeouts;
    let limit = |owed| if owed { timeouts.body } else { timeouts.response };
    deadline.set(limit(uplink.is_owed()));
    poll_fn(|cx| {
        loop {
            let mut moved = match uplink.poll_pump(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(status)) => return Poll::Ready(Err(Broken::Client(Failure::Status(status)))),
                Poll::Pending => false,
            };
            match wire.send(outgoing, cx) {
                Ok(sent) => moved |= sent,
                Err(_) => return Poll::Ready(Err(Broken::Client(Failure::Status(StatusCode::BAD_REQUEST)))),
            }
            if let Poll::Ready(head) = wire.poll_head(&core.pools.scratch, cx) {
                return Poll::Ready(head.map_err(|fault| {
                    tracing::debug!(%fault, "no response");
                    Broken::Upstream
                }));
            }
            if moved {
                deadline.set(limit(uplink.is_owed()));
                continue;
            }
            if permit.poll_revoked(cx).is_ready() {
                return Poll::Ready(Err(Broken::Client(Failure::Revoked)));
            }
            return deadline.poll(cx).map(|()| match uplink.is_owed() {
                true => Err(Broken::Client(Failure::Status(StatusCode::REQUEST_TIMEOUT))),
                false => Err(Broken::TimedOut),
            });
        }
    })
    .await
}

/// Answers of pages that are built in.
pub(super) fn builtin(policy: &Policy, visitor: &Visitor, target: &Target) -> Option<Answer> {
    match target {
        Target::Builtin(crate::ingress::Builtin::Welcome) => {
            Some(super::serve::welcome(&policy.config.directory.describe(visitor.origin)))
        }
        Target::Upstreams { .. } => None,
    }
}

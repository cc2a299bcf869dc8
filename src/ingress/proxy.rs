//! What is done with a request, whichever HTTP it came by: admitted or answered, then sent upstream.

use std::{
    future::poll_fn,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};

use crate::{
    ingress::{
        Http, Policy,
        auth::{self, Granted},
        canonical::{CanonicalHost, CanonicalPath},
        change,
        deadline::Deadline,
        doh,
        h1::reply::ReplyHead,
        permits::{Permit, Shown, permits},
        routes::{Route, Target},
        serve::{self, Answer, Compressor, Refusal, Taste, Verdict},
        server::Core,
        upstream::{Arrival, Dial, DialError, Ends, Lane, Outgoing, SILENCE, Slot, UpstreamBody, Wire},
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
    pub(super) through: Through,
    pub(super) scheme: &'static str,
    /// The host that TLS was begun for.
    pub(super) begun_for: Option<Box<str>>,
    /// The certificate that was shown, on TLS.
    pub(super) certificate: Option<Arc<str>>,
    /// The realm of the certificate that the client showed, if it had to.
    pub(super) realm: Option<Arc<str>>,
    /// The two ends of the connection.
    pub(super) ends: Ends,
}

impl Visitor {
    /// A proxy that does not say whom it speaks for is everybody, or asks for itself whether we are well.
    pub(super) fn is_unnamed(&self, client: IpAddr) -> bool {
        matches!(self.through, Through::Proxy { speaks_first: false, .. }) && client == self.peer
    }

    /// Returns the ends as servers are told them: behind a trusted proxy, of the client no port is known.
    pub(super) fn ends(&self, client: IpAddr) -> Ends {
        match client == self.ends.client.ip().to_canonical() {
            true => self.ends,
            false => Ends { client: (client, 0).into(), ..self.ends },
        }
    }
}

/// Whether somebody speaks for the clients of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// The other end is the client.
    Nobody,
    /// A trusted proxy of this door; it says whom it speaks for before all else, or with each request.
    Proxy { door: Option<usize>, speaks_first: bool },
}

/// A request that a route of the visitor's table takes.
pub(super) struct Admitted {
    pub(super) route: Arc<Route>,
    /// The client, also behind a trusted proxy.
    pub(super) client: IpAddr,
}

/// What a request asks for, whichever HTTP it came by.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) host: &'a CanonicalHost,
    pub(super) path: &'a CanonicalPath,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    /// `*`: the server as a whole is meant (RFC 9110 §9.3.7).
    pub(super) whole_server: bool,
    /// How long its body is, as far as it says.
    pub(super) length: Option<u64>,
}

/// Finds the route of a request, or the answer that it gets instead.
pub(super) fn admit(core: &Core, policy: &Policy, visitor: &Visitor, asked: &Asked<'_>) -> Result<Admitted, Refusal> {
    let &Asked { method, host, path, headers, .. } = asked;
    let config = &policy.config;
    let client = match visitor.through {
        Through::Proxy { door, speaks_first: false } => config.proxies(door).client_behind(headers, visitor.peer),
        _ => visitor.peer,
    };
    let limited = |wait| {
        core.shared.series.limited.inc();
        Refusal::Limited(wait)
    };
    let strangers = &core.shared.strangers;
    let wan_limit = config.wan_limit.filter(|_| visitor.origin == Origin::Wan);
    // What a trusted proxy asks for itself, to see whether we are well, says nothing of other gateways.
    let for_itself = visitor.is_unnamed(client);
    if visitor.origin == Origin::Wan && !for_itself {
        strangers.count(client == visitor.peer && core.shared.networks.load().relays.contains(&client));
    }
    // Also on a connection that was there before, and for every host alike.
    if visitor.origin == Origin::Wan && !for_itself && core.is_outcast(policy, client) {
        core.shared.series.outcasts.inc();
        return Err(Refusal::Status(StatusCode::FORBIDDEN));
    }
    if visitor.origin == Origin::Wan
        && !for_itself
        && !strangers.are_masked()
        && let Some(left) = strangers.bans.left(Client::of(client), Instant::now())
    {
        return Err(limited(left));
    }
    if let Some(rate) = wan_limit
        && !strangers.are_masked()
    {
        core.shared.limits.check(Client::of(client), rate, Instant::now()).map_err(limited)?;
    }
    let hosts = &policy.tables.of(visitor.origin).hosts;
    // Where TLS ended here it was begun for a host that a route names.
    let site = if visitor.scheme == "https" { hosts.own(host.as_str()) } else { hosts.site(host.as_str()) };
    let Some(site) = site else {
        core.note_trespass(policy, visitor.origin, client, host.as_str());
        return Err(MISDIRECTED);
    };
    // A host that is served under another certificate was not meant by who asked for this one.
    let same = match (&site.certificate, &visitor.certificate) {
        // Who asked for this very host may go on when a reload has given it another certificate.
        (Some(served), Some(shown)) => served.name == *shown || visitor.begun_for.as_deref() == Some(host.as_str()),
        (_, None) => true,
        (None, Some(_)) => false,
    };
    // Nor was one whose clients show another certificate, or none.
    // Nor is anything of a host over TLS that ended here if its own server ends it.
    let passed = site.passed.is_some();
    if !same || (visitor.scheme == "https" && (passed || !site.is_of(visitor.realm.as_ref()))) {
        return Err(MISDIRECTED);
    }
    let route = site.route(path, method, headers).ok_or(Refusal::Status(StatusCode::NOT_FOUND))?;
    if let Some(rate) = wan_limit
        && strangers.are_masked()
    {
        core.shared.limits.check_key(("masked", &*route.name), rate, Instant::now()).map_err(limited)?;
    }
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
    /// Whether the client has ended its side of the connection; woken when it does.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool;
}

/// How long an upstream may still work for a client that has ended its side: such a client has mostly gone away.
pub(super) const GONE: Duration = Duration::from_secs(5);

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

    /// The connection of HTTP/2 notices by itself.
    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> bool {
        false
    }
}

/// Why no response came.
pub(super) enum Failure {
    /// The client gets this status.
    Status(StatusCode),
    /// Its servers have enough to do; another attempt may be made after so many seconds.
    Busy(u64),
    /// The client's permission ended meanwhile.
    Revoked,
}

impl Failure {
    /// Returns what the client gets.
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Status(status) => Answer::fixed(status),
            Self::Busy(seconds) => {
                let mut answer = Answer::fixed(StatusCode::SERVICE_UNAVAILABLE);
                answer.headers.insert(header::RETRY_AFTER, seconds.into());
                answer
            }
            Self::Revoked => MISDIRECTED.into(),
        }
    }
}

/// Sends a request to the upstreams of a route in turn and waits for the head of a response.
pub(super) async fn forward(
    core: &Core,
    policy: &Policy,
    permit: &Permit,
    outgoing: Outgoing,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
    (wanted, visitor): (Option<u64>, &Visitor),
) -> Result<Arrival, Failure> {
    let Target::Upstreams(group) = &permit.route().to else {
        return Err(Failure::Status(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let order = group.order(wanted, tokio::time::Instant::now());
    let (mut arrival, dial) = forward_in_turn(core, policy, permit, order, outgoing, uplink, deadline).await?;
    group.keep(wanted, dial, visitor.scheme == "https", &mut arrival.head.headers);
    Ok(arrival)
}

/// Sends a request to these servers in turn.
pub(super) async fn forward_to(
    core: &Core,
    policy: &Policy,
    permit: &Permit,
    dials: &[Arc<Dial>],
    outgoing: Outgoing,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
) -> Result<Arrival, Failure> {
    let forwarded = forward_in_turn(core, policy, permit, dials.iter(), outgoing, uplink, deadline).await;
    forwarded.map(|(arrival, _)| arrival)
}

async fn forward_in_turn<'a>(
    core: &Core,
    policy: &Policy,
    permit: &Permit,
    dials: impl Iterator<Item = &'a Arc<Dial>>,
    mut outgoing: Outgoing,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
) -> Result<(Arrival, &'a Dial), Failure> {
    let mut failure = StatusCode::BAD_GATEWAY;
    let mut fresh_only = false;
    let mut dials = dials.peekable();
    // Who has no room at once is waited for if nobody else answers.
    let mut full: Option<&Arc<Dial>> = None;
    loop {
        let (dial, mut slot) = match dials.next() {
            Some(dial) => match &dial.door {
                None => (dial, None),
                Some(door) => match door.enter(permit.whose()) {
                    Some(slot) => (dial, Some(slot)),
                    None => {
                        full.get_or_insert(dial);
                        continue;
                    }
                },
            },
            None => match full.take() {
                Some(dial) => (dial, stand_in_line(core, permit, dial, uplink, deadline).await?),
                None => break,
            },
        };
        loop {
            let mut lane = match obtain(core, policy, dial, &outgoing, fresh_only).await {
                Ok(lane) => lane,
                Err(error) => {
                    dial.health.failed(tokio::time::Instant::now());
                    failure = core.dial_failed(dial, error);
                    break;
                }
            };
            uplink.go_ahead();
            match exchange(core, policy, permit, &mut lane, &mut outgoing, uplink, deadline).await {
                Ok(head) => {
                    dial.health.worked();
                    let body = UpstreamBody::new(&head, outgoing, lane, slot.take(), core.pools.clone());
                    return Ok((Arrival { head, body }, dial));
                }
                Err(Broken::Client(failure)) => return Err(failure),
                Err(Broken::TimedOut) => {
                    lane.give_up();
                    dial.health.failed(tokio::time::Instant::now());
                    core.shared.series.upstream_failure("response_timeout");
                    return Err(Failure::Status(StatusCode::GATEWAY_TIMEOUT));
                }
                Err(Broken::Upstream) if lane.was_stale() && outgoing.rewind() => fresh_only = true,
                Err(Broken::Upstream) if !fresh_only && lane.was_unprocessed() && outgoing.rewind_unprocessed() => {
                    fresh_only = true;
                }
                Err(Broken::Upstream) if lane.was_reset() => {
                    core.shared.series.upstream_failure("reset");
                    return Err(Failure::Status(StatusCode::BAD_GATEWAY));
                }
                Err(Broken::Upstream) => {
                    dial.health.failed(tokio::time::Instant::now());
                    let another = (dials.peek().is_some() || full.is_some()) && lane.was_silent() && outgoing.rewind();
                    if another && core.may_retry(&permit.route().name) {
                        core.shared.series.retries.inc();
                        fresh_only = false;
                        break;
                    }
                    core.shared.series.upstream_failure("broken");
                    return Err(Failure::Status(StatusCode::BAD_GATEWAY));
                }
            }
        }
    }
    Err(Failure::Status(failure))
}

/// Waits until a server has room, in order of arrival.
async fn stand_in_line(
    core: &Core,
    permit: &Permit,
    dial: &Dial,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
) -> Result<Option<Slot>, Failure> {
    let Some(door) = &dial.door else { return Ok(None) };
    let route = &permit.route().name;
    let busy = |reason| {
        core.shared.series.refusal(route, reason);
        Failure::Busy(door.limit.wait.as_secs().max(1))
    };
    let Some(mut place) = door.wait(permit.whose()) else { return Err(busy("queue_full")) };
    let _counted = core.shared.series.waits(route);
    deadline.set(door.limit.wait);
    poll_fn(|cx| {
        if let Poll::Ready(slot) = place.poll(cx) {
            return Poll::Ready(Ok(slot));
        }
        if permit.poll_revoked(cx).is_ready() {
            return Poll::Ready(Err(Failure::Revoked));
        }
        if uplink.poll_gone(cx) {
            return Poll::Ready(Err(Failure::Status(StatusCode::SERVICE_UNAVAILABLE)));
        }
        deadline.poll(cx).map(|()| Err(busy("queue_wait")))
    })
    .await
}

async fn obtain(
    core: &Core,
    policy: &Policy,
    dial: &Arc<Dial>,
    outgoing: &Outgoing,
    fresh_only: bool,
) -> Result<Lane, DialError> {
    let (lookup, limit) = (&core.shared.lookup, policy.config.timeouts.connect);
    if dial.proxy_protocol.is_some() {
        return Box::pin(dial.lane(lookup, limit, outgoing.ends())).await;
    }
    // Connecting is seldom needed, so its room is not part of every connection's.
    match dial.upstream.http {
        Http::One => {
            if !fresh_only && let Some(wire) = core.pools.take(dial.pool) {
                return Ok(Lane::Wire(wire));
            }
            Ok(Lane::Wire(Wire::new(dial.pool, Box::pin(dial.connect(lookup, limit, None)).await?)))
        }
        Http::Two => Box::pin(core.pools.stream(dial, lookup, limit, fresh_only)).await,
        // Nothing that is not understood has requests.
        Http::Opaque | Http::Datagrams => Err(DialError::Protocol),
    }
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
    lane: &mut Lane,
    outgoing: &mut Outgoing,
    uplink: &mut impl Uplink,
    deadline: &mut Deadline,
) -> Result<ReplyHead, Broken> {
    let timeouts = &policy.config.timeouts;
    let mut gone = false;
    let limit = |owed| match owed {
        true => timeouts.body,
        false => timeouts.response,
    };
    deadline.set(limit(uplink.is_owed() || outgoing.is_owed()));
    poll_fn(|cx| {
        loop {
            let mut moved = match uplink.poll_pump(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(status)) => return Poll::Ready(Err(Broken::Client(Failure::Status(status)))),
                Poll::Pending => false,
            };
            match lane.send(outgoing, cx) {
                Ok(sent) => moved |= sent,
                Err(broken) => return Poll::Ready(Err(Broken::Client(Failure::Status(broken.status())))),
            }
            if let Poll::Ready(head) = lane.poll_head(&core.pools.scratch, cx) {
                return Poll::Ready(head.map_err(|fault| {
                    tracing::debug!(%fault, "no response");
                    Broken::Upstream
                }));
            }
            let owed = uplink.is_owed() || outgoing.is_owed();
            if moved {
                deadline.set(limit(owed));
                continue;
            }
            if permit.poll_revoked(cx).is_ready() {
                return Poll::Ready(Err(Broken::Client(Failure::Revoked)));
            }
            if !gone && uplink.poll_gone(cx) {
                gone = true;
                deadline.set(limit(false).min(GONE));
            }
            return deadline.poll(cx).map(|()| match owed {
                true => Err(Broken::Client(Failure::Status(StatusCode::REQUEST_TIMEOUT))),
                false => Err(Broken::TimedOut),
            });
        }
    })
    .await
}

/// Asks whether a request may go on: by the route's limits first, then by who sends it. The route's count of
/// requests under way has this one in it.
pub(super) async fn permit(
    core: &Rc<Core>,
    policy: &Policy,
    visitor: &Visitor,
    admitted: &Admitted,
    asked: &Asked<'_>,
) -> Result<Granted, Answer> {
    let Admitted { route, .. } = admitted;
    if let Some((reason, answer)) = refusal(core, policy, visitor, admitted, asked) {
        core.shared.series.refusal(&route.name, reason);
        return Err(answer);
    }
    let Some(guard) = &route.guard else { return Ok(Granted::default()) };
    // Not every request needs the room.
    let granted = Box::pin(auth::check(core, policy, visitor, (admitted, guard), asked)).await?;
    // The policy may have changed while somebody else was asked.
    let (shown, wanted) = (Shown::by(visitor), (asked.host, asked.path, asked.method));
    match core.newer(policy) {
        Some(newer) if !permits(&newer, (visitor.origin, &shown), wanted, route) => Err(MISDIRECTED.into()),
        _ => Ok(granted),
    }
}

/// The answer to a request that goes no further than this, if it is one.
pub(super) fn answer_here(
    policy: &Policy,
    visitor: &Visitor,
    admitted: &Admitted,
    asked: &Asked<'_>,
) -> Option<Answer> {
    let Admitted { route, .. } = admitted;
    let mut answer = match &route.to {
        _ if asked.whole_server || is_last_hop(asked) => return Some(Answer::options()),
        _ if route.rules.maintenance.is_some() => {
            let mut answer = route.rules.maintenance.as_ref().map(Answer::page)?;
            answer.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("120"));
            answer
        }
        Target::Builtin(crate::ingress::Builtin::Welcome) => {
            super::serve::welcome(&policy.config.directory.describe(visitor.origin))
        }
        Target::Redirect(redirect) => {
            let location = redirect.location(asked.host, asked.path, asked.query);
            Answer::redirect(redirect.status, &location).unwrap_or_else(|| Answer::fixed(StatusCode::BAD_REQUEST))
        }
        Target::Page(page) => Answer::page(page),
        Target::Builtin(crate::ingress::Builtin::Page(_)) => return None,
        Target::Upstreams(_) | Target::Passthrough(_) | Target::Dns(_) | Target::DnsOf(..) => return None,
    };
    leave(&mut answer.headers, route, visitor, &[]);
    Some(answer)
}

fn refusal(
    core: &Core,
    policy: &Policy,
    visitor: &Visitor,
    &Admitted { ref route, client }: &Admitted,
    asked: &Asked<'_>,
) -> Option<(&'static str, Answer)> {
    let limits = &route.rules.limits;
    let busy = |reason| {
        let mut answer = Answer::fixed(StatusCode::SERVICE_UNAVAILABLE);
        answer.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        Some((reason, answer))
    };
    if !limits.admit(client) {
        return Some(("network", Answer::fixed(StatusCode::FORBIDDEN)));
    }
    if visitor.origin == Origin::Wan && !limits.admit_from(|| policy.countries.as_ref()?.of(client)) {
        return Some(("country", Answer::fixed(StatusCode::FORBIDDEN)));
    }
    if let Some(rate) = limits.rate
        && let Err(wait) = core.shared.limits.check_key((&*route.name, Client::of(client)), rate, Instant::now())
    {
        return Some(("rate", Refusal::Limited(wait).into()));
    }
    if visitor.origin == Origin::Wan {
        let (census, most) = (&core.shared.census, policy.config.max_requests);
        if census.requests() > most {
            return busy("full");
        }
        // One that cannot be told from others has the share of all of them.
        let told_apart = !core.shared.strangers.are_masked() && !visitor.is_unnamed(client);
        if told_apart && census.requests_of(Client::of(client)) > share_of_one(most) {
            return busy("full_of_one");
        }
    }
    if route.series.under_way.get() > i64::from(limits.concurrency) {
        return busy("concurrency");
    }
    if limits.header < usize::MAX && size(asked.headers) > limits.header {
        return Some(("header", Answer::fixed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
    }
    if asked.length.is_some_and(|length| length > limits.body) {
        return Some(("body", Answer::fixed(StatusCode::PAYLOAD_TOO_LARGE)));
    }
    None
}

/// Requests that one stranger may have at work of all that strangers may: an eighth, but what a page takes at once.
fn share_of_one(most: u32) -> u32 {
    (most / 8).max(most.min(32))
}

/// Bytes of fields, as HTTP/1.1 writes them.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

/// RFC 9110 §7.6.2: an OPTIONS that may go no further is answered where it is.
fn is_last_hop(asked: &Asked<'_>) -> bool {
    *asked.method == Method::OPTIONS && asked.headers.get(header::MAX_FORWARDS).is_some_and(|hops| hops == "0")
}

/// Reads of a request what decides whether its answer is compressed.
pub(super) fn taste(route: &Route, visitor: &Visitor, method: &Method, headers: &HeaderMap) -> Taste {
    let guarded = route.guard.is_some() || visitor.realm.is_some();
    Taste::of(&route.rules.compress, method, headers, guarded)
}

/// Compresses a response, if that does no harm. Its head is in its last form.
pub(super) fn compress(core: &Core, taste: Taste, arrival: &mut Arrival) {
    let Arrival { head, body } = arrival;
    let mut verdict = taste.judge(head.status, &head.headers, body.length());
    if let Verdict::Compress(coding) = verdict {
        match Compressor::new(coding, &core.shared.compressing) {
            Some(compressor) => {
                core.shared.series.compressed(coding.name());
                body.compress(compressor);
            }
            None => verdict = Verdict::Vary,
        }
    }
    serve::announce(verdict, &mut head.headers);
}

/// How long a server may be silent in the midst of a response: events and messages come when there are some, and a client
/// that is gone is noticed without them.
///
/// The server says so, and nobody else: what a client says of its request must not hold anything open.
pub(super) fn silence(headers: &HeaderMap, limit: Duration) -> Duration {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let is_conversation = match kind.as_slice() {
        b"text/event-stream" | b"application/grpc" => true,
        // "application/grpc-web" is no such stream: it comes over any HTTP and ends with its answer.
        other => other.starts_with(b"application/grpc+"),
    };
    if is_conversation { SILENCE.max(limit) } else { limit }
}

/// Turns the fields of a response into what the route's clients get.
pub(super) fn leave(headers: &mut HeaderMap, route: &Route, visitor: &Visitor, cookies: &[HeaderValue]) {
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie.clone());
    }
    if !route.rules.response.is_empty() {
        route.rules.response.apply(headers);
    }
    if route.rules.security {
        change::secure(headers, visitor.scheme);
    }
}

/// The DNS server that a request is for, or what it gets because there is no such thing there.
pub(super) fn asks_dns(
    target: &Target,
    host: &CanonicalHost,
    path: &CanonicalPath,
) -> Option<Result<Option<Arc<str>>, Refusal>> {
    match target {
        Target::Dns(own) => Some(doh::device(own, host, path)),
        Target::DnsOf(device, own) => Some(match path.as_str().trim_end_matches('/') == own.as_str() {
            true => Ok(Some(device.clone())),
            false => Err(Refusal::Status(StatusCode::NOT_FOUND)),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_of_messages_may_be_silent_for_long() {
        let limit = Duration::from_secs(60);
        let of = |kind: &'static str| {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();
            silence(&headers, limit)
        };

        for kind in
            ["application/grpc", "Application/gRPC+proto", "application/grpc ; x=y", "text/event-stream;charset=utf-8"]
        {
            assert_eq!(of(kind), SILENCE, "{kind}");
        }
        for kind in
            ["application/grpc-web", "application/grpcx", "application/grpc/x", "text/event-streams", "text/html", ""]
        {
            assert_eq!(of(kind), limit, "{kind}");
        }
    }

    #[test]
    fn one_stranger_has_a_share_and_small_limits_are_for_everybody() {
        assert_eq!([1024, 256, 100, 8, 1].map(share_of_one), [128, 32, 32, 8, 1]);
    }
}

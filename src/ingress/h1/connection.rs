//! One HTTP/1.1 connection of a client: head, answer, body, and again.
//!
//! Reading the client, driving the upstream and writing the client are one task with one timer. A connection
//! at rest holds no buffer: what arrives is read into one that the core's connections share.

use std::{future::poll_fn, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use hyper::{HeaderMap, Method, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    body::{Decoder, Encoder},
    head::{Form, Framing, Limits, Parse, Reject, RequestHead, Scheme, Version, parse},
    outbound::Outbound,
    response::{Persistence, ResponseFraming, encode},
    upload::{Upload, Whole},
};
use crate::{
    ingress::{
        Http, Policy,
        auth::Granted,
        canonical::CanonicalPath,
        deadline::Deadline,
        doh,
        headers::{self, Told},
        pages,
        permits::Permit,
        proxy::{self, Admitted, Asked, GONE, Uplink as _, Visitor},
        record::Record,
        serve::{Answer, Refusal, Taste},
        server::{Core, Presence, close_in_order},
        tunnel::{self, Patience, Tally},
        upstream::{Arrival, Feed, Outgoing, RequestBody, Slot},
    },
    questions,
};

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) enum Service {
    /// Requests go to routes.
    Routes,
    /// Plain HTTP: requests are sent to https on this port.
    Redirect(u16),
    /// Plain HTTP that was https up to a proxy: requests go to routes.
    Unwrapped,
}

/// What becomes of the connection.
enum Next {
    /// Another request may come.
    Request,
    /// The client is to see all that was written, then it ends.
    Close,
    /// It ends now.
    Abort,
}

/// Serves a connection until it ends.
pub(in crate::ingress) async fn serve<S>(
    core: &Rc<Core>,
    mut stream: S,
    visitor: &Visitor,
    presence: &Presence,
    service: Service,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut policy = core.shared.policy.load_full();
    let mut input = BytesMut::new();
    let mut deadline = Deadline::after(policy.config.timeouts.header);
    let mut first = true;
    loop {
        let head = match read_head(core, &mut stream, &mut input, &mut deadline, &policy, presence, first).await {
            Ok(Some(head)) => head,
            Ok(None) => return close_in_order(&mut stream).await,
            Err(reject) => {
                let status = StatusCode::from_u16(reject.status).unwrap_or(StatusCode::BAD_REQUEST);
                tracing::debug!(reason = reject.reason, origin = ?visitor.origin, "request refused");
                let mut record = Record::new(core, visitor, Instant::now(), Method::GET);
                deadline.set(policy.config.timeouts.body);
                let answer = Answer::fixed(status);
                record.status = status;
                if write_answer(core, &mut stream, &mut deadline, &Method::GET, Version::Http11, answer, false).await {
                    close_in_order(&mut stream).await;
                }
                return;
            }
        };
        first = false;
        core.refresh(&mut policy);
        let mut request = Request { core, stream: &mut stream, input: &mut input, deadline: &mut deadline, visitor };
        let next = match service {
            Service::Routes | Service::Unwrapped => request.answer(&policy, head).await,
            Service::Redirect(port) => request.redirect(&policy, head, port).await,
        };
        match next {
            Answered::Next(Next::Request) if !core.is_closing() => deadline.set(policy.config.timeouts.idle),
            Answered::Next(Next::Request | Next::Close) => return close_in_order(&mut stream).await,
            Answered::Next(Next::Abort) => return,
            Answered::Tunnel(tunnel) => {
                let Tunnel { upstream, early, permit, _record, _slot } = *tunnel;
                let patience = Patience::of(&policy.config.timeouts);
                let tally = Tally::default();
                let work = tunnel::run(&mut stream, input, upstream, early, &permit, patience, tally);
                Box::pin(work).await;
                return;
            }
        }
    }
}

enum Answered {
    Next(Next),
    Tunnel(Box<Tunnel>),
}

struct Tunnel {
    upstream: crate::ingress::upstream::UpstreamStream,
    early: Bytes,
    permit: Permit,
    _record: Record,
    /// It is one of those that its server is given at once.
    _slot: Option<Slot>,
}

/// Waits for a request's head; `None` if the client went away or stayed silent for too long.
async fn read_head<S>(
    core: &Core,
    stream: &mut S,
    input: &mut BytesMut,
    deadline: &mut Deadline,
    policy: &Policy,
    presence: &Presence,
    first: bool,
) -> Result<Option<Box<RequestHead>>, Reject>
where
    S: AsyncRead + Unpin,
{
    let limits = Limits::new(policy.config.max_header, policy.config.max_fields);
    let mut waiting = false;
    loop {
        if !input.is_empty() {
            match parse(input, &limits)? {
                Parse::Complete { head, used } => {
                    input.advance(used);
                    if input.is_empty() {
                        *input = BytesMut::new();
                    }
                    return Ok(Some(head));
                }
                Parse::Partial if !waiting => {
                    waiting = true;
                    deadline.set(policy.config.timeouts.header);
                }
                Parse::Partial => {}
            }
        }
        presence.idle.set(input.is_empty() && !first);
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = core.poll_read_shared(stream, input, cx) {
                return Poll::Ready(Some(read));
            }
            deadline.poll(cx).map(|()| None)
        })
        .await;
        presence.idle.set(false);
        match read {
            Some(Ok(0) | Err(_)) => return Ok(None),
            Some(Ok(_)) => {}
            None if input.is_empty() => return Ok(None),
            None => return Err(Reject { status: 408, reason: "head takes too long" }),
        }
    }
}

struct Request<'a, 's, S> {
    core: &'a Rc<Core>,
    stream: &'s mut S,
    input: &'s mut BytesMut,
    deadline: &'s mut Deadline,
    visitor: &'a Visitor,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Request<'a, '_, S> {
    async fn answer(&mut self, policy: &Arc<Policy>, head: Box<RequestHead>) -> Answered {
        let head = *head;
        let (core, visitor) = (self.core, self.visitor);
        let mut record = Record::new(core, visitor, Instant::now(), head.method.clone());
        if let Form::Absolute(scheme) = head.form
            && (scheme == Scheme::Https) != (visitor.scheme == "https")
        {
            return self.refuse(&mut record, &head.method, head.version, proxy::MISDIRECTED.into()).await;
        }
        let asked = asked(&head);
        let admitted = match proxy::admit(core, policy, visitor, &asked) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(&mut record, &head.method, head.version, refusal.into()).await,
        };
        self.proceed(policy, record, head, admitted).await
    }

    /// Does what the route says.
    async fn proceed(
        &mut self,
        policy: &Arc<Policy>,
        mut record: Record,
        head: RequestHead,
        admitted: Admitted,
    ) -> Answered {
        let (core, visitor) = (self.core, self.visitor);
        let protocol = if head.version == Version::Http10 { "1.0" } else { "1.1" };
        record.taken_by(&admitted, &asked(&head), protocol);
        let no_body = matches!(head.framing, Framing::None | Framing::Length(0));
        let granted = proxy::permit(core, policy, visitor, &admitted, &asked(&head)).await;
        let (granted, answer) = match granted {
            Ok(granted) => (granted, proxy::answer_here(policy, visitor, &admitted, &asked(&head))),
            Err(answer) => (Granted::default(), Some(answer)),
        };
        if let Some(answer) = answer {
            let keep = head.keep_alive && no_body && !core.is_draining();
            record.status = answer.status;
            record.bytes = answer.body.len() as u64;
            self.deadline.set(policy.config.timeouts.body);
            let written =
                write_answer(core, self.stream, self.deadline, &head.method, head.version, answer, keep).await;
            return Answered::Next(match (written, keep) {
                (true, true) => Next::Request,
                (true, false) => Next::Close,
                (false, _) => Next::Abort,
            });
        }
        if let Some(device) = proxy::asks_dns(&admitted.route.to, &head.host, &head.path) {
            let asked = self.dns(policy, &head, device).await;
            let keep = head.keep_alive && asked.is_ok() && (no_body || head.method == Method::POST);
            let answer = match asked {
                Ok((device, message)) => {
                    doh::answer(&core.shared.questions, visitor.origin, admitted.client, device, message).await
                }
                Err(refusal) => doh::refused(refusal),
            };
            record.status = answer.status;
            record.bytes = answer.body.len() as u64;
            self.deadline.set(policy.config.timeouts.body);
            let written =
                write_answer(core, self.stream, self.deadline, &head.method, head.version, answer, keep).await;
            return Answered::Next(match (written, keep) {
                (true, true) => Next::Request,
                (true, false) => Next::Close,
                (false, _) => Next::Abort,
            });
        }
        if let Some(page) = pages::page(&admitted.route.to) {
            let body = match pages::takes_body(&head.method) {
                true => {
                    self.deadline.set(policy.config.timeouts.header);
                    let decoder = Decoder::new(head.framing);
                    let whole = Whole { decoder, expects: head.expect_continue, longest: crate::pages::LONGEST };
                    whole.read(self.stream, self.input, self.deadline).await
                }
                false => Ok(Vec::new()),
            };
            let keep =
                head.keep_alive && body.is_ok() && (no_body || pages::takes_body(&head.method)) && !core.is_draining();
            let mut answer = pages::answer(&core.shared.pages, page, visitor, &admitted, &asked(&head), body).await;
            proxy::leave(&mut answer.headers, &admitted.route, visitor, &granted.cookies);
            record.status = answer.status;
            record.bytes = answer.body.len() as u64;
            self.deadline.set(policy.config.timeouts.body);
            let written =
                write_answer(core, self.stream, self.deadline, &head.method, head.version, answer, keep).await;
            return Answered::Next(match (written, keep) {
                (true, true) => Next::Request,
                (true, false) => Next::Close,
                (false, _) => Next::Abort,
            });
        }
        let rules = &admitted.route.rules;
        let path = match rules.rewrite.is_empty() {
            true => None,
            false => match rules.rewrite.apply(&head.path) {
                Ok(path) => Some(path),
                Err(_) => {
                    let answer = Answer::fixed(StatusCode::BAD_REQUEST);
                    return self.refuse(&mut record, &head.method, head.version, answer).await;
                }
            },
        };
        let feed = (!no_body).then(|| {
            Feed::new(match head.framing {
                Framing::Length(length) => Some(length),
                _ => None,
            })
        });
        let body = feed.clone().map_or(RequestBody::Empty, RequestBody::Fed);
        let http = admitted.route.http();
        // HTTP/2 has no upgrade; RFC 9110 §7.8 lets it go unanswered.
        let key = head.websocket.filter(|_| http == Http::One);
        let told = Told {
            host: &head.host,
            client: admitted.client,
            scheme: visitor.scheme,
            protocol,
            id: Some(record.id),
            change: granted.request.as_ref().unwrap_or(&rules.request),
            prefix: rules.rewrite.strip.as_ref().map(CanonicalPath::as_str),
            websocket: key.is_some(),
            trailers: false,
            ends: Some(visitor.ends(admitted.client)),
        };
        let target = (path.as_ref().unwrap_or(&head.path), head.query.as_deref());
        let outgoing = Outgoing::new(http, head.method.clone(), target, (&head.headers, &head.nominated), &told, body);
        let left = rules.limits.body;
        let wanted = admitted.route.wanted(&head.headers);
        let taste = proxy::taste(&admitted.route, visitor, &head.method, &head.headers);
        drop(head.headers);
        let permit =
            core.permits.issue((visitor, admitted.client), head.host, head.path, head.method.clone(), admitted.route);
        let mut upload = Upload {
            core,
            stream: &mut *self.stream,
            input: &mut *self.input,
            decoder: Decoder::new(head.framing),
            feed,
            ahead: b"",
            expects: head.expect_continue,
            left,
            ended: false,
        };
        let forwarded =
            proxy::forward(core, policy, &permit, outgoing, &mut upload, self.deadline, (wanted, visitor)).await;
        let arrival = match forwarded {
            Ok(arrival) => arrival,
            Err(failure) => return self.refuse(&mut record, &head.method, head.version, failure.answer()).await,
        };
        record.status = arrival.head.status;
        if arrival.head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(record, arrival, permit, key.as_ref()).await;
        }
        let reply = Reply {
            visitor,
            cookies: granted.cookies,
            taste,
            method: &head.method,
            version: head.version,
            keep_alive: head.keep_alive,
        };
        Answered::Next(relay(core, policy, upload, arrival, &permit, self.deadline, &reply, &mut record).await)
    }

    /// Reads a DNS message out of a request.
    async fn dns(
        &mut self,
        policy: &Policy,
        head: &RequestHead,
        device: Result<Option<Arc<str>>, Refusal>,
    ) -> Result<(Option<Arc<str>>, Vec<u8>), Refusal> {
        let device = device?;
        let message = match doh::place(&head.method, head.query.as_deref(), &head.headers)? {
            doh::Place::Target(message) => message,
            doh::Place::Body => {
                // For the whole of it: what trickles is not worth waiting for.
                self.deadline.set(policy.config.timeouts.header);
                let decoder = Decoder::new(head.framing);
                let whole = Whole { decoder, expects: head.expect_continue, longest: questions::LONGEST };
                whole.read(self.stream, self.input, self.deadline).await.map_err(Refusal::Status)?
            }
        };
        Ok((device, message))
    }

    /// Plain HTTP: the way to https for hosts of the origin's table, and one answer for all others.
    async fn redirect(&mut self, policy: &Arc<Policy>, head: Box<RequestHead>, port: u16) -> Answered {
        let (core, visitor) = (self.core, self.visitor);
        let mut record = Record::new(core, visitor, Instant::now(), head.method.clone());
        if let Some(content) = core.shared.answers.http(head.host.as_str(), head.path.as_str()) {
            return self.refuse(&mut record, &head.method, head.version, Answer::proof(content)).await;
        }
        let answer = match proxy::admit(core, policy, visitor, &asked(&head)) {
            Err(refusal) if refusal != Refusal::Status(StatusCode::NOT_FOUND) => refusal.into(),
            Ok(admitted) if admitted.route.rules.plain => {
                if head.form == Form::Absolute(Scheme::Https) {
                    let answer = proxy::MISDIRECTED.into();
                    return self.refuse(&mut record, &head.method, head.version, answer).await;
                }
                return self.proceed(policy, record, *head, admitted).await;
            }
            // Which paths there are is said by https alone.
            _ => {
                let port = if port == 443 { String::new() } else { format!(":{port}") };
                let query = head.query.as_deref().map_or(String::new(), |query| format!("?{query}"));
                let location = format!("https://{}{port}{}{query}", head.host, head.path);
                Answer::redirect(StatusCode::PERMANENT_REDIRECT, &location)
                    .unwrap_or_else(|| Answer::fixed(StatusCode::BAD_REQUEST))
            }
        };
        self.refuse(&mut record, &head.method, head.version, answer).await
    }

    /// Writes an answer of ours, after which the connection ends.
    async fn refuse(&mut self, record: &mut Record, method: &Method, version: Version, answer: Answer) -> Answered {
        record.status = answer.status;
        record.bytes = answer.body.len() as u64;
        self.deadline.set(self.core.shared.policy.load().config.timeouts.body);
        let written = write_answer(self.core, self.stream, self.deadline, method, version, answer, false).await;
        Answered::Next(if written { Next::Close } else { Next::Abort })
    }

    /// Becomes a tunnel, if the upstream has really agreed to a WebSocket.
    async fn switch(
        &mut self,
        mut record: Record,
        mut arrival: Arrival,
        permit: Permit,
        key: Option<&header::HeaderValue>,
    ) -> Answered {
        let agreed = key.is_some_and(|key| tunnel::is_agreed(&arrival.head.headers, key));
        let stream = arrival.body.into_stream();
        let (true, Some((upstream, early, slot))) = (agreed, stream) else {
            self.core.shared.series.upstream_failure("protocol");
            let answer = Answer::fixed(StatusCode::BAD_GATEWAY);
            return self.refuse(&mut record, &Method::GET, Version::Http11, answer).await;
        };
        headers::to_client(&mut arrival.head.headers);
        permit.route().rules.response.apply(&mut arrival.head.headers);
        let mut output = BytesMut::new();
        let framing = ResponseFraming::Empty;
        let status = StatusCode::SWITCHING_PROTOCOLS;
        let persistence = Persistence::WebSocket;
        encode(&mut output, Version::Http11, status, &arrival.head.headers, framing, persistence, None);
        if !write_all(self.stream, self.deadline, &mut output).await {
            return Answered::Next(Next::Abort);
        }
        Answered::Tunnel(Box::new(Tunnel { upstream, early, permit, _record: record, _slot: slot }))
    }
}

/// What the client's request says about the response to it.
struct Reply<'a> {
    visitor: &'a Visitor,
    cookies: Vec<header::HeaderValue>,
    taste: Taste,
    method: &'a Method,
    version: Version,
    keep_alive: bool,
}

/// Sends a response on, and what is left of the request's body with it.
#[expect(clippy::too_many_arguments, reason = "called once; its callers' state is one struct each already")]
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Rc<Core>,
    policy: &Policy,
    mut upload: Upload<'_, S>,
    mut arrival: Arrival,
    permit: &Permit,
    deadline: &mut Deadline,
    reply: &Reply<'_>,
    record: &mut Record,
) -> Next {
    headers::to_client(&mut arrival.head.headers);
    proxy::leave(&mut arrival.head.headers, permit.route(), reply.visitor, &reply.cookies);
    proxy::compress(core, reply.taste, &mut arrival);
    let Arrival { head, mut body } = arrival;
    let limit = policy.config.timeouts.body;
    let silence = proxy::silence(&head.headers, limit);
    let bodiless = *reply.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    let length = if bodiless { announced(&head.headers) } else { body.length() };
    let framing = ResponseFraming::choose(reply.method, head.status, reply.version, length);
    let keep = reply.keep_alive && framing != ResponseFraming::Close && !core.is_draining();
    let persistence = if keep { Persistence::KeepAlive } else { Persistence::Close };
    let mut out = Outbound { head: core.spare_buffer(), data: Bytes::new(), after: b"" };
    // RFC 9110 §6.6.1: what came without a date is given one.
    let undated = !head.headers.contains_key(header::DATE);
    core.with_date(|date| {
        let date = undated.then_some(date);
        encode(&mut out.head, reply.version, head.status, &head.headers, framing, persistence, date);
    });
    drop(head);
    let mut encoder = framing.encoder();
    let mut ended = false;
    let mut unflushed = false;
    let mut gone = false;
    deadline.set(limit);
    let end = poll_fn(|cx| {
        loop {
            // A broken upload shows itself in the response or at its end; what is on its way is still sent.
            let mut moved = matches!(upload.poll_pump(cx), Poll::Ready(Ok(())));
            match body.send(cx) {
                Ok(sent) => moved |= sent,
                Err(_) => return Poll::Ready(Next::Abort),
            }
            if !ended && out.has_room() {
                match body.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        record.bytes += data.len() as u64;
                        if out.push(&mut encoder, data).is_err() {
                            return Poll::Ready(Next::Abort);
                        }
                        moved = true;
                    }
                    Poll::Ready(None) => {
                        let Ok(last) = encoder.finish() else { return Poll::Ready(Next::Abort) };
                        out.end(last);
                        ended = true;
                    }
                    Poll::Ready(Some(Err(_))) => {
                        // Its length was a lie or it went away: the client must not take this for the whole.
                        record.upstream_broke_off();
                        return Poll::Ready(Next::Abort);
                    }
                    Poll::Pending => {}
                }
                if moved && !ended && out.has_room() {
                    continue;
                }
            }
            if !out.is_empty() {
                match out.poll_write(upload.stream, cx) {
                    Poll::Ready(Ok(())) => {
                        unflushed = true;
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::Abort),
                    Poll::Pending => {}
                }
            } else if unflushed && !moved {
                match Pin::new(&mut *upload.stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => {
                        unflushed = false;
                        // From here on it is the server that is waited for.
                        if silence > limit && !gone {
                            deadline.set(silence);
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::Abort),
                    Poll::Pending => {}
                }
            }
            if ended && out.is_empty() && !unflushed {
                return Poll::Ready(Next::Request);
            }
            if moved {
                let waits_for_client = !out.is_empty() || unflushed;
                let limit = if waits_for_client { limit } else { silence };
                deadline.set(if gone { limit.min(GONE) } else { limit });
                continue;
            }
            if permit.poll_revoked(cx).is_ready() {
                return Poll::Ready(Next::Abort);
            }
            if !gone && upload.poll_gone(cx) {
                gone = true;
                deadline.set(limit.min(GONE));
            }
            return deadline.poll(cx).map(|()| Next::Abort);
        }
    })
    .await;
    core.keep_buffer(out.head);
    match end {
        Next::Request if keep && upload.is_done() && !gone => Next::Request,
        Next::Request => Next::Close,
        other => other,
    }
}

fn asked(head: &RequestHead) -> Asked<'_> {
    Asked {
        method: &head.method,
        host: &head.host,
        path: &head.path,
        query: head.query.as_deref(),
        headers: &head.headers,
        whole_server: head.form == Form::Asterisk,
        length: match head.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        },
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Writes an answer of ours in one piece; says whether the client took it.
async fn write_answer<S: AsyncWrite + Unpin>(
    core: &Core,
    stream: &mut S,
    deadline: &mut Deadline,
    method: &Method,
    version: Version,
    answer: Answer,
    keep: bool,
) -> bool {
    let length = Some(answer.body.len() as u64);
    let framing = ResponseFraming::choose(method, answer.status, version, length);
    let persistence = if keep { Persistence::KeepAlive } else { Persistence::Close };
    let mut output = core.spare_buffer();
    // A refusal says nothing but its status: two of them are the same bytes.
    let dated = answer.status.as_u16() < 400;
    core.with_date(|date| {
        let date = dated.then_some(date);
        encode(&mut output, version, answer.status, &answer.headers, framing, persistence, date);
    });
    if framing.encoder() != Encoder::Empty {
        output.extend_from_slice(&answer.body);
    }
    let written = write_all(stream, deadline, &mut output).await;
    core.keep_buffer(output);
    written
}

async fn write_all<S: AsyncWrite + Unpin>(stream: &mut S, deadline: &mut Deadline, output: &mut BytesMut) -> bool {
    poll_fn(|cx| {
        while !output.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, output) {
                Poll::Ready(Ok(written @ 1..)) => output.advance(written),
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return deadline.poll(cx).map(|()| false),
            }
        }
        match Pin::new(&mut *stream).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => deadline.poll(cx).map(|()| false),
        }
    })
    .await
}

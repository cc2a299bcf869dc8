//! HTTP/2 towards clients: hyper speaks it, within the limits that stand here; what is done with a request
//! is the same as for HTTP/1.1.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::Reason;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Body, Frame, Incoming, SizeHint},
    header,
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::spawn_local,
};

use crate::{
    ingress::{
        Http,
        canonical::{CanonicalHost, CanonicalPath},
        deadline::Deadline,
        doh,
        headers::{self, Told},
        pages,
        permits::Permit,
        proxy::{self, Asked, NoUplink, Visitor},
        record::Record,
        serve::{Answer, Refusal},
        server::{Core, caught, close_in_order},
        upstream::{Arrival, Fault, Outgoing, RequestBody, UpstreamBody},
    },
    questions::LONGEST,
    supervise::Phase,
};

/// How long a client may take to notice that the connection is being closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until it ends.
pub(super) async fn serve<S>(core: &Rc<Core>, stream: S, visitor: Visitor)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (idle, patience, longest) = {
        let config = &core.shared.policy.load().config;
        (config.timeouts.idle, config.timeouts.header, config.max_header)
    };
    let stream = Rc::new(RefCell::new(stream));
    let visitor = Rc::new(visitor);
    let active = Rc::new(Cell::new(0));
    // In a place of its own at once: what follows moves a pointer.
    let service = service_fn(|request| Box::pin(handle(core.clone(), visitor.clone(), request)));
    let connection = http2::Builder::new(Streams { core: core.clone(), active: active.clone() })
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(100)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_frame_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(u32::try_from(longest).unwrap_or(u32::MAX))
        .header_table_size(4096)
        // Rapid reset (CVE-2023-44487) and its kin that makes us reset (CVE-2025-8671).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .serve_connection(TokioIo::new(Lent(stream.clone())), service);
    let mut connection = pin!(connection);
    let mut drain = pin!(core.stop.reached(Phase::Drain));
    let mut deadline = Deadline::after(patience);
    let mut leaving = false;
    poll_fn(|cx| {
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !leaving && drain.as_mut().poll(cx).is_ready() {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                deadline.set(FAREWELL);
                continue;
            }
            if active.get() > 0 {
                deadline.set(if leaving { FAREWELL } else { idle });
            }
            if deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if leaving {
                return Poll::Ready(());
            }
            leaving = true;
            connection.as_mut().graceful_shutdown();
            deadline.set(FAREWELL);
        }
    })
    .await;
    // Its last word is only seen if what the client still sends is read (RFC 9113 §5.4.1, RFC 9112 §9.6).
    close_in_order(&mut Lent(stream)).await;
}

/// The connection's stream, lent to hyper for as long as it speaks.
struct Lent<S>(Rc<RefCell<S>>);

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

/// Starts the task of a stream and ends it when nothing moves for too long: a client that keeps a stream's
/// window shut would otherwise hold what waits for it.
#[derive(Clone)]
struct Streams {
    core: Rc<Core>,
    active: Rc<Cell<usize>>,
}

/// The deadline of one stream, once its response has begun.
#[derive(Default)]
struct Progress {
    until: Cell<Option<tokio::time::Instant>>,
}

tokio::task_local! {
    static PROGRESS: Rc<Progress>;
}

struct Active(Rc<Cell<usize>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let progress = Rc::new(Progress::default());
        let core = self.core.clone();
        self.active.set(self.active.get() + 1);
        let active = Active(self.active.clone());
        let watched = progress.clone();
        let work = async move {
            let _active = active;
            let mut stream = pin!(stream);
            let mut timer: Option<Deadline> = None;
            let ended = pin!(poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(until) = watched.until.get() else { return Poll::Pending };
                let timer = timer.get_or_insert_with(|| Deadline::after(Duration::from_secs(60)));
                timer.set_at(until);
                timer.poll(cx)
            }));
            caught(&core, ended).await;
        };
        spawn_local(PROGRESS.scope(progress, work));
    }
}

/// Answers one request.
async fn handle(
    core: Rc<Core>,
    visitor: Rc<Visitor>,
    request: Request<Incoming>,
) -> Result<Response<Outbound>, Infallible> {
    let (head, body) = request.into_parts();
    let mut record = Record::new(&core, &visitor, Instant::now(), head.method.clone());
    let answered = match Wanted::read(&head.method, &head.uri, &head.headers, &visitor, &core) {
        Ok(wanted) => answer(&core, &visitor, head.method, head.headers, wanted, body, record).await,
        Err(refusal) => {
            let answer = Answer::from(refusal);
            record.status = answer.status;
            ours(answer, core.shared.policy.load().config.timeouts.body)
        }
    };
    Ok(answered)
}

/// Host and path of a request, in canonical form.
struct Wanted {
    host: CanonicalHost,
    path: CanonicalPath,
    query: Option<String>,
    whole_server: bool,
}

impl Wanted {
    fn read(method: &Method, uri: &Uri, headers: &HeaderMap, visitor: &Visitor, core: &Core) -> Result<Self, Refusal> {
        let refused = |status| Err(Refusal::Status(status));
        let bad = || Refusal::Status(StatusCode::BAD_REQUEST);
        if headers.len() > core.shared.policy.load().config.max_fields {
            return refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        if matches!(*method, Method::CONNECT | Method::TRACE) {
            return refused(StatusCode::NOT_IMPLEMENTED);
        }
        if headers.get(header::EXPECT).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return refused(StatusCode::EXPECTATION_FAILED);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let field = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(host), None) => Some(host.to_str().map_err(|_| bad())?),
            (Some(_), Some(_)) => return Err(bad()),
        };
        let read = |text: &str| CanonicalHost::from_authority(text).map_err(|_| bad());
        let (host, _) = match (uri.authority(), field) {
            (None, None) => return Err(bad()),
            (Some(authority), None) => read(authority.as_str())?,
            (None, Some(field)) => read(field)?,
            (Some(authority), Some(field)) => {
                // RFC 9113 §8.3.1: they must say the same.
                let (meant, said) = (read(authority.as_str())?, read(field)?);
                if meant != said {
                    return Err(bad());
                }
                meant
            }
        };
        if uri.scheme_str().is_some_and(|scheme| scheme != visitor.scheme) {
            return Err(proxy::MISDIRECTED);
        }
        let whole_server = *method == Method::OPTIONS && uri.path() == "*";
        let path = if whole_server { "/" } else { uri.path() };
        let path = CanonicalPath::parse(path).map_err(|_| bad())?;
        let query = uri.query().map(|query| query.replace('"', "%22").replace('<', "%3C").replace('>', "%3E"));
        if query.as_ref().is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(bad());
        }
        Ok(Self { host, path, query, whole_server })
    }
}

async fn answer(
    core: &Rc<Core>,
    visitor: &Visitor,
    method: Method,
    headers: HeaderMap,
    wanted: Wanted,
    body: Incoming,
    mut record: Record,
) -> Response<Outbound> {
    let policy = core.shared.policy.load_full();
    let refuse = |mut record: Record, mut answer: Answer| {
        record.status = answer.status;
        record.bytes = answer.body.len() as u64;
        if answer.status.as_u16() < 400 {
            date(core, &mut answer.headers);
        }
        ours(answer, policy.config.timeouts.body)
    };
    let Wanted { host, path, query, whole_server } = wanted;
    let asked = Asked {
        method: &method,
        host: &host,
        path: &path,
        query: query.as_deref(),
        headers: &headers,
        whole_server,
        length: body.size_hint().exact(),
    };
    let admitted = match proxy::admit(core, &policy, visitor, &asked) {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(record, refusal.into()),
    };
    record.taken_by(&admitted, &asked, "2.0");
    let granted = match proxy::permit(core, &policy, visitor, &admitted, &asked).await {
        Ok(granted) => granted,
        Err(answer) => return refuse(record, answer),
    };
    if let Some(answer) = proxy::answer_here(&policy, visitor, &admitted, &asked) {
        return refuse(record, answer);
    }
    if let Some(device) = proxy::asks_dns(&admitted.route.to, &host, &path) {
        let asked = match (device, doh::place(&method, query.as_deref(), &headers)) {
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
            (Ok(device), Ok(doh::Place::Target(message))) => Ok((device, message)),
            (Ok(device), Ok(doh::Place::Body)) => match whole(body, policy.config.timeouts.header, LONGEST).await {
                Ok(message) => Ok((device, message)),
                Err(status) => Err(Refusal::Status(status)),
            },
        };
        let answer = match asked {
            Ok((device, message)) => {
                doh::answer(&core.shared.questions, visitor.origin, admitted.client, device, message).await
            }
            Err(refusal) => doh::refused(refusal),
        };
        return refuse(record, answer);
    }
    if let Some(page) = pages::page(&admitted.route.to) {
        let body = match pages::takes_body(&method) {
            true => whole(body, policy.config.timeouts.header, crate::pages::LONGEST).await,
            false => Ok(Vec::new()),
        };
        let mut answer = pages::answer(&core.shared.pages, page, visitor, &admitted, &asked, body).await;
        proxy::leave(&mut answer.headers, &admitted.route, visitor, &granted.cookies);
        return refuse(record, answer);
    }
    let rules = &admitted.route.rules;
    let rewritten = match rules.rewrite.is_empty() {
        true => None,
        false => match rules.rewrite.apply(&path) {
            Ok(path) => Some(path),
            Err(_) => return refuse(record, Answer::fixed(StatusCode::BAD_REQUEST)),
        },
    };
    let body = match body.is_end_stream() {
        true => RequestBody::Empty,
        false => RequestBody::Stream { incoming: body, left: rules.limits.body },
    };
    let http = admitted.route.http();
    let told = Told {
        host: &host,
        client: admitted.client,
        scheme: visitor.scheme,
        protocol: "2.0",
        id: Some(record.id),
        change: granted.request.as_ref().unwrap_or(&rules.request),
        prefix: rules.rewrite.strip.as_ref().map(CanonicalPath::as_str),
        websocket: false,
        trailers: takes_trailers(&headers) && http == Http::Two,
        ends: Some(visitor.ends(admitted.client)),
    };
    let target = (rewritten.as_ref().unwrap_or(&path), query.as_deref());
    let outgoing = Outgoing::new(http, method.clone(), target, (&headers, &[]), &told, body);
    let wanted = admitted.route.wanted(&headers);
    let taste = proxy::taste(&admitted.route, visitor, &method, &headers);
    let permit = core.permits.issue((visitor, admitted.client), host, path, method, admitted.route);
    let mut deadline = Deadline::after(policy.config.timeouts.response);
    let mut arrival =
        match proxy::forward(core, &policy, &permit, outgoing, &mut NoUplink, &mut deadline, (wanted, visitor)).await {
            Ok(arrival) => arrival,
            Err(failure) => return refuse(record, failure.answer()),
        };
    if arrival.head.status == StatusCode::SWITCHING_PROTOCOLS {
        core.shared.series.upstream_failure("protocol");
        return refuse(record, Answer::fixed(StatusCode::BAD_GATEWAY));
    }
    record.status = arrival.head.status;
    headers::to_client(&mut arrival.head.headers);
    proxy::leave(&mut arrival.head.headers, permit.route(), visitor, &granted.cookies);
    proxy::compress(core, taste, &mut arrival);
    let Arrival { mut head, body } = arrival;
    if !head.headers.contains_key(header::DATE) {
        date(core, &mut head.headers);
    }
    let limit = policy.config.timeouts.body;
    let silence = proxy::silence(&head.headers, limit);
    let progress = PROGRESS.with(Rc::clone);
    progress.moved(limit);
    let theirs = Theirs { body, permit, record, progress, limit, silence, waiting: false };
    let mut response = Response::new(Outbound::Theirs(Box::new(theirs)));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// RFC 9113 §8.2.2: `trailers` is all that TE may say here.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

fn date(core: &Core, headers: &mut HeaderMap) {
    if let Ok(date) = core.with_date(|date| header::HeaderValue::from_bytes(date.as_bytes())) {
        headers.insert(header::DATE, date);
    }
}

/// Reads a body that is taken whole, in its time.
async fn whole(body: Incoming, limit: Duration, longest: usize) -> Result<Vec<u8>, StatusCode> {
    match tokio::time::timeout(limit, Limited::new(body, longest).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Makes an answer of ours; a client that keeps its window shut does not hold it longer than `limit`.
fn ours(answer: Answer, limit: Duration) -> Response<Outbound> {
    PROGRESS.with(|progress| progress.moved(limit));
    let mut response = Response::new(Outbound::Ours(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

impl Progress {
    fn moved(&self, limit: Duration) {
        self.until.set(Some(tokio::time::Instant::now() + limit));
    }
}

/// The body of a response.
enum Outbound {
    Ours(Bytes),
    Theirs(Box<Theirs>),
}

struct Theirs {
    body: UpstreamBody,
    permit: Permit,
    record: Record,
    progress: Rc<Progress>,
    limit: Duration,
    /// How long the server behind may be silent.
    silence: Duration,
    /// It was the server behind that was waited for.
    waiting: bool,
}

impl Theirs {
    /// Moves the deadline on: after each step, and when the next one is not the client's any more.
    fn progress(&mut self, waiting: bool) {
        if !waiting {
            self.progress.moved(self.limit);
        } else if !self.waiting {
            self.progress.moved(self.silence);
        }
        self.waiting = waiting;
    }
}

/// A response that cannot be ended as it began; the stream is reset for the reason that its source gives.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off")]
struct BrokenOff(#[source] h2::Error);

impl BrokenOff {
    /// What the client is told of a reset behind: whose business it is. What concerns only our connection is ours.
    fn because(fault: &Fault) -> Self {
        let reason = match fault {
            Fault::Stream(Some(reason @ (Reason::CANCEL | Reason::REFUSED_STREAM | Reason::ENHANCE_YOUR_CALM))) => {
                *reason
            }
            _ => Reason::INTERNAL_ERROR,
        };
        Self(reason.into())
    }

    fn ours() -> Self {
        Self(Reason::CANCEL.into())
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Ours(body) if body.is_empty() => Poll::Ready(None),
            Self::Ours(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Self::Theirs(theirs) => {
                if theirs.permit.poll_revoked(cx).is_ready() {
                    return Poll::Ready(Some(Err(BrokenOff::ours())));
                }
                if theirs.body.send(cx).is_err() {
                    return Poll::Ready(Some(Err(BrokenOff::ours())));
                }
                let step = theirs.body.poll_data(cx);
                theirs.progress(step.is_pending());
                step.map(|data| match data {
                    Some(Ok(data)) => {
                        theirs.record.bytes += data.len() as u64;
                        Some(Ok(Frame::data(data)))
                    }
                    Some(Err(fault)) => {
                        theirs.record.upstream_broke_off();
                        Some(Err(BrokenOff::because(&fault)))
                    }
                    None => theirs.body.take_trailers().map(|mut trailers| {
                        headers::trailers(&mut trailers);
                        // What the owner takes away or says otherwise does not come after all.
                        let change = &theirs.permit.route().rules.response;
                        let replaced = |name: &header::HeaderName| change.replaces(name.as_str());
                        for name in trailers.keys().filter(|name| replaced(name)).cloned().collect::<Vec<_>>() {
                            trailers.remove(name);
                        }
                        Ok(Frame::trailers(trailers))
                    }),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(body) => body.is_empty(),
            // A response of gRPC that is nothing but its trailers says so by ending with its head.
            Self::Theirs(theirs) => theirs.body.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(body) => SizeHint::with_exact(body.len() as u64),
            Self::Theirs(theirs) => theirs.body.length().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

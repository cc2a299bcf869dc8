//! The second factor: a peer with `confirm` reaches one page, inside the tunnel, until its person has typed the password
//! that their authenticator shows.
//!
//! The gate hands over TCP 80 of such a peer and nothing else, and opens only when it is told who has confirmed and until
//! when: without this service, without its file and before its first word everybody is shut out.

mod book;
mod page;
mod totp;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand::SystemRandom};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use self::book::{Book, Verdict};
use crate::{
    app::{Edge, control::Refusal},
    audit::Audit,
    config::Compiled,
    ingress::HostPattern,
    origin::{Origin, PeerId},
    stream::{Accepted, Inlet},
    supervise::{Phase, Stop, task},
    vpn::{self, Peer},
};

/// A whole exchange.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Visitors at the same time, and those of one peer.
const VISITORS: usize = 32;
const OF_ONE: u32 = 4;
/// Bytes of a form.
const FORM: usize = 256;

/// The page, and who has confirmed.
#[derive(Debug)]
pub(super) struct Confirm {
    inlet: Mutex<Option<mpsc::Receiver<Accepted>>>,
    /// None if it cannot be read: then nobody has confirmed.
    book: Mutex<Option<Book>>,
    gate: Option<Arc<vpn::Plane>>,
    audit: Arc<Audit>,
    config: ArcSwapOption<Compiled>,
    /// By which this process knows its own forms.
    seal: hmac::Key,
    visits: Arc<Mutex<HashMap<PeerId, u32>>>,
}

/// A visit of a peer, counted as long as this value lives.
struct Visit {
    visits: Arc<Mutex<HashMap<PeerId, u32>>>,
    peer: PeerId,
}

impl Visit {
    /// `None` if this peer has as many as one may have: others come in too.
    fn begin(visits: &Arc<Mutex<HashMap<PeerId, u32>>>, peer: PeerId) -> Option<Self> {
        let mut all = visits.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(peer).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Self { visits: visits.clone(), peer })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut all = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

/// What an authenticator app is to be shown, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetUp {
    /// `otpauth://…`: it holds the secret.
    pub uri: String,
}

/// What comes out of the tunnel, given back when a run ends: the next one goes on with it.
struct Lent {
    inlet: Option<mpsc::Receiver<Accepted>>,
    confirm: Arc<Confirm>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.confirm.inlet.lock().unwrap_or_else(PoisonError::into_inner) = self.inlet.take();
    }
}

impl Confirm {
    /// Opens the book and tells the gate what stands in it.
    pub(super) fn open(state: &Path, gate: Option<Arc<vpn::Plane>>, inlet: Option<Inlet>, audit: Arc<Audit>) -> Self {
        let book = Book::open(state).inspect_err(|error| {
            tracing::error!(%error, "who has confirmed cannot be read: peers with `confirm` stay shut out");
        });
        let inlet = Mutex::new(inlet.map(|inlet| inlet.streams));
        let seal =
            hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("the system has a random source");
        let (book, config, visits) = (Mutex::new(book.ok()), ArcSwapOption::empty(), Arc::default());
        let confirm = Self { inlet, book, gate, audit, config, seal, visits };
        confirm.tell(confirm.book().as_ref());
        confirm
    }

    fn book(&self) -> MutexGuard<'_, Option<Book>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, book: Option<&Book>) {
        if let Some(gate) = &self.gate {
            gate.set_confirmed(book.map(Book::confirmed).unwrap_or_default());
        }
    }

    /// Takes over of whom it is asked. What others have confirmed by stays, for a change that is taken back.
    pub(super) fn commit(&self, config: &Arc<Compiled>) {
        self.config.store(Some(config.clone()));
        self.tell(self.book().as_ref());
    }

    /// Forgets the secrets of peers that are not asked any more, once no change can be taken back.
    pub(super) fn forget_others(&self) {
        let Some(config) = self.config.load_full() else { return };
        let peers = config.vpn.as_ref().map_or(&[][..], |vpn| &vpn.peers);
        let mut book = self.book();
        let Some(book) = book.as_mut() else { return };
        let kept = book.keep(|key| peers.iter().any(|peer| peer.public_key == *key && peer.confirm.is_some()));
        if let Err(error) = kept {
            tracing::warn!(%error, "the secrets of peers that are gone are still on the disk");
        }
        self.tell(Some(book));
    }

    /// Answers until the process stops; may be called again after it fell over.
    pub(super) async fn run(self: Arc<Self>, stop: Stop) -> Result<(), String> {
        let visitors = Arc::new(Semaphore::new(VISITORS));
        let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut lent = Lent { inlet, confirm: self.clone() };
        let Some(inlet) = &mut lent.inlet else {
            stop.reached(Phase::Drain).await;
            return Ok(());
        };
        loop {
            let accepted = tokio::select! {
                accepted = inlet.recv() => accepted,
                () = stop.reached(Phase::Drain) => return Ok(()),
            };
            let Some(Accepted { stream, origin, .. }) = accepted else { return Ok(()) };
            let (Origin::Vpn(peer), Ok(permit)) = (origin, visitors.clone().try_acquire_owned()) else { continue };
            let Some(visit) = Visit::begin(&self.visits, peer) else { continue };
            let confirm = self.clone();
            task("confirm visitor", async move {
                let _counted = (permit, visit);
                let service = service_fn(move |request| {
                    let confirm = confirm.clone();
                    async move { Ok::<_, std::convert::Infallible>(confirm.answer(request, peer).await) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(EXCHANGE).keep_alive(false).max_buf_size(16 * 1024);
                let _ = tokio::time::timeout(EXCHANGE, server.serve_connection(TokioIo::new(stream), service)).await;
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, id: PeerId) -> Response<Full<Bytes>> {
        let config = self.config.load_full();
        let peers = config.as_ref().and_then(|config| config.vpn.as_ref()).map_or(&[][..], |vpn| &vpn.peers);
        let Some(peer) = peers.iter().find(|peer| peer.id == id) else {
            return plain(StatusCode::NOT_FOUND, "nothing here\n");
        };
        let zone = config.as_ref().map(|config| config.node.timezone.clone()).unwrap_or(jiff::tz::TimeZone::UTC);
        // Whoever has their own name lead here could read what stands here as a page of theirs.
        if !config.as_deref().is_some_and(|config| is_ours(request.headers().get(header::HOST), config)) {
            return plain(StatusCode::MISDIRECTED_REQUEST, "this page is at the address of the gate\n");
        }
        let seal = self.sealed(peer);
        let verdict = match *request.method() {
            Method::GET | Method::HEAD => None,
            Method::POST if is_foreign(request.headers()) => {
                return plain(StatusCode::FORBIDDEN, "this form is filled in on its own page\n");
            }
            Method::POST => {
                let Ok(body) = Limited::new(request.into_body(), FORM).collect().await else {
                    return plain(StatusCode::PAYLOAD_TOO_LARGE, "more than is taken here\n");
                };
                let body = body.to_bytes();
                let form = String::from_utf8_lossy(&body);
                let sealed = form.split('&').find_map(|field| field.strip_prefix("seal=")).unwrap_or_default();
                if verify_slices_are_equal(sealed.as_bytes(), seal.as_bytes()).is_err() {
                    let text = "this form is filled in on its own page: load that again\n";
                    return plain(StatusCode::FORBIDDEN, text);
                }
                let (password, peer, confirm) = (password(&form), peer.clone(), self.clone());
                // It waits for the disk.
                let judged = tokio::task::spawn_blocking(move || confirm.judge(&peer, &password)).await;
                match judged {
                    Ok(Some(verdict)) => Some(verdict),
                    _ => return plain(StatusCode::SERVICE_UNAVAILABLE, "confirmations cannot be kept at the moment\n"),
                }
            }
            _ => return plain(StatusCode::METHOD_NOT_ALLOWED, ""),
        };
        let readable = |second: i64| {
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
        };
        let mut response = html(page::page(&peer.name, &seal, verdict.as_ref(), readable));
        if let Some(Verdict::Wrong { wait, .. } | Verdict::TooEarly { wait }) = verdict {
            *response.status_mut() = match verdict {
                Some(Verdict::TooEarly { .. }) => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::FORBIDDEN,
            };
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }

    /// What stands in the form of this peer and of no other: a page of somebody else's cannot know it. Browsers say of
    /// which page a form is only where there is TLS, and here is none.
    fn sealed(&self, peer: &Peer) -> String {
        let tag = hmac::sign(&self.seal, peer.public_key.as_bytes());
        tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Judges a password, writes down what came of it, and tells the gate. Nothing if that is not to be had.
    fn judge(&self, peer: &Peer, password: &str) -> Option<Verdict> {
        let mut book = self.book();
        let book = book.as_mut()?;
        let now = jiff::Timestamp::now().as_second();
        let verdict = book.attempt(&peer.public_key, password, peer.confirm?, now);
        let verdict = verdict
            .inspect_err(|error| tracing::error!(%error, peer = peer.name, "a confirmation cannot be kept"))
            .ok()?;
        let by = format!("peer {}", peer.name);
        match verdict {
            Verdict::Confirmed(until) => {
                let until = jiff::Timestamp::from_second(until).unwrap_or_default();
                self.audit.record(&by, "confirmed", &format!("until {until}"));
                self.tell(Some(book));
            }
            // The waits bound how many of these lines there are.
            Verdict::Wrong { failures, .. } => {
                self.audit.record(&by, "confirmed", &format!("refused: a wrong password, {failures} in a row"));
            }
            Verdict::TooEarly { .. } | Verdict::NotSetUp => {}
        }
        Some(verdict)
    }

    fn set_up(&self, name: &str, config: &Compiled) -> Result<SetUp, Refusal> {
        let mut book = self.book();
        let book = book.as_mut().ok_or_else(|| Refusal::ours("the file of confirmations cannot be read"))?;
        let done = set_up(book, name, config)?;
        self.tell(Some(book));
        Ok(done)
    }
}

impl Edge {
    /// Gives a peer's person a new secret for their authenticator.
    pub fn set_up_confirmation(&self, name: &str, author: &str) -> Result<SetUp, Refusal> {
        let done = self.confirm.set_up(name, &self.force.load().config);
        let outcome =
            done.as_ref().map_or_else(|refusal| format!("refused: {}", refusal.failure().error), |_| "done".into());
        self.audit.record(author, &format!("peer confirm-setup {name}"), &outcome);
        done
    }
}

/// The same where no process runs.
pub fn set_up_offline(state: &Path, name: &str, config: &Compiled) -> Result<SetUp, Refusal> {
    set_up(&mut Book::open(state).map_err(Refusal::ours)?, name, config)
}

fn set_up(book: &mut Book, name: &str, config: &Compiled) -> Result<SetUp, Refusal> {
    let mut peers = config.vpn.iter().flat_map(|vpn| &vpn.peers);
    let peer = peers.find(|peer| peer.name == name);
    let peer = peer.ok_or_else(|| Refusal::missing(format!("there is no peer \"{name}\"")))?;
    if peer.confirm.is_none() {
        let what = format!("peer \"{name}\" need not confirm: write confirm = \"12h\" for it first");
        return Err(Refusal::asked(what));
    }
    let secret = book.set_up(peer.public_key).map_err(Refusal::ours)?;
    Ok(SetUp { uri: secret.uri(config.node.domain.as_str(), name) })
}

/// Another page's form, sent by a browser that says so.
fn is_foreign(headers: &HeaderMap) -> bool {
    let said = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    !matches!(said, None | Some(b"same-origin" | b"none"))
}

/// Whether a request was meant for this box: by an address of the gate, or by a name of the house.
fn is_ours(host: Option<&HeaderValue>, config: &Compiled) -> bool {
    let Some(said) = host.and_then(|host| host.to_str().ok()) else { return false };
    let said = said.strip_suffix(":80").unwrap_or(said);
    let bare = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(said);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let mut gates = config.vpn.iter().flat_map(|vpn| &vpn.addresses);
        return gates.any(|net| net.addr() == address);
    }
    let name = said.trim_end_matches('.').to_ascii_lowercase();
    let domain = config.node.domain.as_str();
    let under = |base: &str| name.strip_suffix(base).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let mut routes = config.ingress.iter().flat_map(|ingress| &ingress.routes);
    under(domain.trim_end_matches('.'))
        || routes.any(|route| match &route.host {
            HostPattern::Exact(host) => host.as_str() == name,
            HostPattern::Wildcard(base) => under(base.as_str()),
            HostPattern::Any => false,
        })
}

/// Returns what was typed, without the blank that people put in the middle.
fn password(form: &str) -> String {
    let code = form.split('&').find_map(|field| field.strip_prefix("code=")).unwrap_or_default();
    code.replace("%20", "").chars().filter(char::is_ascii_digit).take(8).collect()
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn html(page: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.into()));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_few_visits_and_others_have_theirs() {
        let visits = Arc::default();

        let one: Vec<_> = (0..9).filter_map(|_| Visit::begin(&visits, PeerId(1))).collect();
        let other = Visit::begin(&visits, PeerId(2));

        assert!(one.len() == OF_ONE as usize && other.is_some());
        drop((one, other));
        assert!(visits.lock().unwrap().is_empty());
    }

    #[test]
    fn a_form_of_another_page_is_not_taken() {
        let headers = |site: &'static str| {
            HeaderMap::from_iter([("sec-fetch-site".parse().unwrap(), HeaderValue::from_static(site))])
        };

        assert!(
            !is_foreign(&HeaderMap::new()) && !is_foreign(&headers("same-origin")) && !is_foreign(&headers("none"))
        );
        assert!(is_foreign(&headers("cross-site")) && is_foreign(&headers("same-site")));
    }

    #[test]
    fn digits_are_found_as_people_type_them() {
        for (form, typed) in [
            ("code=123456", "123456"),
            ("a=b&code=123+456", "123456"),
            ("code=123%20456", "123456"),
            ("", ""),
            ("code=%ff", ""),
        ] {
            assert_eq!(password(form), typed, "{form}");
        }
    }
}

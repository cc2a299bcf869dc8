//! The console's way into the house: who may look, how many at once, and what the planes say in the console's words.

mod act;
mod house;
mod warnings;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Request, Response, StatusCode, header};
use tokio::{runtime::Handle, sync::Semaphore};

use self::house::Shown;
use crate::{
    app::Edge,
    console::{self, Door, Visitor},
    origin::Origin,
    pages,
};

/// Requests that are at work at once; more wait. Each may hold a thread and a connection to the history.
const AT_WORK: usize = 2;
/// Requests of one visitor, and of all, that are at work or wait.
const OF_ONE: usize = 8;
const OF_ALL: usize = 32;
/// After so long without it, another look by the socket is written down.
const LOOK: Duration = Duration::from_secs(600);

/// What the console's requests share.
pub(super) struct Console {
    edge: Arc<Edge>,
    /// Where what waits for disks runs: never on a core that serves others.
    runtime: Handle,
    at_work: Semaphore,
    under_way: Mutex<HashMap<Whose, usize>>,
    looks: Mutex<HashMap<u32, Instant>>,
}

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Origin(Origin),
    Socket,
}

/// A request that is counted, until it is dropped.
struct Counted<'a> {
    console: &'a Console,
    whose: Whose,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut under_way = self.console.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.whose);
            }
        }
    }
}

impl Console {
    /// Makes it, and answers through the ingress from now on.
    pub(super) fn open(edge: &Arc<Edge>, runtime: Handle) -> Arc<Self> {
        let console = Arc::new(Self {
            edge: edge.clone(),
            runtime,
            at_work: Semaphore::new(AT_WORK),
            under_way: Mutex::default(),
            looks: Mutex::default(),
        });
        if let Some(ingress) = &edge.planes.ingress {
            // The edge has the ingress: it must not have the edge.
            let weak = Arc::downgrade(&console);
            ingress.pages().serve(move |asked| {
                let console = weak.upgrade();
                async move {
                    match console {
                        Some(console) => console.asked(asked).await,
                        None => plain(StatusCode::SERVICE_UNAVAILABLE, "not available at the moment\n"),
                    }
                }
            });
        }
        console
    }

    async fn asked(self: Arc<Self>, asked: pages::Asked) -> Response<Bytes> {
        let pages::Asked { page: pages::Page::Console, origin, request, .. } = asked;
        // The table of the ingress has let in nobody else; this is for whoever lost the role at this moment.
        match self.visitor(origin) {
            Some(visitor) => self.answer(Whose::Origin(origin), visitor, request).await,
            None => plain(StatusCode::NOT_FOUND, "nothing here\n"),
        }
    }

    /// Says who comes from there; nothing for a peer without a person.
    fn visitor(&self, origin: Origin) -> Option<Visitor> {
        let Origin::Vpn(id) = origin else { return None };
        let force = self.edge.force.load();
        let user = force.config.users.iter().find(|user| user.peers.contains(&id))?;
        let (_, peer) = force.config.directory.peers.iter().find(|(peer, _)| *peer == id)?;
        let name = format!("{} (peer {peer})", user.name);
        Some(Visitor { name, role: user.role, door: Door::Tunnel })
    }

    /// Answers somebody who came by the control socket, and may do there what he likes anyway.
    pub(super) async fn by_socket(self: Arc<Self>, caller: u32, request: Request<Bytes>) -> Response<Bytes> {
        let name = super::control::author(caller);
        self.note_look(caller, &name);
        let visitor = Visitor { name, role: crate::origin::Role::Owner, door: Door::Socket };
        self.answer(Whose::Socket, visitor, request).await
    }

    fn note_look(&self, caller: u32, name: &str) {
        let now = Instant::now();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        // Root and the edge's own user alone come in.
        let last = looks.insert(caller, now);
        drop(looks);
        if last.is_none_or(|last| now.duration_since(last) > LOOK) {
            self.edge.audit.record(name, "console", "opened by the control socket");
        }
    }

    fn count(&self, whose: Whose) -> Option<Counted<'_>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (under_way.values().sum::<usize>(), under_way.get(&whose).copied().unwrap_or_default());
        if all >= OF_ALL || own >= OF_ONE {
            return None;
        }
        under_way.insert(whose, own + 1);
        Some(Counted { console: self, whose })
    }

    async fn answer(self: Arc<Self>, whose: Whose, visitor: Visitor, request: Request<Bytes>) -> Response<Bytes> {
        let busy = || {
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "too much is under way\n");
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            response
        };
        let Some(_counted) = self.count(whose) else { return busy() };
        let Ok(_turn) = self.at_work.acquire().await else { return busy() };
        let house = Shown::new(self.edge.clone(), self.runtime.clone());
        let work = move || console::answer(&house, &visitor, &request);
        self.runtime.spawn_blocking(work).await.unwrap_or_else(|_| busy())
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

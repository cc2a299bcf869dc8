//! The cores: a thread with its own runtime, listeners and upstream connections each. Nothing of a
//! connection ever moves to another core.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use hyper::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    runtime::LocalOptions,
    sync::mpsc,
    task::{AbortHandle, JoinSet, spawn_local},
    time::{Instant, sleep, timeout},
};

use crate::{
    ingress::{
        Policy, Shared, Sockets, acme,
        census::{Counted, Holder},
        datagrams::Flows,
        doctor,
        h1::{
            connection::{self, Service},
            response::Date,
        },
        h2,
        permits::{Permits, Subject},
        ports::{Entrance, Entry, Transport},
        preamble::{self, Reading},
        proxies::Word,
        proxy::{Through, Visitor},
        relay::{self, Caller},
        tls::{self, Handshake},
        upstream::{Dial, DialError, Ends, Pools},
    },
    limit::{Client, Rate},
    listen::Place,
    origin::Origin,
    stream::{Accepted, Stream},
    supervise::{self, Phase, Stop, panic_text},
};

const READ: usize = 16 * 1024;
const SPARE_BUFFERS: usize = 64;
/// Requests of one route that are sent again to another server.
const RETRIES: Rate = Rate::new(10, 20).expect("not 0");
/// How long a client may take to read what was written before a close, and how much of it is listened to.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 * 1024 * 1024;
const SWEEP: Duration = Duration::from_secs(5);
/// How often certificates are looked at: files that changed, and what nears its end.
const CERTIFICATES: Duration = Duration::from_secs(5);
/// How often lists of addresses are looked at for changes.
const BANS: Duration = Duration::from_secs(5);
/// Streams out of the tunnel that wait for a core.
pub(super) const HANDED_OVER: usize = 64;

/// What one core has for itself.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) pools: Rc<Pools>,
    pub(super) permits: Rc<Permits>,
    pub(super) stop: Stop,
    scratch: RefCell<BytesMut>,
    date: RefCell<Date>,
    ids: Cell<u128>,
    spare: RefCell<Vec<BytesMut>>,
    draining: Cell<bool>,
    closing: Cell<bool>,
    connections: RefCell<HashMap<u64, (Rc<Presence>, AbortHandle)>>,
    next: Cell<u64>,
}

/// What the core knows of one of its connections.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// It waits for a request: nothing is lost if it ends.
    pub(super) idle: Cell<bool>,
    /// How it came in, which a reload may take back.
    arrived: Option<Arrived>,
}

/// How a connection came in by a listener of ours.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    peer: IpAddr,
    door: Option<usize>,
    through: Through,
    origin: Origin,
}

impl Arrived {
    /// Whether it would come in by this policy as it did: what a listener gave to its proxies ends where it gives that
    /// no more.
    fn still_holds(&self, policy: &Policy) -> bool {
        let proxies = policy.config.proxies(self.door);
        match self.through {
            Through::Nobody => !proxies.alone,
            Through::Proxy { .. } => proxies.have(self.peer) && proxies.origin == self.origin,
        }
    }
}

impl Core {
    /// Notes who asked for a host that is not in their table.
    pub(super) fn note_trespass(&self, policy: &Policy, origin: Origin, client: IpAddr, host: &str) {
        let hosts = policy.config.routes.iter().map(|route| &route.host);
        self.shared.trespasses.note(hosts, origin, client, host);
    }

    fn new(shared: Arc<Shared>, stop: Stop) -> Rc<Self> {
        Rc::new(Self {
            shared,
            pools: Rc::default(),
            permits: Rc::default(),
            stop,
            scratch: RefCell::new(BytesMut::with_capacity(READ)),
            date: RefCell::new(Date::new(SystemTime::now())),
            ids: Cell::new(seed()),
            spare: RefCell::default(),
            draining: Cell::new(false),
            closing: Cell::new(false),
            connections: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// Brings a connection's policy up to date.
    pub(super) fn refresh(&self, policy: &mut Arc<Policy>) {
        if self.shared.generation() != policy.generation {
            *policy = self.shared.policy.load_full();
        }
    }

    /// Returns the policy in force, if it is another one.
    pub(super) fn newer(&self, policy: &Policy) -> Option<Arc<Policy>> {
        (self.shared.generation() != policy.generation).then(|| self.shared.policy.load_full())
    }

    /// Whether an answer should say that the connection ends with it.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a connection that was to be kept ends all the same.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Waits until no connection is left.
    async fn quiet(&self) {
        while !self.connections.borrow().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads into a buffer that the core's connections share, and from there to the end of `input`.
    pub(super) fn poll_read_shared<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        input: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        let read = ready!(pin!(stream.read_buf(&mut *scratch)).poll(cx));
        input.extend_from_slice(&scratch);
        Poll::Ready(read)
    }

    /// Returns what the next request is called: no secret, but nothing that another process would say.
    pub(super) fn next_id(&self) -> u128 {
        // xorshift128 (Marsaglia 2003), over both halves.
        let state = self.ids.get();
        let (mut x, y) = ((state >> 64) as u64, state as u64);
        x ^= x << 23;
        let next = x ^ y ^ (x >> 17) ^ (y >> 26);
        self.ids.set(u128::from(y) << 64 | u128::from(next));
        u128::from(next.wrapping_add(y)) << 64 | u128::from(next | 1)
    }

    /// Works with the date of this second.
    pub(super) fn with_date<T>(&self, work: impl FnOnce(&Date) -> T) -> T {
        let mut date = self.date.borrow_mut();
        date.update(SystemTime::now());
        work(&date)
    }

    pub(super) fn spare_buffer(&self) -> BytesMut {
        self.spare.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(2 * READ))
    }

    pub(super) fn keep_buffer(&self, mut buffer: BytesMut) {
        let mut spare = self.spare.borrow_mut();
        buffer.clear();
        if spare.len() < SPARE_BUFFERS && buffer.capacity() >= READ {
            spare.push(buffer);
        }
    }

    /// Whether a route may send one more request again: not so often that a server that is ill gets worse.
    pub(super) fn may_retry(&self, route: &str) -> bool {
        self.shared.limits.check_key(("retry", route), RETRIES, std::time::Instant::now()).is_ok()
    }

    /// Whether a list of the owner's keeps an address out. A gateway may stand for others that are on none.
    pub(super) fn is_outcast(&self, policy: &Policy, client: IpAddr) -> bool {
        policy.outcasts.have(client) && !self.shared.networks.load().is_relay(client)
    }

    /// Whether a client from the Internet may open one more connection now.
    pub(super) fn opens(&self, address: IpAddr) -> bool {
        let (shared, client) = (&self.shared, Client::of(address));
        if self.is_outcast(&shared.policy.load(), address) {
            shared.series.outcasts.inc();
            return false;
        }
        if shared.strangers.are_masked() {
            return true;
        }
        let now = std::time::Instant::now();
        if shared.strangers.bans.left(client, now).is_some() {
            shared.series.banned.inc();
            return false;
        }
        let policy = shared.policy.load();
        let Some(rate) = policy.config.wan_connections else { return true };
        // Whoever holds a whole /48 has a few times of what one /64 has.
        let site = Rate::new(rate.per_second.get().saturating_mul(4), rate.burst.get().saturating_mul(4));
        let whole = client.site() == client
            || site.is_none_or(|rate| shared.limits.check_key(("site", client.site()), rate, now).is_ok());
        let opens = whole && shared.limits.check_key(("connections", client), rate, now).is_ok();
        if !opens {
            shared.series.refused.inc();
        }
        opens
    }

    /// Counts and tells that an upstream could not be connected to; returns the answer's status.
    pub(super) fn dial_failed(&self, dial: &Dial, error: DialError) -> StatusCode {
        let (reason, status) = match error {
            DialError::Name => ("name", StatusCode::BAD_GATEWAY),
            DialError::Refused => ("connect", StatusCode::BAD_GATEWAY),
            DialError::Tls => ("tls", StatusCode::BAD_GATEWAY),
            DialError::Protocol => ("protocol", StatusCode::BAD_GATEWAY),
            DialError::TimedOut => ("connect_timeout", StatusCode::GATEWAY_TIMEOUT),
        };
        self.shared.series.upstream_failure(reason);
        tracing::info!(upstream = ?dial.upstream.host, port = dial.upstream.port, reason, "upstream failed");
        status
    }
}

fn seed() -> u128 {
    let mut seed = [1; 16];
    getrandom::fill(&mut seed).expect("the system has a random source");
    // All zeros would stay so.
    u128::from_ne_bytes(seed) | 1
}

/// Runs the plane on its cores until told to stop.
pub(super) fn run(shared: &Arc<Shared>, sockets: &[Sockets], stop: &Stop) -> Result<(), String> {
    // One core that fell over takes the others with it: the supervisor starts them all again.
    let (fell, all) = crate::supervise::stop();
    let (senders, receivers): (Vec<_>, Vec<_>) = sockets.iter().map(|_| mpsc::channel(HANDED_OVER)).unzip();
    let failure = std::thread::scope(|scope| {
        let cores: Vec<_> = sockets
            .iter()
            .zip(receivers)
            .enumerate()
            .map(|(index, (sockets, handed))| {
                let (shared, stop, fell, all) = (shared.clone(), stop.clone(), fell.clone(), all.clone());
                let senders = if index == 0 { senders.clone() } else { Vec::new() };
                let work = move || {
                    let ended = catch_unwind(AssertUnwindSafe(|| core(shared, sockets, handed, senders, stop, all)));
                    let ended = ended.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
                    if ended.is_err() {
                        fell.advance(Phase::Now);
                    }
                    ended
                };
                std::thread::Builder::new().name(format!("ingress-{index}")).spawn_scoped(scope, work)
            })
            .collect();
        let mut failure = None;
        for core in cores {
            match core {
                Ok(core) => {
                    let ended = core.join().unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
                    failure = failure.or(ended.err());
                }
                Err(error) => {
                    fell.advance(Phase::Now);
                    failure = failure.or(Some(format!("no thread: {error}")));
                }
            }
        }
        failure
    });
    failure.map_or(Ok(()), Err)
}

fn core(
    shared: Arc<Shared>,
    sockets: &Sockets,
    handed: mpsc::Receiver<Accepted>,
    senders: Vec<mpsc::Sender<Accepted>>,
    stop: Stop,
    all: Stop,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async move {
        let core = Core::new(shared, stop.clone());
        let mut loops = JoinSet::new();
        for listener in &sockets.listeners {
            let socket = listener.socket.try_clone().and_then(TcpListener::from_std);
            let socket = socket.map_err(|error| format!("listener {}: {error}", listener.address))?;
            loops.spawn_local(accept(core.clone(), socket, (listener.service, listener.door)));
        }
        for (place, socket) in &sockets.ports {
            let socket = socket.try_clone().and_then(TcpListener::from_std);
            let socket = socket.map_err(|error| format!("listener {}: {error}", place.address))?;
            loops.spawn_local(accept_port(core.clone(), socket, place.clone()));
        }
        let flows = Flows::new(core.clone());
        for (place, socket) in &sockets.datagrams {
            let socket = socket.try_clone().and_then(UdpSocket::from_std);
            let socket = socket.map_err(|error| format!("socket {}: {error}", place.address))?;
            loops.spawn_local(flows.clone().serve(socket, place.clone()));
        }
        loops.spawn_local(take_over(core.clone(), handed));
        loops.spawn_local(upkeep(core.clone()));
        if !senders.is_empty() {
            loops.spawn_local(hand_over(core.shared.clone(), senders));
            loops.spawn_local(take_datagrams(core.shared.clone(), flows));
            loops.spawn_local(doctor::rounds(core.clone()));
            loops.spawn_local(look_after_certificates(core.shared.clone()));
            loops.spawn_local(look_after_bans(core.shared.clone()));
            loops.spawn_local(look_after_decisions(core.shared.clone()));
            let (shared, told) = (core.shared.clone(), stop.clone());
            // It starts again by itself: nobody's connection depends on it.
            supervise::service("acme", stop.clone(), move || acme::run(shared.clone(), told.clone()));
        }
        // A loop that fell over takes its core with it: nobody would accept what the kernel hands to it.
        let fallen = async {
            loop {
                match loops.join_next().await {
                    Some(Err(end)) if end.is_panic() => return panic_text(end.into_panic().as_ref()),
                    Some(_) => {}
                    None => return "nobody accepts any more".to_owned(),
                }
            }
        };
        let failure = tokio::select! {
            () = stop.reached(Phase::Drain) => None,
            () = all.reached(Phase::Now) => None,
            failure = fallen => Some(failure),
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        loops.abort_all();
        core.draining.set(true);
        tokio::select! {
            () = stop.lost_patience() => {}
            () = core.quiet() => {}
            () = all.reached(Phase::Now) => {}
        }
        core.closing.set(true);
        for (presence, task) in core.connections.borrow().values() {
            if presence.idle.get() {
                task.abort();
            }
        }
        tokio::select! {
            () = core.quiet() => {}
            () = stop.reached(Phase::Now) => {}
            () = all.reached(Phase::Now) => {}
        }
        Ok(())
    })
}

async fn accept(core: Rc<Core>, listener: TcpListener, (service, door): (Service, Option<usize>)) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                // An address of a link is known with its interface; others are told apart by prefix alone.
                let interface = match client {
                    SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
                    _ => None,
                };
                let policy = core.shared.policy.load();
                let proxies = policy.config.proxies(door);
                let through = match proxies.have(client.ip().to_canonical()) {
                    true => Through::Proxy { door, speaks_first: proxies.word == Word::ProxyProtocol },
                    false => Through::Nobody,
                };
                if through == Through::Nobody && proxies.alone {
                    core.shared.series.refused.inc();
                    continue;
                }
                let origin = match through {
                    Through::Proxy { .. } => proxies.origin,
                    Through::Nobody => core.shared.networks.load().classify(client.ip(), interface).origin,
                };
                let Ok(local) = stream.local_addr() else { continue };
                let _ = stream.set_nodelay(true);
                let arrived = Arrived { peer: client.ip().to_canonical(), door, through, origin };
                let accepted = Accepted { stream: Stream::Kernel(stream), origin, client, local };
                begin(&core, accepted, Errand::Http(service), through, Some(arrived));
            }
            Err(error) => {
                // Out of descriptors, mostly: others must close first.
                tracing::debug!(%error, "accept failed");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Accepts for a route of plain TCP. Who may not use it sees the port close at once, and nothing of it is passed on.
async fn accept_port(core: Rc<Core>, listener: TcpListener, place: Place) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let interface = match client {
                    SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
                    _ => None,
                };
                let origin = core.shared.networks.load().classify(client.ip(), interface).origin;
                let Ok(local) = stream.local_addr() else { continue };
                let _ = stream.set_nodelay(true);
                let accepted = Accepted { stream: Stream::Kernel(stream), origin, client, local };
                begin_port(&core, accepted, Entrance::Kernel(place.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn begin_port(core: &Rc<Core>, accepted: Accepted, entrance: Entrance) {
    let policy = core.shared.policy.load_full();
    let Some(entry) = policy.ports.at(Transport::Tcp, &entrance) else { return };
    if entry.admits(accepted.origin) {
        return begin(core, accepted, Errand::Port(entry.clone(), entrance), Through::Nobody, None);
    }
    core.shared.series.refusal(&entry.route.name, "origin");
    if let Stream::Kernel(stream) = &accepted.stream {
        // A reset, as from a port that is closed.
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

async fn take_datagrams(shared: Arc<Shared>, flows: Rc<Flows>) {
    while let Some(datagram) = poll_fn(|cx| shared.poll_datagrams(cx)).await {
        flows.take(datagram);
    }
    std::future::pending().await
}

/// Hands the streams of the tunnel to the cores in turn. One that no core has room for is closed.
async fn hand_over(shared: Arc<Shared>, cores: Vec<mpsc::Sender<Accepted>>) {
    let mut turn = 0;
    while let Some(mut accepted) = poll_fn(|cx| shared.poll_inlet(cx)).await {
        for _ in 0..cores.len() {
            turn = (turn + 1) % cores.len();
            match cores[turn].try_send(accepted) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => accepted = back,
            }
        }
    }
}

async fn take_over(core: Rc<Core>, mut handed: mpsc::Receiver<Accepted>) {
    while let Some(accepted) = handed.recv().await {
        match accepted.local.port() {
            443 => begin(&core, accepted, Errand::Http(Service::Routes), Through::Nobody, None),
            80 => begin(&core, accepted, Errand::Http(Service::Redirect(443)), Through::Nobody, None),
            port => begin_port(&core, accepted, Entrance::Inner(port)),
        }
    }
}

/// Looks after idle upstream connections, and after what a reload may have forbidden.
async fn upkeep(core: Rc<Core>) {
    let mut generation = core.shared.watch_generation();
    loop {
        match timeout(SWEEP, generation.changed()).await {
            Ok(Ok(())) => {
                let policy = core.shared.policy.load_full();
                core.permits.review(&policy);
                for (presence, task) in core.connections.borrow().values() {
                    if presence.arrived.is_some_and(|arrived| !arrived.still_holds(&policy)) {
                        task.abort();
                    }
                }
            }
            Ok(Err(_)) => return,
            Err(_) => core.pools.sweep(Instant::now()),
        }
    }
}

async fn look_after_certificates(shared: Arc<Shared>) {
    loop {
        let policy = shared.policy.load_full();
        policy.look_after_certificates(&shared, SystemTime::now());
        drop(policy);
        sleep(CERTIFICATES).await;
    }
}

async fn look_after_bans(shared: Arc<Shared>) {
    loop {
        sleep(BANS).await;
        let policy = shared.policy.load_full();
        // Lists may be long, and this thread has connections.
        let _ = tokio::task::spawn_blocking(move || {
            policy.outcasts.look();
            if let Some(countries) = &policy.countries {
                countries.look();
            }
        })
        .await;
    }
}

/// Listens to the agent that decides who is kept out, if there is one.
async fn look_after_decisions(shared: Arc<Shared>) {
    let mut generation = shared.watch_generation();
    loop {
        let decisions = shared.policy.load().outcasts.decisions().cloned();
        let mut rest = BANS;
        if let Some(decisions) = decisions {
            if decisions.rest(std::time::Instant::now()).is_zero() {
                if !decisions.ask(&shared.lookup).await {
                    shared.series.crowdsec_failures.inc();
                }
                // A reload may have come meanwhile; it listens to the same agent.
                let policy = shared.policy.load_full();
                let _ = tokio::task::spawn_blocking(move || policy.outcasts.join()).await;
            }
            rest = decisions.rest(std::time::Instant::now());
        }
        let networks = shared.policy.load().outcasts.networks();
        shared.series.banned_networks.set(i64::try_from(networks).unwrap_or(i64::MAX));
        if let Ok(Err(_)) = timeout(rest, generation.changed()).await {
            return;
        }
    }
}

/// What somebody comes for.
enum Errand {
    /// Requests.
    Http(Service),
    /// To be passed on to whoever a port leads to.
    Port(Arc<Entry>, Entrance),
}

/// Starts the task of a connection.
fn begin(core: &Rc<Core>, accepted: Accepted, errand: Errand, through: Through, arrived: Option<Arrived>) {
    let peer = accepted.client.ip().to_canonical();
    let holder = match (through, accepted.origin) {
        (Through::Proxy { .. }, _) => Holder::Proxy,
        (Through::Nobody, Origin::Wan) => Holder::Stranger(Client::of(peer)),
        (Through::Nobody, _) => Holder::House,
    };
    if let Holder::Stranger(_) = holder
        && !core.opens(peer)
    {
        return;
    }
    let Some(counted) = core.shared.census.admit(holder) else {
        core.shared.series.refused.inc();
        return;
    };
    let id = core.next.get();
    core.next.set(id + 1);
    let presence = Rc::new(Presence { arrived, ..Presence::default() });
    let guard = Guard { core: core.clone(), id, _counted: counted };
    core.shared.series.open.inc();
    let task = spawn_local(guarded(guard, accepted, presence.clone(), errand, through));
    core.connections.borrow_mut().insert(id, (presence, task.abort_handle()));
}

/// Takes a connection off the books, however it ended.
struct Guard {
    core: Rc<Core>,
    id: u64,
    _counted: Counted,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.core.connections.borrow_mut().remove(&self.id);
        self.core.shared.series.open.dec();
    }
}

async fn guarded(guard: Guard, accepted: Accepted, presence: Rc<Presence>, errand: Errand, through: Through) {
    match errand {
        Errand::Http(service) => {
            let work = pin!(serve(&guard.core, accepted, &presence, service, through));
            caught(&guard.core, work).await;
        }
        Errand::Port(entry, entrance) => {
            let work = Box::pin(pass_on(&guard.core, accepted, &entry, entrance));
            caught(&guard.core, pin!(work)).await;
        }
    }
}

async fn pass_on(core: &Rc<Core>, accepted: Accepted, entry: &Entry, entrance: Entrance) {
    let Accepted { stream, origin, client, local } = accepted;
    let subject = Subject::Port(Transport::Tcp, entrance);
    let caller = Caller { origin, client: client.ip().to_canonical(), ends: Ends { client, local }, subject };
    let policy = core.shared.policy.load_full();
    relay::serve(core, policy, stream, BytesMut::new(), entry.route.clone(), caller).await;
}

/// Lets a panic end this work and nothing else.
pub(super) async fn caught(core: &Core, mut work: Pin<&mut impl Future<Output = ()>>) {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(step) => step,
        Err(panic) => {
            core.shared.series.panics.inc();
            tracing::error!(failure = panic_text(panic.as_ref()), "a connection fell over");
            Poll::Ready(())
        }
    })
    .await;
}

async fn serve(core: &Rc<Core>, accepted: Accepted, presence: &Presence, service: Service, through: Through) {
    let Accepted { mut stream, origin, client, local } = accepted;
    let ends = Ends { client, local };
    let peer = client.ip().to_canonical();
    let mut visitor =
        Visitor { origin, peer, through, scheme: "http", begun_for: None, certificate: None, realm: None, ends };
    // Held to the end: a client behind a proxy has its share of connections as if it came by itself.
    let _counted = match through {
        Through::Proxy { speaks_first: true, .. } => match Box::pin(introduce(core, &mut stream, &mut visitor)).await {
            Some(counted) => counted,
            None => return,
        },
        _ => None,
    };
    match service {
        Service::Routes => {}
        Service::Redirect(_) => return Box::pin(connection::serve(core, stream, &visitor, presence, service)).await,
        Service::Unwrapped => {
            visitor.scheme = "https";
            return Box::pin(connection::serve(core, stream, &visitor, presence, service)).await;
        }
    }
    let policy = core.shared.policy.load_full();
    let limit = policy.config.timeouts.handshake;
    // Each part of a connection's life has its own place in memory, which ends with it.
    let handshake = Box::pin(tls::accept(stream, policy.tables.of(origin), &core.shared.answers, limit)).await;
    drop(policy);
    let (stream, certificate, realm) = match handshake {
        Handshake::Done(stream, certificate, realm) => {
            core.shared.series.handshake("done");
            (stream, certificate, realm)
        }
        Handshake::Passed(stream, said, route, name) => {
            core.shared.series.handshake("passed");
            let caller = Caller { origin, client: visitor.peer, ends, subject: Subject::Name(name) };
            let policy = core.shared.policy.load_full();
            return Box::pin(relay::serve(core, policy, stream, said, route, caller)).await;
        }
        Handshake::Checked(mut stream) => {
            core.shared.series.handshake("acme");
            return close_in_order(&mut stream).await;
        }
        Handshake::UnknownName(stream, name) => {
            core.shared.series.handshake("unknown_name");
            tls::refuse(stream, limit).await;
            // Only now, so that it cannot be told from how long the answer took.
            if let Some(name) = name {
                core.note_trespass(&core.shared.policy.load(), origin, peer, &name);
            }
            return;
        }
        Handshake::Failed => return core.shared.series.handshake("failed"),
        Handshake::TimedOut => return core.shared.series.handshake("timed_out"),
    };
    visitor.scheme = "https";
    visitor.begun_for = stream.get_ref().1.server_name().map(|name| name.to_ascii_lowercase().into());
    (visitor.certificate, visitor.realm) = (Some(certificate), realm);
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(h2::serve(core, stream, visitor)).await;
    } else {
        Box::pin(connection::serve(core, stream, &visitor, presence, service)).await;
    }
}

/// Learns from a proxy who the client is, and counts that one; `None` if the connection is to end.
async fn introduce(core: &Core, stream: &mut Stream, visitor: &mut Visitor) -> Option<Option<Counted>> {
    let Some(client) = told(core, stream).await else {
        core.shared.series.preambles.inc();
        tracing::debug!(peer = %visitor.peer, "a trusted proxy does not say whom it speaks for");
        return None;
    };
    let Some(client) = client else { return Some(None) };
    visitor.peer = client;
    if visitor.origin != Origin::Wan {
        return Some(None);
    }
    let counted = core.opens(client).then(|| core.shared.census.admit(Holder::Behind(Client::of(client)))).flatten();
    counted.map(Some)
}

/// Reads what a proxy says before the client's bytes; `None` if it does not, or not in time.
async fn told(core: &Core, stream: &mut Stream) -> Option<Option<IpAddr>> {
    let limit = core.shared.policy.load().config.timeouts.handshake;
    let whole = async {
        let mut input = Vec::new();
        loop {
            match preamble::read(&input) {
                Reading::Told(client) => return Some(client),
                Reading::Other => return None,
                Reading::Partial(more) => {
                    let had = input.len();
                    input.resize(had + more, 0);
                    stream.read_exact(&mut input[had..]).await.ok()?;
                }
            }
        }
    };
    timeout(limit, whole).await.ok().flatten()
}

/// Ends a connection so that the client sees all that was written: a close with unread input would become a
/// reset, which can overtake the answer (RFC 9112 §9.6).
pub(super) async fn close_in_order<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let mut sink = [0; 8192];
        while let Ok(read @ 1..) = stream.read(&mut sink).await {
            let Some(rest) = left.checked_sub(read) else { return };
            left = rest;
        }
    };
    // Needed once, so its room is not part of every connection's.
    let _ = Box::pin(timeout(LINGER, drain)).await;
}

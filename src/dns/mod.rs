//! The DNS plane.
//!
//! The life of one query: a thread of `server::udp` takes it from its own socket, with a batch of others, and
//! the kernel says which address was asked and by which interface, from which follows its origin. Then
//! `answer::answer` decides, in the order of the product: a refused origin gets nothing; a record of the
//! house or a special name is answered; the rules of the client's group may block it; the cache may know the
//! answer. All this happens in place, without an allocation or a log line, and the batch is sent. What is not
//! known takes a place in `room` and goes on as a task: `upstream::flight` asks once however many wait, our own
//! `resolver` asks the authorities from the root, the configured servers, or those of a forwarded zone, and
//! checks what they say; what comes of it is kept in `cache` as bytes, before any client's rules. Then
//! `answer::answer` is called once more with it: rules apply to the names that it leads to, an expired answer
//! may stand in for a failure, and the task sends the answer from the address that was asked. TCP, TLS, QUIC and
//! the tunnel go the same way, one message at a time; messages of HTTPS come from the ingress through `questions`.

mod answer;
mod cache;
mod client;
mod config;
mod cookie;
mod counters;
mod devices;
mod encode;
pub mod explain;
pub mod filter;
pub mod fuzz;
mod journal;
mod local;
mod once;
mod past;
mod policy;
mod query;
mod refresh;
mod reread;
pub mod resolver;
mod room;
mod server;
mod status;
mod timed;
mod upstream;
mod ways;

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::ScopedJoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

pub use client::{Client, ClientName};
pub use config::*;
pub use devices::Device as KnownDevice;
pub use filter::{ListStatus, Match};
pub use policy::Error;
pub use status::Status;
pub use timed::Timed;
pub use ways::MOST_WAYS;

use self::{
    cache::Cache,
    cookie::Cookies,
    counters::Series,
    devices::Devices,
    once::Once,
    past::Past,
    policy::Policy,
    refresh::Fetches,
    resolver::{
        budget::Means,
        wall::{Bounds, Wall},
    },
    room::Room,
    server::tls::Secure,
    upstream::{Flights, Resolver},
};
use crate::{
    event::Journal,
    identity::Identity,
    limit::{self, Limits, Rate},
    listen::{self, BindError, Place, Wanted},
    lookup::Lookup,
    metrics::Metrics,
    neighbours::{Mac, Table},
    origin::Networks,
    public_dns::PublicDns,
    questions::{Questions, Unanswered},
    stream::Inlet,
    supervise::{self, Phase, Stop},
};

/// Reads a stranger's message as the servers do, and returns what is said to it without knowing any name;
/// for the fuzz target.
#[doc(hidden)]
pub fn read_message(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    encode::ttl_offsets(bytes);
    match query::Query::parse(bytes) {
        Ok(query) => {
            let head = encode::Head::code(encode::rcode::REFUSED);
            encode::start(&query, head, &mut out);
            encode::finish(&query, encode::rcode::REFUSED, None, encode::udp_limit(query.edns), &mut out);
            Some(out)
        }
        Err(unfit) => encode::unfit(bytes, unfit, &mut out).then_some(out),
    }
}

/// The DNS server of the house.
#[derive(Debug)]
pub struct Plane {
    core: Arc<Core>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    /// TLS and QUIC, where there are any.
    encrypted: Option<EncryptedSockets>,
    inlet: Mutex<Option<Inlet>>,
    runtime: Arc<ArcSwapOption<Handle>>,
    /// It was running before: what asks others must be made anew.
    ran: AtomicBool,
}

/// A policy that was built and is not in force yet.
#[derive(Debug)]
pub struct Prepared(Arc<Policy>);

/// What outlives reloads and restarts of the plane.
#[derive(Debug)]
struct Core {
    policy: ArcSwapOption<Policy>,
    networks: Arc<ArcSwap<Networks>>,
    cache: Cache,
    flights: Flights,
    room: Arc<Room>,
    connections: Arc<Room>,
    limits: Limits,
    /// Questions of each client that nobody knew the answer to.
    misses: Limits,
    cookies: Cookies,
    series: Series,
    /// What came of each question, for whoever keeps it.
    journal: Journal,
    clock: Clock,
    /// What signatures are checked by.
    trusted_clock: OnceLock<crate::clock::Clock>,
    fetches: Fetches,
    devices: Devices,
    /// Addresses whose device is not known yet, which were told to ask again.
    strangers: Once,
    /// What was said of questions that lead past the house.
    past: Past,
    /// Told when a policy comes into force.
    committed: Notify,
    /// Told as well, whoever made it.
    replaced: Notify,
}

impl Core {
    fn new(cache_size: usize, networks: Arc<ArcSwap<Networks>>, metrics: &Metrics) -> Self {
        Self {
            policy: ArcSwapOption::empty(),
            networks,
            cache: Cache::new(cache_size),
            flights: Flights::default(),
            room: Room::new(WAITING, WAITING_EACH),
            connections: server::tcp::bound(),
            limits: Limits::new(CLIENTS, Instant::now()),
            misses: Limits::new(CLIENTS, Instant::now()),
            cookies: Cookies::new(),
            series: Series::new(metrics),
            journal: Journal::default(),
            clock: Clock,
            trusted_clock: OnceLock::new(),
            fetches: Fetches::default(),
            devices: Devices::default(),
            strangers: Once::in_seconds(STRANGE),
            past: Past::default(),
            committed: Notify::new(),
            replaced: Notify::new(),
        }
    }

    /// Counts a question that nobody knows the answer to, and says what may be spent on it.
    fn means(&self, client: Option<limit::Client>, now: Instant) -> Means {
        match client {
            Some(client) if self.misses.check(client, MISSES, now).is_err() => {
                self.series.reduced();
                Means::Reduced
            }
            _ => Means::Full,
        }
    }

    /// Returns the clock that signatures are checked by.
    fn trusted_clock(&self) -> &crate::clock::Clock {
        self.trusted_clock.get_or_init(crate::clock::Clock::believed)
    }

    /// Puts a policy in the place of another one, unless that is in force no more.
    fn replace(&self, before: &Arc<Policy>, after: Arc<Policy>) -> bool {
        self.tell_devices(&after);
        let found = self.policy.compare_and_swap(before, Some(after.clone()));
        let replaced = found.as_ref().is_some_and(|found| Arc::ptr_eq(found, before));
        if replaced {
            self.devices.changed();
            self.replaced.notify_one();
            self.count_names(&after);
            if !after.asks_as(before) {
                self.cache.clear();
            }
        }
        replaced
    }

    /// Nobody is in the wrong group for a moment, or under the rules of another hour.
    fn tell_devices(&self, policy: &Policy) {
        policy.filter.keep_time(self.clock.seconds());
        self.devices.apply(&policy.filter, &policy.files.load().leases, self.clock.seconds());
    }

    fn count_names(&self, policy: &Policy) {
        let names = &self.series.list_names;
        names.reset();
        for list in &policy.lists {
            names.with_label_values(&[&list.name]).set(i64::try_from(list.names).unwrap_or(i64::MAX));
        }
    }

    fn put_in_force(&self, policy: Arc<Policy>) {
        self.tell_devices(&policy);
        let before = self.policy.swap(Some(policy.clone()));
        // What the wire said in between was told to the policy before.
        self.devices.changed();
        self.replaced.notify_one();
        if before.is_some_and(|before| !policy.asks_as(&before)) {
            self.cache.clear();
        }
    }
}

/// Seconds since 1970. Cached answers age by the wall clock, which goes on while the machine sleeps.
#[derive(Clone, Copy, Debug)]
struct Clock;

impl Clock {
    fn seconds(self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    /// The same, finer.
    fn milliseconds(self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Seconds in which an address whose device is not known is told once to ask again: the kernel learns whose it is when
/// it answers, and the client comes back over TCP or in a while. One that is not found by then cannot be told apart.
const STRANGE: u64 = 60;

/// Questions that wait for others at once: of everybody, and of one client.
const WAITING: usize = 1024;
const WAITING_EACH: usize = 100;

/// Clients that limits are kept for.
const CLIENTS: usize = 4096;

/// Questions of one client that nobody knew, in the long run and after a pause: what comes on top is looked up for
/// less. A page asks for a hundred names, and a house that wakes up for some hundreds.
const MISSES: Rate = Rate::new(20, 600).expect("neither is zero");

/// Ports that the kernel may choose for UDP until one is free for TCP as well.
const CHOSEN_PORTS: u32 = 16;

/// How often the clock is looked at.
const CLOCK: Duration = Duration::from_millis(500);

/// How often gauges are set.
const GAUGES: Duration = Duration::from_secs(5);

impl Plane {
    /// Takes the ports.
    pub fn bind(
        config: &Config,
        networks: Arc<ArcSwap<Networks>>,
        metrics: &Metrics,
        inlet: Option<Inlet>,
        identity: Identity,
    ) -> Result<Self, BindError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for place in &config.listen {
            let (sockets, listeners) = both(place, cores, "dns.listen")?;
            tcp.extend(listeners);
            let address = place.address;
            for socket in &sockets {
                let refused = |error| BindError::Other { address, protocol: "UDP", key: "dns.listen", error };
                server::udp::prepare(socket).map_err(refused)?;
            }
            udp.extend(sockets);
        }
        let encrypted = config.encrypted.as_ref().filter(|encrypted| !encrypted.listen.is_empty());
        let encrypted = encrypted.map(|encrypted| EncryptedSockets::bind(&encrypted.listen, identity)).transpose()?;
        let core = Core::new(config.cache_size, networks, metrics);
        let runtime = Arc::new(ArcSwapOption::empty());
        Ok(Self {
            core: Arc::new(core),
            udp,
            tcp,
            encrypted,
            inlet: Mutex::new(inlet),
            runtime,
            ran: AtomicBool::new(false),
        })
    }

    /// Hands over the clock that signatures are checked by, before the first policy; without it, the system's is
    /// believed.
    pub fn set_clock(&self, clock: crate::clock::Clock) {
        // Policies that are there keep theirs.
        let _ = self.core.trusted_clock.set(clock);
    }

    /// Reads lists and files and builds the policy; blocks.
    pub fn prepare(&self, mut config: Config) -> Result<Prepared, Error> {
        config.clock = self.core.trusted_clock().clone();
        config.figures = self.core.series.figures.clone();
        let before = self.core.policy.load_full();
        self.core.devices.open(&config.state);
        Ok(Prepared(Arc::new(Policy::build(config, before.as_deref())?)))
    }

    /// Puts a policy in force. Rules apply to cached answers at once; the answers are forgotten if others are
    /// asked from now on.
    pub fn commit(&self, prepared: Prepared) {
        let policy = prepared.0;
        self.core.count_names(&policy);
        self.core.put_in_force(policy);
        self.core.committed.notify_one();
    }

    /// Answers until told to stop. Panics and errors of one thread end the run, and the next one finds the
    /// same sockets.
    pub fn run(&self, stop: Stop) -> Result<(), String> {
        let Some(policy) = self.core.policy.load_full() else { return Err("no policy was committed".into()) };
        if self.ran.swap(true, Ordering::Relaxed) {
            let upstream = Resolver::new(&policy.config).map_err(|error| error.to_string())?;
            policy.upstream.store(Arc::new(upstream));
            policy.ways.renew(&policy.config).map_err(|error| error.to_string())?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("dns-task")
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        self.runtime.store(Some(Arc::new(runtime.handle().clone())));
        // A thread that falls over tells the others by this.
        let (over, fallen) = supervise::stop();
        let both = Both { told: stop.clone(), fallen };
        let result = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .udp
                .iter()
                .map(|socket| {
                    let (over, stop, handle) = (over.clone(), both.either(&runtime), runtime.handle());
                    let work = move || {
                        let _tell = OnEnd(over);
                        server::udp::serve(socket, &self.core, handle, &stop)
                    };
                    std::thread::Builder::new().name("dns-udp".into()).spawn_scoped(scope, work)
                })
                .collect();
            let tasks = runtime.block_on(self.serve_tasks(both.either(&runtime)));
            over.advance(Phase::Drain);
            let ends = threads.into_iter().map(|thread| match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(end)) => end,
                Ok(Err(panic)) => Err(supervise::panic_text(panic.as_ref())),
                Err(error) => Err(format!("no thread: {error}")),
            });
            ends.fold(tasks, |sum, end| sum.and(end))
        });
        // What is under way may finish.
        runtime.block_on(async {
            let done = async {
                while self.core.room.taken() + self.core.connections.taken() > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            if result.is_ok() {
                tokio::select! {
                    () = done => {}
                    () = stop.reached(Phase::Now) => {}
                }
            }
        });
        let in_force = self.core.policy.load_full();
        if let Some(policy) = in_force.filter(|_| result.is_ok()) {
            runtime.block_on(policy.upstream.load_full().keep());
        }
        self.runtime.store(None);
        runtime.shutdown_background();
        result
    }

    async fn serve_tasks(&self, stop: Stop) -> Result<(), String> {
        let mut inlet = TakenInlet::of(&self.inlet);
        let tunnel = async {
            match &mut inlet.taken {
                Some(inlet) => server::tunnel::serve(inlet, self.core.clone(), stop.clone()).await,
                None => stop.reached(Phase::Drain).await,
            }
        };
        let mut listeners = tokio::task::JoinSet::new();
        for listener in &self.tcp {
            let listener = listener.try_clone().map_err(|error| format!("TCP listener: {error}"))?;
            listeners.spawn(server::tcp::serve(listener, self.core.clone(), None, stop.clone()));
        }
        if let Some(EncryptedSockets { secure, tcp, udp }) = &self.encrypted {
            for listener in tcp {
                let listener = listener.try_clone().map_err(|error| format!("TLS listener: {error}"))?;
                let (core, secure) = (self.core.clone(), Some(secure.clone()));
                listeners.spawn(server::tcp::serve(listener, core, secure, stop.clone()));
            }
            for socket in udp {
                let socket = socket.try_clone().map_err(|error| format!("QUIC socket: {error}"))?;
                listeners.spawn(server::quic::serve(socket, self.core.clone(), secure.clone(), stop.clone()));
            }
        }
        let listening = async {
            while let Some(end) = listeners.join_next().await {
                end.map_err(|end| end.to_string()).and_then(|end| end)?;
            }
            stop.reached(Phase::Drain).await;
            Ok(())
        };
        let gauges = async {
            loop {
                self.set_gauges();
                tokio::time::sleep(GAUGES).await;
            }
        };
        tokio::select! {
            ended = async { tokio::join!(listening, tunnel).0 } => ended,
            () = gauges => Ok(()),
            () = self.watch_clock() => Ok(()),
            never = refresh::keep_fresh(&self.core, self.lookup()) => match never {},
            never = reread::keep_files(&self.core) => match never {},
            never = devices::keep(&self.core) => match never {},
        }
    }

    /// Goes by what the kernel says of the wire from now on.
    pub fn follow(&self, table: watch::Receiver<Arc<Table>>) {
        self.core.devices.follow(table);
    }

    /// Returns where questions are reported.
    pub fn journal(&self) -> Journal {
        self.core.journal.clone()
    }

    /// Returns the devices of the house, and what is odd about their groups.
    pub fn devices(&self) -> (Vec<KnownDevice>, Vec<String>) {
        let Some(policy) = self.core.policy.load_full() else { return Default::default() };
        self.core.devices.list(&policy.filter, &policy.files.load().leases, self.core.clock.seconds())
    }

    /// Returns the MAC address that an address of the wire has now.
    pub fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        self.core.devices.mac_of(address)
    }

    /// Takes devices out of the group `new`; all of them without a MAC address. Returns how many there were.
    pub fn accept_devices(&self, mac: Option<Mac>) -> usize {
        self.core.devices.accept(mac)
    }

    /// Forgets the answers when the clock is set, or found to be wrong: they age by it, and were believed by it.
    async fn watch_clock(&self) {
        let clock = self.core.trusted_clock();
        let testing = self.core.policy.load().as_ref().map(|policy| policy.config.testing.clone()).unwrap_or_default();
        let mut wall = Wall::new(Bounds { floor: clock.floor(), ..Bounds::default() });
        let mut soundness = clock.soundness();
        loop {
            tokio::time::sleep(CLOCK).await;
            let now = clock.soundness();
            let changed = std::mem::replace(&mut soundness, now) != now;
            // Tests let the clock jump to see answers age.
            if (wall.read().stepped || changed) && !testing.follow_clock && testing.now.is_none() {
                self.core.cache.clear();
            }
        }
    }

    fn set_gauges(&self) {
        let fill = self.core.cache.fill();
        let set = |gauge: &prometheus::IntGauge, value| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.core.series.cache_bytes, fill.bytes);
        set(&self.core.series.cache_entries, fill.entries);
        set(&self.core.series.waiting, self.core.room.taken());
    }

    /// Returns names to addresses through this plane: records of the house first, and no group's rules.
    pub fn lookup(&self) -> Lookup {
        let (core, runtime) = (self.core.clone(), self.runtime.clone());
        Lookup::new(move |name| {
            let (core, handle) = (core.clone(), runtime.load_full());
            async move {
                let handle = handle.ok_or_else(|| {
                    std::io::Error::new(std::io::ErrorKind::NotConnected, "the DNS plane does not run")
                })?;
                // Servers' connections belong to this plane's runtime, whoever asks.
                let asking = handle.spawn(async move { upstream::addresses(&core, &name).await });
                asking.await.map_err(std::io::Error::other)?
            }
        })
    }

    /// Asks whoever this plane asks, past the records and rules of the house.
    pub fn public(&self) -> PublicDns {
        let (core, runtime) = (self.core.clone(), self.runtime.clone());
        PublicDns::new(move |name, rtype| {
            let (core, handle) = (core.clone(), runtime.load_full());
            async move {
                let handle = handle.ok_or_else(|| {
                    std::io::Error::new(std::io::ErrorKind::NotConnected, "the DNS plane does not run")
                })?;
                let asking = handle.spawn(async move { upstream::records(&core, &name, rtype).await });
                asking.await.map_err(std::io::Error::other)?
            }
        })
    }

    /// Answers messages that come to another plane.
    pub fn questions(&self) -> Questions {
        let (core, runtime) = (self.core.clone(), self.runtime.clone());
        Questions::new(move |asked| {
            let (core, handle) = (core.clone(), runtime.load_full());
            async move {
                let handle = handle.ok_or(Unanswered::Away)?;
                server::serve_elsewhere(&core, &handle, asked).await
            }
        })
    }

    /// Returns all that another process must have to answer in this one's place.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let encrypted = self.encrypted.iter();
        let udp = self.udp.iter().chain(encrypted.clone().flat_map(|sockets| &sockets.udp));
        let tcp = self.tcp.iter().chain(encrypted.flat_map(|sockets| &sockets.tcp));
        udp.map(AsFd::as_fd).chain(tcp.map(AsFd::as_fd)).collect()
    }

    /// Returns the addresses that TLS and QUIC are served on, TCP and UDP alike.
    pub fn encrypted_addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.encrypted.iter().flat_map(|sockets| &sockets.tcp);
        listeners.filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Returns the addresses that are listened on, UDP and TCP alike.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// The sockets of TLS and QUIC, one for each place: every core serves their connections.
#[derive(Debug)]
struct EncryptedSockets {
    secure: Arc<Secure>,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl EncryptedSockets {
    fn bind(places: &[Place], identity: Identity) -> Result<Self, BindError> {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for place in places {
            let (sockets, listeners) = both(place, 1, "dns.encrypted")?;
            udp.extend(sockets);
            tcp.extend(listeners);
        }
        let secure = Secure::new(identity).map_err(|error| BindError::Other {
            address: places[0].address,
            protocol: "TLS",
            key: "dns.encrypted",
            error: std::io::Error::other(error),
        })?;
        Ok(Self { secure: Arc::new(secure), tcp, udp })
    }
}

/// Binds one place for UDP and TCP. A port that the kernel chose is the same for both; where somebody has it
/// for TCP, another is chosen.
fn both(place: &Place, cores: usize, key: &'static str) -> Result<(Vec<UdpSocket>, Vec<TcpListener>), BindError> {
    let wanted = |address, shards| Wanted { address, device: place.device.as_deref(), shards, key };
    let mut left = if place.address.port() == 0 { CHOSEN_PORTS } else { 1 };
    loop {
        left -= 1;
        let sockets = listen::udp(&wanted(place.address, cores))?;
        let address = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(place.address);
        match listen::tcp(&wanted(address, 1)) {
            Err(BindError::Taken { .. }) if left > 0 => {}
            listeners => return Ok((sockets, listeners?)),
        }
    }
}

/// Borrows the inlet for a run and gives it back at its end, however that comes.
struct TakenInlet<'a> {
    home: &'a Mutex<Option<Inlet>>,
    taken: Option<Inlet>,
}

impl<'a> TakenInlet<'a> {
    fn of(home: &'a Mutex<Option<Inlet>>) -> Self {
        let taken = home.lock().unwrap_or_else(PoisonError::into_inner).take();
        Self { home, taken }
    }
}

impl Drop for TakenInlet<'_> {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.taken.take();
    }
}

/// Tells the others when a thread ends, also by a panic.
struct OnEnd(supervise::Stopper);

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.0.advance(Phase::Drain);
    }
}

/// Told to stop from outside, or because a thread of this run is over.
struct Both {
    told: Stop,
    fallen: Stop,
}

impl Both {
    fn either(&self, runtime: &tokio::runtime::Runtime) -> Stop {
        let (teller, stop) = supervise::stop();
        let (told, fallen) = (self.told.clone(), self.fallen.clone());
        runtime.spawn(async move {
            tokio::select! {
                () = told.reached(Phase::Drain) => match told.is_handed_over() {
                    true => teller.hand_over(),
                    false => teller.advance(Phase::Drain),
                },
                () = fallen.reached(Phase::Drain) => teller.advance(Phase::Drain),
            }
            told.lost_patience().await;
            teller.lose_patience();
            told.reached(Phase::Now).await;
            teller.advance(Phase::Now);
        });
        stop
    }
}

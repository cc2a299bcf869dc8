//! The ingress: what the Internet, the house and the tunnel reach on ports 80 and 443.
//!
//! The life of a request:
//!
//! 1. `server` accepts a connection on one core, which keeps it to its end. Its [`Origin`]
//!    is set there and then, or came with it out of the tunnel.
//! 2. `routes` has a table for each distinct set of permissions. What an origin may not use is not in its table,
//!    so a host that it must not see and a host that never existed are the same to it.
//! 3. `tls` reads the ClientHello ([`hello`]). A name that is not in the table gets an alert and a close; otherwise the
//!    table's configuration and the name's certificate (`certs`, `ca`) finish the handshake.
//! 4. [`h1`] or `h2` reads the request, strictly, into a [`canonical`] host and path.
//! 5. `proxy` asks for the client's limit and for the route, and checks that the host belongs to the certificate; then
//!    come the route's own limits, and `auth`, where it wants to know who somebody is.
//! 6. `headers` takes off what belongs to one hop and what the client says of itself, and says it anew.
//! 7. `upstream` brings a connection, new or kept, on which the request is written anew from what was understood.
//! 8. The bodies stream both ways in the connection's own task, with one timer; nothing is held back whole.
//! 9. A `record` counts the request and logs it when it ends, however it ends.
//! 10. A reload swaps the policy: the next request sees the new one, and `permits` ends what it no longer allows.

mod acme;
mod auth;
mod ca;
pub mod canonical;
mod census;
mod certs;
mod change;
mod clients;
mod conditions;
mod config;
mod country;
mod crowd;
mod datagrams;
mod deadline;
mod decisions;
mod doctor;
pub mod doh;
pub mod explain;
pub mod h1;
mod h2;
mod headers;
pub mod hello;
mod outcasts;
mod overview;
mod packets;
mod pages;
mod permits;
mod plan;
mod ports;
pub mod preamble;
mod proxies;
mod proxy;
mod record;
mod relay;
mod rewrite;
mod routes;
mod series;
mod serve;
mod server;
mod strangers;
mod tls;
mod trespass;
mod tunnel;
mod upstream;

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{crypto::CryptoProvider, server::ProducesTickets, sign::CertifiedKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::{
    acme::Answers,
    auth::{Guard, Passwords, Warden},
    census::Census,
    certs::Certificates,
    country::Countries,
    crowd::Crowd,
    doctor::Question,
    h1::connection::Service,
    outcasts::{Moment, Outcasts},
    ports::Ports,
    routes::{Route as TableRoute, Tables, Target as TableTarget},
    series::Series,
    strangers::Strangers,
    trespass::Trespasses,
    upstream::{Dial, Group, Health, NO_POOL, Turnstile},
};
use crate::{
    clock::Clock,
    identity::Identity,
    limit::Limits,
    listen::{self, BindError, Place, Wanted},
    lookup::Lookup,
    metrics::Metrics,
    origin::{Networks, Origin},
    pages::Pages,
    provider::Reach,
    questions::Questions,
    stream::{Accepted, Datagram, Inlet},
    supervise::Stop,
};

pub use ca::CaError;
pub use certs::{CertificateError, CertificateStatus};
pub use config::*;
pub use country::CountryFile;
pub use outcasts::BanList;
pub use overview::Overview;
pub use plan::{Means, Order, Side, plan};
pub(crate) use serve::escaped;
pub use trespass::Trespass;
pub use upstream::TlsError;

/// Internet clients whose limits are remembered.
const LIMITED_CLIENTS: usize = 16 * 1024;
/// Beyond this many cores a home's line is the limit.
const MOST_CORES: usize = 16;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS towards an upstream.
    #[error("route \"{route}\": {error}")]
    Upstream {
        /// The route's name.
        route: String,
        /// What is wrong.
        error: TlsError,
    },
    /// A list of addresses.
    #[error("ingress.bans: {path}: {why}", path = path.display())]
    Bans {
        /// The file.
        path: std::path::PathBuf,
        /// Why it is none.
        why: String,
    },
    /// The file of countries.
    #[error("ingress.countries: {path}: {why}", path = path.display())]
    Countries {
        /// The file.
        path: std::path::PathBuf,
        /// Why it is none.
        why: String,
    },
    /// TLS towards clients.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What `status` says of the ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Listeners of plain HTTP.
    pub http: Vec<SocketAddr>,
    /// Listeners of TLS.
    pub https: Vec<SocketAddr>,
    /// Listeners besides.
    #[serde(default)]
    pub doors: Vec<SocketAddr>,
    /// Ports of plain TCP and UDP.
    #[serde(default)]
    pub ports: Vec<PortStatus>,
    /// Certificates in use.
    pub certificates: Vec<CertificateStatus>,
    /// Routes in force.
    pub routes: usize,
    /// Open connections of clients.
    pub connections: u64,
    /// A gateway hides the clients from the Internet behind its own address: limits count by route.
    pub masked: bool,
    /// Lists of addresses that are kept out.
    #[serde(default)]
    pub bans: Vec<BanList>,
    /// The file that says in which country an address is.
    #[serde(default)]
    pub countries: Option<CountryFile>,
    /// Requests whose answer has not ended, of the routes that have any.
    pub under_way: BTreeMap<String, u64>,
}

/// A port as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The route.
    pub route: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Where the kernel listens.
    pub listen: Vec<SocketAddr>,
    /// Ports inside the tunnel.
    pub inner: Vec<u16>,
    /// What is passed on now.
    pub under_way: u64,
}

/// The ingress: its sockets, and what survives a reload.
#[derive(Debug)]
pub struct Plane {
    shared: Arc<Shared>,
    /// For each core.
    sockets: Vec<Sockets>,
}

/// What one core listens on.
#[derive(Debug, Default)]
struct Sockets {
    listeners: Vec<Listener>,
    /// Routes of TCP.
    ports: Vec<(Place, TcpListener)>,
    /// Routes of UDP, all of them on one core: it has the table of their flows.
    datagrams: Vec<(Place, UdpSocket)>,
}

/// A policy that is ready to be swapped in.
pub struct Prepared(Policy);

/// What holds until the next reload.
struct Policy {
    generation: u64,
    config: Config,
    certificates: Certificates,
    outcasts: Outcasts,
    countries: Option<Arc<Countries>>,
    tables: Tables,
    ports: Ports,
}

/// What a ticket is good for: a table, and the realm of a host whose clients show certificates.
type Sealed = (Origin, Option<Arc<str>>);

/// A server as requests find it, or as it answers a question.
type Watched = (Upstream, Option<Question>);
/// What a route does with each connection to its servers.
type Manner = (Option<ProxyProtocol>, Option<ServerLimit>);

/// What the cores share.
#[derive(Debug)]
struct Shared {
    policy: ArcSwap<Policy>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    networks: Arc<ArcSwap<Networks>>,
    lookup: Lookup,
    /// How providers of public zones are spoken to.
    reach: Reach,
    questions: Questions,
    pages: Pages,
    limits: Limits,
    census: Arc<Census>,
    series: Series,
    provider: Arc<CryptoProvider>,
    clock: OnceLock<Clock>,
    /// What CAs that check us are answered at the moment.
    answers: Answers,
    inlet: Mutex<Option<Inlet>>,
    /// By the table's key, and by the host if its clients show certificates: a resumed session stays within its
    /// table and realm, also over a reload.
    tickets: Mutex<HashMap<Sealed, Arc<dyn ProducesTickets>>>,
    pools: Mutex<HashMap<(Origin, Upstream), u32>>,
    /// How each server is, whichever table leads to it: as requests find it, and for each question that it is asked.
    health: Mutex<HashMap<Watched, Arc<Health>>>,
    /// By what each server is given at once, whichever table leads to it.
    doors: Mutex<HashMap<(Upstream, ServerLimit), Arc<Turnstile>>>,
    /// Bodies that are being compressed.
    compressing: Arc<()>,
    passwords: Passwords,
    strangers: Strangers,
    trespasses: Trespasses,
    /// What each client has open of routes that are not understood.
    crowd: Crowd,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    service: Service,
    /// Which of the listeners that are none of `http` and `https`.
    door: Option<usize>,
}

impl Plane {
    /// Takes the ports.
    pub fn bind(
        config: &Config,
        networks: Arc<ArcSwap<Networks>>,
        metrics: &Metrics,
        inlet: Option<Inlet>,
        reach: Reach,
        questions: Questions,
    ) -> Result<Self, BindError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_CORES);
        let mut all: Vec<Sockets> = (0..cores).map(|_| Sockets::default()).collect();
        let mut https = Vec::new();
        let own = config.https.iter().map(|address| (*address, "ingress.https", Speaks::Tls, None));
        let own = own.chain(config.http.iter().map(|address| (*address, "ingress.http", Speaks::Plain, None)));
        let doors = config.doors.iter().enumerate();
        let doors = doors.map(|(at, door)| (door.address, "ingress.listener", door.speaks, Some(at)));
        for (wanted, key, speaks, door) in own.chain(doors) {
            let sockets = listen::tcp(&Wanted { address: wanted, device: None, shards: cores, key })?;
            // The process before this one may have had more cores: what the kernel sends to any of them is served.
            for (at, socket) in sockets.into_iter().enumerate() {
                let address = socket.local_addr().unwrap_or(wanted);
                let service = match speaks {
                    Speaks::Tls => Service::Routes,
                    Speaks::Plain => Service::Redirect(secure_port(address, &https)),
                    Speaks::Unwrapped => Service::Unwrapped,
                };
                if let Some(core) = all.get_mut(at % cores) {
                    core.listeners.push(Listener { socket, address, service, door });
                }
            }
            if let (Speaks::Tls, None, Some(bound)) = (speaks, door, all.first().and_then(|core| core.listeners.last()))
            {
                https.push(bound.address);
            }
        }
        for port in &config.ports {
            for place in &port.places {
                bind_port(port.transport, place, &mut all)?;
            }
        }
        let nothing = Policy {
            generation: 0,
            config: Config::nothing(config),
            certificates: Certificates::default(),
            outcasts: Outcasts::default(),
            countries: None,
            tables: Tables::none(),
            ports: Ports::default(),
        };
        let shared = Shared {
            policy: ArcSwap::from_pointee(nothing),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            networks,
            lookup: reach.lookup.clone(),
            reach,
            questions,
            pages: Pages::default(),
            limits: Limits::new(LIMITED_CLIENTS, Instant::now()),
            census: Census::new(),
            series: Series::new(metrics),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            clock: OnceLock::new(),
            answers: Answers::default(),
            inlet: Mutex::new(inlet),
            tickets: Mutex::default(),
            pools: Mutex::default(),
            health: Mutex::default(),
            doors: Mutex::default(),
            compressing: Arc::new(()),
            passwords: Passwords::new(),
            strangers: Strangers::new(Instant::now()),
            trespasses: Trespasses::default(),
            crowd: Crowd::default(),
        };
        Ok(Self { shared: Arc::new(shared), sockets: all })
    }

    /// Takes the clock, before the first policy: by one that cannot be right nothing is ordered.
    pub fn set_clock(&self, clock: Clock) {
        let _ = self.shared.clock.set(clock);
    }

    /// Returns what pages are asked of, for whoever writes them.
    pub fn pages(&self) -> Pages {
        self.shared.pages.clone()
    }

    /// Loads or makes certificates and builds the tables. Blocks; changes nothing that is in force.
    pub fn prepare(&self, config: Config) -> Result<Prepared, Error> {
        let shared = &self.shared;
        let shown = !config.https.is_empty() || !config.peers.is_empty() || config.dns_host.is_some();
        let certificates = if shown {
            let (in_force, networks) = (shared.policy.load(), shared.networks.load());
            Certificates::load(&config, &in_force.certificates, &shared.provider, SystemTime::now(), &networks)?
        } else {
            Certificates::default()
        };
        let before = shared.policy.load();
        let moment = if before.generation == 0 { Moment::Start } else { Moment::Reload };
        let outcasts = Outcasts::load(&config.bans, config.crowdsec.as_ref(), &before.outcasts, moment);
        let outcasts = outcasts.map_err(|(path, why)| Error::Bans { path, why })?;
        let countries = config.countries.as_ref().map(|path| {
            let countries = Countries::load(path, shared.policy.load().countries.as_ref());
            countries.map_err(|why| Error::Countries { path: path.clone(), why })
        });
        let countries = countries.transpose()?;
        let mut dials: HashMap<(u32, Option<Question>, Manner), Arc<Dial>> = HashMap::new();
        let mut dial = |key: Origin, upstream: &Upstream, question: Option<&Question>, manner: Manner| {
            let place = (shared.pool(key, upstream), question.cloned(), manner);
            if let Some(dial) = dials.get(&place) {
                return Ok(dial.clone());
            }
            let (version, limit) = manner;
            let made = Dial::new(upstream, place.0, shared.health(upstream, question), &shared.provider)?;
            let made = made.introducing(version).behind(limit.map(|limit| shared.door(upstream, limit)));
            Ok::<_, TlsError>(dials.entry(place).or_insert(Arc::new(made)).clone())
        };
        let route = |key: Origin, written: &Route| {
            let fail = |error| Error::Upstream { route: written.name.clone(), error };
            let to = match &written.to {
                Target::Builtin(builtin) => TableTarget::Builtin(*builtin),
                Target::Redirect(redirect) => TableTarget::Redirect(redirect.clone()),
                Target::Page(page) => TableTarget::Page(page.clone()),
                Target::Dns => TableTarget::Dns(config.dns_host.as_ref().map_or("", |host| host.as_str()).into()),
                Target::DnsOf { device, path } => TableTarget::DnsOf(device.as_str().into(), path.clone()),
                Target::Upstreams(upstreams) | Target::Passthrough(upstreams) => {
                    let question = Question::of(written);
                    let manner = (written.rules.proxy_protocol, written.rules.server_limit);
                    let mut dials = |upstreams: &[Upstream]| {
                        let dials = upstreams.iter().map(|upstream| dial(key, upstream, question.as_ref(), manner));
                        dials.collect::<Result<_, _>>().map_err(fail)
                    };
                    let (turns, backups) = (dials(upstreams)?, dials(&written.rules.backup)?);
                    let group = Group::new(turns, backups, written.rules.sticky);
                    match &written.to {
                        Target::Passthrough(_) => TableTarget::Passthrough(group),
                        _ => TableTarget::Upstreams(group),
                    }
                }
            };
            let guard = match &written.rules.auth {
                Auth::None => None,
                Auth::Basic(basic) => Some(Guard::Basic(basic.clone())),
                Auth::Forward(forward) => {
                    let dials = [dial(key, &forward.to, None, (None, None)).map_err(fail)?];
                    Some(Guard::Forward(Box::new(Warden { forward: forward.clone(), dials })))
                }
            };
            let name = written.name.as_str();
            let (series, rules) = (shared.series.route(name), written.rules.clone());
            Ok(Arc::new(TableRoute { name: name.into(), to, log: written.log, series, rules, guard }))
        };
        let clients = clients::load(&config.client_cas, &shared.provider)?;
        let tables = Tables::build(&config, (&certificates.by_host, &clients), route, |key, hosts, client_ca| {
            let tickets = shared.tickets(key, client_ca.map(|client_ca| client_ca.realm.clone()))?;
            Ok::<_, Error>(tls::config(hosts.clone(), &shared.provider, tickets, client_ca)?)
        })?;
        let ports = Ports::build(&config, |port| {
            let fail = |error| Error::Upstream { route: port.name.clone(), error };
            let question = Question::of_port(port);
            let dials = |upstreams: &[Upstream]| {
                let dials = upstreams.iter().map(|upstream| {
                    let health = shared.health(upstream, question.as_ref());
                    let made = Dial::new(upstream, NO_POOL, health, &shared.provider)?;
                    Ok(Arc::new(made.introducing(port.rules.proxy_protocol)))
                });
                dials.collect::<Result<Vec<_>, _>>().map_err(fail)
            };
            let to = TableTarget::Passthrough(Group::new(dials(&port.to)?, dials(&port.rules.backup)?, false));
            let (name, series) = (port.name.as_str().into(), shared.series.route(&port.name));
            Ok::<_, Error>(Arc::new(TableRoute {
                name,
                to,
                log: port.log,
                series,
                rules: port.rules.clone(),
                guard: None,
            }))
        })?;
        Ok(Prepared(Policy { generation: 0, config, certificates, outcasts, countries, tables, ports }))
    }

    /// Swaps a policy in.
    pub fn commit(&self, prepared: Prepared) {
        let shared = &self.shared;
        let mut policy = prepared.0;
        policy.generation = shared.generation.load(Ordering::Acquire) + 1;
        shared.census.set_most(policy.config.max_connections);
        let generation = policy.generation;
        shared.policy.store(Arc::new(policy));
        // Last: who sees the new number finds the new policy.
        shared.generation.store(generation, Ordering::Release);
        shared.changed.send_replace(generation);
        shared.forget_health();
    }

    /// Serves until told to stop. The sockets stay with the plane, so it can be run again.
    pub fn run(&self, stop: Stop) -> Result<(), String> {
        server::run(&self.shared, &self.sockets, &stop)
    }

    /// Returns all that another process must have to be reached in this one's place.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().flat_map(Sockets::descriptors).collect()
    }

    /// Offers the DNS server's certificates, as they are at each handshake.
    pub fn identify(&self, identity: &Identity) {
        let shared = self.shared.clone();
        identity.offer(move |name| shared.policy.load().dns_key(name));
    }

    /// Returns who asked for hosts that are not for them, as far as it is to be written down now: once a minute.
    pub fn take_trespasses(&self) -> Vec<Trespass> {
        self.shared.trespasses.take(&self.shared.policy.load().config.directory, Instant::now())
    }

    /// Returns how the plane is.
    pub fn status(&self) -> Status {
        let policy = self.shared.policy.load();
        let first = || self.sockets.first().into_iter().flat_map(|core| &core.listeners);
        let addresses = |secure: bool| {
            let own = first().filter(|listener| listener.door.is_none());
            own.filter(|listener| (listener.service == Service::Routes) == secure).map(|one| one.address).collect()
        };
        Status {
            http: addresses(false),
            https: addresses(true),
            doors: first().filter(|listener| listener.door.is_some()).map(|one| one.address).collect(),
            ports: self.ports(&policy),
            certificates: policy.certificates.status(),
            routes: policy.config.routes.len(),
            connections: u64::try_from(self.shared.series.open.get()).unwrap_or(0),
            masked: self.shared.strangers.are_masked(),
            bans: policy.outcasts.status(),
            countries: policy.countries.as_ref().map(|countries| countries.status()),
            under_way: self.shared.series.under_way(),
        }
    }
}

impl Plane {
    /// Returns how the routes of ports are.
    fn ports(&self, policy: &Policy) -> Vec<PortStatus> {
        let is_of = |port: &Port, transport, place: &Place| port.transport == transport && port.places.contains(place);
        let status = |port: &Port| {
            let core = self.sockets.first();
            let tcp = core.into_iter().flat_map(|core| &core.ports);
            let tcp = tcp.filter(|(place, _)| is_of(port, Transport::Tcp, place));
            let udp = core.into_iter().flat_map(|core| &core.datagrams);
            let udp = udp.filter(|(place, _)| is_of(port, Transport::Udp, place));
            let tcp = tcp.filter_map(|(_, socket)| socket.local_addr().ok());
            PortStatus {
                route: port.name.clone(),
                transport: port.transport.name().to_owned(),
                listen: tcp.chain(udp.filter_map(|(_, socket)| socket.local_addr().ok())).collect(),
                inner: port.inner.clone(),
                under_way: u64::try_from(self.shared.series.route(&port.name).under_way.get()).unwrap_or(0),
            }
        };
        policy.config.ports.iter().map(status).collect()
    }
}

impl Sockets {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let ports = self.ports.iter().map(|(_, socket)| socket.as_fd());
        listeners.chain(ports).chain(self.datagrams.iter().map(|(_, socket)| socket.as_fd()))
    }
}

/// Takes a port of a route: of TCP for each core, of UDP for the first.
fn bind_port(transport: Transport, place: &Place, cores: &mut [Sockets]) -> Result<(), BindError> {
    match transport {
        Transport::Tcp => {
            let wanted = Wanted {
                address: place.address,
                device: place.device.as_deref(),
                shards: cores.len(),
                key: "route.tcp",
            };
            let count = cores.len();
            for (at, socket) in listen::tcp(&wanted)?.into_iter().enumerate() {
                if let Some(core) = cores.get_mut(at % count) {
                    core.ports.push((place.clone(), socket));
                }
            }
        }
        Transport::Udp => {
            let socket = packets::bind(place, "route.udp")?;
            if let Some(core) = cores.first_mut() {
                core.datagrams.push((place.clone(), socket));
            }
        }
    }
    Ok(())
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("routes", &self.0.config.routes.len()).finish()
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Policy {
    /// Looks after certificates that are ours to renew, and says when each ends.
    fn look_after_certificates(&self, shared: &Shared, now: SystemTime) {
        self.certificates.renew(&self.config, &shared.provider, now, &shared.networks.load());
        let routes = self.config.routes.iter().filter(|route| !matches!(route.to, Target::Passthrough(_)));
        let ends = routes.map(|route| {
            let certificate = self.certificates.by_host.get(&route.host);
            (route.name.as_str(), certificate.and_then(|certificate| certificate.not_after()))
        });
        shared.series.set_expiry(ends);
    }

    /// Returns the certificate that the DNS server shows under a name: its own, or that of devices below it.
    fn dns_key(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let own = self.config.dns_host.as_ref()?;
        let label = name.and_then(|name| name.strip_suffix(own.as_str())?.strip_suffix('.'));
        let host = match label {
            Some(label) if !label.contains('.') => HostPattern::Wildcard(own.clone()),
            _ => HostPattern::Exact(own.clone()),
        };
        self.certificates.by_host.get(&host)?.key()
    }
}

impl Shared {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn watch_generation(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The next datagram out of the tunnel; `None` if there is no tunnel (any more).
    fn poll_datagrams(&self, cx: &mut Context<'_>) -> Poll<Option<Datagram>> {
        let mut inlet = self.inlet.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inlet.as_mut().map_or(Poll::Ready(None), |inlet| inlet.datagrams.poll_recv(cx))
    }

    /// The next stream out of the tunnel; `None` if there is no tunnel (any more).
    fn poll_inlet(&self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        let mut inlet = self.inlet.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inlet.as_mut().map_or(Poll::Ready(None), |inlet| inlet.streams.poll_recv(cx))
    }

    fn tickets(&self, key: Origin, realm: Option<Arc<str>>) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        let key = (key, realm);
        let mut tickets = self.tickets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = tickets.get(&key) {
            return Ok(known.clone());
        }
        let made = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        tickets.insert(key, made.clone());
        Ok(made)
    }

    fn health(&self, upstream: &Upstream, question: Option<&Question>) -> Arc<Health> {
        let mut known = self.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.entry((upstream.clone(), question.cloned())).or_default().clone()
    }

    /// Forgets how those are that nobody sends to any more.
    fn forget_health(&self) {
        let mut known = self.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.retain(|_, health| Arc::strong_count(health) > 1);
        let mut doors = self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        doors.retain(|_, door| Arc::strong_count(door) > 1);
    }

    fn door(&self, upstream: &Upstream, limit: ServerLimit) -> Arc<Turnstile> {
        let mut doors = self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        doors.entry((upstream.clone(), limit)).or_insert_with(|| Arc::new(Turnstile::new(limit))).clone()
    }

    fn pool(&self, key: Origin, upstream: &Upstream) -> u32 {
        let mut pools = self.pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = u32::try_from(pools.len()).unwrap_or(u32::MAX);
        *pools.entry((key, upstream.clone())).or_insert(next)
    }
}

impl Config {
    /// Whether clients come over TLS.
    fn has_tls(&self) -> bool {
        !self.https.is_empty() || !self.peers.is_empty()
    }

    /// What holds before the first commit: no routes.
    fn nothing(like: &Self) -> Self {
        let mut config = like.clone();
        config.routes.clear();
        config.peers.clear();
        config
    }
}

/// Where plain HTTP sends to: the TLS listener on the same address, else the first.
fn secure_port(address: SocketAddr, https: &[SocketAddr]) -> u16 {
    let same = https.iter().find(|other| other.ip() == address.ip());
    same.or(https.first()).map_or(443, SocketAddr::port)
}

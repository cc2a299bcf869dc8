//! Routes of UDP: each client's datagrams go to one server by a socket of their own, for as long as something is said.
//!
//! The table of these flows is bounded, in all, for strangers and for one client, and so are the bytes that wait.
//! Datagrams that there is no room for are dropped, as a network would.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map},
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    ingress::{
        Upstream, UpstreamHost,
        census::{Counted, Holder},
        crowd::Held,
        packets,
        permits::{Permit, Subject},
        ports::{Entrance, Transport},
        relay::{self, Caller, Record},
        routes::{Route, Target},
        server::{Core, caught},
        upstream::{Dial, Ends},
    },
    limit::Client,
    listen::Place,
    origin::Origin,
    stream::{Datagram, Reply},
};

/// Flows in all, and of strangers.
const MOST: usize = 4096;
const MOST_OF_STRANGERS: usize = 2048;
/// Datagrams of a flow that wait, and bytes of all that do.
const QUEUE: usize = 32;
const WAITING_BYTES: usize = 4 << 20;
/// The longest datagram.
const LONGEST: usize = 65_536;
/// How long a buffer of the kernel's may stay full.
const FULL: Duration = Duration::from_secs(1);
/// Datagrams that are taken off a socket before others have their turn.
const AT_ONCE: usize = 64;

/// The flows of all routes.
pub(super) struct Flows {
    core: Rc<Core>,
    known: RefCell<HashMap<Key, mpsc::Sender<Said>>>,
    strangers: Cell<usize>,
    waiting: Cell<usize>,
    scratch: RefCell<Vec<u8>>,
}

/// One port of a client, to one address of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Who has an address may be somebody else a moment later.
    origin: Origin,
    entrance: Entrance,
    client: SocketAddr,
    local: Option<IpAddr>,
}

/// A datagram of a client, and how that one is answered from now on.
struct Said {
    payload: Vec<u8>,
    way: Way,
}

/// How a client is answered.
enum Way {
    Kernel(Rc<UdpSocket>),
    Inner(mpsc::Sender<Reply>, SocketAddr),
}

impl Flows {
    pub(super) fn new(core: Rc<Core>) -> Rc<Self> {
        let scratch = RefCell::new(vec![0; LONGEST]);
        let (known, strangers, waiting) = (RefCell::default(), Cell::new(0), Cell::new(0));
        Rc::new(Self { core, known, strangers, waiting, scratch })
    }

    /// Takes what comes to a socket of the kernel's.
    pub(super) async fn serve(self: Rc<Self>, socket: UdpSocket, place: Place) {
        let socket = Rc::new(socket);
        let mut buffer = vec![0; LONGEST];
        loop {
            if let Err(error) = socket.readable().await {
                tracing::debug!(%error, "a socket of datagrams failed");
                sleep(Duration::from_millis(50)).await;
            }
            for _ in 0..AT_ONCE {
                let Ok((length, client, local)) = packets::receive(&socket, &mut buffer) else { break };
                let interface = match client {
                    SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
                    _ => None,
                };
                let origin = self.core.shared.networks.load().classify(client.ip(), interface).origin;
                let key = Key { origin, entrance: Entrance::Kernel(place.clone()), client, local };
                let said = buffer.get(..length).unwrap_or_default();
                self.handle(key, said, Way::Kernel(socket.clone()));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes what the gate hands over.
    pub(super) fn take(self: &Rc<Self>, datagram: Datagram) {
        let Datagram { origin, client, local, payload, reply } = datagram;
        let key = Key { origin, entrance: Entrance::Inner(local.port()), client, local: Some(local.ip()) };
        self.handle(key, &payload, Way::Inner(reply, local));
    }

    fn handle(self: &Rc<Self>, key: Key, said: &[u8], way: Way) {
        let drops = |reason| self.core.shared.series.datagram_dropped(reason);
        if self.waiting.get() + said.len() > WAITING_BYTES {
            return drops("memory");
        }
        let mut known = self.known.borrow_mut();
        let length = said.len();
        let said = Said { payload: said.to_vec(), way };
        let said = match known.entry(key.clone()) {
            hash_map::Entry::Vacant(_) => said,
            hash_map::Entry::Occupied(flow) => match flow.get().try_send(said) {
                Ok(()) => {
                    self.waiting.set(self.waiting.get() + length);
                    return;
                }
                Err(mpsc::error::TrySendError::Full(_)) => return drops("queue"),
                // It has just ended.
                Err(mpsc::error::TrySendError::Closed(said)) => said,
            },
        };
        let Some(mut flow) = self.begin(&key, known.len()) else { return };
        let (sender, datagrams) = mpsc::channel(QUEUE);
        sender.try_send(said).expect("the queue of a new flow is empty");
        self.waiting.set(self.waiting.get() + length);
        known.insert(key.clone(), sender);
        drop(known);
        let (flows, is_stranger) = (self.clone(), key.origin == Origin::Wan);
        spawn_local(async move {
            let core = flows.core.clone();
            let mut place = Seat { flows, key, datagrams, is_stranger };
            let work = pin!(flow.run(&mut place));
            caught(&core, work).await;
        });
    }

    /// Decides whether a client may begin something, and with which route.
    fn begin(&self, key: &Key, flows: usize) -> Option<Flow> {
        let (core, shared) = (&self.core, &self.core.shared);
        let policy = shared.policy.load_full();
        let origin = key.origin;
        let client = key.client.ip().to_canonical();
        let entry = policy.ports.at(Transport::Udp, &key.entrance)?;
        if !entry.admits(origin) {
            shared.series.refusal(&entry.route.name, "origin");
            return None;
        }
        let is_stranger = origin == Origin::Wan;
        let is_full = flows >= MOST || is_stranger && self.strangers.get() >= MOST_OF_STRANGERS;
        if is_full {
            shared.series.datagram_dropped("flows");
            return None;
        }
        let holder = if is_stranger { Holder::Stranger(Client::of(client)) } else { Holder::House };
        if is_stranger && !core.opens(client) {
            return None;
        }
        let Some(counted) = shared.census.admit(holder) else {
            shared.series.refused.inc();
            return None;
        };
        let held = match relay::admit(core, &policy, &entry.route, (origin, client)) {
            Ok(held) => held,
            Err(reason) => {
                shared.series.refusal(&entry.route.name, reason);
                return None;
            }
        };
        let local = (key.local.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), 0).into();
        let subject = Subject::Port(Transport::Udp, key.entrance.clone());
        let caller = Caller { origin, client, ends: Ends { client: key.client, local }, subject };
        let route = entry.route.clone();
        let record = Record::new(core, &route, &caller);
        let permit = core.permits.issue_relayed((origin, client), caller.subject, route.clone());
        let timeouts = &policy.config.timeouts;
        let (connect, silence) = (timeouts.connect, timeouts.datagrams);
        if is_stranger {
            self.strangers.set(self.strangers.get() + 1);
        }
        Some(Flow { core: core.clone(), route, permit, record, connect, silence, _held: (counted, held) })
    }
}

/// A flow's place in the table, which it leaves however it ends.
struct Seat {
    flows: Rc<Flows>,
    key: Key,
    datagrams: mpsc::Receiver<Said>,
    is_stranger: bool,
}

impl Seat {
    async fn next(&mut self) -> Option<Said> {
        let said = self.datagrams.recv().await?;
        self.flows.waiting.set(self.flows.waiting.get().saturating_sub(said.payload.len()));
        Some(said)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.datagrams.close();
        while let Ok(said) = self.datagrams.try_recv() {
            self.flows.waiting.set(self.flows.waiting.get().saturating_sub(said.payload.len()));
        }
        let mut known = self.flows.known.borrow_mut();
        // Somebody may have begun anew by the same ports.
        if known.get(&self.key).is_some_and(mpsc::Sender::is_closed) {
            known.remove(&self.key);
        }
        if self.is_stranger {
            self.flows.strangers.set(self.flows.strangers.get().saturating_sub(1));
        }
    }
}

/// What one client says, and what a server says to it.
struct Flow {
    core: Rc<Core>,
    route: Arc<Route>,
    permit: Permit,
    record: Record,
    connect: Duration,
    silence: Duration,
    _held: (Counted, Held),
}

impl Flow {
    async fn run(&mut self, place: &mut Seat) {
        let Target::Passthrough(group) = &self.route.to else { return };
        let now = Instant::now();
        let Some(dial) = group.order(None, now).next().cloned() else { return };
        self.record.is_to(&dial.upstream);
        let Some(socket) = open(&self.core, &dial, self.connect).await else {
            dial.health.failed(Instant::now());
            self.record.outcome = "unreachable";
            return;
        };
        let (up, down) = self.core.shared.series.relayed_bytes(&self.route.name);
        let mut until = Instant::now() + self.silence;
        let mut way = None;
        loop {
            let permit = &self.permit;
            let step = tokio::select! {
                said = place.next() => match said {
                    Some(said) => {
                        way = Some(said.way);
                        send(&socket, &said.payload).await.map(|()| up.inc_by(said.payload.len() as u64))
                    }
                    None => return,
                },
                ready = socket.readable() => match ready {
                    Ok(()) => self.answer(&socket, place, way.as_ref()).map(|length| {
                        dial.health.worked();
                        down.inc_by(length as u64);
                    }),
                    Err(error) => Err(error),
                },
                () = poll_fn(|cx| permit.poll_revoked(cx)) => {
                    self.record.outcome = "revoked";
                    return;
                }
                () = sleep_until(until) => {
                    self.record.outcome = "done";
                    return;
                }
            };
            match step {
                Ok(()) => until = Instant::now() + self.silence,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An ICMP error came for what was sent: nobody is there.
                Err(_) => {
                    dial.health.failed(Instant::now());
                    self.core.shared.series.upstream_failure("connect");
                    self.record.outcome = "unreachable";
                    return;
                }
            }
        }
    }

    /// Passes on one datagram of the server; a client that cannot be sent to loses it.
    fn answer(&self, socket: &UdpSocket, place: &Seat, way: Option<&Way>) -> io::Result<usize> {
        let mut scratch = place.flows.scratch.borrow_mut();
        let length = socket.try_recv(&mut scratch)?;
        let said = scratch.get(..length).unwrap_or_default();
        let sent = match way {
            Some(Way::Kernel(out)) => packets::send(out, place.key.local, place.key.client, said).is_ok(),
            None => false,
            Some(Way::Inner(reply, local)) => {
                let reply_to = Reply { from: *local, to: place.key.client, payload: said.to_vec() };
                reply.try_send(reply_to).is_ok()
            }
        };
        if !sent {
            self.core.shared.series.datagram_dropped("unsendable");
        }
        Ok(length)
    }
}

/// Sends; a buffer that stays full loses it, as a network would.
async fn send(socket: &UdpSocket, said: &[u8]) -> io::Result<()> {
    timeout(FULL, socket.send(said)).await.unwrap_or(Ok(0)).map(drop)
}

/// Makes a socket that sends to a server and hears nobody else.
async fn open(core: &Core, dial: &Dial, limit: Duration) -> Option<UdpSocket> {
    let Upstream { host, port, .. } = &dial.upstream;
    let target = match host {
        UpstreamHost::Address(address) => *address,
        UpstreamHost::Name(name) => {
            let found = timeout(limit, core.shared.lookup.addresses(name)).await.ok()?.ok()?;
            found.into_iter().next()?
        }
        UpstreamHost::Unix(_) => return None,
    };
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect((target, *port)).await.ok()?;
    Some(socket)
}

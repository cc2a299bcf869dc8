//! The loop around the gate: it reads the sockets, lets the gate decide, and does what it says.

use std::{
    net::{IpAddr, UdpSocket as Bound},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant as Clock, MissedTickBehavior, interval_at},
};

use crate::{
    origin::Networks,
    stream::Reply,
    supervise::{Phase, Stop},
    vpn::{
        Outlets,
        endpoints::{self, Endpoints, Heard},
        gate::{Action, Dropped, Gate, Path, TICK, policy::Policy},
        netstack::{Delivery, Netstack, flow::Outbound},
        status::Book,
        udp,
    },
};

/// Datagrams that are read in a row before the connections get their turn.
const BATCH: usize = 64;
/// Inner packets on their way out, of all peers.
const OUTBOUND: usize = 1024;
/// Answers of planes on their way out.
const REPLIES: usize = 256;
/// How late it may be noticed that a peer's time is over.
const EXPIRY: Duration = Duration::from_secs(5);
/// How often it is written down where peers are.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// What the loop works with; all of it outlives the loop.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) sockets: &'a [Bound],
    pub(super) networks: &'a Arc<ArcSwap<Networks>>,
    pub(super) outlets: &'a Outlets,
    pub(super) endpoints: &'a Endpoints,
    pub(super) policy: &'a ArcSwap<Policy>,
    pub(super) changed: &'a Notify,
    pub(super) book: &'a Book,
}

struct Loop<'a> {
    work: &'a Work<'a>,
    sockets: Vec<UdpSocket>,
    gate: Gate,
    /// Without those whose time is over.
    policy: Arc<Policy>,
    netstack: Netstack,
    actions: Vec<Action>,
    buffer: Box<[u8]>,
    networks: Arc<Networks>,
    /// At most one, which waits for the disk.
    writing: JoinSet<()>,
    written: Instant,
}

impl Work<'_> {
    fn in_force(&self) -> Arc<Policy> {
        let (policy, now) = (self.policy.load_full(), Timestamp::now());
        if policy.has_expired(now) { Arc::new(policy.without_expired(now)) } else { policy }
    }

    /// Works until told to stop.
    pub(super) async fn run(&self, stop: Stop) -> Result<(), String> {
        let sockets = self
            .sockets
            .iter()
            .map(|socket| UdpSocket::from_std(socket.try_clone()?))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| format!("the gate's sockets cannot be used: {error}"))?;
        let (outbound, mut packets) = mpsc::channel::<Outbound>(OUTBOUND);
        let (replies, mut answers) = mpsc::channel::<Reply>(REPLIES);
        let policy = self.in_force();
        let now = Instant::now();
        let mut work = Loop {
            work: self,
            sockets,
            gate: Gate::new(policy.clone(), now),
            policy: policy.clone(),
            netstack: Netstack::new(self.outlets.clone(), self.networks.clone(), policy, outbound, replies, now),
            actions: Vec::new(),
            buffer: vec![0; udp::DATAGRAM].into(),
            networks: self.networks.load_full(),
            writing: JoinSet::new(),
            written: now,
        };
        work.recall(now);
        let mut ticks = interval_at(Clock::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expiry = interval_at(Clock::now() + EXPIRY, EXPIRY);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                () = stop.reached(Phase::Now) => break,
                () = stop.reached(Phase::Drain), if !draining => {
                    draining = true;
                    work.netstack.drain();
                }
                () = self.changed.notified() => {
                    work.take_policy();
                    work.recall(Instant::now());
                }
                () = work.netstack.ended() => {}
                Some(outbound) = packets.recv() => {
                    let mut next = Some(outbound);
                    let mut count = 0;
                    while let Some(Outbound { peer, packet }) = next {
                        work.gate.handle_packet(peer, &packet, Instant::now(), &mut work.actions);
                        count += 1;
                        next = if count < BATCH { packets.try_recv().ok() } else { None };
                    }
                }
                Some(reply) = answers.recv() => work.handle_reply(&reply),
                () = readable(&work.sockets) => {
                    work.receive();
                    work.perform();
                    // The connections take in what came, before their queues overflow.
                    tokio::task::yield_now().await;
                }
                _ = expiry.tick(), if work.policy.may_expire() => {
                    if work.policy.has_expired(Timestamp::now()) {
                        work.take_policy();
                    }
                }
                _ = ticks.tick(), if work.gate.wants_ticks() => {
                    let now = Instant::now();
                    work.follow();
                    work.gate.handle_timeout(now, &mut work.actions);
                    work.note();
                    work.write(now);
                }
            }
            work.perform();
            if draining && work.netstack.connections() == 0 {
                break;
            }
        }
        work.note();
        if let Some(unwritten) = self.endpoints.unwritten() {
            while work.writing.join_next().await.is_some() {}
            unwritten.write();
        }
        Ok(())
    }
}

/// Waits until one of the sockets has something.
async fn readable(sockets: &[UdpSocket]) {
    std::future::poll_fn(|cx| {
        let ready = sockets.iter().any(|socket| socket.poll_recv_ready(cx).is_ready());
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Loop<'_> {
    fn take_policy(&mut self) {
        let policy = self.work.in_force();
        self.policy = policy.clone();
        self.gate.set_policy(policy.clone(), Instant::now());
        self.work.endpoints.keep(|key| policy.peers.values().any(|peer| peer.public_key == *key));
        self.netstack.set_policy(policy);
    }

    /// Tells the gate where peers were before it began.
    fn recall(&mut self, now: Instant) {
        let known = self.work.endpoints.recall();
        let today = endpoints::unix_now();
        for (id, peer) in &self.policy.peers {
            let Some(heard) = known.get(&peer.public_key).filter(|heard| heard.is_recent(today)) else { continue };
            let listens = |(_, socket): &(usize, &UdpSocket)| socket.local_addr().is_ok_and(|own| own == heard.listen);
            let same_family = |(_, socket): &(usize, &UdpSocket)| {
                socket.local_addr().is_ok_and(|own| own.is_ipv4() == heard.remote.is_ipv4())
            };
            let sockets = || self.sockets.iter().enumerate();
            if let Some((socket, _)) = sockets().find(listens).or_else(|| sockets().find(same_family)) {
                // The address of ours that it spoke to may be gone: the kernel chooses.
                self.gate.recall(*id, Path { socket, local: None, remote: heard.remote }, now);
            }
        }
    }

    /// Notes where peers are now.
    fn note(&self) {
        let today = endpoints::unix_now();
        for (peer, path, then) in self.gate.whereabouts() {
            let listen = self.sockets.get(path.socket).and_then(|socket| socket.local_addr().ok());
            if let Some(listen) = listen {
                let at = today.saturating_sub(then.elapsed().as_secs());
                self.work.endpoints.note(peer, Heard { remote: path.remote, listen, at });
            }
        }
    }

    fn write(&mut self, now: Instant) {
        while self.writing.try_join_next().is_some() {}
        if now.saturating_duration_since(self.written) < WRITE_EVERY || !self.writing.is_empty() {
            return;
        }
        self.written = now;
        if let Some(unwritten) = self.work.endpoints.unwritten() {
            self.writing.spawn_blocking(move || unwritten.write());
        }
    }

    /// Follows the addresses of this box.
    fn follow(&mut self) {
        let networks = self.work.networks.load_full();
        if Arc::ptr_eq(&networks, &self.networks) {
            return;
        }
        self.gate.handle_move(|address: IpAddr| address.is_loopback() || networks.own.contains(&address));
        self.networks = networks;
    }

    fn receive(&mut self) {
        let now = Instant::now();
        for (number, socket) in self.sockets.iter().enumerate() {
            for _ in 0..BATCH {
                match udp::receive(socket, number, &mut self.buffer) {
                    Ok((path, length)) => {
                        let bytes = self.buffer.get(..length).unwrap_or_default();
                        self.gate.handle_datagram(path, bytes, now, &mut self.actions);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    // An ICMP error about something that was sent; it says nothing about what comes.
                    Err(_) => {}
                }
            }
        }
    }

    fn handle_reply(&mut self, reply: &Reply) {
        match self.netstack.handle_reply(reply) {
            Some(Outbound { peer, packet }) => {
                self.gate.handle_packet(peer, &packet, Instant::now(), &mut self.actions);
            }
            None => self.gate.drop(Dropped::Unsent),
        }
    }

    /// Does what the gate wants; what that brings about is wanted too.
    fn perform(&mut self) {
        let now = Instant::now();
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Send(path, bytes) => self.send(&path, &bytes),
                    Action::Deliver(peer, packet) => {
                        let answer = match self.netstack.handle_packet(peer, packet, now) {
                            Delivery::Taken => None,
                            Delivery::Answer(answer) => Some(answer),
                            Delivery::Dropped(reason, answer) => {
                                self.gate.drop_of(peer, reason);
                                answer
                            }
                        };
                        if let Some(answer) = answer {
                            self.gate.handle_packet(peer, &answer, now, &mut self.actions);
                        }
                    }
                }
            }
        }
        let tally = self.gate.take_tally();
        self.work.book.update(&tally, &self.gate, self.netstack.connections(), now);
    }

    fn send(&mut self, path: &Path, bytes: &[u8]) {
        let Some(socket) = self.sockets.get(path.socket) else { return };
        let sent = match udp::send(socket, path, bytes) {
            // The address of ours may have gone a moment ago: better from another one than not at all.
            Err(error) if path.local.is_some() && error.kind() != std::io::ErrorKind::WouldBlock => {
                udp::send(socket, &Path { local: None, ..*path }, bytes)
            }
            sent => sent,
        };
        if sent.is_err() {
            self.gate.drop(Dropped::Unsent);
        }
    }
}

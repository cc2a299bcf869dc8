//! The loop around the gate: it reads the sockets, lets the gate decide, and does what it says.

use std::{
    collections::HashMap,
    net::{IpAddr, UdpSocket as Bound},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UdpSocket,
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant as Clock, MissedTickBehavior, interval_at},
};

use crate::{
    limit::{Client, Limits, Rate},
    origin::{Networks, PeerId},
    stream::Reply,
    supervise::{Phase, Stop},
    vpn::{
        Outlets,
        endpoints::{self, Endpoints, Heard},
        familiar::Familiar,
        gate::{
            Action, Dropped, Gate, Path, TICK,
            forward::{Course, Exits, Forward},
            packet::Packet,
            policy::{Confirmed, Policy},
            sessions::MTU,
        },
        keys::PublicKey,
        netstack::{Delivery, Netstack, answer, flow::Outbound},
        offload::{self, merge::Merger, mss, split::split},
        status::Book,
        tun::Tun,
        udp,
    },
};

/// Datagrams that are read in a row before the connections get their turn.
pub(super) const BATCH: usize = 64;
/// Large packets that are read from the device in a row.
const FROM_DEVICE: usize = 16;
/// Refusals that one host outside is answered with.
const REFUSALS: Rate = Rate::new(10, 20).expect("not zero");
/// Inner packets on their way out, of all peers.
const OUTBOUND: usize = 1024;
/// Answers of planes on their way out.
const REPLIES: usize = 256;
/// How late it may be noticed that a peer's time is over.
const EXPIRY: Duration = Duration::from_secs(5);
/// Lines of the audit log that may wait; what does not fit is written with the next look.
const NOTING: usize = 64;
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
    /// Who has confirmed, until when.
    pub(super) confirmed: &'a ArcSwap<Confirmed>,
    pub(super) changed: &'a Notify,
    pub(super) book: &'a Book,
    pub(super) tun: Option<&'a Arc<Tun>>,
    pub(super) exits: Exits,
}

struct Loop<'a> {
    work: &'a Work<'a>,
    sockets: Vec<UdpSocket>,
    gate: Gate,
    /// As it is now: without those whose time is over.
    policy: Arc<Policy>,
    netstack: Netstack,
    forward: Forward,
    tun: Option<AsyncFd<Arc<Tun>>>,
    actions: Vec<Action>,
    /// The actions of a round; empty between them.
    round: Vec<Action>,
    run: udp::Run,
    merger: Merger,
    scratch: Vec<u8>,
    refusals: Limits,
    buffer: Box<[u8]>,
    ticked: Instant,
    /// Who was heard before then has been noted.
    noted: Instant,
    /// Something happened since the book was brought up to date.
    unbooked: bool,
    networks: Arc<Networks>,
    /// Where each peer came in from lately.
    familiar: HashMap<PublicKey, Familiar>,
    /// Lines of the audit log that wait for the disk.
    noting: JoinSet<()>,
    /// At most one, which waits for the disk.
    writing: JoinSet<()>,
    written: Instant,
}

impl Work<'_> {
    fn in_force(&self) -> Arc<Policy> {
        let policy = self.policy.load_full();
        if policy.follows_time() { Arc::new(policy.at(Timestamp::now(), &self.confirmed.load())) } else { policy }
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
            forward: Forward::new(self.exits, now),
            tun: self
                .tun
                .map(Tun::watched)
                .transpose()
                .map_err(|error| format!("the device cannot be used: {error}"))?,
            actions: Vec::new(),
            round: Vec::new(),
            run: udp::Run::default(),
            merger: Merger::default(),
            scratch: Vec::new(),
            refusals: Limits::new(256, now),
            buffer: vec![0; offload::HEADER + udp::RECEIVED].into(),
            ticked: now,
            noted: now,
            unbooked: false,
            networks: self.networks.load_full(),
            familiar: HashMap::new(),
            noting: JoinSet::new(),
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
                () = readable(&work.sockets, work.tun.as_ref()) => {
                    work.receive();
                    work.perform();
                    work.read_device();
                    work.perform();
                    // The connections take in what came, before their queues overflow.
                    tokio::task::yield_now().await;
                }
                _ = expiry.tick(), if work.policy.follows_time() => {}
                _ = ticks.tick(), if work.gate.wants_ticks() || work.unbooked => {}
            }
            // Also under a load that leaves the timer no turn.
            work.tick();
            work.perform();
            if draining && work.netstack.connections() == 0 {
                break;
            }
        }
        work.note(Instant::now());
        work.keep_book(Instant::now());
        if let Some(unwritten) = self.endpoints.unwritten() {
            while work.writing.join_next().await.is_some() {}
            unwritten.write();
        }
        Ok(())
    }
}

/// Waits until one of the sockets, or the device, has something.
async fn readable(sockets: &[UdpSocket], tun: Option<&AsyncFd<Arc<Tun>>>) {
    std::future::poll_fn(|cx| {
        let device = tun.is_some_and(|tun| tun.poll_read_ready(cx).is_ready());
        let ready = sockets.iter().any(|socket| socket.poll_recv_ready(cx).is_ready()) || device;
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Loop<'_> {
    fn take_policy(&mut self) {
        let policy = self.work.in_force();
        self.policy = policy.clone();
        self.gate.set_policy(policy.clone(), Instant::now());
        self.familiar.retain(|key, _| policy.peers.values().any(|peer| peer.public_key == *key));
        self.work.endpoints.keep(|key| policy.peers.values().any(|peer| peer.public_key == *key));
        self.forward.take_policy(&policy, &self.networks, Instant::now());
        self.netstack.set_policy(policy);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        if self.policy.follows_time() && self.policy.is_due(Timestamp::now()) {
            self.take_policy();
        }
        self.follow();
        self.gate.handle_timeout(now, &mut self.actions);
        self.forward.handle_timeout(now);
        self.note(now);
        self.write(now);
        self.keep_book(now);
    }

    fn keep_book(&mut self, now: Instant) {
        let tally = self.gate.take_tally();
        let flows = self.netstack.connections();
        self.work.book.update(&tally, &self.gate, flows, self.forward.flows(), now);
        self.unbooked = false;
    }

    /// Tells the gate where peers were before it began.
    fn recall(&mut self, now: Instant) {
        let known = self.work.endpoints.recall();
        let today = endpoints::unix_now();
        for (id, peer) in &self.policy.peers {
            let Some(heard) = known.get(&peer.public_key) else { continue };
            self.familiar.entry(peer.public_key).or_default().know(heard.remote.ip());
            if !heard.is_recent(today) {
                continue;
            }
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

    /// Notes where peers are that were heard since the last time.
    fn note(&mut self, now: Instant) {
        let today = endpoints::unix_now();
        let own: Vec<_> = self.sockets.iter().map(|socket| socket.local_addr().ok()).collect();
        let mut all = true;
        while self.noting.try_join_next().is_some() {}
        for (peer, path, then) in self.gate.whereabouts().filter(|(.., then)| *then >= self.noted) {
            if let Some(listen) = own.get(path.socket).copied().flatten() {
                let at = today.saturating_sub(then.elapsed().as_secs());
                self.work.endpoints.note(peer, Heard { remote: path.remote, listen, at });
            }
            if self.noting.len() >= NOTING {
                all = false;
                continue;
            }
            let familiar = self.familiar.entry(peer).or_default();
            let Some(said) = familiar.meet(path.remote.ip(), then) else { continue };
            let name = self.policy.peers.values().find(|one| one.public_key == peer).map(|one| one.name.clone());
            if let (Some(audit), Some(name)) = (self.work.outlets.audit.clone(), name) {
                self.noting.spawn_blocking(move || audit.record(&format!("peer {name}"), "came in", &said));
            }
        }
        if all {
            self.noted = now;
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
            let mut left = BATCH;
            while left > 0 {
                match udp::receive(socket, number, &mut self.buffer) {
                    Ok(received) => {
                        let bytes = self.buffer.get(..received.length).unwrap_or_default();
                        for datagram in bytes.chunks(received.segment) {
                            self.gate.handle_datagram(received.path, datagram, now, &mut self.actions);
                            left = left.saturating_sub(1);
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    // An ICMP error about something that was sent; it says nothing about what comes.
                    Err(_) => left -= 1,
                }
            }
        }
    }

    /// Takes what the kernel routed here: it is for a peer, or for nobody.
    fn read_device(&mut self) {
        let now = Instant::now();
        for _ in 0..FROM_DEVICE {
            let Some(tun) = &self.tun else { return };
            let Ok(length) = tun.try_io(Interest::READABLE, |tun| tun.read(&mut self.buffer)) else { return };
            let Some(bytes) = self.buffer.get_mut(..length) else { return };
            let packet = bytes.get(offload::HEADER..).map(Packet::parse_piece);
            let Some(Ok(packet)) = packet else {
                self.gate.drop(Dropped::Malformed);
                continue;
            };
            // The kernel's own announcements on a link; nobody inside is meant.
            if packet.destination.is_multicast() {
                continue;
            }
            match self.forward.handle_outer(&self.policy, &self.networks, &packet, now) {
                Ok(peer) => {
                    let (gate, actions) = (&mut self.gate, &mut self.actions);
                    let is_whole = split(bytes, &mut self.scratch, |segment| {
                        mss::clamp(segment, MTU);
                        gate.handle_packet(peer, segment, now, actions);
                    });
                    if !is_whole {
                        self.gate.drop(Dropped::Malformed);
                    }
                }
                Err(reason) => {
                    let may_answer = reason == Dropped::Forbidden
                        && self.refusals.check(Client::of(packet.source), REFUSALS, now).is_ok();
                    let refusal = answer::refusal(&packet).filter(|_| may_answer);
                    self.gate.drop(reason);
                    if let Some(refusal) = refusal {
                        self.merger.push(&refusal);
                    }
                }
            }
            if self.actions.len() >= udp::SENT_AT_ONCE {
                self.perform();
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
            let mut round = std::mem::replace(&mut self.actions, std::mem::take(&mut self.round));
            for action in round.drain(..) {
                match action {
                    Action::Send(path, bytes) => self.send(path, bytes),
                    Action::Deliver(peer, packet) => self.deliver(peer, packet, now),
                }
            }
            self.round = round;
            self.flush();
        }
        self.write_device();
        self.unbooked |= self.gate.has_news();
    }

    fn deliver(&mut self, peer: PeerId, mut packet: Vec<u8>, now: Instant) {
        let Ok(parsed) = Packet::parse_piece(&packet) else { return self.gate.drop(Dropped::Malformed) };
        let delivery = match self.forward.handle_inner(&self.policy, &self.networks, peer, &parsed, now) {
            Course::Stack => self.netstack.handle_packet(peer, packet, now),
            Course::Peer(other) if parsed.whole.len() <= MTU => {
                return self.gate.handle_packet(other, parsed.whole, now, &mut self.actions);
            }
            Course::Peer(_) => self.netstack.refuse_as(Dropped::TooBig, peer, now, || answer::too_big(&parsed, MTU)),
            Course::Outside => {
                let length = parsed.whole.len();
                packet.truncate(length);
                mss::clamp(&mut packet, MTU);
                self.merger.push(&packet);
                if self.merger.is_full() {
                    self.write_device();
                }
                return;
            }
            Course::Refused(reason) => self.netstack.refuse(reason, peer, &parsed, now),
        };
        let answer = match delivery {
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

    fn write_device(&mut self) {
        let Some(tun) = &self.tun else { return };
        let mut lost = 0;
        self.merger.flush(|packet| lost += u32::from(tun.get_ref().write(packet).is_err()));
        for _ in 0..lost {
            self.gate.drop(Dropped::Unsent);
        }
    }

    fn send(&mut self, path: Path, bytes: Vec<u8>) {
        if let Err(bytes) = self.run.push(path, bytes) {
            self.flush();
            // An empty run takes anything.
            let _ = self.run.push(path, bytes);
        }
    }

    fn flush(&mut self) {
        let socket = self.run.path().and_then(|path| self.sockets.get(path.socket));
        let lost = socket.map_or(self.run.len(), |socket| self.run.send(socket));
        self.run.clear();
        for _ in 0..lost {
            self.gate.drop(Dropped::Unsent);
        }
    }
}

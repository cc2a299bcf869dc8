//! The loop around the gate: it reads the sockets, lets the gate decide, and does what it says.

use std::{net::UdpSocket as Bound, task::Poll, time::Instant};

use arc_swap::ArcSwap;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc},
    time::{Instant as Clock, MissedTickBehavior, interval_at},
};

use crate::{
    stream::Reply,
    supervise::{Phase, Stop},
    vpn::{
        Outlets,
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

/// What the loop works with; all of it outlives the loop.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) sockets: &'a [Bound],
    pub(super) outlets: &'a Outlets,
    pub(super) policy: &'a ArcSwap<Policy>,
    pub(super) changed: &'a Notify,
    pub(super) book: &'a Book,
}

struct Loop<'a> {
    work: &'a Work<'a>,
    sockets: Vec<UdpSocket>,
    gate: Gate,
    netstack: Netstack,
    actions: Vec<Action>,
    buffer: Box<[u8]>,
}

impl Work<'_> {
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
        let policy = self.policy.load_full();
        let now = Instant::now();
        let mut work = Loop {
            work: self,
            sockets,
            gate: Gate::new(policy.clone(), now),
            netstack: Netstack::new(self.outlets.clone(), policy, outbound, replies, now),
            actions: Vec::new(),
            buffer: vec![0; udp::DATAGRAM].into(),
        };
        let mut ticks = interval_at(Clock::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                () = stop.reached(Phase::Now) => break,
                () = stop.reached(Phase::Drain), if !draining => {
                    draining = true;
                    work.netstack.drain();
                }
                () = self.changed.notified() => work.take_policy(),
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
                _ = ticks.tick(), if work.gate.wants_ticks() => {
                    work.gate.handle_timeout(Instant::now(), &mut work.actions);
                }
            }
            work.perform();
            if draining && work.netstack.connections() == 0 {
                break;
            }
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
        let policy = self.work.policy.load_full();
        self.gate.set_policy(policy.clone(), Instant::now());
        self.netstack.set_policy(policy);
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
                                self.gate.drop(reason);
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
        let sent = self.sockets.get(path.socket).is_some_and(|socket| udp::send(socket, path, bytes).is_ok());
        if !sent {
            self.gate.drop(Dropped::Unsent);
        }
    }
}

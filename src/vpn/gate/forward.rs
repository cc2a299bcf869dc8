//! Where an inner packet goes: to the gate itself, to another peer, or out of the tunnel, and whether it may.
//!
//! One policy for both modes. What a peer begins is judged by its `may_reach`, what others begin with it by its
//! `reached_by`, and the rest must be an answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    origin::{NetworkId, Networks, Origin, PeerId},
    vpn::gate::{
        Dropped,
        flows::{Flows, Side, Verdict},
        packet::{self, Packet},
        policy::Policy,
        reach,
    },
};

/// How often flows that are over are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Where a packet of a peer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) enum Course {
    /// To the in-process stack, which judges for itself.
    Stack,
    /// To another peer.
    Peer(PeerId),
    /// Out of the tunnel, by the kernel.
    Outside,
    /// Nowhere.
    Refused(Dropped),
}

/// What leaves the tunnel, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) enum Exit {
    /// The stack relays it.
    Relay,
    /// The kernel routes it.
    Kernel,
}

/// How packets of each family leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) struct Exits {
    pub(in crate::vpn) v4: Exit,
    pub(in crate::vpn) v6: Exit,
}

/// The flows through the gate.
#[derive(Debug)]
pub(in crate::vpn) struct Forward {
    exits: Exits,
    flows: Flows,
    swept: Instant,
}

impl Forward {
    pub(in crate::vpn) fn new(exits: Exits, now: Instant) -> Self {
        Self { exits, flows: Flows::default(), swept: now }
    }

    /// Says where a packet goes whose source is the peer's own.
    pub(in crate::vpn) fn handle_inner(
        &mut self,
        policy: &Policy,
        networks: &Networks,
        peer: PeerId,
        packet: &Packet<'_>,
        now: Instant,
    ) -> Course {
        if policy.is_gate(packet.destination) {
            return Course::Stack;
        }
        if let Some(other) = policy.owner(packet.destination) {
            if other == peer {
                return Course::Refused(Dropped::Forbidden);
            }
            // An answer to what the other one began?
            let answer = self.flows.judge(other, Side::Other, packet, now, |_, _| false);
            let verdict = match answer {
                Verdict::Passes => answer,
                _ => self.flows.judge(peer, Side::Peer, packet, now, |from, to| {
                    policy.may_visit(peer, other, packet.protocol, from, to.port())
                }),
            };
            return course(verdict, Course::Peer(other));
        }
        let exit = if packet.destination.is_ipv4() { self.exits.v4 } else { self.exits.v6 };
        if exit == Exit::Relay {
            return Course::Stack;
        }
        if !reach::may_connect(packet.destination, networks, policy) {
            return Course::Refused(Dropped::Forbidden);
        }
        let verdict = self
            .flows
            .judge(peer, Side::Peer, packet, now, |_, to| may_begin(policy, networks, peer, packet.protocol, to));
        course(verdict, Course::Outside)
    }

    /// Says whose a packet is that came from outside the tunnel.
    pub(in crate::vpn) fn handle_outer(
        &mut self,
        policy: &Policy,
        networks: &Networks,
        packet: &Packet<'_>,
        now: Instant,
    ) -> Result<PeerId, Dropped> {
        if policy.is_gate(packet.destination) {
            return Err(Dropped::GateFromOutside);
        }
        let peer = policy.owner(packet.destination).ok_or(Dropped::NoPeer)?;
        // Nobody outside speaks as somebody inside.
        if policy.is_inside(packet.source) {
            return Err(Dropped::SpoofedSource);
        }
        let verdict = self.flows.judge(peer, Side::Other, packet, now, |from, to| {
            policy.may_call(peer, packet.protocol, from, to.port(), is_lan(networks, from))
        });
        match course(verdict, Course::Outside) {
            Course::Refused(reason) => Err(reason),
            _ => Ok(peer),
        }
    }

    /// Ends flows which nobody may begin any more.
    pub(in crate::vpn) fn take_policy(&mut self, policy: &Policy, networks: &Networks, now: Instant) {
        self.flows.sweep(now, |peer, begun_by, protocol, own, other| {
            policy.owner(own.ip()) == Some(peer)
                && match (begun_by, policy.owner(other.ip())) {
                    (Side::Peer, Some(visited)) => policy.may_visit(peer, visited, protocol, own, other.port()),
                    (Side::Peer, None) => {
                        reach::may_connect(other.ip(), networks, policy)
                            && may_begin(policy, networks, peer, protocol, other)
                    }
                    (Side::Other, _) => policy.may_call(peer, protocol, other, own.port(), is_lan(networks, other)),
                }
        });
    }

    /// Lets time pass.
    pub(in crate::vpn) fn handle_timeout(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.flows.sweep(now, |_, _, _, _, _| true);
        }
    }

    /// Returns how many flows there are.
    pub(in crate::vpn) fn flows(&self) -> usize {
        self.flows.len()
    }
}

fn may_begin(policy: &Policy, networks: &Networks, peer: PeerId, protocol: u8, target: SocketAddr) -> bool {
    let has_port = !matches!(protocol, packet::TCP | packet::UDP) || target.port() != 0;
    has_port && policy.may_begin(peer, protocol, target, reach::is_internet(target.ip(), networks))
}

fn is_lan(networks: &Networks, from: SocketAddr) -> bool {
    networks.classify(from.ip(), None).origin == Origin::Lan(NetworkId::MAIN)
}

fn course(verdict: Verdict, passes: Course) -> Course {
    match verdict {
        Verdict::Passes => passes,
        Verdict::Forbidden => Course::Refused(Dropped::Forbidden),
        Verdict::Full => Course::Refused(Dropped::TooManyConnections),
        Verdict::Piece => Course::Refused(Dropped::Fragment),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::vpn::{
        Caller, Protocol, Reach,
        gate::tests::{config, peer, udp},
    };

    const EDGE: [u8; 4] = [192, 168, 1, 2];
    const HOST: [u8; 4] = [192, 168, 1, 9];
    const LAPTOP: [u8; 4] = [10, 77, 0, 2];
    const PHONE: [u8; 4] = [10, 77, 0, 3];

    fn house() -> Networks {
        Networks {
            interfaces: vec![2],
            on_link: vec!["192.168.1.0/24".parse().unwrap()],
            own: HashSet::from([EDGE.into()]),
            ..Networks::default()
        }
    }

    /// The laptop may reach the LAN and the phone, which lets it; the phone may reach nothing.
    fn policy() -> Policy {
        let mut laptop = peer(0, "10.77.0.2/32");
        laptop.may_reach = vec![Reach::Net("192.168.0.0/16".parse().unwrap()), Reach::Peer(PeerId(1))];
        let mut phone = peer(1, "10.77.0.3/32");
        phone.may_reach = vec![];
        phone.reached_by = vec![
            Caller::Peer(PeerId(0)),
            Caller::Ports { protocol: Protocol::Udp, net: "192.168.1.9/32".parse().unwrap(), ports: 1..=9 },
        ];
        Policy::new(&config(vec![laptop, phone])).unwrap()
    }

    struct Bench {
        forward: Forward,
        policy: Policy,
        networks: Networks,
        now: Instant,
    }

    impl Bench {
        fn new(exit: Exit) -> Self {
            let now = Instant::now();
            Self { forward: Forward::new(Exits { v4: exit, v6: exit }, now), policy: policy(), networks: house(), now }
        }

        fn handle_inner(&mut self, peer: u32, from: [u8; 4], to: [u8; 4]) -> Course {
            let bytes = udp(from, to);
            let packet = Packet::parse(&bytes).unwrap();
            self.forward.handle_inner(&self.policy, &self.networks, PeerId(peer), &packet, self.now)
        }

        fn handle_outer(&mut self, from: [u8; 4], to: [u8; 4]) -> Result<PeerId, Dropped> {
            let bytes = udp(from, to);
            self.forward.handle_outer(&self.policy, &self.networks, &Packet::parse(&bytes).unwrap(), self.now)
        }
    }

    #[test]
    fn answers_come_in_and_nothing_else_does() {
        let mut bench = Bench::new(Exit::Kernel);

        assert_eq!(bench.handle_outer(HOST, LAPTOP), Err(Dropped::Forbidden));
        assert_eq!(bench.handle_inner(0, LAPTOP, HOST), Course::Outside);
        // The ports of the test's packet are the same both ways round only if they are turned.
        let mut answer = udp(HOST, LAPTOP);
        let ports: [u8; 4] = answer[20..24].try_into().unwrap();
        answer[20..24].copy_from_slice(&[ports[2], ports[3], ports[0], ports[1]]);
        let answer = Packet::parse(&answer).unwrap();
        let said = bench.forward.handle_outer(&bench.policy, &bench.networks, &answer, bench.now);
        assert_eq!(said, Ok(PeerId(0)));
    }

    #[test]
    fn nobody_outside_reaches_the_gate_or_speaks_as_somebody_inside() {
        let mut bench = Bench::new(Exit::Kernel);

        assert_eq!(bench.handle_outer(HOST, [10, 77, 0, 1]), Err(Dropped::GateFromOutside));
        assert_eq!(bench.handle_outer(LAPTOP, PHONE), Err(Dropped::SpoofedSource));
        assert_eq!(bench.handle_outer(HOST, [10, 77, 0, 99]), Err(Dropped::NoPeer));
    }

    #[test]
    fn the_box_itself_is_not_reached_by_the_way_of_the_kernel() {
        let mut bench = Bench::new(Exit::Kernel);

        for target in [EDGE, [127, 0, 0, 1], [169, 254, 1, 1], [224, 0, 0, 1], [10, 77, 0, 200]] {
            assert_eq!(bench.handle_inner(0, LAPTOP, target), Course::Refused(Dropped::Forbidden), "{target:?}");
        }
        assert_eq!(bench.handle_inner(0, LAPTOP, [10, 77, 0, 1]), Course::Stack);
        assert_eq!(bench.handle_inner(1, PHONE, HOST), Course::Refused(Dropped::Forbidden));
    }

    #[test]
    fn peers_reach_one_another_if_both_name_the_other() {
        for exit in [Exit::Kernel, Exit::Relay] {
            let mut bench = Bench::new(exit);

            assert_eq!(bench.handle_inner(1, PHONE, LAPTOP), Course::Refused(Dropped::Forbidden));
            assert_eq!(bench.handle_inner(0, LAPTOP, PHONE), Course::Peer(PeerId(1)));
        }
        let mut one_sided = Bench::new(Exit::Kernel);
        let mut laptop = peer(0, "10.77.0.2/32");
        laptop.may_reach = vec![Reach::Peer(PeerId(1))];
        one_sided.policy = Policy::new(&config(vec![laptop, peer(1, "10.77.0.3/32")])).unwrap();
        assert_eq!(one_sided.handle_inner(0, LAPTOP, PHONE), Course::Refused(Dropped::Forbidden));
    }

    #[test]
    fn the_lan_reaches_a_peer_where_the_peer_says_so() {
        let mut bench = Bench::new(Exit::Kernel);
        let port = Packet::parse(&udp(HOST, PHONE)).unwrap().ports().unwrap().1;
        let mut to_port_9 = udp(HOST, PHONE);
        to_port_9[22..24].copy_from_slice(&9_u16.to_be_bytes());
        assert!(port > 9);

        assert_eq!(bench.handle_outer(HOST, PHONE), Err(Dropped::Forbidden));
        let called = Packet::parse(&to_port_9).unwrap();
        assert_eq!(bench.forward.handle_outer(&bench.policy, &bench.networks, &called, bench.now), Ok(PeerId(1)));
    }

    #[test]
    fn a_flow_which_nobody_may_begin_any_more_ends_at_once() {
        let mut bench = Bench::new(Exit::Kernel);
        bench.handle_inner(0, LAPTOP, HOST);
        bench.handle_inner(0, LAPTOP, PHONE);
        assert_eq!(bench.forward.flows(), 2);

        bench.forward.take_policy(&bench.policy, &bench.networks, bench.now);
        assert_eq!(bench.forward.flows(), 2);
        let nothing = Policy::new(&config(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")])).unwrap();
        bench.forward.take_policy(&nothing, &bench.networks, bench.now);

        assert_eq!(bench.forward.flows(), 0);
    }
}

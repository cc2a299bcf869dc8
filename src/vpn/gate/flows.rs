//! What peers have begun, and what was begun with them: answers pass by this table and by nothing else.
//!
//! A flow belongs to one peer, has room of its own, and is forgotten after a silence. A port number proves
//! nothing: what comes from a well-known port is an answer only if this very peer asked this very host.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    limit::Client,
    origin::PeerId,
    vpn::gate::packet::{self, Fragment, Packet},
};

/// Flows of one peer; the whole table of one takes less than half a MiB.
const PER_PEER: usize = 4096;
/// Of these, what others may begin with the peer: it keeps the rest for itself.
const BEGUN_BY_OTHERS: usize = PER_PEER / 4;
/// And what one of the others may (an IPv4 address, an IPv6 /64), so that none keeps the rest out.
const BEGUN_BY_ONE: u16 = 128;
/// Packets of one peer that came in pieces a moment ago.
const PIECES: usize = 64;
/// RFC 791: the pieces of a packet come together or not at all.
const PIECES_LIVE: Duration = Duration::from_secs(5);
/// A table that is full is looked through so often at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// RFC 5382 REQ-5: not less than 2 hours 4 minutes.
const TCP_LIVES: Duration = Duration::from_secs(7_440);
/// A connection that was begun and not answered, or has ended on both sides.
const TCP_LINGERS: Duration = Duration::from_secs(30);
/// RFC 4787 REQ-5: not less than two minutes.
const UDP_LIVES: Duration = Duration::from_secs(120);
/// A question and its answer need no more, and resolvers take a new port for each.
const SHORT: Duration = Duration::from_secs(10);
/// Echoes, and protocols without ports.
const OTHER_LIVES: Duration = Duration::from_secs(60);

const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// Which end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) enum Side {
    /// The peer whose flow it is.
    Peer,
    /// The other one.
    Other,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) enum Verdict {
    /// It belongs to a flow, or began one.
    Passes,
    /// Nobody began it, and it may not be begun.
    Forbidden,
    /// The peer has too many flows.
    Full,
    /// A piece whose first one did not pass.
    Piece,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: u8,
    peer: SocketAddr,
    other: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    begun_by_peer: bool,
    answered: bool,
    /// FIN of the peer, FIN of the other, RST of either.
    ended: [bool; 3],
    last: Instant,
}

#[derive(Debug, Default)]
struct Table {
    flows: HashMap<Key, Flow>,
    pieces: VecDeque<(IpAddr, IpAddr, u8, u32, Instant)>,
    swept: Option<Instant>,
    /// How many flows each of the others has begun here.
    others: HashMap<Client, u16>,
}

/// All peers' flows.
#[derive(Debug, Default)]
pub(in crate::vpn) struct Flows {
    peers: HashMap<PeerId, Table>,
}

impl Flow {
    fn lives(&self, key: &Key) -> Duration {
        match key.protocol {
            packet::TCP if self.ended == [true, true, false] || self.ended[2] => TCP_LINGERS,
            packet::TCP if self.answered => TCP_LIVES,
            packet::TCP => TCP_LINGERS,
            packet::UDP if key.peer.port() == 53 || key.other.port() == 53 => SHORT,
            packet::UDP => UDP_LIVES,
            _ => OTHER_LIVES,
        }
    }

    fn is_over(&self, key: &Key, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= self.lives(key)
    }
}

impl Flows {
    /// Judges a packet that `side` sent; `may_begin` is asked if it belongs to no flow.
    pub(in crate::vpn) fn judge(
        &mut self,
        peer: PeerId,
        side: Side,
        packet: &Packet<'_>,
        now: Instant,
        may_begin: impl FnOnce(SocketAddr, SocketAddr) -> bool,
    ) -> Verdict {
        let table = self.peers.entry(peer).or_default();
        if let Fragment::Later(id) = packet.fragment {
            let known = table.pieces.iter().any(|(source, destination, protocol, known, then)| {
                (*source, *destination, *protocol, *known) == (packet.source, packet.destination, packet.protocol, id)
                    && now.saturating_duration_since(*then) < PIECES_LIVE
            });
            return if known { Verdict::Passes } else { Verdict::Piece };
        }
        let verdict = table.judge(side, packet, now, may_begin);
        if let (Verdict::Passes, Fragment::First(id)) = (verdict, packet.fragment) {
            if table.pieces.len() == PIECES {
                table.pieces.pop_front();
            }
            table.pieces.push_back((packet.source, packet.destination, packet.protocol, id, now));
        }
        verdict
    }

    /// Forgets the flows that are over, and those that `keep` does not want any more; it is told the peer, whether
    /// the peer began the flow, the protocol, the peer's end and the other one.
    pub(in crate::vpn) fn sweep(
        &mut self,
        now: Instant,
        keep: impl Fn(PeerId, Side, u8, SocketAddr, SocketAddr) -> bool,
    ) {
        self.peers.retain(|peer, table| {
            table.flows.retain(|key, flow| {
                let side = if flow.begun_by_peer { Side::Peer } else { Side::Other };
                !flow.is_over(key, now) && keep(*peer, side, key.protocol, key.peer, key.other)
            });
            table.count_others();
            table.pieces.retain(|(.., then)| now.saturating_duration_since(*then) < PIECES_LIVE);
            !table.flows.is_empty() || !table.pieces.is_empty()
        });
    }

    /// Returns how many there are.
    pub(in crate::vpn) fn len(&self) -> usize {
        self.peers.values().map(|table| table.flows.len()).sum()
    }
}

impl Table {
    fn judge(
        &mut self,
        side: Side,
        packet: &Packet<'_>,
        now: Instant,
        may_begin: impl FnOnce(SocketAddr, SocketAddr) -> bool,
    ) -> Verdict {
        // An error about a flow belongs to it, and begins nothing.
        if let Some(quoted) = packet.quoted() {
            // Whoever sent what it is about gets it, and nobody else: else one flow would lead anywhere.
            if packet.destination != quoted.source {
                return Verdict::Forbidden;
            }
            let sent = SocketAddr::new(quoted.source, quoted.ports.0);
            let wanted = SocketAddr::new(quoted.destination, quoted.ports.1);
            let mut key = Key { protocol: quoted.protocol, peer: sent, other: wanted };
            if side == Side::Peer {
                (key.peer, key.other) = (wanted, sent);
            }
            if matches!(quoted.protocol, packet::ICMPV4 | packet::ICMPV6) {
                let ident = quoted.ports.0;
                key.peer.set_port(ident);
                key.other.set_port(0);
            }
            let known = self.flows.get(&key).is_some_and(|flow| !flow.is_over(&key, now));
            return if known { Verdict::Passes } else { Verdict::Forbidden };
        }
        let Some((source, destination, is_request)) = ends(packet) else { return Verdict::Forbidden };
        let mut key = Key { protocol: packet.protocol, peer: source, other: destination };
        if side == Side::Other {
            (key.peer, key.other) = (destination, source);
        }
        if matches!(packet.protocol, packet::ICMPV4 | packet::ICMPV6) {
            // The identifier is of the exchange, not of an end.
            let ident = source.port();
            key.peer.set_port(ident);
            key.other.set_port(0);
        }
        if let Some(flow) = self.flows.get_mut(&key).filter(|flow| !flow.is_over(&key, now)) {
            let is_beginner = flow.begun_by_peer == (side == Side::Peer);
            if is_request.is_some_and(|is_request| is_request != is_beginner) {
                return Verdict::Forbidden;
            }
            flow.answered |= !is_beginner;
            flow.last = now;
            if packet.protocol == packet::TCP {
                let flags = packet.payload.get(13).copied().unwrap_or_default();
                flow.ended[usize::from(side == Side::Other)] |= flags & FIN != 0;
                flow.ended[2] |= flags & RST != 0;
                // The same ports again.
                if packet.is_syn() && is_beginner {
                    flow.ended = [false; 3];
                }
            }
            return Verdict::Passes;
        }
        if is_request == Some(false) || !may_begin(source, destination) {
            return Verdict::Forbidden;
        }
        let other = (side == Side::Other).then(|| Client::of(source.ip()));
        if self.is_full(other) && (!self.make_room(now) || self.is_full(other)) {
            return Verdict::Full;
        }
        if let Some(other) = other {
            *self.others.entry(other).or_default() += 1;
        }
        let flow = Flow { begun_by_peer: side == Side::Peer, answered: false, ended: [false; 3], last: now };
        self.flows.insert(key, flow);
        Verdict::Passes
    }

    /// Says whether there is no room for a flow that the peer begins, or one of the others.
    fn is_full(&self, other: Option<Client>) -> bool {
        let by_others = || self.others.values().copied().map(usize::from).sum::<usize>();
        let full = |other| {
            self.others.get(&other).is_some_and(|begun| *begun >= BEGUN_BY_ONE) || by_others() >= BEGUN_BY_OTHERS
        };
        self.flows.len() >= PER_PEER || other.is_some_and(full)
    }

    fn count_others(&mut self) {
        self.others.clear();
        for (key, _) in self.flows.iter().filter(|(_, flow)| !flow.begun_by_peer) {
            *self.others.entry(Client::of(key.other.ip())).or_default() += 1;
        }
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        self.flows.retain(|key, flow| !flow.is_over(key, now));
        self.count_others();
        self.flows.len() < PER_PEER
    }
}

/// Returns both ends, and for an echo whether it is the request. `None` for what cannot be told apart.
fn ends(packet: &Packet<'_>) -> Option<(SocketAddr, SocketAddr, Option<bool>)> {
    let (from, to, is_request) = match packet.protocol {
        packet::TCP | packet::UDP => {
            let (from, to) = packet.ports()?;
            (from, to, None)
        }
        packet::ICMPV4 | packet::ICMPV6 => {
            let header: &[u8; 8] = packet.payload.first_chunk()?;
            let is_request = match (packet.protocol, header[0]) {
                (packet::ICMPV4, 8) | (packet::ICMPV6, 128) => true,
                (packet::ICMPV4, 0) | (packet::ICMPV6, 129) => false,
                _ => return None,
            };
            (u16::from_be_bytes([header[4], header[5]]), 0, Some(is_request))
        }
        // Extension headers of IPv6, where the protocol stands behind: nobody needs them.
        0 | 43 | 44 | 60 => return None,
        _ => (0, 0, None),
    };
    Some((SocketAddr::new(packet.source, from), SocketAddr::new(packet.destination, to), is_request))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(0);
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    pub(in crate::vpn::gate) fn tcp(from: &str, to: &str, flags: u8) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!("IPv4 here") };
        let mut bytes = vec![0x45, 0, 0, 40, 0, 7, 0, 0, 64, packet::TCP, 0, 0];
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(from.port().to_be_bytes());
        bytes.extend(to.port().to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes
    }

    fn judge(flows: &mut Flows, side: Side, bytes: &[u8], now: Instant, may: bool) -> Verdict {
        flows.judge(PEER, side, &Packet::parse_piece(bytes).unwrap(), now, |_, _| may)
    }

    #[test]
    fn answers_pass_and_a_well_known_port_alone_does_not() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let question = tcp("10.77.0.2:4000", "192.168.1.9:443", SYN);
        let answer = tcp("192.168.1.9:443", "10.77.0.2:4000", SYN | ACK);

        assert_eq!(judge(&mut flows, Side::Other, &answer, now, false), Verdict::Forbidden);
        assert_eq!(judge(&mut flows, Side::Peer, &question, now, true), Verdict::Passes);
        assert_eq!(judge(&mut flows, Side::Other, &answer, now, false), Verdict::Passes);
        for other in ["192.168.1.8:443", "192.168.1.9:80"] {
            let answer = tcp(other, "10.77.0.2:4000", SYN | ACK);
            assert_eq!(judge(&mut flows, Side::Other, &answer, now, false), Verdict::Forbidden, "{other}");
        }
    }

    #[test]
    fn a_peer_that_begins_a_hundred_thousand_has_a_bounded_table_and_keeps_what_it_had() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let first = tcp("10.77.0.2:4000", "192.168.1.9:443", SYN);
        judge(&mut flows, Side::Peer, &first, now, true);

        let verdicts: Vec<Verdict> = (0..100_000_u32)
            .map(|number| {
                let target = format!("192.168.{}.{}:{}", 2 + number / 50_000, 1 + number % 250, 1 + number / 250);
                judge(&mut flows, Side::Peer, &tcp("10.77.0.2:4000", &target, SYN), now, true)
            })
            .collect();

        assert_eq!(flows.len(), PER_PEER);
        assert_eq!(verdicts.iter().filter(|one| **one == Verdict::Full).count(), 100_001 - PER_PEER);
        assert_eq!(judge(&mut flows, Side::Peer, &first, now, false), Verdict::Passes);
        let later = now + TCP_LINGERS;
        assert_eq!(
            judge(&mut flows, Side::Peer, &tcp("10.77.0.2:1", "192.168.1.9:1", SYN), later, true),
            Verdict::Passes
        );
        assert_eq!(flows.len(), 1, "what nobody answered is over");
    }

    #[test]
    fn whoever_calls_a_peer_takes_a_share_and_leaves_it_the_rest() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let mut call = |from: &str, now| judge(&mut flows, Side::Other, &tcp(from, "10.77.0.2:22", SYN), now, true);
        let passed = |verdicts: &[Verdict]| verdicts.iter().filter(|one| **one == Verdict::Passes).count();

        let one: Vec<Verdict> = (1..=1_000).map(|port| call(&format!("192.168.1.9:{port}"), now)).collect();
        let another = call("192.168.1.8:1", now);
        let many: Vec<Verdict> = (0..100_000_u32)
            .map(|number| {
                call(&format!("192.168.{}.{}:{}", 2 + number / 25_000, 1 + number / 100 % 250, 1 + number % 100), now)
            })
            .collect();
        let later = call("192.168.1.9:1", now + TCP_LINGERS);

        assert_eq!((passed(&one), another), (usize::from(BEGUN_BY_ONE), Verdict::Passes));
        assert_eq!(passed(&one) + 1 + passed(&many), BEGUN_BY_OTHERS);
        assert_eq!(later, Verdict::Passes, "what nobody answered is over");
        let own = (1..=PER_PEER as u32).map(|port| {
            let began = tcp(&format!("10.77.0.2:{port}"), "192.168.1.9:443", SYN);
            judge(&mut flows, Side::Peer, &began, now + TCP_LINGERS, true)
        });
        assert!(own.filter(|one| *one == Verdict::Passes).count() >= PER_PEER - BEGUN_BY_OTHERS);
    }

    #[test]
    fn a_flow_ends_after_a_silence_that_depends_on_what_it_is() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let question = tcp("10.77.0.2:4000", "192.168.1.9:443", SYN);
        let answer = tcp("192.168.1.9:443", "10.77.0.2:4000", ACK);
        judge(&mut flows, Side::Peer, &question, now, true);
        judge(&mut flows, Side::Other, &answer, now, false);

        let hours = now + Duration::from_secs(7_000);
        assert_eq!(judge(&mut flows, Side::Other, &answer, hours, false), Verdict::Passes);
        judge(&mut flows, Side::Other, &tcp("192.168.1.9:443", "10.77.0.2:4000", RST), hours, false);
        assert_eq!(judge(&mut flows, Side::Other, &answer, hours + TCP_LINGERS, false), Verdict::Forbidden);
    }

    #[test]
    fn pieces_pass_with_their_first_one_only() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let mut first = tcp("10.77.0.2:4000", "192.168.1.9:443", ACK);
        let mut later = first.clone();
        first[6] = 0x20;
        later[7] = 100;
        let mut overwriting = first.clone();
        overwriting[7] = 1;

        assert_eq!(judge(&mut flows, Side::Peer, &later, now, true), Verdict::Piece);
        assert_eq!(judge(&mut flows, Side::Peer, &first, now, true), Verdict::Passes);
        assert_eq!(judge(&mut flows, Side::Peer, &later, now, false), Verdict::Passes);
        later[5] ^= 1;
        assert_eq!(judge(&mut flows, Side::Peer, &later, now, true), Verdict::Piece);
        assert!(Packet::parse_piece(&overwriting).is_err());
    }

    #[test]
    fn an_error_passes_if_it_is_about_a_flow() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let question = tcp("10.77.0.2:4000", "192.168.1.9:443", SYN);
        let error = |about: &[u8]| {
            // From a router on the way: destination unreachable, fragmentation needed.
            let mut bytes = vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, packet::ICMPV4, 0, 0, 192, 168, 1, 1, 10, 77, 0, 2];
            bytes.extend([3, 4, 0, 0, 0, 0, 5, 0]);
            bytes.extend(&about[..28]);
            bytes
        };

        assert_eq!(judge(&mut flows, Side::Other, &error(&question), now, false), Verdict::Forbidden);
        judge(&mut flows, Side::Peer, &question, now, true);
        assert_eq!(judge(&mut flows, Side::Other, &error(&question), now, false), Verdict::Passes);
        let another = tcp("10.77.0.2:4001", "192.168.1.9:443", SYN);
        assert_eq!(judge(&mut flows, Side::Other, &error(&another), now, false), Verdict::Forbidden);
        // The peer may say that it did not like an answer, to whoever sent it and to nobody else.
        let answer = tcp("192.168.1.9:443", "10.77.0.2:4000", SYN | ACK);
        let mut said = error(&answer);
        said[12..20].copy_from_slice(&[10, 77, 0, 2, 192, 168, 1, 9]);
        assert_eq!(judge(&mut flows, Side::Peer, &said, now, false), Verdict::Passes);
        said[19] = 8;
        assert_eq!(judge(&mut flows, Side::Peer, &said, now, false), Verdict::Forbidden);
    }

    #[test]
    fn an_echo_is_answered_and_not_turned_round() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let echo = |kind: u8, from: [u8; 4], to: [u8; 4]| {
            let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, packet::ICMPV4, 0, 0];
            bytes.extend(from);
            bytes.extend(to);
            bytes.extend([kind, 0, 0, 0, 0x12, 0x34, 0, 1]);
            bytes
        };
        let (peer, host) = ([10, 77, 0, 2], [192, 168, 1, 9]);

        assert_eq!(judge(&mut flows, Side::Other, &echo(0, host, peer), now, true), Verdict::Forbidden);
        assert_eq!(judge(&mut flows, Side::Peer, &echo(8, peer, host), now, true), Verdict::Passes);
        assert_eq!(judge(&mut flows, Side::Other, &echo(0, host, peer), now, false), Verdict::Passes);
        assert_eq!(judge(&mut flows, Side::Other, &echo(8, host, peer), now, false), Verdict::Forbidden);
    }
}

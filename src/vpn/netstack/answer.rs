//! Single packets that the stack says without a connection: refusals, echoes and UDP.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, IpProtocol,
        IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, UdpPacket, UdpRepr,
    },
};

use crate::vpn::gate::packet::{self, Packet};

const HOPS: u8 = 64;

/// Answers an echo request of either family.
pub(super) fn echo(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    match (packet.source, packet.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) if packet.protocol == packet::ICMPV4 => {
            let request = Icmpv4Packet::new_checked(packet.payload).ok()?;
            let Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) = Icmpv4Repr::parse(&request, &checksums) else {
                return None;
            };
            let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
            let answer = build(packet.destination, packet.source, IpProtocol::Icmp, reply.buffer_len(), |payload| {
                reply.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
            });
            Some(answer)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) if packet.protocol == packet::ICMPV6 => {
            let request = Icmpv6Packet::new_checked(packet.payload).ok()?;
            let parsed = Icmpv6Repr::parse(&source, &destination, &request, &checksums);
            let Ok(Icmpv6Repr::EchoRequest { ident, seq_no, data }) = parsed else { return None };
            let reply = Icmpv6Repr::EchoReply { ident, seq_no, data };
            let answer = build(packet.destination, packet.source, IpProtocol::Icmpv6, reply.buffer_len(), |payload| {
                reply.emit(&destination, &source, &mut Icmpv6Packet::new_unchecked(payload), &checksums);
            });
            Some(answer)
        }
        _ => None,
    }
}

/// Why a packet did not get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpn) enum Unreachable {
    /// It was not to.
    Prohibited,
    /// Nobody is there.
    Host,
    /// Nothing listens.
    Port,
}

/// Refuses a packet so that its sender need not wait: TCP by a reset, the rest as administratively prohibited.
pub(in crate::vpn) fn refusal(packet: &Packet<'_>) -> Option<Vec<u8>> {
    if packet.protocol == packet::TCP { reset(packet) } else { unreachable(packet, Unreachable::Prohibited) }
}

/// Tells that nothing listens there.
pub(in crate::vpn) fn closed(packet: &Packet<'_>) -> Option<Vec<u8>> {
    if packet.protocol == packet::TCP { reset(packet) } else { unreachable(packet, Unreachable::Port) }
}

fn reset(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    if segment.rst() {
        return None;
    }
    // RFC 9293 §3.5.2: with the number that was acknowledged, else at 0 and acknowledging what came.
    let (seq_number, ack_number) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (Default::default(), Some(segment.seq_number() + segment.segment_len()))
    };
    let reset = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (from, to) = (packet.destination, packet.source);
    Some(build(from, to, IpProtocol::Tcp, reset.buffer_len(), |payload| {
        let checksums = ChecksumCapabilities::default();
        reset.emit(&mut TcpPacket::new_unchecked(payload), &from.into(), &to.into(), &checksums);
    }))
}

/// Tells by ICMP why a packet did not get there.
pub(in crate::vpn) fn unreachable(packet: &Packet<'_>, why: Unreachable) -> Option<Vec<u8>> {
    // RFC 1122 §3.2.2, RFC 4443 §2.4: never about ICMP errors, multicast or broadcast.
    let is_request = match packet.protocol {
        packet::ICMPV4 => packet.payload.first() == Some(&8),
        packet::ICMPV6 => packet.payload.first() == Some(&128),
        _ => true,
    };
    if !is_request || packet.destination.is_multicast() || packet.destination == IpAddr::from([255; 4]) {
        return None;
    }
    let checksums = ChecksumCapabilities::default();
    let (from, to) = (packet.destination, packet.source);
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let header = Ipv4Repr::parse(&Ipv4Packet::new_checked(packet.whole).ok()?, &checksums).ok()?;
            let data = packet.payload.get(..packet.payload.len().min(128))?;
            let reason = match why {
                Unreachable::Prohibited => Icmpv4DstUnreachable::CommProhibited,
                Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
                Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
            };
            let error = Icmpv4Repr::DstUnreachable { reason, header, data };
            Some(build(from, to, IpProtocol::Icmp, error.buffer_len(), |payload| {
                error.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
            }))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Repr::parse(&Ipv6Packet::new_checked(packet.whole).ok()?).ok()?;
            let data = packet.payload.get(..packet.payload.len().min(512))?;
            let reason = match why {
                Unreachable::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                Unreachable::Host => Icmpv6DstUnreachable::AddrUnreachable,
                Unreachable::Port => Icmpv6DstUnreachable::PortUnreachable,
            };
            let error = Icmpv6Repr::DstUnreachable { reason, header, data };
            Some(build(from, to, IpProtocol::Icmpv6, error.buffer_len(), |payload| {
                error.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(payload), &checksums);
            }))
        }
        _ => None,
    }
}

/// Tells that a packet is larger than the tunnel is for whom it is meant.
pub(in crate::vpn) fn too_big(packet: &Packet<'_>, mtu: usize) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let (from, to) = (packet.destination, packet.source);
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let header = Ipv4Repr::parse(&Ipv4Packet::new_checked(packet.whole).ok()?, &checksums).ok()?;
            let data = packet.payload.get(..packet.payload.len().min(128))?;
            let error = Icmpv4Repr::DstUnreachable { reason: Icmpv4DstUnreachable::FragRequired, header, data };
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
            Some(build(from, to, IpProtocol::Icmp, error.buffer_len(), |payload| {
                error.emit(&mut Icmpv4Packet::new_unchecked(&mut *payload), &checksums);
                // RFC 1191 §4: the MTU stands in what is unused otherwise.
                payload[6..8].copy_from_slice(&mtu);
                Icmpv4Packet::new_unchecked(payload).fill_checksum();
            }))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Repr::parse(&Ipv6Packet::new_checked(packet.whole).ok()?).ok()?;
            let data = packet.payload.get(..packet.payload.len().min(512))?;
            let error = Icmpv6Repr::PktTooBig { mtu: u32::try_from(mtu).unwrap_or(u32::MAX), header, data };
            Some(build(from, to, IpProtocol::Icmpv6, error.buffer_len(), |payload| {
                error.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(payload), &checksums);
            }))
        }
        _ => None,
    }
}

/// Makes a UDP packet; `None` if the ends are not of one family or the packet is larger than `mtu`.
pub(in crate::vpn) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let length = udp.header_len() + payload.len();
    let header = if from.is_ipv4() { 20 } else { 40 };
    if from.is_ipv4() != to.is_ipv4() || header + length > mtu {
        return None;
    }
    Some(build(from.ip(), to.ip(), IpProtocol::Udp, length, |buffer| {
        let mut packet = UdpPacket::new_unchecked(buffer);
        let copy = |buffer: &mut [u8]| buffer.copy_from_slice(payload);
        let (from, to) = (from.ip().into(), to.ip().into());
        udp.emit(&mut packet, &from, &to, payload.len(), copy, &ChecksumCapabilities::default());
    }))
}

/// Returns the payload of a UDP packet whose checksum is right.
pub(in crate::vpn) fn udp_payload<'a>(packet: &Packet<'a>) -> Option<&'a [u8]> {
    let udp = UdpPacket::new_checked(packet.payload).ok()?;
    let checksums = ChecksumCapabilities::default();
    UdpRepr::parse(&udp, &packet.source.into(), &packet.destination.into(), &checksums).ok()?;
    Some(udp.payload())
}

fn build(from: IpAddr, to: IpAddr, protocol: IpProtocol, length: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let header = IpRepr::new(from.into(), to.into(), protocol, length, HOPS);
    let mut packet = vec![0; header.header_len() + length];
    header.emit(&mut packet, &ChecksumCapabilities::default());
    fill(&mut packet[header.header_len()..]);
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.77.0.2:40000";
    const GATE: &str = "10.77.0.1:53";

    fn echo_request(peer: IpAddr, gate: IpAddr) -> Vec<u8> {
        let checksums = ChecksumCapabilities::default();
        match (peer, gate) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let request = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 2, data: b"ping" };
                build(peer, gate, IpProtocol::Icmpv6, request.buffer_len(), |payload| {
                    request.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(payload), &checksums);
                })
            }
            _ => {
                let request = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 2, data: b"ping" };
                build(peer, gate, IpProtocol::Icmp, request.buffer_len(), |payload| {
                    request.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
                })
            }
        }
    }

    #[test]
    fn echoes_come_back_in_both_families() {
        for (peer, gate, kind) in [("10.77.0.2", "10.77.0.1", 0), ("fd77::2", "fd77::1", 129)] {
            let request = echo_request(peer.parse().unwrap(), gate.parse().unwrap());

            let answer = echo(&Packet::parse(&request).unwrap()).unwrap();

            let answer = Packet::parse(&answer).unwrap();
            assert_eq!(answer.source, gate.parse::<IpAddr>().unwrap());
            assert_eq!((answer.payload[0], &answer.payload[8..]), (kind, &b"ping"[..]));
            assert_eq!(echo(&answer), None, "an answer is not answered");
            assert_eq!(refusal(&answer), None, "and not refused");
        }
    }

    #[test]
    fn what_is_refused_is_prohibited_by_icmp_with_what_was_refused_in_it() {
        let packet = udp(PEER.parse().unwrap(), GATE.parse().unwrap(), b"?", 1420).unwrap();

        let refusal = refusal(&Packet::parse(&packet).unwrap()).unwrap();

        let refusal = Packet::parse(&refusal).unwrap();
        // RFC 1812 §5.2.7.1: communication administratively prohibited.
        assert_eq!(refusal.payload[..2], [3, 13]);
        assert_eq!(Packet::parse(&refusal.payload[8..]).unwrap().ports(), Some((40_000, 53)));
    }

    #[test]
    fn who_sends_too_much_is_told_how_much_fits() {
        for (from, to) in [(PEER, GATE), ("[fd77::2]:40000", "[fd77::3]:53")] {
            let packet = udp(from.parse().unwrap(), to.parse().unwrap(), &[7; 2_000], 9_000).unwrap();

            let told = too_big(&Packet::parse(&packet).unwrap(), 1420).unwrap();

            let told = Packet::parse(&told).unwrap();
            let (kind, mtu) = if from.starts_with('[') { ([2, 0], 4..8) } else { ([3, 4], 6..8) };
            assert_eq!(told.payload[..2], kind);
            assert_eq!(told.payload[mtu].iter().fold(0, |mtu, byte| mtu << 8 | usize::from(*byte)), 1420);
            assert_eq!(told.quoted().unwrap().ports, (40_000, 53), "whoever sent it knows which it was");
            if told.source.is_ipv4() {
                assert!(Icmpv4Packet::new_checked(told.payload).unwrap().verify_checksum());
            }
        }
    }

    #[test]
    fn packets_larger_than_the_tunnel_are_not_made() {
        let (peer, gate) = (PEER.parse().unwrap(), GATE.parse().unwrap());

        assert!(udp(gate, peer, &[0; 1392], 1420).is_some());
        assert_eq!(udp(gate, peer, &[0; 1393], 1420), None);
        assert_eq!(udp("[fd77::1]:53".parse().unwrap(), peer, b"", 1420), None);
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_is_answered_with_a_whole_packet_or_not_at_all(
            is_v4 in any::<bool>(),
            protocol in prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), any::<u8>()],
            payload in prop::collection::vec(any::<u8>(), 0..1400),
        ) {
            let (from, to): (IpAddr, IpAddr) =
                if is_v4 { ([10, 77, 0, 2].into(), [10, 77, 0, 1].into()) } else { ("fd77::2".parse().unwrap(), "fd77::1".parse().unwrap()) };
            let bytes = build(from, to, protocol.into(), payload.len(), |place| place.copy_from_slice(&payload));
            // Some numbers stand for extension headers, which end a packet's way before this.
            let Ok(packet) = Packet::parse(&bytes) else { return Ok(()) };

            for answer in [echo(&packet), refusal(&packet)].into_iter().flatten() {
                prop_assert!(answer.len() <= 1420);
                let answer = Packet::parse(&answer).unwrap();
                prop_assert_eq!((answer.source, answer.destination), (to, from));
            }
            let _ = udp_payload(&packet);
        }
    }
}

use proptest::prelude::*;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::{merge::Merger, mss::clamp, split::split, *};

/// A segment with right checksums.
fn segment(is_v4: bool, port: u16, sequence: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let head = 20 + options.len();
    let length = u16::try_from(head + payload.len()).unwrap();
    let mut bytes = if is_v4 {
        let total = (20 + length).to_be_bytes();
        vec![0x45, 0, total[0], total[1], 0, 9, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 2, 192, 168, 1, 9]
    } else {
        let length = length.to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], 6, 64, 0xfd, 0x77];
        bytes.extend([0; 13]);
        bytes.extend([2, 0xfd, 0]);
        bytes.extend([0; 13]);
        bytes.push(9);
        bytes
    };
    let start = bytes.len();
    bytes.extend(port.to_be_bytes());
    bytes.extend(443_u16.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(77_u32.to_be_bytes());
    bytes.extend([u8::try_from(head / 4).unwrap() << 4, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.extend(payload);
    if is_v4 {
        checksum::write(&mut bytes[..20], 10, 0);
    }
    let addresses = if is_v4 { bytes[12..20].to_owned() } else { bytes[8..40].to_owned() };
    checksum::write(&mut bytes[start..], 16, checksum::pseudo(&addresses, 6, length));
    bytes
}

/// What the kernel, or here smoltcp, thinks of a packet's lengths and checksums.
fn is_sound(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        ip.verify_checksum() && ip.next_header() == IpProtocol::Tcp && tcp.verify_checksum(&from, &to)
    } else {
        let ip = Ipv6Packet::new_checked(packet).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into())
    }
}

fn merged(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut merger = Merger::default();
    for packet in packets {
        merger.push(packet);
    }
    let mut written = Vec::new();
    merger.flush(|bytes| written.push(bytes.to_owned()));
    written
}

fn pieces(mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let (mut scratch, mut pieces) = (Vec::new(), Vec::new());
    assert!(split(&mut bytes, &mut scratch, |piece| pieces.push(piece.to_owned())));
    pieces
}

fn kind(written: &[u8]) -> u8 {
    Header::parse(written.first_chunk().unwrap()).kind
}

#[test]
fn segments_that_follow_one_another_become_one_packet() {
    for (is_v4, expected) in [(true, TCP_V4), (false, TCP_V6)] {
        let packets: Vec<_> =
            (0..3).map(|number| segment(is_v4, 1, 1_000 + number * 100, 0x10, b"", &[7; 100])).collect();

        let written = merged(&packets);

        assert_eq!((written.len(), kind(&written[0])), (1, expected));
    }
}

#[test]
fn what_does_not_continue_a_packet_is_not_appended() {
    let first = segment(true, 1, 1_000, 0x10, b"", &[7; 100]);
    let then = |packet: Vec<u8>| merged(&[first.clone(), packet]).len();
    let mut corrupt = segment(true, 1, 1_100, 0x10, b"", &[7; 100]);
    corrupt[60] ^= 1;

    assert_eq!(then(segment(true, 1, 1_100, 0x10, b"", &[7; 50])), 1, "a shorter last one");
    assert_eq!(then(segment(true, 1, 1_101, 0x10, b"", &[7; 100])), 2, "a gap");
    assert_eq!(then(segment(true, 2, 1_100, 0x10, b"", &[7; 100])), 2, "another connection");
    assert_eq!(then(segment(true, 1, 1_100, 0x10, b"", &[7; 101])), 2, "a longer one");
    assert_eq!(then(segment(true, 1, 1_100, 0x11, b"", &[7; 100])), 2, "the end");
    assert_eq!(then(segment(true, 1, 1_100, 0x10, &[1; 4], &[7; 96])), 2, "other options");
    assert_eq!(then(segment(false, 1, 1_100, 0x10, b"", &[7; 100])), 2, "another family");
    assert_eq!(then(corrupt), 2, "a wrong checksum, which would be made right");
}

#[test]
fn a_wrong_checksum_of_the_first_one_stays_wrong() {
    let mut first = segment(true, 1, 1_000, 0x10, b"", &[7; 100]);
    first[60] ^= 1;

    let written = merged(&[first.clone(), segment(true, 1, 1_100, 0x10, b"", &[7; 100])]);

    assert_eq!(written.len(), 2);
    assert_eq!(&written[0][HEADER..], first);
}

#[test]
fn a_packet_never_overtakes_one_of_its_own_connection() {
    let data = |sequence| segment(true, 1, sequence, 0x10, b"", &[7; 100]);
    let urgent = segment(true, 1, 1_100, 0x30, b"", &[7; 100]);

    // What follows the urgent one may not be appended to what came before it.
    let written = merged(&[data(1_000), urgent.clone(), data(1_100), data(1_200)]);

    let sequences: Vec<u8> = written.iter().map(|one| one[HEADER + 27]).collect();
    assert_eq!((written.len(), &written[1][HEADER..]), (3, &urgent[..]));
    assert_eq!(sequences, [0xe8, 0x4c, 0x4c]);
}

#[test]
fn a_checksum_that_the_kernel_left_out_is_put_in() {
    let whole = segment(true, 1, 1_000, 0x18, b"", b"hello");
    let mut bytes =
        Header { flags: NEEDS_CHECKSUM, checksum_start: 20, checksum_offset: 16, ..Header::default() }.emit().to_vec();
    bytes.extend(&whole);
    let pseudo = checksum::fold(checksum::pseudo(&whole[12..20], 6, 25));
    bytes[HEADER + 36..HEADER + 38].copy_from_slice(&pseudo.to_ne_bytes());

    assert_eq!(pieces(bytes), [whole]);
}

#[test]
fn a_syn_is_told_what_fits() {
    for (is_v4, most) in [(true, 1_380_u16), (false, 1_360)] {
        for options in [&[2, 4, 5, 0xb4][..], &[1, 2, 4, 5, 0xb4, 0, 0, 0]] {
            let mut syn = segment(is_v4, 1, 1, 0x02, options, b"");
            clamp(&mut syn, 1_420);

            let start = if is_v4 { 20 } else { 40 };
            let at = start + 20 + options.iter().position(|byte| *byte == 2).unwrap() + 2;
            assert_eq!(u16::from_be_bytes([syn[at], syn[at + 1]]), most);
            assert!(is_sound(&syn), "{is_v4} {options:?}");
        }
        let mut small = segment(is_v4, 1, 1, 0x02, &[2, 4, 2, 0], b"");
        let before = small.clone();
        clamp(&mut small, 1_420);
        assert_eq!(small, before);
    }
}

proptest! {
    #[test]
    fn what_was_merged_is_split_into_the_same_bytes(
        is_v4 in any::<bool>(),
        size in 1..1_400_usize,
        payload in prop::collection::vec(any::<u8>(), 1..60_000),
        sequence in any::<u32>(),
        push in any::<bool>(),
    ) {
        let chunks: Vec<&[u8]> = payload.chunks(size).collect();
        let packets: Vec<Vec<u8>> = chunks.iter().enumerate().map(|(number, chunk)| {
            let flags = if push && number + 1 == chunks.len() { 0x18 } else { 0x10 };
            let at = sequence.wrapping_add(u32::try_from(number * size).unwrap());
            segment(is_v4, 1, at, flags, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], chunk)
        }).collect();

        let written = merged(&packets);
        prop_assert_eq!(written.len(), 1);
        let pieces = pieces(written[0].clone());

        prop_assert_eq!(pieces.len(), packets.len());
        for (piece, packet) in pieces.iter().zip(&packets) {
            prop_assert!(is_sound(piece));
            // The identification goes on counting, which the packets of this test do not.
            let differs = |at: &usize| piece.get(*at) != packet.get(*at);
            prop_assert!((0..packet.len()).filter(differs).all(|at| is_v4 && matches!(at, 4 | 5 | 10 | 11)));
        }
    }

    #[test]
    fn whatever_the_device_says_is_taken_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(0_u8), Just(1), Just(4), Just(0x81), any::<u8>()],
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        start in 0..60_u8,
    ) {
        let mut bytes = bytes;
        for (at, value) in [(1, kind), (10, first), (6, start), (7, 0)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let mut scratch = Vec::new();
        split(&mut bytes.clone(), &mut scratch, |_| {});
        let mut merger = Merger::default();
        for _ in 0..2 {
            merger.push(bytes.get(10..).unwrap_or_default());
        }
        merger.flush(|_| {});
        if let Some(packet) = bytes.get_mut(10..) {
            clamp(packet, 1_420);
        }
    }
}

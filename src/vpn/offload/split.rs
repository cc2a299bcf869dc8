//! From one large packet of the kernel to segments.

use super::{ECN, HEADER, Header, NEEDS_CHECKSUM, TCP_V4, TCP_V6, checksum};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// Where UDP has its checksum; TCP's is at 16, ICMPv6's at 2.
const UDP_CHECKSUM: usize = 6;

/// Calls `emit` for each segment of what the device handed over, in order, with right checksums. Returns `false` if it
/// makes no sense.
pub(in crate::vpn) fn split(bytes: &mut [u8], scratch: &mut Vec<u8>, mut emit: impl FnMut(&mut [u8])) -> bool {
    let Some((header, packet)) = bytes.split_first_chunk_mut::<HEADER>() else { return false };
    let header = Header::parse(header);
    let start = usize::from(header.checksum_start);
    match header.kind & !ECN {
        0 => {
            if header.flags & NEEDS_CHECKSUM != 0 {
                let offset = usize::from(header.checksum_offset);
                let Some(payload) = packet.get_mut(start..) else { return false };
                let Some(place) = payload.get(offset..offset + 2) else { return false };
                // The kernel has put the sum over the pseudo header there.
                let pseudo = u64::from(u16::from_ne_bytes([place[0], place[1]]));
                checksum::write(payload, offset, pseudo);
                // RFC 768: a sum of zero is sent as its complement; zero means that there is none.
                if offset == UDP_CHECKSUM && payload[offset..offset + 2] == [0, 0] {
                    payload[offset..offset + 2].fill(0xff);
                }
            }
            emit(packet);
            true
        }
        TCP_V4 | TCP_V6 => tcp(packet, start, usize::from(header.segment), scratch, emit),
        _ => false,
    }
}

fn tcp(packet: &[u8], start: usize, segment: usize, scratch: &mut Vec<u8>, mut emit: impl FnMut(&mut [u8])) -> bool {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let addresses = if is_v4 { packet.get(12..20) } else { packet.get(8..40) };
    let least = if is_v4 { 20 } else { 40 };
    let (Some(addresses), Some(tcp)) = (addresses, packet.get(start..).filter(|_| start >= least)) else {
        return false;
    };
    let Some(header) = tcp.first_chunk::<20>() else { return false };
    let head = start + usize::from(header[12] >> 4) * 4;
    let (Some(headers), Some(payload)) = (packet.get(..head).filter(|_| head >= start + 20), packet.get(head..)) else {
        return false;
    };
    if segment == 0 || payload.is_empty() {
        return false;
    }
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let id = u16::from_be_bytes([packet[4], packet[5]]);
    let last = (payload.len() - 1) / segment;
    for (number, chunk) in payload.chunks(segment).enumerate() {
        scratch.clear();
        scratch.extend_from_slice(headers);
        scratch.extend_from_slice(chunk);
        let Ok(length) = u16::try_from(scratch.len()) else { return false };
        let Ok(number32) = u32::try_from(number * segment) else { return false };
        if is_v4 {
            scratch[2..4].copy_from_slice(&length.to_be_bytes());
            let number16 = u16::try_from(number).unwrap_or_default();
            scratch[4..6].copy_from_slice(&id.wrapping_add(number16).to_be_bytes());
            checksum::write(&mut scratch[..start], 10, 0);
        } else {
            scratch[4..6].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
        }
        scratch[start + 4..start + 8].copy_from_slice(&sequence.wrapping_add(number32).to_be_bytes());
        if number != last {
            scratch[start + 13] &= !(FIN | PSH);
        }
        if number != 0 {
            scratch[start + 13] &= !CWR;
        }
        let pseudo = checksum::pseudo(addresses, 6, length.saturating_sub(u16::try_from(start).unwrap_or(u16::MAX)));
        checksum::write(&mut scratch[start..], 16, pseudo);
        emit(scratch);
    }
    true
}

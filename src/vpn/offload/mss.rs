//! The largest segment that both ends of a connection are told, so that it fits the tunnel (RFC 6691).

use super::checksum;

const SYN: u8 = 0x02;
const MSS: u8 = 2;

/// Lowers what a SYN says to what fits into packets of `mtu` bytes.
pub(in crate::vpn) fn clamp(packet: &mut [u8], mtu: usize) {
    let start = match packet.first().map(|first| first >> 4) {
        // A later piece has no header of TCP where it seems to have one.
        Some(4) if packet.get(9) == Some(&6) && packet[6] & 0x1f == 0 && packet[7] == 0 => {
            usize::from(packet[0] & 0x0f) * 4
        }
        Some(6) if packet.get(6) == Some(&6) => 40,
        _ => return,
    };
    let Ok(most) = u16::try_from(mtu.saturating_sub(start + 20)) else { return };
    let Some(tcp) = packet.get_mut(start..) else { return };
    if tcp.get(13).is_none_or(|flags| flags & SYN == 0) {
        return;
    }
    let end = usize::from(tcp[12] >> 4) * 4;
    let mut at = 20;
    while at + 4 <= end && end <= tcp.len() {
        match (tcp[at], tcp[at + 1]) {
            (0, _) => return,
            (1, _) => at += 1,
            (MSS, 4) => {
                let said = u16::from_be_bytes([tcp[at + 2], tcp[at + 3]]);
                if said > most {
                    let before = [tcp[at + 2], tcp[at + 3]];
                    tcp[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
                    // Options may begin at an odd place; what the sum changes by is the same with swapped bytes then.
                    adjust(tcp, at, before, most.to_be_bytes());
                }
                return;
            }
            (_, length) if length >= 2 => at += usize::from(length),
            _ => return,
        }
    }
}

/// RFC 1624 §3: HC' = ~(~HC + ~m + m').
fn adjust(tcp: &mut [u8], at: usize, before: [u8; 2], after: [u8; 2]) {
    let word = |bytes: [u8; 2]| {
        if at.is_multiple_of(2) { u16::from_ne_bytes(bytes) } else { u16::from_ne_bytes([bytes[1], bytes[0]]) }
    };
    let sum = u64::from(!u16::from_ne_bytes([tcp[16], tcp[17]])) + u64::from(!word(before)) + u64::from(word(after));
    tcp[16..18].copy_from_slice(&(!checksum::fold(sum)).to_ne_bytes());
}

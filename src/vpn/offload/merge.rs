//! From segments to one large packet for the kernel.

use super::{HEADER, Header, NEEDS_CHECKSUM, TCP_V4, TCP_V6, checksum};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// What a packet may have altogether, by its 16 bits of length.
const LONGEST: usize = 65_535;
/// Packets that wait to be written; the order within a connection is kept, however many there are.
const WAITING: usize = 64;

/// Packets on their way to the device.
#[derive(Debug, Default)]
pub(in crate::vpn) struct Merger {
    waiting: Vec<Waiting>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Waiting {
    /// With room for the header in front.
    bytes: Vec<u8>,
    /// What it can be appended to.
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    /// Where TCP begins, and where its payload does.
    start: usize,
    head: usize,
    segment: usize,
    segments: usize,
    next: u32,
    is_open: bool,
    /// The first one's checksum was found right.
    was_checked: bool,
}

impl Merger {
    /// Takes a whole packet. What `is_full` says afterwards must be heeded.
    pub(in crate::vpn) fn push(&mut self, packet: &[u8]) {
        let found = stream(packet);
        if let Some(new) = &found {
            // The newest one of this connection: what came after it must not be overtaken.
            let same = |one: &&mut Waiting| is_same_connection(one, packet, new.start);
            if let Some(waiting) = self.waiting.iter_mut().rev().find(same)
                && append(waiting, packet, new)
            {
                return;
            }
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&[0; HEADER]);
        bytes.extend_from_slice(packet);
        self.waiting.push(Waiting { bytes, stream: found });
    }

    /// Says whether it is time to write.
    pub(in crate::vpn) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING
    }

    /// Hands everything to the device, each with its header.
    pub(in crate::vpn) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        for mut waiting in self.waiting.drain(..) {
            if let Some(stream) = waiting.stream.as_ref().filter(|stream| stream.segments > 1) {
                seal(&mut waiting.bytes, stream);
            }
            write(&waiting.bytes);
            if self.spare.len() < WAITING {
                self.spare.push(waiting.bytes);
            }
        }
    }
}

fn addresses(packet: &[u8]) -> &[u8] {
    let range = if packet.first().is_some_and(|first| first >> 4 == 4) { 12..20 } else { 8..40 };
    packet.get(range).unwrap_or_default()
}

/// Reads a packet that others could be appended to: TCP with payload, nothing unusual in its headers.
fn stream(packet: &[u8]) -> Option<Stream> {
    let start = match packet.first()? >> 4 {
        // No options, no piece of a packet.
        4 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let is_plain = header[0] == 0x45 && header[9] == 6 && header[6] & 0x3f == 0 && header[7] == 0;
            (is_plain && checksum::is_right(header, 0)).then_some(20)?
        }
        6 => {
            let header: &[u8; 40] = packet.first_chunk()?;
            (header[6] == 6).then_some(40)?
        }
        _ => return None,
    };
    let tcp: &[u8; 20] = packet.get(start..)?.first_chunk()?;
    let head = start + usize::from(tcp[12] >> 4) * 4;
    let flags = tcp[13];
    if head < start + 20 || packet.len() <= head || flags & !PSH != ACK {
        return None;
    }
    let segment = packet.len() - head;
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let next = sequence.wrapping_add(u32::try_from(segment).ok()?);
    Some(Stream { start, head, segment, segments: 1, next, is_open: flags & PSH == 0, was_checked: false })
}

fn is_same_connection(waiting: &Waiting, packet: &[u8], start: usize) -> bool {
    let before = waiting.bytes.get(HEADER..).unwrap_or_default();
    let ports = |packet: &[u8]| packet.get(start..start + 4).map(<[u8]>::to_owned);
    before.first() == packet.first() && addresses(before) == addresses(packet) && ports(before) == ports(packet)
}

/// Appends a segment if it continues what waits.
fn append(waiting: &mut Waiting, packet: &[u8], new: &Stream) -> bool {
    let Some(stream) = &mut waiting.stream else { return false };
    let Some((_, before)) = waiting.bytes.split_first_chunk::<HEADER>() else { return false };
    let sequence = new.next.wrapping_sub(u32::try_from(new.segment).unwrap_or(u32::MAX));
    let fits = stream.is_open
        && stream.next == sequence
        && new.segment <= stream.segment
        && before.len() + new.segment <= LONGEST
        && (stream.start, stream.head) == (new.start, new.head)
        && same_headers(before, packet, stream);
    if !fits || !is_intact(packet, new.start) {
        return false;
    }
    // A wrong checksum would be made right by the kernel's.
    if !stream.was_checked && !is_intact(before, stream.start) {
        stream.is_open = false;
        return false;
    }
    stream.was_checked = true;
    stream.segments += 1;
    stream.next = new.next;
    // A shorter segment, or one to be handed on at once, is the last.
    stream.is_open = new.is_open && new.segment == stream.segment;
    if !new.is_open {
        let flags = HEADER + stream.start + 13;
        waiting.bytes[flags] |= PSH;
    }
    waiting.bytes.extend_from_slice(&packet[new.head..]);
    true
}

/// Compares what must be the same: all of both headers but length, identification, checksums, sequence and PSH.
fn same_headers(before: &[u8], packet: &[u8], stream: &Stream) -> bool {
    let same = |range: std::ops::Range<usize>| before.get(range.clone()) == packet.get(range);
    let ip = if stream.start == 20 { same(0..2) && same(6..10) } else { same(0..4) && same(6..8) };
    let tcp = stream.start;
    // Acknowledgement, offset, window, urgent pointer and options.
    ip && same(tcp + 8..tcp + 13) && same(tcp + 14..tcp + 16) && same(tcp + 18..stream.head)
}

fn is_intact(packet: &[u8], start: usize) -> bool {
    let Some(tcp) = packet.get(start..) else { return false };
    let Ok(length) = u16::try_from(tcp.len()) else { return false };
    checksum::is_right(tcp, checksum::pseudo(addresses(packet), 6, length))
}

/// Writes the headers of a packet that has become longer.
fn seal(bytes: &mut [u8], stream: &Stream) {
    let (start, head) = (stream.start, stream.head);
    let Some((header, packet)) = bytes.split_first_chunk_mut::<HEADER>() else { return };
    let Ok(length) = u16::try_from(packet.len()) else { return };
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let is_v4 = start == 20;
    if is_v4 {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        checksum::write(&mut packet[..20], 10, 0);
    } else {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    let pseudo = checksum::fold(checksum::pseudo(addresses(packet), 6, length - short(start)));
    packet[start + 16..start + 18].copy_from_slice(&pseudo.to_ne_bytes());
    let said = Header {
        flags: NEEDS_CHECKSUM,
        kind: if is_v4 { TCP_V4 } else { TCP_V6 },
        header_length: short(head),
        segment: short(stream.segment),
        checksum_start: short(start),
        checksum_offset: 16,
    };
    header.copy_from_slice(&said.emit());
}

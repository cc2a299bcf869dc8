//! Large packets at the TUN device: the kernel hands over up to 64 KiB with one header and takes as much, and what
//! travels in the tunnel are segments. Saves a system call and a walk through the kernel's stack per segment.

mod checksum;
pub(super) mod merge;
pub(super) mod mss;
pub(super) mod split;

/// The header that stands before each packet at the device (virtio 1.2 §5.1.6, without the number of buffers).
pub(super) const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
/// Set beside the kind if the first segment alone has CWR.
const ECN: u8 = 0x80;

/// What the header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    flags: u8,
    kind: u8,
    header_length: u16,
    segment: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            kind: bytes[1],
            header_length: word(2),
            segment: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    fn emit(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.flags;
        bytes[1] = self.kind;
        bytes[2..4].copy_from_slice(&self.header_length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests;

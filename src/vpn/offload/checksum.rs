//! The Internet checksum (RFC 1071), in the byte order of the machine: the sum of swapped words is the swapped sum.

/// Adds bytes to a sum; all but the last piece must have an even length.
pub(super) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let mut sum = sum;
    let mut words = bytes.chunks_exact(4);
    // Sixteen thousand words of 64 KiB stay far below 64 bits.
    sum += words.by_ref().map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).sum::<u64>();
    let rest = words.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

/// Folds a sum to 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("it was folded until it fits")
}

/// Returns the sum over the pseudo header: both addresses one after the other, protocol and length.
pub(super) fn pseudo(addresses: &[u8], protocol: u8, length: u16) -> u64 {
    let sum = add(0, addresses) + u64::from(u16::from_ne_bytes([0, protocol]));
    sum + u64::from(u16::from_ne_bytes(length.to_be_bytes()))
}

/// Writes the checksum over `bytes` at `offset` in it; the place is taken as zero.
pub(super) fn write(bytes: &mut [u8], offset: usize, pseudo: u64) {
    if let Some(place) = bytes.get_mut(offset..offset + 2) {
        place.fill(0);
        let sum = !fold(add(pseudo, bytes));
        bytes[offset..offset + 2].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// Says whether the checksum in `bytes` is right.
pub(super) fn is_right(bytes: &[u8], pseudo: u64) -> bool {
    fold(add(pseudo, bytes)) == 0xffff
}

//! Keys of names: a keyed 64-bit hash of every suffix of a name, made in one pass from the right.
//!
//! The hash is SipHash-1-3 over the labels, the last label first. A label goes in as it stands in wire form
//! (length, then lower-case letters), filled up to whole words with zeros; the length comes first, so no two
//! lists of labels give the same words. Whoever writes a block list or asks a question does not know the
//! seed, and so cannot make two names collide.

/// The secret that the hash is keyed with; another one for every table.
#[derive(Clone, Copy)]
pub(super) struct Seed([u64; 4]);

impl Seed {
    /// Takes a seed from the system's random source.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        Ok(Self::new(getrandom::u64()?, getrandom::u64()?))
    }

    pub(super) const fn new(k0: u64, k1: u64) -> Self {
        // The constants of SipHash.
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    /// Returns the key of a whole name in wire form; `None` if it is no name.
    pub(super) fn key(self, name: &[u8]) -> Option<u64> {
        self.suffixes(name)?.last().map(|suffix| suffix.key)
    }

    /// Returns the keys of all suffixes of a name in wire form, the shortest first and the root left out;
    /// `None` if it is no name.
    pub(super) fn suffixes(self, name: &[u8]) -> Option<Suffixes<'_>> {
        let mut starts = [0; MAX_LABELS];
        let (mut labels, mut at) = (0, 0);
        loop {
            let length = *name.get(at)?;
            if length == 0 {
                break;
            }
            if length > 63 {
                return None;
            }
            *starts.get_mut(labels)? = u8::try_from(at).ok()?;
            labels += 1;
            at += 1 + usize::from(length);
        }
        // RFC 1035 §2.3.4: at most 255 octets with the last one.
        (at < 255).then_some(Suffixes { name, starts, left: labels, state: self.0 })
    }
}

/// RFC 1035 §2.3.4: 255 octets hold at most 127 labels and the root.
const MAX_LABELS: usize = 127;

/// A suffix of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suffix {
    pub(super) key: u64,
    /// The suffix is the name itself.
    pub(super) whole: bool,
}

/// The suffixes of a name, from the right.
pub(super) struct Suffixes<'a> {
    name: &'a [u8],
    starts: [u8; MAX_LABELS],
    left: usize,
    state: [u64; 4],
}

impl Iterator for Suffixes<'_> {
    type Item = Suffix;

    #[inline]
    fn next(&mut self) -> Option<Suffix> {
        self.left = self.left.checked_sub(1)?;
        let start = usize::from(*self.starts.get(self.left)?);
        let length = 1 + usize::from(*self.name.get(start)?);
        for offset in (0..length).step_by(8) {
            let word = lower_case(word_at(self.name, start + offset, length - offset));
            self.state[3] ^= word;
            round(&mut self.state);
            self.state[0] ^= word;
        }
        Some(Suffix { key: finish(self.state), whole: self.left == 0 })
    }
}

/// Reads up to eight octets, the rest of the word is zero.
#[inline]
fn word_at(name: &[u8], at: usize, length: usize) -> u64 {
    let length = length.min(8);
    let mut octets = [0; 8];
    if let Some(eight) = name.get(at..at + 8) {
        octets.copy_from_slice(eight);
        u64::from_le_bytes(octets) & (u64::MAX >> (64 - 8 * length))
    } else {
        let rest = name.get(at..at + length).unwrap_or_default();
        octets[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(octets)
    }
}

/// Makes the ASCII letters among eight octets lower-case. A length octet is below `A` and stays.
#[inline]
const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven_bits = word & (ONES * 0x7f);
    let from_a = seven_bits + ONES * (0x80 - b'A' as u64);
    let above_z = seven_bits + ONES * (0x80 - b'Z' as u64 - 1);
    let upper = from_a & !above_z & !word & (ONES * 0x80);
    word | (upper >> 2)
}

#[inline]
const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[inline]
const fn finish(mut v: [u64; 4]) -> u64 {
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed::new(1, 2);

    #[test]
    fn a_suffix_has_the_key_of_the_name_it_is() {
        let keys: Vec<Suffix> = SEED.suffixes(b"\x0bverylonghost\x03com\x00").into_iter().flatten().collect();
        assert!(keys.is_empty(), "11 octets announced, 12 there: no name");

        let keys: Vec<Suffix> = SEED.suffixes(b"\x0cverylonghost\x07Example\x03com\x00").unwrap().collect();

        assert_eq!(keys.len(), 3);
        assert_eq!(Some(keys[0].key), SEED.key(b"\x03com\x00"));
        assert_eq!(Some(keys[1].key), SEED.key(b"\x07eXample\x03COM\x00"));
        assert_eq!(Some(keys[2].key), SEED.key(b"\x0cVERYLONGHOST\x07example\x03com\x00"));
        assert_eq!(keys.iter().map(|suffix| suffix.whole).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn other_names_and_other_seeds_have_other_keys() {
        let names: [&[u8]; 6] = [
            b"\x01a\x00",
            b"\x01b\x00",
            b"\x02ab\x00",
            b"\x01a\x01b\x00",
            b"\x01b\x01a\x00",
            b"\x07\0\0\0\0\0\0\0\x00",
        ];
        let mut keys: Vec<_> = names.iter().map(|name| SEED.key(name).unwrap()).collect();
        keys.extend(names.iter().map(|name| Seed::new(2, 1).key(name).unwrap()));

        keys.sort_unstable();
        keys.dedup();

        assert_eq!(keys.len(), 12);
    }

    #[test]
    fn only_letters_change_their_case() {
        for octet in 0..=255_u8 {
            let word = u64::from_le_bytes([octet; 8]);
            let expected = u64::from_le_bytes([octet.to_ascii_lowercase(); 8]);
            assert_eq!(lower_case(word), expected, "{octet:#x}");
        }
    }

    #[test]
    fn what_is_no_name_has_no_key() {
        for bytes in [&b""[..], b"\x03com", b"\x40aaa\x00", b"\xc0\x0c", &[1; 256], &[1; 600]] {
            assert_eq!(SEED.key(bytes), None);
        }
        assert_eq!(SEED.key(b"\x00"), None, "the root has no suffix to look up");
    }
}

//! RSA signatures with keys shorter than the library takes (RFC 3110 and RFC 5702 allow 512 bits and up).
//!
//! Such keys are no protection any more, so they count only where tests ask for them: the examples of the
//! RFCs were signed with them. Only public values are handled; nothing here needs to be constant in time.

use hickory_proto::dnssec::{DigestType, crypto::Digest};

/// The library takes keys from this size on.
pub const SHORTEST_OF_LIBRARY: usize = 1024;

/// Splits the key of a DNSKEY record into exponent and modulus (RFC 3110 §2).
pub fn parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match key {
        [0, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [length, rest @ ..] => (usize::from(*length), rest),
        [] => return None,
    };
    let (exponent, modulus) = rest.split_at_checked(length)?;
    let modulus = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
    (!exponent.is_empty() && !modulus.is_empty()).then_some((exponent, modulus))
}

/// Checks a PKCS #1 v1.5 signature (RFC 8017 §8.2.2) with SHA-1 (`algorithm` 5 or 7) or SHA-256 (8).
pub fn verify(algorithm: u8, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some((exponent, modulus)) = parts(key) else { return false };
    if signature.len() != modulus.len() || modulus.len() * 8 >= SHORTEST_OF_LIBRARY || modulus.len() < 62 {
        return false;
    }
    // DigestInfo in DER, up to the digest.
    let (prefix, kind): (&[u8], _) = match algorithm {
        5 | 7 => (
            &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14],
            DigestType::SHA1,
        ),
        8 => (
            &[
                0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
                0x04, 0x20,
            ],
            DigestType::SHA256,
        ),
        _ => return false,
    };
    let Ok(digest) = Digest::new(message, kind) else { return false };
    let digest = digest.as_ref();
    let Some(padding) = modulus.len().checked_sub(3 + prefix.len() + digest.len()).filter(|count| *count >= 8) else {
        return false;
    };
    let mut expected = vec![0, 1];
    expected.resize(2 + padding, 0xff);
    expected.push(0);
    expected.extend_from_slice(prefix);
    expected.extend_from_slice(digest);
    power(signature, exponent, modulus) == expected
}

/// Returns base^exponent mod modulus, as long as the modulus.
pub(super) fn power(base: &[u8], exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let modulus_limbs = limbs(modulus);
    let base = reduce(limbs(base), &modulus_limbs);
    let mut result = reduce(vec![1], &modulus_limbs);
    for byte in exponent {
        for bit in (0..8).rev() {
            result = reduce(product(&result, &result), &modulus_limbs);
            if byte >> bit & 1 == 1 {
                result = reduce(product(&result, &base), &modulus_limbs);
            }
        }
    }
    bytes(&result, modulus.len())
}

/// The octets of a number, so many of them.
pub(super) fn bytes(number: &[u32], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = number.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
    let extra = bytes.len().saturating_sub(length);
    bytes.drain(..extra);
    let mut out = vec![0; length - bytes.len()];
    out.append(&mut bytes);
    out
}

/// Little-endian.
pub(super) fn limbs(bytes: &[u8]) -> Vec<u32> {
    bytes.rchunks(4).map(|chunk| chunk.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte))).collect()
}

pub(super) fn product(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut out = vec![0_u32; a.len() + b.len()];
    for (i, x) in a.iter().enumerate() {
        let mut carry = 0_u64;
        for (j, y) in b.iter().enumerate() {
            let sum = u64::from(*x) * u64::from(*y) + u64::from(out[i + j]) + carry;
            out[i + j] = low(sum);
            carry = sum >> 32;
        }
        out[i + b.len()] = low(carry);
    }
    out
}

fn low(wide: u64) -> u32 {
    u32::try_from(wide & 0xffff_ffff).expect("masked")
}

/// Remainder, bit by bit: slow and plain.
pub(super) fn reduce(value: Vec<u32>, modulus: &[u32]) -> Vec<u32> {
    let mut rest = vec![0_u32; modulus.len() + 1];
    for limb in value.iter().rev() {
        for bit in (0..32).rev() {
            let mut carry = limb >> bit & 1;
            for digit in &mut rest {
                let next = *digit >> 31;
                *digit = *digit << 1 | carry;
                carry = next;
            }
            if !less(&rest, modulus) {
                let mut borrow = 0_i64;
                for (at, digit) in rest.iter_mut().enumerate() {
                    let sub = i64::from(modulus.get(at).copied().unwrap_or(0));
                    let difference = i64::from(*digit) - sub + borrow;
                    borrow = difference >> 32;
                    *digit = u32::try_from(difference & 0xffff_ffff).expect("masked");
                }
            }
        }
    }
    rest.truncate(modulus.len());
    rest
}

fn less(value: &[u32], modulus: &[u32]) -> bool {
    for at in (0..value.len()).rev() {
        let against = modulus.get(at).copied().unwrap_or(0);
        if value[at] != against {
            return value[at] < against;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_agree_with_small_numbers() {
        for (base, exponent, modulus) in [(7_u64, 65537_u64, 1_000_003_u64), (2, 10, 1000), (0, 3, 97), (96, 2, 97)] {
            let mut expected = 1;
            for _ in 0..exponent {
                expected = expected * base % modulus;
            }
            let modulus_bytes: Vec<u8> = modulus.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();

            let found = power(&base.to_be_bytes(), &exponent.to_be_bytes(), &modulus_bytes);

            assert_eq!(found.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), expected);
        }
    }
}

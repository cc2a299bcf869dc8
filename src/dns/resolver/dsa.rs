//! DSA signatures (RFC 2536), which must not be made or checked any more (RFC 9904).
//!
//! They count only where tests ask for keys that are no protection: much of what others wrote to try validators with
//! was signed so. Only public values are handled; nothing here needs to be constant in time.

use hickory_proto::dnssec::{DigestType, crypto::Digest};

use super::rsa::{bytes, limbs, power, product, reduce};

/// Octets of the order of the group, and of each half of a signature (RFC 2536 §2, §3).
const ORDER: usize = 20;

/// Checks a signature with SHA-1 (algorithm 3 or 6). `key` is the data of a DNSKEY record behind its algorithm.
pub(super) fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(key) = Key::parse(key) else { return false };
    let [_, halves @ ..] = signature else { return false };
    let Some((r, s)) = halves.split_at_checked(ORDER).filter(|(_, s)| s.len() == ORDER) else { return false };
    let is_within = |half: &[u8]| half.iter().any(|byte| *byte != 0) && half < key.order;
    if !is_within(r) || !is_within(s) {
        return false;
    }
    let Ok(digest) = Digest::new(message, DigestType::SHA1) else { return false };
    // FIPS 186-2 §6: w = 1/s, which for a prime order is s to its power less two.
    let order = limbs(key.order);
    let mut exponent = key.order.to_vec();
    let Some(last) = exponent.last_mut().filter(|last| **last >= 2) else { return false };
    *last -= 2;
    let w = limbs(&power(s, &exponent, key.order));
    let times = |value: &[u8]| bytes(&reduce(product(&limbs(value), &w), &order), ORDER);
    let (u1, u2) = (times(digest.as_ref()), times(r));
    let (of_base, of_key) = (power(key.base, &u1, key.prime), power(key.public, &u2, key.prime));
    let both = reduce(product(&limbs(&of_base), &limbs(&of_key)), &limbs(key.prime));
    bytes(&reduce(both, &order), ORDER) == r
}

struct Key<'a> {
    order: &'a [u8],
    prime: &'a [u8],
    base: &'a [u8],
    public: &'a [u8],
}

impl<'a> Key<'a> {
    /// RFC 2536 §2: T, then Q, P, G and Y, where the last three have 64 + 8 T octets.
    fn parse(key: &'a [u8]) -> Option<Self> {
        let [size, rest @ ..] = key else { return None };
        let length = 64 + 8 * usize::from(*size).min(9);
        let (order, rest) = rest.split_at_checked(ORDER)?;
        let (prime, rest) = rest.split_at_checked(length)?;
        let (base, public) = rest.split_at_checked(length)?;
        // The remainder is found bit by bit: of an even or a small prime it would be none.
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let is_whole = *size <= 8 && public.len() == length && is_odd(order) && is_odd(prime) && order[0] >= 0x80;
        is_whole.then_some(Self { order, prime, base, public })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 186-2, appendix 5: the example.
    const ORDER_HEX: &str = "c773218c737ec8ee993b4f2ded30f48edace915f";
    const PRIME_HEX: &str = "8df2a494492276aa3d25759bb06869cbeac0d83afb8d0cf7cbb8324f0d7882e5d0762fc5b7210eafc2e9adac32ab7aac\
                             49693dfbf83724c2ec0736ee31c80291";
    const BASE_HEX: &str = "626d027839ea0a13413163a55b4cb500299d5522956cefcb3bff10f399ce2c2e71cb9de5fa24babf58e5b79521925c9c\
                            c42e9f6f464b088cc572af53e6d78802";
    const PUBLIC_HEX: &str = "19131871d75b1612a819f29d78d1b0d7346f7aa77bb62a859bfd6c5675da9d212d3a36ef1672ef660b8c7c255cc0ec74\
                              858fba33f44c06699630a76b030ee333";
    const SIGNATURE_HEX: &str = "8bac1ab66410435cb7181f95b16ab97c92b341c041e2345f1f56df2458f426d155b4ba2db6dcd8c8";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn fips_186_2_the_example_holds_and_nothing_near_it_does() {
        let key = [&[0], &hex(ORDER_HEX)[..], &hex(PRIME_HEX), &hex(BASE_HEX), &hex(PUBLIC_HEX)].concat();
        let signature = [&[0][..], &hex(SIGNATURE_HEX)].concat();

        assert!(verify(&key, b"abc", &signature));
        assert!(!verify(&key, b"abd", &signature));
        for at in [1, 20, 21, 40] {
            let mut other = signature.clone();
            other[at] ^= 1;
            assert!(!verify(&key, b"abc", &other), "octet {at}");
        }
        for length in 0..signature.len() {
            assert!(!verify(&key, b"abc", &signature[..length]));
        }
        for length in 0..key.len() {
            assert!(!verify(&key[..length], b"abc", &signature));
        }
    }
}

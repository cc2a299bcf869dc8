//! Signatures, keys and digests: what is signed, byte for byte, and whether a key made the signature.
//!
//! The signing input is built here from wire form (RFC 4034 §3.1.8.1, §6): canonical data, sorted as
//! octets, each record once. Cryptography itself is the library's.

use std::sync::Arc;

use hickory_proto::dnssec::{Algorithm, DigestType, PublicKey, PublicKeyBuf, crypto::Digest};

use super::{dsa, name::Name, rrset::Rrset, rsa, wire::rtype};

/// An RRSIG's data (RFC 4034 §3.1).
#[derive(Clone, Debug)]
pub struct Rrsig<'a> {
    /// The type that it covers.
    pub covered: u16,
    /// The algorithm's number.
    pub algorithm: u8,
    /// Labels of the owner before wildcard expansion.
    pub labels: u8,
    /// The TTL that was signed.
    pub original_ttl: u32,
    /// Seconds, in serial arithmetic.
    pub expiration: u32,
    /// Seconds, in serial arithmetic.
    pub inception: u32,
    /// The tag of the key.
    pub key_tag: u16,
    /// The zone.
    pub signer: Name,
    /// All of the data before the signature.
    head: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Rrsig<'a> {
    /// Reads the data of an RRSIG record.
    pub fn parse(rdata: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = rdata.split_first_chunk::<18>()?;
        let (signer, signature) = Name::split_from(rest)?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let long = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        Some(Self {
            covered: word(0),
            algorithm: fixed[2],
            labels: fixed[3],
            original_ttl: long(4),
            expiration: long(8),
            inception: long(12),
            key_tag: word(16),
            signer,
            head: &rdata[..18],
            signature,
        })
    }

    /// Says where `now` lies, with a tolerance for clocks that are a little off: a tenth of the validity,
    /// at most an hour.
    pub fn window(&self, now: u32) -> Window {
        let validity = self.expiration.wrapping_sub(self.inception);
        if validity > i32::MAX.unsigned_abs() {
            return Window::Never;
        }
        let skew = (validity / 10).min(3600);
        let after = |a: u32, b: u32| a.wrapping_sub(b) < 1 << 31;
        if !after(now.wrapping_add(skew), self.inception) {
            Window::NotYet
        } else if !after(self.expiration.wrapping_add(skew), now) {
            Window::Expired
        } else {
            Window::Valid
        }
    }

    /// Seconds until the signature expires.
    pub fn remaining(&self, now: u32) -> u32 {
        let left = self.expiration.wrapping_sub(now);
        if left < 1 << 31 { left } else { 0 }
    }
}

/// Where the time lies against a signature's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Inside.
    Valid,
    /// It begins later.
    NotYet,
    /// It is over.
    Expired,
    /// It ends before it begins.
    Never,
}

/// Flags of a DNSKEY (RFC 4034 §2.1.1, RFC 5011 §7).
const ZONE: u16 = 0x0100;
const REVOKE: u16 = 0x0080;
const SEP: u16 = 0x0001;

/// A DNSKEY's data (RFC 4034 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnskey {
    /// ZONE, SEP, REVOKE.
    pub flags: u16,
    /// The algorithm's number.
    pub algorithm: u8,
    /// RFC 4034 appendix B.
    pub tag: u16,
    /// The whole data.
    pub rdata: Arc<[u8]>,
}

impl Dnskey {
    /// Reads the data of a DNSKEY record; `None` for one that must not be used (RFC 4034 §2.1.1, §2.1.2,
    /// RFC 5011 §2.1).
    pub fn parse(rdata: &Arc<[u8]>) -> Option<Self> {
        Self::read(rdata).filter(|key| key.flags & REVOKE == 0)
    }

    /// Reads the data of a DNSKEY record that is revoked (RFC 5011 §2.1).
    pub fn parse_revoked(rdata: &Arc<[u8]>) -> Option<Self> {
        Self::read(rdata).filter(|key| key.flags & REVOKE != 0 && key.is_entry())
    }

    fn read(rdata: &Arc<[u8]>) -> Option<Self> {
        let [f0, f1, protocol, algorithm, key @ ..] = &rdata[..] else { return None };
        let flags = u16::from_be_bytes([*f0, *f1]);
        (flags & ZONE != 0 && *protocol == 3 && !key.is_empty()).then(|| Self {
            flags,
            algorithm: *algorithm,
            tag: key_tag(rdata),
            rdata: rdata.clone(),
        })
    }

    /// Says whether it signs keys (RFC 4034 §2.1.1: SEP).
    pub fn is_entry(&self) -> bool {
        self.flags & SEP != 0
    }

    /// Returns its data as it was before it was revoked.
    pub fn unrevoked(&self) -> Arc<[u8]> {
        let mut rdata = self.rdata.to_vec();
        rdata[..2].copy_from_slice(&(self.flags & !REVOKE).to_be_bytes());
        rdata.into()
    }

    /// Says whether this key made this signature over this RRset.
    pub fn verify(&self, rrset: &Rrset, rrsig: &Rrsig<'_>, support: Support) -> bool {
        let Some(input) = signing_input(rrset, rrsig) else { return false };
        if matches!(self.algorithm, 3 | 6) {
            return support.short_keys && dsa::verify(&self.rdata[4..], &input, rrsig.signature);
        }
        if support.short_keys
            && matches!(self.algorithm, 5 | 7 | 8)
            && rsa::parts(&self.rdata[4..]).is_some_and(|(_, modulus)| modulus.len() * 8 < rsa::SHORTEST_OF_LIBRARY)
        {
            return rsa::verify(self.algorithm, &self.rdata[4..], &input, rrsig.signature);
        }
        let key = PublicKeyBuf::new(self.rdata[4..].to_vec(), Algorithm::from_u8(self.algorithm));
        key.verify(&input, rrsig.signature).is_ok()
    }
}

/// Returns the tag of a key (RFC 4034 appendix B).
pub fn key_tag(rdata: &[u8]) -> u16 {
    let sum: u32 = rdata
        .iter()
        .enumerate()
        .map(|(at, byte)| if at % 2 == 0 { u32::from(*byte) << 8 } else { u32::from(*byte) })
        .fold(0, u32::wrapping_add);
    let folded = sum.wrapping_add(sum >> 16) & 0xffff;
    u16::try_from(folded).expect("sixteen bits")
}

/// Octets of the longest digest that a DS record can have: 64, of SHA-512 and its like.
const LONGEST_DIGEST: usize = 64;

/// A DS record's data (RFC 4034 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ds {
    /// The key's tag.
    pub tag: u16,
    /// The key's algorithm.
    pub algorithm: u8,
    /// How the digest was made.
    pub digest_type: u8,
    /// The digest.
    pub digest: Vec<u8>,
}

impl Ds {
    /// Reads the data of a DS record. Of a digest that is longer than any that was ever defined nothing is kept: it is
    /// no key's, and still says that the zone is signed.
    pub fn parse(rdata: &[u8]) -> Option<Self> {
        let [t0, t1, algorithm, digest_type, digest @ ..] = rdata else { return None };
        Some(Self {
            tag: u16::from_be_bytes([*t0, *t1]),
            algorithm: *algorithm,
            digest_type: *digest_type,
            digest: if digest.len() > LONGEST_DIGEST { Vec::new() } else { digest.to_vec() },
        })
    }

    /// Says whether this is the digest of that key of this zone.
    pub fn covers(&self, zone: &Name, key: &Dnskey) -> bool {
        if self.tag != key.tag || self.algorithm != key.algorithm {
            return false;
        }
        let kind = match self.digest_type {
            1 => DigestType::SHA1,
            2 => DigestType::SHA256,
            4 => DigestType::SHA384,
            _ => return false,
        };
        Digest::from_iter([zone.as_wire(), &key.rdata], kind).is_ok_and(|digest| digest.as_ref() == self.digest)
    }
}

/// Which algorithms and digests count, by the owner's choice on SHA-1 (RFC 9904, 9905).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// SHA-1 in signatures and in DS digests.
    pub sha1: bool,
    /// RSA keys shorter than 1024 bits, and with SHA-1 also DSA, for tests.
    pub short_keys: bool,
}

impl Support {
    /// Says whether signatures of this algorithm can be checked.
    pub fn algorithm(self, number: u8) -> bool {
        match number {
            5 | 7 => self.sha1,
            3 | 6 => self.sha1 && self.short_keys,
            8 | 10 | 13 | 14 | 15 => true,
            _ => false,
        }
    }

    /// Says whether digests of this type can be checked.
    pub fn digest(self, number: u8) -> bool {
        match number {
            1 => self.sha1,
            2 | 4 => true,
            _ => false,
        }
    }
}

/// Returns what a signature is over; `None` if the labels field does not fit the owner.
fn signing_input(rrset: &Rrset, rrsig: &Rrsig<'_>) -> Option<Vec<u8>> {
    let labels = usize::from(rrsig.labels);
    let own = rrset.name.label_count();
    let own = if rrset.name.is_wildcard() { own - 1 } else { own };
    if labels > own {
        return None;
    }
    let owner = if labels < own { rrset.name.suffix(labels).wildcard()? } else { rrset.name.clone() };
    let mut data: Vec<Vec<u8>> = rrset.data.iter().map(|rdata| canonical(rrset.rtype, rdata)).collect();
    data.sort_unstable();
    data.dedup();
    let mut input =
        Vec::with_capacity(128 + data.iter().map(|rdata| rdata.len() + owner.as_wire().len() + 10).sum::<usize>());
    input.extend_from_slice(rrsig.head);
    input.extend_from_slice(rrsig.signer.as_wire());
    for rdata in &data {
        input.extend_from_slice(owner.as_wire());
        input.extend(rrset.rtype.to_be_bytes());
        input.extend(super::wire::IN.to_be_bytes());
        input.extend(rrsig.original_ttl.to_be_bytes());
        input.extend(u16::try_from(rdata.len()).ok()?.to_be_bytes());
        input.extend_from_slice(rdata);
    }
    Some(input)
}

/// Lowers the names in the data of the types that RFC 4034 §6.2 lists, less NSEC and RRSIG (RFC 6840
/// §5.1).
fn canonical(kind: u16, rdata: &[u8]) -> Vec<u8> {
    let mut out = rdata.to_vec();
    let names_from = match kind {
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME | 3 | 4 | 7 | 8 | 9 | rtype::SOA | rtype::RP | 14 => 0,
        rtype::MX | rtype::AFSDB | rtype::KX | rtype::PX | 21 => 2,
        rtype::SRV => 6,
        rtype::NAPTR => {
            let mut at = 4;
            for _ in 0..3 {
                at += 1 + out.get(at).map_or(0, |length| usize::from(*length));
            }
            at
        }
        _ => return out,
    };
    // Lowering ends after the second name: the numbers of a SOA stay.
    let names = if matches!(kind, rtype::SOA | rtype::RP | rtype::PX | 14) { 2 } else { 1 };
    let mut at = names_from;
    for _ in 0..names {
        while let Some(length) = out.get(at).map(|length| usize::from(*length)) {
            at += 1;
            if length == 0 {
                break;
            }
            let end = (at + length).min(out.len());
            out[at.min(end)..end].make_ascii_lowercase();
            at = end;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_data_is_lower_case_only_where_the_names_are() {
        let soa = b"\x02Ns\x00\x04Root\x00ABCDEFGHIJKLMNOPQRST";

        assert_eq!(canonical(rtype::SOA, soa), b"\x02ns\x00\x04root\x00ABCDEFGHIJKLMNOPQRST");
        assert_eq!(canonical(rtype::MX, b"\x41\x42\x01A\x00"), b"\x41\x42\x01a\x00");
        assert_eq!(canonical(rtype::TXT, b"\x01A"), b"\x01A");
    }

    #[test]
    fn of_a_ds_with_more_than_a_digest_only_that_it_is_there_is_kept() {
        let kept = |length| Ds::parse(&[&[0, 1, 13, 2][..], &vec![7; length]].concat()).map(|ds| ds.digest.len());

        assert_eq!([kept(32), kept(64), kept(65), kept(60_000)], [Some(32), Some(64), Some(0), Some(0)]);
        assert!(Ds::parse(&[0, 1, 13]).is_none());
    }

    #[test]
    fn rfc4034_5_4_a_ds_covers_its_key() {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let key = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
        let mut rdata = vec![1, 0, 3, 5];
        rdata.extend(STANDARD.decode(key).unwrap());
        let key = Dnskey::parse(&rdata.into()).unwrap();
        let digest = "2BB183AF5F22588179A53B0A98631FAD1A292118";
        let digest = (0..20).map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap()).collect();
        let ds = Ds { tag: 60485, algorithm: 5, digest_type: 1, digest };

        assert_eq!(key.tag, 60485);
        assert!(ds.covers(&Name::parse("dskey.example.com").unwrap(), &key));
        assert!(!ds.covers(&Name::parse("other.example.com").unwrap(), &key));
    }
}

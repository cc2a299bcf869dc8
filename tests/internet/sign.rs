//! Keys and signatures of the made-up Internet. The signing input is built here anew, so that it does not
//! share a mistake with the resolver's.

use std::sync::Arc;

use hearthgate::dns::resolver::{name::Name, signature};
use hickory_proto::dnssec::{
    DigestType, SigningKey, TBS,
    crypto::{Digest, Ed25519SigningKey},
};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// Seconds since 1970 at which every world begins.
pub const EPOCH: u32 = 1_700_000_000;

/// A zone's key.
pub struct Key {
    key: Ed25519SigningKey,
    pub dnskey: Vec<u8>,
    pub tag: u16,
}

/// What may be wrong with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    Garbled,
    Expired,
    Early,
    Absent,
}

impl Key {
    /// Makes the key of a number, always the same.
    pub fn new(number: u8) -> Self {
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend([number.wrapping_mul(37).wrapping_add(11); 32]);
        let key = Ed25519SigningKey::from_pkcs8(&PrivatePkcs8KeyDer::from(der)).expect("a seed is a key");
        let mut dnskey = vec![1, 1, 3, 15];
        dnskey.extend_from_slice(hickory_proto::dnssec::PublicKey::public_bytes(&key.to_public_key().expect("public")));
        let tag = signature::key_tag(&dnskey);
        Self { key, dnskey, tag }
    }

    /// Returns the DS data for this key.
    pub fn ds(&self, zone: &Name) -> Vec<u8> {
        let digest = Digest::from_iter([zone.as_wire(), &self.dnskey[..]], DigestType::SHA256);
        let mut ds = self.tag.to_be_bytes().to_vec();
        ds.extend([15, 2]);
        ds.extend_from_slice(digest.expect("SHA-256 is there").as_ref());
        ds
    }

    /// Returns the RRSIG data over an RRset, or nothing.
    pub fn sign(
        &self,
        zone: &Name,
        owner: &Name,
        rtype: u16,
        ttl: u32,
        rdata: &[Arc<[u8]>],
        flaw: Flaw,
    ) -> Option<Arc<[u8]>> {
        let (from, to) = match flaw {
            Flaw::Absent => return None,
            Flaw::Expired => (EPOCH - 20 * 86400, EPOCH - 86400),
            Flaw::Early => (EPOCH + 30 * 86400, EPOCH + 60 * 86400),
            Flaw::None | Flaw::Garbled => (EPOCH - 86400, EPOCH + 14 * 86400),
        };
        let labels = owner.labels().filter(|label| *label != b"*").count();
        let mut head = rtype.to_be_bytes().to_vec();
        head.extend([15, u8::try_from(labels).expect("few labels")]);
        head.extend(ttl.to_be_bytes());
        head.extend(to.to_be_bytes());
        head.extend(from.to_be_bytes());
        head.extend(self.tag.to_be_bytes());
        head.extend_from_slice(zone.as_wire());
        let mut sorted: Vec<&Arc<[u8]>> = rdata.iter().collect();
        sorted.sort();
        let mut input = head.clone();
        for data in sorted {
            input.extend_from_slice(owner.as_wire());
            input.extend(rtype.to_be_bytes());
            input.extend([0, 1]);
            input.extend(ttl.to_be_bytes());
            input.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            input.extend_from_slice(data);
        }
        let mut signature = self.key.sign(&TBS::from(&input[..])).expect("signing works");
        if flaw == Flaw::Garbled {
            signature[7] ^= 0x40;
        }
        head.extend(signature);
        Some(head.into())
    }
}

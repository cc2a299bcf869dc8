//! Keys and signatures of the made-up Internet. The signing input is built here anew, so that it does not
//! share a mistake with the resolver's.

use std::{rc::Rc, sync::Arc};

use hearthgate::dns::resolver::{name::Name, signature};
use hickory_proto::dnssec::{
    Algorithm, DigestType, PublicKey, SigningKey, TBS,
    crypto::{Digest, EcdsaSigningKey, Ed25519SigningKey},
};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// Seconds since 1970 at which every world begins.
pub const EPOCH: u32 = 1_700_000_000;
/// An algorithm that nobody knows.
pub const UNKNOWN_ALGORITHM: u8 = 200;
/// A digest type that nobody knows.
pub const UNKNOWN_DIGEST: u8 = 250;

/// A zone's key.
pub struct Key {
    maker: Box<dyn SigningKey>,
    pub algorithm: u8,
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
    /// Made by a key that is not in the zone.
    Stranger,
}

thread_local! {
    /// The last is of an algorithm that nobody knows. They are few: the zones of all worlds share them.
    pub static KEYS: Vec<Rc<Key>> = Key::all();
}

impl Key {
    /// Makes all keys, always the same.
    fn all() -> Vec<Rc<Self>> {
        let ed25519 = |seed: u8, algorithm: u8| {
            let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
            der.extend([seed; 32]);
            let key = Ed25519SigningKey::from_pkcs8(&PrivatePkcs8KeyDer::from(der)).expect("a seed is a key");
            Self::new(Box::new(key), algorithm)
        };
        let p256 = |seed: u8| {
            // PKCS #8 around RFC 5915 without the public key, which follows from the private one.
            let mut der = vec![0x30, 0x41, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
            der.extend([6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x27, 0x30, 0x25, 2, 1, 1, 4, 0x20]);
            der.extend([seed; 32]);
            let der = PrivatePkcs8KeyDer::from(der);
            let key = EcdsaSigningKey::from_pkcs8(&der, Algorithm::ECDSAP256SHA256).expect("a number is a key");
            Self::new(Box::new(key), 13)
        };
        vec![ed25519(11, 15), ed25519(48, 15), ed25519(85, 15), p256(7), p256(9), ed25519(122, UNKNOWN_ALGORITHM)]
            .into_iter()
            .map(Rc::new)
            .collect()
    }

    fn new(maker: Box<dyn SigningKey>, algorithm: u8) -> Self {
        let mut dnskey = vec![1, 1, 3, algorithm];
        dnskey.extend_from_slice(maker.to_public_key().expect("a key has a public one").public_bytes());
        let tag = signature::key_tag(&dnskey);
        Self { maker, algorithm, dnskey, tag }
    }

    /// Returns this key with the bit REVOKE, which gives it another tag (RFC 5011 §2.1).
    pub fn revoked(&self) -> Vec<u8> {
        let mut dnskey = self.dnskey.clone();
        dnskey[1] |= 0x80;
        dnskey
    }

    /// Returns the DS data for this key.
    pub fn ds(&self, zone: &Name, digest_type: u8) -> Vec<u8> {
        let kind = match digest_type {
            1 => DigestType::SHA1,
            4 => DigestType::SHA384,
            _ => DigestType::SHA256,
        };
        let digest = Digest::from_iter([zone.as_wire(), &self.dnskey[..]], kind);
        let mut ds = self.tag.to_be_bytes().to_vec();
        ds.extend([self.algorithm, digest_type]);
        ds.extend_from_slice(digest.expect("the digests are there").as_ref());
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
        let time = match flaw {
            Flaw::Absent => return None,
            Flaw::Expired => (EPOCH - 20 * 86400, EPOCH - 86400),
            Flaw::Early => (EPOCH + 30 * 86400, EPOCH + 60 * 86400),
            Flaw::None | Flaw::Garbled | Flaw::Stranger => (EPOCH - 86400, EPOCH + 14 * 86400),
        };
        let tag = if flaw == Flaw::Stranger { self.tag ^ 0x5555 } else { self.tag };
        let mut data = self.sign_for(time, tag, zone, owner, (rtype, ttl), rdata);
        if flaw == Flaw::Garbled {
            data[18 + zone.as_wire().len() + 7] ^= 0x40;
        }
        Some(data.into())
    }

    /// Returns the RRSIG data over an RRset for a time.
    pub fn sign_for(
        &self,
        (from, to): (u32, u32),
        tag: u16,
        zone: &Name,
        owner: &Name,
        (rtype, ttl): (u16, u32),
        rdata: &[Arc<[u8]>],
    ) -> Vec<u8> {
        let labels = owner.labels().filter(|label| *label != b"*").count();
        let mut head = rtype.to_be_bytes().to_vec();
        head.extend([self.algorithm, u8::try_from(labels).expect("few labels")]);
        head.extend(ttl.to_be_bytes());
        head.extend(to.to_be_bytes());
        head.extend(from.to_be_bytes());
        head.extend(tag.to_be_bytes());
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
        head.extend(self.maker.sign(&TBS::from(&input[..])).expect("signing works"));
        head
    }
}

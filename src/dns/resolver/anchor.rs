//! Trust anchors: where the chain begins.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    name::Name,
    signature::{Dnskey, Ds},
};

/// Anchors by owner: the root, or islands of security below it.
#[derive(Clone, Debug, Default)]
pub struct Anchors(BTreeMap<Name, Anchor>);

/// What is trusted at one owner.
#[derive(Clone, Debug, Default)]
pub struct Anchor {
    /// Digests of keys.
    pub ds: Vec<Ds>,
    /// Keys.
    pub keys: Vec<Dnskey>,
}

/// The root's keys of 2017 and 2024 (<https://data.iana.org/root-anchors/root-anchors.xml>).
const ROOT: [(u16, &str); 2] = [
    (20326, "E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"),
    (38696, "683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16"),
];

impl Anchors {
    /// Returns the anchors of the real root.
    pub fn root() -> Self {
        let mut anchors = Self::default();
        for (tag, digest) in ROOT {
            let digest = (0..digest.len() / 2)
                .map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).expect("the digest is hexadecimal"))
                .collect();
            anchors.add_ds(Name::root(), Ds { tag, algorithm: 8, digest_type: 2, digest });
        }
        anchors
    }

    /// Adds a digest.
    pub fn add_ds(&mut self, owner: Name, ds: Ds) {
        self.0.entry(owner).or_default().ds.push(ds);
    }

    /// Adds a key.
    pub fn add_key(&mut self, owner: Name, rdata: &Arc<[u8]>) {
        self.0.entry(owner).or_default().keys.extend(Dnskey::parse(rdata));
    }

    /// Returns the anchor at a name.
    pub fn at(&self, name: &Name) -> Option<&Anchor> {
        self.0.get(name)
    }

    /// Returns the nearest anchor at or above a name.
    pub fn nearest(&self, name: &Name) -> Option<(&Name, &Anchor)> {
        let mut at = Some(name.clone());
        while let Some(name) = at {
            if let Some(found) = self.0.get_key_value(&name) {
                return Some(found);
            }
            at = name.parent();
        }
        None
    }

    /// Says whether a key of this tag is an anchor of the root (RFC 8509).
    pub fn root_has(&self, tag: u16) -> bool {
        let root = self.0.get(&Name::root());
        root.is_some_and(|root| root.ds.iter().any(|ds| ds.tag == tag) || root.keys.iter().any(|key| key.tag == tag))
    }

    /// Says whether nothing is trusted: then nothing is checked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

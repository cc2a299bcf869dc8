//! Keys, as WireGuard writes them: 32 bytes in base64. Secrets have no `Debug` that shows them and are
//! wiped when dropped.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519;
use zeroize::Zeroize;

/// Who a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// What proves it. The library wipes it when it is dropped.
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

/// What both ends mix into the handshake besides their keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey([u8; 32]);

/// Text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// It is not 32 bytes in base64.
    #[error("a key is 32 bytes in base64: 44 characters, the last one \"=\"")]
    Text,
    /// It is a point of low order (RFC 7748 §6.1): everybody has a secret that fits it.
    #[error("this key proves nothing, since everybody could use it: make a pair with `wg genkey` and `wg pubkey`")]
    Weak,
}

fn decode(text: &str) -> Result<[u8; 32], NoKey> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NoKey::Text)
}

/// The library goes on with the secret that is the same for everybody, where WireGuard's other implementations stop.
fn is_weak(bytes: [u8; 32]) -> bool {
    let any = x25519::StaticSecret::from([7; 32]);
    !any.diffie_hellman(&x25519::PublicKey::from(bytes)).was_contributory()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

impl PublicKey {
    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key as the library wants it.
    pub fn to_x25519(self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::str::FromStr for PublicKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let bytes = decode(text)?;
        if is_weak(bytes) { Err(NoKey::Weak) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PrivateKey {
    /// Makes a new one.
    pub fn generate() -> Self {
        Self(x25519::StaticSecret::from(random()))
    }

    /// Returns the key that others know.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    /// Returns the key as the library wants it.
    pub fn to_x25519(&self) -> x25519::StaticSecret {
        self.0.clone()
    }

    /// Returns the text for the one place that it is written to.
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0.to_bytes())
    }
}

impl std::str::FromStr for PrivateKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        decode(text).map(|bytes| Self(x25519::StaticSecret::from(bytes)))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl PresharedKey {
    /// Makes a new one.
    pub fn generate() -> Self {
        Self(random())
    }

    /// Returns the bytes for the handshake.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Returns the text for the one place that it is written to.
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl Drop for PresharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::str::FromStr for PresharedKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_everybody_has_a_secret_for_is_no_peers() {
        let one = STANDARD.encode([[1].as_slice(), &[0; 31]].concat());

        for text in [STANDARD.encode([0; 32]), one] {
            assert_eq!(text.parse::<PublicKey>(), Err(NoKey::Weak));
        }
        assert_eq!("x".parse::<PublicKey>(), Err(NoKey::Text));
    }

    /// Wycheproof's vectors for X25519.
    #[test]
    fn weak_keys_are_told_from_odd_ones() {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
        let folder = std::env::var_os("HEARTHGATE_DATA").map_or_else(|| beside.into(), std::path::PathBuf::from);
        let path = folder.join("wireguard/x25519_test.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            return eprintln!("SKIPPED: cannot read {} (HEARTHGATE_DATA names another folder)", path.display());
        };
        let bytes = |value: &serde_json::Value| -> [u8; 32] {
            let text = value.as_str().unwrap();
            let byte = |at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap();
            std::array::from_fn(byte)
        };
        let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut seen = 0;
        for test in
            vectors["testGroups"].as_array().unwrap().iter().flat_map(|group| group["tests"].as_array().unwrap())
        {
            let (public, shared) = (bytes(&test["public"]), bytes(&test["shared"]));
            let private = PrivateKey(x25519::StaticSecret::from(bytes(&test["private"])));

            let agreed = private.to_x25519().diffie_hellman(&PublicKey(public).to_x25519());
            let parsed = STANDARD.encode(public).parse::<PublicKey>();

            assert_eq!(agreed.as_bytes(), &shared, "{test}");
            assert_eq!(parsed.is_err(), shared == [0; 32], "{test}");
            seen += 1;
        }
        assert!(seen > 500, "{seen}");
    }
}

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

/// Text that is not 32 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes in base64: 44 characters, the last one \"=\"")]
pub struct NoKey;

fn decode(text: &str) -> Result<[u8; 32], NoKey> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NoKey)
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
        decode(text).map(Self)
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

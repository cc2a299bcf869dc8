//! Who asks, as far as the groups of devices go.

use std::net::IpAddr;

use crate::origin::Origin;

/// A client of the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where it asks from.
    pub origin: Origin,
    /// Its address.
    pub address: IpAddr,
    /// The address speaks for others.
    pub relay: bool,
    /// What it calls itself over DNS over TLS, HTTPS or QUIC.
    pub name: Option<ClientName>,
}

/// What a device calls itself in the server name of its TLS handshake or in the path of its requests: a label,
/// in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientName {
    length: u8,
    letters: [u8; Self::LONGEST],
}

impl ClientName {
    /// A label's length (RFC 1035 §3.1).
    const LONGEST: usize = 63;

    /// Reads a name: letters, digits, `-` and `_`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
        if text.is_empty() || !text.bytes().all(fits) {
            return None;
        }
        let mut letters = [0; Self::LONGEST];
        letters.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        letters.make_ascii_lowercase();
        Some(Self { length: u8::try_from(text.len()).ok()?, letters })
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        let letters = self.letters.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(letters).unwrap_or_default()
    }
}

impl std::fmt::Debug for ClientName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_in_lower_case() {
        assert_eq!(ClientName::new("Kids-Tablet").unwrap().as_str(), "kids-tablet");
        assert_eq!(ClientName::new(&"a".repeat(63)).unwrap().as_str().len(), 63);
        for wrong in ["", "a.b", "a b", "ü", &"a".repeat(64)] {
            assert_eq!(ClientName::new(wrong), None, "{wrong}");
        }
    }
}

//! Host names as lists write them, read into wire form.

use std::net::IpAddr;

use super::reason::Reason;

/// A name in wire form, in lower case.
pub(super) struct WireName {
    octets: [u8; 256],
    length: usize,
}

impl Default for WireName {
    fn default() -> Self {
        Self { octets: [0; 256], length: 0 }
    }
}

impl WireName {
    /// Returns the last name that was read.
    pub(super) fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// Reads a host name as people write it, with or without the last dot. Returns the number of its labels.
    pub(super) fn read(&mut self, text: &[u8]) -> Result<usize, Reason> {
        if text.is_ascii() {
            return self.read_ascii(text);
        }
        let text = std::str::from_utf8(text).map_err(|_| Reason::NotText)?;
        let ascii = idna::domain_to_ascii(text).map_err(|_| Reason::NotAName)?;
        self.read_ascii(ascii.as_bytes())
    }

    fn read_ascii(&mut self, text: &[u8]) -> Result<usize, Reason> {
        self.length = 0;
        let text = text.strip_suffix(b".").unwrap_or(text);
        // 253 letters and dots make 255 octets (RFC 1035 §2.3.4).
        if text.is_empty() || text.len() > 253 {
            return Err(Reason::NotAName);
        }
        let mut labels = 0;
        let mut at = 0;
        for label in text.split(|octet| *octet == b'.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
            let Some(length) = length else { return Err(unlike_a_name(text)) };
            self.octets[at] = length;
            at += 1;
            for (to, octet) in self.octets[at..].iter_mut().zip(label) {
                // Underscores are no part of host names, but of names that are asked for.
                match octet {
                    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => *to = *octet,
                    b'A'..=b'Z' => *to = octet.to_ascii_lowercase(),
                    _ => return Err(unlike_a_name(text)),
                }
            }
            at += label.len();
            labels += 1;
        }
        // No top-level name is a number, every IPv4 address ends in one.
        if text.last().is_some_and(u8::is_ascii_digit) && parse_address(text).is_some() {
            return Err(Reason::Address);
        }
        self.octets[at] = 0;
        self.length = at + 1;
        Ok(labels)
    }
}

fn unlike_a_name(text: &[u8]) -> Reason {
    if parse_address(text).is_some() {
        Reason::Address
    } else if text.iter().any(|octet| matches!(octet, b'/' | b':' | b'?' | b'=')) {
        Reason::Url
    } else if text.iter().any(|octet| matches!(octet, b'^' | b'(' | b'[' | b'\\' | b'+' | b'{')) {
        Reason::Regex
    } else if text.contains(&b'*') {
        Reason::Pattern
    } else if text.iter().any(|octet| octet.is_ascii_control()) {
        Reason::NotText
    } else {
        Reason::NotAName
    }
}

/// Reads an address, with or without a zone.
pub(super) fn parse_address(word: &[u8]) -> Option<IpAddr> {
    // `fe80::1%lo0`: the zone says nothing here.
    let word = word.split(|octet| *octet == b'%').next()?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

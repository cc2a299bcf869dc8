//! Data of records as lists write it: the types that an answer of a list's own may have.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dns::filter::name::WireName;

/// Reads the data of a record of a type; `None` if it is none, or of another type.
pub(super) fn read(kind: &str, data: &str) -> Option<(u16, Box<[u8]>)> {
    let data = data.trim();
    let read = match kind.to_ascii_uppercase().as_str() {
        "A" => (1, data.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        "AAAA" => (28, data.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
        "PTR" => (12, name(data)?),
        "TXT" => (16, strings(data.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(data))),
        "MX" => {
            let (preference, exchange) = data.split_once(char::is_whitespace)?;
            (15, [&preference.parse::<u16>().ok()?.to_be_bytes()[..], &name(exchange.trim())?].concat())
        }
        "SRV" => {
            let words: Vec<_> = data.split_whitespace().collect();
            let [priority, weight, port, target] = words[..] else { return None };
            let mut octets = Vec::new();
            for number in [priority, weight, port] {
                octets.extend(number.parse::<u16>().ok()?.to_be_bytes());
            }
            octets.extend(name(target)?);
            (33, octets)
        }
        _ => return None,
    };
    Some((read.0, read.1.into()))
}

fn name(text: &str) -> Option<Vec<u8>> {
    if text == "." {
        return Some(vec![0]);
    }
    let mut name = WireName::default();
    name.read(text.as_bytes()).ok()?;
    Some(name.octets().to_vec())
}

/// RFC 1035 §3.3.14: strings of at most 255 octets.
fn strings(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for part in text.as_bytes().chunks(255) {
        octets.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
        octets.extend(part);
    }
    if octets.is_empty() { vec![0] } else { octets }
}

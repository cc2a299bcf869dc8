//! What a proxy says of a connection before its bytes: the PROXY protocol, versions 1 and 2.
//!
//! Only who is listed is asked for it, and it tells an address: where a connection comes from is decided at accept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest of version 2; addresses and the extensions that are known have some hundred bytes.
const LONGEST: usize = 2048;
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// The shortest line of version 1: `PROXY UNKNOWN`.
const SHORTEST_LINE: usize = 15;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEAD: usize = 16;

/// What has come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not all of it: so many bytes more belong to it at least.
    Partial(usize),
    /// All of it, with the client's address, if it is not the proxy itself that speaks.
    Told(Option<IpAddr>),
    /// It is something else.
    Other,
}

/// Reads what has come, which is nothing beyond the preamble if no more is taken than is asked for.
pub fn read(input: &[u8]) -> Reading {
    match input.first() {
        None => Reading::Partial(SHORTEST_LINE),
        Some(b'P') => line(input),
        Some(_) => binary(input),
    }
}

fn line(input: &[u8]) -> Reading {
    let known = b"PROXY ";
    let begun = input.len().min(known.len());
    if input.get(..begun) != known.get(..begun) || input.len() > LONGEST_LINE {
        return Reading::Other;
    }
    if input.len() < SHORTEST_LINE {
        return Reading::Partial(SHORTEST_LINE - input.len());
    }
    let Some(text) = input.strip_suffix(b"\r\n") else {
        return match input.iter().position(|byte| *byte == b'\n') {
            Some(_) => Reading::Other,
            None if input.last() == Some(&b'\r') => Reading::Partial(1),
            None => Reading::Partial(2),
        };
    };
    std::str::from_utf8(text).ok().and_then(told).map_or(Reading::Other, Reading::Told)
}

/// Reads a line without its end; `None` if it is none.
fn told(line: &str) -> Option<Option<IpAddr>> {
    if line.contains(['\r', '\n']) {
        return None;
    }
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // What else is said is to be ignored.
        return Some(None);
    }
    let (source, destination): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_port = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()) && word.parse::<u16>().is_ok();
    let ports = is_port(words.next()?) && is_port(words.next()?) && words.next().is_none();
    let family = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    (family && ports).then(|| Some(source.to_canonical()))
}

fn binary(input: &[u8]) -> Reading {
    let begun = input.len().min(SIGNATURE.len());
    if input.get(..begun) != SIGNATURE.get(..begun) {
        return Reading::Other;
    }
    let Some((&[.., command, family, high, low], rest)) = input.split_first_chunk::<HEAD>() else {
        return Reading::Partial(HEAD - input.len());
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, 0x20 | 0x21) || length > LONGEST - HEAD || rest.len() > length {
        return Reading::Other;
    }
    if rest.len() < length {
        return Reading::Partial(length - rest.len());
    }
    match (command, family) {
        // The proxy's own, as when it looks whether we are well; and families that have no address for us.
        (0x20, _) | (_, 0x00 | 0x31) => Reading::Told(None),
        (_, 0x11) if length >= 12 => match rest.first_chunk::<4>() {
            Some(source) => Reading::Told(Some(Ipv4Addr::from(*source).into())),
            None => Reading::Other,
        },
        (_, 0x21) if length >= 36 => match rest.first_chunk::<16>() {
            Some(source) => Reading::Told(Some(IpAddr::from(Ipv6Addr::from(*source)).to_canonical())),
            None => Reading::Other,
        },
        _ => Reading::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes no more than is asked for, as a connection does; what is left are the client's bytes.
    fn taken(input: &[u8]) -> (Reading, usize) {
        let mut had = 0;
        loop {
            match read(&input[..had]) {
                Reading::Partial(more) if had + more <= input.len() => had += more,
                reading => return (reading, had),
            }
        }
    }

    fn version_2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, content].concat()
    }

    #[test]
    fn both_versions_are_read_to_their_end_and_no_further() {
        let v4: IpAddr = "203.0.113.9".parse().unwrap();
        let v6: IpAddr = "2001:db8::9".parse().unwrap();
        let addresses_4 = [203, 0, 113, 9, 192, 0, 2, 1, 0x9c, 0x40, 1, 0xbb];
        let addresses_6 = [&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        let extended = [&addresses_4[..], &[4, 0, 2, 7, 7]].concat();
        for (preamble, client) in [
            (b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n".to_vec(), Some(v4)),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 443\r\n".to_vec(), Some(v6)),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (version_2(0x21, 0x11, &addresses_4), Some(v4)),
            (version_2(0x21, 0x11, &extended), Some(v4)),
            (version_2(0x21, 0x21, &addresses_6), Some(v6)),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x20, 0x11, &addresses_4), None),
            (version_2(0x21, 0x31, &[0; 216]), None),
        ] {
            let whole = [&preamble[..], b"\x16\x03\x01 and on"].concat();
            assert_eq!(taken(&whole), (Reading::Told(client), preamble.len()), "{preamble:?}");
            for cut in 0..preamble.len() {
                assert!(matches!(taken(&preamble[..cut]).0, Reading::Partial(1..)), "{cut} of {preamble:?}");
            }
        }
    }

    #[test]
    fn what_is_no_preamble_is_none() {
        for other in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and a hello",
            b"POST / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 2001:db8::9 192.0.2.1 1 2\r\n",
            b"PROXY TCP4 203.0.113.9 192.0.2.1 1\r\n",
            b"PROXY TCP4 203.0.113.9 192.0.2.1 1 65536\r\n",
            b"PROXY TCP4 203.0.113.9 192.0.2.1 +1 2\r\n",
            b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2 3\r\n",
            b"PROXY TCP4 203.0.113.9  192.0.2.1 1 2\r\n",
            b"PROXY TCP4 203.0.113.9\n192.0.2.1 1 2\r\n",
            b"PROXY UDP4 203.0.113.9 192.0.2.1 1 2\r\n",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            &version_2(0x22, 0x11, &[0; 12]),
            &version_2(0x11, 0x11, &[0; 12]),
            &version_2(0x21, 0x12, &[0; 12]),
            &version_2(0x21, 0x11, &[0; 11]),
            &version_2(0x21, 0x21, &[0; 35]),
            &version_2(0x21, 0x11, &[0; 3000]),
        ] {
            assert_eq!(taken(other).0, Reading::Other, "{other:?}");
        }
    }
}

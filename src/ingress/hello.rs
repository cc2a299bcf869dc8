//! The name in a ClientHello, read before anything is said (RFC 8446 §4.1.2, RFC 6066 §3).
//!
//! The TLS library answers a name that is no host name with an alert of its own, which tells it from a name that
//! is not known. So the name is read here first, and whatever is not in the table gets the same seven bytes.

/// The longest ClientHello, with the records around it. Those of browsers have less than 3 KiB.
pub const LONGEST: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Type, version and length of a record.
const RECORD_HEAD: usize = 5;
/// RFC 8446 §5.1.
const RECORD: usize = 1 << 14;

/// What has come so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not all of it.
    Partial,
    /// All of it, with the name as it stands there, if there is one.
    Hello(Option<Box<[u8]>>),
    /// It is no ClientHello, or too long for one.
    Other,
}

/// Reads what has come.
pub fn read(input: &[u8]) -> Reading {
    match joined(input) {
        Joined::Partial if input.len() >= LONGEST => Reading::Other,
        Joined::Partial => Reading::Partial,
        Joined::Other => Reading::Other,
        Joined::Message(message) => match name(&message) {
            Some(name) => Reading::Hello(name.map(Into::into)),
            None => Reading::Other,
        },
    }
}

enum Joined {
    Partial,
    Message(Vec<u8>),
    Other,
}

/// Puts the message together, which may be spread over records.
fn joined(mut input: &[u8]) -> Joined {
    let mut message: Vec<u8> = Vec::new();
    loop {
        if let Some(&[kind, high, middle, low]) = message.first_chunk() {
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if kind != CLIENT_HELLO || length > LONGEST {
                return Joined::Other;
            }
            if let Some(whole) = message.get(4..4 + length) {
                return Joined::Message(whole.to_vec());
            }
        }
        match input.first_chunk::<RECORD_HEAD>() {
            None => {
                // The first bytes must be right, though: who speaks something else need not be waited for.
                let wrong = input.first().is_some_and(|kind| *kind != HANDSHAKE)
                    || input.get(1).is_some_and(|major| *major != 3);
                return if wrong { Joined::Other } else { Joined::Partial };
            }
            Some(&[HANDSHAKE, 3, _, high, low]) => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length == 0 || length > RECORD {
                    return Joined::Other;
                }
                let rest = input.get(RECORD_HEAD..).unwrap_or_default();
                let Some((record, rest)) = rest.split_at_checked(length) else { return Joined::Partial };
                message.extend_from_slice(record);
                input = rest;
            }
            Some(_) => return Joined::Other,
        }
    }
}

/// Finds the name; `None` if this is no ClientHello.
fn name(message: &[u8]) -> Option<Option<&[u8]>> {
    let mut reader = Reader(message);
    reader.take(2 + 32)?;
    reader.vector8()?;
    reader.vector16()?;
    reader.vector8()?;
    if reader.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(reader.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.vector16()?;
        if kind == SERVER_NAME {
            let mut names = Reader(Reader(content).vector16()?);
            while !names.0.is_empty() {
                let kind = names.take(1)?;
                let name = names.vector16()?;
                if kind == [HOST_NAME] {
                    return Some(Some(name));
                }
            }
        }
    }
    Some(None)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello with this as its name, in records of so many bytes.
    fn hello(name: Option<&[u8]>, record: usize) -> Vec<u8> {
        let vector = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let mut extensions = [&[0, 23][..], &vector(&[])].concat();
        if let Some(name) = name {
            let names = vector(&[&[HOST_NAME][..], &vector(name)].concat());
            extensions.extend([&[0, 0][..], &vector(&names)].concat());
        }
        let body = [&[3, 3][..], &[7; 32], &[0], &vector(&[0x13, 0x01]), &[1, 0], &vector(&extensions)].concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let message = [&[CLIENT_HELLO], &length[1..], &body].concat();
        message.chunks(record).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector(part)].concat()).collect()
    }

    #[test]
    fn the_name_is_found_whatever_it_is_and_however_it_is_spread() {
        let long = [b'a'; 300];
        for name in [None, Some(&b"www.home.example"[..]), Some(b"[::1]"), Some(b"127.0.0.1"), Some(b""), Some(&long)] {
            for record in [1, 7, 4000] {
                let bytes = hello(name, record);
                assert_eq!(read(&bytes), Reading::Hello(name.map(Into::into)));
                for cut in 0..bytes.len() {
                    assert_eq!(read(&bytes[..cut]), Reading::Partial, "{cut} of {name:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_hello_is_not_waited_for() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02",
            b"\x15\x03\x03\x00\x02\x02\x28",
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0],
        ] {
            assert_eq!(read(bytes), Reading::Other, "{bytes:?}");
        }
        assert_eq!(read(&[&[HANDSHAKE, 3, 1, 0x40, 0][..], &[CLIENT_HELLO, 0, 0xff, 0xff]].concat()), Reading::Partial);
        assert_eq!(read(&[&[HANDSHAKE, 3, 1, 0x40, 0][..], &[CLIENT_HELLO; LONGEST]].concat()), Reading::Other);
    }
}

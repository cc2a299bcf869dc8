//! A query read in place: header, question and OPT, without copying more than the lower-cased name.

use super::cookie::Cookie;

/// The longest name in wire form (RFC 1035 §3.1).
pub(crate) const MAX_NAME: usize = 255;

/// QTYPEs which are treated by number.
pub(crate) mod qtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const RRSIG: u16 = 46;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const NSEC3: u16 = 50;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const ANY: u16 = 255;
}

/// EDNS options which are read or written.
pub(crate) mod option {
    pub(crate) const COOKIE: u16 = 10;
    pub(crate) const KEEPALIVE: u16 = 11;
    pub(crate) const PADDING: u16 = 12;
    pub(crate) const EDE: u16 = 15;
}

/// Class IN.
pub(crate) const IN: u16 = 1;

/// What the client said in its OPT record (RFC 6891).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edns {
    /// The largest UDP answer that it takes.
    pub(crate) size: u16,
    /// The version that it speaks.
    pub(crate) version: u8,
    /// It wants DNSSEC records (RFC 3225).
    pub(crate) dnssec_ok: bool,
    /// Its cookie (RFC 7873).
    pub(crate) cookie: Option<Cookie>,
    /// It padded its query (RFC 7830).
    pub(crate) padded: bool,
    /// It asks how long a connection may be idle (RFC 7828).
    pub(crate) keepalive: bool,
}

/// One question, as the cache knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// The name in wire form, lower case.
    pub(crate) name: Box<[u8]>,
    /// What is asked for.
    pub(crate) qtype: u16,
    /// With DNSSEC records.
    pub(crate) dnssec_ok: bool,
    /// Without the resolver's judgement (RFC 4035 §3.2.2).
    pub(crate) checking_disabled: bool,
    /// Who is asked.
    pub(crate) way: Way,
}

/// Who is asked by a group: everybody's resolver, or one of those that groups have for themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Way(pub(crate) u8);

impl Way {
    /// Everybody's.
    pub(crate) const HOUSE: Self = Self(0);
}

/// A query, borrowed from the datagram or frame that it came in.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    bytes: &'a [u8],
    question_end: usize,
    lower: [u8; MAX_NAME],
    name_len: usize,
    /// What is asked for.
    pub(crate) qtype: u16,
    /// In which class.
    pub(crate) qclass: u16,
    /// The client's OPT record.
    pub(crate) edns: Option<Edns>,
}

/// What cannot be taken for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No header, or an answer: nothing is ever said to it, or two servers would answer one another for ever.
    Silence,
    /// FORMERR: the question cannot be read.
    Malformed,
    /// NOTIMP: an opcode other than QUERY.
    Opcode,
}

const HEADER: usize = 12;
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;

/// Returns name and type of the question of a message that was read before.
pub(crate) fn question(bytes: &[u8]) -> Option<(&[u8], u16)> {
    let name = bytes.get(HEADER..)?;
    let mut end = 0;
    loop {
        let length = usize::from(*name.get(end)?);
        end += 1 + length;
        if length == 0 {
            break;
        }
    }
    let (name, rest) = name.split_at_checked(end)?;
    let (qtype, _) = rest.split_first_chunk()?;
    Some((name, u16::from_be_bytes(*qtype)))
}

impl<'a> Query<'a> {
    /// Reads a message.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Unfit> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return Err(Unfit::Silence) };
        if header[2] & QR != 0 {
            return Err(Unfit::Silence);
        }
        if header[2] & OPCODE != 0 {
            return Err(Unfit::Opcode);
        }
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        // RFC 9619: exactly one question. Answers and authorities have no place in a query.
        if count(4) != 1 || count(6) != 0 || count(8) != 0 {
            return Err(Unfit::Malformed);
        }
        let mut lower = [0; MAX_NAME];
        let name_len = lower_name(bytes.get(HEADER..).unwrap_or_default(), &mut lower).ok_or(Unfit::Malformed)?;
        let question_end = HEADER + name_len + 4;
        let (qtype, qclass) = match bytes.get(HEADER + name_len..question_end) {
            Some(&[t1, t0, c1, c0]) => (u16::from_be_bytes([t1, t0]), u16::from_be_bytes([c1, c0])),
            _ => return Err(Unfit::Malformed),
        };
        let edns = read_additional(bytes, question_end, count(10)).ok_or(Unfit::Malformed)?;
        Ok(Self { bytes, question_end, lower, name_len, qtype, qclass, edns })
    }

    /// Returns the name in wire form, lower case.
    pub(crate) fn name(&self) -> &[u8] {
        &self.lower[..self.name_len]
    }

    /// Returns the question section as the client wrote it.
    pub(crate) fn question_bytes(&self) -> &'a [u8] {
        &self.bytes[HEADER..self.question_end]
    }

    /// Returns the message's ID.
    pub(crate) fn id(&self) -> [u8; 2] {
        [self.bytes[0], self.bytes[1]]
    }

    /// Says whether recursion is desired.
    pub(crate) fn recursion_desired(&self) -> bool {
        self.bytes[2] & 0x01 != 0
    }

    /// Says whether the client asked to see the AD bit (RFC 6840 §5.7). Who checks for itself is told nothing: what
    /// it is given was perhaps not checked (RFC 4035 §3.2.2).
    pub(crate) fn wants_authentic(&self) -> bool {
        (self.bytes[3] & 0x20 != 0 || self.dnssec_ok()) && !self.checking_disabled()
    }

    /// Says whether validation is the client's own affair.
    pub(crate) fn checking_disabled(&self) -> bool {
        self.bytes[3] & 0x10 != 0
    }

    /// Says whether DNSSEC records are wanted.
    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Returns what the cache and the resolver need to know.
    pub(crate) fn question(&self) -> Question {
        Question {
            name: self.name().into(),
            qtype: self.qtype,
            dnssec_ok: self.dnssec_ok(),
            checking_disabled: self.checking_disabled(),
            way: Way::HOUSE,
        }
    }
}

/// Lower-cases the uncompressed name at the start of `bytes` into `lower` and returns its length.
fn lower_name(bytes: &[u8], lower: &mut [u8; MAX_NAME]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length > 63 {
            return None;
        }
        let end = at + 1 + length;
        // The root label must still fit.
        if end > MAX_NAME - usize::from(length > 0) {
            return None;
        }
        let from = bytes.get(at..end)?;
        let to = lower.get_mut(at..end)?;
        to.copy_from_slice(from);
        // Lengths are at most 63 and so are no letters.
        to.make_ascii_lowercase();
        at = end;
        if length == 0 {
            return Some(at);
        }
    }
}

/// Walks the additional section. `None`: it cannot be read. `Some(None)`: there is no OPT record.
fn read_additional(bytes: &[u8], mut at: usize, count: u16) -> Option<Option<Edns>> {
    let mut found = None;
    for _ in 0..count {
        let owner = at;
        at = skip_name(bytes, at)?;
        let fixed: &[u8; 10] = bytes.get(at..)?.first_chunk()?;
        let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if end > bytes.len() {
            return None;
        }
        if u16::from_be_bytes([fixed[0], fixed[1]]) == qtype::OPT {
            // RFC 6891 §6.1.1: one OPT, at the root.
            if found.is_some() || at != owner + 1 {
                return None;
            }
            let mut edns = Edns {
                size: u16::from_be_bytes([fixed[2], fixed[3]]),
                version: fixed[5],
                dnssec_ok: fixed[6] & 0x80 != 0,
                ..Edns::default()
            };
            // Another version may have other options.
            if edns.version == 0 {
                read_options(bytes.get(at + 10..end)?, &mut edns)?;
            }
            found = Some(edns);
        }
        at = end;
    }
    Some(found)
}

/// Walks the options of OPT; `None` if they are not what their lengths say.
fn read_options(mut options: &[u8], edns: &mut Edns) -> Option<()> {
    while !options.is_empty() {
        let (head, rest) = options.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (data, behind) = rest.split_at_checked(length)?;
        match u16::from_be_bytes([head[0], head[1]]) {
            option::COOKIE if edns.cookie.is_none() => edns.cookie = Some(Cookie::read(data)?),
            option::KEEPALIVE => edns.keepalive = true,
            option::PADDING => edns.padded = true,
            _ => {}
        }
        options = behind;
    }
    Some(())
}

/// Returns where the name at `at` ends; a pointer ends it.
pub(crate) fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return (at + 2 <= bytes.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

/// Returns the name without its first label; `None` at the root.
pub(crate) fn parent(name: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*name.first()?);
    if length == 0 { None } else { name.get(1 + length..) }
}

/// Returns the name and each of its ancestors, the root last.
pub(crate) fn ancestors(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |name| parent(name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes a query with RD, and with OPT if a size is given.
    pub(crate) fn query(name: &str, qtype: u16, size: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())];
        bytes.extend(wire(name));
        bytes.extend(qtype.to_be_bytes());
        bytes.extend([0, 1]);
        if let Some(size) = size {
            bytes.extend([0, 0, 41]);
            bytes.extend(size.to_be_bytes());
            bytes.extend([0, 0, 0, 0, 0, 0]);
        }
        bytes
    }

    /// Writes a name in wire form, its case kept.
    pub(crate) fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').filter(|label| !label.is_empty());
        let mut wire: Vec<u8> =
            labels.flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes())).collect();
        wire.push(0);
        wire
    }

    #[test]
    fn a_question_is_read_in_lower_case_and_kept_as_written() {
        let bytes = query("Photos.Example", qtype::AAAA, Some(4096));

        let query = Query::parse(&bytes).unwrap();

        assert_eq!(query.name(), wire("photos.example"));
        assert_eq!(&query.question_bytes()[..16], wire("Photos.Example"));
        assert_eq!(query.edns, Some(Edns { size: 4096, ..Edns::default() }));
    }

    #[test]
    fn answers_and_scraps_meet_silence() {
        let mut answer = query("a.example", 1, None);
        answer[2] |= 0x80;

        assert_eq!(Query::parse(&answer).unwrap_err(), Unfit::Silence);
        assert_eq!(Query::parse(&answer[..11]).unwrap_err(), Unfit::Silence);
    }

    #[test]
    fn what_is_no_single_question_is_malformed() {
        let mut two = query("a.example", 1, None);
        two[5] = 2;
        let mut pointer = query("a.example", 1, None);
        pointer[12] = 0xc0;
        let mut two_opts = query("a.example", 1, Some(512));
        two_opts[11] = 2;
        two_opts.extend([0, 0, 41, 2, 0, 0, 0, 0, 0, 0, 0]);
        let cut = query("a.example", 1, None);
        let long = query(&"a23456789.".repeat(26), 1, None);

        for bytes in [&two, &pointer, &two_opts, &cut[..cut.len() - 1].to_vec(), &long] {
            assert_eq!(Query::parse(bytes).unwrap_err(), Unfit::Malformed);
        }
    }

    /// Makes a query with these EDNS options.
    pub(crate) fn query_with(name: &str, qtype: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = query(name, qtype, Some(1232));
        let written: Vec<u8> = options
            .iter()
            .flat_map(|(code, data)| {
                let length = u16::try_from(data.len()).unwrap();
                [code.to_be_bytes(), length.to_be_bytes()].concat().into_iter().chain(data.iter().copied())
            })
            .collect();
        let at = bytes.len() - 2;
        bytes[at..].copy_from_slice(&u16::try_from(written.len()).unwrap().to_be_bytes());
        bytes.extend(written);
        bytes
    }

    #[test]
    fn options_are_read_and_must_be_whole() {
        let bytes = query_with("a.example", 1, &[(99, b"?"), (option::COOKIE, &[7; 8]), (option::PADDING, &[0; 30])]);
        let edns = Query::parse(&bytes).unwrap().edns.unwrap();
        assert!(edns.padded && !edns.keepalive);
        assert_eq!(edns.cookie.map(|cookie| cookie.client), Some([7; 8]));

        let mut cut = query_with("a.example", 1, &[(99, b"??")]);
        let last = cut.len() - 3;
        cut[last] = 3;
        for bytes in [cut, query_with("a.example", 1, &[(option::COOKIE, &[7; 9])])] {
            assert_eq!(Query::parse(&bytes).unwrap_err(), Unfit::Malformed);
        }
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let name = wire("a.b.example");

        let seen: Vec<_> = ancestors(&name).map(<[u8]>::to_vec).collect();

        assert_eq!(seen, [wire("a.b.example"), wire("b.example"), wire("example"), wire("")]);
    }
}

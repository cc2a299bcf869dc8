//! Messages, read record by record: a record that cannot be understood is left out, the rest of the
//! message still counts. Writing is for questions; answers to clients are made elsewhere.

use std::sync::Arc;

use super::name::{LONGEST, Name};

/// Record types that the resolver knows by name.
pub mod rtype {
    #![allow(missing_docs, reason = "the names are the IANA registry's")]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const RP: u16 = 17;
    pub const AFSDB: u16 = 18;
    pub const SIG: u16 = 24;
    pub const PX: u16 = 26;
    pub const AAAA: u16 = 28;
    pub const NXT: u16 = 30;
    pub const SRV: u16 = 33;
    pub const NAPTR: u16 = 35;
    pub const KX: u16 = 36;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const NSEC3: u16 = 50;
    pub const ANY: u16 = 255;
}

/// Response codes.
pub mod rcode {
    #![allow(missing_docs, reason = "the names are the IANA registry's")]
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const YXDOMAIN: u16 = 6;
    pub const BADVERS: u16 = 16;
    pub const BADCOOKIE: u16 = 23;
}

/// The class of the Internet.
pub const IN: u16 = 1;

/// One record. Names inside the data are without compression; their case is as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner.
    pub name: Name,
    /// Its type.
    pub rtype: u16,
    /// Its class.
    pub class: u16,
    /// Seconds; a value with the high bit set was read as 0 (RFC 2181 §8).
    pub ttl: u32,
    /// Its data.
    pub rdata: Arc<[u8]>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// What is asked for.
    pub name: Name,
    /// Which type.
    pub rtype: u16,
}

impl Question {
    /// Returns the name whose zone has the answer: DS stands at the parent's side of a cut.
    pub fn place(&self) -> Name {
        match (self.rtype, self.name.parent()) {
            (rtype::DS, Some(parent)) => parent,
            _ => self.name.clone(),
        }
    }
}

/// What stands in an OPT record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// The sender's UDP size.
    pub size: u16,
    /// The sender wants or sends signatures.
    pub dnssec_ok: bool,
    /// The options as they stand.
    pub options: Vec<(u16, Vec<u8>)>,
}

/// A message from a server.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Its ID.
    pub id: u16,
    /// QR.
    pub response: bool,
    /// The operation.
    pub opcode: u8,
    /// AA.
    pub authoritative: bool,
    /// TC.
    pub truncated: bool,
    /// RD.
    pub recursion_desired: bool,
    /// RA.
    pub recursion_available: bool,
    /// AD.
    pub authentic: bool,
    /// CD.
    pub checking_disabled: bool,
    /// With the upper bits from EDNS.
    pub rcode: u16,
    /// The question's name as it was written, for 0x20.
    pub raw_question: Vec<u8>,
    /// The question, if there is exactly one and it is of class IN.
    pub question: Option<Question>,
    /// The answer section.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section without OPT.
    pub additional: Vec<Record>,
    /// EDNS, if there was an OPT record of version 0.
    pub edns: Option<Edns>,
    /// The message ended before its records did, or had more records than are read.
    pub incomplete: bool,
}

/// Bytes that are no DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS message")]
pub struct Malformed;

/// No honest answer holds more.
const MOST_RECORDS: usize = 2000;

struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.whole.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Reads a name with compression and returns it as written. Pointers only go back, each further than
    /// the last, so that a name ends.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut wire = Vec::with_capacity(32);
        let mut at = self.at;
        let mut after = None;
        let mut limit = self.at;
        loop {
            let length = usize::from(*self.whole.get(at)?);
            match length {
                0 => {
                    wire.push(0);
                    at += 1;
                    break;
                }
                1..=63 => {
                    wire.extend_from_slice(self.whole.get(at..at + 1 + length)?);
                    at += 1 + length;
                    if wire.len() >= LONGEST {
                        return None;
                    }
                }
                0xc0.. => {
                    let low = usize::from(*self.whole.get(at + 1)?);
                    let target = (length & 0x3f) << 8 | low;
                    after.get_or_insert(at + 2);
                    if target >= limit {
                        return None;
                    }
                    limit = target;
                    at = target;
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(at);
        Some(wire)
    }
}

/// Returns the places of the TTLs in a message, with what stands there.
fn ttls(bytes: &[u8]) -> Vec<(usize, u32)> {
    let mut reader = Reader { whole: bytes, at: 4 };
    let mut found = Vec::new();
    let mut walk = || {
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        for _ in 0..counts[0] {
            reader.name()?;
            reader.take(4)?;
        }
        let records = counts[1..].iter().map(|count| usize::from(*count)).sum::<usize>();
        for _ in 0..records.min(MOST_RECORDS) {
            reader.name()?;
            let rtype = reader.u16()?;
            reader.take(2)?;
            let (at, ttl) = (reader.at, reader.u32()?);
            let length = usize::from(reader.u16()?);
            reader.take(length)?;
            if rtype != rtype::OPT {
                found.push((at, ttl));
            }
        }
        Some(())
    };
    // What cannot be read is nobody's answer.
    let _ = walk();
    found
}

impl Message {
    /// Reads a message. What cannot be read of a record leaves that record out; what cannot be read of the
    /// message's frame marks it as incomplete.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { whole: bytes, at: 0 };
        let mut word = || reader.u16().ok_or(Malformed);
        let id = word()?;
        let flags = word()?;
        let counts = [word()?, word()?, word()?, word()?];
        let flag = |bit: u16| flags & bit != 0;
        let mut message = Self {
            id,
            response: flag(0x8000),
            opcode: u8::try_from(flags >> 11 & 0xf).expect("four bits"),
            authoritative: flag(0x0400),
            truncated: flag(0x0200),
            recursion_desired: flag(0x0100),
            recursion_available: flag(0x0080),
            authentic: flag(0x0020),
            checking_disabled: flag(0x0010),
            rcode: flags & 0xf,
            ..Self::default()
        };
        for _ in 0..counts[0] {
            let (Some(name), Some(rtype), Some(class)) = (reader.name(), reader.u16(), reader.u16()) else {
                return Err(Malformed);
            };
            if counts[0] == 1 && class == IN {
                let parsed = Name::from_wire(&name).ok_or(Malformed)?;
                message.question = Some(Question { name: parsed, rtype });
                message.raw_question = name;
            }
        }
        let mut records = 0;
        for (section, count) in counts.iter().enumerate().skip(1) {
            for _ in 0..*count {
                records += 1;
                if records > MOST_RECORDS || message.read_record(&mut reader, section).is_none() {
                    message.incomplete = true;
                    return Ok(message);
                }
            }
        }
        Ok(message)
    }

    /// Takes so many seconds from each TTL, as far as the message can be read.
    pub fn age(bytes: &mut [u8], seconds: u32) {
        for (at, ttl) in ttls(bytes) {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
            }
        }
    }

    fn read_record(&mut self, reader: &mut Reader<'_>, section: usize) -> Option<()> {
        let name = reader.name()?;
        let rtype = reader.u16()?;
        let class = reader.u16()?;
        let ttl = reader.u32()?;
        let length = usize::from(reader.u16()?);
        let start = reader.at;
        reader.take(length)?;
        if rtype == rtype::OPT {
            if section == 3 && self.edns.is_none() {
                self.read_opt(class, ttl, &reader.whole[start..start + length]);
            }
            return Some(());
        }
        let Some(name) = Name::from_wire(&name) else { return Some(()) };
        let Some(rdata) = expand(reader.whole, start, length, rtype) else { return Some(()) };
        let ttl = if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
        let record = Record { name, rtype, class, ttl, rdata: rdata.into() };
        match section {
            1 => self.answer.push(record),
            2 => self.authority.push(record),
            _ => self.additional.push(record),
        }
        Some(())
    }

    fn read_opt(&mut self, class: u16, ttl: u32, mut data: &[u8]) {
        if ttl >> 16 & 0xff != 0 {
            return;
        }
        self.rcode |= u16::try_from(ttl >> 24).expect("eight bits") << 4;
        let mut edns = Edns { size: class, dnssec_ok: ttl & 0x8000 != 0, options: Vec::new() };
        while let [c0, c1, l0, l1, rest @ ..] = data {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let Some(value) = rest.get(..length) else { break };
            if edns.options.len() < 16 {
                edns.options.push((u16::from_be_bytes([*c0, *c1]), value.to_vec()));
            }
            data = &rest[length..];
        }
        self.edns = Some(edns);
    }
}

/// Returns the data with its names expanded, or `None` if it is not what its type says.
fn expand(whole: &[u8], start: usize, length: usize, rtype: u16) -> Option<Vec<u8>> {
    let end = start + length;
    let mut reader = Reader { whole: &whole[..end], at: start };
    let mut out = Vec::with_capacity(length + 16);
    let plain = |reader: &mut Reader<'_>, out: &mut Vec<u8>, count: usize| {
        out.extend_from_slice(reader.take(count)?);
        Some(())
    };
    let name = |reader: &mut Reader<'_>, out: &mut Vec<u8>| {
        out.extend(reader.name()?);
        Some(())
    };
    let text = |reader: &mut Reader<'_>, out: &mut Vec<u8>| {
        let length = usize::from(*reader.whole.get(reader.at)?);
        out.extend_from_slice(reader.take(1 + length)?);
        Some(())
    };
    // RFC 3597 §4: names in data are compressed only in the types of RFC 1035; those of RFC 2163, 2230,
    // 2535, 2782, 3403, 6672 are read leniently because old servers compress them.
    match rtype {
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME | 3 | 4 | 7 | 8 | 9 => name(&mut reader, &mut out)?,
        rtype::SOA => {
            name(&mut reader, &mut out)?;
            name(&mut reader, &mut out)?;
            plain(&mut reader, &mut out, 20)?;
        }
        rtype::RP | 14 => {
            name(&mut reader, &mut out)?;
            name(&mut reader, &mut out)?;
        }
        rtype::MX | rtype::AFSDB | rtype::KX | 21 => {
            plain(&mut reader, &mut out, 2)?;
            name(&mut reader, &mut out)?;
        }
        rtype::PX => {
            plain(&mut reader, &mut out, 2)?;
            name(&mut reader, &mut out)?;
            name(&mut reader, &mut out)?;
        }
        rtype::SRV => {
            plain(&mut reader, &mut out, 6)?;
            name(&mut reader, &mut out)?;
        }
        rtype::NAPTR => {
            plain(&mut reader, &mut out, 4)?;
            for _ in 0..3 {
                text(&mut reader, &mut out)?;
            }
            name(&mut reader, &mut out)?;
        }
        rtype::A => plain(&mut reader, &mut out, 4)?,
        rtype::AAAA => plain(&mut reader, &mut out, 16)?,
        rtype::RRSIG | rtype::SIG => {
            plain(&mut reader, &mut out, 18)?;
            name(&mut reader, &mut out)?;
            let rest = end.checked_sub(reader.at)?;
            plain(&mut reader, &mut out, rest)?;
        }
        _ => plain(&mut reader, &mut out, length)?,
    }
    (reader.at == end).then_some(out)
}

/// What a question to a server carries.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The ID.
    pub id: u16,
    /// The name in wire form, with the case that is to come back.
    pub name: &'a [u8],
    /// The type.
    pub rtype: u16,
    /// RD, for servers that recurse for us.
    pub recursion_desired: bool,
    /// CD, for servers that recurse for us.
    pub checking_disabled: bool,
    /// The UDP size to offer; none asks without EDNS.
    pub edns_size: Option<u16>,
    /// The COOKIE option (RFC 7873), if any.
    pub cookie: Option<&'a [u8]>,
    /// The length of the message is made a multiple of this (RFC 7830), where it is encrypted.
    pub block: Option<u16>,
}

impl Asked<'_> {
    /// Returns the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.name.len());
        out.extend(self.id.to_be_bytes());
        let flags = u16::from(self.recursion_desired) << 8 | u16::from(self.checking_disabled) << 4;
        out.extend(flags.to_be_bytes());
        let additional = u16::from(self.edns_size.is_some());
        for count in [1, 0, 0, additional] {
            out.extend(u16::to_be_bytes(count));
        }
        out.extend_from_slice(self.name);
        out.extend(self.rtype.to_be_bytes());
        out.extend(IN.to_be_bytes());
        if let Some(size) = self.edns_size {
            out.push(0);
            out.extend(rtype::OPT.to_be_bytes());
            out.extend(size.to_be_bytes());
            out.extend([0, 0, 0x80, 0]);
            let mut options = Vec::new();
            let mut option = |code: u16, data: &[u8]| {
                let length = u16::try_from(data.len()).expect("a cookie and a padding are short");
                options.extend(code.to_be_bytes());
                options.extend(length.to_be_bytes());
                options.extend_from_slice(data);
            };
            if let Some(cookie) = self.cookie.filter(|cookie| !cookie.is_empty()) {
                option(10, cookie);
            }
            if let Some(block) = self.block.map(usize::from).filter(|block| *block > 0) {
                let before = out.len() + 2 + self.cookie.map_or(0, |cookie| cookie.len() + 4) + 4;
                option(12, &vec![0; before.next_multiple_of(block) - before]);
            }
            out.extend(u16::try_from(options.len()).expect("two short options").to_be_bytes());
            out.extend(options);
        }
        out
    }
}

/// Returns the name that the data of an NS, CNAME, DNAME or PTR record holds.
pub fn target(rdata: &[u8]) -> Option<Name> {
    Name::from_wire(rdata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written() {
        let asked = Asked {
            id: 7,
            name: b"\x03wWw\x07example\x00",
            rtype: rtype::A,
            recursion_desired: false,
            checking_disabled: false,
            edns_size: Some(1232),
            block: None,
            cookie: Some(&[1; 8]),
        };

        let message = Message::parse(&asked.encode()).unwrap();

        assert_eq!(message.id, 7);
        assert_eq!(message.question, Some(Question { name: Name::parse("www.example").unwrap(), rtype: 1 }));
        assert_eq!(message.raw_question, asked.name);
        let edns = message.edns.unwrap();
        assert!(edns.dnssec_ok);
        assert_eq!(edns.options, [(10, vec![1; 8])]);
    }

    #[test]
    fn a_pointer_that_does_not_go_back_makes_no_name() {
        let mut loops = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        loops.extend([0xc0, 12, 0, 1, 0, 1]);

        assert!(Message::parse(&loops).is_err());
    }

    #[test]
    fn a_record_with_wrong_data_is_left_out_and_the_next_one_read() {
        let mut bytes = vec![0, 1, 0x84, 0, 0, 1, 0, 2, 0, 0, 0, 0];
        bytes.extend(b"\x01a\x00\x00\x01\x00\x01");
        // An A record of three bytes, then a sound one.
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x03\x01\x02\x03");
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04");

        let message = Message::parse(&bytes).unwrap();

        assert_eq!(message.answer.len(), 1);
        assert_eq!(&*message.answer[0].rdata, [1, 2, 3, 4]);
    }
}

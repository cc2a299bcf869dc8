//! Answers written into a buffer that the caller keeps: nothing here allocates once the buffer has grown.

use std::collections::HashMap;

use super::{
    query::{Edns, Query, Unfit, ancestors, option, skip_name},
    resolver::{Why, wire::Record},
};

/// What we say we take, and the most that is sent over UDP (the DNS flag day 2020 size).
pub(crate) const UDP_SIZE: u16 = 1232;

/// The most that a client without EDNS takes over UDP (RFC 1035 §4.2.1).
const PLAIN_SIZE: u16 = 512;

/// Response codes which are used by number.
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const YXDOMAIN: u16 = 6;
    pub(crate) const BADVERS: u16 = 16;
}

/// Extended errors (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Ede {
    /// The question costs too much to answer.
    TooCostly = 0,
    /// Not checked, because the clock is not right. (0 as well: the text tells them apart.)
    ClockUnset = 0x8000,
    /// Signed, but only with algorithms that are not checked.
    UnsupportedAlgorithm = 1,
    /// Signed, but only with digests that are not checked.
    UnsupportedDigest = 2,
    /// An expired answer, because no authority could be asked.
    Stale = 3,
    /// Not what its authority says: a list of the owner's gives another answer.
    Forged = 4,
    /// Signatures do not hold.
    Bogus = 6,
    /// Their time is over.
    SignatureExpired = 7,
    /// Their time has not come.
    SignatureNotYetValid = 8,
    /// No key of the zone is vouched for.
    KeyMissing = 9,
    /// A signed zone's data came without signatures.
    SignaturesMissing = 10,
    /// It was not proven that there is no such thing.
    DenialMissing = 12,
    /// It failed a moment ago.
    CachedFailure = 13,
    /// We are at our limits.
    NotReady = 14,
    /// A rule of the owner's.
    Blocked = 15,
    /// Taken out for the client's sake: a private address under a public name.
    Filtered = 17,
    /// Not for this client.
    Prohibited = 18,
    /// An expired denial.
    StaleNxDomain = 19,
    /// Nobody who knows could be asked.
    NoReachableAuthority = 22,
    /// Whoever was asked made no sense.
    NetworkError = 23,
}

impl Ede {
    /// Says whether validation failed.
    pub(crate) fn is_bogus(self) -> bool {
        use Ede::*;
        matches!(self, Bogus | SignatureExpired | SignatureNotYetValid | KeyMissing | SignaturesMissing | DenialMissing)
    }

    /// Returns the INFO-CODE.
    fn code(self) -> u16 {
        if self == Self::ClockUnset { 0 } else { self as u16 }
    }

    /// What is said besides the number, where it says too little.
    fn text(self) -> &'static str {
        match self {
            Self::TooCostly => Why::BudgetSpent.text(),
            Self::ClockUnset => Why::ClockUnset.text(),
            _ => "",
        }
    }
}

impl From<Why> for Ede {
    fn from(why: Why) -> Self {
        match why {
            Why::UnsupportedAlgorithm => Self::UnsupportedAlgorithm,
            Why::UnsupportedDigest => Self::UnsupportedDigest,
            // RFC 8509: the question about a key is answered by failing.
            Why::Bogus | Why::Sentinel => Self::Bogus,
            Why::SignatureExpired => Self::SignatureExpired,
            Why::SignatureNotYetValid => Self::SignatureNotYetValid,
            Why::KeyMissing => Self::KeyMissing,
            Why::SignaturesMissing => Self::SignaturesMissing,
            Why::DenialMissing => Self::DenialMissing,
            Why::CachedFailure => Self::CachedFailure,
            Why::NoReachableAuthority => Self::NoReachableAuthority,
            Why::NetworkError => Self::NetworkError,
            Why::BudgetSpent => Self::TooCostly,
            Why::Crowded => Self::NotReady,
            Why::ClockUnset => Self::ClockUnset,
            Why::Stale => Self::Stale,
            Why::StaleNxDomain => Self::StaleNxDomain,
        }
    }
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// The response code, with the bits that OPT carries.
    pub(crate) rcode: u16,
    /// AA.
    pub(crate) authoritative: bool,
    /// AD.
    pub(crate) authentic: bool,
}

impl Head {
    /// An answer of the house itself.
    pub(crate) const fn local(rcode: u16) -> Self {
        Self { rcode, authoritative: true, authentic: false }
    }

    /// A plain code.
    pub(crate) const fn code(rcode: u16) -> Self {
        Self { rcode, authoritative: false, authentic: false }
    }
}

/// The sections of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// ANCOUNT.
    Answer = 6,
    /// NSCOUNT.
    Authority = 8,
    /// ARCOUNT.
    Additional = 10,
}

/// Writes header and question.
pub(crate) fn start(query: &Query<'_>, head: Head, out: &mut Vec<u8>) {
    out.clear();
    let ([high, low], [first, second]) = (query.id(), flags(query, head));
    out.extend_from_slice(&[high, low, first, second, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(query.question_bytes());
}

/// Returns the two bytes of flags.
pub(crate) fn flags(query: &Query<'_>, head: Head) -> [u8; 2] {
    let high = 0x80 | u8::from(head.authoritative) << 2 | u8::from(query.recursion_desired());
    let authentic = head.authentic && query.wants_authentic();
    let low = 0x80 | u8::from(authentic) << 5 | u8::from(query.checking_disabled()) << 4;
    [high, low | (head.rcode & 0x0f) as u8]
}

/// Writes other flags over those of an answer.
pub(crate) fn set_flags(query: &Query<'_>, head: Head, out: &mut [u8]) {
    if let Some(place) = out.get_mut(2..4) {
        place.copy_from_slice(&flags(query, head));
    }
}

/// Writes one record. `owner` is in wire form; a pointer is welcome.
pub(crate) fn record(out: &mut Vec<u8>, section: Section, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) {
    let Ok(length) = u16::try_from(rdata.len()) else { return };
    out.extend(owner);
    out.extend(rtype.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(rdata);
    count(out, section);
}

/// An answer as far as it was written at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    counts: [u8; 6],
    length: usize,
}

impl Begun {
    /// Remembers how far it is.
    pub(crate) fn of(out: &[u8]) -> Self {
        let mut counts = [0; 6];
        if let Some(written) = out.get(6..12) {
            counts.copy_from_slice(written);
        }
        Self { counts, length: out.len() }
    }

    /// Takes away every record that was written since.
    pub(crate) fn forget_what_follows(self, out: &mut Vec<u8>) {
        out.truncate(self.length);
        if let Some(written) = out.get_mut(6..12) {
            written.copy_from_slice(&self.counts);
        }
    }
}

/// A pointer to the question's name.
pub(crate) const QNAME: &[u8] = &[0xc0, 12];

/// Writes a message for the cache: a question in lower case, and records with compressed names.
pub(crate) struct Writer {
    out: Vec<u8>,
    /// Where names stand.
    places: HashMap<Box<[u8]>, u16>,
}

impl Writer {
    /// Writes header and question.
    pub(crate) fn new(name: &[u8], qtype: u16) -> Self {
        let mut writer = Self { out: vec![0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0], places: HashMap::new() };
        writer.name(name);
        writer.out.extend(qtype.to_be_bytes());
        writer.out.extend([0, 1]);
        writer
    }

    /// Writes a record.
    pub(crate) fn record(&mut self, section: Section, record: &Record) {
        self.name(record.name.as_wire());
        self.out.extend(record.rtype.to_be_bytes());
        self.out.extend(record.class.to_be_bytes());
        self.out.extend(record.ttl.to_be_bytes());
        let at = self.out.len();
        self.out.extend([0, 0]);
        self.data(record.rtype, &record.rdata);
        let length = u16::try_from(self.out.len() - at - 2).unwrap_or(u16::MAX);
        if let Some(place) = self.out.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        count(&mut self.out, section);
    }

    /// Returns the message; `None` if it is too long to be one.
    pub(crate) fn finish(self) -> Option<Box<[u8]>> {
        (self.out.len() <= usize::from(u16::MAX)).then(|| self.out.into())
    }

    /// RFC 3597 §4: names in data are compressed in the types of RFC 1035 only.
    fn data(&mut self, rtype: u16, rdata: &[u8]) {
        let (before, names) = match rtype {
            2 | 5 | 12 => (0, 1),
            6 => (0, 2),
            15 => (2, 1),
            _ => (0, 0),
        };
        let (fixed, mut rest) = rdata.split_at(before.min(rdata.len()));
        self.out.extend(fixed);
        for _ in 0..names {
            let Some(end) = skip_name(rest, 0) else { break };
            let (name, behind) = rest.split_at(end);
            self.name(name);
            rest = behind;
        }
        self.out.extend(rest);
    }

    fn name(&mut self, name: &[u8]) {
        for suffix in ancestors(name) {
            let [length, ..] = suffix else { return };
            if *length == 0 {
                self.out.push(0);
                return;
            }
            // Only what stands where it stands in the same case counts, or servers' case would change.
            if let Some(place) = self.places.get(suffix) {
                self.out.extend((0xc000 | place).to_be_bytes());
                return;
            }
            if let Ok(here @ ..0x4000) = u16::try_from(self.out.len()) {
                self.places.insert(suffix.into(), here);
            }
            self.out.extend(suffix.get(..1 + usize::from(*length)).unwrap_or_default());
        }
    }
}

fn count(out: &mut [u8], section: Section) {
    let at = section as usize;
    if let Some([high, low]) = out.get_mut(at..at + 2) {
        let counted = u16::from_be_bytes([*high, *low]).wrapping_add(1);
        [*high, *low] = counted.to_be_bytes();
    }
}

/// How long an answer may be, and what its OPT carries besides an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Both halves of a cookie (RFC 7873).
    pub(crate) cookie: Option<[u8; 24]>,
    /// How long a connection may be idle, in units of 100 ms (RFC 7828).
    pub(crate) keepalive: Option<u16>,
    /// To a multiple of [`PADDED`] bytes.
    pub(crate) padded: bool,
}

impl From<usize> for Limit {
    fn from(bytes: usize) -> Self {
        Self { bytes, cookie: None, keepalive: None, padded: false }
    }
}

/// Answers are padded to a multiple of this (RFC 8467 §4.1).
const PADDED: usize = 468;

/// Ends an answer: OPT if the client sent one, and TC instead of the records if it is too long for `limit`.
pub(crate) fn finish(query: &Query<'_>, rcode: u16, ede: Option<Ede>, limit: impl Into<Limit>, out: &mut Vec<u8>) {
    finish_saying(query, rcode, ede.map(|ede| (ede, ede.text())), limit, out);
}

/// The same, with words of ours to an extended error.
pub(crate) fn finish_saying(
    query: &Query<'_>,
    rcode: u16,
    ede: Option<(Ede, &str)>,
    limit: impl Into<Limit>,
    out: &mut Vec<u8>,
) {
    let limit = limit.into();
    let options = ede.map_or(0, |_| 6) + limit.cookie.map_or(0, |_| 28) + limit.keepalive.map_or(0, |_| 6);
    let options = options + if limit.padded { 4 } else { 0 };
    if out.len() + query.edns.map_or(0, |_| 11 + options) > limit.bytes {
        truncate(query, out);
    }
    let Some(edns) = query.edns else { return };
    // RFC 6891 §6.1.3: the upper eight bits of the code stand in the TTL, then version 0 and DO.
    let upper = (rcode >> 4) as u8;
    let [size_high, size_low] = UDP_SIZE.to_be_bytes();
    let secure = u8::from(edns.dnssec_ok) << 7;
    out.extend_from_slice(&[0, 0, 41, size_high, size_low, upper, 0, secure, 0, 0, 0]);
    let at = out.len() - 2;
    if let Some((ede, text)) = ede {
        // What explains is left out rather than what is explained.
        let text = Some(text).filter(|text| out.len() + options + text.len() <= limit.bytes).unwrap_or_default();
        write_option(out, option::EDE, 2 + text.len());
        out.extend(ede.code().to_be_bytes());
        out.extend(text.as_bytes());
    }
    if let Some(cookie) = limit.cookie {
        write_option(out, option::COOKIE, cookie.len());
        out.extend(cookie);
    }
    if let Some(time) = limit.keepalive {
        write_option(out, option::KEEPALIVE, 2);
        out.extend(time.to_be_bytes());
    }
    if limit.padded {
        let length = (out.len() + 4).next_multiple_of(PADDED).min(limit.bytes).saturating_sub(out.len() + 4);
        write_option(out, option::PADDING, length);
        out.resize(out.len() + length, 0);
    }
    let length = u16::try_from(out.len() - at - 2).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    count(out, Section::Additional);
}

/// Takes the records off and says TC: the client is to ask again over TCP.
pub(crate) fn truncate(query: &Query<'_>, out: &mut Vec<u8>) {
    out.truncate(12 + query.question_bytes().len());
    if let Some(header) = out.first_chunk_mut::<12>() {
        header[2] |= 0x02;
        header[6..12].fill(0);
    }
}

fn write_option(out: &mut Vec<u8>, code: u16, length: usize) {
    out.extend(code.to_be_bytes());
    out.extend((length as u16).to_be_bytes());
}

/// Returns how long an answer over UDP may be.
pub(crate) fn udp_limit(edns: Option<Edns>) -> usize {
    usize::from(edns.map_or(PLAIN_SIZE, |edns| edns.size.clamp(PLAIN_SIZE, UDP_SIZE)))
}

/// Answers what is no query; false if nothing may be said.
pub(crate) fn unfit(bytes: &[u8], unfit: Unfit, out: &mut Vec<u8>) -> bool {
    let code = match unfit {
        Unfit::Silence => return false,
        Unfit::Malformed => rcode::FORMERR,
        Unfit::Opcode => rcode::NOTIMP,
    };
    let Some(header) = bytes.first_chunk::<4>() else { return false };
    out.clear();
    out.extend([header[0], header[1], 0x80 | header[2] & 0x79, code as u8]);
    out.extend([0; 8]);
    true
}

/// Returns the least TTL of a message's records, 0 if it has none or cannot be walked.
pub(crate) fn least_ttl(message: &[u8]) -> u32 {
    let ttl = |at: &u16| message.get(usize::from(*at)..)?.first_chunk().map(|ttl| u32::from_be_bytes(*ttl));
    let is_opt = |at: &u16| {
        let start = usize::from(*at).saturating_sub(4);
        message.get(start..start + 2) == Some(&[0, 41])
    };
    let offsets = ttl_offsets(message).unwrap_or_default();
    offsets.iter().filter(|at| !is_opt(at)).filter_map(ttl).min().unwrap_or(0)
}

/// Returns where the TTLs of a message's records stand; `None` if the message cannot be walked.
pub(crate) fn ttl_offsets(message: &[u8]) -> Option<Box<[u16]>> {
    let header = message.first_chunk::<12>()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let mut at = 12;
    for _ in 0..count(4) {
        at = skip_name(message, at)? + 4;
    }
    let mut offsets = Vec::new();
    for _ in 0..count(6) + count(8) + count(10) {
        at = skip_name(message, at)?;
        let fixed: &[u8; 10] = message.get(at..)?.first_chunk()?;
        offsets.push(u16::try_from(at + 4).ok()?);
        at += 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    }
    (at <= message.len()).then(|| offsets.into())
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::{
        super::query::tests::{query, query_with, wire},
        *,
    };

    #[test]
    fn an_answer_is_what_an_independent_reader_understands() {
        let bytes = query("Nas.example", 1, Some(1400));
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();

        start(&asked, Head::local(0), &mut out);
        record(&mut out, Section::Answer, QNAME, 1, 60, &[192, 168, 1, 10]);
        finish(&asked, 0, Some(Ede::Blocked), udp_limit(asked.edns), &mut out);

        let message = Message::from_vec(&out).unwrap();
        assert_eq!(message.answers[0].to_string(), "Nas.example. 60 IN A 192.168.1.10");
        assert!(message.metadata.authoritative && !message.metadata.truncation);
        assert_eq!(message.edns.unwrap().max_payload(), UDP_SIZE);
        assert_eq!(&out[out.len() - 2..], [0, 15]);
    }

    #[test]
    fn a_long_answer_keeps_its_question_and_is_marked() {
        let bytes = query("nas.example", 16, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();

        start(&asked, Head::local(0), &mut out);
        record(&mut out, Section::Answer, QNAME, 16, 60, &[1; 600]);
        finish(&asked, 0, None, udp_limit(None), &mut out);

        let message = Message::from_vec(&out).unwrap();
        assert!(message.metadata.truncation && message.answers.is_empty());
        assert_eq!(message.queries[0].name().to_string(), "nas.example.");
    }

    #[test]
    fn rfc8467_a_padded_answer_is_a_multiple_of_468_bytes() {
        let bytes = query_with("nas.example", 16, &[(option::PADDING, &[0; 3])]);
        let asked = Query::parse(&bytes).unwrap();
        let padded =
            Limit { padded: true, cookie: Some([3; 24]), keepalive: Some(200), ..usize::from(u16::MAX).into() };

        for size in [1, 250, 255, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 900] {
            let mut out = Vec::new();
            start(&asked, Head::local(0), &mut out);
            record(&mut out, Section::Answer, QNAME, 10, 60, &vec![1; size]);
            finish(&asked, 0, Some(Ede::TooCostly), padded, &mut out);

            assert_eq!(out.len() % PADDED, 0, "{size}");
            let message = Message::from_vec(&out).unwrap();
            assert_eq!(message.answers.len(), 1);
            assert_eq!(message.edns.unwrap().options().as_ref().len(), 4);
        }
    }

    #[test]
    fn badvers_stands_in_opt() {
        let bytes = query("nas.example", 1, Some(512));
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();

        start(&asked, Head::code(rcode::BADVERS), &mut out);
        finish(&asked, rcode::BADVERS, None, 512, &mut out);

        // hickory calls 16 by its older name.
        assert_eq!(u16::from(Message::from_vec(&out).unwrap().metadata.response_code), rcode::BADVERS);
    }

    #[test]
    fn ttls_are_found_behind_pointers() {
        let bytes = query("nas.example", 1, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        start(&asked, Head::local(0), &mut out);
        record(&mut out, Section::Answer, QNAME, 5, 1, &wire("x.example"));
        record(&mut out, Section::Answer, &wire("x.example"), 1, 2, &[1, 2, 3, 4]);

        let offsets = ttl_offsets(&out).unwrap();

        let ttls: Vec<_> = offsets.iter().map(|at| out[usize::from(*at) + 3]).collect();
        assert_eq!(ttls, [1, 2]);
    }
}

//! What is asked: names by types by flags.

use std::{
    fmt,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use hearthgate::dns::resolver::{name::Name, wire::Message};

use super::{tree, verdict::Verdict};

/// How a question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// With EDNS and DO.
    Signed,
    /// With EDNS, DO and CD.
    Unchecked,
    /// With EDNS and AD.
    Authentic,
    /// As in 1987.
    Plain,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) flags: Flags,
}

impl fmt::Display for Question {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = match self.flags {
            Flags::Signed => "+dnssec",
            Flags::Unchecked => "+dnssec +cd",
            Flags::Authentic => "+edns +adflag",
            Flags::Plain => "+noedns +noadflag",
        };
        write!(to, "{} {} {flags}", self.name, self.kind)
    }
}

/// What is asked in a zone that has everything.
const EVERYTHING: &[(&str, &str)] = &[
    ("", "SOA"),
    ("", "NS"),
    ("", "MX"),
    ("", "DNSKEY"),
    ("", "DS"),
    ("", "A"),
    ("www", "A"),
    ("www", "AAAA"),
    ("WwW", "A"),
    ("www", "MX"),
    ("www", "DS"),
    ("missing", "A"),
    ("a.b.c.missing", "AAAA"),
    ("below.www", "A"),
    ("text", "TXT"),
    ("strange", "TYPE65534"),
    ("_sip._tcp", "SRV"),
    ("_tcp", "SRV"),
    ("alias", "A"),
    ("alias", "CNAME"),
    ("alias", "MX"),
    ("chain", "A"),
    ("chain", "AAAA"),
    ("long", "A"),
    ("ring", "A"),
    ("self", "A"),
    ("dangling", "A"),
    ("abroad", "A"),
    ("toplain", "A"),
    ("tobogus", "A"),
    ("any.wild", "A"),
    ("x.y.wild", "A"),
    ("any.wild", "AAAA"),
    ("wild", "A"),
    ("*.wild", "A"),
    ("any.wildalias", "A"),
    ("any.wildalias", "AAAA"),
    ("x.spin", "A"),
    ("any.wilddangling", "A"),
    ("ent", "A"),
    ("a.ent", "A"),
    ("b.a.ent", "A"),
    ("x.a.ent", "A"),
    ("down.star", "A"),
    ("x.down.star", "A"),
    ("x.star", "A"),
    ("deep.down.star", "TXT"),
    ("c.starent", "A"),
    ("x.c.starent", "A"),
    ("x.starent", "A"),
    ("dname", "DNAME"),
    ("dname", "A"),
    ("leaf.dname", "A"),
    ("leaf.dname", "AAAA"),
    ("missing.dname", "A"),
    ("any.wild.dname", "A"),
    ("alias.dname", "A"),
    ("www.dnameabroad", "A"),
    ("www.dnameplain", "A"),
    ("missing.dnameplain", "A"),
    ("x.dnamering", "A"),
    ("big", "TXT"),
    ("www.sub", "A"),
    ("missing.sub", "A"),
    ("sub", "DS"),
    ("sub", "NS"),
    ("sub", "DNSKEY"),
    ("www.plainsub", "A"),
    ("missing.plainsub", "A"),
    ("plainsub", "DS"),
    ("www.far", "A"),
    ("missing.far", "A"),
    ("far", "DS"),
    ("far", "NS"),
];

/// What is asked where something is wrong.
const SOMETHING: &[(&str, &str)] = &[
    ("", "SOA"),
    ("", "DNSKEY"),
    ("", "DS"),
    ("www", "A"),
    ("www", "AAAA"),
    ("missing", "A"),
    ("alias", "A"),
    ("any.wild", "A"),
];

/// Single names in the tree's other places.
const PLACES: &[(&str, &str)] = &[
    (".", "NS"),
    (".", "SOA"),
    (".", "DNSKEY"),
    (".", "DS"),
    ("missing.", "A"),
    ("a.b.missing.", "A"),
    ("tld", "DS"),
    ("tld", "NS"),
    ("opt", "DS"),
    ("opt", "SOA"),
    ("missing.tld", "A"),
    ("missing.opt", "A"),
    ("a.missing.opt", "TXT"),
    ("missing.opt", "DS"),
    ("plain", "DS"),
    ("plain", "SOA"),
    ("missing.plain", "A"),
    ("island.plain", "DNSKEY"),
    ("www.island.plain", "A"),
    ("missing.island.plain", "A"),
    ("ip6.arpa", "SOA"),
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.f.0.a.2.ip6.arpa", "PTR"),
    ("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.f.0.a.2.ip6.arpa", "PTR"),
    ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.f.0.a.2.ip6.arpa", "PTR"),
    ("0.0.0.f.0.a.2.ip6.arpa", "PTR"),
    ("5.f.0.a.2.ip6.arpa", "NS"),
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.0.a.2.ip6.arpa", "PTR"),
    ("www.noglue.tld", "A"),
    ("www.lame.tld", "A"),
    ("www.halflame.tld", "A"),
    ("www.halfdead.tld", "A"),
    ("www.halfdead.tld", "AAAA"),
    ("www.dead.tld", "A"),
    ("www.outside.tld", "A"),
    ("missing.outside.tld", "A"),
    ("www.circle1.tld", "A"),
    ("www.circle2.tld", "A"),
    ("www.nowhere.tld", "A"),
    ("www.upward.tld", "A"),
    ("www.mismatch.tld", "A"),
    ("mismatch.tld", "NS"),
    ("ns.nsec.tld", "A"),
    ("ns.plain", "A"),
];

/// Returns every question, the same each time.
pub(super) fn all() -> Vec<Question> {
    let mut pairs: Vec<(String, &'static str)> = Vec::new();
    let mut add = |zone: &str, asked: &[(&str, &'static str)]| {
        pairs.extend(asked.iter().map(|(name, kind)| {
            let name = if name.is_empty() { zone.to_owned() } else { format!("{name}.{zone}") };
            (name, *kind)
        }));
    };
    for zone in tree::zones() {
        let origin = zone.origin.trim_end_matches('.');
        match zone.content {
            tree::Content::Everything => add(origin, EVERYTHING),
            tree::Content::Something => add(origin, SOMETHING),
            tree::Content::Other(_) => {}
        }
    }
    pairs.extend(PLACES.iter().map(|(name, kind)| ((*name).to_owned(), *kind)));

    let mut questions = Vec::new();
    for (place, (name, kind)) in pairs.into_iter().enumerate() {
        let second = [Flags::Authentic, Flags::Unchecked, Flags::Plain][place % 3];
        questions.push(Question { name: name.clone(), kind, flags: Flags::Signed });
        questions.push(Question { name, kind, flags: second });
    }
    questions
}

impl Question {
    /// Asks a resolver over UDP, twice if nothing comes, and over TCP if the answer was cut.
    pub(super) fn ask(&self, resolver: &str, patience: Duration) -> Option<Verdict> {
        let address: IpAddr = resolver.parse().expect("an address");
        let to = SocketAddr::new(address, 53);
        let query = self.encode();
        let socket = UdpSocket::bind("0.0.0.0:0").expect("port 0 is free");
        socket.connect(to).expect("there is a route");
        socket.set_read_timeout(Some(patience / 2)).expect("not zero");
        let mut answer = vec![0; 65536];
        for _ in 0..2 {
            socket.send(&query).ok()?;
            let Ok(length) = socket.recv(&mut answer) else { continue };
            let message = Message::parse(answer.get(..length)?).ok()?;
            let message = if message.truncated { ask_tcp(to, &query, patience)? } else { message };
            assert!(!message.incomplete, "{self}: {resolver} sent half a message");
            return Some(Verdict::new(&message));
        }
        None
    }

    fn encode(&self) -> Vec<u8> {
        let kind: u16 = match self.kind {
            "A" => 1,
            "NS" => 2,
            "CNAME" => 5,
            "SOA" => 6,
            "PTR" => 12,
            "MX" => 15,
            "TXT" => 16,
            "AAAA" => 28,
            "SRV" => 33,
            "DNAME" => 39,
            "DS" => 43,
            "DNSKEY" => 48,
            other => other.trim_start_matches("TYPE").parse().expect("a type by number"),
        };
        let (flags, edns) = match self.flags {
            Flags::Signed => (0x0100_u16, Some(0x8000_u16)),
            Flags::Unchecked => (0x0110, Some(0x8000)),
            Flags::Authentic => (0x0120, Some(0)),
            Flags::Plain => (0x0100, None),
        };
        let mut query = vec![0x4d, 0x2a];
        query.extend(flags.to_be_bytes());
        query.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
        query.extend(Name::parse(&self.name).expect("a name").as_wire());
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        if let Some(edns) = edns {
            query.extend([0, 0, 41, 0x04, 0xd0, 0, 0]);
            query.extend(edns.to_be_bytes());
            query.extend([0, 0]);
        }
        query
    }
}

fn ask_tcp(to: SocketAddr, query: &[u8], patience: Duration) -> Option<Message> {
    let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_read_timeout(Some(patience)).expect("not zero");
    let length = u16::try_from(query.len()).expect("a query is short");
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).ok()?;
    Message::parse(&answer).ok()
}

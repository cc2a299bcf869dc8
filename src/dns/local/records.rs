//! The owner's records, and the reverse names that follow from them.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
};

use hickory_proto::rr::{Name, RData};
use ipnet::IpNet;

use super::{encoded, wire};
use crate::{
    dns::{
        LocalRecord,
        encode::{QNAME, Section, record},
        query::{Query, ancestors, parent, qtype},
    },
    origin::Networks,
};

/// The records of the house, compiled.
#[derive(Debug, Default)]
pub(crate) struct Records {
    names: HashMap<Box<[u8]>, Vec<Value>>,
    /// By what stands behind `*.`.
    wildcards: HashMap<Box<[u8]>, Vec<Value>>,
    /// Every name that has a name of the house below it.
    above: HashSet<Box<[u8]>>,
    /// Suffixes with the names that they lead back to.
    suffixes: Vec<(Ipv6Addr, Box<[u8]>, u32)>,
}

#[derive(Debug)]
enum Value {
    Fixed { rtype: u16, ttl: u32, rdata: Box<[u8]> },
    Suffix { suffix: Ipv6Addr, ttl: u32 },
}

/// What the house knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Local<'a> {
    /// Nothing.
    Absent,
    /// Records were written.
    Answered,
    /// The name is the house's and has no such records.
    NoData,
    /// CNAME records were written; they lead to this name, which is not the house's.
    Alias(&'a [u8]),
}

/// Chains of aliases end here.
const MAX_ALIASES: usize = 8;

impl Records {
    /// Compiles the records of a configuration.
    pub(crate) fn new(config: &[LocalRecord]) -> Self {
        let mut records = Self::default();
        for local in config {
            match local {
                LocalRecord::Fixed(fixed) => {
                    let value = |ttl, data: &RData| Value::Fixed {
                        rtype: data.record_type().into(),
                        ttl,
                        rdata: encoded(data).expect("what was read from a configuration fits into a message"),
                    };
                    records.add(&wire(&fixed.name), value(fixed.ttl, &fixed.data));
                    if let Some(address) = fixed.data.ip_addr()
                        && !fixed.name.is_wildcard()
                    {
                        let back = RData::PTR(hickory_proto::rr::rdata::PTR(fixed.name.clone()));
                        records.add(&wire(&Name::from(address)), value(fixed.ttl, &back));
                    }
                }
                LocalRecord::Suffix { name, suffix, ttl } => {
                    records.add(&wire(name), Value::Suffix { suffix: *suffix, ttl: *ttl });
                    let written = encoded(name).expect("a name fits into a message");
                    records.suffixes.push((*suffix, written, *ttl));
                }
            }
        }
        records
    }

    fn add(&mut self, name: &[u8], value: Value) {
        let values = match name.strip_prefix(b"\x01*") {
            Some(below) => self.wildcards.entry(below.into()).or_default(),
            None => self.names.entry(name.into()).or_default(),
        };
        values.push(value);
        self.above.extend(ancestors(name).skip(1).map(Box::from));
    }

    /// Says whether there is a name of the house below this one.
    pub(crate) fn has_below(&self, name: &[u8]) -> bool {
        self.above.contains(name)
    }

    /// Writes what the house knows of the query's name behind an answer's question.
    pub(crate) fn answer<'a>(&'a self, query: &Query<'_>, networks: &Networks, out: &mut Vec<u8>) -> Local<'a> {
        let mut owner = QNAME;
        let mut values = match self.values(query.name()) {
            Some(values) => values,
            None => return self.reverse(query, networks, out),
        };
        for _ in 0..MAX_ALIASES {
            let written = write(values, owner, query.qtype, networks, out);
            if written {
                return Local::Answered;
            }
            let alias = values.iter().find_map(|value| match value {
                Value::Fixed { rtype: qtype::CNAME, ttl, rdata } => Some((*ttl, &**rdata)),
                _ => None,
            });
            let Some((ttl, target)) = alias else { break };
            record(out, Section::Answer, owner, qtype::CNAME, ttl, target);
            let mut lower = target.to_vec();
            lower.make_ascii_lowercase();
            match self.values(&lower) {
                Some(next) => values = next,
                None => return Local::Alias(target),
            }
            owner = target;
        }
        Local::NoData
    }

    fn values(&self, name: &[u8]) -> Option<&[Value]> {
        if self.names.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        if let Some(values) = self.names.get(name) {
            return Some(values);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        // RFC 4592: the closest name that exists decides, so a wildcard does not reach below it.
        let mut name = parent(name)?;
        loop {
            if let Some(values) = self.wildcards.get(name) {
                return Some(values);
            }
            if self.names.contains_key(name) || self.above.contains(name) {
                return None;
            }
            name = parent(name)?;
        }
    }

    /// Answers a PTR query for an address that a suffix has under a prefix of this moment.
    fn reverse<'a>(&self, query: &Query<'_>, networks: &Networks, out: &mut Vec<u8>) -> Local<'a> {
        if self.suffixes.is_empty() {
            return Local::Absent;
        }
        let Some(address) = reverse_v6(query.name()) else { return Local::Absent };
        let found = self.suffixes.iter().find(|(suffix, ..)| under_prefixes(*suffix, networks).any(|a| a == address));
        match found {
            None => Local::Absent,
            Some((_, name, ttl)) if query.qtype == qtype::PTR => {
                record(out, Section::Answer, QNAME, qtype::PTR, *ttl, name);
                Local::Answered
            }
            Some(_) => Local::NoData,
        }
    }
}

fn write(values: &[Value], owner: &[u8], asked: u16, networks: &Networks, out: &mut Vec<u8>) -> bool {
    let mut written = false;
    for value in values {
        match value {
            Value::Fixed { rtype, ttl, rdata } if *rtype == asked => {
                record(out, Section::Answer, owner, *rtype, *ttl, rdata);
                written = true;
            }
            Value::Suffix { suffix, ttl } if asked == qtype::AAAA => {
                for address in under_prefixes(*suffix, networks) {
                    record(out, Section::Answer, owner, qtype::AAAA, *ttl, &address.octets());
                    written = true;
                }
            }
            _ => {}
        }
    }
    written
}

/// Returns the addresses that a suffix has under the prefixes of the LAN.
fn under_prefixes(suffix: Ipv6Addr, networks: &Networks) -> impl Iterator<Item = Ipv6Addr> {
    networks.on_link.iter().filter_map(move |net| match net {
        IpNet::V6(net) if net.prefix_len() <= 64 && !net.network().is_unicast_link_local() => {
            let host = u128::from(suffix) & u128::from(net.hostmask());
            Some(Ipv6Addr::from(u128::from(net.network()) | host))
        }
        _ => None,
    })
}

/// Reads a full name under ip6.arpa.
fn reverse_v6(name: &[u8]) -> Option<Ipv6Addr> {
    let (nibbles, zone) = name.split_at_checked(64)?;
    if zone != b"\x03ip6\x04arpa\0" {
        return None;
    }
    nibbles
        .chunks_exact(2)
        .rev()
        .try_fold(0_u128, |address, label| match label {
            [1, digit] => Some(address << 4 | u128::from(char::from(*digit).to_digit(16)?)),
            _ => None,
        })
        .map(Ipv6Addr::from)
}

/// Says whether a public name that leads to this address could be a rebinding attack.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(v4.into()),
            None => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::Message, rr::Record};

    use super::*;
    use crate::dns::{
        encode::{self, Head},
        query::tests::query,
    };

    fn fixed(name: &str, data: &str) -> LocalRecord {
        let data = match data.parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => RData::A(v4.into()),
            Ok(IpAddr::V6(v6)) => RData::AAAA(v6.into()),
            Err(_) => RData::CNAME(hickory_proto::rr::rdata::CNAME(data.parse().unwrap())),
        };
        LocalRecord::Fixed(Record::from_rdata(name.parse().unwrap(), 60, data))
    }

    fn house() -> Records {
        Records::new(&[
            fixed("nas.home.example.", "192.168.1.10"),
            fixed("printer.home.example.", "nas.home.example."),
            fixed("shop.home.example.", "shop.example.net."),
            fixed("*.apps.home.example.", "192.168.1.20"),
            fixed("loop.home.example.", "loop.home.example."),
            LocalRecord::Suffix {
                name: "nas.home.example.".parse().unwrap(),
                suffix: "::10".parse().unwrap(),
                ttl: 60,
            },
        ])
    }

    fn networks() -> Networks {
        let on_link = ["2001:db8:1::/64", "fd00:1::/64", "fe80::/64", "192.168.1.0/24"];
        Networks { on_link: on_link.iter().map(|net| net.parse().unwrap()).collect(), ..Networks::default() }
    }

    fn ask(name: &str, qtype: u16) -> (String, Vec<String>) {
        let records = house();
        let bytes = query(name, qtype, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::local(0), &mut out);
        let local = format!("{:?}", records.answer(&asked, &networks(), &mut out));
        let answers = Message::from_vec(&out).unwrap().answers;
        (local, answers.iter().map(|record| record.data.to_string()).collect())
    }

    #[test]
    fn a_suffix_is_found_under_each_prefix_but_the_link_local() {
        assert_eq!(ask("nas.home.example", qtype::AAAA).1, ["2001:db8:1::10", "fd00:1::10"]);
        assert_eq!(ask("nas.home.example", qtype::A).1, ["192.168.1.10"]);
    }

    #[test]
    fn addresses_lead_back_to_their_names() {
        let v6 = Name::from("fd00:1::10".parse::<IpAddr>().unwrap()).to_string();

        assert_eq!(ask("10.1.168.192.in-addr.arpa", qtype::PTR).1, ["nas.home.example."]);
        assert_eq!(ask(&v6, qtype::PTR).1, ["nas.home.example."]);
    }

    #[test]
    fn an_alias_is_followed_inside_the_house_and_told_outside() {
        assert_eq!(ask("printer.home.example", qtype::A).1, ["nas.home.example.", "192.168.1.10"]);
        let (local, answers) = ask("shop.home.example", qtype::A);
        assert!(local.starts_with("Alias"), "{local}");
        assert_eq!(answers, ["shop.example.net."]);
        assert_eq!(ask("loop.home.example", qtype::A).0, "NoData");
    }

    #[test]
    fn wildcards_answer_below_and_nowhere_else() {
        assert_eq!(ask("a.b.apps.home.example", qtype::A).1, ["192.168.1.20"]);
        assert_eq!(ask("apps.home.example", qtype::A).0, "Absent");
        assert_eq!(ask("other.home.example", qtype::A).0, "Absent");
        assert_eq!(ask("a.apps.home.example", qtype::AAAA).0, "NoData");
    }
}

//! The owner's records, and the reverse names that follow from them.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, PTR},
};
use ipnet::IpNet;

use super::{Files, Lease, encoded, wire, zone::Zone};
use crate::{
    dns::{
        LocalRecord,
        encode::{Section, record},
        query::{ancestors, parent, qtype},
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
    /// Names under `ip6.arpa` of the configuration, for which suffixes are not looked at.
    written: HashSet<Box<[u8]>>,
    /// Zones that are the house's as a whole, by their apex.
    zones: HashMap<Box<[u8]>, Apex>,
    /// Names in zones at which others have the authority.
    cuts: HashSet<Box<[u8]>>,
}

#[derive(Debug)]
enum Value {
    Fixed { rtype: u16, ttl: u32, rdata: Box<[u8]> },
    Suffix { suffix: Ipv6Addr, ttl: u32 },
}

/// The SOA record of a zone.
#[derive(Debug)]
struct Apex {
    /// RFC 2308 §5: as long as a negative answer may be cached.
    negative_ttl: u32,
    soa: Box<[u8]>,
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
    /// The same, in a zone of the house whose SOA record was written.
    Denied,
    /// There is no such name in a zone of the house, whose SOA record was written.
    NoName,
    /// CNAME records were written; they lead to this name, of which nothing is known here.
    Alias(&'a [u8]),
}

/// Chains of aliases end here.
const MAX_ALIASES: usize = 8;

/// Seconds; short, because devices come and go.
const FILE_TTL: u32 = 60;

impl Records {
    /// Compiles the records of a configuration and its files. A name has the data of one of them: the configuration
    /// wins over zones, these over hosts, and these over leases, whose names devices choose by themselves. None of
    /// `taken` are given to leases.
    pub(crate) fn new(config: &[LocalRecord], domain: &Name, files: &Files, taken: &HashSet<Box<[u8]>>) -> Self {
        let mut records = Self::default();
        let fixed = config.iter().filter_map(|local| match local {
            LocalRecord::Fixed(fixed) => Some(fixed),
            LocalRecord::Suffix { .. } => None,
        });
        records.add_records(fixed.collect());
        for local in config {
            match local {
                LocalRecord::Fixed(_) => {}
                LocalRecord::Suffix { name, suffix, ttl } => {
                    records.add(&wire(name), Value::Suffix { suffix: *suffix, ttl: *ttl });
                    if !name.is_wildcard() {
                        let written = encoded(name).expect("a name fits into a message");
                        records.suffixes.push((*suffix, written, *ttl));
                    }
                }
            }
        }
        if !records.suffixes.is_empty() {
            records.written = records.names.keys().filter(|name| reverse_v6(name).is_some()).cloned().collect();
        }
        for file in &files.zones {
            records.add_apex(&file.zone);
        }
        records.add_zones(files.zones.iter().map(|file| &*file.zone));
        let mut hosts = Vec::new();
        for host in &files.hosts {
            hosts.extend(host.names.iter().filter_map(|name| Some((under(name, domain)?, host.address))));
        }
        records.add_hosts(hosts);
        let lease = |lease: &Lease| {
            let name = under(lease.name.as_deref()?, domain)?;
            (!taken.contains(&wire(&name))).then_some((name, lease.address))
        };
        records.add_hosts(files.leases.iter().filter_map(lease).collect());
        records
    }

    /// Adds addresses under names that nobody has yet; the first name of an address is what that leads back to.
    fn add_hosts(&mut self, hosts: Vec<(Name, IpAddr)>) {
        let is_free = |(name, _): &(Name, IpAddr)| !self.has(&wire(name));
        let free: Vec<(Name, IpAddr)> = hosts.into_iter().filter(is_free).collect();
        for (name, address) in free {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            };
            self.add(&wire(&name), fixed(FILE_TTL, &data));
            let back = wire(&Name::from(address));
            if !self.has(&back) {
                self.add(&back, fixed(FILE_TTL, &RData::PTR(PTR(name))));
            }
        }
    }

    /// Adds what the zones hold under names that the configuration does not have. A name has the data of one zone.
    fn add_zones<'a>(&mut self, zones: impl Iterator<Item = &'a Zone>) {
        let mut seen: HashSet<Box<[u8]>> = self.names.keys().cloned().collect();
        let mut all = Vec::new();
        for zone in zones {
            let free: Vec<&Record> = zone.records.iter().filter(|record| !seen.contains(&wire(&record.name))).collect();
            seen.extend(free.iter().map(|record| wire(&record.name)));
            all.extend(free);
        }
        self.add_records(all);
    }

    fn add_apex(&mut self, zone: &Zone) {
        let apex = wire(&zone.apex);
        for record in &zone.records {
            if let RData::SOA(soa) = &record.data {
                let negative_ttl = record.ttl.min(soa.minimum);
                let soa = encoded(&record.data).expect("what was read from a file fits into a message");
                self.zones.insert(apex.clone(), Apex { negative_ttl, soa });
            }
            let name = wire(&record.name);
            if record.record_type() == RecordType::NS && name != apex {
                self.cuts.insert(name);
            }
        }
    }

    /// Adds records, and for addresses the way back where none was written.
    fn add_records(&mut self, all: Vec<&Record>) {
        all.iter().for_each(|record| self.add(&wire(&record.name), fixed(record.ttl, &record.data)));
        let addresses = all.iter().filter(|record| !record.name.is_wildcard());
        let back = addresses.filter_map(|record| Some((wire(&Name::from(record.data.ip_addr()?)), record)));
        let made: Vec<_> = back.filter(|(back, _)| !self.has(back)).collect();
        for (back, record) in made {
            if !self.has_ptr_of(&back, &record.name) {
                self.add(&back, fixed(record.ttl, &RData::PTR(PTR(record.name.clone()))));
            }
        }
    }

    /// Says whether a name, or a wildcard for it, has records of the house.
    pub(crate) fn has_data(&self, name: &[u8]) -> bool {
        self.values(name).is_some()
    }

    fn has(&self, name: &[u8]) -> bool {
        self.names.contains_key(name)
    }

    fn has_ptr_of(&self, name: &[u8], target: &Name) -> bool {
        let target = encoded(target);
        let is_it = |value: &Value| matches!(value, Value::Fixed { rtype: qtype::PTR, rdata, .. } if Some(rdata) == target.as_ref());
        self.names.get(name).is_some_and(|values| values.iter().any(is_it))
    }

    fn add(&mut self, name: &[u8], value: Value) {
        let values = match name.strip_prefix(b"\x01*") {
            Some(below) => self.wildcards.entry(below.into()).or_default(),
            None => self.names.entry(name.into()).or_default(),
        };
        values.push(value);
        for ancestor in ancestors(name).skip(1) {
            if !self.above.insert(ancestor.into()) {
                break;
            }
        }
    }

    /// Says whether there is a name of the house below this one.
    pub(crate) fn has_below(&self, name: &[u8]) -> bool {
        self.above.contains(name)
    }

    /// Writes what the house knows of a name in wire form and lower case, behind `owner`.
    pub(crate) fn answer<'a>(
        &'a self,
        (name, owner, asked): (&[u8], &[u8], u16),
        networks: &Networks,
        out: &mut Vec<u8>,
    ) -> Local<'a> {
        if self.is_elsewhere(name) {
            return Local::Absent;
        }
        match self.reverse((name, owner, asked), networks, out) {
            Local::Absent => {}
            found => return found,
        }
        let Some(mut values) = self.values(name) else { return self.deny(name, out) };
        let (mut owner, mut name) = (owner, Cow::Borrowed(name));
        for _ in 0..MAX_ALIASES {
            let written = write(values, owner, asked, networks, out);
            if written {
                return Local::Answered;
            }
            let alias = values.iter().find_map(|value| match value {
                Value::Fixed { rtype: qtype::CNAME, ttl, rdata } => Some((*ttl, &**rdata)),
                _ => None,
            });
            let Some((ttl, target)) = alias else { break };
            record(out, Section::Answer, owner, qtype::CNAME, ttl, target);
            let lower = target.to_ascii_lowercase();
            match self.values(&lower) {
                Some(next) if !self.is_elsewhere(&lower) => values = next,
                _ => return Local::Alias(target),
            }
            (owner, name) = (target, Cow::Owned(lower));
        }
        match self.zone_of(&name) {
            Some(apex) => {
                self.write_soa(apex, out);
                Local::Denied
            }
            None => Local::NoData,
        }
    }

    /// Returns the zone of the house that a name is in.
    fn zone_of(&self, name: &[u8]) -> Option<&[u8]> {
        if self.zones.is_empty() {
            return None;
        }
        ancestors(name).find_map(|ancestor| self.zones.get_key_value(ancestor)).map(|(apex, _)| &**apex)
    }

    /// Says whether a name is in a zone of the house but others have the authority there.
    fn is_elsewhere(&self, name: &[u8]) -> bool {
        if self.cuts.is_empty() {
            return false;
        }
        let Some(apex) = self.zone_of(name) else { return false };
        let inside = ancestors(name).take_while(|ancestor| *ancestor != apex);
        inside.into_iter().any(|ancestor| self.cuts.contains(ancestor))
    }

    /// Says of a name in a zone of the house that it is not there.
    pub(crate) fn deny<'a>(&self, name: &[u8], out: &mut Vec<u8>) -> Local<'a> {
        let Some(apex) = self.zone_of(name).filter(|_| !self.is_elsewhere(name)) else { return Local::Absent };
        self.write_soa(apex, out);
        // RFC 8020: what has something below it is there.
        if self.above.contains(name) { Local::Denied } else { Local::NoName }
    }

    fn write_soa(&self, apex: &[u8], out: &mut Vec<u8>) {
        if let Some(Apex { negative_ttl, soa }) = self.zones.get(apex) {
            record(out, Section::Authority, apex, qtype::SOA, *negative_ttl, soa);
        }
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

    /// Answers for an address that a suffix has under a prefix of this moment.
    fn reverse<'a>(
        &self,
        (name, owner, asked): (&[u8], &[u8], u16),
        networks: &Networks,
        out: &mut Vec<u8>,
    ) -> Local<'a> {
        if self.suffixes.is_empty() {
            return Local::Absent;
        }
        let Some(address) = reverse_v6(name).filter(|_| !self.written.contains(name)) else { return Local::Absent };
        let found = self.suffixes.iter().find(|(suffix, ..)| under_prefixes(*suffix, networks).any(|a| a == address));
        match found {
            None => Local::Absent,
            Some((_, target, ttl)) if asked == qtype::PTR => {
                record(out, Section::Answer, owner, qtype::PTR, *ttl, target);
                Local::Answered
            }
            Some(_) => Local::NoData,
        }
    }
}

fn fixed(ttl: u32, data: &RData) -> Value {
    let rdata = encoded(data).expect("what was read from a configuration fits into a message");
    Value::Fixed { rtype: data.record_type().into(), ttl, rdata }
}

/// A name without a dot is under the domain.
fn under(name: &str, domain: &Name) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    if name.num_labels() == 1 {
        name.set_fqdn(false);
        name = name.append_domain(domain).ok()?;
    }
    name.set_fqdn(true);
    Some(name)
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
pub(crate) fn reverse_v6(name: &[u8]) -> Option<Ipv6Addr> {
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
        IpAddr::V6(v6) => match inner(v6) {
            Some(v4) => is_private(v4.into()),
            // Also what was for sites once (RFC 3879), and translators of the house (RFC 8215).
            None => {
                v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || v6.segments()[0] & 0xffc0 == 0xfec0
                    || v6.segments()[..3] == [0x64, 0xff9b, 1]
            }
        },
    }
}

/// Returns the IPv4 address that an IPv6 address leads to: mapped or compatible (RFC 4291 §2.5.5), translated
/// (RFC 6052 §2.1) or tunnelled (RFC 3056 §2). `::` and `::1` count as compatible ones of network 0.
fn inner(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(octets(high, low)),
        [0x2002, high, low, ..] => Some(octets(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::Message, rr::Record};

    use super::*;
    use crate::dns::{
        encode::{self, Head, QNAME},
        query::{Query, tests::query},
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
        let records = [
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
        ];
        compiled(&records, &Files::default())
    }

    fn compiled(records: &[LocalRecord], files: &Files) -> Records {
        let taken = HashSet::from([wire(&"photos.home.example.".parse().unwrap())]);
        Records::new(records, &"home.example.".parse().unwrap(), files, &taken)
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
        let local = format!("{:?}", records.answer((asked.name(), QNAME, qtype), &networks(), &mut out));
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

    fn ask_of(records: &Records, name: &str, qtype: u16) -> (String, Vec<String>, Vec<String>) {
        let bytes = query(name, qtype, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::local(0), &mut out);
        let local = format!("{:?}", records.answer((asked.name(), QNAME, qtype), &networks(), &mut out));
        let message = Message::from_vec(&out).unwrap();
        let data = |records: &[Record]| records.iter().map(|record| record.data.to_string()).collect();
        (local, data(&message.answers), data(&message.authorities))
    }

    fn zone() -> Files {
        let text = "$TTL 300\n@ IN SOA ns hostmaster 7 3600 900 604800 45\n IN NS ns\nns IN A 192.168.1.2\n\
                    www IN CNAME ns\nout IN CNAME www.example.net.\nsub IN NS ns.elsewhere.example.\n\
                    *.wild IN TXT \"hello\"\n_sip._udp IN SRV 0 5 5060 ns\nlost IN CNAME missing\n";
        let zone = super::super::zone::read(text, std::path::Path::new("lab.example.zone")).unwrap();
        let mut files = Files::default();
        files.zones.push(super::super::files::ZoneFile { path: "lab.example.zone".into(), zone: zone.into() });
        files
    }

    #[test]
    fn a_zone_is_answered_with_authority_and_what_is_not_in_it_is_denied_with_its_soa() {
        let records = compiled(&[], &zone());
        let soa = "ns.lab.example. hostmaster.lab.example. 7 3600 900 604800 45";
        let ask = |name: &str, rtype| ask_of(&records, name, rtype);

        assert_eq!(ask("ns.lab.example", qtype::A).1, ["192.168.1.2"]);
        assert_eq!(ask("2.1.168.192.in-addr.arpa", qtype::PTR).1, ["ns.lab.example."]);
        assert_eq!(ask("lab.example", qtype::SOA).1, [soa]);
        assert_eq!(ask("www.lab.example", qtype::A).1, ["ns.lab.example.", "192.168.1.2"]);
        assert_eq!(ask("_sip._udp.lab.example", 33).1, ["0 5 5060 ns.lab.example."]);
        assert_eq!(ask("a.wild.lab.example", 16).1, ["hello"]);
        for (name, rtype, denied) in [
            ("missing.lab.example", qtype::A, "NoName"),
            ("ns.lab.example", qtype::AAAA, "Denied"),
            ("_udp.lab.example", qtype::A, "Denied"),
            ("a.wild.lab.example", qtype::A, "Denied"),
        ] {
            assert_eq!(ask(name, rtype), (denied.into(), vec![], vec![soa.into()]), "{name}");
        }
        assert_eq!(ask("www.lab.example", 16), ("Denied".into(), vec!["ns.lab.example.".into()], vec![soa.into()]));
        assert!(ask("out.lab.example", qtype::A).0.starts_with("Alias"));
        for elsewhere in ["sub.lab.example", "www.sub.lab.example", "example", "other.example"] {
            assert_eq!(ask(elsewhere, qtype::A).0, "Absent", "{elsewhere}");
        }
    }

    #[test]
    fn names_of_the_owner_win_over_those_of_hosts_and_these_over_those_that_devices_choose() {
        let host = |address: &str, names: &[&str]| super::super::hosts::Host {
            address: address.parse().unwrap(),
            names: names.iter().map(|name| (*name).into()).collect(),
        };
        let lease =
            |address: &str, name: &str| Lease { address: address.parse().unwrap(), mac: None, name: Some(name.into()) };
        let mut files = Files::default();
        files.hosts = vec![host("192.168.1.30", &["nas", "tv"]), host("192.168.1.31", &["tv", "server.lan.example"])];
        files.leases = vec![
            lease("192.168.1.50", "nas"),
            lease("192.168.1.51", "tv"),
            lease("192.168.1.52", "photos"),
            lease("192.168.1.53", "tablet"),
            lease("2001:db8:1::53", "tablet"),
            lease("192.168.1.10", "imposter"),
        ];
        let nas = LocalRecord::Fixed(Record::from_rdata(
            "nas.home.example.".parse().unwrap(),
            60,
            RData::A("192.168.1.10".parse().unwrap()),
        ));
        let records = compiled(&[nas], &files);
        let ask = |name: &str, rtype| ask_of(&records, name, rtype).1;

        assert_eq!(ask("nas.home.example", qtype::A), ["192.168.1.10"]);
        assert_eq!(ask("10.1.168.192.in-addr.arpa", qtype::PTR), ["nas.home.example."]);
        assert_eq!(ask("tv.home.example", qtype::A), ["192.168.1.30", "192.168.1.31"]);
        assert_eq!(ask("server.lan.example", qtype::A), ["192.168.1.31"]);
        assert_eq!(ask("31.1.168.192.in-addr.arpa", qtype::PTR), ["tv.home.example."]);
        assert_eq!(ask("tablet.home.example", qtype::A), ["192.168.1.53"]);
        assert_eq!(ask("tablet.home.example", qtype::AAAA), ["2001:db8:1::53"]);
        assert_eq!(ask("53.1.168.192.in-addr.arpa", qtype::PTR), ["tablet.home.example."]);
        assert_eq!(ask_of(&records, "photos.home.example", qtype::A).0, "Absent", "the name of a route");
    }

    fn zone_file(apex: &str, text: &str) -> super::super::files::ZoneFile {
        let path = std::path::PathBuf::from(format!("{apex}.zone"));
        let zone = super::super::zone::read(text, &path).unwrap().into();
        super::super::files::ZoneFile { path, zone }
    }

    #[test]
    fn the_way_back_that_is_written_comes_before_the_one_that_is_made() {
        let head = "$TTL 60\n@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns.lab.example.\n";
        let mut files = Files::default();
        files.zones = vec![
            zone_file(
                "lab.example",
                &format!("{head}web IN A 192.168.1.30\nmail IN A 192.168.1.30\nns IN A 192.168.1.31\n"),
            ),
            zone_file("1.168.192.in-addr.arpa", &format!("{head}30 IN PTR mail.lab.example.\n")),
        ];
        let written = |name: &str, target: &str| {
            let data = RData::PTR(PTR(target.parse().unwrap()));
            LocalRecord::Fixed(Record::from_rdata(name.parse().unwrap(), 60, data))
        };
        let config = [
            fixed("a.home.example.", "192.168.1.40"),
            written("40.1.168.192.in-addr.arpa.", "b.home.example."),
            fixed("b.home.example.", "192.168.1.40"),
        ];
        let records = compiled(&config, &files);
        let back = |host: u8| ask_of(&records, &format!("{host}.1.168.192.in-addr.arpa"), qtype::PTR).1;

        assert_eq!(back(30), ["mail.lab.example."]);
        assert_eq!(back(31), ["ns.lab.example."]);
        assert_eq!(back(40), ["b.home.example."]);
    }

    #[test]
    fn a_suffix_of_the_owner_leads_back_whatever_files_say_of_the_address() {
        let back = |address: &str| Name::from(address.parse::<IpAddr>().unwrap()).to_string();
        let mut files = Files::default();
        let lease =
            |address: &str, name: &str| Lease { address: address.parse().unwrap(), mac: None, name: Some(name.into()) };
        files.leases = vec![lease("fd00:1::10", "imposter"), lease("2001:db8:1::10", "other")];
        let head = "$TTL 60\n@ IN SOA ns hostmaster 1 2 3 4 5\n@ IN NS ns.lab.example.\n";
        files.zones = vec![zone_file(
            "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa",
            &format!("{head}* IN PTR somebody.lab.example.\n"),
        )];
        let suffix = LocalRecord::Suffix {
            name: "nas.home.example.".parse().unwrap(),
            suffix: "::10".parse().unwrap(),
            ttl: 60,
        };
        let records = compiled(&[suffix, fixed("own.home.example.", "2001:db8:1::10")], &files);
        let ask = |address: &str| ask_of(&records, &back(address), qtype::PTR).1;

        assert_eq!(ask("fd00:1::10"), ["nas.home.example."]);
        assert_eq!(ask("2001:db8:1::10"), ["own.home.example."], "what is written as a whole comes first");
        assert_eq!(ask("fd00:1::f000:0:0:11"), ["somebody.lab.example."]);
    }
}

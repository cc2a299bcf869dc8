//! IPv6 addresses for names that have IPv4 addresses alone (RFC 6147), for networks without IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Resolved, Security, rebind};
use crate::dns::{
    config::Dns64,
    encode::rcode,
    local,
    query::{Question, qtype},
    resolver::{
        name::Name,
        wire::{IN, Record},
    },
};

/// Seconds, where the answer without IPv6 addresses has no SOA record (RFC 6147 §5.1.7).
const WITHOUT_SOA: u32 = 600;

/// The name that hosts find the prefix by (RFC 7050), and its addresses (RFC 8880 §7).
const IPV4_ONLY: &[u8] = b"\x08ipv4only\x04arpa\0";
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
const WELL_KNOWN_TTL: u32 = 3600;

impl Dns64 {
    /// Puts an IPv4 address behind the prefix (RFC 6052 §2.2).
    fn embed(self, v4: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.0.addr().octets();
        let places = self.places();
        v4.octets().into_iter().zip(places).for_each(|(octet, place)| octets[place] = octet);
        octets.into()
    }

    /// Takes it out again; `None` for other addresses.
    fn extract(self, v6: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = v6.octets();
        let v4 = Ipv4Addr::from(self.places().map(|place| octets[place]));
        (self.embed(v4) == v6).then_some(v4)
    }

    /// Bits 64 to 71 stay zero.
    fn places(self) -> [usize; 4] {
        let first = usize::from(self.0.prefix_len() / 8);
        [0, 1, 2, 3].map(|place| if first <= 8 && first + place >= 8 { first + place + 1 } else { first + place })
    }

    fn is_well_known(self) -> bool {
        self.0.addr() == Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)
    }
}

/// Answers what is only asked to find the prefix, without asking others (RFC 8880 §7.1).
pub(super) fn own(prefix: Dns64, question: &Question) -> Option<Resolved> {
    if *question.name != *IPV4_ONLY {
        return None;
    }
    let record = |rdata: Vec<u8>| Some(record(Name::from_wire(IPV4_ONLY)?, question.qtype, WELL_KNOWN_TTL, &rdata));
    let answers = WELL_KNOWN.iter().filter_map(|v4| match question.qtype {
        qtype::A => record(v4.octets().to_vec()),
        qtype::AAAA => record(prefix.embed(*v4).octets().to_vec()),
        _ => None,
    });
    let (answers, authorities) = (answers.collect(), Vec::new());
    Some(Resolved { rcode: rcode::NOERROR, answers, authorities, security: Security::Insecure, ede: None })
}

/// Returns the question that answers one for the name of an address behind the prefix (RFC 6147 §5.3.1).
pub(super) fn forward(prefix: Dns64, question: &Question) -> Option<Question> {
    if question.qtype != qtype::PTR {
        return None;
    }
    let v4 = prefix.extract(local::reverse_v6(&question.name)?)?;
    let name = local::wire(&hickory_proto::rr::Name::from(std::net::IpAddr::V4(v4)));
    // What is private is not asked of strangers.
    (!local::is_private(v4.into())).then(|| Question { name, ..question.clone() })
}

/// Makes of the answer for the IPv4 address that for the address behind the prefix.
pub(super) fn back(question: &Question, asked: &Question, mut resolved: Resolved) -> Resolved {
    if let (Some(owner), Some(target)) = (Name::from_wire(&question.name), Name::from_wire(&asked.name))
        && !resolved.answers.is_empty()
    {
        let ttl = resolved.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        resolved.answers.insert(0, record(owner, qtype::CNAME, ttl, target.as_wire()));
        resolved.security = Security::Insecure;
    }
    resolved
}

/// Says whether a record leads through the prefix into the house, with a private address that somebody put behind it.
pub(super) fn is_home(prefix: Dns64, record: &Record) -> bool {
    let through = |address| match address {
        IpAddr::V6(v6) => prefix.extract(v6),
        IpAddr::V4(_) => None,
    };
    rebind::addresses(record).into_iter().filter_map(through).any(|v4| local::is_private(v4.into()))
}

/// Returns the question for IPv4 addresses, if an answer leaves something to make.
pub(super) fn wants(question: &Question, resolved: &Resolved) -> Option<Question> {
    let asked_for = question.qtype == qtype::AAAA
        // RFC 6147 §5.5: who validates by itself must see what is there.
        && !(question.dnssec_ok && question.checking_disabled)
        // A failure counts as an empty answer (§5.1.2), but not one that somebody may have forged.
        && resolved.rcode != rcode::NXDOMAIN
        && resolved.security != Security::Bogus;
    let has_any = resolved.answers.iter().any(|record| record.rtype == qtype::AAAA && !is_excluded(record));
    (asked_for && !has_any).then(|| Question { qtype: qtype::A, ..question.clone() })
}

/// RFC 6147 §5.1.4: mapped addresses are no IPv6 addresses.
fn is_excluded(record: &Record) -> bool {
    record.rdata.get(..12).is_some_and(|start| start == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}

/// Makes IPv6 addresses of IPv4 addresses; `None` if there are none.
pub(super) fn synthesise(prefix: Dns64, first: &Resolved, second: &Resolved) -> Option<Resolved> {
    let soa = first.authorities.iter().find(|record| record.rtype == qtype::SOA).map(|record| record.ttl);
    let longest = soa.unwrap_or(WITHOUT_SOA);
    let made = |found: &Record| {
        let v4 = Ipv4Addr::from(*found.rdata.first_chunk::<4>()?);
        // RFC 6052 §3.1: the well-known prefix stands for public addresses alone.
        let has_place = !prefix.is_well_known() || !local::is_private(v4.into());
        let address = prefix.embed(v4).octets();
        has_place.then(|| record(found.name.clone(), qtype::AAAA, found.ttl.min(longest), &address))
    };
    let mut answers = Vec::new();
    for found in &second.answers {
        match found.rtype {
            qtype::A => answers.extend(made(found)),
            // What was signed is another record.
            qtype::RRSIG if found.rdata.first_chunk() == Some(&qtype::A.to_be_bytes()) => {}
            _ => answers.push(found.clone()),
        }
    }
    if second.rcode != 0 || !answers.iter().any(|record| record.rtype == qtype::AAAA) {
        return None;
    }
    let both = [first.security, second.security];
    let security = if both == [Security::Secure; 2] { Security::Secure } else { Security::Insecure };
    Some(Resolved { rcode: 0, answers, authorities: Vec::new(), security, ede: second.ede })
}

fn record(name: Name, rtype: u16, ttl: u32, rdata: &[u8]) -> Record {
    Record { name, rtype, class: IN, ttl, rdata: rdata.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::query::Way;
    use crate::dns::query::tests::wire;

    fn prefix(text: &str) -> Dns64 {
        Dns64(text.parse().unwrap())
    }

    fn question(name: &str, qtype: u16) -> Question {
        Question { name: wire(name).into(), qtype, dnssec_ok: false, checking_disabled: false, way: Way::HOUSE }
    }

    fn resolved(records: &[(&str, u16, &[u8])]) -> Resolved {
        let answers = records.iter().map(|(name, rtype, rdata)| record(Name::parse(name).unwrap(), *rtype, 300, rdata));
        let (answers, authorities) = (answers.collect(), Vec::new());
        Resolved { rcode: rcode::NOERROR, answers, authorities, security: Security::Secure, ede: None }
    }

    #[test]
    fn rfc6052_addresses_stand_where_the_table_says() {
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        for (text, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let address: Ipv6Addr = address.parse().unwrap();
            assert_eq!(prefix(text).embed(v4), address, "{text}");
            assert_eq!(prefix(text).extract(address), Some(v4), "{text}");
            assert_eq!(prefix(text).extract("2001:db9::1".parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_name_with_ipv4_addresses_alone_gets_ipv6_addresses_behind_its_aliases() {
        let first = resolved(&[("www.example", qtype::CNAME, &wire("host.example"))]);
        let asked = question("www.example", qtype::AAAA);
        assert_eq!(wants(&asked, &first).unwrap().qtype, qtype::A);
        let second = resolved(&[
            ("www.example", qtype::CNAME, &wire("host.example")),
            ("host.example", qtype::A, &[198, 51, 100, 7]),
            ("host.example", qtype::A, &[10, 0, 0, 1]),
        ]);

        let made = synthesise(prefix("64:ff9b::/96"), &first, &second).unwrap();

        let records: Vec<_> = made.answers.iter().map(|record| (record.name.to_string(), record.rtype)).collect();
        assert_eq!(records, [("www.example.".into(), qtype::CNAME), ("host.example.".into(), qtype::AAAA)]);
        assert_eq!(*made.answers[1].rdata, "64:ff9b::c633:6407".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!((made.answers[1].ttl, made.security), (300, Security::Secure));
    }

    #[test]
    fn what_has_ipv6_addresses_is_not_there_or_is_for_a_validator_stays_as_it_is() {
        let asked = question("www.example", qtype::AAAA);
        let real: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(wants(&asked, &resolved(&[("www.example", qtype::AAAA, &real.octets())])), None);
        assert!(wants(&asked, &resolved(&[("www.example", qtype::AAAA, &mapped.octets())])).is_some());
        let mut missing = resolved(&[]);
        missing.rcode = 3;
        assert_eq!(wants(&asked, &missing), None);
        let mut forged = resolved(&[]);
        (forged.rcode, forged.security) = (2, Security::Bogus);
        assert_eq!(wants(&asked, &forged), None);
        let validator = Question { dnssec_ok: true, checking_disabled: true, ..asked.clone() };
        assert_eq!(wants(&validator, &resolved(&[])), None);
        assert_eq!(wants(&question("www.example", qtype::A), &resolved(&[])), None);
        assert!(synthesise(prefix("64:ff9b::/96"), &resolved(&[]), &resolved(&[])).is_none());
    }

    #[test]
    fn the_prefix_can_be_found_and_its_addresses_lead_back() {
        let prefix = prefix("64:ff9b::/96");

        let found = own(prefix, &question("ipv4only.arpa", qtype::AAAA)).unwrap();
        let octets: Vec<_> = found.answers.iter().map(|record| record.rdata.to_vec()).collect();
        assert_eq!(octets[0], "64:ff9b::c000:aa".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(own(prefix, &question("ipv4only.arpa", qtype::A)).unwrap().answers.len(), 2);
        assert!(own(prefix, &question("www.example", qtype::AAAA)).is_none());

        let reverse = |address: &str| {
            let address: std::net::IpAddr = address.parse().unwrap();
            question(&hickory_proto::rr::Name::from(address).to_string(), qtype::PTR)
        };
        let asked = forward(prefix, &reverse("64:ff9b::c633:6407")).unwrap();
        assert_eq!(*asked.name, *wire("7.100.51.198.in-addr.arpa"));
        assert_eq!(forward(prefix, &reverse("64:ff9b::a00:1")), None, "a private address");
        assert_eq!(forward(prefix, &reverse("2001:db8::1")), None);
        let answer = resolved(&[("7.100.51.198.in-addr.arpa", qtype::PTR, &wire("host.example"))]);
        let types: Vec<_> =
            back(&reverse("64:ff9b::c633:6407"), &asked, answer).answers.iter().map(|record| record.rtype).collect();
        assert_eq!(types, [qtype::CNAME, qtype::PTR]);
    }

    #[test]
    fn a_private_address_behind_the_prefix_leads_home() {
        let own = prefix("2001:db8:64::/96");
        let leads = |address: &str| {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            is_home(own, &record(Name::parse("evil.example").unwrap(), qtype::AAAA, 60, &octets))
        };

        assert!(leads("2001:db8:64::192.168.1.1") && leads("2001:db8:64::127.0.0.1"));
        assert!(!leads("2001:db8:64::8.8.8.8") && !leads("2001:db8:65::192.168.1.1"));
    }
}

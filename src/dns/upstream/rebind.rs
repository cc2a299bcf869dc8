//! Rebinding: a public name that leads into the house, so that a page of a stranger's may talk to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::{
    local,
    query::qtype,
    resolver::{name::Name, reply::address, wire::Record},
};

/// Keys of the parameters that hold addresses (RFC 9460 §14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// Says whether a record leads into the house; whose may is decided when it is answered.
pub(super) fn is_home(record: &Record) -> bool {
    match record.rtype {
        // What cannot be read is no more trusted than what leads home: a client may read it in its own way.
        qtype::SVCB | qtype::HTTPS => hints(&record.rdata).is_none_or(|hints| hints.into_iter().any(local::is_private)),
        rtype => address(rtype, &record.rdata).is_some_and(local::is_private),
    }
}

/// Returns the addresses that a record holds.
pub(crate) fn addresses(record: &Record) -> Vec<IpAddr> {
    match record.rtype {
        qtype::SVCB | qtype::HTTPS => hints(&record.rdata).unwrap_or_default(),
        rtype => address(rtype, &record.rdata).into_iter().collect(),
    }
}

/// Returns the addresses that a service record hints at; `None` if it cannot be read.
fn hints(rdata: &[u8]) -> Option<Vec<IpAddr>> {
    let (_target, mut rest) = Name::split_from(rdata.get(2..)?)?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        match u16::from_be_bytes(*key) {
            IPV4_HINT => {
                let (addresses, []) = value.as_chunks::<4>() else { return None };
                found.extend(addresses.iter().map(|octets| IpAddr::from(Ipv4Addr::from(*octets))));
            }
            IPV6_HINT => {
                let (addresses, []) = value.as_chunks::<16>() else { return None };
                found.extend(addresses.iter().map(|octets| IpAddr::from(Ipv6Addr::from(*octets))));
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::fuzz::House;

    fn leads(question: &str, rtype: u16, rdata: &[u8]) -> bool {
        let house = House::new(|config| config.rebind_allow = vec!["allowed.example.".parse().unwrap()]);
        let name = Name::parse(question).unwrap();
        let allowed = house.policy.may_lead_home(name.as_wire());
        is_home(&Record { name, rtype, class: 1, ttl: 60, rdata: rdata.into() }) && !allowed
    }

    fn service(target: &[u8], parameters: &[(u16, &[u8])]) -> Vec<u8> {
        let mut rdata = [&[0, 1], target].concat();
        for (key, value) in parameters {
            rdata.extend(key.to_be_bytes());
            rdata.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            rdata.extend(*value);
        }
        rdata
    }

    #[test]
    fn addresses_of_the_house_are_refused_however_they_are_dressed() {
        for home in [
            "::1",
            "::192.168.1.1",
            "::ffff:10.0.0.1",
            "64:ff9b::c0a8:101",
            "64:ff9b:1::808:808",
            "2002:c0a8:101::1",
            "fec0::1",
            "fd00::1",
            "fe80::1",
        ] {
            let octets = home.parse::<Ipv6Addr>().unwrap().octets();

            assert!(leads("evil.example", qtype::AAAA, &octets), "{home}");
            assert!(leads("evil.example", qtype::HTTPS, &service(b"\0", &[(1, b"\x02h2"), (6, &octets)])), "{home}");
            assert!(!leads("nas.allowed.example", qtype::HTTPS, &service(b"\0", &[(6, &octets)])), "{home}");
        }
        for away in ["2001:db8::1", "64:ff9b::808:808", "2002:808:808::1", "::8.8.8.8"] {
            let octets = away.parse::<Ipv6Addr>().unwrap().octets();

            assert!(!leads("good.example", qtype::AAAA, &octets), "{away}");
            assert!(!leads("good.example", qtype::SVCB, &service(b"\x01a\0", &[(6, &octets)])), "{away}");
        }
    }

    #[test]
    fn hints_of_a_service_are_addresses_too() {
        let mixed = [[1, 1, 1, 1], [192, 168, 1, 1]].concat();

        assert!(leads("evil.example", qtype::SVCB, &service(b"\x03www\x04evil\0", &[(4, &mixed)])));
        assert!(!leads("good.example", qtype::HTTPS, &service(b"\0", &[(4, &mixed[..4])])));
        assert!(!leads("good.example", qtype::HTTPS, &service(b"\0", &[])));
        assert!(leads("odd.example", qtype::HTTPS, &service(b"\0", &[(4, &mixed[..5])])));
        assert!(leads("odd.example", qtype::HTTPS, b"\0\x01\x05a"));
    }
}

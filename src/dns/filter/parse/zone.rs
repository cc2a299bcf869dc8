//! Response policy zones: records whose owner is the trigger and whose data is the action.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Found, Reach, Reason, Sense, rdata};
use crate::dns::filter::{
    name::{WireName, parse_address},
    terms::{Gives, Terms},
};

/// Reads a record; `owner` is relative to the zone.
pub(super) fn record<'a>(
    owner: &[u8],
    words: impl Iterator<Item = &'a [u8]>,
    name: &mut WireName,
    mut found: impl FnMut(Found<'_>),
) {
    let mut words = words.skip_while(|word| word.iter().all(u8::is_ascii_digit) || word.eq_ignore_ascii_case(b"in"));
    let (Some(kind), Some(target)) = (words.next(), words.next()) else {
        return found(Found::Ignored(Reason::NotAName));
    };
    let kind = kind.to_ascii_uppercase();
    let owner = owner.to_ascii_lowercase();
    if matches!(kind.as_slice(), b"SOA" | b"NS") {
        return found(Found::Ignored(Reason::Header));
    }
    let gives = |gives| Terms { gives: Some(gives), ..Terms::default() };
    let (sense, terms) = match (kind.as_slice(), target.to_ascii_lowercase().as_slice()) {
        (b"CNAME", b".") => (Sense::Listed, gives(Gives::NxDomain)),
        (b"CNAME", b"*.") => (Sense::Listed, gives(Gives::NoData)),
        (b"CNAME", b"rpz-drop.") => (Sense::Listed, gives(Gives::Silence)),
        (b"CNAME", b"rpz-passthru.") => (Sense::Exception, Terms::default()),
        (b"CNAME", b"rpz-tcp-only.") => return found(Found::Ignored(Reason::Action)),
        (b"A" | b"AAAA", address) if parse_address(address).is_some_and(super::blocks) => {
            (Sense::Listed, Terms::default())
        }
        (b"CNAME", target) => {
            // `*.garden.example`: the name that was asked for goes in front; not for us.
            let mut alias = WireName::default();
            match alias.read(target) {
                Ok(_) => (Sense::Listed, gives(Gives::Alias(alias.octets().into()))),
                Err(_) => return found(Found::Ignored(Reason::Rewrite)),
            }
        }
        (kind, _) => {
            let mut data = target.to_vec();
            for word in words {
                data.push(b' ');
                data.extend(word);
            }
            let read = std::str::from_utf8(kind).ok().zip(std::str::from_utf8(&data).ok());
            match read.and_then(|(kind, data)| rdata::read(kind, data)) {
                Some((rtype, rdata)) => (Sense::Listed, gives(Gives::Record(rtype, rdata))),
                None if is_type(kind) => return found(Found::Ignored(Reason::Rewrite)),
                None => return found(Found::Ignored(Reason::NotAName)),
            }
        }
    };
    if let Some(prefix) = owner.strip_suffix(b".rpz-ip") {
        return found(match net(prefix) {
            Some(net) => Found::Net { net, sense, terms: &terms },
            None => Found::Ignored(Reason::Address),
        });
    }
    let others = [&b".rpz-client-ip"[..], b".rpz-nsip", b".rpz-nsdname"];
    if others.iter().any(|suffix| owner.ends_with(suffix)) {
        return found(Found::Ignored(Reason::Trigger));
    }
    let (host, reach) = match owner.strip_prefix(b"*.") {
        Some(rest) => (rest, Reach::Below),
        None => (&*owner, Reach::Exact),
    };
    found(match name.read(host) {
        Err(reason) => Found::Ignored(reason),
        Ok(_) => Found::Name { name: name.octets(), reach, sense, terms: &terms },
    });
}

/// Types of records that a policy zone may hold.
fn is_type(kind: &[u8]) -> bool {
    [&b"A"[..], b"AAAA", b"TXT", b"MX", b"PTR", b"SRV", b"DNAME", b"HTTPS", b"SVCB", b"NAPTR", b"CAA"].contains(&kind)
}

/// Reads `24.0.2.0.192` and `48.zz.2.2001.db8`: the length of the prefix, then the address from its end.
fn net(text: &[u8]) -> Option<IpNet> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('.');
    let length = parts.next()?.parse().ok()?;
    let mut parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        return None;
    }
    parts.reverse();
    let v4 = parts.len() == 4 && parts.iter().all(|part| part.parse::<u8>().is_ok());
    let address: IpAddr = if v4 {
        parts.join(".").parse().ok()?
    } else {
        // `zz` stands for the zeros that `::` leaves out.
        let groups: Vec<_> = parts.iter().map(|part| if *part == "zz" { "" } else { *part }).collect();
        let text = groups.join(":");
        let text = match (text.is_empty(), text.starts_with(':'), text.ends_with(':')) {
            (true, ..) => "::".to_owned(),
            (_, true, _) => format!(":{text}"),
            (_, _, true) => format!("{text}:"),
            _ => text,
        };
        text.parse::<Ipv6Addr>().ok()?.into()
    };
    Some(IpNet::new(address, length).ok()?.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_written_from_their_end() {
        for (text, expected) in [
            ("24.0.2.0.192", "192.0.2.0/24"),
            ("32.1.2.3.4", "4.3.2.1/32"),
            ("128.1.zz.db8.2001", "2001:db8::1/128"),
            ("48.zz.2.db8.2001", "2001:db8:2::/48"),
            ("8.zz", "::/8"),
        ] {
            assert_eq!(net(text.as_bytes()).map(|net| net.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "24", "24.0.2.0", "33.0.2.0.192", "x.0.2.0.192", "129.1.zz.db8.2001", "64.zz.1.zz"] {
            assert_eq!(net(text.as_bytes()), None, "{text}");
        }
    }
}

//! Files of records as zone files have them (RFC 1035 §5), as far as root hints and trust anchors need it:
//! one record a line or between parentheses; NS, A, AAAA, DS and DNSKEY; every name is absolute, with or
//! without its last dot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    anchor::Anchors,
    name::Name,
    reply::address,
    signature::{Dnskey, Ds, Support},
    wire::{IN, Record, rtype, target},
};

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Unreadable {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The most records that a file may hold: nobody has so many root servers or anchors.
const MOST_RECORDS: usize = 4096;

/// Reads the records of a file.
pub fn records(text: &str) -> Result<Vec<Record>, Unreadable> {
    let mut records: Vec<Record> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut open = false;
    let mut begun = 1;
    let mut inherits = false;
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line)) {
        let fail = |problem| Unreadable { line: number, problem };
        let content = line.split(';').next().unwrap_or_default();
        if !open {
            begun = number;
            inherits = content.starts_with([' ', '\t']);
        }
        for word in content.split_inclusive(['(', ')', ' ', '\t']) {
            let parenthesis = word.chars().last().filter(|last| matches!(last, '(' | ')'));
            let word = word.trim_end_matches(['(', ')', ' ', '\t', '\r']);
            if !word.is_empty() {
                words.push(word);
            }
            match parenthesis {
                Some('(') if open => return Err(fail("a parenthesis in a parenthesis")),
                Some('(') => open = true,
                Some(')') if !open => return Err(fail("a parenthesis that was not opened")),
                Some(')') => open = false,
                _ => {}
            }
        }
        if open || words.is_empty() {
            continue;
        }
        let found = std::mem::take(&mut words);
        if found[0].starts_with('$') {
            // Every name is absolute and TTLs mean nothing here.
            if matches!(found[0].to_ascii_uppercase().as_str(), "$TTL" | "$ORIGIN") {
                continue;
            }
            return Err(fail("a directive that is not known"));
        }
        let owner = if inherits { records.last().map(|record| record.name.clone()) } else { None };
        let record = record(owner, &found).map_err(|problem| Unreadable { line: begun, problem })?;
        if records.len() >= MOST_RECORDS {
            return Err(fail("too many records"));
        }
        records.push(record);
    }
    if open {
        return Err(Unreadable { line: begun, problem: "a parenthesis that is not closed" });
    }
    Ok(records)
}

/// Reads `owner [ttl] [class] type data…`; the owner may come from the record before.
fn record(owner: Option<Name>, words: &[&str]) -> Result<Record, &'static str> {
    let mut words = words.iter().copied();
    let name = match owner {
        Some(owner) => owner,
        None => words.next().and_then(Name::parse).ok_or("the owner is no name")?,
    };
    let mut ttl = 0;
    let kind = loop {
        let word = words.next().ok_or("the type is missing")?;
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            ttl = word.parse().map_err(|_| "the TTL is no number")?;
        } else if !word.eq_ignore_ascii_case("IN") {
            break word.to_ascii_uppercase();
        }
    };
    let mut word = || words.next().ok_or("the data is too short");
    let number = |word: &str| word.parse::<u16>().map_err(|_| "a number is none");
    let octet = |word: &str| word.parse::<u8>().map_err(|_| "a number is none");
    let (rtype, rdata) = match kind.as_str() {
        "A" => (rtype::A, word()?.parse::<Ipv4Addr>().map_err(|_| "no IPv4 address")?.octets().to_vec()),
        "AAAA" => (rtype::AAAA, word()?.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address")?.octets().to_vec()),
        "NS" => (rtype::NS, Name::parse(word()?).ok_or("the server is no name")?.as_wire().to_vec()),
        "DS" | "DNSKEY" => {
            let mut data = number(word()?)?.to_be_bytes().to_vec();
            if kind == "DS" {
                data.push(algorithm(word()?).ok_or("the algorithm is not known by this name")?);
                data.push(octet(word()?)?);
            } else {
                data.push(octet(word()?)?);
                data.push(algorithm(word()?).ok_or("the algorithm is not known by this name")?);
            }
            let rest: String = words.by_ref().collect();
            if rest.is_empty() {
                return Err("the data is too short");
            }
            if kind == "DS" {
                data.extend(hex(&rest).ok_or("the digest is not hexadecimal")?);
                (rtype::DS, data)
            } else {
                data.extend(STANDARD.decode(rest).map_err(|_| "the key is not base64")?);
                (rtype::DNSKEY, data)
            }
        }
        _ => return Err("only NS, A, AAAA, DS and DNSKEY records have a place here"),
    };
    if words.next().is_some() {
        return Err("the data is too long");
    }
    Ok(Record { name, rtype, class: IN, ttl, rdata: rdata.into() })
}

/// A number, or a mnemonic of the IANA registry.
fn algorithm(text: &str) -> Option<u8> {
    Some(match text.to_ascii_uppercase().as_str() {
        "RSAMD5" => 1,
        "DSA" => 3,
        "RSASHA1" => 5,
        "DSA-NSEC3-SHA1" => 6,
        "RSASHA1-NSEC3-SHA1" | "NSEC3RSASHA1" => 7,
        "RSASHA256" => 8,
        "RSASHA512" => 10,
        "ECC-GOST" => 12,
        "ECDSAP256SHA256" => 13,
        "ECDSAP384SHA384" => 14,
        "ED25519" => 15,
        "ED448" => 16,
        number => number.parse().ok()?,
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digits: Vec<u8> = text.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Returns the servers of a hints file with their addresses. A file that names no server for the root
/// still counts for its addresses.
pub fn hints(records: &[Record]) -> Vec<(Name, Vec<IpAddr>)> {
    let mut servers: Vec<(Name, Vec<IpAddr>)> = Vec::new();
    let named: Vec<Name> = records
        .iter()
        .filter(|record| record.rtype == rtype::NS && record.name.is_root())
        .filter_map(|record| target(&record.rdata))
        .collect();
    for record in records {
        let Some(address) = address(record.rtype, &record.rdata) else { continue };
        if !named.is_empty() && !named.contains(&record.name) {
            continue;
        }
        match servers.iter_mut().find(|(name, _)| *name == record.name) {
            Some((_, addresses)) => addresses.push(address),
            None => servers.push((record.name.clone(), vec![address])),
        }
    }
    servers
}

/// Adds the DS and DNSKEY records to anchors. Returns those which cannot be used, each with the reason.
pub fn add_anchors(records: &[Record], support: Support, anchors: &mut Anchors) -> Vec<(Name, &'static str)> {
    let mut useless = Vec::new();
    for record in records {
        let name = || record.name.clone();
        match record.rtype {
            rtype::DS => {
                let Some(ds) = Ds::parse(&record.rdata) else { continue };
                if !support.algorithm(ds.algorithm) || !support.digest(ds.digest_type) {
                    useless.push((name(), "its algorithm or digest is not supported"));
                }
                anchors.add_ds(name(), ds);
            }
            rtype::DNSKEY => match Dnskey::parse(&record.rdata) {
                Some(key) => {
                    if !support.algorithm(key.algorithm) {
                        useless.push((name(), "its algorithm is not supported"));
                    }
                    anchors.add_key(name(), &record.rdata);
                }
                None => useless.push((name(), "it is revoked or no zone key")),
            },
            _ => {}
        }
    }
    useless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_with_comments_inherited_owners_and_without_last_dots() {
        let text = "; roots\n$TTL 3600\n.  3600000 IN NS a.root\n   NS b.root.\na.root 3600000 A 10.0.0.1 ; here\n\
                    a.root. 3600000 AAAA fd00::1\nb.root A 10.0.0.2\nstray A 10.0.0.3\n";

        let found = hints(&records(text).unwrap());

        let name = |text| Name::parse(text).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            found,
            [
                (name("a.root"), vec![address("10.0.0.1"), address("fd00::1")]),
                (name("b.root"), vec![address("10.0.0.2")])
            ]
        );
    }

    #[test]
    fn anchors_are_read_as_digests_and_keys_and_what_cannot_be_used_is_told() {
        let text = "example. IN DS 12345 8 2 (\n  0123456789abcdef\n  FEDCBA9876543210 )\n\
                    old IN DNSKEY 257 3 DSA AQID\n\
                    new 172800 IN DNSKEY 257 3 ECDSAP256SHA256 AQ ID\n";
        let mut anchors = Anchors::default();
        let support = Support { sha1: false, short_keys: false };

        let useless = add_anchors(&records(text).unwrap(), support, &mut anchors);

        let name = |text| Name::parse(text).unwrap();
        assert_eq!(useless, [(name("old"), "its algorithm is not supported")]);
        let (_, found) = anchors.nearest(&name("www.example")).unwrap();
        assert_eq!((found.ds[0].tag, found.ds[0].digest.len()), (12345, 16));
        assert_eq!(anchors.nearest(&name("new")).unwrap().1.keys[0].algorithm, 13);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_line() {
        for (text, line, problem) in [
            ("a A 10.0.0.1\na..b A 10.0.0.1\n", 2, "the owner is no name"),
            ("a A 10.0.0\n", 1, "no IPv4 address"),
            ("a TXT x\n", 1, "only NS, A, AAAA, DS and DNSKEY records have a place here"),
            ("\n. DS 1 8 2 (\n00\n", 2, "a parenthesis that is not closed"),
            (". DS 1 8 2 0\n", 1, "the digest is not hexadecimal"),
            (". DS 1 8 2\n", 1, "the data is too short"),
            ("a A 10.0.0.1 10.0.0.2\n", 1, "the data is too long"),
            ("$INCLUDE other\n", 1, "a directive that is not known"),
        ] {
            assert_eq!(records(text), Err(Unreadable { line, problem }), "{text}");
        }
    }
}

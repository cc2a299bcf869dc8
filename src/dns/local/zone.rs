//! Zone files (RFC 1035 §5), served with authority.

use std::{collections::HashMap, path::Path};

use hickory_proto::{
    rr::{DNSClass, Name, Record, RecordType},
    serialize::txt::Parser,
};

/// A zone of the house.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Zone {
    /// The name of its SOA record.
    pub(crate) apex: Name,
    /// All of its records, that one as well.
    pub(crate) records: Vec<Record>,
}

/// The most records that a zone may have.
const MOST: usize = 100_000;

/// Reads a zone. Names are relative to `$ORIGIN`, at first to what the file is called without its ending.
pub(crate) fn read(text: &str, path: &Path) -> Result<Zone, String> {
    if text.lines().any(|line| line.get(..8).is_some_and(|word| word.eq_ignore_ascii_case("$INCLUDE"))) {
        return Err("$INCLUDE is not followed: name the other file in dns.zones, or put it in here".into());
    }
    let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = stem.strip_prefix("db.").unwrap_or(stem);
    let stem = [".zone", ".db", ".txt"].iter().find_map(|ending| stem.strip_suffix(ending)).unwrap_or(stem);
    let origin = Name::from_ascii(stem).ok().filter(|name| !name.is_root());
    let (_, sets) = Parser::new(text, None, origin).parse().map_err(|error| error.to_string())?;
    let records: Vec<Record> =
        sets.into_values().flat_map(|set| set.records_without_rrsigs().cloned().collect::<Vec<_>>()).collect();
    if records.len() > MOST {
        return Err(format!("more than {MOST} records"));
    }
    let mut apexes = records.iter().filter(|record| record.record_type() == RecordType::SOA);
    let apex = match (apexes.next(), apexes.next()) {
        (Some(soa), None) => soa.name.clone(),
        (None, _) => return Err("there is no SOA record".into()),
        (Some(_), Some(other)) => return Err(format!("there are several SOA records, one of them at {}", other.name)),
    };
    let mut counts: HashMap<&Name, usize> = HashMap::new();
    records.iter().for_each(|record| *counts.entry(&record.name).or_default() += 1);
    for record in &records {
        if !apex.zone_of(&record.name) {
            return Err(format!("{} is not below {apex}", record.name));
        }
        if record.dns_class != DNSClass::IN {
            return Err(format!("{} has a record of another class than IN", record.name));
        }
        if record.record_type() == RecordType::CNAME && counts[&record.name] > 1 {
            // RFC 2181 §10.1
            return Err(format!("{} has a CNAME record and others beside it", record.name));
        }
    }
    Ok(Zone { apex, records })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = "$TTL 300\n@ IN SOA ns hostmaster 1 3600 900 604800 60\n  IN NS ns\nns IN A 192.168.1.2\n";

    fn zone(more: &str, file: &str) -> Result<Zone, String> {
        read(&format!("{ZONE}{more}\n"), Path::new(file))
    }

    #[test]
    fn a_zone_is_called_as_its_file_or_as_it_says_itself() {
        assert_eq!(zone("", "/etc/zones/lab.example.zone").unwrap().apex.to_string(), "lab.example.");
        assert_eq!(zone("", "/etc/bind/db.lab.example").unwrap().apex.to_string(), "lab.example.");
        let own = read(&format!("$ORIGIN other.example.\n{ZONE}"), Path::new("zones.txt")).unwrap();
        assert_eq!(own.apex.to_string(), "other.example.");
        assert_eq!(own.records.len(), 3);
    }

    #[test]
    fn what_is_no_zone_is_refused_in_words() {
        for (more, problem) in [
            ("$INCLUDE /etc/passwd", "$INCLUDE is not followed"),
            ("www IN A 1.2.3", ""),
            ("www.other.example. IN A 192.0.2.1", "is not below"),
            ("www IN CNAME ns\nwww IN A 192.0.2.1", "others beside it"),
            ("sub IN SOA ns hostmaster 1 2 3 4 5", "several SOA"),
        ] {
            let error = zone(more, "lab.example.zone").unwrap_err();

            assert!(error.contains(problem), "{more}: {error}");
        }
        assert!(read("www.example. 60 IN A 192.0.2.1\n", Path::new("a.zone")).unwrap_err().contains("no SOA"));
    }
}

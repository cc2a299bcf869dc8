//! Which country an address is registered in, by an MMDB file of the owner's (MaxMind DB format 2.0).
//!
//! The file is read whole and followed as it changes. A look-up goes down a tree of bits and reads one record; whatever
//! the file says there, it is bounded in steps and never believed about lengths.

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

/// Bytes of a file: those of countries have less than 10 MiB, of cities 60.
const LONGEST: u64 = 64 << 20;
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// The metadata is at most this far from the end.
const METADATA_WITHIN: usize = 128 << 10;
/// Values that one look-up goes past, and how deep they may lie in one another.
const MOST_VALUES: usize = 512;
const DEEPEST: usize = 16;

/// ISO 3166-1 alpha-2, in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// Reads two letters.
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphabetic).then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }
}

impl std::fmt::Display for Country {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("??"))
    }
}

/// The file as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountryFile {
    /// The file.
    pub file: PathBuf,
    /// Why it is not what is in force.
    pub problem: Option<String>,
}

/// The file, as it was read well last.
#[derive(Debug)]
pub(super) struct Countries {
    path: PathBuf,
    seen: Mutex<Seen>,
    database: ArcSwap<Database>,
}

#[derive(Debug, Default)]
struct Seen {
    stamp: Option<(SystemTime, u64)>,
    problem: Option<String>,
}

impl Countries {
    /// Reads the file. One that was read before stays what it was.
    pub(super) fn load(path: &Path, before: Option<&Arc<Self>>) -> Result<Arc<Self>, String> {
        if let Some(before) = before.filter(|before| before.path == *path) {
            before.look();
            return Ok(before.clone());
        }
        let stamp = stamp(path).map_err(|error| error.to_string())?;
        let database = ArcSwap::from_pointee(Database::read(path)?);
        let seen = Mutex::new(Seen { stamp: Some(stamp), problem: None });
        Ok(Arc::new(Self { path: path.to_owned(), seen, database }))
    }

    /// Reads the file again if it has changed.
    pub(super) fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match stamp(&self.path) {
            Ok(stamp) if seen.stamp == Some(stamp) => return,
            Ok(stamp) => {
                seen.stamp = Some(stamp);
                Database::read(&self.path)
            }
            Err(error) => {
                seen.stamp = None;
                Err(error.to_string())
            }
        };
        match read {
            Ok(database) => {
                self.database.store(Arc::new(database));
                seen.problem = None;
                tracing::info!(file = %self.path.display(), "countries in force");
            }
            Err(problem) => {
                if seen.problem.as_ref() != Some(&problem) {
                    tracing::warn!(file = %self.path.display(), problem, "countries stay what they were");
                }
                seen.problem = Some(problem);
            }
        }
    }

    pub(super) fn of(&self, address: IpAddr) -> Option<Country> {
        self.database.load().country(address)
    }

    pub(super) fn status(&self) -> CountryFile {
        let problem = self.seen.lock().unwrap_or_else(PoisonError::into_inner).problem.clone();
        CountryFile { file: self.path.clone(), problem }
    }
}

fn stamp(path: &Path) -> io::Result<(SystemTime, u64)> {
    let found = std::fs::metadata(path)?;
    // A pipe is not waited for.
    if found.is_file() { Ok((found.modified()?, found.len())) } else { Err(io::Error::other("is no file")) }
}

/// A file's content.
#[derive(Debug)]
struct Database {
    bytes: Vec<u8>,
    nodes: usize,
    /// Bits of a record; a node has two.
    record: usize,
    is_v6: bool,
}

impl Database {
    fn read(path: &Path) -> Result<Self, String> {
        let wrong = |error: io::Error| error.to_string();
        let mut bytes = Vec::new();
        File::open(path).map_err(wrong)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(wrong)?;
        if bytes.len() as u64 > LONGEST {
            return Err(format!("has more than {} MiB", LONGEST >> 20));
        }
        Self::parse(bytes).ok_or_else(|| "is no MMDB file".to_owned())
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let near = bytes.len().saturating_sub(METADATA_WITHIN);
        let tail = bytes.get(near..)?;
        let at = tail.windows(MARKER.len()).rposition(|part| part == MARKER)?;
        let metadata = Section(bytes.get(near + at + MARKER.len()..)?);
        let number = |key: &str| match metadata.find(0, &[key])? {
            Value::Number(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let (nodes, record, version) = (number("node_count")?, number("record_size")?, number("ip_version")?);
        let is_right = matches!(record, 24 | 28 | 32) && matches!(version, 4 | 6);
        let tree = nodes.checked_mul(record / 4)?;
        let has_tree = bytes.len() >= tree.checked_add(16)?;
        (is_right && has_tree && nodes > 0).then_some(Self { bytes, nodes, record, is_v6: version == 6 })
    }

    fn country(&self, address: IpAddr) -> Option<Country> {
        let (bits, length) = match (address.to_canonical(), self.is_v6) {
            // IPv4 has its place at the beginning of IPv6.
            (IpAddr::V4(v4), true) => (u128::from(v4.to_bits()), 128),
            (IpAddr::V4(v4), false) => (u128::from(v4.to_bits()) << 96, 32),
            (IpAddr::V6(v6), true) => (v6.to_bits(), 128),
            (IpAddr::V6(_), false) => return None,
        };
        let mut node = 0;
        for depth in 0..length {
            if node >= self.nodes {
                break;
            }
            node = self.child(node, (bits >> (127 - depth)) & 1 == 1)?;
        }
        // As many as there are nodes is "nothing"; beyond that it is a place of the data.
        let offset = node.checked_sub(self.nodes)?.checked_sub(16)?;
        let data = Section(self.bytes.get(self.nodes * (self.record / 4) + 16..)?);
        let found = ["country", "registered_country"].into_iter();
        found.filter_map(|key| data.find(offset, &[key, "iso_code"])).find_map(|value| match value {
            Value::Text(text) => Country::parse(text),
            _ => None,
        })
    }

    fn child(&self, node: usize, right: bool) -> Option<usize> {
        let size = self.record / 4;
        let node = self.bytes.get(node.checked_mul(size)?..)?.get(..size)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        let side =
            |left: std::ops::Range<usize>, other: std::ops::Range<usize>| node.get(if right { other } else { left });
        match self.record {
            24 => side(0..3, 3..6).map(number),
            28 => {
                let middle = usize::from(*node.get(3)?);
                let high = if right { middle & 0x0f } else { middle >> 4 };
                side(0..3, 4..7).map(number).map(|low| high << 24 | low)
            }
            _ => side(0..4, 4..8).map(number),
        }
    }
}

/// Values one after the other, which may point at one another.
#[derive(Clone, Copy)]
struct Section<'a>(&'a [u8]);

enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Map(usize),
    Other,
}

const POINTER: u8 = 1;
const TEXT: u8 = 2;
const MAP: u8 = 7;
const ARRAY: u8 = 11;
const BOOLEAN: u8 = 14;

impl<'a> Section<'a> {
    /// Finds what stands under these keys of maps in maps.
    fn find(self, mut at: usize, keys: &[&str]) -> Option<Value<'a>> {
        let mut budget = MOST_VALUES;
        for key in keys {
            let (Value::Map(entries), mut next, _) = self.value(at)? else { return None };
            let mut found = None;
            for _ in 0..entries {
                budget = budget.checked_sub(1)?;
                let (name, _, after) = self.value(next)?;
                if matches!(name, Value::Text(name) if name == *key) {
                    found = Some(after);
                    break;
                }
                next = self.skip(after, DEEPEST, &mut budget)?;
            }
            at = found?;
        }
        Some(self.value(at)?.0)
    }

    /// Reads a value: what it is, where what it holds begins, and where the next one is. One pointer is followed.
    fn value(self, at: usize) -> Option<(Value<'a>, usize, usize)> {
        let (kind, size, start) = self.head(at)?;
        if kind != POINTER {
            let (value, end) = self.plain(kind, size, start)?;
            return Some((value, start, end));
        }
        let (kind, size, start_there) = self.head(size)?;
        if kind == POINTER {
            return None;
        }
        let (value, _) = self.plain(kind, size, start_there)?;
        Some((value, start_there, start))
    }

    fn plain(self, kind: u8, size: usize, start: usize) -> Option<(Value<'a>, usize)> {
        let end = match kind {
            MAP | ARRAY | BOOLEAN => start,
            _ => start.checked_add(size)?,
        };
        let bytes = self.0.get(start..end)?;
        let value = match kind {
            TEXT => Value::Text(std::str::from_utf8(bytes).ok()?),
            5 | 6 | 9 if size <= 8 => {
                Value::Number(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            MAP => Value::Map(size),
            _ => Value::Other,
        };
        Some((value, end))
    }

    /// Reads the head of a value: its kind, its size (of a pointer: where it leads), and where it goes on.
    fn head(self, at: usize) -> Option<(u8, usize, usize)> {
        let control = *self.0.get(at)?;
        let mut at = at + 1;
        let mut take = |count: usize| -> Option<usize> {
            let bytes = self.0.get(at..at.checked_add(count)?)?;
            at += count;
            Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
        };
        let mut kind = control >> 5;
        if kind == POINTER {
            let high = usize::from(control & 7);
            let to = match (control >> 3) & 3 {
                0 => high << 8 | take(1)?,
                1 => (high << 16 | take(2)?) + 2048,
                2 => (high << 24 | take(3)?) + 526_336,
                _ => take(4)?,
            };
            return Some((POINTER, to, at));
        }
        if kind == 0 {
            kind = u8::try_from(take(1)?.checked_add(7)?).ok()?;
        }
        let size = match control & 31 {
            29 => 29 + take(1)?,
            30 => 285 + take(2)?,
            31 => 65_821 + take(3)?,
            size => usize::from(size),
        };
        Some((kind, size, at))
    }

    /// Returns where the value after this one is.
    fn skip(self, at: usize, depth: usize, budget: &mut usize) -> Option<usize> {
        *budget = budget.checked_sub(1)?;
        let depth = depth.checked_sub(1)?;
        let (kind, size, start) = self.head(at)?;
        let held = match kind {
            POINTER => return Some(start),
            MAP => size.checked_mul(2)?,
            ARRAY => size,
            _ => return self.plain(kind, size, start).map(|(_, end)| end),
        };
        let mut next = start;
        for _ in 0..held {
            next = self.skip(next, depth, budget)?;
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&[TEXT << 5 | u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
    }

    fn number(kind: u8, number: u32) -> Vec<u8> {
        [&[kind << 5 | 4][..], &number.to_be_bytes()].concat()
    }

    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let head = vec![MAP << 5 | u8::try_from(entries.len()).unwrap()];
        entries.iter().fold(head, |map, (key, value)| [map, text(key), value.clone()].concat())
    }

    /// A file of IPv6 with these networks, written as the format says.
    fn file(record: usize, networks: &[(&str, &str)]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut tree: Vec<[Option<Result<usize, usize>>; 2]> = vec![[None, None]];
        for (network, country) in networks {
            let (address, length) = network.split_once('/').unwrap();
            let (bits, length) = match address.parse().unwrap() {
                IpAddr::V4(v4) => (u128::from(v4.to_bits()), 96 + length.parse::<usize>().unwrap()),
                IpAddr::V6(v6) => (v6.to_bits(), length.parse().unwrap()),
            };
            let offset = data.len();
            let names = map(&[("en", text("Somewhere")), ("de", text("Irgendwo"))]);
            let there = map(&[("geoname_id", number(6, 7)), ("names", names), ("iso_code", text(country))]);
            data.extend(map(&[("continent", map(&[("code", text("EU"))])), ("country", there)]));
            let mut node = 0;
            for depth in 0..length {
                let side = usize::from((bits >> (127 - depth)) & 1 == 1);
                if depth + 1 == length {
                    tree[node][side] = Some(Err(offset));
                } else {
                    node = match tree[node][side] {
                        Some(Ok(next)) => next,
                        _ => {
                            tree.push([None, None]);
                            let next = tree.len() - 1;
                            tree[node][side] = Some(Ok(next));
                            next
                        }
                    };
                }
            }
        }
        let count = tree.len();
        let number_of = |side: Option<Result<usize, usize>>| match side {
            None => count,
            Some(Ok(node)) => node,
            Some(Err(offset)) => count + 16 + offset,
        };
        let mut bytes = Vec::new();
        for [left, right] in tree {
            let (left, right) = (number_of(left) as u32, number_of(right) as u32);
            let (l, r) = (left.to_be_bytes(), right.to_be_bytes());
            match record {
                24 => bytes.extend([&l[1..], &r[1..]].concat()),
                28 => bytes.extend([&l[1..], &[l[0] << 4 | r[0]], &r[1..]].concat()),
                _ => bytes.extend([l, r].concat()),
            }
        }
        bytes.extend([0; 16]);
        bytes.extend(data);
        bytes.extend(MARKER);
        let metadata = [
            ("binary_format_major_version", number(5, 2)),
            ("node_count", number(6, count as u32)),
            ("record_size", number(5, record as u32)),
            ("ip_version", number(5, 6)),
            ("database_type", text("Test-Country")),
        ];
        bytes.extend(map(&metadata));
        bytes
    }

    fn country(database: &Database, address: &str) -> Option<String> {
        database.country(address.parse().unwrap()).map(|country| country.to_string())
    }

    #[test]
    fn an_address_has_the_country_of_its_network_whatever_the_width_of_records() {
        let networks = [
            ("192.0.2.0/24", "DE"),
            ("198.51.100.128/25", "FR"),
            ("2001:db8::/32", "AT"),
            ("2001:db9:8000::/33", "ch"),
        ];
        for record in [24, 28, 32] {
            let database = Database::parse(file(record, &networks)).unwrap();

            for (address, wanted) in [
                ("192.0.2.1", Some("DE")),
                ("::ffff:192.0.2.255", Some("DE")),
                ("192.0.3.0", None),
                ("198.51.100.127", None),
                ("198.51.100.128", Some("FR")),
                ("2001:db8:ffff::1", Some("AT")),
                ("2001:db9:7fff::1", None),
                ("2001:db9:8000::1", Some("CH")),
                ("::1", None),
            ] {
                assert_eq!(country(&database, address).as_deref(), wanted, "{address} with {record} bits");
            }
        }
    }

    #[test]
    fn a_file_that_breaks_stays_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        let address = "192.0.2.1".parse().unwrap();
        std::fs::write(&path, file(24, &[("192.0.2.0/24", "DE")])).unwrap();
        let countries = Countries::load(&path, None).unwrap();

        std::fs::write(&path, "<html>502 Bad Gateway</html>").unwrap();
        countries.look();
        assert!(countries.of(address) == Country::parse("DE") && countries.status().problem.is_some());
        let again = Countries::load(&path, Some(&countries)).unwrap();
        assert_eq!(again.of(address), Country::parse("de"));
        std::fs::write(&path, file(28, &[("192.0.2.0/24", "FR"), ("203.0.113.0/24", "IT")])).unwrap();
        again.look();

        assert!(again.of(address) == Country::parse("FR") && again.status().problem.is_none());
        assert!(Countries::load(&folder.path().join("none"), Some(&again)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_file_says_a_look_up_ends(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), address in any::<u32>(),
        ) {
            let mut bytes = file(28, &[("192.0.2.0/24", "DE"), ("0.0.0.0/1", "FR")]);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            let short = bytes[cut.index(bytes.len())..].to_vec();

            for bytes in [bytes, short] {
                if let Some(database) = Database::parse(bytes) {
                    let _ = database.country(std::net::Ipv4Addr::from(address).into());
                    let _ = database.country(std::net::Ipv6Addr::from(u128::from(address) << 96).into());
                }
            }
        }
    }
}

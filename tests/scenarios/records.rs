//! Records in presentation form to wire form, as far as scenario files use them.

use base64::{Engine, engine::general_purpose::STANDARD};
use hearthgate::dns::resolver::{
    name::Name,
    wire::{IN, Record},
};

/// Type names with their numbers.
const TYPES: [(&str, u16); 40] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("SIG", 24),
    ("KEY", 25),
    ("AAAA", 28),
    ("LOC", 29),
    ("NXT", 30),
    ("SRV", 33),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("DNAME", 39),
    ("OPT", 41),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("DHCID", 49),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("SPF", 99),
    ("TKEY", 249),
    ("ANY", 255),
    ("CAA", 257),
    ("DLV", 32769),
];

/// Returns the number of a type's name.
pub fn type_number(text: &str) -> Option<u16> {
    let upper = text.to_ascii_uppercase();
    match TYPES.iter().find(|(name, _)| *name == upper) {
        Some((_, number)) => Some(*number),
        None => upper.strip_prefix("TYPE")?.parse().ok(),
    }
}

/// Splits a line into words; quoted strings are one, parentheses are none.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            _ if quoted => word.push(character),
            ';' => break,
            '(' | ')' | ' ' | '\t' | '\r' => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            other => word.push(other),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Reads `owner [ttl] [class] type data…`.
pub fn record(line: &str) -> Option<Record> {
    let words = words(line);
    let name = Name::parse(words.first()?)?;
    let mut ttl = 3600;
    let mut at = 1;
    loop {
        let word = words.get(at)?;
        if let Ok(seconds) = word.parse() {
            ttl = seconds;
        } else if !word.eq_ignore_ascii_case("IN") {
            break;
        }
        at += 1;
    }
    let rtype = type_number(words.get(at)?)?;
    let rdata = data(rtype, &words[at + 1..])?;
    Some(Record { name, rtype, class: IN, ttl, rdata: rdata.into() })
}

/// Reads `owner [class] type`.
pub fn question(line: &str) -> Option<(Name, u16)> {
    let words = words(line);
    let name = Name::parse(words.first()?)?;
    let rest: Vec<&String> = words[1..].iter().filter(|word| !word.eq_ignore_ascii_case("IN")).collect();
    Some((name, type_number(rest.first()?)?))
}

fn data(rtype: u16, words: &[String]) -> Option<Vec<u8>> {
    let word = |at: usize| words.get(at).map(String::as_str);
    let number16 = |at: usize| Some(word(at)?.parse::<u16>().ok()?.to_be_bytes().to_vec());
    let number32 = |at: usize| Some(seconds(word(at)?)?.to_be_bytes().to_vec());
    let number8 = |at: usize| Some(vec![word(at)?.parse::<u8>().ok()?]);
    let name = |at: usize| Some(Name::parse(word(at)?)?.as_wire().to_vec());
    let text = |word: &str| {
        let mut out = vec![u8::try_from(word.len()).ok()?];
        out.extend(word.bytes());
        Some(out)
    };
    if word(0) == Some("\\#") {
        return hex(&words[2..].concat());
    }
    Some(match rtype {
        1 => word(0)?.parse::<std::net::Ipv4Addr>().ok()?.octets().to_vec(),
        28 => word(0)?.parse::<std::net::Ipv6Addr>().ok()?.octets().to_vec(),
        2 | 5 | 12 | 39 => name(0)?,
        6 => [name(0)?, name(1)?, number32(2)?, number32(3)?, number32(4)?, number32(5)?, number32(6)?].concat(),
        15 | 18 | 36 => [number16(0)?, name(1)?].concat(),
        17 => [name(0)?, name(1)?].concat(),
        13 | 16 | 99 => words.iter().map(|word| text(word)).collect::<Option<Vec<_>>>()?.concat(),
        33 => [number16(0)?, number16(1)?, number16(2)?, name(3)?].concat(),
        35 => [number16(0)?, number16(1)?, text(word(2)?)?, text(word(3)?)?, text(word(4)?)?, name(5)?].concat(),
        43 | 59 | 32769 => [number16(0)?, vec![algorithm(word(1)?)?], number8(2)?, hex(&words[3..].concat())?].concat(),
        44 => [number8(0)?, number8(1)?, hex(&words[2..].concat())?].concat(),
        52 => [number8(0)?, number8(1)?, number8(2)?, hex(&words[3..].concat())?].concat(),
        25 | 48 | 60 => [number16(0)?, number8(1)?, vec![algorithm(word(2)?)?], base64(&words[3..].concat())?].concat(),
        46 => [
            type_number(word(0)?)?.to_be_bytes().to_vec(),
            vec![algorithm(word(1)?)?],
            number8(2)?,
            number32(3)?,
            time(word(4)?)?.to_be_bytes().to_vec(),
            time(word(5)?)?.to_be_bytes().to_vec(),
            number16(6)?,
            name(7)?,
            base64(&words[8..].concat())?,
        ]
        .concat(),
        47 => [name(0)?, bitmap(&words[1..])?].concat(),
        50 => {
            let salt = salt(word(3)?)?;
            let next = base32(word(4)?)?;
            [
                number8(0)?,
                number8(1)?,
                number16(2)?,
                salt,
                vec![u8::try_from(next.len()).ok()?],
                next,
                bitmap(&words[5..])?,
            ]
            .concat()
        }
        51 => [number8(0)?, number8(1)?, number16(2)?, salt(word(3)?)?].concat(),
        257 => [number8(0)?, text(word(1)?)?, word(2)?.bytes().collect()].concat(),
        _ => return None,
    })
}

/// A number, or the mnemonic of RFC 4034 appendix A.1 and its successors.
fn algorithm(text: &str) -> Option<u8> {
    Some(match text {
        "DSA" => 3,
        "RSASHA1" => 5,
        "RSASHA1-NSEC3-SHA1" | "NSEC3RSASHA1" => 7,
        "RSASHA256" => 8,
        "RSASHA512" => 10,
        "ECDSAP256SHA256" => 13,
        "ECDSAP384SHA384" => 14,
        "ED25519" => 15,
        number => number.parse().ok()?,
    })
}

fn salt(text: &str) -> Option<Vec<u8>> {
    let salt = if text == "-" { Vec::new() } else { hex(text)? };
    Some([vec![u8::try_from(salt.len()).ok()?], salt].concat())
}

/// Seconds, also as `2d` or `1h30m`.
fn seconds(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (mut total, mut part) = (0, 0);
    for character in text.chars() {
        match character.to_ascii_lowercase() {
            digit @ '0'..='9' => part = part * 10 + digit.to_digit(10)?,
            unit => {
                total += part
                    * match unit {
                        's' => 1,
                        'm' => 60,
                        'h' => 3600,
                        'd' => 86400,
                        'w' => 604_800,
                        _ => return None,
                    };
                part = 0;
            }
        }
    }
    Some(total)
}

/// Seconds since 1970, or YYYYMMDDHHMMSS.
pub fn time(text: &str) -> Option<u32> {
    if text.len() != 14 {
        return text.parse().ok();
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    // Days from civil, by the usual shift of the year to March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u32::try_from(days * 86400 + part(8, 10)? * 3600 + part(10, 12)? * 60 + part(12, 14)?).ok()
}

/// Reads hexadecimal digits.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair.get(1)?).ok()).collect()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn base32(text: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for character in text.chars() {
        let value = character.to_digit(32)?;
        bits.extend((0..5).rev().map(|bit| value >> bit & 1));
    }
    Some(
        bits.chunks_exact(8)
            .map(|byte| byte.iter().fold(0, |value, bit| value << 1 | u8::try_from(*bit).expect("a bit")))
            .collect(),
    )
}

fn bitmap(types: &[String]) -> Option<Vec<u8>> {
    let mut windows = std::collections::BTreeMap::<u8, [u8; 32]>::new();
    for name in types {
        let [window, low] = type_number(name)?.to_be_bytes();
        windows.entry(window).or_default()[usize::from(low / 8)] |= 0x80 >> (low % 8);
    }
    let mut out = Vec::new();
    for (window, bits) in windows {
        let length = bits.iter().rposition(|byte| *byte != 0)? + 1;
        out.extend([window, u8::try_from(length).ok()?]);
        out.extend(&bits[..length]);
    }
    Some(out)
}

//! What the house answers itself: the owner's records, zones, hosts and leases, and the names that have no place
//! in the public DNS.

mod discovery;
mod files;
mod hosts;
mod leases;
mod peers;
mod records;
mod routes;
mod special;
mod watch;
mod zone;

pub(crate) use discovery::Discovery;
pub(crate) use files::Files;
pub(crate) use leases::Lease;
pub(crate) use peers::Peers;
pub(crate) use records::is_private;
pub(crate) use records::{Local, Records, reverse_v6};
pub(crate) use routes::Routes;
pub(crate) use special::{Answer as SpecialAnswer, Special, covers};
pub(crate) use watch::Watch;

use std::net::IpAddr;

use hickory_proto::{
    rr::Name,
    serialize::binary::{BinEncodable, BinEncoder, NameEncoding},
};

use super::{
    encode::{self, QNAME, Section},
    query::{Query, qtype},
};

/// Seconds that a negative answer of the house may be cached.
const NEGATIVE_TTL: u32 = 60;

/// Writes those addresses that a type of records holds, behind `owner`; says whether there was one.
fn write_addresses(addresses: &[IpAddr], owner: &[u8], qtype: u16, ttl: u32, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    for address in addresses {
        match (address, qtype) {
            (IpAddr::V4(v4), qtype::A) => encode::record(out, Section::Answer, owner, qtype, ttl, &v4.octets()),
            (IpAddr::V6(v6), qtype::AAAA) => encode::record(out, Section::Answer, owner, qtype, ttl, &v6.octets()),
            _ => {}
        }
    }
    out.len() > before
}

/// Writes a name in wire form and lower case.
pub(crate) fn wire(name: &Name) -> Box<[u8]> {
    encoded(&name.to_lowercase()).expect("a name fits into a message")
}

/// Writes names and record data without compression; `None` if they do not fit into a message.
pub(crate) fn encoded(what: &impl BinEncodable) -> Option<Box<[u8]>> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    what.emit(&mut encoder).ok()?;
    Some(bytes.into())
}

/// Writes the SOA record of a zone of the house, which is the last `zone_len` bytes of the query's name: as
/// an answer if it was asked for, else as the proof that there is nothing else (RFC 2308 §2).
fn soa(query: &Query<'_>, zone_len: usize, out: &mut Vec<u8>) {
    // localhost. nobody.invalid. serial refresh retry expire minimum
    const RDATA: &[u8] =
        b"\x09localhost\0\x06nobody\x07invalid\0\0\0\0\x01\0\0\x0e\x10\0\0\x04\xb0\0\x09\x3a\x80\0\0\0\x3c";
    let Some(skipped) = query.name().len().checked_sub(zone_len) else { return };
    let Ok(at) = u16::try_from(12 + skipped) else { return };
    let apex = skipped == 0;
    let section = if apex && query.qtype == qtype::SOA { Section::Answer } else { Section::Authority };
    let owner = (0xc000 | at).to_be_bytes();
    // A pointer to the root's single byte would be longer than the byte.
    let owner = if zone_len <= 1 { &[0][..] } else { &owner[..] };
    encode::record(out, section, owner, qtype::SOA, NEGATIVE_TTL, RDATA);
}

/// Writes SOA for a name that exists without the type that was asked for, with the name as its own zone.
pub(crate) fn no_data(query: &Query<'_>, out: &mut Vec<u8>) {
    soa(query, query.name().len(), out);
}

/// Writes what a zone without names has: at its top a SOA and an NS record (RFC 6303 §3), else the proof that there is
/// nothing.
pub(crate) fn nothing(query: &Query<'_>, zone_len: usize, out: &mut Vec<u8>) {
    match query.qtype {
        qtype::NS if query.name().len() == zone_len => {
            encode::record(out, Section::Answer, QNAME, qtype::NS, NEGATIVE_TTL, b"\x09localhost\0");
        }
        _ => soa(query, zone_len, out),
    }
}

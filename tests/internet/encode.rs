//! What servers say in bytes.

use hearthgate::dns::resolver::wire::{Message, Record, rtype};

use super::{world::Manner, zone::Said};

/// Writes an answer; one that is too long for its transport is truncated.
pub fn encode(asked: &Message, said: &Said, manner: Manner, tcp: bool) -> Vec<u8> {
    let whole = write(asked, said, manner, !tcp && manner == Manner::Truncates);
    let size = match &asked.edns {
        _ if tcp => usize::from(u16::MAX),
        Some(edns) => usize::from(edns.size).max(512),
        None => 512,
    };
    if whole.len() <= size { whole } else { write(asked, said, manner, true) }
}

fn write(asked: &Message, said: &Said, manner: Manner, truncated: bool) -> Vec<u8> {
    let mut out = asked.id.to_be_bytes().to_vec();
    let flags = 0x8000
        | u16::from(said.authoritative) << 10
        | u16::from(truncated) << 9
        | u16::from(asked.recursion_desired) << 8
        | said.rcode;
    out.extend(flags.to_be_bytes());
    out.extend([0, 1]);
    let plain = asked.edns.is_none();
    let proves = |record: &&Record| !matches!(record.rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3);
    let kept = |section: &[Record]| -> Vec<Record> {
        let section = section.iter().filter(|_| !truncated);
        section.filter(|record| !plain && manner != Manner::Strips || proves(record)).cloned().collect()
    };
    let sections = [kept(&said.answer), kept(&said.authority), kept(&said.additional)];
    for (place, section) in sections.iter().enumerate() {
        let opt = u16::from(place == 2 && !plain);
        out.extend((u16::try_from(section.len()).expect("few records") + opt).to_be_bytes());
    }
    let question = asked.question.as_ref().expect("we ask");
    if manner == Manner::Lowers {
        out.extend(asked.raw_question.to_ascii_lowercase());
    } else {
        out.extend(&asked.raw_question);
    }
    out.extend(question.rtype.to_be_bytes());
    out.extend([0, 1]);
    for record in sections.iter().flatten() {
        out.extend(record.name.as_wire());
        out.extend(record.rtype.to_be_bytes());
        out.extend([0, 1]);
        out.extend(record.ttl.to_be_bytes());
        out.extend(u16::try_from(record.rdata.len()).expect("short").to_be_bytes());
        out.extend(&*record.rdata);
    }
    if !plain {
        out.extend([0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    }
    out
}

//! What a resolver said to a question, in a form in which two can be compared.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, net::Ipv6Addr};

use hearthgate::dns::resolver::{
    name::Name,
    wire::{Message, Record, rtype},
};

/// One thing that resolvers can agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    Code,
    Authentic,
    Answers,
}

impl Aspect {
    pub(super) const ALL: [Self; 3] = [Self::Code, Self::Authentic, Self::Answers];
}

/// An answer without what may differ: order, times, the sections beside the answer.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    code: String,
    authentic: bool,
    answers: BTreeSet<String>,
}

impl Verdict {
    pub(super) fn new(message: &Message) -> Self {
        let code = match message.rcode {
            0 => "NOERROR".to_owned(),
            2 => "SERVFAIL".to_owned(),
            3 => "NXDOMAIN".to_owned(),
            5 => "REFUSED".to_owned(),
            6 => "YXDOMAIN".to_owned(),
            other => format!("RCODE{other}"),
        };
        Self { code, authentic: message.authentic, answers: message.answer.iter().map(line).collect() }
    }

    pub(super) fn aspect(&self, aspect: Aspect) -> String {
        match aspect {
            Aspect::Code => self.code.clone(),
            Aspect::Authentic => if self.authentic { "AD" } else { "no AD" }.to_owned(),
            Aspect::Answers => self.answers.iter().cloned().collect::<Vec<_>>().join("; "),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authentic = self.aspect(Aspect::Authentic);
        let mut answers = self.aspect(Aspect::Answers);
        if let Some((end, _)) = answers.char_indices().nth(700) {
            answers.replace_range(end.., "...");
        }
        write!(to, "{:<9}{authentic:<6} {answers}", self.code)
    }
}

fn line(record: &Record) -> String {
    let owner = lower(&record.name);
    let data = &record.rdata[..];
    let named = |kind: &str, name: &[u8]| {
        let name = Name::from_wire(name).map_or_else(|| "?".to_owned(), |name| lower(&name));
        format!("{owner} {kind} {name}")
    };
    match (record.rtype, data) {
        (rtype::A, &[a, b, c, d]) => format!("{owner} A {}", Ipv4Addr::new(a, b, c, d)),
        (rtype::AAAA, data) if data.len() == 16 => {
            let octets: [u8; 16] = data.try_into().expect("the length was compared");
            format!("{owner} AAAA {}", Ipv6Addr::from(octets))
        }
        (rtype::CNAME, name) => named("CNAME", name),
        (rtype::DNAME, name) => named("DNAME", name),
        (rtype::NS, name) => named("NS", name),
        (rtype::PTR, name) => named("PTR", name),
        // The keys sign once: of signatures it is enough to know over what they are, and with which key.
        (rtype::RRSIG, &[high, low, _, labels, _, _, _, _, ..]) => {
            let tag = data.get(16..18).map_or(0, |tag| u16::from(tag[0]) << 8 | u16::from(tag[1]));
            format!("{owner} RRSIG {} labels {labels} key {tag}", u16::from(high) << 8 | u16::from(low))
        }
        (other, data) => format!("{owner} TYPE{other} {}", data.to_ascii_lowercase().escape_ascii()),
    }
}

fn lower(name: &Name) -> String {
    name.to_string().to_ascii_lowercase()
}

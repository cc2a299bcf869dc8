//! What a server's message means, seen from the zone that the server was asked for.
//!
//! Nothing counts that the zone has no say in: owners outside it, addresses of servers outside it, records
//! that do not belong to the chain from the question to its answer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{
    delegation::MOST_SERVERS,
    name::Name,
    rrset::{Rrset, group},
    wire::{Message, Question, rcode, rtype, target},
};

/// A message, understood.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What it is.
    pub class: Class,
    /// The chain from the question to its answer, in order, with DNAME sets before what they rewrite.
    pub answer: Vec<Rrset>,
    /// What the message denies of the name that the chain ends at: that it exists (`true`), or its type.
    pub denied: Option<bool>,
    /// SOA, NS, NSEC, NSEC3 and DS sets of the zone and of what is below it.
    pub authority: Vec<Rrset>,
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// The last set of the chain answers the question.
    Answer,
    /// The chain ends at an alias; this name is to be asked next.
    Alias(Name),
    /// The name has no such type.
    NoData,
    /// The name does not exist.
    NameError,
    /// Another zone's servers are to be asked.
    Referral(Referral),
    /// The server does not serve the zone: it points elsewhere.
    Lame,
    /// Nothing that could be understood: empty, or contradicting itself.
    Useless,
    /// The server recursed instead of answering for the zone itself.
    Recursed,
    /// The server said so.
    Failed(u16),
}

/// The servers of a zone below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referral {
    /// The zone.
    pub zone: Name,
    /// Its servers with glue.
    pub servers: BTreeMap<Name, Vec<IpAddr>>,
    /// Addresses of its servers outside the zone that refers.
    pub hearsay: Vec<IpAddr>,
    /// Seconds.
    pub ttl: u32,
}

/// A chain in one message is no longer than this.
const LONGEST_CHAIN: usize = 16;

/// Understands a message from a server of `zone`; from one that recurses for us if `forwarded`.
pub fn understand(zone: &Name, question: &Question, message: &Message, forwarded: bool) -> Reply {
    let sets = |records| -> Vec<Rrset> {
        group(records).into_iter().filter(|set| forwarded || set.name.is_under(zone)).collect()
    };
    let authority: Vec<Rrset> = sets(&message.authority);
    let mut reply =
        Reply { class: Class::Failed(message.rcode), answer: Vec::new(), denied: None, authority: Vec::new() };
    // YXDOMAIN comes with the DNAME that makes the name too long (RFC 6672 §2.2).
    let rewritten = message.rcode == rcode::YXDOMAIN && message.answer.iter().any(|set| set.rtype == rtype::DNAME);
    if !matches!(message.rcode, rcode::NOERROR | rcode::NXDOMAIN) && !rewritten {
        return reply;
    }
    let recursed = !forwarded && !message.authoritative && message.recursion_available;
    let found = chain(zone, question, &sets(&message.answer), forwarded, &mut reply.answer);
    reply.class = match found {
        Found::Answer if recursed => Class::Recursed,
        Found::Answer => Class::Answer,
        Found::Alias(_) if recursed => Class::Recursed,
        Found::Alias(name) => {
            let speaks = |set: &Rrset| set.rtype == rtype::SOA && name.is_under(&set.name) && !set.data.is_empty();
            if (forwarded || name.is_under(zone)) && authority.iter().any(speaks) {
                reply.denied = Some(message.rcode == rcode::NXDOMAIN);
            }
            Class::Alias(name)
        }
        Found::Malformed => Class::Useless,
        Found::Nothing if message.rcode == rcode::YXDOMAIN => return reply,
        Found::Nothing => negative(zone, question, message, &authority, forwarded, recursed),
    };
    reply.authority = authority
        .into_iter()
        .filter(|set| {
            matches!(set.rtype, rtype::SOA | rtype::NS | rtype::NSEC | rtype::NSEC3 | rtype::DS) && !set.data.is_empty()
        })
        .collect();
    reply
}

enum Found {
    Answer,
    Alias(Name),
    Malformed,
    Nothing,
}

fn chain(zone: &Name, question: &Question, sets: &[Rrset], forwarded: bool, answer: &mut Vec<Rrset>) -> Found {
    let find =
        |name: &Name, kind: u16| sets.iter().find(|set| set.name == *name && set.rtype == kind && !set.data.is_empty());
    let mut current = question.name.clone();
    for _ in 0..LONGEST_CHAIN {
        if question.rtype == rtype::RRSIG {
            // The signatures are the answer; they stand with the sets that they cover.
            let signatures: Vec<Arc<[u8]>> =
                sets.iter().filter(|set| set.name == current).flat_map(|set| set.signatures.clone()).collect();
            if let Some(ttl) = sets.iter().filter(|set| set.name == current).map(|set| set.ttl).min()
                && !signatures.is_empty()
            {
                answer.push(Rrset {
                    name: current,
                    rtype: rtype::RRSIG,
                    ttl,
                    data: signatures,
                    signatures: Vec::new(),
                });
                return Found::Answer;
            }
        }
        let dname = sets.iter().find(|set| set.rtype == rtype::DNAME && current.is_below(&set.name));
        // A CNAME below a DNAME is what that makes it, and nobody signs it.
        if (dname.is_none() || question.rtype != rtype::CNAME)
            && let Some(set) = find(&current, question.rtype)
        {
            answer.push(set.clone());
            return Found::Answer;
        }
        let next = if let Some(dname) = dname {
            let [data] = &dname.data[..] else { return Found::Malformed };
            let Some(to) = target(data) else { return Found::Malformed };
            answer.push(dname.clone());
            // RFC 6672 §2.2: where the name would be too long the DNAME is all there is (YXDOMAIN).
            let Some(next) = current.substitute(&dname.name, &to) else { return Found::Answer };
            answer.push(alias(&current, &next, dname.ttl));
            if question.rtype == rtype::CNAME {
                return Found::Answer;
            }
            next
        } else if let Some(cname) = find(&current, rtype::CNAME) {
            let [data] = &cname.data[..] else { return Found::Malformed };
            let Some(next) = target(data) else { return Found::Malformed };
            answer.push(cname.clone());
            next
        } else {
            break;
        };
        current = next;
        let again = answer.iter().any(|set| set.rtype == rtype::CNAME && set.name == current);
        if again || !forwarded && !current.is_under(zone) {
            return Found::Alias(current);
        }
    }
    if answer.is_empty() { Found::Nothing } else { Found::Alias(current) }
}

/// Makes the CNAME that a DNAME stands for (RFC 6672 §3.1).
pub fn alias(from: &Name, to: &Name, ttl: u32) -> Rrset {
    Rrset { name: from.clone(), rtype: rtype::CNAME, ttl, data: vec![to.as_wire().into()], signatures: Vec::new() }
}

fn negative(
    zone: &Name,
    question: &Question,
    message: &Message,
    authority: &[Rrset],
    forwarded: bool,
    recursed: bool,
) -> Class {
    let speaks = |set: &&Rrset| question.name.is_under(&set.name) && !set.data.is_empty();
    let soa = authority.iter().any(|set| set.rtype == rtype::SOA && speaks(&set));
    if message.rcode == rcode::YXDOMAIN {
        return Class::Useless;
    }
    if message.rcode == rcode::NXDOMAIN {
        return if recursed { Class::Recursed } else { Class::NameError };
    }
    if soa || forwarded {
        return if recursed { Class::Recursed } else { Class::NoData };
    }
    let servers = authority.iter().filter(|set| set.rtype == rtype::NS && speaks(set));
    let Some(nearest) = servers.max_by_key(|set| set.name.label_count()) else {
        let elsewhere = message.authority.iter().any(|record| record.rtype == rtype::NS);
        return match (elsewhere, message.authoritative) {
            (true, _) => Class::Lame,
            (false, true) => Class::NoData,
            (false, false) => Class::Useless,
        };
    };
    if !nearest.name.is_below(zone) {
        return if message.authoritative { Class::NoData } else { Class::Lame };
    }
    if question.rtype == rtype::DS && nearest.name == question.name {
        // The parent's servers answer for DS themselves (RFC 4035 §3.1.4.1).
        return Class::Lame;
    }
    Class::Referral(referral(zone, nearest, message))
}

fn referral(zone: &Name, set: &Rrset, message: &Message) -> Referral {
    let names = set.data.iter().filter_map(|data| target(data)).take(MOST_SERVERS);
    let mut servers: BTreeMap<Name, Vec<IpAddr>> = names.map(|name| (name, Vec::new())).collect();
    let mut hearsay = Vec::new();
    for record in &message.additional {
        let Some(glue) = servers.get_mut(&record.name) else { continue };
        // Glue for names outside the parent's zone is hearsay (RFC 2181 §5.4.1).
        let addresses = if record.name.is_under(zone) { glue } else { &mut hearsay };
        if let Some(address) = address(record.rtype, &record.rdata)
            && addresses.len() < 8
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    Referral { zone: set.name.clone(), servers, hearsay, ttl: set.ttl }
}

/// Returns the servers that a priming answer names, with their addresses.
pub fn root_servers(set: &Rrset, message: &Message) -> BTreeMap<Name, Vec<IpAddr>> {
    referral(&Name::root(), set, message).servers
}

/// Returns the address in A or AAAA data.
pub fn address(kind: u16, rdata: &[u8]) -> Option<IpAddr> {
    match kind {
        rtype::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?).into()),
        rtype::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?).into()),
        _ => None,
    }
}

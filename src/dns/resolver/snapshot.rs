//! The cache as bytes, so that a restart is not cold. What was not checked, and failures, stay out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    Fallback,
    cache::{Cache, Denial, Entry, Kept},
    course::Now,
    delegation::{Cut, Cuts, MOST_SERVERS},
    name::Name,
    rrset::{Rrset, Security},
};

/// No entry is believed for longer.
const LONGEST: u64 = 7 * 86400;
/// What stands under the next length.
const ENTRY: u8 = 0;
const CUT: u8 = 1;

/// Changes with the form.
const MAGIC: &[u8; 8] = b"hgcache2";

/// Writes what is worth keeping; times become those of the wall clock.
pub(super) fn save(cache: &Cache, cuts: &Cuts, now: Now) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for cut in cuts.iter().filter(|cut| cut.forward.is_none() && cut.expires > now.since_start) {
        put(&mut out, &cut_bytes(cut, now));
    }
    for ((name, rtype), entry) in cache.iter() {
        if !matches!(entry.security, Security::Insecure | Security::Secure) || entry.expires <= now.since_start {
            continue;
        }
        let mut one = vec![ENTRY];
        one.extend(name.as_wire());
        one.extend(rtype.to_be_bytes());
        one.push(u8::from(entry.security == Security::Secure));
        let ends = now.wall + (entry.expires - now.since_start).as_secs();
        one.extend(ends.to_be_bytes());
        let (kind, sets): (u8, Vec<&Arc<Rrset>>) = match &entry.kept {
            Kept::Set(set, proof) => (0, std::iter::once(set).chain(proof).collect()),
            Kept::Denial(denial) => {
                let kind = 1 + u8::from(denial.name_error) + 2 * u8::from(denial.soa.is_some());
                (kind, denial.soa.iter().chain(&denial.proof).collect())
            }
            Kept::Failure => continue,
        };
        one.push(kind);
        let complete = sets.into_iter().try_for_each(|set| put_set(&mut one, set));
        if complete.is_some() {
            put(&mut out, &one);
        }
    }
    out
}

fn put(out: &mut Vec<u8>, one: &[u8]) {
    if let Ok(length) = u32::try_from(one.len()) {
        out.extend(length.to_be_bytes());
        out.extend(one);
    }
}

fn cut_bytes(cut: &Cut, now: Now) -> Vec<u8> {
    let mut one = vec![CUT];
    one.extend(cut.zone.as_wire());
    one.extend((now.wall + (cut.expires - now.since_start).as_secs()).to_be_bytes());
    for (server, glue) in &cut.servers {
        one.extend(server.as_wire());
        one.push(u8::try_from(glue.len()).unwrap_or(u8::MAX));
        for address in glue.iter().take(usize::from(u8::MAX)) {
            // All are written as IPv6 addresses; those of IPv4 are mapped.
            let address = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => *address,
            };
            one.extend(address.octets());
        }
    }
    one
}

fn put_set(out: &mut Vec<u8>, set: &Rrset) -> Option<()> {
    out.extend(set.name.as_wire());
    out.extend(set.rtype.to_be_bytes());
    out.extend(set.ttl.to_be_bytes());
    for list in [&set.data, &set.signatures] {
        out.extend(u16::try_from(list.len()).ok()?.to_be_bytes());
        for data in list {
            out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
            out.extend_from_slice(data);
        }
    }
    Some(())
}

/// Reads back what [`save`] wrote, as far as it can be read and still holds; returns how many entries.
pub(super) fn load(cache: &mut Cache, cuts: &mut Cuts, bytes: &[u8], now: Now) -> usize {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return 0 };
    let mut count = 0;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((one, after)) = after.split_at_checked(length) else { break };
        rest = after;
        match one.split_first() {
            Some((&ENTRY, one)) => {
                let Some((name, rtype, entry)) = entry(one, now) else { continue };
                cache.insert(&name, rtype, entry);
            }
            Some((&CUT, one)) => {
                let Some(cut) = cut(one, now) else { continue };
                cuts.insert(Rc::new(cut));
            }
            _ => continue,
        }
        count += 1;
    }
    count
}

fn entry(bytes: &[u8], now: Now) -> Option<(Name, u16, Entry)> {
    let (name, rest) = Name::split_from(bytes)?;
    let (rtype, rest) = rest.split_first_chunk::<2>()?;
    let (secure, rest) = rest.split_first()?;
    let (ends, rest) = rest.split_first_chunk::<8>()?;
    let (kind, mut rest) = rest.split_first()?;
    let left = u64::from_be_bytes(*ends).checked_sub(now.wall).filter(|left| (1..=LONGEST).contains(left))?;
    let mut sets = Vec::new();
    while !rest.is_empty() {
        let (set, after) = set(rest)?;
        sets.push(Arc::new(set));
        rest = after;
    }
    let mut sets = sets.into_iter();
    let kept = match kind {
        0 => Kept::Set(sets.next()?, sets.collect()),
        1..=4 => Kept::Denial(Arc::new(Denial {
            name_error: matches!(kind, 2 | 4),
            soa: if *kind > 2 { Some(sets.next()?) } else { None },
            servers: None,
            proof: sets.collect(),
        })),
        _ => return None,
    };
    let security = if *secure == 1 { Security::Secure } else { Security::Insecure };
    let since = now.since_start;
    let expires = since + Duration::from_secs(left);
    Some((name, u16::from_be_bytes(*rtype), Entry { kept, security, why: None, since, expires }))
}

fn cut(bytes: &[u8], now: Now) -> Option<Cut> {
    let (zone, rest) = Name::split_from(bytes)?;
    let (ends, mut rest) = rest.split_first_chunk::<8>()?;
    let left = u64::from_be_bytes(*ends).checked_sub(now.wall).filter(|left| (1..=LONGEST).contains(left))?;
    let mut servers = BTreeMap::new();
    while !rest.is_empty() && servers.len() < MOST_SERVERS {
        let (server, after) = Name::split_from(rest)?;
        let (count, after) = after.split_first()?;
        let (glue, after) = after.split_at_checked(16 * usize::from(*count))?;
        let (glue, _) = glue.as_chunks::<16>();
        servers.insert(server, glue.iter().map(|octets| Ipv6Addr::from(*octets).to_canonical()).collect());
        rest = after;
    }
    let expires = now.since_start + Duration::from_secs(left);
    let (hearsay, fallback) = (Vec::new(), Fallback::Nothing);
    Some(Cut { zone, servers, hearsay, forward: None, fallback, expires })
}

fn set(bytes: &[u8]) -> Option<(Rrset, &[u8])> {
    let (name, rest) = Name::split_from(bytes)?;
    let (rtype, rest) = rest.split_first_chunk::<2>()?;
    let (ttl, mut rest) = rest.split_first_chunk::<4>()?;
    let mut lists = [Vec::new(), Vec::new()];
    for list in &mut lists {
        let (count, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (data, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            list.push(data.into());
            rest = after;
        }
    }
    let [data, signatures] = lists;
    let (rtype, ttl) = (u16::from_be_bytes(*rtype), u32::from_be_bytes(*ttl));
    Some((Rrset { name, rtype, ttl, data, signatures }, rest))
}

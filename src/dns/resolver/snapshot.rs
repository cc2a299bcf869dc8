//! The cache as bytes, so that a restart is not cold. What was not checked, and failures, stay out.

use std::{sync::Arc, time::Duration};

use super::{
    cache::{Cache, Denial, Entry, Kept},
    course::Now,
    name::Name,
    rrset::{Rrset, Security},
};

/// Changes with the form.
const MAGIC: &[u8; 8] = b"hgcache1";

/// Writes what is worth keeping; times become those of the wall clock.
pub(super) fn save(cache: &Cache, now: Now) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for ((name, rtype), entry) in cache.iter() {
        if !matches!(entry.security, Security::Insecure | Security::Secure) || entry.expires <= now.since_start {
            continue;
        }
        let mut one = Vec::new();
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
        if complete.is_some()
            && let Ok(length) = u32::try_from(one.len())
        {
            out.extend(length.to_be_bytes());
            out.extend(one);
        }
    }
    out
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
pub(super) fn load(cache: &mut Cache, bytes: &[u8], now: Now) -> usize {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return 0 };
    let mut count = 0;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((one, after)) = after.split_at_checked(length) else { break };
        rest = after;
        let Some((name, rtype, entry)) = entry(one, now) else { continue };
        cache.insert(&name, rtype, entry);
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
    let left = u64::from_be_bytes(*ends).checked_sub(now.wall).filter(|left| (1..=7 * 86400).contains(left))?;
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

//! Chains of trust: which keys a zone has, as DS records tie them to an anchor, and what the parent's side
//! says of a name.

use std::{collections::HashMap, rc::Rc, time::Duration};

use super::{
    Shared,
    cache::{Denial, Kept},
    contact::Contact,
    course::Slot,
    denial::Delegation,
    iterate::{Errand, Failure},
    name::Name,
    resolve::Raw,
    rrset::{Rrset, Security},
    signature::{Dnskey, Ds, Rrsig, Window},
    trace,
    validate::{Checked, LONGEST, MOST_KEYS, MOST_SIGNATURES, Side, Verdict},
    why::Why,
    wire::{Question, rtype},
};

/// How long a zone stays bogus.
const BOGUS_FOR: Duration = Duration::from_secs(60);

/// What is known of a zone's keys.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// These.
    Secure(Rc<Vec<Dnskey>>),
    /// None are needed.
    Insecure(Option<Why>),
    /// None are to be had.
    Bogus(Why),
}

/// What the parent's side says of a name.
#[derive(Clone, Debug)]
pub(super) enum AtCut {
    /// A zone whose keys these digests name.
    Signed(Rc<Vec<Ds>>),
    /// A zone without signatures, or with such as are not checked.
    Insecure(Option<Why>),
    /// No zone.
    None,
    /// Nothing that holds.
    Bogus(Why),
}

type Flight = Rc<Slot<Result<Trust, Failure>>>;

/// Verdicts on zones.
#[derive(Default)]
pub(super) struct Trusts {
    zones: HashMap<Name, (Trust, Duration)>,
    cuts: HashMap<Name, (AtCut, Duration)>,
    flights: HashMap<Name, Flight>,
    /// What the verdicts take.
    bytes: usize,
    cut_bytes: usize,
}

/// How many bytes of verdicts on zones, and on cuts, are kept; then all of them are found anew.
const MOST_BYTES: usize = 4 << 20;
const MOST_CUT_BYTES: usize = 2 << 20;
/// Keys of one zone, and bytes of one key, that are looked at.
const MOST_ZONE_KEYS: usize = 32;
const LONGEST_KEY: usize = 2048;
/// Digests of one zone that are looked at.
const MOST_DIGESTS: usize = 32;

impl Trusts {
    fn keep_zone(&mut self, zone: &Name, trust: Trust, until: Duration) {
        let bytes = |trust: &Trust| match trust {
            Trust::Secure(keys) => keys.iter().map(|key| key.rdata.len() + 64).sum::<usize>(),
            Trust::Insecure(_) | Trust::Bogus(_) => 0,
        };
        let (takes, entry) = (bytes(&trust), entry_bytes(zone, size_of::<(Name, (Trust, Duration))>()));
        if self.bytes + takes + entry > MOST_BYTES {
            self.zones.clear();
            self.bytes = 0;
        }
        self.bytes += takes + entry;
        if let Some((older, _)) = self.zones.insert(zone.clone(), (trust, until)) {
            self.bytes -= bytes(&older) + entry;
        }
    }

    fn keep_cut(&mut self, name: &Name, found: AtCut, until: Duration) {
        let bytes = |found: &AtCut| match found {
            AtCut::Signed(digests) => digests.iter().map(|ds| ds.digest.capacity() + size_of::<Ds>()).sum::<usize>(),
            AtCut::Insecure(_) | AtCut::None | AtCut::Bogus(_) => 0,
        };
        let (takes, entry) = (bytes(&found), entry_bytes(name, size_of::<(Name, (AtCut, Duration))>()));
        if self.cut_bytes + takes + entry > MOST_CUT_BYTES {
            self.cuts.clear();
            self.cut_bytes = 0;
        }
        self.cut_bytes += takes + entry;
        if let Some((older, _)) = self.cuts.insert(name.clone(), (found, until)) {
            self.cut_bytes -= bytes(&older) + entry;
        }
    }
}

/// What a table takes for a name and what stands beside it; it is never more than half empty.
fn entry_bytes(name: &Name, beside: usize) -> usize {
    2 * (beside + 1) + name.as_wire().len() + 32
}

impl Shared {
    /// Finds the keys of a zone, once for all who want them at the same time.
    pub(super) async fn trust(&self, zone: &Name, errand: &Errand) -> Result<Trust, Failure> {
        if self.is_untrusted(zone) {
            return Ok(Trust::Insecure(None));
        }
        let (kept, flight) = {
            let trusts = self.trusts.borrow();
            (
                trusts.zones.get(zone).filter(|(_, until)| *until > self.now()).cloned(),
                trusts.flights.get(zone).cloned(),
            )
        };
        if let Some((trust, _)) = kept {
            errand.budget.recorder.write(|_| trusted(zone, &trust));
            return Ok(trust);
        }
        if let Some(flight) = flight {
            // Who flies may have spent a budget that is not ours: then we fly ourselves.
            match self.courses.filled(&flight).await {
                Err(Failure::Spent | Failure::Crowded) => {}
                other => return other,
            }
        }
        let flight = Slot::new();
        self.trusts.borrow_mut().flights.insert(zone.clone(), flight.clone());
        let _landing = Landing { shared: self, zone, flight: flight.clone() };
        let found = Box::pin(self.find_trust(zone, errand)).await;
        if let Ok((trust, ttl)) = &found {
            errand.budget.recorder.write(|_| trusted(zone, trust));
            let mut trusts = self.trusts.borrow_mut();
            trusts.keep_zone(zone, trust.clone(), self.now() + *ttl);
        }
        let found = found.map(|(trust, _)| trust);
        self.courses.fill(&flight, found.clone());
        found
    }

    async fn find_trust(&self, zone: &Name, errand: &Errand) -> Result<(Trust, Duration), Failure> {
        let Some((owner, anchor)) = self.config.anchors.nearest(zone) else {
            return Ok((Trust::Insecure(None), LONGEST));
        };
        let is_deleted = owner == zone && self.is_deleted(zone, anchor);
        if is_deleted && zone.is_root() {
            // RFC 5011 §5 would have nothing checked any more; nobody means that of all names.
            return Ok((Trust::Bogus(Why::KeyMissing), BOGUS_FOR));
        }
        let above = zone.parent().filter(|_| is_deleted);
        if is_deleted && above.is_none_or(|above| self.config.anchors.nearest(&above).is_none()) {
            return Ok((Trust::Insecure(None), LONGEST));
        }
        let (digests, keys) = if owner == zone && !is_deleted {
            self.anchored(zone, anchor)
        } else {
            match self.at_cut(zone, errand).await? {
                AtCut::Signed(digests) => (digests.to_vec(), Vec::new()),
                AtCut::Insecure(why) => return Ok((Trust::Insecure(why), LONGEST)),
                AtCut::None => return Ok((Trust::Bogus(Why::Bogus), BOGUS_FOR)),
                AtCut::Bogus(why) => return Ok((Trust::Bogus(why), BOGUS_FOR)),
            }
        };
        let (digests, why) = self.usable(&digests);
        let keys: Vec<Dnskey> = keys.into_iter().filter(|key| self.config.support.algorithm(key.algorithm)).collect();
        if digests.is_empty() && keys.is_empty() {
            return Ok((Trust::Insecure(Some(why.unwrap_or(Why::UnsupportedAlgorithm))), LONGEST));
        }
        let question = Question { name: zone.clone(), rtype: rtype::DNSKEY };
        let mut avoid: Vec<Contact> = Vec::new();
        let (mut why, mut expired) = (Why::KeyMissing, zone.is_root());
        // What was in the cache is nobody's word: two servers are asked all the same.
        for _ in 0..3 {
            let found = match self.raw(&question, errand, &avoid).await {
                Ok(found) => found,
                Err(_) if !avoid.is_empty() => break,
                Err(failure) => return Err(failure),
            };
            if let Kept::Set(set, _) = &found.kept {
                match self.check_keys(zone, set, &digests, &keys, errand)? {
                    Ok((keys, ttl)) => {
                        self.promote(&question, Security::Secure, None, ttl);
                        if zone.is_root() {
                            self.note_root();
                        }
                        if owner == zone {
                            self.note_anchor(zone);
                        }
                        return Ok((
                            Trust::Secure(Rc::new(keys)),
                            Duration::from_secs(u64::from(ttl.max(1))).min(LONGEST),
                        ));
                    }
                    Err(found) => {
                        why = found;
                        expired = expired
                            && found == Why::SignatureExpired
                            && self.has_expired(zone, set, &digests, &keys, errand)?;
                    }
                }
            } else {
                expired = false;
            }
            if !self.ask_another(&question, found.server, &mut avoid) {
                break;
            }
        }
        if expired && why == Why::SignatureExpired {
            self.note_expired_root();
        }
        Ok((Trust::Bogus(why), BOGUS_FOR))
    }

    /// Says whether a trusted key made a signature over the zone's keys that held at the floor or later and is over
    /// by now. Nobody else can make one, and those that are older than the floor prove nothing: they can be played back.
    fn has_expired(
        &self,
        zone: &Name,
        set: &Rrset,
        digests: &[Ds],
        trusted: &[Dnskey],
        errand: &Errand,
    ) -> Result<bool, Failure> {
        let seconds = |time: u64| u32::try_from(time & 0xffff_ffff).expect("masked");
        let (now, floor) = (seconds(self.wall()), seconds(self.floor()));
        let (_, entry) = self.entry_keys(zone, set, digests, trusted);
        let signatures = set.signatures.iter().filter_map(|rdata| Rrsig::parse(rdata));
        let over = signatures.filter(|rrsig| {
            let ours = rrsig.signer == *zone && rrsig.covered == set.rtype;
            ours && rrsig.window(now) == Window::Expired && rrsig.remaining(floor) > 0
        });
        for rrsig in over.take(MOST_SIGNATURES) {
            let fitting = entry.iter().filter(|key| key.tag == rrsig.key_tag && key.algorithm == rrsig.algorithm);
            for key in fitting.take(MOST_KEYS) {
                if !errand.budget.spend_signature() {
                    return Err(Failure::Spent);
                }
                if key.verify(set, &rrsig, self.config.support) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Of these digests, those that count; without one, why.
    pub(super) fn usable(&self, digests: &[Ds]) -> (Vec<Ds>, Option<Why>) {
        let support = self.config.support;
        let known: Vec<&Ds> = digests.iter().filter(|ds| support.algorithm(ds.algorithm)).collect();
        let checked: Vec<Ds> =
            known.iter().filter(|ds| support.digest(ds.digest_type)).map(|ds| (*ds).clone()).collect();
        let why = if known.is_empty() { Why::UnsupportedAlgorithm } else { Why::UnsupportedDigest };
        // RFC 4509 §3: with a better digest there, SHA-1 does not count.
        let better = checked.iter().any(|ds| ds.digest_type != 1);
        let usable: Vec<Ds> = checked.into_iter().filter(|ds| !better || ds.digest_type != 1).collect();
        let why = usable.is_empty().then_some(why);
        (usable, why)
    }

    /// Finds a key that is trusted and that signed the zone's keys; then all of them are.
    pub(super) fn check_keys(
        &self,
        zone: &Name,
        set: &Rrset,
        digests: &[Ds],
        trusted: &[Dnskey],
        errand: &Errand,
    ) -> Result<Result<(Vec<Dnskey>, u32), Why>, Failure> {
        let (keys, entry) = self.entry_keys(zone, set, digests, trusted);
        if entry.is_empty() {
            return Ok(Err(Why::KeyMissing));
        }
        Ok(self.verify(set, zone, &entry, errand)?.map(|(_, ttl)| (keys, ttl)))
    }

    /// Returns the keys in a set, and which of them are trusted.
    fn entry_keys(&self, zone: &Name, set: &Rrset, digests: &[Ds], trusted: &[Dnskey]) -> (Vec<Dnskey>, Vec<Dnskey>) {
        let usable = set.data.iter().filter(|data| data.len() <= LONGEST_KEY).filter_map(Dnskey::parse);
        let keys: Vec<Dnskey> =
            usable.filter(|key| self.config.support.algorithm(key.algorithm)).take(MOST_ZONE_KEYS).collect();
        let entry: Vec<Dnskey> = keys
            .iter()
            .filter(|key| !self.is_revoked(zone, key))
            .filter(|key| {
                trusted.iter().any(|anchor| anchor.rdata == key.rdata) || digests.iter().any(|ds| ds.covers(zone, key))
            })
            .cloned()
            .collect();
        (keys, entry)
    }

    /// What does the parent say of this name?
    pub(super) async fn at_cut(&self, name: &Name, errand: &Errand) -> Result<AtCut, Failure> {
        let kept = self.trusts.borrow().cuts.get(name).filter(|(_, until)| *until > self.now()).cloned();
        if let Some((found, _)) = kept {
            return Ok(found);
        }
        let (found, ttl) = Box::pin(self.find_at_cut(name, errand)).await?;
        self.trusts.borrow_mut().keep_cut(name, found.clone(), self.now() + ttl);
        Ok(found)
    }

    async fn find_at_cut(&self, name: &Name, errand: &Errand) -> Result<(AtCut, Duration), Failure> {
        if self.is_untrusted(name) {
            return Ok((AtCut::Insecure(None), LONGEST));
        }
        let question = Question { name: name.clone(), rtype: rtype::DS };
        let mut avoid: Vec<Contact> = Vec::new();
        let mut why = Why::Bogus;
        // What was in the cache is nobody's word: two servers are asked all the same.
        for _ in 0..3 {
            let found = match self.raw(&question, errand, &avoid).await {
                Ok(found) => found,
                Err(_) if !avoid.is_empty() => break,
                Err(failure) => return Err(failure),
            };
            let judged = match &found.kept {
                Kept::Set(set, _) if set.rtype == rtype::DS => match self.check_set(set, errand).await? {
                    Verdict::Secure { ttl, .. } => {
                        let all: Vec<Ds> =
                            set.data.iter().filter_map(|data| Ds::parse(data)).take(MOST_DIGESTS).collect();
                        self.promote(&question, Security::Secure, None, ttl);
                        let (usable, why) = self.usable(&all);
                        Ok(if usable.is_empty() { AtCut::Insecure(why) } else { AtCut::Signed(Rc::new(usable)) })
                    }
                    Verdict::Insecure(why) => Ok(AtCut::Insecure(why)),
                    Verdict::Bogus(why) => Err(why),
                },
                // An alias stands where no delegation can.
                Kept::Set(set, _) => match self.check_set_from(set, Side::Above(name), errand).await? {
                    Verdict::Secure { .. } => Ok(AtCut::None),
                    Verdict::Insecure(why) => Ok(AtCut::Insecure(why)),
                    Verdict::Bogus(why) => Err(why),
                },
                Kept::Denial(denial) => self.check_delegation(name, denial, errand).await?,
                Kept::Failure => Err(Why::CachedFailure),
            };
            match judged {
                Ok(found_at) => {
                    let ttl = Duration::from_secs(u64::from(found.ttl.max(1))).min(LONGEST);
                    return Ok((found_at, ttl));
                }
                Err(found) => why = found,
            }
            if !self.ask_another(&question, found.server, &mut avoid) {
                break;
            }
        }
        Ok((AtCut::Bogus(why), BOGUS_FOR))
    }

    async fn check_delegation(
        &self,
        name: &Name,
        denial: &Denial,
        errand: &Errand,
    ) -> Result<Result<AtCut, Why>, Failure> {
        let records = match self.check_proof(&denial.proof, Side::Above(name), errand).await? {
            Checked::Records(records) => records,
            Checked::Insecure(why) => return Ok(Ok(AtCut::Insecure(why))),
            Checked::Bogus(why) => return Ok(Err(why)),
            Checked::Nothing => {
                let parent = name.parent().unwrap_or_else(Name::root);
                return Ok(match self.check_unsigned(&parent, errand).await? {
                    Verdict::Insecure(why) => Ok(AtCut::Insecure(why)),
                    Verdict::Bogus(why) => Err(why),
                    Verdict::Secure { .. } => Err(Why::DenialMissing),
                });
            }
        };
        Ok(match records.delegation(name, &errand.budget) {
            Delegation::Insecure => Ok(AtCut::Insecure(None)),
            Delegation::None => Ok(AtCut::None),
            Delegation::Missing => Err(Why::DenialMissing),
            Delegation::Exhausted => return Err(Failure::Spent),
        })
    }

    /// Forgets what did not hold; says whether somebody else may still be asked.
    fn ask_another(&self, question: &Question, server: Option<Contact>, avoid: &mut Vec<Contact>) -> bool {
        self.cache.borrow_mut().remove(&question.name, question.rtype);
        let another = avoid.is_empty();
        if another {
            avoid.extend(server);
        }
        another
    }

    /// Finds data as it came, from the cache or from servers.
    async fn raw(&self, question: &Question, errand: &Errand, avoid: &[Contact]) -> Result<Raw, Failure> {
        Box::pin(self.find_raw(question, errand, avoid)).await
    }
}

fn trusted(zone: &Name, trust: &Trust) -> trace::Step {
    let (security, keys, why) = match trust {
        Trust::Secure(keys) => (Security::Secure, keys.iter().map(|key| key.tag).collect(), None),
        Trust::Insecure(why) => (Security::Insecure, Vec::new(), *why),
        Trust::Bogus(why) => (Security::Bogus, Vec::new(), Some(*why)),
    };
    trace::Step::Trusted { zone: zone.clone(), security, keys, why }
}

struct Landing<'a> {
    shared: &'a Shared,
    zone: &'a Name,
    flight: Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut trusts = self.shared.trusts.borrow_mut();
        // Where two flew, the one that began later stands there, and may still be under way.
        if trusts.flights.get(self.zone).is_some_and(|flight| Rc::ptr_eq(flight, &self.flight)) {
            trusts.flights.remove(self.zone);
        }
        drop(trusts);
        // Who was stopped on the way leaves the others to find out for themselves.
        self.shared.courses.fill(&self.flight, Err(Failure::Spent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::resolver::{Config, Resolver};

    fn name(number: u32) -> Name {
        Name::parse(&format!("{}.{number}.example", "x".repeat(63))).unwrap()
    }

    #[test]
    fn verdicts_on_cuts_are_bounded_in_bytes_whatever_digests_they_hold() {
        let mut trusts = Trusts::default();
        let digest = Ds { tag: 1, algorithm: 13, digest_type: 2, digest: vec![7; 64] };
        let held = |trusts: &Trusts| -> usize {
            let of = |(name, (found, _)): (&Name, &(AtCut, Duration))| {
                let AtCut::Signed(digests) = found else { return 0 };
                name.as_wire().len() + digests.len() * (size_of::<Ds>() + 64)
            };
            trusts.cuts.iter().map(of).sum()
        };

        for number in 0..20_000 {
            let digests = Rc::new(vec![digest.clone(); MOST_DIGESTS]);
            trusts.keep_cut(&name(number), AtCut::Signed(digests), Duration::MAX);
            assert!(held(&trusts) <= MOST_CUT_BYTES, "after {number}");
        }
        for _ in 0..1000 {
            trusts.keep_cut(&name(1), AtCut::None, Duration::MAX);
        }

        assert!(trusts.cut_bytes <= MOST_CUT_BYTES && !trusts.cuts.is_empty());
    }

    #[test]
    fn verdicts_on_zones_are_bounded_in_bytes() {
        let mut trusts = Trusts::default();

        for number in 0..100_000 {
            trusts.keep_zone(&name(number), Trust::Bogus(Why::Bogus), Duration::MAX);
            trusts.keep_zone(&name(number), Trust::Insecure(None), Duration::MAX);
        }

        let least = name(0).as_wire().len() + size_of::<(Name, (Trust, Duration))>();
        assert!(trusts.zones.len() * least <= MOST_BYTES, "{} zones", trusts.zones.len());
        assert!(trusts.bytes <= MOST_BYTES);
    }

    #[test]
    fn who_lands_leaves_the_flight_of_another_alone() {
        let resolver = Resolver::new(Config::default(), |bytes| bytes.fill(0));
        let zone = name(1);
        let (first, second): (Flight, Flight) = (Slot::new(), Slot::new());
        resolver.shared.trusts.borrow_mut().flights.insert(zone.clone(), second.clone());

        drop(Landing { shared: &resolver.shared, zone: &zone, flight: first });
        let is_there = resolver.shared.trusts.borrow().flights.contains_key(&zone);
        drop(Landing { shared: &resolver.shared, zone: &zone, flight: second });

        assert!(is_there);
        assert!(resolver.shared.trusts.borrow().flights.is_empty());
    }
}

//! Validation: which data a chain from an anchor vouches for.
//!
//! A set with signatures is checked with the keys of the zone that signed it; these keys are found by going
//! up from that zone, DS by DS, to the nearest anchor. A set without signatures is sound only if some zone
//! between the anchor and its owner is provably unsigned; that is looked for going down.

use std::{collections::HashMap, net::IpAddr, rc::Rc, time::Duration};

use super::{
    Shared,
    cache::{Denial, Kept},
    course::Slot,
    denial::{Delegation, Proof, Records},
    iterate::{Errand, Failure},
    name::Name,
    resolve::Raw,
    rrset::{Rrset, Security},
    signature::{Dnskey, Ds, Rrsig, Window},
    why::Why,
    wire::{Question, rtype},
};

/// Signatures of one set that are tried (KeyTrap).
const MOST_SIGNATURES: usize = 8;
/// Keys of one tag that are tried.
const MOST_KEYS: usize = 4;
/// Zones that may have signed one set.
const MOST_SIGNERS: usize = 2;
/// How long a verdict is kept at most; the data that it rests on may go earlier.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a zone stays bogus.
const BOGUS_FOR: Duration = Duration::from_secs(60);

/// Which zones may have signed what is looked at.
#[derive(Clone, Copy)]
enum Side<'a> {
    /// Any at or above the owner.
    Either,
    /// Only zones above this name: what is said of a cut comes from its parent's side. (Were it the child's,
    /// the search for its keys would wait for itself.)
    Above(&'a Name),
}

/// What is known of a zone's keys.
#[derive(Clone, Debug)]
enum Trust {
    /// These.
    Secure(Rc<Vec<Dnskey>>),
    /// None are needed.
    Insecure(Option<Why>),
    /// None are to be had.
    Bogus(Why),
}

/// What the parent's side says of a name.
#[derive(Clone, Debug)]
enum AtCut {
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
    bytes: usize,
}

/// How many verdicts are kept, and how many bytes of keys; then all are found anew.
const MOST_VERDICTS: usize = 8192;
const MOST_BYTES: usize = 4 << 20;
/// Keys of one zone, and bytes of one key, that are looked at.
const MOST_ZONE_KEYS: usize = 32;
const LONGEST_KEY: usize = 2048;
/// Digests of one zone that are looked at.
const MOST_DIGESTS: usize = 32;

/// The end of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds; made from the wildcard under this name, if any; for so many seconds.
    Secure { encloser: Option<Name>, ttl: u32 },
    /// Nobody vouches for it, and nobody has to.
    Insecure(Option<Why>),
    /// It does not hold.
    Bogus(Why),
}

impl Shared {
    /// Says whether nothing is checked at this name.
    pub(super) fn is_untrusted(&self, name: &Name) -> bool {
        let wall = self.wall();
        let negative = self.config.negative_anchors.iter();
        let mut negative =
            negative.filter(|(zone, until)| name.is_under(zone) && until.is_none_or(|until| until > wall));
        let nearest = self.config.anchors.nearest(name);
        nearest.is_none_or(|(anchor, _)| negative.any(|(zone, _)| zone.is_under(anchor)))
    }

    /// Checks a set.
    pub(super) async fn check_set(&self, set: &Rrset, errand: &Errand) -> Result<Verdict, Failure> {
        self.check_set_from(set, Side::Either, errand).await
    }

    async fn check_set_from(&self, set: &Rrset, side: Side<'_>, errand: &Errand) -> Result<Verdict, Failure> {
        // DS belongs to the parent's side of a cut, whatever anchor stands at the child's.
        // What is looked at for the sake of a cut must not ask for that cut again.
        let place = match (set.rtype, side) {
            (rtype::DS, _) => set.name.parent().unwrap_or_else(Name::root),
            (_, Side::Above(cut)) => cut.parent().unwrap_or_else(Name::root),
            (_, Side::Either) => set.name.clone(),
        };
        // Nothing signs signatures.
        if set.rtype == rtype::RRSIG || self.is_untrusted(&place) {
            return Ok(Verdict::Insecure(None));
        }
        let mut why = Why::SignaturesMissing;
        let signers = self.signers(set, side);
        if signers.is_empty() {
            return self.check_unsigned(&place, errand).await;
        }
        for signer in signers {
            match self.trust(&signer, errand).await? {
                Trust::Insecure(why) => return Ok(Verdict::Insecure(why)),
                Trust::Bogus(found) => why = found,
                Trust::Secure(keys) => match self.verify(set, &signer, &keys, errand)? {
                    Ok((encloser, ttl)) => return Ok(Verdict::Secure { encloser, ttl }),
                    Err(found) => why = found,
                },
            }
        }
        Ok(Verdict::Bogus(why))
    }

    /// The zones that claim to have signed a set, of those that could have.
    fn signers(&self, set: &Rrset, side: Side<'_>) -> Vec<Name> {
        // Where an anchor stands at a cut, what the parent says of the cut still begins at one further up.
        let of_cut = matches!(set.rtype, rtype::DS | rtype::NSEC | rtype::NSEC3);
        let Some((anchor, _)) = self.config.anchors.nearest(&set.name) else { return Vec::new() };
        let mut signers = Vec::new();
        for rrsig in set.signatures.iter().filter_map(|rdata| Rrsig::parse(rdata)) {
            let possible = rrsig.covered == set.rtype
                && set.name.is_under(&rrsig.signer)
                && (of_cut || rrsig.signer.is_under(anchor))
                && (set.rtype != rtype::DS || set.name.is_below(&rrsig.signer))
                && match side {
                    Side::Either => true,
                    Side::Above(name) => name.is_below(&rrsig.signer),
                };
            if possible && !signers.contains(&rrsig.signer) && signers.len() < MOST_SIGNERS {
                signers.push(rrsig.signer);
            }
        }
        signers
    }

    /// Checks the signatures that one zone made; returns the wildcard's parent and the seconds that it holds.
    fn verify(
        &self,
        set: &Rrset,
        signer: &Name,
        keys: &[Dnskey],
        errand: &Errand,
    ) -> Result<Result<(Option<Name>, u32), Why>, Failure> {
        let now = u32::try_from(self.wall() & 0xffff_ffff).expect("masked");
        let mut why = Why::SignaturesMissing;
        let signatures = set.signatures.iter().filter_map(|rdata| Rrsig::parse(rdata));
        for rrsig in
            signatures.filter(|rrsig| rrsig.signer == *signer && rrsig.covered == set.rtype).take(MOST_SIGNATURES)
        {
            match rrsig.window(now) {
                Window::Valid => {}
                Window::Expired => {
                    why = Why::SignatureExpired;
                    continue;
                }
                Window::NotYet => {
                    why = Why::SignatureNotYetValid;
                    continue;
                }
                Window::Never => {
                    why = Why::Bogus;
                    continue;
                }
            }
            if !self.config.support.algorithm(rrsig.algorithm) {
                continue;
            }
            let fitting = keys.iter().filter(|key| key.tag == rrsig.key_tag && key.algorithm == rrsig.algorithm);
            let mut tried = false;
            for key in fitting.take(MOST_KEYS) {
                tried = true;
                if !errand.budget.spend_signature() {
                    return Err(Failure::Spent);
                }
                if key.verify(set, &rrsig, self.config.support) {
                    let labels = usize::from(rrsig.labels);
                    let own = set.name.label_count() - usize::from(set.name.is_wildcard());
                    let encloser = (labels < own).then(|| set.name.suffix(labels));
                    let ttl = set.ttl.min(rrsig.original_ttl).min(rrsig.remaining(now).max(1));
                    return Ok(Ok((encloser, ttl)));
                }
            }
            why = if tried { Why::Bogus } else { Why::KeyMissing };
        }
        Ok(Err(why))
    }

    /// Is the name in a zone that is provably unsigned? Goes down from the anchor.
    pub(super) async fn check_unsigned(&self, name: &Name, errand: &Errand) -> Result<Verdict, Failure> {
        if self.is_untrusted(name) {
            return Ok(Verdict::Insecure(None));
        }
        let Some((anchor, _)) = self.config.anchors.nearest(name) else { return Ok(Verdict::Insecure(None)) };
        match self.trust(anchor, errand).await? {
            Trust::Secure(_) => {}
            Trust::Insecure(why) => return Ok(Verdict::Insecure(why)),
            Trust::Bogus(why) => return Ok(Verdict::Bogus(why)),
        }
        let deepest = self.cuts.borrow().deepest(name, self.now()).map(|cut| cut.zone.clone());
        for count in anchor.label_count() + 1..=name.label_count() {
            let place = name.suffix(count);
            // Between two cuts that referrals named there is none.
            let between = deepest.as_ref().is_some_and(|deepest| deepest.is_below(&place));
            if between && !self.cuts.borrow().is_cut(&place, self.now()) {
                continue;
            }
            match self.at_cut(&place, errand).await? {
                AtCut::Insecure(why) => return Ok(Verdict::Insecure(why)),
                AtCut::Bogus(why) => return Ok(Verdict::Bogus(why)),
                AtCut::Signed(_) | AtCut::None => {}
            }
        }
        Ok(Verdict::Bogus(Why::SignaturesMissing))
    }

    /// Finds the keys of a zone, once for all who want them at the same time.
    async fn trust(&self, zone: &Name, errand: &Errand) -> Result<Trust, Failure> {
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
            let mut trusts = self.trusts.borrow_mut();
            if trusts.zones.len() >= MOST_VERDICTS || trusts.bytes >= MOST_BYTES {
                trusts.zones.clear();
                trusts.bytes = 0;
            }
            if let Trust::Secure(keys) = trust {
                trusts.bytes += keys.iter().map(|key| key.rdata.len() + 64).sum::<usize>();
            }
            trusts.zones.insert(zone.clone(), (trust.clone(), self.now() + *ttl));
        }
        let found = found.map(|(trust, _)| trust);
        self.courses.fill(&flight, found.clone());
        found
    }

    async fn find_trust(&self, zone: &Name, errand: &Errand) -> Result<(Trust, Duration), Failure> {
        let Some((owner, anchor)) = self.config.anchors.nearest(zone) else {
            return Ok((Trust::Insecure(None), LONGEST));
        };
        let (digests, keys) = if owner == zone {
            (anchor.ds.clone(), anchor.keys.clone())
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
        let mut avoid: Vec<IpAddr> = Vec::new();
        let mut why = Why::KeyMissing;
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
                        return Ok((
                            Trust::Secure(Rc::new(keys)),
                            Duration::from_secs(u64::from(ttl.max(1))).min(LONGEST),
                        ));
                    }
                    Err(found) => why = found,
                }
            }
            self.cache.borrow_mut().remove(&question.name, question.rtype);
            match found.server {
                Some(server) if avoid.is_empty() => avoid.push(server),
                None if avoid.is_empty() => {}
                _ => break,
            }
        }
        Ok((Trust::Bogus(why), BOGUS_FOR))
    }

    /// Of these digests, those that count; without one, why.
    fn usable(&self, digests: &[Ds]) -> (Vec<Ds>, Option<Why>) {
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
    fn check_keys(
        &self,
        zone: &Name,
        set: &Rrset,
        digests: &[Ds],
        trusted: &[Dnskey],
        errand: &Errand,
    ) -> Result<Result<(Vec<Dnskey>, u32), Why>, Failure> {
        let usable = set.data.iter().filter(|data| data.len() <= LONGEST_KEY).filter_map(Dnskey::parse);
        let keys: Vec<Dnskey> =
            usable.filter(|key| self.config.support.algorithm(key.algorithm)).take(MOST_ZONE_KEYS).collect();
        let entry: Vec<Dnskey> = keys
            .iter()
            .filter(|key| {
                trusted.iter().any(|anchor| anchor.rdata == key.rdata) || digests.iter().any(|ds| ds.covers(zone, key))
            })
            .cloned()
            .collect();
        if entry.is_empty() {
            return Ok(Err(Why::KeyMissing));
        }
        Ok(self.verify(set, zone, &entry, errand)?.map(|(_, ttl)| (keys, ttl)))
    }

    /// What does the parent say of this name?
    async fn at_cut(&self, name: &Name, errand: &Errand) -> Result<AtCut, Failure> {
        let kept = self.trusts.borrow().cuts.get(name).filter(|(_, until)| *until > self.now()).cloned();
        if let Some((found, _)) = kept {
            return Ok(found);
        }
        let (found, ttl) = Box::pin(self.find_at_cut(name, errand)).await?;
        let mut trusts = self.trusts.borrow_mut();
        if trusts.cuts.len() >= MOST_VERDICTS {
            trusts.cuts.clear();
        }
        trusts.cuts.insert(name.clone(), (found.clone(), self.now() + ttl));
        Ok(found)
    }

    async fn find_at_cut(&self, name: &Name, errand: &Errand) -> Result<(AtCut, Duration), Failure> {
        if self.is_untrusted(name) {
            return Ok((AtCut::Insecure(None), LONGEST));
        }
        let question = Question { name: name.clone(), rtype: rtype::DS };
        let mut avoid: Vec<IpAddr> = Vec::new();
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
                        Ok(if usable.is_empty() { AtCut::Insecure(why) } else { AtCut::Signed(Rc::new(all)) })
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
            self.cache.borrow_mut().remove(&question.name, question.rtype);
            match found.server {
                Some(server) if avoid.is_empty() => avoid.push(server),
                None if avoid.is_empty() => {}
                _ => break,
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

    /// Checks the signatures of the sets of a proof.
    async fn check_proof(
        &self,
        proof: &[std::sync::Arc<Rrset>],
        side: Side<'_>,
        errand: &Errand,
    ) -> Result<Checked, Failure> {
        let mut zone: Option<Name> = None;
        let mut sound: Vec<&std::sync::Arc<Rrset>> = Vec::new();
        let mut why = None;
        for set in proof.iter().filter(|set| matches!(set.rtype, rtype::NSEC | rtype::NSEC3)).take(12) {
            let Some(signer) = self.signers(set, side).into_iter().next() else { continue };
            // One answer's proof is one zone's.
            if zone.as_ref().is_some_and(|zone| *zone != signer) {
                continue;
            }
            match self.trust(&signer, errand).await? {
                Trust::Insecure(why) => return Ok(Checked::Insecure(why)),
                Trust::Bogus(found) => why = Some(found),
                Trust::Secure(keys) => match self.verify(set, &signer, &keys, errand)? {
                    // What was made from a wildcard says nothing of the place that it stands at.
                    Ok((Some(_), _)) => why = Some(Why::DenialMissing),
                    Ok((None, ttl)) => {
                        if self.config.aggressive {
                            let expires = self.now() + Duration::from_secs(u64::from(ttl)).min(LONGEST);
                            self.proofs.borrow_mut().insert(&signer, set, expires);
                        }
                        zone = Some(signer);
                        sound.push(set);
                    }
                    Err(found) => why = Some(found),
                },
            }
        }
        Ok(match (zone, why) {
            (Some(zone), _) => Checked::Records(Records::new(&zone, sound.iter().map(|set| &***set))),
            (None, Some(why)) => Checked::Bogus(why),
            (None, None) => Checked::Nothing,
        })
    }

    /// Checks a set and, where it was made from a wildcard, that nothing nearer exists.
    pub(super) async fn check_positive(
        &self,
        set: &std::sync::Arc<Rrset>,
        proof: &[std::sync::Arc<Rrset>],
        errand: &Errand,
    ) -> Result<Verdict, Failure> {
        let verdict = self.check_set(set, errand).await?;
        let Verdict::Secure { encloser: Some(encloser), ttl } = verdict else { return Ok(verdict) };
        Ok(match self.check_proof(proof, Side::Either, errand).await? {
            Checked::Records(records) => match records.wildcard_answer(&set.name, &encloser, &errand.budget) {
                Proof::Proven => {
                    if let (true, [signer, ..]) = (self.config.aggressive, &self.signers(set, Side::Either)[..]) {
                        let expires = self.now() + Duration::from_secs(u64::from(ttl)).min(LONGEST);
                        self.proofs.borrow_mut().insert_wildcard(signer, &encloser, set, expires);
                    }
                    Verdict::Secure { encloser: Some(encloser), ttl }
                }
                Proof::OptOut | Proof::TooCostly => Verdict::Insecure(None),
                Proof::Missing => Verdict::Bogus(Why::DenialMissing),
                Proof::Exhausted => return Err(Failure::Spent),
            },
            Checked::Insecure(why) => Verdict::Insecure(why),
            Checked::Bogus(why) => Verdict::Bogus(why),
            Checked::Nothing => Verdict::Bogus(Why::DenialMissing),
        })
    }

    /// Checks a denial.
    pub(super) async fn check_denial(
        &self,
        question: &Question,
        denial: &Denial,
        errand: &Errand,
    ) -> Result<Verdict, Failure> {
        let place = question.place();
        if self.is_untrusted(&place) {
            return Ok(Verdict::Insecure(None));
        }
        let records = match self.check_proof(&denial.proof, Side::Either, errand).await? {
            Checked::Records(records) => records,
            Checked::Insecure(why) => return Ok(Verdict::Insecure(why)),
            Checked::Bogus(why) => return Ok(Verdict::Bogus(why)),
            Checked::Nothing => {
                return Ok(match self.check_unsigned(&place, errand).await? {
                    Verdict::Bogus(Why::SignaturesMissing) => Verdict::Bogus(Why::DenialMissing),
                    other => other,
                });
            }
        };
        let proof = if denial.name_error {
            records.name_error(&question.name, &errand.budget)
        } else {
            records.no_data(&question.name, question.rtype, &errand.budget)
        };
        let ttl = denial.proof.iter().map(|set| set.ttl).min().unwrap_or(0);
        Ok(match proof {
            Proof::Proven => match self.check_soa(denial, errand).await? {
                Some(why) => Verdict::Bogus(why),
                None => Verdict::Secure { encloser: None, ttl },
            },
            Proof::OptOut | Proof::TooCostly => Verdict::Insecure(None),
            Proof::Missing if denial.soa.as_ref().is_some_and(|soa| records.are_of(&soa.name)) => {
                Verdict::Bogus(Why::DenialMissing)
            }
            // A proof may be right though an unsigned zone was in between.
            Proof::Missing => match self.check_unsigned(&place, errand).await? {
                Verdict::Insecure(why) => Verdict::Insecure(why),
                _ => Verdict::Bogus(Why::DenialMissing),
            },
            Proof::Exhausted => return Err(Failure::Spent),
        })
    }

    /// A SOA that comes with a proof must hold as well: it says how long.
    async fn check_soa(&self, denial: &Denial, errand: &Errand) -> Result<Option<Why>, Failure> {
        let Some(soa) = &denial.soa else { return Ok(None) };
        Ok(match self.check_set(soa, errand).await? {
            Verdict::Bogus(why) => Some(why),
            Verdict::Secure { ttl, .. } => {
                if self.config.aggressive {
                    let expires = self.now() + Duration::from_secs(u64::from(ttl)).min(LONGEST);
                    self.proofs.borrow_mut().insert(&soa.name, soa, expires);
                }
                None
            }
            Verdict::Insecure(_) => None,
        })
    }

    /// Finds data as it came, from the cache or from servers.
    async fn raw(&self, question: &Question, errand: &Errand, avoid: &[IpAddr]) -> Result<Raw, Failure> {
        Box::pin(self.find_raw(question, errand, avoid)).await
    }
}

enum Checked {
    Records(Records),
    Insecure(Option<Why>),
    Bogus(Why),
    /// There is no signed record at all.
    Nothing,
}

struct Landing<'a> {
    shared: &'a Shared,
    zone: &'a Name,
    flight: Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.shared.trusts.borrow_mut().flights.remove(self.zone);
        // Who was stopped on the way leaves the others to find out for themselves.
        self.shared.courses.fill(&self.flight, Err(Failure::Spent));
    }
}

//! Validation: which data a chain from an anchor vouches for.
//!
//! A set with signatures is checked with the keys of the zone that signed it; these keys are found by going
//! up from that zone, DS by DS, to the nearest anchor. A set without signatures is sound only if some zone
//! between the anchor and its owner is provably unsigned; that is looked for going down.

use std::time::Duration;

use super::{
    Shared,
    cache::{Denial, Kept},
    chain::{AtCut, Trust},
    denial::{Proof, Records},
    iterate::{Errand, Failure},
    name::Name,
    rrset::Rrset,
    signature::{Dnskey, Rrsig, Window},
    why::Why,
    wire::{Question, rtype},
};

/// Signatures of one set that are tried (KeyTrap).
pub(super) const MOST_SIGNATURES: usize = 8;
/// Keys of one tag that are tried.
pub(super) const MOST_KEYS: usize = 4;
/// Zones that may have signed one set.
const MOST_SIGNERS: usize = 2;
/// A name with more labels below the deepest zone that is known is far from it.
const FAR: usize = 3;
/// Labels below the deepest zone that is known at which the end of the signed part is looked for: none lies deeper that
/// no server spoke of.
const MOST_UNKNOWN: usize = 16;
/// How long a verdict is kept at most; the data that it rests on may go earlier.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Which zones may have signed what is looked at.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    /// Any at or above the owner.
    Either,
    /// Only zones above this name: what is said of a cut comes from its parent's side. (Were it the child's,
    /// the search for its keys would wait for itself.)
    Above(&'a Name),
}

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

    pub(super) async fn check_set_from(
        &self,
        set: &Rrset,
        side: Side<'_>,
        errand: &Errand,
    ) -> Result<Verdict, Failure> {
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
    pub(super) fn signers(&self, set: &Rrset, side: Side<'_>) -> Vec<Name> {
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
    pub(super) fn verify(
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
        // An island may begin below what referrals named.
        let known = deepest.as_ref().filter(|deepest| deepest.is_under(anchor)).unwrap_or(anchor);
        if let Some(found) = self.check_hinted(name, known, errand).await? {
            return Ok(found);
        }
        let mut unknown = 0;
        for count in anchor.label_count() + 1..=name.label_count() {
            let place = name.suffix(count);
            // Between two cuts that referrals named there is none.
            let between = deepest.as_ref().is_some_and(|deepest| deepest.is_below(&place));
            if between && !self.cuts.borrow().is_cut(&place, self.now()) {
                continue;
            }
            unknown += usize::from(place.is_below(known));
            if unknown > MOST_UNKNOWN {
                break;
            }
            match self.at_cut(&place, errand).await? {
                AtCut::Insecure(why) => return Ok(Verdict::Insecure(why)),
                AtCut::Bogus(why) => return Ok(Verdict::Bogus(why)),
                AtCut::Signed(_) | AtCut::None => {}
            }
        }
        Ok(Verdict::Bogus(Why::SignaturesMissing))
    }

    /// Where a name is far below the deepest zone that is known, asks whether it is signed, for the sake of the SOA
    /// record that says in which zone it is: nothing but that zone's place is taken from it.
    async fn check_hinted(&self, name: &Name, known: &Name, errand: &Errand) -> Result<Option<Verdict>, Failure> {
        if name.label_count() <= known.label_count() + FAR {
            return Ok(None);
        }
        let question = Question { name: name.clone(), rtype: rtype::DS };
        let found = match Box::pin(self.find_raw(&question, errand, &[])).await {
            Ok(found) => found.kept,
            Err(failure @ (Failure::Spent | Failure::Crowded)) => return Err(failure),
            Err(_) => return Ok(None),
        };
        let Kept::Denial(denial) = found else { return Ok(None) };
        let Some(zone) = denial.soa.as_ref().map(|soa| soa.name.clone()) else { return Ok(None) };
        if !zone.is_below(known) || !name.is_below(&zone) {
            return Ok(None);
        }
        Ok(match Box::pin(self.at_cut(&zone, errand)).await? {
            AtCut::Insecure(why) => Some(Verdict::Insecure(why)),
            AtCut::Bogus(_) | AtCut::Signed(_) | AtCut::None => None,
        })
    }

    /// Checks the signatures of the sets of a proof.
    pub(super) async fn check_proof(
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
            Checked::Nothing if self.is_denied_from_above(&place, denial) => return Ok(Verdict::Insecure(None)),
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

    /// A zone above the anchor, which nothing vouches for, signed that there is no such name: then there is no
    /// delegation to the anchor's zone either, and nobody can say more (as Unbound and Knot have it, an
    /// indeterminate answer).
    fn is_denied_from_above(&self, place: &Name, denial: &Denial) -> bool {
        let Some((anchor, _)) = self.config.anchors.nearest(place).filter(|_| denial.name_error) else { return false };
        let sets = denial.soa.iter().chain(&denial.proof);
        let signers = sets.flat_map(|set| &set.signatures).filter_map(|rdata| Rrsig::parse(rdata));
        signers.into_iter().any(|rrsig| anchor.is_below(&rrsig.signer) && self.is_untrusted(&rrsig.signer))
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
}

pub(super) enum Checked {
    Records(Records),
    Insecure(Option<Why>),
    Bogus(Why),
    /// There is no signed record at all.
    Nothing,
}

//! One question's course: aliases followed, each name looked up in the cache or with servers, checked and
//! kept.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use super::{
    Answer, Asked, Placed, Shared,
    budget::{Budget, Limits},
    cache::{ANY_TYPE, Entry, Kept},
    contact::Contact,
    iterate::{Errand, Failure},
    name::Name,
    reply::{address, alias},
    rrset::{Rrset, Security},
    trace::{self, Known},
    validate::Verdict,
    why::Why,
    wire::{Question, rcode, rtype, target},
};

/// How long a failure is kept (RFC 9520 §2.2: at least 1 s, at most 5 min).
pub(super) const FAILED_FOR: Duration = Duration::from_secs(5);
/// RFC 8767 §4: what has expired is given with this TTL.
const STALE_TTL: u32 = 30;

/// Data as it came.
pub(super) struct Raw {
    pub(super) kept: Kept,
    /// Who said it just now; `None` from the cache.
    pub(super) server: Option<Contact>,
    /// Seconds.
    pub(super) ttl: u32,
}

/// What is known of one name and type.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) kept: Kept,
    pub(super) security: Security,
    pub(super) why: Option<Why>,
    pub(super) ttl: u32,
    pub(super) server: Option<Contact>,
}

/// How old what is taken from the cache may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// It still holds.
    Fresh,
    /// It may have expired, by no more than the owner allows.
    Stale,
}

/// Whether an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    Ended,
    /// An alias is to be followed.
    GoesOn,
}

impl Shared {
    /// Answers a client's question, whatever happens.
    pub(super) async fn answer(&self, asked: &Asked, limits: Limits) -> Answer {
        let recorded = self.config.traces > 0;
        let budget = Rc::new(if recorded { Budget::recorded(limits, self.now()) } else { Budget::new(limits) });
        let answer = self.answer_within(asked, &budget).await;
        self.remember(asked, &answer, &budget);
        answer
    }

    /// Answers a question out of this budget.
    pub(super) async fn answer_within(&self, asked: &Asked, budget: &Rc<Budget>) -> Answer {
        let errand = Errand { budget: budget.clone(), path: vec![asked.question.clone()] };
        let mut excused = self.is_excused(asked);
        let checked = !asked.checking_disabled && !excused;
        let mut result = self.follow(&asked.question, checked, &errand).await;
        let is_bogus = result.as_ref().is_ok_and(|answer| answer.security == Security::Bogus);
        if checked && is_bogus && self.is_excused(asked) {
            // That the clock is ahead was found out on the way.
            excused = true;
            result = self.follow(&asked.question, false, &errand).await;
        }
        let mut answer = match result {
            Ok(answer) if excused => self.excuse(answer),
            Ok(answer) => self.judge(asked, answer),
            Err(failure) => {
                if !matches!(failure, Failure::Cached(_) | Failure::Crowded) {
                    self.keep_failure(&asked.question, failure.why());
                }
                failed(failure.why())
            }
        };
        answer.cost = budget.used();
        answer
    }

    /// What a client is told of an answer: one that is bogus only if it checks for itself.
    fn judge(&self, asked: &Asked, answer: Answer) -> Answer {
        if asked.checking_disabled {
            return answer;
        }
        if answer.security == Security::Bogus {
            return Answer { ttl: answer.ttl, security: Security::Bogus, ..failed(answer.why.unwrap_or(Why::Bogus)) };
        }
        if self.is_sentinel_failure(&asked.question, &answer) {
            return Answer { ttl: answer.ttl, ..failed(Why::Sentinel) };
        }
        answer
    }

    /// Answers from the cache alone, if that knows all of it.
    pub(super) fn answer_from_cache(&self, asked: &Asked) -> Option<Answer> {
        if self.is_excused(asked) {
            let unchecked = Asked { checking_disabled: true, ..asked.clone() };
            return self.thread_from_cache(&unchecked, Age::Fresh).map(|answer| self.excuse(answer));
        }
        self.thread_from_cache(asked, Age::Fresh).map(|answer| self.judge(asked, answer))
    }

    /// Answers with what has expired, where nothing better is to be had (RFC 8767).
    pub(super) fn stale_answer(&self, asked: &Asked) -> Option<Answer> {
        if self.config.stale.is_zero() {
            return None;
        }
        let mut answer = self.judge(asked, self.thread_from_cache(asked, Age::Stale)?);
        let denied = answer.rcode == rcode::NXDOMAIN;
        answer.why = Some(if denied { Why::StaleNxDomain } else { Why::Stale });
        Some(answer)
    }

    fn thread_from_cache(&self, asked: &Asked, age: Age) -> Option<Answer> {
        let mut answer = self.blank();
        let mut question = asked.question.clone();
        for _ in 0..=self.config.limits.aliases {
            let mut step = self.cached(&question, age)?;
            if step.security == Security::Unchecked && !asked.checking_disabled && self.is_untrusted(&question.place())
            {
                step.security = Security::Insecure;
            }
            let checked = match step.security {
                Security::Unchecked => asked.checking_disabled,
                Security::Bogus => age == Age::Fresh,
                Security::Insecure | Security::Secure => true,
            };
            if !checked || is_bare(&step, &question) || matches!(step.kept, Kept::Failure) {
                return None;
            }
            let over = answer.security.min(step.security) == Security::Bogus && !asked.checking_disabled;
            if add(&mut answer, &mut question, step).ok()? == Thread::Ended || over {
                return Some(answer);
            }
        }
        None
    }

    fn blank(&self) -> Answer {
        Answer {
            rcode: rcode::NOERROR,
            answer: Vec::new(),
            authority: Vec::new(),
            security: Security::Secure,
            why: None,
            ttl: *self.config.ttl.end(),
            cost: Limits::NONE,
        }
    }

    /// RFC 8509: a name asks whether a key is an anchor, and SERVFAIL is one of the answers.
    fn is_sentinel_failure(&self, question: &Question, answer: &Answer) -> bool {
        let asked = matches!(question.rtype, rtype::A | rtype::AAAA) && answer.security == Security::Secure;
        let Some(label) = question.name.labels().next().filter(|_| asked) else { return false };
        let number = |tag: &[u8]| std::str::from_utf8(tag).ok().filter(|tag| tag.len() == 5)?.parse::<u16>().ok();
        let is = label.strip_prefix(b"root-key-sentinel-is-ta-").and_then(number);
        let not = label.strip_prefix(b"root-key-sentinel-not-ta-").and_then(number);
        is.is_some_and(|tag| !self.is_root_anchor(tag)) || not.is_some_and(|tag| self.is_root_anchor(tag))
    }

    async fn follow(&self, question: &Question, checked: bool, errand: &Errand) -> Result<Answer, Failure> {
        let mut answer = self.blank();
        let mut question = question.clone();
        loop {
            let step = self.step(&question, checked, errand).await?;
            if add(&mut answer, &mut question, step)? == Thread::Ended || answer.security == Security::Bogus && checked
            {
                return Ok(answer);
            }
            if !errand.budget.spend_alias() {
                return Err(Failure::Spent);
            }
        }
    }

    /// Finds what is known of one name: the set, an alias, or that there is none.
    async fn step(&self, question: &Question, checked: bool, errand: &Errand) -> Result<Step, Failure> {
        let step = match self.cached(question, Age::Fresh).filter(|step| !is_bare(step, question)) {
            Some(step) => {
                errand.budget.recorder.write(|_| known(question, &step, None));
                step
            }
            None => match self.proven(question, checked, errand) {
                Some(step) => {
                    errand.budget.recorder.write(|_| known(question, &step, Some(Known::Proof)));
                    return Ok(step);
                }
                None => self.asked_of_servers(question, errand, &[]).await?,
            },
        };
        if checked { self.check(question, step, errand).await } else { Ok(step) }
    }

    /// Asks again for what is in the cache, before it is over.
    pub(super) async fn refresh(&self, question: &Question) {
        let budget = Rc::new(Budget::new(self.config.limits));
        let errand = Errand { budget, path: vec![question.clone()] };
        if let Ok(step) = self.asked_of_servers(question, &errand, &[]).await {
            // What it found is in the cache.
            let _ = self.check(question, step, &errand).await;
        }
    }

    /// Checks what was found, asks another server where it does not hold, and keeps the verdict.
    async fn check(&self, question: &Question, mut step: Step, errand: &Errand) -> Result<Step, Failure> {
        if step.security != Security::Unchecked {
            return Ok(step);
        }
        let (mut avoid, mut again) = (Vec::new(), 0);
        loop {
            let verdict = match &step.kept {
                Kept::Set(set, proof) => self.check_positive(set, proof, errand).await?,
                Kept::Denial(denial) => self.check_denial(question, denial, errand).await?,
                Kept::Failure => return Ok(step),
            };
            (step.security, step.why) = match verdict {
                Verdict::Secure { ttl, .. } => {
                    step.ttl = step.ttl.min(ttl);
                    (Security::Secure, None)
                }
                Verdict::Insecure(why) => (Security::Insecure, why),
                Verdict::Bogus(why) => (Security::Bogus, Some(why)),
            };
            errand.budget.recorder.write(|_| trace::Step::Checked {
                question: question.clone(),
                security: step.security,
                why: step.why,
            });
            avoid.extend(step.server.filter(|_| step.security == Security::Bogus));
            if step.security == Security::Bogus && avoid.len() < 2 && again < 2 {
                // One server may be wrong where another is right. (Of what was in the cache nobody knows any
                // more who said it: then a second server may be the first.)
                again += 1;
                self.forget_step(question, &step.kept);
                match self.asked_of_servers(question, errand, &avoid).await {
                    Ok(other) if other.server.is_some() => {
                        step = other;
                        continue;
                    }
                    Err(failure @ (Failure::Spent | Failure::Crowded)) => return Err(failure),
                    Ok(_) | Err(_) => {}
                }
            }
            self.keep_step(question, &step);
            return Ok(step);
        }
    }

    /// Looks into the cache: the set, an alias at the name or above it, a denial of the type, of the name, or
    /// of a name above (RFC 8020).
    fn cached(&self, question: &Question, age: Age) -> Option<Step> {
        let now = self.now();
        let moment = if age == Age::Fresh { now } else { now.saturating_sub(self.config.stale) };
        let mut cache = self.cache.borrow_mut();
        let mut entry = cache
            .fresh(&question.name, question.rtype, moment)
            .filter(|entry| age == Age::Fresh || !matches!(entry.kept, Kept::Failure));
        if entry.is_none() && !matches!(question.rtype, rtype::CNAME | rtype::DS | rtype::RRSIG) {
            entry =
                cache.fresh(&question.name, rtype::CNAME, moment).filter(|entry| matches!(entry.kept, Kept::Set(..)));
        }
        if entry.is_none() {
            entry = cache.fresh(&question.name, ANY_TYPE, moment);
        }
        let mut above = question.name.parent();
        while let (None, Some(name)) = (&entry, &above) {
            // What holds of a name outside says nothing of what is in a zone that others are asked for.
            if name.is_root() || !self.config.forward.is_empty() && !self.are_of_one_zone(name, &question.place()) {
                break;
            }
            let denied = cache.fresh(name, ANY_TYPE, moment).filter(|entry| entry.security == Security::Secure);
            let rewritten = if cache.has_dnames() { cache.fresh(name, rtype::DNAME, moment) } else { None };
            entry = denied.or(rewritten.filter(|entry| matches!(entry.kept, Kept::Set(..))));
            above = name.parent();
        }
        let entry = entry?;
        drop(cache);
        if age == Age::Fresh && self.config.prefetch && entry.is_nearly_over(now) {
            self.wish_refresh(question);
        }
        let expired = entry.expires <= now;
        Some(Step {
            ttl: if expired { STALE_TTL } else { entry.ttl(now) },
            // What was checked long ago is not vouched for.
            security: if expired { entry.security.min(Security::Insecure) } else { entry.security },
            kept: entry.kept,
            why: entry.why,
            server: None,
        })
    }

    /// Says whether the same servers are asked at both names, if any recurse for us.
    fn are_of_one_zone(&self, one: &Name, other: &Name) -> bool {
        self.forward_zone(one) == self.forward_zone(other)
    }

    fn proven(&self, question: &Question, checked: bool, errand: &Errand) -> Option<Step> {
        if !self.config.aggressive || !checked || self.is_untrusted(&question.place()) {
            return None;
        }
        // A proof of the public zone above is not what those say who are asked for a zone of its own.
        if !self.config.forward.is_empty() && !self.are_of_one_zone(&Name::root(), &question.place()) {
            return None;
        }
        let now = self.now();
        let (kept, until) = self.proofs.borrow().answer(question, now, &errand.budget)?;
        let ttl = u32::try_from((until - now).as_secs()).unwrap_or(u32::MAX);
        Some(Step { kept, security: Security::Secure, why: None, ttl, server: None })
    }

    pub(super) async fn asked_of_servers(
        &self,
        question: &Question,
        errand: &Errand,
        avoid: &[Contact],
    ) -> Result<Step, Failure> {
        let fetched = Box::pin(self.fetch(question, errand, avoid)).await?;
        let server = Some(fetched.server);
        let (kept, ttl) = self.keep(question, fetched)?;
        Ok(Step { kept, security: Security::Unchecked, why: None, ttl, server })
    }

    /// Finds data without checking it: for keys and DS, which are checked by who asks.
    pub(super) async fn find_raw(
        &self,
        question: &Question,
        errand: &Errand,
        avoid: &[Contact],
    ) -> Result<Raw, Failure> {
        if avoid.is_empty()
            && let Some(step) = self.cached(question, Age::Fresh)
            && step.security != Security::Bogus
            && !matches!(step.kept, Kept::Failure)
        {
            return Ok(Raw { kept: step.kept, server: None, ttl: step.ttl });
        }
        let step = self.asked_of_servers(question, errand, avoid).await?;
        Ok(Raw { kept: step.kept, server: step.server, ttl: step.ttl })
    }

    /// Returns the addresses of a server's name, unchecked.
    pub(super) async fn addresses_of(&self, question: &Question, errand: &Errand) -> Vec<IpAddr> {
        let answer = match Box::pin(self.follow(question, false, errand)).await {
            Ok(answer) => answer,
            Err(failure) => {
                if matches!(failure, Failure::Unreachable | Failure::Useless) {
                    self.keep_failure(question, failure.why());
                }
                return Vec::new();
            }
        };
        let last = answer.answer.last().filter(|placed| placed.set.rtype == question.rtype);
        last.map_or_else(Vec::new, |placed| {
            placed.set.data.iter().filter_map(|data| address(question.rtype, data)).take(8).collect()
        })
    }

    /// Returns the addresses of a server's name that are in the cache.
    pub(super) fn kept_addresses(&self, name: &Name) -> Vec<IpAddr> {
        let now = self.now();
        let mut cache = self.cache.borrow_mut();
        let mut found = Vec::new();
        for kind in [rtype::A, rtype::AAAA] {
            if let Some(Entry { kept: Kept::Set(set, _), security, .. }) = cache.fresh(name, kind, now)
                && security != Security::Bogus
            {
                found.extend(set.data.iter().filter_map(|data| address(kind, data)).take(8));
            }
        }
        found
    }
}

fn known(question: &Question, step: &Step, what: Option<Known>) -> trace::Step {
    let kept = match &step.kept {
        Kept::Set(..) => Known::Records,
        Kept::Denial(denial) if denial.name_error => Known::NameError,
        Kept::Denial(_) => Known::NoData,
        Kept::Failure => Known::Failure,
    };
    let (security, ttl) = (step.security, step.ttl);
    trace::Step::Known { question: question.clone(), what: what.unwrap_or(kept), security, ttl }
}

/// A referral's proof that there is no DS lacks the SOA that an answer has.
fn is_bare(step: &Step, question: &Question) -> bool {
    question.rtype == rtype::DS && matches!(&step.kept, Kept::Denial(denial) if denial.soa.is_none())
}

/// Puts what is known of the question's name into the answer; where it is an alias, the question goes on with
/// its target.
fn add(answer: &mut Answer, question: &mut Question, step: Step) -> Result<Thread, Failure> {
    answer.security = answer.security.min(step.security);
    answer.why = answer.why.or(step.why);
    answer.ttl = answer.ttl.min(step.ttl);
    let ttl = step.ttl;
    let place = |set: Arc<Rrset>| Placed { set, ttl };
    let (set, proof) = match step.kept {
        Kept::Failure => return Err(Failure::Cached(step.why.unwrap_or(Why::CachedFailure))),
        Kept::Denial(denial) => {
            answer.rcode = if denial.name_error { rcode::NXDOMAIN } else { rcode::NOERROR };
            let servers = denial.servers.iter().filter(|_| step.security != Security::Secure);
            answer.authority.extend(denial.soa.iter().chain(servers).chain(&denial.proof).cloned().map(place));
            return Ok(Thread::Ended);
        }
        Kept::Set(set, proof) => (set, proof),
    };
    for set in proof {
        if !answer.authority.iter().any(|placed| placed.set == set) {
            answer.authority.push(place(set));
        }
    }
    // A DNAME above the name rewrites it, also where DNAME is the type that is asked for (RFC 6672 §3.2).
    if set.rtype == question.rtype && set.name == question.name {
        answer.answer.push(place(set));
        return Ok(Thread::Ended);
    }
    let to = set.data.first().and_then(|data| target(data)).ok_or(Failure::Useless)?;
    let next = if set.rtype == rtype::DNAME {
        let next = question.name.substitute(&set.name, &to);
        answer.answer.push(place(set));
        let Some(next) = next else {
            // RFC 6672 §2.2: the name would be too long.
            answer.rcode = rcode::YXDOMAIN;
            return Ok(Thread::Ended);
        };
        answer.answer.push(place(Arc::new(alias(&question.name, &next, ttl))));
        if question.rtype == rtype::CNAME {
            return Ok(Thread::Ended);
        }
        next
    } else {
        answer.answer.push(place(set));
        to
    };
    // An alias that was followed already stands in the answer: a circle has no end.
    let again = answer.answer.iter().any(|placed| placed.set.rtype == rtype::CNAME && placed.set.name == next);
    if again {
        return Err(Failure::Useless);
    }
    question.name = next;
    Ok(Thread::GoesOn)
}

/// The answer where there is none.
pub(super) fn failed(why: Why) -> Answer {
    Answer {
        rcode: rcode::SERVFAIL,
        answer: Vec::new(),
        authority: Vec::new(),
        security: Security::Insecure,
        why: Some(why),
        ttl: u32::try_from(FAILED_FOR.as_secs()).expect("a few seconds"),
        cost: Limits::NONE,
    }
}

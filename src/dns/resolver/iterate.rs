//! Iteration: from the deepest known zone cut down to the servers that answer, and one exchange with one
//! server.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use super::{
    Fallback, Forward, Shared,
    budget::Budget,
    contact::Contact,
    course::first,
    delegation::Cut,
    exchange::Trouble,
    global::is_global,
    name::Name,
    reply::{Class, Reply, understand},
    search::Search,
    trace::{Came, Step},
    why::Why,
    wire::{Message, Question, rcode, rtype},
};

/// What a piece of work may spend, and what led to it.
#[derive(Clone)]
pub(super) struct Errand {
    /// Shared by all work of one client question.
    pub(super) budget: Rc<Budget>,
    /// The questions that wait for this one: one that comes again would wait for itself.
    pub(super) path: Vec<Question>,
}

/// Work for a server's address goes no deeper than this.
const DEEPEST: usize = 8;
/// RFC 9156 §2.3: after so many steps the full name is asked.
const MOST_STEPS: usize = 10;
/// How many servers may stumble over a minimised question until it is given up.
const MOST_STUMBLES: usize = 2;

/// Why nothing was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No server answered.
    Unreachable,
    /// Servers answered, none usefully.
    Useless,
    /// The budget is spent.
    Spent,
    /// It failed a moment ago, for this.
    Cached(Why),
    /// Others needed the place.
    Crowded,
}

impl Failure {
    /// Returns what clients are told. RFC 8914 §4.14 has a code for a failure that was cached: the cause says more.
    pub(super) fn why(self) -> Why {
        match self {
            Self::Unreachable => Why::NoReachableAuthority,
            Self::Useless => Why::NetworkError,
            Self::Spent => Why::BudgetSpent,
            Self::Cached(why) => why,
            Self::Crowded => Why::Crowded,
        }
    }
}

/// What a zone's server said.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    /// Who said it.
    pub(super) server: Contact,
    /// What it said.
    pub(super) reply: Reply,
}

/// Whether a question is the one that matters or only leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A name with labels left out (RFC 9156): who stumbles over it may still know the whole one, so nothing
    /// is held against servers, and no further ones are looked up while there are some.
    Minimised,
    /// The whole name.
    Whole,
}

/// One server that was asked.
type Pending<'a> = Pin<Box<dyn Future<Output = (Contact, Duration, Result<Rc<Message>, Trouble>)> + 'a>>;

impl Shared {
    /// Finds the answer of the zone that has it; aliases are not followed.
    ///
    /// `avoid` names servers whose answer was bogus.
    pub(super) async fn fetch(
        &self,
        question: &Question,
        errand: &Errand,
        avoid: &[Contact],
    ) -> Result<Fetched, Failure> {
        let mut restarts = 0;
        if let Some(cut) = self.forwarded(&question.place()) {
            let result = match self.are_all_failing(&cut) && cut.fallback == Fallback::Recursion {
                true => Err(Failure::Unreachable),
                false => self.descend(cut.clone(), question, errand, avoid).await,
            };
            match result {
                Err(Failure::Unreachable | Failure::Useless) if cut.fallback == Fallback::Recursion => {}
                result => return result,
            }
        }
        loop {
            let cut = self.start(&question.place(), errand).await?;
            let was_cached = !cut.zone.is_root();
            match self.descend(cut.clone(), question, errand, avoid).await {
                // The servers may have changed since the parent named them.
                Err(Failure::Unreachable | Failure::Useless) if was_cached && restarts == 0 && avoid.is_empty() => {
                    restarts += 1;
                    self.cuts.borrow_mut().remove(&cut.zone);
                }
                result => return result,
            }
        }
    }

    async fn descend(
        &self,
        mut cut: Rc<Cut>,
        question: &Question,
        errand: &Errand,
        avoid: &[Contact],
    ) -> Result<Fetched, Failure> {
        let full = question.name.label_count();
        let mut labels = cut.zone.label_count();
        let mut steps = 0;
        // The type says nothing of what is wanted, and every server knows it.
        let mut kind = rtype::A;
        loop {
            let forwarded = cut.forward.is_some();
            labels =
                if !self.config.minimise || forwarded || steps >= MOST_STEPS { full } else { (labels + 1).min(full) };
            let minimised = labels < full;
            let asked =
                if minimised { Question { name: question.name.suffix(labels), rtype: kind } } else { question.clone() };
            let aim = if minimised { Aim::Minimised } else { Aim::Whole };
            let fetched = match self.ask_zone(&cut, &asked, aim, errand, avoid).await {
                Ok(fetched) => fetched,
                Err(failure @ (Failure::Spent | Failure::Crowded)) => return Err(failure),
                Err(_) if minimised && kind == rtype::A => {
                    // RFC 9156 §2.1: NS was the type of RFC 7816; some servers know it better.
                    kind = rtype::NS;
                    labels -= 1;
                    continue;
                }
                Err(_) if minimised => {
                    // RFC 9156 §2.3: servers that stumble over names inside are asked for the whole.
                    labels = full;
                    steps = MOST_STEPS;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            steps += usize::from(minimised);
            match fetched.reply.class {
                Class::Referral(ref referral) => {
                    if !errand.budget.spend_referral() {
                        return Err(Failure::Spent);
                    }
                    let below = self.keep_referral(&cut, referral, &fetched.reply);
                    let count = below.zone.label_count();
                    // A referral nearer than what was asked means that the labels between are one zone's.
                    labels = count;
                    cut = below;
                }
                Class::NameError if minimised => {
                    // Some servers deny names which only have something below them.
                    steps = MOST_STEPS;
                }
                _ if minimised => {}
                _ => return Ok(fetched),
            }
        }
    }

    fn forward_to(&self, name: &Name) -> Option<&Forward> {
        let zones = self.config.forward.iter().filter(|forward| name.is_under(&forward.zone));
        zones.max_by_key(|forward| forward.zone.label_count())
    }

    /// Returns the zone whose servers recurse for us at a name, if any do.
    pub(super) fn forward_zone(&self, name: &Name) -> Option<&Name> {
        self.forward_to(name).map(|forward| &forward.zone)
    }

    /// Returns the servers that recurse for us below a name, in the form of a cut.
    fn forwarded(&self, name: &Name) -> Option<Rc<Cut>> {
        let forward = self.forward_to(name)?;
        Some(Rc::new(Cut {
            zone: forward.zone.clone(),
            servers: BTreeMap::new(),
            hearsay: Vec::new(),
            forward: Some(forward.servers.clone()),
            fallback: forward.fallback,
            expires: Duration::MAX,
        }))
    }

    /// Says whether none of the servers that recurse for us answered the last time.
    fn are_all_failing(&self, cut: &Cut) -> bool {
        self.wish_probes(cut.forward.as_deref().unwrap_or_default());
        let servers = self.servers.borrow();
        cut.forward.iter().flatten().all(|server| servers.is_failing(*server))
    }

    /// Returns the cut to begin at.
    async fn start(&self, name: &Name, errand: &Errand) -> Result<Rc<Cut>, Failure> {
        let known = self.cuts.borrow().deepest(name, self.now());
        match known {
            Some(cut) => Ok(cut),
            None => self.prime(errand).await,
        }
    }

    /// Finds the root's servers (RFC 9609); where that fails, the hints serve for a while.
    async fn prime(&self, errand: &Errand) -> Result<Rc<Cut>, Failure> {
        let mut cut = Cut {
            zone: Name::root(),
            servers: self.config.hints.iter().cloned().collect(),
            hearsay: Vec::new(),
            forward: None,
            fallback: Fallback::Nothing,
            expires: self.now() + Duration::from_secs(86400),
        };
        if self.config.priming {
            let question = Question { name: Name::root(), rtype: rtype::NS };
            let hints = Rc::new(cut.clone());
            if let Ok((Reply { class: Class::Answer, answer, .. }, message, _)) =
                self.ask_zone_raw(&hints, &question, Aim::Whole, errand, &[]).await
                && let Some(set) = answer.last()
            {
                let referral = super::reply::root_servers(set, &message);
                if referral.values().any(|addresses| !addresses.is_empty()) {
                    let mut servers = referral;
                    for (name, hinted) in &self.config.hints {
                        if let Some(addresses) = servers.get_mut(name).filter(|addresses| addresses.is_empty()) {
                            addresses.extend(hinted);
                        }
                    }
                    cut.servers = servers;
                    cut.expires = self.now() + Duration::from_secs(u64::from(set.ttl.clamp(3600, 518_400)));
                }
            }
        }
        let cut = Rc::new(cut);
        self.cuts.borrow_mut().insert(cut.clone());
        Ok(cut)
    }

    fn keep_referral(&self, above: &Cut, referral: &super::reply::Referral, reply: &Reply) -> Rc<Cut> {
        let ttl = u64::from(referral.ttl.clamp(1.max(*self.config.ttl.start()), *self.config.ttl.end()));
        // What hangs below a delegation does not outlive it.
        let expires = (self.now() + Duration::from_secs(ttl)).min(above.expires);
        let cut = Rc::new(Cut {
            zone: referral.zone.clone(),
            servers: referral.servers.clone(),
            hearsay: referral.hearsay.clone(),
            forward: None,
            fallback: Fallback::Nothing,
            expires,
        });
        self.cuts.borrow_mut().insert(cut.clone());
        self.keep_delegation_proof(&referral.zone, reply, expires);
        cut
    }

    async fn ask_zone(
        &self,
        cut: &Rc<Cut>,
        question: &Question,
        aim: Aim,
        errand: &Errand,
        avoid: &[Contact],
    ) -> Result<Fetched, Failure> {
        let (reply, _, server) = self.ask_zone_raw(cut, question, aim, errand, avoid).await?;
        Ok(Fetched { server, reply })
    }

    /// Asks the servers of a zone in turn until one answers usefully.
    async fn ask_zone_raw(
        &self,
        cut: &Rc<Cut>,
        question: &Question,
        aim: Aim,
        errand: &Errand,
        avoid: &[Contact],
    ) -> Result<(Reply, Rc<Message>, Contact), Failure> {
        let mut search = Search::new(self, cut, aim, errand.path.len() - 1, avoid);
        let mut failure = Failure::Unreachable;
        let mut last_resort: Option<(Reply, Rc<Message>, Contact)> = None;
        let mut pending: Vec<Pending<'_>> = Vec::new();
        let forwarded = cut.forward.is_some();
        let mut stumbles = 0;
        loop {
            let mut hedge = None;
            let goes_on = aim == Aim::Whole || stumbles < MOST_STUMBLES;
            if pending.len() < 2 {
                let next = if goes_on { search.next(self) } else { None };
                let next = match next {
                    None if pending.is_empty() => {
                        if let Some(found) = last_resort.take_if(|(reply, ..)| reply.class != Class::NoData) {
                            return Ok(found);
                        }
                        if goes_on && search.more(self, cut, errand).await {
                            continue;
                        }
                        None
                    }
                    next => next,
                };
                match next {
                    Some(server) => {
                        hedge = Some(self.now() + self.servers.borrow().patience(server));
                        let began = self.now();
                        pending.push(Box::pin(async move {
                            (server, began, self.ask_server(server, &cut.zone, question, forwarded, errand).await)
                        }));
                    }
                    None if pending.is_empty() => {
                        return last_resort.ok_or(failure);
                    }
                    None => {}
                }
            }
            let hedge = hedge.filter(|_| pending.len() < 2).unwrap_or(Duration::MAX);
            let Some(Some((server, began, result))) = self.courses.before(hedge, first(&mut pending)).await else {
                continue;
            };
            search.came_back(server);
            let result = result.map(|message| (understand(&cut.zone, question, &message, forwarded), message));
            errand.budget.recorder.write(|came_at| Step::Asked {
                at: began.saturating_sub(came_at),
                took: self.now() - began,
                zone: cut.zone.clone(),
                server,
                question: question.clone(),
                came: match &result {
                    Ok((reply, _)) => Came::Message(reply.class.clone()),
                    Err(Trouble::Silent) => Came::Silence,
                    Err(Trouble::Unreachable) => Came::Unreachable,
                    Err(Trouble::Spent | Trouble::Crowded) => Came::Nothing,
                },
            });
            let (reply, message) = match result {
                Ok(found) => found,
                Err(Trouble::Spent) => return Err(Failure::Spent),
                Err(Trouble::Crowded) => return Err(Failure::Crowded),
                Err(Trouble::Unreachable) => {
                    search.give_up(server);
                    continue;
                }
                Err(Trouble::Silent) => continue,
            };
            search.give_up(server);
            stumbles += 1;
            if aim == Aim::Minimised {
                search.stumble();
            }
            match reply.class {
                Class::Lame => {
                    if aim == Aim::Whole {
                        self.servers.borrow_mut().set_lame(server, &cut.zone, self.now());
                    }
                    failure = Failure::Useless;
                }
                Class::Recursed => {
                    let again = understand(&cut.zone, question, &message, true);
                    last_resort.get_or_insert((again, message, server));
                    failure = Failure::Useless;
                }
                Class::Useless if message.rcode == rcode::NOERROR => {
                    // Where nobody says it better, an empty answer without authority is an empty answer.
                    let empty = Reply { class: Class::NoData, ..reply };
                    last_resort.get_or_insert((empty, message, server));
                    failure = Failure::Useless;
                }
                Class::Failed(_) | Class::Useless => failure = Failure::Useless,
                _ => {
                    search.ends(self);
                    return Ok((reply, message, server));
                }
            }
        }
    }

    /// Looks up the addresses of a name for the sake of iteration; nothing is validated.
    pub(super) async fn server_addresses(&self, name: &Name, errand: &Errand) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let sound = |address: IpAddr| self.servers.borrow().is_family_sound(address, self.now());
        let families = [
            (self.config.ipv4 && sound(Ipv4Addr::UNSPECIFIED.into()), rtype::A),
            (self.config.ipv6 && sound(Ipv6Addr::UNSPECIFIED.into()), rtype::AAAA),
        ];
        for (_, kind) in families.into_iter().filter(|(wanted, _)| *wanted) {
            let question = Question { name: name.clone(), rtype: kind };
            if errand.path.contains(&question) || errand.path.len() >= DEEPEST {
                continue;
            }
            let mut errand = errand.clone();
            errand.path.push(question.clone());
            found.extend(self.addresses_of(&question, &errand).await);
        }
        found
    }

    /// An authoritative server at an address.
    pub(super) fn contact(&self, address: IpAddr) -> Contact {
        Contact::Plain(SocketAddr::new(address, self.config.port))
    }

    /// Says whether an address may be asked.
    pub(super) fn may_ask(&self, address: IpAddr) -> bool {
        let family = match address {
            IpAddr::V4(_) => self.config.ipv4,
            IpAddr::V6(_) => self.config.ipv6,
        };
        family && (self.config.special_servers || is_global(address))
    }
}

//! Iteration: from the deepest known zone cut down to the servers that answer, and one exchange with one
//! server.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use super::{
    ExchangeId, Output, Shared,
    budget::Budget,
    course::{Slot, first},
    delegation::Cut,
    name::Name,
    reply::{Class, Reply, understand},
    server::Servers,
    wire::{Asked, Message, Question, rcode, rtype},
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
/// How many servers without glue are looked up for one zone (NXNSAttack): for the client's own question,
/// for a server's address, for that of its servers, and so on.
const MOST_LOOKED_UP: [usize; 4] = [5, 3, 2, 1];
/// How often one address is asked for one question.
const MOST_TRIES: u32 = 3;
/// How many addresses are asked for one question of one zone.
const MOST_ADDRESSES: usize = 12;
/// RFC 9156 §2.3: after so many steps the full name is asked.
const MOST_STEPS: usize = 10;
/// How many servers may stumble over a minimised question until it is given up.
const MOST_STUMBLES: usize = 2;
/// Wrong answers until TCP is used.
const MOST_WRONG: u32 = 3;

/// Why nothing was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No server answered.
    Unreachable,
    /// Servers answered, none usefully.
    Useless,
    /// The budget is spent.
    Spent,
    /// It failed a moment ago.
    Cached,
}

/// What a zone's server said.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    /// Who said it.
    pub(super) server: IpAddr,
    /// What it said.
    pub(super) reply: Reply,
}

/// A message that is under way.
pub(super) struct Exchange {
    id: u16,
    raw_question: Vec<u8>,
    question: Question,
    wrong: Cell<u32>,
    slot: Rc<Slot<Outcome>>,
}

#[derive(Clone, Debug)]
enum Outcome {
    Message(Rc<Message>, usize),
    /// The right answer with the question in another case.
    OtherCase,
    /// So many wrong answers that somebody is guessing.
    Attacked,
    Unreachable,
}

/// Whether a question is the one that matters or only leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// A name with labels left out (RFC 9156): who stumbles over it may still know the whole one, so nothing
    /// is held against servers, and no further ones are looked up while there are some.
    Minimised,
    /// The whole name.
    Whole,
}

enum Trouble {
    Silent,
    Unreachable,
    Spent,
}

impl Shared {
    /// A message came from the server of an exchange.
    pub(super) fn take_message(&self, exchange: ExchangeId, bytes: &[u8]) {
        let exchanges = self.exchanges.borrow();
        let Some(waiting) = exchanges.get(&exchange) else { return };
        let wrong = || {
            waiting.wrong.set(waiting.wrong.get() + 1);
            if waiting.wrong.get() >= MOST_WRONG {
                self.courses.fill(&waiting.slot, Outcome::Attacked);
            }
        };
        // What cannot be read, or does not belong here, is no answer: the right one may still come.
        let Ok(message) = Message::parse(bytes) else { return wrong() };
        if !message.response || message.opcode != 0 || message.id != waiting.id {
            return wrong();
        }
        match &message.question {
            Some(question) if *question == waiting.question => {
                if message.raw_question == waiting.raw_question {
                    self.courses.fill(&waiting.slot, Outcome::Message(Rc::new(message), bytes.len()));
                } else {
                    self.courses.fill(&waiting.slot, Outcome::OtherCase);
                }
            }
            // Servers that understood nothing need not repeat the question.
            None if message.raw_question.is_empty()
                && matches!(message.rcode, rcode::FORMERR | rcode::NOTIMP | rcode::REFUSED | rcode::SERVFAIL) =>
            {
                self.courses.fill(&waiting.slot, Outcome::Message(Rc::new(message), bytes.len()));
            }
            _ => wrong(),
        }
    }

    /// The server of an exchange cannot be reached.
    pub(super) fn fail_exchange(&self, exchange: ExchangeId) {
        if let Some(waiting) = self.exchanges.borrow().get(&exchange) {
            self.courses.fill(&waiting.slot, Outcome::Unreachable);
        }
    }

    /// Asks one server one thing and waits, but not longer than `deadline`.
    async fn exchange(&self, server: SocketAddr, tcp: bool, asked: Asked<'_>, deadline: Duration) -> Option<Outcome> {
        let number = self.next_exchange.get();
        self.next_exchange.set(number + 1);
        let exchange = ExchangeId(number);
        let slot = Slot::new();
        let waiting = Exchange {
            id: asked.id,
            raw_question: asked.name.to_vec(),
            question: Question { name: Name::from_wire(asked.name)?, rtype: asked.rtype },
            wrong: Cell::new(0),
            slot: slot.clone(),
        };
        self.exchanges.borrow_mut().insert(exchange, waiting);
        // Dropped with the course, too: then nobody waits any more.
        let _over = Over { shared: self, exchange };
        let message = asked.encode();
        self.outputs.borrow_mut().push_back(Output::Send { exchange, server, tcp, message });
        self.courses.before(deadline, self.courses.filled(&slot)).await
    }

    /// Asks one server, with what it can do: EDNS, 0x20, cookies; over TCP where UDP does not suffice.
    async fn ask_server(
        &self,
        server: SocketAddr,
        question: &Question,
        forwarded: bool,
        errand: &Errand,
    ) -> Result<Rc<Message>, Trouble> {
        let address = server.ip();
        let mut tcp = false;
        let mut cookie_refused = false;
        for _ in 0..6 {
            let state = self.servers.borrow().get(address);
            let now = self.now();
            tcp = tcp || state.tcp_until > now;
            let edns = state.plain_until <= now;
            let mixed = self.config.case_randomisation && state.lower_until <= now && !tcp;
            let name = if mixed { self.mix_case(&question.name) } else { question.name.as_wire().to_vec() };
            let cookie = if self.config.cookies && edns { Some(self.cookie(&state.cookie)) } else { None };
            let asked = Asked {
                id: u16::from_be_bytes(self.random_bytes()),
                name: &name,
                rtype: question.rtype,
                recursion_desired: forwarded,
                checking_disabled: forwarded,
                edns_size: edns.then_some(self.config.edns_size),
                cookie: cookie.as_deref(),
            };
            if !errand.budget.spend_packet() {
                return Err(Trouble::Spent);
            }
            let wait = if tcp { (state.timeout() * 3).max(Duration::from_millis(1500)) } else { state.timeout() };
            let outcome = self.exchange(server, tcp, asked, now + wait).await;
            let (message, bytes) = match outcome {
                Some(Outcome::Message(message, bytes)) => (message, bytes),
                Some(Outcome::OtherCase) => {
                    // Not guessed but not proven either: what comes over TCP needs no case.
                    self.learn(address, |server, until| server.lower_until = until);
                    tcp = true;
                    continue;
                }
                Some(Outcome::Attacked) => {
                    self.learn(address, |server, until| server.tcp_until = until);
                    tcp = true;
                    continue;
                }
                Some(Outcome::Unreachable) => {
                    self.servers.borrow_mut().timed_out(address, self.now());
                    return Err(Trouble::Unreachable);
                }
                None => {
                    self.servers.borrow_mut().timed_out(address, self.now());
                    return Err(Trouble::Silent);
                }
            };
            errand.budget.spend_bytes(bytes);
            if !tcp {
                self.servers.borrow_mut().answered(address, self.now(), self.now() - now);
            }
            if let (Some(sent), Some(edns)) = (&cookie, &message.edns) {
                let back = edns.options.iter().find(|(code, _)| *code == 10).map(|(_, value)| value);
                if let Some(value) =
                    back.filter(|value| value.len() >= 16 && value.len() <= 40 && value[..8] == sent[..8])
                {
                    let value = value.clone();
                    self.servers.borrow_mut().update(address, now, |server| server.cookie = Some(value));
                }
            }
            match message.rcode {
                rcode::FORMERR | rcode::NOTIMP | rcode::BADVERS if edns => {
                    self.learn(address, |server, until| server.plain_until = until);
                    continue;
                }
                rcode::BADCOOKIE if !cookie_refused => {
                    cookie_refused = true;
                    continue;
                }
                rcode::BADCOOKIE => {
                    tcp = true;
                    continue;
                }
                _ => {}
            }
            if message.truncated && !tcp {
                tcp = true;
                continue;
            }
            return Ok(message);
        }
        Err(Trouble::Silent)
    }

    fn learn(&self, address: IpAddr, change: impl FnOnce(&mut super::server::Server, Duration)) {
        let now = self.now();
        self.servers.borrow_mut().update(address, now, |server| change(server, now + Servers::forget_after()));
    }

    fn mix_case(&self, name: &Name) -> Vec<u8> {
        let mut wire = name.as_wire().to_vec();
        let dice: [u8; 32] = self.random_bytes();
        let mut at = 0;
        while let Some(length) = wire.get(at).map(|length| usize::from(*length)).filter(|length| *length > 0) {
            for (place, byte) in wire.iter_mut().enumerate().take(at + 1 + length).skip(at + 1) {
                if dice[place / 8 % 32] >> (place % 8) & 1 == 1 {
                    byte.make_ascii_uppercase();
                }
            }
            at += 1 + length;
        }
        wire
    }

    fn cookie(&self, known: &Option<Vec<u8>>) -> Vec<u8> {
        match known {
            Some(cookie) => cookie.clone(),
            None => self.random_bytes::<8>().to_vec(),
        }
    }

    /// Finds the answer of the zone that has it; aliases are not followed.
    ///
    /// `avoid` names servers whose answer was bogus.
    pub(super) async fn fetch(
        &self,
        question: &Question,
        errand: &Errand,
        avoid: &[IpAddr],
    ) -> Result<Fetched, Failure> {
        let mut restarts = 0;
        loop {
            // DS stands at the parent's side of a cut.
            let start = match (question.rtype, question.name.parent()) {
                (rtype::DS, Some(parent)) => parent,
                _ => question.name.clone(),
            };
            let cut = self.start(&start, errand).await?;
            let was_cached = !cut.zone.is_root();
            match self.descend(cut.clone(), question, errand, avoid).await {
                // The servers may have changed since the parent named them.
                Err(Failure::Unreachable | Failure::Useless)
                    if was_cached && restarts == 0 && cut.forward.is_none() && avoid.is_empty() =>
                {
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
        avoid: &[IpAddr],
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
                Err(Failure::Spent) => return Err(Failure::Spent),
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

    /// Returns the cut to begin at.
    async fn start(&self, name: &Name, errand: &Errand) -> Result<Rc<Cut>, Failure> {
        let forward = self
            .config
            .forward
            .iter()
            .filter(|(zone, _)| name.is_under(zone))
            .max_by_key(|(zone, _)| zone.label_count());
        if let Some((zone, servers)) = forward {
            return Ok(Rc::new(Cut {
                zone: zone.clone(),
                servers: BTreeMap::new(),
                hearsay: Vec::new(),
                forward: Some(servers.clone()),
                expires: Duration::MAX,
            }));
        }
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
        avoid: &[IpAddr],
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
        avoid: &[IpAddr],
    ) -> Result<(Reply, Rc<Message>, IpAddr), Failure> {
        let mut search = Search::new(self, cut, aim, errand.path.len() - 1, avoid);
        let mut failure = Failure::Unreachable;
        let mut last_resort: Option<(Reply, Rc<Message>, IpAddr)> = None;
        let mut pending: Vec<Pin<Box<dyn Future<Output = (SocketAddr, Result<Rc<Message>, Trouble>)> + '_>>> =
            Vec::new();
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
                        hedge = Some(self.now() + self.servers.borrow().get(server.ip()).hedge_after());
                        pending.push(Box::pin(async move {
                            (server, self.ask_server(server, question, forwarded, errand).await)
                        }));
                    }
                    None if pending.is_empty() => {
                        return last_resort.ok_or(failure);
                    }
                    None => {}
                }
            }
            let hedge = hedge.filter(|_| pending.len() < 2).unwrap_or(Duration::MAX);
            let Some(Some((server, result))) = self.courses.before(hedge, first(&mut pending)).await else { continue };
            let message = match result {
                Ok(message) => message,
                Err(Trouble::Spent) => return Err(Failure::Spent),
                Err(Trouble::Silent) => continue,
                Err(Trouble::Unreachable) => {
                    search.give_up(server);
                    continue;
                }
            };
            let reply = understand(&cut.zone, question, &message, forwarded);
            search.give_up(server);
            stumbles += 1;
            match reply.class {
                Class::Lame => {
                    if aim == Aim::Whole {
                        self.servers.borrow_mut().set_lame(server.ip(), &cut.zone, self.now());
                    }
                    failure = Failure::Useless;
                }
                Class::Recursed => {
                    let again = understand(&cut.zone, question, &message, true);
                    last_resort.get_or_insert((again, message, server.ip()));
                    failure = Failure::Useless;
                }
                Class::Useless if message.rcode == rcode::NOERROR => {
                    // Where nobody says it better, an empty answer without authority is an empty answer.
                    let empty = Reply { class: Class::NoData, ..reply };
                    last_resort.get_or_insert((empty, message, server.ip()));
                    failure = Failure::Useless;
                }
                Class::Failed(_) | Class::Useless => failure = Failure::Useless,
                _ => return Ok((reply, message, server.ip())),
            }
        }
    }

    /// Looks up the addresses of a name for the sake of iteration; nothing is validated.
    async fn server_addresses(&self, name: &Name, errand: &Errand) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let families = [(self.config.ipv4, rtype::A), (self.config.ipv6, rtype::AAAA)];
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

    /// Says whether an address may be asked.
    fn may_ask(&self, address: IpAddr) -> bool {
        let family = match address {
            IpAddr::V4(_) => self.config.ipv4,
            IpAddr::V6(_) => self.config.ipv6,
        };
        family && (self.config.special_servers || is_global(address))
    }
}

struct Over<'a> {
    shared: &'a Shared,
    exchange: ExchangeId,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.shared.exchanges.borrow_mut().remove(&self.exchange);
        self.shared.outputs.borrow_mut().push_back(Output::Cancel(self.exchange));
    }
}

/// The servers of one zone for one question: who was asked how often, whose address is still missing.
struct Search {
    addresses: Vec<IpAddr>,
    fixed: Vec<SocketAddr>,
    /// Servers without an address.
    nameless: Vec<Name>,
    /// Servers whose addresses are only glue, which may be wrong.
    unproven: Vec<Name>,
    hearsay: Vec<IpAddr>,
    looked_up: usize,
    most_looked_up: usize,
    tries: HashMap<IpAddr, u32>,
    done: HashSet<IpAddr>,
}

impl Search {
    fn new(shared: &Shared, cut: &Cut, aim: Aim, depth: usize, avoid: &[IpAddr]) -> Self {
        let mut search = Self {
            addresses: Vec::new(),
            fixed: cut.forward.clone().unwrap_or_default(),
            nameless: Vec::new(),
            unproven: Vec::new(),
            hearsay: Vec::new(),
            looked_up: 0,
            most_looked_up: MOST_LOOKED_UP.get(depth).copied().unwrap_or(1),
            tries: HashMap::new(),
            done: avoid.iter().copied().collect(),
        };
        for (name, glue) in &cut.servers {
            let known = shared.kept_addresses(name);
            let above = if glue.is_empty() { shared.cuts.borrow().glue(name, shared.now()) } else { Vec::new() };
            let before = search.addresses.len();
            search.add(shared, glue.iter().chain(&known).chain(&above).copied());
            if search.addresses.len() == before {
                search.nameless.push(name.clone());
            } else if known.is_empty() && depth == 0 && aim == Aim::Whole && avoid.is_empty() && !cut.zone.is_root() {
                // Only for the client's own question: what is looked up for a look-up multiplies.
                search.unproven.push(name.clone());
            }
        }
        if aim == Aim::Minimised && !search.addresses.is_empty() {
            search.nameless.clear();
        }
        search.hearsay.clone_from(&cut.hearsay);
        let lame: Vec<IpAddr> = {
            let servers = shared.servers.borrow();
            search
                .addresses
                .iter()
                .copied()
                .filter(|address| servers.is_lame(*address, &cut.zone, shared.now()))
                .collect()
        };
        search.done.extend(lame);
        search
    }

    fn add(&mut self, shared: &Shared, found: impl Iterator<Item = IpAddr>) {
        for address in found {
            if shared.may_ask(address)
                && !self.addresses.contains(&address)
                && self.addresses.len() < MOST_ADDRESSES * 2
            {
                self.addresses.push(address);
            }
        }
    }

    /// Returns whom to ask next: those who were asked least, of these the one that is likely the fastest.
    fn next(&mut self, shared: &Shared) -> Option<SocketAddr> {
        if !self.fixed.is_empty() {
            let next = self
                .fixed
                .iter()
                .filter(|server| !self.done.contains(&server.ip()))
                .min_by_key(|server| self.tries.get(&server.ip()).copied().unwrap_or(0))
                .copied()?;
            let tries = self.tries.entry(next.ip()).or_default();
            *tries += 1;
            return (*tries <= MOST_TRIES).then_some(next);
        }
        if self.tries.len() >= MOST_ADDRESSES {
            return None;
        }
        let left = |tries: u32, search: &Self| -> Vec<IpAddr> {
            let open = search.addresses.iter().filter(|address| !search.done.contains(address));
            open.filter(|address| search.tries.get(address).copied().unwrap_or(0) == tries).copied().collect()
        };
        let mut round = left(0, self);
        if round.is_empty() {
            // Asking again comes after looking for others.
            let to_look_up = !self.nameless.is_empty() || !self.unproven.is_empty();
            if to_look_up && self.looked_up < self.most_looked_up {
                return None;
            }
            round = (1..MOST_TRIES).map(|tries| left(tries, self)).find(|left| !left.is_empty())?;
        }
        shared.servers.borrow().rank(&mut round, shared.now(), shared.dice());
        let next = *round.first()?;
        *self.tries.entry(next).or_default() += 1;
        Some(SocketAddr::new(next, shared.config.port))
    }

    /// Looks up one more server's address; `false` if there is none left.
    async fn more(&mut self, shared: &Shared, cut: &Cut, errand: &Errand) -> bool {
        while self.looked_up < self.most_looked_up {
            let from = if self.nameless.is_empty() { &mut self.unproven } else { &mut self.nameless };
            if from.is_empty() {
                break;
            }
            let place = shared.dice() as usize % from.len();
            let name = from.swap_remove(place);
            // Without glue, a server inside the zone that it serves is found only by asking another.
            let inside = name.is_under(&cut.zone) && !cut.zone.is_root();
            if inside && self.addresses.is_empty() {
                continue;
            }
            self.looked_up += 1;
            let mut found = Box::pin(shared.server_addresses(&name, errand)).await;
            if found.is_empty() {
                // The way to the server may have brought glue for it.
                found = shared.cuts.borrow().glue(&name, shared.now());
            }
            let before = self.addresses.len();
            self.add(shared, found.into_iter());
            if self.addresses.len() > before {
                return true;
            }
        }
        self.nameless.clear();
        self.unproven.clear();
        let before = self.addresses.len();
        let hearsay = std::mem::take(&mut self.hearsay);
        self.add(shared, hearsay.into_iter());
        let open = |address: &IpAddr| {
            !self.done.contains(address) && self.tries.get(address).copied().unwrap_or(0) < MOST_TRIES
        };
        // With nothing left to look up, those who were silent are asked again.
        self.addresses.len() > before || self.addresses.iter().any(open) && self.tries.len() < MOST_ADDRESSES
    }

    fn give_up(&mut self, server: SocketAddr) {
        self.done.insert(server.ip());
    }
}

/// Says whether an address can be a public server's: the blocks of the IANA special-purpose registries
/// that are not globally reachable are left out (RFC 6890).
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || a == 100 && (64..128).contains(&b)
        || address.is_loopback()
        || address.is_link_local()
        || a == 192 && b == 0 && (c == 0 || c == 2)
        || a == 198 && (b == 18 || b == 19)
        || a == 198 && b == 51 && c == 100
        || a == 203 && b == 0 && c == 113
        || a >= 224)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments[0] {
        // NAT64 (RFC 6052) leads to IPv4 addresses.
        0x0064 => segments[1] == 0xff9b && segments[2..6] == [0; 4],
        0x2000..=0x3fff => {
            !(segments[0] == 0x2001 && segments[1] == 0xdb8
                || segments[0] == 0x2002
                || segments[0] == 0x3fff && segments[1] < 0x1000)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_servers_can_have_are_global() {
        for text in ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "192.0.9.1"] {
            assert!(is_global(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "100.64.0.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
            "224.0.0.1",
            "0.0.0.0",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_global(text.parse().unwrap()), "{text}");
        }
    }
}

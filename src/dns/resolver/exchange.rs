//! One exchange with one server: a question under way, what may come back, and what the server is seen to
//! be unable to do.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::Hash,
    rc::Rc,
    time::Duration,
};

use super::{
    ExchangeId, Output, Shared,
    contact::Contact,
    course::Slot,
    iterate::Errand,
    name::Name,
    server::Servers,
    wire::{Asked, Message, Question, rcode},
};

/// Wrong answers until TCP is used.
const MOST_WRONG: u32 = 3;
/// How many exchanges are under way at most; the oldest makes room.
const MOST_IN_ALL: usize = 2048;
/// The same for one zone.
const MOST_OF_ZONE: usize = 512;
/// The same for one server. Whoever is forwarded to waits for a place instead: there is nobody else to ask.
const MOST_AT_SERVER: usize = 128;
/// RFC 8467 §4.1: encrypted questions are as long as this, or twice as long.
const BLOCK: u16 = 128;

/// A message that is under way.
pub(super) struct Exchange {
    id: u16,
    raw_question: Vec<u8>,
    question: Question,
    server: Contact,
    zone: Name,
    /// 0x20: the case of the question must come back.
    mixed: bool,
    /// Our half of the cookie that was sent.
    cookie: Option<[u8; 8]>,
    wrong: Cell<u32>,
    slot: Rc<Slot<Outcome>>,
    place: Place,
    deadline: Duration,
    /// How many wait for it.
    waiting: Cell<usize>,
}

/// What is asked of whom, over TCP or not: the same is not asked twice at a time. Who guesses would have to be
/// right with one of several (RFC 5452 §5), and the server gains nothing by it.
type Place = (Contact, Question, bool);

/// All that are under way.
#[derive(Default)]
pub(super) struct Exchanges {
    under_way: BTreeMap<ExchangeId, Exchange>,
    places: HashMap<Place, ExchangeId>,
    at_server: HashMap<Contact, BTreeSet<ExchangeId>>,
    of_zone: HashMap<Name, BTreeSet<ExchangeId>>,
    /// Who waits for a place at a server that recurses for us; each waits no longer than its question.
    queues: HashMap<Contact, VecDeque<Rc<Slot<()>>>>,
    last: u64,
}

impl Exchanges {
    /// Adds one; returns it with the one that had to make room.
    fn insert(&mut self, exchange: Exchange) -> (ExchangeId, Option<Exchange>) {
        let crowded = |ids: &BTreeSet<ExchangeId>, most| ids.first().copied().filter(|_| ids.len() >= most);
        let oldest = (self.at_server.get(&exchange.server).and_then(|ids| crowded(ids, MOST_AT_SERVER)))
            .or_else(|| self.of_zone.get(&exchange.zone).and_then(|ids| crowded(ids, MOST_OF_ZONE)))
            .or_else(|| self.under_way.keys().next().copied().filter(|_| self.under_way.len() >= MOST_IN_ALL));
        let dropped = oldest.and_then(|oldest| self.remove(oldest));
        self.last += 1;
        let id = ExchangeId(self.last);
        self.at_server.entry(exchange.server).or_default().insert(id);
        self.of_zone.entry(exchange.zone.clone()).or_default().insert(id);
        self.places.insert(exchange.place.clone(), id);
        self.under_way.insert(id, exchange);
        (id, dropped)
    }

    fn remove(&mut self, id: ExchangeId) -> Option<Exchange> {
        let exchange = self.under_way.remove(&id)?;
        strike(&mut self.at_server, &exchange.server, id);
        strike(&mut self.of_zone, &exchange.zone, id);
        if self.places.get(&exchange.place) == Some(&id) {
            self.places.remove(&exchange.place);
        }
        Some(exchange)
    }

    /// Says whether one more may be under way to a server.
    fn has_place(&self, server: Contact) -> bool {
        self.at_server.get(&server).is_none_or(|ids| ids.len() < MOST_AT_SERVER)
    }

    /// Takes whoever waited longest for a place at a server out, if there is one.
    fn next_in_queue(&mut self, server: Contact) -> Option<Rc<Slot<()>>> {
        let queue = self.queues.get_mut(&server)?;
        let mut next = None;
        while let Some(slot) = queue.pop_front() {
            // Who has gone away does not hold its end any more.
            if Rc::strong_count(&slot) > 1 {
                next = Some(slot);
                break;
            }
        }
        if queue.is_empty() {
            self.queues.remove(&server);
        }
        next
    }

    /// Joins those who wait for the same.
    fn join(&self, place: &Place) -> Option<(ExchangeId, Rc<Slot<Outcome>>, Duration)> {
        let id = *self.places.get(place)?;
        let exchange = self.under_way.get(&id)?;
        exchange.waiting.set(exchange.waiting.get() + 1);
        Some((id, exchange.slot.clone(), exchange.deadline))
    }

    /// One waits no more; says whether nobody does.
    fn leave(&mut self, id: ExchangeId) -> bool {
        let left = self.under_way.get(&id).map_or(0, |exchange| exchange.waiting.get().saturating_sub(1));
        match self.under_way.get(&id) {
            Some(exchange) if left > 0 => exchange.waiting.set(left),
            _ => {
                self.remove(id);
            }
        }
        left == 0
    }

    /// Counts those under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

fn strike<K: Eq + Hash>(index: &mut HashMap<K, BTreeSet<ExchangeId>>, key: &K, id: ExchangeId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[derive(Clone, Debug)]
enum Outcome {
    Message(Rc<Message>, usize),
    /// The right answer with the question in another case.
    OtherCase,
    /// So many wrong answers that somebody is guessing.
    Attacked,
    Unreachable,
    /// Another exchange needed the place.
    Dropped,
}

/// Why an exchange brought nothing.
pub(super) enum Trouble {
    /// No answer came in time.
    Silent,
    /// There is no way to the server.
    Unreachable,
    /// The question's budget is spent.
    Spent,
    /// Others needed the place.
    Crowded,
}

impl Shared {
    /// A message came from the server of an exchange.
    pub(super) fn take_message(&self, exchange: ExchangeId, bytes: &[u8]) {
        let exchanges = self.exchanges.borrow();
        let Some(waiting) = exchanges.under_way.get(&exchange) else { return };
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
        // RFC 7873 §5.3: who sends another client cookie was not asked.
        let cookie = message.edns.as_ref().and_then(|edns| edns.options.iter().find(|(code, _)| *code == 10));
        if let (Some((_, back)), Some(ours)) = (cookie, &waiting.cookie)
            && !back.starts_with(ours)
        {
            return wrong();
        }
        match &message.question {
            Some(question) if *question == waiting.question => {
                if !waiting.mixed || message.raw_question == waiting.raw_question {
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
        if let Some(waiting) = self.exchanges.borrow().under_way.get(&exchange) {
            self.courses.fill(&waiting.slot, Outcome::Unreachable);
        }
    }

    pub(super) fn drop_exchange(&self, exchange: ExchangeId) {
        if let Some(waiting) = self.exchanges.borrow().under_way.get(&exchange) {
            self.courses.fill(&waiting.slot, Outcome::Dropped);
        }
    }

    /// Waits until one more may be under way to a server.
    async fn place_at(&self, server: Contact) {
        loop {
            let slot = {
                let mut exchanges = self.exchanges.borrow_mut();
                if exchanges.has_place(server) {
                    return;
                }
                let slot = Slot::new();
                let queue = exchanges.queues.entry(server).or_default();
                if queue.len() >= MOST_IN_ALL {
                    // Those who have gone away.
                    queue.retain(|slot| Rc::strong_count(slot) > 1);
                }
                queue.push_back(slot.clone());
                slot
            };
            self.courses.filled(&slot).await;
        }
    }

    /// Calls whoever waits for a place at a server, if there is one.
    fn call_next(&self, server: Contact) {
        let mut exchanges = self.exchanges.borrow_mut();
        let next = if exchanges.has_place(server) { exchanges.next_in_queue(server) } else { None };
        drop(exchanges);
        if let Some(next) = next {
            self.courses.fill(&next, ());
        }
    }

    /// Waits for what somebody else asks the same server, if somebody does.
    async fn joined(&self, place: &Place) -> Option<Option<Outcome>> {
        let (exchange, slot, deadline) = self.exchanges.borrow().join(place)?;
        let _over = Over { shared: self, exchange };
        Some(self.courses.before(deadline, self.courses.filled(&slot)).await)
    }

    /// Asks one server one thing and waits, but not longer than `deadline`.
    async fn exchange(
        &self,
        place: Place,
        zone: &Name,
        mixed: bool,
        asked: Asked<'_>,
        deadline: Duration,
    ) -> Option<Outcome> {
        let slot = Slot::new();
        let (server, question, tcp) = place.clone();
        let waiting = Exchange {
            id: asked.id,
            raw_question: asked.name.to_vec(),
            question,
            server,
            zone: zone.clone(),
            mixed,
            cookie: asked.cookie.and_then(|cookie| cookie.first_chunk().copied()),
            wrong: Cell::new(0),
            slot: slot.clone(),
            place,
            deadline,
            waiting: Cell::new(1),
        };
        let (exchange, dropped) = self.exchanges.borrow_mut().insert(waiting);
        if let Some(dropped) = dropped {
            self.courses.fill(&dropped.slot, Outcome::Dropped);
            self.call_next(dropped.server);
        }
        // Dropped with the course, too: then nobody waits any more.
        let _over = Over { shared: self, exchange };
        let message = asked.encode();
        let send = match server {
            Contact::Plain(server) => Output::Send { exchange, server, tcp, message },
            Contact::Encrypted(server) => Output::SendEncrypted { exchange, server, message },
        };
        self.outputs.borrow_mut().push_back(send);
        self.courses.before(deadline, self.courses.filled(&slot)).await
    }

    /// Asks one server, with what it can do: EDNS, 0x20, cookies; over TCP where UDP does not suffice. An
    /// encrypted connection needs neither 0x20 nor cookies.
    pub(super) async fn ask_server(
        &self,
        server: Contact,
        zone: &Name,
        question: &Question,
        forwarded: bool,
        errand: &Errand,
    ) -> Result<Rc<Message>, Trouble> {
        let encrypted = matches!(server, Contact::Encrypted(_));
        let mut tcp = encrypted;
        let mut cookie_refused = false;
        for _ in 0..6 {
            if forwarded {
                self.place_at(server).await;
            }
            let state = self.servers.borrow().get(server);
            let now = self.now();
            tcp = tcp || state.tcp_until > now;
            let edns = state.plain_until <= now;
            let mixed = self.config.case_randomisation && state.lower_until <= now && !tcp;
            let name = if mixed { self.mix_case(&question.name) } else { question.name.as_wire().to_vec() };
            let cookie =
                if self.config.cookies && edns && !encrypted { Some(self.cookie(&state.cookie)) } else { None };
            let asked = Asked {
                id: u16::from_be_bytes(self.random_bytes()),
                name: &name,
                rtype: question.rtype,
                recursion_desired: forwarded,
                checking_disabled: forwarded,
                edns_size: edns.then_some(self.config.edns_size),
                cookie: cookie.as_deref(),
                block: encrypted.then_some(BLOCK),
            };
            let place = (server, question.clone(), tcp);
            let joined = self.joined(&place).await;
            let sent = joined.is_none();
            if sent && !errand.budget.spend_packet() {
                return Err(Trouble::Spent);
            }
            let wait = if tcp { (state.timeout() * 3).max(Duration::from_millis(1500)) } else { state.timeout() };
            let outcome = match joined {
                Some(outcome) => outcome,
                None => self.exchange(place, zone, mixed, asked, now + wait).await,
            };
            let (message, bytes) = match outcome {
                Some(Outcome::Message(message, bytes)) => (message, bytes),
                Some(Outcome::OtherCase) => {
                    // Not guessed but not proven either: what comes over TCP needs no case.
                    self.learn(server, |server, until| server.lower_until = until);
                    tcp = true;
                    continue;
                }
                Some(Outcome::Attacked) => {
                    self.learn(server, |server, until| server.tcp_until = until);
                    tcp = true;
                    continue;
                }
                Some(Outcome::Dropped) => return Err(Trouble::Crowded),
                // It counts once, for whoever sent it.
                Some(Outcome::Unreachable) => {
                    if sent {
                        self.note_silence(server);
                        self.servers.borrow_mut().timed_out(server, self.now());
                    }
                    return Err(Trouble::Unreachable);
                }
                None => {
                    if sent {
                        self.note_silence(server);
                        self.servers.borrow_mut().timed_out(server, self.now());
                    }
                    return Err(Trouble::Silent);
                }
            };
            self.note_answer();
            errand.budget.spend_bytes(bytes);
            if sent && (!tcp || encrypted) {
                self.servers.borrow_mut().answered(server, self.now(), self.now() - now);
            }
            if let (Some(cookie), Some(edns)) = (cookie.filter(|_| sent), &message.edns) {
                let back = edns.options.iter().find(|(code, _)| *code == 10).map(|(_, value)| value);
                if let Some(value) =
                    back.filter(|value| value.len() >= 16 && value.len() <= 40 && value[..8] == cookie[..8])
                {
                    let value = value.clone();
                    self.servers.borrow_mut().update(server, now, |server| server.cookie = Some(value));
                }
            }
            match message.rcode {
                rcode::FORMERR | rcode::NOTIMP | rcode::BADVERS if edns => {
                    self.learn(server, |server, until| server.plain_until = until);
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

    fn learn(&self, contact: Contact, change: impl FnOnce(&mut super::server::Server, Duration)) {
        let now = self.now();
        self.servers.borrow_mut().update(contact, now, |server| change(server, now + Servers::forget_after()));
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
}

struct Over<'a> {
    shared: &'a Shared,
    exchange: ExchangeId,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut exchanges = self.shared.exchanges.borrow_mut();
        let server = exchanges.under_way.get(&self.exchange).map(|exchange| exchange.server);
        if exchanges.leave(self.exchange) {
            self.shared.outputs.borrow_mut().push_back(Output::Cancel(self.exchange));
        }
        drop(exchanges);
        if let Some(server) = server {
            self.shared.call_next(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::resolver::{Asked, Config, Fallback, Forward, Now, Resolver};

    #[test]
    fn more_questions_than_a_forwarder_is_asked_at_once_wait_for_their_turn() {
        let server = Contact::Plain(([192, 0, 2, 53], 53).into());
        let forward = Forward { zone: Name::root(), servers: vec![server], fallback: Fallback::Nothing };
        let config = Config { forward: vec![forward], ..Config::default() };
        let mut resolver = Resolver::new(config, |bytes| bytes.fill(0));
        let count = 4 * MOST_AT_SERVER;
        for number in 0..count {
            let question = Question { name: Name::parse(&format!("n{number}.example")).unwrap(), rtype: 1 };
            resolver.ask(Asked { question, checking_disabled: true }, Now::default());
        }

        let (mut codes, mut under_way, mut most) = (Vec::new(), VecDeque::new(), 0);
        loop {
            while let Some(output) = resolver.next_output() {
                match output {
                    Output::Send { exchange, message, .. } => under_way.push_back((exchange, message)),
                    Output::Answer(_, answer) => codes.push(answer.rcode),
                    _ => {}
                }
            }
            most = most.max(under_way.len());
            let Some((exchange, mut message)) = under_way.pop_front() else { break };
            // QR and RA, and that there is no such name.
            (message[2], message[3]) = (message[2] | 0x80, 0x83);
            resolver.handle_message(exchange, &message, Now::default());
        }

        assert_eq!(codes, vec![rcode::NXDOMAIN; count]);
        assert!(most <= MOST_AT_SERVER, "{most} at once");
        assert!(resolver.shared.exchanges.borrow().queues.is_empty());
    }
}

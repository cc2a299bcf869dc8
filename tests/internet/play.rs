//! The wires between the resolver and the made-up servers, with a clock that is set.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hearthgate::dns::resolver::{
    Answer, Asked, Config, ExchangeId, Now, Output, Resolver, Support, Ticket,
    anchor::Anchors,
    budget::Limits,
    name::Name,
    signature::Ds,
    wire::{IN, Message, Question, Record, rcode, rtype},
};

use super::{
    dice::Dice,
    encode::encode,
    model::Check,
    sign::EPOCH,
    world::{Manner, POISON, World, name},
    zone::Said,
};

/// Says something of its own to a question, or leaves it to the world.
pub type Attacker = Box<dyn FnMut(&Question, IpAddr) -> Option<Said>>;

/// Says what arrives before the answer to a datagram, in bytes.
pub type Forger = Box<dyn FnMut(&[u8]) -> Vec<Vec<u8>>>;

/// A message, or that the server cannot be reached.
type Arrival = (ExchangeId, Option<Vec<u8>>);

pub struct Play {
    pub world: World,
    pub resolver: Resolver,
    pub now: Now,
    dice: Dice,
    arrivals: BTreeMap<(Duration, u64), Arrival>,
    cancelled: HashSet<ExchangeId>,
    serial: u64,
    pub packets: u64,
    /// All servers are silent.
    pub outage: bool,
    /// Of a hundred answers, so many are changed at random.
    pub mutated: usize,
    /// Answers in the place of the world's.
    pub attacker: Option<Attacker>,
    /// What arrives just before each answer over UDP.
    pub forger: Option<Forger>,
    /// Servers have cookies of their own, and give ours back.
    pub cookies: bool,
    /// The cookies that servers got from us.
    pub cookies_sent: Vec<(IpAddr, Vec<u8>)>,
    /// What is under way.
    open: HashMap<ExchangeId, (IpAddr, Question)>,
    /// How often one question was under way to one server at the same time.
    pub most_twins: usize,
    /// How many of the packets were over TCP.
    pub connected: u64,
    /// How many packets each server got.
    pub counts: HashMap<IpAddr, u32>,
    pub answers: Vec<(Ticket, Arc<Answer>)>,
    /// What was asked of whom.
    pub log: Vec<String>,
    /// A hash of all that the resolver sent and answered, with the time.
    pub transcript: u64,
    /// The resolver believed something that it must not.
    pub fooled: bool,
}

pub fn config(world: &World) -> Config {
    let mut anchors = Anchors::default();
    for (zone, ds) in &world.anchors {
        anchors.add_ds(zone.clone(), Ds::parse(ds).expect("we made it"));
    }
    Config {
        hints: world.hints.clone(),
        anchors,
        negative_anchors: world.negative_anchors.clone(),
        support: Support { sha1: false, short_keys: false },
        special_servers: true,
        prefetch: false,
        ipv6: world.six,
        ..Config::default()
    }
}

impl Play {
    pub fn new(world: World, config: Config) -> Self {
        let mut random = Dice(world.seed ^ 0x5eed);
        let resolver = Resolver::new(config, move |bytes| bytes.fill_with(|| random.next().to_be_bytes()[0]));
        Self {
            dice: Dice(world.seed ^ 0xd1ce),
            world,
            resolver,
            now: Now { since_start: Duration::from_secs(1000), wall: u64::from(EPOCH) },
            arrivals: BTreeMap::new(),
            cancelled: HashSet::new(),
            serial: 0,
            packets: 0,
            outage: false,
            mutated: 0,
            attacker: None,
            forger: None,
            cookies: false,
            cookies_sent: Vec::new(),
            open: HashMap::new(),
            most_twins: 0,
            connected: 0,
            counts: HashMap::new(),
            answers: Vec::new(),
            log: Vec::new(),
            transcript: 0xcbf2_9ce4_8422_2325,
            fooled: false,
        }
    }

    fn advance(&mut self, to: Duration) {
        let to = to.max(self.now.since_start);
        self.now.wall += to.as_secs() - self.now.since_start.as_secs();
        self.now.since_start = to;
    }

    /// Lets time pass while the resolver works.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now.since_start + time;
        while self.step(until) {}
        self.advance(until);
        self.resolver.handle_timeout(self.now);
        self.perform();
    }

    pub fn ask(&mut self, name: &Name, kind: u16) -> Ticket {
        self.ask_for(name, kind, Check::Here)
    }

    /// Asks and waits.
    pub fn answer(&mut self, name: &Name, kind: u16) -> Arc<Answer> {
        let ticket = self.ask(name, kind);
        self.wait(ticket)
    }

    /// Asks with other limits than usual, and waits.
    pub fn answer_within(&mut self, question: &Question, limits: Limits) -> Arc<Answer> {
        let asked = Asked { question: question.clone(), checking_disabled: false };
        let ticket = self.resolver.ask_within(asked, limits, self.now);
        self.perform();
        self.wait(ticket)
    }

    pub fn ask_for(&mut self, name: &Name, kind: u16, check: Check) -> Ticket {
        let question = Question { name: name.clone(), rtype: kind };
        let asked = Asked { question, checking_disabled: check == Check::There };
        let ticket = self.resolver.ask(asked, self.now);
        self.perform();
        ticket
    }

    pub fn wait(&mut self, ticket: Ticket) -> Arc<Answer> {
        let until = self.now.since_start + Duration::from_secs(60);
        loop {
            if let Some(place) = self.answers.iter().position(|(of, _)| *of == ticket) {
                return self.answers.remove(place).1;
            }
            assert!(self.step(until), "world {}: no answer within a minute", self.world.seed);
        }
    }

    /// Does what comes next before a moment.
    fn step(&mut self, until: Duration) -> bool {
        let arrival = self.arrivals.keys().next().copied();
        let timeout = self.resolver.next_timeout();
        match (arrival, timeout) {
            (Some(key @ (at, _)), _) if at <= until && timeout.is_none_or(|timeout| at <= timeout) => {
                let (exchange, bytes) = self.arrivals.remove(&key).expect("just seen");
                self.advance(at);
                match bytes {
                    _ if self.cancelled.contains(&exchange) => {}
                    Some(bytes) => self.resolver.handle_message(exchange, &bytes, self.now),
                    None => self.resolver.handle_failure(exchange, self.now),
                }
            }
            (_, Some(timeout)) if timeout <= until => {
                self.advance(timeout);
                self.resolver.handle_timeout(self.now);
            }
            _ => return false,
        }
        self.perform();
        true
    }

    fn perform(&mut self) {
        while let Some(output) = self.resolver.next_output() {
            match output {
                Output::Answer(ticket, answer) => {
                    self.note(format!("{ticket:?} {} {:?} {:?}", answer.rcode, answer.security, answer.why).as_bytes());
                    for set in answer.answer.iter().map(|placed| &placed.set) {
                        self.note(set.name.as_wire());
                        set.data.iter().for_each(|data| self.note(data));
                    }
                    self.answers.push((ticket, answer));
                }
                Output::Explained(..) => {}
                Output::Cancel(exchange) => {
                    self.cancelled.insert(exchange);
                    self.open.remove(&exchange);
                }
                Output::Send { exchange, server, tcp, message } => self.send(exchange, server, tcp, &message),
                Output::SendEncrypted { exchange, server, message } => {
                    let at = SocketAddr::new(encrypted(server), 853);
                    self.send(exchange, at, true, &message);
                }
            }
        }
    }

    /// FNV-1a.
    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.transcript = (self.transcript ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn send(&mut self, exchange: ExchangeId, server: SocketAddr, tcp: bool, message: &[u8]) {
        self.packets += 1;
        *self.counts.entry(server.ip()).or_default() += 1;
        self.note(format!("{:?} {server} {tcp}", self.now.since_start).as_bytes());
        self.note(message);
        self.fooled |= server.ip() == IpAddr::from(POISON);
        let asked = Message::parse(message).expect("we write messages");
        let question = asked.question.clone().expect("we ask");
        self.connected += u64::from(tcp);
        let what = (server.ip(), question.clone());
        let twins = 1 + self.open.values().filter(|other| **other == what).count();
        self.most_twins = self.most_twins.max(twins);
        self.open.insert(exchange, what);
        if self.log.len() < 1000 {
            let manner = self.world.servers.get(&server.ip()).map(|server| server.manner);
            self.log.push(format!(
                "{:.3} {} {} of {} {manner:?}{}",
                self.now.since_start.as_secs_f64(),
                question.name,
                question.rtype,
                server.ip(),
                if tcp { " over TCP" } else { "" },
            ));
        }
        let delay = self.world.servers.get(&server.ip()).map_or(10, |server| server.delay);
        let at = self.now.since_start + Duration::from_millis(delay);
        if self.world.forged && !tcp {
            self.forge(exchange, &asked, at - Duration::from_millis(1));
        }
        if let Some(forger) = self.forger.as_mut().filter(|_| !tcp) {
            for bytes in forger(message) {
                self.arrive(at - Duration::from_millis(1), exchange, Some(bytes));
            }
        }
        if self.outage || !tcp && self.dice.below(1000) < self.world.loss {
            return;
        }
        if let Some(said) = self.attacker.as_mut().and_then(|attacker| attacker(&question, server.ip())) {
            return self.arrive(at, exchange, Some(encode(&asked, &said, Manner::Good, tcp)));
        }
        let Some(known) = self.world.servers.get(&server.ip()) else { return };
        let (manner, poisons, zone) = (known.manner, known.poisons, known.zones.first().cloned());
        if manner == Manner::Unreachable {
            return self.arrive(at, exchange, None);
        }
        let Some(mut said) = self.said(server.ip(), &asked) else { return };
        if let (true, Some(zone)) = (poisons, zone) {
            self.poison(&mut said, &zone);
        }
        let slower = if manner == Manner::Slow { Duration::from_millis(700) } else { Duration::ZERO };
        let mut bytes = encode(&asked, &said, manner, tcp);
        if manner == Manner::Garbage {
            bytes.truncate(self.dice.below(12 + asked.raw_question.len()));
            let place = self.dice.below(bytes.len());
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 0x5a;
            }
        }
        if let Some(sent) = cookie_of(&asked).filter(|_| self.cookies) {
            bytes = with_cookie(bytes, &[&sent[..8], &cookie_at(server.ip())].concat());
            self.cookies_sent.push((server.ip(), sent));
        }
        if self.dice.percent(self.mutated) {
            mutate(&mut bytes, &mut self.dice);
        }
        self.arrive(at + slower, exchange, Some(bytes));
    }

    fn arrive(&mut self, at: Duration, exchange: ExchangeId, bytes: Option<Vec<u8>>) {
        self.serial += 1;
        self.arrivals.insert((at, self.serial), (exchange, bytes));
    }

    /// Somebody who does not see the question guesses: the ID, the question or its case is wrong.
    fn forge(&mut self, exchange: ExchangeId, asked: &Message, at: Duration) {
        let question = asked.question.as_ref().expect("we ask");
        for _ in 0..self.dice.below(3) {
            let rdata = POISON.into();
            let record = Record { name: question.name.clone(), rtype: rtype::A, class: IN, ttl: 86400, rdata };
            let said = Said { authoritative: true, answer: vec![record], ..Said::default() };
            let mut forged = asked.clone();
            let mut manner = Manner::Good;
            match self.dice.below(3) {
                1 if !question.name.is_root() => forged.raw_question[1] ^= 2,
                2 if asked.raw_question.iter().any(u8::is_ascii_uppercase) => manner = Manner::Lowers,
                _ => forged.id ^= 1 << self.dice.below(16),
            }
            self.arrive(at, exchange, Some(encode(&forged, &said, manner, false)));
        }
    }

    /// Adds what a server of the zone has no say in.
    fn poison(&mut self, said: &mut Said, zone: &Name) {
        let others: Vec<&Name> = self.world.zones.keys().filter(|other| !other.is_under(zone)).collect();
        if others.is_empty() {
            return;
        }
        let victim = *self.dice.pick(&others);
        let evil = name("ns.evil");
        let make = |name: &Name, rtype, rdata: &[u8]| {
            let rdata = rdata.into();
            Record { name: name.clone(), rtype, class: IN, ttl: 86400, rdata }
        };
        let address = |name: &Name| make(name, rtype::A, &POISON);
        said.authority.push(make(victim, rtype::NS, evil.as_wire()));
        said.additional.push(address(&evil));
        let servers = &self.world.zones[victim].nodes[victim][&rtype::NS];
        for server in servers.iter().filter_map(|data| Name::from_wire(data)).filter(|server| !server.is_under(zone)) {
            said.additional.push(address(&server));
        }
        if !said.answer.is_empty() {
            let www = super::world::under("www", victim);
            said.answer.push(address(&www));
            said.answer.push(make(&www, rtype::AAAA, &[6; 16]));
        }
    }

    fn said(&self, address: IpAddr, asked: &Message) -> Option<Said> {
        let question = asked.question.as_ref().expect("we ask");
        let server = self.world.servers.get(&address)?;
        let fail = |rcode| Said { rcode, ..Said::default() };
        let mut said = match server.manner {
            Manner::Dead | Manner::Unreachable => return None,
            Manner::Refuses => fail(rcode::REFUSED),
            Manner::Fails => fail(rcode::SERVFAIL),
            Manner::NoEdns if asked.edns.is_some() => fail(rcode::FORMERR),
            Manner::Upward => {
                let rdata = self.world.hints[0].0.as_wire().into();
                let record = Record { name: Name::root(), rtype: rtype::NS, class: IN, ttl: 3600, rdata };
                Said { authority: vec![record], ..Said::default() }
            }
            _ => {
                let place = |kind: u16| {
                    let of_parent = kind == rtype::DS;
                    let zones = server.zones.iter().filter(|zone| {
                        if of_parent { question.name.is_below(zone) } else { question.name.is_under(zone) }
                    });
                    zones.max_by_key(|zone| zone.label_count())
                };
                match place(question.rtype).or_else(|| place(0)) {
                    None => fail(rcode::REFUSED),
                    Some(zone) => self.world.zones[zone].answer(&question.name, question.rtype),
                }
            }
        };
        if server.manner == Manner::Lies {
            for record in &mut said.answer {
                if record.rtype == rtype::A && record.rdata.starts_with(&[192]) {
                    record.rdata = POISON.into();
                }
            }
        }
        Some(said)
    }
}

/// The cookie in a question (RFC 7873 §4).
pub fn cookie_of(asked: &Message) -> Option<Vec<u8>> {
    let options = &asked.edns.as_ref()?.options;
    options.iter().find(|(code, _)| *code == 10).map(|(_, value)| value.clone())
}

/// The cookie that a server has for us.
pub fn cookie_at(server: IpAddr) -> [u8; 8] {
    let IpAddr::V4(server) = server else { return [6; 8] };
    let [a, b, c, d] = server.octets();
    [1, 0, 0, 0, a, b, c, d]
}

/// Puts a cookie into the OPT record that an answer ends with.
pub fn with_cookie(mut bytes: Vec<u8>, cookie: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + cookie.len()).expect("it is short");
    let end = bytes.len() - 2;
    assert_eq!(bytes[end..], [0, 0], "it ends with an OPT record that is empty");
    bytes.truncate(end);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 10]);
    bytes.extend((length - 4).to_be_bytes());
    bytes.extend(cookie);
    bytes
}

/// Where encrypted servers are, by their number.
pub fn encrypted(server: u16) -> IpAddr {
    [10, 9, 9, u8::try_from(server).expect("few servers")].into()
}

/// Changes something after the ID and the flags.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..1 + dice.below(6) {
        bytes.resize(bytes.len().max(12), 0);
        let place = 2 + dice.below(bytes.len().saturating_sub(2));
        match dice.below(7) {
            0 => bytes[place] ^= 1 << dice.below(8),
            1 => bytes[place] = u8::try_from(dice.below(256)).expect("a byte"),
            2 => bytes.truncate(place.max(12)),
            3 => bytes.insert(place, u8::try_from(dice.below(256)).expect("a byte")),
            4 => {
                let (from, to) = (place, (place + dice.below(40)).min(bytes.len()));
                let copy = bytes[from..to].to_vec();
                bytes.extend(copy);
            }
            5 => bytes[place] = *dice.pick(&[0, 0xc0, 0xff, 0x3f, 46, 47, 50, 41, 6, 2, 5, 39]),
            _ => bytes[3] = u8::try_from(dice.below(16)).expect("a code"),
        }
        if bytes.len() < 12 {
            bytes.resize(12, 0);
        }
    }
}

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
    name::Name,
    signature::Ds,
    wire::{IN, Message, Question, Record, rtype},
};

use super::{
    sign::EPOCH,
    world::{Dice, Manner, World},
    zone::Said,
};

/// Says something of its own to a question, or leaves it to the world.
pub type Attacker = Box<dyn FnMut(&Question, IpAddr) -> Option<Said>>;

pub struct Play {
    pub world: World,
    pub resolver: Resolver,
    pub now: Now,
    dice: Dice,
    arrivals: BTreeMap<(Duration, u64), (ExchangeId, Vec<u8>)>,
    cancelled: HashSet<ExchangeId>,
    serial: u64,
    pub packets: u64,
    /// All servers are silent.
    pub outage: bool,
    /// Of a hundred answers, so many are changed at random.
    pub mutated: usize,
    /// Answers in the place of the world's.
    pub attacker: Option<Attacker>,
    /// How many packets each server got.
    pub counts: HashMap<IpAddr, u32>,
    pub answers: Vec<(Ticket, Arc<Answer>)>,
    /// What was asked of whom.
    pub log: Vec<String>,
}

pub fn config(world: &World) -> Config {
    let mut anchors = Anchors::default();
    anchors.add_ds(Name::root(), Ds::parse(&world.anchor).expect("we made it"));
    Config {
        hints: world.hints.clone(),
        anchors,
        support: Support { sha1: false, short_keys: false },
        special_servers: true,
        prefetch: false,
        ipv6: false,
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
            counts: HashMap::new(),
            answers: Vec::new(),
            log: Vec::new(),
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
        let question = Question { name: name.clone(), rtype: kind };
        let ticket = self.resolver.ask(Asked { question, checking_disabled: false }, self.now);
        self.perform();
        ticket
    }

    /// Asks and waits.
    pub fn answer(&mut self, name: &Name, kind: u16) -> Arc<Answer> {
        let ticket = self.ask(name, kind);
        self.wait(ticket)
    }

    pub fn wait(&mut self, ticket: Ticket) -> Arc<Answer> {
        let until = self.now.since_start + Duration::from_secs(60);
        loop {
            if let Some(place) = self.answers.iter().position(|(of, _)| *of == ticket) {
                return self.answers.swap_remove(place).1;
            }
            assert!(self.step(until), "no answer within a minute");
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
                if !self.cancelled.contains(&exchange) {
                    self.resolver.handle_message(exchange, &bytes, self.now);
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
                Output::Answer(ticket, answer) => self.answers.push((ticket, answer)),
                Output::Cancel(exchange) => {
                    self.cancelled.insert(exchange);
                }
                Output::Send { exchange, server, tcp, message } => self.send(exchange, server, tcp, &message),
            }
        }
    }

    fn send(&mut self, exchange: ExchangeId, server: SocketAddr, tcp: bool, message: &[u8]) {
        self.packets += 1;
        *self.counts.entry(server.ip()).or_default() += 1;
        let asked = Message::parse(message).expect("we write messages");
        let question = asked.question.clone().expect("we ask");
        if self.log.len() < 1000 {
            self.log.push(format!(
                "{:?} {} {} of {}",
                self.now.since_start,
                question.name,
                question.rtype,
                server.ip()
            ));
        }
        let delay = self.world.servers.get(&server.ip()).map_or(10, |server| server.delay);
        let at = self.now.since_start + Duration::from_millis(delay);
        if self.world.forged {
            for _ in 0..self.dice.below(3) {
                let mut forged = message.to_vec();
                forged[2] |= 0x84;
                let change = self.dice.below(12);
                match self.dice.below(3) {
                    0 => forged[0] ^= 1,
                    1 => forged.truncate(change),
                    _ => forged[13] ^= 1,
                }
                self.arrive(at - Duration::from_millis(1), exchange, forged);
            }
        }
        if self.outage || !tcp && self.dice.below(1000) < self.world.loss {
            return;
        }
        let attack = self.attacker.as_mut().and_then(|attacker| attacker(&question, server.ip()));
        let said = attack.map(|said| (said, Manner::Good)).or_else(|| self.said(server.ip(), &question));
        let Some((said, manner)) = said else { return };
        let slower = if manner == Manner::Slow { Duration::from_millis(700) } else { Duration::ZERO };
        let mut bytes = encode(&asked, &said, manner, tcp);
        if self.dice.percent(self.mutated) {
            mutate(&mut bytes, &mut self.dice);
        }
        self.arrive(at + slower, exchange, bytes);
    }

    fn arrive(&mut self, at: Duration, exchange: ExchangeId, bytes: Vec<u8>) {
        self.serial += 1;
        self.arrivals.insert((at, self.serial), (exchange, bytes));
    }

    fn said(&self, address: IpAddr, question: &Question) -> Option<(Said, Manner)> {
        let server = self.world.servers.get(&address)?;
        let fail = |rcode| Said { rcode, ..Said::default() };
        let said = match server.manner {
            Manner::Dead => return None,
            Manner::Refuses => fail(5),
            Manner::Fails => fail(2),
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
                let zone = place(question.rtype).or_else(|| place(0));
                match zone {
                    None => fail(5),
                    Some(zone) => self.world.zones[zone].answer(&question.name, question.rtype),
                }
            }
        };
        let mut said = said;
        if server.manner == Manner::Lies {
            for record in &mut said.answer {
                if record.rtype == rtype::A && record.rdata.starts_with(&[192]) {
                    record.rdata = vec![6, 6, 6, 6].into();
                }
            }
        }
        Some((said, server.manner))
    }
}

fn encode(asked: &Message, said: &Said, manner: Manner, tcp: bool) -> Vec<u8> {
    let mut out = asked.id.to_be_bytes().to_vec();
    let truncated = !tcp && manner == Manner::Truncates;
    let flags = 0x8000
        | u16::from(said.authoritative) << 10
        | u16::from(truncated) << 9
        | u16::from(asked.recursion_desired) << 8
        | said.rcode;
    out.extend(flags.to_be_bytes());
    out.extend([0, 1]);
    let none = Vec::new();
    let sections = if truncated { [&none, &none, &none] } else { [&said.answer, &said.authority, &said.additional] };
    for section in sections {
        out.extend(u16::try_from(section.len()).expect("few records").to_be_bytes());
    }
    let question = asked.question.as_ref().expect("we ask");
    if manner == Manner::Lowers {
        out.extend(asked.raw_question.to_ascii_lowercase());
    } else {
        out.extend(&asked.raw_question);
    }
    out.extend(question.rtype.to_be_bytes());
    out.extend([0, 1]);
    for record in sections.into_iter().flatten() {
        out.extend(record.name.as_wire());
        out.extend(record.rtype.to_be_bytes());
        out.extend([0, 1]);
        out.extend(record.ttl.to_be_bytes());
        out.extend(u16::try_from(record.rdata.len()).expect("short").to_be_bytes());
        out.extend(&*record.rdata);
    }
    out
}

/// Changes something after the ID and the flags.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..1 + dice.below(6) {
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

//! The resolver's hands: sockets, clock and random numbers for the core, one thread for each share of the
//! questions.
//!
//! Each datagram to a server has a socket of its own (`datagram`). What goes over TCP, and what is encrypted,
//! shares connections (`lines`): one is opened where there is none, and is kept for a while for what comes
//! next. The core says when an exchange is over; here only numbers are bounded.

mod bootstrap;
mod datagram;
pub mod encrypted;
pub mod figures;
mod https;
mod kept;
mod keys;
mod line;
mod lines;
mod quic;
mod random;
mod stream;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet, LocalSet},
};

use super::{
    Answer, Asked, Config, Contact, ExchangeId, Now, Output, Resolver, Ticket,
    budget::{Limits, Means},
    clock::News,
    name::Name,
    trace::Trace,
    wall::{Bounds, Wall},
    wire::{Message, Question},
};
use crate::{
    clock::{Soundness, is_synchronised},
    supervise,
};
use encrypted::Server;
use figures::{Figures, Fill};
use kept::Kept;
use keys::Keys;
use line::Ask;
use lines::{LineId, Lines};
use random::Random;

/// Questions that wait to be taken up by one thread.
const WAITING: usize = 1024;
/// Questions under way in one thread; what comes on top is refused.
const UNDER_WAY: usize = 4096;
/// Sockets of one thread; the oldest makes room.
const SOCKETS: usize = 512;
/// Longer than the core waits for anybody: a socket that it forgot would be closed after this.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(15);
/// How often the kernel is asked whether its clock is kept right.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(10);
/// Writing down what is known may take so long.
const KEEPING: Duration = Duration::from_secs(5);
/// Questions at a time whose course somebody wants to be told.
const CURIOUS: usize = 64;
/// Pause after a fall.
const FALLEN: Duration = Duration::from_millis(100);

/// How the driver works, beside the core's own configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads among which questions are shared; at least one.
    pub threads: usize,
    /// The clock, which is told what signatures say of it.
    pub clock: crate::clock::Clock,
    /// Signatures are checked against this second since 1970 instead of the clock.
    pub fixed_time: Option<u64>,
    /// Cached data ages by the wall clock, also when that is set.
    pub follow_wall: bool,
    /// Each message to and from a server is written to standard error.
    pub log: bool,
    /// Where what is known is kept from one process to the next, if anywhere.
    pub folder: Option<PathBuf>,
    /// What is done is counted here.
    pub figures: Figures,
}

/// What is good enough for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What is cached.
    Known,
    /// Something newer than what is about to expire.
    Renewed,
}

/// Asks a resolver that works in threads of its own; they end when this is dropped.
#[derive(Debug)]
pub struct Driver {
    threads: Vec<mpsc::Sender<Job>>,
}

#[derive(Debug)]
enum Job {
    Ask {
        asked: Asked,
        wanted: Wanted,
        means: Means,
        tell: oneshot::Sender<Arc<Answer>>,
    },
    Explain {
        asked: Asked,
        anew: bool,
        tell: oneshot::Sender<Explained>,
    },
    /// Write down what is known.
    Keep {
        tell: oneshot::Sender<()>,
    },
}

/// Why a question has the answer that it has.
#[derive(Debug)]
pub struct Explained {
    /// The answer.
    pub answer: Arc<Answer>,
    /// How it came about.
    pub course: Trace,
    /// How it came about the last time that a client asked, if courses are remembered.
    pub earlier: Option<Trace>,
}

impl Settings {
    /// Says whether the time is not the house's clock's but a test's.
    fn is_told(&self) -> bool {
        self.fixed_time.is_some() || self.follow_wall
    }

    /// Returns what holds of the clocks. Who says what the time is, or lets it jump, knows why.
    pub fn bounds(&self) -> Bounds {
        let floor = if self.is_told() { 0 } else { self.clock.floor() };
        Bounds { fixed: self.fixed_time, follow_wall: self.follow_wall, floor }
    }
}

impl Driver {
    /// Starts the threads. Nothing is sent before the first question.
    /// `servers` are those that [`Contact::Encrypted`] speaks of, by their place.
    pub fn start(mut config: Config, settings: Settings, servers: Vec<Server>) -> io::Result<Self> {
        let count = settings.threads.max(1);
        config.cache_bytes /= count;
        let servers: Arc<[Server]> = servers.into();
        let keys =
            config.follow.then(|| Keys::new(settings.folder.as_deref(), &config.anchors, settings.figures.clone()));
        let outages = watch::channel(false);
        let start = |thread| {
            // One looks for all.
            let config = Config { follow: config.follow && thread == 0, ..config.clone() };
            let kept = settings.folder.as_deref().map(|folder| Kept::new(folder, thread, &config, &servers));
            let (tell, jobs) = mpsc::channel(WAITING);
            let (settings, servers) = (settings.clone(), servers.clone());
            let memory = Memory { kept, keys: keys.clone(), outages: outages.clone() };
            let work = move || work(&config, &settings, &memory, &servers, jobs);
            std::thread::Builder::new().name("dns-resolver".into()).spawn(work)?;
            Ok(tell)
        };
        Ok(Self { threads: (0..count).map(start).collect::<io::Result<_>>()? })
    }

    /// Asks. `None` says that the resolver is at its limits or fell over.
    pub async fn ask(&self, asked: Asked, wanted: Wanted, means: Means) -> Option<Arc<Answer>> {
        let (tell, told) = oneshot::channel();
        let name = asked.question.name.clone();
        self.give(&name, Job::Ask { asked, wanted, means, tell })?;
        told.await.ok()
    }

    /// Looks a question up and says how that went; anew if what is cached of its name does not count.
    pub async fn explain(&self, asked: Asked, anew: bool) -> Option<Explained> {
        let (tell, told) = oneshot::channel();
        let name = asked.question.name.clone();
        self.give(&name, Job::Explain { asked, anew, tell })?;
        told.await.ok()
    }

    /// Has everything that is known written down.
    pub async fn keep(&self) {
        for thread in &self.threads {
            let (tell, told) = oneshot::channel();
            if thread.try_send(Job::Keep { tell }).is_ok() {
                // A thread that fell over has nothing to keep.
                let _ = tokio::time::timeout(KEEPING, told).await;
            }
        }
    }

    fn give(&self, name: &Name, job: Job) -> Option<()> {
        let place = share(name) % self.threads.len();
        self.threads.get(place)?.try_send(job).ok()
    }
}

/// Names of one registered domain, roughly, go to one thread: they share servers and keys.
fn share(name: &Name) -> usize {
    let reverse = name.labels().last().is_some_and(|last| last == b"arpa");
    let domain = name.suffix(name.label_count().min(if reverse { 5 } else { 2 }));
    // FNV-1a: nobody gains anything by crowding one thread, whose room is the same for all.
    let hash = domain
        .as_wire()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    usize::try_from(hash >> 33).unwrap_or(0)
}

/// What outlives the process, and a fall.
#[derive(Clone)]
struct Memory {
    kept: Option<Kept>,
    keys: Option<Keys>,
    /// What a thread found out last: whether nobody can be reached.
    outages: (watch::Sender<bool>, watch::Receiver<bool>),
}

fn work(config: &Config, settings: &Settings, memory: &Memory, servers: &Arc<[Server]>, mut jobs: mpsc::Receiver<Job>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the resolver has no runtime"),
    };
    let mut start = Start::Process;
    loop {
        let run = || {
            let thread = Thread::new(config, settings, memory.clone(), start, servers);
            LocalSet::new().block_on(&runtime, thread.run(&mut jobs));
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(()) => return,
            Err(panic) => {
                let failure = supervise::panic_text(panic.as_ref());
                tracing::error!(failure, "the resolver fell over and begins anew");
                // Perhaps over what it was told it had known.
                start = Start::Fall;
                std::thread::sleep(FALLEN);
            }
        }
    }
}

/// What a thread begins after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Process,
    Fall,
}

/// What a socket or a connection has to say.
enum Event {
    Message(ExchangeId, Vec<u8>),
    Failure(ExchangeId),
    /// A connection is over, with what nobody answered.
    Over(Contact, LineId, Vec<Ask>),
}

/// An exchange under way.
struct Open {
    server: Contact,
    by: By,
    since: Instant,
}

enum By {
    /// A socket of its own.
    Socket(AbortHandle),
    /// A connection that others use as well.
    Line(LineId),
}

struct Thread {
    resolver: Resolver,
    limits: Limits,
    wall: Wall,
    clock: crate::clock::Clock,
    /// Somebody says what the time is, and means it.
    is_told: bool,
    /// Whether the kernel's clock is kept right, and until when that is known.
    synchronised: (bool, Duration),
    random: Random,
    lines: Lines,
    memory: Memory,
    log: bool,
    figures: Figures,
    fill: Fill,
    waiting: BTreeMap<Ticket, oneshot::Sender<Arc<Answer>>>,
    curious: BTreeMap<Ticket, oneshot::Sender<Explained>>,
    open: BTreeMap<ExchangeId, Open>,
    tasks: JoinSet<()>,
    tell: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Thread {
    fn new(config: &Config, settings: &Settings, mut memory: Memory, start: Start, servers: &Arc<[Server]>) -> Self {
        if start == Start::Fall {
            memory.kept = None;
        }
        let mut random = Random::default();
        let (tell, events) = mpsc::channel(SOCKETS);
        let mut thread = Self {
            resolver: Resolver::new(config.clone(), move |bytes| random.fill(bytes)),
            limits: config.limits,
            wall: Wall::new(settings.bounds()),
            clock: settings.clock.clone(),
            is_told: settings.is_told(),
            synchronised: (true, Duration::ZERO),
            random: Random::default(),
            lines: Lines::new(servers.clone(), (config.ipv4, config.ipv6), tell.clone()),
            memory,
            log: settings.log,
            figures: settings.figures.clone(),
            fill: Fill::new(settings.figures.clone()),
            waiting: BTreeMap::new(),
            curious: BTreeMap::new(),
            open: BTreeMap::new(),
            tasks: JoinSet::new(),
            tell,
            events,
        };
        if let Some(keys) = &mut thread.memory.keys {
            keys.begin(&mut thread.resolver);
        }
        let now = thread.now();
        if let Some(kept) = &thread.memory.kept {
            kept.load(&mut thread.resolver, now);
        }
        thread
    }

    async fn run(mut self, jobs: &mut mpsc::Receiver<Job>) {
        let mut was_out = false;
        loop {
            let wake = self.resolver.next_timeout().map(|at| self.wall.instant(at));
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                job = jobs.recv() => {
                    let Some(job) = job else { return };
                    let now = self.now();
                    self.take(job, now);
                }
                Some(event) = self.events.recv() => {
                    let now = self.now();
                    self.handle(event, now);
                }
                Some(_) = self.tasks.join_next() => continue,
                // It cannot close: this thread can tell as well.
                Ok(()) = self.memory.outages.1.changed() => {
                    let now = self.now();
                    let is_out = *self.memory.outages.1.borrow_and_update();
                    match is_out {
                        true => self.resolver.suspect_outage(now),
                        false => self.resolver.end_outage(now),
                    }
                }
                () = timer => {
                    let now = self.now();
                    self.resolver.handle_timeout(now);
                }
            }
            while let Some(output) = self.resolver.next_output() {
                self.perform(output);
            }
            let is_out = self.resolver.is_out();
            if std::mem::replace(&mut was_out, is_out) != is_out {
                self.memory.outages.0.send_if_modified(|told| std::mem::replace(told, is_out) != is_out);
                self.memory.outages.1.mark_unchanged();
            }
            if let Some(keys) = &mut self.memory.keys {
                keys.exchange(&mut self.resolver);
            }
            self.fill.set(self.resolver.cache_fill());
            match self.resolver.clock_news() {
                Some(News::Proven(reading)) => self.clock.prove(reading),
                Some(News::Doubted(reading)) => self.clock.doubt(reading),
                None => {}
            }
        }
    }

    fn now(&mut self) -> Now {
        let reading = self.wall.read();
        if reading.stepped {
            tracing::info!("the clock was set: what was learnt under the other time is forgotten");
            self.resolver.forget();
            if let Some(kept) = &self.memory.kept {
                kept.load(&mut self.resolver, reading.now);
            }
        }
        if reading.now.since_start >= self.synchronised.1 {
            self.synchronised = (self.is_told || is_synchronised(), reading.now.since_start + LOOK_AT_CLOCK);
        }
        let floor = if self.is_told { 0 } else { self.clock.floor() };
        self.resolver.set_clock(floor, reading.behind, self.synchronised.0);
        reading.now
    }

    fn take(&mut self, job: Job, now: Now) {
        match job {
            // Refused by being dropped.
            Job::Ask { .. } if self.waiting.len() >= UNDER_WAY => {}
            Job::Explain { .. } if self.curious.len() >= CURIOUS => {}
            Job::Ask { asked, wanted, means, tell } => {
                if wanted == Wanted::Renewed {
                    self.resolver.forget_ending(&asked.question, now);
                }
                let ticket = self.resolver.ask_within(asked, self.limits.within(means), now);
                self.waiting.insert(ticket, tell);
            }
            Job::Keep { tell } => {
                // By a clock that is wrong nobody could tell how long anything holds.
                if let Some(kept) = self.memory.kept.as_ref().filter(|_| self.resolver.clock() == Soundness::Sound) {
                    kept.save(&self.resolver, now);
                }
                let _ = tell.send(());
            }
            Job::Explain { asked, anew, tell } => {
                let ticket = self.resolver.explain(asked, anew, now);
                self.curious.insert(ticket, tell);
            }
        }
    }

    fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Message(exchange, bytes) => {
                if let Some(open) = self.open.get(&exchange) {
                    let connected = matches!(open.by, By::Line(_));
                    self.figures.heard(open.server, connected, open.since.elapsed());
                    if let By::Line(line) = open.by {
                        self.lines.heard(open.server, line);
                    }
                    if self.log {
                        log("from", open.server, connected, &bytes);
                    }
                }
                self.resolver.handle_message(exchange, &bytes, now);
            }
            Event::Failure(exchange) => {
                self.figures.unheard();
                self.resolver.handle_failure(exchange, now);
            }
            Event::Over(server, line, unanswered) => {
                let was_good = self.lines.over(server, line);
                for ask in unanswered {
                    if !self.open.contains_key(&ask.exchange) {
                        continue;
                    }
                    // A server may close a connection that it has kept for long enough just when it is used
                    // again (RFC 7766 §6.2.4).
                    if was_good && !ask.again {
                        self.pass_on(server, Ask { again: true, ..ask });
                    } else {
                        self.resolver.handle_failure(ask.exchange, now);
                    }
                }
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { exchange, server, tcp, message } => {
                self.send(exchange, Contact::Plain(server), tcp, message);
            }
            Output::SendEncrypted { exchange, server, message } => {
                self.send(exchange, Contact::Encrypted(server), true, message);
            }
            Output::Cancel(exchange) => match self.open.remove(&exchange) {
                Some(Open { by: By::Socket(task), .. }) => task.abort(),
                Some(Open { by: By::Line(line), server, .. }) => self.lines.cancel(server, line, exchange),
                None => {}
            },
            Output::Answer(ticket, answer) => {
                self.figures.answered(&answer);
                if let Some(tell) = self.waiting.remove(&ticket) {
                    // Who asked may have gone away.
                    let _ = tell.send(answer);
                }
            }
            Output::Explained(ticket, answer, course) => {
                if let Some(tell) = self.curious.remove(&ticket) {
                    let earlier = self.resolver.trace(&course.asked.question);
                    let _ = tell.send(Explained { answer, course: *course, earlier });
                }
            }
        }
    }

    fn send(&mut self, exchange: ExchangeId, server: Contact, connected: bool, message: Vec<u8>) {
        self.figures.sent(server, connected);
        if self.log {
            log("to", server, connected, &message);
        }
        if self.open.len() >= SOCKETS
            && let Some((oldest, open)) = self.open.pop_first()
        {
            match open.by {
                By::Socket(task) => task.abort(),
                By::Line(line) => self.lines.cancel(open.server, line, oldest),
            }
            let now = self.now();
            self.resolver.handle_dropped(oldest, now);
        }
        match server {
            Contact::Plain(address) if !connected => self.send_datagram(exchange, address, message),
            _ => self.pass_on(server, Ask { exchange, message, again: false }),
        }
    }

    fn send_datagram(&mut self, exchange: ExchangeId, server: SocketAddr, message: Vec<u8>) {
        let socket = match datagram::socket(server, &mut self.random) {
            Ok(socket) => socket,
            Err(error) => {
                let now = self.now();
                return match datagram::is_want(&error) {
                    true => self.resolver.handle_dropped(exchange, now),
                    // No route, or no address of this family.
                    false => self.resolver.handle_failure(exchange, now),
                };
            }
        };
        let tell = self.tell.clone();
        let task = self.tasks.spawn_local(async move {
            let talk = async {
                socket.send(&message).await?;
                loop {
                    let bytes = datagram::next(&socket).await?;
                    if tell.send(Event::Message(exchange, bytes)).await.is_err() {
                        return io::Result::Ok(());
                    }
                }
            };
            // It ends by failing or by being cancelled.
            let _ = tokio::time::timeout(LONGEST_EXCHANGE, talk).await;
            let _ = tell.send(Event::Failure(exchange)).await;
        });
        let open = Open { server: Contact::Plain(server), by: By::Socket(task), since: Instant::now() };
        self.open.insert(exchange, open);
    }

    /// Gives a message to a connection.
    fn pass_on(&mut self, server: Contact, ask: Ask) {
        let exchange = ask.exchange;
        let (line, crowded_out) = self.lines.pass_on(server, ask, &mut self.tasks);
        match line {
            Some(line) => {
                self.open.insert(exchange, Open { server, by: By::Line(line), since: Instant::now() });
            }
            None => {
                let now = self.now();
                self.resolver.handle_dropped(exchange, now);
            }
        }
        if let Some(crowded_out) = crowded_out {
            let now = self.now();
            let on_it = |open: &Open| matches!(open.by, By::Line(line) if line == crowded_out);
            let lost: Vec<ExchangeId> = self.open.extract_if(.., |_, open| on_it(open)).map(|(lost, _)| lost).collect();
            for exchange in lost {
                self.resolver.handle_dropped(exchange, now);
            }
        }
    }
}

fn log(direction: &str, server: Contact, connected: bool, bytes: &[u8]) {
    let transport = match server {
        Contact::Encrypted(_) => "encrypted",
        Contact::Plain(_) if connected => "tcp",
        Contact::Plain(_) => "udp",
    };
    let Ok(message) = Message::parse(bytes) else {
        return eprintln!("upstream {direction} {server} {transport} unreadable {} bytes", bytes.len());
    };
    let (name, kind) = match &message.question {
        Some(Question { name, rtype }) => (name.to_string(), *rtype),
        None => ("?".to_owned(), 0),
    };
    let counts = [message.answer.len(), message.authority.len(), message.additional.len()];
    eprintln!(
        "upstream {direction} {server} {transport} id {} {name} type {kind} rcode {} aa {} tc {} records {counts:?}",
        message.id, message.rcode, message.authoritative, message.truncated
    );
}

#[cfg(test)]
mod tests {
    use super::{datagram::is_want, *};
    use crate::dns::resolver::{Fallback, Forward};

    fn everything(servers: Vec<SocketAddr>) -> Forward {
        let servers = servers.into_iter().map(Contact::Plain).collect();
        Forward { zone: Name::root(), servers, fallback: Fallback::Nothing }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_noticed_without_waiting() {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut outputs = Vec::new();
        let mut resolver =
            Resolver::new(Config { forward: vec![everything(vec![gone])], ..Config::default() }, |bytes| bytes.fill(0));
        let question = Question { name: Name::root(), rtype: 1 };
        resolver.ask(Asked { question, checking_disabled: false }, Now::default());
        outputs.extend(resolver.next_output());
        let [Output::Send { server, message, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let socket = datagram::socket(*server, &mut Random::default()).unwrap();
        socket.send(message).await.unwrap();

        let end = datagram::next(&socket).await;

        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn no_server_is_to_blame_for_a_want_of_room_here() {
        let is_out_after = |give_up: fn(&mut Resolver, ExchangeId, Now)| {
            let servers = (1..=3).map(|last| SocketAddr::from(([9, 9, 9, last], 53))).collect();
            let config = Config { forward: vec![everything(servers)], ..Config::default() };
            let mut resolver = Resolver::new(config, |bytes| bytes.fill(0));
            for number in 0..6 {
                let name = Name::parse(&format!("n{number}.example")).unwrap();
                let asked = Asked { question: Question { name, rtype: 1 }, checking_disabled: true };
                resolver.ask(asked, Now::default());
                while let Some(output) = resolver.next_output() {
                    if let Output::Send { exchange, .. } = output {
                        give_up(&mut resolver, exchange, Now::default());
                    }
                }
            }
            resolver.is_out()
        };

        assert!(!is_out_after(Resolver::handle_dropped));
        assert!(is_out_after(Resolver::handle_failure));
        assert!(is_want(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_want(&io::Error::from_raw_os_error(libc::ENETUNREACH)));
    }

    #[test]
    fn names_of_a_domain_go_to_one_thread() {
        let place = |text: &str| share(&Name::parse(text).unwrap());

        assert_eq!(place("www.example.org"), place("mail.a.example.org"));
        assert_ne!(place("www.example.org"), place("www.example.net"));
        assert_eq!(place("1.2.0.192.in-addr.arpa"), place("9.2.0.192.in-addr.arpa"));
    }
}

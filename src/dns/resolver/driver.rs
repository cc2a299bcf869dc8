//! The resolver's hands: sockets, clock and random numbers for the core, one thread for each share of the
//! questions.
//!
//! Each message to a server goes out from a socket of its own, bound to a random port and connected, so that
//! the kernel drops what others send (RFC 5452 §9.2, §10). The core says when it is over; here only their
//! number is bounded.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpSocket, UdpSocket},
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet, LocalSet},
};

use super::{
    Answer, Asked, Config, ExchangeId, Now, Output, Resolver, Ticket,
    name::Name,
    trace::Trace,
    wire::{Message, Question},
};
use crate::supervise;

/// Questions that wait to be taken up by one thread.
const WAITING: usize = 1024;
/// Questions under way in one thread; what comes on top is refused.
const UNDER_WAY: usize = 4096;
/// Sockets of one thread; the oldest makes room.
const SOCKETS: usize = 512;
/// Longer than the core waits for anybody: a socket that it forgot would be closed after this.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(15);
/// What is longer is cut: nobody is offered to send that much.
const LONGEST_DATAGRAM: usize = 4096;
/// Random ports that are tried before the kernel chooses one.
const PORT_TRIES: usize = 8;
/// A clock that goes off by more than this was set.
const STEP: Duration = Duration::from_secs(300);
/// Pause after a fall.
const FALLEN: Duration = Duration::from_millis(100);

/// How the driver works, beside the core's own configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Threads among which questions are shared; at least one.
    pub threads: usize,
    /// Signatures are checked against this second since 1970 instead of the clock.
    pub fixed_time: Option<u64>,
    /// Cached data ages by the wall clock, also when that is set.
    pub follow_wall: bool,
    /// Each message to and from a server is written to standard error.
    pub log: bool,
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
    Ask { asked: Asked, wanted: Wanted, tell: oneshot::Sender<Arc<Answer>> },
    Explain { asked: Asked, anew: bool, tell: oneshot::Sender<Explained> },
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

impl Driver {
    /// Starts the threads. Nothing is sent before the first question.
    pub fn start(mut config: Config, settings: Settings) -> io::Result<Self> {
        let count = settings.threads.max(1);
        config.cache_bytes /= count;
        let start = |_| {
            let (tell, jobs) = mpsc::channel(WAITING);
            let config = config.clone();
            std::thread::Builder::new().name("dns-resolver".into()).spawn(move || work(&config, settings, jobs))?;
            Ok(tell)
        };
        Ok(Self { threads: (0..count).map(start).collect::<io::Result<_>>()? })
    }

    /// Asks. `None` says that the resolver is at its limits or fell over.
    pub async fn ask(&self, asked: Asked, wanted: Wanted) -> Option<Arc<Answer>> {
        let (tell, told) = oneshot::channel();
        let name = asked.question.name.clone();
        self.give(&name, Job::Ask { asked, wanted, tell })?;
        told.await.ok()
    }

    /// Looks a question up and says how that went; anew if what is cached of its name does not count.
    pub async fn explain(&self, asked: Asked, anew: bool) -> Option<Explained> {
        let (tell, told) = oneshot::channel();
        let name = asked.question.name.clone();
        self.give(&name, Job::Explain { asked, anew, tell })?;
        told.await.ok()
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

fn work(config: &Config, settings: Settings, mut jobs: mpsc::Receiver<Job>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the resolver has no runtime"),
    };
    loop {
        let run = || LocalSet::new().block_on(&runtime, Thread::new(config, settings).run(&mut jobs));
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(()) => return,
            Err(panic) => {
                let failure = supervise::panic_text(panic.as_ref());
                tracing::error!(failure, "the resolver fell over and begins anew");
                std::thread::sleep(FALLEN);
            }
        }
    }
}

/// What a socket has to say.
enum Event {
    Message(ExchangeId, Vec<u8>),
    Failure(ExchangeId),
}

struct Open {
    task: AbortHandle,
    server: SocketAddr,
    tcp: bool,
}

struct Thread {
    resolver: Resolver,
    clock: Clock,
    random: Random,
    log: bool,
    waiting: BTreeMap<Ticket, oneshot::Sender<Arc<Answer>>>,
    curious: BTreeMap<Ticket, oneshot::Sender<Explained>>,
    open: BTreeMap<ExchangeId, Open>,
    tasks: JoinSet<()>,
    tell: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Thread {
    fn new(config: &Config, settings: Settings) -> Self {
        let mut random = Random::default();
        let (tell, events) = mpsc::channel(SOCKETS);
        Self {
            resolver: Resolver::new(config.clone(), move |bytes| random.fill(bytes)),
            clock: Clock::new(settings),
            random: Random::default(),
            log: settings.log,
            waiting: BTreeMap::new(),
            curious: BTreeMap::new(),
            open: BTreeMap::new(),
            tasks: JoinSet::new(),
            tell,
            events,
        }
    }

    async fn run(mut self, jobs: &mut mpsc::Receiver<Job>) {
        loop {
            let wake = self.resolver.next_timeout().map(|at| self.clock.instant(at));
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
                () = timer => {
                    let now = self.now();
                    self.resolver.handle_timeout(now);
                }
            }
            while let Some(output) = self.resolver.next_output() {
                self.perform(output);
            }
        }
    }

    fn now(&mut self) -> Now {
        let (now, stepped) = self.clock.now();
        if stepped {
            tracing::info!("the clock was set: what was learnt under the other time is forgotten");
            self.resolver.forget();
        }
        now
    }

    fn take(&mut self, job: Job, now: Now) {
        match job {
            // Refused by being dropped.
            Job::Ask { .. } if self.waiting.len() >= UNDER_WAY => {}
            Job::Ask { asked, wanted, tell } => {
                if wanted == Wanted::Renewed {
                    self.resolver.forget_ending(&asked.question, now);
                }
                let ticket = self.resolver.ask(asked, now);
                self.waiting.insert(ticket, tell);
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
                if self.log
                    && let Some(open) = self.open.get(&exchange)
                {
                    log("from", open.server, open.tcp, &bytes);
                }
                self.resolver.handle_message(exchange, &bytes, now);
            }
            Event::Failure(exchange) => self.resolver.handle_failure(exchange, now),
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { exchange, server, tcp, message } => self.send(exchange, server, tcp, message),
            Output::Cancel(exchange) => {
                if let Some(open) = self.open.remove(&exchange) {
                    open.task.abort();
                }
            }
            Output::Answer(ticket, answer) => {
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

    fn send(&mut self, exchange: ExchangeId, server: SocketAddr, tcp: bool, message: Vec<u8>) {
        if self.log {
            log("to", server, tcp, &message);
        }
        if self.open.len() >= SOCKETS
            && let Some((oldest, open)) = self.open.pop_first()
        {
            open.task.abort();
            let now = self.now();
            self.resolver.handle_dropped(oldest, now);
        }
        let talk = match tcp {
            true => Ok(Talk::Tcp(server, message)),
            false => datagram_socket(server, &mut self.random).map(|socket| Talk::Udp(socket, message)),
        };
        let talk = match talk {
            Ok(talk) => talk,
            Err(error) => {
                let now = self.now();
                return match is_want(&error) {
                    true => self.resolver.handle_dropped(exchange, now),
                    // No route, or no address of this family.
                    false => self.resolver.handle_failure(exchange, now),
                };
            }
        };
        let tell = self.tell.clone();
        let task = self.tasks.spawn_local(async move {
            // It ends by failing or by being cancelled.
            let _ = tokio::time::timeout(LONGEST_EXCHANGE, talk.run(exchange, &tell)).await;
            let _ = tell.send(Event::Failure(exchange)).await;
        });
        self.open.insert(exchange, Open { task, server, tcp });
    }
}

enum Talk {
    Udp(UdpSocket, Vec<u8>),
    Tcp(SocketAddr, Vec<u8>),
}

impl Talk {
    async fn run(self, exchange: ExchangeId, tell: &mpsc::Sender<Event>) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        match self {
            Self::Udp(socket, message) => {
                socket.send(&message).await?;
                loop {
                    // ICMP says that nobody is there: an error alone makes a socket not readable.
                    let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
                    if ready.is_error() {
                        let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                        socket.take_error()?.map_or(Ok(()), Err)?;
                    }
                    let Some(bytes) = receive(&socket)? else { continue };
                    tell.send(Event::Message(exchange, bytes)).await.map_err(gone)?;
                }
            }
            Self::Tcp(server, message) => {
                let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                let mut stream = socket.connect(server).await?;
                stream.set_nodelay(true)?;
                let length = u16::try_from(message.len()).map_err(io::Error::other)?;
                let mut frame = length.to_be_bytes().to_vec();
                frame.extend(message);
                stream.write_all(&frame).await?;
                loop {
                    let length = stream.read_u16().await?;
                    let mut bytes = Vec::new();
                    // It grows as bytes come, not as the server promises.
                    (&mut stream).take(u64::from(length)).read_to_end(&mut bytes).await?;
                    if bytes.len() < usize::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    tell.send(Event::Message(exchange, bytes)).await.map_err(gone)?;
                }
            }
        }
    }
}

/// The machine had too little of something; the network has nothing to do with it.
fn is_want(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number.is_some_and(|number| [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&number))
}

/// Takes a datagram; `None` if there was none after all.
fn receive(socket: &UdpSocket) -> io::Result<Option<Vec<u8>>> {
    // On the stack and not in the task, of which there are many that wait.
    let mut buffer = [0; LONGEST_DATAGRAM];
    match socket.try_recv(&mut buffer) {
        Ok(length) => Ok(Some(buffer.get(..length).unwrap_or_default().to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a socket that hears nobody but the server.
fn datagram_socket(server: SocketAddr, random: &mut Random) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let any: IpAddr = match server {
        // Forged ICMP cannot make the kernel fragment what is sent (RFC 9715 §3.1).
        SocketAddr::V4(_) => {
            let _ =
                rustix::net::sockopt::set_ip_mtu_discover(&socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::OMIT);
            Ipv4Addr::UNSPECIFIED.into()
        }
        SocketAddr::V6(_) => {
            let _ =
                rustix::net::sockopt::set_ipv6_mtu_discover(&socket, rustix::net::sockopt::Ipv6PathMtuDiscovery::OMIT);
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    let mut tries = 0;
    loop {
        let port = if tries < PORT_TRIES { random.port() } else { 0 };
        match socket.bind(&SocketAddr::new(any, port).into()) {
            Ok(()) => break,
            Err(_) if tries < PORT_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
    socket.connect(&server.into())?;
    UdpSocket::from_std(socket.into())
}

/// The system's random source, in larger pieces.
struct Random {
    buffer: [u8; 1024],
    used: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self { buffer: [0; 1024], used: 1024 }
    }
}

impl Random {
    fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.used == self.buffer.len() {
                getrandom::fill(&mut self.buffer).expect("the kernel has a random source");
                self.used = 0;
            }
            let left = self.buffer.get_mut(self.used..).unwrap_or_default();
            let count = left.len().min(bytes.len());
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&left[..count]);
            // What was given out is not kept.
            left[..count].fill(0);
            self.used += count;
            bytes = later;
        }
    }

    fn port(&mut self) -> u16 {
        loop {
            let mut bytes = [0; 2];
            self.fill(&mut bytes);
            let port = u16::from_be_bytes(bytes);
            if port >= 1024 {
                return port;
            }
        }
    }
}

/// The core's time from the machine's two clocks.
struct Clock {
    started: Instant,
    wall_started: Duration,
    settings: Settings,
    /// How much further the wall clock went than the monotonic one, as last seen.
    ahead: i64,
    /// What the core's monotonic time is ahead of the machine's.
    added: Duration,
}

impl Clock {
    fn new(settings: Settings) -> Self {
        Self { started: Instant::now(), wall_started: wall(), settings, ahead: 0, added: Duration::ZERO }
    }

    /// Returns the time, and whether the wall clock was set since the last call.
    fn now(&mut self) -> (Now, bool) {
        self.at(self.started.elapsed(), wall())
    }

    fn at(&mut self, elapsed: Duration, wall: Duration) -> (Now, bool) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let ahead = millis(wall) - millis(self.wall_started) - millis(elapsed);
        let step = ahead - self.ahead;
        let mut stepped = false;
        if self.settings.follow_wall {
            // Time never goes back for the core.
            if step > 0 {
                self.added += Duration::from_millis(step.unsigned_abs());
            }
            self.ahead = ahead;
        } else if step.unsigned_abs() > u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX) {
            self.ahead = ahead;
            stepped = self.settings.fixed_time.is_none();
        }
        let wall = self.settings.fixed_time.unwrap_or(wall.as_secs());
        (Now { since_start: elapsed + self.added, wall }, stepped)
    }

    fn instant(&self, at: Duration) -> Instant {
        let elapsed = at.saturating_sub(self.added);
        self.started.checked_add(elapsed).unwrap_or_else(|| Instant::now() + LONGEST_EXCHANGE)
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn log(direction: &str, server: SocketAddr, tcp: bool, bytes: &[u8]) {
    let transport = if tcp { "tcp" } else { "udp" };
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
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_time_never_goes_back() {
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(Settings::default());
        let began = clock.wall_started;

        assert!(!clock.at(seconds(10), began + seconds(11)).1);
        assert!(clock.at(seconds(11), began + seconds(11 + 1000)).1);
        assert!(!clock.at(seconds(12), began + seconds(12 + 1000)).1);
        let (now, stepped) = clock.at(seconds(13), began);
        assert!(stepped);
        assert_eq!(now, Now { since_start: seconds(13), wall: began.as_secs() });
    }

    #[test]
    fn cached_data_ages_by_the_wall_clock_where_that_is_wanted() {
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(Settings { follow_wall: true, fixed_time: Some(7), ..Settings::default() });
        let began = clock.wall_started;

        let times = [(1, 1), (2, 3602), (3, 3), (4, 104)].map(|(elapsed, wall)| {
            let (now, stepped) = clock.at(seconds(elapsed), began + seconds(wall));
            assert!(!stepped && now.wall == 7);
            now.since_start.as_secs()
        });

        assert_eq!(times, [1, 3602, 3603, 3704]);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_noticed_without_waiting() {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (tell, mut told) = mpsc::channel(1);
        let mut outputs = Vec::new();
        let mut resolver =
            Resolver::new(Config { forward: vec![(Name::root(), vec![gone])], ..Config::default() }, |bytes| {
                bytes.fill(0)
            });
        let question = Question { name: Name::root(), rtype: 1 };
        resolver.ask(Asked { question, checking_disabled: false }, Now::default());
        outputs.extend(resolver.next_output());
        let [Output::Send { exchange, server, message, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let socket = datagram_socket(*server, &mut Random::default()).unwrap();

        let end = Talk::Udp(socket, message.clone()).run(*exchange, &tell).await;

        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn no_server_is_to_blame_for_a_want_of_room_here() {
        let is_out_after = |give_up: fn(&mut Resolver, ExchangeId, Now)| {
            let servers = (1..=3).map(|last| SocketAddr::from(([9, 9, 9, last], 53))).collect();
            let config = Config { forward: vec![(Name::root(), servers)], ..Config::default() };
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

    #[test]
    fn ports_are_spread() {
        let mut random = Random::default();

        let ports: std::collections::BTreeSet<u16> = (0..2000).map(|_| random.port()).collect();

        assert!(ports.len() > 1900 && ports.iter().all(|port| *port >= 1024));
    }
}

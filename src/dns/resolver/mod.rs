//! The recursive resolver: a core without sockets and clocks, and beside it a thin driver.
//!
//! The life of a question: [`Resolver::ask`] answers it from the cache, finds whether the same question is
//! under way and joins it, else starts a course ([`flight`]). The course ([`resolve`]) follows aliases; for each name it looks into the RRset cache
//! ([`cache`]), and where that knows nothing it iterates ([`iterate`]): from the deepest zone cut that is
//! known ([`delegation`]) downwards, asking for one label more at a time (RFC 9156), each time of the server
//! that is likely to answer first ([`server`]). A message is understood from the point of view of the zone
//! that was asked ([`reply`]); what that zone has no say in is dropped. What comes back is checked
//! ([`validate`]): signatures by keys that a chain of DS records ties to an anchor (`chain`), absence by NSEC or NSEC3
//! ([`denial`]), lack of signatures by proof that the zone is unsigned; anchors follow their zones' keys
//! ([`rollover`]). What was learnt is cached with its
//! security status, and the answer goes out. Everything that the course starts is paid out of one budget
//! ([`budget`]).
//!
//! In come questions, messages, failures and the time; out come messages to send and answers. All state
//! belongs to one thread and there is no lock; several resolvers share the questions by hash.

pub mod aggressive;
pub mod anchor;
pub mod budget;
pub mod cache;
mod chain;
pub mod clock;
pub mod contact;
pub mod course;
pub mod delegation;
pub mod denial;
pub mod driver;
mod dsa;
pub mod exchange;
pub mod flight;
mod follow;
pub mod global;
pub mod hints;
pub mod iterate;
mod learn;
pub mod master;
pub mod name;
pub mod outage;
pub mod renew;
pub mod reply;
pub mod resolve;
pub mod rollover;
pub mod rrset;
pub mod rsa;
pub mod search;
pub mod server;
pub mod signature;
mod snapshot;
pub mod trace;
pub mod validate;
pub mod wall;
pub mod why;
pub mod wire;

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

pub use contact::Contact;
pub use course::Now;
pub use signature::Support;
pub use why::Why;

use anchor::Anchors;
use budget::Limits;
use cache::Cache;
use course::Courses;
use delegation::Cuts;
use name::Name;
use rrset::{Rrset, Security};
use server::Servers;
use wire::Question;

/// How the resolver works; fixed for its life.
#[derive(Clone, Debug)]
pub struct Config {
    /// Root servers by name; an empty list is allowed with a forwarder for the root.
    pub hints: Vec<(Name, Vec<IpAddr>)>,
    /// Ask the hints for the root's servers first (RFC 9609).
    pub priming: bool,
    /// Where trust begins.
    pub anchors: Anchors,
    /// Anchors follow the keys of their zones (RFC 5011).
    pub follow: bool,
    /// Names under which nothing is checked (RFC 7646), with the wall-clock second at which that ends.
    pub negative_anchors: Vec<(Name, Option<u64>)>,
    /// Names that are resolved unchecked while the clock is not right, with everything below them.
    pub time_servers: Vec<Name>,
    /// Zones whose questions go to servers that recurse.
    pub forward: Vec<Forward>,
    /// QNAME minimisation (RFC 9156).
    pub minimise: bool,
    /// 0x20.
    pub case_randomisation: bool,
    /// DNS cookies (RFC 7873).
    pub cookies: bool,
    /// Use of NSEC for names that were not asked for (RFC 8198).
    pub aggressive: bool,
    /// Which cryptography counts.
    pub support: Support,
    /// UDP size that is offered to servers.
    pub edns_size: u16,
    /// Ask over IPv4.
    pub ipv4: bool,
    /// Ask over IPv6.
    pub ipv6: bool,
    /// Ask addresses that no zone's server can have.
    pub special_servers: bool,
    /// Ask again for what is asked often before it is over.
    pub prefetch: bool,
    /// Bytes of the RRset cache.
    pub cache_bytes: usize,
    /// Shortest and longest time that anything is cached, in seconds.
    pub ttl: std::ops::RangeInclusive<u32>,
    /// How long an expired answer may still be given.
    pub stale: Duration,
    /// What one client question may cost.
    pub limits: Limits,
    /// How many courses are remembered for those who ask why; 0 records nothing.
    pub traces: usize,
    /// The port that servers listen on.
    pub port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hints: Vec::new(),
            priming: true,
            anchors: Anchors::default(),
            follow: false,
            negative_anchors: Vec::new(),
            time_servers: clock::time_servers().collect(),
            forward: Vec::new(),
            minimise: true,
            case_randomisation: true,
            cookies: true,
            aggressive: true,
            support: Support { sha1: false, short_keys: false },
            edns_size: 1232,
            ipv4: true,
            ipv6: true,
            special_servers: false,
            prefetch: true,
            cache_bytes: 8 << 20,
            ttl: 0..=86400,
            stale: Duration::ZERO,
            limits: Limits::default(),
            traces: 0,
            port: 53,
        }
    }
}

/// A zone whose questions go to servers that recurse.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The zone.
    pub zone: Name,
    /// The servers; which of them is asked first depends on how fast they are.
    pub servers: Vec<Contact>,
    /// Where none of them answers.
    pub fallback: Fallback,
}

/// What happens where no server that recurses for us answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The question fails.
    #[default]
    Nothing,
    /// The authoritative servers are asked.
    Recursion,
}

/// A client's question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// CD: the client checks for itself and wants the data even if it is bogus.
    pub checking_disabled: bool,
}

/// Which question an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Which message to a server an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u64);

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    /// Send a message and hand what comes back from this server to [`Resolver::handle_message`] until it is
    /// cancelled: a datagram from a new socket and a random port, every datagram that comes; over TCP by a
    /// connection that may be shared.
    Send {
        /// Which exchange.
        exchange: ExchangeId,
        /// Whom.
        server: SocketAddr,
        /// Over TCP.
        tcp: bool,
        /// The message, without TCP's length.
        message: Vec<u8>,
    },
    /// Send a message through the connection to an encrypted server, and hand what comes back to
    /// [`Resolver::handle_message`].
    SendEncrypted {
        /// Which exchange.
        exchange: ExchangeId,
        /// Whom: the number in [`Contact::Encrypted`].
        server: u16,
        /// The message, without TCP's length.
        message: Vec<u8>,
    },
    /// The exchange is over; its socket can be closed.
    Cancel(ExchangeId),
    /// A question is answered.
    Answer(Ticket, Arc<Answer>),
    /// A question was looked up for somebody who wants to know why.
    Explained(Ticket, Arc<Answer>, Box<trace::Trace>),
}

/// The end of a question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The RCODE.
    pub rcode: u16,
    /// The answer section: aliases first.
    pub answer: Vec<Placed>,
    /// The authority section: SOA and proofs of a denial, proofs of a wildcard answer.
    pub authority: Vec<Placed>,
    /// What is known of its authenticity; `Secure` is AD.
    pub security: Security,
    /// What stands in extended errors.
    pub why: Option<Why>,
    /// Seconds that the whole answer holds.
    pub ttl: u32,
    /// What it cost.
    pub cost: Limits,
}

/// A set in an answer.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The set as it is kept.
    pub set: Arc<Rrset>,
    /// Seconds that it still holds.
    pub ttl: u32,
}

/// The resolver.
pub struct Resolver {
    shared: Rc<Shared>,
    tickets: u64,
}

/// Fills a slice with what nobody can foresee.
type Random = Box<dyn FnMut(&mut [u8])>;

/// What all courses of one resolver share.
struct Shared {
    config: Config,
    courses: Courses,
    outputs: RefCell<VecDeque<Output>>,
    exchanges: RefCell<exchange::Exchanges>,
    random: RefCell<Random>,
    servers: RefCell<Servers>,
    cuts: RefCell<Cuts>,
    cache: RefCell<Cache>,
    trusts: RefCell<chain::Trusts>,
    proofs: RefCell<aggressive::Proofs>,
    flights: RefCell<flight::Flights>,
    outage: RefCell<outage::Outage>,
    traces: RefCell<trace::Traces>,
    clock: clock::State,
    following: follow::Following,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.courses.abandon();
    }
}

impl Resolver {
    /// Makes a resolver. `random` fills a slice from a source that nobody can foresee.
    pub fn new(config: Config, random: impl FnMut(&mut [u8]) + 'static) -> Self {
        // Of the bytes that are allowed, a quarter is for proofs.
        let cache = Cache::new(config.cache_bytes / 4 * 3);
        let proofs = aggressive::Proofs::new(config.cache_bytes / 4);
        let shared = Shared {
            config,
            courses: Courses::default(),
            outputs: RefCell::default(),
            exchanges: RefCell::default(),
            random: RefCell::new(Box::new(random)),
            servers: RefCell::default(),
            cuts: RefCell::default(),
            cache: RefCell::new(cache),
            trusts: RefCell::default(),
            proofs: RefCell::new(proofs),
            flights: RefCell::default(),
            outage: RefCell::default(),
            traces: RefCell::default(),
            clock: clock::State::default(),
            following: follow::Following::default(),
        };
        Self { shared: Rc::new(shared), tickets: 0 }
    }

    /// Takes a client's question.
    pub fn ask(&mut self, asked: Asked, now: Now) -> Ticket {
        let limits = self.shared.config.limits;
        self.ask_within(asked, limits, now)
    }

    /// Takes the question of a client that may not spend more than this. Where the same question is under way
    /// for somebody else, it is that one's budget that counts.
    pub fn ask_within(&mut self, asked: Asked, limits: Limits, now: Now) -> Ticket {
        self.shared.courses.set_now(now);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.shared.board(ticket, asked, limits);
        self.run();
        ticket
    }

    /// Looks a question up with every step recorded; anew if nothing may come from what is cached of its name.
    /// It ends with [`Output::Explained`].
    pub fn explain(&mut self, asked: Asked, anew: bool, now: Now) -> Ticket {
        self.shared.courses.set_now(now);
        if anew {
            self.forget_answer(&asked.question, now);
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.shared.fly_explained(ticket, asked);
        self.run();
        ticket
    }

    /// Takes a datagram, or a message of a stream, that came back from the server.
    pub fn handle_message(&mut self, exchange: ExchangeId, bytes: &[u8], now: Now) {
        self.shared.courses.set_now(now);
        self.shared.take_message(exchange, bytes);
        self.run();
    }

    /// The server cannot be reached: no route, connection refused.
    pub fn handle_failure(&mut self, exchange: ExchangeId, now: Now) {
        self.shared.courses.set_now(now);
        self.shared.fail_exchange(exchange);
        self.run();
    }

    /// The exchange was given up for want of room here; its server is not to blame.
    pub fn handle_dropped(&mut self, exchange: ExchangeId, now: Now) {
        self.shared.courses.set_now(now);
        self.shared.drop_exchange(exchange);
        self.run();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.shared.courses.set_now(now);
        self.run();
    }

    fn run(&self) {
        self.shared.courses.run();
        self.shared.fly_refreshes();
        self.shared.fly_probe();
        self.shared.fly_looks();
        self.shared.fly_looks_at_keys();
        self.shared.courses.run();
    }

    /// Returns what is to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.shared.outputs.borrow_mut().pop_front()
    }

    /// Returns when [`Resolver::handle_timeout`] is to be called, on the clock of [`Now::since_start`].
    pub fn next_timeout(&self) -> Option<Duration> {
        self.shared.courses.next_timer()
    }

    /// Returns the latest recorded course of a question.
    pub fn trace(&self, question: &Question) -> Option<trace::Trace> {
        self.shared.traces.borrow().latest(question).cloned()
    }

    /// Says whether nobody out there can be reached.
    pub fn is_out(&self) -> bool {
        self.shared.is_out()
    }

    /// Takes the word of another resolver of this box that nobody out there can be reached: it is looked at once.
    pub fn suspect_outage(&mut self, now: Now) {
        self.shared.courses.set_now(now);
        self.shared.suspect_outage();
        self.run();
    }

    /// Takes the word of another resolver of this box that somebody answered.
    pub fn end_outage(&mut self, now: Now) {
        self.shared.courses.set_now(now);
        self.shared.note_answer();
        self.run();
    }

    /// Counts what is under way: questions, exchanges with servers, courses.
    pub fn under_way(&self) -> (usize, usize, usize) {
        let shared = &self.shared;
        (shared.flights.borrow().len(), shared.exchanges.borrow().len(), shared.courses.under_way())
    }

    /// Returns the number of entries in the RRset cache and the bytes of it and of the proofs.
    pub fn cache_fill(&self) -> (usize, usize) {
        let (entries, bytes) = self.shared.cache.borrow().fill();
        (entries, bytes + self.shared.proofs.borrow().bytes())
    }

    /// Writes the cache for [`Resolver::load`].
    pub fn save(&self, now: Now) -> Vec<u8> {
        snapshot::save(&self.shared.cache.borrow(), &self.shared.cuts.borrow(), now)
    }

    /// Takes what [`Resolver::save`] wrote, as far as it still holds; returns the number of entries.
    pub fn load(&mut self, bytes: &[u8], now: Now) -> usize {
        snapshot::load(&mut self.shared.cache.borrow_mut(), &mut self.shared.cuts.borrow_mut(), bytes, now)
    }

    /// Forgets all that was learnt: the clock has stepped.
    pub fn forget(&mut self) {
        self.shared.cache.borrow_mut().clear();
        *self.shared.trusts.borrow_mut() = chain::Trusts::default();
        self.shared.proofs.borrow_mut().clear();
        *self.shared.cuts.borrow_mut() = Cuts::default();
        self.shared.forget_failed_flights();
        self.shared.forget_clock();
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.courses.now().since_start
    }

    fn wall(&self) -> u64 {
        self.courses.now().wall
    }

    fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.random.borrow_mut())(&mut bytes);
        bytes
    }

    fn dice(&self) -> u32 {
        (u32::from(u16::from_be_bytes(self.random_bytes())) * 1000) >> 16
    }
}

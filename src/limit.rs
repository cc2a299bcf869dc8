//! Per-client limits in fixed memory: GCRA cells in a set-associative table.
//!
//! A client is an IPv4 address or an IPv6 /64. The table never grows: in a full set the cell whose bucket
//! is fullest is forgotten, that is the client about whom least would be lost. Cells are two relaxed
//! atomics; a race between two threads can let one request too many pass and nothing worse.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::IpAddr,
    num::NonZeroU32,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events a second, in the long run.
    pub per_second: NonZeroU32,
    /// Events at once, after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// Makes a rate; `None` if one of them is 0.
    pub const fn new(per_second: u32, burst: u32) -> Option<Self> {
        match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
            (Some(per_second), Some(burst)) => Some(Self { per_second, burst }),
            _ => None,
        }
    }

    fn interval_ns(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.get())
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/s burst {}", self.per_second, self.burst)
    }
}

/// Reads `200/s burst 1000`; the burst is the rate itself where it is left out.
impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no rate");
        let mut words = text.split_whitespace();
        let per_second = words.next().and_then(|word| word.strip_suffix("/s")).ok_or_else(wrong)?;
        let per_second: u32 = per_second.parse().map_err(|_| wrong())?;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, None, None) => per_second,
            (Some("burst"), Some(burst), None) => burst.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        Self::new(per_second, burst).ok_or_else(wrong)
    }
}

/// Who a limit counts: an IPv4 address, an IPv6 /64, or a wider IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    prefix: [u8; 16],
    length: u8,
}

impl Client {
    /// Returns the client that an address belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self { prefix: v4.to_ipv6_mapped().octets(), length: 128 },
            IpAddr::V6(v6) => Self::prefix(v6.octets(), 64),
        }
    }

    /// Returns the IPv6 /48 around a client, which one subscriber often holds whole; itself for IPv4.
    pub fn site(self) -> Self {
        if self.length == 64 { Self::prefix(self.prefix, 48) } else { self }
    }

    fn prefix(mut octets: [u8; 16], length: u8) -> Self {
        octets[usize::from(length / 8)..].fill(0);
        Self { prefix: octets, length }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match IpAddr::from(self.prefix).to_canonical() {
            IpAddr::V4(v4) => write!(f, "{v4}"),
            IpAddr::V6(v6) => write!(f, "{v6}/{}", self.length),
        }
    }
}

const WAYS: usize = 8;

/// One cell: whose it is (0: nobody's) and its theoretical arrival time, in nanoseconds since the table was
/// made.
#[derive(Default)]
struct Cell {
    tag: AtomicU64,
    arrival: AtomicU64,
}

/// A table of limits, shared by threads.
pub struct Limits {
    sets: Box<[[Cell; WAYS]]>,
    key: RandomState,
    epoch: Instant,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Limits({} bytes)", self.bytes())
    }
}

impl Limits {
    /// Makes a table for about `clients` clients (16 bytes each), rounded up to a power of two.
    pub fn new(clients: usize, now: Instant) -> Self {
        let sets = clients.div_ceil(WAYS).next_power_of_two();
        let sets = (0..sets).map(|_| Default::default()).collect();
        Self { sets, key: RandomState::new(), epoch: now }
    }

    /// Returns the size of the table in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// Counts one event of a client; an error says after how long the next one will be let through.
    pub fn check(&self, client: Client, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.check_tagged(self.key.hash_one(client), rate, now)
    }

    /// Counts one event under any key: for budgets of what is not an address.
    pub fn check_key(&self, key: impl std::hash::Hash, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.check_tagged(self.key.hash_one(key), rate, now)
    }

    fn check_tagged(&self, hash: u64, rate: Rate, now: Instant) -> Result<(), Duration> {
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let tag = hash | 1;
        // The low bit went into the tag, the set comes from the high half.
        let set = &self.sets[(hash >> 32) as usize & (self.sets.len() - 1)];
        let cell = set.iter().find(|cell| cell.tag.load(Ordering::Relaxed) == tag).unwrap_or_else(|| {
            let cell = set.iter().min_by_key(|cell| cell.arrival.load(Ordering::Relaxed)).expect("a set has cells");
            cell.tag.store(tag, Ordering::Relaxed);
            cell.arrival.store(0, Ordering::Relaxed);
            cell
        });
        let interval = rate.interval_ns();
        let tolerance = interval.saturating_mul(u64::from(rate.burst.get() - 1));
        let arrival = cell.arrival.load(Ordering::Relaxed).max(now);
        let early = arrival - now;
        if early > tolerance {
            return Err(Duration::from_nanos(early - tolerance));
        }
        cell.arrival.store(arrival.saturating_add(interval), Ordering::Relaxed);
        Ok(())
    }
}

/// Clients that are refused until a moment, in fixed memory; in a full set the one whose time is up first is forgotten.
pub struct Bans {
    /// Whose it is (0: nobody's), and until when, in milliseconds since the table was made.
    sets: Box<[[Cell; WAYS]]>,
    key: RandomState,
    epoch: Instant,
}

impl std::fmt::Debug for Bans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bans({} bytes)", size_of_val(&*self.sets))
    }
}

impl Bans {
    /// Makes a table for about so many clients (16 bytes each), rounded up to a power of two.
    pub fn new(clients: usize, now: Instant) -> Self {
        let sets = (0..clients.div_ceil(WAYS).next_power_of_two()).map(|_| Default::default()).collect();
        Self { sets, key: RandomState::new(), epoch: now }
    }

    /// Refuses a client for a while.
    pub fn ban(&self, client: Client, span: Duration, now: Instant) {
        let (tag, set) = self.place(client);
        let cell = set.iter().find(|cell| cell.tag.load(Ordering::Relaxed) == tag).unwrap_or_else(|| {
            set.iter().min_by_key(|cell| cell.arrival.load(Ordering::Relaxed)).expect("a set has cells")
        });
        cell.tag.store(tag, Ordering::Relaxed);
        cell.arrival.store(self.at(now + span), Ordering::Relaxed);
    }

    /// Returns how long a client is refused still.
    pub fn left(&self, client: Client, now: Instant) -> Option<Duration> {
        let (tag, set) = self.place(client);
        let cell = set.iter().find(|cell| cell.tag.load(Ordering::Relaxed) == tag)?;
        let left = cell.arrival.load(Ordering::Relaxed).checked_sub(self.at(now)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    fn place(&self, client: Client) -> (u64, &[Cell; WAYS]) {
        let hash = self.key.hash_one(client);
        (hash | 1, &self.sets[(hash >> 32) as usize & (self.sets.len() - 1)])
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate::new(10, 3).unwrap();

    #[test]
    fn a_burst_passes_and_the_next_waits_for_its_interval() {
        let now = Instant::now();
        let limits = Limits::new(64, now);
        let client = Client::of("192.0.2.1".parse().unwrap());

        let passed = (0..10).filter(|_| limits.check(client, TEN, now).is_ok()).count();

        assert_eq!(passed, 3);
        assert_eq!(limits.check(client, TEN, now), Err(Duration::from_millis(100)));
        assert_eq!(limits.check(client, TEN, now + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn addresses_of_one_64_are_one_client_and_of_one_48_one_site() {
        let client = |text: &str| Client::of(text.parse().unwrap());

        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_eq!(client("2001:db8:0:1::1").site(), client("2001:db8:0:2::1").site());
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }

    #[test]
    fn a_ban_ends_and_hits_one_client_alone() {
        let now = Instant::now();
        let bans = Bans::new(64, now);
        let client = |text: &str| Client::of(text.parse().unwrap());

        bans.ban(client("192.0.2.1"), Duration::from_secs(60), now);

        assert_eq!(bans.left(client("192.0.2.1"), now + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(bans.left(client("192.0.2.2"), now), None);
        assert_eq!(bans.left(client("192.0.2.1"), now + Duration::from_secs(60)), None);
        assert_eq!(client("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn a_million_clients_do_not_make_the_table_grow() {
        let now = Instant::now();
        let limits = Limits::new(1024, now);
        let before = limits.bytes();

        for number in 0..1_000_000_u32 {
            let _ = limits.check(Client::of(IpAddr::V4(number.into())), TEN, now);
        }

        assert_eq!(limits.bytes(), before);
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["200/s burst 1000", "5/s burst 5"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "200", "0/s", "200/s 1000", "200/s burst", "200/m", "1/s burst 2 3"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}

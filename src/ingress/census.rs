//! How many connections are open, in all and for one Internet client, and how many requests of strangers are at work,
//! in fixed memory. What each of them may hold is bounded where it is held, so these counts bound the whole.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{descriptors, limit::Client};

/// Connections of the house and of the tunnel, which strangers cannot use up.
const MOST_OF_HOUSE: u32 = 8192;
/// Each connection may need one descriptor towards the client and one towards an upstream, and the other
/// planes need some as well: so strangers get a quarter of what the process may have.
const DESCRIPTORS_EACH: u64 = 4;
/// Connections of one Internet client; a browser keeps six of HTTP/1.1 and one of HTTP/2.
const MOST_OF_ONE: u32 = 256;
const PLACES: usize = 8192;

/// Counts in two rows under two hashes; a client's count is the smaller one, so that two clients must
/// collide in both to share it.
#[derive(Debug)]
pub(super) struct Census {
    strangers: AtomicU32,
    most_strangers: AtomicU32,
    requests: AtomicU32,
    house: AtomicU32,
    rows: [Box<[AtomicU32]>; 2],
    /// Requests at work, as `rows` counts connections.
    at_work: [Box<[AtomicU32]>; 2],
    keys: [RandomState; 2],
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The house and the tunnel.
    House,
    /// A client from the Internet.
    Stranger(Client),
    /// A trusted proxy, which has connections of many.
    Proxy,
    /// A client behind a trusted proxy, whose connection is counted already.
    Behind(Client),
}

/// One counted connection.
#[derive(Debug)]
pub(super) struct Counted {
    census: Arc<Census>,
    holder: Holder,
    places: Option<[usize; 2]>,
}

impl Census {
    pub(super) fn new() -> Arc<Self> {
        let row = || (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self {
            strangers: AtomicU32::new(0),
            most_strangers: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            house: AtomicU32::new(0),
            rows: [row(), row()],
            at_work: [row(), row()],
            keys: Default::default(),
        })
    }

    /// Admits so many connections from the Internet, where the process may have as many descriptors as that takes.
    pub(super) fn set_most(&self, most: u32) {
        let room = u32::try_from(descriptors::limit() / DESCRIPTORS_EACH).unwrap_or(most);
        if room < most {
            tracing::info!(
                room,
                most,
                "the limit of open files leaves room for fewer connections than `max_connections`"
            );
        }
        self.most_strangers.store(most.min(room), Ordering::Relaxed);
    }

    /// Counts a request of a stranger that goes to work.
    pub(super) fn begin_request(&self, client: Client) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.of(client).iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
    }

    /// Takes it off again.
    pub(super) fn end_request(&self, client: Client) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.of(client).iter().for_each(|count| _ = count.fetch_sub(1, Ordering::Relaxed));
    }

    /// Returns how many requests of one stranger are at work.
    pub(super) fn requests_of(&self, client: Client) -> u32 {
        let counts = self.of(client).map(|count| count.load(Ordering::Relaxed));
        counts[0].min(counts[1])
    }

    fn of(&self, client: Client) -> [&AtomicU32; 2] {
        let places = self.places(client);
        [0, 1].map(|row: usize| &self.at_work[row][places[row]])
    }

    fn places(&self, client: Client) -> [usize; 2] {
        [0, 1].map(|row: usize| (self.keys[row].hash_one(client) % PLACES as u64) as usize)
    }

    /// Returns how many requests of strangers are at work.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a connection; `None` if it is one too many.
    pub(super) fn admit(self: &Arc<Self>, holder: Holder) -> Option<Counted> {
        let places = match holder {
            Holder::Stranger(client) | Holder::Behind(client) => Some(self.places(client)),
            Holder::House | Holder::Proxy => None,
        };
        // Made first, so that a refused connection is taken off again by its drop.
        let counted = Counted { census: self.clone(), holder, places };
        let room = self.all(holder).is_none_or(|(open, most)| open.fetch_add(1, Ordering::Relaxed) < most);
        let of_one = places.map(|places| {
            let counts = [0, 1].map(|row: usize| self.rows[row][places[row]].fetch_add(1, Ordering::Relaxed));
            counts[0].min(counts[1])
        });
        (room && of_one.is_none_or(|count| count < MOST_OF_ONE)).then_some(counted)
    }

    /// Returns the count of all that somebody's connections are part of, and its cap.
    fn all(&self, holder: Holder) -> Option<(&AtomicU32, u32)> {
        match holder {
            Holder::House => Some((&self.house, MOST_OF_HOUSE)),
            Holder::Stranger(_) | Holder::Proxy => Some((&self.strangers, self.most_strangers.load(Ordering::Relaxed))),
            Holder::Behind(_) => None,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some((open, _)) = self.census.all(self.holder) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(places) = self.places {
            for (row, place) in self.census.rows.iter().zip(places) {
                row[place].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_the_others_places() {
        let census = Census::new();
        census.set_most(u32::MAX);
        let client = |text: &str| Holder::Stranger(Client::of(text.parse().unwrap()));

        let held: Vec<_> = (0..1000).filter_map(|_| census.admit(client("203.0.113.1"))).collect();

        assert_eq!(held.len(), MOST_OF_ONE as usize);
        assert!(census.admit(client("203.0.113.2")).is_some());
        drop(held);
        assert!(census.admit(client("203.0.113.1")).is_some());
    }

    #[test]
    fn strangers_leave_room_for_the_house() {
        let census = Census::new();
        census.set_most(100);
        let stranger = |number: u32| Holder::Stranger(Client::of(std::net::IpAddr::V4(number.into())));

        let held: Vec<_> = (0..20_000).filter_map(|number| census.admit(stranger(number))).collect();

        assert_eq!(held.len(), 100);
        assert!(census.admit(Holder::House).is_some());
        census.set_most(101);
        assert!(census.admit(stranger(1)).is_some());
    }

    #[test]
    fn a_proxy_brings_many_and_each_of_them_has_its_share() {
        let census = Census::new();
        census.set_most(1000);
        let client = Holder::Behind(Client::of("203.0.113.1".parse().unwrap()));

        let proxied: Vec<_> = (0..600).filter_map(|_| census.admit(Holder::Proxy)).collect();
        let of_one: Vec<_> = (0..600).filter_map(|_| census.admit(client)).collect();

        assert_eq!((proxied.len(), of_one.len()), (600, MOST_OF_ONE as usize));
        drop((proxied, of_one));
        assert_eq!(census.strangers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn requests_are_counted_for_each_stranger() {
        let client = |last: u8| Client::of([203, 0, 113, last].into());
        let (census, one, other) = (Census::new(), client(1), client(2));

        (0..5).for_each(|_| census.begin_request(one));
        census.begin_request(other);

        assert_eq!((census.requests(), census.requests_of(one), census.requests_of(other)), (6, 5, 1));
        (0..5).for_each(|_| census.end_request(one));
        assert_eq!((census.requests(), census.requests_of(one)), (1, 0));
    }
}

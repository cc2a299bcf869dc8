//! How many connections are open, in all and for one Internet client, in fixed memory.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::limit::Client;

/// Connections in all.
const MOST: u32 = 8192;
/// Connections of one Internet client; a browser keeps six of HTTP/1.1 and one of HTTP/2.
const MOST_OF_ONE: u32 = 256;
const PLACES: usize = 8192;

/// Counts in two rows under two hashes; a client's count is the smaller one, so that two clients must
/// collide in both to share it.
#[derive(Debug)]
pub(super) struct Census {
    open: AtomicU32,
    rows: [Box<[AtomicU32]>; 2],
    keys: [RandomState; 2],
}

/// One counted connection.
#[derive(Debug)]
pub(super) struct Counted {
    census: Arc<Census>,
    places: Option<[usize; 2]>,
}

impl Census {
    pub(super) fn new() -> Arc<Self> {
        let row = || (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { open: AtomicU32::new(0), rows: [row(), row()], keys: Default::default() })
    }

    /// Counts a connection, of a client if that has a cap of its own; `None` if it is one too many.
    pub(super) fn admit(self: &Arc<Self>, client: Option<Client>) -> Option<Counted> {
        let places =
            client.map(|client| [0, 1].map(|row: usize| (self.keys[row].hash_one(client) % PLACES as u64) as usize));
        // Made first, so that a refused connection is taken off again by its drop.
        let counted = Counted { census: self.clone(), places };
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let of_one = places.map(|places| {
            let counts = [0, 1].map(|row: usize| self.rows[row][places[row]].fetch_add(1, Ordering::Relaxed));
            counts[0].min(counts[1])
        });
        (before < MOST && of_one.is_none_or(|count| count < MOST_OF_ONE)).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.census.open.fetch_sub(1, Ordering::Relaxed);
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
        let client = |text: &str| Some(Client::of(text.parse().unwrap()));

        let held: Vec<_> = (0..1000).filter_map(|_| census.admit(client("203.0.113.1"))).collect();

        assert_eq!(held.len(), MOST_OF_ONE as usize);
        assert!(census.admit(client("203.0.113.2")).is_some());
        drop(held);
        assert!(census.admit(client("203.0.113.1")).is_some());
    }
}

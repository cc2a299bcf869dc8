//! How many questions may wait for others: so many in all, and so many of one client.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{dns::resolver::budget::Means, limit::Client};

/// The bound on waiting questions.
#[derive(Debug)]
pub(crate) struct Room {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    clients: HashMap<Client, usize>,
}

/// A place in the room, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    client: Option<Client>,
    /// What may be spent on the question that it is for.
    pub(crate) means: Means,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// For anybody.
    All,
    /// For this client.
    Client,
}

impl Full {
    /// Returns the word for metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::All => "waiting",
            Self::Client => "waiting_of_client",
        }
    }
}

impl Room {
    /// Makes a room.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// Takes a place; without a client only the bound for all counts.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<Client>) -> Result<Place, Full> {
        let mut taken = self.lock();
        if taken.all >= self.all {
            return Err(Full::All);
        }
        if let Some(client) = client {
            let own = taken.clients.entry(client).or_default();
            if *own >= self.each {
                return Err(Full::Client);
            }
            *own += 1;
        }
        taken.all += 1;
        Ok(Place { room: self.clone(), client, means: Means::Full })
    }

    /// Returns how many places are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        taken.all -= 1;
        if let Some(client) = self.client
            && let Some(own) = taken.clients.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                taken.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_does_not_take_the_others_share() {
        let room = Room::new(3, 2);
        let client = |text: &str| Some(Client::of(text.parse().unwrap()));

        let first = [room.enter(client("192.0.2.1")).unwrap(), room.enter(client("192.0.2.1")).unwrap()];

        assert_eq!(room.enter(client("192.0.2.1")).unwrap_err(), Full::Client);
        let _second = room.enter(client("192.0.2.2")).unwrap();
        assert_eq!(room.enter(None).unwrap_err(), Full::All);
        drop(first);
        assert_eq!(room.taken(), 1);
        assert!(room.enter(client("192.0.2.1")).is_ok());
    }
}

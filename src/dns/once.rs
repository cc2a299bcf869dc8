//! What is done once in a while for each of many, in fixed memory.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// For whom it was done; who and when share a word.
#[derive(Debug)]
pub(crate) struct Once {
    done: Box<[AtomicU64]>,
    key: RandomState,
    /// Seconds.
    within: u64,
}

const PLACES: usize = 1024;

impl Once {
    /// Once in so many seconds.
    pub(crate) fn in_seconds(within: u64) -> Self {
        Self { done: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), key: RandomState::new(), within }
    }

    /// Says whether it is to be done for somebody at a second since 1970, and remembers that it was.
    pub(crate) fn is_due(&self, whom: impl Hash, now: u64) -> bool {
        let hash = self.key.hash_one(whom);
        let place = &self.done[hash as usize % PLACES];
        let word = hash >> 32 << 32 | now & 0xffff_ffff;
        let before = place.load(Relaxed);
        let ago = (now & 0xffff_ffff).saturating_sub(before & 0xffff_ffff);
        let is_done = before >> 32 == hash >> 32 && ago < self.within;
        if !is_done {
            place.store(word, Relaxed);
        }
        !is_done
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn each_has_its_turn_once_in_a_while() {
        let once = Once::in_seconds(60);
        let address: IpAddr = "2001:db8::1".parse().unwrap();

        assert!(once.is_due(address, 1000));
        assert!(!once.is_due(address, 1001));
        assert!(!once.is_due(address, 1059));
        assert!(once.is_due((address, 7), 1059), "somebody else");
        assert!(once.is_due(address, 1060));
    }
}

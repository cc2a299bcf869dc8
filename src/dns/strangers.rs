//! Addresses on the wire whose device is not known yet.
//!
//! A device may ask from an address that it made up a moment ago; the kernel learns whose that is when it answers.
//! Where devices are told apart, the first question over UDP is therefore answered with nothing but TC: that makes
//! the kernel look for the device, and the client ask again, over TCP or in a while, when its group is known.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Addresses that were told to ask again; which and when share a word.
#[derive(Debug)]
pub(crate) struct Strangers {
    told: Box<[AtomicU64]>,
    key: RandomState,
}

const PLACES: usize = 1024;

/// Seconds in which an address is told so once: a device that is not found by then has no way of being told apart.
const ONCE_IN: u64 = 60;

impl Default for Strangers {
    fn default() -> Self {
        Self { told: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), key: RandomState::new() }
    }
}

impl Strangers {
    /// Says whether this address is to ask again, and remembers that it was told so.
    pub(crate) fn must_ask_again(&self, address: IpAddr, now: u64) -> bool {
        let hash = self.key.hash_one(address);
        let place = &self.told[hash as usize % PLACES];
        let word = hash >> 32 << 32 | now & 0xffff_ffff;
        let before = place.load(Relaxed);
        let told = before >> 32 == hash >> 32 && (now & 0xffff_ffff).saturating_sub(before & 0xffff_ffff) < ONCE_IN;
        if !told {
            place.store(word, Relaxed);
        }
        !told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_once_in_a_minute() {
        let strangers = Strangers::default();
        let address = "2001:db8::1".parse().unwrap();

        assert!(strangers.must_ask_again(address, 1000));
        assert!(!strangers.must_ask_again(address, 1001));
        assert!(!strangers.must_ask_again(address, 1059));
        assert!(strangers.must_ask_again(address, 1060));
    }
}

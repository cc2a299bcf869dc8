//! What is known of clients from the Internet beyond single requests: who is refused at the door for a while, and
//! whether they can be told apart at all.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::limit::{Bans, Client};

/// Clients that can be refused at the same time.
const BANNED: usize = 4096;
/// How long who tries too many passwords is refused.
pub(super) const BAN: Duration = Duration::from_secs(60);
/// Requests after which it is asked again whether clients can be told apart.
const WINDOW: u32 = 200;

/// The memory of the door; it survives a reload.
#[derive(Debug)]
pub(super) struct Strangers {
    pub(super) bans: Bans,
    seen: AtomicU32,
    relayed: AtomicU32,
    masked: AtomicBool,
}

impl Strangers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bans: Bans::new(BANNED, now),
            seen: AtomicU32::new(0),
            relayed: AtomicU32::new(0),
            masked: AtomicBool::new(false),
        }
    }

    /// Counts a request; `relayed` is one that comes from a gateway's address.
    pub(super) fn count(&self, relayed: bool) {
        if relayed {
            self.relayed.fetch_add(1, Ordering::Relaxed);
        }
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 < WINDOW {
            return;
        }
        let (seen, relayed) = (self.seen.swap(0, Ordering::Relaxed), self.relayed.swap(0, Ordering::Relaxed));
        let masked = u64::from(relayed) * 10 > u64::from(seen) * 9;
        if masked != self.masked.swap(masked, Ordering::Relaxed) {
            match masked {
                true => tracing::warn!(
                    "nearly all requests from the Internet come from a gateway's address: it hides the clients, so \
                     limits count by route and nobody is refused at the door"
                ),
                false => tracing::info!("clients from the Internet can be told apart again"),
            }
        }
    }

    /// Says whether a gateway puts its own address in the place of the clients' (source NAT).
    pub(super) fn are_masked(&self) -> bool {
        self.masked.load(Ordering::Relaxed)
    }

    /// Refuses a client for a while.
    pub(super) fn ban(&self, client: Client, why: &'static str, now: Instant) {
        if self.bans.left(client, now).is_none() {
            tracing::warn!(%client, why, seconds = BAN.as_secs(), "a client is refused for a while");
        }
        self.bans.ban(client, BAN, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_hides_the_clients_is_noticed_and_forgotten() {
        let strangers = Strangers::new(Instant::now());

        (0..WINDOW).for_each(|number| strangers.count(number % 2 == 0));
        assert!(!strangers.are_masked());
        (0..WINDOW).for_each(|number| strangers.count(number != 0));
        assert!(strangers.are_masked());
        (0..WINDOW).for_each(|_| strangers.count(false));
        assert!(!strangers.are_masked());
    }
}

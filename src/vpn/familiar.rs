//! The places that a peer came in from lately: what is no news, and how much news of one peer is written down.
//!
//! A peer needs no answer to move: sealed packets under a thousand sources are a thousand places. So a place is an
//! address or an IPv6 /64, and each key has a budget of lines: whoever moves faster is summed up, and cannot push what
//! others did out of the audit log.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::limit::Client;

/// Places of a peer that are no news.
const PLACES: usize = 16;
/// Lines of a peer in a row.
const LINES: u32 = 16;
/// And then one each time: less than a hundred a day, of which the log holds some ten thousand.
const ANOTHER_AFTER: Duration = Duration::from_secs(15 * 60);

/// The places of one peer.
#[derive(Debug, Default)]
pub(super) struct Familiar {
    places: VecDeque<Client>,
    /// Lines that were written and not yet earned back, and since when that is so.
    written: u32,
    since: Option<Instant>,
    /// New places that no line tells of.
    unsaid: u64,
}

impl Familiar {
    /// Notes a place that is none to tell of.
    pub(super) fn know(&mut self, from: IpAddr) {
        if self.places.is_empty() {
            self.places.push_back(Client::of(from));
        }
    }

    /// Notes where the peer is, and returns what is to be written about it.
    pub(super) fn meet(&mut self, from: IpAddr, now: Instant) -> Option<String> {
        let place = Client::of(from);
        if self.places.contains(&place) {
            return None;
        }
        if self.places.len() == PLACES {
            self.places.pop_front();
        }
        self.places.push_back(place);
        self.earn(now);
        if self.written >= LINES {
            self.unsaid += 1;
            return None;
        }
        self.written += 1;
        Some(match std::mem::take(&mut self.unsaid) {
            0 => format!("from {from} for the first time"),
            unsaid => format!("from {from} for the first time, and from {unsaid} other places before it"),
        })
    }

    fn earn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / ANOTHER_AFTER.as_secs();
        if earned > 0 {
            self.written = self.written.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_place() {
        let (mut familiar, now) = (Familiar::default(), Instant::now());
        let mut meet = |from: &str| familiar.meet(from.parse().unwrap(), now).is_some();

        assert!(meet("2001:db8:1:1::1") && meet("192.0.2.1") && meet("192.0.2.2"));
        for again in ["2001:db8:1:1::2", "2001:db8:1:1:ffff::", "192.0.2.1"] {
            assert!(!meet(again), "{again}");
        }
        assert!(meet("2001:db8:1:2::1"));
    }

    #[test]
    fn a_peer_under_a_hundred_thousand_sources_writes_few_lines() {
        let (mut familiar, begin) = (Familiar::default(), Instant::now());
        let source = |number: u32| IpAddr::from((0x0b00_0000 + number).to_be_bytes());

        // A day of it.
        let lines = (0..100_000)
            .filter_map(|number| familiar.meet(source(number), begin + Duration::from_secs(86_400) * number / 100_000));
        let lines: Vec<String> = lines.collect();

        assert!((16..=16 + 96).contains(&lines.len()), "{}", lines.len());
        assert!(lines.last().unwrap().contains("other places"), "{:?}", lines.last());
    }
}

//! How long one thing was up: sums of hours and days, bounded in number.

use std::collections::BTreeMap;

use super::machine::State;

/// Seconds.
pub(super) const HOUR: i64 = 3600;
const HOURS_OF_A_DAY: i64 = 24;
/// Days that are kept.
pub(super) const DAYS: i64 = 90;
/// Hours that wait for a disk that does not take them.
const UNSAVED: usize = 48;

/// What a span of time came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// Milliseconds that it worked.
    pub(super) up: u64,
    /// Milliseconds that it did not.
    pub(super) down: u64,
    /// Milliseconds of which nothing is known.
    pub(super) unknown: u64,
    /// Looks that went well.
    pub(super) looks: u64,
    /// Milliseconds that these took together.
    pub(super) millis: u64,
    /// Milliseconds of the slowest.
    pub(super) slowest: u64,
}

impl Sum {
    /// Adds another span.
    pub(super) fn add(&mut self, other: &Self) {
        self.up += other.up;
        self.down += other.down;
        self.unknown += other.unknown;
        self.looks += other.looks;
        self.millis += other.millis;
        self.slowest = self.slowest.max(other.slowest);
    }

    /// Counts milliseconds that it was in a state. A failure that is not believed yet is none.
    pub(super) fn count(&mut self, state: State, millis: u64) {
        match state {
            State::Up | State::Suspect => self.up += millis,
            State::Down | State::Recovering => self.down += millis,
            State::Unknown => self.unknown += millis,
        }
    }

    /// Returns thousandths of the known time that it was up; nothing if none of it is known.
    pub(super) fn permille(&self) -> Option<u16> {
        let known = self.up + self.down;
        u16::try_from((self.up * 1000).checked_div(known)?).ok()
    }
}

/// The sums of one thing. Hours and days are numbered since 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    hours: BTreeMap<i64, Sum>,
    days: BTreeMap<i64, Sum>,
    /// What no disk has yet.
    unsaved: BTreeMap<i64, Sum>,
}

impl Ledger {
    /// Adds what happened in an hour.
    pub(super) fn add(&mut self, hour: i64, sum: &Sum) {
        self.recall(hour, sum);
        self.unsaved.entry(hour).or_default().add(sum);
        shorten(&mut self.unsaved, UNSAVED);
    }

    /// Adds what is on a disk.
    pub(super) fn recall(&mut self, hour: i64, sum: &Sum) {
        self.hours.entry(hour).or_default().add(sum);
        self.days.entry(hour.div_euclid(HOURS_OF_A_DAY)).or_default().add(sum);
        shorten(&mut self.hours, HOURS_OF_A_DAY as usize);
        shorten(&mut self.days, DAYS as usize);
    }

    /// Returns what is to be written, once.
    pub(super) fn take_unsaved(&mut self) -> BTreeMap<i64, Sum> {
        std::mem::take(&mut self.unsaved)
    }

    /// Returns a bar for each of the last 24 hours, the oldest first.
    pub(super) fn hours(&self, now: i64) -> Vec<Sum> {
        last(&self.hours, now.div_euclid(HOUR), HOURS_OF_A_DAY)
    }

    /// Returns a bar for each of the last days, the oldest first.
    pub(super) fn days(&self, now: i64, count: i64) -> Vec<Sum> {
        last(&self.days, now.div_euclid(HOUR * HOURS_OF_A_DAY), count)
    }
}

fn last(sums: &BTreeMap<i64, Sum>, slot: i64, count: i64) -> Vec<Sum> {
    (slot - count + 1..=slot).map(|slot| sums.get(&slot).copied().unwrap_or_default()).collect()
}

/// The oldest go first.
fn shorten(sums: &mut BTreeMap<i64, Sum>, most: usize) {
    while sums.len() > most {
        sums.pop_first();
    }
}

/// Puts bars together.
pub(super) fn total(sums: &[Sum]) -> Sum {
    sums.iter().fold(Sum::default(), |mut all, sum| {
        all.add(sum);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_end_now_and_what_is_not_known_does_not_count() {
        let mut ledger = Ledger::default();
        let mut sum = Sum::default();
        sum.count(State::Up, 1000);
        sum.count(State::Suspect, 800);
        sum.count(State::Down, 150);
        sum.count(State::Recovering, 50);
        sum.count(State::Unknown, 1600);
        let now = 500 * 24 * HOUR + 5 * HOUR + 17;

        ledger.add(500 * 24 + 5, &sum);
        ledger.add(499 * 24, &sum);

        assert_eq!(sum.permille(), Some(900));
        assert_eq!(Sum::default().permille(), None);
        let hours = ledger.hours(now);
        assert_eq!((hours.len(), hours[23], hours[22]), (24, sum, Sum::default()));
        let days = ledger.days(now, 30);
        assert_eq!((days.len(), days[29], days[28], days[27]), (30, sum, sum, Sum::default()));
        assert_eq!(total(&days).permille(), Some(900));
    }

    #[test]
    fn it_does_not_grow() {
        let mut ledger = Ledger::default();
        for hour in 0..24 * 200 {
            ledger.add(hour, &Sum { up: HOUR as u64, ..Sum::default() });
        }

        assert_eq!((ledger.hours.len(), ledger.days.len(), ledger.unsaved.len()), (24, 90, UNSAVED));
    }
}

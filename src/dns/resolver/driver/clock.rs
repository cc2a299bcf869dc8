//! The core's time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{LONGEST_EXCHANGE, Settings};
use crate::dns::resolver::Now;

/// A clock that goes off by more than this was set.
const STEP: Duration = Duration::from_secs(300);

/// The core's time from the machine's two clocks.
pub(super) struct Clock {
    started: Instant,
    wall_started: Duration,
    settings: Settings,
    /// How much further the wall clock went than the monotonic one, as last seen.
    ahead: i64,
    /// What the core's monotonic time is ahead of the machine's.
    added: Duration,
}

impl Clock {
    pub(super) fn new(settings: Settings) -> Self {
        Self { started: Instant::now(), wall_started: wall(), settings, ahead: 0, added: Duration::ZERO }
    }

    /// Returns the time, and whether the wall clock was set since the last call.
    pub(super) fn now(&mut self) -> (Now, bool) {
        self.at(self.started.elapsed(), wall())
    }

    fn at(&mut self, elapsed: Duration, wall: Duration) -> (Now, bool) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let ahead = millis(wall) - millis(self.wall_started) - millis(elapsed);
        let step = ahead - self.ahead;
        let mut stepped = false;
        if self.settings.follow_wall {
            // Time never goes back for the core.
            if step > 0 {
                self.added += Duration::from_millis(step.unsigned_abs());
            }
            self.ahead = ahead;
        } else if step.unsigned_abs() > u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX) {
            self.ahead = ahead;
            stepped = self.settings.fixed_time.is_none();
        }
        let wall = self.settings.fixed_time.unwrap_or(wall.as_secs());
        (Now { since_start: elapsed + self.added, wall }, stepped)
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        let elapsed = at.saturating_sub(self.added);
        self.started.checked_add(elapsed).unwrap_or_else(|| Instant::now() + LONGEST_EXCHANGE)
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_time_never_goes_back() {
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(Settings::default());
        let began = clock.wall_started;

        assert!(!clock.at(seconds(10), began + seconds(11)).1);
        assert!(clock.at(seconds(11), began + seconds(11 + 1000)).1);
        assert!(!clock.at(seconds(12), began + seconds(12 + 1000)).1);
        let (now, stepped) = clock.at(seconds(13), began);
        assert!(stepped);
        assert_eq!(now, Now { since_start: seconds(13), wall: began.as_secs() });
    }

    #[test]
    fn cached_data_ages_by_the_wall_clock_where_that_is_wanted() {
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(Settings { follow_wall: true, fixed_time: Some(7), ..Settings::default() });
        let began = clock.wall_started;

        let times = [(1, 1), (2, 3602), (3, 3), (4, 104)].map(|(elapsed, wall)| {
            let (now, stepped) = clock.at(seconds(elapsed), began + seconds(wall));
            assert!(!stepped && now.wall == 7);
            now.since_start.as_secs()
        });

        assert_eq!(times, [1, 3602, 3603, 3704]);
    }
}

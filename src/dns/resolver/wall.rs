//! The core's time, made of the machine's two clocks: one that only goes on, and one that can be set.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Now;

/// A clock that goes off by more than this was set.
const STEP: Duration = Duration::from_secs(300);
/// Milliseconds that it must be set by to count where cached data ages by it.
const LEAST_STEP: u64 = 1000;
/// Farther away than anybody waits.
const LATER: Duration = Duration::from_secs(15);

/// What holds of the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Signatures are checked against this second since 1970 instead of the clock.
    pub fixed: Option<u64>,
    /// Cached data ages by the wall clock, also when that is set.
    pub follow_wall: bool,
    /// No clock that shows less is right.
    pub floor: u64,
}

/// Both clocks.
#[derive(Debug)]
pub struct Wall {
    started: Instant,
    wall_started: Duration,
    bounds: Bounds,
    /// How much further the wall clock went than the monotonic one, as last seen.
    ahead: i64,
    /// What the core's monotonic time is ahead of the machine's.
    added: Duration,
    behind: bool,
}

/// What the clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time.
    pub now: Now,
    /// The wall clock was set since the last reading.
    pub stepped: bool,
    /// It shows less than the floor.
    pub behind: bool,
}

impl Wall {
    /// Begins now.
    pub fn new(bounds: Bounds) -> Self {
        let wall_started = system();
        let behind = wall_started.as_secs() < bounds.floor;
        Self { started: Instant::now(), wall_started, bounds, ahead: 0, added: Duration::ZERO, behind }
    }

    /// Reads both.
    pub fn read(&mut self) -> Reading {
        self.at(self.started.elapsed(), system())
    }

    fn at(&mut self, elapsed: Duration, wall: Duration) -> Reading {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let ahead = millis(wall) - millis(self.wall_started) - millis(elapsed);
        let step = ahead - self.ahead;
        let mut stepped = false;
        if self.bounds.follow_wall {
            // The clocks are read one after the other, which can take a while and is no step.
            if step.unsigned_abs() >= LEAST_STEP {
                // Time never goes back for the core.
                self.added += Duration::from_millis(u64::try_from(step).unwrap_or(0));
                self.ahead = ahead;
            }
        } else {
            let behind = wall.as_secs() < self.bounds.floor;
            // Crossing the floor is a step too, however small.
            if std::mem::replace(&mut self.behind, behind) != behind
                || step.unsigned_abs() > u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX)
            {
                self.ahead = ahead;
                stepped = self.bounds.fixed.is_none();
            }
        }
        let wall = self.bounds.fixed.unwrap_or(wall.as_secs().max(self.bounds.floor));
        Reading { now: Now { since_start: elapsed + self.added, wall }, stepped, behind: self.behind }
    }

    /// Returns the machine's instant at which the core's time is this.
    pub fn instant(&self, at: Duration) -> Instant {
        let elapsed = at.saturating_sub(self.added);
        self.started.checked_add(elapsed).unwrap_or_else(|| Instant::now() + LATER)
    }
}

fn system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_and_time_never_goes_back() {
        let mut clock = Wall::new(Bounds::default());
        let began = clock.wall_started;

        assert!(!clock.at(seconds(10), began + seconds(11)).stepped);
        assert!(clock.at(seconds(11), began + seconds(11 + 1000)).stepped);
        assert!(!clock.at(seconds(12), began + seconds(12 + 1000)).stepped);
        let reading = clock.at(seconds(13), began);
        let now = Now { since_start: seconds(13), wall: began.as_secs() };
        assert_eq!(reading, Reading { now, stepped: true, behind: false });
    }

    #[test]
    fn cached_data_ages_by_the_wall_clock_where_that_is_wanted() {
        let mut clock = Wall::new(Bounds { follow_wall: true, fixed: Some(7), floor: 0 });
        let began = clock.wall_started;

        let times = [(1, 1), (2, 3602), (3, 3), (4, 104)].map(|(elapsed, wall)| {
            let reading = clock.at(seconds(elapsed), began + seconds(wall));
            assert!(!reading.stepped && reading.now.wall == 7);
            reading.now.since_start.as_secs()
        });

        assert_eq!(times, [1, 3602, 3603, 3704]);
    }

    #[test]
    fn clocks_that_are_not_read_at_the_same_moment_make_no_time_pass() {
        let mut clock = Wall::new(Bounds { follow_wall: true, ..Bounds::default() });
        let began = clock.wall_started;

        for round in 0..10_000_u64 {
            let elapsed = Duration::from_millis(round);
            clock.at(elapsed, began + elapsed + Duration::from_millis(round % 2 * 40));
        }

        assert_eq!(clock.at(seconds(10), began + seconds(10)).now.since_start, seconds(10));
    }

    #[test]
    fn below_the_floor_it_is_the_floor_until_the_clock_is_set() {
        let floor = system().as_secs() + 30 * 86400;
        let mut clock = Wall::new(Bounds { floor, ..Bounds::default() });
        let began = clock.wall_started;

        let before = clock.at(seconds(5), began + seconds(5));
        // 100 s beyond the floor: small steps count where the floor is crossed.
        let after = clock.at(seconds(6), seconds(floor + 100));
        let later = clock.at(seconds(7), seconds(floor + 101));

        assert_eq!((before.now.wall, before.behind, before.stepped), (floor, true, false));
        assert_eq!((after.now.wall, after.behind, after.stepped), (floor + 100, false, true));
        assert_eq!((later.now.wall, later.behind, later.stepped), (floor + 101, false, false));
    }
}

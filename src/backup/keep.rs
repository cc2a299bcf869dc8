//! When the next backup is due, and which of the old ones go.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

const BEFORE: &str = "hearthgate-";
const AFTER: &str = ".age";
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// After one that failed.
const AGAIN: Duration = Duration::from_secs(15 * 60);

/// Returns how a backup of a moment is called.
pub fn file_name(made: Timestamp) -> String {
    format!("{BEFORE}{}{AFTER}", made.to_zoned(TimeZone::UTC).strftime(TIME))
}

/// Returns when a backup was made, if that is what a file is called.
pub fn made_at(name: &str) -> Option<Timestamp> {
    let time = name.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let made = jiff::civil::DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (file_name(made) == name).then_some(made)
}

/// Says whether one is due, where the last that succeeded and the last that failed are known. A last one in the future
/// counts as none: the clock was wrong then or is now.
pub fn due(now: Timestamp, succeeded: Option<Timestamp>, failed: Option<Timestamp>, every: Duration) -> bool {
    let is_over = |since: Option<Timestamp>, span: Duration| {
        since.is_none_or(|since| Duration::try_from(now.duration_since(since)).map_or(true, |passed| passed >= span))
    };
    is_over(succeeded, every) && is_over(failed, AGAIN.min(every))
}

/// Returns which of the files of a folder go: of ours, all but the newest so many.
pub fn surplus(names: impl IntoIterator<Item = String>, keep: usize) -> Vec<String> {
    let mut ours: Vec<String> = names.into_iter().filter(|name| made_at(name).is_some()).collect();
    ours.sort();
    ours.truncate(ours.len().saturating_sub(keep));
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_764_000_000 + hour * 3600).unwrap()
    }

    #[test]
    fn one_is_due_when_the_last_is_old_enough_and_a_failed_one_is_tried_again_soon() {
        let day = Duration::from_secs(86_400);
        assert!(due(at(0), None, None, day));
        assert!(!due(at(23), Some(at(0)), None, day));
        assert!(due(at(24), Some(at(0)), None, day));
        assert!(!due(at(24), Some(at(0)), Some(at(24)), day));
        assert!(due(at(25), Some(at(0)), Some(at(24)), day));
        assert!(due(at(0), Some(at(100)), None, day));
    }

    #[test]
    fn only_old_ones_of_ours_go() {
        let ours: Vec<String> = (0..4).map(|hour| file_name(at(hour))).collect();
        let others = ["notes.txt", "hearthgate-x.age", "hearthgate-20261340T000000Z.age", "hearthgate-.age"];
        let all = || ours.iter().rev().cloned().chain(others.map(str::to_owned));

        assert_eq!(surplus(all(), 3), ours[..1]);
        assert!(surplus(all(), 4).is_empty() && surplus(all(), 9).is_empty());
        assert_eq!(made_at(&ours[0]), Some(at(0)));
    }
}

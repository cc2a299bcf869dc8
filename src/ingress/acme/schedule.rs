//! When something is done: decided over values, with the time and the dice as arguments.

use super::kept::Progress;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The first wait after a failure; it doubles each time.
const FIRST_WAIT: u64 = 5 * MINUTE;
const LONGEST_WAIT: u64 = 12 * HOUR;
/// A CA that says when to come again is believed up to this.
const LONGEST_RETRY_AFTER: u64 = 2 * DAY;
/// RFC 9773 §4.3.3: how often a window is asked for, whatever the CA says.
const OFTENEST_WINDOW: u64 = HOUR;
const SELDOMEST_WINDOW: u64 = DAY;
/// Certificates that live no longer than this are renewed at half their life (those of six days), others when a
/// third is left.
const SHORT: u64 = 10 * DAY;

/// A number between 0 and 1, thrown.
pub(super) fn dice() -> f64 {
    let mut bytes = [0; 4];
    // Without a random source there is no jitter, and nothing else is lost.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// What an order needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An attempt, now.
    Order,
    /// The CA's window, now.
    Window,
    /// Nothing before this second.
    Wait(u64),
}

/// The certificate that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

/// Decides what is next. `wanted` says that the certificate is what the configuration asks for today.
pub(super) fn next(progress: &Progress, life: Option<Life>, wanted: bool, now: u64) -> Next {
    let due = match life {
        Some(life) if wanted => due(progress, life),
        _ => 0,
    };
    if due <= now {
        return if progress.not_before <= now { Next::Order } else { Next::Wait(progress.not_before) };
    }
    if progress.ask_window_at <= now { Next::Window } else { Next::Wait(due.min(progress.ask_window_at)) }
}

/// When a certificate is renewed: at the moment that was chosen, but never in the last tenth of its life.
pub(super) fn due(progress: &Progress, life: Life) -> u64 {
    let latest = life.not_after - life.not_after.saturating_sub(life.not_before) / 10;
    progress.renew_at.unwrap_or_else(|| renewal(life, 0.5)).min(latest)
}

/// When a certificate is renewed that nobody gives a window for.
pub(super) fn renewal(life: Life, dice: f64) -> u64 {
    let span = life.not_after.saturating_sub(life.not_before);
    let latest = if span <= SHORT { span / 2 } else { span / 3 * 2 };
    // A twentieth of its life earlier or not, so that a house full of certificates does not ask at once.
    life.not_before + latest - part(span / 20, dice)
}

/// A moment within a window.
pub(super) fn within(start: u64, end: u64, dice: f64) -> u64 {
    start + part(end.saturating_sub(start), dice)
}

/// When a window is asked for again.
pub(super) fn window_again(retry_after: u64) -> u64 {
    retry_after.clamp(OFTENEST_WINDOW, SELDOMEST_WINDOW)
}

/// How long to wait after so many failures.
pub(super) fn back_off(failures: u32, retry_after: Option<u64>, dice: f64) -> u64 {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    let jittered = doubled - part(doubled / 5, dice);
    jittered.max(retry_after.unwrap_or(0).min(LONGEST_RETRY_AFTER))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "of seconds")]
fn part(whole: u64, dice: f64) -> u64 {
    (whole as f64 * dice.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { not_before: 1_000_000, not_after: 1_000_000 + 90 * DAY };

    #[test]
    fn a_certificate_is_renewed_in_time_and_a_short_one_at_half_its_life() {
        for dice in [0.0, 0.5, 1.0] {
            let left = LIFE.not_after - renewal(LIFE, dice);
            assert!((30 * DAY..=35 * DAY).contains(&left), "{left}");
            let short = Life { not_before: 0, not_after: 6 * DAY };
            let left = short.not_after - renewal(short, dice);
            assert!((3 * DAY..=4 * DAY).contains(&left), "{left}");
        }
    }

    #[test]
    fn waits_double_up_to_half_a_day_and_the_ca_may_ask_for_more() {
        assert_eq!(back_off(1, None, 0.0), 5 * MINUTE);
        assert_eq!(back_off(2, None, 0.0), 10 * MINUTE);
        assert_eq!(back_off(1, None, 1.0), 4 * MINUTE);
        assert_eq!(back_off(40, None, 0.0), 12 * HOUR);
        assert_eq!(back_off(1, Some(3 * HOUR), 0.3), 3 * HOUR);
        assert_eq!(back_off(1, Some(u64::MAX), 0.3), 2 * DAY);
    }

    #[test]
    fn a_failure_is_not_forgotten_by_a_restart() {
        let progress = Progress { failures: 3, not_before: 500, ..Progress::default() };

        assert_eq!(next(&progress, None, true, 400), Next::Wait(500));
        assert_eq!(next(&progress, None, true, 500), Next::Order);
    }

    #[test]
    fn the_window_of_the_ca_comes_before_our_own_reckoning() {
        let quiet = Progress { ask_window_at: u64::MAX, ..Progress::default() };
        let early = Progress { renew_at: Some(LIFE.not_before + DAY), ..quiet.clone() };

        assert_eq!(next(&quiet, Some(LIFE), true, LIFE.not_before + DAY), Next::Wait(renewal(LIFE, 0.5)));
        assert_eq!(next(&early, Some(LIFE), true, LIFE.not_before + DAY), Next::Order);
        let late = Progress { renew_at: Some(u64::MAX), ..quiet.clone() };
        assert_eq!(next(&late, Some(LIFE), true, LIFE.not_before), Next::Wait(LIFE.not_after - 9 * DAY));
        assert_eq!(next(&Progress::default(), Some(LIFE), true, LIFE.not_before), Next::Window);
        assert_eq!(next(&quiet, Some(LIFE), false, LIFE.not_before), Next::Order, "another directory is asked for");
    }
}

//! Spans of the week, in the time of the house: `sun-thu 21:00-07:00`.
//!
//! A span belongs to the day that it begins on and may end on the next one. It begins when the clock on the wall
//! first shows its beginning or has passed it, and ends when that clock first shows its end or has passed it: an
//! hour that is skipped in spring ends or begins it at once, and one that comes twice in autumn counts once.

use std::str::FromStr;

use jiff::{
    Span as Days, Timestamp,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

/// Spans of the week; none is never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<WeekSpan>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeekSpan {
    /// A bit for each day that it begins on, Monday's the lowest.
    days: u8,
    /// Minutes from midnight.
    from: u16,
    /// Minutes from the same midnight; more than a day's if it ends on the next.
    to: u16,
}

/// What spans say of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// The moment is in one of them.
    pub(crate) inside: bool,
    /// The second since 1970 at which that may change next.
    pub(crate) until: u64,
}

const DAY: u16 = 24 * 60;
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Whatever happens, it is looked again after a week.
const WEEK: u64 = 7 * 86_400;

impl Spans {
    /// Puts spans together.
    pub fn new(spans: impl IntoIterator<Item = WeekSpan>) -> Self {
        Self(spans.into_iter().collect())
    }

    /// Says that there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether a moment, in seconds since 1970, is in one of them, and until when that holds.
    pub(crate) fn at(&self, now: u64, zone: &TimeZone) -> Now {
        let mut found = Now { inside: false, until: now.saturating_add(WEEK) };
        let moment = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok());
        let Some(today) = moment.map(|moment| zone.to_datetime(moment).date()) else { return found };
        for span in &self.0 {
            // What began yesterday may last until this night, and a zone may skip a day.
            for day in -2..=8_i64 {
                let Ok(date) = today.checked_add(Days::new().days(day)) else { continue };
                let weekday = date.weekday().to_monday_zero_offset();
                if span.days >> weekday & 1 == 0 {
                    continue;
                }
                let (Some(begin), Some(end)) = (reached(date, span.from, zone), reached(date, span.to, zone)) else {
                    continue;
                };
                found.inside |= begin <= now && now < end;
                for change in [begin, end].into_iter().filter(|change| *change > now) {
                    found.until = found.until.min(change);
                }
            }
        }
        found
    }
}

/// Returns the second since 1970 at which the clock first shows this, or has passed it.
fn reached(date: Date, minutes: u16, zone: &TimeZone) -> Option<u64> {
    let date = date.checked_add(Days::new().days(i64::from(minutes / DAY))).ok()?;
    let minutes = i8::try_from(minutes % DAY / 60).ok().zip(i8::try_from(minutes % 60).ok());
    let (hour, minute) = minutes?;
    let wanted = DateTime::from_parts(date, jiff::civil::time(hour, minute, 0, 0));
    let moment = match zone.to_ambiguous_timestamp(wanted).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wanted).ok()?,
        // It comes twice: the first time counts.
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wanted).ok()?,
        // It does not come at all: it has passed when the clock jumps.
        AmbiguousOffset::Gap { after, .. } => {
            let earlier = after.to_timestamp(wanted).ok()?;
            zone.following(earlier).next()?.timestamp()
        }
    };
    u64::try_from(moment.as_second()).ok()
}

/// Reads `sun-thu 21:00-07:00`, `sat,sun 08:00-24:00`, `21:00-07:00` for every day.
impl FromStr for WeekSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (days, times) = match (words.next(), words.next(), words.next()) {
            (Some(times), None, None) => (0x7f, times),
            (Some(days), Some(times), None) => (read_days(days)?, times),
            _ => return Err(format!("\"{text}\" is no span of time")),
        };
        let (from, to) = times.split_once('-').ok_or_else(|| format!("\"{times}\" has no end"))?;
        let (from, mut to) = (read_time(from)?, read_time(to)?);
        if from == to || from == DAY {
            return Err(format!("\"{times}\" ends when it begins"));
        }
        if to < from {
            to += DAY;
        }
        Ok(Self { days, from, to })
    }
}

fn read_days(text: &str) -> Result<u8, String> {
    let place = |name: &str| {
        let found = NAMES.iter().position(|day| name.eq_ignore_ascii_case(day));
        found.ok_or_else(|| format!("\"{name}\" is no day: they are {}", NAMES.join(", ")))
    };
    let mut days = 0;
    for word in text.split(',') {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (place(first)?, place(last)?);
        let count = (last + 7 - first) % 7;
        for day in (first..).take(count + 1) {
            days |= 1 << (day % 7);
        }
    }
    Ok(days)
}

fn read_time(text: &str) -> Result<u16, String> {
    let wrong = || format!("\"{text}\" is no time of the day, as \"07:00\"");
    let (hour, minute) = text.split_once(':').filter(|(_, minute)| minute.len() == 2).ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()));
    match (number(hour), number(minute)) {
        (Some(24), Some(0)) => Ok(DAY),
        (Some(hour @ 0..24), Some(minute @ 0..60)) => Ok(hour * 60 + minute),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Option<TimeZone> {
        let zone = TimeZone::get(name).ok();
        if zone.is_none() {
            eprintln!("SKIPPED: this box knows no time zone \"{name}\"");
        }
        zone
    }

    fn spans(texts: &[&str]) -> Spans {
        Spans::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    fn second(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_second()).unwrap()
    }

    #[test]
    fn a_span_belongs_to_the_evening_it_begins_in() {
        let Some(berlin) = zone("Europe/Berlin") else { return };
        let spans = spans(&["sun-thu 21:00-07:00"]);

        // 2026-07-03 is a Friday.
        for (at, inside) in [
            ("2026-07-02T20:59:59+02:00", false),
            ("2026-07-02T21:00:00+02:00", true),
            ("2026-07-03T06:59:59+02:00", true),
            ("2026-07-03T07:00:00+02:00", false),
            ("2026-07-03T22:00:00+02:00", false),
            ("2026-07-05T21:00:00+02:00", true),
        ] {
            assert_eq!(spans.at(second(at), &berlin).inside, inside, "{at}");
        }
        let evening = spans.at(second("2026-07-02T21:00:00+02:00"), &berlin);
        assert_eq!(evening.until, second("2026-07-03T07:00:00+02:00"));
    }

    #[test]
    fn an_hour_that_is_skipped_or_comes_twice_does_not_move_the_others() {
        let Some(berlin) = zone("Europe/Berlin") else { return };
        let spans = spans(&["02:30-04:00", "sat 22:00-02:15"]);

        // 2026-03-29, a Sunday: from 02:00 the clock jumps to 03:00. 2026-10-25: from 03:00 back to 02:00.
        for (at, inside) in [
            ("2026-03-29T00:59:59Z", true),
            ("2026-03-29T01:00:00Z", true),
            ("2026-03-29T01:59:59Z", true),
            ("2026-03-29T02:00:00Z", false),
            ("2026-10-25T00:14:59Z", true),
            ("2026-10-25T00:15:00Z", false),
            ("2026-10-25T00:30:00Z", true),
            ("2026-10-25T02:59:59Z", true),
            ("2026-10-25T03:00:00Z", false),
        ] {
            assert_eq!(spans.at(second(at), &berlin).inside, inside, "{at}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_in_words() {
        for wrong in
            ["", "21:00", "21:00-21:00", "24:00-07:00", "sun 25:00-07:00", "sunday 21:00-07:00", "1-2", "a b c"]
        {
            assert!(wrong.parse::<WeekSpan>().is_err(), "{wrong}");
        }
        assert_eq!("fri-mon 1:00-2:00".parse::<WeekSpan>().unwrap().days, 0b111_0001);
        assert_eq!("sat,tue-wed 1:00-2:00".parse::<WeekSpan>().unwrap().days, 0b010_0110);
    }

    /// Looks at the wall clock every minute, and never believes that it goes back.
    fn twin(spans: &Spans, shown: DateTime) -> bool {
        let today = shown.date().weekday().to_monday_zero_offset();
        let minute = shown.hour() as u16 * 60 + shown.minute() as u16;
        let begun = |span: &WeekSpan, day: i8| span.days >> day & 1 == 1;
        spans.0.iter().any(|span| {
            begun(span, today) && (span.from..span.to).contains(&minute)
                || begun(span, (today + 6) % 7) && (span.from..span.to).contains(&(minute + DAY))
        })
    }

    fn any_span() -> impl Strategy<Value = WeekSpan> {
        // Minutes around the changes of the clock are asked for more often.
        let minute = || prop_oneof![0..DAY, 60..240_u16];
        (1..0x80_u8, minute(), minute()).prop_filter_map("ends when it begins", |(days, from, to)| {
            (from != to).then_some(WeekSpan { days, from, to: if to < from { to + DAY } else { to } })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        #[test]
        fn every_minute_of_a_year_is_as_the_wall_clock_says(
            chosen in prop::collection::vec(any_span(), 1..4),
            place in prop::sample::select(vec!["Europe/Berlin", "America/New_York"]),
        ) {
            let Some(zone) = zone(place) else { return Ok(()) };
            let spans = Spans::new(chosen);
            let begin = second("2026-01-01T00:00:00Z");
            let mut latest = DateTime::MIN;
            let mut told = Now { inside: false, until: 0 };
            for minute in 0..365 * 24 * 60 {
                let now = begin + minute * 60;
                latest = latest.max(zone.to_datetime(Timestamp::from_second(now as i64).unwrap()));
                if now >= told.until {
                    told = spans.at(now, &zone);
                }
                prop_assert_eq!(told.inside, twin(&spans, latest), "{} {}", now, latest);
            }
        }
    }
}

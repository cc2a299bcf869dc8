//! Small pieces of pages.

use jiff::{Timestamp, tz::TimeZone};
use maud::{Markup, html};

use crate::console::words::Words;

/// Writes what somebody else chose: it stays in its own direction, and what cannot be seen shows that it is there.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi { (visible(text)) } }
}

/// Shows what cannot be seen; for attributes, which have no direction of their own.
pub(super) fn visible(text: &str) -> String {
    let hidden = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    text.chars().map(|letter| if hidden(letter) { '\u{fffd}' } else { letter }).collect()
}

/// Writes a name as it is asked for, and as people write it beside it where that differs.
pub(super) fn name(name: &str, unicode: Option<&str>) -> Markup {
    html! {
        (text(if name.is_empty() { "." } else { name }))
        @if let Some(unicode) = unicode { " " small { "(" (text(unicode)) ")" } }
    }
}

/// Writes a moment, in seconds since 1970.
pub(super) fn moment(seconds: i64, zone: &TimeZone) -> Markup {
    written(Timestamp::from_second(seconds).unwrap_or_default(), zone, "%Y-%m-%d %H:%M")
}

/// The same, to the second, from milliseconds.
pub(super) fn exact(millis: i64, zone: &TimeZone) -> Markup {
    written(Timestamp::from_millisecond(millis).unwrap_or_default(), zone, "%Y-%m-%d %H:%M:%S")
}

fn written(time: Timestamp, zone: &TimeZone, form: &str) -> Markup {
    html! { time datetime=(time) { (time.to_zoned(zone.clone()).strftime(form)) } }
}

/// The same of what may never have been.
pub(super) fn maybe(seconds: Option<u64>, zone: &TimeZone, words: &Words) -> Markup {
    match seconds {
        Some(seconds) => moment(i64::try_from(seconds).unwrap_or(i64::MAX), zone),
        None => html! { (words.never) },
    }
}

/// Writes a span as people say it: its largest unit, or two.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Writes a number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    let mut rest = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest < 10_000 {
            return format!("{rest} {unit}");
        }
        rest /= 1000;
    }
    format!("{rest} TB")
}

/// Writes how much of a whole something is.
pub(super) fn share(part: u64, whole: u64) -> String {
    let thousandths = (part.saturating_mul(1000)).checked_div(whole).unwrap_or_default();
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// Writes a table that is reached by the keyboard where it is wider than the screen.
pub(super) fn table(title: &str, head: &Markup, rows: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(title) {
            table {
                thead { tr { (head) } }
                (rows)
            }
        }
    }
}

/// Writes a link with a query, each value encoded.
pub(super) fn link(path: &str, values: &[(&str, Option<&str>)]) -> String {
    let mut link = path.to_owned();
    let mut mark = '?';
    for (name, value) in values {
        let Some(value) = value else { continue };
        link.push(mark);
        link.push_str(name);
        link.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => link.push(char::from(byte)),
                byte => link.push_str(&format!("%{byte:02X}")),
            }
        }
        mark = '&';
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_chose_is_text_and_all_of_it_is_seen() {
        let written = text("<b>\u{202e}\u{0}\u{200b}\"x").into_string();

        assert_eq!(written, "<bdi>&lt;b&gt;\u{fffd}\u{fffd}\u{fffd}&quot;x</bdi>");
        assert_eq!(
            link("/dns", &[("name", Some("a&b=ü")), ("x", None), ("y", Some("1"))]),
            "/dns?name=a%26b%3D%C3%BC&y=1"
        );
    }

    #[test]
    fn numbers_are_as_people_say_them() {
        assert_eq!(
            (span(59), span(3599), span(7260), span(90_000)),
            ("59 s".into(), "59 min".into(), "2 h 1 min".into(), "1 d 1 h".into())
        );
        assert_eq!(
            (bytes(9_999), bytes(10_000), bytes(u64::MAX)),
            ("9999 B".into(), "10 kB".into(), "18446744 TB".into())
        );
        assert_eq!((share(1, 3), share(1, 0)), ("33.3 %".into(), "0.0 %".into()));
    }
}

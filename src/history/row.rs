//! One record as it is kept.

use std::fmt::Write as _;

use super::{Privacy, Who};
use crate::event::Question;

/// Where the numbers of records begin: 1 January 2024, in milliseconds since 1970.
const EPOCH: i64 = 1_704_067_200_000;
/// Records of one millisecond that have a number of their own.
const SEQUENCE: i64 = 1 << 10;
/// How far numbers run ahead of the clock, at most: a second, though all of them were of one millisecond.
const NEAR: i64 = 1000 * SEQUENCE;
/// Bytes of a name in presentation form that are kept.
const NAME: usize = 255;

/// One record, before its words have numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its time and its place among those of the same millisecond.
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) client: String,
    pub(super) qtype: u16,
    pub(super) outcome: String,
    pub(super) transport: String,
    pub(super) rule: String,
    /// Microseconds.
    pub(super) took: u32,
}

impl Row {
    /// Makes a record with a number above `last`, where that is of this moment.
    pub(super) fn new(question: &Question<'_>, who: &Who, privacy: Privacy, last: &mut i64) -> Self {
        let first = first_of(question.at);
        // Where the clock was set back, what came under the wrong time keeps its place and nothing stands behind it.
        let is_near = (first..first.saturating_add(NEAR)).contains(last);
        let id = if is_near { *last + 1 } else { first };
        *last = id;
        let named = privacy < Privacy::Counts;
        Self {
            id,
            name: if named { presentation(question.name) } else { String::new() },
            client: match privacy {
                Privacy::Everything => who(question.origin, question.client),
                Privacy::NoClients | Privacy::Counts => String::new(),
            },
            qtype: if named { question.qtype } else { 0 },
            outcome: question.outcome.into(),
            transport: question.transport.into(),
            rule: if named { question.rule.into() } else { String::new() },
            took: question.took,
        }
    }

    /// Writes the record as a line.
    pub(super) fn write(&self, line: &mut String) {
        let Self { id, name, client, qtype, outcome, transport, rule, took } = self;
        let plain = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        let (client, rule) = (plain(client), plain(rule));
        // Names are in presentation form, without blanks.
        let _ = writeln!(line, "{id}\t{qtype}\t{outcome}\t{transport}\t{took}\t{rule}\t{client}\t{name}");
    }

    /// Reads a line that [`Row::write`] wrote.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut words = line.split('\t');
        let row = Self {
            id: words.next()?.parse().ok()?,
            qtype: words.next()?.parse().ok()?,
            outcome: words.next()?.into(),
            transport: words.next()?.into(),
            took: words.next()?.parse().ok()?,
            rule: words.next()?.into(),
            client: words.next()?.into(),
            name: words.next()?.into(),
        };
        words.next().is_none().then_some(row)
    }
}

/// Returns the first number of a millisecond.
pub(super) fn first_of(at: i64) -> i64 {
    at.saturating_sub(EPOCH).max(0).saturating_mul(SEQUENCE)
}

/// Returns the millisecond of a number, since 1970.
pub(super) fn time_of(id: i64) -> i64 {
    id / SEQUENCE + EPOCH
}

/// Returns a name as it is written: in lower case, without a dot at its end, and with odd bytes as RFC 1035 §5.1
/// has them.
fn presentation(wire: &[u8]) -> String {
    let mut text = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((&length, after)) = rest.split_first() {
        let Some((label, next)) = after.split_at_checked(usize::from(length)).filter(|_| length > 0) else { break };
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte.to_ascii_lowercase() {
                letter @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*') => text.push(char::from(letter)),
                byte @ (b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$') => {
                    text.extend(['\\', char::from(byte)]);
                }
                byte @ b'!'..=b'~' => text.push(char::from(byte)),
                byte => {
                    let _ = write!(text, "\\{byte:03}");
                }
            }
        }
        rest = next;
    }
    text.truncate(NAME);
    text
}

/// What a record says besides name and client, in one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct What {
    pub(super) qtype: u16,
    pub(super) outcome: u8,
    pub(super) transport: u8,
    pub(super) rule: u16,
    /// Microseconds, to within a fifth.
    pub(super) took: u32,
}

impl What {
    const OUTCOME: (u32, i64) = (0, 0x1f);
    const TRANSPORT: (u32, i64) = (5, 0xf);
    const TOOK: (u32, i64) = (9, 0x3f);
    const QTYPE: (u32, i64) = (15, 0xffff);
    const RULE: (u32, i64) = (31, 0xffff);

    /// How much of the number is the outcome.
    pub(super) const OUTCOMES: i64 = Self::OUTCOME.1;

    pub(super) fn pack(self) -> i64 {
        let place = |value: i64, (shift, mask): (u32, i64)| (value & mask) << shift;
        place(self.outcome.into(), Self::OUTCOME)
            | place(self.transport.into(), Self::TRANSPORT)
            | place(half_octaves(self.took), Self::TOOK)
            | place(self.qtype.into(), Self::QTYPE)
            | place(self.rule.into(), Self::RULE)
    }

    pub(super) fn unpack(packed: i64) -> Self {
        let part = |(shift, mask): (u32, i64)| packed >> shift & mask;
        let small = |part| u8::try_from(part).unwrap_or_default();
        let long = |part| u16::try_from(part).unwrap_or_default();
        Self {
            outcome: small(part(Self::OUTCOME)),
            transport: small(part(Self::TRANSPORT)),
            took: microseconds(part(Self::TOOK)),
            qtype: long(part(Self::QTYPE)),
            rule: long(part(Self::RULE)),
        }
    }
}

/// 0 is 0; above it two steps for each doubling.
fn half_octaves(took: u32) -> i64 {
    if took == 0 {
        return 0;
    }
    let octave = took.ilog2();
    let is_upper = f64::from(took) >= f64::from(1_u32 << octave) * std::f64::consts::SQRT_2;
    i64::from(octave) * 2 + i64::from(is_upper) + 1
}

/// The middle of a step.
fn microseconds(step: i64) -> u32 {
    let Some(step) = u32::try_from(step).ok().and_then(|step| step.checked_sub(1)) else { return 0 };
    let middle = 2_f64.powf(f64::from(step) / 2.0 + 0.25);
    // A step ends at 2^32.
    if middle >= f64::from(u32::MAX) { u32::MAX } else { middle.round() as u32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_written_so_that_it_cannot_be_taken_for_another() {
        assert_eq!(presentation(b"\x03WWW\x07example\0"), "www.example");
        assert_eq!(presentation(b"\0"), "");
        assert_eq!(presentation(b"\x05a.b\tc\0"), "a\\.b\\009c");
        // Cut off.
        assert_eq!(presentation(b"\x03ww"), "");
    }

    proptest! {
        #[test]
        fn what_a_record_says_comes_back(
            qtype: u16, outcome in 0_u8..32, transport in 0_u8..16, rule: u16, took in 0_u32..1 << 31,
        ) {
            let what = What { qtype, outcome, transport, rule, took };
            let back = What::unpack(what.pack());

            prop_assert_eq!(What { took, ..back }, what);
            let error = (f64::from(back.took) - f64::from(took)).abs();
            prop_assert!(error <= f64::from(took) * 0.2 + 1.0, "{} for {}", back.took, took);
        }

        #[test]
        fn a_line_is_read_as_it_was_written(name in "[a-z0-9.\\\\]{0,40}", client in ".{0,20}", rule in ".{0,20}") {
            let row = Row {
                id: 7, name, client, qtype: 28, outcome: "cached".into(), transport: "udp".into(), rule, took: 3,
            };
            let mut line = String::new();
            row.write(&mut line);

            let back = Row::read(line.strip_suffix('\n').unwrap()).unwrap();

            prop_assert_eq!((back.id, back.qtype, back.took, &back.name), (7, 28, 3, &row.name));
            prop_assert_eq!(line.matches('\n').count(), 1);
        }
    }
}

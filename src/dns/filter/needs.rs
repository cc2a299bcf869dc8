//! What a name must have in it for an expression to fit: of thousands of expressions, a look-up tries only those whose
//! piece of text it has.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Shorter pieces are in too many names.
const SHORTEST: usize = 3;

/// More pieces than this are no help.
const MOST: usize = 16;

/// Returns pieces of text, in lower case, one of which is in whatever the expression fits; `None` if none is known.
pub(super) fn pieces(expression: &Hir) -> Option<Vec<Vec<u8>>> {
    needed(expression).filter(|pieces| shortest(pieces) >= SHORTEST)
}

fn shortest(pieces: &[Vec<u8>]) -> usize {
    pieces.iter().map(Vec::len).min().unwrap_or_default()
}

fn needed(expression: &Hir) -> Option<Vec<Vec<u8>>> {
    match expression.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => Some(vec![letters(expression)?.to_vec()]),
        HirKind::Repetition(repeated) if repeated.min > 0 => needed(&repeated.sub),
        HirKind::Capture(captured) => needed(&captured.sub),
        HirKind::Concat(parts) => {
            let mut best: Option<Vec<Vec<u8>>> = None;
            let mut better = |pieces: Vec<Vec<u8>>| {
                if best.as_ref().is_none_or(|best| shortest(&pieces) > shortest(best)) {
                    best = Some(pieces);
                }
            };
            let mut run = Vec::new();
            for part in parts {
                if let Some(letters) = letters(part) {
                    run.extend_from_slice(letters);
                    continue;
                }
                // What asserts something at this place is no letter between the others.
                if matches!(part.kind(), HirKind::Look(_)) {
                    continue;
                }
                if !run.is_empty() {
                    better(vec![std::mem::take(&mut run)]);
                }
                if let Some(pieces) = needed(part) {
                    better(pieces);
                }
            }
            if !run.is_empty() {
                better(vec![run]);
            }
            best
        }
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(needed(branch)?);
                if all.len() > MOST {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// The letters that an expression is, in lower case, if it is nothing else.
fn letters(expression: &Hir) -> Option<&[u8]> {
    match expression.kind() {
        HirKind::Literal(literal) => Some(&literal.0),
        // A letter in both cases; the lower one stands last.
        HirKind::Class(Class::Bytes(class)) => match class.ranges() {
            [upper, lower]
                if upper.start() == upper.end()
                    && lower.start() == lower.end()
                    && upper.start().to_ascii_lowercase() == lower.start() =>
            {
                LETTERS.get(usize::from(lower.start()).checked_sub(usize::from(b'a'))?..)?.get(..1)
            }
            _ => None,
        },
        _ => None,
    }
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use regex_automata::util::syntax;

    use super::*;

    fn of(text: &str) -> Option<Vec<String>> {
        let syntax = syntax::Config::new().unicode(false).utf8(false).case_insensitive(true);
        let pieces = pieces(&syntax::parse_with(text, &syntax).unwrap())?;
        Some(pieces.into_iter().map(|piece| String::from_utf8(piece).unwrap()).collect())
    }

    #[test]
    fn the_longest_piece_that_must_be_there_is_found() {
        for (text, pieces) in [
            (r"(?:^|\.)pixel\.archive\.", Some(&["pixel.archive."][..])),
            ("TRACK", Some(&["track"])),
            (r"^aviasales\..*-analytics\.", Some(&["-analytics."])),
            ("^(.+[_.-])?(twitter|twimg)(co)?$", Some(&["twi"])),
            ("(twitter|analytics)x?", Some(&["twitter", "analytics"])),
            ("(abc){2,}x?", Some(&["abc"])),
            (r"a\bb$c", Some(&["abc"])),
            ("ads[0-9]", Some(&["ads"])),
            ("ad[0-9]", None),
            ("(track|ad)", None),
            ("(abc)?", None),
            ("(abc)*", None),
            ("[a-z]+", None),
            ("", None),
        ] {
            let pieces = pieces.map(|pieces| pieces.iter().map(ToString::to_string).collect());
            assert_eq!(of(text), pieces, "{text}");
        }
    }
}

//! Names with stars, as AdBlock's syntax has them.

use serde::{Deserialize, Serialize};

/// A pattern for whole names: `*` is any text, also none and also dots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Glob {
    pattern: Box<[u8]>,
    /// `||`: it may begin at any label.
    any_label: bool,
}

impl Glob {
    /// Takes a pattern in lower case.
    pub(super) fn new(pattern: &[u8], any_label: bool) -> Self {
        Self { pattern: pattern.into(), any_label }
    }

    pub(super) const fn text(&self) -> &[u8] {
        &self.pattern
    }

    /// Says whether it fits a name in lower case; takes at most as many steps as both lengths give multiplied.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        if !self.any_label {
            return fits(&self.pattern, name);
        }
        // "*." before the pattern and a dot before the name make every label a beginning.
        let (mut pattern, mut dotted) = ([0; 2 + LONGEST], [b'.'; 1 + LONGEST]);
        let (Some(of_pattern), Some(of_name)) =
            (pattern.get_mut(..2 + self.pattern.len()), dotted.get_mut(..1 + name.len()))
        else {
            return false;
        };
        of_pattern[..2].copy_from_slice(b"*.");
        of_pattern[2..].copy_from_slice(&self.pattern);
        of_name[1..].copy_from_slice(name);
        fits(of_pattern, of_name)
    }
}

/// No name is longer, and no pattern is taken that is.
pub(super) const LONGEST: usize = 253;

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // Where the last star stands, and how much of the name it has.
    let mut star: Option<(usize, usize)> = None;
    while let Some(octet) = name.get(in_name) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(wanted) if wanted == octet => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((star_at, taken)) = &mut star else { return false };
                *taken += 1;
                (at, in_name) = (*star_at + 1, *taken);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|octet| *octet == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_are_any_text_and_a_beginning_is_a_label() {
        let fits = |pattern: &str, name: &str| Glob::new(pattern.as_bytes(), true).fits(name.as_bytes());

        assert!(fits("ads*.x.example", "ads7.x.example"));
        assert!(fits("ads*.x.example", "a.ads.b.x.example"));
        assert!(!fits("ads*.x.example", "bads7.x.example"));
        assert!(!fits("ads*.x.example", "ads7.y.example"));
        assert!(fits("*", "a"));
        assert!(!Glob::new(b"ads*.example", false).fits(b"x.ads1.example"));
        assert!(Glob::new(b"ads*.example", false).fits(b"ads1.example"));
    }

    #[test]
    fn the_worst_pattern_takes_no_more_steps_than_both_lengths_multiplied() {
        let pattern = "a*".repeat(126) + "b";

        assert!(!Glob::new(pattern.as_bytes(), true).fits("a".repeat(253).as_bytes()));
    }

    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            ([b'*', rest @ ..], name) => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            ([wanted, rest @ ..], [octet, behind @ ..]) => wanted == octet && naive(rest, behind),
            (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_fits_what_a_naive_twin_says(pattern in "[ab.*]{0,8}", name in "[ab.]{0,12}") {
            let expected = naive(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Glob::new(pattern.as_bytes(), false).fits(name.as_bytes()), expected);
            let labels = (0..=name.len()).filter(|at| *at == 0 || name.as_bytes()[at - 1] == b'.');
            let expected = labels.into_iter().any(|at| naive(pattern.as_bytes(), &name.as_bytes()[at..]));
            prop_assert_eq!(Glob::new(pattern.as_bytes(), true).fits(name.as_bytes()), expected);
        }
    }
}

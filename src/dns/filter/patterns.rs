//! Regular expressions, and patterns that have no name to stand at in the table. They stand beside it, bounded
//! in number, in the size of what they compile to, and in the time that a look-up takes: it is linear in the
//! length of a name, whatever the expression.

use std::io;

use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::{BuildError, Config, Regex},
    nfa::thompson,
    util::syntax,
};
use serde::{Deserialize, Serialize};

use super::disk::{In, Out};

/// Patterns of all lists together.
pub(super) const MOST: usize = 4096;

/// What one may compile to, and all together.
const LARGEST: usize = 64 << 10;
const LARGEST_OF_ALL: usize = 8 << 20;

/// What a search may keep of its states, for each thread that searches.
const STATES: usize = 1 << 20;

/// A pattern and the number of its rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pattern {
    text: String,
    rule: u16,
}

/// Collects patterns.
#[derive(Default)]
pub(super) struct Collector {
    patterns: Vec<Pattern>,
    compiled_bytes: usize,
}

impl Collector {
    /// Takes a pattern that compiles; `None` if all of them would be too large.
    pub(super) fn add(&mut self, expression: &Expression, rule: u16) -> Option<()> {
        let bytes = self.compiled_bytes + expression.compiled_bytes;
        if self.patterns.len() >= MOST || bytes > LARGEST_OF_ALL {
            return None;
        }
        self.compiled_bytes = bytes;
        self.patterns.push(Pattern { text: expression.text.clone(), rule });
        Some(())
    }

    /// Compiles what was taken.
    pub(super) fn finish(self) -> io::Result<Patterns> {
        Patterns::new(self.patterns)
    }
}

/// A regular expression that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression {
    text: String,
    compiled_bytes: usize,
}

/// Why an expression is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not understood: not an expression, or one that looks back or ahead.
    Syntax,
    /// It compiles to too much.
    Size,
}

impl Expression {
    /// Reads an expression as Pi-hole and AdGuard Home write them.
    pub(super) fn read(text: &str) -> Result<Self, Unfit> {
        let compiler = thompson::Config::new().utf8(false).nfa_size_limit(Some(LARGEST));
        let compiled = thompson::Compiler::new().syntax(syntax()).configure(compiler).build(text);
        match compiled {
            Ok(nfa) => Ok(Self { text: text.to_owned(), compiled_bytes: nfa.memory_usage() }),
            Err(error) if error.size_limit().is_some() => Err(Unfit::Size),
            Err(_) => Err(Unfit::Syntax),
        }
    }

    /// Returns it as it is written.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Says whether it fits a name; compiles it anew, for those who explain.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        compile(&[&self.text]).is_ok_and(|regex| regex.is_match(name))
    }
}

/// The compiled patterns.
#[derive(Default)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    regex: Option<Regex>,
}

impl Patterns {
    fn new(patterns: Vec<Pattern>) -> io::Result<Self> {
        let texts: Vec<_> = patterns.iter().map(|pattern| pattern.text.as_str()).collect();
        let regex = if texts.is_empty() { None } else { Some(compile(&texts).map_err(io::Error::other)?) };
        Ok(Self { patterns, regex })
    }

    /// Calls `found` with the rule of each pattern that fits a name, which is text in lower case.
    #[inline]
    pub(super) fn find(&self, name: &[u8], mut found: impl FnMut(u16)) {
        let Some(regex) = &self.regex else { return };
        if !regex.is_match(name) {
            return;
        }
        let mut fitting = PatternSet::new(regex.pattern_len());
        regex.which_overlapping_matches(&Input::new(name), &mut fitting);
        for pattern in fitting.iter() {
            if let Some(pattern) = self.patterns.get(pattern.as_usize()) {
                found(pattern.rule);
            }
        }
    }

    /// Says whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.regex.is_none()
    }

    /// Returns about how many bytes they take, without what searches keep.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.patterns.iter().map(|pattern| size_of::<Pattern>() + pattern.text.len()).sum();
        texts + self.regex.as_ref().map_or(0, Regex::memory_usage)
    }

    /// Writes the patterns so that [`Patterns::read`] finds them.
    pub(super) fn write(&self, out: &mut Out) -> io::Result<()> {
        out.json(&self.patterns)
    }

    /// Reads what [`Patterns::write`] wrote.
    pub(super) fn read(from: &mut In<'_>) -> io::Result<Self> {
        Self::new(from.json()?)
    }
}

/// Names are in lower case, and no text but octets.
fn syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).case_insensitive(true)
}

fn compile(texts: &[&str]) -> Result<Regex, Box<BuildError>> {
    let config = Config::new()
        .match_kind(MatchKind::All)
        .utf8_empty(false)
        .nfa_size_limit(Some(2 * LARGEST_OF_ALL))
        .hybrid_cache_capacity(STATES)
        .onepass(false);
    Regex::builder().syntax(syntax()).configure(config).build_many(texts).map_err(Box::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        let mut collector = Collector::default();
        for (number, text) in (0..).zip(texts) {
            collector.add(&Expression::read(text).unwrap(), number).unwrap();
        }
        collector.finish().unwrap()
    }

    fn found(patterns: &Patterns, name: &str) -> Vec<u16> {
        let mut rules = Vec::new();
        patterns.find(name.as_bytes(), |rule| rules.push(rule));
        rules
    }

    #[test]
    fn all_patterns_that_fit_are_found() {
        let patterns =
            patterns(&[r"^ad([sxv]?[0-9]*|system)[_.-]([^.[:space:]]+\.){1,}", "TRACK", r"(^|\.)x\.example$"]);

        assert_eq!(found(&patterns, "ads7.track.example"), [0, 1]);
        assert_eq!(found(&patterns, "a.x.example"), [2]);
        assert_eq!(found(&patterns, "ax.example"), [0; 0]);
        assert_eq!(found(&Patterns::default(), "a"), [0; 0]);
    }

    #[test]
    fn what_would_explode_is_refused_and_the_rest_is_bounded() {
        assert_eq!(Expression::read("((a{1000}){1000}){1000}"), Err(Unfit::Size));
        assert_eq!(Expression::read("(a|b"), Err(Unfit::Syntax));
        assert_eq!(Expression::read(r"(a)\1"), Err(Unfit::Syntax));
        assert_eq!(Expression::read("(?=a)b"), Err(Unfit::Syntax));
        let large = Expression::read("[a-z]{400}").unwrap();
        let mut collector = Collector::default();

        let taken = (0..=u16::MAX).take_while(|rule| collector.add(&large, *rule).is_some()).count();

        assert!((100..MOST).contains(&taken), "{taken}");
        let patterns = collector.finish().unwrap();
        assert!(patterns.bytes() < 4 * LARGEST_OF_ALL, "{} bytes", patterns.bytes());
        // (a*)*b takes a backtracking matcher 2^250 steps.
        let mut exploding = Collector::default();
        exploding.add(&Expression::read("^(a*)*b$").unwrap(), 1).unwrap();
        assert_eq!(found(&exploding.finish().unwrap(), &"a".repeat(250)), [0; 0]);
    }
}

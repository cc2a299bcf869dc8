//! Regular expressions, and patterns that have no name to stand at in the table. They stand beside it, bounded
//! in number, in the size of what they compile to, and in the time that a look-up takes: it is linear in the
//! length of a name, whatever the expression.

use std::{borrow::Borrow, collections::HashMap, io};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex_automata::{
    Anchored, Input, MatchKind, PatternID, PatternSet,
    meta::{BuildError, Config, Regex},
    nfa::thompson,
    util::syntax,
};
use regex_syntax::hir::{Dot, Hir, Repetition};
use serde::{Deserialize, Serialize};

use super::{
    disk::{In, Out},
    needs,
};

/// Patterns of all lists together.
pub(super) const MOST: usize = 4096;

/// What one may compile to, and all together.
const LARGEST: usize = 64 << 10;
const LARGEST_OF_ALL: usize = 8 << 20;

/// What a search may keep of its states, for each thread that searches; there are two kinds.
const STATES: usize = 512 << 10;

/// A piece of text that more patterns need finds too many of them.
const SHARING: usize = 64;

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
        let parsed = syntax::parse_with(&self.text, &syntax());
        parsed.is_ok_and(|parsed| compile(&[parsed]).is_ok_and(|regex| regex.is_match(name)))
    }
}

/// The compiled patterns.
#[derive(Default)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    needing: Option<Needing>,
    rest: Option<Rest>,
}

/// Patterns that fit no name without a certain piece of text: only those are tried whose piece a name has.
struct Needing {
    pieces: AhoCorasick,
    /// For each piece, whose it is: the number of an expression in `regex`.
    whose: Vec<usize>,
    /// Each of them anchored, with anything before it.
    regex: Regex,
    /// Where the patterns stand.
    places: Vec<usize>,
}

/// The others, which are tried all at once.
struct Rest {
    regex: Regex,
    places: Vec<usize>,
}

impl Patterns {
    fn new(patterns: Vec<Pattern>) -> io::Result<Self> {
        let parse = |pattern: &Pattern| syntax::parse_with(&pattern.text, &syntax()).map_err(io::Error::other);
        let parsed: Vec<Hir> = patterns.iter().map(parse).collect::<io::Result<_>>()?;
        let pieces: Vec<_> = parsed.iter().map(needs::pieces).collect();
        let mut sharing: HashMap<&[u8], usize> = HashMap::new();
        pieces.iter().flatten().flatten().for_each(|piece| *sharing.entry(piece).or_default() += 1);
        let helps = |pieces: &Vec<Vec<u8>>| pieces.iter().all(|piece| sharing[&piece[..]] <= SHARING);
        let (mut needing, mut rest) = (Vec::new(), Vec::new());
        for (place, (parsed, pieces)) in parsed.iter().zip(&pieces).enumerate() {
            match pieces.as_ref().filter(|pieces| helps(pieces)) {
                Some(pieces) => needing.push((place, parsed, pieces)),
                None => rest.push((place, parsed)),
            }
        }
        let needing = if needing.is_empty() { None } else { Some(Needing::new(&needing)?) };
        let rest = if rest.is_empty() { None } else { Some(Rest::new(&rest)?) };
        Ok(Self { patterns, needing, rest })
    }

    /// Calls `found` with the rule of each pattern that fits a name, which is text in lower case.
    #[inline]
    pub(super) fn find(&self, name: &[u8], mut found: impl FnMut(u16)) {
        let mut fitting = Vec::new();
        if let Some(needing) = &self.needing {
            needing.find(name, &mut fitting);
        }
        if let Some(rest) = &self.rest {
            rest.find(name, &mut fitting);
        }
        // As they stand in the lists: the first one wins.
        fitting.sort_unstable();
        fitting.iter().filter_map(|place| self.patterns.get(*place)).for_each(|pattern| found(pattern.rule));
    }

    /// Says whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.needing.is_none() && self.rest.is_none()
    }

    /// Returns about how many bytes they take, without what searches keep.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.patterns.iter().map(|pattern| size_of::<Pattern>() + pattern.text.len()).sum();
        let needing = self.needing.as_ref().map_or(0, |needing| {
            needing.pieces.memory_usage()
                + needing.regex.memory_usage()
                + size_of::<usize>() * (needing.whose.len() + needing.places.len())
        });
        let rest = self.rest.as_ref();
        texts + needing + rest.map_or(0, |rest| rest.regex.memory_usage() + size_of::<usize>() * rest.places.len())
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

impl Needing {
    fn new(patterns: &[(usize, &Hir, &Vec<Vec<u8>>)]) -> io::Result<Self> {
        let anything =
            Hir::repetition(Repetition { min: 0, max: None, greedy: true, sub: Box::new(Hir::dot(Dot::AnyByte)) });
        let anchored = patterns.iter().map(|(_, parsed, _)| Hir::concat(vec![anything.clone(), (*parsed).clone()]));
        let regex = compile(&anchored.collect::<Vec<_>>()).map_err(io::Error::other)?;
        let pieces = patterns.iter().flat_map(|(_, _, pieces)| pieces.iter());
        let pieces = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(pieces);
        let whose = patterns.iter().enumerate().flat_map(|(number, (_, _, pieces))| pieces.iter().map(move |_| number));
        Ok(Self {
            pieces: pieces.map_err(io::Error::other)?,
            whose: whose.collect(),
            regex,
            places: patterns.iter().map(|(place, ..)| *place).collect(),
        })
    }

    fn find(&self, name: &[u8], fitting: &mut Vec<usize>) {
        let found = self.pieces.find_overlapping_iter(name);
        let mut tried: Vec<usize> =
            found.filter_map(|piece| self.whose.get(piece.pattern().as_usize()).copied()).collect();
        tried.sort_unstable();
        tried.dedup();
        for number in tried {
            let Ok(pattern) = PatternID::new(number) else { continue };
            if self.regex.is_match(Input::new(name).anchored(Anchored::Pattern(pattern))) {
                fitting.extend(self.places.get(number));
            }
        }
    }
}

impl Rest {
    fn new(patterns: &[(usize, &Hir)]) -> io::Result<Self> {
        let parsed: Vec<&Hir> = patterns.iter().map(|(_, parsed)| *parsed).collect();
        let regex = compile(&parsed).map_err(io::Error::other)?;
        Ok(Self { regex, places: patterns.iter().map(|(place, _)| *place).collect() })
    }

    fn find(&self, name: &[u8], fitting: &mut Vec<usize>) {
        if !self.regex.is_match(name) {
            return;
        }
        let mut found = PatternSet::new(self.regex.pattern_len());
        self.regex.which_overlapping_matches(&Input::new(name), &mut found);
        fitting.extend(found.iter().filter_map(|pattern| self.places.get(pattern.as_usize())));
    }
}

/// Names are in lower case, and no text but octets.
fn syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).case_insensitive(true)
}

fn compile<H: Borrow<Hir>>(expressions: &[H]) -> Result<Regex, Box<BuildError>> {
    let config = Config::new()
        .match_kind(MatchKind::All)
        .utf8_empty(false)
        .nfa_size_limit(Some(2 * LARGEST_OF_ALL))
        .hybrid_cache_capacity(STATES)
        .onepass(false);
    Regex::builder().configure(config).build_many_from_hir(expressions).map_err(Box::new)
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
    fn all_together_find_what_each_finds_alone() {
        let shared: Vec<String> = (0..2 * SHARING).map(|number| format!(r"^x{number}\..*shared")).collect();
        let mut texts = vec![
            r"(?:^|\.)pixel\.archive\.",
            r"^ad([sxv]?[0-9]*|system)[_.-]([^.[:space:]]+\.){1,}",
            "^(.+[_.-])?(twitter|twimg)\\.(co\\.)?[^.]+$",
            r"track\b",
            "(?x) count # a comment",
            "(?i-u)COUNTER$",
            "(?-i)Counter",
            r"^(?:\w+\.)*minepi\.com$",
            r"analytics|stats|metrics",
            "[0-9]{3,}",
            "^$",
        ];
        texts.extend(shared.iter().map(String::as_str));
        let together = patterns(&texts);
        assert!(together.needing.is_some() && together.rest.is_some());
        let parts = ["pixel.archive.", "ads7.", "x3.", "x63.", "a.", "twitter.co.", "track", "counter", "minepi.com"];
        let parts = parts.into_iter().chain(["statistics.", "stats", "shared", "1234.", "example", ""]);
        let parts: Vec<&str> = parts.collect();

        for (first, second) in parts.iter().flat_map(|first| parts.iter().map(move |second| (first, second))) {
            let name = format!("{first}{second}");
            let alone =
                texts.iter().enumerate().filter(|(_, text)| Expression::read(text).unwrap().fits(name.as_bytes()));
            let alone: Vec<u16> = alone.map(|(number, _)| u16::try_from(number).unwrap()).collect();
            assert_eq!(found(&together, &name), alone, "{name}");
        }
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

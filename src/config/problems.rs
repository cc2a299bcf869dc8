//! What is wrong with a configuration: everything at once, each thing with its place and what to do.

use std::{
    cell::{Cell, RefCell},
    fmt,
    path::Path,
};

/// One thing that is wrong, or only odd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands; problems are shown in this order.
    pub place: Option<Place>,
    /// The section and its name, as `route "photos.home.example"`; empty at the top.
    pub about: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// 0 for the owner's file, 1 for the edits.
    order: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The file, as the user named it.
    pub file: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { file, line, column, .. }) = &self.place {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        if !self.about.is_empty() {
            write!(f, "{}: ", self.about)?;
        }
        write!(f, "{}\n  hint: {}", self.what, self.hint)
    }
}

/// Why a configuration was refused; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Returns a problem of the whole file.
    pub(crate) fn whole(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(vec![Problem { place: None, about: String::new(), what: what.into(), hint: hint.into() }])
    }

    /// Returns each problem, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A place in one of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Which text.
    pub(crate) text: Text,
    /// The byte that it begins at.
    pub(crate) start: usize,
}

/// The texts that a configuration is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// The owner's file.
    File = 0,
    /// `edits.toml` of the state folder.
    Edits = 1,
}

/// A value and where it was written; for a default, where its section begins.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: Span,
}

impl<T> At<T> {
    /// Keeps the place.
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> At<U> {
        At { value: map(self.value), at: self.at }
    }
}

/// The section that a problem is about, with the name of its entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// `dns.list`.
    pub(crate) section: &'static str,
    /// What the entry is called, if it has a name.
    pub(crate) name: Option<String>,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} \"{name}\"", self.section),
            None => f.write_str(self.section),
        }
    }
}

/// What is wrong with a text that should be a value, and what to write instead.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) hint: String,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// Collects problems while the texts are read and compiled.
pub(crate) struct Report {
    sources: Vec<Source>,
    /// For each source the byte that each line begins at.
    lines: Vec<Vec<usize>>,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    broken: Cell<bool>,
}

/// A text as the report needs it.
pub(crate) struct Source {
    /// As the user named it.
    pub(crate) name: String,
    /// All of it.
    pub(crate) content: String,
    /// Lines of the file before the text (the checksum of a state file).
    pub(crate) skipped_lines: usize,
}

impl Source {
    /// Returns the edits of a state folder.
    pub(crate) fn edits(content: String, state: &Path) -> Self {
        let name = state.join(crate::config::edits::FILE).display().to_string();
        Self { name, content, skipped_lines: 1 }
    }
}

impl Report {
    pub(crate) fn new(file: Source, edits: Source) -> Self {
        let sources = vec![file, edits];
        let begins = |source: &Source| {
            let newlines = source.content.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            [0].into_iter().chain(newlines.map(|(at, _)| at + 1)).collect()
        };
        Self {
            lines: sources.iter().map(begins).collect(),
            sources,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            broken: Cell::default(),
        }
    }

    /// Returns a text.
    pub(crate) fn content(&self, text: Text) -> &str {
        &self.sources[text as usize].content
    }

    /// Notes something that the configuration is refused for.
    pub(crate) fn error(&self, at: Span, about: &About, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.borrow_mut().push(self.problem(at, about, what.into(), hint.into()));
    }

    /// Notes something that is odd.
    pub(crate) fn warning(&self, at: Span, about: &About, what: impl Into<String>, hint: impl Into<String>) {
        self.warnings.borrow_mut().push(self.problem(at, about, what.into(), hint.into()));
    }

    /// Notes that lines could not be read at all.
    pub(crate) fn broken_syntax(&self) {
        self.broken.set(true);
    }

    /// Says whether lines could not be read at all.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Says whether something was refused already.
    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Returns the warnings, or everything that is wrong.
    pub(crate) fn finish(self) -> Result<Vec<Problem>, Problems> {
        let mut errors = self.errors.into_inner();
        errors.sort();
        errors.dedup();
        let mut warnings = self.warnings.into_inner();
        warnings.sort();
        if errors.is_empty() { Ok(warnings) } else { Err(Problems(errors)) }
    }

    fn problem(&self, at: Span, about: &About, what: String, hint: String) -> Problem {
        let source = &self.sources[at.text as usize];
        let begins = &self.lines[at.text as usize];
        let line = begins.partition_point(|begin| *begin <= at.start);
        let begin = begins[line.saturating_sub(1)];
        let column = source.content.get(begin..at.start).map_or(0, |before| before.chars().count()) + 1;
        let line = line + source.skipped_lines;
        let place = Place { order: at.text as usize, line, column, file: source.name.clone() };
        Problem { place: Some(place), about: about.to_string(), what, hint }
    }
}

/// Returns the known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    // More than a third of the letters wrong is another word.
    (distance * 3 <= word.chars().count().max(candidate.len()).max(3)).then_some(candidate)
}

/// Counts the letters to insert, delete, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(from != to)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["listen", "cache_size", "resolve"];

        assert_eq!(nearest("lisetn", known), Some("listen"));
        assert_eq!(nearest("cachesize", known), Some("cache_size"));
        assert_eq!(nearest("backup", known), None);
    }
}

//! Reads typed values out of a TOML table, and goes on after a mistake: what cannot be read is noted in the
//! report and is `None`.

use toml::{Spanned, de::DeTable, de::DeValue};

use crate::config::{
    file::keys,
    problems::{About, At, Report, Span, Text, Wrong, nearest},
};

/// A table of the file: one section, or one entry of it.
#[derive(Clone)]
pub(crate) struct Table<'a> {
    pub(crate) about: About,
    pub(crate) at: Span,
    pub(crate) report: &'a Report,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// Opens a table and reports the keys that its section does not have.
    pub(crate) fn open(section: &'static str, at: Span, entries: &'a DeTable<'a>, report: &'a Report) -> Self {
        Self::open_within(section, None, at, entries, report)
    }

    fn open_within(
        section: &'static str,
        entry: Option<String>,
        at: Span,
        entries: &'a DeTable<'a>,
        report: &'a Report,
    ) -> Self {
        let name = ["name", "host"].iter().find_map(|key| entries.get(*key)).and_then(|value| match value.get_ref() {
            DeValue::Array(list) => list.first().and_then(|first| first.get_ref().as_str()),
            value => value.as_str(),
        });
        let table = Self { about: About { section, name: name.map(str::to_owned).or(entry) }, at, report, entries };
        let known = keys::of(section);
        for key in entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let kind = if section.is_empty() { "section" } else { "key" };
            let hint = match nearest(key.get_ref(), known.iter().copied()) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let at = table.span(key.span().start);
            report.error(at, &table.about, format!("unknown {kind} \"{}\"", key.get_ref()), hint);
        }
        table
    }

    fn span(&self, start: usize) -> Span {
        Span { text: self.at.text, start }
    }

    fn value(&self, key: &'static str) -> Option<At<&'a DeValue<'a>>> {
        debug_assert!(keys::of(self.about.section).contains(&key), "{} has no {key}", self.about.section);
        self.entries.get(key).map(|value| self.at_value(value))
    }

    fn at_value(&self, value: &'a Spanned<DeValue<'a>>) -> At<&'a DeValue<'a>> {
        At { value: value.get_ref(), at: self.span(value.span().start) }
    }

    fn type_error(&self, value: &At<&DeValue<'_>>, key: &str, wanted: &str) {
        let what = format!("\"{key}\" is {}, not {wanted}", article(value.value.type_str()));
        let quotes = if wanted == "a string" { " in quotes" } else { "" };
        self.report.error(value.at, &self.about, what, format!("write {wanted}{quotes}"));
    }

    /// Returns where a key's value stands, or where the section begins.
    pub(crate) fn place(&self, key: &'static str) -> Span {
        self.value(key).map_or(self.at, |value| value.at)
    }

    /// Says whether a key is written.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Puts a default where nothing was written.
    pub(crate) fn or<T>(&self, written: Option<At<T>>, default: T) -> At<T> {
        written.unwrap_or(At { value: default, at: self.at })
    }

    /// Notes that a mandatory key is missing.
    pub(crate) fn missing(&self, key: &'static str, hint: &str) {
        if self.report.is_broken() {
            // It may stand in a line that could not be read.
            return;
        }
        self.report.error(self.at, &self.about, format!("the key \"{key}\" is missing"), hint);
    }

    /// Reads a string into a type.
    pub(crate) fn parsed<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<At<T>> {
        let value = self.value(key)?;
        self.parse_value(value, key, &parse)
    }

    fn parse_value<T>(
        &self,
        value: At<&'a DeValue<'a>>,
        key: &str,
        parse: &impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let Some(text) = value.value.as_str() else {
            self.type_error(&value, key, "a string");
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(At { value: parsed, at: value.at }),
            Err(Wrong { what, hint }) => {
                // A message that begins with the value does not say what it is the value of.
                let said = self.about.name.as_deref() == Some(key);
                let what = if what.starts_with('"') && !said { format!("{key}: {what}") } else { what };
                self.report.error(value.at, &self.about, what, hint);
                None
            }
        }
    }

    /// Reads a string.
    pub(crate) fn string(&self, key: &'static str) -> Option<At<String>> {
        self.parsed(key, |text| Ok(text.to_owned()))
    }

    /// Says whether a key's value is a string.
    pub(crate) fn is_string(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.value.is_str())
    }

    /// Returns the text of a value of [`Self::named`], or reports that it is none.
    pub(crate) fn text_of(&self, value: &At<&'a DeValue<'a>>, key: &str) -> Option<&'a str> {
        let text = value.value.as_str();
        if text.is_none() {
            self.type_error(value, key, "a string");
        }
        text
    }

    /// Reads a text that stands at a place into a type.
    pub(crate) fn within<T, P>(
        &self,
        place: &At<P>,
        text: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        parse(text).map_err(|Wrong { what, hint }| self.report.error(place.at, &self.about, what, hint)).ok()
    }

    /// Reads a string or a list of strings into a list of a type; what cannot be read is left out.
    pub(crate) fn list<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<At<T>>> {
        let value = self.value(key)?;
        Some(self.list_of(value, key, &parse))
    }

    pub(crate) fn list_of<T>(
        &self,
        value: At<&'a DeValue<'a>>,
        key: &str,
        parse: &impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        match value.value {
            DeValue::Array(list) => {
                list.iter().filter_map(|one| self.parse_value(self.at_value(one), key, parse)).collect()
            }
            DeValue::String(_) => self.parse_value(value, key, parse).into_iter().collect(),
            _ => {
                self.type_error(&value, key, "a list of strings");
                Vec::new()
            }
        }
    }

    /// Reads one of a few words.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<At<T>> {
        self.parsed(key, |text| match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(Wrong::new(format!("{key} cannot be \"{text}\""), format!("one of {}", all.join(", "))))
            }
        })
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.value(key)?;
        let boolean = value.value.as_bool();
        if boolean.is_none() {
            self.type_error(&value, key, "true or false");
        }
        boolean.map(|boolean| At { value: boolean, at: value.at })
    }

    /// Says whether a key is written as true or false.
    pub(crate) fn is_boolean(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.value.as_bool().is_some())
    }

    /// Reads a whole number within bounds.
    pub(crate) fn number(&self, key: &'static str, bounds: std::ops::RangeInclusive<u64>) -> Option<At<u64>> {
        let value = self.value(key)?;
        let Some(written) = value.value.as_integer() else {
            self.type_error(&value, key, "a whole number");
            return None;
        };
        match u64::from_str_radix(written.as_str(), written.radix()).ok().filter(|number| bounds.contains(number)) {
            Some(number) => Some(At { value: number, at: value.at }),
            None => {
                let what = format!("{key} cannot be {written}");
                let hint = format!("from {} to {}", bounds.start(), bounds.end());
                self.report.error(value.at, &self.about, what, hint);
                None
            }
        }
    }

    /// Opens a table below this one.
    pub(crate) fn table(&self, key: &'static str, section: &'static str) -> Option<Table<'a>> {
        let value = self.value(key)?;
        match value.value {
            DeValue::Table(entries) => Some(self.below(section, value.at, entries)),
            other => {
                let what = format!("\"{key}\" is {}, not a table", article(other.type_str()));
                let hint = format!("write [{section}] on a line of its own, and its keys below");
                self.report.error(value.at, &self.about, what, hint);
                None
            }
        }
    }

    /// Opens every entry of an array of tables.
    pub(crate) fn tables(&self, key: &'static str, section: &'static str) -> Vec<Table<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(list) = value.value else {
            let what = format!("\"{key}\" is {}, not a list of entries", article(value.value.type_str()));
            self.report.error(value.at, &self.about, what, format!("write [[{section}]] above each entry"));
            return Vec::new();
        };
        let open = |one| {
            let value = self.at_value(one);
            match value.value {
                DeValue::Table(entries) => Some(self.below(section, value.at, entries)),
                _ => {
                    self.type_error(&value, key, "a table");
                    None
                }
            }
        };
        list.iter().filter_map(open).collect()
    }

    /// Opens a table that may be written once or as an array of tables.
    pub(crate) fn table_or_tables(&self, key: &'static str, section: &'static str) -> Vec<Table<'a>> {
        match self.value(key) {
            Some(At { value: DeValue::Array(_), .. }) => self.tables(key, section),
            _ => self.table(key, section).into_iter().collect(),
        }
    }

    /// Returns every key of a table with its value: for tables whose keys are names of the owner's.
    pub(crate) fn named(&self, key: &'static str) -> Vec<(At<&'a str>, At<&'a DeValue<'a>>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(entries) = value.value else {
            self.type_error(&value, key, "a table");
            return Vec::new();
        };
        let name =
            |key: &'a Spanned<_>| At { value: AsRef::<str>::as_ref(key.get_ref()), at: self.span(key.span().start) };
        entries.iter().map(|(key, value)| (name(key), self.at_value(value))).collect()
    }

    /// Opens a table below this one which belongs to the same entry as far as messages go.
    pub(crate) fn below(&self, section: &'static str, at: Span, entries: &'a DeTable<'a>) -> Table<'a> {
        Table::open_within(section, self.about.name.clone(), at, entries, self.report)
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// Parses a text, reporting every mistake in its syntax; what could be read is returned.
pub(crate) fn parse<'a>(text: Text, report: &'a Report) -> Spanned<DeTable<'a>> {
    let (document, errors) = DeTable::parse_recoverable(report.content(text));
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let start = span.start;
        let mut message = error.message().replace('\n', ", ");
        if let Some(key) = report.content(text).get(span).filter(|_| message == "duplicate key") {
            message = format!("the key \"{key}\" is written twice");
        }
        let hint = "this is TOML: strings in quotes, each key once, a [section] or [[entry]] on a line of its own";
        report.error(Span { text, start }, &About::default(), message, hint);
    }
    if !errors.is_empty() {
        report.broken_syntax();
    }
    document
}

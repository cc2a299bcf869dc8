//! One thing that was found: how bad it is, what it is, why it matters, what to type.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    Good,
    /// It works, but not as well as it could, or it cannot be seen from here.
    Odd,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) mark: Mark,
    /// What was looked at, in a word.
    pub(super) about: &'static str,
    pub(super) what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(super) command: String,
}

impl Finding {
    pub(super) fn good(about: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Good, about, what)
    }

    pub(super) fn odd(about: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Odd, about, what)
    }

    pub(super) fn bad(about: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Bad, about, what)
    }

    fn new(mark: Mark, about: &'static str, what: impl Into<String>) -> Self {
        Self { mark, about, what: what.into(), why: String::new(), command: String::new() }
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(super) fn type_in(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Good => "✓",
            Mark::Odd => "!",
            Mark::Bad => "✗",
        };
        let lines = |text: &str| text.replace('\n', &format!("\n{:15}", ""));
        writeln!(f, "{mark} {:<12} {}", self.about, lines(&self.what))?;
        for (title, text) in [("why", &self.why), ("type", &self.command)] {
            if !text.is_empty() {
                writeln!(f, "{:15}{title:<5} {}", "", text.replace('\n', &format!("\n{:21}", "")))?;
            }
        }
        Ok(())
    }
}

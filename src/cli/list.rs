//! `hearthgate list check FILE`: what a block or allow list holds, and what of it is not taken.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Subcommand;

use crate::dns::filter::{self, Contents};

#[derive(Debug, Subcommand)]
pub(super) enum List {
    /// Say what a list holds, and which of its lines are not taken and why
    Check {
        /// The list
        file: PathBuf,
    },
}

impl List {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self::Check { file } = self;
        let contents = filter::contents(&file).with_context(|| file.display().to_string())?;
        print!("{}", told(&file, &contents));
        Ok(())
    }
}

fn told(file: &Path, contents: &Contents) -> String {
    let entries = contents.exact + contents.subtrees + contents.patterns + contents.addresses;
    let ignored: u64 = contents.ignored.values().map(|ignored| ignored.count).sum();
    let mut text = String::new();
    let mut line = |key: &str, count: u64, what: &str| {
        let _ = writeln!(text, "  {key:<12} {count:>9}  {what}");
    };
    line("names", contents.names, "distinct");
    line("entries", entries, "taken");
    line("", contents.exact, "for their name alone");
    line("", contents.subtrees, "for everything below it too");
    line("", contents.patterns, "patterns and regular expressions");
    line("", contents.addresses, "addresses in answers");
    line("", contents.exceptions, "let through what they name");
    line("ignored", ignored, "not taken");
    for (reason, ignored) in &contents.ignored {
        let _ = writeln!(text, "\n{} × {}", ignored.count, reason.text());
        for (number, line) in &ignored.examples {
            let _ = writeln!(text, "  {}:{number}: {line}", file.display());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_come_first_and_reasons_with_their_lines_after() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        std::fs::write(&file, "||ads.example^\nads.example\n||x.example^$third-party\n").unwrap();

        let text = told(Path::new("list"), &filter::contents(&file).unwrap());

        assert!(text.starts_with("  names                1  distinct\n  entries              2  taken\n"), "{text}");
        assert!(
            text.contains("\n1 × a modifier that DNS does not know\n  list:3: ||x.example^$third-party\n"),
            "{text}"
        );
    }
}

//! What a list holds and what of it is not taken, for its owner.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufReader},
    path::Path,
};

use super::{
    key::Seed,
    parse::{self, Found, Reach, ReadError, Sense},
    reason::Reason,
};

/// Examples kept of each reason.
const EXAMPLES: usize = 3;

/// Longer lines are cut.
const MAX_TEXT: usize = 100;

/// What a list holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Octets.
    pub bytes: u64,
    /// Distinct names.
    pub names: u64,
    /// Entries that cover their name alone.
    pub exact: u64,
    /// Entries that cover everything below their name as well, or only that.
    pub subtrees: u64,
    /// Patterns and regular expressions.
    pub patterns: u64,
    /// Addresses and networks, in answers.
    pub addresses: u64,
    /// Entries of all these that let through what they name.
    pub exceptions: u64,
    /// What was not taken.
    pub ignored: BTreeMap<Reason, Ignored>,
}

/// What was not taken for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// How many things.
    pub count: u64,
    /// The first ones: number and text of the line.
    pub examples: Vec<(u64, String)>,
}

/// Reads a list file; blocks.
pub fn contents(path: &Path) -> Result<Contents, ReadError> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file").into());
    }
    let seed = Seed::random().map_err(io::Error::from)?;
    let mut contents = Contents::default();
    let mut keys = Vec::new();
    let file = BufReader::with_capacity(1 << 16, fs::File::open(path)?);
    contents.bytes = parse::read(file, |line, text, found| match found {
        Found::Name { sense, .. } | Found::Pattern { sense, .. } | Found::Net { sense, .. } => {
            match found {
                Found::Name { name, reach, .. } => {
                    keys.extend(seed.key(name));
                    match reach {
                        Reach::Exact => contents.exact += 1,
                        Reach::Below | Reach::Subtree => contents.subtrees += 1,
                    }
                }
                Found::Pattern { .. } => contents.patterns += 1,
                _ => contents.addresses += 1,
            }
            contents.exceptions += u64::from(matches!(sense, Sense::Exception | Sense::ImportantException));
        }
        Found::Ignored(reason) => {
            let ignored = contents.ignored.entry(reason).or_default();
            ignored.count += 1;
            if ignored.examples.len() < EXAMPLES {
                ignored.examples.push((line, readable(text)));
            }
        }
    })?;
    keys.sort_unstable();
    keys.dedup();
    contents.names = keys.len() as u64;
    Ok(contents)
}

/// Makes a line fit to be shown on a terminal, whatever stands in it.
fn readable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.trim_ascii());
    let shown = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    let mut shown: Vec<char> = shown.take(MAX_TEXT + 1).collect();
    if shown.len() > MAX_TEXT {
        shown.truncate(MAX_TEXT);
        shown.push('…');
    }
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_told_with_lines_and_the_first_examples() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let long = format!("a.example/{}", "x".repeat(200));
        let lines =
            ["! a", "||ads.example^", "@@||ok.ads.example^", "/banner(?=x)/", "ads.example", "a\x1b[31m.example/"];
        fs::write(&path, lines.join("\n") + "\n" + &format!("{long}\nb.example/\nc.example/\n")).unwrap();

        let contents = contents(&path).unwrap();

        assert_eq!((contents.names, contents.exact, contents.subtrees, contents.exceptions), (2, 1, 2, 1));
        assert_eq!(contents.ignored[&Reason::Regex].examples, [(4, "/banner(?=x)/".to_owned())]);
        let urls = &contents.ignored[&Reason::Url];
        assert_eq!(urls.count, 4);
        assert_eq!(urls.examples.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [6, 7, 8]);
        assert_eq!(urls.examples[0].1, "a\u{fffd}[31m.example/");
        assert!(urls.examples[1].1.ends_with("x…"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert_eq!(contents(Path::new("/dev/zero")).unwrap_err().to_string(), "not a file");
    }
}

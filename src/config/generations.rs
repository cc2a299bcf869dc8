//! Every configuration that was accepted, so that each change can be seen and taken back.
//!
//! A generation is one file of the state folder, `generations/NUMBER`: a head of `key: value` lines, an empty
//! line, the edits and the owner's file, each with its length. The oldest go when there are too many.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    config::{
        digest,
        edits::{EditError, Edits},
        hidden::Hider,
    },
    store,
};

/// So many are kept.
const KEPT: usize = 50;

/// A configuration that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Counted from 1; never given twice.
    pub number: u64,
    /// When it was accepted.
    pub time: jiff::Timestamp,
    /// Who brought it: `start`, `reload`, `peer add laptop`.
    pub author: String,
    /// As [`crate::config::Loaded::digest`].
    pub digest: String,
    /// The owner's file.
    pub file: String,
    /// `edits.toml`.
    pub edits: String,
}

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The edits were others before.
    pub edits_changed: bool,
    /// The owner's file is another now than it was then. It is never rewritten: only its owner can take it back.
    pub file_differs: bool,
}

/// Why something about generations failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// It is not kept.
    #[error("there is no generation {0}: `hearthgate config log` lists them")]
    Unknown(u64),
    /// The edits could not be replaced.
    #[error(transparent)]
    Edits(#[from] EditError),
    /// The state folder.
    #[error("generations: {0}")]
    Io(#[from] io::Error),
}

/// Keeps a configuration that was accepted, and returns its number; one that equals the last keeps the last's.
pub fn record(
    state: &Path,
    file: &str,
    edits: &str,
    author: &str,
    now: jiff::Timestamp,
) -> Result<u64, GenerationError> {
    let numbers = numbers(state)?;
    let digest = digest(file, edits);
    if let Some(last) = numbers.last().and_then(|number| show(state, *number).ok())
        && last.digest == digest
    {
        return Ok(last.number);
    }
    let number = numbers.last().map_or(1, |last| last + 1);
    let author = author.replace(['\n', '\r'], " ");
    let (file, edits) = (file.to_owned(), edits.to_owned());
    let generation = Generation { number, time: now, author, digest, file, edits };
    store::folder(&folder(state))?;
    store::write(&path(state, number), generation.encode().as_bytes())?;
    let surplus = (numbers.len() + 1).saturating_sub(KEPT);
    for old in &numbers[..surplus] {
        fs::remove_file(path(state, *old))?;
    }
    Ok(number)
}

/// Returns what is kept, the oldest first. What cannot be read is left out.
pub fn list(state: &Path) -> Result<Vec<Generation>, GenerationError> {
    Ok(numbers(state)?.into_iter().filter_map(|number| show(state, number).ok()).collect())
}

/// Returns one generation.
pub fn show(state: &Path, number: u64) -> Result<Generation, GenerationError> {
    let path = path(state, number);
    let content = match path.try_exists()? {
        true => store::peek(&path)?.content(),
        false => None,
    };
    let content = content.and_then(|content| String::from_utf8(content).ok());
    content.and_then(|text| Generation::decode(number, &text)).ok_or(GenerationError::Unknown(number))
}

/// Returns what changed from one generation to another, line by line; of a secret only that it changed.
pub fn diff(state: &Path, from: u64, to: u64) -> Result<String, GenerationError> {
    let hider = Hider::new();
    let hidden = |number| {
        let shown = show(state, number)?;
        Ok::<_, GenerationError>(Generation { file: hider.hide(&shown.file), edits: hider.hide(&shown.edits), ..shown })
    };
    let (from, to) = (hidden(from)?, hidden(to)?);
    let mut text = String::new();
    for (name, old, new) in [("file", &from.file, &to.file), ("edits.toml", &from.edits, &to.edits)] {
        if old != new {
            text.push_str(&format!(
                "--- {name} of generation {}\n+++ {name} of generation {}\n",
                from.number, to.number
            ));
            text.push_str(&lines(old, new));
        }
    }
    Ok(text)
}

/// Puts the edits of a generation back. `file` is the owner's file as it is now.
pub fn rollback(state: &Path, number: u64, file: &str) -> Result<RolledBack, GenerationError> {
    let generation = show(state, number)?;
    let mut edits = Edits::read(state)?;
    let edits_changed = edits.text() != generation.edits;
    if edits_changed {
        edits.write(generation.edits)?;
    }
    Ok(RolledBack { edits_changed, file_differs: generation.file != file })
}

impl Generation {
    fn encode(&self) -> String {
        let Self { time, author, digest, file, edits, .. } = self;
        let (file_length, edits_length) = (file.len(), edits.len());
        format!(
            "time: {time}\nauthor: {author}\ndigest: {digest}\nfile: {file_length}\nedits: {edits_length}\n\n{file}{edits}"
        )
    }

    fn decode(number: u64, text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\n\n")?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length: usize = field("file")?.parse().ok()?;
        let (file, edits) = body.split_at_checked(length)?;
        let whole = edits.len() == field("edits")?.parse::<usize>().ok()?;
        whole.then_some(())?;
        Some(Self {
            number,
            time: field("time")?.parse().ok()?,
            author: field("author")?.to_owned(),
            digest: field("digest")?.to_owned(),
            file: file.to_owned(),
            edits: edits.to_owned(),
        })
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("generations")
}

fn path(state: &Path, number: u64) -> PathBuf {
    folder(state).join(number.to_string())
}

fn numbers(state: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder(state)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        // Others are what the store keeps beside its files.
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Lines that went with `-`, lines that came with `+`, lines that stayed around them with a space.
fn lines(old: &str, new: &str) -> String {
    const AROUND: usize = 3;
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut marked = Vec::new();
    let (start, tail) = common_ends(&old, &new);
    marked.extend(old[..start].iter().map(|line| (' ', *line)));
    marked.extend(middle(&old[start..old.len() - tail], &new[start..new.len() - tail]));
    marked.extend(old[old.len() - tail..].iter().map(|line| (' ', *line)));
    let near = |at: usize| {
        let (from, to) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(marked.len()));
        marked[from..to].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut skipped = false;
    for (at, (mark, line)) in marked.iter().enumerate() {
        if near(at) {
            text.push_str(&format!("{mark}{line}\n"));
            skipped = false;
        } else if !skipped {
            text.push_str("…\n");
            skipped = true;
        }
    }
    text
}

fn common_ends(old: &[&str], new: &[&str]) -> (usize, usize) {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    (start, tail)
}

/// The longest common subsequence, as long as its table stays small.
fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    const MAX_CELLS: usize = 4 << 20;
    let width = new.len() + 1;
    if (old.len() + 1) * width > MAX_CELLS {
        let went = old.iter().map(|line| ('-', *line));
        return went.chain(new.iter().map(|line| ('+', *line))).collect();
    }
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = match old[i] == new[j] {
                true => longest[(i + 1) * width + j + 1] + 1,
                false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut marked = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            marked.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            marked.push(('-', old[i]));
            i += 1;
        } else {
            marked.push(('+', new[j]));
            j += 1;
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> jiff::Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn what_was_accepted_is_kept_once_and_shown_as_it_was() {
        let state = tempfile::tempdir().unwrap();

        let first = record(state.path(), "a = 1\n\nb = 2\n", "", "start", now()).unwrap();
        let again = record(state.path(), "a = 1\n\nb = 2\n", "", "reload", now()).unwrap();
        let second = record(state.path(), "a = 1\n\nb = 2\n", "# x\n", "peer add\nlaptop", now()).unwrap();

        assert_eq!((first, again, second), (1, 1, 2));
        let kept = list(state.path()).unwrap();
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0].file, "a = 1\n\nb = 2\n");
        assert_eq!((kept[1].edits.as_str(), kept[1].author.as_str()), ("# x\n", "peer add laptop"));
    }

    #[test]
    fn the_oldest_go_and_numbers_do_not_come_back() {
        let state = tempfile::tempdir().unwrap();
        for file in 0..KEPT + 5 {
            record(state.path(), &file.to_string(), "", "start", now()).unwrap();
        }

        let kept = list(state.path()).unwrap();

        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].number, 6);
        assert!(matches!(show(state.path(), 5), Err(GenerationError::Unknown(5))));
    }

    #[test]
    fn a_diff_shows_what_changed_and_a_little_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n";
        let new = "1\n2\n3\n4\n5\nsix\n7\n8\nnine\n";

        assert_eq!(lines(old, new), "…\n 3\n 4\n 5\n-6\n+six\n 7\n 8\n+nine\n");
    }

    #[test]
    fn a_rollback_restores_the_edits_and_says_that_the_file_is_another() {
        let state = tempfile::tempdir().unwrap();
        let number = record(state.path(), "file", "# edits\n", "start", now()).unwrap();

        let done = rollback(state.path(), number, "another file").unwrap();

        assert_eq!(done, RolledBack { edits_changed: true, file_differs: true });
        assert_eq!(Edits::read(state.path()).unwrap().text(), "# edits\n");
    }
}

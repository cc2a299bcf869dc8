//! What was changed, by whom and when: a chain of JSON lines, each with the digest of the one before it.
//!
//! A line that was altered, taken out or put in breaks the chain, and [`verify`] says where. Whoever may write the
//! file can also write a chain of his own from some line on: keep the digest that `verify` prints elsewhere, and the
//! past before it cannot be rewritten unseen. Entries survive a power cut before anybody is told that the change is
//! done. Files are rotated by size, and the chain goes on from one to the next.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The newest file's name in the state folder; older ones have a number behind it, the oldest the largest.
const FILE: &str = "audit.log";
/// Bytes of a file.
const SIZE: u64 = 1 << 20;
/// Files besides the newest one.
const OLDER: usize = 16;
/// Bytes of what somebody else chose.
const TEXT: usize = 512;

/// How long another process may have the turn to write.
const TURN: Duration = Duration::from_secs(2);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1.
    pub number: u64,
    /// When, in UTC.
    pub at: String,
    /// Who.
    pub by: String,
    /// Did what.
    pub what: String,
    /// What came of it.
    pub outcome: String,
    /// The digest of the line before this one.
    pub before: String,
}

/// The log of a state folder.
#[derive(Debug)]
pub struct Audit {
    state: PathBuf,
    size: u64,
    end: Mutex<Option<End>>,
}

/// Where the chain ends.
#[derive(Debug)]
struct End {
    file: File,
    bytes: u64,
    number: u64,
    digest: String,
}

/// What a look at the whole log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Lines.
    pub entries: u64,
    /// The number of the first line that is still kept.
    pub first: u64,
    /// The digest of the last line.
    pub digest: String,
}

/// Why a log is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A line.
    #[error("{file}, line {line}: {what}")]
    Line {
        /// Of which file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

impl Audit {
    /// Names the log of a state folder; nothing is read or written yet.
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), size: SIZE, end: Mutex::default() }
    }

    fn end(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a line; when this returns it is on the disk. A disk that does not take it is an error in the log, and
    /// stops nothing.
    pub fn record(&self, by: &str, what: &str, outcome: &str) {
        if let Err(error) = self.try_record(by, what, outcome) {
            tracing::error!(by, what, outcome, %error, "the audit log cannot be written");
        }
    }

    fn try_record(&self, by: &str, what: &str, outcome: &str) -> io::Result<()> {
        let mut end = self.end();
        // While one process hands over to the next, two write: one at a time, each behind the other's last line.
        let _turn = turn(&self.state)?;
        if end.as_ref().is_some_and(|end| !end.is_last(&self.state)) {
            *end = None;
        }
        if end.as_ref().is_some_and(|end| end.bytes >= self.size) {
            let before = end.take();
            rotate(&self.state)?;
            let before = before.map(|end| (end.number, end.digest));
            *end = Some(End::open(&self.state, before)?);
        }
        if end.is_none() {
            *end = Some(End::open(&self.state, None)?);
        }
        let open = end.as_mut().expect("it was opened just now");
        let written = open.append(by, what, outcome);
        if written.is_err() {
            // Half a line may be there: found out when it is opened again.
            *end = None;
        }
        written
    }
}

/// Waits for the turn to write, which ends when the folder is closed again. Nobody has it for longer than a line takes.
fn turn(state: &Path) -> io::Result<File> {
    let folder = File::open(state)?;
    let until = Instant::now() + TURN;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

impl End {
    /// Whether this is still the newest file, and nobody has written behind what we know.
    fn is_last(&self, state: &Path) -> bool {
        let (Ok(known), Ok(newest)) = (self.file.metadata(), fs::metadata(state.join(FILE))) else { return false };
        (known.dev(), known.ino()) == (newest.dev(), newest.ino()) && newest.len() == self.bytes
    }

    /// Opens the newest file; what was written last without its end is cut off, and that is written down.
    fn open(state: &Path, before: Option<(u64, String)>) -> io::Result<Self> {
        let path = state.join(FILE);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path)?;
        File::open(state)?.sync_all()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let is_torn = whole < text.len();
        if is_torn {
            file.set_len(u64::try_from(whole).unwrap_or(0))?;
            text.truncate(whole);
        }
        let last = text.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).map(<[u8]>::to_owned);
        let last = match last {
            Some(line) => Some(line),
            None if before.is_none() => last_line(&state.join(format!("{FILE}.1")))?,
            None => None,
        };
        let (number, digest) = match (&last, before) {
            (Some(line), _) => {
                let number = serde_json::from_slice::<Entry>(line).map_or(0, |entry| entry.number);
                (number, digest(line))
            }
            (None, Some(before)) => before,
            (None, None) => (0, String::new()),
        };
        let mut end = Self { file, bytes: u64::try_from(text.len()).unwrap_or(u64::MAX), number, digest };
        if is_torn {
            end.append("hearthgate", "audit log opened", "the last line was torn and is cut off")?;
        }
        Ok(end)
    }

    fn append(&mut self, by: &str, what: &str, outcome: &str) -> io::Result<()> {
        let short = |text: &str| text.chars().take(TEXT).collect::<String>();
        let entry = Entry {
            number: self.number + 1,
            at: Timestamp::now().to_string(),
            by: short(by),
            what: short(what),
            outcome: short(outcome),
            before: self.digest.clone(),
        };
        let mut line = serde_json::to_vec(&entry)?;
        let digest = digest(&line);
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.number = entry.number;
        self.digest = digest;
        Ok(())
    }
}

fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(text.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).map(<[u8]>::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn rotate(state: &Path) -> io::Result<()> {
    let name = |number: usize| match number {
        0 => state.join(FILE),
        number => state.join(format!("{FILE}.{number}")),
    };
    for number in (0..OLDER).rev() {
        match fs::rename(name(number), name(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(state)?.sync_all()
}

fn digest(line: &[u8]) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the files of a state folder, the oldest first.
fn files(state: &Path) -> Vec<PathBuf> {
    let older = (1..=OLDER).rev().map(|number| state.join(format!("{FILE}.{number}")));
    older.chain([state.join(FILE)]).filter(|path| path.exists()).collect()
}

/// Reads every line and checks the chain; calls `each` for the lines on the way.
pub fn verify(state: &Path, mut each: impl FnMut(&Entry)) -> Result<Verified, Broken> {
    let mut verified = Verified { entries: 0, first: 0, digest: String::new() };
    let mut before: Option<(u64, String)> = None;
    for path in files(state) {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read(&path).map_err(|error| Broken::Io(file.clone(), error))?;
        let broken = |line: usize, what| Broken::Line { file: file.clone(), line: line + 1, what };
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for (at, line) in lines.into_iter().enumerate() {
            let line = line.strip_suffix(b"\n").ok_or_else(|| broken(at, "it is torn"))?;
            let entry: Entry = serde_json::from_slice(line).map_err(|_| broken(at, "it is no entry"))?;
            match &before {
                Some((number, _)) if entry.number != number + 1 => {
                    return Err(broken(at, "entries are missing before it"));
                }
                Some((_, digest)) if entry.before != *digest => {
                    return Err(broken(at, "the line before it is not the one that it was written after"));
                }
                None if entry.number == 1 && !entry.before.is_empty() => {
                    return Err(broken(at, "it says that it is the first, and names one before"));
                }
                None => verified.first = entry.number,
                Some(_) => {}
            }
            verified.entries += 1;
            verified.digest = digest(line);
            before = Some((entry.number, verified.digest.clone()));
            each(&entry);
        }
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, entries: usize, size: u64) {
        let audit = Audit { size, ..Audit::new(folder) };
        for number in 0..entries {
            audit.record("root", &format!("peer add p{number}"), "done");
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut seen = Vec::new();
        verify(folder, |entry| seen.push(entry.what.clone())).unwrap();
        seen
    }

    #[test]
    fn the_chain_goes_on_over_restarts_and_files() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 5, 400);
        log(folder.path(), 5, 400);

        let verified = verify(folder.path(), |_| {}).unwrap();

        assert_eq!((verified.entries, verified.first), (10, 1));
        assert!(folder.path().join("audit.log.2").exists());
        assert_eq!(names(folder.path())[..2], ["peer add p0", "peer add p1"]);
    }

    #[test]
    fn two_processes_write_one_chain() {
        let folder = tempfile::tempdir().unwrap();
        let writer = || Audit { size: 900, ..Audit::new(folder.path()) };

        let writers = [writer(), writer()];
        for number in 0..6 {
            writers.iter().for_each(|log| log.record("uid 0", &format!("alternating {number}"), "done"));
        }
        std::thread::scope(|scope| {
            for log in &writers {
                scope
                    .spawn(move || (0..8).for_each(|number| log.record("uid 0", &format!("at once {number}"), "done")));
            }
        });

        assert_eq!(verify(folder.path(), |_| {}).unwrap().entries, 28);
    }

    #[test]
    fn what_was_rotated_away_is_missed_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 60, 1);

        let verified = verify(folder.path(), |_| {}).unwrap();

        assert_eq!((verified.entries, verified.first), (17, 44));
    }

    #[test]
    fn a_line_that_was_altered_taken_out_or_put_in_is_found() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 4, SIZE);
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let after = |lines: &[&str]| {
            fs::write(&path, format!("{}\n", lines.join("\n"))).unwrap();
            verify(folder.path(), |_| {}).map_err(|error| error.to_string())
        };
        let altered = lines[1].replace("p1", "p9");

        assert!(after(&[lines[0], &altered, lines[2], lines[3]]).unwrap_err().contains("line 3"));
        assert!(after(&[lines[0], lines[2], lines[3]]).unwrap_err().contains("line 2: entries are missing"));
        assert!(after(&[lines[0], lines[1], lines[1], lines[2]]).unwrap_err().contains("line 3"));
        assert!(after(&["nonsense"]).unwrap_err().contains("no entry"));
        assert!(after(&lines).is_ok());
    }

    #[test]
    fn a_torn_line_is_cut_off_and_that_is_written_down() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 2, SIZE);
        let path = folder.path().join(FILE);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"number\":3,").unwrap();
        assert!(verify(folder.path(), |_| {}).is_err());

        log(folder.path(), 1, SIZE);

        assert_eq!(names(folder.path()), ["peer add p0", "peer add p1", "audit log opened", "peer add p0"]);
    }
}

//! Sorted runs of records: what a build has read so far, most of it in a file.
//!
//! The first run that is followed by another goes to a file without a name in the state folder, so that
//! a build needs little memory besides the table it makes. Where no file can be had the runs stay in memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A key and the number of a rule.
pub(super) type Record = (u64, u16);

/// Octets of a record in the file.
const WIDTH: usize = 10;

/// Records read from the file at a time, for each run.
const BATCH: usize = 1 << 10;

/// Runs on their way in.
pub(super) struct Runs {
    folder: PathBuf,
    file: Option<Arc<File>>,
    /// Octets in the file.
    length: u64,
    runs: Vec<Run>,
    /// The newest run is kept until the next one comes: a small list never needs the file.
    newest: Vec<Record>,
}

impl Runs {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, length: 0, runs: Vec::new(), newest: Vec::new() }
    }

    /// Takes a chunk of records and leaves an empty one.
    pub(super) fn push(&mut self, chunk: &mut Vec<Record>) {
        chunk.sort_unstable();
        chunk.dedup();
        std::mem::swap(&mut self.newest, chunk);
        if !chunk.is_empty() {
            let run = self.store(chunk).unwrap_or_else(|_| Run::Memory(std::mem::take(chunk).into_iter()));
            self.runs.push(run);
        }
        chunk.clear();
    }

    fn store(&mut self, records: &[Record]) -> io::Result<Run> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.file.insert(Arc::new(nameless(&self.folder)?)).clone(),
        };
        let next = self.length;
        let mut writer = BufWriter::new(WriteAt { file: &file, at: next });
        for (key, rule) in records {
            writer.write_all(&key.to_be_bytes())?;
            writer.write_all(&rule.to_be_bytes())?;
        }
        let written = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        let end = written.at;
        self.length = end;
        Ok(Run::Stored { file, next, end, batch: Vec::new().into_iter() })
    }

    /// Returns all records in order.
    pub(super) fn merge(mut self) -> io::Result<Merge> {
        self.runs.push(Run::Memory(self.newest.into_iter()));
        let mut heads = BinaryHeap::with_capacity(self.runs.len());
        for (place, run) in self.runs.iter_mut().enumerate() {
            heads.extend(run.next()?.map(|record| Reverse((record, place))));
        }
        Ok(Merge { runs: self.runs, heads })
    }
}

/// Runs on their way out.
pub(super) struct Merge {
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Record, usize)>>,
}

impl Merge {
    /// Returns the next record, in order; the same one may come again from another run.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((record, place)) = *head;
        match self.runs.get_mut(place).map_or(Ok(None), Run::next)? {
            Some(next) => *head = Reverse((next, place)),
            None => drop(std::collections::binary_heap::PeekMut::pop(head)),
        }
        Ok(Some(record))
    }
}

enum Run {
    Memory(std::vec::IntoIter<Record>),
    Stored { file: Arc<File>, next: u64, end: u64, batch: std::vec::IntoIter<Record> },
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Record>> {
        match self {
            Self::Memory(records) => Ok(records.next()),
            Self::Stored { file, next, end, batch } => {
                if batch.as_slice().is_empty() {
                    let left = usize::try_from(*end - *next).unwrap_or(usize::MAX);
                    let mut octets = vec![0; left.min(BATCH * WIDTH)];
                    file.read_exact_at(&mut octets, *next)?;
                    *next += octets.len() as u64;
                    *batch = octets.chunks_exact(WIDTH).map(record).collect::<Vec<_>>().into_iter();
                }
                Ok(batch.next())
            }
        }
    }
}

fn record(octets: &[u8]) -> Record {
    let (key, rule) = octets.split_at(8);
    let key = u64::from_be_bytes(key.try_into().expect("eight octets were split off"));
    (key, u16::from_be_bytes(rule.try_into().expect("a record has two octets more")))
}

/// Makes a file that is gone when it is closed, whatever happens to the process.
fn nameless(folder: &Path) -> io::Result<File> {
    if folder.as_os_str().is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = folder.join(format!(".lists.{}.{:x}", std::process::id(), getrandom::u64()?));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

struct WriteAt<'a> {
    file: &'a File,
    at: u64,
}

impl Write for WriteAt<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(octets, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(folder: &Path, chunks: &[Vec<Record>]) -> Vec<Record> {
        let mut runs = Runs::new(folder);
        for chunk in chunks {
            runs.push(&mut chunk.clone());
        }
        let mut merge = runs.merge().unwrap();
        std::iter::from_fn(|| merge.next().unwrap()).collect()
    }

    #[test]
    fn records_come_out_in_order_from_file_or_memory() {
        let folder = tempfile::tempdir().unwrap();
        let chunks: Vec<Vec<Record>> = (0..5_u64)
            .map(|chunk| (0..3000).map(|number| ((number * 7919 + chunk * 31) % 10_007, chunk as u16 % 3)).collect())
            .collect();
        let mut expected: Vec<Record> = chunks.concat();
        expected.sort_unstable();

        for folder in [folder.path(), Path::new(""), Path::new("/nowhere/at/all")] {
            assert_eq!(merged(folder, &chunks), expected, "{}", folder.display());
        }
        assert!(merged(folder.path(), &[]).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }
}

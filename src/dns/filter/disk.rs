//! The compiled table on disk, so that a restart filters at once, without reading the lists again, and so that a
//! table that is made anew takes no memory beside the one in force.
//!
//! The file begins with a mark and the key of what it was made from, then comes the table itself, which is used
//! where it stands ([`Mapping`]), then what is read into memory (seed, rules, where the parts of the table are,
//! statuses) and where that begins, and at its end a SHA-256 of all before it. It is used only if mark, key and
//! digest fit; otherwise the table is built from the lists. Whatever a power cut leaves of it does
//! not fit.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Error, ErrorKind, Read, Write},
    num::NonZeroUsize,
    ops::Deref,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{Compiled, ListStatus, build::RuleSets, key::Seed, mapping::Mapping, table::Table};

/// Changes whenever the format or the meaning of a list's lines does.
const MARK: &[u8; 16] = b"hearthgate tab 4";

/// What a table was made from.
pub(super) type Key = [u8; 32];

/// Octets of the digest at the end.
const DIGEST: u64 = 32;

/// Read at a time while the digest is made.
const PART: usize = 1 << 16;

/// The octets of a table.
pub(super) enum Octets {
    /// In memory.
    Memory(Box<[u8]>),
    /// In the file.
    Mapped(Mapping),
}

impl Default for Octets {
    fn default() -> Self {
        Self::Memory(Box::default())
    }
}

impl Deref for Octets {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(octets) => octets,
            Self::Mapped(mapping) => mapping,
        }
    }
}

/// What is told of a table beside its octets.
pub(super) fn write_rest(out: &mut Out, seed: Seed, sets: &RuleSets, statuses: &[ListStatus]) -> io::Result<()> {
    seed.words().into_iter().try_for_each(|word| out.number(word))?;
    sets.write(out)?;
    out.json(&statuses)
}

/// Finds a table that was made from this.
pub(super) fn read(path: &Path, key: Key) -> io::Result<Compiled> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let begins = length.checked_sub(DIGEST + 8).ok_or_else(damaged)?;
    let mut head = [0; 48];
    file.read_exact(&mut head)?;
    if head[..16] != *MARK || head[16..] != key {
        return Err(damaged());
    }
    // Read, not mapped: what nobody asks for need not stay in memory.
    let mut digest = Sha256::new();
    digest.update(head);
    let mut part = vec![0; PART];
    let mut left = length - DIGEST - 48;
    while left > 0 {
        let part = part.get_mut(..usize::try_from(left).unwrap_or(PART).min(PART)).ok_or_else(damaged)?;
        file.read_exact(part)?;
        digest.update(&*part);
        left -= part.len() as u64;
    }
    let mut told = [0; DIGEST as usize];
    file.read_exact(&mut told)?;
    if told != <[u8; DIGEST as usize]>::from(digest.finalize()) {
        return Err(damaged());
    }
    let begins = usize::try_from(begins).map_err(|_| damaged())?;
    let whole = NonZeroUsize::new(begins + 8).ok_or_else(damaged)?;
    let octets = Mapping::new(&file, whole)?;
    let mut at = In::new(octets.get(begins..).unwrap_or_default());
    let rest = usize::try_from(at.number()?).map_err(|_| damaged())?;
    let mut from = In::new(octets.get(rest..begins).ok_or_else(damaged)?);
    let shards = Table::places(&mut from)?;
    let words = [from.number()?, from.number()?, from.number()?, from.number()?];
    let sets = RuleSets::read(&mut from)?;
    let statuses = from.json()?;
    let table = Table::new(Octets::Mapped(octets), shards).ok_or_else(damaged)?;
    Ok(Compiled { key, seed: Seed::of_words(words), table, sets, statuses })
}

/// Says that a file is not what was written.
pub(super) fn damaged() -> Error {
    Error::from(ErrorKind::InvalidData)
}

/// Where a table goes.
pub(super) struct Out {
    to: To,
    at: usize,
}

enum To {
    Memory(Vec<u8>),
    File { file: BufWriter<File>, digest: Sha256, temp: Temp, path: PathBuf },
}

/// A file that vanishes unless it gets its name.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // It may have its name by now.
        let _ = fs::remove_file(&self.0);
    }
}

impl Out {
    /// Makes a table in memory.
    pub(super) fn memory() -> Self {
        Self { to: To::Memory(Vec::new()), at: 0 }
    }

    /// Makes a table in a file, which will stand at `path`.
    pub(super) fn file(path: &Path, key: Key) -> io::Result<Self> {
        let temp = path.with_extension("new");
        // Not written over: somebody may have it mapped.
        match fs::remove_file(&temp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temp)?;
        let file = BufWriter::with_capacity(PART, file);
        let to = To::File { file, digest: Sha256::new(), temp: Temp(temp), path: path.to_owned() };
        let mut out = Self { to, at: 0 };
        out.bytes(MARK)?;
        out.bytes(&key)?;
        Ok(out)
    }

    /// Returns how many octets there are so far.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Ends the table; `rest` writes what is kept beside it. It stays for the next start if `whole` says so.
    pub(super) fn finish(mut self, whole: Whole, rest: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<Octets> {
        let begins = self.at;
        if matches!(self.to, To::File { .. }) {
            rest(&mut self)?;
            self.number(begins as u64)?;
        }
        match self.to {
            To::Memory(octets) => Ok(Octets::Memory(octets.into())),
            To::File { mut file, digest, temp, path } => {
                file.write_all(&digest.finalize())?;
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                // What is mapped must have reached the disk: the kernel may read it from there again.
                file.sync_data()?;
                let length = NonZeroUsize::new(begins).ok_or_else(damaged)?;
                let mapping = Mapping::new(&file, length)?;
                if whole == Whole::Yes {
                    fs::rename(&temp.0, path)?;
                }
                Ok(Octets::Mapped(mapping))
            }
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        match &mut self.to {
            To::Memory(octets) => octets.extend_from_slice(bytes),
            To::File { file, digest, .. } => {
                digest.update(bytes);
                file.write_all(bytes)?;
            }
        }
        Ok(())
    }

    pub(super) fn number(&mut self, number: u64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    pub(super) fn length(&mut self, length: usize) -> io::Result<()> {
        self.number(length as u64)
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        self.length(bytes.len())?;
        self.bytes(&bytes)
    }

    pub(super) fn numbers(&mut self, numbers: &[u32]) -> io::Result<()> {
        self.length(numbers.len())?;
        numbers.iter().try_for_each(|number| self.bytes(&number.to_le_bytes()))
    }
}

/// Whether every list was read as it should be, so that the table is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// It is.
    Yes,
    /// The next start reads the lists again.
    No,
}

/// What was written, on its way back.
pub(super) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.bytes(N)?.try_into().map_err(|_| damaged())
    }

    pub(super) fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads how many things of a width follow; never more than there can be.
    pub(super) fn length(&mut self, width: usize) -> io::Result<usize> {
        let length = usize::try_from(self.number()?).map_err(|_| damaged())?;
        let fits = length.checked_mul(width).is_some_and(|bytes| bytes <= self.0.len());
        if fits { Ok(length) } else { Err(damaged()) }
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let length = self.length(1)?;
        Ok(serde_json::from_slice(self.bytes(length)?)?)
    }

    pub(super) fn numbers(&mut self) -> io::Result<Vec<u32>> {
        let length = self.length(4)?;
        let numbers = self.bytes(4 * length)?.as_chunks().0;
        Ok(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }
}

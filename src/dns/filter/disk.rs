//! The compiled table on disk, so that a restart filters at once, without reading the lists again.
//!
//! The file begins with a mark and the key of what it was made from, and ends with a SHA-256 of all before it.
//! It is used only if both fit; otherwise the table is built from the lists. So it needs no care when it is
//! written: whatever a power cut leaves of it does not fit.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Error, ErrorKind, Read, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{Compiled, ListStatus, build::RuleSets, kept::private, key::Seed, table::Table};

/// Changes whenever the format or the meaning of a list's lines does.
const MARK: &[u8; 16] = b"hearthgate tab 3";

/// What a table was made from.
pub(super) type Key = [u8; 32];

/// Keeps a table.
pub(super) fn write(path: &Path, compiled: &Compiled) -> io::Result<()> {
    let temp = path.with_extension("new");
    let mut out = Out { file: BufWriter::with_capacity(1 << 16, private(&temp)?), digest: Sha256::new() };
    out.bytes(MARK)?;
    out.bytes(&compiled.key)?;
    let statuses = serde_json::to_vec(&compiled.statuses)?;
    out.length(statuses.len())?;
    out.bytes(&statuses)?;
    for word in compiled.seed.words() {
        out.number(word)?;
    }
    compiled.sets.write(&mut out)?;
    compiled.table.write(&mut out)?;
    let digest = out.digest.finalize();
    out.file.write_all(&digest)?;
    out.file.flush()?;
    fs::rename(temp, path)
}

/// Reads a table that was made from this.
pub(super) fn read(path: &Path, key: Key) -> io::Result<Compiled> {
    let file = File::open(path)?;
    let left = file.metadata()?.len();
    let mut from = In { file: BufReader::with_capacity(1 << 16, file), digest: Sha256::new(), left };
    if from.array::<16>()? != *MARK || from.array()? != key {
        return Err(damaged());
    }
    let length = from.length(1)?;
    let mut statuses = vec![0; length];
    from.bytes(&mut statuses)?;
    let mut words = [0; 4];
    for word in &mut words {
        *word = from.number()?;
    }
    let seed = Seed::of_words(words);
    let sets = RuleSets::read(&mut from)?;
    let table = Table::read(&mut from)?;
    let digest: [u8; 32] = from.digest.finalize().into();
    let mut told = [0; 32];
    from.file.read_exact(&mut told)?;
    if digest != told {
        return Err(damaged());
    }
    let statuses: Vec<ListStatus> = serde_json::from_slice(&statuses)?;
    Ok(Compiled { key, seed, table, sets, statuses })
}

/// Says that a file is not what was written.
pub(super) fn damaged() -> Error {
    Error::from(ErrorKind::InvalidData)
}

/// Where a table goes.
pub(super) struct Out {
    file: BufWriter<File>,
    digest: Sha256,
}

impl Out {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
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
        for part in numbers.chunks(1 << 12) {
            self.bytes(&part.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Where a table comes from.
pub(super) struct In {
    file: BufReader<File>,
    digest: Sha256,
    /// Octets that the file can still hold.
    left: u64,
}

impl In {
    pub(super) fn bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.digest.update(&*bytes);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.bytes(&mut array)?;
        Ok(array)
    }

    pub(super) fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads how many things of a width follow; never more than the file can hold.
    pub(super) fn length(&mut self, width: u64) -> io::Result<usize> {
        let length = self.number()?;
        let fits = length.checked_mul(width).is_some_and(|bytes| bytes <= self.left);
        usize::try_from(length).ok().filter(|_| fits).ok_or_else(damaged)
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut bytes = vec![0; self.length(1)?];
        self.bytes(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub(super) fn numbers(&mut self) -> io::Result<Vec<u32>> {
        let mut numbers = vec![0; self.length(4)?];
        let mut bytes = [0; 1 << 14];
        for part in numbers.chunks_mut(1 << 12) {
            let bytes = bytes.get_mut(..4 * part.len()).ok_or_else(damaged)?;
            self.bytes(bytes)?;
            for (number, bytes) in part.iter_mut().zip(bytes.as_chunks().0) {
                *number = u32::from_le_bytes(*bytes);
            }
        }
        Ok(numbers)
    }
}

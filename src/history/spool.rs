//! Records that wait to be folded: lines at the end of a file, so that the end of the process loses none.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::row::Row;

/// Bytes of a spool that are written and read; what is more waits in memory alone.
const LONGEST: u64 = 8 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Bytes that stand in it.
    length: u64,
    line: String,
}

impl Spool {
    /// Opens the file, and returns what was left in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Row>)> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(LONGEST).read_to_end(&mut bytes)?;
        // A line without its end was cut by the end of the process.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        // Nor does anything go on behind it.
        let length = u64::try_from(whole).unwrap_or(LONGEST);
        file.set_len(length)?;
        let left = String::from_utf8_lossy(&bytes).lines().filter_map(Row::read).collect();
        Ok((Self { file, length, line: String::new() }, left))
    }

    /// Appends records.
    pub(super) fn append(&mut self, rows: &[Row]) -> io::Result<()> {
        self.line.clear();
        for row in rows {
            row.write(&mut self.line);
        }
        let longer = self.length + u64::try_from(self.line.len()).unwrap_or(u64::MAX);
        if longer > LONGEST {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(self.line.as_bytes()) {
            // A part of a line would spoil the one behind it.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length = longer;
        Ok(())
    }

    /// Forgets what was folded.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.length = 0;
        Ok(())
    }
}

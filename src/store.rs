//! State that is never torn: temp file, fsync, rename, fsync of the folder, with a checksum in the first
//! line and one older generation beside it.
//!
//! A file that does not match its checksum is set aside as `NAME.torn` and the older one is used. Files are
//! 0600, folders 0700.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The file as it was last written.
    Whole(Vec<u8>),
    /// The newest was torn and set aside; this is the one before it.
    Older(Vec<u8>),
    /// There is none.
    Nothing,
}

impl Found {
    /// Returns the content, whichever it is.
    pub fn content(self) -> Option<Vec<u8>> {
        match self {
            Self::Whole(content) | Self::Older(content) => Some(content),
            Self::Nothing => None,
        }
    }
}

/// Makes a folder and its parents, 0700, if it is not there.
pub fn folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file whole. When it returns, the new content survives a power cut; until then the old does.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let temp = beside(path, "new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(header(content).as_bytes())?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    let older = beside(path, "old");
    // A hard link keeps the name `path` present at every moment.
    if path.exists() {
        let link = beside(path, "link");
        let _ = fs::remove_file(&link);
        fs::hard_link(path, &link)?;
        fs::rename(&link, &older)?;
    }
    fs::rename(&temp, path)?;
    File::open(parent)?.sync_all()
}

/// Reads a file that [`write()`] wrote.
pub fn read(path: &Path) -> io::Result<Found> {
    if let Some(content) = whole(path)? {
        return Ok(Found::Whole(content));
    }
    let torn = path.exists();
    if torn {
        fs::rename(path, beside(path, "torn"))?;
        tracing::warn!(file = %path.display(), "torn state file set aside as .torn; the older one is used");
    }
    match whole(&beside(path, "old"))? {
        Some(content) => Ok(Found::Older(content)),
        None => Ok(Found::Nothing),
    }
}

fn whole(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
    let content = bytes.split_off(end);
    Ok((bytes == header(&content).as_bytes()).then_some(content))
}

fn header(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("# hearthgate state, sha256 {hex}\n")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edits.toml");
        assert_eq!(read(&path).unwrap(), Found::Nothing);

        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();

        assert_eq!(read(&path).unwrap(), Found::Whole(b"two".to_vec()));
    }

    #[test]
    fn a_torn_file_is_set_aside_and_the_older_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edits.toml");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();

        assert_eq!(read(&path).unwrap(), Found::Older(b"one".to_vec()));
        assert!(folder.path().join("edits.toml.torn").exists());
    }
}

//! State that is never torn: temp file, fsync, rename, fsync of the folder, with a checksum in the first
//! line and one older generation beside it.
//!
//! A file that does not match its checksum is set aside as `NAME.torn` and the older one is used. Files are
//! 0600, folders 0700. No link is followed, and root acts as the owner of the folder: who owns it could put
//! anything under our names.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::privilege;

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
    privilege::as_owner(parent, || write_here(parent, path, content))?
}

fn write_here(parent: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let temp = beside(path, "new");
    remove(&temp)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&temp)?;
    file.write_all(header(content).as_bytes())?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    // What is torn must not take the place of the older one.
    if matches!(whole(path, u64::MAX), Ok(Some(_))) {
        // A hard link keeps the name `path` present at every moment.
        let link = beside(path, "link");
        remove(&link)?;
        fs::hard_link(path, &link)?;
        fs::rename(&link, beside(path, "old"))?;
    }
    fs::rename(&temp, path)?;
    File::open(parent)?.sync_all()
}

/// Reads a file that [`write()`] wrote, and sets it aside if it is torn.
pub fn read(path: &Path) -> io::Result<Found> {
    read_within(path, u64::MAX)
}

/// As [`read()`], but a file that is longer than this is none of ours, nor is an older one: neither is read.
pub fn read_within(path: &Path, most: u64) -> io::Result<Found> {
    let found = peek_within(path, most)?;
    if !matches!(found, Found::Whole(_)) && path.exists() {
        privilege::as_owner(folder_of(path), || fs::rename(path, beside(path, "torn")))??;
        tracing::warn!(file = %path.display(), "torn state file set aside as .torn; the older one is used");
    }
    Ok(found)
}

/// Reads a file that [`write()`] wrote, and changes nothing whatever it finds.
pub fn peek(path: &Path) -> io::Result<Found> {
    peek_within(path, u64::MAX)
}

fn peek_within(path: &Path, most: u64) -> io::Result<Found> {
    let look = || {
        if let Some(content) = whole(path, most)? {
            return Ok(Found::Whole(content));
        }
        Ok(whole(&beside(path, "old"), most)?.map_or(Found::Nothing, Found::Older))
    };
    privilege::as_owner(folder_of(path), look)?
}

/// As [`peek()`], but a folder that this user may not enter holds nothing for it.
pub fn glance(path: &Path) -> io::Result<Found> {
    match peek(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !path.exists() => Ok(Found::Nothing),
        found => found,
    }
}

fn whole(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // Without O_NONBLOCK a named pipe would be waited for.
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) if !file.metadata()?.is_file() => {
            let what = format!("{} is no ordinary file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(file) if file.metadata()?.len() > most => return Ok(None),
        // It may grow while it is read.
        Ok(file) => file.take(most).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
    let content = bytes.split_off(end);
    Ok((bytes == header(&content).as_bytes()).then_some(content))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
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

    #[test]
    fn what_is_too_long_to_be_ours_is_not_read_nor_is_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let most = u64::try_from(header(b"").len()).unwrap() + 100;
        write(&path, &[b'x'; 100]).unwrap();
        assert!(matches!(read_within(&path, most).unwrap(), Found::Whole(_)));

        write(&path, &[b'y'; 101]).unwrap();
        assert_eq!(read_within(&path, most).unwrap(), Found::Older(vec![b'x'; 100]));
        assert!(folder.path().join("cache.torn").exists() && !path.exists());
        write(&path, &[b'y'; 101]).unwrap();
        write(&path, &[b'z'; 101]).unwrap();

        assert_eq!(read_within(&path, most).unwrap(), Found::Nothing);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpn.key");
        let victim = folder.path().join("victim");
        fs::write(&victim, "theirs").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("vpn.key.new")).unwrap();

        write(&path, b"ours").unwrap();

        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
        assert_eq!(read(&path).unwrap(), Found::Whole(b"ours".to_vec()));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn a_look_leaves_a_torn_file_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edits.toml");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        fs::write(&path, "torn").unwrap();

        assert_eq!(peek(&path).unwrap(), Found::Older(b"one".to_vec()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "torn");
        write(&path, b"three").unwrap();
        assert_eq!(
            fs::read(folder.path().join("edits.toml.old")).unwrap(),
            [header(b"one").as_bytes(), b"one"].concat()
        );
    }
}

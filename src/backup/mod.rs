//! One encrypted file with everything that makes this box what it is: the configuration, the edits, keys, certificates.
//!
//! The life of a backup: [`state`] reads what lies in the state folder, [`write()`] puts it with the configuration into a
//! tar archive (`tar`) behind a manifest and encrypts that with a passphrase ([`age`]), so that `age -d FILE | tar x`
//! opens it without us. [`check`] reads a file from its first byte to its last and writes nothing; what it has checked is
//! [`Checked::unpack`]ed into a folder of its own, from where it is moved to its place.

pub mod age;
mod keep;
mod passphrase;
pub mod restore;
mod tar;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use keep::{due, file_name, made_at, surplus};
pub use passphrase::Passphrase;

use crate::store;

/// Where the manifest stands in the archive.
const MANIFEST: &str = "manifest.json";
/// Before the names of the configuration's files.
pub const CONFIG: &str = "config/";
/// Before the names of the state folder's files.
pub const STATE: &str = "state/";
/// Where a copy of the history lies in the archive.
pub const HISTORY: &str = "state/history.db";
/// What the manifest looks like; another form has another number.
const FORMAT: u32 = 1;
/// Bytes of a manifest.
const MANIFEST_SIZE: u64 = 4 << 20;
/// Bytes of keys, edits, certificates and generations together. There is more only where something else lies there.
pub const STATE_SIZE: u64 = 40 << 20;
/// What is of this process, or can be had again: lists are fetched, caches fill. The history has a copy of its own.
const LEFT_OUT: [&str; 8] =
    ["lock", "control.sock", "handover.sock", "lists", TRIAL, restore::STAGED, restore::BEFORE, "backups"];
/// Before the names of what can be had again, and of the history.
const LEFT_OUT_PREFIXES: [&str; 2] = ["resolver-cache", "history."];
/// The folder within the state folder where a backup is tried.
pub const TRIAL: &str = "backup-trial";
/// What is half-written or broken.
const HALVES: [&str; 3] = [".new", ".link", ".torn"];

/// The meant form of `[backup]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where they are put.
    pub folder: PathBuf,
    /// What they are encrypted with.
    pub passphrase: Passphrase,
    /// How long from one to the next.
    pub every: Duration,
    /// How many of them stay.
    pub keep: usize,
    /// Whether the history is in them.
    pub history: bool,
    /// What is run after each: it may carry it elsewhere.
    pub program: Option<PathBuf>,
}

/// A file to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name in the archive.
    pub name: String,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// As it was read.
    Bytes(Vec<u8>),
    /// It is long, and nobody else writes to it.
    File(PathBuf),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Keys are among them.
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `FORMAT`.
    pub format: u32,
    /// The version of the program that made it.
    pub version: String,
    /// When, in seconds since 1970.
    pub made: i64,
    /// The configuration file; nothing for the quick start.
    pub file: Option<PathBuf>,
    /// The state folder.
    pub state: PathBuf,
    /// SHA-256 of every file, in hexadecimal.
    pub pieces: BTreeMap<String, String>,
}

/// Why a file is no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It cannot be decrypted.
    #[error(transparent)]
    Age(#[from] age::Error),
    /// A newer program made it.
    #[error(
        "this backup was made by hearthgate {version} in form {format}, which this program does not know: use that version"
    )]
    Newer {
        /// What it says.
        format: u32,
        /// By whom.
        version: String,
    },
    /// It is not what we write.
    #[error("this is no whole backup: {0}")]
    Broken(String),
}

impl Error {
    fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }
}

/// Reads what lies in a state folder. The caller sees to it that nobody changes several files of it meanwhile.
pub fn state(folder: &Path) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut left = STATE_SIZE;
    walk(folder, STATE, &mut pieces, &mut left)?;
    pieces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pieces)
}

fn walk(folder: &Path, prefix: &str, pieces: &mut Vec<Piece>, left: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_left_out = prefix == STATE && is_left_out(&name);
        if is_left_out || HALVES.iter().any(|half| name.ends_with(half)) {
            continue;
        }
        let (kind, name) = (entry.file_type()?, format!("{prefix}{name}"));
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), pieces, left)?;
        } else if kind.is_file()
            && let Some(bytes) = small(&entry.path(), *left)?
        {
            *left -= bytes.len() as u64;
            pieces.push(Piece { name, content: Content::Bytes(bytes) });
        }
    }
    Ok(())
}

fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name) || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads a file of at most so many bytes; nothing if it is gone by now.
pub fn small(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) if !file.metadata()?.is_file() => return Ok(None),
        Ok(file) => file.take(most + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    if bytes.len() as u64 > most {
        let what = format!("{} is too large for a backup: more than {most} bytes are left to it", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(Some(bytes))
}

/// Writes a backup; `manifest` needs no pieces yet.
pub fn write(
    out: impl Write,
    mut manifest: Manifest,
    pieces: &[Piece],
    passphrase: &Passphrase,
    cost: age::Cost,
) -> Result<(), Error> {
    manifest.pieces.clear();
    for piece in pieces {
        let digest = match &piece.content {
            Content::Bytes(bytes) => hex(&Sha256::digest(bytes)),
            Content::File(path) => digest_of(&mut File::open(path)?)?,
        };
        if manifest.pieces.insert(piece.name.clone(), digest).is_some() {
            return Err(Error::broken(format!("\"{}\" would be there twice", piece.name)));
        }
    }
    let written = u64::try_from(manifest.made).unwrap_or_default();
    let sealed = age::Writer::begin(BufWriter::new(out), passphrase, cost)?;
    let mut archive = tar::Writer::new(sealed, written);
    let about = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
    archive.add(MANIFEST, about.len() as u64, &about[..])?;
    for piece in pieces {
        match &piece.content {
            Content::Bytes(bytes) => archive.add(&piece.name, bytes.len() as u64, &bytes[..])?,
            Content::File(path) => {
                let file = File::open(path)?;
                archive.add(&piece.name, file.metadata()?.len(), file)?;
            }
        }
    }
    archive.finish()?.finish()?.flush()?;
    Ok(())
}

/// The form that this program writes.
pub fn manifest(made: i64, file: Option<PathBuf>, state: PathBuf) -> Manifest {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Manifest { format: FORMAT, version, made, file, state, pieces: BTreeMap::new() }
}

/// A backup that was read to its end and is whole.
pub struct Checked {
    file: File,
    opened: age::Opened,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// Reads a whole backup and writes nothing.
pub fn check(mut file: File, passphrase: &Passphrase) -> Result<Checked, Error> {
    if !file.metadata()?.is_file() {
        return Err(Error::broken("it is no ordinary file"));
    }
    file.rewind()?;
    let opened = age::open(&mut BufReader::new(&file), passphrase)?;
    let mut checked = Checked { file, opened, manifest: manifest(0, None, PathBuf::new()) };
    checked.manifest = checked.each(|_, content| io::copy(content, &mut io::sink()).map(drop))?;
    Ok(checked)
}

impl Checked {
    /// Writes every file below a folder that holds nothing of those names.
    pub fn unpack(&self, folder: &Path) -> Result<(), Error> {
        self.each(|name, content| {
            let path = folder.join(name);
            store::folder(path.parent().expect("a name follows the folder"))?;
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let mut file = options.open(&path)?;
            io::copy(content, &mut file)?;
            file.sync_all()
        })?;
        Ok(())
    }

    /// Hands every file on, and says at the end whether all that the manifest names were there, and as they were.
    fn each(&self, mut take: impl FnMut(&str, &mut dyn Read) -> io::Result<()>) -> Result<Manifest, Error> {
        let mut file = &self.file;
        file.rewind()?;
        let plain = self.opened.read(BufReader::new(file))?;
        let mut manifest: Option<Manifest> = None;
        let mut missing = BTreeMap::new();
        tar::read(plain, |entry, content| {
            let Some(manifest) = &manifest else {
                if entry.name != MANIFEST || entry.size > MANIFEST_SIZE {
                    return Err(Error::broken("it does not begin with a manifest"));
                }
                let mut about = Vec::new();
                content.read_to_end(&mut about)?;
                let about = understood(&about)?;
                missing.clone_from(&about.pieces);
                manifest = Some(about);
                return Ok(());
            };
            let Some(wanted) = missing.remove(&entry.name) else {
                let known = manifest.pieces.contains_key(&entry.name);
                let what = if known { "is there twice" } else { "is not in the manifest" };
                return Err(Error::broken(format!("\"{}\" {what}", entry.name)));
            };
            let mut told = Told { content, digest: Sha256::new() };
            take(&entry.name, &mut told)?;
            if hex(&told.digest.finalize()) != wanted {
                return Err(Error::broken(format!("\"{}\" is not as the manifest says", entry.name)));
            }
            Ok(())
        })?;
        if let Some(name) = missing.keys().next() {
            return Err(Error::broken(format!("\"{name}\" is missing")));
        }
        manifest.ok_or_else(|| Error::broken("it is empty"))
    }
}

/// Reads a manifest, and refuses one of a form that is not known before it looks at the rest.
fn understood(about: &[u8]) -> Result<Manifest, Error> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
        #[serde(default)]
        version: String,
    }
    let wrong = |error: serde_json::Error| Error::broken(format!("its manifest cannot be read: {error}"));
    let form: Form = serde_json::from_slice(about).map_err(wrong)?;
    if form.format != FORMAT {
        return Err(Error::Newer { format: form.format, version: form.version });
    }
    serde_json::from_slice(about).map_err(wrong)
}

/// A content whose digest is made while it is read.
struct Told<'a> {
    content: &'a mut dyn Read,
    digest: Sha256,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.digest.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn digest_of(file: &mut impl Read) -> io::Result<String> {
    let mut told = Told { content: file, digest: Sha256::new() };
    io::copy(&mut told, &mut io::sink())?;
    Ok(hex(&told.digest.finalize()))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;

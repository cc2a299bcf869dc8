//! Where the text of a list is read from.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Error, kept::Kept, parse::ReadError};
use crate::dns::{List, ListSource};

/// A list that was opened.
pub(super) struct Opened {
    pub(super) reader: Box<dyn BufRead>,
    pub(super) stamp: Stamp,
}

/// What tells one content of a list from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// There is none: it was never fetched.
    Nothing,
    /// The file's device, number, length, and times of the last change of content and of anything.
    File([u64; 2], u64, [i64; 4]),
    /// The text itself.
    Text(String),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        Self::File([file.dev(), file.ino()], file.size(), times)
    }

    /// Returns the stamp of a list as it stands now.
    pub(super) fn now(list: &List, state: &Path) -> Self {
        match file_of(list, state) {
            Some(path) => fs::metadata(path).map_or(Self::Nothing, |file| Self::of(&file)),
            None => Self::Text(inline(list)),
        }
    }
}

/// Opens a list. One that is fetched and is not there yet is empty.
pub(super) fn open(list: &List, state: &Path) -> io::Result<Opened> {
    let empty = |text: String, stamp| Opened { reader: Box::new(io::Cursor::new(text)), stamp };
    let Some(path) = file_of(list, state) else {
        let text = inline(list);
        return Ok(empty(text.clone(), Stamp::Text(text)));
    };
    match fs::metadata(&path) {
        // A pipe or a device might never end, or never begin.
        Ok(file) if !file.is_file() => return Err(io::Error::other("not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(list.source, ListSource::Url(_)) => {
            return Ok(empty(String::new(), Stamp::Nothing));
        }
        file => file?,
    };
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    Ok(Opened { reader: Box::new(BufReader::with_capacity(1 << 16, file)), stamp })
}

/// Says which list cannot be read.
pub(super) fn list_error(list: &List, state: &Path, error: ReadError) -> Error {
    Error::List { list: list.name.clone(), path: file_of(list, state), error }
}

fn file_of(list: &List, state: &Path) -> Option<PathBuf> {
    match &list.source {
        ListSource::Path(path) => Some(path.clone()),
        ListSource::Url(_) => Some(Kept::new(state, &list.name).list()),
        ListSource::Inline(_) => None,
    }
}

fn inline(list: &List) -> String {
    match &list.source {
        ListSource::Inline(lines) => lines.join("\n"),
        ListSource::Path(_) | ListSource::Url(_) => String::new(),
    }
}

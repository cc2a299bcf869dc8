//! A copy of the tables while they are written to.

use std::{fs, io, path::Path};

use rusqlite::{Connection, Error, OpenFlags};

/// Writes a copy of the history of a state folder, as of one moment; says whether there is one. Blocks.
pub fn copy(state: &Path, to: &Path) -> Result<bool, Error> {
    let path = state.join(super::FILE);
    if !path.exists() {
        return Ok(false);
    }
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::InvalidPath(to.to_owned())),
        _ => {}
    }
    let from = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    from.busy_timeout(std::time::Duration::from_secs(10))?;
    let to = to.to_str().ok_or_else(|| Error::InvalidPath(to.to_owned()))?;
    from.execute("VACUUM INTO ?1", [to])?;
    Ok(true)
}

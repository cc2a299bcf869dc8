//! A file mapped into memory, to be read only.
//!
//! The invariant: nobody writes to the file, or makes it shorter, while it is mapped. A table is made under another
//! name in the state folder, which only this user may enter; it is written to its end before it is mapped, and
//! another one takes its place by being renamed, never by being written over it (`disk.rs`). So the octets behind the
//! pointer are there, and the same, until the mapping is dropped.
//!
//! Two ways remain in which a disk could break that. What was written and never reached it: so a table is synced before
//! it is mapped, and one that cannot be is kept in memory. And a sector that could be read when the digest was checked
//! and cannot be read later, after the kernel gave its page away: then the kernel ends the process, as it does where
//! that befalls the program itself, which is mapped from the same disk. The next start reads the file through, finds
//! that it does not fit, and makes the table anew.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    num::NonZeroUsize,
    ops::Deref,
    os::fd::AsRawFd,
    ptr::{self, NonNull},
};

/// The first octets of a file.
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: what it points to is read only, and belongs to it alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` octets of a file that has as many.
    pub(super) fn new(file: &File, length: NonZeroUsize) -> io::Result<Self> {
        if file.metadata()?.len() < length.get() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: a new mapping at a place that the kernel chooses touches no other memory.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), length.get(), libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(place) if start != libc::MAP_FAILED => Ok(Self { start: place, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the invariant at the head of this file; the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody can have a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn what_was_written_is_there_after_the_file_lost_its_name_and_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let text: Vec<u8> = (0..70_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(&text).unwrap();

        let mapping = Mapping::new(&file, NonZeroUsize::new(text.len() - 3).unwrap()).unwrap();
        drop(file);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another one").unwrap();

        let seen = std::thread::spawn(move || mapping.to_vec()).join().unwrap();
        assert_eq!(seen, text[..text.len() - 3]);
    }

    #[test]
    fn more_than_there_is_is_not_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        fs::write(&path, "short").unwrap();
        let file = File::open(&path).unwrap();

        assert!(Mapping::new(&file, NonZeroUsize::new(5).unwrap()).is_ok());
        assert!(Mapping::new(&file, NonZeroUsize::new(6).unwrap()).is_err());
    }
}

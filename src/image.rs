//! The program's own image in memory: what only its start needed is given back.
//!
//! Reading a configuration, signing certificates and setting up planes touches megabytes of code once. The kernel would
//! take their pages back when memory is short; on a small board that is when it hurts already.
//!
//! `unsafe` stands here for walking the list of loaded objects and for one `madvise`. The invariant: only segments that are
//! mapped from the program's file and that nobody may write are named, so what is given back is what the file
//! holds, and comes again from there when it is touched. Segments with relocated data are writable in the headers and left alone.
#![allow(unsafe_code)]

use std::{ffi::c_void, slice};

/// Gives back the pages of the program's code and constants, and returns how many bytes are mapped so.
///
/// What is needed again is mapped again at its first use, without a read of the disk as long as the file is cached.
pub fn give_back() -> usize {
    let mut given = 0_usize;
    // SAFETY: the callback is called before this returns, with the pointer that is given here.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut given).cast()) };
    given
}

/// Is called with the first object, which is the program, and ends the walk.
unsafe extern "C" fn first(object: *mut libc::dl_phdr_info, _: libc::size_t, given: *mut c_void) -> libc::c_int {
    // SAFETY: the C library hands over an object whose headers live as long as it is loaded, and `give_back`'s counter.
    let (object, given) = unsafe { (&*object, &mut *given.cast::<usize>()) };
    if object.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: as above.
    let headers = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    // SAFETY: sysconf only reads.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let begin = object.dlpi_addr.wrapping_add(header.p_vaddr) as usize;
        let end = begin + header.p_memsz as usize;
        // Whole pages only: the first and the last may belong to a neighbour, too.
        let (begin, end) = (begin.next_multiple_of(page), end - end % page);
        let Some(length) = end.checked_sub(begin).filter(|length| *length > 0) else { continue };
        // SAFETY: a mapping of the program's file that is never written: dropping its pages loses nothing.
        if unsafe { libc::madvise(begin as *mut c_void, length, libc::MADV_DONTNEED) } == 0 {
            *given += length;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_there_when_it_is_needed() {
        static CONSTANT: [u8; 20_000] = [7; 20_000];
        static mut CHANGED: [u8; 20_000] = [7; 20_000];
        let changed = &raw mut CHANGED;
        // SAFETY: nobody else knows of it.
        unsafe { (*changed)[9_000] = 1 };

        let given = give_back();

        assert!(given > 1 << 20, "{given}");
        assert!(CONSTANT.iter().all(|byte| *byte == 7));
        // SAFETY: as above.
        assert_eq!(unsafe { (*changed)[9_000] }, 1, "what was written is kept");
    }
}

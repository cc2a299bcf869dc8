//! Refuses transparent huge pages before anything takes memory.
//!
//! Where the kernel gives 2 MiB at a time, most of it would be nobody's. The allocator takes its first pieces before
//! `main`, so `main` is too late: four MiB of them stayed huge.
//!
//! `unsafe` stands here for the place of one pointer: the loader calls what stands in `.init_array` before `main`, those
//! with a number before those without (the allocator's is without). The invariant: the section holds pointers to C
//! functions, and this one needs nothing that is set up later; it makes one system call and takes no memory.
#![allow(unsafe_code)]

// SAFETY: a pointer to an `extern "C"` function without arguments, which is what the section holds.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static BEFORE_MAIN: extern "C" fn() = refuse;

extern "C" fn refuse() {
    // Without the kernel's leave it only costs memory.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

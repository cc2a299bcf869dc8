//! Arguments to an exit code.

use std::process::ExitCode;

// With the C library's, full caches took twice the memory that they hold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Where the kernel gives 2 MiB at a time, most of it would be nobody's; without its leave it only costs memory.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    hearthgate::cli::main()
}

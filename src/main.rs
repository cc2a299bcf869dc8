//! Arguments to an exit code.

mod huge_pages;

use std::process::ExitCode;

// With the C library's, full caches took twice the memory that they hold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hearthgate::cli::main()
}

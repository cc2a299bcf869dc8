//! Arguments to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    hearthgate::cli::main()
}

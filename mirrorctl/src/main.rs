//! The command `mirrorctl`. Everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    mirrorctl::main(std::env::args_os().collect())
}

//! The command `mirrorctl`. Everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    // It reads the user's key and passwords. A person's command goes on all the same where that is refused.
    let _ = mirror_certs::make_undumpable();
    mirrorctl::main(std::env::args_os().collect())
}

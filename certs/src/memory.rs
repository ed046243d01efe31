//! Keeps what a process knows out of files and away from its neighbours. Called first by each program that holds
//! keys, passwords or tokens; knows none of them.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process undumpable: no core file is written of it, and no other process of its user may trace it or read
/// its memory and environment (ptrace(2), `/proc/PID/{mem,environ}`). Who is root on the host still may. What it
/// executes is dumpable again, but writes no core files either (`RLIMIT_CORE` is 0 for good).
///
/// # Errors
/// The kernel's refusal; then the process must not go on to read secrets.
pub fn make_undumpable() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn afterwards_there_are_no_cores_and_no_tracers() {
        make_undumpable().unwrap();
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}

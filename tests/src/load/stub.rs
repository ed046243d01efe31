//! `fleet-stub`: stands in for rsync where only its start is measured. It says when it exists and ends.
//!
//! | called as | does |
//! |---|---|
//! | `fleet-stub --version` | what the real rsync says |
//! | `fleet-stub … rsync://HOST:PORT/… …` | sends the time of its start to HOST:PORT, 8 bytes, big-endian |
//! | `fleet-stub --twice HOST:PORT` | starts itself as above and waits for it: the floor of two processes |
//!
//! The time is the machine's own clock, nanoseconds since 1970, so that it can be compared with the caller's.

#![allow(clippy::disallowed_methods, reason = "it stamps its own start, and starts itself")]

use std::{
    io::Write as _,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

fn main() -> ExitCode {
    let started = SystemTime::now();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--version") => drop(Command::new("rsync").arg("--version").exec()),
        Some("--twice") => {
            let uri = args.get(2).map(|address| format!("rsync://{address}/"));
            let again = std::env::current_exe().and_then(|own| Command::new(own).args(uri).status());
            if again.is_ok_and(|status| status.success()) {
                return ExitCode::SUCCESS;
            }
        }
        _ => {
            let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
            let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
            let sent = args.iter().find_map(|arg| address(arg)).map(|address| send(address, nanos));
            // The line without which an agent takes no exit 0 of rsync for a success.
            let closed = writeln!(std::io::stdout(), "total size is 0  speedup is 0.00");
            if closed.is_ok() && sent.is_some_and(|sent| sent.is_ok()) {
                return ExitCode::SUCCESS;
            }
        }
    }
    ExitCode::FAILURE
}

fn address(arg: &str) -> Option<&str> {
    arg.strip_prefix("rsync://")?.split('/').next()
}

fn send(address: &str, nanos: u64) -> std::io::Result<()> {
    TcpStream::connect(address)?.write_all(&nanos.to_be_bytes())
}

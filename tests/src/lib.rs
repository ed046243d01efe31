//! The harness of the end-to-end tests, the demo and the load generator: whole fleets of the real programs,
//! real rsync daemons, real TLS, a real store, each in a directory and on loopback addresses of its own.
//!
//! Nothing here knows the insides of a program: it starts them as a person would, and reads what they print.
//! Nothing depends on this crate.
//!
//! ```text
//! Fleet ── Coordinator  init, run, kill, restart
//!      ├── Agent…       enrol, run, kill, restart
//!      ├── Rsyncd       an upstream with a tree
//!      └── mirrorctl    as the first admin
//! ```

// A harness starts programs, reads the clock and prints: that is what it is for.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

pub mod address;
pub mod eventually;
pub mod fleet;
pub mod hunt;
pub mod liar;
pub mod netns;
pub mod process;
pub mod rsyncd;
pub mod sentinel;
pub mod tree;

pub use eventually::{DEADLINE, eventually, eventually_within};
pub use fleet::{Fleet, FleetOptions};
pub use process::{Finished, Process, program};
pub use rsyncd::Rsyncd;

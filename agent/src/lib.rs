//! The agent: one per host. It dials the coordinator, takes assignments that this host's own file allows, runs rsync
//! under a supervisor that outlives it, and reports until it is acknowledged.
//!
//! ```text
//!  coordinator ◀═ link ═▶ executor ──── attempt: preflight ─ pull ─ finish
//!                            │ slots        │ order, guard      │ rundir ◀── supervisor ── jail ── rsync
//!                            ▼              ▼                   ▼
//!                         journal ◀──── each step ──── outcome, progress, logs
//! ```
//!
//! Three rules hold everywhere: what is said was journaled before; what comes in is judged by this host's own file,
//! whoever sent it; secrets are in memory and on pipes only. The agent does NOT know retries or other agents: it
//! asks nothing back, and decides nothing about what comes next; except that, with no coordinator for long, it runs the
//! last schedule it was told ([`autonomy`]).
//!
//! Entry points: [`enroll::enroll`] and [`daemon::run`] of `mirror-agent`, [`supervisor::main`] and [`jail::main`] of
//! `mirror-supervise`, a program of its own because it is started twice for each run and lives as long as that.

pub mod autonomy;
mod clock;
pub mod config;
pub mod daemon;
pub mod dial;
pub mod enroll;
pub mod executor;
pub mod guard;
pub mod identity;
pub mod jail;
pub mod journal;
pub mod key;
pub mod link;
pub mod logs;
pub mod order;
pub mod outcome;
pub mod probe;
pub mod progress;
pub mod renewal;
pub mod rundir;
pub mod serve;
pub mod slots;
pub mod state;
pub mod supervisor;
pub mod telemetry;
mod text;
pub mod trash;

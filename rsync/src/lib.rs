//! rsync for a mirror fleet: `rsync://` URIs, the options a mirror pull may use, the argument vector, and
//! what rsync says while it runs and when it ends.
//!
//! ```text
//! words ──options──┐
//! URI   ──uri──────┼─ argv::Plan ── build ── argv::Command ── process::spawn ── stdout ── progress, stats
//! limits, guard ───┘                                                        └─ stderr, exit ── exit::diagnose
//! ```
//!
//! Everything but [`process`] is pure: no I/O, no clock, no runtime. The crate does NOT know projects, agents
//! or schedules; it decides neither when a run happens nor how much it may delete.
//!
//! Three rules hold everywhere: there is never a shell; options are typed and rendered by us, so that a word
//! of a user never reaches rsync as it was typed; a password is in no argument, environment, error or log.

pub mod argv;
pub mod exit;
pub mod filter;
pub mod host;
pub mod listing;
pub mod options;
mod parse;
#[cfg(feature = "process")]
pub mod process;
pub mod progress;
pub mod stats;
pub mod tables;
pub mod text;
pub mod uri;
pub mod version;

pub use argv::{Command, Deletion, LocalCopy, LocalPass, Origin, Plan, PlanFault, Publish, Purpose};
pub use exit::{Class, Diagnosis, ExitCode, Fault};
pub use filter::{Action, Rule};
pub use options::{DeleteMode, Flag, Opt, OptionFault, Options};
pub use progress::{Event, Item, OutputParser, Progress};
pub use stats::Stats;
pub use uri::{Host, Password, RsyncUri, UriError};
pub use version::{RsyncFeatures, Version};

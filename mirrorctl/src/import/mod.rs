//! Mirrors of other systems as a manifest: the old mirror syncing API's JSON, tunasync's `worker.conf`, a crontab.
//!
//! ```text
//!  text ─▶ seed | tunasync | crontab ─▶ Draft… ─▶ finish ─▶ Manifest + passwords' files + notes
//!                    └── source, options, shell, roots ──┘
//! ```
//!
//! Nothing is asked of a coordinator and nothing is changed. What cannot be done as it was done before is imported paused
//! with the reason, or left out and told; nothing that changes what a mirror holds is decided silently. The texts are
//! strangers': every reader is bounded and never trusts a length, a path or a word.

mod crontab;
mod draft;
mod finish;
mod options;
mod roots;
pub mod secrets;
mod seed;
mod shell;
mod source;
mod tree;
mod tunasync;

use std::path::PathBuf;

use self::{draft::Draft, roots::Roots, secrets::Secret};
use crate::{
    fault::{Faults, Outcome},
    manifest::Manifest,
};

pub use self::{
    tree::matches_name,
    tunasync::{INCLUDED_FILES_MAX, Included},
};

/// Most bytes of one input, its included files together.
pub const IMPORT_BYTES_MAX: u64 = 16 * 1_024 * 1_024;
/// Most projects of one input.
pub const IMPORT_PROJECTS_MAX: usize = 10_000;
/// Most option words of one project that are looked at.
const OPTION_WORDS_MAX: usize = 256;
/// What did not happen when a fault is found.
pub const FAILED: &str = "nothing imported";

/// What people say about an import.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The agent that pulls from the upstreams.
    pub origin: Option<String>,
    /// `OLD=ROOT[:PATH]`, as typed.
    pub map_roots: Vec<String>,
    /// Where passwords' files go; an absolute path.
    pub secrets_dir: Option<PathBuf>,
    /// The zone of the old host's clock, for what has none of its own. `None`: UTC.
    pub time_zone: Option<String>,
}

/// What an import makes.
#[derive(Debug)]
pub struct Imported {
    /// The projects.
    pub manifest: Manifest,
    /// Passwords that the manifest names the files of, not written yet.
    pub secrets: Vec<Secret>,
    /// Every decision, and what was left out; one line each.
    pub notes: Vec<String>,
}

/// Reads what the mirror syncing API takes at `/add_project/` or lists at `/list_projects/`.
///
/// # Errors
/// Every fault of the text and of what it needs.
pub fn seed(settings: &Settings, name: &str, text: &str) -> Outcome<Imported> {
    let mut import = Import::new(settings, format!("import seed {}", quoted_file(name)));
    seed::read(&mut import, text);
    import.finish(name)
}

/// Reads tunasync's `worker.conf`; `included` reads the files that a pattern of its `include_mirrors` names, each with its
/// name.
///
/// # Errors
/// As [`seed`].
pub fn tunasync(
    settings: &Settings,
    name: &str,
    text: &str,
    included: &mut tunasync::Included<'_>,
) -> Outcome<Imported> {
    let mut import = Import::new(settings, format!("import tunasync {}", quoted_file(name)));
    tunasync::read(&mut import, text, included);
    import.finish(name)
}

/// Reads a crontab's lines of rsync; `system`: a user stands behind the five fields, as in /etc/crontab.
///
/// # Errors
/// As [`seed`].
pub fn crontab(settings: &Settings, name: &str, text: &str, system: bool) -> Outcome<Imported> {
    let flag = if system { " --system" } else { "" };
    let mut import = Import::new(settings, format!("import crontab {}{flag}", quoted_file(name)));
    crontab::read(&mut import, text, system);
    import.finish(name)
}

/// The file of a command that can be pasted. Of standard input nothing is left to read again.
fn quoted_file(name: &str) -> String {
    if name == "-" { "FILE".to_owned() } else { crate::app::quoted(name) }
}

/// An import under way.
struct Import<'a> {
    settings: &'a Settings,
    /// The command without its flags, for the line that works.
    command: String,
    roots: Roots,
    /// The agent that pulls.
    origin: Option<String>,
    drafts: Vec<Draft>,
    /// What holds for all of them.
    general: Vec<String>,
    /// Where, and why it is no project.
    left_out: Vec<(String, String)>,
    faults: Faults,
}

impl<'a> Import<'a> {
    fn new(settings: &'a Settings, command: String) -> Self {
        let mut faults = Faults::default();
        let roots = Roots::read(&settings.map_roots, &mut faults);
        if let Some(zone) = &settings.time_zone
            && let Err(bad) = fleet::schedule::parse_zone(zone)
        {
            faults.add("--time-zone", format_args!("{:?}: {}", bad.value, bad.rule));
        }
        let origin = settings.origin.clone();
        let (drafts, general, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, command, roots, origin, drafts, general, left_out, faults }
    }

    /// Takes a project; `false`: there is no room for more, which is a fault.
    fn take(&mut self, draft: Draft) -> bool {
        if self.drafts.len() < IMPORT_PROJECTS_MAX {
            self.drafts.push(draft);
            return true;
        }
        self.faults
            .add(draft.place, format_args!("more than {IMPORT_PROJECTS_MAX} projects; import them in parts"));
        false
    }

    /// Says something about all projects, once.
    fn once(&mut self, text: &str) {
        if !self.general.iter().any(|known| known == text) {
            self.general.push(text.to_owned());
        }
    }

    /// Says why something is no project.
    fn leave_out(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.left_out.push((place.into(), why.into()));
    }

    /// Flags replace the fleet's; what the fleet does in spite of them is told once.
    fn tell_of_own_flags<'w>(&mut self, words: impl IntoIterator<Item = &'w String>) {
        if !words.into_iter().any(|word| word == "--safe-links") {
            self.once(
                "the fleet adds --safe-links everywhere: symbolic links that point out of a tree are not copied; nor are \
                 devices",
            );
        }
    }
}

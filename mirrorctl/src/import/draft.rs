//! One project on its way into the manifest: what the readers of the formats say of it, in the words of their formats.
//! Does not know the other projects; names, destinations and secrets become final in [`super::finish`].

use std::path::PathBuf;

use fleet::schedule::SPAN_SECONDS_MAX;
use mirror_proto::v1;
use rsync::{DeleteMode, Options};
use zeroize::Zeroizing;

use super::{
    options::{Parts, Sifted},
    source,
};

/// A project as far as it is read.
#[derive(Default)]
pub(super) struct Draft {
    /// Where it stands, for faults: `line 12`, `projects[3]`.
    pub(super) place: String,
    /// Its name as written.
    pub(super) name: String,
    /// The directory of the old host that holds its tree.
    pub(super) directory: String,
    /// All else.
    pub(super) project: v1::Project,
    /// The upstream's password.
    pub(super) password: Option<Zeroizing<String>>,
    /// A file that holds it already.
    pub(super) password_file: Option<PathBuf>,
    /// What was decided or left out.
    pub(super) notes: Vec<String>,
    /// Why it must not run before a person has looked at it; none: it may.
    pub(super) pauses: Vec<String>,
}

impl Draft {
    /// A project of this place and name.
    pub(super) fn new(place: impl Into<String>, name: &str) -> Self {
        Self { place: place.into(), name: name.to_owned(), ..Self::default() }
    }

    /// Says what was decided.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Says why it is imported paused.
    pub(super) fn pause(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.pauses.contains(&reason) {
            self.pauses.push(reason);
        }
    }

    /// Takes rsync's source as its upstream. One that no agent can pull from leaves it without, and paused. Answers the
    /// directory that rsync makes below the destination.
    pub(super) fn set_source(&mut self, text: &str, port: Option<&str>) -> Option<String> {
        match source::read(text, port) {
            Ok(source) => {
                if source.password.is_some() {
                    self.password = source.password;
                }
                let user = source.user;
                self.project.upstreams =
                    vec![v1::Upstream { uri: source.uri, user, ..v1::Upstream::default() }];
                source.own_directory
            }
            Err(why) => {
                self.pause(format!("its source {why}"));
                None
            }
        }
    }

    /// Sets the user; an empty one changes nothing.
    pub(super) fn set_user(&mut self, user: &str) {
        if let Some(upstream) = self.project.upstreams.first_mut().filter(|_| !user.is_empty()) {
            user.clone_into(&mut upstream.user);
        }
    }

    /// Takes the options; `all`: they replace the fleet's flags.
    pub(super) fn set_options(&mut self, mut sifted: Sifted, all: bool) {
        self.tell_of(&mut sifted);
        if all {
            self.warn_of(&sifted.options);
        }
        if !sifted.options.is_empty() {
            let rsync = self.project.rsync.get_or_insert_default();
            rsync.no_defaults = all;
            rsync.options = sifted.options;
        }
    }

    /// Takes the options in their three parts.
    pub(super) fn set_parts(&mut self, parts: Parts) {
        let Parts { defaults, mut delete, mut others } = parts;
        self.tell_of(&mut others);
        let all: Vec<String> = defaults.iter().chain(&others.options).cloned().collect();
        let options = self.warn_of(&all);
        if all.is_empty() {
            return;
        }
        if delete.is_some() && !options.is_recursive() {
            self.pause("it deletes and does not go into directories, which rsync refuses");
            delete = None;
        }
        let rsync = self.project.rsync.get_or_insert_default();
        rsync.defaults = Some(v1::OptionWords { words: defaults });
        rsync.options = others.options;
        let delete = delete.map_or(v1::DeleteMode::None, |mode| match mode {
            DeleteMode::Delay => v1::DeleteMode::Delay,
            DeleteMode::After => v1::DeleteMode::After,
            DeleteMode::During => v1::DeleteMode::During,
            DeleteMode::Excluded => v1::DeleteMode::Excluded,
        });
        rsync.delete = delete.into();
    }

    /// What became of the words that are no options of the project.
    fn tell_of(&mut self, sifted: &mut Sifted) {
        sifted.notes.drain(..).for_each(|note| self.note(note));
        for refused in sifted.refused.drain(..) {
            self.pause(format!("the option {refused}"));
        }
        if let Some(file) = sifted.password_file.take() {
            self.note("the password's file is named as it was; apply reads it where apply runs");
            self.password_file = Some(file);
        }
    }

    /// What is to be said of options that replace the fleet's flags.
    fn warn_of(&mut self, words: &[String]) -> Options {
        if words.is_empty() {
            self.pause("no option of rsync is left: the fleet's own flags would be used");
        }
        let options = Options::parse_words(words).unwrap_or_default();
        options.warnings().into_iter().for_each(|warning| self.note(warning));
        options
    }

    /// Takes rsync's I/O timeout, in seconds.
    pub(super) fn set_io_timeout(&mut self, seconds: i64) {
        let fitting = seconds.clamp(IO_TIMEOUT_S.0, IO_TIMEOUT_S.1);
        if fitting != seconds {
            self.note(format!("rsync's timeout is {fitting} s; {seconds} s is not accepted"));
        }
        self.project.rsync.get_or_insert_default().io_timeout = Some(seconds_of(fitting));
    }

    /// Takes the longest time that a try may take, in seconds.
    pub(super) fn set_run_timeout(&mut self, seconds: i64) {
        let fitting = seconds.clamp(RUN_TIMEOUT_S.0, RUN_TIMEOUT_S.1);
        if fitting != seconds {
            self.note(format!("the longest time of a run is {fitting} s; {seconds} s is not accepted"));
        }
        self.project.rsync.get_or_insert_default().run_timeout = Some(seconds_of(fitting));
    }

    /// Runs again so many minutes after the end of the last run.
    pub(super) fn set_interval(&mut self, minutes: i64) {
        let seconds = minutes.saturating_mul(60);
        if minutes < 1 || seconds.unsigned_abs() > SPAN_SECONDS_MAX {
            return self.pause(format!("an interval of {minutes} minutes is none; it has no schedule"));
        }
        let interval = v1::Interval { every: Some(seconds_of(seconds)), ..v1::Interval::default() };
        self.set_cadence(v1::schedule::Cadence::Interval(interval));
    }

    /// Sets when it runs.
    pub(super) fn set_cadence(&mut self, cadence: v1::schedule::Cadence) {
        self.project.schedule.get_or_insert_default().cadence = Some(cadence);
    }
}

/// What the contract takes, in seconds: 10 s to 24 h.
const IO_TIMEOUT_S: (i64, i64) = (10, 86_400);
/// What the contract takes, in seconds: 1 min to 30 d.
const RUN_TIMEOUT_S: (i64, i64) = (60, 30 * 86_400);

/// A span of the contract.
pub(super) fn seconds_of(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

//! Flags about rsync as the API's `RsyncSettings`.

use mirror_proto::v1;

use super::{number, span};
use crate::cli::ProjectFlags;
use crate::fault::Faults;

/// Whether any flag about rsync was given.
pub(super) fn flags(flags: &ProjectFlags, project: &mut v1::Project, faults: &mut Faults) -> bool {
    let mut settings = project.rsync.clone().unwrap_or_default();
    let mut given = false;
    if !flags.rsync_options.is_empty() {
        given = true;
        let none = flags.rsync_options == [""];
        settings.options = if none { Vec::new() } else { flags.rsync_options.clone() };
    }
    if !flags.rsync_defaults.is_empty() {
        given = true;
        let words = super::given(&flags.rsync_defaults).cloned().collect();
        settings.defaults = Some(v1::OptionWords { words });
    }
    if let Some(no_defaults) = flags.no_default_options {
        given = true;
        settings.no_defaults = no_defaults;
        if flags.rsync_defaults.is_empty() {
            settings.defaults = None;
        }
    }
    if let Some(text) = &flags.rsync_delete {
        given = true;
        settings.delete = faults.check("--rsync-delete", delete_mode(text)).unwrap_or_default().into();
    }
    for (text, flag, field) in [
        (&flags.connect_timeout, "--connect-timeout", &mut settings.connect_timeout),
        (&flags.io_timeout, "--io-timeout", &mut settings.io_timeout),
        (&flags.stall_timeout, "--stall-timeout", &mut settings.stall_timeout),
        (&flags.run_timeout, "--run-timeout", &mut settings.run_timeout),
    ] {
        if let Some(text) = text {
            given = true;
            *field = span(text, flag, faults);
        }
    }
    if let Some(text) = &flags.bandwidth {
        given = true;
        settings.bandwidth_limit_kib = number(text, "--bandwidth", faults).unwrap_or_default();
    }
    if given {
        project.rsync = Some(settings);
    }
    given
}

/// A delete mode, by its name or by rsync's word for it.
fn delete_mode(text: &str) -> Result<v1::DeleteMode, String> {
    let name = text.trim_start_matches("--");
    match name.strip_prefix("delete-").unwrap_or(name) {
        "default" => Ok(v1::DeleteMode::Unspecified),
        "none" => Ok(v1::DeleteMode::None),
        "delay" | "delete" => Ok(v1::DeleteMode::Delay),
        "after" => Ok(v1::DeleteMode::After),
        "during" | "del" => Ok(v1::DeleteMode::During),
        "excluded" => Ok(v1::DeleteMode::Excluded),
        "before" => Err(format!(
            "{text:?}: on a full volume it loses the old file and does not get the new one; use delay, after, during, \
             excluded, none or default"
        )),
        _ => Err(format!("{text:?}: use delay, after, during, excluded, none or default")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flags;
    use super::*;

    /// Three parts of options, each of which can be set, left, and taken back (A5 of the mission).
    #[test]
    fn options_are_given_in_three_parts() {
        let read = |words: &str, project: &mut v1::Project| {
            let mut faults = Faults::default();
            super::flags(&flags(words), project, &mut faults);
            faults.is_empty()
        };
        let mut project = v1::Project::default();
        assert!(read("--rsync-default=-avH|--rsync-option=-z|--rsync-delete=--delete-after", &mut project));
        let settings = project.rsync.clone().unwrap();
        assert_eq!(settings.defaults.clone().unwrap().words, ["-avH"]);
        assert_eq!(
            (settings.options.clone(), settings.delete()),
            (vec!["-z".to_owned()], v1::DeleteMode::After)
        );
        assert!(read("--rsync-default=|--rsync-delete=none", &mut project));
        let settings = project.rsync.clone().unwrap();
        assert_eq!(
            (settings.defaults.clone().unwrap().words.len(), settings.delete()),
            (0, v1::DeleteMode::None)
        );
        assert!(read("--no-default-options=false|--rsync-delete=default", &mut project));
        let settings = project.rsync.clone().unwrap();
        assert_eq!((settings.defaults.clone(), settings.delete()), (None, v1::DeleteMode::Unspecified));
        assert!(!read("--rsync-delete=--delete-before", &mut project), "it is told why");
        for (word, mode) in [("--del", v1::DeleteMode::During), ("--delete", v1::DeleteMode::Delay)] {
            assert_eq!(delete_mode(word), Ok(mode));
        }
    }
}

//! The mirror syncing API of 2014: what `/add_project/` takes and `/list_projects/` answers, as JSON: one project, a list
//! of them, or `{"projects": [...]}`.
//!
//! What its code did, not only what its page says: rsync's user was the project's name, the tree lay in `dest/project`,
//! and a module with a path and no slash behind it made one more directory.

use mirror_proto::v1::{self, schedule::Cadence};
use zeroize::Zeroizing;

use super::{Draft, Import, finish, options, shell, tree};
use crate::{
    fault::Faults,
    manifest::{
        Format,
        document::{self, Data, Node},
    },
};

/// What it ran where no `defaults` were given.
const DEFAULTS: &str = "-avH";
/// What it ran where no `delete` was given.
const DELETE: &str = "--delete";
/// Fields that mean nothing for the tree.
const IGNORED: [&str; 3] = ["method", "success", "details"];

/// Reads the text.
pub(super) fn read(import: &mut Import<'_>, text: &str) {
    let root = match document::parse(text, Format::Json) {
        Ok(root) => root,
        Err(bad) => return import.faults.add(tree::place(bad.line, "the file"), bad.text),
    };
    let listed = |fields: &[(String, Node)]| {
        fields.iter().find(|(key, _)| key == "projects").map(|(_, one)| one.clone())
    };
    let projects = match root.data {
        Data::List(projects) => projects,
        Data::Table(ref fields) => match listed(fields) {
            Some(Node { data: Data::List(projects), .. }) => projects,
            _ => vec![root],
        },
        other => {
            return import.faults.add("the file", format_args!("holds {}, and no project", other.kind()));
        }
    };
    if projects.is_empty() {
        import.faults.add("the file", "holds no project");
    }
    for (index, node) in projects.iter().enumerate() {
        let draft = project(import, &format!("projects[{index}]"), node);
        if !import.take(draft) {
            return;
        }
    }
}

/// A project's fields as they stand in the file.
#[derive(Default)]
struct Payload {
    project: String,
    id: String,
    host: String,
    module: String,
    dest: String,
    password: Zeroizing<String>,
    enabled: Option<bool>,
    cron: Option<v1::Cron>,
    schedule: v1::Schedule,
    basic: Vec<String>,
    defaults: Option<Vec<String>>,
    delete: Option<String>,
    unknown: Vec<String>,
}

fn project(import: &mut Import<'_>, place: &str, node: &Node) -> Draft {
    let faults = &mut import.faults;
    let payload = payload(place, node, faults);
    // One that is no table has told so.
    let is_table = matches!(node.data, Data::Table(_));
    for (field, value) in [
        ("project", &payload.project),
        ("rsync_host", &payload.host),
        ("rsync_module", &payload.module),
        ("dest", &payload.dest),
    ] {
        if value.is_empty() && is_table {
            faults.add(place, format_args!("{field} is missing"));
        }
    }
    let name = if payload.id.is_empty() { &payload.project } else { &payload.id };
    let mut draft = Draft::new(place, name);
    if *name != payload.project {
        draft.project.display_name = finish::shown(&payload.project);
    }
    for field in &payload.unknown {
        draft.note(format!("{:?} is no field of the old system and is left out", finish::shown(field)));
    }
    if payload.enabled == Some(false) {
        draft.pause("it was disabled in the old system");
    }
    schedule(import, &mut draft, &payload);
    let (defaults, others) = words(&mut draft, &payload);
    import.tell_of_own_flags(defaults.iter().chain(&others));
    let parts = options::sift_parts(&defaults, &others);
    let port = parts.others.port.clone();
    draft.set_parts(parts);
    let own = draft.set_source(&format!("{}::{}", payload.host, payload.module), port.as_deref());
    if !payload.password.is_empty() {
        // The old system had no other user.
        draft.set_user(&payload.project);
        draft.password = Some(payload.password);
    }
    let dest = payload.dest.trim_end_matches('/');
    draft.directory = match own {
        Some(own) => {
            draft.note(format!(
                "rsync made the directory {:?} in its tree, since rsync_module does not end with a slash",
                finish::shown(&own)
            ));
            format!("{dest}/{}/{own}", payload.project)
        }
        None => format!("{dest}/{}", payload.project),
    };
    draft
}

fn payload(place: &str, node: &Node, faults: &mut Faults) -> Payload {
    let mut payload = Payload::default();
    for (key, value) in tree::table(node, place, faults) {
        let at = format!("{place}.{key}");
        match key.as_str() {
            "project" => payload.project = tree::text(value, &at, faults),
            "id" => payload.id = tree::text(value, &at, faults),
            "rsync_host" => payload.host = tree::text(value, &at, faults),
            "rsync_module" => payload.module = tree::text(value, &at, faults),
            "dest" => payload.dest = tree::text(value, &at, faults),
            // Its page says password, its code rsync_password.
            "rsync_password" | "password" => {
                payload.password = Zeroizing::new(tree::text(value, &at, faults))
            }
            "enabled" => payload.enabled = Some(tree::flag(value, &at, faults)),
            "cron_options" => cron_options(&mut payload, &at, value, faults),
            "rsync_options" => rsync_options(&mut payload, &at, value, faults),
            ignored if IGNORED.contains(&ignored) => {}
            unknown => payload.unknown.push(unknown.to_owned()),
        }
    }
    payload
}

fn cron_options(payload: &mut Payload, at: &str, node: &Node, faults: &mut Faults) {
    let cron = payload.cron.get_or_insert_default();
    for (key, value) in tree::table(node, at, faults) {
        let at = format!("{at}.{key}");
        let text = tree::text(value, &at, faults);
        match key.as_str() {
            "year" => cron.year = text,
            "month" => cron.month = text,
            "day" => cron.day = text,
            "week" => cron.week = text,
            "day_of_week" => cron.day_of_week = text,
            "hour" => cron.hour = text,
            "minute" => cron.minute = text,
            "second" => cron.second = text,
            "start_date" => payload.schedule.start_time = text,
            "end_date" => payload.schedule.end_time = text,
            "timezone" => payload.schedule.time_zone = text,
            // A misspelt field would make it fire more often.
            _ => faults.add(at, "no field of a schedule: year to second, start_date, end_date, timezone"),
        }
    }
}

fn rsync_options(payload: &mut Payload, at: &str, node: &Node, faults: &mut Faults) {
    for (key, value) in tree::table(node, at, faults) {
        let at = format!("{at}.{key}");
        match key.as_str() {
            "basic" => payload.basic = tree::texts(value, &at, faults),
            "defaults" => payload.defaults = Some(tree::texts(value, &at, faults)),
            "delete" | "delete_option" => payload.delete = Some(tree::text(value, &at, faults)),
            _ => faults.add(at, "no part of rsync_options: basic, defaults, delete"),
        }
    }
}

/// The default part's options and the others, those of the delete part last, in the order in which the parts are
/// documented; each word as the old system's shell split it.
fn words(draft: &mut Draft, payload: &Payload) -> (Vec<String>, Vec<String>) {
    let defaults = payload.defaults.clone().unwrap_or_else(|| vec![DEFAULTS.to_owned()]);
    let delete = payload.delete.clone().unwrap_or_else(|| DELETE.to_owned());
    if payload.defaults.is_none() || payload.delete.is_none() {
        draft.note(format!("what rsync_options leaves out is what the old system ran: {DEFAULTS} {DELETE}"));
    }
    let mut split = |part: &str, texts: &[String]| {
        let mut split = Vec::new();
        for text in texts {
            match shell::words(text) {
                Ok(words) => split.extend(words),
                Err(why) => draft.pause(format!("a word of rsync_options.{part} {why}")),
            }
        }
        let apart = options::apart(&split);
        if !apart.operands.is_empty() {
            draft.pause("rsync_options hold a word that is no option");
        }
        apart.options
    };
    let (defaults, mut others) = (split("defaults", &defaults), split("basic", &payload.basic));
    others.extend(split("delete", &[delete]));
    (defaults, others)
}

fn schedule(import: &mut Import<'_>, draft: &mut Draft, payload: &Payload) {
    let Some(cron) = payload.cron.clone() else {
        return draft.pause("it has no cron_options: it runs when it is asked to");
    };
    if cron == v1::Cron::default() {
        draft.pause("its cron_options name no field, which is every second");
    }
    let mut schedule = payload.schedule.clone();
    if schedule.time_zone.is_empty() {
        schedule.time_zone = import.settings.time_zone.clone().unwrap_or_default();
        if schedule.time_zone.is_empty() {
            import.once(
                "times without a zone are UTC, as the old system's page says; its code used the host's own zone: give \
                 --time-zone if that was another",
            );
        }
    }
    let zone = fleet::schedule::parse_zone(&schedule.time_zone).ok();
    for (field, text) in [("start_date", &schedule.start_time), ("end_date", &schedule.end_time)] {
        if let Ok(read) = fleet::schedule::parse_date(text, zone) {
            let notes = read.notes.iter().map(|note| format!("{field}: {note}"));
            notes.for_each(|note| draft.note(note));
        }
    }
    schedule.cadence = Some(Cadence::Cron(cron));
    draft.project.schedule = Some(schedule);
}

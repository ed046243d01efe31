//! Update masks: which fields of a project a request changes, and the merge. Does not judge the values: the
//! merged project is read like a new one.

use fleet::refusal::Violation;

use super::fault;
use crate::v1::{self, schedule::Cadence};

/// Most paths of one mask.
const PATHS_MAX: usize = 100;
const MASK: &str = "update_mask";

/// What the server tells among what people set.
const TOLD: [&str; 2] = ["schedule.notes", "schedule.phase"];

/// Copies one field from the update.
type Copy = fn(&mut v1::Project, &v1::Project);

/// A field of the project itself.
macro_rules! whole {
    ($field:ident) => {
        (stringify!($field), |to, from| to.$field.clone_from(&from.$field))
    };
}

/// A field of a part of the project; a part that is absent has every field at its default.
macro_rules! part {
    ($part:ident . $field:ident) => {
        (concat!(stringify!($part), ".", stringify!($field)), |to, from| {
            let new = from.$part.clone().unwrap_or_default().$field;
            to.$part.get_or_insert_default().$field = new;
        })
    };
}

/// One of the cadences: only one can be set, so setting it drops the others, and clearing it leaves them.
macro_rules! cadence {
    ($name:ident, $variant:ident) => {
        (concat!("schedule.", stringify!($name)), |to, from| {
            let new = from.schedule.as_ref().and_then(|schedule| schedule.cadence.clone());
            let to = to.schedule.get_or_insert_default();
            match (new, &to.cadence) {
                (Some(new @ Cadence::$variant(_)), _) => to.cadence = Some(new),
                (_, Some(Cadence::$variant(_))) => to.cadence = None,
                (_, _) => {}
            }
        })
    };
}

/// A field of a cadence that has fields: setting one makes that cadence the schedule's.
macro_rules! cadence_part {
    ($name:ident, $variant:ident, $message:ident . $field:ident) => {
        (concat!("schedule.", stringify!($name), ".", stringify!($field)), |to, from| {
            let read = |project: &v1::Project| match &project.schedule.as_ref()?.cadence {
                Some(Cadence::$variant(message)) => Some(message.clone()),
                _ => None,
            };
            let mut message: v1::$message = read(to).unwrap_or_default();
            message.$field = read(from).unwrap_or_default().$field;
            to.schedule.get_or_insert_default().cadence = Some(Cadence::$variant(message));
        })
    };
}

/// Every path that a mask may name.
const PATHS: &[(&str, Copy)] = &[
    whole!(display_name),
    whole!(owner),
    whole!(after),
    whole!(labels),
    whole!(upstreams),
    whole!(destination),
    whole!(schedule),
    cadence!(cron, Cron),
    cadence_part!(cron, Cron, Cron.year),
    cadence_part!(cron, Cron, Cron.month),
    cadence_part!(cron, Cron, Cron.day),
    cadence_part!(cron, Cron, Cron.week),
    cadence_part!(cron, Cron, Cron.day_of_week),
    cadence_part!(cron, Cron, Cron.hour),
    cadence_part!(cron, Cron, Cron.minute),
    cadence_part!(cron, Cron, Cron.second),
    cadence!(crontab, Crontab),
    cadence!(interval, Interval),
    cadence_part!(interval, Interval, Interval.every),
    cadence_part!(interval, Interval, Interval.from),
    cadence!(manual, Manual),
    cadence!(named, Named),
    part!(schedule.time_zone),
    part!(schedule.start_time),
    part!(schedule.end_time),
    part!(schedule.jitter),
    part!(schedule.overlap_policy),
    part!(schedule.catch_up_window),
    part!(schedule.dst_overlap),
    part!(schedule.windows),
    part!(schedule.spread),
    whole!(rsync),
    part!(rsync.options),
    part!(rsync.no_defaults),
    part!(rsync.connect_timeout),
    part!(rsync.io_timeout),
    part!(rsync.stall_timeout),
    part!(rsync.run_timeout),
    part!(rsync.bandwidth_limit_kib),
    part!(rsync.defaults),
    ("rsync.defaults.words", |to, from| {
        let new = from.rsync.clone().unwrap_or_default().defaults.unwrap_or_default();
        to.rsync.get_or_insert_default().defaults = Some(new);
    }),
    part!(rsync.delete),
    whole!(placement),
    part!(placement.origins),
    part!(placement.replicas),
    part!(placement.max_parallel),
    part!(placement.propagation_timeout),
    part!(placement.drain_timeout),
    whole!(guard),
    part!(guard.max_delete),
    part!(guard.shrink_percent),
    part!(guard.sentinels),
    part!(guard.quota_bytes),
    whole!(publish),
    part!(publish.link),
    whole!(marker),
    part!(marker.kind),
    part!(marker.path),
    whole!(retry),
    part!(retry.attempts),
    part!(retry.initial_backoff),
    part!(retry.treat_partial_as_success),
];

/// Fields of a project that nobody changes by an update.
const FIXED: [&str; 7] = ["name", "paused", "archived", "status", "etag", "create_time", "update_time"];

/// `current` with the masked fields of `update`: what the project would be. An absent password stays absent,
/// which [`spec_from_wire`](super::spec_from_wire) reads as unchanged.
///
/// # Errors
/// Every path that names no field that may be changed; an empty mask.
pub fn apply_mask(
    current: &v1::Project,
    update: &v1::Project,
    paths: &[String],
) -> Result<v1::Project, Vec<Violation>> {
    if paths.is_empty() {
        return Err(vec![Violation::new(MASK, "is required: name the fields to change")]);
    }
    if paths.len() > PATHS_MAX {
        let text = format!("{} paths; at most {PATHS_MAX} are accepted", paths.len());
        return Err(vec![Violation::new(MASK, text)]);
    }
    let mut merged = current.clone();
    let mut faults = Vec::new();
    for path in paths {
        match PATHS.iter().find(|(known, _)| known == path) {
            Some((_, copy)) => copy(&mut merged, update),
            None => faults.push(fault(MASK, path, why_not(path))),
        }
    }
    if faults.is_empty() { Ok(merged) } else { Err(faults) }
}

fn why_not(path: &str) -> &'static str {
    let first = path.split('.').next().unwrap_or_default();
    match first {
        "*" => "name each field to change; what a newer server knows besides must stay as it is",
        "upstreams" | "labels" => "is changed as a whole only: name it without what stands behind it",
        "schedule" if TOLD.contains(&path) => "is told by the server and cannot be set",
        _ if FIXED.contains(&first) => "cannot be changed by an update",
        _ => "is no field of a project",
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

    use super::*;

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|path| (*path).to_owned()).collect()
    }

    /// Every path below a message that is one of the contract's own.
    fn collect(message: &MessageDescriptor, prefix: &str, found: &mut Vec<String>) {
        for field in message.fields() {
            let path = format!("{prefix}{}", field.name());
            if let Kind::Message(inner) = field.kind() {
                let own = inner.package_name() == "mirror.v1";
                if own && !field.is_list() && !field.is_map() {
                    collect(&inner, &format!("{path}."), found);
                }
            }
            found.push(path);
        }
    }

    #[test]
    fn exactly_the_declared_fields_of_the_contract_can_be_masked() {
        let pool = DescriptorPool::decode(crate::DESCRIPTORS).unwrap();
        let project = pool.get_message_by_name("mirror.v1.Project").unwrap();
        let mut all = Vec::new();
        collect(&project, "", &mut all);
        let fixed = |path: &String| {
            FIXED.contains(&path.split('.').next().unwrap_or_default()) || TOLD.contains(&path.as_str())
        };
        let (refused, mut accepted): (Vec<String>, Vec<String>) = all.into_iter().partition(fixed);
        let mut known: Vec<String> = PATHS.iter().map(|(path, _)| (*path).to_owned()).collect();
        accepted.sort();
        known.sort();
        assert_eq!(known, accepted);
        for path in refused {
            assert!(apply_mask(&v1::Project::default(), &v1::Project::default(), &[path]).is_err());
        }
    }

    #[test]
    fn every_bad_path_is_told_of() {
        let none = v1::Project::default();
        let bad = [
            "*",
            "name",
            "status.placements",
            "schedule.notes",
            "upstreams.uri",
            "labels.tier",
            "colour",
            "",
        ];
        let faults = apply_mask(&none, &none, &paths(&bad)).unwrap_err();
        assert_eq!(faults.len(), bad.len());
        assert!(faults.iter().all(|fault| fault.field == "update_mask"));
        assert_eq!(faults[6].description, "\"colour\": is no field of a project");
        assert_eq!(apply_mask(&none, &none, &[]).unwrap_err().len(), 1);
        assert_eq!(apply_mask(&none, &none, &vec!["rsync".to_owned(); 101]).unwrap_err().len(), 1);
    }

    #[test]
    fn only_the_masked_fields_change() {
        let current = v1::Project {
            display_name: "old".to_owned(),
            destination: "a1:debian".to_owned(),
            rsync: Some(v1::RsyncSettings {
                no_defaults: true,
                options: paths(&["-a"]),
                ..Default::default()
            }),
            guard: Some(v1::GuardSettings { max_delete: Some(1), ..Default::default() }),
            ..v1::Project::default()
        };
        let update = v1::Project {
            display_name: "new".to_owned(),
            rsync: Some(v1::RsyncSettings { options: paths(&["-H"]), ..Default::default() }),
            ..v1::Project::default()
        };
        let merged =
            apply_mask(&current, &update, &paths(&["display_name", "rsync.options", "guard.max_delete"]))
                .unwrap();
        let rsync = merged.rsync.unwrap();
        assert_eq!((merged.display_name.as_str(), merged.destination.as_str()), ("new", "a1:debian"));
        assert!(rsync.no_defaults && rsync.options == ["-H"]);
        assert_eq!(merged.guard, Some(v1::GuardSettings::default()));
    }

    #[test]
    fn a_cadence_replaces_the_others_and_clears_only_itself() {
        let with = |cadence| v1::Project {
            schedule: Some(v1::Schedule { cadence, time_zone: "UTC".to_owned(), ..Default::default() }),
            ..v1::Project::default()
        };
        let cadence_of = |project: v1::Project| project.schedule.unwrap().cadence;
        let cron = |minute: &str, hour: &str| {
            Some(Cadence::Cron(v1::Cron {
                minute: minute.to_owned(),
                hour: hour.to_owned(),
                ..Default::default()
            }))
        };
        let merge = |current, update, path| {
            cadence_of(apply_mask(&with(current), &with(update), &paths(&[path])).unwrap())
        };
        assert_eq!(merge(cron("10", "2"), cron("20", "9"), "schedule.cron.minute"), cron("20", "2"));
        assert_eq!(merge(Some(Cadence::Manual(())), cron("20", ""), "schedule.cron.minute"), cron("20", ""));
        assert_eq!(
            merge(cron("1", "2"), Some(Cadence::Manual(())), "schedule.manual"),
            Some(Cadence::Manual(()))
        );
        assert_eq!(merge(cron("1", "2"), None, "schedule.cron"), None);
        assert_eq!(merge(cron("1", "2"), None, "schedule.interval"), cron("1", "2"));
        let merged = apply_mask(&with(cron("1", "2")), &v1::Project::default(), &paths(&["schedule"]));
        assert_eq!(merged.unwrap().schedule, None);
    }
}

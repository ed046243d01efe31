//! The trash of agents, as it is told, asked for and shown. Knows no files.

use fleet::{
    defaults::TRASH_TREES_MAX,
    id::ProjectUid,
    project::OWN_DIRS,
    refusal::Violation,
    trash::{Fate, InTrash, NotTrashed, TrashOrder, TrashRecord, TrashReport},
};
use rsync::text::printable;

use super::{
    cut, fault,
    names::user_name,
    session::DETAIL_BYTES_MAX,
    time::{required_wall, wall_to_wire},
};
use crate::v1;

/// Longest place of a tree in the trash, in bytes: the names of root and project, a uid and a time.
const PLACE_BYTES_MAX: usize = 256;

/// The wire's form of what an agent is to move to the trash.
#[must_use]
pub fn trash_order_to_wire(order: &TrashOrder) -> v1::TrashTree {
    let TrashOrder { project, name, destination, asked } = order;
    v1::TrashTree {
        project_uid: project.0,
        project: name.to_string(),
        destination: destination.to_string(),
        request_time: Some(wall_to_wire(*asked)),
    }
}

/// Reads what an agent is to move to the trash.
///
/// # Errors
/// The first malformed part.
pub fn trash_order_from_wire(wire: &v1::TrashTree) -> Result<TrashOrder, Violation> {
    Ok(TrashOrder {
        project: ProjectUid(wire.project_uid),
        name: wire.project.parse().map_err(|bad| fault("trash_tree.project", &wire.project, bad))?,
        destination: wire
            .destination
            .parse()
            .map_err(|bad| fault("trash_tree.destination", &wire.destination, bad))?,
        asked: required_wall("trash_tree.request_time", wire.request_time.as_ref())?,
    })
}

/// The wire's form of what an agent says of its trash.
#[must_use]
pub fn trash_report_to_wire(report: &TrashReport) -> v1::TrashReport {
    let tree = |tree: &InTrash| v1::InTrash {
        project_uid: tree.project.0,
        request_time: Some(wall_to_wire(tree.asked)),
        place: tree.place.clone(),
        purge_time: Some(wall_to_wire(tree.until)),
    };
    let refused = |one: &NotTrashed| v1::NotTrashed {
        project_uid: one.project.0,
        request_time: Some(wall_to_wire(one.asked)),
        reason: one.why.clone(),
    };
    v1::TrashReport {
        trees: report.trees.iter().map(tree).collect(),
        refused: report.refused.iter().map(refused).collect(),
    }
}

/// Reads what an agent says of its trash.
///
/// # Errors
/// Too many trees, a place that is in no trash, a missing or malformed time.
pub fn trash_report_from_wire(wire: &v1::TrashReport) -> Result<TrashReport, Violation> {
    for (field, count) in [("trash.trees", wire.trees.len()), ("trash.refused", wire.refused.len())] {
        if count > TRASH_TREES_MAX {
            return Err(Violation::new(field, format!("{count}; at most {TRASH_TREES_MAX}")));
        }
    }
    let tree = |tree: &v1::InTrash| {
        Ok(InTrash {
            project: ProjectUid(tree.project_uid),
            asked: required_wall("trash.trees.request_time", tree.request_time.as_ref())?,
            place: place(&tree.place)?,
            until: required_wall("trash.trees.purge_time", tree.purge_time.as_ref())?,
        })
    };
    let refused = |one: &v1::NotTrashed| {
        let why = printable(one.reason.as_bytes(), DETAIL_BYTES_MAX);
        Ok(NotTrashed {
            project: ProjectUid(one.project_uid),
            asked: required_wall("trash.refused.request_time", one.request_time.as_ref())?,
            why: cut(&why, DETAIL_BYTES_MAX).to_owned(),
        })
    };
    Ok(TrashReport {
        trees: wire.trees.iter().map(tree).collect::<Result<_, Violation>>()?,
        refused: wire.refused.iter().map(refused).collect::<Result<_, Violation>>()?,
    })
}

/// A place in the trash of a root, of characters that a terminal takes.
fn place(text: &str) -> Result<String, Violation> {
    let [_, trash] = OWN_DIRS;
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    };
    let parts = text.split_once(':').and_then(|(root, path)| Some((root, path.split_once('/')?)));
    match parts {
        Some((root, (dir, name)))
            if dir == trash && word(root) && word(name) && text.len() <= PLACE_BYTES_MAX =>
        {
            Ok(text.to_owned())
        }
        _ => Err(fault("trash.trees.place", text, format_args!("must be ROOT:{trash}/NAME"))),
    }
}

/// The wire's form of what became of a tree that is wanted in the trash.
#[must_use]
pub fn trashed_tree_to_wire(record: &TrashRecord) -> v1::TrashedTree {
    use v1::trashed_tree::State;
    let TrashRecord { agent: _, project: _, name, destination, by, asked, fate } = record;
    let mut tree = v1::TrashedTree {
        project: name.to_string(),
        destination: destination.to_string(),
        request_time: Some(wall_to_wire(*asked)),
        by: user_name(by),
        ..v1::TrashedTree::default()
    };
    match fate {
        Fate::Waiting => tree.set_state(State::Waiting),
        Fate::Trashed { place, until } => {
            tree.set_state(State::Trashed);
            tree.place.clone_from(place);
            tree.purge_time = Some(wall_to_wire(*until));
        }
        Fate::Stays { why, at: _ } => {
            tree.set_state(State::Stays);
            tree.reason.clone_from(why);
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use fleet::time::Wall;

    use super::*;

    #[test]
    fn orders_and_reports_come_back_as_they_went() {
        let order = TrashOrder {
            project: ProjectUid(7),
            name: "debian".parse().unwrap(),
            destination: "a1:pub/debian".parse().unwrap(),
            asked: Wall(1_800_000_000_123),
        };
        assert_eq!(trash_order_from_wire(&trash_order_to_wire(&order)).unwrap(), order);
        let report = TrashReport {
            trees: vec![InTrash {
                project: ProjectUid(7),
                asked: Wall(1_800_000_000_123),
                place: "a1:.mirror-trash/debian-7-20270115T080000Z".to_owned(),
                until: Wall(1_800_000_900_000),
            }],
            refused: vec![NotTrashed { project: ProjectUid(8), asked: Wall(5), why: "no".to_owned() }],
        };
        assert_eq!(trash_report_from_wire(&trash_report_to_wire(&report)).unwrap(), report);
    }

    #[test]
    fn a_report_names_places_in_a_trash_and_no_others() {
        let report = |place: &str| {
            let tree = v1::InTrash {
                place: place.to_owned(),
                request_time: Some(wall_to_wire(Wall(1))),
                purge_time: Some(wall_to_wire(Wall(1))),
                ..v1::InTrash::default()
            };
            trash_report_from_wire(&v1::TrashReport { trees: vec![tree], refused: Vec::new() })
        };
        assert!(report("a1:.mirror-trash/x-1").is_ok());
        for bad in ["", "a1:pub/x", "a1:.mirror-trash/", "a1:.mirror-trash/x/y", "a1:.mirror-trash/\u{1b}[2J"]
        {
            assert_eq!(report(bad).unwrap_err().field, "trash.trees.place", "{bad:?}");
        }
        let many = v1::TrashReport { trees: vec![v1::InTrash::default(); 257], refused: Vec::new() };
        assert_eq!(trash_report_from_wire(&many).unwrap_err().field, "trash.trees");
    }
}

//! Markers: which file tells how new a tree is, and what was seen of it. Does not read one.

use fleet::{
    marker::{MARKER_NOTE_CHARS_MAX, Marker, MarkerSeen},
    refusal::Violation,
};
use rsync::text::printable;

use super::{
    enums::wire,
    fault,
    project::{SENTINEL_BYTES_MAX, is_sentinel},
    time::{wall_from_wire, wall_to_wire},
};
use crate::v1;

/// The wire's form of a marker.
#[must_use]
pub fn marker_to_wire(marker: &Marker) -> v1::Marker {
    let Marker { kind, path } = marker;
    v1::Marker { kind: wire::marker_kind::number(*kind), path: path.clone() }
}

/// Reads which file tells how new a tree is; `field` names it in faults.
///
/// # Errors
/// A kind that is missing or not known, a path that is not one name below a directory.
pub fn marker_from_wire(field: &str, wire: &v1::Marker) -> Result<Marker, Vec<Violation>> {
    let mut faults = Vec::new();
    let kind = wire::marker_kind::read(wire.kind);
    if kind.is_none() {
        let text = fleet::marker::NoSuchKind.to_string();
        faults.push(Violation::new(format!("{field}.kind"), text));
    }
    if !is_sentinel(&wire.path) {
        let rule = format!(
            "must be a relative path of at most {SENTINEL_BYTES_MAX} bytes, without empty parts, . and .., wildcards and \
             control characters"
        );
        faults.push(fault(format!("{field}.path"), &wire.path, rule));
    }
    kind.filter(|_| faults.is_empty()).map(|kind| Marker { kind, path: wire.path.clone() }).ok_or(faults)
}

/// The wire's form of what was seen of a marker.
#[must_use]
pub fn marker_seen_to_wire(seen: &MarkerSeen) -> v1::MarkerSeen {
    let MarkerSeen { marker, upstream, tree, note } = seen;
    v1::MarkerSeen {
        marker: Some(marker_to_wire(marker)),
        upstream_time: upstream.map(wall_to_wire),
        tree_time: tree.map(wall_to_wire),
        note: bounded(note),
    }
}

/// Reads what an agent saw of a marker; `None` where it speaks of none that this program knows. Times that are none count
/// as not read: the report is about something that has happened.
#[must_use]
pub fn marker_seen_from_wire(wire: &v1::MarkerSeen) -> Option<MarkerSeen> {
    let marker = marker_from_wire("outcome.marker", wire.marker.as_ref()?).ok()?;
    let time = |time: Option<&prost_types::Timestamp>| wall_from_wire("outcome.marker", time?).ok();
    Some(MarkerSeen {
        marker,
        upstream: time(wire.upstream_time.as_ref()),
        tree: time(wire.tree_time.as_ref()),
        note: bounded(&wire.note),
    })
}

fn bounded(note: &str) -> String {
    printable(note.as_bytes(), MARKER_NOTE_CHARS_MAX).chars().take(MARKER_NOTE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use fleet::{marker::MarkerKind, time::Wall};

    use super::*;

    #[test]
    fn what_was_seen_goes_out_and_comes_back_bounded() {
        for kind in MarkerKind::ALL {
            let marker = Marker { kind, path: "project/trace/ftp.example.net".to_owned() };
            let seen = MarkerSeen {
                marker,
                upstream: Some(Wall(1_795_255_200_000)),
                tree: None,
                note: "tree: it has no line Date: with a time".to_owned(),
            };
            assert_eq!(marker_seen_from_wire(&marker_seen_to_wire(&seen)), Some(seen.clone()));
            let long = MarkerSeen { note: "\u{1b}[2J".repeat(500), ..seen };
            let back = marker_seen_from_wire(&marker_seen_to_wire(&long)).unwrap();
            assert!(back.note.chars().count() <= MARKER_NOTE_CHARS_MAX && !back.note.contains('\u{1b}'));
        }
        assert_eq!(marker_seen_from_wire(&v1::MarkerSeen::default()), None);
    }

    #[test]
    fn every_fault_of_a_marker_is_named() {
        let fields = |marker: &v1::Marker| -> Vec<String> {
            let faults = marker_from_wire("marker", marker).unwrap_err();
            faults.into_iter().map(|fault| fault.field).collect()
        };
        assert_eq!(fields(&v1::Marker::default()), ["marker.kind", "marker.path"]);
        for path in ["/etc/passwd", "a/../b", "a*", "-v", "x\ny"] {
            let marker = v1::Marker { kind: v1::marker::Kind::Mtime.into(), path: path.to_owned() };
            assert_eq!(fields(&marker), ["marker.path"], "{path}");
        }
    }
}

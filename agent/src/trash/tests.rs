use std::path::Path;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A root with one tree in its trash, and the note of it.
fn trashed(dir: &Path) -> (Root, TrashNote) {
    std::fs::create_dir(dir.join("debian")).unwrap();
    std::fs::write(dir.join("debian/Release"), "x").unwrap();
    let root = Root::open(dir).unwrap();
    let order = TrashOrder {
        project: ProjectUid(7),
        name: "debian".parse().unwrap(),
        destination: "a1:debian".parse().unwrap(),
        // Far ahead of every clock: when it was asked for says nothing of how long it lies here.
        asked: Wall(4_000_000_000_000),
    };
    assert_eq!(carry_out(&root, &order).unwrap(), Moved::Done);
    assert!(lies_in_trash(&root, &order).unwrap());
    (root, TrashNote::of(&order))
}

fn noted(root: &Root) -> TrashNote {
    root.trash_notes().unwrap().remove(0)
}

#[test]
fn only_time_that_was_counted_removes_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (root, _) = trashed(dir.path());
    let look = |passed| look_at(&root, noted(&root), passed, true).unwrap();
    assert!(matches!(look(Duration::ZERO), Looked::Stays));
    for day in 1..7 {
        assert!(matches!(look(DAY), Looked::Stays));
        // The count is on disk: the next start goes on from it.
        assert_eq!(noted(&root).counted_s, day * 86_400);
    }
    assert!(matches!(look(DAY - Duration::from_secs(1)), Looked::Stays));
    assert!(matches!(look(Duration::from_secs(1)), Looked::Removed));
    assert_eq!(root.trash_notes().unwrap(), []);
    assert_eq!(std::fs::read_dir(dir.path().join(".mirror-trash")).unwrap().count(), 0);
}

/// What stands in a note is a number, whoever wrote it.
#[test]
fn a_count_beyond_all_time_is_long_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (root, note) = trashed(dir.path());
    let note = TrashNote { counted_s: u64::MAX, ..note };
    assert!(matches!(look_at(&root, note, DAY, true).unwrap(), Looked::Removed));
}

#[test]
fn nothing_is_removed_where_the_file_does_not_allow_the_trash_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (root, note) = trashed(dir.path());
    assert!(matches!(look_at(&root, noted(&root), 8 * DAY, false).unwrap(), Looked::Stays));
    assert_eq!(root.lies(&note).unwrap(), Lies::There);
    assert!(matches!(look_at(&root, noted(&root), 8 * DAY, true).unwrap(), Looked::Removed));
}

#[test]
fn a_tree_that_somebody_took_back_is_forgotten_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (root, note) = trashed(dir.path());
    let back = dir.path().join("back");
    std::fs::rename(dir.path().join(".mirror-trash").join(note.file_name()), &back).unwrap();
    assert!(matches!(look_at(&root, note, 8 * DAY, true).unwrap(), Looked::Gone));
    assert_eq!(root.trash_notes().unwrap(), []);
    assert!(back.join("Release").exists());
}

#[test]
fn an_order_that_cannot_be_carried_out_leaves_no_note() {
    let dir = tempfile::tempdir().unwrap();
    let (root, note) = trashed(dir.path());
    std::os::unix::fs::symlink(dir.path(), dir.path().join("linked")).unwrap();
    let order = |path: &str| TrashOrder {
        project: ProjectUid(8),
        name: "other".parse().unwrap(),
        destination: format!("a1:{path}").parse().unwrap(),
        asked: Wall(1),
    };
    assert!(carry_out(&root, &order("linked")).is_err());
    assert_eq!(carry_out(&root, &order("none")).unwrap(), Moved::Absent);
    assert_eq!(root.trash_notes().unwrap(), [note]);
}

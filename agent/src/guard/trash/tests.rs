use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;

const P: ProjectUid = ProjectUid(7);

struct Place {
    dir: tempfile::TempDir,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        Self { dir, root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A tree of 2 directories, 3 files and a link out of it.
    fn tree(&self, path: &str) {
        fs::create_dir_all(self.at(path).join("pool/main")).unwrap();
        for file in ["Release", "pool/a", "pool/main/b"] {
            fs::write(self.at(path).join(file), file).unwrap();
        }
        symlink(self.at("outside"), self.at(path).join("pool/out")).unwrap();
        fs::create_dir_all(self.at("outside")).unwrap();
        fs::write(self.at("outside/precious"), "").unwrap();
    }

    fn trashed(&self, note: &TrashNote) -> PathBuf {
        self.at(".mirror-trash").join(note.file_name())
    }
}

fn note(path: &str) -> TrashNote {
    let asked = Wall(1_800_000_000_123);
    let destination = format!("a1:{path}").parse().unwrap();
    TrashNote::of(&TrashOrder { project: P, name: "debian".parse().unwrap(), destination, asked })
}

#[test]
fn a_tree_goes_to_the_trash_by_a_rename_and_is_removed_in_pieces_without_following_links() {
    let place = Place::new();
    place.tree("pub/debian");
    let note = note("pub/debian");
    assert_eq!(note.file_name(), "debian-7-20270115T080000123Z");
    place.root.write_trash_note(&note).unwrap();
    assert_eq!(place.root.lies(&note).unwrap(), Lies::Nowhere);
    assert_eq!(place.root.move_to_trash(&note).unwrap(), Moved::Done);
    assert!(!place.at("pub/debian").exists() && place.trashed(&note).join("pool/main/b").exists());
    assert_eq!(place.root.lies(&note).unwrap(), Lies::There);
    assert_eq!(place.root.trash_notes().unwrap(), std::slice::from_ref(&note));
    let mode = fs::metadata(place.at(".mirror-trash")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    // What an upstream made unreadable is removed all the same.
    fs::set_permissions(place.trashed(&note).join("pool"), fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(place.trashed(&note).join("pool/main"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(place.root.purge(&note, 2).unwrap(), Purged::Partly);
    assert_eq!(place.root.lies(&note).unwrap(), Lies::Purging);
    assert!(!place.trashed(&note).exists(), "nobody takes back half a tree");
    let mut pieces = 1;
    while place.root.purge(&note, 2).unwrap() == Purged::Partly {
        pieces += 1;
    }
    assert_eq!((pieces, place.root.lies(&note).unwrap()), (3, Lies::Nowhere));
    assert_eq!(fs::read_dir(place.at(".mirror-trash")).unwrap().count(), 0);
    assert!(place.at("outside/precious").exists());
    place.root.remove_trash_note(&note).unwrap();
    assert_eq!(place.root.trash_notes().unwrap(), []);
}

#[test]
fn what_a_crash_cut_short_is_gone_on_with() {
    let place = Place::new();
    place.tree("debian");
    let note = note("debian");
    // After the note.
    place.root.write_trash_note(&note).unwrap();
    place.root.write_trash_note(&note).unwrap();
    assert_eq!(place.root.lies(&note).unwrap(), Lies::Nowhere);
    assert!(place.at("debian/Release").exists());
    // After the rename.
    assert_eq!(place.root.move_to_trash(&note).unwrap(), Moved::Done);
    assert_eq!(place.root.lies(&note).unwrap(), Lies::There);
    assert_eq!(place.root.move_to_trash(&note).unwrap(), Moved::Absent, "it is moved once");
    // A new tree at the place is another one: no order moves it over the first.
    place.tree("debian");
    assert!(place.root.move_to_trash(&note).is_err());
    assert!(place.at("debian/Release").exists());
}

#[test]
fn only_a_directory_reached_without_links_is_moved() {
    let place = Place::new();
    place.tree("real/debian");
    symlink(place.at("real"), place.at("linked")).unwrap();
    symlink(place.at("real/debian"), place.at("itself")).unwrap();
    fs::write(place.at("file"), "").unwrap();
    for bad in ["linked/debian", "itself", "file"] {
        assert!(place.root.move_to_trash(&note(bad)).is_err(), "{bad}");
    }
    assert_eq!(place.root.move_to_trash(&note("none/debian")).unwrap(), Moved::Absent);
    assert!(place.at("real/debian/Release").exists() && place.at("file").exists());
}

#[test]
fn a_trash_that_is_not_the_agents_own_is_not_used() {
    let place = Place::new();
    place.tree("debian");
    fs::create_dir(place.at("elsewhere")).unwrap();
    symlink(place.at("elsewhere"), place.at(".mirror-trash")).unwrap();
    assert!(place.root.move_to_trash(&note("debian")).is_err());
    fs::remove_file(place.at(".mirror-trash")).unwrap();
    fs::create_dir(place.at(".mirror-trash")).unwrap();
    fs::set_permissions(place.at(".mirror-trash"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(place.root.move_to_trash(&note("debian")).is_err());
    assert!(place.at("debian/Release").exists());
    assert_eq!(fs::read_dir(place.at("elsewhere")).unwrap().count(), 0);
}

#[test]
fn what_no_note_names_and_notes_of_others_are_left_alone() {
    let place = Place::new();
    place.tree("debian");
    let own = note("debian");
    place.root.write_trash_note(&own).unwrap();
    place.root.move_to_trash(&own).unwrap();
    place.tree(".mirror-trash/by-hand");
    let notes = place.at(".mirror/trash");
    let forged = TrashNote { name: "x".to_owned(), ..own.clone() };
    fs::write(notes.join("by-hand"), serde_json::to_vec(&forged).unwrap()).unwrap();
    fs::write(notes.join("torn"), "{").unwrap();
    let climbing = TrashNote { name: "../..".to_owned(), ..own.clone() };
    fs::write(notes.join("climbing"), serde_json::to_vec(&climbing).unwrap()).unwrap();
    assert_eq!(place.root.trash_notes().unwrap(), std::slice::from_ref(&own));
    while place.root.purge(&own, 100).unwrap() == Purged::Partly {}
    assert!(place.at(".mirror-trash/by-hand/Release").exists());
}

#[test]
fn a_tree_is_its_projects_as_long_as_no_other_has_begun_one_there_since() {
    let place = Place::new();
    let debian: Destination = "a1:pub/debian".parse().unwrap();
    let begun = |uid: u64, at: &str| {
        place.root.mark_begun(ProjectUid(uid), &at.parse().unwrap()).unwrap();
    };
    assert_eq!(place.root.begun_since(P, &debian).unwrap(), None);
    begun(3, "a1:pub/debian");
    begun(7, "a1:pub/debian");
    begun(9, "a1:pub/debian-security");
    assert_eq!(place.root.begun_since(P, &debian).unwrap(), Some(None));
    begun(11, "a1:pub/debian/pool");
    assert_eq!(place.root.begun_since(P, &debian).unwrap(), Some(Some(ProjectUid(11))));
    begun(11, "a1:elsewhere");
    // An older project that was moved here since.
    let (own, other) = (place.at(".mirror/begun/7"), place.at(".mirror/begun/3"));
    let later = fs::metadata(own).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(other).unwrap().set_modified(later).unwrap();
    assert_eq!(place.root.begun_since(P, &debian).unwrap(), Some(Some(ProjectUid(3))));
    place.root.forget_begun(P).unwrap();
    assert_eq!(place.root.begun_since(P, &debian).unwrap(), None);
}

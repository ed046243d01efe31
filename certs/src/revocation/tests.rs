use super::*;
use std::fs;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn agent(name: &str) -> Denial {
    Denial::Agent(name.parse().unwrap())
}

fn peer(name: &str, serial: &str) -> Peer {
    Peer {
        identity: Identity::Agent(name.parse().unwrap()),
        serial: serial.parse().unwrap(),
        not_before: now(),
        not_after: now(),
        spki_hash: SpkiHash::of_spki(b""),
        issuer: Vec::new(),
    }
}

/// A path in a directory of its own, which lives as long as the first half.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("denied");
    (directory, path)
}

fn open(path: &Path) -> DenyList {
    let opened = DenyList::open(path).unwrap();
    assert_eq!(opened.torn, None);
    opened.list
}

#[test]
fn a_denial_holds_at_once_and_after_a_restart() {
    let (_directory, path) = place();
    let list = open(&path);
    assert!(list.is_empty());
    assert!(list.deny(&agent("ftp1"), now()).unwrap());
    assert!(list.deny(&Denial::Serial("0a1b".parse().unwrap()), now()).unwrap());
    let key = SpkiHash::of_spki(b"a stolen key");
    assert!(list.deny(&Denial::Key(key), now()).unwrap());
    for list in [list, open(&path)] {
        assert_eq!(list.len(), 3);
        assert!(list.is_key_denied(&key) && !list.is_key_denied(&SpkiHash::of_spki(b"")));
        let renewed = Peer { spki_hash: key, ..peer("ftp3", "78") };
        assert!(list.is_denied(&renewed), "whatever its serial number and name");
        assert!(list.is_denied(&peer("ftp1", "77")));
        assert!(list.is_denied(&peer("ftp2", "0a1b")));
        assert!(!list.is_denied(&peer("ftp2", "77")));
    }
}

#[test]
fn the_file_is_lines_people_can_read() {
    let (_directory, path) = place();
    let list = open(&path);
    list.deny(&agent("Ftp1"), now()).unwrap();
    list.deny(&Denial::User("maria".parse().unwrap()), now()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "2027-01-15T08:00:00Z agent Ftp1\n2027-01-15T08:00:00Z user maria\n");
}

#[test]
fn names_are_denied_ignoring_case_and_once() {
    let (_directory, path) = place();
    let list = open(&path);
    assert!(list.deny(&agent("KaOS"), now()).unwrap());
    assert!(!list.deny(&agent("kaos"), now()).unwrap());
    assert!(list.is_denied(&peer("KAOS", "77")));
    assert!(!list.is_identity_denied(&Identity::User("KaOS".parse().unwrap())));
    assert!(!list.is_identity_denied(&Identity::Server));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn a_torn_last_line_is_cut_off_and_told() {
    let (_directory, path) = place();
    open(&path).deny(&agent("ftp1"), now()).unwrap();
    let whole = fs::read(&path).unwrap();
    let line = b"2027-01-15T08:00:00Z agent ftp22\n";
    for cut in 1..line.len() {
        fs::write(&path, [whole.as_slice(), &line[..cut]].concat()).unwrap();
        let opened = DenyList::open(&path).unwrap();
        let torn = opened.torn.unwrap();
        assert_eq!(torn.text.as_bytes(), &line[..cut]);
        assert!(torn.to_string().contains("revoke again"), "{torn}");
        assert_eq!(opened.list.len(), 1);
        assert!(opened.list.is_denied(&peer("ftp1", "77")));
        // "ftp2" is a part of "ftp22": a torn name must deny nobody.
        assert!(!opened.list.is_denied(&peer("ftp2", "77")));
        assert_eq!(fs::read(&path).unwrap(), whole);
        opened.list.deny(&agent("ftp3"), now()).unwrap();
        assert_eq!(open(&path).len(), 2);
    }
}

#[test]
fn a_torn_line_of_zeros_is_cut_off_too() {
    let (_directory, path) = place();
    fs::write(&path, [0u8; 500]).unwrap();
    let opened = DenyList::open(&path).unwrap();
    assert!(opened.torn.is_some() && opened.list.is_empty());
}

#[test]
fn damaged_lines_are_all_told_and_nothing_is_used() {
    let (_directory, path) = place();
    let text = "2027-01-15T08:00:00Z agent ftp1\nnonsense\n2027-01-15T08:00:00Z agent\n\
        yesterday agent ftp2\n2027-01-15T08:00:00Z serial XY\n2027-01-15T08:00:00Z group x\n";
    fs::write(&path, text).unwrap();
    let refused = DenyList::open(&path).unwrap_err();
    let DenyListError::Damaged { faults, .. } = &refused else { panic!("{refused}") };
    let lines: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(lines, ["line 2", "line 3", "line 4", "line 5", "line 6"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn the_list_is_bounded() {
    let (_directory, path) = place();
    let lines: String = (0..DENIALS_MAX).map(|i| format!("2027-01-15T08:00:00Z agent a{i}\n")).collect();
    fs::write(&path, &lines).unwrap();
    let list = open(&path);
    assert_eq!(list.len(), DENIALS_MAX);
    assert!(matches!(list.deny(&agent("one-more"), now()), Err(DenyListError::Full(_))));
    assert!(!list.deny(&agent("a0"), now()).unwrap());
    fs::write(&path, lines + "2027-01-15T08:00:00Z agent b\n").unwrap();
    assert!(matches!(DenyList::open(&path), Err(DenyListError::Full(_))));
}

#[test]
fn a_failed_write_denies_nobody_and_leaves_no_half_line() {
    let (_directory, path) = place();
    let list = open(&path);
    list.deny(&agent("ftp1"), now()).unwrap();
    // A descriptor that cannot be written stands for the disk that is full.
    let writable = std::mem::replace(&mut list.writer.lock().unwrap().file, File::open(&path).unwrap());
    assert!(matches!(list.deny(&agent("ftp2"), now()), Err(DenyListError::File(_))));
    assert!(!list.is_denied(&peer("ftp2", "77")));
    // What half a write leaves is cut off before the next line.
    (&writable).write_all(b"2027-01-15T08:").unwrap();
    list.writer.lock().unwrap().file = writable;
    assert!(list.deny(&agent("ftp2"), now()).unwrap());
    assert_eq!(open(&path).len(), 2);
}

#[test]
fn a_look_mends_nothing_and_finds_the_same() {
    let (_directory, path) = place();
    assert!(!DenyList::look(&path).unwrap().is_denied(
        &Identity::Agent("ftp1".parse().unwrap()),
        &"77".parse().unwrap(),
        &SpkiHash::of_spki(b"")
    ));
    let list = open(&path);
    list.deny(&Denial::Agent("FTP1".parse().unwrap()), now()).unwrap();
    list.deny(&Denial::Key(SpkiHash::of_spki(b"k")), now()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"2026-11-21T08:00:00Z agent ed");
    std::fs::write(&path, &bytes).unwrap();
    let denied = DenyList::look(&path).unwrap();
    let is = |name: &str, key: &[u8]| {
        let agent = Identity::Agent(name.parse().unwrap());
        denied.is_denied(&agent, &"77".parse().unwrap(), &SpkiHash::of_spki(key))
    };
    assert!(is("ftp1", b"") && is("edge1", b"k") && !is("edge1", b""));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

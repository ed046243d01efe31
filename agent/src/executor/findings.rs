//! What the guards want to know of a program's output beyond its closing numbers: which names it lists, deletes and
//! fetches again. Bounded, whatever an upstream sends. Judges nothing.

use fleet::outcome::{EVIDENCE_NAME_CHARS_MAX, EVIDENCE_NAMES_MAX};
use rsync::progress::Change;
use rsync::{Event, Item, listing};

/// Most bytes of a name: with all of them an outcome still fits what the journal sets aside for it.
const NAME_BYTES_MAX: usize = EVIDENCE_NAME_CHARS_MAX;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Listed entries but the listed directory itself.
    pub(super) entries: u64,
    /// The listed directory itself is there.
    pub(super) itself: bool,
    /// Names that were asked for and not seen yet.
    pub(super) missing: Vec<String>,
    /// Entries deleted.
    pub(super) deleted: u64,
    /// The first of them.
    pub(super) first_deleted: Vec<String>,
    /// The first files of which data was fetched although there was one of that name.
    pub(super) first_again: Vec<String>,
    /// When the plain file of [`Self::of_marker`] was changed, seconds since 1970.
    pub(super) changed: Option<i64>,
    /// Size of the files fetched where there was none, bytes.
    pub(super) new_bytes: u64,
    /// Entries made where there was none.
    pub(super) new: u64,
    /// Entries told of at all: what a comparison lists differs.
    pub(super) told: u64,
    /// The first of them.
    pub(super) first_told: Vec<String>,
    /// The output is a listing.
    listing: bool,
    /// The file whose time is wanted.
    marker: Option<String>,
}

impl Findings {
    /// Of a listing that was asked for some names.
    pub(super) fn of_listing(names: &[String]) -> Self {
        Self { missing: names.to_vec(), listing: true, ..Self::default() }
    }

    /// Of a listing that was asked for the time of one file.
    pub(super) fn of_marker(name: &str) -> Self {
        Self { marker: Some(name.to_owned()), listing: true, ..Self::default() }
    }

    /// Takes a piece of output. True: it says nothing more to people than what is kept here.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Item(item) => self.take_item(item),
            Event::Other { line, cut: false } if self.listing => return self.take_listed(line),
            // A name too long to be kept is an entry all the same.
            Event::Other { cut: true, .. } => self.told += 1,
            Event::Progress(_) | Event::Stats | Event::Other { .. } => {}
        }
        false
    }

    fn take_item(&mut self, item: &Item) {
        self.told += 1;
        keep(&mut self.first_told, &item.name);
        match item.change {
            Change::Deleted => {
                self.deleted += 1;
                keep(&mut self.first_deleted, &item.name);
            }
            Change::Received if item.new => self.new_bytes = self.new_bytes.saturating_add(item.size),
            Change::Received => keep(&mut self.first_again, &item.name),
            Change::Sent | Change::Created | Change::HardLinked | Change::Attributes => {}
        }
        self.new += u64::from(item.new);
    }

    fn take_listed(&mut self, line: &[u8]) -> bool {
        let Some(entry) = listing::parse_line(line) else { return false };
        if entry.name == listing::SELF {
            self.itself = true;
        } else {
            self.entries += 1;
            self.missing.retain(|name| name.as_bytes() != entry.name);
            let is_marker = self.marker.as_ref().is_some_and(|name| name.as_bytes() == entry.name);
            if is_marker && entry.kind == rsync::progress::Kind::File {
                self.changed = entry.changed;
            }
        }
        true
    }
}

fn keep(names: &mut Vec<String>, name: &[u8]) {
    if names.len() < EVIDENCE_NAMES_MAX {
        let mut text = rsync::text::printable(name, EVIDENCE_NAME_CHARS_MAX);
        crate::text::cut(&mut text, NAME_BYTES_MAX);
        names.push(text);
    }
}

#[cfg(test)]
mod tests {
    use rsync::OutputParser;

    use super::*;

    fn found(mut findings: Findings, output: &[u8]) -> Findings {
        let mut parser = OutputParser::new();
        parser.push(output, |event| _ = findings.take(&event));
        findings
    }

    #[test]
    fn a_listing() {
        let sought = ["dists/Release".to_owned(), "README".to_owned()];
        let lines = b"welcome\ndrwxr-xr-x        4096 2026/11/22 00:29:05 .\n\
                      -rw-r--r--           2 2026/11/22 00:29:05 README\n\
                      drwxr-xr-x        4096 2026/11/22 00:29:05 dists\n";
        let found = found(Findings::of_listing(&sought), lines);
        assert_eq!((found.itself, found.entries, found.missing), (true, 2, vec!["dists/Release".to_owned()]));
    }

    #[test]
    fn changes() {
        let lines = b">*deleting  |0|0|sub/\\#033[31m\n>*deleting  |0|0|sub/\n>>f+++++++++|500|0|new\n\
                      >>f.st......|70|0|changed\n>cd+++++++++|4096|0|dir/\n>.d..t......|4096|0|./\n";
        let found = found(Findings::default(), lines);
        assert_eq!(found.first_deleted, ["sub/\\x1b[31m", "sub/"]);
        assert_eq!(found.first_again, ["changed"]);
        assert_eq!((found.deleted, found.new, found.new_bytes), (2, 2, 500));
    }

    #[test]
    fn names_are_bounded() {
        let line = format!(">*deleting  |0|0|{}\n", "ä".repeat(3_000)).repeat(50);
        let found = found(Findings::default(), line.as_bytes());
        assert_eq!((found.deleted, found.first_deleted.len()), (50, EVIDENCE_NAMES_MAX));
        assert!(found.first_deleted.iter().all(|name| name.len() <= NAME_BYTES_MAX));
    }
}

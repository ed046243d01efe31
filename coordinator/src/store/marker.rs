//! The marker: one line in a file beside the engine's directory that says how far the store had got. An engine
//! that opens with less, or with nothing, has lost something, however sound it looks.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::files;

const NAME: &str = "mirror-store 1";

/// What the line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// A revision that was acknowledged. After a crash the engine may be further, never behind.
    pub(crate) revision: u64,
    /// The store was closed in order and not opened since.
    pub(crate) clean: bool,
    /// The store holds an older state than agents may have seen, and nothing was committed since.
    pub(crate) rewound: bool,
}

/// What was found where the marker should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Absent,
    /// Something that is no marker.
    Damaged,
    /// This.
    Whole(Marker),
}

/// The marker's file, held open so that each commit moves it on.
#[derive(Debug)]
pub(crate) struct MarkerFile {
    file: File,
    rewound: bool,
}

impl Marker {
    /// The line; as long whatever it says, so that it is overwritten in place and within one disk block.
    fn line(self) -> String {
        let (clean, rewound) = (u8::from(self.clean), u8::from(self.rewound));
        let text = format!("{NAME} revision={:020} clean={clean} rewound={rewound}", self.revision);
        format!("{text} crc={:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    fn parse(line: &str) -> Option<Self> {
        let revision = line.split(' ').find_map(|word| word.strip_prefix("revision="))?.parse().ok()?;
        let flag = |yes: &str| line.split(' ').any(|word| word == yes);
        let marker = Self { revision, clean: flag("clean=1"), rewound: flag("rewound=1") };
        (marker.line() == line).then_some(marker)
    }

    /// Reads it.
    pub(crate) fn read(path: &Path) -> io::Result<Found> {
        match fs::read(path) {
            Ok(bytes) => {
                let marker = String::from_utf8(bytes).ok().and_then(|line| Self::parse(&line));
                Ok(marker.map_or(Found::Damaged, Found::Whole))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) => Err(error),
        }
    }

    /// Writes it durably.
    pub(crate) fn write(self, path: &Path) -> io::Result<MarkerFile> {
        files::replace(path, self.line().as_bytes())?;
        Ok(MarkerFile { file: OpenOptions::new().write(true).open(path)?, rewound: self.rewound })
    }
}

impl MarkerFile {
    /// Notes a commit, after it is durable. Not synced: a process that is killed leaves it in the page cache,
    /// and after a power cut an older number is still true.
    pub(crate) fn advance(&mut self, revision: u64) -> io::Result<()> {
        self.rewound = false;
        let marker = Marker { revision, clean: false, rewound: false };
        self.file.write_all_at(marker.line().as_bytes(), 0)
    }

    /// Whether the store is still as it was when it went back.
    pub(crate) fn rewound(&self) -> bool {
        self.rewound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_marker_is_read_as_it_was_written_and_moves_on_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marker");
        assert_eq!(Marker::read(&path).unwrap(), Found::Absent);
        for (revision, clean, rewound) in [(0, false, false), (7, true, false), (u64::MAX, true, true)] {
            let marker = Marker { revision, clean, rewound };
            let mut file = marker.write(&path).unwrap();
            assert_eq!(Marker::read(&path).unwrap(), Found::Whole(marker));
            file.advance(9).unwrap();
            let moved = Marker { revision: 9, clean: false, rewound: false };
            assert_eq!(Marker::read(&path).unwrap(), Found::Whole(moved));
        }
    }

    #[test]
    fn any_changed_byte_or_cut_is_a_damaged_marker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marker");
        let line = Marker { revision: 41, clean: true, rewound: false }.line().into_bytes();
        for at in 0..line.len() {
            let mut flipped = line.clone();
            flipped[at] ^= 1;
            for damaged in [&flipped[..], &line[..at]] {
                fs::write(&path, damaged).unwrap();
                assert_eq!(Marker::read(&path).unwrap(), Found::Damaged, "byte {at}");
            }
        }
    }
}

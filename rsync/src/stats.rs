//! The block of numbers rsync prints at the end of a run (`--info=stats2` with `--no-h`).
//!
//! Which lines appear depends on the protocol (created: 29, deleted: 31) and on the upstream, so every number may
//! be missing. An upstream can put messages of its own into rsync's output, before this block: a line that
//! comes twice counts with its last value. Does NOT judge the numbers.

/// Counts of entries by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub total: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Device files.
    pub devices: u64,
    /// Sockets and fifos.
    pub specials: u64,
}

/// The numbers of one run. `None`: rsync did not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries in the upstream's list.
    pub files: Option<Count>,
    /// Entries made.
    pub created: Option<Count>,
    /// Entries deleted.
    pub deleted: Option<Count>,
    /// Regular files of which data was fetched.
    pub transferred: Option<u64>,
    /// Size of all files in the list, bytes.
    pub total_size: Option<u64>,
    /// Size of the files of which data was fetched, bytes.
    pub transferred_size: Option<u64>,
    /// File data received as such, bytes.
    pub literal: Option<u64>,
    /// File data taken from files that were there, bytes.
    pub matched: Option<u64>,
    /// Size of the list on the wire, bytes.
    pub list_size: Option<u64>,
    /// Time the upstream took to make the list, milliseconds.
    pub list_generation_ms: Option<u64>,
    /// Time to transfer the list, milliseconds.
    pub list_transfer_ms: Option<u64>,
    /// Bytes sent to the upstream.
    pub sent: Option<u64>,
    /// Bytes received from the upstream.
    pub received: Option<u64>,
    /// The closing line is there; without it the block is cut.
    pub complete: bool,
    /// It was a trial run.
    pub dry_run: bool,
}

impl Stats {
    /// Takes one line without its line end; says whether it belongs to the block. A line whose number cannot be
    /// read is none of the block.
    pub fn absorb(&mut self, line: &str) -> bool {
        self.absorb_line(line).is_some()
    }

    fn absorb_line(&mut self, line: &str) -> Option<()> {
        if let Some(rest) = line.strip_prefix("total size is ") {
            self.complete = rest.split_once("  speedup is ")?.0.parse::<u64>().is_ok();
            self.dry_run = rest.ends_with("(DRY RUN)");
            return Some(());
        }
        // The same numbers as the two lines `Total bytes`.
        if line.starts_with("sent ") && line.ends_with(" bytes/sec") {
            return Some(());
        }
        let (label, value) = line.split_once(": ")?;
        let bytes = || value.strip_suffix(" bytes").unwrap_or(value).parse().ok();
        match label {
            "Number of files" => self.files = Some(count(value)?),
            "Number of created files" => self.created = Some(count(value)?),
            "Number of deleted files" => self.deleted = Some(count(value)?),
            // Without "regular" before 3.1.
            "Number of regular files transferred" | "Number of files transferred" => {
                self.transferred = Some(bytes()?);
            }
            "Total file size" => self.total_size = Some(bytes()?),
            "Total transferred file size" => self.transferred_size = Some(bytes()?),
            "Literal data" => self.literal = Some(bytes()?),
            "Matched data" => self.matched = Some(bytes()?),
            "File list size" => self.list_size = Some(bytes()?),
            "File list generation time" => self.list_generation_ms = Some(milliseconds(value)?),
            "File list transfer time" => self.list_transfer_ms = Some(milliseconds(value)?),
            "Total bytes sent" => self.sent = Some(bytes()?),
            "Total bytes received" => self.received = Some(bytes()?),
            _ => return None,
        }
        Some(())
    }
}

/// `10 (reg: 4, dir: 2, link: 2, dev: 1, special: 1)`; kinds that are zero are left out.
fn count(text: &str) -> Option<Count> {
    let (total, kinds) = text.split_once(" (").unwrap_or((text, ")"));
    let mut out = Count { total: total.parse().ok()?, ..Count::default() };
    for kind in kinds.strip_suffix(')')?.split(", ").filter(|kind| !kind.is_empty()) {
        let (name, value) = kind.split_once(": ")?;
        let value = value.parse().ok()?;
        match name {
            "reg" => out.files = value,
            "dir" => out.directories = value,
            "link" => out.links = value,
            "dev" => out.devices = value,
            "special" => out.specials = value,
            _ => return None,
        }
    }
    Some(out)
}

/// `0.001 seconds`, three decimals.
fn milliseconds(text: &str) -> Option<u64> {
    let (whole, decimals) = text.strip_suffix(" seconds")?.split_once('.')?;
    if decimals.len() != 3 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(decimals.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut stats = Stats::default();
        for line in [
            "Number of files: 10 (reg: 4, dir: 2, link: 2, dev: 1, special: 1)",
            "Number of created files: 0",
            "Number of deleted files: 2 (reg: 2)",
            "Total file size: 18446744073709551615 bytes",
            "File list size: 197",
            "File list generation time: 12.034 seconds",
            "sent 143 bytes  received 3001122 bytes  6002530.00 bytes/sec",
            "total size is 3000017  speedup is 1.00 (DRY RUN)",
        ] {
            assert!(stats.absorb(line), "{line}");
        }
        let files = Count { total: 10, files: 4, directories: 2, links: 2, devices: 1, specials: 1 };
        assert_eq!(stats.files, Some(files));
        assert_eq!(stats.created, Some(Count::default()));
        assert_eq!(stats.deleted, Some(Count { total: 2, files: 2, ..Count::default() }));
        assert_eq!(stats.total_size, Some(u64::MAX));
        assert_eq!(stats.list_size, Some(197));
        assert_eq!(stats.list_generation_ms, Some(12_034));
        assert!(stats.complete && stats.dry_run);
        assert_eq!(stats.received, None);
    }

    #[test]
    fn the_last_value_counts() {
        let mut stats = Stats::default();
        assert!(stats.absorb("Number of deleted files: 0"));
        assert!(stats.absorb("Number of deleted files: 7 (reg: 7)"));
        assert_eq!(stats.deleted.map(|count| count.total), Some(7));
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut stats = Stats::default();
        for line in [
            "",
            "Number of files: ",
            "Number of files: -1",
            "Number of files: 1 (reg: 1",
            "Number of files: 1 (hole: 1)",
            "Total file size: 18446744073709551616 bytes",
            "Total file size: 9.00M bytes",
            "File list transfer time: 0.1 seconds",
            "Number of frogs: 3",
            "total size is many",
            "sent by the upstream",
        ] {
            assert!(!stats.absorb(line), "{line}");
        }
        assert_eq!(stats, Stats::default());
    }
}

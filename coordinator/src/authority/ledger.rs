//! Which certificates the fleet has issued, and which of them have been seen since: a text file beside the CA, so that
//! `mirror-coordinator ca show` can tell who still depends on which CA while the coordinator runs. Outside the store, as
//! certificates are: a restored store forgets none.
//!
//! ```text
//! 2026-11-22T08:00:00Z issued sha256:CA… 5d1f… sha256:KEY… agent/ftp1 2026-12-22T08:00:00Z
//! 2026-11-22T08:00:04Z used sha256:CA… 5d1f… sha256:KEY… agent/ftp1 2026-12-22T08:00:00Z
//! 2026-11-22T08:00:00Z trusts sha256:CA… sha256:CA…
//! ```
//!
//! It decides nothing by itself and nobody is let in or kept out by it. So a line that cannot be written keeps nobody from
//! his certificate, and one that a crash tore is passed over: whoever uses a certificate is entered by that.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, SecondsFormat, Utc};
use mirror_certs::{Existing, Identity, Peer, RENEW_GRACE, Serial, SpkiHash, write_private};

/// Largest file that is read, in bytes: ten thousand agents for a year without tidying up.
const FILE_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
/// Only the coordinator's user writes it.
const FILE_MODE: u32 = 0o600;
/// Serial numbers that are remembered as seen; beyond it some are entered twice.
const SEEN_MAX: usize = 50_000;

/// One certificate as a line has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the line was written.
    pub time: DateTime<Utc>,
    /// Whether it was seen in use; otherwise it is known to have been issued.
    pub used: bool,
    /// The CA that issued it.
    pub issuer: SpkiHash,
    /// Its serial number.
    pub serial: Serial,
    /// Its public key.
    pub key: SpkiHash,
    /// Whom it speaks for.
    pub identity: Identity,
    /// Its end.
    pub until: DateTime<Utc>,
}

impl Entry {
    /// Whether anything can still be done with it: agents may renew one that has expired.
    #[must_use]
    pub fn is_of_use(&self, now: DateTime<Utc>) -> bool {
        let grace =
            if matches!(self.identity, Identity::Agent(_)) { RENEW_GRACE } else { chrono::TimeDelta::zero() };
        now <= self.until + grace
    }

    fn line(&self) -> String {
        let Self { time, used, issuer, serial, key, identity, until } = self;
        let verb = if *used { "used" } else { "issued" };
        format!("{} {verb} {issuer} {serial} {key} {identity} {}\n", stamp(*time), stamp(*until))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next();
        let time = read_stamp(word()?)?;
        let used = match word()? {
            "used" => true,
            "issued" => false,
            _ => return None,
        };
        let (issuer, serial, key) = (word()?.parse().ok()?, word()?.parse().ok()?, word()?.parse().ok()?);
        let identity = match word()?.split_once('/')? {
            ("agent", name) => Identity::Agent(name.parse().ok()?),
            ("user", name) => Identity::User(name.parse().ok()?),
            _ => return None,
        };
        let until = read_stamp(word()?)?;
        Some(Self { time, used, issuer, serial, key, identity, until })
    }
}

/// What a ledger's file says.
#[derive(Debug, Default)]
pub struct Book {
    /// Every certificate, in the order of the lines.
    pub entries: Vec<Entry>,
    /// The CAs that a running coordinator trusted last, and since when.
    pub trusted: Option<(DateTime<Utc>, Vec<SpkiHash>)>,
    /// Lines that say nothing readable.
    pub unreadable: usize,
    /// The last line has no end.
    torn: bool,
}

impl Book {
    /// Reads a ledger; one that is not there is empty.
    ///
    /// # Errors
    /// When the file cannot be read, or is larger than 256 MiB.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened?,
        };
        if file.metadata()?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        let mut book = Self::default();
        let (mut file, mut line) = (BufReader::new(file.take(FILE_BYTES_MAX)), Vec::new());
        while file.read_until(b'\n', &mut line)? > 0 {
            book.torn = line.last() != Some(&b'\n');
            book.add(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
        Ok(book)
    }

    fn add(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        if let Some(entry) = Entry::parse(line) {
            self.entries.push(entry);
        } else if let Some(trusted) = trusted(line) {
            self.trusted = Some(trusted);
        } else {
            self.unreadable += 1;
        }
    }

    /// Who would be cut if the CA `old` were trusted no more and `next` alone were: whoever holds a certificate of the old
    /// one that is still of use, and was not seen with one of the next that is. One entry for each, with the latest end, in
    /// the order of names.
    #[must_use]
    pub fn left_on(
        &self,
        old: SpkiHash,
        next: SpkiHash,
        now: DateTime<Utc>,
        denied: impl Fn(&Entry) -> bool,
    ) -> Vec<Entry> {
        // Not just of another CA: one that was retired before is in the list as well.
        let has_moved = |one: &&Entry| one.used && one.issuer == next && one.is_of_use(now) && !denied(one);
        let moved: HashSet<String> = self.entries.iter().filter(has_moved).map(Entry::who).collect();
        let mut left: HashMap<String, Entry> = HashMap::new();
        let theirs =
            self.entries.iter().filter(|one| one.issuer == old && one.is_of_use(now) && !denied(one));
        for one in theirs.filter(|one| !moved.contains(&one.who())) {
            let known = left.entry(one.who()).or_insert_with(|| one.clone());
            if known.until < one.until {
                *known = one.clone();
            }
        }
        let mut left: Vec<Entry> = left.into_values().collect();
        left.sort_by_key(Entry::who);
        left
    }

    /// What is left of it when everything is dropped that says nothing any more.
    fn tidied(&self, now: DateTime<Utc>) -> String {
        // An agent has one certificate at a time: what is older than the one that it was seen with last is over.
        let mut newest: HashMap<String, usize> = HashMap::new();
        for (index, one) in self.entries.iter().enumerate() {
            if one.used && matches!(one.identity, Identity::Agent(_)) {
                newest.insert(one.who(), index);
            }
        }
        let kept = self.entries.iter().enumerate().filter(|(index, one)| {
            one.is_of_use(now) && newest.get(&one.who()).is_none_or(|newest| index >= newest)
        });
        let mut text: String = kept.map(|(_, one)| one.line()).collect();
        text.extend(self.trusted.as_ref().map(|(since, hashes)| trusts_line(*since, hashes)));
        text
    }
}

impl Entry {
    /// By which one holder is told from another: names are unique ignoring case.
    fn who(&self) -> String {
        self.identity.to_string().to_ascii_lowercase()
    }
}

/// The ledger of a coordinator that runs, or of a command that issues.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// Asked at every request, so never held while the disk is waited for.
    seen: Mutex<HashSet<Serial>>,
    /// One writer at a time, and none while the file is replaced.
    file: Mutex<()>,
}

impl Ledger {
    /// Opens the ledger, or begins an empty one. One that cannot be read is told in the log and set aside by nobody: it
    /// only grows again.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let book = Book::read(path).unwrap_or_else(|error| {
            tracing::error!(%error, path = %path.display(), "the list of issued certificates cannot be read");
            Book::default()
        });
        if book.unreadable > 0 {
            tracing::warn!(lines = book.unreadable, path = %path.display(), "lines of issued certificates are unreadable");
        }
        let seen = book.entries.iter().filter(|one| one.used).map(|one| one.serial.clone()).collect();
        let ledger = Self { path: path.to_owned(), seen: Mutex::new(seen), file: Mutex::default() };
        if book.torn {
            // So that the next line does not join what a crash left of the last one.
            ledger.append("\n");
        }
        ledger
    }

    /// A certificate is being handed out.
    pub fn issued(&self, entry: &Entry) {
        self.append(&entry.line());
    }

    /// A certificate was shown by its holder. Enters each one once.
    pub fn used(&self, peer: &Peer, issuer: SpkiHash, now: DateTime<Utc>) {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.contains(&peer.serial) {
                return;
            }
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            seen.insert(peer.serial.clone());
        }
        let entry = Entry {
            time: now,
            used: true,
            issuer,
            serial: peer.serial.clone(),
            key: peer.spki_hash,
            identity: peer.identity.clone(),
            until: peer.not_after,
        };
        if !self.append(&entry.line()) {
            // So that it is entered the next time that it is shown.
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer.serial);
        }
    }

    /// The coordinator trusts these CAs from now on. Nothing is written where it did so already.
    pub fn trusts(&self, hashes: &[SpkiHash], now: DateTime<Utc>) {
        let before = Book::read(&self.path).unwrap_or_default().trusted;
        if before.is_none_or(|(_, before)| before != hashes) {
            self.append(&trusts_line(now, hashes));
        }
    }

    /// Drops what says nothing any more: certificates that are of no use, and those that an agent has replaced.
    ///
    /// # Errors
    /// When the file cannot be read or replaced; then it is what it was.
    pub fn tidy(&self, now: DateTime<Utc>) -> io::Result<()> {
        // Nothing may be entered between the reading and the replacing.
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let text = Book::read(&self.path)?.tidied(now);
        write_private(&self.path, &text, Existing::Replace).map_err(io::Error::other)
    }

    /// Says whether it is written; where not, the log says why.
    fn append(&self, line: &str) -> bool {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&self.path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = &written {
            tracing::warn!(%error, path = %self.path.display(), "a certificate is missing in the list of those issued");
        }
        written.is_ok()
    }
}

fn trusts_line(time: DateTime<Utc>, hashes: &[SpkiHash]) -> String {
    let hashes: Vec<String> = hashes.iter().map(ToString::to_string).collect();
    format!("{} trusts {}\n", stamp(time), hashes.join(" "))
}

fn trusted(line: &str) -> Option<(DateTime<Utc>, Vec<SpkiHash>)> {
    let (time, hashes) = line.split_once(" trusts ")?;
    let hashes = hashes.split(' ').map(|hash| hash.parse().ok()).collect::<Option<Vec<_>>>()?;
    Some((read_stamp(time)?, hashes))
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn read_stamp(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use mirror_certs::{AGENT_LIFE, CertificateAuthority, KeyPair, USER_LIFE};

    use super::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn at(days: i64) -> DateTime<Utc> {
        start() + TimeDelta::days(days)
    }

    fn authority() -> CertificateAuthority {
        CertificateAuthority::create("mirror.test".parse().unwrap(), start()).unwrap()
    }

    fn who(text: &str) -> Identity {
        match text.split_once('/').unwrap() {
            ("agent", name) => Identity::Agent(name.parse().unwrap()),
            (_, name) => Identity::User(name.parse().unwrap()),
        }
    }

    struct Desk {
        ledger: Ledger,
        /// Retired before.
        former: CertificateAuthority,
        old: CertificateAuthority,
        new: CertificateAuthority,
        _dir: tempfile::TempDir,
    }

    impl Desk {
        fn open() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(&dir.path().join("issued.txt"));
            Self { ledger, former: authority(), old: authority(), new: authority(), _dir: dir }
        }

        /// Issues a certificate so many days after the start and enters it; uses it, where `used`.
        fn issue(&self, ca: &CertificateAuthority, identity: &str, day: i64, used: bool) {
            let identity = who(identity);
            let life = if matches!(identity, Identity::Agent(_)) { AGENT_LIFE } else { USER_LIFE };
            let key = KeyPair::generate().unwrap();
            let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &identity, at(day), life).unwrap();
            let peer = Identity::from_pem(&issued.cert_pem, ca.trust_domain()).unwrap();
            self.ledger.issued(&Entry {
                time: at(day),
                used: false,
                issuer: ca.ca_hash(),
                serial: issued.serial,
                key: issued.spki_hash,
                identity,
                until: issued.not_after,
            });
            for _ in 0..if used { 2 } else { 0 } {
                self.ledger.used(&peer, ca.ca_hash(), at(day));
            }
        }

        fn book(&self) -> Book {
            Book::read(&self.ledger.path).unwrap()
        }

        fn left(&self, day: i64) -> Vec<String> {
            let left = self.book().left_on(self.old.ca_hash(), self.new.ca_hash(), at(day), |_| false);
            left.iter().map(|one| one.identity.to_string()).collect()
        }
    }

    #[test]
    fn whoever_was_seen_with_the_new_ca_has_moved_and_an_answer_that_was_lost_has_not_arrived() {
        let desk = Desk::open();
        for name in ["agent/ftp1", "agent/edge1", "user/maria", "user/old"] {
            desk.issue(&desk.old, name, 0, true);
        }
        // That somebody came from a CA before says nothing of the next one.
        for name in ["agent/edge1", "user/maria"] {
            desk.issue(&desk.former, name, 0, true);
        }
        assert_eq!(desk.left(1), ["agent/edge1", "agent/ftp1", "user/maria", "user/old"]);
        desk.issue(&desk.new, "agent/FTP1", 10, true);
        desk.issue(&desk.new, "agent/edge1", 10, false);
        desk.issue(&desk.new, "user/maria", 20, true);
        assert_eq!(desk.left(20), ["agent/edge1", "user/old"]);
        // A user's certificate is of no use after its end, an agent's may be renewed for 90 days.
        assert_eq!(desk.left(91), ["agent/edge1"]);
        assert_eq!(desk.left(121), [""; 0]);
        let edge1_denied = |one: &Entry| one.identity == who("agent/edge1");
        let (old, new) = (desk.old.ca_hash(), desk.new.ca_hash());
        assert!(desk.book().left_on(old, new, at(91), edge1_denied).is_empty());
        // A certificate of the new one that is refused for ever brings nobody over.
        let new_denied = |one: &Entry| one.identity == who("user/maria") && one.issuer == new;
        assert!(
            desk.book()
                .left_on(old, new, at(20), new_denied)
                .iter()
                .any(|one| one.identity == who("user/maria"))
        );
    }

    #[test]
    fn tidying_up_changes_nobodys_standing() {
        let desk = Desk::open();
        desk.ledger.trusts(&[desk.old.ca_hash()], at(0));
        desk.ledger.trusts(&[desk.old.ca_hash()], at(1));
        for day in [0, 10, 20, 30] {
            desk.issue(&desk.old, "agent/ftp1", day, true);
            desk.issue(&desk.old, "user/maria", day, true);
        }
        desk.issue(&desk.old, "agent/ftp1", 40, false);
        assert_eq!(desk.book().entries.len(), 17);
        let (left, trusted) = (desk.left(41), desk.book().trusted);
        assert_eq!(trusted, Some((at(0), vec![desk.old.ca_hash()])), "said once");
        desk.ledger.tidy(at(41)).unwrap();
        assert_eq!((desk.left(41), desk.book().trusted), (left, trusted));
        assert_eq!(
            desk.book().entries.len(),
            8 + 2,
            "every one of a user, and an agent's last and the one under way"
        );
        desk.ledger.tidy(at(400)).unwrap();
        assert_eq!(desk.book().entries, []);
    }

    #[test]
    fn what_the_disk_did_not_take_is_entered_at_the_next_time() {
        let desk = Desk::open();
        let path = desk.ledger.path.clone();
        std::fs::create_dir(&path).unwrap();
        desk.issue(&desk.old, "agent/ftp1", 0, true);
        std::fs::remove_dir(&path).unwrap();
        assert!(desk.ledger.seen.lock().unwrap().is_empty());
        desk.issue(&desk.old, "agent/ftp1", 1, true);
        assert_eq!(desk.book().entries.len(), 2);
    }

    #[test]
    fn what_a_crash_tore_is_passed_over_and_counted() {
        let desk = Desk::open();
        desk.issue(&desk.old, "agent/ftp1", 0, true);
        let text = std::fs::read_to_string(&desk.ledger.path).unwrap();
        std::fs::write(&desk.ledger.path, format!("{text}\nfly\n{}", &text[..100])).unwrap();
        let book = desk.book();
        assert_eq!((book.entries.len(), book.unreadable), (2, 2));
        let again = Ledger::open(&desk.ledger.path);
        assert_eq!(again.seen.lock().unwrap().len(), 1);
        desk.issue(&desk.old, "agent/edge1", 0, true);
        assert_eq!(
            (desk.book().entries.len(), desk.book().unreadable),
            (4, 2),
            "the next line stands by itself"
        );
        assert_eq!(Book::read(Path::new("/nonexistent/issued.txt")).unwrap().entries, []);
    }
}

//! The daemon's files below the agent's data directory, and the only writer of them:
//!
//! ```text
//! rsyncd.conf        what holds for every module, and `&include modules`
//! modules/UID.conf   one module: a project's tree and who may read it
//! secrets/UID        its users' secrets
//! rsyncd.log, rsyncd.log.1, jail.json
//! ```
//!
//! Each module's file is replaced on its own by a rename, and rsync reads them when a connection starts: a change
//! costs the same however many there are, and touches no running transfer. What rsync is given is exactly what
//! would be written now: [`Files::verify`] makes each file anew from what it says and compares, so a line that
//! somebody added, such as a hook, is never obeyed. Does NOT know connections.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleet::id::ProjectUid;
use rsync::uri::{Password, USER_BYTES_MAX};
use zeroize::Zeroizing;

use super::{Export, ServeError};
use crate::guard::Guard;
use crate::rundir::{JailSpec, reserved};

/// Mode of the directories: the secrets are nobody else's.
const DIR_MODE: u32 = 0o700;
/// Mode of the log, which names hosts and users.
const FILE_MODE: u32 = 0o600;
/// Most bytes of a module's file that are read: its longest line names every user.
const MODULE_BYTES_MAX: u64 = 1 << 20;
/// Most users of one module.
pub const USERS_MAX: usize = 4_096;
/// Shortest secret, bytes: shorter ones are guessed.
pub const SECRET_BYTES_MIN: usize = 16;
/// rsync ends a transfer in which nothing moved for so long, seconds; a replica's own `--timeout` may be shorter.
const IO_TIMEOUT_S: u32 = 600;
/// Descriptors of one daemon process.
const OPEN_FILES: u64 = 256;
/// What the client's side of a pull (`rsync::argv`) sends to a daemon, found by reading what rsync 3.2.7 and 3.5.0
/// send for each option that a project may have. All else is refused: writing, deleting, following links, other
/// files' lists, logs. `--inplace` implies `--partial`; `dry-run`, `server`, `sender` and `log-format` are rsync's own
/// and in no wildcard. `d`, `R` and `list-only` are a listing's, with which a replica looks before it pulls.
const ACCEPTED: &str = "!r !d !R !list-only !l !p !t !g !o !H !c !S !u !I !x !W !z !inplace !partial !ignore-missing-args !numeric-ids \
                        !bwlimit !timeout !safe-links !info";
/// With extended attributes, where the agent's own file allows them.
const ACCEPTED_ATTRIBUTES: &str = " !A !X";

const MAIN: &str = "rsyncd.conf";
const MODULES: &str = "modules";
const SECRETS: &str = "secrets";
const LOG: &str = "rsyncd.log";
const JAIL: &str = "jail.json";
/// Ending of modules' files, which `&include` looks for.
const ENDING: &str = ".conf";
const HEADER: &str = "# Written by mirror-agent. With any other line in it nothing is served.\n";

/// Who a user is: the name without the day of its secret.
fn reader(user: &str) -> &str {
    user.rsplit_once('-').map_or(user, |(reader, _)| reader)
}

/// One module, as its file says it. Secrets are not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) project: ProjectUid,
    /// The project's name, for people who read the file.
    name: String,
    pub(super) path: PathBuf,
    /// Owner of the tree: rsync reads it as this user and group. None where the agent cannot change users.
    owner: Option<(u32, u32)>,
    /// Never empty: a module without users is open to everybody.
    pub(super) users: Vec<String>,
}

impl Module {
    /// Resolves an export on this host.
    pub(super) fn of(export: &Export, guard: &Guard, privileged: bool) -> Result<Self, ServeError> {
        let users: Vec<String> = export.users.iter().map(|(user, _)| user.clone()).collect();
        let distinct: std::collections::BTreeSet<&String> = users.iter().collect();
        if users.is_empty() || users.len() > USERS_MAX || distinct.len() < users.len() {
            return Err(ServeError::Users { count: users.len() });
        }
        if let Some(bad) = users.iter().find(|user| !is_user(user)) {
            return Err(ServeError::User(bad.clone()));
        }
        if export.users.iter().any(|(_, secret)| secret.expose().len() < SECRET_BYTES_MIN) {
            return Err(ServeError::ShortSecret);
        }
        if export.name.chars().any(char::is_control) {
            return Err(ServeError::Name(export.name.clone()));
        }
        // Made where it is missing: a tree that is exported before its first copy is empty, and nobody is sent to it.
        let path = guard.make(&export.destination)?;
        let metadata = fs::metadata(&path).map_err(io_error(&path))?;
        let owner = privileged.then(|| (metadata.uid(), metadata.gid()));
        let module = Self { project: export.project, name: export.name.clone(), path, owner, users };
        plain(&module.path).map(|()| module)
    }

    /// Whether who came as this user may read on, although the secret that proved it may be an older day's by now.
    pub(super) fn is_read_by(&self, user: &str) -> bool {
        self.users.iter().any(|named| reader(named) == reader(user))
    }

    fn text(&self, dir: &Path) -> String {
        let uid = self.project.0;
        let mut text = format!("{HEADER}# {}\n[{uid}]\npath = {}\n", self.name, self.path.display());
        if let Some((user, group)) = self.owner {
            let _ = writeln!(text, "uid = {user}\ngid = {group}");
        }
        let secrets = dir.join(SECRETS).join(uid.to_string());
        let _ = writeln!(text, "auth users = {}\nsecrets file = {}", self.users.join(","), secrets.display());
        text
    }

    /// The module that this text says, if it is exactly what would be written for it.
    fn read(text: &str, dir: &Path) -> Option<Self> {
        let rest = text.strip_prefix(HEADER)?.strip_prefix("# ")?;
        let (name, rest) = rest.split_once('\n')?;
        let value = |key: &str| {
            rest.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
                .filter(|v| !v.is_empty())
        };
        let owner = match (value("uid"), value("gid")) {
            (Some(user), Some(group)) => Some((user.parse().ok()?, group.parse().ok()?)),
            _ => None,
        };
        let module = Self {
            project: ProjectUid(rest.strip_prefix('[')?.split_once(']')?.0.parse().ok()?),
            name: name.to_owned(),
            path: value("path")?.into(),
            owner,
            users: value("auth users")?.split(',').map(str::to_owned).collect(),
        };
        let sound = module.users.iter().all(|user| is_user(user)) && plain(&module.path).is_ok();
        (sound && module.text(dir) == text).then_some(module)
    }
}

/// Letters, digits and `. _ -`: in rsyncd.conf an `@`, a colon or a blank means something else.
fn is_user(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=USER_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-')
}

/// Whether rsyncd.conf takes a path as it stands: `%NAME%` is replaced there, a backslash continues the line, blanks
/// at its ends are lost, and `/./` moves the chroot.
fn plain(path: &Path) -> Result<(), ServeError> {
    let odd = |text: &str| {
        text.contains(['%', '\\'])
            || text.chars().any(char::is_control)
            || text != text.trim()
            || text.contains("/./")
    };
    match path.to_str() {
        Some(text) if path.is_absolute() && !odd(text) => Ok(()),
        _ => Err(ServeError::Path(path.to_owned())),
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    main: String,
}

impl Files {
    /// Makes the directory with all that is in it but modules; what is served already stays.
    pub(super) fn open(dir: &Path, privileged: bool, acls_and_xattrs: bool) -> Result<Self, ServeError> {
        plain(dir)?;
        for dir in [dir.to_owned(), dir.join(MODULES), dir.join(SECRETS)] {
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(&dir).map_err(io_error(&dir))?;
        }
        let files = Self { dir: dir.to_owned(), main: main_text(dir, privileged, acls_and_xattrs) };
        replace(&files.main(), files.main.as_bytes())?;
        let log = files.log();
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(FILE_MODE)
            .open(&log)
            .map_err(io_error(&log))?;
        Ok(files)
    }

    pub(super) fn main(&self) -> PathBuf {
        self.dir.join(MAIN)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    pub(super) fn jail(&self) -> PathBuf {
        self.dir.join(JAIL)
    }

    /// Notes what a daemon process may touch: it reads these files and the roots, writes to the log, connects to
    /// nothing, executes nothing.
    pub(super) fn write_jail(&self, guard: &Guard, on: bool) -> Result<(), ServeError> {
        let roots = guard.roots().map(|(_, root)| root.path().to_owned());
        let jail = JailSpec {
            read_paths: std::iter::once(self.dir.clone()).chain(roots).collect(),
            write_paths: vec![self.log()],
            open_files: Some(OPEN_FILES),
            off: !on,
            ..JailSpec::default()
        };
        let text =
            serde_json::to_vec_pretty(&jail).map_err(io::Error::other).map_err(io_error(&self.jail()))?;
        replace(&self.jail(), &text)
    }

    /// Puts a module in place: its secrets first, so that a new user is never without one.
    pub(super) fn put(&self, module: &Module, users: &[(String, Password)]) -> Result<(), ServeError> {
        let mut secrets = Zeroizing::new(Vec::new());
        for (user, secret) in users {
            secrets.extend_from_slice(user.as_bytes());
            secrets.push(b':');
            secrets.extend_from_slice(secret.expose());
            secrets.push(b'\n');
        }
        replace(&self.secrets_of(module.project), &secrets)?;
        replace(&self.module_of(module.project), module.text(&self.dir).as_bytes())
    }

    /// Takes a module away; it is no error when there is none.
    pub(super) fn remove(&self, project: ProjectUid) -> Result<(), ServeError> {
        remove(&self.module_of(project))?;
        remove(&self.secrets_of(project))
    }

    /// All modules, and the files that are none.
    pub(super) fn modules(&self) -> Result<(BTreeMap<ProjectUid, Module>, Vec<PathBuf>), ServeError> {
        let dir = self.dir.join(MODULES);
        let (mut modules, mut foreign) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&dir).map_err(io_error(&dir))? {
            let path = entry.map_err(io_error(&dir))?.path();
            // A temporary file of a write that was cut off is not looked at, by rsync neither.
            if path.extension().is_none_or(|ending| ending != &ENDING[1..]) {
                continue;
            }
            let text = read_bounded(&path).unwrap_or_default();
            match Module::read(&text, &self.dir).filter(|module| self.module_of(module.project) == path) {
                Some(module) => _ = modules.insert(module.project, module),
                None => foreign.push(path),
            }
        }
        Ok((modules, foreign))
    }

    /// Removes files that are no modules.
    pub(super) fn remove_foreign(&self) -> Result<(), ServeError> {
        replace(&self.main(), self.main.as_bytes())?;
        self.modules()?.1.iter().try_for_each(|path| remove(path))
    }

    /// Whether a daemon may be started on these files: they are the agent's own to the last byte. Anything else,
    /// above all a program to execute (`pre-xfer exec` and its like), stops everything.
    pub(super) fn verify(&self) -> Result<(), ServeError> {
        if read_bounded(&self.main()).is_none_or(|text| text != self.main) {
            return Err(ServeError::Foreign(self.main()));
        }
        match self.modules()?.1.into_iter().next() {
            Some(path) => Err(ServeError::Foreign(path)),
            None => Ok(()),
        }
    }

    fn module_of(&self, project: ProjectUid) -> PathBuf {
        self.dir.join(MODULES).join(format!("{}{ENDING}", project.0))
    }

    fn secrets_of(&self, project: ProjectUid) -> PathBuf {
        self.dir.join(SECRETS).join(project.0.to_string())
    }
}

/// What holds for every module.
///
/// `munge symlinks = no` in both cases: replicas want links as they are, and nothing is ever written here. Links
/// that leave the tree are not followed either way: with chroot they lead nowhere, without it rsync (3.5.0, and
/// 3.2.7 with its distribution's security updates) refuses every path over one, and the options that follow links
/// are refused. `exclude` keeps half files from being served while the tree is being written.
fn main_text(dir: &Path, privileged: bool, acls_and_xattrs: bool) -> String {
    let chroot = if privileged { "yes" } else { "no" };
    let attributes = if acls_and_xattrs { ACCEPTED_ATTRIBUTES } else { "" };
    format!(
        "{HEADER}log file = {}\nuse chroot = {chroot}\nread only = yes\nlist = no\nnumeric ids = yes\n\
         munge symlinks = no\nreverse lookup = no\nproxy protocol = no\ntransfer logging = no\nstrict modes = yes\n\
         timeout = {IO_TIMEOUT_S}\ndont compress = *\nexclude = {} {}/\nrefuse options = * {ACCEPTED}{attributes}\n\
         &include {}\n",
        dir.join(LOG).display(),
        rsync::argv::DELAY_DIR,
        rsync::argv::PARTIAL_DIR,
        dir.join(MODULES).display(),
    )
}

fn read_bounded(path: &Path) -> Option<String> {
    use io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(MODULE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Replaces a file, mode 0600, by a rename; on disk when this returns. One that says the same already is left alone:
/// after each session the coordinator says everything again.
fn replace(path: &Path, content: &[u8]) -> Result<(), ServeError> {
    let same = fs::read(path).map(Zeroizing::new).is_ok_and(|present| present.as_slice() == content);
    if same { Ok(()) } else { reserved::write_atomic(path, content).map_err(io_error(path)) }
}

fn remove(path: &Path) -> Result<(), ServeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ServeError + use<> {
    let path = path.to_owned();
    |source| ServeError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> Module {
        Module {
            project: ProjectUid(7),
            name: "debian".to_owned(),
            path: "/srv/mirror/debian".into(),
            owner: Some((33, 34)),
            users: vec!["edge1".to_owned(), "edge2".to_owned()],
        }
    }

    #[test]
    fn a_module_is_read_as_it_was_written() {
        let dir = Path::new("/var/lib/mirror-agent/serve");
        for module in [module(), Module { owner: None, ..module() }] {
            assert_eq!(Module::read(&module.text(dir), dir), Some(module));
        }
    }

    #[test]
    fn a_line_more_makes_a_module_foreign() {
        let dir = Path::new("/d");
        let good = module().text(dir);
        for line in [
            "pre-xfer exec = /bin/sh",
            "POSTXFER EXEC = /bin/sh",
            "early exec = x",
            "name converter = x",
            "read only = no",
            "uid = 0",
            "[8]",
            "&include /tmp",
            "path = /",
            " ",
        ] {
            assert_eq!(Module::read(&format!("{good}{line}\n"), dir), None, "{line}");
            assert_eq!(
                Module::read(&good.replace("uid = 33\n", &format!("{line}\nuid = 33\n")), dir),
                None,
                "{line}"
            );
        }
        for (from, to) in [
            ("auth users = edge1,edge2\n", ""),
            ("edge1,edge2", ""),
            ("edge1,edge2", "edge1,@all"),
            ("edge1,edge2", "edge1:rw,edge2"),
            ("secrets/7", "secrets/8"),
            ("/srv/mirror/debian", "/srv/./mirror"),
            ("/srv/mirror/debian", "/srv/%RSYNC_USER_NAME%"),
        ] {
            assert_eq!(Module::read(&good.replace(from, to), dir), None, "{from} -> {to}");
        }
    }

    #[test]
    fn files_that_are_not_the_agents_own_stop_everything() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(&dir.path().join("serve"), true, false).unwrap();
        files.put(&module(), &[]).unwrap();
        files.verify().unwrap();
        let foreign = files.dir.join(MODULES).join("9.conf");
        fs::write(&foreign, module().text(&files.dir)).unwrap();
        assert!(
            matches!(files.verify(), Err(ServeError::Foreign(path)) if path == foreign),
            "another's number"
        );
        files.remove_foreign().unwrap();
        files.verify().unwrap();
        fs::write(files.main(), format!("{}post-xfer exec = /bin/true\n", files.main)).unwrap();
        assert!(matches!(files.verify(), Err(ServeError::Foreign(path)) if path == files.main()));
        files.remove_foreign().unwrap();
        files.verify().unwrap();
        assert_eq!(files.modules().unwrap().0.into_keys().collect::<Vec<_>>(), [ProjectUid(7)]);
    }

    #[test]
    fn the_config_says_what_protects() {
        let text = main_text(Path::new("/d"), true, false);
        for line in [
            "read only = yes",
            "list = no",
            "use chroot = yes",
            "refuse options = * !r !d",
            "strict modes = yes",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("exec") && !text.contains("!A") && !text.contains("delete"));
        assert!(main_text(Path::new("/d"), false, true).contains("use chroot = no"));
    }
}

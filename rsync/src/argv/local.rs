//! The command lines of a copy within one host: a tree that is moved from one directory to another, and the proof that
//! both are the same. Nothing is connected to, and the copy is verbatim: no filter, no mode and no link of the tree is
//! changed on the way. Does NOT open either directory.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::{
    Args, Command, HOME, MAX_ALLOC_DEFAULT, Origin, PARTIAL_DIR, PlanFault, USER, is_plain_absolute,
};
use crate::filter::{Action, Rule};
use crate::options::{Flag, Options};
use crate::progress::{INFO, OUT_FORMAT};
use crate::version::RsyncFeatures;

/// What a run of a local copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPass {
    /// Copies what differs in size or time, and deletes what the tree does not have.
    Copy,
    /// The same, by content: files that look alike are read and compared.
    Repair,
    /// Compares by content and changes nothing: whatever it lists differs.
    Verify,
}

/// Everything about one run.
#[derive(Debug, Clone)]
pub struct LocalCopy {
    /// Absolute path of rsync.
    pub program: PathBuf,
    /// What that rsync can do.
    pub features: RsyncFeatures,
    /// The tree: an absolute path.
    pub from: PathBuf,
    /// Where it is copied to: an absolute path, not in `from` nor around it.
    pub to: PathBuf,
    /// The project's options: whether its tree has ACLs, extended attributes and holes.
    pub options: Options,
    /// The agent's own file allows `--acls` and `--xattrs`.
    pub acls_and_xattrs: bool,
    /// What it is for.
    pub pass: LocalPass,
}

impl LocalCopy {
    /// Makes the command line.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn build(&self) -> Result<Command, Vec<PlanFault>> {
        let nested = self.from.starts_with(&self.to) || self.to.starts_with(&self.from);
        let plain = is_plain_absolute(&self.from) && is_plain_absolute(&self.to);
        let checks =
            [(!self.program.is_absolute(), PlanFault::Program), (nested || !plain, PlanFault::Destination)];
        let not_allowed = self.options.needs_opt_in().into_iter().filter(|_| !self.acls_and_xattrs);
        let faults: Vec<PlanFault> = checks
            .into_iter()
            .filter_map(|(bad, fault)| bad.then_some(fault))
            .chain(not_allowed.map(|flag| PlanFault::NeedsOptIn(flag.word())))
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut args = Args::default();
        self.push_flags(&mut args);
        args.push("--", Origin::Forced);
        args.push(directory(&self.from), Origin::Forced);
        args.push(directory(&self.to), Origin::Forced);
        let env =
            vec![("LC_ALL", "C".into()), ("TZ", "UTC".into()), ("HOME", HOME.into()), ("USER", USER.into())];
        Ok(Command { program: self.program.clone(), args: args.0, env, password: false })
    }

    fn push_flags(&self, args: &mut Args) {
        use Flag as F;
        // Owners and groups as far as the agent may give them; what it may not is no difference to rsync either.
        for flag in
            [F::Recursive, F::Links, F::Perms, F::Times, F::Owner, F::Group, F::HardLinks, F::NumericIds]
        {
            args.push(flag.word(), Origin::Forced);
        }
        for flag in [F::Acls, F::Xattrs, F::Sparse].into_iter().filter(|flag| self.options.has(*flag)) {
            args.push(flag.word(), Origin::Project);
        }
        args.push("--no-D", Origin::Forced);
        if self.features.drop_devices {
            args.push("--drop-D", Origin::Forced);
        }
        args.push(F::WholeFile.word(), Origin::Forced);
        // What an interrupted pull left is no part of the tree. rsync leaves out the partial directory by itself.
        let rule = Rule::new(Action::Exclude, super::DELAY_DIR).expect("the constant is a valid pattern");
        args.push(format!("--filter={rule}"), Origin::Forced);
        args.push(format!("--partial-dir={PARTIAL_DIR}"), Origin::Forced);
        args.push("--delete-during", Origin::Forced);
        match self.pass {
            LocalPass::Copy => {}
            LocalPass::Repair => args.push(F::Checksum.word(), Origin::Forced),
            LocalPass::Verify => {
                args.push(F::Checksum.word(), Origin::Forced);
                args.push("--dry-run", Origin::Forced);
            }
        }
        args.push(format!("--max-alloc={MAX_ALLOC_DEFAULT}"), Origin::Forced);
        for word in ["--no-h", "--outbuf=L"] {
            args.push(word, Origin::Forced);
        }
        args.push(format!("--info={INFO}"), Origin::Forced);
        args.push(format!("--out-format={OUT_FORMAT}"), Origin::Forced);
    }
}

/// With a slash at its end: what is in it, not the directory as an entry. An absolute path begins with a slash, so no
/// colon in it can be taken for a host.
fn directory(path: &Path) -> OsString {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(b'/');
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(pass: LocalPass, words: &[&str]) -> LocalCopy {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        LocalCopy {
            program: "/usr/bin/rsync".into(),
            features: RsyncFeatures::default(),
            from: "/srv/a1/debian".into(),
            to: "/srv/a2/debian".into(),
            options: Options::parse_words(&words).unwrap(),
            acls_and_xattrs: true,
            pass,
        }
    }

    fn words(copy: &LocalCopy) -> Vec<String> {
        copy.build().unwrap().argv().into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn a_copy_is_verbatim_and_a_proof_changes_nothing() {
        let plain = words(&copy(LocalPass::Copy, &["--exclude=/iso/", "-z", "--bwlimit=5"]));
        assert_eq!(plain[plain.len() - 3..], ["--", "/srv/a1/debian/", "/srv/a2/debian/"]);
        for word in
            ["--hard-links", "--numeric-ids", "--owner", "--delete-during", "--partial-dir=.rsync-partial"]
        {
            assert!(plain.iter().any(|one| one == word), "{word}: {plain:?}");
        }
        for word in
            ["--dry-run", "--checksum", "--sparse", "--acls", "--safe-links", "--compress", "--bwlimit=5"]
        {
            assert!(!plain.iter().any(|one| one == word), "{word}: {plain:?}");
        }
        assert!(!plain.iter().any(|word| word.contains("iso") || word.starts_with("--chmod")), "{plain:?}");
        let repair = words(&copy(LocalPass::Repair, &["--sparse", "--acls"]));
        assert!(["--checksum", "--sparse", "--acls"].iter().all(|word| repair.iter().any(|one| one == word)));
        let verify = words(&copy(LocalPass::Verify, &[]));
        assert!(["--checksum", "--dry-run"].iter().all(|word| verify.iter().any(|one| one == word)));
    }

    #[test]
    fn places_inside_each_other_are_refused() {
        for (from, to) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a"), ("a", "/b"), ("/a", "/b/../c")] {
            let bad = LocalCopy { from: from.into(), to: to.into(), ..copy(LocalPass::Copy, &[]) };
            assert_eq!(bad.build(), Err(vec![PlanFault::Destination]), "{from} {to}");
        }
        let denied = LocalCopy { acls_and_xattrs: false, ..copy(LocalPass::Copy, &["--xattrs"]) };
        assert!(matches!(denied.build().unwrap_err()[..], [PlanFault::NeedsOptIn(_)]));
    }
}

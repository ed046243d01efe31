//! The command lines of what takes single names: a listing ([`Purpose::List`](super::Purpose::List)) of a directory
//! without what is below it, and of names below it, over one connection; and the fetch of one file
//! ([`Purpose::Fetch`](super::Purpose::Fetch)). Does NOT read what comes back: [`crate::listing`] does for listings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::{Args, Origin, Plan, Purpose};
use crate::options::Flag;

/// Where a listing would be copied to, as rsync wants such a name behind several sources. It never looks there.
const NOWHERE: &str = "/nonexistent/";

impl Plan {
    /// Names that a daemon would take for patterns or for something outside of the directory.
    pub(super) fn bad_names(&self) -> impl Iterator<Item = &String> {
        let names = match &self.purpose {
            Purpose::List(names) => names.as_slice(),
            Purpose::Fetch { name, .. } => std::slice::from_ref(name),
            Purpose::Pull | Purpose::DryRun | Purpose::Reclaim => &[],
        };
        let part_ok = |part: &str| !matches!(part, "" | "." | "..");
        let char_ok = |c: char| !c.is_control() && !matches!(c, '*' | '?' | '[' | '\\');
        names.iter().filter(move |name| !(name.split('/').all(part_ok) && name.chars().all(char_ok)))
    }

    pub(super) fn push_list_flags(&self, names: &[String], args: &mut Args) {
        args.push("--dirs", Origin::Forced);
        args.push("--list-only", Origin::Forced);
        // Else a name would come back as its last part.
        if !names.is_empty() {
            args.push("--relative", Origin::Forced);
        }
        // A listing is a few small messages, each of which would wait for the acknowledgement of the one before: 40 ms.
        args.push("--sockopts=TCP_NODELAY", Origin::Forced);
        for flag in [Flag::Ipv4, Flag::Ipv6].into_iter().filter(|flag| self.options.has(*flag)) {
            args.push(flag.word(), Origin::Project);
        }
    }

    /// No directory is walked and no link is made: nothing but one plain file can come.
    pub(super) fn push_fetch_flags(&self, max_bytes: u64, args: &mut Args) {
        args.push("--no-D", Origin::Forced);
        args.push("--whole-file", Origin::Forced);
        args.push(format!("--max-size={max_bytes}"), Origin::Forced);
        args.push("--sockopts=TCP_NODELAY", Origin::Forced);
        for flag in [Flag::Ipv4, Flag::Ipv6].into_iter().filter(|flag| self.options.has(*flag)) {
            args.push(flag.word(), Origin::Project);
        }
    }

    pub(super) fn push_fetch_operands(&self, name: &str, args: &mut Args) {
        args.push("--", Origin::Forced);
        let source = [&self.source.operand().into_vec(), name.as_bytes()].concat();
        args.push(OsString::from_vec(source), Origin::Project);
        let mut destination = self.destination.clone().into_os_string().into_vec();
        destination.push(b'/');
        args.push(OsString::from_vec(destination), Origin::Forced);
    }

    pub(super) fn push_list_operands(&self, names: &[String], args: &mut Args) {
        args.push("--", Origin::Forced);
        // With --relative a name is what follows the `/./`.
        let dot = if names.is_empty() { "" } else { "./" };
        for name in std::iter::once("").chain(names.iter().map(String::as_str)) {
            let operand = [&self.source.operand().into_vec(), dot.as_bytes(), name.as_bytes()].concat();
            args.push(OsString::from_vec(operand), Origin::Project);
        }
        args.push(NOWHERE, Origin::Forced);
    }
}

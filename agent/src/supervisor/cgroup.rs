//! A cgroup v2 of the run's own, where the agent's cgroup is delegated: nothing that the program starts can
//! leave it, so `cgroup.kill` ends even what made itself a session of its own. Without one, process group and
//! session do.

use std::fs;
use std::path::{Path, PathBuf};

/// The agent's own cgroup v2 directory, if a run may get one below it.
///
/// # Errors
/// Why not, as a text for people: no cgroup v2, the host's root cgroup (which nobody delegated), or no
/// permission.
fn own() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let memberships = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let directory = locate(&mounts, &memberships).ok_or("cgroup v2 is not mounted")?;
    // Every cgroup has this file but the host's root; the root of a cgroup namespace has it.
    if !directory.join("cgroup.type").exists() {
        return Err("the agent runs in the host's root cgroup, which is not delegated".to_owned());
    }
    Ok(directory)
}

/// Makes the run's cgroup, named after the supervisor. The program joins it before it is executed.
pub(super) fn create(supervisor: u32) -> Result<PathBuf, String> {
    let directory = own()?.join(format!("mirror-run-{supervisor}"));
    match fs::create_dir(&directory) {
        // Left by an earlier supervisor of the same number; empty, or its members are being killed.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(directory),
        Err(error) => Err(format!("cannot create {}: {error}", directory.display())),
        Ok(()) => Ok(directory),
    }
}

/// Why runs on this host get no cgroup of their own, none when they do. Tries it out.
pub(crate) fn gap() -> Option<String> {
    match create(std::process::id()) {
        Err(reason) => {
            Some(format!("no cgroup per run ({reason}): processes are ended by group and session"))
        }
        Ok(directory) => {
            let can_kill = directory.join("cgroup.kill").exists();
            crate::rundir::remove_cgroup(&directory);
            (!can_kill).then(|| {
                "cgroup.kill is missing (Linux 5.14): processes are ended by group and session".into()
            })
        }
    }
}

/// From mountinfo (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)) to a directory. The mount may
/// show only a part of the hierarchy: its root is taken off the membership.
fn locate(mounts: &str, memberships: &str) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (fields, file_system) = line.split_once(" - ")?;
        if !file_system.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_in_unified_hybrid_and_nested_mounts() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let memberships = "0::/system.slice/mirror-agent.service\n";
        let found = locate(unified, memberships).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/system.slice/mirror-agent.service"));

        let hybrid = "31 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      41 25 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = locate(hybrid, "8:pids:/x\n0::/a\n").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified/a"));

        let nested = "30 23 0:26 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(locate(nested, "0::/box/agent\n").unwrap(), Path::new("/sys/fs/cgroup/agent"));
        assert_eq!(locate(nested, "0::/elsewhere\n"), None);
        assert_eq!(locate("", memberships), None);
        assert_eq!(locate(unified, "8:pids:/x\n"), None);
    }
}

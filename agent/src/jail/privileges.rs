//! What an agent that runs as root takes from its programs: every capability but those that a copy of other users'
//! files needs. Unprivileged agents have none to take.

use std::io;

use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
};

/// For trees whose files belong to other users: to give them away, to reach and change them, and to keep their
/// set-group-ID bits, which the kernel else takes off without a word where root is not in the group.
const FOR_TREES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);
/// For a daemon that locks itself into a tree and becomes another user before it serves.
const FOR_DAEMONS: CapabilitySet =
    FOR_TREES.union(CapabilitySet::SYS_CHROOT).union(CapabilitySet::SETUID).union(CapabilitySet::SETGID);
/// Bits of a set: capabilities that this kernel does not know are refused and end the walk.
const CAPABILITIES_MAX: u32 = 64;

/// Whose privileges a program keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// What a copy needs.
    Trees,
    /// What a daemon needs to give up the rest by itself.
    Daemon,
}

/// Lowers what the program that this process becomes may have. `no_new_privs` keeps it so.
///
/// # Errors
/// The kernel's refusal, except where this process may not lower anything: [`gap`] tells that.
pub(super) fn lower(keep: Keep) -> io::Result<()> {
    let kept = match keep {
        Keep::Trees => FOR_TREES,
        Keep::Daemon => FOR_DAEMONS,
    };
    for bit in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => match remove_capability_from_bounding_set(one) {
                // Nobody but root has any to lower, and in a container root may have lost the right to.
                Err(Errno::PERM) => return Ok(()),
                removed => removed?,
            },
            Ok(_) => {}
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What of this the host cannot provide, as texts for people.
pub(super) fn gaps() -> Vec<String> {
    let may_lower = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETPCAP));
    gaps_of(geteuid().is_root(), may_lower)
}

fn gaps_of(is_root: bool, may_lower: bool) -> Vec<String> {
    if !is_root {
        return Vec::new();
    }
    let limit = "the agent runs as root, for whom the kernel limits no number of processes: use TasksMax=";
    let lower = "root may not lower capabilities here (no CAP_SETPCAP): programs keep all that the agent has";
    let gaps = [(true, limit), (!may_lower, lower)];
    gaps.into_iter().filter(|(gap, _)| *gap).map(|(_, text)| text.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_lacks_anything_here() {
        assert_eq!(gaps_of(false, false), Vec::<String>::new());
        assert_eq!((gaps_of(true, true).len(), gaps_of(true, false).len()), (1, 2));
    }
}

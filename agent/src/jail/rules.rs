//! The Landlock rules of a jail, and which of them this kernel cannot enforce.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::loader;
use crate::rundir::JailSpec;

/// The file rights known when this was written; newer ones are added on purpose, with a test.
const FILES: ABI = ABI::V5;
/// The network rights, likewise.
const NETWORK: ABI = ABI::V4;
/// The scopes, likewise.
const SCOPES: ABI = ABI::V6;

/// Always readable, where present: programs and libraries, ...
const SYSTEM_TREES: [&str; 5] = ["/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.conf.d"];
/// ... and what libc reads to start, to resolve names and to print times and owners. Nothing of it is secret.
const SYSTEM_FILES: [&str; 16] = [
    "/dev/null",
    "/dev/urandom",
    "/dev/zero",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
];
/// Writable besides the destination.
const SINK: &str = "/dev/null";
/// A cut DNS answer is asked for again over TCP.
const DNS_PORT: u16 = 53;

/// Confines this process, for ever and for all it executes, to what `jail` and `program` need; as far as the
/// kernel can.
///
/// # Errors
/// All paths of the specification that are missing or unreadable, or the kernel's refusal.
pub(super) fn confine(jail: &JailSpec, program: &Path) -> Result<(), Vec<String>> {
    let mut wanted: Vec<(PathBuf, BitFlags<AccessFs>)> = Vec::new();
    let mut faults = Vec::new();
    wanted.extend(jail.read_paths.iter().map(|path| (path.clone(), readable())));
    wanted.extend(jail.write_paths.iter().map(|path| (path.clone(), writable())));
    for program in std::iter::once(program).chain(jail.exec_paths.iter().map(PathBuf::as_path)) {
        match loader::executed_files(program) {
            Ok(files) => wanted.extend(files.into_iter().map(|file| (file, executable()))),
            Err(error) => faults.push(format!("cannot examine {}: {error}", program.display())),
        }
    }
    let mut rules = Vec::new();
    for (path, access) in wanted {
        match rule(&path, &jail.roots, access) {
            Ok(rule) => rules.push(rule),
            Err(error) => faults.push(format!("cannot open {}: {error}", path.display())),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    enforce(rules, &jail.connect_ports).map_err(|error| vec![format!("Landlock refused: {error}")])
}

/// What of a jail this kernel cannot enforce, as texts for people; empty when it can enforce all of it.
pub(super) fn gaps() -> Vec<String> {
    gaps_of(|need| {
        let ruleset = match need {
            Need::Files(abi) => strict().handle_access(AccessFs::from_all(abi)),
            Need::Ports => strict().handle_access(AccessNet::from_all(NETWORK)),
            Need::Scopes => strict().scope(Scope::from_all(SCOPES)),
        };
        ruleset.is_ok()
    })
}

/// Something that a kernel enforces, or does not know.
#[derive(Clone, Copy, Debug)]
enum Need {
    Files(ABI),
    Ports,
    Scopes,
}

fn gaps_of(can: impl Fn(Need) -> bool) -> Vec<String> {
    let needs = [
        (
            Need::Files(ABI::V1),
            "Landlock is missing or off (Linux 5.13): programs may touch whatever the agent's user may",
        ),
        (
            Need::Files(ABI::V2),
            "Landlock before Linux 5.19: files are copied, not moved, between directories of the destination",
        ),
        (
            Need::Files(ABI::V3),
            "Landlock before Linux 6.2: existing files outside of the destination can be truncated",
        ),
        (Need::Ports, "Landlock before Linux 6.7: TCP ports are not restricted"),
        (Need::Files(ABI::V5), "Landlock before Linux 6.10: device ioctls are not restricted"),
        (Need::Scopes, "Landlock before Linux 6.12: signals and abstract sockets are not restricted"),
    ];
    let missing: Vec<String> =
        needs.iter().filter(|(need, _)| !can(*need)).map(|(_, text)| (*text).to_owned()).collect();
    // Without Landlock the others say nothing new.
    if can(needs[0].0) { missing } else { missing[..1].to_vec() }
}

fn strict() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

fn readable() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

fn executable() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::Execute
}

/// Everything but execution, devices, sockets and fifos: a mirror holds files, directories and links.
fn writable() -> BitFlags<AccessFs> {
    let never = AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeSock
        | AccessFs::MakeFifo
        | AccessFs::IoctlDev;
    AccessFs::from_all(FILES) & !never
}

/// A rule for one path that must exist. A file takes only the rights that files have. The rule holds for what is opened
/// here, not for its name: a name that leads elsewhere afterwards leads out of the jail.
fn rule(path: &Path, roots: &[PathBuf], access: BitFlags<AccessFs>) -> io::Result<PathBeneath<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let below = roots.iter().find_map(|root| Some((root, path.strip_prefix(root).ok()?)));
    let fd = match below.filter(|(_, rest)| !rest.as_os_str().is_empty()) {
        Some((root, rest)) => {
            let root = rustix::fs::open(root, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(root, rest, flags, Mode::empty(), resolve)?
        }
        None => rustix::fs::open(path, flags, Mode::empty())?,
    };
    let is_dir = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode).is_dir();
    let access = if is_dir { access } else { access & AccessFs::from_file(FILES) };
    Ok(PathBeneath::new(fd, access))
}

fn enforce(rules: Vec<PathBeneath<OwnedFd>>, ports: &[u16]) -> Result<(), RulesetError> {
    let ports = ports.iter().chain(ports.first().map(|_| &DNS_PORT));
    let system = SYSTEM_TREES.iter().chain(&SYSTEM_FILES);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(FILES))?
        .handle_access(AccessNet::from_all(NETWORK))?
        .scope(Scope::from_all(SCOPES))?
        .create()?
        .add_rules(path_beneath_rules(system, readable()))?
        .add_rules(path_beneath_rules([SINK], readable() | AccessFs::WriteFile | AccessFs::Truncate))?
        .add_rules(rules.into_iter().map(Ok::<_, RulesetError>))?
        .add_rules(ports.map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))))?
        .restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_paths_are_all_named_and_nothing_is_confined() {
        let jail = JailSpec {
            read_paths: vec!["/absent/read".into()],
            write_paths: vec!["/absent/write".into()],
            exec_paths: vec!["/absent/exec".into()],
            ..JailSpec::default()
        };
        let faults = confine(&jail, Path::new("/absent/program")).unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn each_older_kernel_is_told_what_it_lacks() {
        let since = |need| match need {
            Need::Files(abi) => abi as i32,
            Need::Ports => NETWORK as i32,
            Need::Scopes => SCOPES as i32,
        };
        let lacks: Vec<usize> = (0..=7).map(|abi| gaps_of(|need| since(need) <= abi).len()).collect();
        assert_eq!(lacks, [1, 5, 4, 3, 2, 1, 0, 0]);
        assert!(gaps_of(|need| since(need) <= 0)[0].contains("missing or off"));
        assert!(gaps_of(|need| since(need) <= 5)[0].contains("6.12"));
    }

    #[test]
    fn the_destination_takes_no_devices_and_no_execution() {
        assert!(!writable().intersects(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock));
        assert!(writable().contains(AccessFs::Refer | AccessFs::Truncate | AccessFs::RemoveDir));
    }
}

//! The tables of [`super::diagnose`]: messages of rsync with the codes they come with, and codes alone.

use super::{Class, Fault, contains};

#[derive(Debug, Clone, Copy)]
pub(super) struct Meaning {
    pub(super) class: Class,
    pub(super) fault: Option<Fault>,
    pub(super) advice: &'static str,
}

pub(super) const fn meaning(class: Class, fault: Fault, advice: &'static str) -> Meaning {
    Meaning { class, fault: Some(fault), advice }
}

/// A message of rsync and what it means together with one of these codes.
pub(super) struct MessageRule {
    codes: &'static [i32],
    pub(super) needle: &'static str,
    pub(super) meaning: Meaning,
}

impl MessageRule {
    pub(super) fn matches<'a>(&self, code: i32, lines: &[&'a [u8]]) -> Option<&'a [u8]> {
        let holds = |line: &&&[u8]| contains(line, self.needle);
        self.codes.contains(&code).then(|| lines.iter().find(holds)).flatten().copied()
    }
}

const fn rule(codes: &'static [i32], needle: &'static str, meaning: Meaning) -> MessageRule {
    MessageRule { codes, needle, meaning }
}

const DELETE_LIMIT: Meaning = meaning(
    Class::MaxDelete,
    Fault::Open,
    "look at what the upstream removed; approve the run if it is meant, or wait for the next fire",
);
const DISK_FULL: Meaning = meaning(
    Class::DiskFull,
    Fault::Fleet,
    "free space on the destination's volume; a run with --reclaim first removes what the upstream no longer has",
);
pub(super) const BROKEN_PROTOCOL: Meaning = meaning(
    Class::Protocol,
    Fault::Upstream,
    "check host and port: what answers there is no rsync daemon, or a broken one",
);
const REFUSED: Meaning =
    meaning(Class::Refused, Fault::Upstream, "ask the upstream's administrators to admit this host");
pub(super) const PARTIAL: Meaning =
    meaning(Class::Partial, Fault::Upstream, "all other files were copied; tell the upstream if it stays");

/// In order: the first that matches counts. The delete limit comes first because 23 and 24 hide it.
pub(super) const RULES: &[MessageRule] = &[
    rule(&[23, 24, 25], "Deletions stopped due to --max-delete limit", DELETE_LIMIT),
    rule(
        &[5],
        "@ERROR: auth failed",
        meaning(Class::Auth, Fault::Yours, "check the upstream's user and password"),
    ),
    rule(
        &[5],
        "@ERROR: Unknown module",
        meaning(
            Class::NotFound,
            Fault::Open,
            "check the module's name; the upstream may have renamed it, or hides it from this host",
        ),
    ),
    rule(
        &[5],
        "@ERROR: max connections",
        meaning(Class::Busy, Fault::Upstream, "nothing to do: it is asked again later"),
    ),
    rule(&[5], "@ERROR: access denied", REFUSED),
    rule(
        &[5],
        "@ERROR: chdir failed",
        meaning(
            Class::Refused,
            Fault::Upstream,
            "the module's directory is missing at the upstream; tell its administrators",
        ),
    ),
    rule(&[5], "didn't get server startup line", BROKEN_PROTOCOL),
    rule(&[5], "rather than greeting", BROKEN_PROTOCOL),
    rule(&[5], "did not see server greeting", BROKEN_PROTOCOL),
    rule(&[5], "@ERROR", meaning(Class::Refused, Fault::Upstream, "read the upstream's message")),
    rule(
        &[1],
        "ERROR: module is write only",
        meaning(Class::Refused, Fault::Yours, "choose a module that can be read"),
    ),
    rule(
        &[1],
        "ERROR: module is read only",
        meaning(Class::Refused, Fault::Yours, "choose a module that can be written"),
    ),
    rule(
        &[10],
        "The server is configured to refuse",
        meaning(Class::Refused, Fault::Yours, "take the option it names out of the project"),
    ),
    rule(&[10], "pre-xfer exec returned failure", REFUSED),
    rule(
        &[10],
        "getaddrinfo: ",
        meaning(Class::Network, Fault::Open, "check the upstream's host name and this host's name servers"),
    ),
    rule(
        &[10],
        "Connection refused (111)",
        meaning(
            Class::Network,
            Fault::Upstream,
            "no rsync daemon listens there; check host and port if it stays",
        ),
    ),
    rule(&[11, 12, 23], "No space left on device (28)", DISK_FULL),
    rule(&[11, 12, 23], "Disk quota exceeded (122)", DISK_FULL),
    rule(
        &[3],
        "untrusted user",
        meaning(
            Class::Config,
            Fault::Fleet,
            "a symbolic link in the destination's path belongs to another user",
        ),
    ),
    rule(
        &[22],
        "--max-alloc",
        meaning(Class::Internal, Fault::Open, "the tree needs more memory than the agent grants rsync"),
    ),
    rule(
        &[23],
        "[sender] change_dir ",
        meaning(
            Class::NotFound,
            Fault::Open,
            "check the path behind the module; the upstream may have moved it",
        ),
    ),
    rule(
        &[23],
        "[sender] link_stat ",
        meaning(
            Class::NotFound,
            Fault::Open,
            "check the path behind the module; the upstream may have moved it",
        ),
    ),
    rule(&[23], "IO error encountered -- skipping file deletion", PARTIAL),
    rule(&[23], "[sender] ", PARTIAL),
    rule(
        &[23],
        "[receiver] ",
        meaning(
            Class::Partial,
            Fault::Fleet,
            "check permissions and disk of the destination; all other files were copied",
        ),
    ),
    rule(
        &[23],
        "[generator] ",
        meaning(
            Class::Partial,
            Fault::Fleet,
            "check permissions and disk of the destination; all other files were copied",
        ),
    ),
    // rsync 3.5.0 exits with 0 when its own directories lie outside --confine-root, and copies nothing.
    rule(
        &[0, 23, 24],
        "discarding completed file",
        meaning(
            Class::Partial,
            Fault::Fleet,
            "the destination's path holds a symbolic link or cannot be written",
        ),
    ),
];

/// The codes of rsync's `errcode.h`, and those a shell or the jail gives.
pub(super) fn by_code(code: i32) -> Meaning {
    let config =
        meaning(Class::Config, Fault::Fleet, "check the options against the version of rsync on the agent");
    let broke = meaning(Class::Network, Fault::Network, "nothing to do: it is tried again");
    let internal = meaning(Class::Internal, Fault::Open, "rsync failed in itself; it is tried again");
    let timeout =
        meaning(Class::Timeout, Fault::Open, "the upstream or the way to it is slow; it is tried again");
    match code {
        0 => Meaning { class: Class::Ok, fault: None, advice: "" },
        1 | 3 | 4 => config,
        2 => meaning(Class::Protocol, Fault::Open, "the two versions of rsync do not understand each other"),
        5 => BROKEN_PROTOCOL,
        10 | 12 => broke,
        11 => meaning(Class::LocalIo, Fault::Fleet, "check the destination's file system and disk"),
        19 | 20 => {
            Meaning { class: Class::Cancelled, fault: None, advice: "nothing to do: it was ended on request" }
        }
        23 => PARTIAL,
        24 => Meaning {
            class: Class::OkVanished,
            fault: None,
            advice: "nothing to do: the upstream changed while it was copied; the next run catches up",
        },
        25 => DELETE_LIMIT,
        30 => timeout,
        35 => meaning(Class::Timeout, Fault::Network, "the upstream does not answer; it is tried again"),
        126 | 127 => {
            meaning(Class::Config, Fault::Fleet, "the agent could not execute rsync; check its path")
        }
        _ => internal,
    }
}

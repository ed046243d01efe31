//! Torture: every file of a used store flipped, zeroed, cut, emptied, replaced and removed, at positions that follow
//! from a seed. `TORTURE_SEED=n` repeats a run, `TORTURE_SECONDS=n` goes on for that long.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "the test is timed, and tells its seed")]

mod store_common;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use store_common::damage::{Originals, Verdict, cut, files_below, flip_bit, overwrite, zero};

/// The revision that the damaged stores had got to.
const NEWEST: u64 = 700;
/// The revision of their backup, where they have one.
const BACKUP: u64 = 600;
/// Cases of one run, where no time is told.
const CASES: u64 = 240;
/// What is zeroed or overwritten at once.
const PAGE: u64 = 4_096;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    FlipBit,
    FlipMany,
    ZeroPage,
    Garbage,
    Cut,
    Grow,
    Empty,
    Remove,
    Foreign,
    Directory,
}

const HARMS: [Harm; 10] = [
    Harm::FlipBit,
    Harm::FlipMany,
    Harm::ZeroPage,
    Harm::Garbage,
    Harm::Cut,
    Harm::Grow,
    Harm::Empty,
    Harm::Remove,
    Harm::Foreign,
    Harm::Directory,
];

impl Harm {
    fn apply(self, path: &Path, random: &mut StdRng) -> String {
        let length = fs::metadata(path).unwrap().len();
        let at = if length == 0 { 0 } else { random.random_range(0..length) };
        match self {
            Self::FlipBit | Self::FlipMany if length == 0 => {}
            Self::FlipBit => flip_bit(path, at, random.random_range(0..8)),
            Self::FlipMany => {
                for _ in 0..8 {
                    flip_bit(path, random.random_range(0..length), random.random_range(0..8));
                }
            }
            Self::ZeroPage => zero(path, at / PAGE * PAGE, usize::try_from(PAGE).unwrap()),
            Self::Garbage => overwrite(path, at, &random.random::<[u8; 512]>()),
            Self::Cut => cut(path, length - at),
            Self::Grow => {
                let mut bytes = fs::read(path).unwrap();
                bytes.extend(random.random::<[u8; 1_024]>());
                fs::write(path, bytes).unwrap();
            }
            Self::Empty => cut(path, u64::MAX),
            Self::Remove => fs::remove_file(path).unwrap(),
            Self::Foreign => {
                fs::write(path, "Dear diary, this is no part of a store.\n".repeat(100)).unwrap()
            }
            Self::Directory => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }
        }
        format!("{self:?} at {at} of {length}")
    }
}

#[test]
fn whatever_happens_to_any_file_the_store_is_whole_or_says_so_or_is_refused() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("TORTURE_SEED").unwrap_or_else(rand::random);
    let until = number("TORTURE_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    println!("TORTURE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let originals = Originals::make(BACKUP, NEWEST);
    let mut seen: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for case in 0.. {
        if until.map_or(case >= CASES, |until| Instant::now() >= until && case >= CASES) {
            break;
        }
        let which = if random.random() { "crashed" } else { "closed" };
        let has_backup = random.random();
        let copy = originals.copy(which, has_backup);
        let files = files_below(copy.path());
        // Half of the cases hit the file that holds the data.
        let data = files.iter().position(|file| file.ends_with("sled/db")).unwrap();
        let chosen = if random.random() { data } else { random.random_range(0..files.len()) };
        let harm = HARMS[random.random_range(0..HARMS.len())];
        let target = copy.path().join(&files[chosen]);
        let done = harm.apply(&target, &mut random);
        let name = files[chosen].display().to_string();
        let what = format!("TORTURE_SEED={seed} case {case}: {which}, backup {has_backup}, {name}: {done}");
        // A backup that is hit is no backup; one that is there all the same can only do good.
        let counts_on_backup = has_backup && !name.starts_with("backups/");
        let verdict = match originals.judge(&what, copy.path(), counts_on_backup) {
            Verdict::Whole => "whole",
            Verdict::HistoryDamaged => "past records damaged and told",
            Verdict::Rewound(_) => "older and said so",
            Verdict::Refused => "refused",
        };
        let name = name.split("snap.").next().unwrap_or_default().to_owned();
        *seen.entry((name, verdict)).or_default() += 1;
    }
    for ((name, verdict), count) in &seen {
        println!("{count:5}  {name}: {verdict}");
    }
    let count = |wanted: &str| -> u64 {
        seen.iter().filter(|((_, verdict), _)| *verdict == wanted).map(|(_, count)| count).sum()
    };
    assert!(count("older and said so") > 10 && count("refused") > 5, "the damage did no harm: {seen:?}");
}

//! The seeded simulator: the engine, a coordinator's shell, agents, network, disks and people in one
//! deterministic world, with rules that must hold after every step.
//!
//! A failing seed is printed with the line that replays it:
//!
//! ```text
//! SEED=17 cargo test -p fleet --test sim        that seed alone, with its last events
//! SIM_SEEDS=5000 cargo test -p fleet --test sim more seeds than the standard budget
//! SIM_NOTES=5000 SEED=17 ...                    with more of its last events
//! ```
//!
//! Seeds that once failed are in `seeds.txt`, and every one stays as a test.

mod checks;
mod config;
mod cover;
mod host;
mod meetings;
mod net;
mod newness;
mod people;
mod planted;
mod prng;
mod shell;
mod store;
mod world;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use cover::{Cover, Fault, Meets};
use fleet::engine::WaitReason;
use newness::Met;
use planted::Planted;
use world::World;

/// Seeds of the standard budget: about a minute on one core (this package is optimised in every profile).
const SEEDS: u64 = 13_000;
/// Least count of each meeting and fault over the standard budget; over fewer seeds, as much less.
const LEAST: u64 = 1_000;
/// Reasons of waiting that must be met as often.
const WAITS: [WaitReason; 5] = [
    WaitReason::UpstreamSlots,
    WaitReason::UpstreamSpacing,
    WaitReason::UpstreamBreaker,
    WaitReason::OutsideWindow,
    WaitReason::DiskSpace,
];
/// A planted fault must be found within so many steps.
const PLANTED_STEPS_MAX: u64 = 800_000;

/// Of what was wrong, as much is shown in a list.
const TEXT_CHARS_MAX: usize = 160;

/// One simulation; `Err` says what was wrong.
fn simulate(seed: u64, planted: Option<Planted>, traced: bool) -> (Result<(), String>, Cover, Vec<String>) {
    let mut world = World::new(seed, planted, traced);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    world.cover.waits.clone_from(&world.checks.waited);
    (result, world.cover.clone(), world.notes())
}

/// The same seed once more, with its last events.
fn report(seed: u64, text: &str) -> String {
    let (_, cover, notes) = simulate(seed, None, true);
    format!(
        "{}\nseed {seed} failed after {} steps: {text}\nreplay: SEED={seed} cargo test -p fleet --test sim",
        notes.join("\n"),
        cover.steps
    )
}

/// All of these seeds, on as many threads as there are processors: each seed is a world of its own. What failed, in order.
fn simulate_all(seeds: &Range<u64>) -> (Cover, Vec<(u64, String)>) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let part = |first: usize| {
        let mut cover = Cover::default();
        let mut failed = Vec::new();
        for seed in seeds.clone().skip(first).step_by(threads) {
            let (result, one, _) = simulate(seed, None, false);
            cover.add(&one);
            failed.extend(result.err().map(|text| (seed, text)));
        }
        (cover, failed)
    };
    let parts: Vec<(Cover, Vec<(u64, String)>)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        running.into_iter().map(|one| one.join().expect("a simulation catches its panics")).collect()
    });
    let mut cover = Cover::default();
    let mut failed = Vec::new();
    for (one, some) in parts {
        cover.add(&one);
        failed.extend(some);
    }
    failed.sort_unstable();
    (cover, failed)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_seed_keeps_every_rule_and_everything_is_met() {
    let alone = from_environment("SEED");
    let seeds = match alone {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (cover, failed) = simulate_all(&seeds);
    eprintln!("{cover}");
    if let Some((seed, text)) = failed.first() {
        for (seed, text) in &failed {
            eprintln!("seed {seed}: {}", text.chars().take(TEXT_CHARS_MAX).collect::<String>());
        }
        panic!("{}\n{} seeds failed", report(*seed, text), failed.len());
    }
    if alone.is_none() {
        assert_covered(&cover, from_environment("SIM_SEEDS").unwrap_or(SEEDS));
    }
}

fn assert_covered(cover: &Cover, seeds: u64) {
    let least = LEAST * seeds.min(SEEDS) / SEEDS;
    let mut rare = Vec::new();
    for fault in Fault::ALL {
        let count = cover.faults.get(&fault).copied().unwrap_or(0);
        if count < least {
            rare.push(format!("fault {fault:?}: {count}"));
        }
    }
    for reason in WAITS {
        let count = cover.waits.get(&reason).copied().unwrap_or(0);
        if count < least {
            rare.push(format!("wait {reason:?}: {count}"));
        }
    }
    for met in Met::ALL {
        let count = cover.markers.get(&met).copied().unwrap_or(0);
        if count < least {
            rare.push(format!("marker {met:?}: {count}"));
        }
    }
    for meets in Meets::ALL {
        for at in meets.possible() {
            let count = cover.pairs.get(&(meets, *at)).copied().unwrap_or(0);
            if count < least {
                rare.push(format!("{meets:?} meets {at:?}: {count}"));
            }
        }
    }
    if cover.alone < least {
        rare.push(format!("fires run by agents alone: {}", cover.alone));
    }
    assert!(rare.is_empty(), "met less than {least} times: {rare:#?}");
}

#[test]
fn seeds_that_once_failed_pass() {
    let text = include_str!("seeds.txt");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let seed = line.split_whitespace().next().and_then(|word| word.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| panic!("seeds.txt: no seed in {line:?}"));
        if let (Err(text), ..) = simulate(seed, None, false) {
            panic!("{}", report(seed, &text));
        }
    }
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for planted in Planted::ALL {
        let mut steps = 0;
        let mut found = None;
        for seed in 0.. {
            let (result, cover, _) = simulate(seed, Some(planted), false);
            steps += cover.steps;
            if let Err(text) = result {
                found = Some((seed, text));
                break;
            }
            if steps > PLANTED_STEPS_MAX {
                break;
            }
        }
        match found {
            Some((seed, text)) => {
                let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
                eprintln!("{planted:?}: found after {steps} steps, seed {seed}: {text}");
            }
            None => missed.push(planted),
        }
    }
    assert!(missed.is_empty(), "not found within {PLANTED_STEPS_MAX} steps: {missed:?}");
}

#[test]
fn a_seed_is_the_whole_story() {
    for seed in [3, 11] {
        let (first, first_cover, first_notes) = simulate(seed, None, true);
        let (second, second_cover, second_notes) = simulate(seed, None, true);
        assert_eq!(first, second);
        assert_eq!(first_cover.pairs, second_cover.pairs);
        assert_eq!(first_notes, second_notes);
    }
}

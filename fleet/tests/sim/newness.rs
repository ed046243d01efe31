//! How new the trees of upstream hosts are, by their markers: mostly fresh, sometimes hours behind, sometimes nobody can
//! tell. Has chance of its own, so that what else happens in a seed's world does not depend on it.

use std::collections::BTreeMap;

use crate::prng::Prng;

const HOUR_MS: i64 = 3_600_000;
/// Looks at a host after which it is found otherwise, in 1,000: names of upstreams stand for several machines.
const CHANGES: u64 = 600;

/// Sets this chance apart from that of the world.
const SALT: u64 = 0x6d61_726b_6572;

/// What is at one host.
#[derive(Debug, Clone, Copy, Default)]
struct Upstream {
    behind_ms: i64,
    gone: bool,
}

/// All hosts.
#[derive(Debug)]
pub(crate) struct Newness {
    rng: Prng,
    hosts: BTreeMap<String, Upstream>,
    calm: bool,
}

/// What was met, for the report of coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Met {
    /// An upstream was behind, and an agent pulled nothing.
    Behind,
    /// What was pulled was older than what was looked at.
    Rotated,
    /// A marker could not be read.
    Gone,
    /// An attempt was offered that takes another upstream's place.
    FellBack,
}

impl Met {
    pub(crate) const ALL: [Self; 4] = [Self::Behind, Self::Rotated, Self::Gone, Self::FellBack];
}

impl Newness {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Prng::new(seed ^ SALT), hosts: BTreeMap::new(), calm: false }
    }

    /// From now on every host is fresh.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
        self.hosts.clear();
    }

    /// The marker at a host at this time; `None`: it cannot be read.
    pub(crate) fn look(&mut self, host: &str, wall_ms: i64) -> Option<i64> {
        let upstream = self.hosts.entry(host.to_owned()).or_default();
        if !self.calm && self.rng.chance(CHANGES) {
            let behind = if self.rng.chance(700) { self.rng.between(1, 30) } else { 0 };
            *upstream = Upstream {
                behind_ms: i64::try_from(behind).expect("small") * HOUR_MS,
                gone: self.rng.chance(150),
            };
        }
        (!upstream.gone).then(|| wall_ms - upstream.behind_ms)
    }
}

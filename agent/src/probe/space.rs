//! Whether there is room for the tree above the volume's reserve.

use std::sync::Arc;

use fleet::{
    agent::Root,
    defaults::{Limits, VOLUME_RESERVE_PERCENT_MAX},
    words::{bytes, commas},
};
use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};

use super::{Look, Place, finding, on_disk};
use crate::guard::Space;

/// The volume as the fleet judges it: by the rule and the limits that admission goes by.
struct Volume {
    root: Root,
    limits: Limits,
}

impl Volume {
    fn new(space: &Space, reserve: Option<&v1::VolumeReserve>) -> Self {
        let root = Root {
            name: String::new(),
            path: String::new(),
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            total_inodes: space.total_inodes,
            free_inodes: space.free_inodes,
        };
        let mut limits = Limits::default();
        if let Some(reserve) = reserve {
            limits.volume_reserve_percent = reserve.percent.min(VOLUME_RESERVE_PERCENT_MAX);
            limits.volume_reserve_bytes = reserve.bytes;
        }
        Self { root, limits }
    }

    fn reserve_bytes(&self) -> u64 {
        self.root.reserve_bytes(&self.limits)
    }

    /// What there is to say of it for a tree that still grows by `growth_bytes`.
    fn sentence(&self, growth_bytes: Option<u64>) -> (Severity, String) {
        let (reserve, free) = (self.reserve_bytes(), self.root.free_bytes);
        let wanted = growth_bytes.unwrap_or(0).saturating_add(reserve);
        if self.root.free_inodes < self.root.reserve_inodes(&self.limits) {
            let free = commas(self.root.free_inodes);
            let percent = self.limits.volume_reserve_percent;
            return (
                Severity::Fault,
                format!("has only {free} inodes free, below its reserve of {percent} %"),
            );
        }
        // An empty reserve is no leave to start on a volume that is full to the last byte.
        if free < wanted.max(1) {
            let text = match (growth_bytes, reserve) {
                (Some(_), 0) => format!("lacks ~{} of free space", bytes(wanted - free)),
                (Some(_), _) => {
                    format!("lacks ~{} above its reserve of {}", bytes(wanted - free), bytes(reserve))
                }
                (None, 0) => "has nothing free".to_owned(),
                (None, _) => {
                    format!("has nothing above its reserve of {}: {} are free", bytes(reserve), bytes(free))
                }
            };
            return (Severity::Fault, text);
        }
        let room = match reserve {
            0 => format!("has {} free", bytes(free)),
            _ => format!("has {} above its reserve of {}", bytes(free - reserve), bytes(reserve)),
        };
        let growth = growth_bytes.map_or_else(String::new, |growth| format!(", for ~{} more", bytes(growth)));
        (Severity::Ok, room + &growth)
    }
}

/// Room for what the tree would still add, as far as that is known.
pub(super) async fn judge(look: &Look<'_>, place: &Place, growth_bytes: Option<u64>) -> v1::Finding {
    let (live, destination) = (Arc::clone(look.live), place.destination.clone());
    let measured = on_disk(move || {
        let root = live.guard.root_of(&destination).map_err(|fault| fault.to_string())?;
        root.space().map_err(|error| format!("cannot examine the volume: {error}"))
    })
    .await;
    let space = match measured {
        Ok(space) => space,
        Err(why) => {
            return finding(Kind::Space, Severity::Fault, look.say(&format!("{}: {why}", place.destination)));
        }
    };
    let volume = Volume::new(&space, look.probe.reserve.as_ref());
    let (severity, text) = volume.sentence(growth_bytes);
    v1::Finding {
        size_bytes: growth_bytes,
        free_bytes: Some(space.free_bytes),
        reserve_bytes: Some(volume.reserve_bytes()),
        ..finding(Kind::Space, severity, look.say(&format!("{} {text}", place.destination)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn told(total: u64, free: u64, growth: Option<u64>) -> (Severity, String) {
        let space = Space { total_bytes: total, free_bytes: free, total_inodes: 100, free_inodes: 50 };
        Volume::new(&space, None).sentence(growth)
    }

    #[test]
    fn room_is_what_is_above_the_reserve() {
        let (ok, fault) = (Severity::Ok, Severity::Fault);
        for (total, free, growth, severity, text) in [
            (8000 * GIB, 1000 * GIB, None, ok, "has 840 GiB above its reserve of 160 GiB"),
            (
                8000 * GIB,
                1000 * GIB,
                Some(840 * GIB),
                ok,
                "has 840 GiB above its reserve of 160 GiB, for ~840 GiB more",
            ),
            (8000 * GIB, 1000 * GIB, Some(852 * GIB), fault, "lacks ~12.0 GiB above its reserve of 160 GiB"),
            (
                8000 * GIB,
                100 * GIB,
                None,
                fault,
                "has nothing above its reserve of 160 GiB: 100 GiB are free",
            ),
            (500 * GIB, 21 * GIB, None, ok, "has 1.00 GiB above its reserve of 20.0 GiB"),
            // A small volume: a 20th of it, where 20 GiB would be more than there is.
            (10 * GIB, 2 * GIB, None, ok, "has 1.50 GiB above its reserve of 512 MiB"),
        ] {
            assert_eq!(told(total, free, growth), (severity, text.to_owned()));
        }
    }

    #[test]
    fn inodes_run_out_too() {
        let few = Space { total_bytes: GIB, free_bytes: GIB, total_inodes: 1_000, free_inodes: 19 };
        assert_eq!(Volume::new(&few, None).sentence(None).0, Severity::Fault);
        let unlimited = Space { total_inodes: 0, free_inodes: 0, ..few };
        assert_eq!(Volume::new(&unlimited, None).sentence(None).0, Severity::Ok);
    }

    #[test]
    fn the_reserve_is_the_coordinators() {
        let (ok, fault) = (Severity::Ok, Severity::Fault);
        for (percent, reserve, free, growth, severity, text) in [
            (0, 0, 10 * GIB, None, ok, "has 10.0 GiB free"),
            (0, 0, 10 * GIB, Some(GIB), ok, "has 10.0 GiB free, for ~1.00 GiB more"),
            (0, 0, GIB, Some(3 * GIB), fault, "lacks ~2.00 GiB of free space"),
            (0, 0, 0, None, fault, "has nothing free"),
            (0, 4 * GIB, 10 * GIB, None, ok, "has 6.00 GiB above its reserve of 4.00 GiB"),
            // No more than a 20th, whatever was told.
            (99, 0, 10 * GIB, None, ok, "has 5.00 GiB above its reserve of 5.00 GiB"),
        ] {
            let space =
                Space { total_bytes: 100 * GIB, free_bytes: free, total_inodes: 100, free_inodes: 50 };
            let told = v1::VolumeReserve { percent, bytes: reserve };
            assert_eq!(Volume::new(&space, Some(&told)).sentence(growth), (severity, text.to_owned()));
        }
    }
}

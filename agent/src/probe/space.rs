//! Whether there is room for the tree above the volume's reserve.

use std::sync::Arc;

use fleet::{agent::Root, defaults::Limits};
use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};

use super::{Look, Place, finding, on_disk};
use crate::guard::Space;
use crate::text::bytes;

/// The volume as the fleet judges it: by the rule that admission goes by, with the limits that a coordinator has where
/// nobody set others.
fn volume(space: &Space) -> (Root, Limits) {
    let root = Root {
        name: String::new(),
        path: String::new(),
        total_bytes: space.total_bytes,
        free_bytes: space.free_bytes,
        total_inodes: space.total_inodes,
        free_inodes: space.free_inodes,
    };
    (root, Limits::default())
}

fn reserve_bytes(space: &Space) -> u64 {
    let (root, limits) = volume(space);
    root.reserve_bytes(&limits)
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
    let (severity, text) = sentence(&space, growth_bytes);
    v1::Finding {
        size_bytes: growth_bytes,
        free_bytes: Some(space.free_bytes),
        reserve_bytes: Some(reserve_bytes(&space)),
        ..finding(Kind::Space, severity, look.say(&format!("{} {text}", place.destination)))
    }
}

fn sentence(space: &Space, growth_bytes: Option<u64>) -> (Severity, String) {
    let reserve = reserve_bytes(space);
    let wanted = growth_bytes.unwrap_or(0).saturating_add(reserve);
    let of_reserve = format!("above its reserve of {}", bytes(reserve));
    let (root, limits) = volume(space);
    if space.free_inodes < root.reserve_inodes(&limits) {
        let free = crate::text::count(space.free_inodes);
        let percent = limits.volume_reserve_percent;
        return (Severity::Fault, format!("has only {free} inodes free, below its reserve of {percent} %"));
    }
    if space.free_bytes < wanted {
        let lack = wanted - space.free_bytes;
        return match growth_bytes {
            Some(_) => (Severity::Fault, format!("lacks ~{} {of_reserve}", bytes(lack))),
            None => {
                (Severity::Fault, format!("has nothing {of_reserve}: {} are free", bytes(space.free_bytes)))
            }
        };
    }
    let room = bytes(space.free_bytes - reserve);
    match growth_bytes {
        Some(growth) => (Severity::Ok, format!("has {room} {of_reserve}, for ~{} more", bytes(growth))),
        None => (Severity::Ok, format!("has {room} {of_reserve}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn told(total: u64, free: u64, growth: Option<u64>) -> (Severity, String) {
        let space = Space { total_bytes: total, free_bytes: free, total_inodes: 100, free_inodes: 50 };
        sentence(&space, growth)
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
        assert_eq!(sentence(&few, None).0, Severity::Fault);
        let unlimited = Space { total_inodes: 0, free_inodes: 0, ..few };
        assert_eq!(sentence(&unlimited, None).0, Severity::Ok);
    }
}

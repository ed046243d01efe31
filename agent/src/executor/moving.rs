//! A move of a tree from one place of this host to another, and the public link that follows it.
//!
//! ```text
//! copy ─▶ sync ─▶ verify ─┬─ equal ──▶ Step::Switch ─▶ link ─▶ ended        no way back from Step::Switch on
//!   ▲                     └─ differs: once more, by content, at most ROUNDS_MAX times
//!   └─ each is a program of its own with a run directory: a restarted agent goes on at the one that was going
//! ```
//!
//! The old tree is only read, and never removed. Nothing but the new place is written to, and only what this move, or
//! one before it, put there is deleted.

use std::io;

use fleet::project::Destination;
use mirror_proto::v1;
use mirror_proto::v1::outcome::Class;
use rsync::Fault;

use super::attempt::{Early, Machine, early, rejected};
use super::guards::{Ended, MOVE_AGAIN, Pass};
use super::ledger::blocking;
use super::passes::Hands;
use crate::guard::{DestinationFault, Guard, LinkFault, ProjectLock, Root};
use crate::journal::Step;
use crate::order::Order;
use crate::outcome::{cancelled, chain, of_class, of_local_error};
use fleet::words::commas;

/// Most rounds of copy and comparison. A tree that still differs then is being changed, or a disk is failing.
const ROUNDS_MAX: u32 = 3;
/// Names of differing entries that are told.
const NAMES_TOLD_MAX: usize = 3;
/// What to do when something else went wrong with a move.
const LOOK: &str =
    "the old tree serves as before; look at this host's disks and permissions, then move it again";

/// What this host has against the places of a move, all at once; of a pull nothing. A disk that fails now is told as the
/// outcome of the attempt.
pub(super) fn place_faults(guard: &Guard, order: &Order) -> Vec<String> {
    let Some(from) = order.moves_from() else { return Vec::new() };
    let told = |result: Result<bool, DestinationFault>, text: &dyn Fn() -> String| match result {
        Ok(true) | Err(DestinationFault::Io { .. }) => None,
        Ok(false) => Some(text()),
        Err(fault) => Some(fault.to_string()),
    };
    let to = &order.destination;
    let old = told(has_tree(guard, order, from), &|| {
        format!("there is no tree at {from}; is its volume mounted? Look at it, or fetch the tree anew")
    });
    let new = told(is_free(guard, order), &|| not_free(to));
    [old, new].into_iter().flatten().collect()
}

fn has_tree(guard: &Guard, order: &Order, from: &Destination) -> Result<bool, DestinationFault> {
    let (root, path) = (guard.root_of(from)?, guard.look_at(from)?);
    // An empty directory is what a volume that is not mounted looks like.
    let empty_is_whole = order.known_files.is_none_or(|files| files <= 1);
    Ok(path.is_dir() && (empty_is_whole || root.is_filled(from).unwrap_or(true)))
}

fn is_free(guard: &Guard, order: &Order) -> Result<bool, DestinationFault> {
    let (root, to) = (guard.root_of(&order.destination)?, &order.destination);
    guard.look_at(to)?;
    holds_nothing_foreign(root, order)
        .map_err(|source| DestinationFault::Io { part: to.path().to_owned(), source })
}

/// Whether the new place is empty, or holds what a move of this tree put there.
fn holds_nothing_foreign(root: &Root, order: &Order) -> io::Result<bool> {
    let to = &order.destination;
    Ok(!root.is_filled(to)? || root.was_moving(order.project, to)?)
}

fn not_free(to: &Destination) -> String {
    format!(
        "{to} is not empty, and no move of this tree put there what it holds; empty it, or name another place"
    )
}

/// Notes that the new place is this move's, which deletes there what the tree does not have. Asked under the project's
/// lock whether it may: days may lie between the offer and now, and what cannot be looked at is nobody's to delete.
pub(super) fn claim(root: &Root, order: &Order) -> Early<()> {
    let to = &order.destination;
    match holds_nothing_foreign(root, order) {
        Ok(true) => {}
        Ok(false) => return early(rejected(&not_free(to))),
        Err(error) => return early(of_local_error("cannot examine the new place", &error)),
    }
    root.mark_moving(order.project, to)
        .or_else(|error| early(of_local_error("cannot note that the tree is begun", &error)))
}

/// What is in the way of the public link.
pub(super) fn link_fault(guard: &Guard, order: &Order) -> Option<String> {
    let link = order.link.as_ref()?;
    let trees: Vec<&Destination> = std::iter::once(&order.destination).chain(order.moves_from()).collect();
    if let Some(tree) = trees.iter().find(|tree| tree.overlaps(link)) {
        return Some(format!("the public link {link} lies inside, around or at the tree {tree}"));
    }
    match guard.look_at_link(order.project, link, &trees) {
        Ok(_) | Err(LinkFault::Io { .. }) => None,
        Err(fault) => Some(chain(&fault)),
    }
}

impl Machine<'_> {
    /// Takes an attempt through a move.
    pub(super) async fn moves(
        &self,
        begun: Step,
        lock: Option<ProjectLock>,
        from: &Destination,
    ) -> Early<v1::Outcome> {
        if begun == Step::Switch {
            // The copy is proven; perhaps the link leads to it already.
            self.attempt.line("goes on after a restart of the agent: the copy is proven");
            return self.switch(from, of_class(Class::Ok, "", Fault::Open, "")).await;
        }
        let mut hands = Hands::new(begun, lock);
        self.step(Step::Preflight).await?;
        // A program of an earlier agent may still be writing to the old place.
        let other_root = from.root() != self.attempt.order.destination.root();
        let _old = if other_root { Some(self.lock_at(from).await?) } else { None };
        self.check_places().await?;
        let mut found = String::new();
        for round in 1..=ROUNDS_MAX {
            let copy = self.local_pass(Pass::Copy, round, &mut hands).await?;
            let copied = judge_copy(copy)?;
            // Before the comparison: what a power cut takes must not have been compared.
            self.at_root(|root: &Root, _| root.sync()).await?;
            let compared = self.local_pass(Pass::Verify, round, &mut hands).await?;
            match judge_comparison(compared)? {
                Differences::None => {
                    self.attempt.line("both trees are equal");
                    self.begin_switch().await?;
                    return self.switch(from, copied).await;
                }
                Differences::Some { count, names } => {
                    found = format!("{} entries differ, as {}", commas(count), names.join(", "));
                    self.attempt.line(&found);
                }
            }
        }
        Ok(still_differs(&self.attempt.order, &found))
    }

    /// The places are looked at once more: what is adopted may be days old.
    async fn check_places(&self) -> Early<()> {
        let (live, attempt) = (self.shared.live(), self.attempt.clone());
        let faults = blocking(move || place_faults(&live.guard, &attempt.order)).await;
        if faults.is_empty() {
            return Ok(());
        }
        early(rejected(&faults.join("; ")))
    }

    /// From here on a wish for the end comes too late.
    async fn begin_switch(&self) -> Early<()> {
        if let Some(reason) = self.attempt.stop.borrow().clone() {
            return early(cancelled(&reason));
        }
        self.step(Step::Switch).await
    }

    /// Points the public link at the new place, and makes that the tree's own. May be begun again.
    async fn switch(&self, from: &Destination, outcome: v1::Outcome) -> Early<v1::Outcome> {
        let outcome = self.link(outcome, Some(from)).await?;
        let noted = self.at_root(|root, order| root.mark_begun(order.project, &order.destination)).await;
        if let Err(failed) = noted {
            if self.attempt.order.link.is_none() {
                return Err(failed);
            }
            // Readers are at the new place already: the move has come to its end. The next pull notes it.
            tracing::warn!(error = failed.cause, "the tree has moved, and that cannot be noted");
            self.attempt.line(&format!("the tree has moved, and that cannot be noted: {}", failed.cause));
        }
        self.attempt.line(&format!(
            "the tree lives at {} now; the old one at {from} stays",
            self.attempt.order.destination
        ));
        Ok(outcome)
    }

    /// Points the public link, if there is one, at the destination.
    pub(super) async fn link(
        &self,
        outcome: v1::Outcome,
        before: Option<&Destination>,
    ) -> Early<v1::Outcome> {
        let Some(link) = self.attempt.order.link.clone() else { return Ok(outcome) };
        let (live, attempt, before) = (self.shared.live(), self.attempt.clone(), before.cloned());
        let to = attempt.order.destination.clone();
        let shown = link.clone();
        let (lead, advice) = not_linked(before.as_ref());
        let put = blocking(move || {
            live.guard.put_link(attempt.order.project, &link, &attempt.order.destination, before.as_ref())
        })
        .await;
        match put {
            Ok(changed) => {
                if changed {
                    self.attempt.line(&format!("the public link {shown} leads to {to}"));
                }
                Ok(outcome)
            }
            Err(fault) => {
                let told = match &fault {
                    LinkFault::Io { .. } => of_local_error(&lead, &fault),
                    LinkFault::Place { .. } | LinkFault::Foreign { .. } => {
                        let cause = format!("{lead}: {}", chain(&fault));
                        of_class(Class::RejectedByAgent, &cause, Fault::Yours, advice)
                    }
                };
                early(v1::Outcome {
                    stats: outcome.stats,
                    exit_code: outcome.exit_code,
                    marker: outcome.marker,
                    ..told
                })
            }
        }
    }
}

/// What it means that the public link was not pointed at a tree, and what to do where something is in its way. `before`
/// is where the tree was, if it moves.
fn not_linked(before: Option<&Destination>) -> (String, &'static str) {
    match before {
        Some(from) => (
            format!(
                "the copy is whole, but the public link does not lead to it; the old tree is still at {from} for its \
                 readers"
            ),
            "clear the place of the link, or declare another one, then move the tree again",
        ),
        None => (
            "the tree is whole, but readers cannot find it".to_owned(),
            "clear the place of the link, or declare another one",
        ),
    }
}

/// The end of a copy, if the comparison may follow.
fn judge_copy(copy: Ended) -> Early<v1::Outcome> {
    let outcome = copy.outcome;
    let advice = match outcome.class() {
        Class::Ok => return Ok(outcome),
        Class::DiskFull => MOVE_AGAIN,
        Class::Cancelled | Class::Interrupted => return early(outcome),
        _ => LOOK,
    };
    early(local(v1::Outcome { advice: advice.to_owned(), ..outcome }))
}

/// What a comparison found.
enum Differences {
    None,
    Some { count: u64, names: Vec<String> },
}

fn judge_comparison(compared: Ended) -> Early<Differences> {
    let Ended { outcome, stats, findings, .. } = compared;
    // rsync's own counts say the same as its list; where a part of its output was lost, one of both still does.
    let counted = [stats.created, stats.deleted].into_iter().flatten().map(|count| count.total);
    let count = counted.sum::<u64>().saturating_add(stats.transferred.unwrap_or(0)).max(findings.told);
    match outcome.class() {
        Class::Ok if count == 0 => Ok(Differences::None),
        Class::Ok => {
            let mut names = findings.first_told;
            names.truncate(NAMES_TOLD_MAX);
            Ok(Differences::Some { count, names })
        }
        Class::Cancelled | Class::Interrupted => early(outcome),
        _ => early(local(v1::Outcome { advice: LOOK.to_owned(), ..outcome })),
    }
}

/// Both sides of it are this host: what rsync takes for an upstream's fault is not one, and a copy that lacks something
/// is none.
fn local(mut outcome: v1::Outcome) -> v1::Outcome {
    outcome.fault = mirror_proto::convert::fault_of_rsync(Fault::Fleet).to_owned();
    if matches!(outcome.class(), Class::Partial | Class::MaxDelete | Class::NotFound | Class::Refused) {
        outcome.set_class(Class::LocalIo);
    }
    outcome
}

fn still_differs(order: &Order, text: &str) -> v1::Outcome {
    let cause = format!(
        "after {ROUNDS_MAX} rounds {} is not what {} is: {text}; somebody changes the tree, or a disk is failing",
        order.destination, order.source
    );
    of_class(
        Class::LocalIo,
        &cause,
        Fault::Open,
        "the old tree serves as before; stop who writes to it, then move it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    fn order() -> Order {
        let assignment = v1::Assignment {
            key: Some(key(1, 1, 1).to_wire()),
            project_uid: 7,
            project: "debian".into(),
            role: v1::Role::Origin.into(),
            destination: "a2:mirror/debian".into(),
            move_from: "a1:debian".into(),
            keep_extra: true,
            ..v1::Assignment::default()
        };
        Order::read(key(1, 1, 1), &assignment, false).unwrap()
    }

    #[test]
    fn only_an_empty_place_or_what_a_move_made_is_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, order) = (Root::open(dir.path()).unwrap(), order());
        let refusal = || claim(&root, &order).unwrap_err();
        let claimed = || root.was_moving(order.project, &order.destination).unwrap();
        let place = dir.path().join("mirror/debian");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("own"), "somebody's").unwrap();
        assert_eq!((refusal().class(), claimed()), (Class::RejectedByAgent, false));
        assert!(refusal().cause.contains("a2:mirror/debian is not empty"), "{:?}", refusal());
        // What cannot be looked at may hold anything.
        std::fs::rename(&place, dir.path().join("aside")).unwrap();
        std::os::unix::fs::symlink("../aside", &place).unwrap();
        assert_eq!((refusal().class(), claimed()), (Class::LocalIo, false));
        std::fs::remove_file(&place).unwrap();
        claim(&root, &order).unwrap();
        std::fs::rename(dir.path().join("aside"), &place).unwrap();
        assert!(claimed() && claim(&root, &order).is_ok(), "the move before made it");
        // The tree's own now: a move has no right to it any more.
        root.mark_begun(order.project, &order.destination).unwrap();
        assert_eq!((refusal().class(), claimed()), (Class::RejectedByAgent, false));
    }
}

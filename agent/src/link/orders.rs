//! Orders of one session to move trees to the trash: followed one after the other, tried again while something is still at
//! work on a tree, and gone with the session. Knows neither messages nor files.

use std::collections::VecDeque;

use fleet::defaults::TRASH_TREES_MAX;
use fleet::trash::{NotTrashed, TrashOrder, TrashReport};
use mirror_proto::convert::trash_order_from_wire;
use mirror_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::text;
use crate::trash::{Followed, Trash};

/// Longest reason that is told, bytes.
const REASON_BYTES_MAX: usize = 1024;

/// The orders.
#[derive(Debug)]
pub(super) struct Orders {
    trash: Trash,
    waiting: VecDeque<TrashOrder>,
    working: JoinSet<(Option<(TrashOrder, Followed)>, TrashReport)>,
    changes: watch::Receiver<u64>,
}

impl Orders {
    pub(super) fn new(trash: Trash) -> Self {
        let changes = trash.changes();
        Self { trash, waiting: VecDeque::new(), working: JoinSet::new(), changes }
    }

    /// Takes an order. What is no order is told in the log only: nobody could be answered.
    pub(super) fn take(&mut self, order: &v1::TrashTree) {
        match trash_order_from_wire(order) {
            Ok(_) if self.waiting.len() >= TRASH_TREES_MAX => {
                tracing::warn!("an order for the trash is ignored: too many wait");
            }
            Ok(order) if self.waiting.contains(&order) => {}
            Ok(order) => self.waiting.push_back(order),
            Err(fault) => {
                tracing::error!(field = fault.field, fault.description, "an order for the trash is ignored");
            }
        }
    }

    /// Whether an order waits and none is being followed.
    pub(super) fn wait(&self) -> bool {
        self.working.is_empty() && !self.waiting.is_empty()
    }

    /// Follows the next order, unless one is being followed.
    pub(super) fn begin(&mut self) {
        if !self.working.is_empty() {
            return;
        }
        let Some(order) = self.waiting.pop_front() else { return };
        let trash = self.trash.clone();
        self.working.spawn_blocking(move || {
            let followed = trash.follow(&order);
            (Some((order, followed)), trash.report())
        });
    }

    /// What is to be told: an order was followed or is not to be, or something has left the trash. Nothing is lost when
    /// nobody waits for it to the end.
    pub(super) async fn done(&mut self) -> TrashReport {
        loop {
            let changed = tokio::select! {
                Some(done) = self.working.join_next() => match done {
                    Ok((Some((order, followed)), report)) => match self.told(order, followed, report) {
                        Some(report) => return report,
                        None => false,
                    },
                    Ok((None, report)) => return report,
                    Err(error) => {
                        tracing::error!(%error, "an order for the trash failed");
                        false
                    }
                },
                Ok(()) = self.changes.changed() => true,
                else => std::future::pending().await,
            };
            if changed {
                let trash = self.trash.clone();
                self.working.spawn_blocking(move || (None, trash.report()));
            }
        }
    }

    fn told(
        &mut self,
        order: TrashOrder,
        followed: Followed,
        mut report: TrashReport,
    ) -> Option<TrashReport> {
        match followed {
            Followed::Done => {}
            Followed::Refused(mut why) => {
                text::cut(&mut why, REASON_BYTES_MAX);
                report.refused.push(NotTrashed { project: order.project, asked: order.asked, why });
            }
            Followed::NotYet(_) => {
                self.waiting.push_back(order);
                return None;
            }
        }
        Some(report)
    }

    /// Forgets what waits; what is being done is done to its end.
    pub(super) async fn end(&mut self) {
        self.waiting.clear();
        while self.working.join_next().await.is_some() {}
    }
}

//! The journal among the tasks of the agent: written on threads that may wait for the disk, read by everybody without
//! waiting for a write that is going on. What is read is written, and synced where that is asked for. Knows no attempt.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::held;
use crate::journal::{Book, Journal};

/// The journal, shared.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    journal: Arc<Mutex<Journal>>,
    book: Arc<ArcSwap<Book>>,
}

impl Ledger {
    pub(super) fn new(journal: Journal) -> Self {
        let book = Arc::new(ArcSwap::new(journal.book()));
        Self { journal: Arc::new(Mutex::new(journal)), book }
    }

    /// What it says.
    pub(super) fn book(&self) -> Arc<Book> {
        self.book.load_full()
    }

    /// Writes where waiting is no harm: at the start, or on a thread for that.
    pub(super) fn write_here<T>(&self, write: impl FnOnce(&mut Journal) -> T) -> T {
        let mut journal = held(&self.journal);
        let result = write(&mut journal);
        self.book.store(journal.book());
        result
    }

    /// Writes on a thread for that. It is done although nobody may wait for it any more.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Journal) -> T + Send + 'static,
    ) -> T {
        let ledger = self.clone();
        blocking(move || ledger.write_here(write)).await
    }
}

/// Runs what blocks for a moment where it holds up nobody. A panic in it is a panic here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down: this task ends at its next wait, which is here.
            Err(_) => std::future::pending().await,
        },
    }
}

//! Reads of the store, off the threads that serve requests: they may wait for the disk.

use tonic::Status;

use super::super::broken;
use crate::{
    driver::Driver,
    store::{Store, StoreError},
};

/// Reads from the store on a thread that may block.
///
/// # Errors
/// INTERNAL when the store cannot be read, or the reading panicked.
pub(crate) async fn read<T: Send + 'static>(
    driver: &Driver,
    reading: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    let store = driver.store().clone();
    match tokio::task::spawn_blocking(move || reading(&store)).await {
        Ok(read) => read.map_err(|error| broken("reading the history", &error)),
        Err(panicked) => Err(broken("reading the history", &panicked)),
    }
}

//! A backup, sent while the coordinator runs. It is made and verified on the coordinator's own disk first, so that a slow
//! reader holds up nobody, and its file has no name any more when the first byte is sent: nothing is left of it, however
//! this ends.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use mirror_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::{
    Services,
    chores::BACKUPS,
    store::{BackupReport, Store, StoreError},
};

/// Bytes of one part.
const PART_BYTES: usize = 64 << 10;
/// Parts that wait for their reader.
const PARTS_WAITING: usize = 4;

type Part = Result<v1::BackupResponse, Status>;

/// Begins a backup; its first part comes when all of it is made.
pub(super) fn stream(services: &Services) -> ReceiverStream<Part> {
    let (parts, sent) = mpsc::channel(PARTS_WAITING);
    let (store, stopping) = (services.driver.store().clone(), services.stopping.clone());
    let folder = services.config.file(BACKUPS);
    tokio::task::spawn_blocking(move || {
        if let Err(status) = make_and_send(&store, &folder, &stopping, &parts) {
            // Who went away needs no reason.
            drop(parts.blocking_send(Err(status)));
        }
    });
    ReceiverStream::new(sent)
}

fn make_and_send(
    store: &Store,
    folder: &Path,
    stopping: &CancellationToken,
    parts: &mpsc::Sender<Part>,
) -> Result<(), Status> {
    let path = folder.join(format!("{}.sending", Uuid::new_v4()));
    let report = store.backup_to(&path).map_err(|error| refused(&error))?;
    let file = File::open(&path).and_then(|file| fs::remove_file(&path).map(|()| file));
    let mut file = file.map_err(|error| refused(&StoreError::io("sending the backup", error)))?;
    let mut part = vec![0; PART_BYTES];
    loop {
        if stopping.is_cancelled() {
            return Err(Status::unavailable("the coordinator is stopping; try again in a moment"));
        }
        let data = match file.read(&mut part) {
            Ok(0) => break,
            Ok(length) => part[..length].to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(refused(&StoreError::io("sending the backup", error))),
        };
        if parts.blocking_send(Ok(v1::BackupResponse { data, summary: None })).is_err() {
            return Ok(());
        }
    }
    let last = v1::BackupResponse { data: Vec::new(), summary: Some(summary(report)) };
    drop(parts.blocking_send(Ok(last)));
    Ok(())
}

fn summary(report: BackupReport) -> v1::BackupSummary {
    let BackupReport { entries, revision, bytes, sha256 } = report;
    v1::BackupSummary { bytes, entries, revision, sha256 }
}

fn refused(error: &StoreError) -> Status {
    let text = crate::Chain(error).to_string();
    match error {
        StoreError::NoRoom { .. } => Status::resource_exhausted(text),
        StoreError::NoBackup(_) | StoreError::Failed | StoreError::Closed => Status::unavailable(text),
        error if error.is_full() => Status::resource_exhausted(text),
        _ => Status::internal(text),
    }
}

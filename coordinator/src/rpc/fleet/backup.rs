//! A backup, sent while the coordinator runs. It is made and verified on the coordinator's own disk first, so that a slow
//! reader holds up nobody, and its file has no name any more when the first byte is sent: nothing is left of it, however
//! this ends. A bounded number at a time, and none for a receiver that does not read: each takes the disk of a store.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::fleet::refusal::{Refusal, RefusalCode};
use mirror_proto::{
    status::{exhausted, unavailable},
    v1,
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::super::{RETRY_UNAVAILABLE, refused};
use crate::{
    Services,
    chores::{BACKUPS, SENDING_EXTENSION},
    outbox::line::{Line, LineSender, Stuck, line},
    store::{BackupReport, Store, StoreError},
};

/// Backups that are made or sent at once, all callers together.
const BACKUPS_MAX: usize = 2;
/// Bytes of one part.
const PART_BYTES: usize = 64 << 10;
/// Parts that wait for their reader.
const PARTS_WAITING: usize = 4;
/// How long a reader may leave the parts that wait for it.
const SLOW_AFTER: Duration = Duration::from_secs(30);

/// The places for backups.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BACKUPS_MAX))
}

/// Takes a place, which lasts as long as the backup's file.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub(super) fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        let text = format!(
            "no backup was begun: {BACKUPS_MAX} are being made or sent now; end one, or try again when one has ended"
        );
        exhausted("TOO_MANY_BACKUPS", &text, RETRY_UNAVAILABLE)
    })
}

/// Begins a backup; its first part comes when all of it is made.
pub(super) fn stream(services: &Services, place: OwnedSemaphorePermit) -> Line<v1::BackupResponse> {
    let (sender, parts) = line(PARTS_WAITING);
    let backup = Backup {
        store: services.driver.store().clone(),
        folder: services.config.file(BACKUPS),
        stopping: services.stopping.clone(),
        slow_after: SLOW_AFTER,
    };
    tokio::spawn(backup.run(sender, place));
    parts
}

struct Backup {
    store: Store,
    folder: PathBuf,
    stopping: CancellationToken,
    slow_after: Duration,
}

impl Backup {
    async fn run(self, sender: LineSender<v1::BackupResponse>, place: OwnedSemaphorePermit) {
        let ended = tokio::select! {
            () = self.stopping.cancelled() => Err(stopping()),
            ended = self.make_and_send(&sender) => ended,
        };
        if let Err(status) = ended {
            sender.end(status);
        }
        drop(place);
    }

    async fn make_and_send(&self, sender: &LineSender<v1::BackupResponse>) -> Result<(), Status> {
        let (store, folder) = (self.store.clone(), self.folder.clone());
        let made = tokio::task::spawn_blocking(move || make(&store, &folder)).await;
        let made = made.map_err(|error| failed(&StoreError::io("making the backup", error.into())))?;
        let (file, report) = made.map_err(|error| failed(&error))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut part = vec![0; PART_BYTES];
        loop {
            let read = file.read(&mut part).await;
            let length = read.map_err(|error| failed(&StoreError::io("sending the backup", error)))?;
            let summary = (length == 0).then(|| summary(&report));
            let last = summary.is_some();
            let response = v1::BackupResponse { data: part[..length].to_vec(), summary };
            match timeout(self.slow_after, sender.send(response)).await {
                Ok(Ok(())) if !last => {}
                // Who went away needs no reason.
                Ok(Ok(()) | Err(Stuck::Gone | Stuck::Full)) => return Ok(()),
                Err(_) => return Err(too_slow(self.slow_after)),
            }
        }
    }
}

/// A backup, in a file that goes with its last handle.
fn make(store: &Store, folder: &Path) -> Result<(File, BackupReport), StoreError> {
    let path = folder.join(format!("{}.{SENDING_EXTENSION}", Uuid::new_v4()));
    let report = store.backup_to(&path)?;
    let file = File::open(&path).and_then(|file| fs::remove_file(&path).map(|()| file));
    Ok((file.map_err(|error| StoreError::io("sending the backup", error))?, report))
}

fn summary(report: &BackupReport) -> v1::BackupSummary {
    let BackupReport { entries, revision, bytes, sha256 } = report.clone();
    v1::BackupSummary { bytes, entries, revision, sha256 }
}

fn stopping() -> Status {
    unavailable("STOPPING", "the coordinator is stopping; try again in a moment", RETRY_UNAVAILABLE)
}

fn too_slow(after: Duration) -> Status {
    let text = format!(
        "the backup was not read for {} s and is given up; take it again over a faster way, or on the coordinator's host",
        after.as_secs()
    );
    refused(&Refusal::new(RefusalCode::ResourceExhausted, "SLOW_READER", text))
}

fn failed(error: &StoreError) -> Status {
    let text = crate::Chain(error).to_string();
    match error {
        StoreError::NoRoom { .. } => Status::resource_exhausted(text),
        StoreError::NoBackup(_) | StoreError::Failed | StoreError::Closed => Status::unavailable(text),
        error if error.is_full() => Status::resource_exhausted(text),
        _ => Status::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mirror_proto::v1::AuditEvent;
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;
    use crate::store::{AuditId, StoreOptions, Unit, verify_backup};

    /// Nothing here takes nearly as long.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// More than all queues hold.
    const EVENTS: usize = 100;
    const EVENT_BYTES: usize = 6 << 10;

    fn big_store(dir: &Path) -> Store {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::default() };
        let store = Store::open(&dir.join("store"), &options).unwrap().store;
        let mut id = AuditId::default();
        for _ in 0..EVENTS {
            id = id.next(::fleet::time::Wall(1_800_000_000_000));
            let mut unit = Unit::default();
            unit.audit(id, &AuditEvent { message: "x".repeat(EVENT_BYTES), ..AuditEvent::default() })
                .unwrap();
            store.commit(&[unit]).unwrap();
        }
        store
    }

    fn begin(
        dir: &Path,
        store: &Store,
        slow_after: Duration,
        place: OwnedSemaphorePermit,
    ) -> Line<v1::BackupResponse> {
        let (store, folder) = (store.clone(), dir.join("backups"));
        let (sender, parts) = line(PARTS_WAITING);
        let backup = Backup { store, folder, stopping: CancellationToken::new(), slow_after };
        tokio::spawn(backup.run(sender, place));
        parts
    }

    async fn all_free(places: &Semaphore) {
        let all = timeout(PATIENCE, places.acquire_many(BACKUPS_MAX.try_into().unwrap())).await;
        drop(all.expect("every place is given up").unwrap());
    }

    fn left(dir: &Path) -> usize {
        fs::read_dir(dir.join("backups")).unwrap().count()
    }

    #[tokio::test]
    async fn what_is_sent_is_the_backup_and_its_place_is_free_then() {
        let dir = tempfile::tempdir().unwrap();
        let (store, places) = (big_store(dir.path()), places());
        let mut parts = begin(dir.path(), &store, PATIENCE, place(&places).unwrap());
        let (mut got, mut told) = (Vec::new(), None);
        while let Some(part) = parts.next().await {
            assert!(told.is_none(), "the summary is the last part");
            let v1::BackupResponse { data, summary } = part.unwrap();
            got.extend(data);
            told = summary;
        }
        assert_eq!(left(dir.path()), 0);
        let path = dir.path().join("got.backup");
        fs::write(&path, &got).unwrap();
        assert_eq!(Some(summary(&verify_backup(&path).unwrap())), told);
        all_free(&places).await;
    }

    #[tokio::test]
    async fn one_too_many_is_refused_and_who_does_not_read_keeps_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let (store, places) = (big_store(dir.path()), places());
        let mut stuck = begin(dir.path(), &store, Duration::from_millis(1), place(&places).unwrap());
        all_free(&places).await;
        let status = stuck.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "it overtakes what waits: {status}");
        assert!(status.message().contains("was not read for"), "{status}");
        assert!(stuck.next().await.is_none());

        let mut slow = begin(dir.path(), &store, 10 * PATIENCE, place(&places).unwrap());
        slow.next().await.unwrap().unwrap();
        let other = place(&places).unwrap();
        let refused = place(&places).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("try again when one has ended"), "{refused}");
        // Whoever goes away gives his place up at once.
        drop((slow, other));
        all_free(&places).await;
        assert_eq!(left(dir.path()), 0);
    }
}

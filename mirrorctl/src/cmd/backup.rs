//! `mirrorctl backup`: the coordinator's store, as a file. Knows the file's hash, not what is in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use mirror_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::Streaming;

use crate::app::App;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::units;

/// Only its owner may read it: it holds all that the coordinator knows.
const FILE_MODE: u32 = 0o600;
/// Bytes that are read at once while it is checked.
const CHUNK_BYTES: usize = 64 << 10;
const FAILED: &str = "no backup written";

pub(super) async fn backup(app: &App, file: &Path) -> Outcome<Exit> {
    let path = partial_of(file)?;
    // Before anything is asked: where the file cannot be written, nothing is made in vain.
    let out = create(&path).map_err(|error| not_written(&path, &error))?;
    // Only now: what somebody else has there is not ours to remove.
    let partial = Partial(path);
    let client = app.connect().await?;
    let answer = client.fleet().backup(v1::BackupRequest {}).await;
    let parts = answer.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner();
    let summary = receive(parts, out, &partial.0).await?;
    check(&partial.0, &summary)?;
    fs::rename(&partial.0, file).map_err(|error| not_written(file, &error))?;
    File::open(folder_of(file))
        .and_then(|folder| folder.sync_all())
        .map_err(|error| not_written(file, &error))?;
    let what = format!(
        "Backup of {} entries, {}, complete to revision {}, in {}; read again and whole.",
        units::count(summary.entries),
        units::bytes(summary.bytes),
        summary.revision,
        file.display()
    );
    let name = file.display().to_string();
    let next = "keep it on another host, and the file seal.key of the coordinator apart from it";
    app.answer(&summary, "BackupSummary", &[&name], |_| format!("{what}\nNext: {next}\n"))?;
    Ok(Exit::Done)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn partial_of(file: &Path) -> Outcome<PathBuf> {
    let named = file.file_name().filter(|_| !file.is_dir());
    let name = named.ok_or_else(|| {
        let text = format!("{} is no name of a file", file.display());
        Fault::of_input(FAILED, vec![("FILE".to_owned(), text)])
    })?;
    Ok(folder_of(file).join(format!(".{}.partial", name.to_string_lossy())))
}

/// A new file. One that is there, such as that of a try that was killed, goes first: a backup would get its owner and
/// its mode, or be written to where a link leads.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Writes what comes, durably.
async fn receive(
    mut parts: Streaming<v1::BackupResponse>,
    mut out: File,
    path: &Path,
) -> Outcome<v1::BackupSummary> {
    let mut summary = None;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|status| Fault::from_status(FAILED, &status))?;
        out.write_all(&part.data).map_err(|error| not_written(path, &error))?;
        summary = part.summary.or(summary);
    }
    out.sync_all().map_err(|error| not_written(path, &error))?;
    summary.ok_or_else(|| not_whole("it ended before its end"))
}

/// Reads the file again: it has the size and the hash that the coordinator says, and ends with that hash.
fn check(path: &Path, summary: &v1::BackupSummary) -> Outcome<()> {
    let unreadable =
        |error: io::Error| Fault::new(Exit::Bug, format!("{FAILED}: {}: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length != summary.bytes {
        return Err(not_whole(&format!("it has {length} bytes and should have {}", summary.bytes)));
    }
    let mut digest = Context::new(&SHA256);
    let mut left = length.saturating_sub(SHA256_OUTPUT_LEN as u64);
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.read_exact(&mut chunk[..wanted]).map_err(unreadable)?;
        digest.update(&chunk[..wanted]);
        left -= wanted as u64;
    }
    let mut end = Vec::with_capacity(SHA256_OUTPUT_LEN);
    file.read_to_end(&mut end).map_err(unreadable)?;
    let hash = digest.finish();
    if hash.as_ref() != end || hex::encode(hash) != summary.sha256 {
        return Err(not_whole("its hash does not fit"));
    }
    Ok(())
}

fn not_whole(why: &str) -> Fault {
    let text = format!("{FAILED}: what came is not whole: {why}");
    Fault::new(Exit::Unreachable, text).fault("the connection's or this host's disk's")
}

fn not_written(path: &Path, error: &io::Error) -> Fault {
    Fault::new(Exit::BadInput, format!("{FAILED}: {}: {error}", path.display())).fault("this host's disk")
}

/// A file that has no right to stay under this name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> (Vec<u8>, v1::BackupSummary) {
        let mut content = vec![7; 200_000];
        let hash = aws_lc_rs::digest::digest(&SHA256, &content);
        content.extend(hash.as_ref());
        let summary = v1::BackupSummary {
            bytes: content.len() as u64,
            entries: 3,
            revision: 9,
            sha256: hex::encode(hash),
        };
        (content, summary)
    }

    #[test]
    fn what_is_not_what_was_sent_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (content, summary) = whole();
        fs::write(&path, &content).unwrap();
        check(&path, &summary).unwrap();
        for at in [0, 100_000, content.len() - 1] {
            let mut flipped = content.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(check(&path, &summary).unwrap_err().what.contains("hash does not fit"));
        }
        fs::write(&path, &content[1..]).unwrap();
        assert!(check(&path, &summary).unwrap_err().what.contains("bytes and should have"));
    }

    #[test]
    fn what_lies_there_gives_a_backup_neither_its_mode_nor_its_place() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (open, link, aim) = (dir.path().join("open"), dir.path().join("link"), dir.path().join("aim"));
        fs::write(&open, "of a try before").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        // Whoever has it open goes on reading the old file.
        let reader = File::open(&open).unwrap();
        fs::write(&aim, "somebody's").unwrap();
        symlink(&aim, &link).unwrap();
        for path in [&open, &link] {
            create(path).unwrap().write_all(b"secret").unwrap();
            let made = fs::symlink_metadata(path).unwrap();
            assert!(made.is_file(), "{}", path.display());
            assert_eq!(made.permissions().mode() & 0o7777, FILE_MODE, "{}", path.display());
            assert_eq!(fs::read(path).unwrap(), b"secret");
        }
        assert_ne!(reader.metadata().unwrap().ino(), fs::metadata(&open).unwrap().ino());
        assert_eq!(fs::read(&aim).unwrap(), b"somebody's");
    }

    #[test]
    fn a_folder_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(partial_of(dir.path()).unwrap_err().exit, Exit::BadInput);
        assert_eq!(partial_of(Path::new("new.backup")).unwrap(), Path::new("./.new.backup.partial"));
    }
}

//! Break-glass: a Unix socket in the data directory. Whoever may open it, root and the coordinator's own account, is
//! admin, without certificate, token or password: it is the way back in when those are lost, while the fleet works on.
//!
//! The file's mode keeps others out, and so does the account that the kernel tells of each connection. Knows no rpc.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{connections::Connections, listener::Conn};

/// Connections over it at once.
pub const LOCAL_CONNECTIONS_MAX: usize = 16;
/// Connections that wait for the server to take them over.
const INCOMING_LEN: usize = 4;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Only the coordinator's own account (and root) opens it.
const MODE: u32 = 0o600;

/// The socket, which is there as long as this is.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Makes the socket anew; one that an earlier coordinator left is replaced.
    ///
    /// # Errors
    /// Something else has the name, the path is too long for a socket (107 bytes), or the folder takes no files.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let text = "something that is no socket has this name";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Ok(_) | Err(_) => {}
        }
        // Under another name first, so that nobody ever finds it with another mode.
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(MODE))?;
        fs::rename(&new, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Accepts until `stop`. What comes out of the returned channel was opened by root or this account.
    pub fn start(
        self,
        connections: Arc<Connections>,
        stop: CancellationToken,
        tasks: &mut tokio::task::JoinSet<()>,
    ) -> mpsc::Receiver<io::Result<Conn>> {
        let (accepted, incoming) = mpsc::channel(INCOMING_LEN);
        tasks.spawn(self.run(connections, stop, accepted));
        incoming
    }

    async fn run(
        self,
        connections: Arc<Connections>,
        stop: CancellationToken,
        accepted: mpsc::Sender<io::Result<Conn>>,
    ) {
        let places = Arc::new(Semaphore::new(LOCAL_CONNECTIONS_MAX));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((place, self.listener.accept().await))
            };
            let next = tokio::select! {
                () = stop.cancelled() => None,
                next = next => next,
            };
            let Some((place, stream)) = next else { break };
            match stream.and_then(|(stream, _)| opened_by(&stream).map(|uid| (stream, uid))) {
                Ok((stream, uid)) if is_let_in(uid) => {
                    let conn = Conn::local(stream, uid, &connections, place);
                    // Nobody takes it any more when the server stops.
                    drop(accepted.send(Ok(conn)).await);
                }
                Ok((_, uid)) => {
                    tracing::warn!(target: "audit", uid, "somebody else opened the coordinator's own socket; refused");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the coordinator's own socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the coordinator's own socket is not removed");
        }
    }
}

fn opened_by(stream: &UnixStream) -> io::Result<u32> {
    stream.peer_cred().map(|who| who.uid())
}

/// Root, or the account that the coordinator runs as.
fn is_let_in(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_accounts_alone_and_replaces_a_left_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(LocalSocket::bind(&path).unwrap());
        assert!(path.exists(), "left behind, as by a kill");
        let _socket = LocalSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_else_is_replaced_and_a_path_too_long_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();
        assert_eq!(LocalSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(LocalSocket::bind(&dir.path().join("x".repeat(120))).is_err());
    }

    #[test]
    fn only_root_and_oneself_are_let_in() {
        let own = rustix::process::geteuid().as_raw();
        assert!(is_let_in(0) && is_let_in(own));
        assert!(!is_let_in(own + 1));
    }
}

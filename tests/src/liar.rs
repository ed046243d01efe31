//! Upstreams that lie: they take connections on the rsync port and do not do what an rsync daemon does.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::rsyncd::PORT;

/// How an upstream lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It takes the connection and never says anything.
    Silent,
    /// It says things that are no rsync protocol.
    Garbage,
    /// It greets, and then its message of the day has no end.
    EndlessMotd,
    /// It closes every connection at once.
    Closing,
}

/// A lying upstream. Dropping it ends it.
#[derive(Debug)]
pub struct Liar {
    address: Ipv4Addr,
    ended: Arc<AtomicBool>,
}

/// How long one answer may block before the liar looks whether it was ended.
const LOOK: Duration = Duration::from_millis(100);

impl Liar {
    /// Starts to lie on an address.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start(address: Ipv4Addr, lie: Lie) -> io::Result<Self> {
        let listener = TcpListener::bind((address, PORT))?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                let ended = Arc::clone(&seen);
                thread::spawn(move || answer(stream, lie, &ended));
            }
        });
        Ok(Self { address, ended })
    }

    /// Where its module `mod` would be.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("rsync://{}:{PORT}/mod/", self.address)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // One more connection, so that the listener's thread looks.
        let _woken = TcpStream::connect((self.address, PORT));
    }
}

fn answer(mut stream: TcpStream, lie: Lie, ended: &AtomicBool) {
    let going = || !ended.load(Ordering::Relaxed);
    match lie {
        Lie::Closing => {}
        Lie::Silent => {
            while going() {
                thread::sleep(LOOK);
            }
        }
        Lie::Garbage => {
            let _said =
                stream.write_all(b"\x00\xff\x1b[31mHTTP/1.0 418 I'm a teapot\r\n\r\n\xde\xad\xbe\xef\n");
        }
        Lie::EndlessMotd => {
            let _greeted = stream.write_all(b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n");
            let line = [b"all work and no play makes a dull mirror ".repeat(100).as_slice(), b"\n"].concat();
            while going() && stream.write_all(&line).is_ok() {
                // Enough to matter, not enough to fill this machine's disks if somebody keeps it.
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

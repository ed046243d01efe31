//! Streams that users have open, so that those of one user, or of one token, can be ended. A request is judged when it
//! arrives; a stream goes on for as long as its reader likes, and must not outlive what it was allowed by.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fleet::id::Name;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Open {
    user: Name,
    token: Option<String>,
    end: CancellationToken,
}

/// The open streams of users.
#[derive(Debug, Default)]
pub struct OpenStreams {
    open: Mutex<HashMap<u64, Open>>,
    count: AtomicU64,
    cuts: AtomicU64,
}

impl OpenStreams {
    /// A stream begins.
    pub fn enter(self: &Arc<Self>, user: &Name, token: Option<&str>) -> OpenStream {
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        let end = CancellationToken::new();
        let open = Open { user: user.clone(), token: token.map(str::to_owned), end: end.clone() };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, open);
        OpenStream { streams: Arc::clone(self), id, end }
    }

    /// Ends all streams of a user. To be called after the commit by which nothing of his is let through any more.
    pub fn end_user(&self, user: &Name) {
        self.end(|open| open.user == *user);
    }

    /// Ends the streams of one token. To be called after the commit by which it is no longer good.
    pub fn end_token(&self, id: &str) {
        self.end(|open| open.token.as_deref() == Some(id));
    }

    /// Grows with each call that ended some: who was let through before and entered after it must be judged again.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    fn end(&self, is_it: impl Fn(&Open) -> bool) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|open| is_it(open)).for_each(|open| open.end.cancel());
    }
}

/// A stream's place among the [`OpenStreams`]; left when it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    streams: Arc<OpenStreams>,
    id: u64,
    /// Cancelled when it is to end.
    pub end: CancellationToken,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_end_by_user_and_by_token_and_leave_when_dropped() {
        let streams = Arc::new(OpenStreams::default());
        let (maria, jo): (Name, Name) = ("maria".parse().unwrap(), "jo".parse().unwrap());
        let by_token = streams.enter(&maria, Some("t1"));
        let by_other = streams.enter(&maria, Some("t2"));
        let by_certificate = streams.enter(&maria, None);
        let of_jo = streams.enter(&jo, Some("t3"));
        let ended = |all: &[&OpenStream]| all.iter().map(|one| one.end.is_cancelled()).collect::<Vec<_>>();
        let before = streams.cuts();
        streams.end_token("t1");
        assert_eq!(ended(&[&by_token, &by_other, &by_certificate, &of_jo]), [true, false, false, false]);
        streams.end_user(&"MARIA".parse().unwrap());
        assert_eq!(ended(&[&by_token, &by_other, &by_certificate, &of_jo]), [true, true, true, false]);
        assert!(streams.cuts() > before);
        drop((by_token, by_other, by_certificate));
        assert_eq!(streams.open.lock().unwrap().len(), 1);
    }
}

//! A bounded queue towards one receiver of a stream. Its sender never waits, and may end the stream with a
//! status that overtakes whatever still waits in the queue. Does not know what it carries.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

/// The receiver has not taken what waits for it, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// As many items wait as the queue holds.
    #[error("the receiver does not read: its queue is full")]
    Full,
    /// The receiver has dropped its end.
    #[error("the receiver is gone")]
    Gone,
}

/// A queue of at most `len` items, at least one.
#[must_use]
pub fn line<T>(len: usize) -> (LineSender<T>, Line<T>) {
    let (items, waiting) = mpsc::channel(len.max(1));
    let (end, ended) = oneshot::channel();
    let cut = CancellationToken::new();
    let sender = LineSender { items, end: Some(end), cut: cut.clone().drop_guard(), token: cut };
    (sender, Line { waiting, ended: Some(ended), done: false })
}

/// The sender's end. When it is dropped the receiver gets what waits, and then an orderly end.
#[derive(Debug)]
pub struct LineSender<T> {
    items: mpsc::Sender<T>,
    end: Option<oneshot::Sender<Status>>,
    #[expect(dead_code, reason = "its drop cancels the token")]
    cut: DropGuard,
    token: CancellationToken,
}

impl<T> LineSender<T> {
    /// Puts one item into the queue; never waits.
    ///
    /// # Errors
    /// [`Stuck`] when the queue is full or the receiver gone; the item is lost.
    pub fn try_send(&self, item: T) -> Result<(), Stuck> {
        self.items.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Stuck::Full,
            mpsc::error::TrySendError::Closed(_) => Stuck::Gone,
        })
    }

    /// Puts one item into the queue, waiting for room.
    ///
    /// # Errors
    /// [`Stuck::Gone`] when the receiver is gone.
    pub async fn send(&self, item: T) -> Result<(), Stuck> {
        self.items.send(item).await.map_err(|_| Stuck::Gone)
    }

    /// Ends the stream with this status, at once: what waits in the queue is dropped.
    pub fn end(mut self, status: Status) {
        if let Some(end) = self.end.take() {
            // A receiver that is gone needs no status.
            drop(end.send(status));
        }
    }

    /// Cancelled when the sender is dropped or has ended the stream.
    #[must_use]
    pub fn cut(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits until the receiver is gone.
    pub async fn gone(&self) {
        self.items.closed().await;
    }
}

/// The receiver's end: the body of a streamed answer.
#[derive(Debug)]
pub struct Line<T> {
    waiting: mpsc::Receiver<T>,
    ended: Option<oneshot::Receiver<Status>>,
    done: bool,
}

impl<T> Stream for Line<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let ended = self.ended.as_mut().map(|ended| Pin::new(ended).poll(context));
        match ended {
            Some(Poll::Ready(Ok(status))) => {
                self.done = true;
                self.waiting.close();
                return Poll::Ready(Some(Err(status)));
            }
            Some(Poll::Ready(Err(_))) => self.ended = None,
            Some(Poll::Pending) | None => {}
        }
        let next = self.waiting.poll_recv(context);
        if matches!(next, Poll::Ready(None)) {
            self.done = true;
        }
        next.map(|item| item.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_sent_arrives_in_order_and_then_the_end() {
        let (sender, mut line) = line(4);
        for n in 0..3 {
            sender.try_send(n).unwrap();
        }
        let cut = sender.cut();
        assert!(!cut.is_cancelled());
        drop(sender);
        assert!(cut.is_cancelled());
        let mut got = Vec::new();
        while let Some(item) = line.next().await {
            got.push(item.unwrap());
        }
        assert_eq!(got, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_full_line_never_waits_and_its_end_overtakes_what_waits() {
        let (sender, mut line) = line(2);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(Stuck::Full));
        let cut = sender.cut();
        sender.end(Status::aborted("over"));
        assert!(cut.is_cancelled());
        assert_eq!(line.next().await.unwrap().unwrap_err().code(), tonic::Code::Aborted);
        assert!(line.next().await.is_none());
    }

    #[tokio::test]
    async fn a_receiver_that_left_is_noticed() {
        let (sender, line) = line(1);
        drop(line);
        sender.gone().await;
        assert_eq!(sender.try_send(1), Err(Stuck::Gone));
    }
}

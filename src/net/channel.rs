//! A channel in use: its reader and its writer, each the only owner of its half of the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use super::clock::Clock;
use super::lent::Sink;
use super::records::{Outbound, ReadError, Received, RecordReader, RecordWriter};
use crate::model::{RequestId, len_u64};
use crate::session::LossReason;
use crate::wire::Message;

/// What a channel's writer is told.
#[derive(Debug)]
enum Command<M> {
    /// Send a record.
    Record {
        /// The request, and the id below which all answers are in.
        ids: (RequestId, RequestId),
        /// The message.
        message: M,
        /// The payload, if any.
        payload: Option<Outbound>,
    },
    /// Close the connection once everything before is out.
    Close,
}

/// Records that may wait for a channel's writer. Credits keep a well-behaved peer far below; one that asks and
/// never reads its answers is cut off here.
const QUEUE_MAX: usize = 1024;
/// How long a channel that is closed may take to put out what is queued.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How long a control channel that is cut may take to say so.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(200);

/// Gives records to a channel's writer.
#[derive(Debug)]
pub struct Outbox<M> {
    commands: mpsc::UnboundedSender<Command<M>>,
    waiting: Arc<AtomicUsize>,
    /// How long the closed channel may take to put out what is queued; none: it is not closed.
    closing: watch::Sender<Option<Duration>>,
}

/// Where a channel's writer gets its records from.
#[derive(Debug)]
pub struct Backlog<M> {
    commands: mpsc::UnboundedReceiver<Command<M>>,
    waiting: Arc<AtomicUsize>,
    closing: watch::Receiver<Option<Duration>>,
}

/// The two ends of the queue in front of a channel's writer.
#[must_use]
pub fn outbox<M>() -> (Outbox<M>, Backlog<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (closing, is_closing) = watch::channel(None);
    let waiting = Arc::new(AtomicUsize::new(0));
    (
        Outbox { commands: sender, waiting: Arc::clone(&waiting), closing },
        Backlog { commands: receiver, waiting, closing: is_closing },
    )
}

impl<M> Outbox<M> {
    /// Queues a record. A writer that has ended takes none, which its core has heard or is about to hear; one
    /// whose queue is full is closed.
    pub fn send(&self, ids: (RequestId, RequestId), message: M, payload: Option<Outbound>) {
        if self.closing.borrow().is_some() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            self.close();
            return;
        }
        drop(self.commands.send(Command::Record { ids, message, payload }));
    }

    /// Closes the channel behind everything that is queued, and without it if that takes too long.
    pub fn close(&self) {
        self.close_within(CLOSE_LIMIT);
    }

    /// Closes the channel once everything that is queued is out or `limit` has passed; with none, nothing more leaves
    /// at all, not even what the kernel has. The shortest limit that was ever given holds.
    fn close_within(&self, limit: Duration) {
        let mut is_first = false;
        self.closing.send_if_modified(|closing| {
            is_first = closing.is_none();
            let is_sooner = closing.is_none_or(|other| limit < other);
            if is_sooner {
                *closing = Some(limit);
            }
            is_sooner
        });
        if is_first {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            // A writer that is gone needs no telling.
            drop(self.commands.send(Command::Close));
        }
    }
}

/// Waits until a channel was closed and its time is over.
async fn time_is_over(closing: &mut watch::Receiver<Option<Duration>>) {
    loop {
        let limit = *closing.borrow_and_update();
        match limit {
            Some(Duration::ZERO) => return,
            Some(limit) => tokio::select! {
                Ok(()) = closing.changed() => {}
                () = Clock.sleep(limit) => return,
            },
            None => {
                if closing.changed().await.is_err() {
                    // Nobody can close it any more.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl<M> Backlog<M> {
    /// Whether nothing more may leave.
    fn is_cut(&self) -> bool {
        *self.closing.borrow() == Some(Duration::ZERO)
    }

    async fn next(&mut self) -> Option<Command<M>> {
        let command = self.commands.recv().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        command
    }

    fn next_at_once(&mut self) -> Option<Command<M>> {
        let command = self.commands.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(command)
    }
}

/// The queue of a channel's writer, by the kind of the channel.
#[derive(Debug)]
pub enum Queue<C, D> {
    /// Of a control channel.
    Control(Outbox<C>),
    /// Of a data channel.
    Data(Outbox<D>),
}

impl<C, D> Queue<C, D> {
    /// As [`Outbox::close`].
    pub fn close(&self) {
        match self {
            Self::Control(outbox) => outbox.close(),
            Self::Data(outbox) => outbox.close(),
        }
    }

    /// Closes a channel whose peer may have nothing more: a data channel sends nothing from now on, and a control
    /// channel has a moment for what is queued, the last of which says why.
    pub fn cut(&self) {
        match self {
            Self::Control(outbox) => outbox.close_within(LAST_WORD_LIMIT),
            Self::Data(outbox) => outbox.close_within(Duration::ZERO),
        }
    }
}

/// Runs a channel until it ends, and tells why. `on_record` gets every verified record; `on_written` the length of
/// every payload that has been given to the kernel. `discard` is for the transport of a channel that ends before its
/// queue is empty: what the kernel has of it is to be thrown away.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn run_channel<I, O, R, W>(
    mut reader: RecordReader<I, R>,
    writer: RecordWriter<O, W>,
    backlog: Backlog<O>,
    mut on_record: impl FnMut(Received<I>),
    on_written: impl Fn(u64) + Send + 'static,
    discard: impl FnOnce(&R),
) -> LossReason
where
    I: Message,
    O: Message + Send + Sync + 'static,
    R: AsyncRead + Unpin,
    W: Sink + Send + Sync + 'static,
{
    let mut closing = backlog.closing.clone();
    // A task of its own, so that sealing and opening can use two processors.
    let mut writing = AbortOnDrop(tokio::spawn(write_all(writer, backlog, on_written).in_current_span()));
    let reading = async {
        loop {
            match reader.next().await {
                Ok(received) => on_record(received),
                Err(error) => break error,
            }
        }
    };
    let reason = tokio::select! {
        // Whoever is cut is not read from either.
        biased;
        () = time_is_over(&mut closing) => {
            discard(reader.transport());
            return LossReason::Closed;
        }
        error = reading => {
            tracing::debug!(why = %with_sources(&error), "channel ended");
            match error {
                ReadError::Record(_) | ReadError::Body(_) | ReadError::Trailer => LossReason::Offence,
                ReadError::Ended | ReadError::Broken(_) => LossReason::Broken,
            }
        }
        // The writer has failed, or was told to close.
        _ = &mut writing.0 => LossReason::Broken,
    };
    if *closing.borrow() == Some(Duration::ZERO) {
        discard(reader.transport());
    }
    reason
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write_all<M: Message, W: Sink>(
    mut writer: RecordWriter<M, W>,
    mut backlog: Backlog<M>,
    on_written: impl Fn(u64),
) {
    while let Some(command) = backlog.next().await {
        let mut next = Some(command);
        // Everything that is queued leaves before the flush.
        while let Some(command) = next {
            let Command::Record { ids, message, payload } = command else {
                // The peer may be gone already; closing needs no witness.
                drop(writer.flush().await);
                writer.shutdown().await;
                return;
            };
            if backlog.is_cut() {
                return;
            }
            let bytes = payload.as_ref().map(|payload| len_u64(payload.len()));
            if let Err(error) = writer.write(&message, ids, payload).await {
                tracing::debug!(%error, "a channel's writer failed");
                return;
            }
            if let Some(bytes) = bytes {
                on_written(bytes);
            }
            next = backlog.next_at_once();
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

/// An error and all that is behind it, in one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        line.push_str(": ");
        line.push_str(&behind.to_string());
        source = behind.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::wire::data::Pong;
    use crate::wire::{ServerControl, ServerData};

    #[tokio::test]
    async fn a_peer_that_asks_and_never_reads_fills_no_more_than_the_queue() {
        let (outbox, mut backlog) = outbox::<ServerData>();
        for _ in 0..QUEUE_MAX * 4 {
            outbox.send((RequestId::NONE, RequestId::NONE), Pong {}.into(), None);
        }
        assert_eq!(*backlog.closing.borrow(), Some(CLOSE_LIMIT));
        let mut queued = 0;
        while let Some(Command::Record { .. }) = backlog.next_at_once() {
            queued += 1;
        }
        assert_eq!(queued, QUEUE_MAX);
        assert!(backlog.next_at_once().is_none(), "one close, however often it was asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_has_as_long_as_its_close_allows_and_the_shortest_counts() {
        /// Whether the time is over after twice this long, and not after half of it.
        async fn lasts(closing: &mut watch::Receiver<Option<Duration>>, limit: Duration) -> bool {
            timeout(limit / 2, time_is_over(closing)).await.is_err()
                && timeout(limit * 2, time_is_over(closing)).await.is_ok()
        }

        let (data, backlog) = outbox::<ServerData>();
        let mut closing = backlog.closing.clone();
        let queue: Queue<ServerControl, _> = Queue::Data(data);
        queue.close();
        assert!(!backlog.is_cut());
        queue.cut();
        assert!(backlog.is_cut(), "whoever writes asks before each record");
        queue.close();
        assert!(timeout(Duration::ZERO, time_is_over(&mut closing)).await.is_ok(), "at once");

        let (control, backlog) = outbox();
        let mut closing = backlog.closing.clone();
        let queue: Queue<ServerControl, ServerData> = Queue::Control(control);
        queue.cut();
        assert!(!backlog.is_cut(), "its last record says why");
        drop(queue);
        assert!(lasts(&mut closing, LAST_WORD_LIMIT).await);

        let (data, backlog) = outbox::<ServerData>();
        let mut closing = backlog.closing.clone();
        data.close();
        assert!(lasts(&mut closing, CLOSE_LIMIT).await);
    }

    #[tokio::test]
    async fn what_was_written_makes_room() {
        let (outbox, mut backlog) = outbox::<ServerData>();
        for _ in 0..QUEUE_MAX * 4 {
            outbox.send((RequestId::NONE, RequestId::NONE), Pong {}.into(), None);
            assert!(matches!(backlog.next().await, Some(Command::Record { .. })));
        }
        assert_eq!(*backlog.closing.borrow(), None);
    }
}

//! A channel in use: its reader and its writer, each the only owner of its half of the socket.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::records::{Outbound, ReadError, Received, RecordReader, RecordWriter};
use crate::model::{RequestId, len_u64};
use crate::session::LossReason;
use crate::wire::Message;

/// What a channel's writer is told. Its queue is bounded by the credits that the cores hand out.
#[derive(Debug)]
pub enum Command<M> {
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

/// The queue of a channel's writer, by the kind of the channel.
#[derive(Debug)]
pub enum Queue<C, D> {
    /// Of a control channel.
    Control(mpsc::UnboundedSender<Command<C>>),
    /// Of a data channel.
    Data(mpsc::UnboundedSender<Command<D>>),
}

impl<C, D> Queue<C, D> {
    /// Closes the channel behind everything that is queued.
    pub fn close(&self) {
        // A writer that is gone needs no telling.
        match self {
            Self::Control(queue) => drop(queue.send(Command::Close)),
            Self::Data(queue) => drop(queue.send(Command::Close)),
        }
    }
}

/// Runs a channel until it ends, and tells why. `on_record` gets every verified record; `on_written` the length of
/// every payload that has been given to the kernel.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn run_channel<I, O, R, W>(
    mut reader: RecordReader<I, R>,
    writer: RecordWriter<O, W>,
    queue: mpsc::UnboundedReceiver<Command<O>>,
    mut on_record: impl FnMut(Received<I>),
    on_written: impl Fn(u64) + Send + 'static,
) -> LossReason
where
    I: Message,
    O: Message + Send + Sync + 'static,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    // A task of its own, so that sealing and opening can use two processors.
    let mut writing = AbortOnDrop(tokio::spawn(write_all(writer, queue, on_written)));
    let reading = async {
        loop {
            match reader.next().await {
                Ok(received) => on_record(received),
                Err(error) => break error,
            }
        }
    };
    tokio::select! {
        error = reading => {
            tracing::debug!(why = %with_sources(&error), "channel ended");
            match error {
                ReadError::Record(_) | ReadError::Body(_) => LossReason::Offence,
                ReadError::Ended | ReadError::Broken(_) => LossReason::Broken,
            }
        }
        // The writer has failed, or was told to close.
        _ = &mut writing.0 => LossReason::Broken,
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write_all<M: Message, W: AsyncWrite + Unpin>(
    mut writer: RecordWriter<M, W>,
    mut queue: mpsc::UnboundedReceiver<Command<M>>,
    on_written: impl Fn(u64),
) {
    while let Some(command) = queue.recv().await {
        let mut next = Some(command);
        // Everything that is queued leaves before the flush.
        while let Some(command) = next {
            let Command::Record { ids, message, payload } = command else {
                // The peer may be gone already; closing needs no witness.
                drop(writer.flush().await);
                writer.shutdown().await;
                return;
            };
            let bytes = payload.as_ref().map(|payload| len_u64(payload.len()));
            if let Err(error) = writer.write(&message, ids, payload).await {
                tracing::debug!(%error, "a channel's writer failed");
                return;
            }
            if let Some(bytes) = bytes {
                on_written(bytes);
            }
            next = queue.try_recv().ok();
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

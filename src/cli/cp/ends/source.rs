//! What is copied: what it is, where its holes are, and its bytes in order.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use bowline::client::{Error, File};
use bowline::model::{Attributes, len_u64};
use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use super::{CHUNK, Room, Trouble, Turns, blocking};
use crate::cli::cp::journal::Version;

/// What is copied.
#[derive(Debug, Clone)]
pub(in crate::cli::cp) enum Source {
    /// A server's, and the turns of what it is asked for.
    Remote(Arc<File>, Turns),
    Local(Arc<std::fs::File>),
}

/// What a file is at one moment.
#[derive(Debug, Clone)]
pub(in crate::cli::cp) struct State {
    pub(in crate::cli::cp) version: Version,
    pub(in crate::cli::cp) allocated: u64,
    pub(in crate::cli::cp) permissions: u32,
}

impl State {
    fn of_server(of: &Attributes) -> Self {
        Self {
            version: Version { len: of.len, modified_ns: of.modified_ns, changed_ns: of.changed_ns },
            allocated: of.allocated,
            permissions: of.permissions,
        }
    }
}

impl Source {
    /// What the source is now.
    pub(in crate::cli::cp) async fn state(&self) -> Result<State, Trouble> {
        match self {
            Self::Remote(file, _) => Ok(State::of_server(&file.stat().await?.attributes)),
            Self::Local(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let of = file.metadata()?;
                    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
                    Ok(State {
                        version: Version {
                            len: of.len(),
                            modified_ns: ns(of.mtime(), of.mtime_nsec()),
                            changed_ns: ns(of.ctime(), of.ctime_nsec()),
                        },
                        allocated: of.blocks().saturating_mul(512),
                        permissions: of.mode() & 0o7777,
                    })
                })
                .await
            }
        }
    }

    /// What the source was when it was opened, without a question to anybody; `None` where that has to be asked.
    pub(in crate::cli::cp) fn opened(&self) -> Option<State> {
        let Self::Remote(file, _) = self else { return None };
        Some(State::of_server(&file.state().attributes))
    }

    /// The first piece from `from` on that is no hole; `None` if there is none before the end.
    pub(in crate::cli::cp) async fn next_data(
        &self,
        from: u64,
        len: u64,
    ) -> Result<Option<(u64, u64)>, Trouble> {
        match self {
            Self::Remote(file, _) => {
                let Some(start) = file.seek_data(from).await? else { return Ok(None) };
                let end = file.seek_hole(start).await?.unwrap_or(len);
                Ok(Some((start, end.min(len))).filter(|(start, end)| start < end))
            }
            Self::Local(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let start = match rustix::fs::seek(&file, SeekFrom::Data(from)) {
                        Ok(start) => start,
                        Err(Errno::NXIO) => return Ok(None),
                        // A file system without holes.
                        Err(Errno::INVAL) => from,
                        Err(errno) => return Err(errno.into()),
                    };
                    let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap_or(len);
                    Ok(Some((start, end.min(len))).filter(|(start, end)| start < end))
                })
                .await
            }
        }
    }

    /// The bytes from `start` to `end`, in order; of a server's file so many are asked for ahead.
    pub(in crate::cli::cp) fn chunks(&self, start: u64, end: u64, window: u64, room: &Room) -> Chunks {
        let room = Arc::clone(room);
        match self {
            Self::Remote(file, turns) => Chunks::Remote {
                file: Arc::clone(file),
                turns: turns.clone(),
                asked: VecDeque::new(),
                at: start,
                end,
                window,
                room,
            },
            Self::Local(file) => Chunks::Local { file: Arc::clone(file), at: start, end, room },
        }
    }

    /// The bytes before `end`, at most so many; fewer where the file is shorter.
    pub(in crate::cli::cp) async fn bytes(&self, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
        match self {
            Self::Remote(file, _) => read_remote(file, start, len).await,
            Self::Local(file) => read_local(Arc::clone(file), start, len).await,
        }
    }
}

pub(super) async fn read_remote(file: &File, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
    let mut bytes = vec![0; len];
    let read = file.read_at(start, &mut bytes).await?;
    bytes.truncate(read);
    Ok(bytes)
}

pub(super) async fn read_local(file: Arc<std::fs::File>, start: u64, len: usize) -> Result<Vec<u8>, Trouble> {
    blocking(move || {
        let mut bytes = vec![0; len];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, start.saturating_add(len_u64(read)))? {
                0 => break,
                more => read = read.saturating_add(more),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    })
    .await
}

/// Bytes of a source in order.
pub(in crate::cli::cp) enum Chunks {
    Remote {
        file: Arc<File>,
        turns: Turns,
        /// What was asked for, oldest first.
        asked: VecDeque<Asked>,
        at: u64,
        end: u64,
        window: u64,
        room: Room,
    },
    Local {
        file: Arc<std::fs::File>,
        at: u64,
        end: u64,
        room: Room,
    },
}

/// A chunk that is on its way, and its room.
type Asked = (AbortOnDropHandle<Result<Bytes, Error>>, OwnedSemaphorePermit);

impl Chunks {
    /// The next ones, with the room that they have until they are written; `None` at the end of the piece, or of the file.
    pub(in crate::cli::cp) async fn next(
        &mut self,
    ) -> Result<Option<(Bytes, OwnedSemaphorePermit)>, Trouble> {
        match self {
            Self::Remote { file, turns, asked, at, end, window, room } => {
                while *at < *end && len_u64(asked.len()).saturating_mul(CHUNK) < *window {
                    let (file, start) = (Arc::clone(file), *at);
                    let len = end.saturating_sub(start).min(CHUNK);
                    // Nobody waits for room, or for a turn, while others may wait for those of what was asked for here.
                    let (held, turn) = match (Arc::clone(room).try_acquire_owned(), turns.try_take(len)) {
                        (Ok(held), Some(turn)) => (held, turn),
                        (free, turn) if asked.is_empty() => {
                            drop((free, turn));
                            (held(room).await?, turns.take(len).await?)
                        }
                        _ => break,
                    };
                    let wanted = usize::try_from(len).unwrap_or(usize::MAX);
                    let asking = tokio::spawn(async move {
                        let ranges = file.read_ranges(&[(start, wanted)]).await?;
                        drop(turn);
                        Ok(ranges.into_iter().next().unwrap_or_default())
                    });
                    asked.push_back((AbortOnDropHandle::new(asking), held));
                    *at = start.saturating_add(len);
                }
                let Some((oldest, held)) = asked.pop_front() else { return Ok(None) };
                let bytes = oldest.await.map_err(|error| Trouble::Local(io::Error::other(error)))??;
                // A chunk that is cut is the end of the file, and what was asked for behind it is nothing.
                let is_cut = len_u64(bytes.len()) < CHUNK && !asked.is_empty();
                Ok((!bytes.is_empty() && !is_cut).then_some((bytes, held)))
            }
            Self::Local { file, at, end, room } => {
                let left = end.saturating_sub(*at).min(CHUNK);
                if left == 0 {
                    return Ok(None);
                }
                let held = held(room).await?;
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                let bytes = read_local(Arc::clone(file), *at, left).await?;
                *at = at.saturating_add(len_u64(bytes.len()));
                Ok((!bytes.is_empty()).then(|| (bytes.into(), held)))
            }
        }
    }
}

/// Waits for the room of a chunk.
async fn held(room: &Room) -> Result<OwnedSemaphorePermit, Trouble> {
    Arc::clone(room).acquire_owned().await.map_err(|closed| Trouble::Local(io::Error::other(closed)))
}

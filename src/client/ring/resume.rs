//! Files that come back in a new process, and files that are kept so that they can.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::adopted::{Adopted, Spot};
use super::format::Entry;
use super::{Keeper, KeptOpen, KeyRing, KeyRingError};
use crate::client::{Error, File, Session};
use crate::model::{ExportName, ExportPath, HandleId, Limits, LineSet, Reason};
use crate::net::Clock;

/// What became of an open that a process had which is gone.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The open.
    pub kept: KeptOpen,
    /// The file, with its locks and its rights and a new handle. [`File::meanwhile`] says what became of its content.
    pub outcome: Result<File, Error>,
}

impl Session {
    /// Gets back every file that clients of this user had open on this server and whose processes are gone, from the
    /// folder of [`Client::with_key_ring`](super::super::Client::with_key_ring). Without one there is nothing to get
    /// back. What another process is just getting back is not among them.
    ///
    /// Each new handle takes the place of the lost one, none of whose late requests executes any more. What cannot come
    /// back for good is told once and forgotten: [`Reason::ResumeRefused`], [`Reason::TakenOver`],
    /// [`Reason::Expired`], [`Reason::Released`], [`Reason::Revoked`] and [`Error::StateLost`]. After any other error
    /// it can be tried again.
    ///
    /// # Errors
    /// [`Error::KeyRing`] if the folder cannot be used. What goes wrong with one open is its own outcome.
    ///
    /// # Cancel safety
    /// Not cancel safe: files that have come back by then are closed.
    pub async fn resume_all(&self) -> Result<Vec<Resumed>, Error> {
        self.resume_some(|_| true).await
    }

    /// As [`Session::resume_all`], of those opens alone that `is_wanted` chooses.
    ///
    /// # Errors
    /// As [`Session::resume_all`].
    ///
    /// # Cancel safety
    /// As [`Session::resume_all`].
    pub async fn resume_some(
        &self,
        is_wanted: impl Fn(&KeptOpen) -> bool + Send,
    ) -> Result<Vec<Resumed>, Error> {
        let guard = self.guard();
        let Some(ring) = guard.ring() else { return Ok(Vec::new()) };
        let _one_at_a_time = ring.adopting.lock().await;
        let folder = ring.folder().to_owned();
        let runtime = &guard.inner().runtime;
        let taking = runtime.spawn_blocking(move || Adopted::take(&folder)).await;
        let (mut adopted, entries) = taking.map_err(|error| ring.stopped(error))??;
        let server = guard.server();
        let is_meant = |(_, entry): &(Spot, Entry)| entry.kept.server == server && is_wanted(&entry.kept);
        let mut waiting: VecDeque<_> = entries.into_iter().filter(is_meant).enumerate().collect();
        let mut under_way = JoinSet::new();
        let mut resumed = Vec::with_capacity(waiting.len());
        loop {
            while under_way.len() < Limits::RESUMES_AT_ONCE
                && let Some((number, (spot, entry))) = waiting.pop_front()
            {
                let (session, ring) = (self.clone(), Arc::clone(ring));
                under_way.spawn_on(
                    async move {
                        let outcome = session.bring_back(&ring, &entry).await;
                        (number, spot, Resumed { kept: entry.kept, outcome })
                    },
                    runtime,
                );
            }
            let Some(ended) = under_way.join_next().await else { break };
            let (number, spot, one) = ended.map_err(|error| ring.stopped(error))?;
            if one.outcome.as_ref().err().is_none_or(is_for_good) {
                adopted.wipe(spot);
            }
            resumed.push((number, one));
        }
        let finishing = runtime.spawn_blocking(move || adopted.finish()).await;
        finishing.map_err(|error| ring.stopped(error))?;
        resumed.sort_by_key(|(number, _)| *number);
        Ok(resumed.into_iter().map(|(_, one)| one).collect())
    }

    async fn bring_back(&self, ring: &Arc<KeyRing>, entry: &Entry) -> Result<File, Error> {
        if entry.store != self.guard().store() {
            return Err(Error::StateLost);
        }
        let file = self.resume_in_place_of(entry.handle, &entry.key, LineSet::ALL).await?;
        let KeptOpen { export, path, .. } = entry.kept.clone();
        match file.keep_in(ring, (export, path), Some(entry.handle)).await {
            Ok(()) => Ok(file),
            Err(error) => {
                // The old entry stays, and its key with it.
                file.leave_open();
                Err(error)
            }
        }
    }
}

impl File {
    /// Puts the way back to this file into a ring, and waits until the disk has it.
    pub(in crate::client) async fn keep_in(
        &self,
        ring: &Arc<KeyRing>,
        (export, path): (ExportName, ExportPath),
        in_place_of: Option<HandleId>,
    ) -> Result<(), Error> {
        // The handle first: if the session comes back from now on, it is another one by then, and the entry is written anew.
        let handle = self.handle();
        let key = self.resume_key().await?;
        let guard = self.caller().guard();
        let kept = KeptOpen {
            id: key.file_id,
            server: guard.server(),
            export,
            path,
            mode: self.state().mode,
            kept_us: Clock.wall_us(),
        };
        let entry = Entry { kept: kept.clone(), store: guard.store(), handle, in_place_of, key };
        let added = ring.add(&entry)?;
        drop(entry);
        let keeper = Arc::new(Keeper::new(ring, kept, handle, added));
        let inner = guard.inner();
        inner.keepers.insert(self.name(), &keeper);
        inner.keepers.renew(inner, self.name());
        self.set_kept(keeper);
        Ok(ring.settle(&inner.runtime).await?)
    }
}

/// Whether no later attempt with the same key can succeed.
fn is_for_good(error: &Error) -> bool {
    match error {
        Error::StateLost => true,
        error => matches!(
            error.reason(),
            Some(
                Reason::ResumeRefused
                    | Reason::TakenOver
                    | Reason::Expired
                    | Reason::Released
                    | Reason::Revoked
            )
        ),
    }
}

impl From<KeyRingError> for Error {
    fn from(error: KeyRingError) -> Self {
        Self::KeyRing(error)
    }
}

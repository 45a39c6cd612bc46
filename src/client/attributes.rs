//! What an open file has beside its bytes: length, times, permissions, storage, holes.

use super::error::Error;
use super::file::File;
use crate::model::{Allocation, AttributeChange, Attributes, ByteRange, Seekable, SetTime};
use crate::wire::ServerControl;
use crate::wire::control::{Allocate, Change, Seek, Target};

impl File {
    /// Cuts the file to `len` bytes, or extends it with zeros. Tells its attributes as they are then.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Reason::Locked`](crate::model::Reason::Locked) if others have locked bytes that would
    /// change; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; the change may happen all the same.
    pub async fn set_len(&self, len: u64) -> Result<Attributes, Error> {
        self.change(AttributeChange { len: Some(len), ..AttributeChange::default() }).await
    }

    /// Sets the times of the last read and of the last change of the bytes; `None` leaves one as it is. Tells the
    /// attributes as they are then.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; the change may happen all the same.
    pub async fn set_times(
        &self,
        accessed: Option<SetTime>,
        modified: Option<SetTime>,
    ) -> Result<Attributes, Error> {
        self.change(AttributeChange { accessed, modified, ..AttributeChange::default() }).await
    }

    /// Sets the permission bits, which the server masks. Tells the attributes as they are then.
    ///
    /// # Errors
    /// As [`File::set_times`].
    ///
    /// # Cancel safety
    /// As [`File::set_times`].
    pub async fn set_permissions(&self, permissions: u32) -> Result<Attributes, Error> {
        self.change(AttributeChange { permissions: Some(permissions), ..AttributeChange::default() }).await
    }

    /// Reserves storage for a range, so that writing there finds room.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Reason::NoSpace`](crate::model::Reason::NoSpace) or
    /// [`Reason::Unsupported`](crate::model::Reason::Unsupported) by the file system; [`Error::TimedOut`];
    /// [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may happen all the same.
    pub async fn allocate(&self, range: ByteRange, how: Allocation) -> Result<(), Error> {
        self.caller().done(Allocate { handle: self.name(), range: range.raw(), how }).await
    }

    /// Gives the storage of a range back: it reads as zeros. The length stays.
    ///
    /// # Errors
    /// As [`File::allocate`].
    ///
    /// # Cancel safety
    /// As [`File::allocate`].
    pub async fn punch_hole(&self, range: ByteRange) -> Result<(), Error> {
        self.allocate(range, Allocation::PunchHole).await
    }

    /// The offset of the next byte at or behind `offset` that may hold data; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn seek_data(&self, offset: u64) -> Result<Option<u64>, Error> {
        self.seek(offset, Seekable::Data).await
    }

    /// The offset of the next byte of a hole at or behind `offset`; the end of the file counts as one. `None` behind it.
    ///
    /// # Errors
    /// As [`File::seek_data`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn seek_hole(&self, offset: u64) -> Result<Option<u64>, Error> {
        self.seek(offset, Seekable::Hole).await
    }

    async fn seek(&self, offset: u64, what: Seekable) -> Result<Option<u64>, Error> {
        match self.caller().control(Seek { handle: self.name(), offset, what }).await? {
            ServerControl::Sought(sought) => Ok(sought.offset),
            _ => Err(Error::Protocol),
        }
    }

    async fn change(&self, change: AttributeChange) -> Result<Attributes, Error> {
        let target = Target::Handle(self.name());
        match self.caller().control(Change { target, change }).await? {
            ServerControl::Changed(changed) => {
                self.note(changed.attributes);
                Ok(changed.attributes)
            }
            _ => Err(Error::Protocol),
        }
    }
}

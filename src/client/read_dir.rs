//! Listing a directory: pages of entries, one of them fetched ahead.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::future::poll_fn;
use std::os::unix::ffi::OsStrExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use super::calls::{Caller, Pending, Reply as _, control_answer};
use super::error::Error;
use crate::model::{Attributes, ExportPath, FileKind, FileName};
use crate::session::client::Answer;
use crate::wire::ServerControl;
use crate::wire::names::{Cookie, DirectoryEntry, List, Place, decode_list};

/// The entries of a directory, from [`Export::read_dir`](super::Export::read_dir). A [`Stream`]; without one,
/// [`ReadDir::next_entry`].
///
/// While the entries of one page are taken, the next page is on its way. What is made or removed meanwhile may be
/// listed or not; what is there all the time is listed once. After an error the listing is over.
#[derive(Debug)]
pub struct ReadDir {
    caller: Caller,
    place: Place,
    with_attributes: bool,
    pages: Pages,
    page: Option<Pending>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    folder: ExportPath,
    entry: DirectoryEntry,
}

impl DirEntry {
    /// The name in its directory.
    #[must_use]
    pub fn file_name(&self) -> &OsStr {
        OsStr::from_bytes(self.entry.name.as_bytes())
    }

    /// The name, as it travelled.
    #[must_use]
    pub fn name(&self) -> &FileName {
        &self.entry.name
    }

    /// The path in the export.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Reason::NameTooLong`](crate::model::Reason::NameTooLong): what lies so deep can be
    /// listed, and not be named.
    pub fn path(&self) -> Result<ExportPath, Error> {
        Ok(self.folder.join(&self.entry.name)?)
    }

    /// What the name stands for; a symbolic link is one.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.entry.kind
    }

    /// The attributes, where they were asked for and could be had; those of a symbolic link are its own.
    #[must_use]
    pub fn attributes(&self) -> Option<Attributes> {
        self.entry.attributes
    }
}

impl ReadDir {
    pub(super) async fn begin(caller: Caller, place: Place, with_attributes: bool) -> Result<Self, Error> {
        let mut listing = Self { caller, place, with_attributes, pages: Pages::default(), page: None };
        // Whether there is such a directory is for the one who asks to list it.
        listing.ask(None);
        poll_fn(|cx| listing.poll_page(cx)).await?;
        Ok(listing)
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Reason::Stale`](crate::model::Reason::Stale) if the listing cannot go on, as the
    /// directory is not where it was: list it anew. [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe: no entry is lost.
    pub async fn next_entry(&mut self) -> Result<Option<DirEntry>, Error> {
        poll_fn(|cx| self.poll_next_entry(cx)).await
    }

    /// As [`ReadDir::next_entry`], for futures that are written by hand.
    ///
    /// # Errors
    /// As [`ReadDir::next_entry`].
    pub fn poll_next_entry(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<DirEntry>, Error>> {
        loop {
            if let Some(entry) = self.pages.entries.pop_front() {
                let folder = self.place.path.clone();
                return Poll::Ready(Ok(Some(DirEntry { folder, entry })));
            }
            if self.page.is_none() {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_page(cx))?;
        }
    }

    /// Takes the page that is on its way, and asks for the one behind it.
    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(page) = &mut self.page else { return Poll::Ready(Ok(())) };
        let outcome = ready!(page.poll_outcome(cx));
        self.page = None;
        let next = outcome.and_then(|answer| self.pages.take(answer));
        Poll::Ready(next.map(|next| {
            if next.is_some() {
                self.ask(next);
            }
        }))
    }

    fn ask(&mut self, cookie: Option<Cookie>) {
        let list = List { place: self.place.clone(), cookie, with_attributes: self.with_attributes };
        self.page = Some(self.caller.begin_control(list));
    }
}

impl Stream for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_entry(cx).map(Result::transpose)
    }
}

/// What has come of a listing.
#[derive(Debug, Default)]
struct Pages {
    entries: VecDeque<DirectoryEntry>,
    last: Option<Cookie>,
    /// Pages without an entry, in a row.
    empty: u32,
}

impl Pages {
    /// Takes a page, and tells where the listing goes on, if it does.
    fn take(&mut self, answer: Answer<Bytes>) -> Result<Option<Cookie>, Error> {
        let (ServerControl::Listed(listed), payload) = control_answer(answer)? else {
            return Err(Error::Protocol);
        };
        let entries: Vec<DirectoryEntry> = decode_list(&payload).map_err(|_| Error::Protocol)?;
        self.empty = if entries.is_empty() { self.empty.saturating_add(1) } else { 0 };
        // A server that goes on and gets nowhere would keep the caller for ever.
        let is_stuck = listed.next.is_some() && (listed.next == self.last || self.empty >= EMPTY_PAGES_MAX);
        if is_stuck {
            return Err(Error::Protocol);
        }
        self.entries.extend(entries);
        self.last = listed.next;
        Ok(listed.next)
    }
}

/// Pages without an entry that may follow each other.
const EMPTY_PAGES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::names::{Listed, encode_list};

    fn page(names: &[&str], next: Option<u8>) -> Answer<Bytes> {
        let mut payload = Vec::new();
        for name in names {
            let name = FileName::new(*name).unwrap();
            encode_list(&DirectoryEntry { name, kind: FileKind::File, attributes: None }, &mut payload);
        }
        let next = next.map(|byte| Cookie([byte; Cookie::LEN]));
        Answer::Control(Listed { next }.into(), Some(payload.into()))
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut pages = Pages::default();
        assert_eq!(pages.take(page(&["a", "b"], Some(1))).unwrap(), Some(Cookie([1; Cookie::LEN])));
        assert_eq!(pages.take(page(&[], Some(2))).unwrap(), Some(Cookie([2; Cookie::LEN])));
        assert_eq!(pages.take(page(&["c"], None)).unwrap(), None);
        let names: Vec<_> = pages.entries.iter().map(|entry| entry.name.as_bytes().to_vec()).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_listing_that_gets_nowhere_is_an_error() {
        let mut pages = Pages::default();
        pages.take(page(&["a"], Some(1))).unwrap();
        assert!(matches!(pages.take(page(&["a"], Some(1))), Err(Error::Protocol)), "the same cookie again");
        let mut pages = Pages::default();
        let stuck = (0..100).find(|&number| pages.take(page(&[], Some(number))).is_err());
        assert_eq!(stuck, Some(15));
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        let mut pages = Pages::default();
        let torn = Answer::Control(Listed { next: None }.into(), Some(Bytes::from_static(b"\x01")));
        assert!(matches!(pages.take(torn), Err(Error::Protocol)));
        assert!(matches!(pages.take(Answer::Read(None)), Err(Error::Protocol)));
    }

    #[test]
    fn an_entry_knows_its_path() {
        let entry = |folder: &[u8]| DirEntry {
            folder: ExportPath::new(folder).unwrap(),
            entry: DirectoryEntry {
                name: FileName::new("x").unwrap(),
                kind: FileKind::File,
                attributes: None,
            },
        };
        assert_eq!(entry(b"a/b").path().unwrap().as_bytes(), b"a/b/x");
        assert_eq!(entry(b"").path().unwrap().as_bytes(), b"x");
        let deep = b"a/".repeat(2047);
        let folder = deep.strip_suffix(b"/").unwrap();
        assert_eq!(entry(folder).path().unwrap().as_bytes().len(), 4095);
        let too_deep = [folder, b"b"].concat();
        assert!(entry(&too_deep).path().is_err());
    }
}

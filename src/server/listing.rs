//! Directories in pages. A page keeps nothing open: its cookie carries the place where the next one begins, so that a
//! client can list, leave and come back, over any channel, and cost the server nothing meanwhile.
//!
//! A cookie is the directory's own position (8 bytes, little-endian) and a tag over it and over which directory it is,
//! under a key of the server's life. So no client can hand a position to a file system that it did not give out.

use core::fmt;
use core::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use rustix::fs::{FileType, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::beneath::{Root, open_directory, resolve_link};
use super::files::refusal;
use super::stat::{attributes_of, kind_of, stat_of};
use crate::model::{Attributes, FileIdentity, FileName, Reason, Refusal};
use crate::wire::names::{Cookie, DirectoryEntry, List, encode_list};

/// Longest page, in bytes: it fits into a record of the length of the longest body, and costs a client one buffer.
const PAGE_LEN_MAX: usize = 56 << 10;
/// How much of a directory is read at once, in bytes.
const READ_LEN: usize = 32 << 10;
const TAG_LEN: usize = 16;
const POSITION_LEN: usize = 8;

const _: () = assert!(POSITION_LEN + TAG_LEN == Cookie::LEN);

/// The key of the cookies' tags. It lives as long as the server and is wiped when it ends.
pub(super) struct CookieKey(Zeroizing<[u8; Self::LEN]>);

impl CookieKey {
    /// Length in bytes.
    pub(super) const LEN: usize = 32;

    pub(super) fn new(key: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(key))
    }

    fn cookie(&self, directory: FileIdentity, position: u64) -> Cookie {
        let mut bytes = [0; Cookie::LEN];
        let tag = self.tag(directory, position);
        let parts = position.to_le_bytes().into_iter().chain(tag);
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Cookie(bytes)
    }

    /// The position in a cookie, if it is one of this server and of this directory; each wrong one costs the same.
    fn position(&self, directory: FileIdentity, cookie: &Cookie) -> Option<u64> {
        let (position, tag) = cookie.0.split_first_chunk::<POSITION_LEN>()?;
        let position = u64::from_le_bytes(*position);
        bool::from(self.tag(directory, position).ct_eq(tag)).then_some(position)
    }

    fn tag(&self, directory: FileIdentity, position: u64) -> [u8; TAG_LEN] {
        let mut mac = <Blake2sMac<U16> as KeyInit>::new((&*self.0).into());
        mac.update(&directory.device.to_le_bytes());
        mac.update(&directory.inode.to_le_bytes());
        mac.update(&directory.born_ns.to_le_bytes());
        mac.update(&position.to_le_bytes());
        mac.finalize_fixed().into()
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

/// The entries from the cookie's place on that fit into a page, encoded, and where the next page begins; no cookie if
/// this was the last. Names that stay while a directory is listed come once each.
///
/// # Errors
/// [`Reason::Stale`] if the cookie is not one of this server and this directory; else what the file system reports.
pub(super) fn page(root: &Root, list: &List, key: &CookieKey) -> Result<(Vec<u8>, Option<Cookie>), Refusal> {
    let directory = open_directory(root, list.place.path.as_bytes()).map_err(refusal)?;
    let identity = root.identity(&stat_of(&directory).map_err(refusal)?);
    let mut position = 0;
    if let Some(cookie) = &list.cookie {
        position = key.position(identity, cookie).ok_or(Reason::Stale)?;
        rustix::fs::seek(&directory, SeekFrom::Start(position)).map_err(refusal)?;
    }
    let (mut page, mut element) = (Vec::new(), Vec::new());
    let mut buffer = vec![MaybeUninit::uninit(); READ_LEN];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(refusal)?;
        if let Some(entry) = described(&directory, &entry, list.with_attributes).map_err(refusal)? {
            element.clear();
            encode_list(&entry, &mut element);
            if page.len().saturating_add(element.len()) > PAGE_LEN_MAX {
                return Ok((page, Some(key.cookie(identity, position))));
            }
            page.extend_from_slice(&element);
        }
        position = entry.next_entry_cookie();
    }
    Ok((page, None))
}

/// What the page says of an entry; nothing of the directory's own two names, and of what vanished meanwhile.
fn described(
    directory: &OwnedFd,
    entry: &RawDirEntry<'_>,
    with_attributes: bool,
) -> Result<Option<DirectoryEntry>, Errno> {
    // The kernel has no names that are none but "." and "..".
    let Ok(name) = FileName::new(entry.file_name().to_bytes()) else { return Ok(None) };
    let kind = entry.file_type();
    if !with_attributes && kind != FileType::Unknown {
        return Ok(Some(DirectoryEntry { name, kind: kind_of(kind), attributes: None }));
    }
    let found = match attributes(directory, &name) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        // Something is mounted on it: its name is of this directory, and all else is outside.
        Err(Errno::XDEV) => {
            return Ok(Some(DirectoryEntry { name, kind: kind_of(kind), attributes: None }));
        }
        Err(errno) => return Err(errno),
    };
    Ok(Some(DirectoryEntry { name, kind: found.kind, attributes: with_attributes.then_some(found) }))
}

/// Not `fstatat`: that would look through what is mounted on a name.
fn attributes(directory: &OwnedFd, name: &FileName) -> Result<Attributes, Errno> {
    let found = resolve_link(directory, name.as_bytes())?;
    stat_of(&found).map(|stat| attributes_of(&stat))
}

#[cfg(test)]
mod tests;

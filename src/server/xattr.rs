//! Extended attributes of open files and of what names stand for. Only the `user.` namespace is served: the others
//! belong to the server's kernel and its administrator.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::XattrFlags;
use rustix::path::DecInt;

use super::descriptors::Lease;
use super::files::refusal;
use crate::model::{Refusal, XattrHow, XattrName};
use crate::wire::names::encode_list;

/// The longest value, and the longest list of names, of any attribute in Linux, in bytes.
const LEN_MAX: usize = 64 << 10;

/// A file whose attributes are wanted.
#[derive(Debug)]
pub(super) enum Holder {
    /// It is open.
    Open(Lease),
    /// It was found by its name and is held without rights: the kernel looks at this process's rights each time.
    Found(OwnedFd),
}

impl Holder {
    /// The value of an attribute.
    pub(super) fn get(&self, name: &XattrName) -> Result<Vec<u8>, Refusal> {
        let mut value = vec![0; LEN_MAX];
        let len = match self {
            Self::Open(file) => rustix::fs::fgetxattr(file, name.as_bytes(), &mut value[..]),
            Self::Found(found) => rustix::fs::getxattr(own_path(found), name.as_bytes(), &mut value[..]),
        };
        value.truncate(len.map_err(refusal)?);
        Ok(value)
    }

    /// Sets an attribute.
    pub(super) fn set(&self, name: &XattrName, how: XattrHow, value: &[u8]) -> Result<(), Refusal> {
        let flags = match how {
            XattrHow::Set => XattrFlags::empty(),
            XattrHow::Create => XattrFlags::CREATE,
            XattrHow::Replace => XattrFlags::REPLACE,
        };
        let set = match self {
            Self::Open(file) => rustix::fs::fsetxattr(file, name.as_bytes(), value, flags),
            Self::Found(found) => rustix::fs::setxattr(own_path(found), name.as_bytes(), value, flags),
        };
        set.map_err(refusal)
    }

    /// The names of the attributes that are served, encoded as a list.
    pub(super) fn list(&self) -> Result<Vec<u8>, Refusal> {
        let mut names = vec![0; LEN_MAX];
        let len = match self {
            Self::Open(file) => rustix::fs::flistxattr(file, &mut names[..]),
            Self::Found(found) => rustix::fs::listxattr(own_path(found), &mut names[..]),
        };
        names.truncate(len.map_err(refusal)?);
        let mut list = Vec::new();
        // The kernel ends each name with a NUL.
        for name in names.split(|&byte| byte == 0).filter_map(|name| XattrName::new(name).ok()) {
            encode_list(&name, &mut list);
        }
        Ok(list)
    }

    /// Removes an attribute.
    pub(super) fn remove(&self, name: &XattrName) -> Result<(), Refusal> {
        let removed = match self {
            Self::Open(file) => rustix::fs::fremovexattr(file, name.as_bytes()),
            Self::Found(found) => rustix::fs::removexattr(own_path(found), name.as_bytes()),
        };
        removed.map_err(refusal)
    }
}

/// The path of a held file in this process's table of descriptors. The kernel takes attributes of what is held without
/// rights by no other way; it leads to that file, whatever its name stands for by now.
fn own_path(found: &OwnedFd) -> Vec<u8> {
    [b"/proc/self/fd/", DecInt::from_fd(found.as_fd()).as_bytes()].concat()
}

#[cfg(test)]
mod tests;

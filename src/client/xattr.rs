//! Extended attributes, of an open file and by name.

use bytes::Bytes;

use super::calls::{Caller, expect_done};
use super::error::{Error, refused};
use super::export::Export;
use super::file::File;
use crate::model::{NameError, Reason, XattrHow, XattrName};
use crate::wire::ServerControl;
use crate::wire::control::Target;
use crate::wire::names::{XattrGet, XattrList, XattrRemove, XattrSet, decode_list};

/// Extended attributes are those of the `user.` namespace, named with the prefix; others are refused with
/// [`Reason::Unsupported`].
impl File {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Reason::NoAttribute`] if the file has none of this name; [`Error::TimedOut`];
    /// [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn xattr(&self, name: impl AsRef<[u8]>) -> Result<Bytes, Error> {
        get(self.caller(), self.target(), name.as_ref()).await
    }

    /// Sets an extended attribute; [`XattrHow`] says whether it may or must be there.
    ///
    /// # Errors
    /// [`Error::Refused`], with [`Reason::AttributeTooBig`] for a value of more than 64 KiB, [`Reason::Exists`] or
    /// [`Reason::NoAttribute`] against `how`; [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be set all the same.
    pub async fn set_xattr(&self, name: impl AsRef<[u8]>, value: &[u8], how: XattrHow) -> Result<(), Error> {
        set(self.caller(), self.target(), name.as_ref(), (value, how)).await
    }

    /// The names of the extended attributes that are served.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn xattr_names(&self) -> Result<Vec<XattrName>, Error> {
        list(self.caller(), self.target()).await
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As [`File::xattr`].
    ///
    /// # Cancel safety
    /// Cancel safe; it may be removed all the same.
    pub async fn remove_xattr(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        remove(self.caller(), self.target(), name.as_ref()).await
    }

    fn target(&self) -> Target {
        Target::Handle(self.name())
    }
}

/// Extended attributes by name: a symbolic link is followed beneath the export.
impl Export {
    /// As [`File::xattr`], of what `path` names.
    ///
    /// # Errors
    /// As [`File::xattr`], and those of names.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Bytes, Error> {
        get(self.caller(), Target::Name(self.place(path)?), name.as_ref()).await
    }

    /// As [`File::set_xattr`], of what `path` names.
    ///
    /// # Errors
    /// As [`File::set_xattr`], and those of names.
    ///
    /// # Cancel safety
    /// As [`File::set_xattr`].
    pub async fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: &[u8],
        how: XattrHow,
    ) -> Result<(), Error> {
        set(self.caller(), Target::Name(self.place(path)?), name.as_ref(), (value, how)).await
    }

    /// As [`File::xattr_names`], of what `path` names.
    ///
    /// # Errors
    /// As [`File::xattr_names`], and those of names.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn xattr_names(&self, path: impl AsRef<[u8]>) -> Result<Vec<XattrName>, Error> {
        list(self.caller(), Target::Name(self.place(path)?)).await
    }

    /// As [`File::remove_xattr`], of what `path` names.
    ///
    /// # Errors
    /// As [`File::remove_xattr`], and those of names.
    ///
    /// # Cancel safety
    /// As [`File::remove_xattr`].
    pub async fn remove_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<(), Error> {
        remove(self.caller(), Target::Name(self.place(path)?), name.as_ref()).await
    }
}

async fn get(caller: &Caller, target: Target, name: &[u8]) -> Result<Bytes, Error> {
    match caller.control_payload(XattrGet { target, name: parse(name)? }).await? {
        (ServerControl::XattrValue(_), value) => Ok(value),
        _ => Err(Error::Protocol),
    }
}

async fn set(
    caller: &Caller,
    target: Target,
    name: &[u8],
    (value, how): (&[u8], XattrHow),
) -> Result<(), Error> {
    if value.len() > VALUE_LEN_MAX {
        return Err(refused(Reason::AttributeTooBig));
    }
    let set = XattrSet { target, name: parse(name)?, how };
    expect_done(&caller.control_with(set, Bytes::copy_from_slice(value)).await?)
}

async fn list(caller: &Caller, target: Target) -> Result<Vec<XattrName>, Error> {
    match caller.control_payload(XattrList { target }).await? {
        (ServerControl::XattrNames(_), names) => decode_list(&names).map_err(|_| Error::Protocol),
        _ => Err(Error::Protocol),
    }
}

async fn remove(caller: &Caller, target: Target, name: &[u8]) -> Result<(), Error> {
    caller.done(XattrRemove { target, name: parse(name)? }).await
}

/// A name of the one namespace that is served. Others exist, and are told apart from names that are none.
fn parse(name: &[u8]) -> Result<XattrName, Error> {
    if name.is_empty() {
        return Err(refused(Reason::Invalid));
    }
    if !name.starts_with(XattrName::PREFIX) {
        return Err(refused(Reason::Unsupported));
    }
    XattrName::new(name).map_err(|error| match error {
        NameError::TooLong(_) => refused(Reason::AttributeNameTooLong),
        error => error.into(),
    })
}

/// Longest value, in bytes: Linux takes no longer one.
const VALUE_LEN_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_before_anything_is_sent() {
        assert!(parse(b"user.a").is_ok());
        let reason = |name: &[u8]| parse(name).unwrap_err().reason();
        assert_eq!(reason(b"trusted.a"), Some(Reason::Unsupported));
        assert_eq!(reason(b"a"), Some(Reason::Unsupported));
        for none in [&b""[..], b"user.", b"user.a\0"] {
            assert_eq!(reason(none), Some(Reason::Invalid), "{none:?}");
        }
        assert_eq!(
            reason(&[b"user.".to_vec(), vec![b'a'; 255]].concat()),
            Some(Reason::AttributeNameTooLong)
        );
    }
}

//! The directories of a copy: how they are made, and what they are given when everything is in them.
//!
//! While it is copied into, a directory has the original's permissions and its owner may do everything with it, as the
//! masks of both sides let that be: nobody sees more of a copy than of the original, at no time. Afterwards it has what the
//! original has, and with `-p` exactly that, with the time of change.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bowline::model::{FileKind, Reason, SetTime};
use rustix::fs::OFlags;

use super::How;
use super::ends::{Ends, Trouble, blocking, time_at};
use crate::cli::failure::Failure;
use crate::cli::remote::Place;
use crate::cli::sessions::tell;

/// What its owner needs to copy into a directory.
const OWNER: u32 = 0o700;

/// What an original directory has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    pub(super) permissions: u32,
    /// `None` where that is not known.
    pub(super) modified_ns: Option<i64>,
}

impl Traits {
    /// Of one that the server tells nothing of: what is unknown is nobody's business.
    pub(super) const UNKNOWN: Self = Self { permissions: OWNER, modified_ns: None };
}

/// A directory of the target that is there now.
#[derive(Debug)]
pub(super) struct Made {
    place: Place,
    traits: Traits,
    /// This copy has made it.
    is_new: bool,
}

/// Makes a directory like the original, if it is not there. Something else of its name, a link to a directory among it, is
/// in the way: nothing is written through a link that a server may have named.
pub(super) async fn make(ends: &Ends, place: &Place, traits: Traits) -> Result<Made, Trouble> {
    let permissions = traits.permissions & 0o777 | OWNER;
    let is_new = match place {
        Place::Remote(remote) if remote.path.is_root() => false,
        Place::Remote(remote) => {
            let export = ends.export(remote)?;
            match export.create_dir(remote.path.as_bytes(), permissions).await {
                Err(error) if error.reason() == Some(Reason::Exists) => {
                    let there = export.symlink_metadata(remote.path.as_bytes()).await?;
                    if there.kind != FileKind::Directory {
                        return Err(error.into());
                    }
                    false
                }
                made => made.map(|()| true)?,
            }
        }
        Place::Local(path) => {
            let path = path.clone();
            blocking(move || match std::fs::DirBuilder::new().mode(permissions).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(&path) => {
                    Ok(false)
                }
                made => Ok(made.map(|()| true)?),
            })
            .await?
        }
    };
    Ok(Made { place: place.clone(), traits, is_new })
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|of| of.is_dir())
}

/// Gives directories what the originals have, those that are in others first. What is not complete stays open to its
/// owner: the same command again goes on in it. Tells how many could not be given that; they were told one by one.
pub(super) async fn finish(
    ends: &Ends,
    how: How,
    made: Vec<Made>,
    is_complete: bool,
) -> Result<u64, Failure> {
    let mut failed = 0_u64;
    for folder in made.iter().rev() {
        let is_as_it_shall_be =
            !how.preserve && (!folder.is_new || folder.traits.permissions & OWNER == OWNER);
        if is_as_it_shall_be || folder.is_root() {
            continue;
        }
        if let Err(trouble) = folder.put_on(ends, how, is_complete).await {
            failed = failed.saturating_add(1);
            let what = format!("cannot give {} the permissions of the original", folder.place.shown());
            tell(&ends.failure(&what, &folder.place, &trouble).data("what is in it is complete"))?;
        }
    }
    Ok(failed)
}

impl Made {
    /// It is an export itself, which is not this copy's.
    fn is_root(&self) -> bool {
        matches!(&self.place, Place::Remote(remote) if remote.path.is_root())
    }

    async fn put_on(&self, ends: &Ends, how: How, is_complete: bool) -> Result<(), Trouble> {
        let Traits { permissions, modified_ns } = self.traits;
        let modified_ns = modified_ns.filter(|_| how.preserve);
        let kept = if is_complete { 0 } else { OWNER };
        // Without -p, what the masks have taken stays away.
        let wanted = move |now: u32| match how.preserve {
            true => permissions & 0o777 | kept,
            false => now & 0o777 & (permissions | kept),
        };
        match &self.place {
            Place::Remote(remote) => {
                let (export, path) = (ends.export(remote)?, remote.path.as_bytes());
                let now = export.symlink_metadata(path).await?.permissions;
                if let Some(ns) = modified_ns {
                    export.set_times(path, None, Some(SetTime::At(ns))).await?;
                }
                if wanted(now) != now & 0o777 {
                    export.set_permissions(path, wanted(now)).await?;
                }
                Ok(())
            }
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || {
                    // A link that has taken its place is not followed.
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    let folder = std::fs::OpenOptions::new()
                        .read(true)
                        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
                        .open(&path)?;
                    let now = folder.metadata()?.mode();
                    if let Some(ns) = modified_ns {
                        folder.set_modified(time_at(ns))?;
                    }
                    if wanted(now) != now & 0o777 {
                        folder.set_permissions(std::fs::Permissions::from_mode(wanted(now)))?;
                    }
                    Ok(())
                })
                .await
            }
        }
    }
}

//! The copy of one symbolic link.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use bowline::model::Reason;

use super::How;
use super::copy::Copied;
use super::ends::{Ends, Trouble, blocking};
use super::plan::{self, Action};
use crate::cli::failure::Failure;
use crate::cli::remote::Place;

/// Makes a symbolic link like the source. One that is there already and leads to the same is as good.
pub(super) async fn copy_link(ends: &Ends, how: How, action: &Action) -> Result<Copied, Failure> {
    let Action::Link { source, target } = action else { return Ok(Copied::default()) };
    let left = Copied { is_left: true, ..Copied::default() };
    if how.no_clobber && plan::is_there(ends, target).await {
        return Ok(left);
    }
    let copied = async {
        let leads_to = read(ends, source).await?;
        match make(ends, target, &leads_to).await {
            Err(trouble) if trouble.is_taken() => match read(ends, target).await {
                Ok(there) if there == leads_to => Ok(Copied::default()),
                // It was taken a moment ago.
                _ if how.no_clobber => Ok(left),
                _ => Err(trouble),
            },
            made => made.map(|()| Copied::default()),
        }
    };
    let copied: Result<Copied, Trouble> = copied.await;
    copied.map_err(|trouble| {
        let what = format!("cannot copy {} to {}", source.shown(), target.shown());
        ends.failure(&what, target, &trouble)
    })
}

async fn read(ends: &Ends, place: &Place) -> Result<Vec<u8>, Trouble> {
    match place {
        Place::Remote(remote) => {
            Ok(ends.export(remote)?.read_link(remote.path.as_bytes()).await?.as_bytes().to_vec())
        }
        Place::Local(path) => {
            let path = path.clone();
            blocking(move || Ok(std::fs::read_link(path)?.as_os_str().as_bytes().to_vec())).await
        }
    }
}

async fn make(ends: &Ends, place: &Place, leads_to: &[u8]) -> Result<(), Trouble> {
    match place {
        Place::Remote(remote) => Ok(ends.export(remote)?.symlink(leads_to, remote.path.as_bytes()).await?),
        Place::Local(path) => {
            let (path, leads_to) = (path.clone(), leads_to.to_vec());
            blocking(move || Ok(std::os::unix::fs::symlink(OsStr::from_bytes(&leads_to), path)?)).await
        }
    }
}

impl Trouble {
    /// Whether the name is taken.
    fn is_taken(&self) -> bool {
        match self {
            Self::Remote(error) => error.reason() == Some(Reason::Exists),
            Self::Local(error) => error.kind() == std::io::ErrorKind::AlreadyExists,
            Self::Changed | Self::Busy => false,
        }
    }
}

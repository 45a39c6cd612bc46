//! A new file of this machine that is complete when it has its name: it is written under a temporary name beside that one,
//! which it takes at the end. What ends earlier leaves what was there as it was.
//!
//! A copy that can go on later has temporary files of its own, which stay: see `cp`.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};

/// A file that has no name of its own yet. Dropping it removes what was written.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// What to write to.
    pub(super) file: File,
    /// The temporary name and the final one; none where what has the name is no file but a pipe or a device, which is
    /// written to as it is.
    names: Option<(PathBuf, PathBuf)>,
}

impl Unfinished {
    /// A file to be called `path`, in the place of what a link there leads to, and with the permissions of what is there.
    ///
    /// # Errors
    /// The file system's.
    ///
    /// # Cancel safety
    /// A temporary file may stay.
    pub(super) async fn beside(path: &Path) -> io::Result<Self> {
        let there = match tokio::fs::metadata(path).await {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let kind = there.as_ref().map(std::fs::Metadata::file_type);
        if kind.is_some_and(|kind| kind.is_fifo() || kind.is_char_device() || kind.is_block_device()) {
            let file = OpenOptions::new().write(true).open(path).await?;
            return Ok(Self { file, names: None });
        }
        if kind.is_some_and(|kind| !kind.is_file()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let path = if there.is_some() { tokio::fs::canonicalize(path).await? } else { path.to_owned() };
        let temporary = temporary_name(&path)?;
        // Whatever has this name is not this process's.
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).await?;
        let unfinished = Self { file, names: Some((temporary, path)) };
        if let Some(there) = there {
            unfinished.file.set_permissions(there.permissions()).await?;
        }
        Ok(unfinished)
    }

    /// Gives the complete file its name, when the disk has what is in it.
    ///
    /// # Errors
    /// The file system's; then the file is gone.
    ///
    /// # Cancel safety
    /// The file has its name, or is gone.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        if let Some((temporary, path)) = &self.names {
            self.file.sync_all().await?;
            tokio::fs::rename(temporary, path).await?;
        }
        self.names = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.names {
            // Nobody is there to hear of it; the name says what it is.
            let _removed = std::fs::remove_file(temporary);
        }
    }
}

/// Beside the final name, hidden, and this process's: copies leave alone what is called so.
fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = OsString::from(".");
    // A name of the greatest length has no room for more.
    if name.len() <= 200 {
        temporary.push(name);
    }
    temporary.push(format!(".{}.bowline-part", std::process::id()));
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_has_its_name_when_it_is_complete_and_leaves_nothing_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("old"), "as it was").unwrap();
        std::os::unix::fs::symlink("old", at("link")).unwrap();
        let mut given_up = Unfinished::beside(&at("old")).await.unwrap();
        given_up.file.write_all(b"a part").await.unwrap();
        given_up.file.flush().await.unwrap();
        assert_eq!(std::fs::read(at("old")).unwrap(), b"as it was");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "it is beside it");
        drop(given_up);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

        for name in ["new", "link"] {
            let mut file = Unfinished::beside(&at(name)).await.unwrap();
            file.file.write_all(b"all of it").await.unwrap();
            file.file.flush().await.unwrap();
            file.finish().await.unwrap();
            assert_eq!(std::fs::read(at(name)).unwrap(), b"all of it");
        }
        assert!(at("link").is_symlink() && std::fs::read(at("old")).unwrap() == b"all of it");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[tokio::test]
    async fn what_is_no_file_is_written_to_as_it_is_or_refused() {
        let mut null = Unfinished::beside(Path::new("/dev/null")).await.unwrap();
        null.file.write_all(b"gone").await.unwrap();
        null.finish().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let refused = Unfinished::beside(folder.path()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::IsADirectory);
        assert!(temporary_name(Path::new(&"n".repeat(255))).unwrap().as_os_str().len() < 64);
    }
}

//! `bowline mv`, `rm` and `mkdir`: names on a server.

use bowline::client::{Error, Export};
use bowline::model::{ExportPath, FileKind, Reason};
use serde::Serialize;

use super::arguments::{MakeArguments, MoveArguments, RemoveArguments};
use super::failure::{Code, Failure};
use super::output::{line, say, show, style};
use super::remote::{Remote, connect};
use super::sessions::{Sessions, Tally};

/// Permissions of a new directory, before the server's mask.
const DIRECTORY_PERMISSIONS: u32 = 0o777;

/// What was done to a name, as an object.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
}

fn report(kind: &'static str, path: &str, to: Option<&str>) -> Result<(), Failure> {
    if style().json {
        return show(&line(&Done { kind, path, to }));
    }
    // People who asked for it know; with -v they are told.
    tracing::info!(path, ?to, "{kind}");
    Ok(())
}

pub(super) async fn rename(arguments: MoveArguments) -> Result<(), Failure> {
    let MoveArguments { from, to, no_clobber, client } = arguments;
    let what = format!("cannot move {} to {}", from.shown(), to.shown());
    if from.peer != to.peer || from.export != to.export {
        return Err(Failure::coded(Code::Settings, what)
            .because("they are in two exports, or on two servers")
            .data("nothing was moved")
            .try_this("bowline cp to this machine and from there, then bowline rm"));
    }
    let is_within =
        to.path.as_bytes().strip_prefix(from.path.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
    if is_within {
        return Err(Failure::coded(Code::Settings, what)
            .because("a directory cannot go into itself")
            .data("nothing was moved"));
    }
    let connected = connect(&client, &from.peer, &what).await?;
    let failure = |error: Error| connected.failure_at(&from, &what, &error).data("nothing was moved");
    let export = connected.session.export(&from.export).map_err(failure)?;
    let Some(target) = into_directory(&export, &from.path, &to).await.map_err(failure)? else {
        return Err(Failure::coded(Code::Settings, what)
            .because("the slash at the end of the new name says that it is a directory, and it is none")
            .data("nothing was moved")
            .try_this(format!("bowline mkdir {}", to.shown())));
    };
    let (old, new) = (from.path.as_bytes(), target.as_bytes());
    let moved =
        if no_clobber { export.rename_no_replace(old, new).await } else { export.rename(old, new).await };
    moved.map_err(|error| connected.failure_at(&from, &what, &error).data(became_of(&error)))?;
    report("moved", &from.shown(), Some(&to.at(target).shown()))?;
    connected.session.close().await;
    Ok(())
}

/// What became of a file whose move has failed: a refusal says that nothing was done, anything else only that nobody knows.
fn became_of(error: &Error) -> &'static str {
    match error.reason() {
        None | Some(Reason::Unknown | Reason::Io) => {
            "it may have been moved all the same: look before it is moved again"
        }
        Some(_) => "nothing was moved",
    }
}

/// `to`, or the old name in it if it is a directory; `None` if it is written as one and is none. A directory may be given
/// a new name that is written so.
async fn into_directory(
    export: &Export,
    from: &ExportPath,
    to: &Remote,
) -> Result<Option<ExportPath>, Error> {
    let there = match export.metadata(to.path.as_bytes()).await {
        Ok(attributes) => Some(attributes.kind),
        Err(error) if error.reason() == Some(Reason::NotFound) => None,
        Err(error) => return Err(error),
    };
    if there == Some(FileKind::Directory) {
        let name = from.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let joined =
            if to.path.is_root() { name.to_vec() } else { [to.path.as_bytes(), b"/", name].concat() };
        return Ok(Some(ExportPath::new(joined)?));
    }
    let is_right = !to.is_directory
        || (there.is_none() && export.symlink_metadata(from.as_bytes()).await?.kind == FileKind::Directory);
    Ok(is_right.then(|| to.path.clone()))
}

pub(super) async fn make(arguments: MakeArguments) -> Result<(), Failure> {
    let MakeArguments { places, parents, client } = arguments;
    let mut sessions = Sessions::new(client);
    let mut tally = Tally::default();
    for place in &places {
        let what = format!("cannot make the directory {}", place.shown());
        let connected = match sessions.with(&place.peer, &what).await {
            Ok(connected) => connected,
            Err(failure) => {
                tally.failed(failure)?;
                continue;
            }
        };
        let made = async {
            let export = connected.session.export(&place.export)?;
            match parents {
                true => export.create_dir_all(place.path.as_bytes(), DIRECTORY_PERMISSIONS).await,
                false => export.create_dir(place.path.as_bytes(), DIRECTORY_PERMISSIONS).await,
            }
        };
        match made.await {
            Ok(()) => {
                tally.done();
                report("made", &place.shown(), None)?;
            }
            Err(error) => tally.failed(connected.failure_at(place, &what, &error))?,
        }
    }
    sessions.close().await;
    tally.outcome("made")
}

pub(super) async fn remove(arguments: RemoveArguments) -> Result<(), Failure> {
    let RemoveArguments { places, recursive, force, client } = arguments;
    let mut sessions = Sessions::new(client);
    let mut tally = Tally::default();
    for place in &places {
        let what = format!("cannot remove {}", place.shown());
        let connected = match sessions.with(&place.peer, &what).await {
            Ok(connected) => connected,
            Err(failure) => {
                tally.failed(failure)?;
                continue;
            }
        };
        let export = match connected.session.export(&place.export) {
            Ok(export) => export,
            Err(error) => {
                tally.failed(connected.failure_at(place, &what, &error))?;
                continue;
            }
        };
        match remove_one(&export, place, recursive).await {
            Ok(()) => {
                tally.done();
                report("removed", &place.shown(), None)?;
            }
            Err(error) if force && error.reason() == Some(Reason::NotFound) => {
                say(&format!("{} was not there\n", place.shown()));
            }
            Err(error) => {
                let failure = connected.failure_at(place, &what, &error);
                let failure = match error.reason() {
                    Some(Reason::IsDirectory) => failure.try_this(format!("bowline rm -r {}", place.shown())),
                    _ => failure,
                };
                tally.failed(failure)?;
            }
        }
    }
    sessions.close().await;
    tally.outcome("removed")
}

/// Removes a file, or a directory with all that is in it, its deepest names first.
async fn remove_one(export: &Export, place: &Remote, recursive: bool) -> Result<(), Error> {
    let kind = export.symlink_metadata(place.path.as_bytes()).await?.kind;
    if kind != FileKind::Directory || !recursive {
        return export.remove_file(place.path.as_bytes()).await;
    }
    // Directories whose names are still to be read, and those that go when all in them has gone.
    let mut left = vec![place.path.clone()];
    let mut empty = Vec::new();
    while let Some(folder) = left.pop() {
        let mut listing = export.read_dir(folder.as_bytes()).await?;
        while let Some(entry) = listing.next_entry().await? {
            match entry.kind() {
                FileKind::Directory => left.push(entry.path()?),
                _ => gone(export.remove_file(entry.path()?.as_bytes()).await)?,
            }
        }
        empty.push(folder);
    }
    for folder in empty.into_iter().rev() {
        gone(export.remove_dir(folder.as_bytes()).await)?;
    }
    Ok(())
}

/// What somebody else has removed meanwhile is removed.
fn gone(removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(error) if error.reason() == Some(Reason::NotFound) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowline::client::SessionLoss;

    use super::*;

    #[test]
    fn only_a_refusal_says_that_nothing_was_moved() {
        let refused = |reason: Reason| Error::Refused(reason.into());
        for error in [refused(Reason::Exists), refused(Reason::PermissionDenied), refused(Reason::NotFound)] {
            assert_eq!(became_of(&error), "nothing was moved", "{error}");
        }
        let ended = Error::SessionEnded(SessionLoss::NotAllowed);
        for error in [Error::TimedOut(Duration::ZERO), ended, Error::Protocol, refused(Reason::Unknown)] {
            assert!(became_of(&error).starts_with("it may have been moved"), "{error}");
        }
    }
}

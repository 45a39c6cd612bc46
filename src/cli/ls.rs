//! `bowline ls` and `bowline stat`: what there is on a server.

use bowline::client::Error;
use bowline::model::{Attributes, ExportPath, FileKind};
use serde::Serialize;

use super::arguments::{ListArguments, StatArguments};
use super::failure::Failure;
use super::output::{clean_bytes, show_either, style};
use super::remote::{Connected, Remote};
use super::sessions::{Sessions, Tally};

/// A file of a server as an object.
#[derive(Serialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    peer: String,
    export: String,
    path: String,
    /// The path, in base64, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    file: &'static str,
    #[serde(flatten)]
    attributes: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    len: u64,
    allocated: u64,
    permissions: u32,
    links: u64,
    accessed_ns: i64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Entry {
    fn new(kind: &'static str, place: &Remote, file: FileKind, attributes: Option<Attributes>) -> Self {
        let bytes = place.path.as_bytes();
        let is_text = str::from_utf8(bytes).is_ok();
        Self {
            kind,
            peer: place.peer.clone(),
            export: place.export.clone(),
            path: String::from_utf8_lossy(bytes).into_owned(),
            path_bytes: (!is_text).then(|| data_encoding::BASE64.encode(bytes)),
            file: word(file),
            attributes: attributes.map(|of| Shown {
                len: of.len,
                allocated: of.allocated,
                permissions: of.permissions,
                links: of.links,
                accessed_ns: of.accessed_ns,
                modified_ns: of.modified_ns,
                changed_ns: of.changed_ns,
            }),
            target: None,
        }
    }
}

/// What a name stands for, in a word.
fn word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        _ => "other",
    }
}

/// As `ls -l` begins a line.
fn mode_text(kind: FileKind, permissions: u32) -> String {
    let first = match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        _ => '?',
    };
    let bit = |at: u32, letter: char| if permissions & (1 << at) == 0 { '-' } else { letter };
    std::iter::once(first)
        .chain((0..9).rev().zip("rwxrwxrwx".chars()).map(|(at, letter)| bit(at, letter)))
        .collect()
}

/// A time, to the second.
fn time_text(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(ns.into()) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{ns} ns"),
    }
}

pub(super) async fn list(arguments: ListArguments) -> Result<(), Failure> {
    let ListArguments { places, long, recursive, client } = arguments;
    let mut sessions = Sessions::new(client);
    let mut tally = Tally::default();
    let is_one = places.len() == 1 && !recursive;
    for place in places {
        let what = format!("cannot list {}", place.shown());
        let connected = match sessions.with(&place.peer, &what).await {
            Ok(connected) => connected,
            Err(failure) => {
                tally.failed(failure)?;
                continue;
            }
        };
        let mut left = vec![place];
        while let Some(place) = left.pop() {
            match list_one(connected, &place, (long, is_one)).await {
                Ok(folders) => {
                    // The first of them is to come next.
                    left.extend(folders.into_iter().rev().filter(|_| recursive));
                    tally.done();
                }
                Err(Trouble::Output(failure)) => return Err(failure),
                Err(Trouble::Remote(error)) => {
                    tally.failed(connected.failure_at(
                        &place,
                        &format!("cannot list {}", place.shown()),
                        &error,
                    ))?;
                }
            }
        }
    }
    sessions.close().await;
    tally.outcome("listed")
}

enum Trouble {
    Remote(Error),
    Output(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Remote(error)
    }
}

/// Shows what is in a directory, or a file itself; gives the directories in it.
async fn list_one(
    connected: &Connected,
    place: &Remote,
    (long, is_one): (bool, bool),
) -> Result<Vec<Remote>, Trouble> {
    let export = connected.session.export(&place.export)?;
    let is_wanted = long || style().json;
    let of_itself = export.symlink_metadata(place.path.as_bytes()).await?;
    if of_itself.kind != FileKind::Directory {
        show_entry(place, of_itself.kind, Some(of_itself), long).map_err(Trouble::Output)?;
        return Ok(Vec::new());
    }
    let mut listing = match is_wanted {
        true => export.read_dir_with_attributes(place.path.as_bytes()).await?,
        false => export.read_dir(place.path.as_bytes()).await?,
    };
    let mut entries = Vec::new();
    while let Some(entry) = listing.next_entry().await? {
        entries.push((place.at(entry.path()?), entry.kind(), entry.attributes()));
    }
    entries.sort_by(|(a, ..), (b, ..)| a.path.as_bytes().cmp(b.path.as_bytes()));
    if !is_one && !style().json {
        super::output::show(&format!("{}:\n", place.shown())).map_err(Trouble::Output)?;
    }
    let mut folders = Vec::new();
    for (place, kind, attributes) in entries {
        show_entry(&place, kind, attributes, long).map_err(Trouble::Output)?;
        if kind == FileKind::Directory {
            folders.push(place);
        }
    }
    Ok(folders)
}

fn show_entry(
    place: &Remote,
    kind: FileKind,
    attributes: Option<Attributes>,
    long: bool,
) -> Result<(), Failure> {
    show_either(&Entry::new("entry", place, kind, attributes), || {
        let name = last_name(&place.path);
        let end = if kind == FileKind::Directory { "/" } else { "" };
        match attributes.filter(|_| long) {
            Some(of) => format!(
                "{} {:>14} {} {name}{end}\n",
                mode_text(kind, of.permissions),
                of.len,
                time_text(of.modified_ns)
            ),
            None => format!("{name}{end}\n"),
        }
    })
}

/// The last component of a path, fit for a terminal.
fn last_name(path: &ExportPath) -> String {
    let name = path.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    clean_bytes(name)
}

pub(super) async fn stat(arguments: StatArguments) -> Result<(), Failure> {
    let StatArguments { places, client } = arguments;
    let mut sessions = Sessions::new(client);
    let mut tally = Tally::default();
    for place in &places {
        let what = format!("cannot look at {}", place.shown());
        let connected = match sessions.with(&place.peer, &what).await {
            Ok(connected) => connected,
            Err(failure) => {
                tally.failed(failure)?;
                continue;
            }
        };
        match stat_one(connected, place).await {
            Ok((attributes, target)) => {
                tally.done();
                let entry = Entry { target, ..Entry::new("stat", place, attributes.kind, Some(attributes)) };
                show_either(&entry, || stat_text(place, &attributes, entry.target.as_deref()))?;
            }
            Err(error) => tally.failed(connected.failure_at(place, &what, &error))?,
        }
    }
    sessions.close().await;
    tally.outcome("looked at")
}

async fn stat_one(connected: &Connected, place: &Remote) -> Result<(Attributes, Option<String>), Error> {
    let export = connected.session.export(&place.export)?;
    let attributes = export.symlink_metadata(place.path.as_bytes()).await?;
    let target = match attributes.kind {
        FileKind::Symlink => Some(clean_bytes(export.read_link(place.path.as_bytes()).await?.as_bytes())),
        _ => None,
    };
    Ok((attributes, target))
}

fn stat_text(place: &Remote, of: &Attributes, target: Option<&str>) -> String {
    let target = target.map(|target| format!(" -> {target}")).unwrap_or_default();
    format!(
        "{}{target}\n  {} {} {:04o}, {} bytes, {} on the disk, {} names\n  modified {}\n  changed  {}\n  accessed {}\n",
        place.shown(),
        word(of.kind),
        mode_text(of.kind, of.permissions),
        of.permissions,
        of.len,
        of.allocated,
        of.links,
        time_text(of.modified_ns),
        time_text(of.changed_ns),
        time_text(of.accessed_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times_read_as_they_do_elsewhere() {
        assert_eq!(mode_text(FileKind::Directory, 0o755), "drwxr-xr-x");
        assert_eq!(mode_text(FileKind::File, 0o4640), "-rw-r-----");
        assert_eq!(time_text(1_000_000_000), "1970-01-01 00:00:01Z");
    }

    #[test]
    fn a_path_that_is_no_text_is_told_in_bytes_too() {
        let place = Remote::parse(std::ffi::OsStr::new("store:media/a")).unwrap();
        let odd = place.at(ExportPath::new(b"a\xff").unwrap());
        assert_eq!(Entry::new("entry", &place, FileKind::File, None).path_bytes, None);
        assert_eq!(Entry::new("entry", &odd, FileKind::File, None).path_bytes.as_deref(), Some("Yf8="));
    }
}

//! Hostile names against every operation that takes one: nothing outside of the export is seen or changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;

use super::*;
use crate::model::{FileName, XattrHow, XattrName};
use crate::server::beneath::open_directory;
use crate::server::ground::{SECRET, SECRET_TIME_S, identities, snapshot};
use crate::server::xattr::Holder;
use crate::wire::names::{DirectoryEntry, decode_list};

/// What an operation let its client see.
#[derive(Default)]
pub(super) struct Seen {
    bytes: Vec<u8>,
    attributes: Vec<Attributes>,
    identities: Vec<FileIdentity>,
}

impl Seen {
    fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    fn attributes(attributes: Attributes) -> Self {
        Self { attributes: vec![attributes], ..Self::default() }
    }

    /// Whether anything of it is outside of the export.
    pub(super) fn is_secret(&self, secrets: &BTreeSet<FileIdentity>) -> bool {
        self.bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
            || self.attributes.iter().any(|seen| seen.modified_ns == SECRET_TIME_S * 1_000_000_000)
            || self.identities.iter().any(|identity| secrets.contains(identity))
    }
}

/// How an operation uses the name that it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A link in the last place is followed.
    Follows,
    /// It is about what has the name.
    Looks,
    /// It makes, removes or renames the name.
    Changes,
}

pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) uses: Use,
    pub(super) run: fn(&Ground, &ExportPath) -> Result<Seen, Reason>,
}

/// Every operation that takes a name.
pub(super) const OPERATIONS: [Operation; 32] = [
    operation("open", Use::Follows, |ground, at| open(ground, at, Rights::READ, Create::Never)),
    operation("open for all", Use::Follows, |ground, at| open(ground, at, Rights::ALL, Create::Never)),
    operation("open for appending", Use::Follows, |ground, at| {
        open(ground, at, Rights::APPEND, Create::Never)
    }),
    operation("open or make", Use::Changes, |ground, at| open(ground, at, Rights::ALL, Create::IfMissing)),
    operation("make", Use::Changes, |ground, at| open(ground, at, Rights::ALL, Create::New)),
    operation("lookup, following", Use::Follows, |ground, at| lookup(ground, at, true)),
    operation("lookup", Use::Looks, |ground, at| lookup(ground, at, false)),
    operation("identify", Use::Looks, |ground, at| {
        let identities = ground.identity(at)?.into_iter().collect();
        Ok(Seen { identities, ..Seen::default() })
    }),
    operation("list", Use::Follows, |ground, at| list(ground, at, false)),
    operation("list with attributes", Use::Follows, |ground, at| list(ground, at, true)),
    operation("read link", Use::Looks, |ground, at| {
        reason(ground.names.read_link(&on(at))).map(|target| Seen::bytes(target.as_bytes()))
    }),
    operation("space", Use::Follows, |ground, at| {
        reason(ground.names.space(&on(at))).map(|_| Seen::default())
    }),
    operation("chmod", Use::Follows, |ground, at| {
        change(ground, at, AttributeChange { permissions: Some(0o755), ..AttributeChange::default() })
    }),
    operation("touch", Use::Follows, |ground, at| {
        let now = Some(SetTime::Now);
        change(ground, at, AttributeChange { accessed: now, modified: now, ..AttributeChange::default() })
    }),
    operation("xattr get", Use::Follows, |ground, at| {
        holder(ground, at)?.get(&attribute()).map(Seen::bytes).map_err(|refusal| refusal.reason)
    }),
    operation("xattr set", Use::Follows, |ground, at| {
        reason(holder(ground, at)?.set(&attribute(), XattrHow::Set, PUBLIC)).map(|()| Seen::default())
    }),
    operation("xattr list", Use::Follows, |ground, at| reason(holder(ground, at)?.list()).map(Seen::bytes)),
    operation("xattr remove", Use::Follows, |ground, at| {
        reason(holder(ground, at)?.remove(&attribute())).map(|()| Seen::default())
    }),
    operation("make directory", Use::Changes, |ground, at| {
        let make = MakeDirectory { place: on(at), permissions: 0o755 };
        reason(ground.names.make_directory(&make)).map(|()| Seen::default())
    }),
    operation("symlink", Use::Changes, |ground, at| {
        let symlink = Symlink { place: on(at), target: LinkTarget::new("dir/file").unwrap() };
        reason(ground.names.symlink(&symlink)).map(|()| Seen::default())
    }),
    operation("hard link from", Use::Looks, |ground, at| {
        clear(ground, "spare");
        hard_link(ground, at, &path("spare"))
    }),
    operation("hard link to", Use::Changes, |ground, at| hard_link(ground, &path("file"), at)),
    operation("remove file", Use::Changes, |ground, at| remove(ground, at, Removal::File)),
    operation("remove directory", Use::Changes, |ground, at| remove(ground, at, Removal::Directory)),
    operation("rename from", Use::Changes, |ground, at| {
        clear(ground, "spare");
        rename(ground, at, &path("spare"), RenameHow::Replace)
    }),
    operation("rename from, replacing nothing", Use::Changes, |ground, at| {
        clear(ground, "spare");
        rename(ground, at, &path("spare"), RenameHow::NoReplace)
    }),
    operation("rename to", Use::Changes, |ground, at| {
        rename(ground, &supply(ground), at, RenameHow::Replace)
    }),
    operation("rename to, replacing nothing", Use::Changes, |ground, at| {
        rename(ground, &supply(ground), at, RenameHow::NoReplace)
    }),
    operation("exchange with", Use::Changes, |ground, at| {
        rename(ground, &supply(ground), at, RenameHow::Exchange)
    }),
    operation("exchange", Use::Changes, |ground, at| {
        rename(ground, at, &supply(ground), RenameHow::Exchange)
    }),
    operation("rename to itself", Use::Changes, |ground, at| rename(ground, at, at, RenameHow::Replace)),
    operation("cut", Use::Follows, |ground, at| {
        change(ground, at, AttributeChange { len: Some(0), ..AttributeChange::default() })
    }),
];

const fn operation(
    name: &'static str,
    uses: Use,
    run: fn(&Ground, &ExportPath) -> Result<Seen, Reason>,
) -> Operation {
    Operation { name, uses, run }
}

fn on(at: &ExportPath) -> Place {
    Place { export: media(), path: at.clone() }
}

fn attribute() -> XattrName {
    XattrName::new("user.a").unwrap()
}

fn holder(ground: &Ground, at: &ExportPath) -> Result<Holder, Reason> {
    reason(ground.names.find(&on(at))).map(Holder::Found)
}

/// Opens, reads, and writes what would be noticed.
fn open(ground: &Ground, at: &ExportPath, rights: Rights, create: Create) -> Result<Seen, Reason> {
    let opened = reason(ground.names.open_file(&media(), at, rights, create, 0o600))?;
    let mut seen = BytesMut::new();
    let _ = opened.file.read(0, 4096, &mut seen);
    if rights.is_writing() {
        reason(opened.file.append(b"+"))?;
    }
    if rights.permits(Rights::WRITE) {
        reason(opened.file.write(0, b"P"))?;
        reason(opened.file.set_len(1))?;
    }
    Ok(Seen { bytes: seen.to_vec(), attributes: vec![opened.attributes], identities: vec![opened.identity] })
}

fn lookup(ground: &Ground, at: &ExportPath, follow: bool) -> Result<Seen, Reason> {
    reason(ground.names.lookup(&on(at), follow)).map(Seen::attributes)
}

fn list(ground: &Ground, at: &ExportPath, with_attributes: bool) -> Result<Seen, Reason> {
    let list = List { place: on(at), cookie: None, with_attributes };
    let (page, _) = reason(ground.names.list(&list))?;
    let attributes = decode_list(&page).unwrap();
    let attributes = attributes.into_iter().filter_map(|entry: DirectoryEntry| entry.attributes).collect();
    Ok(Seen { bytes: page, attributes, identities: Vec::new() })
}

fn change(ground: &Ground, at: &ExportPath, change: AttributeChange) -> Result<Seen, Reason> {
    reason(ground.names.change(&on(at), &change)).map(Seen::attributes)
}

fn hard_link(ground: &Ground, from: &ExportPath, to: &ExportPath) -> Result<Seen, Reason> {
    let link = HardLink { export: media(), from: from.clone(), to: to.clone() };
    reason(ground.names.hard_link(&link)).map(|()| Seen::default())
}

/// What the core would expect: what the name stands for; and if that is refused, the worst.
fn expected(ground: &Ground, at: &ExportPath) -> Option<FileIdentity> {
    ground.identity(at).unwrap_or_else(|_| Some(identity_at(&ground.outside().join("file"))))
}

fn remove(ground: &Ground, at: &ExportPath, what: Removal) -> Result<Seen, Reason> {
    let expected = expected(ground, at).ok_or(Reason::NotFound)?;
    reason(ground.names.remove(&Remove { place: on(at), what }, expected)).map(|_| Seen::default())
}

fn rename(ground: &Ground, from: &ExportPath, to: &ExportPath, how: RenameHow) -> Result<Seen, Reason> {
    let expected = [expected(ground, from), expected(ground, to)];
    let rename = Rename { export: media(), from: from.clone(), to: to.clone(), how };
    reason(ground.names.rename(&rename, expected)).map(|_| Seen::default())
}

/// A name for what a rename brings.
fn clear(ground: &Ground, at: &str) {
    drop(fs::remove_file(ground.at(at)));
    drop(fs::remove_dir_all(ground.at(at)));
}

/// A file for a rename to take away.
fn supply(ground: &Ground) -> ExportPath {
    clear(ground, "supply");
    drop(fs::write(ground.at("supply"), PUBLIC));
    path("supply")
}

/// Links out of the export, and to themselves: their names, and where they lead.
fn links_out(ground: &Ground, held: &fs::File) -> Vec<(String, Vec<u8>)> {
    let outside = ground.outside();
    let absolute = |at: &str| outside.join(at).into_os_string().into_encoded_bytes();
    let targets: Vec<Vec<u8>> = vec![
        b"../outside".to_vec(),
        absolute(""),
        b"/".to_vec(),
        b"..".to_vec(),
        b"../..".to_vec(),
        b"dir/../../outside".to_vec(),
        b"dir/deep/../../../outside".to_vec(),
        b"../export".to_vec(),
        ground.at("dir").into_os_string().into_encoded_bytes(),
        b"/proc/self/root".to_vec(),
        b"/proc/self/cwd".to_vec(),
        b"/proc/self/fd".to_vec(),
        format!("/proc/self/fd/{}", held.as_raw_fd()).into_bytes(),
        format!("/proc/{}/root", std::process::id()).into_bytes(),
        b"/dev/shm".to_vec(),
        b"../outside/file".to_vec(),
        absolute("secret-name"),
        b"../outside/link".to_vec(),
        b"../outside/none".to_vec(),
        [&b"../".repeat(600)[..], &absolute("file")[1..]].concat(),
        b"out-00".to_vec(),
        b"dir/../out-01".to_vec(),
        b"loop".to_vec(),
    ];
    targets.into_iter().enumerate().map(|(number, target)| (format!("out-{number:02}"), target)).collect()
}

/// Puts the links and what the operations need back where they belong.
fn plant(ground: &Ground, links: &[(String, Vec<u8>)]) {
    for (name, target) in links {
        let at = ground.at(name);
        if fs::read_link(&at).is_ok_and(|found| found.as_os_str().as_bytes() == target) {
            continue;
        }
        clear(ground, name);
        symlink(OsStr::from_bytes(target), at).unwrap();
    }
    for (at, target) in [("loop", "loop"), ("dir/up", "../out-00")] {
        if fs::read_link(ground.at(at)).is_err() {
            clear(ground, at);
            symlink(target, ground.at(at)).unwrap();
        }
    }
    if !ground.at("file").is_file() {
        clear(ground, "file");
        fs::write(ground.at("file"), PUBLIC).unwrap();
    }
}

#[test]
fn t12_names_through_links_reach_nothing_outside() {
    let ground = Ground::new();
    let before = snapshot(&ground.outside());
    let secrets = identities(&before);
    let held =
        fs::File::from(rustix::fs::open(ground.outside(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap());
    let links = links_out(&ground, &held);
    let mut firsts: Vec<&str> = links.iter().map(|(name, _)| name.as_str()).collect();
    firsts.extend(["dir/up", "loop"]);
    let far = format!("{}/file", ground.outside().to_str().unwrap());
    let rests = ["", "/file", "/secret-name", "/deep/file", "/none", "/link", "/outside/file", &far];
    let mut names = 0;
    for first in firsts {
        for rest in rests {
            let at = path(format!("{first}{rest}"));
            names += 1;
            for Operation { name, uses, run } in &OPERATIONS {
                plant(&ground, &links);
                let outcome = run(&ground, &at);
                if !rest.is_empty() || *uses == Use::Follows {
                    assert!(outcome.is_err(), "{name} of {first}{rest} was done");
                }
                if let Ok(seen) = outcome {
                    let is_target = *name == "read link" && rest.is_empty();
                    assert!(is_target || !seen.is_secret(&secrets), "{name} of {first}{rest} shows a secret");
                }
            }
        }
    }
    assert!(names >= 200, "{names}");
    assert_eq!(snapshot(&ground.outside()), before);
    // The check is one: whoever does reach it leaves traces.
    fs::read(ground.outside().join("file")).unwrap();
    if rustix::fs::statvfs(ground.outside()).unwrap().f_flag.contains(rustix::fs::StatVfsMountFlags::NOATIME)
    {
        eprintln!("skipped: this file system does not record reads");
    } else {
        assert_ne!(snapshot(&ground.outside()), before, "a read leaves no trace here");
    }
}

/// Ways to write `..`, absolute paths and odd components around the ends of a good path.
fn climbing_names() -> Vec<Vec<u8>> {
    let before = [
        "..",
        "../..",
        "dir/..",
        "dir/../..",
        "dir/deep/../../..",
        "dir/./..",
        "./..",
        ".",
        "/",
        "//",
        "dir//..",
    ];
    let mut names: Vec<Vec<u8>> =
        vec![vec![b'x'; 256], vec![b'/'; 10], [&[b'x'; 256][..], b"/file"].concat()];
    for start in before {
        for end in ["outside/file", "outside/secret-name", "etc/passwd", "file", ""] {
            names.push(format!("{start}/{end}").into_bytes());
            names.push(format!("{start}/{end}/").into_bytes());
        }
    }
    names.extend((1..=40).map(|depth| format!("{}etc/passwd", "../".repeat(depth)).into_bytes()));
    names.extend(
        [
            &b"file\0"[..],
            b"\0",
            b"dir\0/../file",
            b"file/.",
            b"file/..",
            b"dir/",
            b"file/",
            b"dir/.",
            b"dir//file",
        ]
        .map(<[u8]>::to_vec),
    );
    names.push(b"a/".repeat(2048));
    names.push([&b"a/".repeat(2048)[..], b"b"].concat());
    names.push([&b"../".repeat(1400)[..], b"file"].concat());
    names
}

/// Names that climb do not even become paths; handed to the kernel all the same, they lead nowhere.
#[test]
fn t12_names_that_climb_are_refused_twice() {
    let ground = Ground::new();
    let before = snapshot(&ground.outside());
    let secrets = identities(&before);
    let root = ground.names.exports.root(&media()).unwrap();
    let names = climbing_names();
    assert!(names.len() >= 150, "{}", names.len());
    let mut top = identities(&snapshot(&ground.at("")));
    assert!(top.is_disjoint(&secrets));
    for hostile in names {
        assert!(ExportPath::new(hostile.clone()).is_err(), "{:?}", OsStr::from_bytes(&hostile));
        for find in [resolve, resolve_link, open_directory] {
            let Ok(found) = find(root, &hostile) else { continue };
            let identity = root.identity(&stat_of(found).unwrap());
            assert!(!top.insert(identity), "{:?} leads out", OsStr::from_bytes(&hostile));
        }
    }
    assert_eq!(snapshot(&ground.outside()), before);
}

/// What is no way out is a name like any other: its bytes are kept.
#[test]
fn f14_odd_names_are_kept_byte_for_byte() {
    let ground = Ground::new();
    let longest = vec![b'n'; FileName::LEN_MAX];
    let odd: [&[u8]; 20] = [
        b"CON",
        b"nul.txt",
        b"a\nb",
        b"\xff\xfe",
        b"\xc0\xae\xc0\xae",
        b"-rf",
        b"...",
        b" ",
        b"a\\b",
        b"..\\..\\file",
        b"%2e%2e%2f",
        b"~",
        b"a:b",
        b"\x01",
        b"\x7f",
        b"*",
        b"$(id)",
        b"trailing ",
        b"dot.",
        &longest,
    ];
    for (number, bytes) in odd.iter().enumerate() {
        for Operation { name, run, .. } in &OPERATIONS {
            // Whatever an operation says, it must not be surprised: each runs on the name there and not there.
            drop(run(&ground, &path(*bytes)));
            assert!(ground.at("dir/file").is_file(), "{name}");
        }
        clear_bytes(&ground, bytes);
        let folder = format!("folder-{number}");
        ground.mkdir(&folder, 0o755).unwrap();
        let inside = [folder.as_bytes(), b"/", bytes].concat();
        reason(ground.names.open_file(&media(), &path(inside.clone()), Rights::ALL, Create::New, 0o600))
            .unwrap();
        let listed = ground.page(&folder, None, true).unwrap().0;
        assert_eq!(listed.iter().map(|entry| entry.name.as_bytes()).collect::<Vec<_>>(), [*bytes]);
        let local: Vec<_> =
            fs::read_dir(ground.at(&folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(local, [OsStr::from_bytes(bytes)]);
        assert!(reason(remove_there(&ground, &inside)).is_ok());
    }
    let deep = ["x"; 2047].join("/");
    assert_eq!(ground.lookup(&deep), Err(Reason::NotFound));
    assert_eq!(ground.mkdir(&deep, 0o700), Err(Reason::NotFound));
    for bad in [&b"."[..], b"..", b"a/../b", b"/a", b"a/", b"a\0b", &[b'x'; 256], &b"a/".repeat(2048)] {
        assert!(ExportPath::new(bad).is_err(), "{:?}", OsStr::from_bytes(bad));
    }
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
        assert!(FileName::new(bad).is_err(), "{:?}", OsStr::from_bytes(bad));
    }
}

fn clear_bytes(ground: &Ground, bytes: &[u8]) {
    drop(fs::remove_file(ground.at(bytes)));
    drop(fs::remove_dir_all(ground.at(bytes)));
}

fn remove_there(ground: &Ground, at: &[u8]) -> Result<Outcome, Refusal> {
    let expected = expected(ground, &path(at)).ok_or(Reason::NotFound)?;
    ground.names.remove(&Remove { place: place(at), what: Removal::File }, expected)
}

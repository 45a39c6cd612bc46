//! Extended attributes through opens and through names, and errors of the same class as a local program gets.

use std::fs;

use rustix::fs::{lsetxattr, setxattr};
use rustix::io::Errno;

use super::*;
use crate::model::{OpenId, Reason, Rights};
use crate::server::ground::{Ground, place, reason};
use crate::wire::names::decode_list;

fn name(text: &str) -> XattrName {
    XattrName::new(text).unwrap()
}

/// The file by its handle, by its name, and a directory; nothing where the file system has no such attributes.
fn holders(ground: &Ground) -> Vec<Holder> {
    if setxattr(ground.at("dir/deep/file"), "user.probe", b"", XattrFlags::empty()) == Err(Errno::OPNOTSUPP) {
        eprintln!("skipped: this file system has no extended attributes");
        return Vec::new();
    }
    ground.keep(OpenId(1), "dir/file", Rights::ALL).unwrap();
    let found = |at: &str| Holder::Found(ground.names.find(&place(at)).unwrap());
    vec![Holder::Open(ground.files.find(OpenId(1)).unwrap()), found("file"), found("dir")]
}

#[test]
fn attributes_are_set_told_listed_and_removed() {
    let ground = Ground::new();
    for holder in holders(&ground) {
        let (a, b) = (name("user.a"), name("user.\u{ff}\n"));
        assert_eq!(holder.list(), Ok(Vec::new()));
        assert_eq!(reason(holder.get(&a)), Err(Reason::NoAttribute));
        assert_eq!(reason(holder.set(&a, XattrHow::Replace, b"x")), Err(Reason::NoAttribute));
        assert_eq!(reason(holder.remove(&a)), Err(Reason::NoAttribute));
        holder.set(&a, XattrHow::Create, b"one").unwrap();
        assert_eq!(reason(holder.set(&a, XattrHow::Create, b"two")), Err(Reason::Exists));
        holder.set(&a, XattrHow::Replace, b"two").unwrap();
        assert_eq!(holder.get(&a), Ok(b"two".to_vec()));
        holder.set(&a, XattrHow::Set, b"").unwrap();
        assert_eq!(holder.get(&a), Ok(Vec::new()), "empty is not missing");
        holder.set(&b, XattrHow::Set, &[0, 0xff]).unwrap();
        assert_eq!(holder.get(&b), Ok(vec![0, 0xff]));
        let mut names = decode_list::<XattrName>(&holder.list().unwrap()).unwrap();
        names.sort();
        assert_eq!(names, [a.clone(), b]);
        holder.remove(&a).unwrap();
        assert_eq!(decode_list::<XattrName>(&holder.list().unwrap()).unwrap().len(), 1);
    }
}

/// Other namespaces are not even names; those that a file has are not listed.
#[test]
fn only_attributes_of_users_are_seen() {
    let ground = Ground::new();
    let Some(holder) = holders(&ground).pop() else { return };
    holder.set(&name("user.a"), XattrHow::Set, b"x").unwrap();
    match lsetxattr(ground.at("dir"), "trusted.a", b"x", XattrFlags::empty()) {
        Ok(()) => {
            let names = decode_list::<XattrName>(&holder.list().unwrap()).unwrap();
            assert_eq!(names, [name("user.a")]);
        }
        Err(errno) => eprintln!("skipped: no attribute of another namespace can be set here ({errno})"),
    }
}

/// F15: names and values over the kernel's and the file system's bounds fail as they do for a local program.
#[test]
fn f15_too_long_fails_as_it_does_locally() {
    let ground = Ground::new();
    let local = ground.at("dir/deep/file");
    for holder in holders(&ground) {
        for len in [0, 1, 255, 3000, 4096, 5000, 65_535, 65_536, 65_537, 100_000] {
            let value = vec![b'v'; len];
            let expected = setxattr(&local, "user.a", &value, XattrFlags::empty()).map_err(refusal);
            let outcome = holder.set(&name("user.a"), XattrHow::Set, &value);
            assert_eq!(outcome, expected, "{len} bytes");
            if outcome.is_ok() {
                assert_eq!(holder.get(&name("user.a")), Ok(value), "{len} bytes");
            }
        }
        assert_eq!(
            reason(holder.set(&name("user.a"), XattrHow::Set, &vec![0; 65_537])),
            Err(Reason::AttributeTooBig),
            "over the kernel's bound on every file system"
        );
        let longest = format!("user.{}", "n".repeat(250));
        let expected = setxattr(&local, longest.as_str(), b"v", XattrFlags::empty()).map_err(refusal);
        assert_eq!(holder.set(&name(&longest), XattrHow::Set, b"v"), expected);
        if expected.is_ok() {
            holder.remove(&name(&longest)).unwrap();
        }
        let _ = rustix::fs::removexattr(&local, longest.as_str());
    }
    let over = format!("user.{}", "n".repeat(251));
    assert!(XattrName::new(over.clone()).is_err());
    let locally = setxattr(&local, over.as_str(), b"v", XattrFlags::empty());
    assert!(matches!(locally, Err(Errno::RANGE | Errno::OPNOTSUPP)), "{locally:?}");
}

#[test]
fn a_held_file_is_the_one_that_was_found() {
    let ground = Ground::new();
    if holders(&ground).is_empty() {
        return;
    }
    let held = Holder::Found(ground.names.find(&place("file")).unwrap());
    fs::rename(ground.at("file"), ground.at("moved")).unwrap();
    std::os::unix::fs::symlink(ground.outside().join("file"), ground.at("file")).unwrap();
    held.set(&name("user.b"), XattrHow::Set, b"x").unwrap();
    let moved = Holder::Found(ground.names.find(&place("moved")).unwrap());
    assert_eq!(moved.get(&name("user.b")), Ok(b"x".to_vec()));
    assert_eq!(reason(ground.names.find(&place("file"))).unwrap_err(), Reason::Outside);
}

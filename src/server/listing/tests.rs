//! Pages of directories, and cookies that are none.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::model::FileKind;
use crate::server::ground::{Ground, PUBLIC, media, path, place, reason};

/// All entries of a directory, page by page.
fn whole(ground: &Ground, at: &str, with_attributes: bool) -> (Vec<DirectoryEntry>, usize) {
    let (mut entries, mut cookie, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = ground.page(at, cookie, with_attributes).unwrap();
        entries.extend(page);
        pages += 1;
        cookie = next;
        if cookie.is_none() {
            return (entries, pages);
        }
    }
}

#[test]
fn a_listing_tells_names_kinds_and_attributes() {
    let ground = Ground::new();
    symlink("../outside/file", ground.at("dir/link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, ground.at("dir/pipe"), FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    for with_attributes in [false, true] {
        let (mut entries, pages) = whole(&ground, "dir", with_attributes);
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_bytes(), entry.kind)).collect();
        let expected = [
            (&b"deep"[..], FileKind::Directory),
            (b"file", FileKind::File),
            (b"link", FileKind::Symlink),
            (b"pipe", FileKind::Other),
        ];
        assert_eq!((&found[..], pages), (&expected[..], 1));
        for entry in entries {
            let name = format!("dir/{}", String::from_utf8(entry.name.as_bytes().to_vec()).unwrap());
            let attributes = with_attributes.then(|| ground.lookup(&name).unwrap());
            assert_eq!(entry.attributes, attributes, "{name}: of the link itself, too");
        }
    }
    ground.mkdir("empty", 0o700).unwrap();
    assert_eq!(whole(&ground, "empty", true), (Vec::new(), 1));
    symlink("dir", ground.at("alias")).unwrap();
    assert_eq!(whole(&ground, "alias", false), whole(&ground, "dir", false));
    assert_eq!(ground.page("file", None, false).unwrap_err(), Reason::NotDirectory);
    assert_eq!(ground.page("none", None, false).unwrap_err(), Reason::NotFound);
}

/// T22: a large directory comes in pages, each name once, and no page is long.
#[test]
fn t22_twenty_thousand_entries_come_once_each() {
    const ENTRIES: usize = 20_000;
    let ground = Ground::new();
    let name = |number: usize| format!("{number:05}-{}", "x".repeat(number % 40));
    for number in 0..ENTRIES {
        fs::write(ground.at(format!("dir/deep/{}", name(number))), "").unwrap();
    }
    fs::remove_file(ground.at("dir/deep/file")).unwrap();
    for with_attributes in [false, true] {
        let (mut names, mut cookie, mut longest) = (BTreeSet::new(), None, 0);
        loop {
            let list = List { place: place("dir/deep"), cookie, with_attributes };
            let (page, next) = ground.names.list(&list).unwrap();
            longest = longest.max(page.len());
            for entry in crate::wire::names::decode_list::<DirectoryEntry>(&page).unwrap() {
                assert_eq!(entry.attributes.is_some(), with_attributes);
                assert!(names.insert(entry.name), "a name came twice");
            }
            cookie = next;
            if cookie.is_none() {
                break;
            }
        }
        assert_eq!(names.len(), ENTRIES);
        assert!((0..ENTRIES).all(|number| names.contains(&FileName::new(name(number)).unwrap())));
        assert!(longest <= PAGE_LEN_MAX && longest > PAGE_LEN_MAX / 2, "{longest}");
    }
}

/// What stays comes once, whatever comes and goes between two pages.
#[test]
fn a_directory_may_change_between_pages() {
    let ground = Ground::new();
    for number in 0..3000 {
        fs::write(ground.at(format!("dir/deep/{}-{number}", "x".repeat(40))), "").unwrap();
    }
    let (mut names, mut cookie, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = ground.page("dir/deep", cookie, false).unwrap();
        names.extend(page.into_iter().map(|entry| entry.name));
        pages += 1;
        // What this page has told is removed before the next one.
        let first = names.iter().find(|name| name.as_bytes().starts_with(b"x")).cloned();
        if let Some(first) = first.filter(|_| pages == 1) {
            let name = String::from_utf8(first.as_bytes().to_vec()).unwrap();
            fs::remove_file(ground.at(format!("dir/deep/{name}"))).unwrap();
            fs::write(ground.at("dir/deep/new"), PUBLIC).unwrap();
        }
        cookie = next;
        if cookie.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    let old: BTreeSet<_> = names.iter().filter(|name| name.as_bytes() != b"new").collect();
    assert_eq!(old.len(), 3001, "each that was there at the start");
    assert!(names.len() <= 3002, "none twice");
}

#[test]
fn t22_a_cookie_that_was_not_given_out_is_stale() {
    let ground = Ground::new();
    for at in ["dir", "dir/deep"] {
        for number in 0..1500 {
            fs::write(ground.at(format!("{at}/{}-{number}", "x".repeat(60))), "").unwrap();
        }
    }
    let (first, next) = ground.page("dir", None, false).unwrap();
    let cookie = next.expect("more than a page");
    let second = ground.page("dir", Some(cookie), false).unwrap().0;
    assert!(!first.is_empty() && !second.is_empty() && first != second);
    for bit in 0..Cookie::LEN * 8 {
        let mut forged = cookie;
        forged.0[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ground.page("dir", Some(forged), false).unwrap_err(), Reason::Stale, "bit {bit}");
    }
    for forged in [[0; Cookie::LEN], [0xff; Cookie::LEN]] {
        assert_eq!(ground.page("dir", Some(Cookie(forged)), false).unwrap_err(), Reason::Stale);
    }
    let mut cut = cookie;
    cut.0[12..].fill(0);
    assert_eq!(ground.page("dir", Some(cut), false).unwrap_err(), Reason::Stale);
    let other = ground.page("dir/deep", None, false).unwrap().1.unwrap();
    assert_eq!(ground.page("dir", Some(other), false).unwrap_err(), Reason::Stale, "of another directory");
    assert_eq!(ground.page("dir/deep", Some(cookie), false).unwrap_err(), Reason::Stale);
    let root = ground.page("", Some(cookie), false).unwrap_err();
    assert_eq!(root, Reason::Stale);
    // Another server's life, another key.
    let identity = ground.identity(&path("dir")).unwrap().unwrap();
    let alien = CookieKey::new([8; CookieKey::LEN]);
    assert_eq!(alien.position(identity, &cookie), None);
    fs::rename(ground.at("dir"), ground.at("moved")).unwrap();
    fs::create_dir(ground.at("dir")).unwrap();
    assert_eq!(ground.page("dir", Some(cookie), false).unwrap_err(), Reason::Stale, "it is another now");
    assert_eq!(ground.page("moved", Some(cookie), false).unwrap().0, second, "it is that one still");
    assert_eq!(format!("{alien:?}"), "CookieKey(..)");
    assert!(
        reason(
            ground.names.lookup(&crate::wire::names::Place { export: media(), path: path("moved") }, true)
        )
        .is_ok()
    );
}

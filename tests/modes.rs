//! Modes, shares and rights of open files, against a real server process with two clients.
#![cfg(feature = "program")]

use std::fs;

use bowline::client::OpenOptions;
use bowline::model::{LineSet, OpenMode, Reason, Rights, ShareMode, SyncScope};
use support::{EXPORT, only, pattern, reason, two};

mod support;

fn options(mode: OpenMode) -> OpenOptions {
    let options = OpenOptions::new().share(mode.share).with_key(false);
    options.read(mode.rights.contains(Rights::READ)).write(mode.rights.contains(Rights::WRITE))
}

#[tokio::test(flavor = "multi_thread")]
async fn b02_the_state_that_comes_with_a_handle_has_the_mode_in_which_the_file_is_open() {
    let (world, session, _other) = two(b"0123456789").await;
    let rights = [Rights::READ, Rights::WRITE, Rights::READ.union(Rights::WRITE)];
    for rights in rights {
        for share in [ShareMode::ALL, ShareMode::READ, ShareMode::NONE] {
            let mode = OpenMode { rights, share };
            let file = world.open(&session, &options(mode)).await.unwrap();
            assert_eq!(file.state().mode, mode);
            assert!(file.state().rights.contains(rights.union(Rights::LOCK)));
            assert_eq!(file.stat().await.unwrap().mode, mode);
            let key = world.key_of(&file).await;
            let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
            assert_eq!((duplicate.state().mode, duplicate.state().attributes.len), (mode, 10));
            duplicate.close().await.unwrap();
            file.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_file_that_is_open_for_reading_only_is_not_written() {
    let (world, session, _other) = two(b"0123456789").await;
    let file = world.open(&session, &options(OpenMode::READ)).await.unwrap();
    let mut into = [0; 4];
    assert_eq!(file.read_at(3, &mut into).await.unwrap(), 4);
    assert_eq!(&into, b"3456");
    assert_eq!(reason(file.write_at(0, b"x").await), Reason::PermissionDenied);
    assert_eq!(reason(file.append(b"x").await), Reason::PermissionDenied);
    assert_eq!(reason(file.set_len(0).await), Reason::PermissionDenied);
    assert_eq!(fs::read(world.file("file")).unwrap(), b"0123456789");
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_file_that_is_open_for_reading_and_writing_is_read_and_written() {
    let (world, session, _other) = two(b"0123456789").await;
    let file = world.open(&session, &options(OpenMode::READ_WRITE)).await.unwrap();
    file.write_at(8, b"abcd").await.unwrap();
    assert_eq!(file.append(b"!").await.unwrap(), 12);
    let mut into = [0; 32];
    assert_eq!(file.read_at(0, &mut into).await.unwrap(), 13);
    assert_eq!(&into[..13], b"01234567abcd!");
    file.set_len(3).await.unwrap();
    file.sync(SyncScope::All).await.unwrap();
    assert_eq!(fs::read(world.file("file")).unwrap(), b"012");
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_file_that_is_open_for_appending_only_is_added_to_and_nothing_else() {
    let (world, session, _other) = two(b"log\n").await;
    let file = world.open(&session, &OpenOptions::new().append(true)).await.unwrap();
    assert_eq!(file.append(b"one\n").await.unwrap(), 4);
    for refused in [file.write_at(0, b"x").await, file.set_len(0).await.map(drop)] {
        assert_eq!(reason(refused), Reason::PermissionDenied);
    }
    assert_eq!(reason(file.read_at(0, &mut [0; 1]).await), Reason::PermissionDenied);
    assert_eq!(fs::read(world.file("file")).unwrap(), b"log\none\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_an_exclusive_open_is_the_handles_and_its_duplicates_and_nobody_elses() {
    let content = pattern(10_000);
    let (world, session, other) = two(&content).await;
    let exclusive = options(OpenMode::READ_WRITE.exclusive());
    let file = world.open(&session, &exclusive).await.unwrap();
    let key = world.key_of(&file).await;
    let duplicate = world.resume(&session, &key, only(1)).await.unwrap();

    // Nobody else: not another client, and not the same client through its name.
    for contender in [&session, &other] {
        for mode in [OpenMode::READ, OpenMode::READ_WRITE, OpenMode::READ.exclusive()] {
            assert_eq!(reason(world.open(contender, &options(mode)).await), Reason::Busy, "{mode}");
        }
    }
    let export = other.export(EXPORT).unwrap();
    assert_eq!(reason(export.remove_file("file").await), Reason::Busy);
    assert_eq!(reason(export.rename("file", "stolen").await), Reason::Busy);
    assert_eq!(reason(other.resume(&key, LineSet::ALL).await), Reason::ResumeRefused);
    fs::write(world.file("decoy"), b"").unwrap();
    assert_eq!(reason(export.rename("decoy", "file").await), Reason::Busy, "not by replacing it either");
    assert_eq!(reason(export.exchange("decoy", "file").await), Reason::Busy);

    // The handle and its duplicate both use it; it stays exclusive until the last of them is closed.
    duplicate.write_at(0, b"through the duplicate").await.unwrap();
    let mut into = [0; 21];
    file.read_at(0, &mut into).await.unwrap();
    assert_eq!(&into, b"through the duplicate");
    file.close().await.unwrap();
    assert_eq!(reason(world.open(&other, &options(OpenMode::READ)).await), Reason::Busy);
    duplicate.read_at(0, &mut into).await.unwrap();
    duplicate.close().await.unwrap();
    world.open(&other, &options(OpenMode::READ)).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b21_mode_and_rights_are_stated_and_shown_and_the_key_gets_a_duplicate_that_is_used() {
    let (world, session, _other) = two(b"0123456789").await;
    let stated = OpenMode { rights: Rights::READ.union(Rights::WRITE), share: ShareMode::READ };
    // The open travels on a control channel; the handle shows what was granted.
    let file = world.open(&session, &options(stated)).await.unwrap();
    assert_eq!(file.state().mode, stated);
    assert_eq!(file.state().rights, stated.rights.union(Rights::LOCK).union(Rights::GRANT));
    // The key goes to the server on another channel and comes back as a duplicate of the same open.
    let key = world.key_of(&file).await;
    let duplicate = world.resume(&session, &key, only(1)).await.unwrap();
    assert_eq!(duplicate.state().mode, stated);
    assert_eq!(duplicate.state().rights, file.state().rights);
    assert_ne!(duplicate.handle(), file.handle());
    duplicate.write_at(2, b"xy").await.unwrap();
    let mut into = [0; 10];
    file.read_at(0, &mut into).await.unwrap();
    assert_eq!(&into, b"01xy456789");
}

/// Written down on its own: two opens stand side by side if each lets the other do what it does.
fn stand_side_by_side(a: OpenMode, b: OpenMode) -> bool {
    let lets = |open: OpenMode, other: OpenMode| {
        (!other.rights.contains(Rights::READ) || open.share.contains(ShareMode::READ))
            && (!other.rights.contains(Rights::WRITE) || open.share.contains(ShareMode::WRITE))
    };
    lets(a, b) && lets(b, a)
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_all_64_pairs_of_modes_are_let_in_or_kept_out_by_the_rule() {
    let (world, session, other) = two(b"0123456789").await;
    let shares =
        [ShareMode::NONE, ShareMode::READ, ShareMode::WRITE, ShareMode::READ.union(ShareMode::WRITE)];
    let rights = [Rights::READ, Rights::READ.union(Rights::WRITE)];
    let modes: Vec<OpenMode> =
        rights.into_iter().flat_map(|rights| shares.map(|share| OpenMode { rights, share })).collect();
    let mut pairs = 0;
    for &first in &modes {
        let held = world.open(&session, &options(first)).await.unwrap();
        for &second in &modes {
            pairs += 1;
            let opened = world.open(&other, &options(second)).await;
            if stand_side_by_side(first, second) {
                opened.unwrap().close().await.unwrap();
            } else {
                assert_eq!(reason(opened), Reason::Busy, "{first} beside {second}");
            }
        }
        held.close().await.unwrap();
    }
    assert_eq!(pairs, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_name_is_taken_away_only_if_every_open_of_the_file_shares_that() {
    let (world, session, other) = two(b"0123456789").await;
    let kept = OpenMode { rights: Rights::READ, share: ShareMode::READ.union(ShareMode::WRITE) };
    let export = other.export(EXPORT).unwrap();
    let file = world.open(&session, &options(kept)).await.unwrap();
    assert_eq!(reason(export.rename("file", "moved").await), Reason::Busy);
    assert_eq!(reason(export.remove_file("file").await), Reason::Busy);
    file.close().await.unwrap();
    let file = world.open(&session, &options(OpenMode::READ)).await.unwrap();
    export.rename("file", "moved").await.unwrap();
    export.remove_file("moved").await.unwrap();
    // The file is still open, under no name.
    let mut into = [0; 10];
    assert_eq!(file.read_at(0, &mut into).await.unwrap(), 10);
    assert_eq!(file.stat().await.unwrap().attributes.links, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_files_are_made_cut_and_kept_as_the_options_say() {
    let (world, session, _other) = two(b"0123456789").await;
    let export = session.export(EXPORT).unwrap();
    let write = || OpenOptions::new().write(true);
    assert_eq!(reason(export.open("new", &write()).await), Reason::NotFound);
    let file = world.noted(export.open("new", &write().create(true).mode(0o4751)).await).unwrap();
    assert_eq!(file.state().attributes.permissions & 0o7000, 0, "set-id bits are dropped");
    file.write_at(0, b"abc").await.unwrap();
    file.close().await.unwrap();
    assert_eq!(reason(export.open("new", &write().create_new(true)).await), Reason::Exists);
    let file = world.noted(export.open("new", &write().create(true)).await).unwrap();
    assert_eq!(file.state().attributes.len, 3);
    file.close().await.unwrap();
    let file = world.noted(export.open("new", &write().truncate(true)).await).unwrap();
    assert_eq!(file.state().attributes.len, 0);
    file.close().await.unwrap();
    // A cut that is kept out cuts nothing.
    let held = world.open(&session, &options(OpenMode::READ.exclusive())).await.unwrap();
    assert_eq!(reason(export.open("file", &write().truncate(true)).await), Reason::Busy);
    assert_eq!(fs::read(world.file("file")).unwrap(), b"0123456789");
    held.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_an_open_that_is_not_resumable_ends_with_its_session() {
    let (world, session, other) = two(b"0123456789").await;
    let plain = options(OpenMode::READ.exclusive()).resumable(false);
    let file = world.open(&session, &plain).await.unwrap();
    assert_eq!(reason(file.resume_key().await), Reason::PermissionDenied);
    file.leave_open();
    session.close().await;
    let opened = async {
        loop {
            match world.open(&other, &options(OpenMode::READ)).await {
                Err(error) if error.reason() == Some(Reason::Busy) => {
                    tokio::task::yield_now().await;
                }
                opened => return opened,
            }
        }
    };
    // Far sooner than the grace of 60 s that a resumable open would have.
    tokio::time::timeout(support::LONG, opened).await.unwrap().unwrap();
}

//! Opening, resume keys and duplicate handles, against a real server process over recorded sockets.
#![cfg(feature = "program")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test"
)]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline::client::{ChannelState, ChannelStatus, File, OpenOptions, Session};
use bowline::model::{ChannelKind, LineRole, LineSet, Reason, ResumeKey, Rights};
use support::{EXPORT, LONG, World, lost, only, pattern, reason};

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

async fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes).await.unwrap();
    bytes.truncate(read);
    bytes
}

fn live(session: &Session, kind: ChannelKind) -> Vec<ChannelStatus> {
    let is_meant = |status: &ChannelStatus| status.kind == kind && status.state == ChannelState::Live;
    session.channels().into_iter().filter(is_meant).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn b01_a_key_gets_a_duplicate_handle_that_reads_and_writes() {
    let content = pattern(3 << 20);
    let world = World::start(&content).await;
    let session = world.connect(BOTH).await;
    let first = world.open(&session, &read_write()).await.unwrap();
    let key = world.key_of(&first).await;

    let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
    assert_eq!(duplicate.state().rights, first.state().rights);
    assert_eq!(duplicate.state().mode, first.state().mode);
    assert!(duplicate.state().rights.contains(Rights::READ.union(Rights::WRITE)));
    assert_eq!(read_all(&duplicate, content.len() + 10).await, content);
    duplicate.write_at(7, b"through the duplicate").await.unwrap();
    let mut back = [0; 21];
    assert_eq!(first.read_at(7, &mut back).await.unwrap(), 21);
    assert_eq!(&back, b"through the duplicate");
    assert_eq!(&std::fs::read(world.file("file")).unwrap()[7..28], b"through the duplicate");

    // Each handle is a holder of its own: closing one leaves the other.
    first.close().await.unwrap();
    assert_eq!(read_all(&duplicate, 28).await[7..], *b"through the duplicate");
    duplicate.close().await.unwrap();
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b07_the_open_travels_on_one_channel_and_the_request_for_the_duplicate_on_another() {
    let world = World::start(&pattern(1000)).await;
    let session = world.connect(BOTH).await;
    let first = world.open(&session, &read_write()).await.unwrap();
    let key = world.key_of(&first).await;
    let controls = live(&session, ChannelKind::Control);
    let (opened_on, other) = (controls[0].line.0, controls[1].line.0);
    assert_ne!(opened_on, other, "the spare is on the other line");

    let before = world.recorders[usize::from(other)].labels();
    world.recorders[usize::from(opened_on)].refuse(true);
    world.recorders[usize::from(opened_on)].cut_all();
    lost(&session, usize::from(opened_on)).await;
    let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();

    // The spare, which had carried no more than its binding, has carried the request.
    let after = world.recorders[usize::from(other)].labels();
    let control = before.iter().position(|label| label.kind == support::recorder::Kind::BindControl).unwrap();
    assert!(after[control].to_server_len > before[control].to_server_len + 90);
    assert_eq!(read_all(&duplicate, 1000).await, pattern(1000));
    // The first handle lives on as well: its session was never in doubt.
    assert_eq!(read_all(&first, 1000).await, pattern(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_the_key_works_after_the_first_channel_is_gone() {
    let world = World::start(&pattern(5000)).await;
    let session = world.connect(BOTH).await;
    let first = world.open(&session, &read_write().exclusive()).await.unwrap();
    let key = world.key_of(&first).await;
    for recorder in &world.recorders {
        recorder.refuse(true);
        recorder.cut_all();
    }
    lost(&session, 0).await;
    lost(&session, 1).await;
    for recorder in &world.recorders {
        recorder.refuse(false);
    }
    // Another session of the same identity, as after a restart of the program: exclusive admits the duplicate.
    let second = world.connect(BOTH).await;
    let duplicate = world.resume(&second, &key, LineSet::ALL).await.unwrap();
    assert!(duplicate.state().mode.is_exclusive());
    assert_eq!(read_all(&duplicate, 5000).await, pattern(5000));
}

#[tokio::test(flavor = "multi_thread")]
async fn b22_a_client_can_ask_for_a_resume_key() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write().with_key(false)).await.unwrap();
    assert!(file.kept_key().is_none());
    let key = world.key_of(&file).await;
    let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
    assert_eq!(read_all(&duplicate, 100).await, b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn b23_the_key_comes_by_itself_with_the_open() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true)).await.unwrap();
    let key = file.kept_key().unwrap();
    world.note_key(&key);
    let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
    assert_eq!(read_all(&duplicate, 100).await, b"content");
    // The duplicate brings a key of its own, and the first one stays good: resuming is repeatable.
    let again = duplicate.kept_key().unwrap();
    world.note_key(&again);
    assert!(again != key);
    for key in [&key, &again] {
        assert_eq!(
            read_all(&world.resume(&session, key, LineSet::ALL).await.unwrap(), 100).await,
            b"content"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b24_first_handle_on_the_first_line_and_duplicate_on_the_second_at_the_same_time() {
    let content = pattern(24 << 20);
    let world = World::start(&content).await;
    let session = world.connect(BOTH).await;
    let first = world.open(&session, &read_write().lines(only(0))).await.unwrap();
    let key = world.key_of(&first).await;
    let duplicate = world.resume(&session, &key, only(1)).await.unwrap();
    let (a, b) = tokio::join!(read_all(&first, content.len()), read_all(&duplicate, content.len()));
    assert!(a == content && b == content);
    for status in live(&session, ChannelKind::Data) {
        assert_eq!(status.read_bytes, 24 << 20, "each handle kept to its line: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_the_first_channel_may_be_closed_before_the_second_exists() {
    let world = World::start(&pattern(5000)).await;
    let first_session = world.connect(BOTH).await;
    let first = world.open(&first_session, &read_write()).await.unwrap();
    let key = world.key_of(&first).await;
    first.leave_open();
    first_session.close().await;
    for recorder in &world.recorders {
        recorder.until(|labels| labels.iter().all(|label| !label.is_open)).await.unwrap();
    }
    let second = world.connect(BOTH).await;
    let duplicate = world.resume(&second, &key, LineSet::ALL).await.unwrap();
    duplicate.write_at(0, b"second").await.unwrap();
    assert_eq!(&std::fs::read(world.file("file")).unwrap()[..6], b"second");
}

#[tokio::test(flavor = "multi_thread")]
async fn b27_between_the_two_channels_the_file_is_open() {
    let world = World::start(&pattern(5000)).await;
    let first_session = world.connect(BOTH).await;
    let options = read_write().exclusive().grace(Duration::from_secs(120));
    let first = world.open(&first_session, &options).await.unwrap();
    let key = world.key_of(&first).await;
    let is_open_on_server = || {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", world.pid())).unwrap();
        folder
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == world.file("file")))
    };
    assert!(is_open_on_server());
    first.leave_open();
    first_session.close().await;

    let second = world.connect(BOTH).await;
    assert!(is_open_on_server(), "no channel reaches it, and the server has it open");
    let error = world.open(&second, &OpenOptions::new().read(true)).await.unwrap_err();
    assert!(error.is_retryable());
    let bowline::client::Error::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.reason, Reason::Busy);
    let left = refusal.retry_after().unwrap();
    assert!(
        left <= Duration::from_secs(120) && left > Duration::from_secs(100),
        "{left:?} of the grace are left"
    );
    let duplicate = world.resume(&second, &key, LineSet::ALL).await.unwrap();
    duplicate.close().await.unwrap();
    // Closed by its last holder but one: the orphaned first holder still keeps others out, until its grace ends.
    assert_eq!(reason(world.open(&second, &read_write()).await), Reason::Busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn b39_a_key_consists_of_file_id_time_stamp_and_process_id() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    let key = world.key_of(&file).await;
    #[expect(clippy::disallowed_methods, reason = "compares the server's stamp with this machine's clock")]
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    assert_eq!(key.process_id, std::process::id());
    assert!(now_us.abs_diff(u128::from(key.time_stamp_us)) < 60_000_000, "stamped when it was issued");
    let other = world.open(&session, &read_write()).await.unwrap();
    assert_ne!(world.key_of(&other).await.file_id, key.file_id, "the file id names the open, not the path");

    // Each part of it counts, and every wrong one gets the same answer.
    let wrong = |change: fn(&mut ResumeKey)| {
        let mut wrong = key.clone();
        change(&mut wrong);
        wrong
    };
    for wrong in [
        wrong(|key| key.time_stamp_us += 1),
        wrong(|key| key.process_id ^= 1),
        wrong(|key| key.generation += 1),
        wrong(|key| key.secret[15] ^= 1),
        wrong(|key| key.file_id.0 ^= 1),
    ] {
        assert_eq!(reason(world.resume(&session, &wrong, LineSet::ALL).await), Reason::ResumeRefused);
    }
    assert!(world.log().contains("WrongSecret") || world.log().contains("resume key refused"));
    world.resume(&session, &key, LineSet::ALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b40_the_file_id_is_the_index_of_the_open_s_state() {
    let world = World::start(b"content").await;
    let session = world.connect(BOTH).await;
    let read_only = world.open(&session, &OpenOptions::new().read(true)).await.unwrap();
    let read_write = world.open(&session, &read_write()).await.unwrap();
    for file in [&read_only, &read_write] {
        let key = world.key_of(file).await;
        let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
        assert_eq!(duplicate.state().mode, file.state().mode, "the state behind this very index");
        assert_eq!(duplicate.state().rights, file.state().rights);
    }
    // An index of another open with this key's secret leads nowhere.
    let mut crossed = world.key_of(&read_only).await;
    crossed.file_id = world.key_of(&read_write).await.file_id;
    assert_eq!(reason(world.resume(&session, &crossed, LineSet::ALL).await), Reason::ResumeRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_in_place_of_a_lost_one_leaves_that_no_way_back() {
    let world = World::start(&pattern(5000)).await;
    let lost_session = world.connect(BOTH).await;
    let old = world.open(&lost_session, &read_write().exclusive()).await.unwrap();
    let key = world.key_of(&old).await;
    let session = world.connect(BOTH).await;
    let new = session.resume_in_place_of(old.handle(), &key, LineSet::ALL).await.unwrap();
    world.key_of(&new).await;
    assert_eq!(reason(old.write_at(0, b"late").await), Reason::BadHandle);
    new.write_at(0, b"new!").await.unwrap();
    assert_eq!(&std::fs::read(world.file("file")).unwrap()[..4], b"new!");
    // The key outlives the handle it was issued to: an answer that was lost locks nobody out.
    let again = world.resume(&session, &key, LineSet::ALL).await.unwrap();
    assert_eq!(read_all(&again, 4).await, b"new!");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_nobody_waited_for_keeps_nobody_out() {
    let world = World::start(&pattern(5000)).await;
    let session = world.connect(BOTH).await;
    let exclusive = read_write().exclusive().with_key(false);
    for _ in 0..20 {
        // Given up at its first wait, when it has been sent.
        tokio::select! {
            biased;
            opened = session.open(EXPORT, "file", &exclusive) => drop(opened),
            () = std::future::ready(()) => {}
        }
    }
    let opened = async {
        loop {
            match session.open(EXPORT, "file", &exclusive).await {
                Ok(file) => break file,
                Err(error) => assert_eq!(error.reason(), Some(Reason::Busy)),
            }
        }
    };
    let file = tokio::time::timeout(LONG, opened).await.expect("the file stays locked by nobody");
    assert_eq!(read_all(&file, 5000).await, pattern(5000));
}

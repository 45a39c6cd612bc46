//! The client library as an application uses it, against a real server process: streams, vectors, directories, waits
//! that end, and the facade without async.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Error, FileStream, OpenOptions, ReadDir, blocking};
use bowline::model::{ByteRange, LineRole, LockMode, OpenMode, Reason, SyncScope};
use futures_core::Stream as _;
use rustix::process::{Pid, Signal, kill_process};
use support::{EXPORT, LONG, World, pattern, reason, two};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

mod support;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_carries_what_is_copied_into_it_and_reads_it_back() {
    let world = World::start(b"").await;
    let session = world.connect(BOTH).await;
    let content = pattern(9_000_001);
    let file = world.open(&session, &read_write()).await.unwrap();
    let mut stream = file.into_stream();
    let copied = tokio::io::copy(&mut &content[..], &mut stream).await.unwrap();
    assert_eq!(copied, 9_000_001);
    stream.flush().await.unwrap();
    assert_eq!(fs::read(world.file("file")).unwrap(), content);

    // In order, after a jump, and with writes in between that reads see.
    let mut back = Vec::new();
    stream.rewind().await.unwrap();
    stream.read_to_end(&mut back).await.unwrap();
    assert!(back == content);
    assert_eq!(stream.seek(SeekFrom::End(-10)).await.unwrap(), 8_999_991);
    stream.write_all(b"0123456789 and more").await.unwrap();
    stream.seek(SeekFrom::Current(-19)).await.unwrap();
    let mut tail = String::new();
    stream.read_to_string(&mut tail).await.unwrap();
    assert_eq!(tail, "0123456789 and more");
    stream.shutdown().await.unwrap();
    stream.into_file().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_write_behind_is_told_once_and_nothing_is_written_behind_it() {
    let (world, session, other) = two(&[b'.'; 1000]).await;
    let owner = world.open(&other, &read_write()).await.unwrap();
    owner.try_lock(range(100, 200), LockMode::Exclusive).await.unwrap();
    let mut stream: FileStream = world.open(&session, &read_write()).await.unwrap().into_stream();
    stream.seek(SeekFrom::Start(150)).await.unwrap();
    let told = async {
        stream.write_all(b"into the lock").await?;
        stream.flush().await
    };
    assert_eq!(told.await.unwrap_err().raw_os_error(), Some(rustix::io::Errno::ACCESS.raw_os_error()));
    for _ in 0..2 {
        let again = stream.write_all(b"x").await.unwrap_err();
        assert_eq!(
            again.raw_os_error(),
            Some(rustix::io::Errno::IO.raw_os_error()),
            "not the same error again"
        );
    }
    let mut into = [0; 4];
    stream.rewind().await.unwrap();
    stream.read_exact(&mut into).await.unwrap();
    assert_eq!(&into, b"....");
    assert_eq!(fs::read(world.file("file")).unwrap(), [b'.'; 1000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_stream_writes_at_the_end_whoever_else_does() {
    let (world, session, other) = two(b"").await;
    let append = OpenOptions::new().append(true);
    let mut streams = Vec::new();
    for (session, mark) in [(&session, b'a'), (&other, b'b')] {
        let stream = world.open(session, &append).await.unwrap().into_stream();
        streams.push(tokio::spawn(async move {
            let mut stream = stream;
            for _ in 0..200 {
                stream.write_all(&[mark; 100]).await.unwrap();
            }
            stream.flush().await.unwrap();
        }));
    }
    for stream in streams {
        stream.await.unwrap();
    }
    let written = fs::read(world.file("file")).unwrap();
    assert_eq!(written.len(), 40_000);
    for part in written.chunks(100) {
        assert!(part.iter().all(|byte| *byte == part[0]), "an append was torn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_and_ranges_are_read_and_written_at_once() {
    let world = World::start(b"").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    let parts = [IoSlice::new(b"one, "), IoSlice::new(b""), IoSlice::new(b"two, "), IoSlice::new(b"three")];
    file.write_vectored_at(3, &parts).await.unwrap();
    file.flush().await.unwrap();
    assert_eq!(fs::read(world.file("file")).unwrap(), b"\0\0\0one, two, three");
    let (mut first, mut second) = ([0; 4], [0; 100]);
    let read = file
        .read_vectored_at(3, &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)])
        .await
        .unwrap();
    assert_eq!((read, &first, &second[..11]), (15, b"one,", &b" two, three"[..]));
    let ranges = file.read_ranges(&[(13, 5), (0, 3), (16, 100), (50, 1)]).await.unwrap();
    assert_eq!(ranges, [&b"three"[..], b"\0\0\0", b"ee", b""]);
    file.sync(SyncScope::Data).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_a_stream_of_entries() {
    let world = World::start(b"").await;
    let session = world.connect(BOTH).await;
    let export = session.export(EXPORT).unwrap();
    export.create_dir_all("deep/er", 0o777).await.unwrap();
    for number in 0..3000 {
        fs::write(world.file(&format!("deep/er/{number}")), [b'x'; 7]).unwrap();
    }
    let mut listing: ReadDir = export.read_dir_with_attributes("deep/er").await.unwrap();
    let mut names = BTreeSet::new();
    while let Some(entry) = std::future::poll_fn(|context| Pin::new(&mut listing).poll_next(context)).await {
        let entry = entry.unwrap();
        assert_eq!(entry.attributes().unwrap().len, 7);
        assert!(names.insert(entry.name().clone()));
    }
    assert_eq!(names.len(), 3000);
    assert!(export.try_exists("deep").await.unwrap() && !export.try_exists("none").await.unwrap());
    let space = export.space("").await.unwrap();
    assert!(space.available <= space.free && space.free <= space.total && space.total > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wait_ends_with_its_time_when_the_server_says_nothing() {
    let world = World::start(b"0123456789").await;
    let session = world.connect(BOTH).await;
    let limit = Duration::from_millis(150);
    let export = session.export(EXPORT).unwrap();
    let opened = world.noted(export.open("file", &read_write()).await);
    let file = opened.unwrap().with_timeout(limit);
    let export = export.with_timeout(limit);
    let server = Pid::from_raw(i32::try_from(world.pid()).unwrap()).unwrap();
    kill_process(server, Signal::STOP).unwrap();
    // Stopped is what the kernel says of all threads.
    let is_stopped = |thread: &fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    };
    let threads = || fs::read_dir(format!("/proc/{}/task", world.pid())).unwrap().map(Result::unwrap);
    while !threads().all(|thread| is_stopped(&thread)) {
        tokio::task::yield_now().await;
    }
    let (wait, range) = (Duration::from_millis(50), ByteRange::ALL);
    let outcomes = [
        (file.read_at(0, &mut [0; 1]).await.map(drop), limit),
        (file.write_at(0, b"x").await, limit),
        (file.append(b"x").await.map(drop), limit),
        // It waits for the writes before it, which the server still has to answer.
        (file.flush().await, limit),
        (file.sync(SyncScope::All).await, limit),
        (file.stat().await.map(drop), limit),
        (file.try_lock(range, LockMode::Shared).await, limit),
        // The answer may come when the wait for the lock is over.
        (file.lock(range, LockMode::Exclusive, wait).await, limit + wait),
        (file.unlock(range).await, limit),
        (file.set_len(5).await.map(drop), limit),
        (export.metadata("file").await.map(drop), limit),
        (export.read_dir("").await.map(drop), limit),
        (export.rename("file", "file").await, limit),
        (export.xattr_names("file").await.map(drop), limit),
        (file.close().await, limit),
    ];
    kill_process(server, Signal::CONT).unwrap();
    for (at, (outcome, limit)) in outcomes.into_iter().enumerate() {
        let Err(error) = outcome else { panic!("call {at} had an answer") };
        assert!(matches!(error, Error::TimedOut(after) if after == limit), "{at}: {error}");
        assert_eq!(error.errno(), Some(rustix::io::Errno::TIMEDOUT.raw_os_error()));
        assert!(error.is_retryable());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_lock_that_is_given_up_leaves_no_lock_behind() {
    let (world, session, other) = two(&[b'.'; 10]).await;
    let owner = world.open(&session, &read_write()).await.unwrap();
    let contender = world.open(&other, &read_write()).await.unwrap();
    owner.try_lock(range(0, 10), LockMode::Exclusive).await.unwrap();
    for limit in [0, 1, 20] {
        let waiting = contender.lock(range(0, 10), LockMode::Exclusive, LONG);
        assert!(tokio::time::timeout(Duration::from_millis(limit), waiting).await.is_err());
    }
    owner.unlock(ByteRange::ALL).await.unwrap();
    // Whatever was had meanwhile is given back.
    owner.lock(range(0, 10), LockMode::Exclusive, LONG).await.unwrap();
    assert_eq!(reason(contender.try_lock(range(0, 10), LockMode::Shared).await), Reason::Locked);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_dropped_leave_no_handle_open_and_no_entry_out() {
    let (world, session, other) = two(&pattern(2_000_000)).await;
    let export = session.export(EXPORT).unwrap();
    for number in 0..2000 {
        fs::write(world.file(&format!("{number}")), b"").unwrap();
    }
    let file = world.open(&session, &read_write()).await.unwrap();
    let mut listing = export.read_dir("").await.unwrap();
    let mut listed = 0;
    let mut into = vec![0; 2_000_000];
    // Dropped before the first poll, while queued, while under way, or too late: whatever the moment, nothing is lost.
    for micros in (0..200).map(|round| round * 10) {
        let limit = Duration::from_micros(micros);
        drop(tokio::time::timeout(limit, session.open(EXPORT, "file", &read_write())).await);
        drop(tokio::time::timeout(limit, file.read_at(0, &mut into)).await);
        drop(tokio::time::timeout(limit, file.stat()).await);
        if let Ok(entry) = tokio::time::timeout(limit, listing.next_entry()).await {
            listed += usize::from(entry.unwrap().is_some());
        }
    }
    while listing.next_entry().await.unwrap().is_some() {
        listed += 1;
    }
    assert_eq!(listed, 2001, "an entry that was not returned is returned by the next call");
    assert_eq!(file.read_at(0, &mut into).await.unwrap(), 2_000_000);
    assert!(into == pattern(2_000_000));
    file.close().await.unwrap();
    // Every handle that nobody took was closed, so that the file can be had alone.
    let alone = async {
        loop {
            match world.open(&other, &read_write().exclusive()).await {
                Err(error) if error.reason() == Some(Reason::Busy) => tokio::task::yield_now().await,
                opened => return opened,
            }
        }
    };
    tokio::time::timeout(LONG, alone).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_without_async_have_the_same_client() {
    let world = World::start(b"").await;
    let (peer, identity) = (world.peer(BOTH), Arc::clone(&world.identity));
    // Within a runtime a call that blocks is refused, instead of stopping everybody else.
    assert!(blocking::Client::new(Arc::clone(&identity)).and_then(|client| client.connect(&peer)).is_err());
    let content = pattern(2_000_000);
    let expected = content.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let session = blocking::Client::new(identity).unwrap().connect(&peer).unwrap();
        session.all_lines_up(LONG).unwrap();
        let export = session.export(EXPORT).unwrap();
        export.create_dir("folder", 0o777).unwrap();
        let mut file = export.open("folder/new", &read_write().create_new(true).with_key(false)).unwrap();
        file.write_all(&content).unwrap();
        file.flush().unwrap();
        file.seek(SeekFrom::Start(1_000_000)).unwrap();
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert!(rest == content[1_000_000..]);
        // What was read ahead is not what is read after a change by place.
        file.rewind().unwrap();
        let mut two = [0; 2];
        file.read_exact(&mut two).unwrap();
        file.write_all_at(b"by place", 5).unwrap();
        let mut next = [0; 11];
        file.read_exact(&mut next).unwrap();
        assert_eq!(&next[3..], b"by place");
        file.lock(ByteRange::ALL, LockMode::Exclusive, Duration::ZERO).unwrap();
        assert_eq!(file.state().mode, OpenMode::READ_WRITE);
        let error = export.open("none", &read_write()).unwrap_err();
        assert_eq!(std::io::Error::from(error).raw_os_error(), Some(rustix::io::Errno::NOENT.raw_os_error()));
        let names: Vec<_> =
            export.read_dir("").unwrap().map(|entry| entry.unwrap().name().as_bytes().to_vec()).collect();
        file.close().unwrap();
        session.close().unwrap();
        sender.send(names.len()).unwrap();
    });
    assert_eq!(tokio::time::timeout(LONG, receiver).await.unwrap().unwrap(), 2);
    thread.join().unwrap();
    let written = fs::read(world.file("folder/new")).unwrap();
    assert_eq!(&written[5..13], b"by place");
    assert!(written[13..] == expected[13..]);
}

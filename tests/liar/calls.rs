//! Every operation of the library, against a server that lies.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{Client, Error, Export, File, OpenOptions, ReadDir, Session};
use bowline::model::{
    Allocation, ByteRange, FileName, LineSet, LockMode, ResumeKey, SetTime, SyncScope, XattrHow,
};
use bowline::net::Clock;
use bowline::secure::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::CALL_MAX;
use super::server::Liar;
use crate::support::EXPORT;

/// How many entries of an endless listing are taken before it is enough.
const ENTRIES_MAX: usize = 3000;

/// What came of calls.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    pub(crate) timed_out: usize,
    pub(crate) sessions: usize,
    pub(crate) slowest: Duration,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.timed_out += other.timed_out;
        self.sessions += other.sessions;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn note<T>(&mut self, outcome: &Result<T, Error>, took: Duration) {
        self.slowest = self.slowest.max(took);
        match outcome {
            Ok(_) => self.succeeded += 1,
            Err(Error::TimedOut(_)) => self.timed_out += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// A call, which ends in time.
async fn call<T>(what: &str, tally: &mut Tally, call: impl Future<Output = Result<T, Error>>) -> Option<T> {
    let began = Clock.now();
    let outcome = tokio::time::timeout(CALL_MAX, call).await.unwrap_or_else(|_| panic!("{what} hangs"));
    tally.note(&outcome, Clock.now().since(began));
    outcome.ok()
}

/// One seed: a liar, a session with it, and everything that can be asked of it, several calls at a time.
pub(crate) async fn play(seed: u64, client: Client, identity: Arc<Identity>) -> Tally {
    let liar = Liar::start(seed, identity).await;
    let mut tally = Tally::default();
    let Some(session) = call("connect", &mut tally, client.connect(&liar.peer())).await else {
        return tally;
    };
    tally.sessions = 1;
    let export = session.export(EXPORT).unwrap();
    let (names, links, files, more) = tokio::join!(
        on_names(export.clone()),
        on_links(export.clone()),
        on_files(session.clone(), export.clone()),
        on_files(session.clone(), export),
    );
    [names, links, files, more].iter().for_each(|other| tally.add(other));
    tokio::time::timeout(CALL_MAX, session.close()).await.unwrap_or_else(|_| panic!("close hangs"));
    tally
}

async fn on_names(export: Export) -> Tally {
    let tally = &mut Tally::default();
    call("metadata", tally, export.metadata("a/b")).await;
    call("symlink_metadata", tally, export.symlink_metadata("a/b")).await;
    call("try_exists", tally, export.try_exists("a/b")).await;
    if let Some(listing) = call("read_dir", tally, export.read_dir("a")).await {
        take_entries(tally, listing).await;
    }
    if let Some(listing) = call("read_dir with attributes", tally, export.read_dir_with_attributes("")).await
    {
        take_entries(tally, listing).await;
    }
    call("create_dir", tally, export.create_dir("a/c", 0o755)).await;
    call("create_dir_all", tally, export.create_dir_all("a/b/c/d/e", 0o755)).await;
    call("remove_file", tally, export.remove_file("a/b")).await;
    call("remove_dir", tally, export.remove_dir("a/b")).await;
    call("rename", tally, export.rename("a", "b")).await;
    call("rename_no_replace", tally, export.rename_no_replace("a", "b")).await;
    call("exchange", tally, export.exchange("a", "b")).await;
    tally.clone()
}

/// The names that a listing brings are names of one component, and can be joined to a path that stays where it is.
async fn take_entries(tally: &mut Tally, mut listing: ReadDir) {
    for _ in 0..ENTRIES_MAX {
        let Some(Some(entry)) = call("next_entry", tally, listing.next_entry()).await else { return };
        let name = entry.name().as_bytes();
        assert!(FileName::new(name).is_ok(), "{name:?}");
        assert!(!name.is_empty() && name.len() <= 255 && name != b"." && name != b"..", "{name:?}");
        assert!(!name.contains(&b'/') && !name.contains(&0), "{name:?}");
        if let Ok(path) = entry.path() {
            assert!(path.as_bytes().ends_with(name));
        }
    }
}

async fn on_links(export: Export) -> Tally {
    let tally = &mut Tally::default();
    call("symlink", tally, export.symlink("../../etc", "l")).await;
    call("hard_link", tally, export.hard_link("a", "l")).await;
    if let Some(target) = call("read_link", tally, export.read_link("l")).await {
        // Where a link leads is the server's word, but it is a path: some bytes, none of them NUL.
        assert!((1..=4095).contains(&target.as_bytes().len()) && !target.as_bytes().contains(&0));
    }
    call("space", tally, export.space("")).await;
    call("set_permissions", tally, export.set_permissions("a", 0o600)).await;
    call("set_times", tally, export.set_times("a", Some(SetTime::Now), None)).await;
    if let Some(value) = call("xattr", tally, export.xattr("a", "user.x")).await {
        assert!(value.len() <= 64 << 10);
    }
    call("set_xattr", tally, export.set_xattr("a", "user.x", &[1; 100], XattrHow::Set)).await;
    if let Some(names) = call("xattr_names", tally, export.xattr_names("a")).await {
        for name in names {
            let name = name.as_bytes();
            assert!(name.starts_with(b"user.") && name.len() > 5 && !name.contains(&0), "{name:?}");
        }
    }
    call("remove_xattr", tally, export.remove_xattr("a", "user.x")).await;
    tally.clone()
}

async fn on_files(session: Session, export: Export) -> Tally {
    let tally = &mut Tally::default();
    let options = OpenOptions::new().read(true).write(true).create(true);
    let Some(file) = call("open", tally, export.open("a", &options)).await else { return tally.clone() };
    let key = file.kept_key();
    read_and_write(tally, &file).await;
    change(tally, &file).await;
    lock(tally, &file).await;
    let fresh = call("resume_key", tally, file.resume_key()).await;
    for key in key.iter().chain(&fresh) {
        resume(tally, &session, key).await;
    }
    stream(tally, &session, &options).await;
    call("close", tally, file.close()).await;
    tally.clone()
}

async fn resume(tally: &mut Tally, session: &Session, key: &ResumeKey) {
    let resumed = session.resume(key, LineSet::ALL);
    if let Some(duplicate) = call("resume", tally, resumed).await {
        call("stat", tally, duplicate.stat()).await;
        call("close", tally, duplicate.close()).await;
    }
}

async fn read_and_write(tally: &mut Tally, file: &File) {
    let mut bytes = vec![0; 100_000];
    for offset in [0, 1 << 40, u64::MAX - 10] {
        if let Some(read) = call("read_at", tally, file.read_at(offset, &mut bytes)).await {
            assert!(read <= bytes.len());
        }
    }
    if let Some(read) = call("read_chunk", tally, file.read_chunk(0, 1000)).await {
        assert!(read.len() <= 1000);
    }
    let ranges = [(0, 4096), (100, 0), (8192, 700_000), (3, 1)];
    if let Some(read) = call("read_ranges", tally, file.read_ranges(&ranges)).await {
        assert_eq!(read.len(), ranges.len());
        assert!(read.iter().zip(ranges).all(|(read, (_, len))| read.len() <= len));
    }
    call("write_at", tally, file.write_at(0, &bytes)).await;
    call("append", tally, file.append(&bytes[..1000])).await;
    call("flush", tally, file.flush()).await;
    call("sync", tally, file.sync(SyncScope::All)).await;
    let mut ahead = file.read_ahead(0, Some(5 << 20));
    for _ in 0..20 {
        match call("read ahead", tally, ahead.next()).await {
            Some(Some(bytes)) => assert!(bytes.len() <= 1 << 20),
            _ => break,
        }
    }
}

async fn change(tally: &mut Tally, file: &File) {
    let range = ByteRange::between(0, 4096).unwrap();
    call("stat", tally, file.stat()).await;
    call("set_len", tally, file.set_len(100)).await;
    call("set_times", tally, file.set_times(None, Some(SetTime::At(5)))).await;
    call("set_permissions", tally, file.set_permissions(0o600)).await;
    call("allocate", tally, file.allocate(range, Allocation::Reserve)).await;
    call("punch_hole", tally, file.punch_hole(range)).await;
    call("seek_data", tally, file.seek_data(0)).await;
    call("seek_hole", tally, file.seek_hole(0)).await;
    call("xattr", tally, file.xattr("user.x")).await;
    call("set_xattr", tally, file.set_xattr("user.x", b"value", XattrHow::Create)).await;
    call("xattr_names", tally, file.xattr_names()).await;
    call("remove_xattr", tally, file.remove_xattr("user.x")).await;
}

async fn lock(tally: &mut Tally, file: &File) {
    let range = ByteRange::between(0, 10).unwrap();
    call("try_lock", tally, file.try_lock(range, LockMode::Exclusive)).await;
    call("lock", tally, file.lock(range, LockMode::Shared, Duration::from_millis(100))).await;
    call("unlock", tally, file.unlock(range)).await;
}

/// As `tokio::io` sees a file.
async fn stream(tally: &mut Tally, session: &Session, options: &OpenOptions) {
    let Some(file) = call("open", tally, session.open(EXPORT, "b", options)).await else { return };
    let mut stream = file.into_stream();
    let mut bytes = vec![0; 50_000];
    let outcome = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        for _ in 0..20 {
            if stream.read(&mut bytes).await? == 0 {
                break;
            }
        }
        poll_fn(|cx| tokio::io::AsyncSeek::poll_complete(Pin::new(&mut stream), cx)).await
    };
    let began = Clock.now();
    let ended = tokio::time::timeout(CALL_MAX, outcome).await.unwrap_or_else(|_| panic!("a stream hangs"));
    tally.slowest = tally.slowest.max(Clock.now().since(began));
    if ended.is_ok() { tally.succeeded += 1 } else { tally.failed += 1 }
}

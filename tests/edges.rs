//! Requests at the edges of what a file system takes, against a real server process: refused, or the same as locally.
#![cfg(feature = "program")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use bowline::client::{Error, OpenOptions};
use bowline::model::{LineRole, Reason, XattrHow};
use rustix::fs::XattrFlags;
use support::{EXPORT, World, reason};

mod support;

const BOTH: [LineRole; 2] = [LineRole::Both; 2];

#[tokio::test(flavor = "multi_thread")]
async fn f09_t15_offsets_beyond_the_last_byte_are_invalid() {
    let world = World::start(b"0123456789").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
    let last = i64::MAX.unsigned_abs();
    for offset in [last, last + 1, u64::MAX] {
        assert_eq!(reason(file.read_at(offset, &mut [0; 1]).await), Reason::Invalid, "{offset}");
        assert_eq!(reason(file.write_at(offset, b"x").await), Reason::Invalid, "{offset}");
    }
    assert_eq!(reason(file.set_len(last + 1).await), Reason::Invalid);
    assert_eq!(file.read_at(last - 1, &mut [0; 1]).await.unwrap(), 0);
    assert_eq!(fs::read(world.file("file")).unwrap(), b"0123456789");
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_reading_and_writing_nothing_does_nothing() {
    let world = World::start(b"0123456789").await;
    let session = world.connect(BOTH).await;
    let file = world.open(&session, &OpenOptions::new().read(true).write(true)).await.unwrap();
    let stamps = || {
        let metadata = fs::metadata(world.file("file")).unwrap();
        (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec(), metadata.len())
    };
    let before = stamps();
    assert_eq!(file.read_at(3, &mut []).await.unwrap(), 0);
    assert_eq!(file.read_at(1000, &mut []).await.unwrap(), 0);
    file.write_at(3, b"").await.unwrap();
    file.write_at(1000, b"").await.unwrap();
    assert_eq!(file.append(b"").await.unwrap(), 10);
    assert_eq!(stamps(), before);
}

/// The error number of a call that has to fail.
fn errno<T: std::fmt::Debug>(outcome: Result<T, Error>) -> i32 {
    outcome.unwrap_err().errno().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_extended_attributes_beyond_the_limits_end_as_they_do_locally() {
    let world = World::start(b"0123456789").await;
    let session = world.connect(BOTH).await;
    let export = session.export(EXPORT).unwrap();
    let options = OpenOptions::new().read(true).write(true);
    let file = world.noted(export.open("file", &options).await).unwrap();
    let local = world.folder.path().join("local");
    fs::write(&local, b"").unwrap();
    let set_locally = |name: &str, value: &[u8], flags| {
        rustix::fs::setxattr(&local, name, value, flags).map_err(|errno| errno.raw_os_error())
    };

    // Names: the longest there is, and one more.
    let longest = format!("user.{}", "n".repeat(250));
    export.set_xattr("file", &longest, b"v", XattrHow::Set).await.unwrap();
    assert_eq!(export.xattr("file", &longest).await.unwrap(), &b"v"[..]);
    set_locally(&longest, b"v", XattrFlags::empty()).unwrap();
    let longer = format!("{longest}n");
    let local_errno = set_locally(&longer, b"v", XattrFlags::empty()).unwrap_err();
    let here = errno(export.set_xattr("file", &longer, b"v", XattrHow::Set).await);
    assert_eq!(here, local_errno);

    // Values: 64 KiB is Linux's limit, and file systems have lower ones; both sides end alike.
    for len in [0, 1, 1000, 65_535, 65_536, 65_537, 1 << 20] {
        let value = vec![b'v'; len];
        let local = set_locally("user.long", &value, XattrFlags::empty());
        let remote = file.set_xattr("user.long", &value, XattrHow::Set).await;
        match local {
            Ok(()) => {
                remote.unwrap();
                assert_eq!(file.xattr("user.long").await.unwrap().len(), len);
            }
            Err(local) => assert_eq!(errno(remote), local, "{len}"),
        }
    }

    // What is there, what is not, and what is not served at all.
    assert_eq!(
        reason(export.set_xattr("file", "user.new", b"v", XattrHow::Replace).await),
        Reason::NoAttribute
    );
    export.set_xattr("file", "user.new", b"v", XattrHow::Create).await.unwrap();
    assert_eq!(reason(export.set_xattr("file", "user.new", b"v", XattrHow::Create).await), Reason::Exists);
    assert_eq!(reason(export.xattr("file", "user.none").await), Reason::NoAttribute);
    export.remove_xattr("file", "user.new").await.unwrap();
    assert_eq!(reason(export.remove_xattr("file", "user.new").await), Reason::NoAttribute);
    for name in ["trusted.a", "security.capability", "system.posix_acl_access"] {
        assert_eq!(reason(export.xattr("file", name).await), Reason::Unsupported, "{name}");
    }
    assert_eq!(reason(export.xattr("file", "user.").await), Reason::Invalid);
    let names = export.xattr_names("file").await.unwrap();
    assert!(names.iter().any(|name| name.as_bytes() == longest.as_bytes()));
}

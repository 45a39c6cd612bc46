//! File work against real files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::*;

fn descriptor(bytes: &[u8]) -> (Descriptor, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let opened = File::options().read(true).write(true).open(file.path()).unwrap();
    (Descriptor::new(opened.into()), file)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A file system of which each answer is written down beforehand. Reads fill with `x`.
struct Script {
    answers: VecDeque<Result<usize, Errno>>,
    asked: Vec<(u64, usize)>,
}

impl Script {
    fn new(answers: &[Result<usize, Errno>]) -> Self {
        Self { answers: answers.iter().copied().collect(), asked: Vec::new() }
    }

    fn answer(&mut self, offset: u64, len: usize) -> Result<usize, Errno> {
        self.asked.push((offset, len));
        self.answers.pop_front().expect("asked more often than expected")
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        assert!(buffer.iter().all(|&byte| byte == 0), "a buffer with somebody's bytes");
        let count = self.answer(offset, buffer.len())?;
        buffer[..count].fill(b'x');
        Ok(count)
    }
}

#[test]
fn reads_append_and_stop_at_the_end_of_the_file() {
    let bytes = pattern(300_000);
    let (file, _keep) = descriptor(&bytes);
    for (offset, len) in
        [(0, 300_000), (0, 1), (7, 131_072), (299_999, 10), (300_000, 10), (1 << 40, 10), (5, 0)]
    {
        let mut into = BytesMut::from(&b"before"[..]);
        file.read(offset, len, &mut into).unwrap();
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = (start + usize::try_from(len).unwrap()).min(bytes.len());
        assert_eq!(into[..6], b"before"[..]);
        assert_eq!(into[6..], bytes[start..end], "{len} bytes at {offset}");
    }
}

/// Whether a file system answers from memory is its own business; what it answers is not.
#[test]
fn cached_reads_never_invent_bytes() {
    let bytes = pattern(300_000);
    let (file, _keep) = descriptor(&bytes);
    for (offset, len) in [(0, 300_000), (7, 131_072), (299_999, 10), (300_000, 10), (5, 0)] {
        let mut into = BytesMut::from(&b"before"[..]);
        let outcome = file.read_cached(offset, len, &mut into);
        let start = usize::try_from(offset).unwrap();
        let end = (start + usize::try_from(len).unwrap()).min(bytes.len());
        assert!(bytes[start..end].starts_with(&into[6..]));
        match outcome {
            CachedRead::Done => assert_eq!(into.len() - 6, end - start),
            CachedRead::Partial => assert!(into.len() > 6 && into.len() - 6 < end - start),
            CachedRead::NotCached => assert_eq!(into.len(), 6),
        }
        if outcome == CachedRead::NotCached {
            eprintln!("this file system does not read from memory only: {offset} {len}");
        }
    }
}

#[test]
fn a_cached_read_goes_on_until_memory_ends() {
    let run = |len, answers: &[_]| {
        let mut script = Script::new(answers);
        let mut into = BytesMut::from(&b"-"[..]);
        let outcome = read_cached_with(100, len, &mut into, |at, buffer| script.read(at, buffer));
        assert!(script.answers.is_empty());
        assert!(into[1..].iter().all(|&byte| byte == b'x'));
        (outcome, into.len() - 1, script.asked)
    };
    let two = vec![(100, 10), (104, 6)];
    assert_eq!(run(10, &[Ok(10)]), (CachedRead::Done, 10, vec![(100, 10)]));
    assert_eq!(run(10, &[Ok(4), Ok(6)]), (CachedRead::Done, 10, two.clone()));
    assert_eq!(run(10, &[Ok(4), Err(Errno::AGAIN)]), (CachedRead::Partial, 4, two.clone()));
    assert_eq!(run(10, &[Ok(4), Ok(0)]), (CachedRead::Done, 4, two));
    assert_eq!(run(10, &[Err(Errno::INTR), Ok(10)]), (CachedRead::Done, 10, vec![(100, 10); 2]));
    for errno in [Errno::AGAIN, Errno::OPNOTSUPP, Errno::IO] {
        assert_eq!(run(10, &[Err(errno)]), (CachedRead::NotCached, 0, vec![(100, 10)]));
    }
    assert_eq!(run(0, &[]), (CachedRead::Done, 0, vec![]));
}

#[test]
fn a_read_that_fails_half_way_is_no_short_read() {
    let run = |answers: &[_]| {
        let mut script = Script::new(answers);
        let mut into = BytesMut::from(&b"-"[..]);
        let outcome = read_with(100, 10, &mut into, |at, buffer| script.read(at, buffer));
        assert!(script.answers.is_empty());
        (outcome, into.len() - 1)
    };
    assert_eq!(run(&[Ok(4), Err(Errno::IO)]), (Err(Errno::IO), 0));
    assert_eq!(run(&[Ok(4), Err(Errno::INTR), Ok(6)]), (Ok(()), 10));
    assert_eq!(run(&[Ok(4), Ok(3), Ok(0)]), (Ok(()), 7));
}

#[test]
fn a_write_tells_how_far_it_came() {
    let run = |answers: &[_]| {
        let mut script = Script::new(answers);
        let outcome = write_with(100, &[7; 10], |at, rest| script.answer(at, rest.len()));
        assert!(script.answers.is_empty());
        (outcome, script.asked)
    };
    assert_eq!(run(&[Ok(10)]), (Ok(10), vec![(100, 10)]));
    assert_eq!(run(&[Ok(4), Err(Errno::INTR), Ok(6)]), (Ok(10), vec![(100, 10), (104, 6), (104, 6)]));
    assert_eq!(run(&[Ok(4), Err(Errno::NOSPC)]), (Ok(4), vec![(100, 10), (104, 6)]));
    assert_eq!(run(&[Ok(4), Ok(0)]), (Ok(4), vec![(100, 10), (104, 6)]));
    assert_eq!(run(&[Err(Errno::NOSPC)]), (Err(Errno::NOSPC), vec![(100, 10)]));
    assert_eq!(run(&[Ok(0)]), (Err(Errno::IO), vec![(100, 10)]));
}

#[test]
fn writes_land_where_they_belong_and_grow_the_file() {
    let (file, keep) = descriptor(b"0123456789");
    assert_eq!(file.write(3, b"abc"), Ok(3));
    assert_eq!(file.write(12, b"z"), Ok(1));
    assert_eq!(std::fs::read(keep.path()).unwrap(), b"012abc6789\0\0z");
    assert_eq!(file.attributes().unwrap().len, 13);
    file.sync(SyncScope::Data).unwrap();
    file.sync(SyncScope::All).unwrap();
}

/// Every append is told where its bytes are, and they are there and nobody else's: of two descriptors of one file
/// with two threads each, beside a program on the server that appends as well.
#[test]
fn appends_never_mix_and_know_their_places() {
    const ROUNDS: usize = 4000;
    let (one, keep) = descriptor(b"");
    let again = || File::options().read(true).write(true).open(keep.path()).unwrap();
    let other = Descriptor::new(again().into());
    let record = |writer: usize, round: usize| {
        format!("[{writer}:{round}{}]", "x".repeat((writer * 7 + round) % 60)).into_bytes()
    };
    let placed = std::thread::scope(|scope| {
        let threads: Vec<_> = [&one, &one, &other, &other]
            .into_iter()
            .enumerate()
            .map(|(writer, file)| {
                scope.spawn(move || {
                    let place = |round| {
                        let bytes = record(writer, round);
                        // Seeks move the position that appends read back.
                        file.seek(0, Seekable::Hole).unwrap();
                        let (offset, written) = file.append(&bytes).unwrap();
                        assert_eq!(usize::try_from(written).unwrap(), bytes.len());
                        (offset, bytes)
                    };
                    (0..ROUNDS).map(place).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut local = File::options().append(true).open(keep.path()).unwrap();
        for round in 0..ROUNDS {
            local.write_all(&record(9, round)).unwrap();
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let bytes = std::fs::read(keep.path()).unwrap();
    for (offset, record) in &placed {
        let start = usize::try_from(*offset).unwrap();
        assert_eq!(bytes[start..start + record.len()], record[..]);
    }
    let ours: usize = placed.iter().map(|(_, record)| record.len()).sum();
    let theirs: usize = (0..ROUNDS).map(|round| record(9, round).len()).sum();
    assert_eq!(bytes.len(), ours + theirs, "nothing lies over anything else");
}

#[test]
fn an_append_finds_the_end_of_this_moment() {
    let (file, keep) = descriptor(b"0123456789");
    assert_eq!(file.append(b"ab"), Ok((10, 2)));
    file.write(20, b"z").unwrap();
    assert_eq!(file.append(b"cd"), Ok((21, 2)));
    file.set_len(3).unwrap();
    assert_eq!(file.append(b"ef"), Ok((3, 2)));
    assert_eq!(std::fs::read(keep.path()).unwrap(), b"012ef");
    let before = file.attributes().unwrap();
    assert_eq!(file.append(b""), Ok((5, 0)));
    assert_eq!(file.attributes().unwrap(), before);
}

#[test]
fn lengths_are_set_and_refused() {
    let (file, keep) = descriptor(b"0123456789");
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(std::fs::read(keep.path()).unwrap(), b"0123\0\0");
    assert_eq!(file.set_len(END_MAX + 1), Err(Reason::Invalid.into()));
    assert_eq!(file.set_len(u64::MAX), Err(Reason::Invalid.into()));
    let reader = Descriptor::new(File::open(keep.path()).unwrap().into());
    assert_eq!(reader.set_len(0), Err(Reason::PermissionDenied.into()));
    assert_eq!(reader.append(b"x"), Err(Reason::PermissionDenied.into()));
    let reserve = reader.allocate(ByteRange::between(0, 10).unwrap(), Allocation::Reserve);
    assert_eq!(reserve, Err(Reason::PermissionDenied.into()));
    assert_eq!(std::fs::read(keep.path()).unwrap().len(), 6);
}

#[test]
fn storage_is_reserved_and_given_back() {
    const MIB: u64 = 1 << 20;
    let (file, keep) = descriptor(b"x");
    let range = |start, end| ByteRange::between(start, end).unwrap();
    if file.allocate(range(0, MIB), Allocation::ReserveKeepLen) == Err(Reason::Unsupported.into()) {
        eprintln!("skipped: this file system reserves nothing");
        return;
    }
    let kept = file.attributes().unwrap();
    assert_eq!(kept.len, 1);
    assert!(kept.allocated >= MIB);
    file.allocate(range(0, MIB), Allocation::Reserve).unwrap();
    assert_eq!(file.attributes().unwrap().len, MIB);
    file.write(0, &vec![7; usize::try_from(MIB).unwrap()]).unwrap();
    file.allocate(range(MIB / 4, MIB / 2), Allocation::PunchHole).unwrap();
    let punched = file.attributes().unwrap();
    assert_eq!(punched.len, MIB);
    assert!(punched.allocated < kept.allocated);
    assert!(std::fs::read(keep.path()).unwrap()[262_144..524_288].iter().all(|&byte| byte == 0));
    // What lies around a hole is data, on file systems that keep track of it.
    assert_eq!(file.seek(0, Seekable::Hole), Ok(Some(MIB / 4)));
    assert_eq!(file.seek(MIB / 4, Seekable::Data), Ok(Some(MIB / 2)));
    let far = file.allocate(range(0, ByteRange::END_MAX), Allocation::Reserve).unwrap_err().reason;
    assert!(matches!(far, Reason::TooBig | Reason::NoSpace | Reason::Invalid), "{far:?}");
}

#[test]
fn seeks_end_with_the_file() {
    let (file, _keep) = descriptor(b"0123456789");
    assert_eq!(file.seek(3, Seekable::Data), Ok(Some(3)));
    assert_eq!(file.seek(3, Seekable::Hole), Ok(Some(10)), "the end counts as a hole");
    for offset in [10, 11, END_MAX] {
        assert_eq!(file.seek(offset, Seekable::Data), Ok(None), "{offset}");
        assert_eq!(file.seek(offset, Seekable::Hole), Ok(None), "{offset}");
    }
    for offset in [END_MAX + 1, u64::MAX] {
        assert_eq!(file.seek(offset, Seekable::Data), Err(Reason::Invalid.into()), "{offset}");
    }
}

#[test]
fn an_empty_write_changes_nothing() {
    let (file, keep) = descriptor(b"x");
    let past = std::time::UNIX_EPOCH + core::time::Duration::from_secs(1000);
    File::options().write(true).open(keep.path()).unwrap().set_modified(past).unwrap();
    let before = file.attributes().unwrap();
    assert_eq!(file.write(100, b""), Ok(0));
    assert_eq!(file.attributes().unwrap(), before);
    assert_eq!(before.modified_ns, 1_000_000_000_000);
}

#[test]
fn ranges_beyond_the_greatest_offset_are_invalid() {
    let (file, _keep) = descriptor(b"x");
    let mut into = BytesMut::new();
    for offset in [END_MAX, END_MAX + 1, u64::MAX] {
        assert_eq!(file.write(offset, b"ab"), Err(Reason::Invalid.into()), "{offset}");
        assert_eq!(file.read(offset, 2, &mut into), Err(Reason::Invalid.into()), "{offset}");
        assert_eq!(file.read_cached(offset, 2, &mut into), CachedRead::NotCached);
    }
    let over = u32::try_from(Limits::PAYLOAD_LEN_MAX).unwrap() + 1;
    assert_eq!(file.read(0, over, &mut into), Err(Reason::Invalid.into()));
    assert_eq!(file.read_cached(0, over, &mut into), CachedRead::NotCached);
    assert_eq!((into.len(), into.capacity()), (0, 0), "nothing is set aside for what is refused");
    assert_eq!(file.read(END_MAX - 1, 1, &mut into), Ok(()), "the greatest offset is past the end, no error");
}

#[test]
fn a_full_file_system_is_named() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(Descriptor::new(full.into()).write(0, b"x"), Err(Reason::NoSpace.into()));
}

#[test]
fn attributes_are_those_of_the_file() {
    let (file, keep) = descriptor(b"12345");
    let expected = std::fs::metadata(keep.path()).unwrap();
    let found = file.attributes().unwrap();
    assert_eq!((found.len, found.permissions), (5, expected.mode() & 0o7777));
    assert_eq!(found.modified_ns, expected.mtime() * 1_000_000_000 + expected.mtime_nsec());
    assert_eq!(found.changed_ns, expected.ctime() * 1_000_000_000 + expected.ctime_nsec());
}

#[test]
fn each_error_has_its_reason() {
    let table = [
        (Errno::NOENT, Reason::NotFound),
        (Errno::NOTDIR, Reason::NotDirectory),
        (Errno::ACCESS, Reason::PermissionDenied),
        (Errno::PERM, Reason::PermissionDenied),
        (Errno::XDEV, Reason::Outside),
        (Errno::LOOP, Reason::Outside),
        (Errno::ISDIR, Reason::IsDirectory),
        (Errno::NOSPC, Reason::NoSpace),
        (Errno::DQUOT, Reason::Quota),
        (Errno::ROFS, Reason::ReadOnly),
        (Errno::MFILE, Reason::Exhausted),
        (Errno::NFILE, Reason::Exhausted),
        (Errno::NOMEM, Reason::Exhausted),
        (Errno::INVAL, Reason::Invalid),
        (Errno::FBIG, Reason::TooBig),
        (Errno::TOOBIG, Reason::AttributeTooBig),
        (Errno::RANGE, Reason::AttributeNameTooLong),
        (Errno::NAMETOOLONG, Reason::NameTooLong),
        (Errno::EXIST, Reason::Exists),
        (Errno::NOTEMPTY, Reason::NotEmpty),
        (Errno::MLINK, Reason::TooManyLinks),
        (Errno::NODATA, Reason::NoAttribute),
        (Errno::OPNOTSUPP, Reason::Unsupported),
        (Errno::NOSYS, Reason::Unsupported),
        (Errno::BUSY, Reason::Busy),
        (Errno::AGAIN, Reason::Busy),
        (Errno::TXTBSY, Reason::Busy),
        (Errno::IO, Reason::Io),
        (Errno::BADF, Reason::PermissionDenied),
        (Errno::STALE, Reason::Stale),
    ];
    for (errno, reason) in table {
        assert_eq!(refusal(errno), Refusal::from(reason), "{errno:?}");
    }
}

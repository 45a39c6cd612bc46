//! A stream's state, driven against a file in memory whose answers come when the test says so.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::model::{Attributes, FileState, OpenMode, Stability};
use crate::wire::control::Stated;
use crate::wire::data::{AppendDone, WriteDone};

/// The outcome of a request, once it has one.
type Slot = Rc<RefCell<Option<Outcome>>>;
type Outcome = Result<Answer<Bytes>, Error>;

struct TestReply(Slot);

impl Reply for TestReply {
    fn poll_outcome(&mut self, _: &mut Context<'_>) -> Poll<Result<Answer<Bytes>, Error>> {
        self.0.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A write that is done when the test says so.
struct Held {
    slot: Slot,
    outcome: Outcome,
    /// Where which bytes go; an append has gone there already.
    change: Option<(u64, Bytes)>,
}

#[derive(Default)]
struct TestFile {
    bytes: RefCell<Vec<u8>>,
    /// Writes without an outcome yet.
    held: RefCell<VecDeque<Held>>,
    holds: Cell<bool>,
    fails: Cell<Option<Reason>>,
    appends: Cell<bool>,
    reads: RefCell<Vec<(u64, u32)>>,
}

impl TestFile {
    fn new(bytes: &[u8]) -> Self {
        Self { bytes: RefCell::new(bytes.to_vec()), ..Self::default() }
    }

    /// Writes wait for [`Self::release`].
    fn holding(self) -> Self {
        self.holds.set(true);
        self
    }

    fn release(&self) {
        self.release_nth(0);
    }

    /// Does a held write out of turn.
    fn release_nth(&self, index: usize) {
        let held = self.held.borrow_mut().remove(index).expect("a write is held");
        self.finish(held);
    }

    fn finish(&self, Held { slot, outcome, change }: Held) {
        if let Some((offset, part)) = change.filter(|_| outcome.is_ok()) {
            self.store(usize::try_from(offset).unwrap(), &part);
        }
        *slot.borrow_mut() = Some(outcome);
    }

    fn store(&self, offset: usize, part: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        let end = offset + part.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(part);
    }

    fn reply(&self, outcome: Outcome, change: Option<(u64, Bytes)>) -> TestReply {
        let slot: Slot = Rc::default();
        let outcome = self.fails.get().map_or(outcome, |reason| Err(refused(reason)));
        let held = Held { slot: Rc::clone(&slot), outcome, change };
        if self.holds.get() {
            self.held.borrow_mut().push_back(held);
        } else {
            self.finish(held);
        }
        TestReply(slot)
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes.borrow().clone()).unwrap()
    }
}

impl Requests for TestFile {
    type Reply = TestReply;

    fn window(&self) -> Window {
        Window { chunk: 4, bytes: 12, requests: 8 }
    }

    fn appends(&self) -> bool {
        self.appends.get()
    }

    fn read(&self, offset: u64, len: u32) -> TestReply {
        self.reads.borrow_mut().push((offset, len));
        let bytes = self.bytes.borrow();
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        let to = (from + usize::try_from(len).unwrap()).min(bytes.len());
        let outcome = Ok(Answer::Read(Some(Bytes::copy_from_slice(&bytes[from..to]))));
        TestReply(Rc::new(RefCell::new(Some(outcome))))
    }

    fn write(&self, offset: u64, (part, len): (Bytes, u32)) -> TestReply {
        let done = WriteDone { written: len, stability: Stability::Received };
        self.reply(Ok(Answer::Written(done)), Some((offset, part)))
    }

    fn append(&self, (part, len): (Bytes, u32)) -> TestReply {
        let end = self.bytes.borrow().len();
        self.store(end, &part);
        let done = AppendDone { offset: len_u64(end), written: len, stability: Stability::Received };
        self.reply(Ok(Answer::Appended(done)), None)
    }

    fn stat(&self) -> TestReply {
        let mode = OpenMode::READ_WRITE;
        let attributes = Attributes { len: len_u64(self.bytes.borrow().len()), ..Attributes::default() };
        let state = FileState { mode, rights: mode.rights, attributes };
        TestReply(Rc::new(RefCell::new(Some(Ok(Answer::Control(Stated { state }.into(), None))))))
    }
}

struct Bench {
    file: TestFile,
    cursor: Cursor<TestReply>,
}

impl Bench {
    fn new(file: TestFile) -> Self {
        Self { file, cursor: Cursor::new(0) }
    }

    fn read(&mut self, len: usize) -> Poll<String> {
        let read = self.cursor.poll_read(&self.file, &mut context(), len);
        read.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
    }

    fn write(&mut self, text: &str) -> Poll<Result<usize, Error>> {
        self.cursor.poll_write(&self.file, &mut context(), text.as_bytes())
    }

    fn flush(&mut self) -> Poll<Result<(), Error>> {
        self.cursor.poll_flush(&mut context())
    }

    fn seek(&mut self, to: SeekFrom) -> Poll<Result<u64, Error>> {
        self.cursor.start_seek(to);
        self.cursor.poll_seek(&self.file, &mut context())
    }
}

fn context() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn reason<T: std::fmt::Debug>(poll: Poll<Result<T, Error>>) -> Option<Reason> {
    ready(poll).unwrap_err().reason()
}

#[test]
fn bytes_come_in_order_and_the_end_is_tried_again() {
    let mut bench = Bench::new(TestFile::new(b"abcdefghij"));
    let mut text = String::new();
    loop {
        let part = ready(bench.read(3));
        if part.is_empty() {
            break;
        }
        text.push_str(&part);
    }
    assert_eq!(text, "abcdefghij");
    bench.file.bytes.borrow_mut().extend_from_slice(b"kl");
    assert_eq!(ready(bench.read(9)), "kl", "the file has grown");
}

#[test]
fn reading_ahead_is_bounded_and_asks_for_nothing_twice() {
    let mut bench = Bench::new(TestFile::new(&[b'x'; 64]));
    ready(bench.read(1));
    assert_eq!(*bench.file.reads.borrow(), [(0, 4), (4, 4), (8, 4)], "12 bytes are the window");
    for _ in 0..20 {
        ready(bench.read(3));
    }
    let offsets: Vec<u64> = bench.file.reads.borrow().iter().map(|read| read.0).collect();
    assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 4), "{offsets:?}");
}

#[test]
fn a_reader_that_jumps_about_reads_little_ahead() {
    let reads = RefCell::new(Vec::new());
    let window = Window { chunk: 512 << 10, bytes: 8 << 20, requests: 64 };
    let begin = |at, len| {
        reads.borrow_mut().push((at, len));
        let bytes = vec![0; usize::try_from(len).unwrap()];
        TestReply(Rc::new(RefCell::new(Some(Ok(Answer::Read(Some(bytes.into())))))))
    };
    let mut ahead = Ahead::new(0, END, REACH_FIRST);
    let mut most = Vec::new();
    for _ in 0..6 {
        drop(ready(ahead.poll_next(&mut context(), window, None, begin)).unwrap());
        most.push(reads.borrow().iter().map(|read| u64::from(read.1)).sum::<u64>());
    }
    assert_eq!(most[0], REACH_FIRST, "at first");
    assert!(most.windows(2).all(|pair| pair[1] - pair[0] <= 2 * (8 << 20)), "{most:?}");
    assert!(most[5] > 4 << 20, "a steady reader is far ahead soon: {most:?}");
}

#[test]
fn writes_are_behind_within_the_window() {
    let mut bench = Bench::new(TestFile::new(b"").holding());
    assert_eq!(ready(bench.write("abcdefg")).unwrap(), 4, "a chunk at most");
    assert_eq!(ready(bench.write("efgh")).unwrap(), 4);
    assert_eq!(ready(bench.write("ijkl")).unwrap(), 4);
    assert!(bench.write("mn").is_pending(), "12 bytes are under way");
    assert!(bench.flush().is_pending());
    bench.file.release();
    assert_eq!(ready(bench.write("mn")).unwrap(), 2);
    for _ in 0..3 {
        assert!(bench.flush().is_pending());
        bench.file.release();
    }
    ready(bench.flush()).unwrap();
    assert_eq!(bench.file.text(), "abcdefghijklmn");
}

#[test]
fn a_header_that_is_written_last_is_there_in_the_end() {
    let mut bench = Bench::new(TestFile::new(b"").holding());
    ready(bench.write("????")).unwrap();
    ready(bench.write("body")).unwrap();
    ready(bench.seek(SeekFrom::Start(2))).unwrap();
    assert!(bench.write("he").is_pending(), "the placeholder is under way");
    ready(bench.seek(SeekFrom::Start(0))).unwrap();
    assert!(bench.write("head").is_pending());
    ready(bench.seek(SeekFrom::Start(8))).unwrap();
    assert_eq!(ready(bench.write("tail")).unwrap(), 4, "what touches it only need not wait");
    // The server takes its time with the oldest one.
    bench.file.release_nth(2);
    bench.file.release_nth(1);
    ready(bench.seek(SeekFrom::Start(0))).unwrap();
    assert!(bench.write("head").is_pending());
    bench.file.release();
    assert_eq!(ready(bench.write("head")).unwrap(), 4);
    assert!(bench.flush().is_pending());
    bench.file.release();
    ready(bench.flush()).unwrap();
    assert_eq!(bench.file.text(), "headbodytail");
}

#[test]
fn a_read_waits_for_the_writes_before_it_and_sees_them() {
    let mut bench = Bench::new(TestFile::new(b"..........").holding());
    assert_eq!(ready(bench.read(2)), "..");
    assert_eq!(ready(bench.write("ab")).unwrap(), 2);
    assert_eq!(bench.seek(SeekFrom::Start(0)).map(Result::unwrap), Poll::Ready(0), "a seek keeps the writes");
    assert!(bench.read(9).is_pending());
    bench.file.release();
    let mut text = ready(bench.read(3));
    text.push_str(&ready(bench.read(1)));
    assert_eq!(text, "..ab", "what was read ahead before the write is gone");
}

#[test]
fn reading_goes_on_behind_what_was_written() {
    let mut bench = Bench::new(TestFile::new(b"0123456789"));
    assert_eq!(ready(bench.read(2)), "01");
    ready(bench.write("ab")).unwrap();
    assert_eq!(ready(bench.read(2)), "45", "not what was read ahead at the place of the write");
}

#[test]
fn the_error_of_a_write_behind_is_told_once_and_the_stream_stays_failed() {
    for told_by_write in [true, false] {
        let mut bench = Bench::new(TestFile::new(b"old").holding());
        bench.file.fails.set(Some(Reason::NoSpace));
        assert!(ready(bench.write("new")).is_ok());
        bench.file.release();
        bench.file.fails.set(None);
        assert_eq!(ready(bench.read(1)), "", "reading goes on, and tells of no write");
        let first = if told_by_write { reason(bench.write("more")) } else { reason(bench.flush()) };
        assert_eq!(first, Some(Reason::NoSpace));
        for _ in 0..2 {
            assert!(matches!(ready(bench.write("more")), Err(Error::EarlierWrite)));
            assert!(matches!(ready(bench.flush()), Err(Error::EarlierWrite)));
        }
        assert_eq!(bench.file.held.borrow().len(), 0, "nothing more is written");
    }
}

#[test]
fn a_short_write_is_a_full_disk() {
    let mut bench = Bench::new(TestFile::new(b"").holding());
    ready(bench.write("abcd")).unwrap();
    let short = Answer::Written(WriteDone { written: 3, stability: Stability::Received });
    bench.file.held.borrow_mut()[0].outcome = Ok(short);
    bench.file.release();
    assert_eq!(reason(bench.flush()), Some(Reason::NoSpace));
}

#[test]
fn appends_go_one_after_the_other_and_tell_where_they_went() {
    let mut bench = Bench::new(TestFile::new(b"log:").holding());
    bench.file.appends.set(true);
    assert_eq!(ready(bench.write("one ")).unwrap(), 4);
    assert!(bench.write("two").is_pending(), "one at a time");
    // Somebody else appends in between.
    bench.file.store(8, b"## ");
    bench.file.release();
    assert_eq!(ready(bench.write("two")).unwrap(), 3);
    assert!(bench.seek(SeekFrom::Current(0)).is_pending());
    bench.file.release();
    assert_eq!(ready(bench.seek(SeekFrom::Current(0))).unwrap(), 14);
    assert_eq!(bench.file.text(), "log:one ## two");
}

#[test]
fn a_seek_behind_an_append_is_not_undone_by_its_end() {
    let mut bench = Bench::new(TestFile::new(b"log:").holding());
    bench.file.appends.set(true);
    ready(bench.write("one")).unwrap();
    assert!(bench.seek(SeekFrom::Start(1)).is_pending());
    bench.file.release();
    assert_eq!(ready(bench.read(9)), "og:o", "a chunk from where the seek led");
}

#[test]
fn seeks_end_where_files_can() {
    let mut bench = Bench::new(TestFile::new(b"abcdef"));
    assert_eq!(ready(bench.seek(SeekFrom::End(-2))).unwrap(), 4);
    assert_eq!(ready(bench.read(9)), "ef");
    assert_eq!(ready(bench.seek(SeekFrom::Current(-5))).unwrap(), 1);
    assert_eq!(ready(bench.read(2)), "bc");
    for bad in [SeekFrom::Current(-9), SeekFrom::End(-7), SeekFrom::Start(1 << 63), SeekFrom::End(i64::MIN)] {
        assert_eq!(reason(bench.seek(bad)), Some(Reason::Invalid), "{bad:?}");
    }
    assert_eq!(ready(bench.read(2)), "de", "a seek that fails moves nothing");
}

#[test]
fn a_seek_to_the_same_place_keeps_what_was_read_ahead() {
    let mut bench = Bench::new(TestFile::new(b"abcdefghijklmnop"));
    ready(bench.read(1));
    let before = bench.file.reads.borrow().len();
    assert_eq!(ready(bench.seek(SeekFrom::Current(0))).unwrap(), 1);
    assert_eq!(ready(bench.read(1)), "b");
    assert_eq!(bench.file.reads.borrow().len(), before);
    ready(bench.seek(SeekFrom::Start(9))).unwrap();
    assert_eq!(ready(bench.read(1)), "j");
    assert_eq!(bench.file.reads.borrow()[before], (9, 4));
}

#[test]
fn the_end_is_behind_what_is_being_written() {
    let mut bench = Bench::new(TestFile::new(b"abc").holding());
    ready(bench.seek(SeekFrom::Start(3))).unwrap();
    ready(bench.write("def")).unwrap();
    assert!(bench.seek(SeekFrom::End(0)).is_pending());
    bench.file.release();
    assert_eq!(ready(bench.cursor.poll_seek(&bench.file, &mut context())).unwrap(), 6);
}

#[test]
fn what_was_read_ahead_and_thrown_away_is_read_again() {
    let mut bench = Bench::new(TestFile::new(b"abcdefghijkl"));
    assert_eq!(ready(bench.read(2)), "ab");
    // Written at a place, and not by the stream: of the chunk that was taken in part, and of one that was not.
    bench.file.store(2, b"XY");
    bench.file.store(6, b"Z");
    bench.cursor.forget_reads();
    let mut text = ready(bench.read(4));
    text.push_str(&ready(bench.read(4)));
    assert_eq!(text, "XYefZhij", "from where the stream stood");
}

#[test]
fn the_error_of_a_write_behind_that_nobody_heard_of_can_be_taken_along() {
    let mut bench = Bench::new(TestFile::new(b"").holding());
    bench.file.fails.set(Some(Reason::NoSpace));
    ready(bench.write("abcd")).unwrap();
    assert!(bench.cursor.take_untold().is_none(), "it has not failed yet");
    bench.file.release();
    ready(bench.cursor.poll_settled(&mut context()));
    assert_eq!(bench.cursor.take_untold().and_then(|error| error.reason()), Some(Reason::NoSpace));
    assert!(bench.cursor.take_untold().is_none(), "once");
    assert!(matches!(ready(bench.flush()), Err(Error::EarlierWrite)), "and the stream stays failed");
}

//! What the database and the kernel take for the same, without a server, a network or a table of opens.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};

use super::Outcome;
use super::world::folder;

const TREE: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("floor");
/// Length of the record of an open with one key and a short path, with its sum.
const RECORD: [u8; 320] = [7; 320];

/// Records a second, in commits of so many, with two phases as the table's.
pub(crate) fn commits(is_synced: bool, group: usize, count: usize) -> Outcome<f64> {
    let folder = folder()?;
    let database = database(&folder.path().join("floor.redb"), is_synced)?;
    let begin = Instant::now();
    commit(&database, group, count)?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// Seconds to read and check a database of so many records, to open as many files, and to write each record once.
pub(crate) fn comeback(count: usize, group: usize) -> Outcome<f64> {
    let folder = folder()?;
    let (path, file) = (folder.path().join("floor.redb"), folder.path().join("file"));
    std::fs::write(&file, b"content")?;
    commit(&database(&path, false)?, group, count)?;
    let begin = Instant::now();
    let database = database(&path, false)?;
    let mut len = 0;
    for entry in database.begin_read()?.open_table(TREE)?.iter()? {
        len += entry?.1.value().len();
    }
    if len != count * RECORD.len() {
        return Err("records are missing".into());
    }
    let files = (0..count).map(|_| File::open(&file)).collect::<io::Result<Vec<_>>>()?;
    commit(&database, group, count)?;
    drop(files);
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds to open and close so many files, of a thousand.
pub(crate) fn opens(count: usize) -> Outcome<f64> {
    let folder = folder()?;
    let path = |at: usize| folder.path().join((at % 1000).to_string());
    for at in 0..1000 {
        std::fs::write(path(at), b"content")?;
    }
    let begin = Instant::now();
    for at in 0..count {
        drop(File::options().read(true).write(true).open(path(at))?);
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn commit(database: &Database, group: usize, count: usize) -> Outcome<()> {
    for first in (0..count).step_by(group) {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let mut tree = transaction.open_table(TREE)?;
        for at in first..count.min(first + group) {
            // As scattered as random ids are.
            tree.insert((1, (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)), &RECORD[..])?;
        }
        drop(tree);
        transaction.commit()?;
    }
    Ok(())
}

fn database(path: &Path, is_synced: bool) -> Outcome<Database> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut builder = Builder::new();
    builder.set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(Medium { file, is_synced })?)
}

/// A file that waits for the disk or does not.
#[derive(Debug)]
struct Medium {
    file: File,
    is_synced: bool,
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_synced { self.file.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

//! The file `state`: what is known of the table before it is opened, and what must outlive a table that is not believed.
//!
//! A text of lines, in this order, whose sum is its last one. It is small, and replaced as a whole.
//!
//! ```text
//! bowline-state 1
//! store 0123456789abcdef0123456789abcdef
//! epoch 12
//! takeovers 0
//! boot fedcba9876543210fedcba9876543210
//! durability process
//! closed no
//! commits 4711
//! key 00112233445566778899aabbccddeeff
//! server aaaa..
//! sum 8899aabbccddeeff0011223344556677
//! ```

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use rustix::io::Errno;

use super::file::open_file;
use super::seal::{SUM_LEN, Seal};
use super::{Damage, StoreError};
use crate::model::{BootId, Durability, PublicKey, StoreId};
use crate::net::replace::Replacement;

/// The format that this program writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 2;
/// Longest text, in bytes: several times what it has with the most servers.
const LEN_MAX: u64 = 4096;
/// Most servers that a state can belong to: one, and the one that it was before its key changed.
pub(super) const SERVERS_MAX: usize = 2;
const TITLE: &str = "bowline-state ";

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The table that belongs to it.
    pub(super) store: StoreId,
    /// The number of the server's life.
    pub(super) epoch: u64,
    /// How often another host took the state over.
    pub(super) takeovers: u64,
    /// The boot in which the table was used last.
    pub(super) boot: BootId,
    /// The boot of whose clock the times in its records are, and whose end they know nothing of. It is another one than that
    /// until all of them have been stored anew.
    pub(super) records: BootId,
    /// What its commits survived then.
    pub(super) durability: Durability,
    /// Whether the table is whole on the disk.
    pub(super) is_closed: bool,
    /// How many commits the table had when this was written; 0 if it was not made yet.
    pub(super) commits: u64,
    /// By which the key of the hashes is known.
    pub(super) key_check: [u8; SUM_LEN],
    /// The servers that it belongs to: one server, under its key and under the one before.
    pub(super) servers: Vec<PublicKey>,
}

impl Header {
    /// What the file `path` says; none if there is none.
    ///
    /// # Errors
    /// [`StoreError::Format`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub(super) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let file = match open_file(path, false) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(|errno| StoreError::io("open", path, errno.into()))?,
        };
        let mut bytes = Vec::new();
        file.take(LEN_MAX).read_to_end(&mut bytes).map_err(|source| StoreError::io("read", path, source))?;
        Self::parse(path, &String::from_utf8_lossy(&bytes)).map(Some)
    }

    /// Puts it in the place of the file `path`, on the disk.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let replaced = Replacement::begin(path)?.finish(&self.text());
        replaced.map_err(|source| StoreError::io("write", path, source))
    }

    fn text(&self) -> String {
        let closed = if self.is_closed { "yes" } else { "no" };
        let mut text = format!(
            "{TITLE}{FORMAT}\nstore {}\nepoch {}\ntakeovers {}\nboot {}\nrecords {}\ndurability {}\nclosed {closed}\n\
             commits {}\nkey {}\n",
            self.store,
            self.epoch,
            self.takeovers,
            self.boot,
            self.records,
            self.durability,
            self.commits,
            HEXLOWER.encode(&self.key_check)
        );
        for server in &self.servers {
            // Nothing is written to but a text.
            let _written = writeln!(text, "server {server}");
        }
        let sum = HEXLOWER.encode(&sum(&text));
        text + "sum " + &sum + "\n"
    }

    fn parse(path: &Path, text: &str) -> Result<Self, StoreError> {
        let damaged = |damage| StoreError::damaged(path, damage);
        let title = text.lines().next().and_then(|line| line.strip_prefix(TITLE));
        // The number first: nothing else means the same in another format.
        let format: u32 = number(title).ok_or_else(|| damaged(Damage::Line(1)))?;
        if format != FORMAT {
            return Err(StoreError::Format {
                path: path.to_owned(),
                found: format.to_string(),
                expected: FORMAT,
            });
        }
        let (said, rest) = text.split_at(text.rfind("sum ").unwrap_or(0));
        if rest != format!("sum {}\n", HEXLOWER.encode(&sum(said))) {
            return Err(damaged(Damage::Sum));
        }
        let mut lines = Lines { lines: said.lines().collect(), at: 1 };
        let header = lines.header().filter(|_| lines.at == lines.lines.len());
        header.ok_or_else(|| damaged(Damage::Line(lines.at + 1)))
    }
}

fn sum(text: &str) -> [u8; SUM_LEN] {
    Seal::new(StoreId(*b"bowline state v1")).sum(0, 0, text.as_bytes())
}

/// The lines of the file, taken one after the other.
struct Lines<'a> {
    lines: Vec<&'a str>,
    /// How many are taken.
    at: usize,
}

impl<'a> Lines<'a> {
    fn header(&mut self) -> Option<Header> {
        let header = Header {
            store: StoreId(self.bytes("store ")?),
            epoch: self.number("epoch ")?,
            takeovers: self.number("takeovers ")?,
            boot: BootId(self.bytes("boot ")?),
            records: BootId(self.bytes("records ")?),
            durability: self.take("durability ", |word| word.parse().ok())?,
            is_closed: self.take("closed ", |word| match word {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            })?,
            commits: self.number("commits ")?,
            key_check: self.bytes("key ")?,
            servers: Vec::new(),
        };
        let mut servers = vec![self.server()?];
        while servers.len() < SERVERS_MAX && self.at < self.lines.len() {
            servers.push(self.server()?);
        }
        Some(Header { servers, ..header })
    }

    fn server(&mut self) -> Option<PublicKey> {
        self.take("server ", |text| text.parse().ok())
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.take(name, |text| number(Some(text)))
    }

    fn bytes(&mut self, name: &str) -> Option<[u8; 16]> {
        self.take(name, |text| HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok())
    }

    /// What stands behind `name` in the next line; it is taken only if it can be understood.
    fn take<T>(&mut self, name: &str, understand: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let value = understand(self.lines.get(self.at)?.strip_prefix(name)?)?;
        self.at += 1;
        Some(value)
    }
}

/// A number in digits alone.
fn number<N: FromStr>(text: Option<&str>) -> Option<N> {
    text?.parse().ok().filter(|_| text.is_some_and(|text| !text.starts_with('+')))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn header() -> Header {
        Header {
            store: StoreId([0x1a; 16]),
            epoch: 12,
            takeovers: 3,
            boot: BootId([0xb0; 16]),
            records: BootId([0xb1; 16]),
            durability: Durability::Process,
            is_closed: false,
            commits: 4711,
            key_check: [0x5e; 16],
            servers: vec![PublicKey([1; 32]), PublicKey([2; 32])],
        }
    }

    fn parse(text: &str) -> Result<Header, StoreError> {
        Header::parse(Path::new("state"), text)
    }

    /// The text with a sum that matches.
    fn summed(text: &str) -> String {
        format!("{text}sum {}\n", HEXLOWER.encode(&sum(text)))
    }

    #[test]
    fn it_comes_back_and_has_one_form() {
        let one = Header { servers: vec![PublicKey([1; 32])], is_closed: true, ..header() };
        for header in [header(), one] {
            assert_eq!(parse(&header.text()).unwrap(), header);
        }
        assert_eq!(
            header().text(),
            "bowline-state 2\nstore 1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a\nepoch 12\ntakeovers 3\n\
             boot b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0\nrecords b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1\n\
             durability process\nclosed no\ncommits 4711\n\
             key 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e\n\
             server aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq\n\
             server aibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaiba\n\
             sum 079493304acf546d429e2c9410cf0463\n"
        );
    }

    #[test]
    fn f51_every_bit_and_every_cut_is_noticed() {
        let text = header().text();
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = parse(&String::from_utf8_lossy(&bytes)).unwrap_err();
            assert!(
                matches!(error, StoreError::Damaged { .. } | StoreError::Format { .. }),
                "{bit}: {error}"
            );
        }
        for len in 0..text.len() {
            let error = parse(&text[..len]).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{len}: {error}");
        }
        assert!(parse(&(text.clone() + "\n")).is_err());
        assert!(parse(&(text.clone() + &text)).is_err());
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        let whole = header().text();
        let said = &whole[..whole.rfind("sum ").unwrap()];
        for (from, to, line) in [
            ("store 1a", "store 1", 2),
            ("epoch 12", "epoch +12", 3),
            ("takeovers 3", "takeovers", 4),
            ("records b1", "records b", 6),
            ("process", "disk", 7),
            ("closed no", "closed maybe", 8),
            ("commits 4711", "commits -1", 9),
            ("server a", "server 0", 11),
            ("server aib", "client aib", 12),
        ] {
            let text = summed(&said.replacen(from, to, 1));
            let error = parse(&text).unwrap_err();
            assert!(
                matches!(&error, StoreError::Damaged { damage: Damage::Line(at), .. } if *at == line),
                "{to}: {error}"
            );
        }
        let third = summed(&format!("{said}server {}\n", PublicKey([3; 32])));
        assert!(matches!(parse(&third), Err(StoreError::Damaged { damage: Damage::Line(13), .. })));
    }

    #[test]
    fn f52_another_format_is_named() {
        let newer = "bowline-state 7\nwhatever it says\n";
        let error = parse(newer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"state\" has format 7, and this program knows format 2: use the program that wrote it, or give another \
             state directory"
        );
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("state");
        assert_eq!(Header::read(&path).unwrap(), None);
        for epoch in [1, 2] {
            let header = Header { epoch, ..header() };
            header.write(&path).unwrap();
            assert_eq!(Header::read(&path).unwrap(), Some(header));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! What the readers of settings files share: a bounded read, TOML, and errors of one line that say which file,
//! where in it, and what.

use core::fmt;
use core::ops::Range;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::model::{Protection, len_u64};

/// Longest settings file, in bytes: thousands of entries.
pub const LEN_MAX: u64 = 1 << 20;

/// A settings file that is not used, and why: the file, the line, the problem `P`.
#[derive(Debug)]
pub struct SettingsError<P> {
    /// The file; `None` if the text came from elsewhere.
    pub file: Option<PathBuf>,
    /// The line, counted from 1, where the problem has one.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: P,
}

/// What is wrong with a settings file as a text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TextProblem {
    /// It could not be opened or read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// It is a folder, a pipe, a device or a socket.
    #[error("this is not a regular file")]
    NotRegular,
    /// Whoever has an account on the machine could change it.
    #[error("every user of this machine can write to the file: chmod o-w it")]
    Writable,
    /// It is longer than [`LEN_MAX`].
    #[error("the file has more than {LEN_MAX} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// A secret stands in it. Settings may be read by others, and what is wrong with them is told and logged.
    #[error("a secret stands here: take it out, and make a new one if anybody else could read this file")]
    Secret,
    /// It is not TOML, or has a key or a type that does not belong there.
    #[error("{0}")]
    Toml(String),
}

/// Why a word does not name a protection of data channels.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtectionProblem {
    /// There is no such word.
    #[error("{0:?} is no protection: use \"clear\", \"signed\" or \"sealed\"")]
    Unknown(String),
}

impl<P> SettingsError<P> {
    /// The problem of the text that starts at `span`.
    pub(crate) fn at(text: &str, span: &Range<usize>, problem: impl Into<P>) -> Self {
        Self { file: None, line: Some(line_of(text, span.start)), problem: problem.into() }
    }

    /// The same, said of `file`.
    pub(crate) fn of_file(self, file: &Path) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }
}

impl<P: fmt::Display> fmt::Display for SettingsError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.problem.fmt(f)
    }
}

impl<P: Error> Error for SettingsError<P> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// Reads the settings file `path` and hands its text to `parse`.
pub fn load<T, P: From<TextProblem>>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, SettingsError<P>>,
) -> Result<T, SettingsError<P>> {
    let text = read_text(path).map_err(|problem| SettingsError {
        file: Some(path.to_owned()),
        line: None,
        problem: problem.into(),
    })?;
    parse(&text).map_err(|error| error.of_file(path))
}

/// The value that a TOML text spells. Looks for secrets first: no later message may show one.
pub fn from_toml<T: DeserializeOwned, P: From<TextProblem>>(text: &str) -> Result<T, SettingsError<P>> {
    if let Some(offset) = SECRETS.iter().find_map(|start| text.find(start)) {
        let line = Some(line_of(text, offset));
        return Err(SettingsError { file: None, line, problem: TextProblem::Secret.into() });
    }
    toml::from_str(text).map_err(|error| SettingsError {
        file: None,
        line: error.span().map(|span| line_of(text, span.start)),
        problem: TextProblem::Toml(one_line(error.message())).into(),
    })
}

/// How the texts of an identity and of a resume key begin.
const SECRETS: [&str; 2] = ["bowline-identity-", "bowline-resume-"];

/// Whether `text` is a name that can stand in tables, logs and commands: 1 to 64 of `a-z A-Z 0-9 . _ -`.
#[must_use]
pub fn is_plain_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The protection that `text` asks for on data channels.
pub(crate) fn data_protection(text: &str) -> Result<Protection, ProtectionProblem> {
    text.parse().map_err(|_| ProtectionProblem::Unknown(text.to_owned()))
}

fn read_text(path: &Path) -> Result<String, TextProblem> {
    let cannot = |errno: rustix::io::Errno| TextProblem::Read(errno.into());
    // Non-blocking, so that a pipe without a writer is refused instead of waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(cannot)?);
    let stat = rustix::fs::fstat(&file).map_err(cannot)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(TextProblem::NotRegular);
    }
    if stat.st_mode & 0o002 != 0 {
        return Err(TextProblem::Writable);
    }
    let mut bytes = Vec::new();
    file.take(LEN_MAX + 1).read_to_end(&mut bytes).map_err(TextProblem::Read)?;
    if len_u64(bytes.len()) > LEN_MAX {
        return Err(TextProblem::TooLong);
    }
    String::from_utf8(bytes).map_err(|_| TextProblem::NotText)
}

/// `text` with one entry more at its end.
pub(crate) fn with_entry(text: &str, entry: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let gap = if text.is_empty() { "" } else { "\n" };
    format!("{text}{end}{gap}{entry}")
}

/// `text` without the entry that the byte at `inside` is in: the lines from its `header` to the next one, or to the comment
/// above that. `None` if it is in none that begins so.
pub(crate) fn without_entry(text: &str, header: &str, inside: usize) -> Option<String> {
    let is_line_start =
        |at: &usize| text.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with('\n'));
    let headers = || text.match_indices(header).map(|(at, _)| at).filter(is_line_start);
    let start = headers().filter(|&at| at < inside).last()?;
    let mut end = headers().find(|&at| at > inside).unwrap_or(text.len());
    if end < text.len() {
        let above = text.get(inside..end)?.split_inclusive('\n').rev();
        let comment = above.take_while(|line| line.starts_with('#')).map(str::len);
        end = end.saturating_sub(comment.fold(0, usize::saturating_add));
    }
    Some([text.get(..start)?, text.get(end..)?].concat())
}

/// The number of the line, from 1, that the byte at `offset` is in.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// A message without line ends and control characters, whatever the file has put into it.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(", ").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Table = BTreeMap<String, u32>;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    fn load_table(path: &Path) -> Result<Table, SettingsError<TextProblem>> {
        load(path, from_toml)
    }

    fn file(bytes: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn errors_name_file_line_and_problem_in_one_line() {
        let broken = file(b"a = 1\nb = 2\nb = 3\n", 0o600);
        let error = load_table(broken.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: line 3: duplicate key", broken.path().display()));
        let hostile = "\n\"a\\u0007\\nb\" = 1";
        let error = from_toml::<Nothing, TextProblem>(hostile).unwrap_err().to_string();
        assert_eq!(error, "line 2: unknown field `a , b`, there are no fields");
    }

    #[test]
    fn files_that_cannot_be_trusted_or_read_are_refused() {
        assert_eq!(load_table(file(b"a = 1", 0o664).path()).unwrap(), Table::from([("a".to_owned(), 1)]));
        let problem = |path: &Path| load_table(path).unwrap_err().problem;
        assert!(matches!(problem(file(b"a = 1", 0o602).path()), TextProblem::Writable));
        assert!(matches!(problem(file(b"\xff", 0o600).path()), TextProblem::NotText));
        assert!(matches!(
            problem(file(&vec![b' '; 1 << 20], 0o600).path().parent().unwrap()),
            TextProblem::NotRegular
        ));
        assert!(load_table(file(&vec![b' '; 1 << 20], 0o600).path()).unwrap().is_empty());
        assert!(matches!(problem(file(&vec![b' '; (1 << 20) + 1], 0o600).path()), TextProblem::TooLong));
        let missing = load_table(Path::new("/nonexistent/file")).unwrap_err();
        assert_eq!(missing.to_string(), "/nonexistent/file: the file cannot be read");
        let source = missing.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(load_table(&pipe).unwrap_err().problem, TextProblem::NotRegular));
    }

    #[test]
    fn names_and_protections() {
        for good in ["a", "edit-station_1.x", &"x".repeat(64)] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", "a:b", &"x".repeat(65)] {
            assert!(!is_plain_name(bad), "{bad}");
        }
        assert_eq!(data_protection("sealed"), Ok(Protection::Sealed));
        assert_eq!(data_protection("clear"), Ok(Protection::Clear));
        assert_eq!(data_protection("Signed"), Err(ProtectionProblem::Unknown("Signed".to_owned())));
    }
}

//! What a user reads when a command fails: what failed, why, what became of the data, and what to try.
//!
//! Every failure has a [`Code`]: its name stands in the message, `bowline explain` says more about it, and it decides
//! with which number the program ends.

use std::io;
use std::process::ExitCode;

use serde::Serialize;

use super::output::clean;

/// The kind of a failure. What is told under one code is looked up, and can be relied on by scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Code {
    /// None of the others.
    Other,
    /// Settings that cannot be used, or an argument that only turns out to be wrong when it is used.
    Settings,
    /// No such file, export or open.
    NotFound,
    /// No such peer in the list of known peers.
    UnknownPeer,
    /// Some of many items failed, and were reported one by one.
    SomeFailed,
    /// This machine's identity is missing or cannot be used.
    Identity,
    /// The two ends do not take each other for who they should be.
    WrongKey,
    /// The server that answers was replaced on its data store.
    StaleServer,
    /// Nobody answers at the server's addresses.
    Unreachable,
    /// The server's machine answers, and nothing listens there.
    PortClosed,
    /// An interface or a local address that a line starts at is not there.
    InterfaceMissing,
    /// No answer in time.
    TimedOut,
    /// The session is over.
    SessionEnded,
    /// This client, or the server, may not.
    Permission,
    /// What was asked for is weaker than what one side insists on.
    Policy,
    /// The file system does not take writes.
    ReadOnly,
    /// Other clients have locked the bytes.
    LockConflict,
    /// The file is open elsewhere in a mode that shuts this one out.
    ShareViolation,
    /// The name is taken.
    Exists,
    /// The file was changed meanwhile.
    Changed,
    /// Acknowledged bytes are gone.
    LostWrites,
    /// The resume key opens nothing.
    ResumeRefused,
    /// The open waited too long for its owner.
    ResumeExpired,
    /// Another client took the file while its owner was away.
    TakenOver,
    /// The server does not know the open any more.
    StateLost,
    /// A file system or a quota is full.
    NoSpace,
    /// The two ends have no version in common.
    Version,
}

impl Code {
    /// Every code, by name.
    pub(super) const ALL: [Self; 27] = [
        Self::Changed,
        Self::Exists,
        Self::Identity,
        Self::InterfaceMissing,
        Self::LockConflict,
        Self::LostWrites,
        Self::NoSpace,
        Self::NotFound,
        Self::Other,
        Self::Permission,
        Self::Policy,
        Self::PortClosed,
        Self::ReadOnly,
        Self::ResumeExpired,
        Self::ResumeRefused,
        Self::SessionEnded,
        Self::Settings,
        Self::ShareViolation,
        Self::SomeFailed,
        Self::StaleServer,
        Self::StateLost,
        Self::TakenOver,
        Self::TimedOut,
        Self::UnknownPeer,
        Self::Unreachable,
        Self::Version,
        Self::WrongKey,
    ];

    /// How it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Settings => "settings",
            Self::NotFound => "not-found",
            Self::UnknownPeer => "unknown-peer",
            Self::SomeFailed => "some-failed",
            Self::Identity => "identity",
            Self::WrongKey => "wrong-key",
            Self::StaleServer => "stale-server",
            Self::Unreachable => "unreachable",
            Self::PortClosed => "port-closed",
            Self::InterfaceMissing => "interface-missing",
            Self::TimedOut => "timed-out",
            Self::SessionEnded => "session-ended",
            Self::Permission => "permission",
            Self::Policy => "policy",
            Self::ReadOnly => "read-only",
            Self::LockConflict => "lock-conflict",
            Self::ShareViolation => "share-violation",
            Self::Exists => "exists",
            Self::Changed => "changed",
            Self::LostWrites => "lost-writes",
            Self::ResumeRefused => "resume-refused",
            Self::ResumeExpired => "resume-expired",
            Self::TakenOver => "taken-over",
            Self::StateLost => "state-lost",
            Self::NoSpace => "no-space",
            Self::Version => "version",
        }
    }

    /// The code of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The number with which the program ends. 0 is success, 2 wrong usage as well, 130 and 143 are signals.
    pub(super) fn exit(self) -> u8 {
        match self {
            Self::Other | Self::LostWrites => 1,
            Self::Settings => 2,
            Self::NotFound | Self::UnknownPeer => 3,
            Self::SomeFailed => 4,
            Self::Identity | Self::WrongKey | Self::StaleServer => 5,
            Self::Unreachable
            | Self::PortClosed
            | Self::InterfaceMissing
            | Self::TimedOut
            | Self::SessionEnded => 6,
            Self::Permission | Self::Policy | Self::ReadOnly => 7,
            Self::LockConflict | Self::ShareViolation | Self::Exists | Self::Changed => 8,
            Self::ResumeRefused | Self::ResumeExpired | Self::TakenOver | Self::StateLost => 9,
            Self::NoSpace => 10,
            Self::Version => 11,
        }
    }
}

/// What a user reads when a command fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What kind of failure it is.
    pub(super) code: Code,
    /// What failed, and on what.
    pub(super) what: String,
    /// The fact behind it.
    pub(super) why: Option<String>,
    /// What became of the data, where there was some.
    pub(super) data: Option<String>,
    /// What to try: a command, or what somebody has to do.
    pub(super) hint: Option<String>,
}

/// A failure as a JSON object.
#[derive(Serialize)]
struct FailureObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
    exit: u8,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#try: Option<&'a str>,
}

impl Failure {
    /// A failure of no special kind.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { code: Code::Other, what: what.into(), why: None, data: None, hint: None }
    }

    /// A failure of this kind.
    pub(super) fn coded(code: Code, what: impl Into<String>) -> Self {
        Self { code, ..Self::new(what) }
    }

    /// `what` failed, because of the error and all that is behind it.
    pub(super) fn of(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { code: code_of(error), ..Self::new(what) }.because(bowline::net::with_sources(error))
    }

    /// The same failure, as one of this kind.
    pub(super) fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The same failure with the fact behind it.
    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The same failure with what became of the data.
    pub(super) fn data(mut self, data: impl Into<String>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// The same failure with what to try.
    pub(super) fn try_this(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What people read, with a line for each part. Whatever came from elsewhere stays on its line.
    pub(super) fn text(&self) -> String {
        let mut text = format!("error[{}]: {}\n", self.code.name(), clean(&self.what));
        for (label, part) in [("why", &self.why), ("data", &self.data), ("try", &self.hint)] {
            if let Some(part) = part {
                text.push_str(&format!("  {label}: {}\n", clean(part)));
            }
        }
        text
    }

    /// What failed and why, in one line for a log.
    pub(super) fn line(&self) -> String {
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        clean(&format!("{}{why}", self.what))
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        let object = FailureObject {
            kind: "error",
            code: self.code.name(),
            exit: self.code.exit(),
            what: &self.what,
            why: self.why.as_deref(),
            data: self.data.as_deref(),
            r#try: self.hint.as_deref(),
        };
        super::output::line(&object)
    }

    /// How the program ends.
    pub(super) fn exit(&self) -> ExitCode {
        self.code.exit().into()
    }
}

/// What kind of failure the system's errors are. The first one in the chain that says something counts.
fn code_of(error: &(dyn std::error::Error + 'static)) -> Code {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return code_of_io(error);
        }
        next = error.source();
    }
    Code::Other
}

/// What kind of failure an error of this machine's file system is.
pub(super) fn code_of_io(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::Permission,
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => Code::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Code::NoSpace
        }
        io::ErrorKind::ReadOnlyFilesystem => Code::ReadOnly,
        io::ErrorKind::TimedOut => Code::TimedOut,
        io::ErrorKind::InvalidInput => Code::Settings,
        _ => Code::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_one_name_each_and_are_found_by_it() {
        let names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(code));
            assert!((1..=11).contains(&code.exit()), "{code:?}");
        }
        assert_eq!(Code::named("no such code"), None);
    }

    #[test]
    fn a_failure_is_read_line_by_line_whatever_is_in_it() {
        let failure = Failure::coded(Code::NotFound, "cannot read store:media/a\nb")
            .because("no such file\u{1b}[2J")
            .data("nothing was read")
            .try_this("bowline ls store:media/");
        assert_eq!(
            failure.text(),
            "error[not-found]: cannot read store:media/a\\nb\n  why: no such file\\u{1b}[2J\n  data: nothing was read\n  try: bowline ls store:media/\n"
        );
        assert_eq!(
            failure.json(),
            "{\"type\":\"error\",\"code\":\"not-found\",\"exit\":3,\"what\":\"cannot read store:media/a\\nb\",\"why\":\"no such file\\u001b[2J\",\"data\":\"nothing was read\",\"try\":\"bowline ls store:media/\"}\n"
        );
    }

    #[test]
    fn what_the_system_says_has_its_code() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        assert_eq!(Failure::of("cannot write", &full).code, Code::NoSpace);
        assert_eq!(Failure::of("cannot write", &std::fmt::Error).code, Code::Other);
    }
}

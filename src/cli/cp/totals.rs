//! What came of all that was to be copied, and what the command ends with.

use super::copy::Copied;
use crate::cli::failure::{Code, Failure};

/// What came of the actions.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) bytes: u64,
    pub(super) moved: u64,
    /// One of the failures was that there is no room. That decides how the command ends, whatever else failed with it.
    is_full: bool,
    /// The last failure, of which nobody was told yet.
    last: Option<Failure>,
}

impl Totals {
    /// So many have failed before anything was begun, one perhaps for want of room; they were told.
    pub(super) fn after(failed: u64, is_full: bool) -> Self {
        Self { failed, is_full, ..Self::default() }
    }

    /// One has succeeded.
    pub(super) fn add(&mut self, copied: &Copied) {
        let files = if copied.is_left { &mut self.skipped } else { &mut self.files };
        *files = files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(copied.len);
        self.moved = self.moved.saturating_add(copied.moved);
    }

    /// One has failed. Gives the failure before it, which is to be told now.
    pub(super) fn fail(&mut self, failure: Failure) -> Option<Failure> {
        self.failed = self.failed.saturating_add(1);
        self.is_full |= failure.code == Code::NoSpace;
        self.last.replace(failure)
    }

    /// Whether no server can be asked for anything more.
    pub(super) fn is_over(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.code == Code::SessionEnded)
    }

    /// What the command ends with if something has failed, behind a failure that is still to be told.
    pub(super) fn end(self) -> Option<(Option<Failure>, Failure)> {
        let Self { files, skipped, failed, is_full, last, .. } = self;
        match (failed, files, last) {
            (0, ..) => None,
            (1, 0, Some(only)) => Some((None, only)),
            (failed, files, last) => {
                let total = failed.saturating_add(files).saturating_add(skipped);
                let code = if is_full { Code::NoSpace } else { Code::SomeFailed };
                let failure = Failure::coded(code, format!("{failed} of {total} files were not copied"))
                    .data(format!("{files} are complete; parts are kept under temporary names"))
                    .try_this("the same command again: it goes on where it was");
                Some((last, failure))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(codes: &[Code]) -> (Option<Code>, Code) {
        let mut totals = Totals::default();
        for (at, &code) in codes.iter().enumerate() {
            let earlier = totals.fail(Failure::coded(code, "cannot copy"));
            assert_eq!(earlier.is_some(), at > 0, "each failure but the last is told at once");
        }
        let (untold, failure) = totals.end().unwrap();
        (untold.map(|untold| untold.code), failure.code)
    }

    /// The order in which files fail is chance.
    #[test]
    fn a_full_disk_decides_the_end_whatever_fails_last() {
        assert_eq!(end(&[Code::NoSpace, Code::Permission]), (Some(Code::Permission), Code::NoSpace));
        assert_eq!(end(&[Code::Permission, Code::NoSpace]), (Some(Code::NoSpace), Code::NoSpace));
        assert_eq!(end(&[Code::Permission, Code::NotFound]), (Some(Code::NotFound), Code::SomeFailed));
        assert_eq!(end(&[Code::Permission]), (None, Code::Permission), "the only one speaks for itself");
        assert!(Totals::default().end().is_none());
        // Where its directories could not be made.
        let totals = Totals::after(3, true);
        assert_eq!(totals.end().map(|(untold, failure)| (untold, failure.code)), Some((None, Code::NoSpace)));
    }

    #[test]
    fn a_session_that_has_ended_is_asked_for_nothing_more() {
        let mut totals = Totals::default();
        totals.fail(Failure::coded(Code::Permission, "cannot copy"));
        assert!(!totals.is_over());
        totals.fail(Failure::coded(Code::SessionEnded, "cannot copy"));
        assert!(totals.is_over());
    }
}

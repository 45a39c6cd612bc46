//! What commands with many places share: one session for each server, and the count of what failed.

use super::arguments::ClientArguments;
use super::failure::{Code, Failure};
use super::output::{complain, show, style};
use super::remote::{Connected, connect};

/// The sessions of one command, by server; each is made when it is first asked for.
pub(super) struct Sessions {
    arguments: ClientArguments,
    connected: Vec<Connected>,
    /// Servers with whom there is none, and why: they are not tried again for each place.
    failed: Vec<(String, Failure)>,
}

impl Sessions {
    pub(super) fn new(arguments: ClientArguments) -> Self {
        Self { arguments, connected: Vec::new(), failed: Vec::new() }
    }

    /// The session with the peer of this name; `what` says what fails without.
    pub(super) async fn with(&mut self, peer: &str, what: &str) -> Result<&Connected, Failure> {
        let at = match self.connected.iter().position(|connected| connected.peer.name == peer) {
            Some(at) => at,
            None => {
                if let Some((_, failure)) = self.failed.iter().find(|(name, _)| name == peer) {
                    return Err(Failure { what: what.to_owned(), ..failure.clone() });
                }
                match connect(&self.arguments, peer, what).await {
                    Ok(connected) => self.connected.push(connected),
                    Err(failure) => {
                        self.failed.push((peer.to_owned(), failure.clone()));
                        return Err(failure);
                    }
                }
                self.connected.len().saturating_sub(1)
            }
        };
        self.connected.get(at).ok_or_else(|| Failure::new("no session"))
    }

    /// Ends all of them.
    pub(super) async fn close(self) {
        for connected in self.connected {
            connected.session.close().await;
        }
    }
}

/// How many items a command has dealt with, and how many failed. Each failure is told when it happens.
#[derive(Debug, Default)]
pub(super) struct Tally {
    done: usize,
    failed: usize,
    last: Option<Failure>,
    /// How many failures there were, each of one item or of many.
    failures: usize,
}

impl Tally {
    /// An item is done.
    pub(super) fn done(&mut self) {
        self.done = self.done.saturating_add(1);
    }

    /// An item failed. The first one is told only when it is known not to be the only thing that happened: alone, it is the
    /// command's own failure.
    pub(super) fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        self.failed_all(1, failure)
    }

    /// So many items failed for one cause, which is told once.
    pub(super) fn failed_all(&mut self, items: usize, failure: Failure) -> Result<(), Failure> {
        self.failed = self.failed.saturating_add(items);
        self.failures = self.failures.saturating_add(1);
        match self.last.replace(failure) {
            Some(earlier) => tell(&earlier),
            None => Ok(()),
        }
    }

    /// Success, the one thing that failed, or that some of many did.
    pub(super) fn outcome(mut self, done: &str) -> Result<(), Failure> {
        match (self.last.take(), self.done, self.failures) {
            (None, ..) => Ok(()),
            (Some(only), 0, 1) => Err(only),
            (Some(last), ..) => {
                tell(&last)?;
                let total = self.done.saturating_add(self.failed);
                Err(Failure::coded(
                    Code::SomeFailed,
                    format!("{} of {total} could not be {done}", self.failed),
                ))
            }
        }
    }
}

/// Tells of a failure after which the command goes on.
pub(super) fn tell(failure: &Failure) -> Result<(), Failure> {
    if style().json {
        return show(&failure.json());
    }
    complain(failure);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_alone_is_the_command_s_own() {
        let failure = Failure::coded(Code::NotFound, "no");
        let mut tally = Tally::default();
        tally.failed(failure.clone()).unwrap();
        assert_eq!(tally.outcome("listed"), Err(failure.clone()));
        let mut tally = Tally::default();
        tally.done();
        tally.failed(failure).unwrap();
        assert_eq!(tally.outcome("listed").unwrap_err().code, Code::SomeFailed);
        assert_eq!(Tally::default().outcome("listed"), Ok(()));
        let unreachable = Failure::coded(Code::Unreachable, "nobody is there");
        let mut tally = Tally::default();
        tally.failed_all(3, unreachable.clone()).unwrap();
        assert_eq!(tally.outcome("listed"), Err(unreachable.clone()), "three items, and one cause");
        let mut tally = Tally::default();
        tally.failed_all(3, unreachable).unwrap();
        tally.done();
        assert_eq!(tally.outcome("listed").unwrap_err().what, "3 of 4 could not be listed");
    }
}

//! Which answer fits which request. The server is not trusted to be well-behaved: an answer that is none to what was
//! asked is an offence of its channel. protocol.md: Control messages, Data messages.

use super::output::{Answer, FromServer, Operation, RequestError};
use crate::model::{ByteRange, RawRange};
use crate::session::Input;
use crate::wire::control::Lock;
use crate::wire::{ClientControl, ServerControl, ServerData};

/// What an answer says, if it can be the answer to `operation`.
pub(super) fn outcome<P>(
    operation: &Operation<P>,
    input: Input<FromServer, P>,
) -> Option<Result<Answer<P>, RequestError>> {
    let Input { message, payload, payload_len, .. } = input;
    let is_bare = payload_len == 0;
    match (operation, message.ok()?) {
        (
            Operation::Control(_) | Operation::ControlWith(..),
            FromServer::Control(ServerControl::Refused(refused)),
        )
        | (
            Operation::Read(_) | Operation::Write(..) | Operation::Append(..),
            FromServer::Data(ServerData::Refused(refused)),
        ) => is_bare.then_some(Err(RequestError::Refused(refused.refusal))),
        (Operation::Read(read), FromServer::Data(ServerData::ReadDone(_))) => {
            (payload_len <= read.len).then_some(Ok(Answer::Read(payload)))
        }
        (Operation::Write(_, _, len), FromServer::Data(ServerData::WriteDone(done))) => {
            (is_bare && done.written <= *len).then_some(Ok(Answer::Written(done)))
        }
        (Operation::Append(_, _, len), FromServer::Data(ServerData::AppendDone(done))) => {
            let is_there = ByteRange::new(RawRange { start: done.offset, len: u64::from(done.written) });
            let fits = is_bare && done.written <= *len && is_there.is_some();
            fits.then_some(Ok(Answer::Appended(done)))
        }
        (Operation::Control(asked) | Operation::ControlWith(asked, ..), FromServer::Control(answer)) => {
            let fits = fits(asked, &answer) && payload_len <= payload_max(&answer);
            fits.then_some(Ok(Answer::Control(answer, payload)))
        }
        _ => None,
    }
}

fn fits(asked: &ClientControl, answer: &ServerControl) -> bool {
    match (asked, answer) {
        (ClientControl::Lock(lock), ServerControl::Locked(locked)) => {
            locked.handle == lock.handle && locked.range == lock.wanted.range
        }
        (ClientControl::Grant(grant), ServerControl::Granted(granted)) => granted.handle == grant.handle,
        // A server that makes a request wait which asked not to would keep a caller for ever.
        (ClientControl::Lock(Lock { wait_ms, .. }), ServerControl::LockQueued(_)) => *wait_ms > 0,
        (asked, answer) => matches!(
            (asked, answer),
            (ClientControl::Open(_) | ClientControl::Resume(_), ServerControl::Opened(_))
                | (ClientControl::IssueKey(_) | ClientControl::TakeGrant(_), ServerControl::KeyIssued(_))
                | (ClientControl::Close(_), ServerControl::Closed(_))
                | (ClientControl::Inquire(_), ServerControl::Outcome(_))
                | (ClientControl::Stat(_), ServerControl::Stated(_))
                | (ClientControl::Sync(_), ServerControl::Synced(_))
                | (ClientControl::Change(_), ServerControl::Changed(_))
                | (ClientControl::Seek(_), ServerControl::Sought(_))
                | (ClientControl::Lookup(_), ServerControl::Found(_))
                | (ClientControl::List(_), ServerControl::Listed(_))
                | (ClientControl::ReadLink(_), ServerControl::Link(_))
                | (ClientControl::StatSpace(_), ServerControl::SpaceStated(_))
                | (ClientControl::XattrGet(_), ServerControl::XattrValue(_))
                | (ClientControl::XattrList(_), ServerControl::XattrNames(_))
                | (
                    ClientControl::Allocate(_)
                        | ClientControl::Unlock(_)
                        | ClientControl::CancelLock(_)
                        | ClientControl::Revoke(_)
                        | ClientControl::MakeDirectory(_)
                        | ClientControl::Remove(_)
                        | ClientControl::Rename(_)
                        | ClientControl::Symlink(_)
                        | ClientControl::HardLink(_)
                        | ClientControl::XattrSet(_)
                        | ClientControl::XattrRemove(_),
                    ServerControl::Done(_)
                )
        ),
    }
}

/// How much payload an answer may have, in bytes.
fn payload_max(answer: &ServerControl) -> u32 {
    match answer {
        ServerControl::Listed(_) | ServerControl::XattrNames(_) => LIST_LEN_MAX,
        ServerControl::XattrValue(_) => VALUE_LEN_MAX,
        _ => 0,
    }
}

/// Longest value of an attribute, in bytes: Linux has no longer one.
const VALUE_LEN_MAX: u32 = 64 << 10;
/// Longest list, in bytes: Linux has at most 64 KiB of names, and as elements of a list short names take up
/// to twice their bytes.
const LIST_LEN_MAX: u32 = 128 << 10;

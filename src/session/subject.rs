//! Which handle a message is about, as both cores ask. protocol.md: Requests.

use crate::model::HandleId;
use crate::wire::ClientControl;
use crate::wire::control::{Lock, Target};

/// The handle that a request on a control channel is about, if it is about one.
pub(super) fn subject(message: &ClientControl) -> Option<HandleId> {
    match message {
        ClientControl::IssueKey(message) => Some(message.handle),
        ClientControl::Close(message) => Some(message.handle),
        ClientControl::Stat(message) => Some(message.handle),
        ClientControl::Sync(message) => Some(message.handle),
        ClientControl::Allocate(message) => Some(message.handle),
        ClientControl::Seek(message) => Some(message.handle),
        ClientControl::Lock(Lock { handle, .. }) => Some(*handle),
        ClientControl::Unlock(message) => Some(message.handle),
        ClientControl::Grant(message) => Some(message.handle),
        ClientControl::Revoke(message) => Some(message.handle),
        _ => match target_in(message)? {
            Target::Handle(handle) => Some(*handle),
            Target::Name(_) => None,
        },
    }
}

fn target_in(message: &ClientControl) -> Option<&Target> {
    match message {
        ClientControl::Change(message) => Some(&message.target),
        ClientControl::XattrGet(message) => Some(&message.target),
        ClientControl::XattrSet(message) => Some(&message.target),
        ClientControl::XattrList(message) => Some(&message.target),
        ClientControl::XattrRemove(message) => Some(&message.target),
        _ => None,
    }
}

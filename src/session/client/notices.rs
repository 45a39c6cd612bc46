//! What the server tells without being asked: taken in order, once, and acknowledged on the channel that it came on.
//! protocol.md: Notices.

use super::ClientCore;
use super::output::{ClientOutput, FromServer, SessionEvent, ToServer};
use crate::model::{ChannelNumber, RequestId, Time};
use crate::session::{Input, LossReason, Payload};
use crate::wire::notices::{GrantOffered, HandleEnded, Heard, Notice};

impl<P: Payload> ClientCore<P> {
    /// A notice: numbers rise by one, a lower one is a repeat, a higher one means that one in between was never sent.
    pub(super) fn on_notice(&mut self, now: Time, number: ChannelNumber, input: Input<FromServer, P>) {
        let is_bare = input.request == RequestId::NONE && input.payload_len == 0;
        let notice = match input.message {
            Ok(FromServer::Control(message)) if is_bare => Notice::of(message),
            _ => None,
        };
        if notice.is_none_or(|notice| !self.take_notice(now, notice)) {
            self.drop_channel(now, number, LossReason::Offence);
            return;
        }
        let heard = ToServer::Control(Heard { notice: self.heard }.into());
        self.send(number, (None, RequestId::NONE), heard, None);
        self.pull(now);
    }

    /// Takes a notice that was not taken before. False if it cannot be one of this session.
    fn take_notice(&mut self, now: Time, notice: Notice) -> bool {
        let told = notice.number();
        if told == 0 || told > self.heard.saturating_add(1) {
            return false;
        }
        if told <= self.heard {
            return true;
        }
        let event = match notice {
            Notice::LockEnded(ended) => {
                if !self.on_lock_ended(now, ended) {
                    return false;
                }
                None
            }
            Notice::GrantOffered(GrantOffered { grant, from, export, path, rights, .. }) => {
                Some(SessionEvent::GrantOffered { grant, from, export, path, rights })
            }
            Notice::HandleEnded(HandleEnded { handle, refusal, .. }) => {
                self.on_handle_ended(now, handle, refusal);
                Some(SessionEvent::HandleEnded { handle, refusal })
            }
        };
        self.outputs.extend(event.map(ClientOutput::Event));
        self.heard = told;
        true
    }
}

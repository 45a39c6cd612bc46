//! Parts in an open that a client grants to another one: asked for, offered, taken and ended. The rules of the parts stand
//! in `opens/grants.rs`; here it is decided who may be granted something at all. protocol.md: Grants.

use core::time::Duration;

use super::effects::Sequel;
use super::requests::Ticket;
use super::{ServerCore, Session};
use crate::model::{
    Entropy as _, GrantId, HandleId, Limits, PublicKey, Reason, Refusal, Rights, SessionId, Time,
};
use crate::opens::{GrantRequest, KeyStamp};
use crate::wire::ServerControl;
use crate::wire::control::{Done, Granted, KeyIssued};
use crate::wire::grants::{Grant, Revoke, TakeGrant};
use crate::wire::notices::{GrantOffered, HandleEnded, Notice};

impl<P: Clone> ServerCore<P> {
    pub(super) fn serve_grant(&mut self, now: Time, ticket: Ticket, asked: Grant) -> Result<(), Refusal> {
        let Grant { handle, to, rights, lasts_ms, deliver, gives_up } = asked;
        let session = self.sessions.get(&ticket.session).ok_or(Reason::BadHandle)?;
        let export = self.table.holder(ticket.session, handle)?.export;
        // Nobody gives more than he may have himself, by the list as it is now.
        let own = self.export_rights(now, session, export).ok_or(Reason::PermissionDenied)?;
        let grantee = self.policy.access(&to, self.wall_us(now) / 1_000_000);
        let is_client = grantee.is_some_and(|access| access.exports.contains(export));
        if !own.permits(rights.union(Rights::GRANT)) || !is_client {
            return Err(Reason::PermissionDenied.into());
        }
        let stamp = self.key_stamp(now, ticket.session)?;
        let grant = GrantId(u64::from_le_bytes(self.entropy.bytes().map_err(|_| Reason::Exhausted)?));
        let lasts = (lasts_ms > 0).then(|| Duration::from_millis(lasts_ms));
        let asked = GrantRequest { grant, to, rights, lasts, deliver, gives_up };
        let key = self.table.grant(now, ticket.session, handle, &asked, &stamp)?;
        self.answer(ticket, ServerControl::from(Granted { handle, grant, key }).into(), None);
        if deliver {
            let sessions = self.sessions.values().filter(|session| session.client == to);
            for session in sessions.map(|session| session.id).collect::<Vec<_>>() {
                self.tell_offer(session, grant);
            }
        }
        Ok(())
    }

    pub(super) fn serve_take_grant(
        &mut self,
        now: Time,
        ticket: Ticket,
        TakeGrant { grant }: TakeGrant,
    ) -> Result<(), Refusal> {
        let client = self.sessions.get(&ticket.session).ok_or(Reason::NotFound)?.client;
        let stamp = self.key_stamp(now, ticket.session)?;
        let key = self.table.take_grant(now, &client, grant, &stamp)?;
        self.answer(ticket, ServerControl::from(KeyIssued { key: Some(key) }).into(), None);
        Ok(())
    }

    pub(super) fn serve_revoke(&mut self, ticket: Ticket, revoke: Revoke) -> Result<(), Refusal> {
        let executing = self.table.revoke(ticket.session, revoke.handle, revoke.grant)?;
        self.on_revoked(ticket, executing);
        Ok(())
    }

    /// Answers a revocation once none of these handles is there any more.
    pub(super) fn on_revoked(&mut self, ticket: Ticket, mut executing: Vec<HandleId>) {
        while let Some(handle) = executing.pop() {
            if self.table.has_holder(handle) {
                let sequel = Sequel::Revoked { ticket, executing };
                self.sequels.entry(handle).or_default().push(sequel);
                return;
            }
        }
        self.answer(ticket, ServerControl::from(Done {}).into(), None);
    }

    /// A session has begun: it is told what waits for its client.
    pub(super) fn tell_offers(&mut self, session: SessionId, client: &PublicKey) {
        let waiting: Vec<GrantId> = self.table.offers_to(client).map(|offer| offer.grant).collect();
        for grant in waiting {
            self.tell_offer(session, grant);
        }
    }

    /// The table has ended a holder by somebody else's will.
    pub(super) fn tell_holder_ended(&mut self, session: SessionId, handle: HandleId, reason: Reason) {
        let refusal = reason.into();
        self.notify(session, |notice| Notice::HandleEnded(HandleEnded { notice, handle, refusal }));
    }

    /// Whether a session hears what it is told: one that does not gets nothing more that it would have to be told of.
    pub(super) fn hears(session: &Session) -> bool {
        session.notices.len() < Limits::NOTICES_UNHEARD_MAX
    }

    fn tell_offer(&mut self, session: SessionId, grant: GrantId) {
        if !self.sessions.get(&session).is_some_and(Self::hears) {
            return;
        }
        let Some(offer) = self.table.offer(grant) else { return };
        let (from, rights) = (offer.from, offer.rights);
        let (export, path) = (offer.export.clone(), offer.path.clone());
        self.notify(session, |notice| {
            Notice::GrantOffered(GrantOffered { notice, grant, from, export, path, rights })
        });
    }

    fn key_stamp(&mut self, now: Time, session: SessionId) -> Result<KeyStamp, Refusal> {
        let process_id = self.sessions.get(&session).map_or(0, |session| session.process_id);
        let secret = self.entropy.bytes().map_err(|_| Refusal::from(Reason::Exhausted))?;
        Ok(KeyStamp { stamp_us: self.wall_us(now), process_id, secret })
    }
}

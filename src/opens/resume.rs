//! Issuing resume keys, and resuming with them.

use core::ops::Bound;

use zeroize::Zeroize;

use super::events::TableEvent;
use super::keys::{Claim, Facts, KeyRecord, decide};
use super::open::{Admitted, Holder, Origin};
use super::table::OpenTable;
use crate::model::{
    GrantId, HandleId, Limits, OpenId, Reason, Refusal, ResumeKey, SECRET_LEN, SessionId, Time,
};

impl OpenTable {
    /// Issues a resume key for a handle; it replaces the one that was issued for this handle before.
    ///
    /// `stamp_us` is the time since 1970, `process_id` what the client states, and `secret` random. A key that
    /// came to this handle from a predecessor stays valid beside it. Beyond the limit for one open the oldest
    /// of the keys that came from predecessors goes, then the oldest of all.
    ///
    /// # Errors
    /// - [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed.
    /// - [`Reason::PermissionDenied`]: the open cannot be resumed.
    /// - [`Reason::Exhausted`]: the open has used up the numbers of its keys.
    pub fn issue_key(
        &mut self,
        session: SessionId,
        handle: HandleId,
        stamp_us: u64,
        process_id: u32,
        mut secret: [u8; SECRET_LEN],
    ) -> Result<ResumeKey, Refusal> {
        let (holder, open) = self.open_of(session, handle)?;
        if !open.resumable {
            return Err(Reason::PermissionDenied.into());
        }
        let (id, rights, grant) = (holder.open, holder.rights, holder.grant);
        let bearer = open.bearer(grant);
        let generation = open.keys.next_generation().ok_or(Reason::Exhausted)?;
        let key = ResumeKey { file_id: id, time_stamp_us: stamp_us, process_id, generation, secret };
        secret.zeroize();
        let hash = self.hasher.hash(&key, &bearer);
        if let Some(open) = self.opens.get_mut(&id) {
            let keys_max = if grant.is_some() { Limits::KEYS_PER_GRANT } else { self.keys_per_open };
            open.keys
                .add(KeyRecord { generation, hash, home: handle, rights, is_own: true, grant }, keys_max);
        }
        self.touch(id);
        self.check_in_debug();
        Ok(key)
    }

    /// Adds a holder to the open that `key` names, if the key may resume: the right secret, presented by the
    /// identity that it was issued to, while the open is there: within its grace, and after it for as long as nobody
    /// else wanted the file.
    ///
    /// The new handle has the rights of the handle that the key was issued to, as far as the configuration
    /// allows them now. The key stays valid. The predecessor that the claim names is drained and dropped, and
    /// its keys move to the new holder; one that does not exist any more is none.
    ///
    /// # Errors
    /// [`Reason::ResumeRefused`] for every cause, unless secret and identity are right: then the cause, among them why
    /// the open has ended ([`ResumeDenial::told`](super::ResumeDenial::told)). [`TableEvent::ResumeRefused`] tells the
    /// server's log in any case. A resume that fails changes nothing.
    #[expect(clippy::needless_pass_by_value, reason = "a claim is made for one attempt and used up by it")]
    pub fn resume(&mut self, now: Time, key: &ResumeKey, claim: Claim<'_>) -> Result<Admitted, Refusal> {
        let predecessor =
            claim.predecessor.and_then(|handle| self.holders.get(&handle)).map(|holder| &**holder);
        // Looked for beside its place, so that no search ends early because it has found something. The least id is also the
        // one behind the greatest.
        let before = OpenId(key.file_id.0.wrapping_sub(1));
        let nearest = self.ids.range((Bound::Excluded(before), Bound::Unbounded)).next();
        let nearest = nearest.or_else(|| self.ids.first());
        let facts = Facts {
            nearest: nearest.and_then(|id| self.opens.get(id)).map(|open| &**open),
            is_there: nearest == Some(&key.file_id),
            tombstone: self.tombstones.find_at(now, key.file_id, self.tombstone_bounds),
            predecessor,
            holders: &self.holders,
            is_handle_taken: self.holders.contains_key(&claim.handle),
            holders_max: Self::HOLDERS_PER_OPEN_MAX,
        };
        let (admitted, (home, grant)) = match decide(&self.hasher, now, key, &claim, &facts) {
            Ok(right) => {
                (right.open.admitted(key.file_id, claim.handle, right.rights), (right.home, right.grant))
            }
            Err(why) => {
                let (session, open) = (claim.session, key.file_id);
                self.events.push_back(TableEvent::ResumeRefused { session, open, why });
                return Err(why.told());
            }
        };
        self.end_overdue(now);
        let came_from = home.and_then(|home| self.holders.get(&home)).map(|holder| holder.session);
        let untold = home.and_then(|home| self.untold_by(home, key, claim.predecessor));
        self.on_resumed(now, &claim, &admitted, (home, grant));
        self.finish();
        Ok(Admitted { came_from, untold, ..admitted })
    }

    fn on_resumed(
        &mut self,
        now: Time,
        claim: &Claim<'_>,
        admitted: &Admitted,
        (home, grant): (Option<HandleId>, Option<GrantId>),
    ) {
        let whose = (claim.session, *claim.identity);
        let holder = Holder::new(admitted.open, whose, admitted.rights, Origin::Resumed).of_grant(grant);
        // The newcomer first: the open must not end between its two holders.
        self.add_holder(now, claim.handle, holder);
        // A holder whose session is over for good can come back in no other way.
        let left = home.filter(|home| self.is_left(*home));
        let is_usurped = left.is_some() && left != claim.predecessor;
        if let Some(open) = self.opens.get_mut(&admitted.open).filter(|_| is_usurped) {
            open.is_usurped = true;
            // What went with a machine may be another client's, which has not heard of that.
            open.keeps_mark |= open.lost;
            open.others_wrote |= open.lost;
        }
        for replaced in claim.predecessor.into_iter().chain(left) {
            self.replace_holder(replaced, claim.handle);
        }
        if let Some(grant) = grant {
            self.on_grant_taken(grant);
        }
    }

    /// Lets a holder take the place of another one of the same open, whose keys and grants move to it.
    pub(super) fn replace_holder(&mut self, replaced: HandleId, by: HandleId) {
        let Some(id) = self.holders.get(&replaced).map(|holder| holder.open) else { return };
        if let Some(open) = self.opens.get_mut(&id) {
            open.keys.rehome(replaced, by);
            if let Some(grants) = &mut open.granted {
                grants.rehome(replaced, by);
            }
        }
        self.stop_holder(replaced);
    }

    /// Whether the session of a holder is over for good: it came from an earlier life of the server.
    pub(super) fn is_left(&self, handle: HandleId) -> bool {
        let session = self.holders.get(&handle).map(|holder| holder.session);
        session.and_then(|session| self.by_session.get(&session)).is_some_and(|part| part.is_over)
    }
}

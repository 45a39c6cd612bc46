//! What the model knows of orphans: which are over, which have to go, what their owners hear; and what of a table the
//! next server finds.

use super::*;

impl Model {
    /// An orphan of an identity that an open more would cost.
    pub(super) fn spare(&self, now: Time, owner: PublicKey) -> Option<OpenId> {
        let mine = |id: &OpenId| self.opens.iter().any(|open| open.id == *id && open.owner == owner);
        let over = self.opens.iter().filter_map(|open| Some((open.deadline()?, open.id)));
        let mut places: Vec<(Time, OpenId)> =
            over.filter(|(deadline, id)| *deadline <= now && mine(id)).collect();
        // Those that were found over go first.
        places.sort_by_key(|place| (!self.lapsed.contains(place), *place));
        places.first().map(|(_, id)| *id)
    }

    pub(super) fn make_room(&mut self, now: Time, owner: PublicKey) -> bool {
        let is_left =
            |open: &&ModelOpen| !open.is_closing() || open.holders.iter().any(|holder| holder.executing > 0);
        if self.opens.iter().filter(is_left).filter(|open| open.owner == owner).count() < QUOTA {
            return true;
        }
        let spare = self.spare(now, owner);
        !self.stop_all(spare.as_slice(), Reason::Expired)
    }

    /// Forgets which orphans have lapsed that are no orphans any more.
    pub(super) fn sweep_lapsed(&mut self) {
        let orphans: Vec<_> =
            self.opens.iter().filter_map(|open| Some((open.deadline()?, open.id))).collect();
        self.lapsed.retain(|place| orphans.contains(place));
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.sweep_lapsed();
        let mut over: Vec<(Time, OpenId)> = (self.opens.iter())
            .filter_map(|open| Some((open.deadline()?, open.id)))
            .filter(|place| place.0 <= now && !self.lapsed.contains(place))
            .collect();
        over.sort();
        for place in over {
            let Some(open) = self.opens.iter().find(|open| open.id == place.1 && open.deadline().is_some())
            else {
                continue;
            };
            let owner = open.owner;
            if !open.resumable {
                self.stop_all(&[place.1], Reason::Expired);
                continue;
            }
            self.lapsed.push(place);
            self.settle_locks();
            self.sweep_lapsed();
            let is_own = |id: OpenId| self.opens.iter().any(|open| open.id == id && open.owner == owner);
            let mut own: Vec<_> = self.lapsed.iter().filter(|(_, id)| is_own(*id)).copied().collect();
            own.sort();
            if own.len() > LAPSED {
                self.stop_all(&[own[0].1], Reason::Expired);
            }
        }
        self.sweep_lapsed();
        let aged: Vec<OpenId> =
            self.lapsed.iter().filter(|(since, _)| since.after(AGE) <= now).map(|(_, id)| *id).collect();
        for id in aged {
            self.stop_all(&[id], Reason::Expired);
        }
    }

    /// What an owner hears of a key that gets it nothing, where that is more than everybody hears.
    pub(super) fn told(
        &self,
        key: &ResumeKey,
        session: SessionId,
        allowed: Option<Rights>,
    ) -> Option<Reason> {
        let identity = *claim(session, 0).identity;
        if let Some((_, _, why)) =
            self.ended.iter().rev().find(|(kept, owner, _)| kept == key && *owner == identity)
        {
            return Some(*why);
        }
        let open = self.opens.iter().find(|open| open.keys.iter().any(|kept| kept.key == *key))?;
        if open.owner != identity {
            return Some(Reason::ResumeRefused);
        }
        allowed.is_none().then_some(Reason::PermissionDenied)
    }
}

impl Run {
    /// The table that the next server makes of the records has what lasts, and nothing else.
    pub(super) fn compare_restored(&self) {
        let next = self.records.table(&restart(self.now, true)).unwrap();
        let lasting = |table: &OpenTable| {
            let opens = table.opens().filter(|open| {
                open.phase != OpenPhase::Closing
                    && self.model.opens.iter().any(|model| model.id == open.open && model.resumable)
            });
            let mut lines: Vec<String> = Vec::new();
            for open in opens {
                lines.push(format!(
                    "{:?} {:?} {} keys {:?}",
                    open.open,
                    open.mode,
                    open.keys,
                    table.locks(open.open)
                ));
                let holders = table.holders().filter(|holder| holder.open == open.open);
                let lasts = holders.filter(|holder| holder.phase != HolderPhase::Draining);
                lines.extend(
                    lasts.map(|holder| format!("{:?} {:?} {}", open.open, holder.handle, holder.rights)),
                );
            }
            lines.sort();
            lines
        };
        assert_eq!(lasting(&next), lasting(&self.table));
        assert_eq!(next.opens_len(), self.records.opens.len());
        assert!(next.opens().all(|open| open.phase == OpenPhase::Orphaned && open.deadline.is_some()));
    }
}

//! Grants: parts in an open that a holder has the server make for another identity.
//!
//! A grant has a resume key of its own, which is good for the grantee alone. Who resumes with it gets a holder *of the
//! grant*, with the grantee's identity and never more than the grant's rights; the keys of that holder are keys of the
//! grant too. Share mode, locks and bounds stay with the open and its owner.
//!
//! What one may rely on: a grant ends with the holder that gave it, when it is revoked, and when its time is over. With it
//! end its keys, every holder of it, and whatever those have granted on: grants are a tree, and its root is the owner's part.
//! One that *gives up* takes the giver's handle when it is taken, and stands on its own from then on; it still ends with the
//! grant that the giver's handle came of, if it came of one, and when the giver is not allowed any more. Of a grant that is
//! over, its bearer is told so as long as the open lasts and the mark is kept; everybody else hears what they always hear.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::events::TableEvent;
use super::keys::KeyImage;
use super::open::{is_of_use, rights_max};
use super::stored::Restart;
use super::table::OpenTable;
use crate::model::planted::{self, Bug};
use crate::model::{
    ExportName, ExportPath, GrantId, HandleId, OpenId, PublicKey, Reason, Refusal, ResumeKey, Rights,
    SECRET_LEN, SessionId, StoredEndedGrant, StoredGrant, StoredOpen, Time,
};

/// What somebody wants to grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantRequest {
    /// A random id for it.
    pub grant: GrantId,
    /// Who gets it.
    pub to: PublicKey,
    /// What it is to be good for.
    pub rights: Rights,
    /// How long it lasts; `None`: as long as the part that it is given from.
    pub lasts: Option<Duration>,
    /// Whether the server tells the grantee, who then asks for the key ([`OpenTable::take_grant`]).
    pub deliver: bool,
    /// Whether the giver's handle goes when the grant is taken.
    pub gives_up: bool,
}

/// What a new resume key is made of. Wiped when it is dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyStamp {
    /// The time, in microseconds since 1970.
    pub stamp_us: u64,
    /// The process that the key belongs to, as a client states it.
    pub process_id: u32,
    /// Random bytes.
    pub secret: [u8; SECRET_LEN],
}

impl fmt::Debug for KeyStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyStamp(..)")
    }
}

/// A grant that the server delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer<'a> {
    /// Names it.
    pub grant: GrantId,
    /// Who gives it.
    pub from: PublicKey,
    /// The export of the file.
    pub export: &'a ExportName,
    /// The file in it, as the open has it.
    pub path: &'a ExportPath,
    /// What it is good for.
    pub rights: Rights,
}

/// A grant that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub(super) id: GrantId,
    /// The holder with which it ends; none once that was given up.
    giver: Option<HandleId>,
    from: PublicKey,
    pub(super) to: PublicKey,
    pub(super) rights: Rights,
    ends: Option<Time>,
    /// How long it lasts once more if the machine is started anew; zero if that has been so.
    renewed: Duration,
    is_delivered: bool,
    gives_up: bool,
    is_taken: bool,
    /// The grant that the giver's holder came of.
    parent: Option<GrantId>,
    /// Its own key, once there is one.
    pub(super) key: Option<KeyImage>,
}

impl Grant {
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.ends.is_some_and(|end| end <= now)
    }

    fn is_offered(&self) -> bool {
        self.is_delivered && !self.is_taken
    }
}

/// What is left of a grant that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EndedGrant {
    id: GrantId,
    pub(super) to: PublicKey,
    keys: Vec<KeyImage>,
}

/// The grants of one open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Grants {
    live: Vec<Grant>,
    /// Oldest first.
    ended: Vec<EndedGrant>,
}

impl Grants {
    pub(super) const NONE: Self = Self { live: Vec::new(), ended: Vec::new() };

    pub(super) fn live(&self) -> impl Iterator<Item = &Grant> {
        self.live.iter()
    }

    pub(super) fn find(&self, id: GrantId) -> Option<&Grant> {
        self.live.iter().find(|grant| grant.id == id)
    }

    fn find_mut(&mut self, id: GrantId) -> Option<&mut Grant> {
        self.live.iter_mut().find(|grant| grant.id == id)
    }

    /// The grant whose own key has this generation.
    pub(super) fn by_generation(&self, generation: u32) -> Option<(&Grant, KeyImage)> {
        let own = |grant: &Grant| grant.key.filter(|key| key.generation == generation);
        self.live.iter().find_map(|grant| Some((grant, own(grant)?)))
    }

    /// The grant that is over of which a key of this generation came.
    pub(super) fn ended_by_generation(&self, generation: u32) -> Option<(&EndedGrant, KeyImage)> {
        let key =
            |ended: &EndedGrant| ended.keys.iter().copied().find(|image| image.generation == generation);
        self.ended.iter().find_map(|ended| Some((ended, key(ended)?)))
    }

    /// How many of them have keys of their own.
    pub(super) fn keys_len(&self) -> usize {
        self.live.iter().filter(|grant| grant.key.is_some()).count()
    }

    /// Moves what `from` has given to `to`.
    pub(super) fn rehome(&mut self, from: HandleId, to: HandleId) {
        self.live
            .iter_mut()
            .filter(|grant| grant.giver == Some(from))
            .for_each(|grant| grant.giver = Some(to));
    }

    fn remove(&mut self, id: GrantId) -> Option<Grant> {
        let at = self.live.iter().position(|grant| grant.id == id)?;
        Some(self.live.remove(at))
    }

    fn which(&self, is_meant: impl Fn(&Grant) -> bool) -> Vec<GrantId> {
        self.live.iter().filter(|grant| is_meant(grant)).map(|grant| grant.id).collect()
    }

    /// Keeps what is left of a grant; tells which marks go for that.
    fn bury(&mut self, ended: EndedGrant, marks_max: usize) -> Vec<GrantId> {
        self.ended.push(ended);
        let excess = self.ended.len().saturating_sub(marks_max.max(1));
        self.ended.drain(..excess).map(|ended| ended.id).collect()
    }

    /// Whether a grant stems from the part in the open that `part` says: the owner's, or that of a grant.
    fn stems_from(&self, grant: &Grant, part: Option<GrantId>) -> bool {
        let Some(part) = part else { return true };
        let mut above = grant.parent;
        // No chain is longer than there are grants.
        for _ in 0..self.live.len() {
            match above {
                Some(above) if above == part => return true,
                Some(id) => above = self.find(id).and_then(|grant| grant.parent),
                None => return false,
            }
        }
        false
    }

    pub(super) fn stored(&self) -> Vec<StoredGrant> {
        let stored = |grant: &Grant| StoredGrant {
            grant: grant.id,
            giver: grant.giver,
            from: grant.from,
            to: grant.to,
            rights: grant.rights,
            ends: grant.ends,
            renewed_us: u64::try_from(grant.renewed.as_micros()).unwrap_or(u64::MAX),
            is_delivered: grant.is_delivered,
            gives_up: grant.gives_up,
            is_taken: grant.is_taken,
            parent: grant.parent,
            key: grant.key.map(KeyImage::stored),
        };
        self.live.iter().map(stored).collect()
    }

    pub(super) fn stored_ended(&self) -> Vec<StoredEndedGrant> {
        let stored = |ended: &EndedGrant| StoredEndedGrant {
            grant: ended.id,
            to: ended.to,
            keys: ended.keys.iter().map(|key| key.stored()).collect(),
        };
        self.ended.iter().map(stored).collect()
    }

    /// Whether the parts of a record that are about grants agree with each other.
    pub(super) fn is_sound(stored: &StoredOpen) -> bool {
        let is_there = |id: GrantId| stored.grants.iter().any(|grant| grant.grant == id);
        let part_of = |handle: HandleId| {
            stored.holders.iter().find(|holder| holder.handle == handle).map(|holder| holder.grant)
        };
        let is_once = |grant: &StoredGrant| {
            stored.grants.iter().filter(|other| other.grant == grant.grant).count() == 1
        };
        stored.holders.iter().all(|holder| holder.grant.is_none_or(is_there))
            && stored.keys.iter().all(|key| part_of(key.home) == Some(key.grant))
            && stored.grants.iter().all(|grant| {
                is_once(grant)
                    && grant.giver.is_none_or(|giver| part_of(giver) == Some(grant.parent))
                    && grant.parent.is_none_or(is_there)
                    && rights_max(stored.mode).permits(grant.rights)
                    && grant.key.is_none_or(|(generation, _)| generation <= stored.issued)
            })
    }
}

impl OpenTable {
    /// Grants a part in the open of a handle. The key comes back, unless the server is to deliver it.
    ///
    /// Whether the grantee is allowed on the export is for the caller to know; it is looked at again at each resume.
    ///
    /// # Errors
    /// - [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed.
    /// - [`Reason::PermissionDenied`]: the handle may not grant, or has not all of these rights; or the open cannot be
    ///   resumed.
    /// - [`Reason::Invalid`]: to the giver itself, or with no right to read or write.
    /// - [`Reason::Quota`]: the open has as many grants as it can have, or the grantee as many that it has not taken, of all
    ///   or of this giver.
    /// - [`Reason::Exhausted`]: the random id is taken, or the open has used up the numbers of its keys.
    pub fn grant(
        &mut self,
        now: Time,
        session: SessionId,
        handle: HandleId,
        asked: &GrantRequest,
        stamp: &KeyStamp,
    ) -> Result<Option<ResumeKey>, Refusal> {
        let holder = self.usable(session, handle)?;
        let open = self.opens.get(&holder.open).ok_or(Reason::BadHandle)?;
        let (id, from, parent) = (holder.open, holder.identity, holder.grant);
        if asked.to == from || !is_of_use(asked.rights) {
            return Err(Reason::Invalid.into());
        }
        if !open.resumable || !holder.rights.permits(asked.rights.union(Rights::GRANT)) {
            return Err(Reason::PermissionDenied.into());
        }
        if open.grants().live.len() >= self.grants_per_open
            || asked.deliver && !self.may_offer(from, asked.to)
        {
            return Err(Reason::Quota.into());
        }
        if self.grants.contains_key(&asked.grant) {
            return Err(Reason::Exhausted.into());
        }
        let latest = parent.and_then(|parent| open.grants().find(parent)).and_then(|parent| parent.ends);
        let ends = asked.lasts.map(|lasts| now.after(lasts)).into_iter().chain(latest).min();
        let mut grant = Grant {
            id: asked.grant,
            giver: Some(handle),
            from,
            to: asked.to,
            rights: if planted::is(Bug::GrantOfAllRights) { holder.rights } else { asked.rights },
            ends,
            renewed: ends.map_or(Duration::ZERO, |end| end.since(now)),
            is_delivered: asked.deliver,
            gives_up: asked.gives_up,
            is_taken: false,
            parent,
            key: None,
        };
        let key = if asked.deliver { None } else { Some(self.stamp_key(id, &mut grant, stamp)?) };
        self.insert_grant(id, grant);
        self.touch(id);
        self.check_in_debug();
        Ok(key)
    }

    /// Makes a key for a grant that the server delivers; one that was made before is void.
    ///
    /// # Errors
    /// [`Reason::NotFound`]: there is none for this identity. [`Reason::Revoked`]: it is over. [`Reason::Exhausted`]: the
    /// open has used up the numbers of its keys.
    pub fn take_grant(
        &mut self,
        now: Time,
        identity: &PublicKey,
        grant: GrantId,
        stamp: &KeyStamp,
    ) -> Result<ResumeKey, Refusal> {
        let &id = self.grants.get(&grant).ok_or(Reason::NotFound)?;
        let open = self.opens.get(&id).ok_or(Reason::NotFound)?;
        let Some(found) = open.grants().find(grant) else {
            let mut ended = open.grants().ended.iter();
            let is_own = ended.any(|ended| ended.id == grant && ended.to == *identity);
            return Err(if is_own { Reason::Revoked } else { Reason::NotFound }.into());
        };
        if found.to != *identity || !found.is_delivered {
            return Err(Reason::NotFound.into());
        }
        if found.is_over(now) {
            return Err(Reason::Revoked.into());
        }
        let mut changed = found.clone();
        let key = self.stamp_key(id, &mut changed, stamp)?;
        let found = self.opens.get_mut(&id).and_then(|open| open.granted.as_mut()?.find_mut(grant));
        *found.ok_or(Reason::NotFound)? = changed;
        self.touch(id);
        self.check_in_debug();
        Ok(key)
    }

    /// Takes a grant back with everything that came of it: keys, handles, and what those have granted on. Tells which of the
    /// handles still execute something. One that is over already, or was never there, is no mistake.
    ///
    /// # Errors
    /// - [`Reason::BadHandle`]: the handle is not one of this session, or it is being closed.
    /// - [`Reason::PermissionDenied`]: the grant does not stem from the part in the open that the handle is of.
    pub fn revoke(
        &mut self,
        session: SessionId,
        handle: HandleId,
        grant: GrantId,
    ) -> Result<Vec<HandleId>, Refusal> {
        let holder = self.usable(session, handle)?;
        let open = self.opens.get(&holder.open).ok_or(Reason::BadHandle)?;
        let Some(found) = open.grants().find(grant) else { return Ok(Vec::new()) };
        if !open.grants().stems_from(found, holder.grant) {
            return Err(Reason::PermissionDenied.into());
        }
        let mut stopped = self.end_grant(grant);
        self.finish();
        stopped.retain(|handle| self.holders.contains_key(handle));
        Ok(stopped)
    }

    /// Ends the grants whose time is over. To be called before anything is done at a time, because timers come late.
    pub fn end_grants(&mut self, now: Time) {
        while let Some((_, grant)) = self.grant_ends.first().copied().filter(|(end, _)| *end <= now) {
            self.end_grant(grant);
            self.finish();
        }
    }

    /// What the server is to deliver to an identity and was not taken yet.
    pub fn offers_to(&self, identity: &PublicKey) -> impl Iterator<Item = Offer<'_>> {
        self.offers.get(identity).into_iter().flatten().filter_map(|(grant, _)| self.offer(*grant))
    }

    /// One grant, as it is offered.
    #[must_use]
    pub fn offer(&self, grant: GrantId) -> Option<Offer<'_>> {
        let open = self.opens.get(self.grants.get(&grant)?)?;
        let Grant { id, from, rights, .. } = *open.grants().find(grant)?;
        Some(Offer { grant: id, from, export: &open.export, path: &open.path, rights })
    }

    /// How many grants are in force.
    #[must_use]
    pub fn grants_len(&self) -> usize {
        self.opens.values().map(|open| open.grants().live.len()).sum()
    }

    /// Somebody has resumed with a key of the grant.
    pub(super) fn on_grant_taken(&mut self, id: GrantId) {
        let Some(&open) = self.grants.get(&id) else { return };
        let found = self.opens.get_mut(&open).and_then(|open| open.granted.as_mut()?.find_mut(id));
        let Some(grant) = found.filter(|grant| !grant.is_taken) else { return };
        grant.is_taken = true;
        let to = grant.to;
        let given_up = if grant.gives_up { grant.giver.take() } else { None };
        self.forget_offer(to, id);
        if let Some(giver) = given_up {
            self.tell_holder_ended(giver, Reason::TakenOver);
            self.stop_holder(giver);
        }
    }

    /// Ends what a holder has given.
    pub(super) fn end_grants_of(&mut self, open: OpenId, giver: HandleId) {
        let given = self.opens.get(&open).map(|open| open.grants().which(|grant| grant.giver == Some(giver)));
        for grant in given.unwrap_or_default() {
            self.end_grant(grant);
        }
    }

    /// Ends what identities have given, and stands on its own by now.
    pub(super) fn end_grants_from(&mut self, is_meant: impl Fn(&PublicKey) -> bool) {
        let given: Vec<GrantId> =
            self.opens.values().flat_map(|open| open.grants().which(|grant| is_meant(&grant.from))).collect();
        for grant in given {
            self.end_grant(grant);
        }
        self.finish();
    }

    /// Forgets the grants of an open that ends.
    pub(super) fn forget_grants(&mut self, id: OpenId) {
        let Some(open) = self.opens.get_mut(&id) else { return };
        let Some(grants) = open.granted.take() else { return };
        let Grants { live, ended } = *grants;
        for grant in live {
            self.grants.remove(&grant.id);
            self.forget_in_order(&grant);
        }
        for ended in ended {
            self.grants.remove(&ended.id);
        }
    }

    /// Puts the grants of a stored open back in.
    pub(super) fn restore_grants(&mut self, at: &Restart, id: OpenId, stored: &StoredOpen) {
        for kept in &stored.grants {
            let renewed = Duration::from_micros(kept.renewed_us);
            // On another boot nobody knows how long the machine was down: all of its time once more, and that once.
            let (ends, renewed) = match kept.ends {
                Some(_) if !at.is_same_boot => (Some(at.now.after(renewed)), Duration::ZERO),
                ends => (ends, renewed),
            };
            let grant = Grant {
                id: kept.grant,
                giver: kept.giver,
                from: kept.from,
                to: kept.to,
                rights: kept.rights,
                ends,
                renewed,
                is_delivered: kept.is_delivered,
                gives_up: kept.gives_up,
                is_taken: kept.is_taken,
                parent: kept.parent,
                key: kept.key.map(KeyImage::restored),
            };
            self.insert_grant(id, grant);
        }
        for kept in &stored.ended_grants {
            let keys = kept.keys.iter().copied().map(KeyImage::restored).collect();
            let ended = EndedGrant { id: kept.grant, to: kept.to, keys };
            let dropped = self
                .opens
                .get_mut(&id)
                .map(|open| open.granted.get_or_insert_default().bury(ended, self.grants_per_open));
            self.grants.insert(kept.grant, id);
            for dropped in dropped.unwrap_or_default() {
                self.grants.remove(&dropped);
            }
        }
    }

    /// Asserts the rules that hold of grants.
    pub(super) fn check_grants(&self) {
        let (mut known, mut timed, mut offered) = (0, 0, 0);
        for (id, open) in &self.opens {
            let Grants { live, ended } = open.grants();
            assert!(live.len() <= self.grants_per_open, "{id:?} has too many grants");
            assert!(ended.len() <= self.grants_per_open.max(1), "{id:?} has too many marks");
            known += live.len() + ended.len();
            let ids = live.iter().map(|grant| grant.id).chain(ended.iter().map(|ended| ended.id));
            ids.for_each(|grant| assert_eq!(self.grants.get(&grant), Some(id), "{grant:?}"));
            for grant in live {
                timed += usize::from(grant.ends.is_some());
                offered += usize::from(grant.is_offered());
                let is_timed = grant.ends.is_none_or(|end| self.grant_ends.contains(&(end, grant.id)));
                assert!(is_timed, "nobody watches the end of {:?}", grant.id);
                let parent = grant.parent.map(|parent| open.grants().find(parent));
                let is_within = parent
                    .is_none_or(|parent| parent.is_some_and(|parent| parent.rights.permits(grant.rights)));
                assert!(is_within, "{:?} has more than what it was given from", grant.id);
                let Some(giver) = grant.giver else { continue };
                let giver = self.holders.get(&giver).filter(|holder| holder.open == *id);
                assert!(
                    giver.is_some_and(|giver| !giver.is_draining() && giver.grant == grant.parent),
                    "{:?} outlived its giver",
                    grant.id
                );
            }
            let holders = open.holders.iter().filter_map(|handle| self.holders.get(handle));
            for holder in holders.filter(|holder| !holder.is_draining()) {
                let Some(grant) = holder.grant else { continue };
                let grant = open.grants().find(grant);
                assert!(
                    grant.is_some_and(
                        |grant| grant.to == holder.identity && grant.rights.permits(holder.rights)
                    ),
                    "a holder of {id:?} has what nobody granted it"
                );
            }
        }
        assert_eq!(self.grants.len(), known, "the index of grants");
        assert_eq!(self.grant_ends.len(), timed, "the ends of grants");
        let waiting: usize = self.offers.values().map(BTreeMap::len).sum();
        assert_eq!(waiting, offered, "the offers");
    }

    /// Whether one more offer to somebody is within the bounds: of all, and of this giver.
    fn may_offer(&self, from: PublicKey, to: PublicKey) -> bool {
        let waiting = self.offers.get(&to);
        let own = waiting.into_iter().flatten().filter(|(_, giver)| **giver == from).count();
        waiting.map_or(0, BTreeMap::len) < self.offers_per_client && own < self.offers_per_giver
    }

    fn insert_grant(&mut self, id: OpenId, grant: Grant) {
        let Some(open) = self.opens.get_mut(&id) else { return };
        self.grants.insert(grant.id, id);
        self.grant_ends.extend(grant.ends.map(|end| (end, grant.id)));
        if grant.is_offered() {
            self.offers.entry(grant.to).or_default().insert(grant.id, grant.from);
        }
        open.granted.get_or_insert_default().live.push(grant);
    }

    /// Gives a grant the next key of its open.
    fn stamp_key(&mut self, id: OpenId, grant: &mut Grant, stamp: &KeyStamp) -> Result<ResumeKey, Refusal> {
        let open = self.opens.get_mut(&id).ok_or(Reason::NotFound)?;
        let generation = open.keys.next_generation().ok_or(Reason::Exhausted)?;
        let KeyStamp { stamp_us, process_id, secret } = *stamp;
        let key = ResumeKey { file_id: id, time_stamp_us: stamp_us, process_id, generation, secret };
        grant.key = Some(KeyImage { generation, hash: self.hasher.hash(&key, &grant.to) });
        open.keys.set_issued(generation);
        Ok(key)
    }

    /// Ends a grant with all that came of it, and tells which holders were stopped by that.
    fn end_grant(&mut self, id: GrantId) -> Vec<HandleId> {
        let Some(&open_id) = self.grants.get(&id) else { return Vec::new() };
        let Some(open) = self.opens.get_mut(&open_id) else { return Vec::new() };
        let Some(grant) = open.granted.as_mut().and_then(|grants| grants.remove(id)) else {
            return Vec::new();
        };
        let keys = open.keys.of(Some(id)).map(super::keys::KeyRecord::image).chain(grant.key).collect();
        open.keys.forget_grant(id);
        let dropped = open
            .granted
            .get_or_insert_default()
            .bury(EndedGrant { id, to: grant.to, keys }, self.grants_per_open);
        for dropped in dropped {
            self.grants.remove(&dropped);
        }
        let (holders, given_on) =
            (open.holders.clone(), open.grants().which(|other| other.parent == Some(id)));
        self.forget_in_order(&grant);
        self.touch(open_id);
        // Those first that stem from it: what they have is told by this.
        let mut stopped: Vec<HandleId> =
            given_on.into_iter().flat_map(|grant| self.end_grant(grant)).collect();
        for handle in holders {
            let Some(holder) = self.holders.get(&handle).filter(|holder| holder.grant == Some(id)) else {
                continue;
            };
            stopped.push(handle);
            if !holder.is_draining() {
                self.tell_holder_ended(handle, Reason::Revoked);
                self.stop_holder(handle);
            }
        }
        stopped
    }

    fn tell_holder_ended(&mut self, handle: HandleId, reason: Reason) {
        if let Some(session) = self.holders.get(&handle).map(|holder| holder.session) {
            self.events.push_back(TableEvent::HolderEnded { session, handle, reason });
        }
    }

    fn forget_in_order(&mut self, grant: &Grant) {
        if let Some(end) = grant.ends {
            self.grant_ends.remove(&(end, grant.id));
        }
        self.forget_offer(grant.to, grant.id);
    }

    fn forget_offer(&mut self, to: PublicKey, grant: GrantId) {
        if let Entry::Occupied(mut waiting) = self.offers.entry(to) {
            waiting.get_mut().remove(&grant);
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
    }
}

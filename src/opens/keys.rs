//! Resume keys as the table keeps them, and the one function that decides whether a key may resume.
//!
//! A key's selector (file id, time stamp, process id, generation) can be guessed; its secret and the identity
//! of the session that presents it authorise. The table keeps a keyed hash over all of them, so a copy of its
//! memory or of its store resumes nothing.
//!
//! Which keys an open has: each holder has at most one key of its own, the one issued last. When a holder is
//! replaced, its keys move to the holder that replaces it, so that a client whose answer was lost can present
//! the same key again. When a holder is closed on purpose or ended, its keys die. Beyond the limit for the owner's keys, or
//! for those of one grant, the oldest key that was moved goes first, then the oldest of all.
//!
//! A key's *bearer* is the identity that it was issued to: the open's owner, or a grantee. The key of a grant itself stands
//! with the grant, in `grants.rs`.

use core::fmt;
use std::collections::HashMap;

use blake2::Blake2sMac256;
use blake2::digest::Mac;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;
use zeroize::Zeroizing;

use super::ended::Tombstone;
use super::grants::{EndedGrant, Grant};
use super::open::{Holder, Open, Presence, is_of_use};
use super::table::OpenTable;
use crate::model::planted::{self, Bug};
use crate::model::{
    Ending, ExportName, GrantId, HandleId, Limits, PublicKey, Reason, Refusal, ResumeKey, Rights, SessionId,
    Time,
};

/// Who presents a resume key, and what for.
pub struct Claim<'a> {
    /// The session that asks.
    pub session: SessionId,
    /// The identity of that session.
    pub identity: &'a PublicKey,
    /// A random id for the new holder.
    pub handle: HandleId,
    /// The holder that the new one replaces.
    pub predecessor: Option<HandleId>,
    /// What the configuration allows this identity on an export now; `None`: nothing at all.
    pub may_use: &'a dyn Fn(&ExportName) -> Option<Rights>,
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("session", &self.session)
            .field("identity", &self.identity)
            .field("handle", &self.handle)
            .field("predecessor", &self.predecessor)
            .finish_non_exhaustive()
    }
}

/// Why a resume key was refused, exactly: for the server's own log. What the client is told is
/// [`ResumeDenial::told`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ResumeDenial {
    /// The file id names no open.
    #[error("no open has this file id")]
    NoSuchOpen,
    /// The open has no key of this generation: never issued, dropped over the limit, or its holder was closed.
    #[error("the open has no key of this generation")]
    NoSuchKey,
    /// The hash differs: the secret, the time stamp or the process id is wrong.
    #[error("the key does not match the one that was issued")]
    WrongSecret,
    /// The key is right, and another identity presents it.
    #[error("the key was issued to another identity")]
    WrongIdentity,
    /// The last holder is being closed.
    #[error("the open is being closed")]
    Closing,
    /// The open has ended under its absent owner.
    #[error("the open has ended: {0:?}")]
    Ended(Ending),
    /// The key came of a grant that was revoked or has ended.
    #[error("the grant was revoked or has ended")]
    GrantEnded,
    /// The configuration does not allow the identity on the export any more.
    #[error("the export is not allowed to this identity any more")]
    ExportNotAllowed,
    /// Of the key's rights, none with which bytes can be read or written is allowed any more.
    #[error("none of the key's rights is allowed any more")]
    NoRights,
    /// The predecessor is a holder of another open, or not of the same part in it.
    #[error("the predecessor belongs to another open or to another part in it")]
    WrongPredecessor,
    /// The open, or the grant, has as many holders as it can have.
    #[error("the open or the grant has too many holders")]
    TooManyHolders,
    /// The random id for the new holder is taken.
    #[error("the id for the new handle is taken")]
    HandleTaken,
}

impl ResumeDenial {
    /// What the client hears: the rightful owner exactly what it is, everybody else one answer for every cause.
    #[must_use]
    pub fn told(self) -> Refusal {
        match self {
            Self::NoSuchOpen | Self::NoSuchKey | Self::WrongSecret | Self::WrongIdentity => {
                Reason::ResumeRefused.into()
            }
            Self::Closing => Refusal::busy(OpenTable::DRAIN_RETRY),
            Self::Ended(ending) => ending.reason().into(),
            Self::GrantEnded => Reason::Revoked.into(),
            Self::ExportNotAllowed | Self::NoRights => Reason::PermissionDenied.into(),
            Self::WrongPredecessor => Reason::Invalid.into(),
            Self::TooManyHolders => Reason::Quota.into(),
            Self::HandleTaken => Reason::Exhausted.into(),
        }
    }
}

/// What the table looked up for a claim before anything was decided.
pub(super) struct Facts<'a> {
    /// The open that the key names, or else the one with the next id, so that as much memory is looked at in either case:
    /// who knows no key does not hear by the time that it takes whether an open is there.
    pub(super) nearest: Option<&'a Open>,
    /// Whether it is the one that the key names.
    pub(super) is_there: bool,
    /// What is left of the open that the key names, where it has ended.
    pub(super) tombstone: Option<&'a Tombstone>,
    /// The predecessor that the claim names, where it exists.
    pub(super) predecessor: Option<&'a Holder>,
    /// All holders.
    pub(super) holders: &'a HashMap<HandleId, Box<Holder>>,
    /// Whether the id for the new holder is taken.
    pub(super) is_handle_taken: bool,
    /// The most holders that an open can have.
    pub(super) holders_max: usize,
}

/// What a key that may resume gets.
pub(super) struct Right<'a> {
    pub(super) open: &'a Open,
    pub(super) rights: Rights,
    /// The holder that the key is of; none of a grant's own key.
    pub(super) home: Option<HandleId>,
    /// The grant that the key came of, if it did.
    pub(super) grant: Option<GrantId>,
}

/// Decides whether `key` may resume at `now`, which open and with which rights. Nothing else decides it.
///
/// Selector, hash and identity come first and cost the same whether the open exists or not: only the rightful
/// owner gets past them.
///
/// # Errors
/// The [`ResumeDenial`] that applies first.
pub(super) fn decide<'a>(
    hasher: &KeyHasher,
    now: Time,
    key: &ResumeKey,
    claim: &Claim<'_>,
    facts: &Facts<'a>,
) -> Result<Right<'a>, ResumeDenial> {
    let Authentic { open, rights, home, grant } = authenticate(hasher, key, claim, facts)?;
    match open.presence(now) {
        // Whoever comes back after the grace comes back to what nobody has wanted.
        Presence::Held | Presence::Grace(_) | Presence::Over => {}
        Presence::Closing => return Err(ResumeDenial::Closing),
    }
    // The timer may be late.
    if grant.is_some_and(|grant| grant.is_over(now)) {
        return Err(ResumeDenial::GrantEnded);
    }
    let grant = grant.map(|grant| grant.id);
    let allowed = (claim.may_use)(&open.export).ok_or(ResumeDenial::ExportNotAllowed)?;
    let rights = rights_left(rights, allowed);
    if !is_of_use(rights) {
        return Err(ResumeDenial::NoRights);
    }
    // A predecessor that is gone is no reason to refuse: it may be the answer to its replacement that was lost.
    // One of another part in the open is not this one's to replace.
    let may_replace = |other: &Holder| {
        other.open == key.file_id && other.identity == *claim.identity && other.grant == grant
    };
    if facts.predecessor.is_some_and(|other| !may_replace(other)) {
        return Err(ResumeDenial::WrongPredecessor);
    }
    let replaced = usize::from(facts.predecessor.is_some());
    let is_of_grant =
        |handle: &&HandleId| facts.holders.get(handle).is_some_and(|other| other.grant == grant);
    let of_grant = || open.holders.iter().filter(is_of_grant).count().saturating_sub(replaced);
    if open.holders.len().saturating_sub(replaced) >= facts.holders_max
        || grant.is_some() && of_grant() >= Limits::HOLDERS_PER_GRANT
    {
        return Err(ResumeDenial::TooManyHolders);
    }
    if facts.is_handle_taken {
        return Err(ResumeDenial::HandleTaken);
    }
    Ok(Right { open, rights, home, grant })
}

/// What is left of a key's rights: who may not write any more may still append, if that is allowed.
fn rights_left(issued: Rights, allowed: Rights) -> Rights {
    let exact = issued.intersection(allowed.with_implied());
    if exact.contains(Rights::WRITE) {
        exact
    } else {
        issued.with_implied().intersection(allowed.with_implied())
    }
}

/// Whose hash a key is compared with.
#[derive(Clone, Copy)]
enum Named<'a> {
    Key(&'a Open, &'a KeyRecord),
    Grant(&'a Open, &'a Grant, KeyImage),
    EndedGrant(&'a EndedGrant, KeyImage),
    Ended(&'a Tombstone, &'a super::ended::EndedKey),
    /// There is no key of this generation: with another one, if there is any.
    NoKey(Option<(&'a Open, &'a KeyRecord)>),
}

impl<'a> Named<'a> {
    /// The key of this generation, of the nearest open, whether that is the one that was named or not.
    fn find(key: &ResumeKey, facts: &Facts<'a>) -> Self {
        let generation = key.generation;
        if let Some(tombstone) = facts.tombstone
            && let Some(record) = tombstone.key(generation)
        {
            return Self::Ended(tombstone, record);
        }
        let Some(open) = facts.nearest else { return Self::NoKey(None) };
        if let Some(record) = open.keys.record(generation) {
            return Self::Key(open, record);
        }
        if let Some((grant, image)) = open.grants().by_generation(generation) {
            return Self::Grant(open, grant, image);
        }
        if let Some((ended, image)) = open.grants().ended_by_generation(generation) {
            return Self::EndedGrant(ended, image);
        }
        Self::NoKey(open.keys.records().first().map(|record| (open, record)))
    }

    /// Whose it is, and the hash that the right key has.
    fn expected(self) -> (PublicKey, KeyHash) {
        match self {
            Self::Key(open, record) | Self::NoKey(Some((open, record))) => {
                (open.bearer(record.grant), record.hash)
            }
            Self::Grant(_, grant, image) => (grant.to, image.hash),
            Self::EndedGrant(ended, image) => (ended.to, image.hash),
            Self::Ended(tombstone, record) => (record.bearer.unwrap_or(tombstone.owner), record.hash),
            // Values that match nothing.
            Self::NoKey(None) => (PublicKey([0; 32]), KeyHash([0; 32])),
        }
    }
}

/// A key that is what it says, presented by its bearer.
struct Authentic<'a> {
    open: &'a Open,
    rights: Rights,
    home: Option<HandleId>,
    grant: Option<&'a Grant>,
}

fn authenticate<'a>(
    hasher: &KeyHasher,
    key: &ResumeKey,
    claim: &Claim<'_>,
    facts: &Facts<'a>,
) -> Result<Authentic<'a>, ResumeDenial> {
    let named = Named::find(key, facts);
    let (bearer, hash) = named.expected();
    let is_secret_right = hasher.hash(key, &bearer).ct_eq(&hash);
    let is_identity_right = bearer.0.ct_eq(&claim.identity.0);
    // The key of another open is never right: its file id is in the hash.
    let is_known = facts.is_there | facts.tombstone.is_some();
    let has_secret = is_known & bool::from(is_secret_right);
    let is_right = has_secret & (bool::from(is_identity_right) | planted::is(Bug::ResumeForAnybody));
    match named {
        Named::Key(open, record) if is_right => Ok(Authentic {
            open,
            rights: record.rights,
            home: Some(record.home),
            grant: record.grant.and_then(|grant| open.grants().find(grant)),
        }),
        Named::Grant(open, grant, _) if is_right => {
            Ok(Authentic { open, rights: grant.rights, home: None, grant: Some(grant) })
        }
        Named::EndedGrant(..) if is_right => Err(ResumeDenial::GrantEnded),
        Named::Ended(tombstone, _) if is_right => Err(ResumeDenial::Ended(tombstone.ending)),
        Named::NoKey(_) => Err(if is_known { ResumeDenial::NoSuchKey } else { ResumeDenial::NoSuchOpen }),
        // Picked and not branched to, so that each costs the same.
        _ => {
            let causes = [ResumeDenial::NoSuchOpen, ResumeDenial::WrongSecret, ResumeDenial::WrongIdentity];
            let at = usize::from(is_known).saturating_add(usize::from(has_secret));
            Err(causes.get(at).copied().unwrap_or(ResumeDenial::WrongIdentity))
        }
    }
}

/// Hashes resume keys under a key that lives as long as the server and is wiped when it ends.
pub(super) struct KeyHasher {
    key: Zeroizing<[u8; 32]>,
    /// How many keys were hashed: every attempt is to cost the same.
    #[cfg(test)]
    pub(super) count: core::cell::Cell<u32>,
}

impl KeyHasher {
    pub(super) fn new(hash_key: [u8; 32]) -> Self {
        Self {
            key: Zeroizing::new(hash_key),
            #[cfg(test)]
            count: core::cell::Cell::default(),
        }
    }

    /// BLAKE2s-256, keyed, over: file id, time stamp, process id, generation, bearer, secret. Every field has
    /// one length, so that two keys never give the same bytes.
    pub(super) fn hash(&self, key: &ResumeKey, bearer: &PublicKey) -> KeyHash {
        let mut mac = <Blake2sMac256 as Mac>::new((&*self.key).into());
        #[cfg(test)]
        self.count.set(self.count.get() + 1);
        mac.update(&key.file_id.0.to_le_bytes());
        mac.update(&key.time_stamp_us.to_le_bytes());
        mac.update(&key.process_id.to_le_bytes());
        mac.update(&key.generation.to_le_bytes());
        mac.update(&bearer.0);
        mac.update(&key.secret);
        KeyHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(..)")
    }
}

/// What the table keeps of a key's secret. It has no `==`: only [`KeyHash::ct_eq`], in constant time.
#[derive(Clone, Copy)]
pub(super) struct KeyHash([u8; 32]);

impl KeyHash {
    pub(super) fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }

    /// As it is stored.
    pub(super) fn bytes(self) -> [u8; 32] {
        self.0
    }

    pub(super) fn restored(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// What is kept of a key that has no home.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyImage {
    /// Names it among the keys of its open.
    pub(super) generation: u32,
    pub(super) hash: KeyHash,
}

impl PartialEq for KeyImage {
    fn eq(&self, other: &Self) -> bool {
        self.generation == other.generation && bool::from(self.hash.ct_eq(&other.hash))
    }
}

impl Eq for KeyImage {}

impl KeyImage {
    /// As it is stored.
    pub(super) fn stored(self) -> (u32, [u8; 32]) {
        (self.generation, self.hash.bytes())
    }

    pub(super) fn restored((generation, hash): (u32, [u8; 32])) -> Self {
        Self { generation, hash: KeyHash::restored(hash) }
    }
}

/// A resume key that was issued.
#[derive(Clone, Debug)]
pub(super) struct KeyRecord {
    /// Names it among the keys of its open.
    pub(super) generation: u32,
    pub(super) hash: KeyHash,
    /// The holder with which it dies.
    pub(super) home: HandleId,
    /// The rights of the holder that it was issued to.
    pub(super) rights: Rights,
    /// Whether it was issued to its home, and not moved there.
    pub(super) is_own: bool,
    /// The grant that its home came of, if it did.
    pub(super) grant: Option<GrantId>,
}

impl KeyRecord {
    pub(super) fn image(&self) -> KeyImage {
        KeyImage { generation: self.generation, hash: self.hash }
    }
}

/// For comparing two images of a table; no decision depends on it.
impl PartialEq for KeyRecord {
    fn eq(&self, other: &Self) -> bool {
        self.generation == other.generation
            && bool::from(self.hash.ct_eq(&other.hash))
            && self.home == other.home
            && self.rights == other.rights
            && self.is_own == other.is_own
            && self.grant == other.grant
    }
}

impl Eq for KeyRecord {}

/// The keys of one open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct OpenKeys {
    records: Vec<KeyRecord>,
    /// The generation of the key that was issued last.
    issued: u32,
}

impl OpenKeys {
    pub(super) fn new(records: Vec<KeyRecord>, issued: u32) -> Self {
        Self { records, issued }
    }

    /// The generation of the next key; none when the numbers are used up.
    pub(super) fn next_generation(&self) -> Option<u32> {
        self.issued.checked_add(1)
    }

    /// Adds a key; the former own key of its home goes, and beyond `keys_max` of the same part in the open the one that can
    /// best be spared.
    pub(super) fn add(&mut self, record: KeyRecord, keys_max: usize) {
        let grant = record.grant;
        self.issued = record.generation;
        self.records.retain(|old| !(old.is_own && old.home == record.home));
        // Most opens have one key, and there are many opens: no room for four.
        self.records.reserve_exact(1);
        self.records.push(record);
        while self.of(grant).count() > keys_max.max(1) {
            let spared = self.of(grant).map(|old| (old.is_own, old.generation)).min();
            self.records.retain(|old| old.grant != grant || Some((old.is_own, old.generation)) != spared);
        }
    }

    /// A key without a home was issued.
    pub(super) fn set_issued(&mut self, generation: u32) {
        self.issued = generation;
    }

    /// The keys of a grant, or of the owner.
    pub(super) fn of(&self, grant: Option<GrantId>) -> impl Iterator<Item = &KeyRecord> {
        self.records.iter().filter(move |record| record.grant == grant)
    }

    /// Drops the keys that came of a grant.
    pub(super) fn forget_grant(&mut self, grant: GrantId) {
        self.records.retain(|record| record.grant != Some(grant));
    }

    /// Moves the keys of `from` to `to`.
    pub(super) fn rehome(&mut self, from: HandleId, to: HandleId) {
        for record in self.records.iter_mut().filter(|record| record.home == from) {
            record.home = to;
            record.is_own = false;
        }
    }

    /// Drops the keys of a holder that ends.
    pub(super) fn forget(&mut self, home: HandleId) {
        self.records.retain(|record| record.home != home);
    }

    pub(super) fn record(&self, generation: u32) -> Option<&KeyRecord> {
        self.records.iter().find(|record| record.generation == generation)
    }

    pub(super) fn records(&self) -> &[KeyRecord] {
        &self.records
    }

    pub(super) fn issued(&self) -> u32 {
        self.issued
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

//! Parts in an open file that are granted to other identities, and those that others grant to this one.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SessionEvent;
use super::calls::Caller;
use super::error::{Error, refused};
use super::file::{File, KEY_ATTEMPTS};
use super::options::millis;
use super::session::Session;
use crate::model::{ExportName, ExportPath, GrantId, PublicKey, Reason, ResumeKey, Rights};
use crate::wire::ServerControl;
use crate::wire::grants::{Grant as Asked, Revoke, TakeGrant};

/// What is granted, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantOptions {
    /// What the grantee may do with the file; never more than the handle that grants. With [`Rights::GRANT`] it may grant
    /// on.
    pub rights: Rights,
    /// How long the grant lasts; `None`: as long as the handle that grants. To the millisecond, and one at least.
    pub lasts: Option<Duration>,
    /// Whether the server tells the grantee's sessions, also those that begin later. If not, the key comes back and is to
    /// be handed on.
    pub deliver: bool,
    /// Whether the handle that grants is closed when the grantee has resumed: the file moves from one to the other, and is
    /// never closed between them.
    pub gives_up: bool,
}

impl GrantOptions {
    /// A grant of these rights that lasts as long as the handle that grants, whose key comes back.
    #[must_use]
    pub fn of(rights: Rights) -> Self {
        Self { rights, lasts: None, deliver: false, gives_up: false }
    }
}

/// A part in an open file that somebody else may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Names it, to [`File::revoke`] it.
    pub id: GrantId,
    /// The grantee's key, for [`Session::resume`] in a session of the grantee; of no use to anybody else. None where the
    /// server delivers it.
    pub key: Option<ResumeKey>,
}

/// A part in an open file that another client offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantOffer {
    /// Names it, to [`Session::take_grant`] it.
    pub grant: GrantId,
    /// Who offers it.
    pub from: PublicKey,
    /// The export of the file.
    pub export: ExportName,
    /// The file in it.
    pub path: ExportPath,
    /// What the handle will be good for.
    pub rights: Rights,
}

impl File {
    /// Grants another identity a part in this open file: it resumes with the key, under its own identity, and gets a handle
    /// with these rights beside this one. Share mode and locks are the open's, and so they are of both.
    ///
    /// The grant ends with this handle, unless it [gives that up](GrantOptions::gives_up); when it is revoked; and when its
    /// time is over. The grantee's handles end with it, and what they have granted on.
    ///
    /// # Errors
    /// [`Error::Refused`]: with [`Reason::PermissionDenied`] if this handle may not grant or has not all of these rights, if
    /// the grantee is not allowed on the export, or if the open cannot be resumed; with [`Reason::Invalid`] to oneself or
    /// without a right to read or write; with [`Reason::Quota`]. [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe: a grant that is made after the future was dropped is revoked.
    pub async fn grant(&self, to: &PublicKey, options: GrantOptions) -> Result<Grant, Error> {
        let GrantOptions { rights, lasts, deliver, gives_up } = options;
        let lasts_ms = lasts.map_or(0, |lasts| millis(lasts).max(1));
        let asked = Asked { handle: self.handle(), to: *to, rights, lasts_ms, deliver, gives_up };
        for _ in 0..KEY_ATTEMPTS {
            let ServerControl::Granted(granted) = self.caller().control(asked).await? else {
                return Err(Error::Protocol);
            };
            if granted.key.is_some() != deliver {
                return Ok(Grant { id: granted.grant, key: granted.key });
            }
            // An answer that was repeated bears no key, and nobody has that.
            self.revoke(granted.grant).await?;
        }
        Err(refused(Reason::Unknown))
    }

    /// Takes a grant back with everything that came of it, whoever holds it by then. When this returns, nothing of that
    /// executes any more. One that is over already is no mistake.
    ///
    /// # Errors
    /// [`Error::Refused`]: with [`Reason::PermissionDenied`] if the grant does not stem from this handle's part in the file.
    /// [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe: the grant is revoked all the same.
    pub async fn revoke(&self, grant: GrantId) -> Result<(), Error> {
        self.caller().done(Revoke { handle: self.handle(), grant }).await
    }
}

impl Session {
    /// What other clients have offered to this one in this session and was not taken yet, oldest first; the 256 newest.
    /// [`SessionEvent::GrantOffered`] tells of one that comes.
    #[must_use]
    pub fn offers(&self) -> Vec<GrantOffer> {
        self.guard().inner().offers.lock().iter().cloned().collect()
    }

    /// Gets the key of a grant that was offered, for [`Session::resume`]. It replaces one that was given before.
    ///
    /// # Errors
    /// [`Error::Refused`]: with [`Reason::NotFound`] if there is none for this client, with [`Reason::Revoked`] if it is
    /// over. [`Error::TimedOut`]; [`Error::SessionEnded`].
    ///
    /// # Cancel safety
    /// Cancel safe; a key that was given before may be void.
    pub async fn take_grant(&self, grant: GrantId) -> Result<ResumeKey, Error> {
        let caller = Caller::new(self.guard());
        // An answer that was repeated bears no key; ask again under a new id.
        for _ in 0..KEY_ATTEMPTS {
            match caller.control(TakeGrant { grant }).await? {
                ServerControl::KeyIssued(issued) => {
                    if let Some(key) = &issued.key {
                        self.guard().inner().offers.lock().retain(|offer| offer.grant != grant);
                        return Ok(key.clone());
                    }
                }
                _ => return Err(Error::Protocol),
            }
        }
        Err(refused(Reason::Unknown))
    }
}

/// Offers that a slow listener may be behind.
const OFFERS_KEPT: usize = 256;

/// What was offered: an offer can come before anybody listens.
#[derive(Debug, Default)]
pub(super) struct Offers(Mutex<VecDeque<GrantOffer>>);

impl Offers {
    /// Keeps an offer, if the event is one.
    pub(super) fn note(&self, event: &SessionEvent) {
        let SessionEvent::GrantOffered { grant, from, export, path, rights } = event else { return };
        let (export, path) = (export.clone(), path.clone());
        let mut offers = self.lock();
        offers.push_back(GrantOffer { grant: *grant, from: *from, export, path, rights: *rights });
        if offers.len() > OFFERS_KEPT {
            offers.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<GrantOffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

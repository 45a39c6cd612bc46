//! Rings whose owners are gone: found, taken over, and removed when nothing is left in them.

use std::collections::HashSet;
use std::path::Path;

use super::file::{self, RingFile};
use super::format::{self, Entry, Place, Reading, Slots};
use super::{KeptOpen, KeyRing, KeyRingError};
use crate::model::{HandleId, OpenId, PublicKey};

/// The rings that were without an owner, locked as long as this is there.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    rings: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    file: RingFile,
    left: usize,
}

/// Names an entry of an adopted ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    ring: usize,
    place: Place,
}

impl Adopted {
    /// Takes over every ring in `folder` that nobody has, with the entries in them. A ring that cannot be used is
    /// reported to the log and left as it is. It blocks the thread.
    pub(super) fn take(folder: &Path) -> Result<(Self, Vec<(Spot, Entry)>), KeyRingError> {
        let mut adopted = Self::default();
        let mut entries = Vec::new();
        for path in file::rings(folder)? {
            match RingFile::adopt(&path) {
                Ok(None) => {}
                Ok(Some((file, slots))) => {
                    if let Some(error) = damage(&path, &slots) {
                        tracing::warn!(%error, "an adopted key ring");
                    }
                    let ring = adopted.rings.len();
                    adopted.rings.push(Ring { file, left: slots.live.len() });
                    entries
                        .extend(slots.live.into_iter().map(|(place, entry)| (Spot { ring, place }, entry)));
                }
                Err(error) => tracing::warn!(%error, "a key ring is not adopted"),
            }
        }
        let replaced: HashSet<(PublicKey, OpenId, HandleId)> = entries
            .iter()
            .filter_map(|(_, entry)| Some((entry.kept.server, entry.kept.id, entry.in_place_of?)))
            .collect();
        let (left_over, entries) = entries.into_iter().partition::<Vec<_>, _>(|(_, entry)| {
            replaced.contains(&(entry.kept.server, entry.kept.id, entry.handle))
        });
        for (spot, _) in left_over {
            adopted.wipe(spot);
        }
        Ok((adopted, entries))
    }

    /// Wipes an entry that has moved on, or is of no more use.
    pub(super) fn wipe(&mut self, spot: Spot) {
        let Some(ring) = self.rings.get_mut(spot.ring) else { return };
        match ring.file.wipe(spot.place) {
            Ok(()) => ring.left = ring.left.saturating_sub(1),
            Err(error) => tracing::warn!(%error, "a resume key stays in an adopted ring"),
        }
    }

    /// Removes the rings that are empty and lets go of the others, so that the next one finds what is left. It blocks
    /// the thread.
    pub(super) fn finish(self) {
        for ring in self.rings.into_iter().filter(|ring| ring.left == 0) {
            if let Err(error) = ring.file.remove() {
                tracing::warn!(%error, "an empty key ring stays");
            }
        }
    }
}

/// What is wrong with a ring whose other entries can be used.
fn damage(path: &Path, slots: &Slots) -> Option<KeyRingError> {
    (slots.lost > 0).then(|| KeyRingError::Damaged { path: path.to_owned(), lost: slots.lost })
}

/// What the rings in a folder hold.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The opens, ring by ring.
    pub opens: Vec<Listed>,
    /// What is wrong with rings.
    pub problems: Vec<KeyRingError>,
}

/// An open in a ring.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Listed {
    /// The open.
    pub kept: KeptOpen,
    /// Whether the process that has it open is running: it is not to be had then.
    pub is_owner_living: bool,
}

impl Survey {
    /// Looks at the bytes of the ring `path`, whose owner is taken for gone.
    ///
    /// # Errors
    /// [`KeyRingError::Unknown`] if they are no ring of this version. One that was not finished has no opens.
    pub fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Self, KeyRingError> {
        let slots = match format::read(bytes) {
            Reading::Ring(slots) => slots,
            Reading::Unfinished => return Ok(Self::default()),
            Reading::Unknown => return Err(KeyRingError::Unknown { path: path.to_owned() }),
        };
        let problems = damage(path, &slots).into_iter().collect();
        let listed = |(_, entry): (Place, Entry)| Listed { kept: entry.kept, is_owner_living: false };
        Ok(Self { opens: slots.live.into_iter().map(listed).collect(), problems })
    }

    /// Looks at the rings in `folder`, and changes nothing. It blocks the thread.
    ///
    /// # Errors
    /// [`KeyRingError::Io`] if the folder cannot be read. That there is none is no error.
    pub fn of(folder: &Path) -> Result<Self, KeyRingError> {
        let mut survey = Self::default();
        for path in file::rings(folder)? {
            match file::look(&path) {
                Ok(None) => {}
                Ok(Some((slots, is_owner_living))) => {
                    survey.problems.extend(damage(&path, &slots).filter(|_| !is_owner_living));
                    let kept = slots.live.into_iter().map(|(_, entry)| entry.kept);
                    survey.opens.extend(kept.map(|kept| Listed { kept, is_owner_living }));
                }
                Err(error) => survey.problems.push(error),
            }
        }
        Ok(survey)
    }
}

impl KeyRing {
    /// The folder that all rings of the user share.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

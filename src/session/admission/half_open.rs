//! The connections that are in their handshake, in no order: entering, leaving and drawing one take the same time
//! however many there are.

use std::collections::HashMap;

use crate::model::Limits;

/// Names a half-open connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HalfOpenId(u64);

#[derive(Debug)]
pub(super) struct Crowd {
    members: Vec<Member>,
    places: HashMap<HalfOpenId, usize>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    id: HalfOpenId,
    /// Where its network is.
    network: usize,
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self {
            members: Vec::with_capacity(Limits::HALF_OPEN_MAX),
            places: HashMap::with_capacity(Limits::HALF_OPEN_MAX),
            next: 0,
        }
    }

    pub(super) fn enter(&mut self, network: usize) -> HalfOpenId {
        let id = HalfOpenId(self.next);
        self.next = self.next.saturating_add(1);
        self.places.insert(id, self.members.len());
        self.members.push(Member { id, network });
        id
    }

    /// Tells where the network of one that leaves is; `None` if it has left before.
    pub(super) fn leave(&mut self, id: HalfOpenId) -> Option<usize> {
        let place = self.places.remove(&id)?;
        let member = self.members.swap_remove(place);
        // The last one has taken its place.
        if let Some(moved) = self.members.get(place) {
            self.places.insert(moved.id, place);
        }
        Some(member.network)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The one at a place, of which there are [`Crowd::len`].
    pub(super) fn at(&self, place: usize) -> Option<HalfOpenId> {
        self.members.get(place).map(|member| member.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_leaves_once_and_moves_nobody_else() {
        let mut crowd = Crowd::new();
        let ids: Vec<HalfOpenId> = (0..5).map(|network| crowd.enter(network * 10)).collect();
        assert_eq!(crowd.leave(ids[1]), Some(10));
        assert_eq!(crowd.leave(ids[1]), None);
        assert_eq!(crowd.leave(ids[4]), Some(40), "the one that took another's place is found there");
        assert_eq!(
            (0..4).map(|place| crowd.at(place)).collect::<Vec<_>>(),
            [Some(ids[0]), Some(ids[3]), Some(ids[2]), None]
        );
        for (at, id) in [(0, ids[0]), (20, ids[2]), (30, ids[3])] {
            assert_eq!(crowd.leave(id), Some(at));
        }
        assert_eq!((crowd.len(), crowd.places.len()), (0, 0));
        assert!(crowd.enter(0) > ids[4], "no name is used twice");
    }
}

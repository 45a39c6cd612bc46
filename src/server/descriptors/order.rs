//! In which order things were used: a list through numbered slots, each of which is in it once or not at all. Every
//! change costs the same, however long it is.

/// No slot.
const NONE: u32 = u32::MAX;

/// Slots, from the one that was used longest ago to the one that was used last.
#[derive(Debug)]
pub(super) struct Order {
    links: Vec<Links>,
    oldest: u32,
    newest: u32,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Links {
    older: u32,
    newer: u32,
    is_in: bool,
}

const OUT: Links = Links { older: NONE, newer: NONE, is_in: false };

impl Default for Order {
    fn default() -> Self {
        Self { links: Vec::new(), oldest: NONE, newest: NONE, len: 0 }
    }
}

impl Order {
    /// Makes a slot the one that was used last, whether it was in the list or not.
    pub(super) fn put(&mut self, slot: u32) {
        if self.newest == slot {
            return;
        }
        self.remove(slot);
        let (at, older) = (index(slot), self.newest);
        if self.links.len() <= at {
            self.links.resize(at.saturating_add(1), OUT);
        }
        self.set(slot, |links| *links = Links { older, newer: NONE, is_in: true });
        self.set(older, |links| links.newer = slot);
        if self.oldest == NONE {
            self.oldest = slot;
        }
        self.newest = slot;
        self.len = self.len.saturating_add(1);
    }

    /// Takes a slot out, if it is in.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(&Links { older, newer, is_in: true }) = self.links.get(index(slot)) else { return };
        self.set(older, |links| links.newer = newer);
        self.set(newer, |links| links.older = older);
        if self.oldest == slot {
            self.oldest = newer;
        }
        if self.newest == slot {
            self.newest = older;
        }
        self.set(slot, |links| *links = OUT);
        self.len = self.len.saturating_sub(1);
    }

    /// As [`Order::put`], if the slot is in.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.contains(slot) {
            self.put(slot);
        }
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.links.get(index(slot)).is_some_and(|links| links.is_in)
    }

    /// The slot that was used longest ago.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn set(&mut self, slot: u32, change: impl FnOnce(&mut Links)) {
        if let Some(links) = self.links.get_mut(index(slot)) {
            change(links);
        }
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_a_plain_list(calls in prop::collection::vec((0_u32..12, 0_u8..3), 0..200)) {
            let (mut order, mut plain) = (Order::default(), Vec::new());
            for (slot, call) in calls {
                let was_in = plain.contains(&slot);
                plain.retain(|&other| other != slot);
                match call {
                    0 => {
                        order.put(slot);
                        plain.push(slot);
                    }
                    1 => order.remove(slot),
                    _ => {
                        order.touch(slot);
                        plain.extend(was_in.then_some(slot));
                    }
                }
                prop_assert_eq!((order.oldest(), order.len()), (plain.first().copied(), plain.len()));
                prop_assert!((0..12).all(|slot| order.contains(slot) == plain.contains(&slot)));
            }
            let rest: Vec<u32> = core::iter::from_fn(|| order.oldest().inspect(|&slot| order.remove(slot))).collect();
            prop_assert_eq!(rest, plain);
        }
    }
}

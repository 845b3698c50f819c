//! Chance, where a seed or fairness wants it: the order of tasks that are ready together.

use super::Run;
use crate::task::NodeRef;

impl Run {
    /// Puts tasks that are ready at the same time in an order that depends on the seed.
    pub(crate) fn shuffle(&self, batch: &mut [NodeRef]) {
        let Some(mut state) = self.random.get() else {
            return;
        };
        for last in (1..batch.len()).rev() {
            // SplitMix64, by Steele, Lea and Flood: one addition and a hash.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut hash = state;
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let below = last as u64 + 1;
            let other = usize::try_from((hash ^ (hash >> 31)) % below).expect("below a length");
            batch.swap(last, other);
        }
        self.random.set(Some(state));
    }

    /// A number below `below`, from a sequence that is the same in each run of the same seed: where
    /// a choice is to favour nobody.
    pub(crate) fn choose(&self, below: usize) -> usize {
        // Weyl's sequence with the golden ratio, as in `shuffle`; its upper half is the better one.
        let state = self.choices.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.choices.set(state);
        let hash = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        usize::try_from(hash).expect("half of 64 bits") % below
    }

    pub(crate) fn is_seeded(&self) -> bool {
        self.random.get().is_some()
    }
}

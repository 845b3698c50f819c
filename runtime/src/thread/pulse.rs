//! The pulse of a run, as its watchdog sees it: plain stores on one side, loads on the other.
//!
//! 1. One word holds the number of the turn, whether the run works or rests (waits for the kernel
//!    or, as a guest, for its host), and whether the watchdog sleeps until the word changes. It
//!    changes with each turn and each rest, so a word that stays the same is a turn that lasts, or
//!    a rest.
//! 2. A run that begins to work, or to rest, stores the new word and learns from the old one, in
//!    one step, whether the watchdog sleeps; and the watchdog marks the word only if it is still
//!    the same. So no run begins to work unnoticed.
//! 3. From one turn to the next without a rest, the run loads and then stores. A mark that is made
//!    in between is lost. So a watchdog that sleeps during a turn does so only for a limited time.
//! 4. The node that is polled is stored as its address, or zero; the address is never followed,
//!    only looked up.

use super::sync::{AtomicUsize, Ordering};

pub(super) struct Pulse {
    word: AtomicUsize,
    node: AtomicUsize,
}

/// The run is working.
const WORKING: usize = 1;
/// The watchdog sleeps, and has to be woken when the word changes.
const ASLEEP: usize = 2;
/// The bits from here up are the number of the turn.
const TURN: usize = 4;

impl Pulse {
    /// The pulse of a run at rest.
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            node: AtomicUsize::new(0),
        }
    }

    // The side of the run.

    /// The run begins to work after a rest; returns whether the watchdog has to be woken.
    pub(super) fn begin(&self) -> bool {
        self.replace(WORKING)
    }

    /// The next turn begins; returns whether the watchdog has to be woken.
    #[inline]
    pub(super) fn go_on(&self) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if word & (WORKING | ASLEEP) != WORKING {
            return self.begin();
        }
        self.word.store(word.wrapping_add(TURN), Ordering::Relaxed);
        false
    }

    /// The run rests; returns whether the watchdog has to be woken.
    pub(super) fn rest(&self) -> bool {
        // A watchdog that sleeps because the run rests already need not be woken for another rest.
        let works = self.word.load(Ordering::Relaxed) & WORKING != 0;
        works && self.replace(0)
    }

    /// Stores the next word, with these marks; returns whether the watchdog slept during the last.
    fn replace(&self, marks: usize) -> bool {
        let number = self.word.load(Ordering::Relaxed) & !(WORKING | ASLEEP);
        let next = number.wrapping_add(TURN) | marks;
        self.word.swap(next, Ordering::AcqRel) & ASLEEP != 0
    }

    /// Stores what is polled from now on.
    #[inline]
    pub(super) fn poll(&self, node: usize) {
        self.node.store(node, Ordering::Relaxed);
    }

    // The side of the watchdog.

    /// A value that is different for each turn and each rest.
    pub(super) fn turn(&self) -> usize {
        self.word.load(Ordering::Relaxed) & !ASLEEP
    }

    pub(super) fn is_at_rest(turn: usize) -> bool {
        turn & WORKING == 0
    }

    pub(super) fn node(&self) -> usize {
        self.node.load(Ordering::Relaxed)
    }

    /// Marks that the watchdog is about to sleep until `turn` has changed; returns whether it is
    /// still the same.
    pub(super) fn fall_asleep(&self, turn: usize) -> bool {
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        match self
            .word
            .compare_exchange(turn, turn | ASLEEP, order, failed)
        {
            Ok(_) => true,
            // The mark may still be there, if nothing has woken the watchdog since.
            Err(word) => word == turn | ASLEEP,
        }
    }
}

//! The pulse of a run, as its watchdog feels it: plain stores on the one side, looks on the other.
//!
//! 1. One word holds the number of the turn, whether the run works or rests (waits for the kernel or,
//!    as a guest, for its host), and whether the watchdog sleeps until the word changes. It changes
//!    with each turn and each rest, so a word that stays is a turn that lasts, or a rest.
//! 2. A run that begins to work, or to rest, puts the new word there and learns from the old one
//!    whether the watchdog sleeps, in one step; and the watchdog marks the word only if it is still the
//!    same. So no run begins to work unseen.
//! 3. From one turn to the next without a rest the run reads, and then stores. A mark that is made in
//!    between is lost. So a watchdog that sleeps while a turn lasts does so for a bounded time only.
//! 4. Which node is polled is its address, or zero: never followed, only looked up.

use super::sync::{AtomicUsize, Ordering};

pub(super) struct Pulse {
    word: AtomicUsize,
    node: AtomicUsize,
}

/// The run works.
const WORKING: usize = 1;
/// The watchdog sleeps, and is to be woken when the word changes.
const ASLEEP: usize = 2;
/// What lies above that is the number of the turn.
const TURN: usize = 4;

impl Pulse {
    /// Of a run at rest.
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            node: AtomicUsize::new(0),
        }
    }

    // The run.

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
        // One that sleeps because the run rests already is not to be woken for that.
        let works = self.word.load(Ordering::Relaxed) & WORKING != 0;
        works && self.replace(0)
    }

    /// The next word, with these marks; returns whether the watchdog has slept over the last.
    fn replace(&self, marks: usize) -> bool {
        let number = self.word.load(Ordering::Relaxed) & !(WORKING | ASLEEP);
        let next = number.wrapping_add(TURN) | marks;
        self.word.swap(next, Ordering::AcqRel) & ASLEEP != 0
    }

    /// What is polled from now on.
    #[inline]
    pub(super) fn poll(&self, node: usize) {
        self.node.store(node, Ordering::Relaxed);
    }

    // The watchdog.

    /// What tells turns and rests from each other.
    pub(super) fn turn(&self) -> usize {
        self.word.load(Ordering::Relaxed) & !ASLEEP
    }

    pub(super) fn is_at_rest(turn: usize) -> bool {
        turn & WORKING == 0
    }

    pub(super) fn node(&self) -> usize {
        self.node.load(Ordering::Relaxed)
    }

    /// The watchdog is about to sleep until `turn` has changed; returns whether it has not by now.
    pub(super) fn fall_asleep(&self, turn: usize) -> bool {
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        match self
            .word
            .compare_exchange(turn, turn | ASLEEP, order, failed)
        {
            Ok(_) => true,
            // The mark may be there from before, if nothing has woken the watchdog since.
            Err(word) => word == turn | ASLEEP,
        }
    }
}

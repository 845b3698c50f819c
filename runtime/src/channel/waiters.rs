//! The operations that stand in line at a channel, first come first served, each with what it
//! brings or waits for.
//!
//! The lists of `sync` stand alone. The lines of a channel are part of its state, which is examined
//! as a whole, may be behind a lock, and may be reached from other threads. How a wait of a run is
//! claimed is the same for both.
//!
//! 1. A waiter is *claimed* at most once, by whoever has something for it: the claim ends its wait
//!    and takes it out of the line. A waiter that has been cancelled can no longer be claimed, and
//!    one that has been claimed can no longer be cancelled; so nothing is handed to an operation
//!    that will not take it.
//! 2. Claiming wakes, but to be woken is not yet to have: what was handed over lies with the
//!    waiter, and a waiter that finds nothing there tries again.
//! 3. A waiter keeps its place until its future takes it out, by ending or by being dropped. A
//!    future that is forgotten keeps its place, and what is handed to it, until the channel is
//!    gone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use slab::Slab;

use crate::sync::wait_list::WaitId;
use crate::wait::Parked;

const NONE: u32 = u32::MAX;

/// The waiters, in the order in which they came. `C` is how one is claimed.
pub(crate) struct Waiters<C, P> {
    slots: Slab<Waiter<C, P>>,
    first: u32,
    last: u32,
}

struct Waiter<C, P> {
    claim: C,
    /// The end of the channel at which it waits.
    endpoint: u32,
    previous: u32,
    next: u32,
    /// Whether it stands in line.
    in_line: bool,
    payload: P,
}

/// A way to claim a waiter.
pub(crate) trait Claim {
    /// What is left to do, when nothing is locked any more, to wake the one that was claimed.
    type Wake;

    /// A claim on the future that is being polled.
    fn at(place: &Place<'_>) -> Self;

    fn wake(wake: Self::Wake);

    /// Ends the wait, unless it has been ended or cancelled before.
    fn claim(&mut self) -> Option<Self::Wake>;

    /// Whether it could be claimed now.
    fn is_waiting(&self) -> bool;

    /// Whether both claims are on the same wait, in different lines.
    fn is_same(&self, other: &Self) -> bool;

    /// Whether a wake calls `waker`.
    fn is_woken_by(&self, waker: &Waker) -> bool {
        let _ = waker;
        true
    }

    /// Switches to the waker with which the future is polled now; returns the previous one.
    fn wake_by(&mut self, waker: Waker) -> Waker {
        waker
    }
}

impl<C: Claim, P> Waiters<C, P> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            first: NONE,
            last: NONE,
        }
    }

    /// Puts a waiter at the end of the line.
    pub(crate) fn insert(&mut self, claim: C, endpoint: u32, payload: P) -> u32 {
        let previous = self.last;
        let slot = self.slots.insert(Waiter {
            claim,
            endpoint,
            previous,
            next: NONE,
            in_line: true,
            payload,
        });
        let key = u32::try_from(slot).expect("fewer than four thousand million wait");
        match previous {
            NONE => self.first = key,
            previous => self.slots[previous as usize].next = key,
        }
        self.last = key;
        key
    }

    /// Removes a waiter for good. Not to be called while something is locked if its claim may hold
    /// a foreign waker: see [`take_out`](Self::take_out).
    pub(crate) fn remove(&mut self, key: u32) -> P {
        if self.slots[key as usize].in_line {
            self.unlink(key);
        }
        self.slots.remove(key as usize).payload
    }

    /// The same, with the claim, which is to be dropped when nothing is locked.
    #[must_use = "the claim is dropped when nothing is locked"]
    #[inline]
    pub(crate) fn take_out(&mut self, key: u32) -> (C, P) {
        if self.slots[key as usize].in_line {
            self.unlink(key);
        }
        let waiter = self.slots.remove(key as usize);
        (waiter.claim, waiter.payload)
    }

    /// What a waiter brought, or was given.
    pub(crate) fn payload(&mut self, key: u32) -> &mut P {
        &mut self.slots[key as usize].payload
    }

    /// Whether a waiter has been claimed, or passed over.
    pub(crate) fn is_settled(&self, key: u32) -> bool {
        !self.slots[key as usize].in_line
    }

    /// Whether a wake of this waiter calls `waker`.
    pub(crate) fn is_woken_by(&self, key: u32, waker: &Waker) -> bool {
        let waiter = &self.slots[key as usize];
        !waiter.in_line || waiter.claim.is_woken_by(waker)
    }

    /// Has the waiter woken by `waker` from now on; returns the previous one, to be dropped when
    /// nothing is locked.
    #[must_use = "dropped when nothing is locked"]
    pub(crate) fn wake_by(&mut self, key: u32, waker: Waker) -> Waker {
        self.slots[key as usize].claim.wake_by(waker)
    }

    /// Whether the line is empty; a waiter that has been cancelled still counts.
    #[inline]
    pub(crate) fn is_deserted(&self) -> bool {
        self.first == NONE
    }

    /// Claims the first waiter that can be claimed.
    #[inline]
    pub(crate) fn claim_first(&mut self) -> Option<(u32, C::Wake)> {
        if self.first == NONE {
            return None;
        }
        self.claim_some()
    }

    fn claim_some(&mut self) -> Option<(u32, C::Wake)> {
        while self.first != NONE {
            let key = self.first;
            // One that cannot be claimed has been cancelled, or claimed elsewhere, for good.
            self.unlink(key);
            if let Some(wake) = self.slots[key as usize].claim.claim() {
                return Some((key, wake));
            }
        }
        None
    }

    /// Claims every waiter of `endpoint`.
    pub(crate) fn claim_at(&mut self, endpoint: u32, mut wake: impl FnMut(C::Wake)) {
        let mut key = self.first;
        while key != NONE {
            let next = self.slots[key as usize].next;
            if self.slots[key as usize].endpoint == endpoint {
                self.unlink(key);
                if let Some(one) = self.slots[key as usize].claim.claim() {
                    wake(one);
                }
            }
            key = next;
        }
    }

    /// Claims every waiter.
    pub(crate) fn claim_all(&mut self, mut wake: impl FnMut(C::Wake)) {
        while let Some((_, one)) = self.claim_first() {
            wake(one);
        }
    }

    /// Whether nobody waits, apart from those who have been cancelled.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().next().is_none()
    }

    /// Whether anybody waits, other than `claim` from another line.
    pub(crate) fn has_others(&self, claim: &C) -> bool {
        let mut waiting = self.waiting();
        waiting.any(|key| !self.slots[key as usize].claim.is_same(claim))
    }

    /// How many wait, not counting those who have been cancelled.
    pub(crate) fn len(&self) -> usize {
        self.waiting().count()
    }

    fn waiting(&self) -> impl Iterator<Item = u32> {
        let step = |key: &u32| Some(self.slots[*key as usize].next).filter(|next| *next != NONE);
        let first = Some(self.first).filter(|first| *first != NONE);
        let all = std::iter::successors(first, step);
        all.filter(|key| self.slots[*key as usize].claim.is_waiting())
    }

    fn unlink(&mut self, key: u32) {
        let waiter = &mut self.slots[key as usize];
        debug_assert!(waiter.in_line, "a waiter leaves the line once");
        waiter.in_line = false;
        let (previous, next) = (waiter.previous, waiter.next);
        match previous {
            NONE => self.first = next,
            previous => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.slots[next as usize].previous = previous,
        }
    }
}

impl<C, P> fmt::Debug for Waiters<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").finish_non_exhaustive()
    }
}

/// Shared by the waits of one task in several lines: only one may be claimed, from whatever thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once(Arc<AtomicBool>);

impl Once {
    /// Returns whether this is the first claim.
    fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn is_claimed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a future that stands in line is claimed and woken.
#[derive(Debug)]
#[expect(
    unnameable_types,
    reason = "it stands in hidden methods of `Selectable`, which nobody else is to implement"
)]
pub struct Place<'a> {
    /// `None` for a thread that is in no run.
    wait: Option<WaitId>,
    /// Shared with the other lines in which the same wait stands.
    once: Option<Once>,
    waker: &'a Waker,
}

impl<'a> Place<'a> {
    pub(crate) fn of(parked: &Parked, once: Option<Once>, waker: &'a Waker) -> Self {
        Self {
            wait: Some(WaitId::of(parked)),
            once,
            waker,
        }
    }

    /// The waker of the task that polls.
    pub(crate) fn waker(&self) -> &'a Waker {
        self.waker
    }

    /// The place of a thread that is in no run.
    pub(crate) fn of_thread(waker: &'a Waker) -> Self {
        Self {
            wait: None,
            once: None,
            waker,
        }
    }
}

/// A wait of a run, which code on the thread of that run can claim.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    wait: WaitId,
    once: Option<Once>,
}

impl Claim for Ticket {
    type Wake = ();

    fn at(place: &Place<'_>) -> Self {
        Self {
            wait: place.wait.clone().expect("a thread waits for threads only"),
            once: place.once.clone(),
        }
    }

    fn wake((): ()) {}

    fn claim(&mut self) -> Option<()> {
        // Asked first, so that the only claim among several is not wasted on a wait that is over.
        if let Some(once) = &self.once {
            if !self.wait.is_waiting() || !once.claim() {
                return None;
            }
        }
        self.wait.claim().then_some(())
    }

    fn is_waiting(&self) -> bool {
        let claimed = self.once.as_ref().is_some_and(Once::is_claimed);
        !claimed && self.wait.is_waiting()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.wait == other.wait
    }
}

/// A wait that any thread may claim: that of a task in a run, or of a whole thread.
#[derive(Debug)]
pub(crate) struct Caller {
    waker: Waker,
    once: Option<Once>,
}

impl Claim for Caller {
    type Wake = Waker;

    fn at(place: &Place<'_>) -> Self {
        Self {
            waker: place.waker.clone(),
            once: place.once.clone(),
        }
    }

    fn wake(waker: Waker) {
        waker.wake();
    }

    fn claim(&mut self) -> Option<Waker> {
        if self.once.as_ref().is_some_and(|once| !once.claim()) {
            return None;
        }
        // Whoever was claimed is woken once, and not asked again.
        Some(std::mem::replace(&mut self.waker, Waker::noop().clone()))
    }

    fn is_waiting(&self) -> bool {
        !self.once.as_ref().is_some_and(Once::is_claimed)
    }

    fn is_same(&self, other: &Self) -> bool {
        match (&self.once, &other.once) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.0, &other.0),
            _ => false,
        }
    }

    fn is_woken_by(&self, waker: &Waker) -> bool {
        self.waker.will_wake(waker)
    }

    fn wake_by(&mut self, waker: Waker) -> Waker {
        std::mem::replace(&mut self.waker, waker)
    }
}

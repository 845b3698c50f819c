//! Who stands in line at a channel, first come first served, each with what it brings or waits for.
//!
//! The lists of `sync` stand by themselves; the lines of a channel are part of its state, which is
//! looked at as a whole, and may be behind a lock and be reached from other threads. What a claim is
//! of a wait that belongs to a run is the same for both.
//!
//! 1. A waiter is *claimed* at most once, by whoever has something for it: the claim ends its wait
//!    and takes it out of the line. A waiter that has been cancelled cannot be claimed any more, and
//!    one that has been claimed is not cancelled any more; so nothing is handed to somebody who is
//!    not going to take it.
//! 2. Claiming wakes, but being woken is not having: what was handed over stands with the waiter,
//!    and a waiter that finds nothing there looks for itself.
//! 3. The place of a waiter goes when its future takes it out, by ending or by being dropped. A
//!    future that is forgotten keeps its place, and what is handed to it, until the channel goes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use slab::Slab;

use crate::sync::wait_list::WaitId;
use crate::wait::Parked;

const NONE: u32 = u32::MAX;

/// Those who wait, in the order in which they came. `C` is how one is claimed.
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

/// By which a waiter is claimed.
pub(crate) trait Claim {
    /// What is left to do to wake the one that was claimed, when nothing is locked any more.
    type Wake;

    /// By which a future that is polled is claimed.
    fn at(place: &Place<'_>) -> Self;

    fn wake(wake: Self::Wake);

    /// Ends the wait, unless it has been ended or cancelled before.
    fn claim(&mut self) -> Option<Self::Wake>;

    /// Whether it could be claimed now.
    fn is_waiting(&self) -> bool;

    /// Whether both are of the same wait, in several lines.
    fn is_same(&self, other: &Self) -> bool;

    /// Whether `waker` is the one to be called.
    fn is_woken_by(&self, waker: &Waker) -> bool {
        let _ = waker;
        true
    }

    /// Follows the future to where it is polled now; returns the waker before.
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

    /// Takes a waiter out for good. Not while something is locked, if its claim may hold the waker of
    /// others: see [`take_out`](Self::take_out).
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

    /// What a waiter brings, or has been given.
    pub(crate) fn payload(&mut self, key: u32) -> &mut P {
        &mut self.slots[key as usize].payload
    }

    /// Whether a waiter has been claimed, or passed over.
    pub(crate) fn is_settled(&self, key: u32) -> bool {
        !self.slots[key as usize].in_line
    }

    /// Whether a waiter is woken by `waker`, if it is woken.
    pub(crate) fn is_woken_by(&self, key: u32, waker: &Waker) -> bool {
        let waiter = &self.slots[key as usize];
        !waiter.in_line || waiter.claim.is_woken_by(waker)
    }

    /// From now on a waiter is woken by `waker`; returns the one before, to be dropped when nothing
    /// is locked.
    #[must_use = "dropped when nothing is locked"]
    pub(crate) fn wake_by(&mut self, key: u32, waker: Waker) -> Waker {
        self.slots[key as usize].claim.wake_by(waker)
    }

    /// Whether nobody stands in line, not even somebody who has been cancelled.
    #[inline]
    pub(crate) fn is_deserted(&self) -> bool {
        self.first == NONE
    }

    /// Claims the first that can be.
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

    /// Claims every one that waits at `endpoint`.
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

    /// Claims every one.
    pub(crate) fn claim_all(&mut self, mut wake: impl FnMut(C::Wake)) {
        while let Some((_, one)) = self.claim_first() {
            wake(one);
        }
    }

    /// Whether anybody waits who has not been cancelled.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().next().is_none()
    }

    /// Whether anybody waits, other than `claim` in another line.
    pub(crate) fn has_others(&self, claim: &C) -> bool {
        let mut waiting = self.waiting();
        waiting.any(|key| !self.slots[key as usize].claim.is_same(claim))
    }

    /// How many wait, without those who have been cancelled.
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

/// What several waits of one task share, of which only one may be claimed, from whatever thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once(Arc<AtomicBool>);

impl Once {
    /// Whether this is the first.
    fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn is_claimed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Where a future stands in line: by what it is claimed and woken.
#[derive(Debug)]
#[expect(
    unnameable_types,
    reason = "it stands in hidden methods of `Selectable`, which nobody else is to implement"
)]
pub struct Place<'a> {
    /// None for a thread that is in no run.
    wait: Option<WaitId>,
    /// What is shared with the other lines in which the same wait stands.
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

    /// By which the task is woken that polls it.
    pub(crate) fn waker(&self) -> &'a Waker {
        self.waker
    }

    /// The place of a thread, which is in no run.
    pub(crate) fn of_thread(waker: &'a Waker) -> Self {
        Self {
            wait: None,
            once: None,
            waker,
        }
    }
}

/// A wait of a run, by which code on the thread of that run claims it.
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
        // Asked first, for the one claim of several is not to be wasted on a wait that is over.
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

/// A wait that any thread may claim: of a task in a run, or of a whole thread.
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
        // Who was claimed is woken once, and not asked again.
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

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
pub(super) struct Waiters<C, P> {
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
pub(super) trait Claim {
    /// What is left to do to wake who was claimed, when nothing is locked any more.
    type Wake;

    /// What it holds that belongs to a user, and is dropped when nothing is locked any more.
    type Held;

    /// By which a future that is polled is claimed.
    fn at(place: &Place<'_>) -> Self;

    fn wake(wake: Self::Wake);

    /// Ends the wait, unless it has been ended or cancelled before.
    fn claim(&mut self) -> Option<Self::Wake>;

    /// Whether it could be claimed now.
    fn is_waiting(&self) -> bool;

    /// Whether both are of the same wait, in several lines.
    fn is_same(&self, other: &Self) -> bool;

    /// What it is to hold when its future is polled with `waker`.
    fn held(waker: &Waker) -> Self::Held;

    /// Follows the future to where it is polled now, by an exchange of what it holds.
    fn refresh(&mut self, held: &mut Self::Held);

    /// Ends it; gives what it has held.
    fn end(self) -> Self::Held;
}

impl<C: Claim, P> Waiters<C, P> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            first: NONE,
            last: NONE,
        }
    }

    /// Puts a waiter at the end of the line.
    pub(super) fn insert(&mut self, claim: C, endpoint: u32, payload: P) -> u32 {
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

    /// Takes a waiter out for good. Gives what it has held as well, to be dropped when nothing is
    /// locked.
    pub(super) fn remove(&mut self, key: u32) -> (P, C::Held) {
        if self.slots[key as usize].in_line {
            self.unlink(key);
        }
        let Waiter { payload, claim, .. } = self.slots.remove(key as usize);
        (payload, claim.end())
    }

    /// What a waiter brings, or has been given.
    pub(super) fn payload(&mut self, key: u32) -> &mut P {
        &mut self.slots[key as usize].payload
    }

    /// Whether a waiter has been claimed; else it holds what is in `held`, and the other way round.
    pub(super) fn is_settled(&mut self, key: u32, held: &mut C::Held) -> bool {
        let waiter = &mut self.slots[key as usize];
        if waiter.in_line {
            waiter.claim.refresh(held);
        }
        !waiter.in_line
    }

    /// Claims the first that can be.
    #[inline]
    pub(super) fn claim_first(&mut self) -> Option<(u32, C::Wake)> {
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
    pub(super) fn claim_at(&mut self, endpoint: u32, mut wake: impl FnMut(C::Wake)) {
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
    pub(super) fn claim_all(&mut self, mut wake: impl FnMut(C::Wake)) {
        while let Some((_, one)) = self.claim_first() {
            wake(one);
        }
    }

    /// Whether anybody waits who has not been cancelled.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().next().is_none()
    }

    /// Whether anybody waits, other than `claim` in another line.
    pub(super) fn has_others(&self, claim: &C) -> bool {
        let mut waiting = self.waiting();
        waiting.any(|key| !self.slots[key as usize].claim.is_same(claim))
    }

    /// How many wait, without those who have been cancelled.
    pub(super) fn len(&self) -> usize {
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
pub(super) struct Once(Arc<AtomicBool>);

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
    pub(super) fn of(parked: &Parked, once: Option<Once>, waker: &'a Waker) -> Self {
        Self {
            wait: Some(WaitId::of(parked)),
            once,
            waker,
        }
    }

    /// The place of a thread, which is in no run.
    pub(super) fn of_thread(waker: &'a Waker) -> Self {
        Self {
            wait: None,
            once: None,
            waker,
        }
    }
}

/// A wait of a run, by which code on the thread of that run claims it.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    wait: WaitId,
    once: Option<Once>,
}

impl Claim for Ticket {
    type Wake = ();
    type Held = ();

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

    fn held(_: &Waker) {}

    fn refresh(&mut self, (): &mut ()) {}

    fn end(self) {}
}

/// A wait that any thread may claim: of a task in a run, or of a whole thread.
#[derive(Debug)]
pub(super) struct Caller {
    waker: Waker,
    once: Option<Once>,
}

impl Claim for Caller {
    type Wake = Waker;
    type Held = Waker;

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

    fn held(waker: &Waker) -> Waker {
        waker.clone()
    }

    fn refresh(&mut self, held: &mut Waker) {
        std::mem::swap(&mut self.waker, held);
    }

    fn end(self) -> Waker {
        self.waker
    }
}

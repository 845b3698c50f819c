//! Deadlines in order, most of which never come: a four-ary heap with lazy deletion.
//!
//! 1. Each deadline has an entry, and a node in the heap that holds the number of the entry and its
//!    stamp. Taking a deadline back frees the entry and clears its stamp; the node stays and is
//!    *dead*, because its stamp is no longer that of the entry. So taking back costs the same
//!    whatever is pending, and nothing in the heap has to know its place.
//! 2. A dead node is removed when it comes to the top, or when more than half of the heap is dead:
//!    then the live ones are put in order anew, which the deadlines that were taken back have paid
//!    for in advance. Setting and coming due cost a logarithm, and so, on average, does finding the
//!    next.
//! 3. Most deadlines are relative to now, and most are taken back. So such a deadline is only
//!    noted, and all that were noted in a turn are counted from one reading of the clock.
//! 4. A deadline is *young* at first, in a list without order: under load most are taken back a
//!    turn or two later, and then have never been in the heap, whatever else is pending there. What
//!    has been noted stands at the end of the list, and stays in its place when it is counted. What
//!    has been counted goes to the heap when one of the counted deadlines may be due, when the run
//!    is about to wait and has to know the earliest, and when they become many.
//! 5. Stamps grow, and equal deadlines come in the order of their stamps. A deadline that was noted
//!    gets a new stamp when it is counted, and so comes behind those that were set before.

use std::time::Duration;

use trio_platform::Time;

const ARITY: usize = 4;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The cancel scope with this number is cancelled.
    Scope(u32),
    /// The wait with this number is over.
    Wait(u32),
}

/// The name of a deadline that has been set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

#[derive(Debug)]
pub(crate) struct Timers {
    heap: Vec<Node>,
    entries: Vec<Entry>,
    /// The first free entry, or `NONE`.
    free: u32,
    /// How many deadlines are set.
    live: usize,
    /// The last stamp that was given out.
    stamp: u64,
    /// The nodes that are not in the heap, dead ones included.
    young: Vec<Node>,
    /// How many of them, from the front, have been counted. The others have only been noted, and
    /// wait for the next reading of the clock.
    counted: usize,
    /// No counted one is earlier than this.
    young_from: Time,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The time since the clock began; if it is only noted, the time from the next reading.
    deadline: Time,
    stamp: u64,
    entry: u32,
}

#[derive(Debug)]
struct Entry {
    /// `FREE` if the entry is free.
    stamp: u64,
    target: Target,
    /// The next free entry, if this one is free.
    next: u32,
}

const NONE: u32 = u32::MAX;

/// The stamp of an entry without a deadline.
const FREE: u64 = 0;

/// This few dead nodes are not worth clearing up, and at most this many counted ones stay young.
const FEW: usize = 64;

/// The deadline of a node that is counted from `now`.
#[inline]
fn after(now: Time, noted: Time) -> Time {
    Time::from_nanos(now.as_nanos().saturating_add(noted.as_nanos()))
}

impl Node {
    fn before(&self, other: &Self) -> bool {
        (self.deadline, self.stamp) < (other.deadline, other.stamp)
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heap: Vec::new(),
            entries: Vec::new(),
            free: NONE,
            live: 0,
            stamp: FREE,
            young: Vec::new(),
            counted: 0,
            young_from: Time::NEVER,
        }
    }
}

impl Timers {
    pub(crate) fn set(&mut self, deadline: Time, target: Target) -> TimerKey {
        let (entry, stamp) = self.insert(target);
        self.admit(Node {
            deadline,
            stamp,
            entry,
        });
        TimerKey(entry)
    }

    /// Notes a deadline that comes this long after the next reading of the clock, which is passed
    /// to [`Timers::settle`].
    #[inline]
    pub(crate) fn set_after(&mut self, after: Duration, target: Target) -> TimerKey {
        let (entry, stamp) = self.insert(target);
        self.young.push(Node {
            deadline: Time::PAST + after,
            stamp,
            entry,
        });
        TimerKey(entry)
    }

    #[inline(always)]
    pub(crate) fn unset(&mut self, key: TimerKey) {
        let stamp = self.entries[key.0 as usize].stamp;
        debug_assert!(stamp != FREE, "a deadline is taken back once");
        self.remove(key.0);
        // If nothing is set, no turn would look at the dead ones in order to remove them.
        // Otherwise, what was set last is mostly taken back first, and then leaves nothing.
        if self.live == 0 {
            self.young.clear();
            self.counted = 0;
        } else if self.young.last().is_some_and(|last| last.stamp == stamp) {
            self.young.pop();
            self.counted = self.counted.min(self.young.len());
        }
    }

    /// Counts from `now` what has been noted, and calls back for each with its target.
    #[inline]
    pub(crate) fn settle(&mut self, now: Time, mut tell: impl FnMut(Target, Time)) {
        if self.counted == 0 {
            self.young_from = Time::NEVER;
        }
        for node in &mut self.young[self.counted..] {
            let entry = &mut self.entries[node.entry as usize];
            // The deadline of a dead node does not matter.
            if entry.stamp == node.stamp {
                self.stamp += 1;
                (entry.stamp, node.stamp) = (self.stamp, self.stamp);
                node.deadline = after(now, node.deadline);
                self.young_from = self.young_from.min(node.deadline);
                tell(entry.target, node.deadline);
            }
        }
        self.counted = self.young.len();
        if self.counted > FEW {
            self.make_room();
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The earliest deadline of those that have been counted.
    pub(crate) fn next(&mut self) -> Option<Time> {
        self.age();
        loop {
            let node = self.heap.first()?;
            if self.is_live(node) {
                return Some(node.deadline);
            }
            self.pop();
        }
    }

    /// The earliest deadline, including those that would be counted from `now`, which remain as
    /// they are.
    pub(crate) fn earliest(&mut self, now: Time) -> Option<Time> {
        let settled = self.next();
        let noted = self.young[self.counted..].iter();
        let noted = noted.filter(|node| self.is_live(node));
        let noted = noted.map(|node| after(now, node.deadline));
        noted.chain(settled).min()
    }

    /// Takes the earliest deadline if it is not after `now`.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Target> {
        if !self.is_any_due(now) {
            return None;
        }
        let due = self.heap.first().expect("what is due is at the top").entry;
        self.pop();
        Some(self.remove(due))
    }

    /// Whether a deadline has come by `now`, of those that have been counted.
    pub(crate) fn is_any_due(&mut self, now: Time) -> bool {
        if self.young_from <= now {
            self.age();
        }
        while let Some(node) = self.heap.first().filter(|node| node.deadline <= now) {
            if self.is_live(node) {
                return true;
            }
            self.pop();
        }
        false
    }

    // Entries.

    #[inline]
    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    #[inline]
    fn insert(&mut self, target: Target) -> (u32, u64) {
        let stamp = self.next_stamp();
        // `NONE` is beyond the end.
        if self.free as usize >= self.entries.len() {
            self.grow();
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        (entry.stamp, entry.target) = (stamp, target);
        self.live += 1;
        (index, stamp)
    }

    /// Adds a free entry at the end.
    #[cold]
    fn grow(&mut self) {
        let index = u32::try_from(self.entries.len());
        self.free = index.expect("fewer than four thousand million deadlines");
        self.entries.push(Entry {
            stamp: FREE,
            target: Target::Wait(NONE),
            next: NONE,
        });
    }

    #[inline]
    fn remove(&mut self, index: u32) -> Target {
        let entry = &mut self.entries[index as usize];
        entry.stamp = FREE;
        entry.next = std::mem::replace(&mut self.free, index);
        self.live -= 1;
        entry.target
    }

    fn is_live(&self, node: &Node) -> bool {
        self.entries[node.entry as usize].stamp == node.stamp
    }

    // The young ones.

    /// Adds a node that need not be counted.
    #[inline]
    fn admit(&mut self, node: Node) {
        if self.counted < self.young.len() {
            // Its place would be among the counted ones, in the middle of the list.
            return self.push(node);
        }
        if self.counted == FEW {
            self.make_room();
        }
        self.young_from = match self.young.is_empty() {
            true => node.deadline,
            false => self.young_from.min(node.deadline),
        };
        self.young.push(node);
        self.counted += 1;
    }

    /// Removes the dead nodes, when all have been counted; if many are alive, they are moved to the
    /// heap. So each node that is looked at here has either been removed, or was looked at less
    /// than twice.
    #[cold]
    fn make_room(&mut self) {
        let entries = &self.entries;
        self.young
            .retain(|node| entries[node.entry as usize].stamp == node.stamp);
        self.counted = self.young.len();
        if self.counted > FEW / 2 {
            self.age();
        }
    }

    /// Moves the young ones that have been counted to the heap.
    fn age(&mut self) {
        for place in 0..self.counted {
            let node = self.young[place];
            if self.is_live(&node) {
                self.push(node);
            }
        }
        self.young.drain(..self.counted);
        self.counted = 0;
        self.young_from = Time::NEVER;
    }

    // The heap.

    fn push(&mut self, node: Node) {
        if self.heap.len() > 2 * self.live + FEW {
            self.bury();
        }
        let place = self.heap.len();
        self.heap.push(node);
        self.rise(place, node);
    }

    /// Removes the node at the top.
    fn pop(&mut self) {
        let last = self.heap.pop().expect("there is a node at the top");
        if !self.heap.is_empty() {
            self.sink(0, last);
        }
    }

    /// Removes the dead nodes, and reorders the others from the lowest parent up.
    #[cold]
    fn bury(&mut self) {
        let entries = &self.entries;
        self.heap
            .retain(|node| entries[node.entry as usize].stamp == node.stamp);
        let parents = self.heap.len().saturating_sub(1).div_ceil(ARITY);
        for place in (0..parents).rev() {
            self.sink(place, self.heap[place]);
        }
    }

    /// Puts `node` at `place` or above it; later nodes make room.
    fn rise(&mut self, mut place: usize, node: Node) {
        while place > 0 {
            let above = (place - 1) / ARITY;
            let other = self.heap[above];
            if !node.before(&other) {
                break;
            }
            self.heap[place] = other;
            place = above;
        }
        self.heap[place] = node;
    }

    /// Puts `node` at `place` or below it; earlier nodes make room.
    fn sink(&mut self, mut place: usize, node: Node) {
        loop {
            let first = place * ARITY + 1;
            let end = (first + ARITY).min(self.heap.len());
            let Some(least) = (first..end).reduce(|least, other| {
                if self.heap[other].before(&self.heap[least]) {
                    other
                } else {
                    least
                }
            }) else {
                break;
            };
            let other = self.heap[least];
            if !other.before(&node) {
                break;
            }
            self.heap[place] = other;
            place = least;
        }
        self.heap[place] = node;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with a sorted list, over a fixed stream of pseudo-random steps.
    #[test]
    fn behaves_like_a_sorted_list() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let mut timers = Timers::default();
        let mut model: Vec<(Time, u32, TimerKey)> = Vec::new();
        let mut fresh: Vec<(Duration, u32, TimerKey)> = Vec::new();
        for step in 0..20_000_u32 {
            match random(6) {
                0 | 1 => {
                    let deadline = Time::from_nanos(random(1000));
                    model.push((deadline, step, timers.set(deadline, Target::Wait(step))));
                }
                2 => {
                    let after = Duration::from_nanos(random(1000));
                    fresh.push((after, step, timers.set_after(after, Target::Wait(step))));
                }
                3 if !model.is_empty() => {
                    let at = usize::try_from(random(model.len() as u64)).unwrap();
                    timers.unset(model.remove(at).2);
                }
                4 if !fresh.is_empty() => {
                    let at = usize::try_from(random(fresh.len() as u64)).unwrap();
                    timers.unset(fresh.remove(at).2);
                }
                5 => {
                    let now = Time::from_nanos(random(1000));
                    let mut told = Vec::new();
                    timers.settle(now, |target, deadline| told.push((target, deadline)));
                    let counted = fresh
                        .drain(..)
                        .map(|(after, set, key)| (now + after, set, key));
                    let before = model.len();
                    // What was counted comes behind what was set before, even at the same moment.
                    model.extend(counted.enumerate().map(|(nth, (deadline, set, key))| {
                        assert_eq!(told[nth], (Target::Wait(set), deadline));
                        (deadline, set, key)
                    }));
                    assert_eq!(told.len(), model.len() - before);
                }
                _ => {
                    let now = Time::from_nanos(random(1000));
                    let due = model.iter().filter(|(deadline, ..)| *deadline <= now);
                    // The first of equal ones, in the order in which they got here.
                    let first = due.min_by_key(|(deadline, ..)| *deadline).copied();
                    assert_eq!(
                        timers.expire(now),
                        first.map(|(_, step, _)| Target::Wait(step))
                    );
                    model.retain(|(_, step, _)| Some(*step) != first.map(|first| first.1));
                }
            }
            let earliest = model.iter().map(|(deadline, ..)| *deadline).min();
            assert_eq!(timers.next(), earliest);
            let now = Time::from_nanos(500);
            let counted = fresh.iter().map(|(after, ..)| now + *after);
            assert_eq!(timers.earliest(now), counted.chain(earliest).min());
        }
    }

    #[test]
    fn what_was_noted_and_taken_back_leaves_nothing_though_nobody_settles() {
        let mut timers = Timers::default();
        for n in 0..1_000 {
            // Like two that race and are dropped in the turn in which they began: the first goes
            // first.
            let both =
                [n, n + 1].map(|n| timers.set_after(Duration::from_secs(1), Target::Wait(n)));
            both.into_iter().for_each(|key| timers.unset(key));
            assert!(timers.is_empty(), "so that no turn reads the clock");
        }
        assert!(timers.young.len() <= FEW);
    }

    #[test]
    fn what_was_taken_back_is_forgotten_by_and_by() {
        let mut timers = Timers::default();
        let soon = |n: u32| Time::from_nanos(u64::from(n) + 1_000_000);
        let kept: Vec<u32> = (0..10).map(|n| n * 7919 % 10).collect();
        for n in &kept {
            timers.set(soon(*n), Target::Wait(*n));
        }
        for n in 0..10_000 {
            // Alternately before and behind those that are kept.
            let deadline = Time::from_nanos(u64::from(n % 2) * 2_000_000 + u64::from(n));
            let key = timers.set(deadline, Target::Scope(n));
            timers.unset(key);
            assert!(timers.heap.len() <= 2 * (kept.len() + 1) + FEW + 1);
        }
        assert_eq!(timers.next(), Some(soon(0)));
        for n in 0..10 {
            assert_eq!(timers.expire(Time::NEVER), Some(Target::Wait(n)));
        }
        assert_eq!(timers.expire(Time::NEVER), None);
        assert!(timers.is_empty() && timers.entries.len() == kept.len() + 1);
    }
}

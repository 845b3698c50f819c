//! Deadlines in order: a four-ary heap whose entries know their place, so that one that is taken
//! back leaves at once.
//!
//! Setting, moving and taking back cost a logarithm at worst. Deadlines mostly grow, so setting one
//! is mostly an append, and taking back one that was set late mostly touches the end.
//!
//! Most deadlines are so long after now, and most are taken back. So one of that kind is only noted,
//! for all that were set in a turn to be counted from one reading of the clock, and to come to the
//! heap if they are still wanted then.

use std::time::Duration;

use slab::Slab;
use trio_platform::Time;

const ARITY: usize = 4;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The cancel scope of that number is cancelled.
    Scope(u32),
    /// The wait of that number is over.
    Wait(u32),
}

/// Names a deadline that has been set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<Node>,
    /// Of each deadline its place in the heap.
    entries: Slab<Entry>,
    /// Of the next deadline: equal ones come in the order in which they were set.
    sequence: u64,
    /// What is to be counted from the next reading of the clock.
    fresh: Vec<Fresh>,
}

#[derive(Clone, Copy, Debug)]
struct Fresh {
    after: Duration,
    /// `NONE` if it has been taken back.
    entry: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: Time,
    sequence: u64,
    entry: u32,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    target: Target,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Heap(u32),
    Fresh(u32),
}

const NONE: u32 = u32::MAX;

impl Node {
    fn before(&self, other: &Self) -> bool {
        (self.deadline, self.sequence) < (other.deadline, other.sequence)
    }
}

impl Timers {
    pub(crate) fn set(&mut self, deadline: Time, target: Target) -> TimerKey {
        let entry = index(self.entries.insert(Entry {
            place: Place::Heap(NONE),
            target,
        }));
        self.push(deadline, entry);
        TimerKey(entry)
    }

    /// A deadline so long after the next reading of the clock, which is given to
    /// [`Timers::settle`].
    #[inline]
    pub(crate) fn set_after(&mut self, after: Duration, target: Target) -> TimerKey {
        let place = Place::Fresh(index(self.fresh.len()));
        let entry = index(self.entries.insert(Entry { place, target }));
        self.fresh.push(Fresh { after, entry });
        TimerKey(entry)
    }

    #[inline]
    pub(crate) fn unset(&mut self, key: TimerKey) {
        match self.entries.remove(key.0 as usize).place {
            Place::Heap(place) => self.remove_at(place as usize),
            Place::Fresh(place) => self.fresh[place as usize].entry = NONE,
        }
    }

    /// Counts what was set since the last time from `now`, and tells of each what it is for.
    pub(crate) fn settle(&mut self, now: Time, mut tell: impl FnMut(Target, Time)) {
        for place in 0..self.fresh.len() {
            let Fresh { after, entry } = self.fresh[place];
            if entry != NONE {
                let deadline = now + after;
                self.push(deadline, entry);
                tell(self.entries[entry as usize].target, deadline);
            }
        }
        self.fresh.clear();
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty() && self.fresh.is_empty()
    }

    /// The earliest deadline, of those that have been settled.
    #[inline]
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.first().map(|node| node.deadline)
    }

    /// The earliest deadline, with those that would be counted from `now`, which stay as they are.
    pub(crate) fn earliest(&self, now: Time) -> Option<Time> {
        let wanted = self.fresh.iter().filter(|fresh| fresh.entry != NONE);
        let counted = wanted.map(|fresh| now + fresh.after);
        counted.chain(self.next()).min()
    }

    /// Takes the earliest deadline if it is not after `now`.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Target> {
        let node = *self.heap.first()?;
        if node.deadline > now {
            return None;
        }
        let entry = self.entries.remove(node.entry as usize);
        self.remove_at(0);
        Some(entry.target)
    }

    fn push(&mut self, deadline: Time, entry: u32) {
        self.sequence += 1;
        let node = Node {
            deadline,
            sequence: self.sequence,
            entry,
        };
        let place = self.heap.len();
        self.heap.push(node);
        self.rise(place, node);
    }

    fn remove_at(&mut self, place: usize) {
        let last = self.heap.pop().expect("what is removed is in the heap");
        if place < self.heap.len() {
            let first = self.sink(place, last);
            self.rise(first, last);
        }
    }

    /// Puts `node` at `place`, and notes it there.
    #[inline]
    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.entries[node.entry as usize].place = Place::Heap(index(place));
    }

    /// Puts `node` at `place` or above, where what is later makes room.
    fn rise(&mut self, mut place: usize, node: Node) {
        while place > 0 {
            let above = (place - 1) / ARITY;
            let other = self.heap[above];
            if !node.before(&other) {
                break;
            }
            self.put(place, other);
            place = above;
        }
        self.put(place, node);
    }

    /// Where below `place` there is room for `node`, when what is earlier has moved up.
    fn sink(&mut self, mut place: usize, node: Node) -> usize {
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
                return place;
            };
            let other = self.heap[least];
            if !other.before(&node) {
                return place;
            }
            self.put(place, other);
            place = least;
        }
    }
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than four thousand million deadlines")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a sorted list, with a fixed stream of pseudo-random steps.
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
                    // What was counted comes behind what was set before, at the same moment too.
                    model.extend(counted.enumerate().map(|(nth, (deadline, set, key))| {
                        assert_eq!(told[nth], (Target::Wait(set), deadline));
                        (deadline, set, key)
                    }));
                    assert_eq!(told.len(), model.len() - before);
                }
                _ => {
                    let now = Time::from_nanos(random(1000));
                    let due = model.iter().filter(|(deadline, ..)| *deadline <= now);
                    // The first of equal ones, in the order in which they came here.
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
}

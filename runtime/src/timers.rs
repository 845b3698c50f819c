//! Deadlines in order: a four-ary heap whose entries know their place, so that one that is taken
//! back leaves at once.
//!
//! Setting, moving and taking back cost a logarithm at worst. Deadlines mostly grow, so setting one
//! is mostly an append, and taking back one that was set late mostly touches the end.

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
}

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: Time,
    sequence: u64,
    entry: u32,
}

#[derive(Debug)]
struct Entry {
    place: u32,
    target: Target,
}

impl Node {
    fn before(&self, other: &Self) -> bool {
        (self.deadline, self.sequence) < (other.deadline, other.sequence)
    }
}

impl Timers {
    pub(crate) fn set(&mut self, deadline: Time, target: Target) -> TimerKey {
        let place = self.heap.len();
        let entry = self.entries.insert(Entry {
            place: index(place),
            target,
        });
        self.sequence += 1;
        self.heap.push(Node {
            deadline,
            sequence: self.sequence,
            entry: index(entry),
        });
        self.rise(place);
        TimerKey(index(entry))
    }

    pub(crate) fn unset(&mut self, key: TimerKey) {
        let entry = self.entries.remove(key.0 as usize);
        self.remove_at(entry.place as usize);
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.first().map(|node| node.deadline)
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

    fn remove_at(&mut self, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
            self.rise(place);
            self.sink(place);
        }
    }

    /// Notes where the node at `place` now is.
    fn settle(&mut self, place: usize) {
        let entry = self.heap[place].entry as usize;
        self.entries[entry].place = index(place);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / ARITY;
            if !self.heap[place].before(&self.heap[above]) {
                return;
            }
            self.heap.swap(place, above);
            self.settle(place);
            self.settle(above);
            place = above;
        }
    }

    fn sink(&mut self, mut place: usize) {
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
                return;
            };
            if !self.heap[least].before(&self.heap[place]) {
                return;
            }
            self.heap.swap(place, least);
            self.settle(place);
            self.settle(least);
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
        for step in 0..20_000_u32 {
            match random(4) {
                0 | 1 => {
                    let deadline = Time::from_nanos(random(1000));
                    model.push((deadline, step, timers.set(deadline, Target::Wait(step))));
                }
                2 if !model.is_empty() => {
                    let at = usize::try_from(random(model.len() as u64)).unwrap();
                    timers.unset(model.remove(at).2);
                }
                _ => {
                    let now = Time::from_nanos(random(1000));
                    let due = model.iter().filter(|(deadline, ..)| *deadline <= now);
                    let first = due
                        .min_by_key(|(deadline, step, _)| (*deadline, *step))
                        .copied();
                    assert_eq!(
                        timers.expire(now),
                        first.map(|(_, step, _)| Target::Wait(step))
                    );
                    model.retain(|(_, step, _)| Some(*step) != first.map(|first| first.1));
                }
            }
            assert_eq!(
                timers.next(),
                model.iter().map(|(deadline, ..)| *deadline).min()
            );
        }
    }
}

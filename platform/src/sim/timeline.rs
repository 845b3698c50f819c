//! What is to happen, in the order of its time, and by chance among what happens at one time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::random::Random;
use crate::Time;

/// Events to come.
#[derive(Debug)]
pub(super) struct Timeline<E> {
    /// The earliest on top.
    events: BinaryHeap<Entry<E>>,
    /// Ends every tie, so that the order never depends on the heap.
    sequence: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Time,
    rank: u64,
    sequence: u64,
    event: E,
}

impl<E> Timeline<E> {
    pub(super) fn new() -> Self {
        Self {
            events: BinaryHeap::new(),
            sequence: 0,
        }
    }

    pub(super) fn push(&mut self, at: Time, event: E, random: &mut Random) {
        self.sequence += 1;
        self.events.push(Entry {
            at,
            rank: random.next(),
            sequence: self.sequence,
            event,
        });
    }

    /// When the next event happens.
    pub(super) fn next(&self) -> Option<Time> {
        self.events.peek().map(|entry| entry.at)
    }

    /// The next event, if it happens at `now` or earlier.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<E> {
        if self.next()? > now {
            return None;
        }
        self.events.pop().map(|entry| entry.event)
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed, because the heap keeps the greatest on top.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| (entry.at, entry.rank, entry.sequence);
        key(other).cmp(&key(self))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_and_not_before_it() {
        let mut random = Random::new(5);
        let mut timeline = Timeline::new();
        for nanos in [30, 10, 20] {
            timeline.push(Time::from_nanos(nanos), nanos, &mut random);
        }
        assert_eq!(timeline.next(), Some(Time::from_nanos(10)));
        assert_eq!(timeline.pop_due(Time::from_nanos(9)), None);
        assert_eq!(timeline.pop_due(Time::from_nanos(20)), Some(10));
        assert_eq!(timeline.pop_due(Time::from_nanos(20)), Some(20));
        assert_eq!(timeline.pop_due(Time::from_nanos(20)), None);
    }
}

//! One direction of a simulated connection: what is under way, and what has arrived.

use std::collections::VecDeque;

use crate::Time;

/// One direction of a connection, kept by the end that receives.
///
/// Things arrive in the order in which they were sent, each at its time. `free` of the sender and
/// `arrived` of the receiver are two views of one bounded buffer.
#[derive(Debug)]
pub(super) struct Pipe {
    capacity: usize,
    under_way: VecDeque<(Time, Segment)>,
    arrived: VecDeque<u8>,
    /// Bytes under way and arrived; at most `capacity`.
    held: usize,
    /// Nothing sent later arrives earlier than this.
    latest: Time,
}

/// What travels.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// At least one byte.
    Bytes(Vec<u8>),
    /// The sender has finished (FIN).
    End,
    /// The connection is no more (RST).
    Reset,
}

impl Pipe {
    /// An empty pipe through which nothing comes before `earliest`.
    pub(super) fn new(capacity: usize, earliest: Time) -> Self {
        Self {
            capacity,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            held: 0,
            latest: earliest,
        }
    }

    /// How many bytes the sender may send.
    pub(super) fn free(&self) -> usize {
        self.capacity - self.held
    }

    /// Bytes that the receiver has not taken, arrived or not.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Bytes that the receiver may take.
    pub(super) fn arrived(&self) -> usize {
        self.arrived.len()
    }

    /// Sends `segment`, to arrive at `at` or as soon afterwards as the order allows. Returns when
    /// it arrives.
    pub(super) fn push(&mut self, at: Time, segment: Segment) -> Time {
        if let Segment::Bytes(bytes) = &segment {
            assert!(bytes.len() <= self.free(), "a sender sends what fits");
            self.held += bytes.len();
        }
        self.latest = self.latest.max(at);
        self.under_way.push_back((self.latest, segment));
        self.latest
    }

    /// The next thing that has arrived by `now`. Bytes are kept for [`Pipe::take`].
    pub(super) fn arrive(&mut self, now: Time) -> Option<Arrival> {
        if self.under_way.front()?.0 > now {
            return None;
        }
        let (_, segment) = self.under_way.pop_front()?;
        Some(match segment {
            Segment::Bytes(bytes) => {
                self.arrived.extend(bytes);
                Arrival::Bytes
            }
            Segment::End => Arrival::End,
            Segment::Reset => Arrival::Reset,
        })
    }

    /// Moves arrived bytes into `into`, and returns how many.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.arrived.len());
        let (front, back) = self.arrived.as_slices();
        let first = count.min(front.len());
        into[..first].copy_from_slice(&front[..first]);
        into[first..count].copy_from_slice(&back[..count - first]);
        self.arrived.drain(..count);
        self.held -= count;
        count
    }

    /// Loses everything that is under way.
    pub(super) fn lose(&mut self) {
        self.under_way.clear();
        self.held = self.arrived.len();
    }
}

/// What has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Bytes,
    End,
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_arrive_in_the_order_in_which_they_were_sent() {
        let mut pipe = Pipe::new(10, Time::PAST);
        let late = pipe.push(Time::from_nanos(20), Segment::Bytes(b"abc".to_vec()));
        let held_up = pipe.push(Time::from_nanos(10), Segment::End);
        assert_eq!(
            (late, held_up),
            (Time::from_nanos(20), Time::from_nanos(20))
        );
        assert_eq!(pipe.arrive(Time::from_nanos(19)), None);
        assert_eq!(pipe.arrive(Time::from_nanos(20)), Some(Arrival::Bytes));
        assert_eq!(pipe.arrive(Time::from_nanos(20)), Some(Arrival::End));
    }

    #[test]
    fn room_is_taken_by_sending_and_given_back_by_receiving() {
        let mut pipe = Pipe::new(4, Time::PAST);
        pipe.push(Time::PAST, Segment::Bytes(b"abcd".to_vec()));
        assert_eq!(pipe.free(), 0);
        assert_eq!(pipe.arrived(), 0);
        pipe.arrive(Time::PAST);
        let mut into = [0; 3];
        assert_eq!(pipe.take(&mut into), 3);
        assert_eq!((&into, pipe.free()), (b"abc", 3));
    }
}

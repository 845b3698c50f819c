//! The operations of one driver, from submission to the end; the rules are in `op/mod.rs`.
//!
//! The table keeps the life of an operation. What starts one, asks for its cancel and learns of its
//! end is the driver's.

use std::io;

use slab::Slab;

use super::{Finished, Operation, is_cancelled};
use crate::driver::{Completed, DriverStatistics, Key, Token};

/// Every operation that has been submitted and not been taken.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Slab<Entry>,
    /// Of the next entry. Wraps after four thousand million operations, by when the last user of a
    /// number is long gone.
    generation: u32,
    in_flight: usize,
    pub(crate) statistics: DriverStatistics,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    token: Token,
    state: State,
    /// Whether a cancel has been asked for; asked for once at most.
    cancelling: bool,
    operation: Operation,
    result: io::Result<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    Abandoned,
    Done,
}

/// What [`Table::abandon`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abandon {
    /// Still in flight: the driver is to cancel it, unless that was asked before.
    InFlight {
        /// Whether the cancel has still to be asked for.
        cancel: bool,
    },
    /// It had ended, and has been settled.
    Settled,
}

impl Table {
    /// Takes an operation in. From here on the table owns what the kernel may touch.
    pub(crate) fn insert(&mut self, operation: Operation, token: Token) -> Key {
        operation.poison();
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let result = Ok(0);
        let state = State::InFlight;
        let entry = Entry {
            generation,
            token,
            state,
            cancelling: false,
            operation,
            result,
        };
        let index = self.entries.insert(entry);
        assert!(
            index < 1 << 31,
            "the upper half of the indices is the drivers' own"
        );
        self.in_flight += 1;
        self.statistics.submitted += 1;
        Key(u64::from(generation) << 32 | index as u64)
    }

    fn index(&self, key: Key) -> Option<usize> {
        let index = (key.0 & 0xffff_ffff) as usize;
        let entry = self.entries.get(index)?;
        (u64::from(entry.generation) == key.0 >> 32).then_some(index)
    }

    /// Operations whose last completion has not come.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The operation, if it is in flight. Whoever touches its memory lifts the poison meanwhile.
    pub(crate) fn in_flight_mut(&mut self, key: Key) -> Option<&mut Operation> {
        let index = self.index(key)?;
        let entry = &mut self.entries[index];
        (entry.state != State::Done).then_some(&mut entry.operation)
    }

    /// The keys of all operations in flight, in no order.
    pub(crate) fn keys_in_flight(&self) -> Vec<Key> {
        let live = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.state != State::Done);
        live.map(|(index, entry)| Key(u64::from(entry.generation) << 32 | index as u64))
            .collect()
    }

    /// Notes that a cancel is asked for; `false` if it was before, or if the operation has ended.
    pub(crate) fn begin_cancel(&mut self, key: Key) -> bool {
        let Some(index) = self.index(key) else {
            return false;
        };
        let entry = &mut self.entries[index];
        if entry.state == State::Done || entry.cancelling {
            return false;
        }
        entry.cancelling = true;
        true
    }

    /// Whether a cancel of the operation has been asked for.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_cancelling(&self, key: Key) -> bool {
        self.index(key)
            .is_some_and(|index| self.entries[index].cancelling)
    }

    /// The last completion of an operation: from here on the kernel does not touch its memory.
    /// Returns what to report. An abandoned operation is settled and freed.
    pub(crate) fn complete(&mut self, key: Key, result: io::Result<u32>) -> Completed {
        let index = self
            .index(key)
            .expect("only an operation in flight completes");
        let entry = &mut self.entries[index];
        assert!(entry.state != State::Done, "an operation completes once");
        entry.operation.unpoison();
        self.in_flight -= 1;
        self.statistics.completed += 1;
        if result.as_ref().is_err_and(is_cancelled) {
            self.statistics.cancelled += 1;
        }
        let token = entry.token;
        if entry.state == State::Abandoned {
            let entry = self.entries.remove(index);
            if let Some(direction) = entry.operation.direction() {
                entry.operation.descriptor().remove_orphan(direction);
            }
            Finished {
                operation: entry.operation,
                result,
            }
            .settle();
            return Completed {
                token,
                orphan: true,
            };
        }
        entry.state = State::Done;
        entry.result = result;
        Completed {
            token,
            orphan: false,
        }
    }

    /// Takes an operation that has ended; `None` while it is in flight, or if the key is old.
    pub(crate) fn take(&mut self, key: Key) -> Option<Finished> {
        let index = self.index(key)?;
        if self.entries[index].state != State::Done {
            return None;
        }
        let entry = self.entries.remove(index);
        Some(Finished {
            operation: entry.operation,
            result: entry.result,
        })
    }

    /// Gives up an operation on behalf of its submitter.
    pub(crate) fn abandon(&mut self, key: Key) -> Abandon {
        let Some(index) = self.index(key) else {
            return Abandon::Settled;
        };
        let entry = &mut self.entries[index];
        assert!(
            entry.state != State::Abandoned,
            "an operation is abandoned once"
        );
        if entry.state == State::Done {
            let entry = self.entries.remove(index);
            Finished {
                operation: entry.operation,
                result: entry.result,
            }
            .settle();
            return Abandon::Settled;
        }
        entry.state = State::Abandoned;
        if let Some(direction) = entry.operation.direction() {
            entry.operation.descriptor().add_orphan(direction);
        }
        let cancel = !entry.cancelling;
        entry.cancelling = true;
        Abandon::InFlight { cancel }
    }

    /// Leaks every operation in flight, because the kernel may still touch its memory, and returns
    /// how many there were.
    #[allow(clippy::mem_forget)] // the kernel still owns it
    pub(crate) fn leak(&mut self) -> usize {
        let keys = self.keys_in_flight();
        for key in &keys {
            let index = (key.0 & 0xffff_ffff) as usize;
            std::mem::forget(self.entries.remove(index));
        }
        self.in_flight = 0;
        keys.len()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::fd::Descriptor;
    use crate::op::{Interest, Ready};

    #[test]
    fn generations_that_begin_again_leave_old_keys_unknown() {
        let (socket, _other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let on = Descriptor::from_socket(socket).unwrap();
        let mut table = Table {
            generation: u32::MAX - 2,
            ..Table::default()
        };
        let mut old: Vec<Key> = Vec::new();
        for number in 0..5 {
            let operation = Ready::new(on.clone(), Interest::Readable);
            let key = table.insert(operation.into(), Token(number));
            for old in &old {
                assert_ne!(*old, key);
                assert!(table.in_flight_mut(*old).is_none());
                assert!(!table.begin_cancel(*old));
                assert!(table.take(*old).is_none());
                assert_eq!(table.abandon(*old), Abandon::Settled);
            }
            assert_eq!(table.keys_in_flight(), [key]);
            assert_eq!(table.complete(key, Ok(0)).token, Token(number));
            assert!(table.take(key).is_some());
            old.push(key);
        }
        assert_eq!(table.generation, 2, "it has begun again");
    }
}

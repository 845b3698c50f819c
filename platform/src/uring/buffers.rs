//! The blocks that the kernel chooses from when there is something to receive.
//!
//! A receive that waits holds no block: it names a group, and the kernel takes a block of the group
//! when bytes have come. So a thousand idle connections need no more memory than one.
//!
//! | A block is   | Who may touch it | It goes on to                               |
//! |--------------|------------------|---------------------------------------------|
//! | provided (1) | the kernel       | lent, by a completion that names it         |
//! | lent (2)     | the holder       | provided, when its [`Lease`] is dropped     |
//!
//! 1. A provided block has its number in the *ring of entries*, a page shared with the kernel. The
//!    driver writes entries at the tail and publishes the tail; the kernel takes them at the head and
//!    reports only those whose blocks it has filled. There are as many entries as blocks, so the ring
//!    is never full.
//! 2. A block is lent once at a time. A completion that names a lent block would be an error of the
//!    kernel; it causes a panic here, rather than two owners of one block.
//! 3. The memory lives as long as anybody holds it: the driver, or a lease that outlives the driver.
//!    When the driver has gone, giving a block back writes an entry that nobody reads.
//!
//! The kernel takes blocks in the order in which they were provided, and would go through all of
//! them before it came back to one that is still in the cache. So only a *window* of them is provided
//! at a time. Blocks that are given back beyond that stay here, the last one on top, and the window is
//! widened when the kernel has found no block (`ENOBUFS`). A short message touches only the first lines
//! of its block, so the blocks are placed such that their first lines do not compete for the same
//! places in the cache ([`STRIDE`]).

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::buf::{Home, Lease, poison};

/// The number of the group of all provided blocks.
pub(crate) const GROUP: u16 = 0;

/// The size of a block in bytes.
pub(crate) const BLOCK_SIZE: u32 = 16 * 1024;

/// A cache line: entries and blocks share none.
const LINE: usize = 64;

/// The distance from one block to the next: a line more than a block. The caches of processors choose the
/// place of a line by the lower bits of its address, which would otherwise be the same for all blocks.
const STRIDE: usize = BLOCK_SIZE as usize + LINE;

/// How many blocks are provided at a time to begin with: 512 KiB. In time the first page of each is touched,
/// and more blocks have shown no advantage (decision 11).
const WINDOW: u16 = 32;

/// The blocks of one ring, and the ring of entries that provides them.
#[derive(Debug)]
pub(super) struct Blocks {
    /// One mapping: the ring of entries, then the blocks.
    map: NonNull<u8>,
    map_length: usize,
    first: NonNull<u8>,
    count: u16,
    /// Where the next entry goes, before the mask is applied.
    tail: Cell<u16>,
    lent: Box<[Cell<bool>]>,
    /// Blocks that are provided, as far as completions have told.
    provided: Cell<u16>,
    /// How many are to be.
    window: Cell<u16>,
    /// Blocks that are neither provided nor lent, the one used last on top.
    spare: RefCell<Vec<u16>>,
}

impl Blocks {
    /// Maps `count` blocks and writes their entries. The memory of a block is not taken from the
    /// system before the kernel first fills it.
    ///
    /// # Panics
    ///
    /// If `count` is not a power of two, as the kernel wants it.
    pub(super) fn new(count: u16) -> io::Result<Rc<Self>> {
        assert!(
            count.is_power_of_two(),
            "a ring of entries is a power of two"
        );
        let entries_length =
            (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(LINE);
        let map_length = entries_length + usize::from(count) * STRIDE;
        // SAFETY: an anonymous mapping at an address of the system's choice touches no memory that
        // is in use.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).expect("no mapping lies at address zero");
        // SAFETY: `entries_length` is less than the length of the mapping, which is one object, and shorter
        // than `isize::MAX`, as every object is that the system gives.
        let first = unsafe { map.add(entries_length) };
        let blocks = Self {
            map,
            map_length,
            first,
            count,
            tail: Cell::new(0),
            lent: vec![Cell::new(false); usize::from(count)].into(),
            provided: Cell::new(0),
            window: Cell::new(WINDOW.min(count)),
            spare: RefCell::new((0..count).rev().collect()),
        };
        for id in 0..count {
            poison::set(blocks.block(id).as_ptr(), BLOCK_SIZE as usize);
        }
        blocks.top_up();
        Ok(Rc::new(blocks))
    }

    /// The address of the ring of entries, for the registration.
    pub(super) fn entries_address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// How many blocks are in leases, as far as completions have told.
    pub(super) fn lent(&self) -> usize {
        self.lent.iter().filter(|lent| lent.get()).count()
    }

    /// Whether every block is in somebody's hands.
    pub(super) fn is_exhausted(&self) -> bool {
        self.provided.get() == 0
    }

    /// The kernel has found no block: more are provided from now on, as far as there are more.
    #[cold]
    pub(super) fn widen(&self) {
        let wider = self.window.get().saturating_mul(2);
        self.window.set(wider.min(self.count));
        self.top_up();
    }

    /// Provides as many blocks as there are to be.
    fn top_up(&self) {
        while self.provided.get() < self.window.get() {
            let Some(id) = self.spare.borrow_mut().pop() else {
                return;
            };
            self.provide(id);
        }
    }

    /// The block that a completion has named.
    pub(super) fn lend(self: &Rc<Self>, id: u16) -> Lease {
        let before = self.lent[usize::from(id)].replace(true);
        assert!(!before, "a block is lent once at a time");
        self.provided.set(self.provided.get() - 1);
        self.top_up();
        let home: Rc<dyn Home> = self.clone();
        // SAFETY: the block has `BLOCK_SIZE` bytes, initialised for the mapping began as zeroes.
        // The kernel has taken its entry and has posted the completion that names it, so it is
        // through with it (rule 1); no other lease has it (rule 2), and none gets it before
        // `give_back` provides it again. The mapping lives as long as `home` (rule 3).
        unsafe { Lease::new(self.block(id), home) }
    }

    fn block(&self, id: u16) -> NonNull<u8> {
        assert!(id < self.count, "the kernel names blocks that it was given");
        // SAFETY: block `id` comes `id` strides after the first, and `id` is less than `count`, of which
        // the same mapping holds so many.
        unsafe { self.first.add(usize::from(id) * STRIDE) }
    }

    /// Gives a block to the kernel.
    fn provide(&self, id: u16) {
        let address = self.block(id).as_ptr() as u64;
        let tail = self.tail.get();
        let place = usize::from(tail & (self.count - 1));
        let entries: NonNull<BufRingEntry> = self.map.cast();
        // SAFETY: `place` is less than `count`, and the mapping begins with as many entries.
        let mut entry = unsafe { entries.add(place) };
        {
            // SAFETY: the entry is aligned, for the mapping is, and initialised with zeroes. No
            // other reference to it exists, for this one ends with the block. The kernel does not
            // read this place: it lies at the tail, and the entry that was there before has been
            // taken, or else `count` other blocks would be provided besides this one. Of entry
            // zero the kernel reads the tail, which stands in a field that is not written here.
            let entry = unsafe { entry.as_mut() };
            entry.set_addr(address);
            entry.set_len(BLOCK_SIZE);
            entry.set_bid(id);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.provided.set(self.provided.get() + 1);
        // SAFETY: the mapping begins with entry zero, which is initialised.
        let published = unsafe { BufRingEntry::tail(entries.as_ptr()) };
        // SAFETY: the tail lies in the mapping, which is writable, aligned for a `u16`, and lives
        // longer than this reference. Everyone who touches it while it is shared, the kernel and
        // this line, does so atomically.
        let published = unsafe { AtomicU16::from_ptr(published.cast_mut()) };
        // Release: the kernel that sees the tail sees the entry.
        published.store(tail, Ordering::Release);
    }
}

// SAFETY: `give_back` hands the block to the kernel and keeps no reference to it; it happens once a
// lease, which `lent` asserts. The capacity is a constant, and no more than a stride.
unsafe impl Home for Blocks {
    #[inline]
    fn capacity(&self) -> u32 {
        BLOCK_SIZE
    }

    fn give_back(&self, block: NonNull<u8>) {
        let offset = block.addr().get() - self.first.addr().get();
        let id = u16::try_from(offset / STRIDE).expect("`lend` makes its leases of these blocks");
        let before = self.lent[usize::from(id)].replace(false);
        assert!(before, "a block is given back once");
        self.spare.borrow_mut().push(id);
        self.top_up();
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // What is mapped at these addresses next must not inherit the poison.
        poison::lift(self.map.as_ptr(), self.map_length);
        // SAFETY: the mapping is ours and whole, no lease is left for each would hold `self`, and
        // the kernel has let go of it: the driver ends the registration when nothing is in flight,
        // and keeps a reference for ever if it cannot reach that.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_when_its_lease_is_dropped() {
        let blocks = Blocks::new(2).unwrap();
        let first = blocks.lend(0);
        assert!(!blocks.is_exhausted());
        let second = blocks.lend(1);
        assert!(blocks.is_exhausted());
        drop(first);
        assert!(!blocks.is_exhausted());
        assert_eq!(blocks.tail.get(), 3);
        drop(second);
        assert_eq!(blocks.tail.get(), 4);
    }

    #[test]
    fn the_block_used_last_is_provided_first_once_the_window_is_full() {
        let blocks = Blocks::new(2 * WINDOW).unwrap();
        assert_eq!(blocks.provided.get(), WINDOW);
        let lent: Vec<_> = (0..3).map(|id| blocks.lend(id)).collect();
        assert_eq!(blocks.provided.get(), WINDOW, "spare ones took their place");
        drop(lent);
        assert_eq!(blocks.spare.borrow().last(), Some(&2));
        assert_eq!(blocks.provided.get(), WINDOW);
        blocks.widen();
        blocks.widen();
        assert_eq!(blocks.provided.get(), 2 * WINDOW);
        assert!(blocks.spare.borrow().is_empty());
    }

    #[test]
    fn a_lease_outlives_the_ring_it_came_from() {
        let blocks = Blocks::new(1).unwrap();
        let mut lease = blocks.lend(0);
        drop(blocks);
        lease.extend(b"still here");
        assert_eq!(&*lease, b"still here");
    }

    #[test]
    #[should_panic(expected = "a block is lent once at a time")]
    fn a_block_named_twice_is_not_given_to_two_owners() {
        let blocks = Blocks::new(1).unwrap();
        let _first = blocks.lend(0);
        let _second = blocks.lend(0);
    }

    #[test]
    fn blocks_do_not_overlap() {
        let blocks = Blocks::new(4).unwrap();
        let mut leases: Vec<_> = (0..4).map(|id| blocks.lend(id)).collect();
        for (lease, byte) in leases.iter_mut().zip(1..) {
            lease.block_mut().fill(byte);
        }
        for (lease, byte) in leases.iter_mut().zip(1..) {
            assert!(lease.block_mut().iter().all(|&found| found == byte));
        }
    }
}

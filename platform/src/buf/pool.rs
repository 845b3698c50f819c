//! A pool of equal blocks on the heap, last in, first out, so that the block handed out next is the
//! one most likely still in the cache.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use super::{Home, Lease, poison};

/// A pool of equal blocks; clones share it.
#[derive(Clone)]
pub struct Pool(Rc<Blocks>);

struct Blocks {
    size: u32,
    spare_max: usize,
    spare: RefCell<Vec<NonNull<u8>>>,
    leased: Cell<usize>,
}

impl Pool {
    /// A pool of blocks of `size` bytes that keeps at most `spare_max` unused ones.
    ///
    /// # Panics
    ///
    /// If `size` is zero.
    pub fn new(size: u32, spare_max: usize) -> Self {
        assert!(size > 0, "a block needs room");
        let spare = RefCell::new(Vec::new());
        Self(Rc::new(Blocks {
            size,
            spare_max,
            spare,
            leased: Cell::new(0),
        }))
    }

    /// An empty block: a spare one if there is, else a new one. Never waits.
    #[inline]
    pub fn lease(&self) -> Lease {
        let spare = self.0.spare.borrow_mut().pop();
        let block = spare.unwrap_or_else(|| fresh(self.0.size));
        self.0.leased.set(self.0.leased.get() + 1);
        let home: Rc<dyn Home> = self.0.clone();
        // SAFETY: the block is one of `size` initialised bytes that this pool has allocated and
        // that no lease holds, for it was in `spare` or is new.
        unsafe { Lease::new(block, home) }
    }

    /// The size of a block in bytes.
    pub fn block_size(&self) -> usize {
        self.0.size as usize
    }

    /// Blocks that are in somebody's hands.
    pub fn leased(&self) -> usize {
        self.0.leased.get()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("block_size", &self.0.size)
            .field("leased", &self.0.leased.get())
            .field("spare", &self.0.spare.borrow().len())
            .finish()
    }
}

// SAFETY: `give_back` keeps the block, or frees it; both happen once a lease, and no lease of the
// block is left then. The size is not written after the pool has been made.
unsafe impl Home for Blocks {
    #[inline]
    fn capacity(&self) -> u32 {
        self.size
    }

    fn give_back(&self, block: NonNull<u8>) {
        self.leased.set(self.leased.get() - 1);
        let mut spare = self.spare.borrow_mut();
        if spare.len() < self.spare_max {
            spare.push(block);
        } else {
            free(block, self.size);
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for block in self.spare.get_mut().drain(..) {
            free(block, self.size);
        }
    }
}

/// A new block of zeroes.
#[cold]
fn fresh(size: u32) -> NonNull<u8> {
    let block: Box<[u8]> = vec![0; size as usize].into_boxed_slice();
    NonNull::from(Box::leak(block)).cast()
}

#[cold]
fn free(block: NonNull<u8>, size: u32) {
    poison::lift(block.as_ptr(), size as usize);
    let slice = NonNull::slice_from_raw_parts(block, size as usize);
    // SAFETY: every block of a pool comes from `Box::leak` of a boxed slice of `size` bytes, and is
    // either in `spare` or in one lease, so it is freed once.
    drop(unsafe { Box::from_raw(slice.as_ptr()) });
}
